from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nlpkit.core.errors import FetchError, ModelFileError
from nlpkit.core.fetch.hub import HubId, fetch_from_hub
from nlpkit.core.fetch.resolve import resolve_model

pytestmark = pytest.mark.local_server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "acme/tiny"


class StandIn:
    """Speaks as much of the hub's API as `huggingface_hub` needs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {
            "config.json": b'{"model_type": "llama"}',
            "model.safetensors": bytes(range(256)) * 4_000,
            "tokenizer.json": b"{}",
            "chat_template.jinja": b"{{ messages }}",
            "pytorch_model.bin": b"pickle",
            "modeling.py": b"evil",
            "vocab.bin": b"x",
            "original/consolidated.safetensors": b"twice",
            "tiny.Q4.gguf": b"GGUF" * 50,
        }
        self.sent = self.files
        self.requests: list[tuple[str, str, str | None]] = []
        self.stall_after: int | None = None
        self.stalled = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client may hang up
                    stand_in.answer(self)

            do_GET = do_HEAD

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append((handler.command, path, handler.headers.get("Range")))
        if re.fullmatch(rf"/api/models/{REPO}(/revision/(main|v1|{COMMIT}))?", path):
            siblings = [
                {
                    "rfilename": name,
                    "size": len(data),
                    "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
                }
                | (
                    {"lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 9}}
                    if big
                    else {}
                )
                for name, data in self.files.items()
                for big in [len(data) > 1_000]
            ]
            self.send(handler, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode(), {})
            return
        if path.startswith(f"/api/models/{REPO}/revision/"):
            self.send(handler, b"{}", {"X-Error-Code": "RevisionNotFound"}, status=404)
            return
        prefix = f"/{REPO}/resolve/{COMMIT}/"
        data = self.sent.get(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if data is None:
            self.send(handler, b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)
            return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        self.send(handler, data, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def send(self, handler: BaseHTTPRequestHandler, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        whole = len(data)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        if match and status == 200:
            start = int(match[1])
            data = data[start : int(match[2]) + 1] if match[2] else data[start:]
            headers = {**headers, "Content-Range": f"bytes {start}-{start + len(data) - 1}/{whole}"}
            status = 206
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.stall_after is not None and whole > self.stall_after:
            handler.wfile.write(data[: self.stall_after])
            handler.wfile.flush()
            self.stalled.set()
            threading.Event().wait(20)
            return
        handler.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("NLPKIT_OFFLINE", raising=False)
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    stand_in = StandIn()
    monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
    yield stand_in
    stand_in.close()


def test_directory_is_downloaded_once_and_found_without_network(hub: StandIn) -> None:
    seen: list[tuple[int, int]] = []
    path = resolve_model(REPO, progress=lambda done, total: seen.append((done, total)))
    assert sorted(item.name for item in path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == sum((path / n.name).stat().st_size for n in path.iterdir())
    asked = len(hub.requests)
    hub.close()
    assert resolve_model(REPO) == path
    assert resolve_model("hf:" + REPO, allow_download=False) == path
    assert len(hub.requests) == asked


def test_one_gguf_file(hub: StandIn) -> None:
    path = resolve_model(f"{REPO}:tiny.Q4.gguf")
    assert path.name == "tiny.Q4.gguf"
    assert path.read_bytes() == hub.files["tiny.Q4.gguf"]
    assert not any("safetensors" in request[1] for request in hub.requests)
    assert resolve_model(f"hf:{REPO}:tiny.Q4.gguf", allow_download=False) == path


def test_revision_is_pinned_to_its_commit(hub: StandIn) -> None:
    path = resolve_model(f"hf:{REPO}@v1")
    assert COMMIT in str(path)
    assert all("/resolve/main/" not in request[1] and "/resolve/v1/" not in request[1] for request in hub.requests)
    with pytest.raises(FetchError, match="no revision 'v9'"):
        resolve_model(f"hf:{REPO}@v9")


def test_a_file_that_was_damaged_in_the_cache_is_not_taken_for_complete(hub: StandIn) -> None:
    path = resolve_model(REPO)
    (path / "config.json").unlink()
    assert resolve_model(REPO) == path
    assert (path / "config.json").exists()


def test_missing_model(hub: StandIn) -> None:
    with pytest.raises(FetchError, match="no model 'acme/nothing'"):
        resolve_model("acme/nothing")


def test_missing_gguf_names_the_close_one(hub: StandIn) -> None:
    with pytest.raises(FetchError, match=r"Did you mean 'tiny.Q4.gguf'"):
        resolve_model(f"{REPO}:tiny.Q5.gguf")


def test_pickles_are_refused_and_gguf_choices_listed(hub: StandIn) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(FetchError, match=r"acme/tiny:tiny.Q4.gguf"):
        resolve_model(REPO)
    del hub.files["tiny.Q4.gguf"]
    with pytest.raises(FetchError, match="pickle"):
        resolve_model(REPO)


def test_server_down(hub: StandIn) -> None:
    hub.close()
    with pytest.raises(FetchError, match="could not be downloaded"):
        resolve_model(REPO)


@pytest.mark.parametrize("variable", ["NLPKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nothing(hub: StandIn, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(FetchError, match=variable):
        fetch_from_hub(HubId(repo=REPO))
    assert hub.requests == []


def test_bad_hub_id(hub: StandIn) -> None:
    with pytest.raises(ModelFileError, match="no hub id"):
        resolve_model("hf:../../etc/passwd")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_wrong_bytes_are_not_kept(hub: StandIn, name: str) -> None:
    right = hub.files[name]
    hub.sent = {**hub.files, name: bytes([right[0] ^ 1]) + right[1:]}
    with pytest.raises(FetchError, match="wrong hash"):
        resolve_model(REPO)
    hub.sent = hub.files
    assert (resolve_model(REPO) / name).read_bytes() == right


def test_killed_download_resumes(hub: StandIn, tmp_path: Path) -> None:
    hub.stall_after = 600_000
    code = f"from nlpkit.core.fetch.resolve import resolve_model; resolve_model({REPO!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        assert hub.stalled.wait(30)
        partial = tmp_path / "home" / "hub"
        for _ in range(200):
            if any(file.stat().st_size >= 500_000 for file in partial.rglob("*.part")):
                break
            threading.Event().wait(0.05)
    finally:
        child.kill()
        child.wait()
    hub.stall_after = None
    asked = len(hub.requests)
    path = resolve_model(REPO)
    ranges = [request[2] for request in hub.requests[asked:] if request[1].endswith(".safetensors") and request[2]]
    assert ranges
    assert int(ranges[0].removeprefix("bytes=").rstrip("-")) > 100_000
    assert (path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_messages_hold_no_password_of_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from nlpkit.core.fetch.hub import _plain_errors

    monkeypatch.setenv("HF_ENDPOINT", "http://user:SECRET@127.0.0.1:9")
    with pytest.raises(FetchError) as caught, _plain_errors(HubId(repo="org/name")):
        raise RuntimeError("cannot reach http://user:SECRET@127.0.0.1:9/api?token=SECRET")
    assert "SECRET" not in str(caught.value)
    assert "http://127.0.0.1:9" in str(caught.value)
