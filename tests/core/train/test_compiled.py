"""Compiled training computes what eager training does, and a compiler that is broken only makes it slower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiled_training
import pytest
import torch

from nlpkit.core.train.prepare import has_compiler

SUPPORT = Path(compiled_training.__file__).parent
PATH = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))

pytestmark = pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("compiled")
    broken = folder / "c++"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    broken.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "compiled_training.py"), str(folder), str(broken)],
        capture_output=True, text=True, timeout=1200, check=False,
        env={**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1",
             "TORCHINDUCTOR_CACHE_DIR": str(folder / "kernels")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_compiled_losses_equal_eager_ones(results: dict[str, Any]) -> None:
    eager, compiled = results["eager"], results["compiled"]
    assert (eager["compiled"], compiled["compiled"]) == ([False, False], [True, True])
    assert compiled["notes"] == []
    assert compiled["losses"] == pytest.approx(eager["losses"], abs=1e-4)
    assert compiled["dev"] == pytest.approx(eager["dev"], abs=1e-4)
    assert eager["losses"][-1] < eager["losses"][0]


def test_a_broken_compiler_only_slows(results: dict[str, Any]) -> None:
    eager, broken = results["eager"], results["broken"]
    assert broken["compiled"] == [True, False]
    assert len(broken["notes"]) == 1
    assert "could not be compiled" in broken["notes"][0]
    assert broken["losses"] == eager["losses"]
    assert broken["dev"] == eager["dev"]
