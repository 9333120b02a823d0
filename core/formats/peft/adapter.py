"""An adapter of ``adapter_config.json`` and ``adapter_model.safetensors``: opened, checked, added to a model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import SafetensorsFile, open_safetensors, refuse_pickle
from nlpkit.core.formats.key_map import KeyMap
from nlpkit.core.formats.learned_tasks import read_learned_tasks
from nlpkit.core.formats.peft.patterns import by_pattern, check_pattern_work
from nlpkit.core.formats.peft.settings import CONFIG_NAME, MOST_LISTED, WEIGHTS_NAME, check_settings
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraWeights

_KEY = re.compile(
    r"base_model\.model\.(?P<module>[\w.]{1,200})\.(?P<kind>lora_A|lora_B|lora_magnitude_vector)(\.weight)?"
)
_COPY = re.compile(r"base_model\.model\.(?P<name>[\w.]{1,200})\.base_layer\.(?P<suffix>weight|bias)")
"""PEFT puts a copy of the base layer beside an update of the output head."""
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
        alpha = float(by_pattern(self.settings.get("alpha_pattern"), module, self.settings["lora_alpha"]))
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
            shown = "; ".join(problems[:MOST_LISTED])
            more = f"; and {len(problems) - MOST_LISTED} more" if len(problems) > MOST_LISTED else ""
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
    check_settings(config, settings)
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
        listed = ", ".join(name[:80] for name in strange[:MOST_LISTED]) or "no LoRA weights at all"
        embeds = any("embed" in name for name in strange)
        kind = "embeddings" if embeds else "whole layers"
        raise ModelFileError(
            f"{weights} holds what nlpkit does not read: {listed}. Only LoRA updates of linear layers are supported, "
            f"not {kind}."
        )
    check_pattern_work(config, settings, keys)
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
    wanted = read_learned_tasks(adapter.path).base_sha256
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
