"""``adapter_config.json``: what of it nlpkit reads, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError, shown
from nlpkit.core.formats.peft.patterns import check_patterns
from nlpkit.core.typed_fields import is_number

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
MOST_LISTED = 8
"""Most names that an error lists."""
_KEPT_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone; the others subtract from them."""
_NO_MATTER = frozenset(
    {
        *("auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r"),
        *("target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora"),
        *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
        *("megatron_core", "loftq_config", "eva_config", "use_dora", "qalora_group_size", "ensure_weight_tying"),
        *("runtime_config", "peft_type", "task_type", "bias"),
    }
)


def check_settings(where: Path, settings: Mapping[str, Any]) -> None:
    """Refuse an adapter that does what nlpkit does not.

    Args:
        where: The file.
        settings: What it holds.

    Raises:
        ModelFileError: It describes another kind of adapter, or one that uses what is not read.
    """
    if settings.get("peft_type") != "LORA":
        raise ModelFileError(
            f"{where} describes a {settings.get('peft_type')!r} adapter; nlpkit reads LORA (with rsLoRA and DoRA) only."
        )
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelFileError(
            f"{where} describes an adapter for {settings.get('task_type')!r}; nlpkit reads CAUSAL_LM adapters only."
        )
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 65536:
        raise ModelFileError(f"{where} has the rank {shown(rank)}; it must be a whole number from 1.")
    if not is_number(alpha):
        raise ModelFileError(f"{where} has the lora_alpha {shown(alpha)}; it must be a number.")
    if settings.get("bias", "none") != "none":
        raise ModelFileError(f"{where} trains biases (bias={settings['bias']!r}); nlpkit reads adapters without.")
    if settings.get("init_lora_weights") not in _KEPT_INITS:
        raise ModelFileError(
            f"{where} was started by {settings['init_lora_weights']!r}, which changes the base weights too. Convert "
            "it to a plain LoRA with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT."
        )
    used = sorted(key for key, value in settings.items() if key not in _NO_MATTER and value)
    if used:
        raise ModelFileError(
            f"{where} uses what nlpkit does not read: {', '.join(f'{key}={str(settings[key])[:60]}' for key in used)}. "
            "Merge the adapter into its model with PEFT and use the merged model."
        )
    if not isinstance(settings.get("rank_pattern") or {}, Mapping):
        raise ModelFileError(f"{where} has the rank_pattern {str(settings['rank_pattern'])[:200]}, which is no object.")
    check_patterns(where, "alpha_pattern", settings.get("alpha_pattern"))
