"""Two processes make the steps of one, and checkpoints move between numbers of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_training
import pytest
import torch

from nlpkit.core.train.checkpoints.checkpoint import latest_checkpoint
from nlpkit.core.train.checkpoints.resume import resume
from nlpkit.core.train.distributed import SINGLE

SUPPORT = Path(distributed_training.__file__).parent
PATH = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What one process does, and then two with all the ways of sharing."""
    folder = tmp_path_factory.mktemp("distributed")
    build = distributed_training.build
    singles: dict[str, Any] = {}
    for dtype in ("fp32", "bf16"):
        gradients = distributed_training.gradients(build(folder, SINGLE, clip=0, dtype=dtype))
        trainer = build(folder, SINGLE, ema=0.9, dtype=dtype)
        losses = distributed_training.losses(trainer, folder / f"single-{dtype}", until=6)
        rest = distributed_training.losses(trainer, folder)
        singles[dtype] = (gradients, losses, rest, dict(trainer.result()))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(SUPPORT / "distributed_training.py"), str(folder)],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, singles


@pytest.mark.parametrize(("parallel", "dtype"), distributed_training.CASES)
def test_two_processes_equal_one(parallel: str, dtype: str, both: tuple[Path, dict[str, Any]]) -> None:
    folder, singles = both
    exact = dtype == "fp32"
    expected, losses, rest, weights = singles[dtype]
    results = torch.load(folder / f"results-{parallel}-{dtype}.pt")
    got = results["gradients"]
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(got[name].float(), gradient, atol=1e-6 if exact else 2e-2), name
    assert results["losses"] == pytest.approx(losses, abs=1e-5 if exact else 1e-2)
    assert results["resumed"] == pytest.approx(rest, abs=1e-5 if exact else 1e-2)
    assert results["outcome"] == ("finished", 3)
    assert results["averaged"] == (2, 3)
    assert "the number of processes was 1 and is 2" in results["notes"][-1]
    for name, value in weights.items():
        assert torch.allclose(results["weights"][name].float(), value, atol=1e-4 if exact else 1e-2), name
    # And one process goes on from what two have left.
    found, notes = latest_checkpoint(folder / f"{parallel}-{dtype}")
    assert found is not None
    assert notes == []
    assert (found.path / "shards").exists() == (parallel == "fsdp")
    again = distributed_training.build(folder, SINGLE, ema=0.9, dtype=dtype)
    resume(again, found, identity={})
    assert distributed_training.losses(again, folder) == pytest.approx(rest, abs=1e-5 if exact else 1e-2)
