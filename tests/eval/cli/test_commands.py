"""The `nlpkit eval` commands: output, exit codes, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from nlpkit.eval.metrics.registry import metric_names

Cli = Callable[..., Any]
Write = Callable[[str, Any], str]

HYPOTHESES = [f"the man number {n} saw a {'red' if n % 3 else 'blue'} dog ."[:-2] for n in range(35)]
REFERENCES = [f"the man number {n} saw a red dog" for n in range(35)]


@pytest.fixture
def text_files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "hyp.txt").write_text("\n".join(HYPOTHESES) + "\n", encoding="utf-8")
    (tmp_path / "ref.txt").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    return str(tmp_path / "hyp.txt"), str(tmp_path / "ref.txt")


class TestRun:
    def test_table_and_json(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        data = write_jsonl("d.jsonl", pairs)
        found = cli("eval", "run", "translation", "--data", data, "-o", str(tmp_path / "r"), "--metric", "chrf,bleu")
        assert found.code == 0, found.err
        head, _, row, _, *signatures = found.out.splitlines()
        assert head.split() == ["system", "chrf", "bleu", "n", "tokens/s"]
        assert row.split()[0] == "default"
        assert [line.split(":")[0] for line in signatures] == ["chrf", "bleu"]
        assert f"written to {tmp_path / 'r'}" in found.err
        found = cli(
            "eval", "run", "translate", "-d", data, "-o", str(tmp_path / "r"), "--metric", "chrf", "--json", "-q"
        )
        record = json.loads(found.out)
        assert found.err == ""
        assert {"metric", "value", "low", "high", "signature", "n"} <= set(record["metrics"]["chrf"])
        assert record["counts"]["done"] == 40

    def test_default_folder_and_metrics(
        self,
        cli: Cli,
        eval_model: Any,
        write_jsonl: Write,
        pairs: list[Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        data = write_jsonl("dev.jsonl", pairs)
        assert cli("eval", "run", "translation", "-d", data, "--limit", "4").code == 0
        record = json.loads((tmp_path / "runs" / "translation-dev-default" / "run.json").read_text())
        assert list(record["metrics"]) == ["bleu", "chrf", "ter"]
        found = cli("eval", "run", "translation", "-d", data, "--limit", "4", "--max-tokens", "3")
        assert found.code == 2
        assert "decoding.max_tokens: null -> 3" in found.err

    def test_every_task_can_be_scored_with_its_own_metrics(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, tmp_path: Path
    ) -> None:
        rows = {
            "qa": [{"id": "a", "context": "the sea is BLUE", "question": "what?", "answers": ["BLUE"]}] * 1,
            "summarization": [{"document": "a long text", "summary": "a text"}] * 3,
            "writing": [{"prompt": f"write on {n}"} for n in range(3)],
            "generation": [{"prompt": f"go on {n}"} for n in range(3)],
        }
        for task, values in rows.items():
            found = cli("eval", "run", task, "-d", write_jsonl(f"{task}.jsonl", values), "-o", str(tmp_path / task))
            assert found.code == 0, found.err

    def test_several_models(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        data = write_jsonl("d.jsonl", pairs)
        models = ["-m", "default", "-m", "smollm2"]
        found = cli("eval", "run", "translation", "-d", data, *models, "-o", str(tmp_path / "r"), "--metric", "chrf")
        assert found.code == 0, found.err
        assert [line.split()[0] for line in found.out.splitlines()[2:4]] == ["default", "smollm2"]
        assert (tmp_path / "r" / "smollm2" / "run.json").exists()

    def test_failed_rows_exit_3_even_when_quiet(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        pairs[2]["source"] = "an OVERFLOW"
        command = ["eval", "run", "translation", "-d", write_jsonl("d.jsonl", pairs), "-o", str(tmp_path / "r"), "-q"]
        found = cli(*command, "--metric", "chrf")
        assert found.code == 3
        assert "1 of 40 rows failed" in found.err
        assert "error" not in found.out

    def test_a_metric_that_fails_exits_2_after_writing(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        pairs[2]["target"] = " "
        folder = str(tmp_path / "r")
        found = cli("eval", "run", "translation", "-d", write_jsonl("d.jsonl", pairs), "-o", folder, "--metric", "chrf")
        assert found.code == 2
        assert f"nlpkit eval rescore {folder}" in found.err
        found = cli("eval", "rescore", folder, "--metric", "length_words", "-q", "--json")
        assert found.code == 0
        assert json.loads(found.out)["metrics"]["length_words"]["value"] > 0

    def test_case_is_ignored_and_regarded_again(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        folder = str(tmp_path / "r")
        cli("eval", "run", "translation", "-d", write_jsonl("d.jsonl", pairs), "-o", folder, "--metric", "bleu", "-q")

        def signature(*options: str) -> str:
            found = cli("eval", "rescore", folder, *options, "-q", "--json")
            return str(json.loads(found.out)["metrics"]["bleu"]["signature"])

        assert "case:mixed" in signature()
        assert "case:lc" in signature("--lowercase")
        assert "case:lc" in signature()
        assert "case:mixed" in signature("--cased")

    def test_bad_rows(self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path) -> None:
        pairs[6] = {"source": "x"}
        command = ["eval", "run", "translation", "-d", write_jsonl("d.jsonl", pairs), "-o", str(tmp_path / "r")]
        found = cli(*command, "--metric", "chrf")
        assert found.code == 2
        assert "d.jsonl:7" in found.err
        assert not (tmp_path / "r").exists()
        found = cli(*command, "--metric", "chrf", "--keep-going")
        assert found.code == 3
        rows = [json.loads(line) for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
        assert "'target_lang'" in rows[6]["error"]
        assert sum(row["error"] is None for row in rows) == 39

    def test_shots_shards_and_overlap(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        test = [
            {**row, "source": f"{row['source']} {n} and then the {n + 1} others went home again"}
            for n, row in enumerate(pairs)
        ]
        data, train = write_jsonl("test.jsonl", test), write_jsonl("train.jsonl", pairs)
        common = ["eval", "run", "translation", "-d", data, "--metric", "chrf", "-q", "--json"]
        found = cli(*common, "-o", str(tmp_path / "a"), "--shots", "2", "--shots-from", train, "--shots-seed", "4")
        record = json.loads(found.out)
        assert record["task"]["shots"]["count"] == 2
        assert record["name"] == "default, 2 shots"
        assert [message["role"] for message in record["example_prompt"]].count("assistant") == 2
        leak = write_jsonl("leak.jsonl", [test[0]])
        found = cli(*common, "-o", str(tmp_path / "b"), "--exclude-overlap", leak, "--overlap-ngram", "8")
        record = json.loads(found.out)
        note = record["data"]["selection"]["exclude_overlap"]
        assert (note["excluded"], record["counts"]["rows"]) == (1, 39)
        rows = (tmp_path / "b" / "samples.jsonl").read_text().splitlines()
        assert [json.loads(line)["index"] for line in rows] == list(range(1, 40))
        for number in (1, 2):
            assert cli(*common, "-o", str(tmp_path / f"s{number}"), "--shard", f"{number}/2").code == 0
        found = cli("eval", "merge", str(tmp_path / "s1"), str(tmp_path / "s2"), "-o", str(tmp_path / "m"), "--json")
        assert found.code == 0, found.err
        assert json.loads(found.out)["counts"]["done"] == 40

    def test_missing_references_are_told_before_anything_runs(
        self, cli: Cli, eval_model: Any, write_jsonl: Write, pairs: list[Any], tmp_path: Path
    ) -> None:
        del pairs[2]["target"]
        folder = str(tmp_path / "r")
        found = cli("eval", "run", "translation", "-d", write_jsonl("d.jsonl", pairs), "-o", folder)
        assert found.code == 2
        assert "d.jsonl:3: the row has no reference, which bleu needs; 1 of 40 rows" in found.err
        rows = [{"context": "the sea is BLUE", "question": "what?"}]
        found = cli("eval", "run", "qa", "-d", write_jsonl("q.jsonl", rows), "-o", folder)
        assert found.code == 2
        assert "q.jsonl:1: the row has no reference, which squad_f1 needs" in found.err
        assert eval_model.requests == []

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--shots", "2"], "--shots-from"),
            (["--shard", "3"], "must be a number and a count"),
            (["--set", "target_lang"], "NAME=VALUE"),
            (["--metric", "blue"], "Did you mean 'bleu'"),
            (["--metric", "chrf", "--stemmer"], "takes stemmer"),
            (["--temperature", "-1"], "temperature"),
            (["-m", "no-such-model"], "no-such-model"),
        ],
    )
    def test_mistakes_exit_2(
        self,
        cli: Cli,
        eval_model: Any,
        write_jsonl: Write,
        pairs: list[Any],
        tmp_path: Path,
        options: list[str],
        says: str,
    ) -> None:
        data = write_jsonl("d.jsonl", pairs)
        found = cli("eval", "run", "translation", "-d", data, "-o", str(tmp_path / "r"), *options)
        assert found.code == 2
        assert says in found.err
        assert found.out == ""
        assert not (tmp_path / "r").exists()


class TestScore:
    def test_plain_text_equals_sacrebleu(self, cli: Cli, text_files: tuple[str, str]) -> None:
        ours, theirs = text_files
        found = cli("eval", "score", "bleu", "chrf", "--predictions", ours, "--references", theirs, "--json")
        assert found.code == 0, found.err
        bleu, chrf = [json.loads(line) for line in found.out.splitlines()]
        assert set(bleu) == {"metric", "value", "low", "high", "signature", "n"}
        wanted = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
        assert bleu["value"] == pytest.approx(wanted.score, abs=1e-10)
        assert chrf["value"] == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, abs=1e-10)
        assert bleu["n"] == 35
        assert bleu["low"] < bleu["value"] < bleu["high"]
        table = cli("eval", "score", "bleu", "-p", ours, "-r", theirs).out
        assert f"{wanted.score:.2f}" in table
        assert bleu["signature"] in table

    def test_jsonl_matches_by_id(self, cli: Cli, write_jsonl: Write) -> None:
        predictions = write_jsonl("p.jsonl", [{"id": n, "prediction": text} for n, text in enumerate(HYPOTHESES)])
        references = write_jsonl(
            "r.jsonl", [{"id": n, "reference": text} for n, text in reversed(list(enumerate(REFERENCES)))]
        )
        found = cli("eval", "score", "bleu", "-p", predictions, "-r", references, "--json")
        assert json.loads(found.out)["value"] == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)

    def test_several_references(
        self, cli: Cli, tmp_path: Path, text_files: tuple[str, str], write_jsonl: Write
    ) -> None:
        ours, theirs = text_files
        other = [text.replace("man", "person") for text in REFERENCES]
        (tmp_path / "other.txt").write_text("\n".join(other) + "\n")
        found = cli("eval", "score", "bleu", "-p", ours, "-r", theirs, "-r", str(tmp_path / "other.txt"), "--json")
        wanted = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES, other]).score
        assert json.loads(found.out)["value"] == pytest.approx(wanted)
        assert "nrefs:2" in json.loads(found.out)["signature"]
        rows = [{"references": list(both)} for both in zip(REFERENCES, other, strict=True)]
        found = cli("eval", "score", "bleu", "-p", ours, "-r", write_jsonl("r.jsonl", rows), "--json")
        assert json.loads(found.out)["value"] == pytest.approx(wanted)

    def test_squad_files(self, cli: Cli, tmp_path: Path, write_jsonl: Write) -> None:
        answers = write_jsonl("a.jsonl", [{"id": "x", "answers": ["the blue sea", "sea"]}, {"id": "y", "answers": []}])
        (tmp_path / "p.json").write_text(json.dumps({"x": "Blue sea!", "y": ""}))
        command = ["eval", "score", "exact_match", "squad_f1", "-p", str(tmp_path / "p.json"), "-r", answers, "--json"]
        assert [json.loads(line)["value"] for line in cli(*command).out.splitlines()] == [100.0, 100.0]
        (tmp_path / "p.json").write_text(json.dumps({"x": "red", "y": "something"}))
        assert [json.loads(line)["value"] for line in cli(*command).out.splitlines()] == [0.0, 0.0]

    def test_language(self, cli: Cli, tmp_path: Path) -> None:
        for name in ("p.txt", "r.txt"):
            (tmp_path / name).write_text("你好世界\n我爱你\n" * 3, encoding="utf-8")
        options = ["-p", str(tmp_path / "p.txt"), "-r", str(tmp_path / "r.txt"), "--json"]
        assert "tok:zh" in cli("eval", "score", "bleu", *options, "--lang", "zh").out
        assert "tok:13a" in cli("eval", "score", "bleu", *options).out

    def test_metrics_without_references(self, cli: Cli, text_files: tuple[str, str]) -> None:
        found = cli("eval", "score", "distinct1", "self_bleu", "repetition", "-p", text_files[0], "--json")
        assert found.code == 0, found.err
        assert len(found.out.splitlines()) == 3

    def test_no_references_are_not_the_same_as_no_answer(
        self, cli: Cli, text_files: tuple[str, str], write_jsonl: Write
    ) -> None:
        found = cli("eval", "score", "exact_match", "-p", text_files[0])
        assert found.code == 2
        assert "--references" in found.err
        rows = write_jsonl("p.jsonl", [{"prediction": "", "answers": []}] * 2)
        assert json.loads(cli("eval", "score", "exact_match", "-p", rows, "--json").out)["value"] == 100.0

    def test_likelihoods(self, cli: Cli, write_jsonl: Write) -> None:
        rows = [{"prediction": "ab", "logprob": -2.0, "n_tokens": 2, "n_bytes": 2}] * 3
        path = write_jsonl("p.jsonl", rows)
        found = cli("eval", "score", "perplexity", "bits_per_byte", "-p", path, "--json")
        values = [json.loads(line)["value"] for line in found.out.splitlines()]
        assert values == pytest.approx([2.718281828, 1.442695041])

    def test_every_metric_of_the_contract_has_a_name(self) -> None:
        wanted = (
            "bleu chrf chrf++ ter rouge1 rouge2 rougeL rougeLsum exact_match squad_f1 accuracy macro_f1 micro_f1 mcc "
            "span_f1 perplexity bits_per_byte distinct1 distinct2 self_bleu repetition"
        )
        assert set(wanted.split()) <= set(metric_names())

    @pytest.mark.parametrize(
        ("predictions", "references", "says"),
        [
            ([{"prediction": "a"}], [{"reference": "a"}] * 2, "1 predictions and .* 2 references"),
            ([{"id": 1, "prediction": "a"}], [{"id": 2, "reference": "a"}], "the first one '1'"),
            (
                [{"id": 1, "prediction": "a"}],
                [{"id": 1, "reference": "a"}, {"id": 2, "reference": "b"}],
                "no prediction",
            ),
            ([{"prediction": None}], [{"reference": "a"}], r"p\.jsonl:1: 'prediction' must be a string"),
            ([{"prediction": "a"}], [{"ref": "a"}], r"r\.jsonl:1: the row has none of"),
            ([{"prediction": "a"}], [{"reference": 3}], "must be a string or a list"),
            ([{"prediction": "a"}], [{"reference": " "}], "bleu could not be computed"),
            ([{"id": 1, "prediction": "a"}, {"prediction": "a"}], [{"reference": "a"}], "has no 'id'"),
        ],
    )
    def test_mistakes(
        self, cli: Cli, write_jsonl: Write, predictions: list[Any], references: list[Any], says: str
    ) -> None:
        import re

        paths = ["-p", write_jsonl("p.jsonl", predictions), "-r", write_jsonl("r.jsonl", references)]
        found = cli("eval", "score", "bleu", *paths)
        assert found.code == 2
        assert re.search(says, found.err), found.err
        assert found.out == ""


class TestOthers:
    def test_score_compare_report(self, cli: Cli, tmp_path: Path, text_files: tuple[str, str]) -> None:
        ours, theirs = text_files
        folders = [str(tmp_path / "a"), str(tmp_path / "b")]
        for folder, predictions in zip(folders, (ours, theirs), strict=True):
            found = cli("eval", "score", "bleu", "chrf", "-p", predictions, "-r", theirs, "-o", folder, "-q")
            assert found.code == 0, found.err
        found = cli("eval", "compare", *folders, "--metric", "bleu", "--trials", "500")
        assert found.code == 0, found.err
        assert "bleu on 35 rows, higher is better" in found.out
        assert "(baseline)" in found.out
        found = cli("eval", "compare", *folders, "--json", "--test", "bootstrap")
        values = json.loads(found.out)
        assert list(values["metrics"][0]["systems"][1]["p_values"]) == ["bootstrap"]
        page = tmp_path / "r.html"
        found = cli("eval", "report", *folders, "-o", str(page), "--title", "My <title>")
        assert found.code == 0, found.err
        assert "My &lt;title&gt;" in page.read_text(encoding="utf-8")
        assert cli("eval", "report", *folders, "-o", str(tmp_path / "r.pdf")).code == 2
        assert cli("eval", "compare", folders[0]).code == 2
        assert "not a run directory" in cli("eval", "compare", folders[0], str(tmp_path)).err

    def test_contamination(self, cli: Cli, write_jsonl: Write) -> None:
        words = [f"w{n}" for n in range(40)]
        test = [
            {"id": "planted", "document": " ".join(words[:20]), "summary": "x y"},
            {
                "id": "nine",
                "document": "other " + " ".join(words[20:29]) + " end of the text here it is",
                "summary": "x y",
            },
            {"id": "clean", "document": "nothing in common with the training data at all my friend", "summary": "x y"},
            {"id": "short", "document": "too short", "summary": "x y"},
        ]
        train = write_jsonl("train.jsonl", [{"document": " ".join(words), "summary": "a b"}])
        path = write_jsonl("test.jsonl", test)
        found = cli("eval", "contamination", "--train", train, "--test", path, "--json")
        assert found.code == 0, found.err
        thirteen, eight = [json.loads(line) for line in found.out.splitlines()]
        assert (thirteen["n"], thirteen["overlapping"], thirteen["share"]) == (13, 1, 0.25)
        assert (eight["n"], eight["overlapping"]) == (8, 2)
        assert eight["by_column"] == {"document": 2}
        assert thirteen["too_short"] == 2
        found = cli("eval", "contamination", "--train", train, "--test", path, "--list", "--ngram", "8")
        assert "row planted" in found.out
        assert "row nine" in found.out
        assert "row clean" not in found.out
        found = cli("eval", "contamination", "--train", train, "--test", path, "--column", "none")
        assert found.code == 2
        assert "--column" in found.err

    def test_contamination_of_plain_text(self, cli: Cli, tmp_path: Path) -> None:
        text = "one two three four five six seven eight nine ten"
        (tmp_path / "train.txt").write_text(f"zero {text}\n")
        (tmp_path / "test.txt").write_text(f"{text.upper()}!\nsomething else\n")
        found = cli(
            "eval",
            "contamination",
            "--train",
            str(tmp_path / "train.txt"),
            "--test",
            str(tmp_path / "test.txt"),
            "--json",
        )
        assert [json.loads(line)["overlapping"] for line in found.out.splitlines()] == [0, 1]

    def test_help_imports_nothing_heavy(self) -> None:
        script = (
            "import sys; from nlpkit.cli import main; code = main(['eval', 'run', '--help']);"
            "heavy = {'torch', 'transformers', 'numpy', 'sacrebleu', 'jinja2'} & set(sys.modules);"
            "assert not heavy, heavy; sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--exclude-overlap" in done.stdout

    def test_scoring_imports_no_torch(self, text_files: tuple[str, str]) -> None:
        arguments = ["eval", "score", "bleu", "rouge1", "squad_f1", "-p", text_files[0], "-r", text_files[1]]
        script = (
            f"import sys; from nlpkit.cli import main; code = main({arguments!r}); assert 'torch' not in sys.modules;"
            "sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
