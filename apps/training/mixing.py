"""Training rows for translation, mixed from parallel files: thinned by source, filtered, decontaminated, made noisy.

Every choice hangs on hashes of the sentences and the seed, so the result depends on the files and the plan alone.
"""

from __future__ import annotations

import dataclasses
import glob
import gzip
import hashlib
import html
import json
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nlpkit.apps.text.chunking import split_sentences
from nlpkit.apps.text.translation.protected import MAX_MASKS, mask
from nlpkit.apps.training.recipe import load_toml
from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.core.files.write import unwritable, whole_file

MASKS = tuple(f"⟦{number}⟧" for number in range(1, MAX_MASKS + 1))
"""Stand-ins for what a translation must carry over: single pieces of the vocabulary, which the model learns to copy."""

SHORTEST_HELD_OUT = 4
"""Words from which a sentence is left out because it is held out somewhere; shorter ones are common property."""


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Parallel files of two languages.

    Attributes:
        path: Glob of files below the data folder. ``.tsv`` files have two sentences and a source's name a line, without
            a header; ``.jsonl`` files have ``source``, ``target``. xz and gzip are seen through.
        languages: Codes of the two sides.
        weight: How many times each row is taken: below 1 a share of the rows, above 1 some rows twice.
        weights: The same for single sources, by the name in the third column; times `weight`.
        cap: Most rows of one source.
        split: Cut paragraphs into sentences where both sides have equally many.
        detokenize: Undo the tokenization of machine translation corpora (`` ,``, ``&apos;``).
    """

    path: str
    languages: tuple[str, str]
    weight: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)
    cap: int = 1_000_000
    split: bool = False
    detokenize: bool = False


@dataclass(frozen=True, kw_only=True)
class MixPlan:
    """What to mix.

    Attributes:
        sources: The files.
        held_out: Globs of files in the same formats, none of whose sentences may be learned.
        seed: Decides which rows are taken, their order and their noise.
        max_words: Longest side, in words.
        max_ratio: Longest side as a multiple of the other, in characters, for sides above 20 characters.
        both: Whether each pair is learned in both directions; otherwise a direction is drawn.
        no_stop: Share of rows that lose the final stop, on both sides.
        lower: Share of sources in small letters.
        typos: Share of sources with a slip of the keyboard.
        masks: Share of the rows with equal numbers, addresses or code on both sides in which these are masked.
    """

    sources: tuple[PairSource, ...]
    held_out: tuple[str, ...] = ()
    seed: int = 1
    max_words: int = 90
    max_ratio: float = 3.0
    both: bool = True
    no_stop: float = 0.08
    lower: float = 0.03
    typos: float = 0.03
    masks: float = 0.5

    def __post_init__(self) -> None:
        for name in ("no_stop", "lower", "typos", "masks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is a share, from 0 to 1.")
        if not self.sources:
            raise ConfigError("The plan names no parallel files: it needs at least one [[source]].")


def load_plan(path: str) -> MixPlan:
    """Read a plan from a TOML file with a ``[[source]]`` table for each `PairSource`.

    Raises:
        ConfigError: It cannot be read, or an option is unknown or out of range.
    """
    values = load_toml(path)
    sources = tuple(_build(PairSource, item, "[[source]]") for item in values.pop("source", ()))
    plan: MixPlan = _build(MixPlan, {**values, "sources": sources}, path)
    return plan


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = {item.name for item in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} has no option {key!r}. {did_you_mean(key, known)}")
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise ConfigError(f"{where} lacks an option: {error}.") from error


def chance(*parts: object) -> float:
    """Return a number from 0 to below 1 that depends on the parts alone."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def letters(text: str) -> str:
    """Return the letters and digits of a text, case-folded: what makes two sentences the same."""
    return "".join(char for char in text.casefold() if char.isalnum())


_Pair = tuple[str, str, str]


def read_pairs(source: PairSource, folder: Path) -> Iterator[_Pair]:
    """Yield the pairs of a source's files: first side, second side, name of the source.

    Raises:
        InputError: There is no such file, or a line has no two sides.
    """
    paths = sorted(glob.glob(str(folder / source.path)))
    if not paths:
        raise InputError(f"No file fits {source.path} in {folder}.")
    for path in paths:
        try:
            yield from _read_file(source, path)
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read as parallel text: {error}.") from error


