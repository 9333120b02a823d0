"""``nlpkit serve`` in a process of its own, for what must be asked from outside."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

_SAYS = re.compile(r"its page is (http://\S+?),")


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve on a free port for as long as the block runs; gives the address and the process.

    Raises:
        RuntimeError: The server did not start; the message is what it said.
    """
    command = [sys.executable, "-m", "nlpkit.cli", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = []
            for line in server.stderr or ():
                said.append(line)
                if address := _SAYS.search(line):
                    break
            else:
                raise RuntimeError(f"the server did not start: {''.join(said)}")
            # What it says later must go somewhere, or it would wait for a reader.
            threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
            yield address[1], server
        finally:
            server.terminate()
            server.wait()
