"""Question answering over a given text: the answer is a piece of the text, with offsets, or there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import BRIEF, INVERSE, BaseTask, Budget, Example, Field, Overflow, Part, Prediction
from nlpkit.apps.text.answer_spans import find_span, overlap, sentence_around
from nlpkit.apps.text.chunking import pack, split_sentences
from nlpkit.apps.text.cleaning import LINE_BREAK, clean, ends_too_soon, strip_quotes
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig

NO_ANSWER = "unanswerable"
"""What the model is told to write, and learns to write, where the text holds no answer."""

SURE = 0.8
"""Probability from which on a tuned model's first answer is taken as it is."""

RIVALS = 4
"""Answers to choose from where the first one is not sure."""

INVERSE_WEIGHT = 0.4
"""Weight of the question's log-likelihood beside the answer's. Chosen on held-out questions; 1 trusts it too much."""

WINDOW_TOKENS = 1024
"""Most context tokens of one window: small models lose the thread in longer ones."""

LEARNED_TOKENS = 450
"""Longest context that a model tuned with brief prompts reads whole: about the longest it learned from."""

LEARNED_WINDOW_TOKENS = 350
"""Most context tokens of one of its windows, where the context is longer: about what it learned most from."""

OVERLAP = 0.2
"""Share of a window that is repeated at the start of the next, so that no answer lies on a cut."""

