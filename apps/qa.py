"""Question answering over a given text: the answer is a piece of the text, with offsets, or there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nlpkit.apps.chunking import pack, split_sentences
from nlpkit.apps.completions import LINE_BREAK, clean, ends_too_soon, strip_quotes
from nlpkit.apps.spans import find_span, sentence_around
from nlpkit.apps.task import BaseTask, Budget, Example, Field, Overflow, Part, Prediction
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.tokenizers.base import Message

NO_ANSWER = "unanswerable"
"""What the model is told to write, and learns to write, where the text holds no answer."""

WINDOW_TOKENS = 1024
"""Most context tokens of one window: small models lose the thread in longer ones."""

OVERLAP = 0.2
"""Share of a window that is repeated at the start of the next, so that no answer lies on a cut."""

_NO_ANSWER = re.compile(
    r"\b(?:unanswerable|no answer|not (?:answerable|mentioned|stated|given|specified|provided|known|clear)"
    r"|(?:does|do|did)(?: not|n[’']t) (?:say|mention|state|specify|provide|contain|give|tell)"
    r"|can(?:not|[’']t| not) be (?:answered|determined|found)|(?:do not|don[’']t) know|no information"
    r"|keine antwort|nicht beantwort)|无法回答|沒有答案|没有答案|无法确定",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[*_\s]*(?:the )?answer(?: is)?\s*:?[*_]*\s*", re.IGNORECASE)


class QuestionAnswering(BaseTask):
    """Answers a question with words of the context.

    Fields of a prediction: ``answer`` (also the text), ``start`` and ``end`` (``context[start:end] == answer``),
    ``score`` (geometric mean probability of the model's tokens, 0 to 1), ``answerable``, ``evidence`` (the sentence
    around the answer), ``exact`` (whether all of the model's words were found in the context, or only some).
    Where the model's words do not occur in the context, the question counts as unanswerable.
    """

    name = "qa"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("context", may_be_empty=True, help="text that holds the answer"),
        Field("question", help="question about it"),
        Field("answers", list, required=False, help="acceptable answers; an empty list means there is none"),
        Field("id", required=False, help="name of the row"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("squad_f1", "exact_match")
    decoding = DecodeConfig(max_tokens=48, stop=("\n",))
    streams = False
    text_field = "context"
    on_overflow: ClassVar[Overflow] = "chunk"

    def prompt(self, example: Example) -> list[Message]:
        """Give the context, then the question."""
        context, question = str(example["context"]).strip(), str(example["question"]).strip()
        text = f'{context}\n\nQuestion: {question}\nShort answer, or "{NO_ANSWER}":'
        return [Message("user", text)]

    def brief(self, example: Example) -> str | None:
        """Give the context and the question, with a label each."""
        return f"{str(example['context']).strip()}\nQuestion: {str(example['question']).strip()}\nAnswer:"

    def parse(self, completion: str, example: Example) -> Prediction:
        """Find the words of the first line, or else of its first sentence, in the context."""
        context = str(example.get("context", ""))
        line = LINE_BREAK.split(clean(completion), maxsplit=1)[0]
        said = strip_quotes(_LABEL.sub("", line).strip())
        question = str(example.get("question", ""))
        span = find_span(context, said, question=question)
        if span is None or not span.exact:
            # Models explain themselves: the first sentence holds the answer, the rest would only mislead the search.
            said = "".join(split_sentences(said)[:1])
            span = find_span(context, said, question=question)
        refused = _NO_ANSWER.search(said) is not None and not (span and span.exact)
        if span is None or refused:
            return Prediction("", _fields(None, None, "", exact=False))
        answer = context[span.start : span.end]
        return Prediction(
            answer,
            _fields(
                span.start, span.end, sentence_around(context, span.start, span.end), exact=span.exact, answer=answer
            ),
        )

    def second_try(self, completion: str, example: Example, finish_reason: str) -> Mapping[str, Any]:
        """Go on after the first line if that was empty, an announcement or reasoning."""
        return {"stop": ()} if ends_too_soon(completion, finish_reason) else {}

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut a long context into overlapping windows of whole sentences; each notes its ``_offset``."""
        context = str(example["context"])
        if not context.strip():
            return []
        limit = max(1, min(budget.max_text_tokens, WINDOW_TOKENS))
        if budget.count_tokens(context) <= limit:
            return [example]
        stride = max(1, int(limit * OVERLAP))
        pieces = pack(split_sentences(context), stride, budget.count_tokens)
        windows: list[Example] = []
        begin = offset = 0
        while True:
            end, used = begin, 0
            while end < len(pieces) and (end == begin or used + budget.count_tokens(pieces[end]) <= limit):
                used += budget.count_tokens(pieces[end])
                end += 1
            windows.append({**example, "context": "".join(pieces[begin:end]), "_offset": offset})
            if end == len(pieces):
                return windows
            following = max(begin + 1, end - 1)
            offset += sum(len(piece) for piece in pieces[begin:following])
            begin = following

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Take the surest answer of all windows, whole answers before partial ones."""
        found = [part for part in parts if part.prediction.text]
        if not found:
            surest = max((part.logprob for part in parts), default=None)
            return Prediction("", _fields(None, None, "", exact=False, score=surest))
        best = max(found, key=lambda part: (bool(part.prediction.fields["exact"]), part.logprob))
        offset = int(best.example.get("_offset", 0))
        start, end = (best.prediction.fields[key] + offset for key in ("start", "end"))
        fields = _fields(
            start,
            end,
            sentence_around(str(example["context"]), start, end),
            exact=bool(best.prediction.fields["exact"]),
            answer=best.prediction.text,
            score=best.logprob,
        )
        return Prediction(best.prediction.text, fields)

    def target(self, example: Example) -> str | None:
        """Return the first answer, or `NO_ANSWER` for an empty list."""
        answers = example.get("answers")
        if answers is None:
            return None
        return str(answers[0]) if answers else NO_ANSWER

    def references(self, example: Example) -> list[str]:
        """Return the acceptable answers; empty for an unanswerable question."""
        return [str(answer) for answer in example.get("answers") or []]


def _fields(
    start: int | None,
    end: int | None,
    evidence: str,
    *,
    exact: bool,
    answer: str = "",
    score: float | None = None,
) -> dict[str, Any]:
    return {
        "answer": answer,
        "start": start,
        "end": end,
        "score": None if score is None else round(math.exp(min(score, 0.0)), 6),
        "answerable": start is not None,
        "evidence": evidence,
        "exact": exact,
    }
