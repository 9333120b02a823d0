"""`GGUFSource`: a model in one GGUF file (or several parts of one)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ModelFileError
from nlpkit.core.formats.families import FAMILIES
from nlpkit.core.formats.gguf.config import architecture_of, read_config
from nlpkit.core.formats.gguf.dequantize import dequantize
from nlpkit.core.formats.gguf.file import GGUFFile, open_gguf
from nlpkit.core.formats.gguf.weight_names import IGNORED, weight_shapes
from nlpkit.core.formats.learned_tasks import GGUF_KEY, LearnedTasks, parse_learned_tasks
from nlpkit.core.formats.name_rules import NameRule, find_rule, part_sizes, to_ours
from nlpkit.core.tokenizers.gguf_vocab import build_tokenizer
from nlpkit.core.tokenizers.tokenizer import Tokenizer

MAX_PROBLEMS = 12


def _block_number(name: str) -> int:
    found = re.match(r"blk\.(\d{1,6})\.", name)
    return int(found[1]) if found else -1


class GGUFSource:
    """A GGUF model as `nlpkit.core.formats.source.ModelSource`.

    Opening reads the header alone and holds every tensor's shape against the configuration, so that a file
    that claims absurd sizes is refused before anything of that size is built.

    Attributes:
        path: The file; for a split model, its first part.
        format: ``gguf``.
        config: Shape of the model.
        file: The opened container.
        architecture: The GGUF architecture, such as ``llama``.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a GGUF file.

        Args:
            path: The file, or any part of a split one.

        Raises:
            ModelFileError: It is damaged, of an unknown architecture, or its tensors do not fit its metadata.
        """
        self.format = "gguf"
        self.file: GGUFFile = open_gguf(path)
        self.path = self.file.path
        self.architecture = architecture_of(self.file)
        self.config = read_config(self.file)
        self._names = FAMILIES[self.config.family].gguf_names
        self._check_shapes()

    def _check_shapes(self) -> None:
        expected = dict(weight_shapes(self.config))
        problems: list[str] = []
        found: set[str] = set()
        # Whatever the order in the file: a block that is complete can be quantized before the next is read.
        for name, info in sorted(self.file.tensors.items(), key=lambda item: _block_number(item[0])):
            known = find_rule(self._names, name)
            if known is None:
                if not IGNORED.fullmatch(name):
                    problems.append(f"{name[:80]} is unknown")
                continue
            rule, targets = known
            for target, shape in zip(targets, self._shapes(rule, info.shape), strict=True):
                if target in found:
                    problems.append(f"{target} is stored twice")
                elif target == "head.weight" and self.config.tied_head:
                    continue
                elif target not in expected:
                    problems.append(f"{name[:80]} has no place in the model")
                elif shape != expected[target]:
                    problems.append(f"{name[:80]} has shape {info.shape}, not {expected[target]}")
                found.add(target)
        problems += [f"{name} is missing" for name in expected if name not in found]
        if problems:
            more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
            raise ModelFileError(
                f"The tensors of {self.path} do not fit its metadata: {'; '.join(problems[:MAX_PROBLEMS])}{more}. "
                "The file is damaged or of a variant that nlpkit does not know; download it again or get another "
                "one."
            )

    def _shapes(self, rule: NameRule, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        if len(rule.targets) == 1:
            return [shape]
        sizes = part_sizes(self.config, rule)
        # A wrong sum is put on the first part, which then does not fit.
        first = shape[0] - sum(sizes[1:])
        return [(first, *shape[1:]), *((size, *shape[1:]) for size in sizes[1:])]

    def tensors(self, *, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield ``(internal name, tensor)`` in the given floating dtype, block after block.

        Args:
            dtype: Such as ``torch.float32``.

        Raises:
            ModelFileError: A weight is of a type that cannot be decoded.
        """
        # Whatever their order in the file: what is made of a block's weights can then take their place at once.
        for name, info in sorted(self.file.tensors.items(), key=lambda item: _block_number(item[0])):
            known = find_rule(self._names, name)
            if known is None or (self.config.tied_head and "head.weight" in known[1]):
                continue
            rule, targets = known
            # Gemma's offset is taken off in full precision: near one, bf16 has only 7 bits behind the point.
            wide = torch.float32 if rule.op == "plus_one" else dtype
            tensor = dequantize(self.file.raw(name), info.type, info.shape, wide)
            self.file.release(name)
            for target, part in zip(targets, to_ours(self.config, rule, tensor, name=name), strict=True):
                yield target, part.to(dtype)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that the file carries.

        Raises:
            TokenizerError: There is none, or it cannot be used.
        """
        return build_tokenizer(self.file.metadata, vocab_size=self.config.vocab_size, source=str(self.path))

    def chat_template(self) -> ChatTemplate | None:
        """Return the chat template, or None for a base model.

        Raises:
            ModelFileError: It is no valid template.
        """
        return build_chat_template(self.file.metadata)

    def learned_tasks(self) -> LearnedTasks:
        """Return what the file says that the model was tuned for; nothing where it does not say.

        Raises:
            ModelFileError: What it says is damaged, or of a later version.
        """
        text = self.file.metadata.get(GGUF_KEY)
        return LearnedTasks() if text is None else parse_learned_tasks(text, where=f"{GGUF_KEY} in {self.path}")

    def files(self) -> Mapping[str, Path]:
        """Return the weight files by name."""
        return {path.name: path for path in self.file.paths}


def build_chat_template(metadata: Mapping[str, Any]) -> ChatTemplate | None:
    """Build the chat template of GGUF metadata.

    Args:
        metadata: `GGUFFile.metadata`.

    Returns:
        The template, or None for a base model.

    Raises:
        ModelFileError: It is no valid template.
    """
    source = metadata.get("tokenizer.chat_template")
    if source is None or source == "":
        return None
    if not isinstance(source, str):
        raise ModelFileError("The file's tokenizer.chat_template is no text. Get another file.")
    tokens = metadata.get("tokenizer.ggml.tokens")

    def spelling(key: str) -> str:
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(tokens, list) and isinstance(index, int) and 0 <= index < len(tokens):
            return str(tokens[index])
        return ""

    variables = {
        f"{name}_token": spelling(key) for name, key in (("unk", "unknown"), ("pad", "padding")) if spelling(key)
    }
    return ChatTemplate(source, bos_token=spelling("bos"), eos_token=spelling("eos"), variables=variables)
