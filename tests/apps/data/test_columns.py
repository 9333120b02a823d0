"""``--map`` and ``--set``: rows with columns of other names, wherever rows are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.data.columns import mapped, parse_pairs, reach
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.training.examples import find_task, read_examples
from nlpkit.apps.training.recipe import DataSpec, build_recipe
from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.data.datasets import DataOptions, load_dataset


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"data": {"en": text}, "ask": "When?", "form": "no form"} for text in ("It was in 1815.", "In 1900.")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_names_reach_into_objects() -> None:
    values = {"a.b": 1, "a": {"b": 2, "c": {"d": 3}}}
    assert (reach(values, "a.b", "x:1"), reach(values, "a.c.d", "x:1")) == (1, 3)
    with pytest.raises(InputError, match=r"x:1: the row has no column 'a\.c\.e'\. It has: a\.b, a"):
        reach(values, "a.c.e", "x:1")


def test_lists_of_tables_are_json() -> None:
    fields = load_task("qa").fields
    row = mapped({"gold": '["a", "b"]'}, "x:2", fields=fields, columns={"answers": "gold"})
    assert row == {"gold": '["a", "b"]', "answers": ["a", "b"]}
    with pytest.raises(InputError, match=r"x:2: 'gold' is 'a'; in a table it must be a JSON list"):
        mapped({"gold": "a"}, "x:2", fields=fields, columns={"answers": "gold"})
    # As cells under the task's own names are read.
    assert mapped({"gold": ""}, "x:2", fields=fields, columns={"answers": "gold"}) == {"gold": ""}
    for cell in ("[NaN]", "[1e999]", '["\\ud800"]'):
        with pytest.raises(InputError, match="gold"):
            mapped({"gold": cell}, "x:2", fields=fields, columns={"answers": "gold"})


def test_names_that_a_task_does_not_have_are_refused_wherever_rows_are_read(
    rows: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    for spec in ({"columns": {"promt": "ask"}}, {"values": {"promt": "x"}}):
        with pytest.raises(ConfigError, match="Did you mean 'prompt'"):
            next(read_examples(DataSpec(path=str(rows), task="writing", **spec), find_task("writing")))
    with pytest.raises(ConfigError, match="it must be a name, in quotes"):
        build_recipe(
            {"output": "o", "method": "lora", "data": [{"path": str(rows), "task": "writing", "columns": {"text": 3}}]},
            {},
        )


def test_evaluation_reads_mapped_cells_as_tables_have_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('context,question,gold\nAda was born in 1815.,When?,"[""1815""]"\n')
    data = load_dataset([str(path)], load_task("qa"), options=DataOptions(columns={"answers": "gold"}))
    assert data.rows[0].example["answers"] == ["1815"]


def test_pairs() -> None:
    assert parse_pairs(["a=b=c", "d="], "--map") == {"a": "b=c", "d": ""}
    for entries, said in ((["a"], "NAME=VALUE"), (["a=1", "a=2"], "twice")):
        with pytest.raises(ConfigError, match=said):
            parse_pairs(entries, "--map")


def test_commands(rows: Path, fake_model: Any, cli: Callable[..., Any]) -> None:
    done = cli("qa", "-f", str(rows), "--map", "context=data.en", "--map", "question=ask", "--json")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 2
    done = cli("write", "-f", str(rows), "--map", "prompt=data.en", "--set", "form=poem", "--json")
    assert done.code == 0, done.err
    done = cli("write", "-f", str(rows), "--map", "prompt=data.en")
    assert done.code == 2
    assert "no form" in done.err
    for options, said in (
        (("--map", "prompt=text"), "rows.jsonl:1: the row has no column 'text'"),
        (("--map", "promt=ask"), "Did you mean 'prompt'"),
        (("--set", "promt=ask"), "Did you mean 'prompt'"),
        (("--map", "prompt"), "NAME=VALUE"),
    ):
        done = cli("generate", "-f", str(rows), *options)
        assert done.code == 2
        assert said in done.err


def test_tables(tmp_path: Path, fake_model: Any, cli: Callable[..., Any]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Text,Name\nthe cat,a\na dog,b\n")
    done = cli("generate", "-f", str(path), "--map", "prompt=Text", "--map", "id=Name", "--json")
    assert done.code == 2
    assert "no field 'id'" in done.err
    done = cli("generate", "-f", str(path), "--map", "prompt=Text", "-o", str(tmp_path / "out.csv"))
    assert done.code == 0, done.err
    assert (tmp_path / "out.csv").read_text().startswith("Text,Name,")


def test_training(rows: Path) -> None:
    spec = DataSpec(
        path=str(rows), task="generation", columns={"prompt": "ask", "text": "data.en"}, values={"prompt": "Now?"}
    )
    found = [row for _, row in read_examples(spec, find_task("generation"))]
    assert [(row["prompt"], row["text"]) for row in found] == [("Now?", "It was in 1815."), ("Now?", "In 1900.")]
