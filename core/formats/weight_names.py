"""Names of weights in Hugging Face checkpoints, one table for each way of naming."""

from __future__ import annotations

import re

from nlpkit.core.formats.name_rules import rules

_EMBED = (("model.embed_tokens", "embed"), ("model.norm", "final_norm"), ("lm_head", "head"))
_SEPARATE_ATTENTION = tuple(
    (f"model.layers.{{i}}.self_attn.{theirs}", f"blocks.{{i}}.attn.{ours}")
    for theirs, ours in (
        ("q_proj", "q"),
        ("k_proj", "k"),
        ("v_proj", "v"),
        ("o_proj", "o"),
        ("q_norm", "q_norm"),
        ("k_norm", "k_norm"),
    )
)
_GATED_MLP = tuple(
    (f"model.layers.{{i}}.mlp.{name}_proj", f"blocks.{{i}}.mlp.{name}") for name in ("gate", "up", "down")
)
_PRE_NORMS = (
    ("model.layers.{i}.input_layernorm", "blocks.{i}.attn_norm"),
    ("model.layers.{i}.post_attention_layernorm", "blocks.{i}.mlp_norm"),
)
_POST_NORMS = (
    ("model.layers.{i}.post_attention_layernorm", "blocks.{i}.attn_post_norm"),
    ("model.layers.{i}.post_feedforward_layernorm", "blocks.{i}.mlp_post_norm"),
)
_SANDWICH_NORMS = (
    ("model.layers.{i}.input_layernorm", "blocks.{i}.attn_norm"),
    ("model.layers.{i}.pre_feedforward_layernorm", "blocks.{i}.mlp_norm"),
    *_POST_NORMS,
)
_QKV = "blocks.{i}.attn.q blocks.{i}.attn.k blocks.{i}.attn.v"

LLAMA = rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_PRE_NORMS)
GEMMA = rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_SANDWICH_NORMS)
OLMO2 = rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_POST_NORMS)
PHI3 = rules(
    *_EMBED,
    ("model.layers.{i}.self_attn.qkv_proj", _QKV),
    ("model.layers.{i}.self_attn.o_proj", "blocks.{i}.attn.o"),
    ("model.layers.{i}.mlp.gate_up_proj", "blocks.{i}.mlp.gate blocks.{i}.mlp.up"),
    ("model.layers.{i}.mlp.down_proj", "blocks.{i}.mlp.down"),
    *_PRE_NORMS,
)
GPT2 = rules(
    ("transformer.wte", "embed"),
    ("transformer.wpe", "pos_embed"),
    ("transformer.h.{i}.ln_1", "blocks.{i}.attn_norm"),
    ("transformer.h.{i}.attn.c_attn", _QKV, "transpose"),
    ("transformer.h.{i}.attn.c_proj", "blocks.{i}.attn.o", "transpose"),
    ("transformer.h.{i}.ln_2", "blocks.{i}.mlp_norm"),
    ("transformer.h.{i}.mlp.c_fc", "blocks.{i}.mlp.up", "transpose"),
    ("transformer.h.{i}.mlp.c_proj", "blocks.{i}.mlp.down", "transpose"),
    ("transformer.ln_f", "final_norm"),
    ("lm_head", "head"),
)
GPT_NEOX = rules(
    ("gpt_neox.embed_in", "embed"),
    ("gpt_neox.layers.{i}.input_layernorm", "blocks.{i}.attn_norm"),
    ("gpt_neox.layers.{i}.post_attention_layernorm", "blocks.{i}.mlp_norm"),
    ("gpt_neox.layers.{i}.attention.query_key_value", _QKV, "by_head"),
    ("gpt_neox.layers.{i}.attention.dense", "blocks.{i}.attn.o"),
    ("gpt_neox.layers.{i}.mlp.dense_h_to_4h", "blocks.{i}.mlp.up"),
    ("gpt_neox.layers.{i}.mlp.dense_4h_to_h", "blocks.{i}.mlp.down"),
    ("gpt_neox.final_layer_norm", "final_norm"),
    ("embed_out", "head"),
    ("lm_head", "head", "alias"),
)

IGNORED = re.compile(
    r"\.(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$|^(vision_tower|multi_modal_projector)\."
)
"""Buffers that old checkpoints carry and the vision half of multimodal ones: never weights of the language model."""
