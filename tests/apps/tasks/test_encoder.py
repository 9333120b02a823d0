"""Ids asked are ids trained are ids scored, for every task, with chat and with short prompts."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import pytest
from tiny_pairs import pairs_tokenizer

from nlpkit.apps.pipeline.job import TaskRun
from nlpkit.apps.tasks.encoder import EVERY, PromptEncoder, short_names
from nlpkit.apps.tasks.table import load_task
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.decode.request import Score
from nlpkit.core.tokenizers.train import CHATML
from nlpkit.eval.runs.likelihood import target_likelihood

TEXT = "The dog sleeps. The cat does not."
QUESTION = {"context": TEXT, "question": "Who sleeps?", "answers": ["dog"]}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("translation", {"source": "Thank you", "target": "Danke", "source_lang": "en", "target_lang": "de"}),
    ("qa", QUESTION),
    ("qa", {**QUESTION, "answers": []}),
    ("qa", {**QUESTION, "inverse": 1}),
    ("summarization", {"document": TEXT, "summary": "A dog.", "length": "short"}),
    ("summarization", {"document": TEXT, "summary": "A dog.", "max_words": 5}),
    ("writing", {"prompt": "the sea", "form": "haiku", "text": "Waves"}),
    ("writing", {"prompt": "the sea", "text": "Waves"}),
    ("classification", {"text": TEXT, "labels": ["animal", "weather"], "label": "animal"}),
    ("sentiment", {"text": TEXT, "label": "neutral"}),
    ("generation", {"prompt": "The dog", "text": " sleeps"}),
    ("chat", {"prompt": "The dog", "text": "sleeps"}),
]


class Model:
    """As much of a language model as asking and scoring need; remembers the ids that it is given."""

    name, adapter, adapter_sha256, learned_options, max_seq_len = "m", None, None, (), 512

    def __init__(self, learned: Container[str]) -> None:
        self.tokenizer, self.chat, self.learned_tasks = pairs_tokenizer(), ChatTemplate(CHATML), learned
        self.pairs: list[Any] = []

    def has_token(self, text: str) -> bool:
        return False

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def score(self, pairs: Sequence[Any]) -> list[Score]:
        self.pairs += pairs
        return [Score(logprob=-1.0, token_logprobs=(-1.0,), is_greedy=False) for _ in pairs]


@pytest.mark.parametrize("learned", [frozenset(), EVERY], ids=["chat", "short"])
@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}-{number}" for number, (name, _) in enumerate(ROWS)])
def test_ids_asked_are_ids_trained_are_ids_scored(name: str, row: dict[str, Any], learned: Container[str]) -> None:
    task, lm = load_task(name), Model(learned)
    encoder = PromptEncoder(lm.tokenizer, lm.chat, learned)
    trained, length = encoder.lesson(task, row, "row 1")
    (request,) = TaskRun(lm, task, {}, None).start(row, where="row 1").plan.requests  # type: ignore[arg-type]
    assert list(request.prompt_ids) == trained[:length]
    target_likelihood(lm, encoder, task, task.prepare(row))  # type: ignore[arg-type]
    ((prompt, target),) = lm.pairs
    assert [*prompt, *target, trained[-1]] == trained
    # Which prompt it is shows in the ids: what learned all short prompts is not chatted with.
    short = (
        name in {"translation", "qa", "classification", "sentiment"}
        or (row.get("length") or row.get("form")) is not None
    )
    starts_chat = trained[0] == lm.tokenizer.token_to_id("<|im_start|>")
    assert starts_chat is not (name == "generation" or (learned is EVERY and short))


def test_a_trained_model_is_asked_as_it_was_taught(tmp_path: Any) -> None:
    """What its training writes down is what chooses its prompts later."""

    def asked(rows: Sequence[dict[str, Any]]) -> Iterator[bool]:
        task = load_task("qa")
        encoder = PromptEncoder(pairs_tokenizer(), None, short_names(task, rows))
        return (encoder.short(task, task.prepare(row)) is not None for row in (QUESTION, {**QUESTION, "inverse": 1}))

    assert list(asked([QUESTION])) == [True, False]
    assert list(asked([{**QUESTION, "inverse": 1}])) == [False, True]
    assert list(asked([QUESTION, {**QUESTION, "inverse": 1}])) == [True, True]
