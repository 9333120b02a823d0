"""Translates names and layouts of Hugging Face checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.families import FAMILIES
from nlpkit.core.formats.name_rules import find_rule, stored_weights, to_ours, to_stored
from nlpkit.core.formats.weight_names import IGNORED
from nlpkit.core.model.config import ModelConfig


class KeyMap:
    """Translates the names and layouts of one family's checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        """Take the names of ``config.family``.

        Raises:
            ModelFileError: The family is not known.
        """
        if config.family not in FAMILIES:
            raise ModelFileError(
                f"There is no weight table for family {config.family!r}. Known: {', '.join(FAMILIES)}."
            )
        self.config = config
        self.family = FAMILIES[config.family]

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
        for candidate in (name, self.family.hf_prefix + name):
            found = find_rule(self.family.hf_names, candidate)
            if found is not None:
                rule, targets = found
                return list(zip(targets, to_ours(self.config, rule, tensor, name=name), strict=True))
        return [(name, tensor)]

    def to_source(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Translate all our weights back to the checkpoint's names and layouts.

        Args:
            tensors: Our state dictionary.

        Yields:
            Checkpoint names and tensors.
        """
        for name, rule, parts in stored_weights(self.family.hf_names, tensors, self.config.n_layers):
            yield name, to_stored(self.config, rule, [tensors[part] for part in parts], name=name)
