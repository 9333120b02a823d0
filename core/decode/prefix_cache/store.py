"""Prefixes on disk: keys and values of prompts' beginnings, so that another process need not compute them again.

One safetensors file a prefix, ``FOLDER/<model>/<tokens>.safetensors``, both names being hashes; it holds ``token_ids``,
``keys`` and ``values``. A file counts only if its header names the same format and model, its shapes agree, and its
content has the checksum that the header gives; any other is as good as absent, and is written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from nlpkit.core.decode.prefix_cache.order import common_prefix
from nlpkit.core.errors import ConfigError, ModelFileError, OutputError
from nlpkit.core.files.safetensors import SafetensorsFile, open_safetensors
from nlpkit.core.files.write import atomic_write
from nlpkit.core.model.cache import KVSegment

FORMAT = "nlpkit-prefix-1"
DEFAULT_MAX_BYTES = 2**30
SHORTEST_STORED = 64
"""Tokens below which computing a prefix is as quick as reading it."""

_NAMES = {"token_ids", "keys", "values"}
_OURS = re.compile(r"[0-9a-f]{16}/[0-9a-f]{32}\.safetensors")


@dataclass
class _Entry:
    """One file: its tokens, and whether its content has been checked."""

    path: Path
    tokens: tuple[int, ...]
    checked: bool = False


def _digest(token_ids: torch.Tensor, segment: KVSegment) -> str:
    digest = hashlib.sha256()
    for tensor in (token_ids, segment.keys, segment.values):
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class PrefixStore:
    """A folder of prefixes, bounded in size; the least recently used files are removed first.

    Attributes:
        folder: The folder; several models may share it.
        max_bytes: Most bytes of all its files together.
        problem: Why a prefix could not be written, or None; after a failure no more are.
    """

    def __init__(self, folder: str | Path, *, fingerprint: str, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open a folder, and make it if need be.

        Args:
            folder: The folder.
            fingerprint: Names all that decides what a model computes: weights, adapter, dtype, versions.
            max_bytes: Most bytes of all files in the folder together.

        Raises:
            ConfigError: `max_bytes` is negative.
            OutputError: The folder cannot be made.
        """
        if max_bytes < 0:
            raise ConfigError(f"max_bytes is {max_bytes}; it must be at least 0.")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.problem: str | None = None
        self._fingerprint = fingerprint
        self._own = self.folder / hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
        try:
            self._own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"The folder for prefixes {self.folder} cannot be made: {error.strerror or error}. Name another one."
            ) from error
        self._entries: list[_Entry] = []
        for path in sorted(self._own.glob("*.safetensors")):
            file = self._open(path)
            if file is not None:
                self._entries.append(_Entry(path, tuple(file.tensor("token_ids").tolist())))

    def __len__(self) -> int:
        """Return the number of prefixes of this model."""
        return len(self._entries)

    def match(self, tokens: tuple[int, ...]) -> int:
        """Count the first tokens of a sequence that some file holds; 0 where computing them is as quick."""
        best = max((common_prefix(entry.tokens, tokens) for entry in self._entries), default=0)
        return best if best >= SHORTEST_STORED else 0

    def wants(self, tokens: tuple[int, ...]) -> bool:
        """Tell whether a prefix is worth a file of its own."""
        new = len(tokens) - self.match(tokens)
        return (
            self.problem is None
            and new >= max(SHORTEST_STORED // 2, len(tokens) // 4)
            and len(tokens) >= (SHORTEST_STORED)
        )

    def load(self, tokens: tuple[int, ...]) -> KVSegment | None:
        """Read what matches a sequence.

        Args:
            tokens: The sequence.

        Returns:
            Keys and values of its first tokens, views of the mapped file; None where nothing fits or the file is
            damaged, which is then forgotten.
        """
        if not self._entries:
            return None
        best = max(self._entries, key=lambda entry: common_prefix(entry.tokens, tokens))
        segment = self._read(best)
        if segment is None:
            self._entries.remove(best)
            return None
        with contextlib.suppress(OSError):
            os.utime(best.path)
        return segment.part(0, common_prefix(best.tokens, tokens))

    def save(self, tokens: tuple[int, ...], segment: KVSegment) -> None:
        """Write a prefix; prefixes that it begins with are removed, and the oldest files where the bound is passed.

        Args:
            tokens: The prefix.
            segment: Its keys and values.
        """
        segment = KVSegment(segment.keys.cpu().contiguous(), segment.values.cpu().contiguous())
        token_ids = torch.tensor(tokens, dtype=torch.int32)
        metadata = {"format": FORMAT, "model": self._fingerprint, "sha256": _digest(token_ids, segment)}
        data = save({"token_ids": token_ids, "keys": segment.keys, "values": segment.values}, metadata)
        if len(data) > self.max_bytes:
            return
        path = self._own / f"{hashlib.sha256(token_ids.numpy().tobytes()).hexdigest()[:32]}.safetensors"
        try:
            with atomic_write(path) as file:
                file.write(data)
        except OSError as error:
            self.problem = f"The prefix file {path} cannot be written: {error.strerror or error}."
            return
        for entry in [entry for entry in self._entries if tokens[: len(entry.tokens)] == entry.tokens]:
            self._entries.remove(entry)
            if entry.path != path:
                with contextlib.suppress(OSError):
                    entry.path.unlink()
        self._entries.append(_Entry(path, tokens, checked=True))
        self._shrink()

    def _open(self, path: Path) -> SafetensorsFile | None:
        """Open a file if it is one of this model's."""
        try:
            file = open_safetensors(path)
        except ModelFileError:
            return None
        if file.metadata.get("format") != FORMAT or file.metadata.get("model") != self._fingerprint:
            return None
        if set(file.names) != _NAMES:
            return None
        ids, keys, values = (file.info[name] for name in ("token_ids", "keys", "values"))
        n_tokens = ids.shape[0] if len(ids.shape) == 1 and ids.dtype == torch.int32 else 0
        agree = keys.shape == values.shape and keys.dtype == values.dtype
        fits = agree and len(keys.shape) == 4 and n_tokens > 0 and keys.shape[2] == n_tokens
        return file if fits else None

    def _read(self, entry: _Entry) -> KVSegment | None:
        file = self._open(entry.path)
        if file is None:
            return None
        token_ids = file.tensor("token_ids")
        segment = KVSegment(file.tensor("keys"), file.tensor("values"))
        if tuple(token_ids.tolist()) != entry.tokens:
            return None
        if not entry.checked:
            if _digest(token_ids, segment) != file.metadata.get("sha256"):
                return None
            entry.checked = True
        return segment

    def _shrink(self) -> None:
        """Remove the least recently used files of all models until the bound holds."""
        files = []
        for path in self.folder.glob("*/*.safetensors"):
            # Nothing that another program put there is ever removed.
            if _OURS.fullmatch(path.relative_to(self.folder).as_posix()):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
            self._entries = [entry for entry in self._entries if entry.path != path]
