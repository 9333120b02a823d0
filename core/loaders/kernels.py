"""Compiled decoding kernels: made ahead of time, kept in the cache, used where they fit the model and the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlpkit.core.errors import ConfigError
from nlpkit.core.loaders.cache import cache_home
from nlpkit.core.model.between import MOST_TOKENS, Between, BetweenKernels, between_tensors, can_compile_between
from nlpkit.core.model.gpt import GPT

VERSION = 1
"""Raised when what is compiled changes."""
SIZES = {"one": 1, "several": 5}
"""Tokens of the example that each kind is compiled from."""
_TOLERANCE = 0.05
"""Largest difference between a kernel and the model itself, as a share of the largest value."""


def kernels_dir() -> Path:
    """Return the folder of compiled kernels inside the cache folder."""
    return cache_home() / "kernels"


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    # Kernels hold instructions of the processor that they were compiled on.
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _path(model: GPT, kind: str) -> Path:
    first, second = list(model.iter_blocks())[:2]
    # Other blocks, another vocabulary or context: the same function.
    shape = {
        name: value
        for name, value in dataclasses.asdict(model.config).items()
        if name not in ("vocab_size", "n_layers", "max_seq_len")
    }
    said = {
        "version": VERSION,
        "kind": kind,
        "torch": str(torch.__version__),
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability(), _machine()],
        "config": shape,
        "dtype": str(model.dtype),
        "weights": [[name, list(t.shape), str(t.dtype)] for name, t in between_tensors(first, second).items()],
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
    return kernels_dir() / f"{digest[:32]}.pt2"


def _example(model: GPT, tokens: int) -> list[Tensor]:
    first, second = list(model.iter_blocks())[:2]
    config, generator = model.config, torch.Generator().manual_seed(0)
    dim = config.rope.dim or config.head_dim

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(model.dtype)

    return [
        noise(tokens, 1, config.d_model),
        noise(tokens, 1, config.n_heads * config.head_dim),
        noise(tokens, 1, 1, dim),
        noise(tokens, 1, 1, dim),
        *between_tensors(first, second).values(),
    ]


def compile_kernels(model: GPT) -> list[Path]:
    """Compile the kernels of a model's shape and keep them in the cache folder. It takes about a minute.

    Args:
        model: In evaluation mode on the CPU.

    Returns:
        The files.

    Raises:
        ConfigError: This model or machine has no such kernels.
    """
    if not can_compile_between(model):
        raise ConfigError(
            "Kernels can be compiled for int8 and int4 weights on the CPU, of families with rotary positions and "
            "without biases. This model runs as it is."
        )
    if not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name):
        raise ConfigError("There is no C++ compiler to compile kernels with. Install g++ or clang.")
    kernels_dir().mkdir(parents=True, exist_ok=True)
    try:
        return [_compiled(model, kind) for kind in SIZES]
    except (RuntimeError, AssertionError, ImportError, OSError) as error:
        raise ConfigError(
            f"The kernels could not be compiled ({type(error).__name__}). Is the C++ compiler working? The model "
            "runs as it is."
        ) from error


def _compiled(model: GPT, kind: str) -> Path:
    import torch._inductor

    first, second = list(model.iter_blocks())[:2]
    tokens, path = SIZES[kind], _path(model, kind)
    function, example = Between(first, second), _example(model, tokens)
    shapes: Any = None
    if tokens > 1:
        rows = {0: torch.export.Dim("tokens", min=2, max=MOST_TOKENS)}
        shapes = (rows, rows, rows, rows, tuple({} for _ in example[4:]))
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=kernels_dir()) as folder, warnings.catch_warnings():
        # The exporter's own, about its own code.
        warnings.simplefilter("ignore")
        program = torch.export.export(function, tuple(example), dynamic_shapes=shapes)
        made = torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(Path(folder) / "kernel.pt2"),
            inductor_configs={"cpp.dynamic_threads": True},
        )
        # Whole or not at all.
        Path(made).replace(path)
    return path


class _Package:
    """A compiled function in a package of `torch.export`'s."""

    def __init__(self, path: Path) -> None:
        # The public loader imports the compiler, which takes over a second and is not needed to run what it made.
        self._loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        return self._loader.run(inputs)


def _loaded(model: GPT, kind: str) -> _Package | None:
    path = _path(model, kind)
    if not path.exists():
        return None
    try:
        package = _Package(path)
        first, second = list(model.iter_blocks())[:2]
        example = _example(model, SIZES[kind])
        with torch.inference_mode():
            expected = Between(first, second)(*example)
            found = package.run(example)
    except (RuntimeError, OSError, AttributeError):
        return None
    for mine, theirs in zip(expected, found, strict=True):
        scale = float(mine.abs().max()) or 1.0
        if mine.shape != theirs.shape or float((mine.float() - theirs.float()).abs().max()) > _TOLERANCE * scale:
            return None
    return package


def use_kernels(model: GPT) -> bool:
    """Let a model run with the kernels that the cache holds for it, in place.

    A file that cannot be loaded, or gives other results than the model itself, is not used.

    Returns:
        Whether there are any.
    """
    if not kernels_dir().is_dir() or not can_compile_between(model):
        return False
    found = dict.fromkeys(SIZES)
    with contextlib.suppress(OSError):
        found = {kind: _loaded(model, kind) for kind in SIZES}
    if all(kernel is None for kernel in found.values()):
        return False
    model.kernels = BetweenKernels(model, found["one"], found["several"])
    return True
