"""`LanguageModel`: a model, its tokenizer and its engine, loaded by name or path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nlpkit.core.decode.engine import DEFAULT_BATCH_TOKENS, Engine
from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
from nlpkit.core.decode.prefix_cache.store import PrefixStore
from nlpkit.core.decode.request import Generation, Request, Score, TokenEvent
from nlpkit.core.decode.shared.engine import SharedEngine
from nlpkit.core.errors import ConfigError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from nlpkit.core.chat.template import ChatTemplate
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.decode.shared.thread import DecodeThread


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a loaded model besides how to run it.

    Attributes:
        name: What the caller asked for, such as ``default``.
        path: Where it was loaded from.
        format: ``gguf``, ``hf``, ``native`` or ``transformers``.
        family: Its family, such as ``llama``.
        n_parameters: How many it has.
        dtype: ``fp32``, ``bf16``, ``int8`` or ``int4``.
        device: Where it runs.
        kernels: Whether the compiled kernels run it.
        scaling: How its rotary embedding depends on the length of the whole text, or None where it does not.
        files: The files that it was loaded from, by name.
        adapter: Name or path of the LoRA adapter in use, or None.
        adapter_files: The adapter's files by name.
        adapter_weights: The one of them that holds its weights.
        notes: What a user should know about how this model runs.
        learned_tasks: Names of the tasks whose short prompts it was tuned with.
        learned_options: Values of the tasks' options that the rows had which it learned from, a mapping each, such as
            ``{"source_lang": "en", "target_lang": "de"}``; empty where nothing is said.
    """

    name: str
    path: Path
    format: str
    family: str
    n_parameters: int
    dtype: str
    device: str
    kernels: bool = False
    scaling: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    adapter: str | None = None
    adapter_files: Mapping[str, Path] = field(default_factory=dict)
    adapter_weights: Path | None = None
    notes: tuple[str, ...] = ()
    learned_tasks: frozenset[str] = frozenset()
    learned_options: tuple[Mapping[str, str], ...] = field(default=(), hash=False)


