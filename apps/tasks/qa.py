"""Question answering over a given text: the answer is a piece of the text, with offsets, or there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import (
    Chunk,
    ChunkResult,
    Field,
    Learned,
    Prediction,
    Prompt,
    Reranks,
    Row,
    Splits,
    Target,
    TextBudget,
)
from nlpkit.apps.text.answer_spans import find_span, overlap, sentence_around
from nlpkit.apps.text.chunking import pack, split_sentences
from nlpkit.apps.text.cleaning import LINE_BREAK, Cleaning, strip_quotes
from nlpkit.core.decode.config import DecodeConfig

REVERSE = "inverse"
"""Field of rows that are learned the other way round, and the end of the name of their short prompt."""

NO_ANSWER = "unanswerable"
"""What the model is told to write, and learns to write, where the text holds no answer."""

SURE = 0.8
"""Probability from which on a tuned model's first answer is taken as it is."""

CANDIDATES = 4
"""Answers to choose from where the first one is not sure."""

REVERSE_WEIGHT = 0.4
"""Weight of the question's log-likelihood beside the answer's. Chosen on held-out questions; 1 trusts it too much."""

WINDOW_TOKENS = 1024
"""Most context tokens of one window: small models lose the thread in longer ones."""

LEARNED_TOKENS = 450
"""Longest context that a model with the short prompt reads whole: about the longest it learned from."""

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


