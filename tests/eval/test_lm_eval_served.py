"""The harness scores a served model by the completions interface as it does the model in its own process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("tenacity") is None:
    pytest.skip("lm-eval is not installed: pip install 'lm-eval[api]'", allow_module_level=True)

from tiny_server import running, tiny_settings

from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServedModel
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request

pytestmark = [
    pytest.mark.parity,
    pytest.mark.local_server,
    # Of the harness and what it imports, not of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
PAIRS = [
    ("the cat sat on", " the mat"),
    ("the cat sat on ", "the mat"),
    ("two men", " are riding horses in the park while a small girl watches"),
    ("a", "b"),
    ("ünïcode 猫", " und Größe"),
    ("the cat sat on the mat and looked at the dog . " * 2, " the cat"),
]


@pytest.fixture(scope="module")
def both(tiny_model: Path) -> Iterator[tuple[Any, Any]]:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from nlpkit.core.load import load_model
    from nlpkit.eval.lm_eval import NlpkitLM

    settings = tiny_settings(models=(ServedModel(id="tiny", name=str(tiny_model)),), dtype="fp32", device="cpu")
    with running(settings, ServedModels(settings)) as address:
        served = LocalCompletionsAPI(
            base_url=f"{address}/v1/completions", model="tiny", tokenizer=str(tiny_model),
            tokenizer_backend="huggingface", max_length=64, batch_size=3, num_concurrent=1, max_retries=1,
        )  # fmt: skip
        yield NlpkitLM(load_model(str(tiny_model), dtype="fp32", device="cpu")), served


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


def test_log_likelihoods_are_the_same(both: tuple[Any, Any]) -> None:
    ours, served = both
    expected = ours.loglikelihood(requests("loglikelihood", PAIRS))
    found = served.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_whether_an_answer_is_the_likeliest_is_the_same(both: tuple[Any, Any]) -> None:
    ours, served = both
    contexts = [ours.encode(context) for context, _ in PAIRS]
    config = DecodeConfig(max_tokens=5, ignore_eos=True)
    found = dict(ours.lm.generate([Request(prompt_ids=tuple(ids), config=config) for ids in contexts]))
    likeliest = [list(found[number].completions[0].token_ids) for number in range(len(contexts))]
    other = [[*ids[:-1], (ids[-1] + 1) % 300] for ids in likeliest]
    pairs = [
        (("", ""), context, ids) for ids_of in (likeliest, other) for context, ids in zip(contexts, ids_of, strict=True)
    ]
    scores = served._loglikelihood_tokens(pairs, disable_tqdm=True)
    assert [greedy for _, greedy in scores] == [True] * len(contexts) + [False] * len(contexts)
    expected = ours.lm.score([(context, ids) for _, context, ids in pairs])
    assert [value for value, _ in scores] == pytest.approx([score.logprob for score in expected], abs=1e-4)


def test_texts_are_the_same(both: tuple[Any, Any]) -> None:
    ours, served = both
    options = {"max_gen_toks": 12, "until": ["\n\n", "zebra"], "temperature": 0}
    asked = [(context, dict(options)) for context, _ in PAIRS]
    expected = ours.generate_until(requests("generate_until", asked))
    asked = [(context, dict(options)) for context, _ in PAIRS]
    assert served.generate_until(requests("generate_until", asked), disable_tqdm=True) == expected


def test_whole_texts_are_scored_the_same(both: tuple[Any, Any]) -> None:
    ours, served = both
    texts = [(context,) for context, _ in PAIRS]
    expected = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    found = served.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-3)