class LanguageModel:
    """A loaded model, ready to decode.

    Args:
        facts: What is known of it; its names, such as ``lm.dtype``, are also attributes of the model.
        new_runner: Makes what runs it; the engine asks once.
        tokenizer: Text to ids and back.
        chat: The chat template, or None for a base model.
        embeddings: Its embedding tables by name, which a model loaded with `share_with` may share.
        batch_tokens: Bound on the positions of the cache in use at once, slots times length; None takes the engine's.

    Attributes:
        facts: What is known of it.
        tokenizer: Text to ids and back.
        chat: The chat template, or None for a base model.
        embeddings: Its embedding tables by name.
        engine: Decodes.
        max_seq_len: Context, in tokens.
    """

    def __init__(
        self,
        facts: ModelFacts,
        new_runner: Callable[[], Runner],
        tokenizer: Tokenizer,
        chat: ChatTemplate | None,
        *,
        embeddings: Mapping[str, torch.Tensor] | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.facts = facts
        self.name, self.path, self.dtype, self.device = facts.name, facts.path, facts.dtype, facts.device
        self.adapter, self.notes = facts.adapter, facts.notes
        self.learned_tasks, self.learned_options = facts.learned_tasks, facts.learned_options
        self.tokenizer = tokenizer
        self.chat = chat
        self.embeddings = dict(embeddings or {})
        self.engine = Engine(new_runner, tokenizer, batch_tokens=batch_tokens or DEFAULT_BATCH_TOKENS)
        self.max_seq_len = self.engine.max_seq_len
        self._decoder: Engine | SharedEngine = self.engine

    def share(self, thread: DecodeThread, *, batch_tokens: int | None = None) -> SharedEngine:
        """Let any number of threads use this model at once: all that it computes is computed on one thread.

        Args:
            thread: That thread.
            batch_tokens: Bound on the positions of the cache in use at once, slots times length; None is the engine's.

        Returns:
            Its engine, through which `generate`, `stream` and `score` go from now on.
        """
        self._decoder = shared = SharedEngine(self.engine, thread, batch_tokens=batch_tokens)
        return shared

    @cached_property
    def adapter_sha256(self) -> str | None:
        """Hex sha256 of the adapter's weights, or None."""
        weights = self.facts.adapter_weights
        return None if weights is None else sha256_file(weights)

    def __repr__(self) -> str:
        size = f"{self.facts.n_parameters / 1e6:.0f}M parameters"
        return f"LanguageModel({self.name!r}, {self.facts.family}, {size}, {self.dtype} on {self.device})"

    def encode(self, text: str) -> list[int]:
        """Tokenize a raw prompt, with the beginning-of-sequence token where the tokenizer uses one.

        Args:
            text: The prompt; spellings of special tokens in it stay text.

        Returns:
            Token ids; empty only for an empty text and a tokenizer without BOS.
        """
        return self.tokenizer.encode(text, add_bos=self.tokenizer.adds_bos)

    def has_token(self, text: str) -> bool:
        """Tell whether a text is one entry of the vocabulary."""
        return self.tokenizer.token_to_id(text) is not None

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, without special ones."""
        return len(self.tokenizer.encode(text))

    def generate(
        self, requests: Sequence[Request], *, batch_tokens: int | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Decode requests as `Engine.generate` does."""
        return self._decoder.generate(requests, batch_tokens=batch_tokens)

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Decode one request step by step as `Engine.stream` does."""
        return self._decoder.stream(request)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Compute log-likelihoods as `Engine.score` does."""
        return self._decoder.score(pairs)

    def keep_prefixes(self, folder: str | Path, *, max_bytes: int = 2**30) -> None:
        """Keep what is computed for the beginnings of prompts on disk, and use what is kept there.

        A beginning longer than what the engine keeps in memory is cut to that; see `Engine`.

        Args:
            folder: A folder, which several models may share.
            max_bytes: Most bytes of all files in it; the least recently used are removed first.

        Raises:
            ConfigError: `max_bytes` is negative, this model was not loaded from files, or what it computes for a
                beginning depends on the length of the whole text.
            OutputError: The folder cannot be made.
        """
        if self.facts.scaling is not None:
            raise ConfigError(
                "Prefixes of this model cannot be kept on disk: its rotary embedding depends on the length of the "
                f"whole text ({self.facts.scaling} scaling). Leave the option out."
            )
        known = self.describe()
        if not known["sha256"]:
            raise ConfigError("Prefixes can be kept only for a model that was loaded from files.")
        # Everything that decides which numbers come out.
        names = ("sha256", "adapter_sha256", "dtype", "device", "kernels")
        said = {name: known[name] for name in names} | {"torch": str(torch.__version__)}
        store = PrefixStore(folder, fingerprint=json.dumps(said, sort_keys=True), max_bytes=max_bytes)
        if self.engine.prefixes is None:
            self.engine.prefixes = PrefixCache(self.engine.batch_tokens // 4)
        self.engine.prefixes.store = store

    def describe(self) -> dict[str, Any]:
        """Return what a run record needs to name this model, hashes of its files included."""
        facts = self.facts
        return {
            "name": facts.name,
            "path": str(facts.path),
            "format": facts.format,
            "family": facts.family,
            "parameters": facts.n_parameters,
            "context": self.max_seq_len,
            "dtype": facts.dtype,
            "device": facts.device,
            "kernels": facts.kernels,
            "threads": torch.get_num_threads(),
            "sha256": {name: sha256_file(path) for name, path in facts.files.items()},
            "adapter": facts.adapter,
            "adapter_sha256": {name: sha256_file(path) for name, path in facts.adapter_files.items()},
            "tokenizer": self.tokenizer.fingerprint,
            "chat_template": self.chat.fingerprint if self.chat is not None else None,
            "learned_tasks": sorted(facts.learned_tasks),
            "notes": list(facts.notes),
        }
