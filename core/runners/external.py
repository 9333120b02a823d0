"""Families that our own core does not know, run through `transformers` behind the same interface.

Slower by design: every row is its own batch with its own cache, which is right for any family, whatever its positions,
masks or states look like. No remote code is run and only safetensors weights are read.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlpkit.core.chat.template import ChatTemplate, load_chat_template
from nlpkit.core.errors import ConfigError, ModelFileError, NlpkitError, shortened, shown
from nlpkit.core.files.read import read_json_object
from nlpkit.core.files.safetensors import open_safetensors
from nlpkit.core.formats.build import check_vocabulary
from nlpkit.core.formats.hf import weight_files
from nlpkit.core.model.cache import KVSegment
from nlpkit.core.runners.external_files import check_size, checked_config, offline, view_of
from nlpkit.core.tokenizers.load import load_tokenizer
from nlpkit.core.tokenizers.tokenizer import Tokenizer

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx")
_DEFAULT_CONTEXT = 2048
_IS_CAUSAL = re.compile(r"CausalLM|LMHead|ForConditionalGeneration|Decoder")
_MOST_LISTED = 6


@dataclass(frozen=True)
class _CacheKind:
    """What the cache of a family is like.

    Attributes:
        is_plain: It holds the keys and values of every token, so that tokens can be taken back.
        layout: Layers, heads and width of keys and values alike, where all layers have the same; else None.
    """

    is_plain: bool
    layout: tuple[int, int, int] | None


def _cache_kind(cache: Any) -> _CacheKind:
    """Describe a cache that holds at least one token."""
    from transformers import cache_utils

    layers: list[Any] = list(cache.layers) if type(cache) is cache_utils.DynamicCache else []
    # The exact types: layers with windows or states are made by subclasses, and cannot take tokens back.
    if not layers or any(type(layer) is not cache_utils.DynamicLayer or layer.keys is None for layer in layers):
        return _CacheKind(False, None)
    shapes = {(tensor.shape[1], tensor.shape[3]) for layer in layers for tensor in (layer.keys, layer.values)}
    return _CacheKind(True, (len(layers), *shapes.pop()) if len(shapes) == 1 else None)


class ExternalRunner:
    """A `transformers` causal language model as `nlpkit.core.decode.runner.Runner`."""

    def __init__(self, model: Any, *, max_seq_len: int, vocab_size: int) -> None:
        """Wrap a model.

        Args:
            model: A ``PreTrainedModel`` in evaluation mode.
            max_seq_len: Its context, in tokens.
            vocab_size: Rows of its output head.
        """
        self.model = model
        self.max_seq_len = max_seq_len
        self.vocab_size = vocab_size
        self._caches: list[Any] = []
        self._kind: _CacheKind | None = None
        parameters = inspect.signature(model.forward).parameters
        self._last_only = "logits_to_keep" in parameters
        # Renamed in transformers 5.24.
        self._cache_option = "cache" if "cache" in parameters else "past_key_values"

    def reserve(self, n_rows: int, n_slots: int = 0) -> None:
        """Make room for `n_rows` rows; their caches grow by themselves."""
        self._caches.extend([None] * (n_rows - len(self._caches)))

    @property
    def _cache_kind(self) -> _CacheKind:
        """What the caches are like; found out by running one token, since they are the family's own."""
        if self._kind is None:
            with torch.inference_mode():
                ids = torch.zeros(1, 1, dtype=torch.long, device=self.model.device)
                self._kind = _cache_kind(self.model(input_ids=ids, use_cache=True).past_key_values)
        return self._kind

    @property
    def can_rewind(self) -> bool:
        """Whether a row may be shortened; see `Runner.can_rewind`."""
        return self._cache_kind.is_plain

    @torch.inference_mode()
    def extend(
        self,
        start_row: int,
        tokens: Sequence[Sequence[int]],
        lengths: Sequence[int],
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """Append tokens to consecutive rows; see `Runner.extend`."""
        out = []
        for offset, (row, length) in enumerate(zip(tokens, lengths, strict=True)):
            cache = self._cut(self._caches[start_row + offset], length) if length else None
            count = 1 if wanted is None else wanted[offset]
            ids = torch.tensor([list(row)], device=self.model.device)
            # To keep 0 logits would mean all of them.
            options: dict[str, Any] = {"logits_to_keep": max(1, count)} if self._last_only else {}
            result = self.model(input_ids=ids, use_cache=True, **{self._cache_option: cache}, **options)
            self._caches[start_row + offset] = result.past_key_values
            logits = result.logits[0]
            out.append(logits[len(logits) - count :, : self.vocab_size].float())
        return torch.cat(out)

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Let a row take the first `length` tokens of another."""
        if source != target:
            self._caches[target] = self._cut(copy.deepcopy(self._caches[source]), length)

    def _cut(self, cache: Any, length: int) -> Any:
        """Shorten a cache in place to `length` tokens, if it holds more."""
        surplus = cache.get_seq_length() - length if self.can_rewind else 0
        if surplus > 0:
            cache.crop(-surplus)
        return cache

    @torch.inference_mode()
    def save_segment(self, row: int, start: int, stop: int) -> KVSegment | None:
        """Return a copy of what a row holds of its tokens; see `Runner.save_segment`."""
        if self._cache_kind.layout is None:
            return None
        layers = self._caches[row].layers
        return KVSegment(
            torch.stack([layer.keys[0, :, start:stop] for layer in layers]),
            torch.stack([layer.values[0, :, start:stop] for layer in layers]),
        )

    @torch.inference_mode()
    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        """Let a row hold a segment; see `Runner.load_segment`."""
        from transformers.cache_utils import DynamicCache

        dtype, layout = self.model.dtype, self._cache_kind.layout
        if any(
            tensor.dtype != dtype or (tensor.shape[0], tensor.shape[1], tensor.shape[3]) != layout
            for tensor in (segment.keys, segment.values)
        ):
            return False
        cache = self._cut(self._caches[row], start) if start else DynamicCache()
        for layer, (keys, values) in enumerate(zip(segment.keys, segment.values, strict=True)):
            cache.update(keys[None].to(self.model.device), values[None].to(self.model.device), layer)
        self._caches[row] = cache
        return True

    def reorder(self, start_row: int, sources: Sequence[int], length: int) -> None:
        """Let rows ``start_row ..`` take the tokens of rows `sources`, all at once."""
        taken: set[int] = set()
        chosen = []
        for source in sources:
            cache = self._caches[source]
            chosen.append(copy.deepcopy(cache) if source in taken else cache)
            taken.add(source)
        self._caches[start_row : start_row + len(chosen)] = chosen

    @torch.inference_mode()
    def logprobs(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Score tokens; see `Runner.logprobs`."""
        results = []
        for sequence, start in zip(tokens, starts, strict=True):
            ids = torch.tensor([list(sequence[:-1])], device=self.model.device)
            logits = self.model(input_ids=ids, use_cache=False).logits[0, start - 1 :, : self.vocab_size].float()
            targets = torch.tensor(list(sequence[start:]), device=logits.device)
            chosen = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)
            results.append((chosen.cpu(), (logits.argmax(-1) == targets).cpu()))
        return results


