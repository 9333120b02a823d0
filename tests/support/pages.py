"""The pages written for people, taken apart for the tests."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The file.
        language: What stands behind the fence.
        code: The text inside.
        before: The page's text between the block before and this one.
    """

    page: Path
    language: str
    code: str
    before: str

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"{self.page.relative_to(ROOT)}: {self.code[:40]!r}"


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    text = page.read_text("utf-8")
    found = []
    end = 0
    for match in _FENCE.finditer(text):
        found.append(Block(page, match["language"], match["code"], text[end : match.start()]))
        end = match.end()
    return found


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def commands(block: Block) -> list[str]:
    """Return the shell lines of a block: all of ``sh``, those behind ``$`` of ``console``."""
    lines = block.code.splitlines()
    if block.language == "console":
        return [line[2:] for line in lines if line.startswith("$ ")]
    if block.language != "sh":
        return []
    found: list[str] = []
    open_quote = False
    for line in lines:
        if open_quote:
            found[-1] += f"\n{line}"
        elif line.strip() and not line.startswith("#"):
            found.append(line)
        else:
            continue
        open_quote = _has_open_quote(found[-1])
    return found


def _has_open_quote(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def scripts(page: Path) -> list[tuple[Block, str | None]]:
    """Return a page's Python blocks, each with what the page says it prints, where it says so."""
    found = blocks(page)
    pairs = []
    for block, following in zip(found, [*found, None][1:], strict=True):
        if block.language == "python":
            told = following is not None and following.language == "text" and "prints:" in following.before
            pairs.append((block, following.code if following is not None and told else None))
    return pairs
