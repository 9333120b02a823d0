"""Summarization; long documents in pieces, then a summary of the summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import (
    Chunk,
    ChunkResult,
    Field,
    Learned,
    Prediction,
    Prompt,
    Row,
    Splits,
    Target,
    TaskDecoding,
    TextBudget,
)
from nlpkit.apps.text.chunking import split_to_fit
from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.apps.text.extracts.choice import extract
from nlpkit.apps.text.extracts.sentences import find_sentences
from nlpkit.apps.text.extracts.support import unsupported
from nlpkit.apps.text.words import count_words
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, InputError, did_you_mean

LENGTHS: dict[str, tuple[str, int]] = {
    "short": ("in one sentence", 64),
    "medium": ("in three sentences", 160),
    "long": ("in two paragraphs", 400),
}
"""What each length asks for, and its limit in tokens."""

SENTENCES = {"short": 1, "medium": 3, "long": 8}
"""Sentences of an extract of each length."""

MODES = ("auto", "abstractive", "extractive")
"""How a summary is made: in the model's own words, of the text's own sentences, or as is right for the length."""

LAYOUTS = ("bullets", "cited")
"""How an extract may be laid out: a sentence a line behind a dash; each with the line of the text where it stands."""

LEARNED_BEAMS = 4
"""Beams of a tuned model: its summaries are short, and greedy decoding may end them after a few words."""

CHUNK_TOKENS = 1536
"""Most document tokens of one chunk: small models forget the beginning of longer ones."""


@dataclass(frozen=True, kw_only=True)
class LongDocument:
    """What to summarize.

    Attributes:
        document: The text.
        length: One of `LENGTHS`, or None where none was asked for.
        max_words: Length in words, instead of `length`.
        sentences: Most sentences, instead of `length`.
        mode: One of `MODES`.
        layout: Some of `LAYOUTS`.
        references: Reference summaries.
        whole: The whole text, where this one holds summaries of its parts.
        round: 1, or more for summaries of summaries.
    """

    document: str
    length: str | None = None
    max_words: int | None = None
    sentences: int | None = None
    mode: str = "abstractive"
    layout: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    whole: str | None = None
    round: int = 1

    @property
    def original(self) -> str:
        """The text that the user gave."""
        return self.document if self.whole is None else self.whole

    @property
    def one_sentence(self) -> bool:
        """Whether one sentence is wanted, or no length."""
        return not self.max_words and (self.sentences or 1) == 1 and self.length in (None, "short")

    def writes(self, *, learned: bool) -> bool:
        """Tell whether the model writes the summary.

        Args:
            learned: Whether it was tuned to; its one sentence can be checked, all else cannot.
        """
        return self.mode == "abstractive" or (self.mode == "auto" and learned and self.one_sentence)


class Summarization(Splits[LongDocument]):
    """Summarizes a document in a given length.

    Where the model writes it, a document that does not fit is summarized in pieces of whole paragraphs, and the
    summaries again, until one is left. An extract is made of the document's own sentences, without the model: so is
    that in the mode ``auto`` but for one sentence of a model that was tuned for it, and that sentence, too, if it says
    what the document does not. Fields of a prediction: ``mode``, ``document_words``, ``summary_words``,
    ``compression`` (their ratio), ``rounds``; of an extract also ``sentences`` (text, start and end of each in the
    document, in characters, and the line where it starts).
    """

    name = "summarization"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("document", aliases=("article", "dialogue", "text"), help="text to summarize"),
        Field("length", required=False, role="option", help="short, medium (the default) or long"),
        Field("max_words", int, required=False, role="option", help="length in words, instead of `length`"),
        Field("sentences", int, required=False, role="option", help="most sentences, instead of `length`"),
        Field("mode", required=False, role="option", help="auto, abstractive (the default) or extractive"),
        Field("layout", list, required=False, role="option", help="of an extract: bullets, cited or both"),
        Field(
            "summary",
            required=False,
            role="reference",
            aliases=("highlights", "target", "abstract"),
            help="reference summary",
        ),
        Field("references", list, required=False, role="reference", help="several reference summaries"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("rougeL", "rouge1", "rouge2", "rougeLsum")
    options = DecodeConfig(max_tokens=400, speculation="prompt")
    cleaning = Cleaning(announcements=True, retries_loops=True)

    def prepare(self, row: Row) -> LongDocument:
        """Check the wanted length.

        Raises:
            ConfigError: It is unknown, or given twice.
            InputError: `max_words` is not positive.
        """
        length, words, sentences = row.get("length"), row.get("max_words"), row.get("sentences")
        mode = str(row.get("mode") or "abstractive")
        if mode not in MODES:
            raise ConfigError(f"There is no mode {mode!r} of summaries. {did_you_mean(mode, MODES)}")
        if sentences is not None and not 1 <= int(sentences) <= 1000:
            raise InputError(f"The summary's length is {sentences} sentences; it must be from 1 to 1,000.")
        if length and sentences is not None:
            raise ConfigError(f"Give either a length ({length!r}) or a number of sentences ({sentences}), not both.")
        if sentences is not None and mode == "abstractive":
            raise ConfigError("A number of sentences is kept by extracts: set the mode to auto or extractive.")
        if length and words:
            raise ConfigError(f"Give either a length ({length!r}) or a number of words ({words}), not both.")
        if length and length not in LENGTHS:
            raise ConfigError(f"There is no length {length!r}. {did_you_mean(str(length), LENGTHS)}")
        if words is not None and not 1 <= int(words) <= 10_000:
            raise InputError(f"The summary's length is {words} words; it must be from 1 to 10,000.")
        layout = tuple(dict.fromkeys(str(name) for name in row.get("layout") or ()))
        for name in layout:
            if name not in LAYOUTS:
                raise ConfigError(f"There is no layout {name!r} of summaries. {did_you_mean(name, LAYOUTS)}")
        if layout and mode == "abstractive":
            raise ConfigError(f"Extracts alone are laid out as {layout[0]}: set the mode to auto or extractive.")
        references = [str(reference) for reference in row.get("references") or []]
        if not references and row.get("summary"):
            references = [str(row["summary"])]
        return LongDocument(
            document=str(row["document"]),
            length=str(length) if length else None,
            max_words=None if words is None else int(words),
            sentences=None if sentences is None else int(sentences),
            mode="extractive" if layout else mode,
            layout=layout,
            references=tuple(references),
        )

    def prompt(self, example: LongDocument) -> Prompt:
        """Ask for a summary of the wanted length; briefly for one sentence, or where no length is wanted.

        Tuned models learned from summaries in one sentence.
        """
        document = example.document.strip()
        how = LENGTHS[example.length or "medium"][0]
        if example.max_words:
            how = f"in at most {example.max_words} words"
        short = f"{document}\nSummary:" if example.one_sentence else None
        return Prompt(f"Summarize this text {how}.\n\n{document}", short=short)

    def decoding(self, example: LongDocument, *, learned: Learned | None) -> TaskDecoding:
        """Allow what the wanted length needs; search with a few beams for the one sentence of a tuned model."""
        if learned:
            return TaskDecoding(max_tokens=LENGTHS["short"][1], beam_size=LEARNED_BEAMS)
        if example.max_words:
            return TaskDecoding(max_tokens=2 * example.max_words + 32)
        return TaskDecoding(max_tokens=LENGTHS[example.length or "medium"][1])

    def split(self, example: LongDocument, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[LongDocument]]:
        """Cut at paragraphs, else at sentences, into chunks of about equal size; into none for an extract."""
        if not example.writes(learned=learned is not None):
            return []
        limit = max(1, min(budget.max_text_tokens, CHUNK_TOKENS))
        total = budget.count_tokens(example.document)
        if total <= limit:
            return [Chunk(example)]
        even = math.ceil(total / math.ceil(total / limit) * 1.15)
        pieces = split_to_fit(example.document, min(limit, even), budget.count_tokens)
        return [Chunk(replace(example, document=piece)) for piece in pieces if piece.strip()] or [Chunk(example)]

    def reduce(
        self,
        results: Sequence[ChunkResult[LongDocument]],
        example: LongDocument,
        *,
        learned: Learned | None,
        user_options: Mapping[str, Any],
    ) -> LongDocument | None:
        """Summarize the summaries of several chunks, as long as that makes the text shorter."""
        text = _joined(results)
        if len(results) < 2 or not text or len(text) >= len(example.document):
            return None
        return replace(example, document=text, whole=example.original, round=example.round + 1)

    def merge(
        self, results: Sequence[ChunkResult[LongDocument]], example: LongDocument, *, learned: Learned | None
    ) -> Prediction:
        """Put the summaries one below the other, or make an extract."""
        if not example.writes(learned=learned is not None):
            return _extracted(example)
        text = _joined(results)
        if example.mode == "auto":
            invented = unsupported(text, example.original)
            reason = _doubt(results, invented)
            if reason:
                return _extracted(example, (f"{reason}: this is a sentence of the text instead",))
        document_words = count_words(example.original)
        summary_words = count_words(text)
        warnings = []
        if example.max_words and summary_words > example.max_words and len(results) < 2:
            warnings.append(f"the summary has {summary_words} words, {example.max_words} were asked for")
        if document_words and summary_words >= document_words:
            warnings.append("the summary is no shorter than the text")
        return Prediction(text, _facts(text, example, "abstractive"), tuple(warnings))

    def target(self, example: LongDocument) -> Target | None:
        """Return the reference summaries."""
        return Target(example.references[0], example.references) if example.references else None


def _doubt(results: Sequence[ChunkResult[LongDocument]], invented: Sequence[str]) -> str:
    """Say why what a model wrote is not to be shown; empty where nothing speaks against it."""
    if not _joined(results):
        return "the model wrote nothing"
    if invented:
        return f"the model wrote {', '.join(invented)}, of which the text says nothing"
    if len(results) > 1:
        return "summaries of the parts could not be joined"
    if any(result.finish_reason == "length" or result.loops for result in results):
        return "the model found no end"
    return ""


def _extracted(example: LongDocument, warnings: tuple[str, ...] = ()) -> Prediction:
    """Summarize a document by its own sentences."""
    document_words = count_words(example.original)
    most = example.sentences or SENTENCES[example.length or ("medium" if example.mode == "extractive" else "short")]
    if example.max_words and not example.sentences:
        most = example.max_words
    found = extract(example.original, sentences=most, words=example.max_words)
    notes = list(warnings)
    if not found.sentences and found.total:
        fewest = min(one.n_words for one in find_sentences(example.original))
        notes.append(f"no sentence has at most {example.max_words} words: the shortest has {fewest}")
    whole = most >= found.total and (not example.max_words or document_words <= example.max_words)
    text = example.original.strip() if whole else found.text
    places = [
        {"text": one.text, "start": one.start, "end": one.end, "line": example.original.count("\n", 0, one.start) + 1}
        for one in (find_sentences(example.original) if whole else found.sentences)
    ]
    if example.layout and places:
        text = "\n".join(_laid_out(place, example.layout) for place in places)
    return Prediction(text, {**_facts(text, example, "extractive"), "sentences": places}, tuple(notes))


def _laid_out(place: Mapping[str, Any], layout: Sequence[str]) -> str:
    """Return one sentence of an extract as a line."""
    text = " ".join(place["text"].split())
    return ("- " if "bullets" in layout else "") + text + (f" (line {place['line']})" if "cited" in layout else "")


def _facts(text: str, example: LongDocument, mode: str) -> dict[str, Any]:
    document_words, summary_words = count_words(example.original), count_words(text)
    return {
        "mode": mode,
        "document_words": document_words,
        "summary_words": summary_words,
        "compression": round(summary_words / document_words, 4) if document_words else None,
        "rounds": example.round,
    }


def _joined(results: Sequence[ChunkResult[LongDocument]]) -> str:
    return "\n".join(result.prediction.text for result in results if result.prediction.text)
