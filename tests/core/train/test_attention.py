"""The attention of training, in plain products and cut into parts, against the definition and against SDPA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from torch import Tensor

from nlpkit.core.model.attention import Attention, Step
from nlpkit.core.train.attention import TrainingAttend

LENGTHS = [1, 2, 63, 64, 127, 128, 130, 192, 256, 258, 320]
"""Uncut, cut in two and in four; 130 and 258 do not divide evenly by four."""


def block_diagonal(length: int, batch: int) -> Tensor:
    """Causal within segments of unequal length, others in each row of the batch."""
    marks = torch.rand(batch, length, generator=torch.Generator().manual_seed(length)) < 0.1
    segments = marks.cumsum(-1)
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool).tril()


def window(length: int, batch: int) -> Tensor:
    slots = torch.arange(length)
    return ((slots <= slots[:, None]) & (slots > slots[:, None] - 7))[None, None].expand(batch, 1, length, length)


MASKS = {"causal": lambda length, batch: None, "packed": block_diagonal, "window": window}


def layer(**changes: Any) -> Attention:
    attention = Attention(tiny_config(**changes), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return attention


def result(attention: Attention, length: int, mask: Tensor | None) -> list[Tensor]:
    """Output, and the gradients of input and weights."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, length, 32, generator=generator, requires_grad=True)
    slope = torch.randn(2, length, 32, generator=generator)
    step = Step(torch.arange(length).expand(2, length), None, mask, False, None, True)
    out = attention(x, step)
    return [out.detach(), *torch.autograd.grad(out, [x, *attention.parameters()], slope)]


def by_definition(attention: Attention, length: int, mask: Tensor | None) -> list[Tensor]:
    """softmax(cap(Q K^T scale)) V, with the keys repeated for the heads that share them."""

    def attend(layer: Attention, q: Tensor, k: Tensor, v: Tensor, step: Step) -> Tensor:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        scores = q @ k.transpose(-1, -2) * attention.scale
        if attention.softcap:
            scores = attention.softcap * torch.tanh(scores / attention.softcap)
        allowed = torch.ones(length, length, dtype=torch.bool).tril() if step.mask is None else step.mask
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v

    attention.attend = attend
    return result(attention, length, mask)


def close(got: list[Tensor], expected: list[Tensor]) -> bool:
    # By the largest: a gradient that vanishes by symmetry is rounding alone.
    largest = max(float(other.norm()) for other in expected)
    return all(float((one - other).norm()) <= 1e-5 * largest for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_plain_products_equal_sdpa_and_the_definition(length: int, kind: str, n_kv_heads: int) -> None:
    mask = MASKS[kind](length, 2)
    expected = by_definition(layer(n_kv_heads=n_kv_heads), length, mask)
    fused = layer(n_kv_heads=n_kv_heads)
    assert close(result(fused, length, mask), expected)
    fused.attend = TrainingAttend()
    assert close(result(fused, length, mask), expected)


@pytest.mark.parametrize("length", [63, 130, 256])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("plain", [True, False])
def test_capped_scores(length: int, kind: str, plain: bool) -> None:
    mask = MASKS[kind](length, 2)
    capped = layer(attn_softcap=2.0)
    if plain:
        capped.attend = TrainingAttend()
    got = result(capped, length, mask)
    assert close(got, by_definition(layer(attn_softcap=2.0), length, mask))
    assert not close(got[:1], by_definition(layer(), length, mask)[:1])


def test_one_mask_serves_all_rows() -> None:
    attention = layer()
    attention.attend = TrainingAttend()
    mask = window(256, 1)
    assert close(result(attention, 256, mask), result(attention, 256, mask.expand(2, 1, 256, 256)))


def test_a_later_part_never_reaches_an_earlier_one() -> None:
    attention = layer()
    attention.attend = TrainingAttend()
    x = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(3))
    other = x.clone()
    other[:, 200:] += 1
    step = Step(torch.arange(256)[None], None, None, False, None, True)
    with torch.no_grad():
        before, after = attention(x, step), attention(other, step)
    assert torch.equal(before[:, :200], after[:, :200])
    assert not torch.allclose(before[:, 200:], after[:, 200:])
