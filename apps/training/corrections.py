"""A small adapter from a person's corrections: what is learned, what is held out, and whether it is kept.

Corrections of a field (software, medicine, one author) are learned by a few passes that go on from the adapter in use.
A part of them is held out. What comes out is kept only if it translates these better than before, beyond chance, and
everyday sentences no worse.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nlpkit.apps.models.adapters import TaskAdapter
from nlpkit.apps.training.recipe import DataSpec, Recipe
from nlpkit.core.errors import InputError

FEWEST = 200
"""Fewest corrections that an adapter is made from: a part of fewer could not tell whether it helps."""

MOST = 1000
"""Most corrections that are learned, the latest ones: a laptop takes minutes for them."""

HELD_OUT = 0.2
"""Share of the corrections that is held out."""

MOST_HELD_OUT = 150
"""Most of them, for all are translated twice."""

METRIC = "chrf"
"""The metric that decides: of few short sentences it says more than BLEU."""

SHOWN_METRIC = "bleu"
"""The metric that is shown besides."""

CHANCE = 0.05
"""Probability below which a difference is not taken for chance."""

MOST_LOST = 1.0
"""Most points that everyday sentences may lose, whether by chance or not."""

SHARES = (1.0, 0.5)
"""How far to go from the adapter in use to the trained one, tried in order while everyday sentences suffer."""

EVERYDAY = Path(__file__).with_name("everyday.tsv")
"""Everyday sentences in several languages, a column each; written for this purpose."""

_NOT_LETTERS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True)
class Pair:
    """A sentence and its right translation."""

    source: str
    target: str


@dataclass(frozen=True)
class Lesson:
    """Corrections, parted.

    Attributes:
        learned: What is learned.
        held_out: What is held out.
        left_out: How many corrections are neither: earlier ones of the same sentence, and those above `MOST`.
    """

    learned: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    left_out: int


class Difference(Protocol):
    """A system beside a baseline on the same segments, as `nlpkit.eval.statistics` tells it."""

    @property
    def baseline(self) -> float:
        """Score of the baseline."""
        ...

    @property
    def value(self) -> float:
        """Score of the system."""
        ...

    @property
    def difference(self) -> float:
        """What the system gains."""
        ...

    @property
    def p_value(self) -> float:
        """Probability of such a difference if both were equally good."""
        ...


class Compare(Protocol):
    """Compares predictions by the name of a metric. Handed in: tasks know metrics by name only."""

    def __call__(
        self, name: str, before: Sequence[str], after: Sequence[str], references: Sequence[tuple[str, ...]]
    ) -> Difference:
        """Compare the predictions before with those after."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Whether an adapter is kept, and why.

    Attributes:
        kept: Whether it is.
        reason: Why.
        half: Whether going only part of the way may help.
    """

    kept: bool
    reason: str
    half: bool = False


def _key(text: str) -> str:
    """Return what sentences share that differ by case, numbers and marks alone."""
    return _NOT_LETTERS.sub(" ", text.casefold()).strip() or text


def part_corrections(pairs: Sequence[Pair]) -> Lesson:
    """Choose what is learned and what is held out.

    Which corrections are held out hangs on their sentences alone, so a longer list holds out the same ones as far as
    it can; sentences that differ by numbers or marks alone are on one side.

    Args:
        pairs: The corrections; of those of the same sentence the last counts.

    Raises:
        InputError: There are fewer than `FEWEST` different ones.
    """
    everyday = {_key(cell) for row in _everyday_rows() for cell in row.values()}
    latest = {pair.source: pair for pair in pairs if _key(pair.source) not in everyday}
    if len(latest) < FEWEST:
        raise InputError(
            f"An adapter takes {FEWEST} corrections of different sentences at least, and there are {len(latest)}. "
            "Their memory works with any number."
        )
    groups: dict[str, list[Pair]] = {}
    for pair in latest.values():
        groups.setdefault(_key(pair.source), []).append(pair)
    wanted = min(round(HELD_OUT * len(latest)), MOST_HELD_OUT)
    held_out: list[Pair] = []
    chosen: set[str] = set()
    for key in sorted(groups, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()):
        if len(held_out) + len(groups[key]) <= wanted:
            held_out += groups[key]
            chosen.add(key)
    learned = [pair for pair in latest.values() if _key(pair.source) not in chosen][-MOST:]
    return Lesson(tuple(learned), tuple(held_out), len(pairs) - len(learned) - len(held_out))


def _everyday_rows() -> list[dict[str, str]]:
    with EVERYDAY.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def everyday_languages() -> list[str]:
    """Return the codes of the languages that there are everyday sentences in."""
    return list(_everyday_rows()[0])


def everyday_pairs(source_lang: str, target_lang: str) -> tuple[Pair, ...]:
    """Return everyday sentences of two languages; none where there are none in one of them.

    Args:
        source_lang: Code of the language to translate from.
        target_lang: Code of the language to translate to.
    """
    rows = _everyday_rows()
    if not {source_lang, target_lang} <= rows[0].keys():
        return ()
    return tuple(Pair(row[source_lang], row[target_lang]) for row in rows)


def correction_rows(pairs: Sequence[Pair], source_lang: str, target_lang: str) -> list[dict[str, str]]:
    """Return pairs as rows of the translation task."""
    return [
        {"source": pair.source, "target": pair.target, "source_lang": source_lang, "target_lang": target_lang}
        for pair in pairs
    ]


def correction_recipe(folder: Path, data: Path, *, base: str, start: TaskAdapter | None) -> Recipe:
    """Return how corrections are learned: a few passes, by small steps, on from the adapter in use.

    Args:
        folder: Where to train.
        data: The rows.
        base: The model.
        start: The adapter in use, or the task's own model, or None for the bare model.
    """
    adapter = start if start is not None and start.model is None else None
    learned = start is not None and bool(start.tuned.names)
    prompts = "chat" if not learned else "learned" if adapter is not None else "brief"
    return Recipe(
        output=str(folder),
        method="lora",
        data=(DataSpec(path=str(data), task="translation"),),
        base=base if start is None or start.model is None else str(start.model),
        adapter=None if adapter is None else str(adapter.path),
        prompts=prompts,
        train={
            "epochs": 2,
            "seq_len": 256,
            "batch_size": 1,
            "lr": 3e-4,
            "warmup": 0.1,
            "weight_decay": 0.0,
            "compile": "off",
            "save_every": 10,
            "seed": 0,
        },
    )


def judge(held_out: Difference, everyday: Difference) -> Verdict:
    """Say whether an adapter is kept.

    Args:
        held_out: After beside before on the corrections that were held out.
        everyday: The same on everyday sentences.
    """
    if held_out.difference <= 0:
        return Verdict(False, "the corrections that were held out are not translated better than before")
    # Each share of the way is one more try at the same sentences.
    if held_out.p_value >= CHANCE / len(SHARES):
        return Verdict(
            False, f"what it gains on the corrections that were held out may be chance (p {held_out.p_value:.2g})"
        )
    if everyday.difference < -MOST_LOST or (everyday.difference < 0 and everyday.p_value < CHANCE):
        return Verdict(False, "everyday sentences are translated worse than before", half=True)
    return Verdict(True, "it is better on the corrections that were held out, and not worse on everyday sentences")


def describe(difference: Difference) -> dict[str, Any]:
    """Return a difference as a record."""
    return {
        "before": round(difference.baseline, 2),
        "after": round(difference.value, 2),
        "difference": round(difference.difference, 2),
        "p_value": round(difference.p_value, 5),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
