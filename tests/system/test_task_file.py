"""A task in one file of the user's: run, trained on and evaluated, and nothing else touched."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nlpkit
from nlpkit.apps.tasks import table
from nlpkit.apps.tasks.table import file_sha256, load_task, run_task_file
from nlpkit.core.errors import ConfigError

Cli = Callable[..., Any]
FILE = '''"""Says the opposite."""

import nlpkit


class Opposite(nlpkit.Task):
    """Says the opposite of a word."""

    name = "opposite"
    fields = (
        nlpkit.Field("word", help="the word"),
        nlpkit.Field("tone", required=False, role="option", help="polite or rude"),
        nlpkit.Field("hints", list, required=False, help="words that may help"),
        nlpkit.Field("opposite", required=False, role="reference", aliases=("answer",), help="its opposite"),
    )
    metrics = ("exact_match",)
    options = nlpkit.DecodeConfig(max_tokens=6, stop=("\\n",))

    def prompt(self, example):
        hints = "".join(f" ({hint})" for hint in example.get("hints") or [])
        ask = f"{example.get('tone') or 'polite'}: {example['word']}{hints}"
        return nlpkit.Prompt(f"The opposite, {ask}", short=f"{example['word']} -")

    def target(self, example):
        return nlpkit.Target(example["opposite"]) if example.get("opposite") else None
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(table, "_FILES", {})
    path = tmp_path / "opposite.py"
    path.write_text(FILE)
    yield str(path)
    for name in [name for name in sys.modules if name.startswith("nlpkit_task_")]:
        del sys.modules[name]


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    pairs = [("hot", "cold"), ("old", "young"), ("big", "small"), ("left", "right")] * 4
    path.write_text("".join(json.dumps({"word": a, "answer": b, "opposite": b}) + "\n" for a, b in pairs))
    return str(path)


def asked(model: Any) -> list[str]:
    return [model.decode(request.prompt_ids) for request in model.requests]


def test_it_runs_with_its_fields(cli: Cli, fake_model: Any, file: str, tmp_path: Path) -> None:
    done = cli("run", file, "hot", "--set", "tone=rude", "--set", "hints=a", "--set", "hints=b", "--json")
    assert done.code == 0, done.err
    assert asked(fake_model) == ["The opposite, rude: hot (a) (b)"]
    assert [path.name for path in Path(file).parent.iterdir() if path.name == "__pycache__"] == []
    record = json.loads(done.out)
    assert (record["prediction"], record["finish_reason"]) == ("THE OP", "length")
    # A pipe, a file of rows, and the text among the fields.
    assert cli("run", file, stdin=b"old").code == 0
    assert cli("run", file, "--set", "word=big").code == 0
    (tmp_path / "r.jsonl").write_text('{"word": "left"}\n{"word": "wet", "tone": "rude"}\n')
    assert len(cli("run", file, "-f", str(tmp_path / "r.jsonl"), "--json").out.splitlines()) == 2
    assert set(asked(fake_model)[1:]) == {
        "The opposite, polite: old", "The opposite, polite: big", "The opposite, polite: left",
        "The opposite, rude: wet",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "tne=rude"), "has no field 'tne'. Did you mean 'tone'?"),
        (("--set", "tone"), "write NAME=VALUE"),
        (("--set", "tone=a", "--set", "tone=b"), "given twice"),
        (("--set", "hints=[1"), "is not JSON"),
    ],
)
def test_wrong_fields_are_named(cli: Cli, fake_model: Any, file: str, options: tuple[str, ...], message: str) -> None:
    done = cli("run", file, "hot", *options)
    assert done.code == 2
    assert message in done.err
    assert fake_model.requests == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "must hold one task, a class that builds on nlpkit.Task; it has none"),
        ("def f(:", "cannot be run: SyntaxError"),
        ("raise ValueError('no')", "cannot be run: ValueError: no"),
        ("import sys; sys.exit(0)", "cannot be run: SystemExit"),
        (FILE + "\n\nclass Other(nlpkit.Task):\n    name = 'o'\n", "it has Opposite, Other"),
        (FILE.replace('name = "opposite"', 'name = "qa"'), "is called 'qa', as one of nlpkit's own is"),
        (FILE.replace('metrics = ("exact_match",)', ""), "has no metrics"),
    ],
    ids=["no task", "syntax", "error", "end", "two", "taken", "incomplete"],
)
def test_a_file_without_one_task_is_refused(cli: Cli, fake_model: Any, file: str, content: str, message: str) -> None:
    Path(file).write_text(content)
    done = cli("run", file, "hot")
    assert (done.code, message in done.err) == (2, True), done.err
    assert cli("run", file + "x.py", "hot").code == 2


def test_only_the_command_line_runs_a_file(file: str, tmp_path: Path, cli: Cli, rows: str) -> None:
    with pytest.raises(ConfigError, match="only a file that is named on the command line"):
        load_task(file)
    config = tmp_path / "c.toml"
    config.write_text(
        f'task = "{file}"\ndata = "{rows}"\noutput = "{tmp_path / "o"}"\nmethod = "scratch"\npreset = "5m"'
    )
    done = cli("train", "--config", str(config))
    assert done.code == 2
    assert "only a file that is named on the command line" in done.err
    task = run_task_file(file)
    assert type(load_task(file)) is type(task)
    assert file_sha256(task) is not None
    assert file_sha256(load_task("qa")) is None


def test_it_is_trained_and_evaluated(cli: Cli, file: str, rows: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    done = cli(
        "train", "--task", file, "--data", rows, "--eval-data", rows, "--output", str(model), "--preset", "5m",
        "--method", "scratch", "--prompts", "brief", "--max-steps", "60", "--batch-size", "4", "--seq-len", "64",
        "--lr", "0.003", "--compile", "off", "--vocab-size", "300", "--eval-metric", "exact_match",
    )  # fmt: skip
    assert done.code == 0, done.err
    # What was learned is data beside the weights: the short prompt is asked by the task's name.
    assert json.loads((model / "nlpkit_tasks.json").read_text())["brief_prompts"] == ["opposite"]
    run = tmp_path / "run"
    done = cli("eval", "run", file, "-d", rows, "--model", str(model), "-o", str(run), "--limit", "4", "--json")
    assert done.code == 0, done.err
    record = json.loads((run / "run.json").read_text())
    assert record["task"]["name"] == "opposite"
    assert record["task"]["file_sha256"] == file_sha256(load_task(file))
    assert record["example_prompt"] == [{"role": "brief", "content": "hot -"}]
    assert record["metrics"]["exact_match"]["value"] > 50
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [sample["references"] for sample in samples] == [["cold"], ["young"], ["small"], ["right"]]
    asked = cli("run", file, "hot", "--model", str(model), "--json")
    assert json.loads(asked.out)["prediction"] == samples[0]["prediction"]
    # From Python the task itself can be given.
    (result,) = nlpkit.load(str(model)).run(load_task(file), [{"word": "hot"}])
    assert result.text == samples[0]["prediction"]
