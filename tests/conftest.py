"""Fixtures for all tests, and the rule that no test reaches the network."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Workers side by side share the processor: more threads than cores make all of them slow.
    _share = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(_share))

# What is compiled once is not compiled again by the other worker and by each of the hundreds of commands that tests start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).resolve().parent.parent
_OPENS_A_SOCKET = {"socket.__new__", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"}
_LOCAL = {"127.0.0.1", "localhost", None, ""}
_policy = "free"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "local_server: talks to a stand-in server of its own on 127.0.0.1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell script. Children would ignore it as well, and some tests send it to them.
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONG_FILES = ("core/train/test_compiled.py", "core/train/checkpoints/test_checkpoint.py", "core/train", "system")
"""Folders and files that take long. They come first: one that came last would keep one worker busy alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT / "tests").as_posix() if item.path.is_relative_to(ROOT / "tests") else ""
        return next((place for place, name in enumerate(LONG_FILES) if path.startswith(name)), len(LONG_FILES))

    items.sort(key=rank)


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _policy == "free" or event not in _OPENS_A_SOCKET:
        return
    if event == "socket.__new__":
        # Pairs of AF_UNIX sockets (-1 is what a copied descriptor says) stay inside the process.
        allowed = _policy == "local" or args[1] in (1, -1)
    else:
        target = args[0] if event == "socket.getaddrinfo" else args[1]
        host = target[0] if isinstance(target, tuple) else target
        allowed = _policy == "local" and host in _LOCAL
    if not allowed:
        pytest.fail(f"a socket was opened: {event} {args!r}")


# There is no way to take an audit hook out again, nor around it: it sees sockets that any library opens.
sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    global _policy
    _policy = "local" if request.node.get_closest_marker("local_server") else "forbidden"
    yield
    _policy = "free"


def _load_fakes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nlpkit_test_fakes", ROOT / "tests" / "support" / "fakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """The module ``tests/support/fakes.py``."""
    return _load_fakes()


@pytest.fixture
def fake_model(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model without weights, which the command line loads whatever model is asked for."""
    model = fakes.FakeModel()
    monkeypatch.setattr("nlpkit.core.load.load_model", fakes.loading(model))
    return model


@dataclass(frozen=True)
class CliResult:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def cli() -> Callable[..., CliResult]:
    """Run the command line in this process: ``cli("translate", "Hi", "--to", "de", stdin=b"...")``.

    Without `stdin`, standard input is a terminal; `terminal` makes the outputs terminals as well.
    """
    # A task command puts parts of torch off, which its process never needs; this one goes on to train.
    import torch  # noqa: F401

    def run(*arguments: str, stdin: bytes | None = None, terminal: bool = False) -> CliResult:
        from nlpkit.cli import main

        kind = _Terminal if terminal else io.TextIOWrapper
        # latin-1: the locale must not matter.
        raw_out, raw_err = io.BytesIO(), io.BytesIO()
        source_kind = _Terminal if stdin is None else io.TextIOWrapper
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", source_kind(io.BufferedReader(io.BytesIO(stdin or b""))))  # type: ignore[arg-type]
            patch.setattr(sys, "stdout", kind(raw_out, encoding="latin-1", write_through=True))
            patch.setattr(sys, "stderr", kind(raw_err, encoding="latin-1", write_through=True))
            patch.setenv("COLUMNS", "100")
            code = main(arguments)
            # Here: closing a text stream, as forgetting it does, closes what is below it.
            return CliResult(code, raw_out.getvalue().decode("utf-8"), raw_err.getvalue().decode("utf-8"))

    return run


@pytest.fixture(scope="session")
def default_model() -> str:
    """Name of the default model, in the cache: fetched once where it is missing."""
    offline = bool(os.environ.get("NLPKIT_TEST_OFFLINE"))
    done = subprocess.run(
        [sys.executable, "-m", "nlpkit.cli", "models", "pull", "default"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, **({"NLPKIT_OFFLINE": "1"} if offline else {})},
    )
    if done.returncode and offline:
        pytest.skip(f"the default model is not in the cache: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return "default"


@pytest.fixture
def offline_env(tmp_path: Path) -> dict[str, str]:
    """Environment in which a Python child process dies when it opens a socket."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"EVENTS = {_OPENS_A_SOCKET!r}\n"
        "def hook(event, args):\n"
        "    if event in EVENTS and not (event == 'socket.__new__' and args[1] in (1, -1)):\n"
        "        os.write(2, f'a socket was opened: {event} {args!r}'.encode())\n"
        "        os._exit(99)\n"
        "sys.addaudithook(hook)\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
