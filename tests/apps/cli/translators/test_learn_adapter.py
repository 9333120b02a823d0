"""An adapter from corrections, with a tiny model: kept or not, interrupted, and what is refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_pairs import changed, pairs_tokenizer, save_base

import nlpkit.apps.cli.translators.learn_adapter as learn_adapter
import nlpkit.apps.training.corrections as corrections
from nlpkit.apps.cli.translators.learn_adapter import REPORT, AdapterLesson, render_lesson
from nlpkit.apps.models.adapters import WEIGHTS, find_adapter
from nlpkit.apps.models.spec import ModelSpec
from nlpkit.apps.training.corrections import METRIC, Pair, part_corrections
from nlpkit.cli import main
from nlpkit.core.errors import ConfigError

WORDS = ("the", "dog", "good", "morning", "thank", "you", "hello")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model", pairs_tokenizer())


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corrections, "FEWEST", 12)
    monkeypatch.chdir(tmp_path)
    rows = [f"{a}\t{b}\n" for a, b in (("Hello dog", "Hallo Hund"), ("Good dog", "Guter Hund"))]
    Path("general.tsv").write_text("source\ttarget\n" + "".join(rows))


def pairs(count: int = 15) -> list[Pair]:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    return [Pair(text, text.upper()) for text in texts[:count]]


@dataclass(frozen=True)
class Found:
    baseline: float = 40.0
    value: float = 45.0
    p_value: float = 0.001

    @property
    def difference(self) -> float:
        return self.value - self.baseline


def lesson(
    base: Path, *, found: Sequence[Found] = (Found(),), asked: list[Any] | None = None, adapter: str | None = None
) -> AdapterLesson:
    """Return a lesson whose comparisons come out as told, the last of them again and again."""
    left = list(found)

    def compare(name: str, before: Sequence[str], after: Sequence[str], references: Sequence[tuple[str, ...]]) -> Found:
        if asked is not None:
            asked.append((name, list(before), list(after), list(references)))
        return left.pop(0) if len(left) > 1 else left[0]

    return AdapterLesson(
        output=Path("mine"),
        lesson=part_corrections(pairs()),
        source_lang="en",
        target_lang="de",
        spec=ModelSpec(name=str(base), adapter=adapter, dtype="fp32"),
        general="general.tsv",
        compare=compare,
        quiet=True,
    )


def test_a_better_adapter_is_kept_and_can_be_used(base: Path) -> None:
    asked: list[Any] = []
    made = lesson(base, asked=asked)
    record = made.run()
    assert record is not None
    assert (record["kept"], record["learned"], record["held_out"], record["everyday"]) == (True, 12, 3, 2)
    held_out = [(pair.target,) for pair in made.lesson.held_out]
    assert [(name, refs) for name, _, _, refs in asked] == [
        (name, refs) for refs in (held_out, [("Hallo Hund",), ("Guter Hund",)]) for name in ("chrf", "bleu")
    ]
    report = json.loads(Path("mine", REPORT).read_text())
    assert report["scores"]["corrections"][METRIC] == {
        "before": 40.0,
        "after": 45.0,
        "difference": 5.0,
        "p_value": 0.001,
    }
    assert not Path("mine.learning").exists()
    loaded = ModelSpec(name=str(base), dtype="fp32").load(find_adapter("mine"))
    assert loaded.facts.adapter == "mine"
    said = "\n".join(render_lesson(record, use=made.use))
    assert "3 held-out corrections, chrF: 40.0 before, 45.0 after (p 0.001)" in said
    assert f"kept in mine: nlpkit translate --model {base} --adapter mine" in said


def test_what_was_learned_changes_the_weights_alone_of_the_adapter(base: Path) -> None:
    assert lesson(base).run() is not None
    weights = load_file(Path("mine", WEIGHTS))
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)


def test_a_worse_adapter_leaves_the_one_before_alone(base: Path) -> None:
    assert lesson(base).run() is not None
    before = Path("mine", WEIGHTS).read_bytes()
    record = lesson(base, found=[Found(value=39.0)]).run()
    assert record is not None
    assert not record["kept"]
    assert record["path"] is None
    assert "not kept: the corrections that were held out" in render_lesson(record, use="")[-1]
    assert Path("mine", WEIGHTS).read_bytes() == before
    assert not Path("mine.learning").exists()


def test_where_everyday_sentences_suffer_half_of_the_way_is_tried(base: Path) -> None:
    worse = Found(value=37.0)
    assert lesson(base).run() is not None
    Path("mine").rename("whole")
    record = lesson(base, found=[Found(), Found(), worse, worse, Found()]).run()
    assert record is not None
    assert (record["kept"], record["share"]) == (True, 0.5)
    assert "the adapter went 50% of the way" in "\n".join(render_lesson(record, use=""))
    whole, half = (load_file(Path(name, WEIGHTS)) for name in ("whole", "mine"))
    for name, value in half.items():
        torch.testing.assert_close(value, whole[name] * (0.5 if "lora_B" in name else 1.0))
    # From an adapter to go on from, half of the way is the middle.
    Path("mine").rename("half")
    assert lesson(base, adapter="half").run() is not None
    Path("mine").rename("further")
    record = lesson(base, adapter="half", found=[Found(), Found(), worse, worse, Found()]).run()
    assert record is not None
    further, middle = (load_file(Path(name, WEIGHTS)) for name in ("further", "mine"))
    for name, value in middle.items():
        torch.testing.assert_close(value, (half[name] + further[name]) / 2)
    # And if that is no better either, nothing is kept.
    record = lesson(base, adapter="half", found=[Found(), Found(), worse]).run()
    assert record is not None
    assert (record["kept"], record["share"]) == (False, 0.5)


def test_an_interrupted_training_goes_on(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = lesson(base)
    assert whole.run() is not None
    weights = Path("mine", WEIGHTS).read_bytes()
    Path("mine").rename("other")

    @contextlib.contextmanager
    def at_once() -> Iterator[Any]:
        yield SimpleNamespace(asked=lambda: True)

    with monkeypatch.context() as patch:
        patch.setattr(learn_adapter, "stopping", at_once)
        assert lesson(base).run() is None
    assert not Path("mine").exists()
    monkeypatch.setattr(learn_adapter, "load_shown", _only(2, learn_adapter.load_shown))
    again = lesson(base)
    again.quiet = False
    assert again.run() is not None
    assert "going on with what an earlier run left" in capsys.readouterr().err
    assert Path("mine", WEIGHTS).read_bytes() == weights


def _only(count: int, load: Any) -> Any:
    """Return what loads so often; what was translated before an interruption is not translated again."""
    left = [count - 1]

    def loaded(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise AssertionError("loaded again")
        return load(*arguments, **options)

    return loaded


def test_folders_of_others_are_left_alone(base: Path) -> None:
    Path("mine").mkdir()
    Path("mine", "diary.txt").write_text("Dear diary")
    with pytest.raises(ConfigError, match="holds something that is no adapter made of corrections"):
        lesson(base)
    Path("mine", "diary.txt").unlink()
    Path("mine.learning").mkdir()
    Path("mine.learning", "diary.txt").write_text("Dear diary")
    with pytest.raises(ConfigError, match="is in the way"):
        lesson(base).run()
    assert Path("mine.learning", "diary.txt").exists()


def corrections_file(count: int) -> None:
    rows = [f"{pair.source}\twrong\t{pair.target}\n" for pair in pairs(count)]
    Path("c.tsv").write_text("".join(rows))


def arguments(base: Path, *more: str) -> list[str]:
    usual = ["learn", "c.tsv", "--memory", "m.db", "--from", "en", "--to", "de", "--new-adapter", "mine",
             "--model", str(base), "--dtype", "fp32", "-q"]  # fmt: skip
    return changed(usual, *more)


def test_the_command_says_what_became_of_it(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrections_file(15)
    assert main(arguments(base, "--general", "general.tsv", "--json")) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["corrections"], record["new"]) == (15, 15)
    # A few steps teach a random model nothing.
    assert record["adapter"]["kept"] is False
    assert set(record["adapter"]["scores"]) == {"corrections", "everyday"}
    assert not Path("mine").exists()


def test_few_corrections_fill_a_memory_and_make_no_adapter(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrections_file(3)
    assert main(arguments(base)) == 0
    said = capsys.readouterr()
    assert "no adapter is made. An adapter takes 12 corrections" in said.err
    assert said.out.startswith("3 corrections: 3 new in the memory")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--to", "zh"), "There are no everyday sentences to try an adapter from en to zh with"),
        (("--general", "none.tsv"), "none.tsv"),
        (("--model", "no-such-model", "--general", "general.tsv"), "no-such-model"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    more: tuple[str, ...], why: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrections_file(15)
    assert main(arguments(base, *more)) == 2
    assert why in capsys.readouterr().err
    assert not Path("mine.learning").exists()
