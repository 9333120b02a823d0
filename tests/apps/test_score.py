"""How likely a model holds it that a text goes on in a certain way."""

from __future__ import annotations

import pytest
import torch
from spaced_tokenizers import spm
from tiny_models import tiny_config, tiny_gpt

from nlpkit.apps.toolkit import Toolkit
from nlpkit.core.errors import ContextOverflowError, InputError
from nlpkit.core.language_model import LanguageModel, ModelFacts
from nlpkit.core.model.gpt import GPT
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.tokenizers.tokenizer import encode_behind


@pytest.fixture(scope="module")
def model() -> GPT:
    return tiny_gpt(tiny_config(vocab_size=spm().vocab_size))


@pytest.fixture(scope="module")
def toolkit(model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Toolkit:
    facts = ModelFacts(
        name="tiny", path=tmp_path_factory.mktemp("x"), format="native", family="llama", n_parameters=1, dtype="fp32",
        device="cpu",
    )  # fmt: skip
    return Toolkit(LanguageModel(facts, lambda: GPTRunner(model), spm(), None))


@torch.inference_mode()
def test_the_log_probability_is_the_model_s(toolkit: Toolkit, model: GPT) -> None:
    tokenizer = spm()
    whole = tokenizer.encode("the queen lays eggs", add_bos=True)
    start = len(tokenizer.encode("the queen lays", add_bos=True))
    logprobs = torch.log_softmax(model(torch.tensor([whole]))[0], -1)
    wanted = [float(logprobs[at - 1, whole[at]]) for at in range(start, len(whole))]
    score = toolkit.score("the queen lays", " eggs")
    assert score.token_logprobs == pytest.approx(wanted, abs=1e-4)
    assert score.logprob == pytest.approx(sum(wanted), abs=1e-3)


def test_what_is_written_greedily_is_greedy(toolkit: Toolkit) -> None:
    tokenizer = spm()
    found = 0
    for prompt in ("the", "the queen", "honey", "a day", "warm and", "full", "hive", "lays eggs"):
        text = str(toolkit.generate(prompt, options={"max_tokens": 1}))
        if len(encode_behind(tokenizer, tokenizer.encode(prompt), text)) == 1:
            found += 1
            assert toolkit.score(prompt, text).is_greedy
            assert not toolkit.score(prompt, " of" if text != " of" else " is").is_greedy
    assert found


def test_lists(toolkit: Toolkit) -> None:
    one, other = toolkit.score("the queen", " lays"), toolkit.score("the queen", " honey")
    both = toolkit.score("the queen", [" lays", " honey"])
    assert [score.logprob for score in both] == pytest.approx([one.logprob, other.logprob], abs=1e-4)
    contexts = toolkit.score(("the queen", "the hive"), " lays")
    assert contexts[0].logprob == pytest.approx(one.logprob, abs=1e-4)
    assert contexts[1].logprob != pytest.approx(one.logprob, abs=1e-4)
    assert toolkit.score(["the"], [" day"])[0] == toolkit.score("the", " day")
    assert toolkit.score("the", []) == []
    assert toolkit.score("", " day").logprob < 0
    assert toolkit.score("the", "").logprob == 0


def test_mistakes(toolkit: Toolkit, fake_lm) -> None:
    with pytest.raises(InputError, match="2 contexts and 3 continuations"):
        toolkit.score(["a", "b"], ["c", "d", "e"])
    with pytest.raises(InputError, match="continuation must be a string"):
        toolkit.score("a", 3)  # type: ignore[call-overload]
    with pytest.raises(ContextOverflowError, match="holds 128"):
        toolkit.score("the", " honey" * 500)
    with pytest.raises(InputError, match="context is empty"):
        Toolkit(fake_lm(lambda prompt, _: "x")).score("", " x")
