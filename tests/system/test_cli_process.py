"""The command line as a process of its own: pipes, signals, locales, full disks, the interpreter's last flush."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "support" / "fakes.py")]

needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")


def run(*arguments: str, env: dict[str, str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*FAKE, *arguments],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=env,
        timeout=60,
        check=False,
        **options,
    )


def shell(line: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    fake = " ".join(f"'{part}'" for part in FAKE)
    script = f'set -o pipefail; nlpkit() {{ {fake} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=env, timeout=60, check=False)


def test_closed_pipe_ends_quietly(offline_env: dict[str, str]) -> None:
    done = shell("seq -f 'hello there %.0f' 20000 | nlpkit generate --lines | head -1", offline_env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO THERE 1\n", "")


def test_closed_pipe_at_the_last_flush(offline_env: dict[str, str]) -> None:
    for command in ("nlpkit generate hi", "nlpkit --help", "nlpkit --version", "nlpkit models list"):
        done = shell(f"{command} | true", offline_env)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_every_line_comes_out_of_a_pipe(offline_env: dict[str, str]) -> None:
    done = shell("seq 2000 | nlpkit generate --lines | wc -l", offline_env)
    assert done.stdout.strip() == "2000"


@needs_dev_full
@pytest.mark.parametrize("arguments", [("generate", "hi"), ("generate", "hi", "--json"), ("models", "list")])
def test_full_disk_behind_stdout(offline_env: dict[str, str], arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(*arguments, env=offline_env, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "nlpkit: error: standard output cannot be written: the disk is full. Free some space, or write elsewhere "
        "with -o PATH.\n"
    )


@needs_dev_full
def test_help_on_a_full_disk(offline_env: dict[str, str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run("--help", env=offline_env, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode().startswith("nlpkit: error: ")
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing_behind(
    offline_env: dict[str, str], tmp_path: Path, signal_number: signal.Signals
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [*FAKE, "generate", "--lines", "-o", str(folder / "out.txt")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**offline_env, "FAKE_DELAY": "0.05"},
    )
    assert process.stdin is not None
    process.stdin.write(b"line\n" * 2000)
    process.stdin.close()
    process.stdin = None
    deadline = time.monotonic() + 30
    while not any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert any(folder.iterdir())
    process.send_signal(signal_number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == (130 if signal_number == signal.SIGINT else 143)
    assert out == b""
    assert err == (b"nlpkit: interrupted\n" if signal_number == signal.SIGINT else b"")
    assert list(folder.iterdir()) == []


def test_ctrl_c_in_the_middle_of_a_streamed_text(offline_env: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*FAKE, "generate", "abcdefghijklmnopqrstuvwxyz" * 9],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env={**offline_env, "FAKE_DELAY": "0.05"},
    )
    os.close(follower)
    shown = b""
    try:
        while b"ABC" not in shown and _readable(leader):
            shown += os.read(leader, 4096)
        assert b"ABC" in shown
        process.send_signal(signal.SIGINT)
        while _readable(leader):
            try:
                piece = os.read(leader, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    text, _, rest = shown.partition(b"\r\n")
    assert text == (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 9)[: len(text)]
    assert len(text) < 26 * 9
    assert rest.strip() == b"nlpkit: interrupted"


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 30)[0])


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_utf8_in_any_locale(offline_env: dict[str, str], locale: dict[str, str]) -> None:
    done = run("generate", env={**offline_env, **locale}, stdin=None, input="grüße 日本 🙂\n".encode())
    assert done.stderr == b""
    assert (done.returncode, done.stdout.decode()) == (0, "GRÜSSE 日本 🙂\n")


def test_undecodable_argument(offline_env: dict[str, str]) -> None:
    done = subprocess.run(
        [*map(os.fsencode, FAKE), b"generate", b"caf\xe9"],
        capture_output=True,
        env=offline_env,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"byte 0xE9 at character 3" in done.stderr


def test_closed_streams(offline_env: dict[str, str], tmp_path: Path) -> None:
    done = shell("nlpkit generate <&-", offline_env)
    assert done.returncode == 2
    assert "There is no prompt to work on" in done.stderr
    done = shell("nlpkit generate hi >&-", offline_env)
    assert done.returncode == 2
    assert "Standard output is closed" in done.stderr
    out = tmp_path / "out.txt"
    done = shell(f"nlpkit generate hi --stats -o '{out}' 2>&-", offline_env)
    assert done.returncode == 0
    assert out.read_text() == "HI\n"


def test_named_pipe_as_a_file(offline_env: dict[str, str]) -> None:
    done = shell("nlpkit generate -f <(printf one) -f <(printf two)", offline_env)
    assert (done.returncode, done.stdout) == (0, "ONE\n\nTWO\n")


def test_size_limit_of_the_process(offline_env: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    line = f"seq 5000 | (ulimit -f 8; trap '' XFSZ; nlpkit generate --lines -o '{folder}/o')"
    done = shell(line, offline_env)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert list(folder.iterdir()) == []
