"""Classification: labels by likelihood, what a text that says nothing likes taken off, long texts in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.tasks.classification import NOTHING, Classification
from nlpkit.apps.tasks.sentiment import SENTIMENTS, Sentiment
from nlpkit.apps.tasks.task import Learned
from nlpkit.core.decode.request import Score
from nlpkit.core.errors import InputError

LABELS = ["card", "loan"]


def knowing(lm: Any, likes: Callable[[str, str], float]) -> list[tuple[str, str]]:
    """Let a model score labels; return what it was asked."""
    asked: list[tuple[str, str]] = []

    def score(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        texts = [(lm.decode(prompt), lm.decode(target).strip()) for prompt, target in pairs]
        asked.extend(texts)
        return [Score(logprob=likes(*text), token_logprobs=(), is_greedy=False) for text in texts]

    lm.score = score
    return asked


def row(text: str, **values: Any) -> dict[str, Any]:
    return {"text": text, "labels": LABELS, **values}


def test_probabilities_are_those_among_the_labels(fake_lm: Any) -> None:
    lm = fake_lm(lambda prompt, request: "")
    lm.learned_tasks = frozenset({"classification"})
    knowing(lm, lambda prompt, label: math.log({"card": 0.06, "loan": 0.02}[label]))
    (result,) = run_task(lm, Classification(), [row("My card.")])
    assert str(result) == "card"
    assert result.fields["probability"] == pytest.approx(0.75)
    assert result.fields["probabilities"] == pytest.approx({"card": 0.75, "loan": 0.25})
    assert list(result.fields["probabilities"]) == ["card", "loan"]


def test_what_an_untuned_model_likes_anyway_is_taken_off(fake_lm: Any) -> None:
    lm = fake_lm(lambda prompt, request: "")

    def likes(prompt: str, label: str) -> float:
        # Loans are liked whatever the text; cards a little more where the text speaks of one.
        return {"loan": -1.0, "card": -3.0}[label] + (0.5 if label == "card" and "My card" in prompt else 0.0)

    asked = knowing(lm, likes)
    results = list(run_task(lm, Classification(), [row("My card."), row("Money."), row("My card!")]))
    assert [str(result) for result in results] == ["card", "card", "card"]
    assert results[1].fields["probability"] == pytest.approx(0.5)
    assert results[0].fields["probability"] == pytest.approx(math.exp(0.5) / (1 + math.exp(0.5)), abs=1e-5)
    assert len([prompt for prompt, _ in asked if NOTHING in prompt]) == 2, "what says nothing is asked once a label"


def test_the_labels_are_those_that_were_learned(fake_lm: Any) -> None:
    lm = fake_lm(lambda prompt, request: "")
    lm.learned_tasks = frozenset({"classification"})
    lm.learned_options = ({"label": "cold"}, {"label": "warm"})
    asked = knowing(lm, lambda prompt, label: -float(label != "warm"))
    (result,) = run_task(lm, Classification(), [{"text": "Sun."}])
    assert str(result) == "warm"
    assert asked == [("Sun.\nLabel:", "cold"), ("Sun.\nLabel:", "warm")]
    lm.learned_tasks = frozenset()
    with pytest.raises(InputError, match="Give its labels"):
        list(run_task(lm, Classification(), [{"text": "Sun."}]))


def test_the_end_tells_a_label_from_one_that_begins_like_it(fake_lm: Any) -> None:
    lm = fake_lm(lambda prompt, request: "")
    lm.learned_tasks = frozenset({"classification"})
    lm.eos_ids = frozenset({lm.encode("|")[0]})
    asked = knowing(lm, lambda prompt, label: 0.0)
    list(run_task(lm, Classification(), [{"text": "Sun.", "labels": ["good", "good day", "bad"]}]))
    assert [label for _, label in asked] == ["good|", "good day|", "bad|"]


def test_a_long_text_is_read_in_pieces(fake_lm: Any) -> None:
    lm = fake_lm(lambda prompt, request: "", max_seq_len=120)
    lm.learned_tasks = frozenset({"classification"})

    def likes(prompt: str, label: str) -> float:
        return -1.0 if (prompt.count("card") > prompt.count("loan")) == (label == "card") else -2.0

    asked = knowing(lm, likes)
    text = "".join(f"The card {number} is lost. " for number in range(30)) + "The loan is due. " * 14
    (result,) = run_task(lm, Classification(), [row(text)])
    prompts = {prompt for prompt, _ in asked}
    assert str(result) == "card"
    assert result.chunks == len(prompts) > 2
    assert not result.truncated
    # A piece counts by its length.
    share = sum(len(lm.encode(prompt)) for prompt in prompts if "card" in prompt) / sum(
        map(len, map(lm.encode, prompts))
    )
    assert math.log(result.fields["probability"] / (1 - result.fields["probability"])) == pytest.approx(
        share - (1 - share), abs=0.01
    )


@pytest.mark.parametrize("labels", [["one"], ["a", " "], ["a", "a"], [str(number) for number in range(1001)]])
def test_labels_that_are_none(labels: list[str]) -> None:
    with pytest.raises(InputError):
        Classification().prepare({"text": "x", "labels": labels})


@pytest.mark.parametrize(
    ("learned", "values", "expected"),
    [
        (None, {}, SENTIMENTS),
        (Learned(({"label": "negative"}, {"label": "positive"})), {}, ("negative", "positive")),
        (Learned(({"label": "negative"}, {"label": "positive"})), {"labels": ["no", "yes"]}, ("no", "yes")),
    ],
)
def test_sentiments(learned: Learned | None, values: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    task = Sentiment()
    assert task.answers(task.prepare({"text": "x", **values}), learned=learned) == expected
