"""`LanguageModel`: a model, its tokenizer and its engine, loaded by name or path."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from nlpkit.core.allocator import giving_memory_back
from nlpkit.core.decode.engine import DEFAULT_BATCH_TOKENS, Engine
from nlpkit.core.decode.request import Generation, Request, Score, TokenEvent
from nlpkit.core.decode.runner import GPTRunner
from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.core.loaders.adapter import Adapter, check_base, merge_updates, open_adapter
from nlpkit.core.loaders.brief import read_brief_tasks
from nlpkit.core.loaders.build import build_model, check_vocabulary
from nlpkit.core.loaders.kernels import load_library
from nlpkit.core.loaders.open import open_model
from nlpkit.core.loaders.ready import ReadyWeights, is_kept
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.fuse import fuse_block
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.model.kernels import fits_kernels
from nlpkit.core.model.lora import LoraWeights
from nlpkit.core.model.packed import can_pack, pack_block, pack_model
from nlpkit.core.model.quantize import add_low_rank, quantize_block, quantize_model, smoke_test
from nlpkit.core.threads import cpu_flags, set_threads
from nlpkit.core.tokenizers.base import Message, Tokenizer

if TYPE_CHECKING:
    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.loaders.base import ModelSource
    from nlpkit.core.tokenizers.chat import ChatTemplate

DType = Literal["auto", "fp32", "bf16", "int8", "int4"]
Device = Literal["auto", "cpu", "cuda", "mps"]

_EMBEDDINGS = ("embed.weight", "pos_embed.weight")


class LanguageModel:
    """A loaded model, ready to decode.

    Attributes:
        name: What the caller asked for, such as ``default``.
        path: Where it was loaded from.
        format: ``gguf``, ``hf``, ``native`` or ``transformers``.
        adapter: Name or path of the LoRA adapter in use, or None.
        dtype: ``fp32``, ``bf16``, ``int8`` or ``int4``.
        device: Where it runs.
        tokenizer: Text to ids and back.
        chat: The chat template, or None for a base model.
        engine: Decodes.
        max_seq_len: Context, in tokens.
        notes: What a user should know about how this model runs.
        brief_tasks: Names of the tasks whose brief prompts it was tuned with.
        languages: Pairs of source and target language that it learned to translate; empty where nothing is said.
        embeddings: Its embedding tables by name, which a model loaded with `like` may share.
    """

    def __init__(
        self,
        *,
        name: str,
        path: Path,
        format: str,  # noqa: A002
        dtype: str,
        device: str,
        new_runner: Callable[[], Runner],
        tokenizer: Tokenizer,
        chat: ChatTemplate | None,
        files: Mapping[str, Path],
        family: str,
        n_parameters: int,
        adapter: str | None = None,
        adapter_files: Mapping[str, Path] | None = None,
        notes: Sequence[str] = (),
        brief_tasks: Iterable[str] = (),
        languages: Iterable[tuple[str, str]] = (),
        embeddings: Mapping[str, torch.Tensor] | None = None,
        gpt: GPT | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        self.name = name
        self.path = path
        self.format = format
        self.adapter = adapter
        self.dtype = dtype
        self.device = device
        self.tokenizer = tokenizer
        self.chat = chat
        self.family = family
        self.n_parameters = n_parameters
        self.notes = tuple(notes)
        self.brief_tasks = frozenset(brief_tasks)
        self.languages = tuple(languages)
        self.embeddings = dict(embeddings or {})
        self.engine = Engine(new_runner, tokenizer, batch_tokens=batch_tokens)
        self.max_seq_len = self.engine.max_seq_len
        self._gpt = gpt
        self._files = dict(files)
        self._adapter_files = dict(adapter_files or {})

    @cached_property
    def adapter_sha256(self) -> str | None:
        """Hex sha256 of the adapter's weights, or None."""
        from nlpkit.core.loaders.adapter import WEIGHTS_NAME
        from nlpkit.core.loaders.cache import sha256_file

        path = self._adapter_files.get(WEIGHTS_NAME)
        return None if path is None else sha256_file(path)

    def __repr__(self) -> str:
        size = f"{self.n_parameters / 1e6:.0f}M parameters"
        return f"LanguageModel({self.name!r}, {self.family}, {size}, {self.dtype} on {self.device})"

    def encode(self, text: str) -> list[int]:
        """Tokenize a raw prompt, with the beginning-of-sequence token where the tokenizer uses one.

        Args:
            text: The prompt; spellings of special tokens in it stay text.

        Returns:
            Token ids; empty only for an empty text and a tokenizer without BOS.
        """
        return self.tokenizer.encode(text, add_bos=self.tokenizer.adds_bos)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Turn chat messages into the ids of a prompt that the assistant's answer continues.

        Models without a chat template get the messages' contents, a blank line apart.

        Args:
            messages: The conversation so far.

        Returns:
            Token ids.

        Raises:
            InputError: There are no messages.
        """
        if not messages:
            raise InputError("There are no messages to answer.")
        if self.chat is not None:
            return self.chat.render_tokens(messages, self.tokenizer, add_generation_prompt=True)
        return self.encode("\n\n".join(message.content for message in messages))

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
        return self.engine.generate(requests, batch_tokens=batch_tokens)

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Decode one request step by step as `Engine.stream` does."""
        return self.engine.stream(request)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Compute log-likelihoods as `Engine.score` does."""
        return self.engine.score(pairs)

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
        from nlpkit.core.decode.prefix_store import PrefixStore
        from nlpkit.core.decode.prefixes import PrefixCache

        if self._gpt is not None and self._gpt.config.depends_on_length:
            raise ConfigError(
                "Prefixes of this model cannot be kept on disk: its rotary embedding depends on the length of the "
                f"whole text ({self._gpt.config.rope.scaling} scaling). Leave the option out."
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
        from nlpkit.core.loaders.cache import sha256_file

        return {
            "name": self.name,
            "path": str(self.path),
            "format": self.format,
            "family": self.family,
            "parameters": self.n_parameters,
            "context": self.max_seq_len,
            "dtype": self.dtype,
            "device": self.device,
            "kernels": self._gpt is not None and self._gpt.kernels is not None,
            "threads": torch.get_num_threads(),
            "sha256": {name: sha256_file(path) for name, path in self._files.items()},
            "adapter": self.adapter,
            "adapter_sha256": {name: sha256_file(path) for name, path in self._adapter_files.items()},
            "tokenizer": self.tokenizer.fingerprint,
            "chat_template": self.chat.fingerprint if self.chat is not None else None,
            "brief_tasks": sorted(self.brief_tasks),
            "notes": list(self.notes),
        }


def pick_device(device: str) -> torch.device:
    """Choose where to run.

    Args:
        device: ``auto`` takes CUDA or MPS where there is one, else the CPU.

    Returns:
        The device.

    Raises:
        ConfigError: The name is unknown, or this machine has no such device.
    """
    if device not in get_args(Device):
        raise ConfigError(f"There is no device {device!r}. {did_you_mean(device, get_args(Device))}")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in present.items() if there)
    if not present[device]:
        raise ConfigError(
            f"This machine has no {device} device that torch {torch.__version__} can use. Use --device cpu."
        )
    return torch.device(device)


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether the device multiplies bf16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "mps":
        return False
    check = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(check is not None and check() and "avx512_bf16" in cpu_flags())


def pick_dtype(dtype: str, device: torch.device) -> str:
    """Choose the weights' dtype.

    Args:
        dtype: ``auto`` is bf16 where the device multiplies it natively, else fp32. (`load_model` prefers int8 where
            its compiled kernels can run the model.)
        device: Where it will run.

    Returns:
        ``fp32``, ``bf16``, ``int8`` or ``int4``.

    Raises:
        ConfigError: The name is unknown, or the device or this build of torch cannot run it.
    """
    if dtype not in get_args(DType):
        raise ConfigError(f"There is no dtype {dtype!r}. {did_you_mean(dtype, get_args(DType))}")
    if dtype == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if dtype in ("int8", "int4"):
        kind: Literal["int8", "int4"] = "int8" if dtype == "int8" else "int4"
        if device.type != "cpu" or not smoke_test(kind):
            raise ConfigError(f"{dtype} weights need the CPU and a build of torch with its {dtype} kernels. Use bf16.")
    return dtype


def runs_kernels(config: ModelConfig, device: torch.device) -> bool:
    """Tell whether the compiled kernels can run a model here; where there are none yet, they are compiled first."""
    return device.type == "cpu" and fits_kernels(config) and load_library() is not None


def load_model(
    name: str = "default",
    *,
    adapter: str | Path | None = None,
    adapter_name: str | None = None,
    called: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    like: LanguageModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LanguageModel:
    """Load a model by catalogue name, path or hub id.

    Args:
        name: ``default``, another catalogue name, a GGUF file, a model directory, or a Hugging Face id.
        adapter: Directory of a LoRA adapter in PEFT layout, to merge into the weights or (int4) to keep beside them.
        adapter_name: What to call it; by default its path.
        called: What to call the model; by default `name`.
        dtype: ``auto``, ``fp32``, ``bf16``, ``int8`` or ``int4``. ``auto`` is int8 where the compiled kernels run the
            model, else bf16 where the device multiplies it natively, else fp32.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads; None takes what the process may use.
        batch_tokens: Default bound on cache slots in use at once, rows times length.
        like: A loaded model. If it came from the same file, in the same dtype, to the same device, its tokenizer,
            chat template and embeddings are shared: no adapter changes them.
        progress: Called with bytes done and bytes in total while a model is downloaded.

    Returns:
        The model.

    Raises:
        NlpkitError: Anything about the options, the download or the files that is not as it should be.
    """
    from nlpkit.core.loaders.catalogue import resolve_model

    target = pick_device(device)
    chosen = pick_dtype(dtype, target)
    set_threads(threads)
    path = resolve_model(name, progress=progress)
    if path.is_dir() and (path / "config.json").exists() and not (path / "nlpkit.json").exists():
        from nlpkit.core.loaders.hf import is_known_family

        if not is_known_family(path):
            return _load_foreign(called or name, path, adapter, chosen, target, batch_tokens)
    source = open_model(path)
    if dtype == "auto" and runs_kernels(source.config, target):
        chosen = "int8"
    if like is not None and (like.path, like.dtype, like.device) != (path, chosen, target.type):
        like = None
    named = None if adapter is None else (Path(adapter), adapter_name or str(adapter))
    return _load_own(called or name, source, named, chosen, target, batch_tokens, like)


def _load_foreign(
    name: str, path: Path, adapter: str | Path | None, dtype: str, device: torch.device, batch_tokens: int
) -> LanguageModel:
    from nlpkit.core.loaders.external import load_external

    if adapter is not None:
        raise ConfigError(
            f"The model {name!r} runs through transformers; adapters can only be used with families that nlpkit's own "
            "core runs. Merge the adapter into the model first."
        )
    loaded = load_external(path, dtype=dtype, device=device)
    return LanguageModel(
        name=name,
        path=path,
        format="transformers",
        dtype=dtype,
        device=device.type,
        new_runner=loaded.new_runner,
        tokenizer=loaded.tokenizer,
        chat=loaded.chat,
        files=loaded.files,
        family=loaded.family,
        n_parameters=loaded.n_parameters,
        notes=loaded.notes,
        batch_tokens=batch_tokens,
    )


def _load_own(
    name: str,
    source: ModelSource,
    adapter: tuple[Path, str] | None,
    dtype: str,
    device: torch.device,
    batch_tokens: int,
    like: LanguageModel | None,
) -> LanguageModel:
    tokenizer = source.tokenizer() if like is None else like.tokenizer
    check_vocabulary(tokenizer, source.config.vocab_size, where=str(source.path))
    opened: Adapter | None = None
    files: dict[str, Path] = {}
    tuned = source.brief_tasks()
    brief_tasks, languages = tuned.names, tuned.languages
    if adapter is not None:
        opened = open_adapter(adapter[0])
        check_base(opened, source.files())
        files = dict(opened.files)
        added = read_brief_tasks(opened.path)
        brief_tasks |= added.names
        languages = added.languages or languages
    config = source.config if opened is None else opened.fitting(source.config)
    final = torch.float32 if dtype == "fp32" else torch.bfloat16
    known = {} if like is None else like.embeddings
    kind: Literal["int8", "int4"] | None = "int8" if dtype == "int8" else "int4" if dtype == "int4" else None
    library = load_library() if kind is not None and runs_kernels(config, device) else None
    packs = kind is None and final == torch.bfloat16 and device.type == "cpu" and can_pack()

    def finish(block: nn.Module) -> None:
        if isinstance(block, Block):
            fuse_block(block)
            if kind is not None:
                quantize_block(block, kind, library)
            elif packs:
                pack_block(block)

    def built() -> GPT:
        updates = {} if opened is None else opened.internal(config)
        apart: dict[str, LoraWeights] = {}
        # Four bits are too few for the sum; for exact magnitudes (DoRA) it is needed all the same.
        if kind == "int4" and library is not None and all(one.magnitude is None for one in updates.values()):
            apart = {name: update for name, update in updates.items() if name.startswith("blocks.")}
            updates = {name: update for name, update in updates.items() if name not in apart}
        # Updates are added in fp32: the sum loses nothing before the one rounding to the final dtype.
        tensors = source.tensors(dtype=torch.float32 if dtype == "fp32" or updates else torch.bfloat16)
        if opened is not None:
            tensors = opened.checked(source.config, tensors)
        if updates:
            tensors = merge_updates(tensors, updates)
        with giving_memory_back():
            model = build_model(
                config,
                ((key, known[key] if key in known else tensor.to(device, final)) for key, tensor in tensors),
                where=str(source.path),
                finish=finish,
            )
            embeddings.update({key: value.data for key, value in model.named_parameters() if key in _EMBEDDINGS})
            if kind is not None:
                add_low_rank(model, apart)
                quantize_model(model, kind, library)
            elif packs:
                pack_model(model)
        return model

    embeddings: dict[str, Tensor] = {}
    found: GPT | None = None
    if library is not None and is_kept(config, dtype):
        blocks_only = opened is None or opened.leaves_embeddings
        ready = ReadyWeights(config, dtype, source.files(), files, blocks_only=blocks_only)
        found = ready.load(library)
        if found is None:
            found = built()
            ready.save(found)
    model = built() if found is None else found
    chat = source.chat_template() if like is None else like.chat
    problem = None if chat is None else chat.problem
    notes = list(getattr(tokenizer, "notes", ()))
    if problem is not None:
        notes.append(f"This model can continue texts but not chat. {problem}")
    embeddings = embeddings or {key: value.data for key, value in model.named_parameters() if key in _EMBEDDINGS}
    return LanguageModel(
        name=name,
        path=source.path,
        format=source.format,
        adapter=None if adapter is None else adapter[1],
        dtype=dtype,
        device=device.type,
        new_runner=lambda: GPTRunner(model),
        gpt=model,
        tokenizer=tokenizer,
        chat=chat,
        notes=notes,
        files=source.files(),
        adapter_files=files,
        family=source.config.family,
        n_parameters=source.config.n_parameters,
        brief_tasks=brief_tasks,
        languages=languages,
        embeddings=embeddings,
        batch_tokens=batch_tokens,
    )
