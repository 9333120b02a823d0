"""Models on compiled kernels for tests, and the same models in fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_config, tiny_gpt
from torch import nn

from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization import kernel_build as kernels
from nlpkit.core.quantization.apply import quantize_model
from nlpkit.core.quantization.fuse import fuse_projections
from nlpkit.core.quantization.kernel_library import Library
from nlpkit.core.quantization.kernel_linear import KernelLinear
from nlpkit.core.quantization.kernel_pass import Kernels
from nlpkit.core.runners.gpt import GPTRunner
from nlpkit.core.runners.kernels import KernelRunner

LIBRARY = kernels.load_library()
needs_kernels = pytest.mark.skipif(LIBRARY is None, reason="this machine has no compiled kernels")
PROMPTS = [[5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3, 5], [3, 1, 4], [2]]


def library() -> Library:
    assert LIBRARY is not None
    return LIBRARY


def config(**options: object) -> ModelConfig:
    shape: dict[str, object] = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "d_ff": 96}
    return tiny_config(**{**shape, **options})


def unpacked(layer: KernelLinear) -> torch.Tensor:
    """Weights that a packed layer stands for, read as the layout is described."""
    groups, blocks = layer.in_features // 32, -(-layer.out_features // 16)
    content = layer.weight.numpy().reshape(blocks, groups, -1)
    size = 256 if layer.bits == 4 else 512
    levels = content[:, :, :size]
    scales = content[:, :, size : size + 32].copy().view(np.float16).astype(np.float32)
    if layer.bits == 4:
        halves = levels.reshape(blocks, groups, 4, 1, 16, 4)
        four = np.concatenate([halves & 15, halves >> 4], 3).reshape(blocks, groups, 8, 16, 4).astype(np.float32)
        least = content[:, :, size + 32 :].copy().view(np.float16).astype(np.float32)
    else:
        four = levels.reshape(blocks, groups, 8, 16, 4).astype(np.float32) - 128
        least = np.zeros_like(scales)
    values = four * scales[:, :, None, :, None] + least[:, :, None, :, None]
    # (block, group, four, output, input) to (block, output, group, four, input)
    rows = values.transpose(0, 3, 1, 2, 4).reshape(blocks * 16, -1)
    return torch.from_numpy(rows[: layer.out_features].copy())


def quantized(kind: str = "int4", *, scale: float = 0.15, **options: object) -> GPT:
    model = tiny_gpt(config(**options), scale=scale).to(torch.bfloat16)
    fuse_projections(model)
    quantize_model(model, kind, library())
    return model.eval()


def restored(model: GPT) -> GPT:
    """The same model in fp32, of plain layers with the weights that the packed ones stand for."""
    plain = GPT(model.config)
    fuse_projections(plain)
    for path, module in model.named_modules():
        if isinstance(module, KernelLinear):
            owner, name = plain.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
            linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
            linear.weight.data = unpacked(module)
            if module.bias is not None:
                linear.bias.data = module.bias
            setattr(owner, name, linear)
    for name, parameter in model.named_parameters():
        plain.get_parameter(name).data = parameter.data.float()
    return plain.eval().requires_grad_(False)


def runs_kernels(model: GPT) -> bool:
    return any(isinstance(module, KernelLinear) for module in model.modules())


def runner_of(model: GPT, *, chunk: int = 2048) -> GPTRunner:
    """By the kernels where the model is quantized for them."""
    if runs_kernels(model):
        return KernelRunner(model, Kernels(model), prefill_chunk=chunk)
    return GPTRunner(model, prefill_chunk=chunk)


def decoded(model: GPT, *, chunk: int = 2048) -> torch.Tensor:
    """Logits of a ragged prefill, of single steps of all rows, of one row alone, and of several tokens at once."""
    runner = runner_of(model, chunk=chunk)
    runner.reserve(3)
    lengths = [len(row) for row in PROMPTS]
    found = [runner.extend(0, PROMPTS, [0, 0, 0])]
    for token in (7, 2, 9):
        found.append(runner.extend(0, [[token], [token + 1], [token + 2]], lengths))
        lengths = [length + 1 for length in lengths]
    found.append(runner.extend(1, [[4]], [lengths[1]]))
    found.append(runner.extend(0, [[1, 2, 3], [4], [7, 8, 9]], lengths, wanted=[3, 0, 1]))
    assert runner.extend(0, [[1, 2]], [lengths[0] + 3], wanted=[0]).shape == (0, model.config.vocab_size)
    return torch.cat(found)


VARIANTS: dict[str, dict[str, object]] = {
    "llama": {},
    "one kv head": {"n_kv_heads": 1},
    "as many kv heads": {"n_kv_heads": 4},
    "wide heads": {"head_dim": 80, "n_heads": 2},
    "untied head, odd vocabulary": {"tied_head": False, "head_bias": True, "vocab_size": 41},
    "biases": {"qkv_bias": True, "o_bias": True, "mlp_bias": True},
    "layer norm, learned positions, gelu": {
        "norm": "layer", "positions": "learned", "activation": "gelu_tanh", "gated_mlp": False, "mlp_bias": True,
    },
    "relu": {"activation": "relu"},
    "gelu by erf": {"activation": "gelu"},
    "parallel, part of the head rotated": {
        "norm": "layer", "parallel_residual": True, "rope": {"dim": 8}, "activation": "gelu", "gated_mlp": False,
    },
    "norms after, norms of all queries": {"norm_placement": "post", "qk_norm": "full"},
    "norms before and after, norms of each head, offset": {
        "norm_placement": "sandwich", "qk_norm": "head", "norm_offset": 1.0, "embedding_scale": 8.0,
    },
    "sliding, two rotations": {
        "sliding_window": 5, "sliding_layers": [1], "rope_local": {"theta": 100.0}, "attn_scale": 0.2,
    },
    "soft caps": {"attn_softcap": 2.0, "logit_softcap": 5.0},
}  # fmt: skip
