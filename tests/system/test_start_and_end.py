"""What makes commands start and end quickly changes nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from nlpkit.core.machine import lean_torch

IS_TESTED = version("torch").startswith(lean_torch.TESTED)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


START = """
import sys
from nlpkit.core.machine.lean_torch import PUT_OFF, RULES, import_torch
import_torch()
import torch
def put_off(name): return "__getattr__" in vars(sys.modules[name])
"""


@pytest.mark.skipif(not IS_TESTED, reason="nothing is put off with this version of torch")
def test_parts_of_torch_are_put_off_until_asked_for() -> None:
    code = (
        START
        + """
assert put_off(RULES) and put_off("torch.utils.data") and put_off("torch.distributions")
assert "torch.utils.data.dataloader" not in sys.modules
from torch.utils.data import DataLoader, TensorDataset
assert not put_off("torch.utils.data")
assert [len(batch[0]) for batch in DataLoader(TensorDataset(torch.arange(5)), batch_size=2)] == [2, 2, 1]
# A part of a package before the package itself, and all of its names.
import torch.distributions.normal as normal
from torch.distributions import *
assert Normal is normal.Normal is torch.distributions.Normal
assert sys.modules["torch.distributions.normal"].__spec__.name == "torch.distributions.normal"
assert torch.nn.quantized.Linear is torch.ao.nn.quantized.Linear
assert put_off(RULES)
print("fine")
"""
    )
    assert python(code) == "fine\n"


def test_compilers_find_all_of_torch() -> None:
    code = (
        START
        + """
f = torch.compile(lambda x: torch.nn.functional.gelu(x).sum(), backend="eager", fullgraph=True)
x = torch.linspace(-1, 1, 7)
assert torch.equal(f(x), torch.nn.functional.gelu(x).sum())
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    assert torch.linalg.qr(torch.ones(4, 3))[1].shape == (3, 3)
assert torch.Generator().manual_seed(1).initial_seed() == 1
exported = torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))
assert exported.module()(torch.ones(1, 3)).shape == (1, 2)
print("fine")
"""
    )
    assert python(code) == "fine\n"


def test_transformers_finds_all_of_torch() -> None:
    pytest.importorskip("transformers")
    code = (
        START
        + """
import transformers
assert not put_off(RULES)
print("fine")
"""
    )
    assert python(code) == "fine\n"


def test_other_versions_of_torch_are_imported_as_they_are() -> None:
    code = "import sys\nfrom nlpkit.core.machine import lean_torch\nlean_torch.TESTED = ()\nlean_torch.import_torch()\n"
    code += "assert not any(type(one).__name__ == '_Finder' for one in sys.meta_path)\nimport torch.utils.data\n"
    assert python(code + "print('__getattr__' in vars(torch._meta_registrations))") == "False\n"


def test_the_end_waits_for_threads_runs_what_is_registered_and_flushes() -> None:
    code = """
import atexit, sys, threading, time
from nlpkit.apps.cli.process import leave
atexit.register(lambda: sys.stdout.write("registered\\n"))
threading.Thread(target=lambda: (time.sleep(0.3), sys.stdout.write("thread\\n"))).start()
sys.stdout.write("main\\n")
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "main\nthread\nregistered\n", "")


def test_the_command_imports_nothing_before_it_can_be_interrupted() -> None:
    code = "import sys; before = set(sys.modules); import nlpkit.cli; print(*(set(sys.modules) - before))"
    loaded = python(code).split()
    assert [name for name in loaded if name.partition(".")[0] in ("typer", "click", "rich", "torch", "numpy")] == []
    assert [name for name in loaded if name.startswith("nlpkit.")] == ["nlpkit.cli"]


INTERRUPTED = """
import builtins, os, signal, sys
real = builtins.__import__
def hooked(name, *rest):
    if name.startswith(os.environ["INTERRUPT_AT"]):
        builtins.__import__ = real
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = hooked
sys.argv = ["nlpkit", "generate", "hi"]
from nlpkit.cli import run
run()
"""


@pytest.mark.parametrize(
    "module", ["typer", "nlpkit.apps.cli.options", "nlpkit.apps.cli.constraint_options", "nlpkit.apps.cli.task_command"]
)
def test_an_interrupt_while_modules_are_imported(offline_env: dict[str, str], module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**offline_env, "INTERRUPT_AT": module},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "nlpkit: interrupted\n")


WITHIN_TORCH = """
import signal, sys, time
from nlpkit.apps.cli.process import _tidy_on_signals
within = compile("signal.raise_signal(signal.SIGINT); print('imported')", "torch/x.py", "exec")
with _tidy_on_signals():
    try:
        exec(within, {"__name__": "torch.x", "signal": signal})
        time.sleep(20)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_an_interrupt_within_torch_waits_until_it_is_imported() -> None:
    began = time.monotonic()
    assert python(WITHIN_TORCH).split() == ["imported", "interrupted"]
    assert time.monotonic() - began < 15


def test_an_interrupt_at_any_time(offline_env: dict[str, str]) -> None:
    code = "import os; os.write(1, b'.'); import runpy; runpy.run_module('nlpkit.cli', run_name='__main__')"
    for step in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.argv = ['nlpkit', 'translate', 'Hi', '--to', 'de']; {code}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**offline_env, "NLPKIT_OFFLINE": "1"},
        )
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(0.15 + 0.15 * step)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0 and out:
            # It was done sooner.
            break
        assert (process.returncode, err.strip()) == (130, "nlpkit: interrupted"), (step, out)
