"""A name becomes a model that is ready to use. Light to import: what it needs is imported when a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from nlpkit.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from nlpkit.core.decode.runner import Runner
    from nlpkit.core.formats.peft.adapter import Adapter
    from nlpkit.core.formats.source import ModelSource
    from nlpkit.core.language_model import LanguageModel
    from nlpkit.core.model.config import ModelConfig
    from nlpkit.core.model.gpt import GPT
    from nlpkit.core.model.lora import LoraWeights

DType = Literal["auto", "fp32", "bf16", "int8", "int4"]
_EMBEDDINGS = ("embed.weight", "pos_embed.weight")

_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.13, "int4": 0.63}
"""Bytes of a weight, scales included."""


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
    from nlpkit.core.machine.devices import has_fast_bf16
    from nlpkit.core.quantization.linear import smoke_test

    if dtype not in get_args(DType):
        raise ConfigError(f"There is no dtype {dtype!r}. {did_you_mean(dtype, get_args(DType))}")
    if dtype == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if dtype in ("int8", "int4"):
        kind: Literal["int8", "int4"] = "int8" if dtype == "int8" else "int4"
        if device.type != "cpu" or not smoke_test(kind):
            raise ConfigError(f"{dtype} weights need the CPU and a build of torch with its {dtype} kernels. Use bf16.")
    return dtype


def check_options(*, dtype: str, device: str) -> None:
    """Refuse what `load_model` would refuse, before anything is downloaded or loaded.

    Raises:
        ConfigError: There is no such dtype or device here.
    """
    from nlpkit.core.machine.devices import pick_device

    pick_dtype(dtype, pick_device(device))


def runs_kernels(config: ModelConfig, device: torch.device) -> bool:
    """Tell whether the compiled kernels can run a model here; where there are none yet, they are compiled first."""
    from nlpkit.core.quantization.kernel_build import load_library
    from nlpkit.core.quantization.kernel_linear import fits_kernels

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
    batch_tokens: int | None = None,
    share_with: LanguageModel | None = None,
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
        batch_tokens: Bound on the positions of the cache in use at once, slots times length; None takes the engine's.
        share_with: A loaded model. If it came from the same file, in the same dtype, to the same device, its tokenizer,
            chat template and embeddings are shared: no adapter changes them.
        progress: Called with bytes done and bytes in total while a model is downloaded.

    Returns:
        The model.

    Raises:
        NlpkitError: Anything about the options, the download or the files that is not as it should be.
    """
    from nlpkit.core.machine.processor import set_threads

    set_threads(threads)
    path, source, chosen, target = _open(name, dtype=dtype, device=device, progress=progress)
    if source is None:
        return _load_foreign(called or name, path, adapter, chosen, target, batch_tokens)
    if share_with is not None and (share_with.path, share_with.dtype, share_with.device) != (path, chosen, target.type):
        share_with = None
    named = None if adapter is None else (Path(adapter), adapter_name or str(adapter))
    return _load_own(called or name, source, named, chosen, target, batch_tokens, share_with)


def weight_bytes(n_parameters: int, dtype: str) -> int:
    """Return about how many bytes so many weights take in memory."""
    return int(n_parameters * _BYTES.get(dtype, 4.0))


def weigh_model(name: str = "default", *, dtype: str = "auto", device: str = "auto") -> int:
    """Say about how many bytes a model's weights will take in memory, without loading them.

    Args:
        name: As `load_model` takes it; it is downloaded where it is missing.
        dtype: The same.
        device: The same.

    Raises:
        NlpkitError: As `load_model`.
    """
    path, source, chosen, _ = _open(name, dtype=dtype, device=device)
    if source is None:
        return sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in path.glob(kind))
    return weight_bytes(source.config.n_parameters, chosen)


def _open(
    name: str, *, dtype: str, device: str, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, ModelSource | None, str, torch.device]:
    """Return where a model lies, its files, or None where they are for transformers, its dtype, and its device."""
    from nlpkit.core.fetch.resolve import resolve_model
    from nlpkit.core.formats.open import open_model
    from nlpkit.core.machine.devices import pick_device

    target = pick_device(device)
    chosen = pick_dtype(dtype, target)
    path = resolve_model(name, progress=progress)
    if path.is_dir() and (path / "config.json").exists() and not (path / "nlpkit.json").exists():
        from nlpkit.core.formats.hf import is_known_family

        if not is_known_family(path):
            return path, None, chosen, target
    source = open_model(path)
    if dtype == "auto" and runs_kernels(source.config, target):
        chosen = "int8"
    return path, source, chosen, target


