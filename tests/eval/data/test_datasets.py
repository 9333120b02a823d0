"""Loading data: each format becomes rows of the task, and a bad row is named."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.data.parquet import parquet_files
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.errors import ConfigError, InputError, NlpkitError
from nlpkit.eval.data.datasets import DataOptions, load_dataset

Write = Callable[[str, Any], str]

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Sea",
            "paragraphs": [
                {
                    "context": "The sea is blue. It is deep.",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "What colour is the sea?",
                            "answers": [{"text": "blue", "answer_start": 11}, {"text": "blue", "answer_start": 11}],
                        },
                        {
                            "id": "q2",
                            "question": "Who owns it?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "deep", "answer_start": 23}],
                        },
                    ],
                }
            ],
        }
    ],
}


def examples(dataset: Any) -> list[dict[str, Any]]:
    return [dict(row.example) for row in dataset.rows]


def test_jsonl_plain_and_packed(write_jsonl: Write, pairs: list[Any], tmp_path: Path) -> None:
    task = load_task("translation")
    plain = write_jsonl("d.jsonl", pairs)
    packed = tmp_path / "p.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    one, two = load_dataset([plain], task), load_dataset([str(packed)], task)
    assert examples(one) == examples(two) == pairs
    assert one.sha256 == two.sha256
    assert one.files[0]["sha256"] == hashlib.sha256(Path(plain).read_bytes()).hexdigest()
    assert two.files[0]["sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert (one.name, two.name) == ("d", "p")
    assert [row.id for row in one.rows[:2]] == ["0", "1"]


def test_several_files_are_one_data_set(write_jsonl: Write, pairs: list[Any]) -> None:
    data = load_dataset(
        [write_jsonl("a.jsonl", pairs[:3]), write_jsonl("b.jsonl", pairs[3:5])], load_task("translation")
    )
    assert [row.index for row in data.rows] == [0, 1, 2, 3, 4]
    assert len(data.files) == 2
    assert data.rows[3].where.endswith("b.jsonl:1")


def test_squad_json(tmp_path: Path) -> None:
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(SQUAD))
    data = load_dataset([str(path)], load_task("qa"))
    first, second = examples(data)
    assert first["answers"] == ["blue"]
    assert first["context"].startswith("The sea")
    assert second["answers"] == []
    assert [row.id for row in data.rows] == ["q1", "q2"]
    assert data.rows[1].where == f"{path}: data[0].paragraphs[0].qas[1]"
    assert data.format == "squad"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v["data"][0]["paragraphs"][0]["qas"][1].update(id="q1"), r"qas\[1\]: 'id' is 'q1'"),
        (lambda v: v["data"][0]["paragraphs"][0]["qas"][0].pop("question"), r"qas\[0\]: a question needs"),
        (lambda v: v["data"][0]["paragraphs"][0].pop("context"), "no 'context'"),
        (lambda v: v["data"][0].pop("paragraphs"), r"data\[0\] has no list named 'paragraphs'"),
        (lambda v: v.pop("data"), "a list named 'data'"),
        (lambda v: v["data"][0]["paragraphs"][0]["qas"][0].update(answers=["blue"]), "needs a 'text'"),
        (lambda v: v["data"][0]["paragraphs"][0]["qas"][0].update(question=" "), "'question' is empty"),
    ],
)
def test_malformed_squad_is_named(tmp_path: Path, change: Callable[[Any], Any], says: str) -> None:
    values = json.loads(json.dumps(SQUAD))
    change(values)
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=says):
        load_dataset([str(path)], load_task("qa"))


def test_parallel_text(tmp_path: Path) -> None:
    source, first, second = tmp_path / "test.en", tmp_path / "ref.a.de", tmp_path / "ref.b.de"
    source.write_text("a dog\nline with \u2028 separator\r\nthe end", encoding="utf-8")
    first.write_text("ein Hund\nZeile\nEnde\n", encoding="utf-8")
    second.write_text("Hund\nLinie\nSchluss\n", encoding="utf-8")
    task = load_task("translation")
    values = {"target_lang": "de", "source_lang": "en"}
    one = load_dataset([str(source)], task, options=DataOptions(references=(str(first),), values=values))
    assert examples(one)[1] == {"source": "line with \u2028 separator", "target": "Zeile", **values}
    assert len(one.files) == 2
    two = load_dataset([str(source)], task, options=DataOptions(references=(str(first), str(second)), values=values))
    assert task.target(two.rows[0].prepared.example).accepted == ("ein Hund", "Hund")  # type: ignore[union-attr]
    first.write_text("ein Hund\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"3 lines and .* has 1"):
        load_dataset([str(source)], task, options=DataOptions(references=(str(first),), values=values))
    source.write_text("a dog\n\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.en:2: 'source' is empty"):
        load_dataset([str(source)], task, options=DataOptions(format="text", values=values))


def test_tables_with_other_column_names(tmp_path: Path) -> None:
    tsv = tmp_path / "d.tsv"
    tsv.write_text('english\tgerman\na "dog"\tein Hund\n', encoding="utf-8")
    options = DataOptions(columns={"source": "english", "target": "german"}, values={"target_lang": "de"})
    data = load_dataset([str(tsv)], load_task("translation"), options=options)
    assert examples(data)[0]["source"] == 'a "dog"'
    assert examples(data)[0]["target"] == "ein Hund"
    csv = tmp_path / "d.csv"
    csv.write_text('article,highlights\n"one, two\nthree",short\n', encoding="utf-8")
    data = load_dataset([str(csv)], load_task("summarization"))
    assert examples(data)[0]["document"] == "one, two\nthree"
    assert examples(data)[0]["summary"] == "short"
    with pytest.raises(InputError, match=r"d\.tsv:2: the row has no column 'englisch'"):
        load_dataset([str(tsv)], load_task("translation"), options=DataOptions(columns={"source": "englisch"}))
    with pytest.raises(ConfigError, match="Did you mean 'source'"):
        load_dataset([str(tsv)], load_task("translation"), options=DataOptions(columns={"sorce": "english"}))


def test_rows_as_the_hub_stores_them(write_jsonl: Write) -> None:
    rows = [{"translation": {"de": "ein Hund", "en": "a dog"}}]
    options = DataOptions(values={"target_lang": "de"})
    data = load_dataset([write_jsonl("w.jsonl", rows)], load_task("translation"), options=options)
    assert examples(data)[0] == {"source": "a dog", "target": "ein Hund", "source_lang": "en", "target_lang": "de"}
    rows = [{"context": "c c", "question": "q?", "answers": {"text": ["c"], "answer_start": [0]}}]  # type: ignore[dict-item]
    data = load_dataset([write_jsonl("q.jsonl", rows)], load_task("qa"))
    assert examples(data)[0]["answers"] == ["c"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"source": "a", "target_lang": "de"}, {"target_lang": "de"}], r"d\.jsonl:2: the row has no 'source'"),
        ([{"source": "a", "target_lang": "xyzzy"}], r"d\.jsonl:1: .*xyzzy"),
        ([{"source": "a", "target_lang": "de", "id": 1}] * 2, r"d\.jsonl:2: 'id' is 1, as on line 1"),
        ([{"source": ["a"], "target_lang": "de"}], r"d\.jsonl:1: 'source' must be a string"),
        ([], "no rows"),
    ],
)
def test_bad_rows_are_named(write_jsonl: Write, rows: list[Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_dataset([write_jsonl("d.jsonl", rows)], load_task("translation"))


def test_bad_rows_can_be_kept(write_jsonl: Write, pairs: list[Any]) -> None:
    pairs[1] = {"target_lang": "de"}
    data = load_dataset([write_jsonl("d.jsonl", pairs)], load_task("translation"), keep_going=True)
    assert isinstance(data.rows[1].example, NlpkitError)
    assert len(data.rows) == 40


def test_selection(write_jsonl: Write, pairs: list[Any]) -> None:
    data = load_dataset([write_jsonl("d.jsonl", pairs)], load_task("translation"))
    assert [row.index for row in data.limit(3).rows] == [0, 1, 2]
    shards = [[row.index for row in data.shard(number, 3).rows] for number in (1, 2, 3)]
    assert sorted(index for shard in shards for index in shard) == list(range(40))
    assert shards[1][:3] == [1, 4, 7]
    assert data.limit(5).shard(2, 2).describe()["selection"] == {"limit": 5, "shard": "2/2"}
    assert len({data.sha256, data.limit(3).sha256, data.shard(1, 3).sha256}) == 3
    with pytest.raises(ConfigError, match="shard 4 of 3"):
        data.shard(4, 3)
    with pytest.raises(ConfigError, match="limit is 0"):
        data.limit(0)
    with pytest.raises(InputError, match="none is left"):
        data.limit(2).shard(3, 3)


def test_what_cannot_be_told_or_does_not_go_together(tmp_path: Path, write_jsonl: Write, pairs: list[Any]) -> None:
    task = load_task("translation")
    odd = tmp_path / "data.xyz"
    odd.write_text("a\n")
    with pytest.raises(ConfigError, match="cannot be told"):
        load_dataset([str(odd)], task)
    with pytest.raises(ConfigError, match="standard input"):
        load_dataset(["-"], task)
    with pytest.raises(ConfigError, match="no data"):
        load_dataset([], task)
    with pytest.raises(ConfigError, match="--references goes with plain text"):
        load_dataset([write_jsonl("d.jsonl", pairs)], task, options=DataOptions(references=("x",)))
    with pytest.raises(ConfigError, match="--split"):
        load_dataset([write_jsonl("d.jsonl", pairs)], task, options=DataOptions(split="test"))
    with pytest.raises(ConfigError, match="more columns than lines of text"):
        load_dataset([str(odd)], load_task("qa"), options=DataOptions(format="text"))
    with pytest.raises(InputError, match="no file"):
        load_dataset([str(tmp_path / "none.jsonl")], task)


class TestParquet:
    def test_splits_of_a_folder(self, tmp_path: Path) -> None:
        names = ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"]
        (tmp_path / "data").mkdir()
        for name in names:
            (tmp_path / "data" / f"{name}.parquet").touch()
        assert [file.stem for file in parquet_files(str(tmp_path), "train")] == names[:2]
        assert [file.stem for file in parquet_files(str(tmp_path), "validation")] == names[2:]
        with pytest.raises(ConfigError, match="several splits: train, validation"):
            parquet_files(str(tmp_path), None)
        with pytest.raises(ConfigError, match="Did you mean 'train'"):
            parquet_files(str(tmp_path), "trian")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"no \.parquet"):
            parquet_files(str(tmp_path / "empty"), None)

    def test_splits_by_folder(self, tmp_path: Path) -> None:
        for split in ("test", "train"):
            (tmp_path / split).mkdir()
            (tmp_path / split / "0000.parquet").touch()
        assert [file.parent.name for file in parquet_files(str(tmp_path), "test")] == ["test"]

    def test_without_pyarrow_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = builtins.__import__

        def missing(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("pyarrow"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        (tmp_path / "d.parquet").touch()
        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(ConfigError, match=r"nlpkit\[parquet\]"):
            load_dataset([str(tmp_path / "d.parquet")], load_task("qa"))

    def test_rows(self, tmp_path: Path) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            pytest.skip("pyarrow is not installed: pip install 'nlpkit[parquet]'")
        import pyarrow
        import pyarrow.parquet

        rows = [
            {"id": str(n), "context": f"c {n}", "question": "q?", "answers": {"text": [f"c {n}"], "answer_start": [0]}}
            for n in range(5)
        ]
        for number, part in enumerate((rows[:3], rows[3:])):
            table = pyarrow.Table.from_pylist(part)
            pyarrow.parquet.write_table(table, tmp_path / f"test-{number:05}-of-00002.parquet")
        data = load_dataset([str(tmp_path)], load_task("qa"), options=DataOptions(split="test"))
        assert [example["answers"] for example in examples(data)] == [[f"c {n}"] for n in range(5)]
        assert data.rows[4].where.endswith("test-00001-of-00002.parquet:2")
        assert len(data.files) == 2
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
        with pytest.raises(InputError, match="not a usable parquet"):
            load_dataset([str(tmp_path / "bad.parquet")], load_task("qa"))
