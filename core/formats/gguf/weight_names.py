"""The GGUF name table: which tensor of a GGUF file is which weight of ours, per architecture.

GGUF architectures name their tensors alike; they differ in what they fuse and in three layouts of llama.cpp's
converter, which are undone here and redone by the exporter: rotary rows of the ``llama`` architecture are
interleaved per head, Gemma's norms are stored with their offset of one added, and query, key and value may be
one matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.model.config import ModelConfig

Op = Literal["copy", "interleaved", "plus_one"]


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        source: Name in the file without ``.weight`` or ``.bias``; ``{i}`` is the layer.
        targets: Our names, one for each part of a fused tensor, in the order of its rows.
        op: How the file's values differ from ours.
    """

    source: str
    targets: tuple[str, ...]
    op: Op = "copy"


def _block(source: str, *targets: str, op: Op = "copy") -> Rule:
    return Rule(f"blk.{{i}}.{source}", tuple(f"blocks.{{i}}.{target}" for target in targets), op)


def _attention(op: Op = "copy") -> tuple[Rule, ...]:
    return (
        _block("attn_q", "attn.q", op=op),
        _block("attn_k", "attn.k", op=op),
        _block("attn_v", "attn.v"),
        _block("attn_output", "attn.o"),
    )


def _qk_norms(op: Op = "copy") -> tuple[Rule, ...]:
    return (_block("attn_q_norm", "attn.q_norm", op=op), _block("attn_k_norm", "attn.k_norm", op=op))


def _pre_norms(op: Op = "copy") -> tuple[Rule, ...]:
    return (_block("attn_norm", "attn_norm", op=op), _block("ffn_norm", "mlp_norm", op=op))


def _post_norms(op: Op = "copy") -> tuple[Rule, ...]:
    return (
        _block("post_attention_norm", "attn_post_norm", op=op),
        _block("post_ffw_norm", "mlp_post_norm", op=op),
    )


def _ends(op: Op = "copy") -> tuple[Rule, ...]:
    return (
        Rule("token_embd", ("embed",)),
        Rule("output_norm", ("final_norm",), op),
        Rule("output", ("head",)),
    )


_FUSED_ATTENTION = (_block("attn_qkv", "attn.q", "attn.k", "attn.v"),)
_MLP = (_block("ffn_up", "mlp.up"), _block("ffn_down", "mlp.down"))
_GATED_MLP = (_block("ffn_gate", "mlp.gate"), *_MLP)
_GEMMA = (*_ends("plus_one"), *_attention(), *_GATED_MLP, *_pre_norms("plus_one"), *_post_norms("plus_one"))

# Where two rows have the same target, files may hold either; the exporter writes the first.
TABLES: Mapping[str, tuple[Rule, ...]] = {
    "llama": (*_ends(), *_attention("interleaved"), *_GATED_MLP, *_pre_norms()),
    "qwen2": (*_ends(), *_attention(), *_GATED_MLP, *_pre_norms()),
    "qwen3": (*_ends(), *_attention(), *_qk_norms(), *_GATED_MLP, *_pre_norms()),
    "gemma2": _GEMMA,
    "gemma3": (*_GEMMA, *_qk_norms("plus_one")),
    "olmo2": (*_ends(), *_attention(), *_qk_norms(), *_GATED_MLP, *_post_norms()),
    "phi3": (
        *_ends(),
        *_FUSED_ATTENTION,
        *_attention(),
        _block("ffn_up", "mlp.gate", "mlp.up"),
        _block("ffn_down", "mlp.down"),
        *_pre_norms(),
    ),
    "gptneox": (*_ends(), *_FUSED_ATTENTION, *_attention(), *_MLP, *_pre_norms()),
    "gpt2": (
        *_ends(),
        Rule("position_embd", ("pos_embed",)),
        *_FUSED_ATTENTION,
        *_attention(),
        *_MLP,
        *_pre_norms(),
    ),
}
"""Rules by GGUF architecture."""

IGNORED = re.compile(r"(rope_freqs|rope_factors_(long|short)|blk\.\d+\.(attn_rot_embd|rope_freqs))(\.weight)?")
"""Tensors that belong to the configuration (rotary factors) or can be computed; never weights."""


@lru_cache(maxsize=32)
def _patterns(architecture: str) -> Mapping[str, Rule]:
    return {rule.source: rule for rule in TABLES[architecture]}


_LAYER = re.compile(r"^blk\.(0|[1-9]\d{0,3})\.")