class QuestionAnswering(Splits[Row], Reranks[Row]):
    """Answers a question with words of the context.

    Fields of a prediction: ``answer`` (also the text), ``start`` and ``end`` (``context[start:end] == answer``),
    ``score``, ``answerable``, ``evidence`` (the sentence around the answer), ``exact`` (whether all of the model's
    words were found in the context, or only some). Where the model's words do not occur in the context, the question
    counts as unanswerable.

    ``score``, from 0 to 1, is the probability of the whole answer of a model that learned the short prompt, which
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
        Field(
            "answers",
            list,
            required=False,
            role="reference",
            help="acceptable answers; an empty list means there is none",
        ),
        Field("id", required=False, role="option", help="name of the row"),
        Field(
            REVERSE,
            int,
            required=False,
            role="option",
            help="1 to learn the question that the first answer is to, not the answer",
        ),
    )
    metrics: ClassVar[tuple[str, ...]] = ("squad_f1", "exact_match")
    options = DecodeConfig(max_tokens=48, stop=("\n",), speculation="prompt")
    cleaning = Cleaning(announcements=True, first_line=True, shows=False)

    def prompt(self, example: Row) -> Prompt:
        """Give the context, then the question; of a reverse row the answer."""
        context, question = str(example["context"]).strip(), str(example["question"]).strip()
        if _is_reverse(example):
            # A model may have learned only one of the two.
            answer, name = _first_answer(example), f"{self.name}-{REVERSE}"
            return Prompt(
                f"{context}\n\nAnswer: {answer}\nQuestion that it answers:",
                short=f"{context}\nAnswer: {answer}\nQuestion:",
                name=name,
            )
        return Prompt(
            f'{context}\n\nQuestion: {question}\nShort answer, or "{NO_ANSWER}":',
            short=f"{context}\nQuestion: {question}\nAnswer:",
        )

    def parse(self, text: str, example: Row) -> Prediction:
        """Find the words of the answer, or else of its first sentence, in the context."""
        context = str(example.get("context", ""))
        if _is_reverse(example):
            return Prediction(text.strip(), _fields(None, None, "", exact=False))
        said = strip_quotes(_LABEL.sub("", text).strip())
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

    def candidates(self, logprob: float, example: Row, *, learned: Learned | None) -> int:
        """Search for other answers where the probability of the first one is below `SURE`."""
        unsure = learned is not None and not _is_reverse(example) and logprob < math.log(SURE)
        return CANDIDATES if unsure else 0

    def reverse(self, completion: str, example: Row) -> Row | None:
        """Ask which question the completion is the answer to."""
        answer = LINE_BREAK.split(completion.strip(), maxsplit=1)[0].strip()
        return {**example, REVERSE: 1, "answers": [answer]} if answer else None

    def choose(self, predictions: Sequence[Prediction], logprobs: Sequence[float], reverse: Sequence[float]) -> int:
        """Take the answer with the largest expected overlap; no answer overlaps with itself alone."""
        values = [a + REVERSE_WEIGHT * b for a, b in zip(logprobs, reverse, strict=True)]
        likeliest: dict[str, int] = {}
        for index, prediction in enumerate(predictions):
            if prediction.text not in likeliest or values[index] > values[likeliest[prediction.text]]:
                likeliest[prediction.text] = index
        top = max(values)
        weights = {text: math.exp(values[index] - top) for text, index in likeliest.items()}
        best = max(weights, key=lambda text: sum(weight * overlap(text, other) for other, weight in weights.items()))
        return likeliest[best]

    def split(self, example: Row, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[Row]]:
        """Cut a long context into overlapping windows of whole sentences.

        Windows for a model that learned the short prompt are of the length that it learned from.
        """
        context = str(example["context"])
        if not context.strip():
            return []
        whole = min(budget.max_text_tokens, LEARNED_TOKENS if learned else WINDOW_TOKENS)
        if budget.count_tokens(context) <= max(1, whole):
            return [Chunk(example)]
        limit = max(1, min(whole, LEARNED_WINDOW_TOKENS if learned else WINDOW_TOKENS))
        stride = max(1, int(limit * OVERLAP))
        pieces = pack(split_sentences(context), stride, budget.count_tokens)
        windows: list[Chunk[Row]] = []
        begin = offset = 0
        while True:
            end, used = begin, 0
            while end < len(pieces) and (end == begin or used + budget.count_tokens(pieces[end]) <= limit):
                used += budget.count_tokens(pieces[end])
                end += 1
            windows.append(Chunk({**example, "context": "".join(pieces[begin:end])}, offset=offset))
            if end == len(pieces):
                return windows
            following = max(begin + 1, end - 1)
            offset += sum(len(piece) for piece in pieces[begin:following])
            begin = following

    def merge(self, results: Sequence[ChunkResult[Row]], example: Row, *, learned: Learned | None) -> Prediction:
        """Take the surest answer of all windows, whole answers before partial ones.

        An answer from one window wins over all windows that have none, however sure those are: each speaks of its own
        text only, and of the windows of an answerable question all but one or two are rightly sure that they have no
        answer. So P(answer | window) is compared among answers, and never with P(no answer | another window). Every
        further window is a further chance of a wrong answer, which the score shows.

        There is no answer in the whole only if no window has one: the least sure of them gives the score, an upper
        bound of the probability that all are right.
        """
        if _is_reverse(example):
            return results[0].prediction if results else _no_answer("there is no text to ask about")

        def sureness(result: ChunkResult[Row]) -> float:
            return result.total_logprob if learned else result.logprob

        found = [result for result in results if result.prediction.text]
        if not found:
            said = dict.fromkeys(warning for result in results for warning in result.prediction.warnings)
            least = min(map(sureness, results), default=None)
            return _no_answer(*(said or ("there is no text to look for an answer in",)), score=least)
        best = max(found, key=lambda result: (bool(result.prediction.fields["exact"]), sureness(result)))
        start, end = (best.prediction.fields[key] + best.chunk.offset for key in ("start", "end"))
        fields = _fields(
            start,
            end,
            sentence_around(str(example["context"]), start, end),
            exact=bool(best.prediction.fields["exact"]),
            answer=best.prediction.text,
            score=sureness(best),
        )
        return Prediction(best.prediction.text, fields)

    def target(self, example: Row) -> Target | None:
        """Return the answers, or `NO_ANSWER` to learn where there is none; of a reverse row the question."""
        answers = example.get("answers")
        if answers is None:
            return None
        if _is_reverse(example):
            return Target(str(example["question"]).strip())
        accepted = tuple(str(answer) for answer in answers)
        return Target(accepted[0] if accepted else NO_ANSWER, accepted)


def _is_reverse(example: Row) -> bool:
    # Tables hold digits as text.
    return int(example.get(REVERSE) or 0) != 0


def _first_answer(example: Row) -> str:
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
