"""Merging an adapter into its model for good, with a check that the merged model computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from nlpkit.apps.models.adapters import find_adapter
from nlpkit.core.errors import ConfigError, ModelFileError, did_you_mean
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.formats.build import build_model
from nlpkit.core.formats.export import save_hf, save_native
from nlpkit.core.formats.learned_tasks import read_learned_tasks, write_learned_tasks
from nlpkit.core.formats.open import open_model
from nlpkit.core.formats.peft.adapter import check_base, merge_adapter, open_adapter
from nlpkit.core.formats.source import ModelSource
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraConfig, add_lora

TARGETS = ("native", "hf")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = 1e-2
"""Largest difference of fp32 logits that rounding explains; a greater one is a mistake."""

_PROBE = (
    "The quick brown fox jumps over the lazy dog. Wie geht es Ihnen heute? 1, 2, 3: def f(x): return x + 1\n"
    "Question: Who wrote it? Answer:"
)


@dataclass(frozen=True)
class Merged:
    """What merging did.

    Attributes:
        path: The merged model.
        modules: Number of adapted layers.
        difference: Largest difference of logits between merged and unmerged weights, both in fp32.
        rounded: The same after rounding to the dtype that was written.
    """

    path: Path
    modules: int
    difference: float
    rounded: float


def is_quantized(source: ModelSource) -> bool:
    """Tell whether a model's file holds quantized weights."""
    file = getattr(source, "file", None)
    if source.format != "gguf" or file is None:
        return False
    return any(info.type.name not in ("F32", "F16", "BF16", "F64") for info in file.tensors.values())


def merge_model(
    name: str, adapter: str, output: str, *, to: str = "native", dtype: str = "bf16", dequantize: bool = False
) -> Merged:
    """Merge an adapter into a model and write the result.

    Args:
        name: The model that the adapter was trained on.
        adapter: The adapter's folder, or the name of a shipped one.
        output: Folder to write; must not exist, or be empty.
        to: ``native`` or ``hf``.
        dtype: ``fp32`` or ``bf16``, on disk.
        dequantize: Whether a quantized model may be turned into a larger one.

    Returns:
        What was done.

    Raises:
        ConfigError: An option is wrong, or the model is quantized and may not be dequantized.
        ModelFileError: The adapter does not fit, or the merged model computes something else.
    """
    for value, known, what in ((to, TARGETS, "format to merge to"), (dtype, tuple(DTYPES), "dtype on disk")):
        if value not in known:
            raise ConfigError(f"There is no {what} {value!r}. {did_you_mean(value, known)}")
    source = open_model(resolve_model(name))
    opened = open_adapter(find_adapter(adapter).path)
    check_base(opened, source.files())
    if is_quantized(source) and not dequantize:
        raise ConfigError(
            f"The model {name!r} has quantized weights, which cannot take an adapter in as they are: merging makes a "
            "larger, unquantized model of it. If that is what you want, add --dequantize. Otherwise use the adapter "
            "with --adapter, which needs no merging."
        )
    tokenizer = source.tokenizer()
    ids = torch.tensor([tokenizer.encode(_PROBE)[: source.config.max_seq_len]])
    config = opened.fitting(source.config)
    where = str(source.path)
    merged = build_model(config, merge_adapter(source.config, source.tensors(dtype=torch.float32), opened), where=where)
    whole = opened.checked(source.config, source.tensors(dtype=torch.float32))
    apart = build_model(config, whole, where=where)
    modules = add_lora(apart, LoraConfig(), start=opened.internal(source.config))
    expected = _logits(apart.eval(), ids)
    del apart
    difference = float((_logits(merged, ids) - expected).abs().max())
    if not difference < TOLERANCE:
        raise ModelFileError(
            f"The merged model computes something else than model and adapter: logits differ by up to {difference:.2g} "
            "on a test text. Nothing was written. The files may be damaged, or this is a bug in nlpkit."
        )
    chosen = DTYPES[dtype]
    tensors = {key: value.detach().to(chosen) for key, value in merged.state_dict().items()}
    for parameter_name, parameter in merged.named_parameters():
        parameter.data = tensors[parameter_name].float()
    rounded = float((_logits(merged, ids) - expected).abs().max())
    write = save_native if to == "native" else save_hf
    write(Path(output), config, tensors, tokenizer=tokenizer, chat=source.chat_template())
    before, added = source.learned_tasks(), read_learned_tasks(opened.path)
    both = (*before.learned, *added.learned)
    write_learned_tasks(
        Path(output),
        before.names | added.names,
        learned=[one for n, one in enumerate(both) if one not in both[:n]],
    )
    return Merged(Path(output), len(modules), difference, rounded)


@torch.inference_mode()
def _logits(model: GPT, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(ids)
    return logits
