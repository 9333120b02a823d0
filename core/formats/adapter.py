"""LoRA adapters in the layout of the PEFT library: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from nlpkit.core.errors import ModelFileError, OutputError, shown, why_unwritten
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import SafetensorsFile, open_safetensors, refuse_pickle
from nlpkit.core.formats.families import FAMILIES
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.tuned import read_brief_tasks
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.typed_fields import is_number

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(
    r"base_model\.model\.(?P<module>[\w.]{1,200})\.(?P<kind>lora_A|lora_B|lora_magnitude_vector)(\.weight)?"
)
_COPY = re.compile(r"base_model\.model\.(?P<name>[\w.]{1,200})\.base_layer\.(?P<suffix>weight|bias)")
"""PEFT puts a copy of the base layer beside an update of the output head."""
_KEPT_INITS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone; the others subtract from them."""
_MAX_PATTERN_STEPS = 50_000_000
_NO_MATTER = frozenset(
    {
        *("auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r"),
        *("target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora"),
        *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
        *("megatron_core", "loftq_config", "eva_config", "use_dora", "qalora_group_size", "ensure_weight_tying"),
        *("runtime_config", "peft_type", "task_type", "bias"),
    }
)
_MOST_LISTED = 8
MOST_DIFFERENT = 0.2
"""Share of its size by which a copy may differ from the model's weight, which may be quantized."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An opened adapter. Opening reads headers; the weights are read when they are asked for.

    Attributes:
        path: Its directory.
        settings: ``adapter_config.json``, checked.
        modules: Names of the adapted modules as the Hugging Face model calls them.
        files: Its files by name.
        stored: Its weights.
        keys: Names of the weights of each module in the file, by kind.
        copies: Weights of the base model that the file repeats, by the names that the Hugging Face model gives them,
            and their names in the file.
    """

    path: Path
    settings: Mapping[str, Any]
    modules: tuple[str, ...]
    files: Mapping[str, Path]
    stored: SafetensorsFile
    keys: Mapping[str, Mapping[str, str]]
    copies: Mapping[str, str] = field(default_factory=dict)

    @property
    def base_model(self) -> str | None:
        """What the adapter says it was trained on."""
        name = self.settings.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    @property
    def leaves_embeddings(self) -> bool:
        """Whether only modules inside numbered blocks are adapted."""
        return all(re.search(r"\.\d+\.", module) for module in self.modules)

    def scale(self, module: str) -> float:
        """Return the multiplier on ``B A`` of one module."""
        rank = self.stored.info[self.keys[module]["lora_A"]].shape[0]
        alpha = float(_by_pattern(self.settings.get("alpha_pattern"), module, self.settings["lora_alpha"]))
        return alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def fitting(self, config: ModelConfig) -> ModelConfig:
        """Return a model's configuration with a head of its own where this adapter updates the head of tied weights.

        The update is added to the head alone, as PEFT does; the embedding stays as it is.
        """
        keymap = KeyMap(config)
        names = (f"{module}.weight" for module in self.modules if self._is_head(module, keymap))
        return replace(config, tied_head=False) if config.tied_head and any(names) else config

    @staticmethod
    def _is_head(module: str, keymap: KeyMap) -> bool:
        # Of a layer, the shape would matter.
        if re.search(r"\.\d+\.", module):
            return False
        return [name for name, _ in keymap.to_internal(f"{module}.weight", torch.empty(0))] == ["head.weight"]

    def checked(self, config: ModelConfig, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Pass a model's weights on, completed to what `fitting` asks for and compared with the copies in the file.

        Args:
            config: The model's configuration, as it is.
            tensors: Internal names and weights.

        Yields:
            The same, and the head where the adapter unties it.

        Raises:
            ModelFileError: A copy differs from the model's weight: the adapter belongs to another model.
        """
        keymap = KeyMap(config)
        copies: dict[str, tuple[str, Tensor]] = {}
        for name, key in self.copies.items():
            for ours, tensor in keymap.to_internal(name, self.stored.tensor(key)):
                copies[ours] = name, tensor
        unties = self.fitting(config) != config
        if config.tied_head and "head.weight" in copies:
            copies["embed.weight"] = copies.pop("head.weight")
        head: Tensor | None = None
        for name, weight in tensors:
            if name == "head.weight" and unties:
                continue
            if name in copies:
                self._compare(*copies.pop(name), weight)
            if name == "embed.weight":
                head = weight
            yield name, weight
        if copies:
            self._refuse_copy(next(iter(copies.values()))[0])
        if unties and head is not None:
            yield "head.weight", head

    def _compare(self, name: str, copy: Tensor, weight: Tensor) -> None:
        if copy.shape != weight.shape:
            self._refuse_copy(name)
        # The model may hold it in fewer digits or bits; another model's differs by more than its own size.
        whole = copy.float().to(weight.device)
        if not float((whole - weight.float()).norm()) <= MOST_DIFFERENT * float(whole.norm()):
            self._refuse_copy(name)

    def _refuse_copy(self, name: str) -> NoReturn:
        raise ModelFileError(
            f"The adapter {self.path} holds another {name} than this model. Merge the adapter into its model with "
            "PEFT, and use the merged model."
        )

    def internal(self, config: ModelConfig) -> dict[str, LoraWeights]:
        """Translate the adapter to a model's own modules.

        Args:
            config: The model's configuration.

        Returns:
            Updates by module name, such as ``blocks.3.attn.q``, in fp32. A module that the Hugging Face model
            fuses gives one update for each of its parts.

        Raises:
            ModelFileError: The adapter does not fit the model; everything that does not is named at once.
        """
        config = self.fitting(config)
        keymap = KeyMap(config)
        with torch.device("meta"):
            shapes = {name: tuple(p.shape) for name, p in GPT(config).named_parameters()}
        problems: list[str] = []
        found: dict[str, LoraWeights] = {}
        for module in self.modules:
            problems += self._translate(module, keymap, shapes, found)
        if problems:
            shown = "; ".join(problems[:_MOST_LISTED])
            more = f"; and {len(problems) - _MOST_LISTED} more" if len(problems) > _MOST_LISTED else ""
            trained = f" It says it was trained on {self.base_model!r}." if self.base_model else ""
            raise ModelFileError(
                f"The adapter {self.path} does not fit this model of family {config.family!r}: {shown}{more}.{trained} "
                "Use the adapter with the model it was trained on."
            )
        return found

    def _translate(
        self, module: str, keymap: KeyMap, shapes: Mapping[str, tuple[int, ...]], found: dict[str, LoraWeights]
    ) -> list[str]:
        keys = self.keys[module]
        a = self.stored.tensor(keys["lora_A"], dtype=torch.float32)
        b = self.stored.tensor(keys["lora_B"], dtype=torch.float32)
        try:
            # With a third dimension no rule transposes: B is (out, rank) even where the weight is (in, out).
            parts = keymap.to_internal(f"{module}.weight", b.unsqueeze(2))
            lengths: list[Tensor | None] = [None] * len(parts)
            if "lora_magnitude_vector" in keys:
                vector = self.stored.tensor(keys["lora_magnitude_vector"], dtype=torch.float32)
                lengths = [tensor for _, tensor in keymap.to_internal(f"{module}.bias", vector)]
        except ModelFileError as error:
            return [str(error).rstrip(".")]
        if len(parts) != len(lengths):
            return [f"{module} has no usable magnitudes"]
        problems = []
        for (name, part), length in zip(parts, lengths, strict=True):
            shape = shapes.get(name)
            if shape is None or len(shape) != 2 or not name.startswith(("blocks.", "head.")):
                problems.append(f"there is no linear layer {module}")
            elif shape != (part.shape[0], a.shape[1]):
                problems.append(f"{module} updates a weight of {(part.shape[0], a.shape[1])}, the model has {shape}")
            elif length is not None and tuple(length.shape) != shape[:1]:
                problems.append(f"{module} has magnitudes of shape {tuple(length.shape)}, not {shape[:1]}")
            else:
                weights = LoraWeights(a, part.squeeze(2).contiguous(), self.scale(module), length)
                found[name.removesuffix(".weight")] = weights
        return problems


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """Look a module up in a ``rank_pattern`` or ``alpha_pattern`` as PEFT does: the first key that matches its end."""
    for pattern, value in (patterns or {}).items():
        compiled, tail = _compiled(pattern)
        if module.endswith(tail) and compiled.match(module):
            return value
    return default


def _ways(pattern: str) -> int:
    """Return an upper bound of the ways in which the alternatives of a pattern combine."""
    ways, depth = 1, [1]
    chars = iter(re.sub(r"\\.|\[[^]]*\]", "x", pattern))
    for char in chars:
        if char == "(":
            depth.append(1)
        elif char == ")" and len(depth) > 1:
            ways *= depth.pop()
        elif char == "|":
            depth[-1] += 1
        elif char == "?":
            ways *= 2
    return ways * math.prod(depth)


def _is_quick(pattern: str) -> bool:
    """Tell whether a pattern of an untrusted file matches in little time, whatever the name.

    Groups and alternatives may be, repeats of groups not; few repeats, and few combinations.
    """
    plain = pattern.replace("(?:", "(")
    if len(pattern) > 200 or re.fullmatch(r"[\w.\\|^$*+?()\[\]-]+", plain) is None:
        return False
    if re.search(r"\)[*+]|\(\?|[*+?]{2}|\\\d", plain):
        return False
    repeats = sum(plain.count(char) for char in "*+")
    return repeats <= 2 and _ways(plain) <= (8 if repeats == 2 else 64)


@functools.lru_cache(maxsize=8192)
def _compiled(pattern: str) -> tuple[re.Pattern[str], str]:
    """Return a pattern as PEFT matches it, and letters that a name must end in, which is cheaper to ask first."""
    tail = re.search(r"\w*$", pattern)
    plain = re.fullmatch(r"[\w.]+", pattern) is not None and tail is not None
    return re.compile(rf"(.*\.)?({pattern})$"), tail[0] if plain and tail is not None else ""


def _check_pattern_work(path: Path, settings: Mapping[str, Any], modules: Iterable[str]) -> None:
    """Refuse patterns that would be matched for long: each repeat goes over a name once more."""
    lengths = [len(module) for module in modules]
    steps = 0
    for pattern in settings.get("alpha_pattern") or {}:
        if _compiled(pattern)[1]:
            steps += 20 * len(lengths)
        else:
            # With a prefix of any kind in front there is always one loop.
            loops = 2 + sum(pattern.count(char) for char in "*+")
            ways = _ways(pattern.replace("(?:", "("))
            steps += sum(ways * length**loops // math.factorial(loops) for length in lengths)
        if steps > _MAX_PATTERN_STEPS:
            raise ModelFileError(
                f"{path / CONFIG_NAME} has an alpha_pattern that takes too long to match with its {len(lengths):,} "
                "modules. Give the modules' own names instead."
            )


def _check_patterns(path: Path, key: str, patterns: Any) -> None:
    if patterns in (None, {}):
        return
    usable = isinstance(patterns, Mapping)
    for pattern, value in patterns.items() if usable else ():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6
        try:
            re.compile(pattern)
        except re.error:
            usable = False
        usable = usable and _is_quick(pattern) and number
    if not usable:
        raise ModelFileError(f"{path / CONFIG_NAME} has a {key} that nlpkit cannot use: {str(patterns)[:200]}.")


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    where = path / CONFIG_NAME
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
    _check_patterns(path, "alpha_pattern", settings.get("alpha_pattern"))


def open_adapter(path: str | Path) -> Adapter:
    """Open an adapter directory and read its headers.

    Args:
        path: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        The adapter.

    Raises:
        ModelFileError: A file is missing or damaged, the weights are a pickle, or the adapter is of a kind that
            nlpkit does not read.
    """
    path = Path(path)
    config, weights = path / CONFIG_NAME, path / WEIGHTS_NAME
    if not config.exists():
        raise ModelFileError(f"There is no adapter at {path}: it has no {CONFIG_NAME}. Name the adapter's directory.")
    settings = read_json_object(config)
    _check_settings(path, settings)
    if not weights.exists():
        refuse_pickle(path)
        raise ModelFileError(f"There is no {WEIGHTS_NAME} in {path}.")
    stored = open_safetensors(weights)
    keys: dict[str, dict[str, str]] = {}
    strange = []
    copies: dict[str, str] = {}
    for name in stored.names:
        match, copy = _KEY.fullmatch(name), _COPY.fullmatch(name)
        if copy is not None:
            copies[f"{copy['name']}.{copy['suffix']}"] = name
        elif match is None:
            strange.append(name)
        else:
            keys.setdefault(match["module"], {})[match["kind"]] = name
    if strange or not keys:
        listed = ", ".join(name[:80] for name in strange[:_MOST_LISTED]) or "no LoRA weights at all"
        embeds = any("embed" in name for name in strange)
        kind = "embeddings" if embeds else "whole layers"
        raise ModelFileError(
            f"{weights} holds what nlpkit does not read: {listed}. Only LoRA updates of linear layers are supported, "
            f"not {kind}."
        )
    _check_pattern_work(path, settings, keys)
    wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if settings.get("use_dora") else set())
    for module, parts in keys.items():
        if set(parts) != wanted:
            have = ", ".join(sorted(parts))
            raise ModelFileError(
                f"{weights}: {module} has {have}, where {', '.join(sorted(wanted))} are needed. The file is damaged "
                f"or does not belong to its {CONFIG_NAME}."
            )
        a, b = (stored.info[parts[kind]].shape for kind in ("lora_A", "lora_B"))
        # With a rank_pattern, A itself says it.
        fits = len(a) == 2 and len(b) == 2 and a[0] == b[1] and a[0] > 0
        if not fits or (not settings.get("rank_pattern") and a[0] != settings["r"]):
            raise ModelFileError(f"{weights}: {module} has A {a} and B {b}, but its rank is {settings['r']}.")
    return Adapter(
        path=path,
        settings=settings,
        modules=tuple(keys),
        files={CONFIG_NAME: config, WEIGHTS_NAME: weights},
        stored=stored,
        keys=keys,
        copies=copies,
    )


def check_base(adapter: Adapter, files: Mapping[str, Path]) -> None:
    """Refuse an adapter that says which weight file it was trained on, where the model has another one.

    Adapters that do not say it are only held to the shapes of the layers, when they are merged.

    Args:
        adapter: The adapter.
        files: The model's weight files by name.

    Raises:
        ModelFileError: None of the files is the one that the adapter names.
    """
    wanted = read_brief_tasks(adapter.path).base_sha256
    if wanted is None:
        return
    found = {name: sha256_file(path) for name, path in files.items()}
    if wanted not in found.values():
        have = ", ".join(f"{name} has {value[:12]}..." for name, value in found.items())
        trained = f" ({adapter.base_model!r})" if adapter.base_model else ""
        raise ModelFileError(
            f"The adapter {adapter.path} was trained on weights with the sha256 {wanted[:12]}...{trained}, and this "
            f"model has others: {have}. Use the adapter with the model it was trained on."
        )


def merge_adapter(
    config: ModelConfig, tensors: Iterator[tuple[str, Tensor]], adapter: Adapter
) -> Iterator[tuple[str, Tensor]]:
    """Add an adapter to a stream of weights.

    Args:
        config: The model's configuration.
        tensors: Internal names and weights; in fp32 the sum is exact to rounding.
        adapter: The adapter.

    Returns:
        The same stream with the updates added.

    Raises:
        ModelFileError: The adapter does not fit the model.
    """
    return merge_updates(adapter.checked(config, tensors), adapter.internal(config))


def merge_updates(
    tensors: Iterator[tuple[str, Tensor]], updates: Mapping[str, LoraWeights]
) -> Iterator[tuple[str, Tensor]]:
    """Add updates, by module name, to a stream of weights, as `merge_adapter` does."""

    def stream() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors:
            update = updates.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            yield name, tensor if update is None else update.merged(tensor)

    return stream()


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
            f"The files of family {config.family!r} have no place for updates of: {', '.join(lost[:_MOST_LISTED])}."
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
