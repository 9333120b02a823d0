"""Compiled kernels between attentions: the model's own results, and never used where they do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_config, tiny_gpt

from nlpkit.core.decode.runner import GPTRunner
from nlpkit.core.errors import ConfigError
from nlpkit.core.loaders import kernels
from nlpkit.core.model.between import can_compile_between
from nlpkit.core.model.fuse import fuse_projections
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.quantize import quantize_model
from nlpkit.core.train.prepare import has_compiler

needs_compiler = pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="there is no C++ compiler")
TOKENS = [[5, 6, 7, 8, 9], [3, 1, 4], [2]]


def quantized(**options: object) -> GPT:
    model = tiny_gpt(tiny_config(**options)).to(torch.bfloat16)
    fuse_projections(model)
    quantize_model(model, "int4")
    return model.eval()


def decoded(model: GPT) -> list[torch.Tensor]:
    """Logits of a ragged prefill, of three single steps of all rows, of one row alone, and of several tokens at once."""
    runner = GPTRunner(model)
    runner.reserve(3)
    lengths = [len(row) for row in TOKENS]
    found = [runner.extend(0, TOKENS, [0, 0, 0])]
    for token in (7, 2, 9):
        found.append(runner.extend(0, [[token], [token + 1], [token + 2]], lengths))
        lengths = [length + 1 for length in lengths]
    found.append(runner.extend(1, [[4]], [lengths[1]]))
    found.append(runner.extend(0, [[1, 2, 3], [4, 5, 6], [7, 8, 9]], lengths, wanted=[3, 3, 3]))
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLPKIT_HOME", str(home))
    return home


@pytest.fixture
def compiled(cache: Path) -> list[Path]:
    """Kernels of the tiny model, compiled once."""
    model = quantized()
    paths = [kernels._path(model, kind) for kind in kernels.SIZES]
    if not all(path.exists() for path in paths):
        # In a process of its own, as the command does it: what other tests imported may be in the compiler's way.
        code = (
            "import sys; sys.path[:0] = sys.argv[1:]; import test_kernels; "
            "test_kernels.kernels.compile_kernels(test_kernels.quantized())"
        )
        here = Path(__file__).resolve().parent
        command = [sys.executable, "-c", code, str(here), str(here.parent / "support")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return paths


@needs_compiler
def test_results_are_the_models_own(compiled: list[Path]) -> None:
    model = quantized()
    expected = decoded(model)
    assert kernels.use_kernels(model)
    assert model.kernels is not None
    found = decoded(model)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert float((mine - theirs).abs().max()) <= 0.03 * float(theirs.abs().max())
    # They were used: rounding differs somewhere.
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


@needs_compiler
def test_more_blocks_and_other_vocabularies_share_them(compiled: list[Path]) -> None:
    assert kernels.use_kernels(quantized(n_layers=5, vocab_size=77))
    assert not kernels.use_kernels(quantized(d_ff=64))
    assert not kernels.use_kernels(quantized(norm_eps=1e-3))


@needs_compiler
def test_what_is_damaged_or_wrong_is_not_used(compiled: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [path.read_bytes() for path in compiled]
    try:
        for path in compiled:
            path.write_bytes(b"PK\x03\x04 no package")
        assert not kernels.use_kernels(quantized())
    finally:
        for path, content in zip(compiled, kept, strict=True):
            path.write_bytes(content)
    monkeypatch.setattr(kernels, "_TOLERANCE", -1.0)
    assert not kernels.use_kernels(quantized())


@needs_compiler
def test_running_them_needs_no_compiler(compiled: list[Path]) -> None:
    code = (
        "import sys, torch; torch._C._aoti.AOTIModelPackageLoader(sys.argv[1], 'model', False, 1, -1); "
        "assert 'torch._inductor' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(compiled[0])], check=True)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: quantized(qkv_bias=True), id="biases"),
        pytest.param(lambda: quantized(positions="learned"), id="learned positions"),
        pytest.param(lambda: quantized(n_layers=1), id="one block"),
    ],
)
def test_other_models_run_as_they_are(model, cache: Path) -> None:
    made = model()
    assert not can_compile_between(made)
    assert not kernels.use_kernels(made)
    with pytest.raises(ConfigError, match="runs as it is"):
        kernels.compile_kernels(made)


def test_without_a_compiler_it_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        kernels.compile_kernels(quantized())


def test_training_and_gradients_leave_them_out(cache: Path) -> None:
    from nlpkit.core.model.between import BetweenKernels

    class Trap:
        def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
            raise AssertionError("a kernel has no gradients")

    model = tiny_gpt().requires_grad_(True)
    model.kernels = BetweenKernels(model, Trap(), Trap())
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    with torch.no_grad(), pytest.raises(AssertionError, match="no gradients"):
        model(torch.tensor([[1]]))
