"""What every loader yields, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.formats.learned_tasks import LearnedTasks
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.tokenizers.tokenizer import Tokenizer


class ModelSource(Protocol):
    """An opened model, in any format. Opening reads headers; `tensors` reads weights.

    Attributes:
        path: File or directory the model came from.
        format: ``hf``, ``gguf`` or ``native``.
        config: Shape of the model.
    """

    path: Path
    format: str
    config: ModelConfig

    def tensors(self, *, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield ``(internal name, tensor)`` in the given floating dtype, one at a time.

        Raises:
            ModelFileError: A weight cannot be read. Missing, unexpected and mis-shaped ones are found by the
                caller, which lists them all in one error.
        """
        ...

    def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer.

        Raises:
            TokenizerError: There is none, or it cannot be used.
        """
        ...

    def chat_template(self) -> ChatTemplate | None:
        """Return the chat template, or None for a base model."""
        ...

    def learned_tasks(self) -> LearnedTasks:
        """Return what the model was tuned for with short prompts.

        Raises:
            ModelFileError: What says so is damaged, or of a later version.
        """
        ...

    def files(self) -> Mapping[str, Path]:
        """Return the weight files by name, for hashing in run records."""
        ...
