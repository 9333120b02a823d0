"""Initial weights for training from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn

from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.layers import LayerNorm, RMSNorm

STD = 0.02


def init_weights(model: GPT, *, seed: int, zero_outputs: bool = False) -> None:
    """Initialise a model as GPT-2 does (Radford et al. 2019, section 2.3; values from its released code).

    Matrices and embeddings are normal with standard deviation 0.02; those that write to the residual stream are
    scaled down by ``1 / sqrt(2 * n_layers)``, so that its variance does not grow with depth. Biases are 0, norms the
    identity.

    Args:
        model: The model, on a real device.
        seed: Decides the values, whatever the device.
        zero_outputs: Whether the matrices that write to the residual stream are 0 instead.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = STD / math.sqrt(2 * model.config.n_layers)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                writes = name.endswith((".o", ".down"))
                std = 0.0 if writes and zero_outputs else residual if writes else STD
                # Drawn on the CPU: generators of other devices give other numbers.
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, RMSNorm):
                module.weight.fill_(1 - module.offset)
            elif isinstance(module, LayerNorm):
                module.weight.fill_(1)
                module.bias.zero_()


def new_model(config: ModelConfig, *, seed: int, zero_outputs: bool = False) -> GPT:
    """Return a freshly initialised model in fp32 on the CPU; see `init_weights`."""
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    init_weights(model, seed=seed, zero_outputs=zero_outputs)
    return model
