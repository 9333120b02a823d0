"""Cross-entropy over the target positions alone, a chunk at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from nlpkit.core.model.gpt import GPT

_STEP = 64
"""Chunks are padded to a multiple of so many rows."""


def head_parameters(model: GPT) -> list[Tensor]:
    """Return the parameters that the output head uses."""
    if model.head is None:
        return [model.embed.weight]
    return list(model.head.parameters())


def _softmax_part(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the labels' log-probabilities, the mean one of all tokens, and the slope of the loss.

    ``d loss / d logits = softmax(logits) - target distribution``; with label smoothing by ``s`` the target is ``1 - s``
    on the label plus ``s / vocab_size`` everywhere.

    Args:
        logits: Shape ``(rows, vocab_size)``.
        labels: Shape ``(rows,)``.
        smoothing: Label smoothing.

    Returns:
        Two of shape ``(rows,)`` in fp32, and one of the logits' shape and dtype.
    """
    logprobs = torch.log_softmax(logits, -1, dtype=torch.float32)
    chosen = logprobs.gather(1, labels[:, None])
    mean = logprobs.mean(-1) if smoothing else chosen[:, 0]
    even = smoothing / logits.shape[1]
    slope = logprobs.exp_()
    if smoothing:
        slope = slope - even
    # The label's own slope is computed before rounding: in 16 bits a confident 0.999 - 1 would be 0.
    edge = chosen.exp() - (1 - smoothing) - even
    slope = slope.to(logits.dtype)
    return chosen[:, 0], mean, slope.scatter_(1, labels[:, None], edge.to(slope.dtype))


@functools.cache
def _compiled_part() -> Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]:
    # One kernel for any number of rows.
    compiled: Any = torch.compile(_softmax_part, dynamic=True)
    part: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]] = compiled
    return part


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropy, with its gradient computed on the way: no chunk's logits outlive the chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        model: GPT,
        hidden: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        smoothing: float,
        chunk: int,
        compiled: bool,
        wanted: tuple[bool, ...],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count = labels.shape[0]
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        plain = torch.zeros((), dtype=torch.float64, device=hidden.device)
        inputs = [parameter for parameter, want in zip(parameters, wanted[1:], strict=True) if want]
        gradients: list[Tensor | None] = [None] * len(inputs)
        hidden_gradient = torch.zeros_like(hidden) if wanted[0] else None
        softmax_part = _compiled_part() if compiled else _softmax_part
        n_chunks = max(1, -(-count // chunk))
        several = n_chunks > 1
        # Even chunks of few different sizes: kernels are chosen by shape.
        chunk = -(-count // (n_chunks * _STEP)) * _STEP if several or compiled else count
        for start in range(0, count, chunk or 1):
            part = hidden[start : start + chunk].detach()
            target = labels[start : start + chunk]
            rows = part.shape[0]
            if rows < chunk:
                part = torch.cat((part, part.new_zeros(chunk - rows, part.shape[1])))
                target = torch.cat((target, target.new_zeros(chunk - rows)))
            with torch.set_grad_enabled(any(wanted)):
                part.requires_grad_(wanted[0])
                logits = model.logits(part)
            chosen, mean, slope = softmax_part(logits.detach(), target, smoothing)
            share = None if weights is None else weights[start : start + rows].double()
            nll = -chosen[:rows].double()
            plain += (nll if share is None else nll * (share == 1)).sum()
            if smoothing:
                nll = (1 - smoothing) * nll - smoothing * mean[:rows].double()
            total += (nll if share is None else nll * share).sum()
            if not any(wanted):
                continue
            slope[rows:] = 0
            if share is not None:
                slope[:rows] *= share[:, None].to(slope.dtype)
            wants = [part, *inputs] if wanted[0] else inputs
            found = list(torch.autograd.grad(logits, wants, slope))
            if hidden_gradient is not None:
                hidden_gradient[start : start + rows] = found.pop(0)[:rows]
            for i, gradient in enumerate(found):
                if not several:
                    gradients[i] = gradient
                elif gradients[i] is None:
                    gradients[i] = gradient.float()
                else:
                    cast("Tensor", gradients[i]).add_(gradient)
        filled = iter(gradients)
        whole = [next(filled) if want else None for want in wanted[1:]]
        ctx.found = (hidden_gradient, whole)
        ctx.dtypes = [parameter.dtype for parameter in parameters]
        ctx.mark_non_differentiable(plain)
        return total, plain

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        hidden, parameters = ctx.found
        ctx.found = None
        scale = grad_outputs[0]
        if hidden is not None:
            hidden = hidden.mul_(scale.to(hidden.dtype))
        scaled = [
            None if gradient is None else gradient.mul_(scale.to(gradient.dtype)).to(dtype)
            for gradient, dtype in zip(parameters, ctx.dtypes, strict=True)
        ]
        return None, hidden, None, None, None, None, None, None, *scaled


def loss_sum(
    model: GPT,
    hidden: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    at: Tensor | None = None,
    smoothing: float = 0.0,
    chunk: int = 256,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the positions that have a label.

    Args:
        model: Its head is applied.
        hidden: Final hidden states, shape ``(batch, seq, d_model)``.
        labels: Shape ``(batch, seq)``; below 0 there is no loss, and nothing goes through the head.
        weights: Weight of each position's loss, same shape as `labels`: 1 on targets, below 1 elsewhere. None is 1.
        at: Numbers of the positions that have a label, counted row by row, where the caller knows them: on a GPU
            looking for them would make the host wait.
        smoothing: Label smoothing.
        chunk: Positions whose logits are held at once.
        compiled: Whether to compile what comes after the logits.

    Returns:
        The weighted sum to minimise, in nats, differentiable; and the sum over the positions of weight 1 without
        smoothing. Scalars in fp64.
    """
    parameters = head_parameters(model)
    if at is None:
        at = (labels.flatten() >= 0).nonzero()[:, 0]
    states, chosen, shares = hidden.flatten(0, 1), labels.flatten(), None if weights is None else weights.flatten()
    # Where every position has a label, as in plain text, none need be gathered.
    if at.shape[0] < chosen.shape[0]:
        states, chosen, shares = states[at], chosen[at], None if shares is None else shares[at]
    grad = torch.is_grad_enabled()
    wanted = (grad and states.requires_grad, *(grad and parameter.requires_grad for parameter in parameters))
    apply: Any = _HeadLoss.apply
    total, plain = apply(model, states, chosen, shares, smoothing, chunk, compiled, wanted, *parameters)
    return total, plain
