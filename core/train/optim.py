"""Optimizers, weight decay groups, fp32 master weights of a bf16 model, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nlpkit.core.errors import ConfigError
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.distributed import place
from nlpkit.core.train.muon import Muon


def decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to norms, biases and embeddings."""
    return parameter.dim() >= 2 and "embed" not in name


class Lion(Optimizer):
    """Lion: the sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675).

    Holds one state tensor a weight where AdamW holds two. Wants a learning rate 3 to 10 times smaller than AdamW's and
    a weight decay larger by the same factor.
    """

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        """Set it up.

        Args:
            params: Parameter groups.
            lr: Learning rate.
            betas: Weights of the momentum in the update and in its own average.
            weight_decay: Decoupled decay.
        """
        super().__init__([dict(group) for group in params], {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters once."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average = state["exp_avg"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.lerp(gradient, average, beta1).sign_(), alpha=-group["lr"])
                average.lerp_(gradient, 1 - beta2)


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Tell whether Muon takes a weight: a matrix between hidden states, no table of embeddings and no output head."""
    return parameter.dim() == 2 and ".blocks." in f".{name}"


def build_optimizer(config: TrainConfig, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """Build the optimizer over named fp32 parameters.

    Args:
        config: Which, and its settings.
        parameters: Weights to train, by name.

    Returns:
        The optimizer. Each group has an ``lr_scale``: its learning rate as a multiple of the configuration's.
    """
    betas = (config.beta1, config.beta2)
    if config.optimizer == "muon":
        hidden = [p for n, p in parameters.items() if _is_hidden_matrix(n, p)]
        rest = [p for n, p in parameters.items() if not _is_hidden_matrix(n, p)]
        if not hidden:
            raise ConfigError("muon is for matrices inside the blocks, and none of them is to be trained.")
        scale = (config.embed_lr or config.lr) / config.lr
        parts: list[dict[str, Any]] = [
            {"params": hidden, "muon": True, "weight_decay": config.weight_decay, "lr_scale": 1.0},
            {"params": rest, "muon": False, "weight_decay": 0.0, "lr_scale": scale},
        ]
        return Muon([part for part in parts if part["params"]], lr=config.lr, betas=betas, eps=config.eps)
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in parameters.items() if decays(n, p)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in parameters.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "lion":
        return Lion(groups, lr=config.lr, betas=betas)
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=config.lr)
    fused = all(type(p) is nn.Parameter and p.device.type in ("cpu", "cuda") for p in parameters.values())
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=fused)


class Weights:
    """The trainable weights, by name, in fp32: the model's own, or masters that a bf16 model is copied from.

    With masters, gradients are moved to them in fp32 as soon as the backward pass has them, so that accumulation
    loses nothing.

    Attributes:
        masters: Names to fp32 parameters, for the optimizer and for checkpoints.
    """

    def __init__(self, model: nn.Module, *, keep_masters: bool) -> None:
        """Take the parameters that require gradients.

        Args:
            model: The model.
            keep_masters: Whether 16-bit parameters get fp32 masters.
        """
        self.masters: dict[str, nn.Parameter] = {}
        self._copies: list[tuple[nn.Parameter, nn.Parameter]] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if not keep_masters or parameter.dtype == torch.float32:
                self.masters[name] = parameter
                continue
            master = nn.Parameter(parameter.detach().float())
            self.masters[name] = master
            self._copies.append((parameter, master))
            hook: Any = parameter.register_post_accumulate_grad_hook
            hook(_move_gradient(master))

    def use(self, values: Mapping[str, Tensor]) -> None:
        """Set the masters to some values, whole or spread as they are, in place, and the model with them."""
        for name, master in self.masters.items():
            place(master, values[name])
        self.publish()

    def publish(self) -> None:
        """Copy the masters to the model."""
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_([model for model, _ in self._copies], [master for _, master in self._copies])

    def clear_gradients(self) -> None:
        """Drop all gradients."""
        for master in self.masters.values():
            master.grad = None
        for parameter, _ in self._copies:
            parameter.grad = None


def _move_gradient(master: nn.Parameter) -> Callable[[Tensor], None]:
    def move(parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        parameter.grad = None

    return move


class MovingAverage:
    """Exponential moving average of the weights (Polyak and Juditsky 1992), with the early steps weighted evenly.

    Attributes:
        values: The averages by name.
    """

    def __init__(self, weights: Weights, decay: float) -> None:
        """Start at the weights as they are."""
        self._weights = weights
        self._decay = decay
        self.values = {name: master.detach().clone() for name, master in weights.masters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after one more step, counted from 1."""
        # Without this the average would stay near the random start for 1 / (1 - decay) steps.
        decay = min(self._decay, (1 + step) / (10 + step))
        current = [master.detach() for master in self._weights.masters.values()]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - decay)
