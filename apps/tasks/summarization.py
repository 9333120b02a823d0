"""Summarization; long documents in pieces, then a summary of the summaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import BRIEF, BaseTask, Budget, Example, Field, Overflow, Part, Prediction
from nlpkit.apps.text.chunking import split_to_fit
from nlpkit.apps.text.cleaning import clean, clean_preview
from nlpkit.apps.text.words import count_words
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, InputError, did_you_mean

LENGTHS: dict[str, tuple[str, int]] = {
    "short": ("in one sentence", 64),
    "medium": ("in three sentences", 160),
    "long": ("in two paragraphs", 400),
}
"""What each length asks for, and its limit in tokens."""

BRIEF_BEAMS = 4
"""Beams of a tuned model: its summaries are short, and greedy decoding may end them after a few words."""

CHUNK_TOKENS = 1536
"""Most document tokens of one chunk: small models forget the beginning of longer ones."""


class Summarization(BaseTask):
    """Summarizes a document in a given length.

    A document that does not fit is summarized in pieces of whole paragraphs, and the summaries again, until one is
    left. Fields of a prediction: ``document_words``, ``summary_words``, ``compression`` (their ratio), ``rounds``.
    """

    name = "summarization"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("document", help="text to summarize"),
        Field("length", required=False, help="short, medium (the default) or long"),
        Field("max_words", int, required=False, help="length in words, instead of `length`"),
        Field("summary", required=False, help="reference summary"),
        Field("references", list, required=False, help="several reference summaries"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("rougeL", "rouge1", "rouge2", "rougeLsum")
    decoding = DecodeConfig(max_tokens=400, speculation="prompt")
    text_field = "document"
    on_overflow: ClassVar[Overflow] = "chunk"
    retries_loops = True

    def prepare(self, example: Example) -> Example:
        """Check the wanted length.

        Raises:
            ConfigError: It is unknown, or given twice.
            InputError: `max_words` is not positive.
        """
        length, words = example.get("length"), example.get("max_words")
        if length and words:
            raise ConfigError(f"Give either a length ({length!r}) or a number of words ({words}), not both.")
        if length and length not in LENGTHS:
            raise ConfigError(f"There is no length {length!r}. {did_you_mean(str(length), LENGTHS)}")
        if words is not None and not 1 <= int(words) <= 10_000:
            raise InputError(f"The summary's length is {words} words; it must be from 1 to 10,000.")
        return example

    def prompt(self, example: Example) -> list[Message]:
        """Ask for a summary of the wanted length."""
        words = example.get("max_words")
        how = f"in at most {int(words)} words" if words else LENGTHS[example.get("length") or "medium"][0]
        return [Message("user", f"Summarize this text {how}.\n\n{str(example['document']).strip()}")]

    def brief(self, example: Example) -> str | None:
        """Give the document and a label, where one sentence or no particular length is wanted.

        Tuned models learned from summaries in one sentence.
        """
        if example.get("max_words") or example.get("length") in ("medium", "long"):
            return None
        return f"{str(example['document']).strip()}\nSummary:"

    def options(self, chunk: Example) -> Mapping[str, Any]:
        """Search with a few beams for the one sentence of a tuned model."""
        return {"beam_size": BRIEF_BEAMS} if chunk.get(BRIEF) else {}

    def parse(self, completion: str, example: Example) -> Prediction:
        """Drop an announcement."""
        return Prediction(clean(completion))

    def preview(self, partial: str, example: Example) -> str:
        """Hold back what may yet turn out to be an announcement."""
        return clean_preview(partial)

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut at paragraphs, else at sentences, into chunks of about equal size."""
        document = str(example["document"])
        limit = max(1, min(budget.max_text_tokens, CHUNK_TOKENS))
        total = budget.count_tokens(document)
        if total <= limit:
            return [example]
        even = math.ceil(total / math.ceil(total / limit) * 1.15)
        pieces = split_to_fit(document, min(limit, even), budget.count_tokens)
        chunks: list[Example] = [{**example, "document": piece} for piece in pieces if piece.strip()]
        return chunks or [example]

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Put the summaries one below the other."""
        text = "\n".join(part.prediction.text for part in parts if part.prediction.text)
        document_words = int(example.get("_document_words", count_words(str(example["document"]))))
        summary_words = count_words(text)
        facts: dict[str, Any] = {
            "document_words": document_words,
            "summary_words": summary_words,
            "compression": round(summary_words / document_words, 4) if document_words else None,
            "rounds": int(example.get("_round", 1)),
        }
        if len(parts) > 1:
            facts["_parts"] = len(parts)
        return Prediction(text, facts, _warnings(example, facts, text))

    def reduce(self, prediction: Prediction, example: Example) -> Example | None:
        """Summarize the summaries of several chunks, as long as that makes the text shorter."""
        several = int(prediction.fields.get("_parts", 1)) > 1
        if not several or not prediction.text or len(prediction.text) >= len(str(example["document"])):
            return None
        return {
            **example,
            "document": prediction.text,
            "_document_words": prediction.fields["document_words"],
            "_round": prediction.fields["rounds"] + 1,
        }

    def references(self, example: Example) -> list[str]:
        """Return the reference summaries."""
        several = [str(reference) for reference in example.get("references") or []]
        return several or ([str(example["summary"])] if example.get("summary") else [])

    def max_tokens(self, example: Example, prompt_tokens: int) -> int:
        """Allow what the wanted length needs."""
        words = example.get("max_words")
        if example.get(BRIEF):
            return LENGTHS["short"][1]
        return 2 * int(words) + 32 if words else LENGTHS[example.get("length") or "medium"][1]


def _warnings(example: Example, facts: dict[str, Any], text: str) -> tuple[str, ...]:
    warnings = []
    words = example.get("max_words")
    if words and facts["summary_words"] > int(words) and "_parts" not in facts:
        warnings.append(f"the summary has {facts['summary_words']} words, {int(words)} were asked for")
    if facts["document_words"] and facts["summary_words"] >= facts["document_words"]:
        warnings.append("the summary is no shorter than the text")
    return tuple(warnings)