@dataclass(frozen=True, kw_only=True)
class ExternalModel:
    """A model that runs through `transformers`.

    Attributes:
        model: The ``PreTrainedModel``, in evaluation mode.
        family: Its ``model_type``.
        max_seq_len: Its context, in tokens.
        vocab_size: Rows of its output head.
        tokenizer: Its tokenizer.
        chat: Its chat template, or None.
        files: Weight files by name.
        notes: What a user should know about how it runs.
    """

    model: Any
    family: str
    max_seq_len: int
    vocab_size: int
    tokenizer: Tokenizer
    chat: ChatTemplate | None
    files: Mapping[str, Path]
    notes: tuple[str, ...]

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def new_runner(self) -> ExternalRunner:
        """Return a runner with an empty cache."""
        return ExternalRunner(self.model, max_seq_len=self.max_seq_len, vocab_size=self.vocab_size)


def _check_decoder(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what `transformers` would run as a language model although it is none, such as BERT or Marian."""
    names = config.get("architectures")
    known = [str(name) for name in names] if isinstance(names, list) else []
    causal = not known or any(_IS_CAUSAL.search(name) for name in known)
    if "BertLMHeadModel" in known:
        # BERT looks both ways unless its configuration says otherwise.
        causal = config.get("is_decoder") is True
    if config.get("is_encoder_decoder") is True or not causal:
        raise ModelFileError(
            f"{path} holds {', '.join(known) or 'an encoder-decoder'}, which is no GPT: nlpkit runs decoder-only "
            "language models. Get one whose architecture is named ...ForCausalLM."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def load_external(path: Path, *, dtype: str, device: torch.device) -> ExternalModel:
    """Load a model of another family through `transformers`.

    Args:
        path: A Hugging Face directory with safetensors weights.
        dtype: ``fp32`` or ``bf16``.
        device: Where to run.

    Returns:
        The model; its notes say that it runs through `transformers`.

    Raises:
        ConfigError: A quantized dtype was asked for.
        ModelFileError: `transformers` cannot load the directory without remote code.
    """
    config = read_json_object(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelFileError(
            f"{path / 'config.json'} has model_type = {shown(config.get('model_type'))}; it must be a text."
        )
    family = str(config["model_type"])
    if dtype not in ("fp32", "bf16"):
        raise ConfigError(f"The family {family!r} runs through transformers, in fp32 or bf16 only, not in {dtype}.")
    files, _ = weight_files(path)
    _check_decoder(path, config)
    config = checked_config(config, path)
    stored = [open_safetensors(file) for file in files.values()]
    import transformers
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    try:
        with offline(), view_of(path, config, files) as folder:
            check_size(folder, path, stored)
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32 if dtype == "fp32" else torch.bfloat16,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except NlpkitError:
        raise
    except Exception as error:  # whatever a foreign loader raises on a foreign file is that file's fault
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        # What it was shown is a folder of ours.
        first = shortened(re.sub(r"\S*/nlpkit-[a-z0-9_]{8}\b", lambda _: str(path), first), 600)
        raise ModelFileError(
            f"The family {family!r} of {path} is not one that nlpkit's own core runs, and transformers "
            f"{transformers.__version__} cannot load it either: {first}"
        ) from error
    model, found = loaded
    # What a file lacks, transformers fills with random numbers, and only warns.
    missing = sorted(map(str, found["missing_keys"]))
    if missing:
        listed = ", ".join(missing[:_MOST_LISTED])
        more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
        raise ModelFileError(
            f"The weights in {path} do not fit a language model of the family {family!r}. Missing: {listed}{more}. Get "
            "a complete model that was trained to continue text."
        )
    model = model.eval().to(device)
    head = model.get_output_embeddings()
    vocab_size = int(head.weight.shape[0]) if head is not None else int(config["vocab_size"])
    context = next((config[key] for key in _CONTEXT_KEYS if _is_count(config.get(key))), None)
    notes = [f"The family {family!r} runs through transformers {transformers.__version__}: right, but slower."]
    if context is None:
        context = _DEFAULT_CONTEXT
        notes.append(f"Its configuration names no context length; {context} tokens are assumed.")
    tokenizer, chat = load_tokenizer(path), load_chat_template(path)
    if chat is not None and chat.problem is not None:
        notes.append(f"This model can continue texts but not chat. {chat.problem}")
    check_vocabulary(tokenizer, vocab_size, where=str(path))
    return ExternalModel(
        model=model,
        family=family,
        max_seq_len=context,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        chat=chat,
        files=files,
        notes=tuple(notes),
    )
