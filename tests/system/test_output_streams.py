"""``-o`` onto what is open already, and signals that end a command while it writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")]

WRITE = """
import sys
from nlpkit.apps.cli.output import Writer
from nlpkit.core.errors import NlpkitError
try:
    with Writer(sys.argv[1]) as out:
        out.write("result")
except NlpkitError as error:
    sys.exit(str(error))
"""
HANG = """
import sys, time
from nlpkit.apps.cli.output import Writer
from nlpkit.apps.cli.process import run_process
class Command:
    def main(self, args, prog_name, standalone_mode):
        with Writer(sys.argv[1]) as out:
            out.write("half")
            print("ready", flush=True)
            time.sleep(60)
sys.exit(run_process(Command(), []))
"""


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = line.replace("WRITE", f'"{sys.executable}" -c "$WRITE"')
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "WRITE": WRITE},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_name_is_standard_output(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    (tmp_path / "f").write_text("before\n")
    done = shell(f"{{ echo header; WRITE {name}; echo footer; }} >> f", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f").read_text() == "before\nheader\nresult\nfooter\n"
    assert shell(f"WRITE {name} | cat", tmp_path).stdout == "result\n"


def test_other_open_files(tmp_path: Path) -> None:
    assert shell("WRITE >(cat > out); for i in 1 2 3 4 5; do test -s out || sleep 0.3; done", tmp_path).returncode == 0
    assert (tmp_path / "out").read_text() == "result\n"
    assert shell("WRITE /dev/stderr", tmp_path).stderr == "result\n"
    shell("exec 7>>g; echo a >&7; WRITE /dev/fd/7; echo b >&7", tmp_path)
    assert (tmp_path / "g").read_text() == "a\nresult\nb\n"
    assert "cannot be written" in shell("WRITE /dev/fd/19", tmp_path).stderr
    done = shell("{ echo header; WRITE h; } > h", tmp_path)
    assert "where standard output goes" in done.stderr
    assert (tmp_path / "h").read_text() == "header\n"


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGTERM"])
def test_signals_leave_nothing_behind(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    number = getattr(signal, name)
    process = subprocess.Popen(
        [sys.executable, "-c", HANG, str(target)],
        stdout=subprocess.PIPE,
        # A shell's background jobs, these tests perhaps among them, ignore some signals, and their children too.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    process.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "old"


def test_under_nohup_a_command_goes_on_and_what_a_kill_leaves_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", HANG, str(target)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    assert [path.name[:8] for path in tmp_path.iterdir()] == [".nlpkit-"]
    assert shell("WRITE out.txt", tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
