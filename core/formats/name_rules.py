"""Rules of weight names: which weight of a file is which of ours, and how its values lie, in both directions.

`{i}` stands for the layer; linear layers and norms are named without ``.weight`` and ``.bias``. All our linear weights
are ``[out, in]``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.model.config import ModelConfig

Op = Literal["copy", "transpose", "by_head", "interleaved", "plus_one", "alias"]
_LAYER = re.compile(r"\.(0|[1-9]\d{0,3})\.")


@dataclass(frozen=True)
class NameRule:
    """One line of a table of names.

    Attributes:
        source: Name in the file, without suffix.
        targets: Our names, without suffix; several, in the order of their rows, where the file fuses them.
        op: How the file's values differ from ours. ``copy``: not at all; ``transpose``: GPT-2 stores ``[in, out]``;
            ``by_head``: each head's query, key and value lie together (GPT-NeoX); ``interleaved``: rotated pairs lie
            side by side instead of half a head apart (llama in GGUF); ``plus_one``: norms with their offset (Gemma in
            GGUF); ``alias``: a second spelling of a copied weight, read but never written.
    """

    source: str
    targets: tuple[str, ...]
    op: Op = "copy"


Rules = tuple[NameRule, ...]


def rules(*lines: tuple[str, str] | tuple[str, str, Op]) -> Rules:
    """Return rules from lines of source, targets (with spaces between them) and perhaps an operation."""
    return tuple(NameRule(line[0], tuple(line[1].split()), *line[2:]) for line in lines)


@lru_cache(maxsize=64)
def _by_source(table: Rules) -> Mapping[str, NameRule]:
    return {rule.source: rule for rule in table}


def find_rule(table: Rules, name: str) -> tuple[NameRule, tuple[str, ...]] | None:
    """Look a weight of a file up.

    Args:
        table: The rules.
        name: Its name in the file.

    Returns:
        The rule and our names for its parts, or None where no rule knows the name.
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("weight", "bias"):
        return None
    layer = _LAYER.search(stem)
    rule = _by_source(table).get(_LAYER.sub(".{i}.", stem, count=1))
    if rule is None:
        return None
    index = layer[1] if layer else ""
    return rule, tuple(f"{target.replace('{i}', index)}.{suffix}" for target in rule.targets)


def stored_weights(
    table: Rules, names: Collection[str], n_layers: int
) -> Iterator[tuple[str, NameRule, tuple[str, ...]]]:
    """Say which weights a file holds; where two rules have the same target, the first one is taken.

    Args:
        table: The rules.
        names: Our names of the weights that there are.
        n_layers: Number of blocks.

    Yields:
        A name in the file, its rule, and our names for its parts, which all are there.
    """
    left = set(names)
    for rule in table:
        layers: Iterable[str] = map(str, range(n_layers)) if "{i}" in rule.source else ("",)
        for layer in layers if rule.op != "alias" else ():
            for suffix in ("weight", "bias"):
                parts = tuple(f"{target.replace('{i}', layer)}.{suffix}" for target in rule.targets)
                if left.issuperset(parts):
                    left.difference_update(parts)
                    yield f"{rule.source.replace('{i}', layer)}.{suffix}", rule, parts


def part_sizes(config: ModelConfig, rule: NameRule) -> list[int]:
    """Return how many rows of a fused weight belong to each target."""
    if len(rule.targets) == 3:
        kv = config.n_kv_heads * config.head_dim
        return [config.n_heads * config.head_dim, kv, kv]
    return [config.d_ff] * len(rule.targets)


def to_ours(config: ModelConfig, rule: NameRule, tensor: Tensor, *, name: str) -> list[Tensor]:
    """Turn one weight of a file into ours.

    Args:
        config: The model's shape.
        rule: The rule that knows the weight.
        tensor: Its values.
        name: Its name, for the error.

    Returns:
        One tensor for each of the rule's targets.

    Raises:
        ModelFileError: It cannot be split or reordered to this configuration.
    """
    if rule.op == "plus_one":
        return [tensor - 1]
    if rule.op == "interleaved":
        return [_reordered(config, tensor, name, interleaved=True)]
    # The updates of adapters come with a third dimension, and lie as ours do.
    if rule.op == "transpose" and tensor.dim() == 2:
        tensor = tensor.t().contiguous()
    if len(rule.targets) == 1:
        return [tensor]
    sizes = part_sizes(config, rule)
    if tensor.dim() == 0 or tensor.shape[0] != sum(sizes):
        raise ModelFileError(
            f"The fused weight {name} has shape {tuple(tensor.shape)}; the configuration needs {sum(sizes)} rows. They "
            "do not belong together."
        )
    if rule.op == "by_head":
        heads, dim = config.n_heads, config.head_dim
        parts = tensor.view(heads, 3, dim, *tensor.shape[1:]).unbind(1)
        return [part.reshape(heads * dim, *tensor.shape[1:]).contiguous() for part in parts]
    return [part.contiguous() for part in torch.split(tensor, sizes)]


def to_stored(config: ModelConfig, rule: NameRule, parts: list[Tensor], *, name: str) -> Tensor:
    """Undo `to_ours`: turn our weights into the one that the file stores.

    Args:
        config: The model's shape.
        rule: The rule.
        parts: One tensor for each of the rule's targets.
        name: Its name in the file, for the error.

    Raises:
        ModelFileError: The weight cannot be reordered to this configuration.
    """
    if rule.op == "plus_one":
        return parts[0] + 1
    if rule.op == "interleaved":
        return _reordered(config, parts[0], name, interleaved=False)
    if rule.op == "by_head":
        heads, dim = config.n_heads, config.head_dim
        stacked = torch.stack([part.view(heads, dim, *part.shape[1:]) for part in parts], 1)
        return stacked.reshape(3 * heads * dim, *parts[0].shape[1:]).contiguous()
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.t().contiguous() if rule.op == "transpose" and whole.dim() == 2 else whole.contiguous()


def _reordered(config: ModelConfig, tensor: Tensor, name: str, *, interleaved: bool) -> Tensor:
    """Swap between rotary pairs side by side and half a head apart (ours), head by head."""
    half = config.head_dim // 2
    if tensor.shape[0] % (2 * half):
        raise ModelFileError(
            f"The tensor {name} has {tensor.shape[0]:,} rows, not a multiple of the head width {2 * half}. The "
            "file is damaged; download it again."
        )
    pair = (half, 2) if interleaved else (2, half)
    return tensor.view(-1, *pair, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
