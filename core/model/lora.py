"""LoRA: trainable low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv:2106.09685).

A linear layer ``W`` becomes ``W + scale * B A`` with ``A`` of shape ``(rank, in)`` and ``B`` of shape ``(out, rank)``.
rsLoRA (Kalajdzievski 2023, arXiv:2312.03732) scales by ``alpha / sqrt(rank)`` instead of ``alpha / rank``. DoRA (Liu et
al. 2024, arXiv:2402.09353) also learns the length of every row of the sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.model.gpt import GPT
from nlpkit.core.typed_fields import check_fields

LINEAR_NAMES = ("q", "k", "v", "o", "gate", "up", "down")
"""Names of a block's linear layers, as targets may name them."""


@dataclass(frozen=True)
class LoraWeights:
    """The update of one linear layer.

    Attributes:
        a: Shape ``(rank, in)``.
        b: Shape ``(out, rank)``.
        scale: Multiplier on ``b @ a``.
        magnitude: DoRA's row lengths, shape ``(out,)``, or None.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    def merged(self, weight: Tensor) -> Tensor:
        """Add the update to a weight.

        Args:
            weight: Shape ``(out, in)``.

        Returns:
            The sum, computed in fp32, in the weight's dtype.
        """
        wide = weight.float() + self.scale * (self.b.float() @ self.a.float())
        if self.magnitude is not None:
            wide = wide * (self.magnitude.float() / torch.linalg.norm(wide, dim=1)).unsqueeze(1)
        return wide.to(weight.dtype)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers get an update, and of what kind.

    Attributes:
        rank: Inner width.
        alpha: Numerator of the scale, in the unit of `rank`.
        dropout: Probability of dropping an input of the update while training.
        targets: Names of linear layers (``q k v o gate up down``), or regular expressions that match a whole module
            name such as ``blocks.3.attn.q``.
        use_rslora: Scale by ``alpha / sqrt(rank)``.
        use_dora: Learn row lengths as well.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LINEAR_NAMES
    use_rslora: bool = False
    use_dora: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "The LoRA option")
        if not 1 <= self.rank <= 4096:
            raise ConfigError(f"The LoRA rank is {self.rank}; it must be from 1 to 4096.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"The LoRA alpha is {self.alpha}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"The LoRA dropout is {self.dropout}; it must be from 0 to below 1.")
        for target in self.targets:
            try:
                re.compile(target)
            except re.error as error:
                raise ConfigError(f"The LoRA target {target!r} is no regular expression: {error}.") from error

    @property
    def scale(self) -> float:
        """Multiplier on ``B A``."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def selects(self, module: str) -> bool:
        """Tell whether a module, such as ``blocks.3.attn.q``, gets an update."""
        last = module.rpartition(".")[2]
        return any(target == last or re.fullmatch(target, module) is not None for target in self.targets)


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank update.

    The update's weights stay in fp32 whatever the frozen weight's dtype is; they are cast for the product.

    Attributes:
        product: How outputs are computed; training sets its own.
    """

    def __init__(self, base: nn.Linear, weights: LoraWeights, *, dropout: float = 0.0) -> None:
        """Take over `base` and start from `weights`."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(weights.a.detach().float().contiguous())
        self.lora_b = nn.Parameter(weights.b.detach().float().contiguous())
        self.scale = weights.scale
        self.dropout = dropout
        self.product: Callable[[LoraLinear, Tensor], Tensor] = product_apart
        self.magnitude: nn.Parameter | None = None
        if weights.magnitude is not None:
            self.magnitude = nn.Parameter(weights.magnitude.detach().float().contiguous())

    @property
    def weights(self) -> LoraWeights:
        """The update as it stands, detached."""
        magnitude = None if self.magnitude is None else self.magnitude.detach()
        return LoraWeights(self.lora_a.detach(), self.lora_b.detach(), self.scale, magnitude)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``."""
        return self.product(self, x)


def product_apart(layer: LoraLinear, x: Tensor) -> Tensor:
    """Multiply by the frozen weight and by the update's matrices, one after the other.

    Args:
        layer: The layer.
        x: Shape ``(..., in)``.

    Returns:
        Shape ``(..., out)``.
    """
    dropped = F.dropout(x, layer.dropout, training=layer.training) if layer.dropout else x
    low = F.linear(F.linear(dropped, layer.lora_a.to(x.dtype)), (layer.lora_b * layer.scale).to(x.dtype))
    if layer.magnitude is None:
        out: Tensor = layer.base(x)
        return out + low
    # DoRA, section 4.3: the norm is a constant to the gradient.
    with torch.no_grad():
        wide = layer.base.weight.float() + layer.scale * (layer.lora_b @ layer.lora_a)
        norm = torch.linalg.norm(wide, dim=1)
    plain = F.linear(dropped, layer.base.weight)
    ratio: Tensor = (layer.magnitude / norm).to(x.dtype)
    return F.linear(x, layer.base.weight, layer.base.bias) + (ratio - 1) * plain + ratio * low


def linear_layers(model: GPT, *, head: bool = False) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield name, owner and attribute of every plain linear layer inside the blocks, and of the head if asked."""
    for name, module in list(model.named_modules()):
        if (name.startswith("blocks.") or (head and name == "head")) and type(module) is nn.Linear:
            owner, _, attribute = name.rpartition(".")
            yield name, model.get_submodule(owner), attribute


