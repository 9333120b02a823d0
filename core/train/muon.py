"""Muon for matrices, AdamW for everything else, in one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalize(matrices: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Bring all singular values near 1, by five Newton-Schulz iterations of degree 5 (Jordan et al. 2024, "Muon").

    Args:
        matrices: Shape ``(rows, columns)`` or ``(batch, rows, columns)``.
        dtype: What to compute in; the iteration tolerates bf16.

    Returns:
        Same shape, in `dtype`; singular values between about 0.7 and 1.2, or below where they were nearly 0.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT.contiguous()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum that is orthogonalized for the groups with ``muon``, AdamW for the others.

    An update of Muon is scaled by ``0.2 sqrt(max(rows, columns))`` to the usual size of AdamW's (Liu et al. 2025,
    arXiv:2502.16982), so one learning rate suits both. Weight decay is cautious: it acts only where it agrees with the
    update (Chen et al. 2025, arXiv:2510.12402).

    Args:
        params: Groups with ``params``, ``muon`` (whether all are matrices to orthogonalize) and ``weight_decay``.
        lr: Learning rate.
        momentum: Decay of Muon's momentum, which is Nesterov's.
        betas: Decays of AdamW's averages.
        eps: Added to AdamW's denominator.
    """

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": 0.0, "muon": False}
        super().__init__([dict(group) for group in params], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._step_muon if group["muon"] else self._step_adamw)(parameter, group)

    def _step_muon(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        gradient, state, beta = parameter.grad, self.state[parameter], group["momentum"]
        if gradient is None:
            return
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - beta)
        # On a CPU without bf16 products these would be hundreds of times slower.
        dtype = torch.bfloat16 if parameter.is_cuda else torch.float32
        update = orthogonalize(gradient.lerp(momentum, beta), dtype=dtype).to(parameter.dtype)
        update *= 0.2 * max(parameter.shape) ** 0.5
        if group["weight_decay"]:
            agrees = (update * parameter > 0).to(parameter.dtype)
            parameter.addcmul_(parameter, agrees, value=-group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"])

    def _step_adamw(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if gradient is None:
            return
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))