def _read_file(source: PairSource, path: str) -> Iterator[_Pair]:
    opener: Callable[..., AbstractContextManager[IO[str]]]
    opener = lzma.open if path.endswith(".xz") else gzip.open if path.endswith(".gz") else open
    rows = re.search(r"\.(jsonl|ndjson)(\.|$)", path) is not None
    with opener(path, "rt", encoding="utf-8", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if rows:
                row = json.loads(line)
                first, second, name = str(row["source"]), str(row["target"]), Path(path).parent.name
            else:
                cells = line.rstrip("\r\n").split("\t")
                if len(cells) < 2:
                    raise ValueError(f"line {number} has no tab between two sentences")
                first, second, name = cells[0], cells[1], cells[2] if len(cells) > 2 else Path(path).stem
            if source.detokenize:
                first, second = detokenize(first), detokenize(second)
            yield from _sentences(first, second, name) if source.split else ((first, second, name),)


def _sentences(first: str, second: str, name: str) -> Iterator[_Pair]:
    """Cut a pair of paragraphs into pairs of sentences where the counts agree."""
    ones, others = ([piece.strip() for piece in split_sentences(side)] for side in (first, second))
    if len(ones) == len(others) > 1:
        yield from ((one, other, name) for one, other in zip(ones, others, strict=True))
    else:
        yield " ".join(first.split()), " ".join(second.split()), name


_SPACED = (
    (re.compile(r" ([.,;:!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r"\s*@-@\s*"), "-"),
    (re.compile(r" ('s|'t|'re|'ve|'ll|'d|'m)\b"), r"\1"),
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
)


def detokenize(text: str) -> str:
    """Undo the tokenization of Moses' scripts, as far as rules can."""
    text = html.unescape(text)
    for pattern, plain in _SPACED:
        text = pattern.sub(plain, text)
    return text


def held_out_sentences(plan: MixPlan, folder: Path) -> set[str]:
    """Return the `letters` of all held-out sentences that are long enough to be recognised."""
    found = set()
    for pattern in plan.held_out:
        for split in (False, True):
            source = PairSource(path=pattern, languages=("", ""), split=split)
            for first, second, _ in read_pairs(source, folder):
                found |= {letters(side) for side in (first, second) if len(side.split()) >= SHORTEST_HELD_OUT}
    return found


_PHONETIC = re.compile("[ɐ-ʯˈˌː]")


def refusal(first: str, second: str, plan: MixPlan, held_out: set[str]) -> str | None:
    """Say why a pair is not learned, or None."""
    if not any(map(str.isalpha, first)) or not any(map(str.isalpha, second)):
        return "letters"
    if max(len(first.split()), len(second.split())) > plan.max_words:
        return "length"
    shorter, longer = sorted((len(first), len(second)))
    if longer > 20 and longer > plan.max_ratio * shorter:
        return "ratio"
    if letters(first) in held_out or letters(second) in held_out:
        return "held out"
    if _PHONETIC.search(first + second):
        return "phonetic"
    if "\n" in first or "\n" in second:
        return "lines"
    if first == second and len(first.split()) > SHORTEST_HELD_OUT:
        return "copied"
    return None


_STOP = re.compile(r"(?<=\w)[.!]$")


def mask_pair(source: str, target: str, draw: float) -> tuple[str, str]:
    """Put masks in the place of what a translation carries over, as `mask` does in use.

    Args:
        source: One side.
        target: The other.
        draw: From 0 to below 1; decides which mask comes first, so that all of them are learned.

    Returns:
        Both sides, masks numbered in the order of the source; as they were, where not each span of the source stands
        once on both sides.
    """
    masked = mask(source)
    values = masked.values
    if not masked.fits or any(source.count(value) != 1 or target.count(value) != 1 for value in values):
        return source, target
    # Mostly from the first on, as in use; sometimes from a later one.
    first = 0 if draw < 0.7 else int((draw - 0.7) / 0.3 * (len(MASKS) - len(values) + 1))
    for number, value in enumerate(values, first):
        source, target = source.replace(value, MASKS[number]), target.replace(value, MASKS[number])
    return source, target


def add_typo(text: str, draw: float) -> str:
    """Swap, drop or double a letter inside one of the longer words."""
    words = list(re.finditer(r"[^\W\d_]{5,}", text))
    if not words:
        return text
    place = draw * len(words)
    word = words[int(place)]
    at = word.start() + 1 + int((place % 1) * (len(word.group()) - 3))
    kind = int(draw * 3000) % 3
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :] if kind == 1 else text[:at] + text[at] + text[at:]


def make_noisy(source: str, target: str, plan: MixPlan) -> tuple[str, str]:
    """Change a row as users' texts differ from clean ones: masked, without a stop, in small letters, mistyped."""

    def draw(kind: str) -> float:
        return chance(plan.seed, kind, source, target)

    old_source, old_target = source, target
    if draw("masks") < plan.masks:
        source, target = mask_pair(source, target, draw("first mask"))
    if chance(plan.seed, "stop", old_source, old_target) < plan.no_stop and _STOP.search(source):
        source, target = _STOP.sub("", source), _STOP.sub("", target)
    if chance(plan.seed, "lower", old_source, old_target) < plan.lower:
        source = source.lower()
    if chance(plan.seed, "typos", old_source, old_target) < plan.typos:
        source = add_typo(source, chance(plan.seed, "typo", old_source))
    return source, target


@dataclass(frozen=True, kw_only=True)
class MixReport:
    """What came of a mixture.

    Attributes:
        rows: Rows written, by direction.
        words: Words of the source sides, by source.
        refused: Pairs left out, by reason.
    """

    rows: Mapping[str, int]
    words: Mapping[str, int]
    refused: Mapping[str, int]


def mix(plan: MixPlan, folder: Path, output: Path) -> MixReport:
    """Write the rows of a plan, shuffled, as gzipped or plain JSON Lines.

    Args:
        plan: What to mix.
        folder: Where its files are.
        output: File to write: rows with ``source``, ``target``, ``source_lang``, ``target_lang``.

    Returns:
        What was written.

    Raises:
        InputError: A file is missing or damaged.
        OutputError: The result cannot be written.
    """
    held_out = held_out_sentences(plan, folder)
    refused: Counter[str] = Counter()
    words: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    kept: list[tuple[float, dict[str, str]]] = []
    seen: set[tuple[str, str]] = set()
    for source in plan.sources:
        by_name: dict[str, list[_Pair]] = defaultdict(list)
        for pair in read_pairs(source, folder):
            first, second, name = (part.strip() for part in pair)
            reason = refusal(first, second, plan, held_out)
            key = (first, second)
            if reason is None and key in seen:
                reason = "seen"
            seen.add(key)
            if reason is None:
                by_name[name].append((first, second, name))
            else:
                refused[reason] += 1
        for name, pairs in by_name.items():
            for first, second in _thinned(pairs, source, name, plan.seed):
                words[name] += len(first.split())
                kept.extend(_rows(first, second, source.languages, plan))
    kept.sort(key=lambda item: item[0])
    for _, row in kept:
        counts[f"{row['source_lang']}-{row['target_lang']}"] += 1
    _write(output, (row for _, row in kept))
    return MixReport(rows=counts, words=words, refused=refused)


def _thinned(pairs: Sequence[_Pair], source: PairSource, name: str, seed: int) -> Iterator[tuple[str, str]]:
    """Take a source's pairs as often as its weight says, at most `cap` of them."""
    weight = source.weight * source.weights.get(name, 1.0) * min(1.0, source.cap / len(pairs))
    for first, second, _ in pairs:
        times, rest = divmod(weight, 1)
        for _ in range(int(times) + (chance(seed, "take", first, second) < rest)):
            yield first, second


def _rows(first: str, second: str, languages: tuple[str, str], plan: MixPlan) -> Iterator[tuple[float, dict[str, str]]]:
    one, other = languages
    directions = [(first, second, one, other), (second, first, other, one)]
    if not plan.both:
        directions = [directions[chance(plan.seed, "direction", first, second) < 0.5]]
    for source, target, source_lang, target_lang in directions:
        noisy, clean = make_noisy(source, target, plan)
        place = chance(plan.seed, "order", source_lang, target_lang, source, target)
        yield place, {"source": noisy, "target": clean, "source_lang": source_lang, "target_lang": target_lang}


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with (
        unwritable(f"The rows cannot be written to {path}"),
        whole_file(path) as aside,
        gzip.open(aside, "wt", 5, encoding="utf-8") if path.suffix == ".gz" else aside.open("w", -1, "utf-8") as to,
    ):
        for row in rows:
            to.write(json.dumps(row, ensure_ascii=False) + "\n")


def describe(report: MixReport) -> str:
    """Say what was mixed, for people: rows by direction, words by source, pairs left out by reason."""

    def listed(counts: Mapping[str, int], most: int | None = None) -> str:
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {count:,}" for name, count in ordered[:most]) or "none"

    return (
        f"{sum(report.rows.values()):,} rows: {listed(report.rows)}\n"
        f"{sum(report.words.values()):,} words on the first sides, most from {listed(report.words, 8)}\n"
        f"pairs left out: {listed(report.refused)}"
    )
