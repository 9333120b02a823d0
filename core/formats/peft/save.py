"""Updates written as PEFT writes them: fused where the Hugging Face model fuses modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ModelFileError, OutputError, why_unwritten
from nlpkit.core.formats.families import FAMILIES
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.peft.settings import CONFIG_NAME, MOST_LISTED, WEIGHTS_NAME
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraWeights


def save_adapter(
    directory: Path,
    config: ModelConfig,
    updates: Mapping[str, LoraWeights],
    *,
    base_model: str | None = None,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write updates in PEFT's layout.

    Where the Hugging Face model fuses modules that were adapted apart, the fused update has the sum of their ranks:
    the matrices ``A`` one above the other, the matrices ``B`` on the diagonal. That is the same function exactly.

    Args:
        directory: An existing directory.
        config: The model's configuration.
        updates: Updates by internal module name.
        base_model: What to name as the base model.
        dropout: Dropout that the update was trained with; for the record.
        dtype: Dtype on disk.

    Raises:
        ModelFileError: A fused module is adapted in part only.
        OutputError: A file cannot be written.
    """
    tensors, ranks, alphas = _to_peft(config, updates)
    rank = max(set(ranks.values()), key=list(ranks.values()).count)
    alpha = max(set(alphas.values()), key=list(alphas.values()).count)
    conv1d = any(rule.op == "transpose" for rule in FAMILIES[config.family].hf_names)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": sorted({module.rpartition(".")[2] for module in ranks}),
        "rank_pattern": {module: value for module, value in ranks.items() if value != rank},
        "alpha_pattern": {module: value for module, value in alphas.items() if value != alpha},
        "use_rslora": False,
        "use_dora": any(update.magnitude is not None for update in updates.values()),
        "fan_in_fan_out": conv1d,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
    }
    if not _covers_all_layers(config, ranks):
        settings["target_modules"] = sorted(ranks)
    try:
        stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
        save_file(stored, directory / WEIGHTS_NAME, metadata={"format": "pt"})
        (directory / CONFIG_NAME).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{directory} cannot be written: {why_unwritten(error)}.") from error


def _covers_all_layers(config: ModelConfig, modules: Mapping[str, int]) -> bool:
    """Tell whether every module name that occurs is adapted in every layer."""
    counts: dict[str, int] = {}
    for module in modules:
        last = module.rpartition(".")[2]
        counts[last] = counts.get(last, 0) + 1
    # A name like GPT-2's c_proj occurs twice in a layer: then only the full names say which.
    named = [rule.source.rpartition(".")[2] for rule in FAMILIES[config.family].hf_names if "{i}" in rule.source]
    return all(count == config.n_layers and named.count(last) == 1 for last, count in counts.items())


def _to_peft(
    config: ModelConfig, updates: Mapping[str, LoraWeights]
) -> tuple[dict[str, Tensor], dict[str, int], dict[str, float]]:
    keymap = KeyMap(config)
    updates = _with_idle_parts(config, updates)
    with torch.device("meta"):
        probe = {f"{name}.weight": torch.empty(update.b.shape[0], 1, 1) for name, update in updates.items()}
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    written: set[str] = set()
    for source, meta in keymap.to_source(probe):
        module = source.removesuffix(".weight")
        names = [name.removesuffix(".weight") for name, _ in keymap.to_internal(source, meta)]
        parts = [updates[name] for name in names]
        written.update(names)
        total = sum(part.b.shape[1] for part in parts)
        padded: dict[str, Tensor] = {}
        start = 0
        for name, part in zip(names, parts, strict=True):
            wide = torch.zeros(part.b.shape[0], total, 1)
            wide[:, start : start + part.b.shape[1], 0] = part.b.float().cpu() * (part.scale / parts[0].scale)
            padded[f"{name}.weight"] = wide
            start += part.b.shape[1]
        ((_, b),) = keymap.to_source(padded)
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = torch.cat([part.a.float().cpu() for part in parts])
        tensors[f"{prefix}.lora_B.weight"] = b.squeeze(2)
        if parts[0].magnitude is not None:
            lengths = {f"{name}.bias": part.magnitude.float().cpu() for name, part in zip(names, parts, strict=True)
                       if part.magnitude is not None}  # fmt: skip
            ((_, vector),) = keymap.to_source(lengths)
            tensors[f"{prefix}.lora_magnitude_vector"] = vector
        ranks[module] = total
        alphas[module] = parts[0].scale * total
    lost = sorted(set(updates) - written)
    if lost:
        raise ModelFileError(
            f"The files of family {config.family!r} have no place for updates of: {', '.join(lost[:MOST_LISTED])}."
        )
    return tensors, ranks, alphas


def _with_idle_parts(config: ModelConfig, updates: Mapping[str, LoraWeights]) -> dict[str, LoraWeights]:
    """Add updates of rank 0 for the parts of a fused module that are not adapted themselves."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in GPT(config).named_parameters()}
    whole = dict(updates)
    for rule in FAMILIES[config.family].hf_names:
        for layer in range(config.n_layers) if len(rule.targets) > 1 else ():
            names = [target.replace("{i}", str(layer)) for target in rule.targets]
            present = [updates[name] for name in names if name in updates]
            if not present or len(present) == len(names):
                continue
            if any(update.magnitude is not None for update in present):
                raise ModelFileError(
                    f"The family {config.family!r} fuses {', '.join(names)} in its files: with DoRA, adapt all of them "
                    "or none."
                )
            for name in names:
                rows, columns = shapes[f"{name}.weight"]
                idle = LoraWeights(torch.zeros(0, columns), torch.zeros(rows, 0), present[0].scale)
                whole.setdefault(name, idle)
    return whole
