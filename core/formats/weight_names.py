"""Weight names: one data table per family, read in both directions.

A rule maps one name in a Hugging Face checkpoint to one or more of ours. `{i}` stands for the layer; linear layers are
named without ``.weight`` and ``.bias``. All our linear weights are ``[out, in]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.model.config import ModelConfig

Op = Literal["copy", "transpose", "split", "split_transpose", "split_heads", "alias"]


@dataclass(frozen=True)
class Rule:
    """One line of a key table.

    Attributes:
        source: Name in the checkpoint, without suffix.
        targets: Our names, without suffix; several when the checkpoint fuses them.
        op: ``copy``; ``transpose`` (GPT-2 stores ``[in, out]``); ``split`` along the output dimension;
            ``split_transpose`` both; ``split_heads`` where each head's query, key and value lie together (GPT-NeoX);
            ``alias`` a second spelling of a copied weight, read but never written.
    """

    source: str
    targets: tuple[str, ...]
    op: Op = "copy"


def _rules(*lines: tuple[str, str] | tuple[str, str, Op]) -> tuple[Rule, ...]:
    rules = []
    for line in lines:
        op: Op = line[2] if len(line) == 3 else "copy"
        rules.append(Rule(line[0], tuple(line[1].split()), op))
    return tuple(rules)


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
_LLAMA = _rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_PRE_NORMS)
_GEMMA = _rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_SANDWICH_NORMS)
_QKV = "blocks.{i}.attn.q blocks.{i}.attn.k blocks.{i}.attn.v"

FAMILIES: Mapping[str, tuple[Rule, ...]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "olmo2": _rules(*_EMBED, *_SEPARATE_ATTENTION, *_GATED_MLP, *_POST_NORMS),
    "phi3": _rules(
        *_EMBED,
        ("model.layers.{i}.self_attn.qkv_proj", _QKV, "split"),
        ("model.layers.{i}.self_attn.o_proj", "blocks.{i}.attn.o"),
        ("model.layers.{i}.mlp.gate_up_proj", "blocks.{i}.mlp.gate blocks.{i}.mlp.up", "split"),
        ("model.layers.{i}.mlp.down_proj", "blocks.{i}.mlp.down"),
        *_PRE_NORMS,
    ),
    "gpt2": _rules(
        ("transformer.wte", "embed"),
        ("transformer.wpe", "pos_embed"),
        ("transformer.h.{i}.ln_1", "blocks.{i}.attn_norm"),
        ("transformer.h.{i}.attn.c_attn", _QKV, "split_transpose"),
        ("transformer.h.{i}.attn.c_proj", "blocks.{i}.attn.o", "transpose"),
        ("transformer.h.{i}.ln_2", "blocks.{i}.mlp_norm"),
        ("transformer.h.{i}.mlp.c_fc", "blocks.{i}.mlp.up", "transpose"),
        ("transformer.h.{i}.mlp.c_proj", "blocks.{i}.mlp.down", "transpose"),
        ("transformer.ln_f", "final_norm"),
        ("lm_head", "head"),
    ),
    "gpt_neox": _rules(
        ("gpt_neox.embed_in", "embed"),
        ("gpt_neox.layers.{i}.input_layernorm", "blocks.{i}.attn_norm"),
        ("gpt_neox.layers.{i}.post_attention_layernorm", "blocks.{i}.mlp_norm"),
        ("gpt_neox.layers.{i}.attention.query_key_value", _QKV, "split_heads"),
        ("gpt_neox.layers.{i}.attention.dense", "blocks.{i}.attn.o"),
        ("gpt_neox.layers.{i}.mlp.dense_h_to_4h", "blocks.{i}.mlp.up"),
        ("gpt_neox.layers.{i}.mlp.dense_4h_to_h", "blocks.{i}.mlp.down"),
        ("gpt_neox.final_layer_norm", "final_norm"),
        ("embed_out", "head"),
        ("lm_head", "head", "alias"),
    ),
}
"""Families that our own `GPT` runs, by the ``model_type`` of a Hugging Face configuration."""

BASE_PREFIX: Mapping[str, str] = {"gpt2": "transformer.", "gpt_neox": "gpt_neox."}
"""What a headless checkpoint leaves out of every name; ``model.`` where not listed."""

IGNORED = re.compile(
    r"\.(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$|^(vision_tower|multi_modal_projector)\."
)
"""Buffers that old checkpoints carry and the vision half of multimodal ones: never weights of the language model."""


@lru_cache(maxsize=64)
def _compiled(family: str) -> tuple[tuple[re.Pattern[str], Rule], ...]:
    compiled = []
    for rule in FAMILIES[family]:
        pattern = re.escape(rule.source).replace(r"\{i\}", r"(?P<i>\d+)")
        compiled.append((re.compile(pattern + r"\.(?P<suffix>weight|bias)"), rule))
    return tuple(compiled)


class KeyMap:
    """Translates the names and layouts of one family's checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        """Take the table of ``config.family``.

        Raises:
            ModelFileError: The family has none.
        """
        if config.family not in FAMILIES:
            raise ModelFileError(
                f"There is no weight table for family {config.family!r}. Known: {', '.join(FAMILIES)}."
            )
        self.config = config

    def _sizes(self, targets: tuple[str, ...]) -> list[int]:
        config = self.config
        if len(targets) == 3:
            kv = config.n_kv_heads * config.head_dim
            return [config.n_heads * config.head_dim, kv, kv]
        return [config.d_ff] * len(targets)

    def to_internal(self, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """Translate one checkpoint tensor.

        Args:
            name: Its name in the checkpoint.
            tensor: Its value.

        Returns:
            Our names and tensors; the name unchanged where no rule knows it, nothing where it is to be ignored.

        Raises:
            ModelFileError: A fused tensor cannot be split to this configuration's sizes.
        """
        if IGNORED.search(name):
            return []
        name = name.removeprefix("language_model.")
        if name.startswith("model.language_model."):
            name = "model." + name.removeprefix("model.language_model.")
        prefix = BASE_PREFIX.get(self.config.family, "model.")
        for candidate in (name, prefix + name):
            for pattern, rule in _compiled(self.config.family):
                match = pattern.fullmatch(candidate)
                if match:
                    index = match.groupdict().get("i", "")
                    names = [target.replace("{i}", index) + "." + match["suffix"] for target in rule.targets]
                    return list(zip(names, self._apply(name, rule, tensor), strict=True))
        return [(name, tensor)]

    def _apply(self, name: str, rule: Rule, tensor: Tensor) -> list[Tensor]:
        if rule.op in ("transpose", "split_transpose") and tensor.dim() == 2:
            tensor = tensor.t().contiguous()
        if len(rule.targets) == 1:
            return [tensor]
        sizes = self._sizes(rule.targets)
        if tensor.dim() == 0 or tensor.shape[0] != sum(sizes):
            raise ModelFileError(
                f"The fused weight {name} has shape {tuple(tensor.shape)}; the configuration needs {sum(sizes)} rows."
            )
        if rule.op == "split_heads":
            heads, dim = self.config.n_heads, self.config.head_dim
            parts = tensor.view(heads, 3, dim, *tensor.shape[1:]).unbind(1)
            return [part.reshape(heads * dim, *tensor.shape[1:]).contiguous() for part in parts]
        return [part.contiguous() for part in torch.split(tensor, sizes, 0)]

    def to_source(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Translate all our weights back to the checkpoint's names and layouts.

        Args:
            tensors: Our state dictionary.

        Yields:
            Checkpoint names and tensors.
        """
        for rule in FAMILIES[self.config.family]:
            if rule.op == "alias":
                continue
            layers: Iterable[str] = [""]
            if "{i}" in rule.source:
                layers = [str(layer) for layer in range(self.config.n_layers)]
            for layer in layers:
                for suffix in ("weight", "bias"):
                    names = [target.replace("{i}", layer) + "." + suffix for target in rule.targets]
                    if all(name in tensors for name in names):
                        source = rule.source.replace("{i}", layer) + "." + suffix
                        yield source, self._undo(rule, [tensors[name] for name in names])

    def _undo(self, rule: Rule, parts: list[Tensor]) -> Tensor:
        if rule.op == "split_heads":
            heads, dim = self.config.n_heads, self.config.head_dim
            stacked = torch.stack([part.view(heads, dim, *part.shape[1:]) for part in parts], 1)
            return stacked.reshape(3 * heads * dim, *parts[0].shape[1:]).contiguous()
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, 0)
        if rule.op in ("transpose", "split_transpose") and whole.dim() == 2:
            whole = whole.t()
        return whole.contiguous()
