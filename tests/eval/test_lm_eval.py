"""The adapter for lm-evaluation-harness: parity with its own `hf` model on a tiny random model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from nlpkit.core.errors import InputError

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("lm-eval is not installed: pip install 'nlpkit[lm-eval]'", allow_module_level=True)

pytestmark = [
    pytest.mark.parity,
    # Of the harness and what it imports, not of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

TEXT = "the cat sat on the mat and looked at the dog . a dog saw the cat , and the cat ran . " * 6


@pytest.fixture(scope="module")
def both(tiny_model: Path) -> tuple[Any, Any]:
    os.environ["HF_HUB_OFFLINE"] = os.environ["TOKENIZERS_PARALLELISM"] = "0"
    from lm_eval.models.huggingface import HFLM

    from nlpkit.core.load import load_model
    from nlpkit.eval.lm_eval import NlpkitLM

    theirs = HFLM(pretrained=str(tiny_model), device="cpu", dtype="float32", batch_size=4)
    return NlpkitLM(load_model(str(tiny_model), dtype="fp32", device="cpu")), theirs


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, number) for number, args in enumerate(arguments)]


PAIRS = [
    ("the cat sat on", " the mat"),
    ("the cat sat on ", "the mat"),
    ("", "a dog saw the cat"),
    ("two men", " are riding horses in the park while a small girl watches"),
    ("a", "b"),
    ("ünïcode 猫", " und Größe"),
    (TEXT, " the cat"),
    ("</s>the dog", " ran"),
]


def test_loglikelihood_equals_hf(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    mine = ours.loglikelihood(requests("loglikelihood", PAIRS))
    wanted = theirs.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    for (value, greedy), (reference, their_greedy) in zip(mine, wanted, strict=True):
        assert value == pytest.approx(reference, abs=2e-4)
        assert greedy == their_greedy


def merging(ours: Any) -> list[tuple[str, str]]:
    """Pairs whose continuation joins the last token of the context, or makes fewer tokens of it."""
    encode = ours.encode
    words = sorted(set(TEXT.split()))
    cuts = [(word[:at], word[at:]) for word in words for at in range(1, len(word))]
    return [(left, right) for left, right in cuts if len(encode(left + right)) <= len(encode(left))]


def test_continuations_that_merge_with_their_context_are_scored(both: tuple[Any, Any]) -> None:
    ours, _ = both
    pairs = merging(ours)
    assert pairs
    scores = ours.loglikelihood(requests("loglikelihood", pairs))
    assert all(-1000 < value < 0 for value, _ in scores)
    for left, right in pairs:
        context, continuation = ours.encode_pair(left, right)
        assert context == ours.encode(left)
        assert continuation
    for nothing in (("a", ""), ("", "")):
        with pytest.raises(InputError, match="no tokens"):
            ours.loglikelihood(requests("loglikelihood", [nothing]))


def test_greedy_continuations_are_called_greedy(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    words = TEXT.split()
    contexts = [" ".join(words[start : start + 4]) for start in range(24)]
    one_token = requests("generate_until", [(context, {"max_gen_toks": 1}) for context in contexts])
    pairs = [(context, text) for context, text in zip(contexts, ours.generate_until(one_token), strict=True) if text]
    mine = ours.loglikelihood(requests("loglikelihood", pairs))
    wanted = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in wanted]
    # Not all: some tokens join the end of the context when both are tokenized together.
    assert sum(greedy for _, greedy in mine) > len(pairs) // 2


def test_rolling_equals_hf_over_several_windows(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    texts = [("the cat",), (TEXT,), ("a dog saw the cat , and " * 5,), ("x",)]
    assert len(ours.encode(TEXT)) > 2 * ours.lm.max_seq_len
    mine = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    wanted = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    assert mine == pytest.approx(wanted, rel=1e-5, abs=2e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 7, 11])
def test_windows_predict_each_token_once(size: int, length: int) -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from nlpkit.eval.lm_eval import rolling_windows

    ids = list(range(100, 100 + length))
    windows = list(rolling_windows(ids, 0, size))
    assert [token for _, target in windows for token in target] == ids
    theirs = get_rolling_token_windows(token_list=ids, prefix_token=0, max_seq_len=size, context_len=1)
    assert windows == [tuple(make_disjoint_window(pair)) for pair in theirs]


def test_generation_equals_hf(both: tuple[Any, Any]) -> None:
    ours, theirs = both
    options = [
        ("the cat sat on", {"max_gen_toks": 12, "until": []}),
        ("two men are", {"max_gen_toks": 12, "until": ["e"], "do_sample": False}),
        (TEXT, {"max_gen_toks": 8, "until": ["zzz"]}),
    ]
    for one in options:
        mine = ours.generate_until(requests("generate_until", [one]))
        assert mine == theirs.generate_until(requests("generate_until", [one]), disable_tqdm=True)


def test_generation_options(both: tuple[Any, Any]) -> None:
    from nlpkit.core.errors import ConfigError

    ours, _ = both
    assert ours.decode_config({"until": "\n", "max_new_tokens": 5}).stop == ("\n",)
    assert ours.decode_config({"do_sample": False, "temperature": 0.7}).temperature == 0.0
    assert ours.decode_config({"do_sample": True}).temperature == 1.0
    assert ours.decode_config({}).max_tokens == 256
    with pytest.raises(ConfigError, match="num_beams"):
        ours.decode_config({"num_beams": 4})


def test_the_harness_itself_runs_it(both: tuple[Any, Any]) -> None:
    import lm_eval
    from lm_eval.api.registry import get_model
    from lm_eval.api.task import ConfigurableTask

    ours, _ = both
    assert get_model("nlpkit") is type(ours)
    text, choices = "the cat sat on the", [" mat", " dog", " men"]
    rows = [{"text": text, "choices": choices, "gold": number % 3} for number in range(9)]

    class Tiny(ConfigurableTask):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                config={
                    "task": "tiny",
                    "dataset_path": "none",
                    "output_type": "multiple_choice",
                    "test_split": "test",
                    "doc_to_text": "{{text}}",
                    "doc_to_choice": "{{choices}}",
                    "doc_to_target": "{{gold}}",
                }
            )

        def download(self, dataset_kwargs: Any = None) -> None:
            import datasets

            self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})

    found = lm_eval.simple_evaluate(
        model=ours, tasks=[Tiny()], bootstrap_iters=0, limit=None, verbosity="ERROR", log_samples=False
    )
    scores = [score for score, _ in ours.loglikelihood(requests("loglikelihood", [(text, one) for one in choices]))]
    best = max(range(3), key=lambda number: scores[number])
    wanted = sum(row["gold"] == best for row in rows) / len(rows)
    assert found["results"]["tiny"]["acc,none"] == pytest.approx(wanted)
