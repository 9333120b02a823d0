"""Names of weights in GGUF files, one table for each architecture, and the shapes of all weights.

GGUF architectures name their tensors alike; they differ in what they fuse and in layouts of llama.cpp's converter:
rotary rows of the ``llama`` architecture are interleaved per head, Gemma's norms are stored with their offset of one
added, and query, key and value may be one matrix. Where two rules have the same target, files may hold either; the
exporter writes the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlpkit.core.formats.name_rules import NameRule, Op, Rules
from nlpkit.core.model.config import ModelConfig


def _block(source: str, *targets: str, op: Op = "copy") -> NameRule:
    return NameRule(f"blk.{{i}}.{source}", tuple(f"blocks.{{i}}.{target}" for target in targets), op)


def _attention(op: Op = "copy") -> Rules:
    return (
        _block("attn_q", "attn.q", op=op),
        _block("attn_k", "attn.k", op=op),
        _block("attn_v", "attn.v"),
        _block("attn_output", "attn.o"),
    )


def _qk_norms(op: Op = "copy") -> Rules:
    return (_block("attn_q_norm", "attn.q_norm", op=op), _block("attn_k_norm", "attn.k_norm", op=op))


def _pre_norms(op: Op = "copy") -> Rules:
    return (_block("attn_norm", "attn_norm", op=op), _block("ffn_norm", "mlp_norm", op=op))


def _post_norms(op: Op = "copy") -> Rules:
    return (
        _block("post_attention_norm", "attn_post_norm", op=op),
        _block("post_ffw_norm", "mlp_post_norm", op=op),
    )


def _ends(op: Op = "copy") -> Rules:
    return (
        NameRule("token_embd", ("embed",)),
        NameRule("output_norm", ("final_norm",), op),
        NameRule("output", ("head",)),
    )


_FUSED_ATTENTION = (_block("attn_qkv", "attn.q", "attn.k", "attn.v"),)
_MLP = (_block("ffn_up", "mlp.up"), _block("ffn_down", "mlp.down"))
_GATED_MLP = (_block("ffn_gate", "mlp.gate"), *_MLP)
_GEMMA = (*_ends("plus_one"), *_attention(), *_GATED_MLP, *_pre_norms("plus_one"), *_post_norms("plus_one"))


LLAMA = (*_ends(), *_attention("interleaved"), *_GATED_MLP, *_pre_norms())
QWEN2 = (*_ends(), *_attention(), *_GATED_MLP, *_pre_norms())
QWEN3 = (*_ends(), *_attention(), *_qk_norms(), *_GATED_MLP, *_pre_norms())
GEMMA2 = _GEMMA
GEMMA3 = (*_GEMMA, *_qk_norms("plus_one"))
OLMO2 = (*_ends(), *_attention(), *_qk_norms(), *_GATED_MLP, *_post_norms())
PHI3 = (
    *_ends(),
    *_FUSED_ATTENTION,
    *_attention(),
    _block("ffn_up", "mlp.gate", "mlp.up"),
    _block("ffn_down", "mlp.down"),
    *_pre_norms(),
)
GPT_NEOX = (*_ends(), *_FUSED_ATTENTION, *_attention(), *_MLP, *_pre_norms())
GPT2 = (
    *_ends(),
    NameRule("position_embd", ("pos_embed",)),
    *_FUSED_ATTENTION,
    *_attention(),
    *_MLP,
    *_pre_norms(),
)

IGNORED = re.compile(r"(rope_freqs|rope_factors_(long|short)|blk\.\d+\.(attn_rot_embd|rope_freqs))(\.weight)?")
"""Tensors that belong to the configuration (rotary factors) or can be computed; never weights."""


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
