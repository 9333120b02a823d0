"""Which adapter a run gets, what it is called, and solved examples before short prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shipped import Loads, install_loader, ship_all

from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.pipeline.plan import encoder_of
from nlpkit.apps.tasks.table import load_task
from nlpkit.eval.data.datasets import load_dataset
from nlpkit.eval.data.fewshot import draw_shots
from nlpkit.eval.runs.evaluation import choose_adapter
from nlpkit.eval.runs.suite import load_suite

Cli = Callable[..., Any]
Write = Callable[[str, Any], str]


@pytest.fixture
def loads(fake_eval: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    ship_all(tmp_path / "shipped", monkeypatch)
    monkeypatch.chdir(tmp_path)
    return install_loader(fake_eval.EvalModel, monkeypatch)


def run(cli: Cli, data: str, *more: str, task: str = "translation") -> Any:
    return cli("eval", "run", task, "-d", data, "--metric", "length_words", "--json", *more)


def test_by_default_the_tasks_own(cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]) -> None:
    found = run(cli, write_jsonl("d.jsonl", pairs))
    record = json.loads(found.out)
    assert loads.names == [("default", "translation")]
    assert record["name"] == "default+translation"
    assert Path(record["folder"]).name == "translation-d-default+translation"
    assert record["example_prompt"] == [{"role": "brief", "content": f"German: {pairs[0]['source']}\n"}]
    (model,) = loads.models
    assert model.decode(model.requests[0].prompt_ids).startswith("German: ")


def test_none_another_model_and_another_language(cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]) -> None:
    data = write_jsonl("d.jsonl", pairs)
    assert run(cli, data, "--adapter", "none").code == 0
    assert run(cli, data, "--model", "shipped").code == 0
    found = run(cli, write_jsonl("es.jsonl", [{**row, "target_lang": "es"} for row in pairs]))
    assert found.code == 2
    assert "not to translate from English to Spanish" in found.err
    assert [adapter for _, adapter in loads.names] == [None, None]
    found = run(cli, data, "--model", "default", "--model", "shipped", "-o", "both")
    assert loads.names[2:] == [("default", "translation"), ("shipped", None)]
    assert [json.loads(line)["name"] for line in found.out.splitlines()] == ["default+translation", "shipped"]


def test_a_run_of_two_systems_is_refused(cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]) -> None:
    rows = [{"document": "It rains."}, {"document": "It rains. It pours.", "length": "long"}]
    data = write_jsonl("d.jsonl", rows)
    found = run(cli, data, task="summarization")
    assert found.code == 2
    assert "d.jsonl:1 is a row for the adapter 'summarization' of default" in found.err
    assert "d.jsonl:2 is one for the model without it" in found.err
    assert loads.names == []
    for name in ("none", "summarization"):
        assert run(cli, data, "--adapter", name, task="summarization").code == 0
    assert loads.names == [("default", None), ("default", "summarization")]


def test_languages_that_nothing_learned_are_refused(
    cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]
) -> None:
    rows = [pairs[0], {**pairs[1], "target_lang": "es"}, {**pairs[2], "target_lang": "fr"}]
    found = run(cli, write_jsonl("d.jsonl", rows))
    assert found.code == 2
    assert "d.jsonl:2: What is shipped cannot do this" in found.err
    assert loads.names == []


def test_rows_that_cannot_be_used_decide_nothing(cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]) -> None:
    data = write_jsonl("d.jsonl", [{"source": "x"}, pairs[0]])
    assert run(cli, data, "--keep-going").code == 3
    assert loads.names == [("default", "translation")]


def test_a_length_is_asked_of_the_bare_model(cli: Cli, loads: Loads, write_jsonl: Write) -> None:
    rows = [{"document": "It rains. It pours.", "length": "long"}] * 2
    assert run(cli, write_jsonl("d.jsonl", rows), task="summarization").code == 0
    assert run(cli, write_jsonl("s.jsonl", [{"document": "It rains."}]), task="summarization").code == 0
    assert loads.names == [("default", None), ("default", "summarization")]


class TestShots:
    def test_short_examples_stand_a_blank_line_apart(
        self, cli: Cli, loads: Loads, write_jsonl: Write, pairs: list[Any]
    ) -> None:
        found = run(
            cli, write_jsonl("d.jsonl", pairs[20:]), "--shots", "2", "--shots-from", write_jsonl("s.jsonl", pairs[:9])
        )
        record = json.loads(found.out)
        assert record["name"] == "default+translation, 2 shots"
        (prompt,) = record["example_prompt"]
        *shots, own = prompt["content"].split("\n\n")
        assert own == f"German: {pairs[20]['source']}\n"
        assert len(shots) == 2
        for shot in shots:
            source, _, answer = shot.removeprefix("German: ").partition("\n ")
            assert {"source": source, "target": answer, "target_lang": "de", "source_lang": "en"} in pairs[:9]
        model = loads.models[0]
        assert model.decode(model.requests[0].prompt_ids).count("German: ") == 3

    def test_an_example_without_a_short_form_takes_it_from_all(
        self, loads: Loads, write_jsonl: Write, fakes: Any
    ) -> None:
        task = load_task("summarization")
        rows = [{"document": f"Text {n}. More.", "summary": "A text.", "length": "long"} for n in range(3)]
        shots = draw_shots(load_dataset([write_jsonl("s.jsonl", rows)], task), task, count=1, seed=0)
        lm = fakes.FakeModel()
        lm.learned_tasks = frozenset({"summarization"})
        example = task.prepare({"document": "It rains."})
        encoder = encoder_of(lm, partial(shots.solved, task))
        assert encoder_of(lm).short(task, example) is not None
        assert encoder.short(task, example) is None
        assert [entry["role"] for entry in encoder.describe(task, example)] == ["user", "assistant", "user"]


def test_a_suite_finds_shipped_adapters_beside_a_folder_of_that_name(
    tmp_path: Path, write_jsonl: Write, pairs: list[Any], loads: Loads
) -> None:
    write_jsonl("pairs.jsonl", pairs)
    (tmp_path / "translation").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter_config.json").write_text("{}")
    (tmp_path / "suite.toml").write_text(
        '[[evaluations]]\ntask = "translation"\ndata = "pairs.jsonl"\n'
        'models = [{ adapter = "translation" }, { adapter = "none" }, { adapter = "mine" }]\n'
    )
    ((_, evaluation),) = load_suite(str(tmp_path / "suite.toml")).evaluations
    assert [model.adapter for model in evaluation.models] == ["translation", "none", str(tmp_path / "mine")]
    names = [None if c.adapter is None else c.adapter.path.name for c in evaluation.prepare().choices]
    assert names == ["translation", None, "mine"]
    assert evaluation.prepare().choices[0].adapter.path.parent.name == "shipped"  # type: ignore[union-attr]


def test_a_row_that_the_task_refuses_chooses_nothing(write_jsonl: Write, loads: Loads) -> None:
    rows = [{"source": "Hello."}, {"source": "Hello.", "target_lang": "de"}]
    data = load_dataset([write_jsonl("some.jsonl", rows)], load_task("translation"), keep_going=True)
    assert [row.prepared is None for row in data.rows] == [True, False]
    choice = choose_adapter(ModelSpec(), load_task("translation"), data)
    assert choice.adapter is not None
    assert choice.adapter.name == "translation"
