"""The compiled kernels' library: made once for a machine, kept in the cache folder."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch
import torch.nn.functional as F

from nlpkit.core.files.cache import cache_home
from nlpkit.core.files.write import aside_name, sweep
from nlpkit.core.machine.compiler import find_compiler
from nlpkit.core.machine.processor import cpu_flags
from nlpkit.core.quantization.kernel_library import HEADER, SOURCE, Library
from nlpkit.core.quantization.kernel_linear import KernelLinear

OFF = "NLPKIT_KERNELS"
"""Environment variable that, set to ``off``, leaves the kernels out."""
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fPIC", "-shared", "-fopenmp", "-w")
_NEEDED = frozenset({"avx2", "fma", "f16c"})
_SECONDS = 120
_TOLERANCE = 0.02
"""Largest difference between a product of the kernels and the exact one, as a share of the largest value."""


def why_not() -> str | None:
    """Return in words why this machine cannot run the kernels, or None if it can."""
    if os.environ.get(OFF, "").lower() in ("off", "0", "no", "false"):
        return f"{OFF} is off"
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return f"they are for Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    missing = sorted(_NEEDED - cpu_flags())
    return f"this processor has no {', '.join(missing)}" if missing else None


def library_path() -> Path:
    """Return where the library for this source, machine and compiler flags is kept."""
    said = "\n".join((*(path.read_text("utf-8") for path in (SOURCE, HEADER)), *_FLAGS, *sorted(cpu_flags())))
    return cache_home() / "kernels" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.so"


def build_library() -> Path | None:
    """Compile the kernels into the cache folder, which takes a few seconds.

    Returns:
        The file; None where there is no compiler or it fails.
    """
    path, compiler = library_path(), find_compiler()
    if compiler is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        folder = path.parent / aside_name(suffix="")
        try:
            folder.mkdir()
            made = folder / "kernels.so"
            command = [compiler, *_FLAGS, "-o", str(made), str(SOURCE)]
            # What the compiler itself writes aside goes with the folder.
            environment = {**os.environ, "TMPDIR": str(folder)}
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_SECONDS,
                env=environment,
            )
            # Whole or not at all.
            made.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return path


def _works(library: Library) -> bool:
    """Tell whether products come out right."""
    # Numbers without order, and no generator of random ones: see `nlpkit.core.machine.lean_torch`.
    weight = torch.sin(torch.arange(48.0 * 64) ** 2 % 1000).view(48, 64)
    for rows in (1, 3):
        x = torch.cos(torch.arange(rows * 64.0) ** 2 % 1000).view(rows, 64)
        exact = F.linear(x, weight)
        for bits, allowed in ((8, _TOLERANCE), (4, 8 * _TOLERANCE)):
            found = KernelLinear(library, weight, None, bits=bits)(x)
            if not float((found - exact).abs().max()) <= allowed * float(exact.abs().max()):
                return False
    return True


def _open(path: Path) -> Library | None:
    try:
        library = Library(path)
    except (OSError, AttributeError):
        return None
    return library if _works(library) else None


@functools.cache
def _library_at(path: Path) -> Library | None:
    if path.exists() and (found := _open(path)) is not None:
        return found
    made = build_library()
    return None if made is None else _open(made)


def load_library() -> Library | None:
    """Return the kernels, compiled first where they are not in the cache folder; None where this machine has none.

    A library that cannot be loaded or computes wrong products is not used.
    """
    return None if why_not() is not None else _library_at(library_path())
