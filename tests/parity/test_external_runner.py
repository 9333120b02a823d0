"""Rows that run through `transformers`: taken back, copied in part, saved and loaded, where their caches allow it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from tiny_models import ToyTokenizer

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.request import Request
from nlpkit.core.decode.speculation.speculator import PassCost
from nlpkit.core.model.cache import KVSegment
from nlpkit.core.runners.external import ExternalRunner

pytestmark = pytest.mark.parity


class Free(PassCost):
    """Drafts as if wider passes cost nothing."""

    def known(self, n_rows: int) -> bool:
        return True

    def ratio(self, n_rows: int, drafted: int, *, costly: bool) -> float:
        return 1.0


def opt() -> Any:
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=29, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, word_embed_proj_dim=32, init_std=0.4, pad_token_id=1, bos_token_id=2,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config).eval()


def sliding() -> Any:
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, sliding_window=8, initializer_range=0.4,
    )  # fmt: skip
    return transformers.MistralForCausalLM(config).eval()


def runner(model: Any) -> ExternalRunner:
    return ExternalRunner(model, max_seq_len=256, vocab_size=29)


def ids(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(2, 29) for _ in range(count)]


def uncached(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]


def test_only_plain_caches_can_be_taken_back() -> None:
    assert runner(opt()).can_rewind
    assert not runner(sliding()).can_rewind


def test_logits_at_every_token_wanted_and_after_taking_back() -> None:
    model = opt()
    rows = runner(model)
    rows.reserve(2)
    first, second = ids(0, 9), ids(1, 5)
    got = rows.extend(0, [first, second], [0, 0], wanted=[3, 0])
    assert torch.allclose(got, uncached(model, first)[-3:], atol=1e-5)
    more = ids(2, 4)
    got = rows.extend(0, [more, more[:1]], [6, 2], wanted=[2, 1])
    assert torch.allclose(got[:2], uncached(model, [*first[:6], *more])[-2:], atol=1e-5)
    assert torch.allclose(got[2], uncached(model, [*second[:2], more[0]])[-1], atol=1e-5)


def test_part_of_a_row_can_be_copied_saved_and_loaded() -> None:
    model = opt()
    rows = runner(model)
    rows.reserve(3)
    prompt, more = ids(0, 12), ids(1, 3)
    rows.extend(0, [prompt], [0])
    rows.copy_row(0, 1, 7)
    expected = uncached(model, [*prompt[:7], *more])[-1]
    assert torch.allclose(rows.extend(1, [more], [7])[0], expected, atol=1e-5)
    head, tail = rows.save_segment(0, 0, 4), rows.save_segment(0, 4, 7)
    assert head is not None
    assert tail is not None
    other = runner(model)
    other.reserve(1)
    assert other.load_segment(0, 0, head)
    assert other.load_segment(0, 4, tail)
    assert torch.allclose(other.extend(0, [more], [7])[0], expected, atol=1e-5)
    assert not other.load_segment(0, 0, KVSegment(head.keys.double(), head.values.double()))
    assert not other.load_segment(0, 0, KVSegment(head.keys[:1], head.values[:1]))
    assert torch.allclose(rows.extend(0, [more], [12])[0], uncached(model, [*prompt, *more])[-1], atol=1e-5)


@pytest.mark.parametrize("build", [opt, sliding])
def test_speculation_and_shared_prefixes_change_no_text(build: Any) -> None:
    model = build()
    common = ids(0, 40)
    config = DecodeConfig(max_tokens=24, ignore_eos=True)
    requests = [
        Request(prompt_ids=(*common, *ids(i, 3 + i)), config=config if i % 2 else config.replace(max_tokens=9))
        for i in range(4)
    ]
    plain = Engine(lambda: runner(model), ToyTokenizer(29))
    plain.prefixes = None
    engine = Engine(lambda: runner(model), ToyTokenizer(29))
    engine.experience.cost = Free()
    for _ in range(2):
        hinted = [
            Request(prompt_ids=one.prompt_ids, config=one.config.replace(speculation="prompt")) for one in requests
        ]
        got, expected = dict(engine.generate(hinted)), dict(plain.generate(requests))
        for i in range(4):
            assert got[i].completions[0].token_ids == expected[i].completions[0].token_ids
    assert engine.prefixes is not None
    can = runner(model).can_rewind
    assert (engine.prefixes.reused > 100) == can
    assert (engine.experience.drafted > 0) == can