def _load_foreign(
    name: str, path: Path, adapter: str | Path | None, dtype: str, device: torch.device, batch_tokens: int | None
) -> LanguageModel:
    from nlpkit.core.language_model import LanguageModel, ModelFacts
    from nlpkit.core.runners.external import load_external

    if adapter is not None:
        raise ConfigError(
            f"The model {name!r} runs through transformers; adapters can only be used with families that nlpkit's own "
            "core runs. Merge the adapter into the model first."
        )
    loaded = load_external(path, dtype=dtype, device=device)
    facts = ModelFacts(
        name=name,
        path=path,
        format="transformers",
        family=loaded.family,
        n_parameters=loaded.n_parameters,
        dtype=dtype,
        device=device.type,
        files=loaded.files,
        notes=tuple(loaded.notes),
    )
    return LanguageModel(facts, loaded.new_runner, loaded.tokenizer, loaded.chat, batch_tokens=batch_tokens)


def _load_own(
    name: str,
    source: ModelSource,
    adapter: tuple[Path, str] | None,
    dtype: str,
    device: torch.device,
    batch_tokens: int | None,
    share_with: LanguageModel | None,
) -> LanguageModel:
    import torch

    from nlpkit.core.formats.build import build_model, check_vocabulary
    from nlpkit.core.formats.learned_tasks import read_learned_tasks
    from nlpkit.core.formats.peft.adapter import check_base, merge_updates, open_adapter
    from nlpkit.core.formats.peft.settings import WEIGHTS_NAME
    from nlpkit.core.language_model import LanguageModel, ModelFacts
    from nlpkit.core.machine.allocator import giving_memory_back
    from nlpkit.core.model.gpt import Block
    from nlpkit.core.quantization.apply import add_low_rank, quantize_block, quantize_model
    from nlpkit.core.quantization.fuse import fuse_block
    from nlpkit.core.quantization.kernel_build import load_library
    from nlpkit.core.quantization.kernel_pass import Kernels
    from nlpkit.core.quantization.packed import can_pack, pack_block, pack_model
    from nlpkit.core.quantization.ready import ReadyWeights, is_kept
    from nlpkit.core.runners.gpt import GPTRunner
    from nlpkit.core.runners.kernels import KernelRunner

    tokenizer = source.tokenizer() if share_with is None else share_with.tokenizer
    check_vocabulary(tokenizer, source.config.vocab_size, where=str(source.path))
    opened: Adapter | None = None
    files: dict[str, Path] = {}
    tuned = source.learned_tasks()
    learned_tasks, learned_options = tuned.names, tuned.learned
    if adapter is not None:
        opened = open_adapter(adapter[0])
        check_base(opened, source.files())
        files = dict(opened.files)
        added = read_learned_tasks(opened.path)
        learned_tasks |= added.names
        learned_options = added.learned or learned_options
    config = source.config if opened is None else opened.fitting(source.config)
    final = torch.float32 if dtype == "fp32" else torch.bfloat16
    known = {} if share_with is None else share_with.embeddings
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
    kernels = None if library is None else Kernels(model)
    chat = source.chat_template() if share_with is None else share_with.chat
    problem = None if chat is None else chat.problem
    notes = list(getattr(tokenizer, "notes", ()))
    if problem is not None:
        notes.append(f"This model can continue texts but not chat. {problem}")
    embeddings = embeddings or {key: value.data for key, value in model.named_parameters() if key in _EMBEDDINGS}
    facts = ModelFacts(
        name=name,
        path=source.path,
        format=source.format,
        family=source.config.family,
        n_parameters=source.config.n_parameters,
        dtype=dtype,
        device=device.type,
        kernels=kernels is not None,
        scaling=config.rope.scaling if config.depends_on_length else None,
        files=source.files(),
        adapter=None if adapter is None else adapter[1],
        adapter_files=files,
        adapter_weights=files.get(WEIGHTS_NAME),
        notes=tuple(notes),
        learned_tasks=frozenset(learned_tasks),
        learned_options=tuple(learned_options),
    )

    def new_runner() -> Runner:
        return GPTRunner(model) if kernels is None else KernelRunner(model, kernels)

    return LanguageModel(facts, new_runner, tokenizer, chat, embeddings=embeddings, batch_tokens=batch_tokens)
