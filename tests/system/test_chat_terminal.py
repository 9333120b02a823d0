"""`nlpkit chat` on a real terminal: Ctrl-C stops an answer, not the program."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

FAKE = [sys.executable, str(Path(__file__).resolve().parents[1] / "support" / "fakes.py")]


class Screen:
    """What a terminal shows, read up to what is waited for."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.unread = b""

    def until(self, wanted: bytes, *, seconds: float = 30) -> bytes:
        ends = time.monotonic() + seconds
        while wanted not in self.unread and time.monotonic() < ends:
            if select.select([self.leader], [], [], 0.1)[0]:
                self.unread += os.read(self.leader, 4096)
        assert wanted in self.unread, self.unread
        shown, _, self.unread = self.unread.partition(wanted)
        return shown


def interrupted_until(process: subprocess.Popen[bytes], screen: Screen, wanted: bytes) -> None:
    """Press Ctrl-C until it is heard: between the sign and the wait for a key, readline does not hear one."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(AssertionError):
            screen.until(wanted, seconds=6)
            return
    raise AssertionError(screen.unread)


def test_an_answer_is_stopped_and_the_talk_goes_on(offline_env: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*FAKE, "chat"], stdin=follower, stdout=follower, stderr=follower,
        env={**offline_env, "FAKE_DELAY": "0.05", "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    screen = Screen(leader)
    try:
        screen.until(b"> ")
        os.write(leader, b"abcdefghijklmnopqrstuvwxyz" * 9 + b"\n")
        screen.until(b"ABC")
        process.send_signal(signal.SIGINT)
        assert b"XYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ" not in screen.until(b"stopped")
        # At the sign, it only says how to leave.
        screen.until(b"> ")
        interrupted_until(process, screen, b"Ctrl-D leaves")
        os.write(leader, b"xy\n")
        screen.until(b"XY")
        screen.until(b"> ")
        os.write(leader, b"\x04")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
