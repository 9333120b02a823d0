"""Other libraries as engines of `nlpkit.apps.bench.measure`: each is measured where it is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.bench.plan import BenchPlan, Decode

PACKAGES = {"transformers": "transformers", "llama.cpp": "llama_cpp", "ctranslate2": "ctranslate2"}
"""Engines, and the package that each needs."""


def is_installed(engine: str) -> bool:
    """Tell whether the package of an engine is there."""
    return importlib.util.find_spec(PACKAGES[engine]) is not None


def load_transformers(plan: BenchPlan) -> tuple[str, Decode]:
    """Load a GGUF file or a Hugging Face folder with transformers, in bf16 or fp32."""
    import torch
    import transformers
    from transformers.utils import logging

    quiet: Any = logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    torch.set_num_threads(plan.threads)
    name = "bf16" if plan.dtype == "auto" else plan.dtype
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    if name not in dtypes:
        raise ConfigError(f"transformers is measured in bf16 or fp32, not in {name}.")
    path = Path(plan.model)
    options: dict[str, Any] = {"dtype": dtypes[name], "local_files_only": True}
    if path.is_dir():
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)
    model.eval()

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        ids = torch.tensor([list(prompt) for prompt in prompts])
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )

    return name, decode


def load_llama_cpp(plan: BenchPlan) -> tuple[str, Decode]:
    """Load a GGUF file as it is with llama.cpp's Python binding, which decodes one prompt at a time."""
    import llama_cpp

    path = Path(plan.model)
    if path.suffix != ".gguf":
        raise ConfigError(f"llama.cpp runs GGUF files; {plan.model} is none.")
    model: Any = llama_cpp.Llama(
        str(path), n_ctx=2048, n_batch=512, n_threads=plan.threads, n_threads_batch=plan.threads, verbose=False
    )

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        if len(prompts) != 1:
            raise ConfigError("llama.cpp's Python binding decodes one prompt at a time: measure it at batch 1.")
        # Without this the binding keeps the prompt of the last call.
        model.reset()
        tokens = model.generate(list(prompts[0]), temp=0.0, repeat_penalty=1.0, reset=True)
        for _, _token in zip(range(new_tokens), tokens, strict=False):
            pass

    return "as stored", decode


def load_ctranslate2(plan: BenchPlan) -> tuple[str, Decode]:
    """Load a folder that CTranslate2's converter has made, in int8."""
    import ctranslate2

    model: Any = ctranslate2.Generator(
        plan.model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=plan.threads
    )
    words = json.loads((Path(plan.model) / "vocabulary.json").read_text("utf-8"))

    def decode(prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        model.generate_batch(
            [[words[token] for token in prompt] for prompt in prompts],
            max_length=new_tokens,
            min_length=new_tokens,
            sampling_topk=1,
            beam_size=1,
            include_prompt_in_result=False,
        )

    return "int8", decode
