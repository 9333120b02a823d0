"""The former seam of tasks, for one release."""

from __future__ import annotations

from typing import Any

import pytest

from nlpkit.apps.pipeline.run import run_task
from nlpkit.apps.task import BaseTask, Field, Prediction
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.tokenizers.base import Message


class Headline(BaseTask):
    """Writes a headline for an article."""

    name = "headline"
    fields = (Field("article", help="text to head"), Field("headline", required=False, help="reference"))
    metrics = ("rougeL",)
    decoding = DecodeConfig(max_tokens=24, stop=("\n",))
    text_field = "article"

    def prompt(self, example: Any) -> list[Message]:
        return [Message("user", f"Write a headline.\n\n{example['article']}")]

    def brief(self, example: Any) -> str:
        return f"{example['article']}\nHeadline:"

    def references(self, example: Any) -> list[str]:
        return [example["headline"]] if example.get("headline") else []


def test_a_task_of_the_former_kind_runs_as_it_did(fake_lm: Any) -> None:
    lm = fake_lm(lambda *_: " Bees dance \nmore")
    (result,) = run_task(lm, Headline(), [{"article": "Bees."}])
    assert result.text == "Bees dance"
    assert lm.prompts == ["<user>Write a headline.\n\nBees.</>"]
    assert (lm.requests[0].config.max_tokens, lm.requests[0].config.stop) == (24, ("\n",))
    lm.learned_tasks = frozenset({"headline"})
    list(run_task(lm, Headline(), [{"article": "Bees."}]))
    assert lm.prompts[1] == "Bees.\nHeadline:"
    target = Headline().target({"article": "x", "headline": "y"})
    assert target is not None
    assert (target.text, target.accepted) == ("y", ("y",))
    assert Headline().target({"article": "x"}) is None


def test_parsing_gets_the_whole_completion(fake_lm: Any) -> None:
    class Loud(Headline):
        def parse(self, text: str, example: Any) -> Prediction:
            return Prediction(text.upper() + "!")

        def max_tokens(self, example: Any, prompt_tokens: int) -> int:
            return 2 * prompt_tokens + 3

    lm = fake_lm(lambda *_: " dance ")
    (result,) = run_task(lm, Loud(), [{"article": "Bees."}])
    assert result.text == " DANCE !"
    (request,) = lm.requests
    assert request.config.max_tokens == 2 * len(request.prompt_ids) + 3


def test_what_no_longer_works_is_said() -> None:
    with pytest.raises(TypeError, match=r"Old.split no longer works: build the task on nlpkit.Task"):
        type("Old", (BaseTask,), {"split": lambda *_: []})
