"""The command that serves: what it refuses at once, and how its process ends."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from served import serving

from nlpkit.apps.serve.cli.serve import ServeOptions
from nlpkit.apps.serve.settings import ServedModel, is_loopback
from nlpkit.core.errors import ConfigError

SUPPORT = Path(__file__).resolve().parents[3] / "support"
PROGRAM = f"""
import signal, sys
# As the command line does.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
sys.path.insert(0, {str(SUPPORT)!r})
from tiny_server import build_app, open_socket, tiny_models, tiny_settings
from nlpkit.apps.serve.run import serve
settings = tiny_settings(grace=0.3)
with open_socket("127.0.0.1", 0) as listening:
    address = f"http://127.0.0.1:{{listening.getsockname()[1]}}"
    app = build_app(settings, models=tiny_models(settings))
    serve(app, settings, listening, on_start=lambda: print(address, flush=True))
print("ended", flush=True)
"""


def test_options_become_settings(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(hashlib.sha256(b"k").hexdigest())
    options = ServeOptions(
        model=["small=default", "./big.gguf"], adapter=["legal=./adapters/legal"], memory=2.5, max_body_mb=0.5,
        api_keys=str(keys), allow_host=["a.example"],
    )  # fmt: skip
    settings = options.settings()
    assert settings.models == (
        ServedModel(id="small", name="default"),
        ServedModel(id="./big.gguf", name="./big.gguf"),
        ServedModel(id="legal", name="default", adapter="./adapters/legal"),
    )
    assert (settings.memory_bytes, settings.max_body_bytes) == (2_500_000_000, 2**19)
    assert settings.api_keys == {hashlib.sha256(b"k").digest()}


@pytest.mark.parametrize(
    "options",
    [{"model": ["a=x", "a=y"]}, {"model": ["=x"]}, {"model": ["a="]}, {"adapter": ["legal"]}, {"api_keys": "none"}],
)
def test_what_cannot_be_served_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServeOptions(**options).settings()


@pytest.mark.local_server
def test_errors_come_before_anything_is_served(cli: Any) -> None:
    assert cli("serve", "--port", "0", "--model", "no-such-model").code == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = cli("serve", "--port", str(taken.getsockname()[1]))
    assert result.code == 2
    assert "--port" in result.err


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_the_loopback_is_known(host: str, own: bool) -> None:
    assert is_loopback(host) == own


@pytest.mark.local_server
def test_the_command_says_where_it_serves(default_model: str) -> None:
    with serving("--model", default_model) as (address, server):
        assert httpx.get(f"{address}/ready").json() == {"ready": True}
    # As whoever asked for it wanted.
    assert server.returncode == 0


@pytest.mark.local_server
def test_a_server_that_is_asked_to_end_ends_streams_with_a_word() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        body = {
            "model": "tiny",
            "prompt": "x",
            "max_tokens": 200,
            "n": 100,
            "stream": True,
            "logit_bias": {"256": -100},
        }
        begun, lines = threading.Event(), []

        def read() -> None:
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as answer:
                for line in answer.iter_lines():
                    lines.append(line)
                    begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(30)
        process.send_signal(signal.SIGTERM)
        reader.join(30)
        *_, last, end = [line for line in lines if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert end == "data: [DONE]"
        assert process.wait(30) == 0
        assert process.stdout.read() == "ended\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