def initial_weights(layer: nn.Linear, config: LoraConfig, generator: torch.Generator) -> LoraWeights:
    """Return an update that changes nothing yet: ``A`` uniform in ``+-1/sqrt(in)``, ``B`` zero (as LoRA's authors do).

    Args:
        layer: The layer to adapt.
        config: Rank and kind.
        generator: Source of randomness.

    Returns:
        The update.
    """
    bound = 1 / math.sqrt(layer.in_features)
    a = (torch.rand(config.rank, layer.in_features, generator=generator) * 2 - 1) * bound
    b = torch.zeros(layer.out_features, config.rank)
    magnitude = torch.linalg.norm(layer.weight.float(), dim=1) if config.use_dora else None
    device = layer.weight.device
    return LoraWeights(a.to(device), b.to(device), config.scale, magnitude)


def add_lora(
    model: GPT,
    config: LoraConfig,
    *,
    generator: torch.Generator | None = None,
    start: Mapping[str, LoraWeights] | None = None,
) -> list[str]:
    """Freeze a model and give its targeted linear layers trainable updates, in place.

    Args:
        model: A model with separate projections.
        config: Which layers, and of what kind.
        generator: Source of randomness for the initial weights; by default a fresh one with seed 0.
        start: Updates by module name to go on from; they replace targets and rank of `config`.

    Returns:
        Names of the adapted modules.

    Raises:
        ConfigError: No layer is targeted, or `start` names one that is not there.
    """
    model.requires_grad_(False)
    generator = generator or torch.Generator().manual_seed(0)
    adapted = []
    layers = list(linear_layers(model, head=start is not None and "head" in start))
    if start is not None:
        missing = sorted(set(start) - {name for name, _, _ in layers})
        if missing:
            raise ConfigError(f"The adapter updates layers that the model does not have: {', '.join(missing[:8])}.")
    for name, owner, attribute in layers:
        layer = getattr(owner, attribute)
        if start is not None:
            if name not in start:
                continue
            weights = start[name]
        elif config.selects(name):
            weights = initial_weights(layer, config, generator)
        else:
            continue
        setattr(owner, attribute, LoraLinear(layer, weights, dropout=config.dropout))
        adapted.append(name)
    if not adapted:
        known = sorted({name.rpartition(".")[2] for name, _, _ in layers})
        raise ConfigError(
            f"No layer matches the LoRA targets {', '.join(config.targets)}. {did_you_mean('', known)} Name linear "
            "layers, or give regular expressions for whole module names such as blocks.3.attn.q."
        )
    return adapted


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Return the adapted layers by module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def lora_weights(model: nn.Module) -> dict[str, LoraWeights]:
    """Return the updates by module name."""
    return {name: layer.weights for name, layer in lora_layers(model).items()}


def merge_lora(model: GPT) -> None:
    """Add all updates to the weights and drop them, in place; the sum is rounded once."""
    for name, layer in lora_layers(model).items():
        owner, _, attribute = name.rpartition(".")
        layer.base.weight = nn.Parameter(layer.weights.merged(layer.base.weight.detach()), requires_grad=False)
        setattr(model.get_submodule(owner), attribute, layer.base)