def find_rule(architecture: str, name: str) -> tuple[Rule, tuple[str, ...]] | None:
    """Look a tensor of the file up.

    Args:
        architecture: A key of `TABLES`.
        name: The tensor's name.

    Returns:
        The rule and our names for its parts, or None where the table does not know the name.
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("weight", "bias"):
        return None
    layer = _LAYER.match(stem)
    rule = _patterns(architecture).get(_LAYER.sub("blk.{i}.", stem))
    if rule is None:
        return None
    index = layer[1] if layer else ""
    return rule, tuple(f"{target.replace('{i}', index)}.{suffix}" for target in rule.targets)


def part_sizes(config: ModelConfig, rule: Rule) -> list[int]:
    """Return how many rows of a fused tensor belong to each target."""
    if len(rule.targets) == 3:
        kv = config.n_kv_heads * config.head_dim
        return [config.n_heads * config.head_dim, kv, kv]
    return [config.d_ff] * len(rule.targets)


def from_gguf(config: ModelConfig, rule: Rule, tensor: Tensor, *, name: str) -> list[Tensor]:
    """Turn one decoded tensor of the file into ours.

    Args:
        config: The model's shape.
        rule: The row of the table that knows the tensor.
        tensor: Its values, row-major.
        name: Its name, for the error message.

    Returns:
        One tensor for each of the rule's targets.

    Raises:
        ModelFileError: The tensor cannot be split or reordered to this configuration.
    """
    if rule.op == "plus_one":
        return [tensor - 1]
    if rule.op == "interleaved":
        return [_reorder(config, tensor, name, interleaved=True)]
    if len(rule.targets) == 1:
        return [tensor]
    sizes = part_sizes(config, rule)
    if tensor.shape[0] != sum(sizes):
        raise ModelFileError(
            f"The fused tensor {name} has {tensor.shape[0]:,} rows; the metadata ask for {sum(sizes):,}. The file "
            "is damaged; download it again."
        )
    return [part.clone() for part in torch.split(tensor, sizes)]


def to_gguf(config: ModelConfig, rule: Rule, parts: list[Tensor], *, name: str) -> Tensor:
    """Undo `from_gguf`: turn our tensors into the one that the file stores.

    Args:
        config: The model's shape.
        rule: The row of the table.
        parts: One tensor for each of the rule's targets.
        name: Its name in the file, for the error message.

    Raises:
        ModelFileError: The tensor cannot be reordered to this configuration.
    """
    if rule.op == "plus_one":
        return parts[0] + 1
    if rule.op == "interleaved":
        return _reorder(config, parts[0], name, interleaved=False)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _reorder(config: ModelConfig, tensor: Tensor, name: str, *, interleaved: bool) -> Tensor:
    """Swap between rotary pairs side by side (GGUF's llama) and half a head apart (ours), head by head."""
    half = config.head_dim // 2
    if tensor.shape[0] % (2 * half):
        raise ModelFileError(
            f"The tensor {name} has {tensor.shape[0]:,} rows, not a multiple of the head width {2 * half}. The "
            "file is damaged; download it again."
        )
    pair = (half, 2) if interleaved else (2, half)
    return tensor.view(-1, *pair, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def weight_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every weight of a model, by arithmetic alone.

    Args:
        config: The model's shape.

    Yields:
        Our names with row-major shapes, a linear weight being ``(out, in)``.
    """
    d_model, biased = config.d_model, config.norm == "layer"

    def linear(name: str, n_in: int, n_out: int, *, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (n_out, n_in)
        if bias:
            yield f"{name}.bias", (n_out,)

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (width,)
        if biased:
            yield f"{name}.bias", (width,)

    yield "embed.weight", (config.vocab_size, d_model)
    if config.positions == "learned":
        yield "pos_embed.weight", (config.max_seq_len, d_model)
    q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    pre = config.norm_placement in ("pre", "sandwich")
    post = config.norm_placement in ("post", "sandwich")
    for layer in range(config.n_layers):
        block = f"blocks.{layer}"
        for present, suffix in ((pre, "norm"), (post, "post_norm")):
            if present:
                yield from norm(f"{block}.attn_{suffix}", d_model)
                yield from norm(f"{block}.mlp_{suffix}", d_model)
        yield from linear(f"{block}.attn.q", d_model, q_width, bias=config.qkv_bias)
        yield from linear(f"{block}.attn.k", d_model, kv_width, bias=config.qkv_bias)
        yield from linear(f"{block}.attn.v", d_model, kv_width, bias=config.qkv_bias)
        yield from linear(f"{block}.attn.o", q_width, d_model, bias=config.o_bias)
        if config.qk_norm != "none":
            per_head = config.qk_norm == "head"
            yield from norm(f"{block}.attn.q_norm", config.head_dim if per_head else q_width)
            yield from norm(f"{block}.attn.k_norm", config.head_dim if per_head else kv_width)
        if config.gated_mlp:
            yield from linear(f"{block}.mlp.gate", d_model, config.d_ff, bias=config.mlp_bias)
        yield from linear(f"{block}.mlp.up", d_model, config.d_ff, bias=config.mlp_bias)
        yield from linear(f"{block}.mlp.down", config.d_ff, d_model, bias=config.mlp_bias)
    yield from norm("final_norm", d_model)
    if not config.tied_head:
        yield from linear("head", d_model, config.vocab_size, bias=config.head_bias)