_DENIAL = re.compile(
    r"\bunanswerable\b|\bno (?:answer|information|mention)\b"
    r"|(?:\bnot|n[’']t) (?:answer(?:able|ed)|mentioned|stated|given|specified|provided|discussed|known|clear|said)\b"
    r"|(?:\bnot|n[’']t) in (?:the|this) (?:text|passage|context|paragraph|article)\b"
    r"|\b(?:does|do|did)(?: not|n[’']t) (?:answer|say|mention|state|specify|provide|contain|give|tell|know)\b"
    r"|\bcan(?:not|[’']t| not) (?:be (?:answered|determined|found)|answer|determine|find|tell|say)\b"
    r"|\bunable to (?:answer|determine|find|tell)\b|\bkeine antwort|\bnicht beantwort"
    r"|无法回答|沒有答案|没有答案|无法确定",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^[*_\s]*(?:the )?answer(?: is)?\s*:?[*_]*\s*", re.IGNORECASE)


class QuestionAnswering(BaseTask):
    """Answers a question with words of the context.

    Fields of a prediction: ``answer`` (also the text), ``start`` and ``end`` (``context[start:end] == answer``),
    ``score``, ``answerable``, ``evidence`` (the sentence around the answer), ``exact`` (whether all of the model's
    words were found in the context, or only some). Where the model's words do not occur in the context, the question
    counts as unanswerable.

    ``score``, from 0 to 1, is the probability of the model's whole answer for a model tuned with brief prompts, which
    writes an answer or `NO_ANSWER` and ends. Any other model may go on and explain itself: there it is the geometric
    mean probability of its tokens.

    A model that also learned which question an answer is to (rows with the field ``inverse``) is asked twice where it
    is not sure. Its best answers ``a`` get the weights ``P(a | context, question) * P(question | context, a) ** 0.4``
    (a noisy channel, as in Lewis and Fan 2019, "Generative Question Answering: Learning to Answer the Whole
    Question"), and the one is taken that has most words in common with all of them by these weights (minimum Bayes
    risk; Kumar and Byrne 2004).
    """

    name = "qa"
    version = 2
    fields: ClassVar[tuple[Field, ...]] = (
        Field("context", may_be_empty=True, help="text that holds the answer"),
        Field("question", help="question about it"),
        Field("answers", list, required=False, help="acceptable answers; an empty list means there is none"),
        Field("id", required=False, help="name of the row"),
        Field(INVERSE, int, required=False, help="1 to learn the question that the first answer is to, not the answer"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("squad_f1", "exact_match")
    decoding = DecodeConfig(max_tokens=48, stop=("\n",), speculation="prompt")
    streams = False
    text_field = "context"
    on_overflow: ClassVar[Overflow] = "chunk"

    def prompt(self, example: Example) -> list[Message]:
        """Give the context, then the question; of an inverse row the answer."""
        context, question = str(example["context"]).strip(), str(example["question"]).strip()
        if _is_inverse(example):
            return [Message("user", f"{context}\n\nAnswer: {_first_answer(example)}\nQuestion that it answers:")]
        text = f'{context}\n\nQuestion: {question}\nShort answer, or "{NO_ANSWER}":'
        return [Message("user", text)]

    def brief(self, example: Example) -> str | None:
        """Give the context and the question, with a label each; of an inverse row the answer."""
        context = str(example["context"]).strip()
        if _is_inverse(example):
            return f"{context}\nAnswer: {_first_answer(example)}\nQuestion:"
        return f"{context}\nQuestion: {str(example['question']).strip()}\nAnswer:"

    def brief_name(self, example: Example) -> str:
        """Tell inverse rows from others: a model may have learned only one of the two."""
        return f"{self.name}-{INVERSE}" if _is_inverse(example) else self.name

    def parse(self, completion: str, example: Example) -> Prediction:
        """Find the words of the first line, or else of its first sentence, in the context."""
        context = str(example.get("context", ""))
        line = LINE_BREAK.split(clean(completion), maxsplit=1)[0]
        if _is_inverse(example):
            return Prediction(line.strip(), _fields(None, None, "", exact=False))
        said = strip_quotes(_LABEL.sub("", line).strip())
        question = str(example.get("question", ""))
        span = find_span(context, said, question=question)
        if span is None or not span.exact:
            # Models explain themselves: the first sentence holds the answer, the rest would only mislead the search.
            said = "".join(split_sentences(said)[:1])
            span = find_span(context, said, question=question)
        if _denies(said, exact=span is not None and span.exact):
            return _no_answer("the model finds no answer in the text")
        if span is None:
            return _no_answer("what the model answered is not in the text, so there is no answer")
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

    def rivals(self, logprob: float, example: Example) -> Mapping[str, Any]:
        """Search for other answers where the probability of the first one is below `SURE`."""
        unsure = bool(example.get(BRIEF)) and not _is_inverse(example) and logprob < math.log(SURE)
        return {"beam_size": RIVALS, "n": RIVALS, "length_penalty": 0.0} if unsure else {}

    def inverse(self, completion: str, example: Example) -> Example | None:
        """Ask which question the completion is the answer to."""
        answer = LINE_BREAK.split(completion.strip(), maxsplit=1)[0].strip()
        return {**example, INVERSE: 1, "answers": [answer]} if answer else None

    def choose(self, predictions: Sequence[Prediction], logprobs: Sequence[float], inverse: Sequence[float]) -> int:
        """Take the answer with the largest expected overlap; no answer overlaps with itself alone."""
        values = [a + INVERSE_WEIGHT * b for a, b in zip(logprobs, inverse, strict=True)]
        likeliest: dict[str, int] = {}
        for index, prediction in enumerate(predictions):
            if prediction.text not in likeliest or values[index] > values[likeliest[prediction.text]]:
                likeliest[prediction.text] = index
        top = max(values)
        weights = {text: math.exp(values[index] - top) for text, index in likeliest.items()}
        best = max(weights, key=lambda text: sum(weight * overlap(text, other) for other, weight in weights.items()))
        return likeliest[best]

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut a long context into overlapping windows of whole sentences; each notes its ``_offset``.

        Windows for a model tuned with brief prompts are of the length that it learned from.
        """
        context = str(example["context"])
        if not context.strip():
            return []
        brief = bool(example.get(BRIEF))
        whole = min(budget.max_text_tokens, LEARNED_TOKENS if brief else WINDOW_TOKENS)
        if budget.count_tokens(context) <= max(1, whole):
            return [example]
        limit = max(1, min(whole, LEARNED_WINDOW_TOKENS if brief else WINDOW_TOKENS))
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
        """Take the surest answer of all windows, whole answers before partial ones.

        An answer from one window wins over all windows that have none, however sure those are: each speaks of its own
        text only, and of the windows of an answerable question all but one or two are rightly sure that they have no
        answer. So P(answer | window) is compared among answers, and never with P(no answer | another window). Every
        further window is a further chance of a wrong answer, which the score shows.

        There is no answer in the whole only if no window has one: the least sure of them gives the score, an upper
        bound of the probability that all are right.
        """
        if _is_inverse(example):
            return parts[0].prediction if parts else _no_answer("there is no text to ask about")

        def sureness(part: Part) -> float:
            return part.total_logprob if example.get(BRIEF) else part.logprob

        found = [part for part in parts if part.prediction.text]
        if not found:
            said = dict.fromkeys(warning for part in parts for warning in part.prediction.warnings)
            return _no_answer(
                *(said or ("there is no text to look for an answer in",)), score=min(map(sureness, parts), default=None)
            )
        best = max(found, key=lambda part: (bool(part.prediction.fields["exact"]), sureness(part)))
        offset = int(best.example.get("_offset", 0))
        start, end = (best.prediction.fields[key] + offset for key in ("start", "end"))
        fields = _fields(
            start,
            end,
            sentence_around(str(example["context"]), start, end),
            exact=bool(best.prediction.fields["exact"]),
            answer=best.prediction.text,
            score=sureness(best),
        )
        return Prediction(best.prediction.text, fields)

    def target(self, example: Example) -> str | None:
        """Return the first answer, or `NO_ANSWER` for an empty list; of an inverse row the question."""
        if _is_inverse(example):
            return str(example["question"]).strip() if example.get("answers") is not None else None
        answers = example.get("answers")
        if answers is None:
            return None
        return str(answers[0]) if answers else NO_ANSWER

    def references(self, example: Example) -> list[str]:
        """Return the acceptable answers, none for an unanswerable question; of an inverse row the question."""
        if _is_inverse(example):
            return [str(example["question"]).strip()]
        return [str(answer) for answer in example.get("answers") or []]


def _is_inverse(example: Example) -> bool:
    # Tables hold digits as text.
    return int(example.get(INVERSE) or 0) != 0


def _first_answer(example: Example) -> str:
    answers = example.get("answers")
    return str(answers[0]).strip() if answers else NO_ANSWER


def _denies(said: str, *, exact: bool) -> bool:
    """Tell whether a model says that there is no answer; `exact`: its words stand in the text, one after the other."""
    match = _DENIAL.search(said)
    if match is None:
        return False
    # Where the text itself says "not known", its words may be the answer, but not the two alone.
    return not exact or not any(char.isalnum() for char in said[: match.start()] + said[match.end() :])


def _no_answer(*warnings: str, score: float | None = None) -> Prediction:
    return Prediction("", _fields(None, None, "", exact=False, score=score), warnings)


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
