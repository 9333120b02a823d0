"""Cross-entropy over the target positions alone, a chunk at a time."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from nlpkit.core.model.gpt import GPT


def head_parameters(model: GPT) -> list[Tensor]:
    """Return the parameters that the output head uses."""
    if model.head is None:
        return [model.embed.weight]
    return list(model.head.parameters())


class _HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropy, with its gradient computed on the way: no chunk's logits outlive the chunk.

    ``d loss / d logits = softmax(logits) - target distribution``; with label smoothing by ``s`` the target is
    ``1 - s`` on the label plus ``s / vocab_size`` everywhere.
    """

    @staticmethod
    def forward(
        ctx: Any,
        model: GPT,
        hidden: Tensor,
        labels: Tensor,
        smoothing: float,
        chunk: int,
        wanted: tuple[bool, ...],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        count = labels.shape[0]
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        plain = torch.zeros((), dtype=torch.float64, device=hidden.device)
        inputs = [parameter for parameter, want in zip(parameters, wanted[1:], strict=True) if want]
        gradients: list[Tensor | None] = [None] * len(inputs)
        hidden_gradient = torch.zeros_like(hidden) if wanted[0] else None
        several = count > chunk
        for start in range(0, count, chunk):
            part = hidden[start : start + chunk].detach()
            target = labels[start : start + chunk]
            rows = part.shape[0]
            if several and rows < chunk:
                # Kernels are chosen by shape: one shape for all chunks.
                part = torch.cat((part, part.new_zeros(chunk - rows, part.shape[1])))
            with torch.set_grad_enabled(any(wanted)):
                part.requires_grad_(wanted[0])
                logits = model.logits(part)
            wide = logits.detach()[:rows].to(torch.float32, copy=True)
            normaliser = wide.logsumexp(-1)
            chosen = wide.gather(1, target[:, None])[:, 0]
            nll = (normaliser - chosen).double().sum()
            plain += nll
            if smoothing:
                even = (normaliser - wide.mean(-1)).double().sum()
                nll = (1 - smoothing) * nll + smoothing * even
            total += nll
            if not any(wanted):
                continue
            slope = wide.sub_(normaliser[:, None]).exp_()
            if smoothing:
                slope -= smoothing / slope.shape[1]
            slope.scatter_add_(1, target[:, None], slope.new_full((rows, 1), smoothing - 1))
            slope = slope.to(logits.dtype)
            if rows < logits.shape[0]:
                slope = torch.cat((slope, slope.new_zeros(logits.shape[0] - rows, slope.shape[1])))
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
        scale = float(grad_outputs[0])
        if hidden is not None:
            hidden = hidden.mul_(scale)
        scaled = [
            None if gradient is None else gradient.mul_(scale).to(dtype)
            for gradient, dtype in zip(parameters, ctx.dtypes, strict=True)
        ]
        return None, hidden, None, None, None, None, *scaled


def loss_sum(
    model: GPT, hidden: Tensor, labels: Tensor, *, smoothing: float = 0.0, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy over the positions that have a label.

    Args:
        model: Its head is applied.
        hidden: Final hidden states, shape ``(batch, seq, d_model)``.
        labels: Shape ``(batch, seq)``; below 0 there is no loss, and nothing goes through the head.
        smoothing: Label smoothing.
        chunk: Positions whose logits are held at once.

    Returns:
        The sum to minimise, in nats, differentiable; and the same without smoothing. Scalars in fp64.
    """
    target = labels >= 0
    parameters = head_parameters(model)
    states = hidden[target]
    grad = torch.is_grad_enabled()
    wanted = (grad and states.requires_grad, *(grad and parameter.requires_grad for parameter in parameters))
    apply: Any = _HeadLoss.apply
    total, plain = apply(model, states, labels[target], smoothing, chunk, wanted, *parameters)
    return total, plain
