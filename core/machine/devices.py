"""Which device a model runs on, and what the device is good at."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.machine.processor import cpu_flags

Device = Literal["auto", "cpu", "cuda", "mps"]


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
