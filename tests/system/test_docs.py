"""The pages' examples, run: scripts print what the page says, commands end well."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, Block, blocks, scripts

pytestmark = pytest.mark.system
SCRIPTS = [(block, output) for page in PAGES for block, output in scripts(page) if output is not None]
README = [block for block in blocks(ROOT / "README.md") if block.language == "console"]


def same_but_for_rounding(got: str, expected: str) -> bool:
    """Compare texts word by word; numbers may differ in their last printed digit."""
    number = re.compile(r"-?\d+\.\d+")
    if number.sub("#", got) != number.sub("#", expected):
        return False
    pairs = zip(number.findall(got), number.findall(expected), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * 10 ** -len(b.partition(".")[2]) for a, b in pairs)


def install_headline(folder: Path) -> None:
    """Install the page's own task as a package: the module, and the entry point from its ``pyproject.toml``."""
    page = ROOT / "docs" / "tasks.md"
    module = next(block for block in blocks(page) if "class Headline" in block.code)
    point = next(block for block in blocks(page) if block.language == "toml")
    name, value = re.search(r"^(\w+) = \"(.+)\"$", point.code, re.MULTILINE).groups()  # type: ignore[union-attr]
    assert '[project.entry-points."nlpkit.tasks"]' in point.code
    (folder / "headline.py").write_text(module.code)
    info = folder / "headline-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headline\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nlpkit.tasks]\n{name} = {value}\n")


@pytest.mark.parametrize(("block", "expected"), SCRIPTS, ids=[block.name for block, _ in SCRIPTS])
def test_scripts_print_what_the_page_says(
    block: Block, expected: str, default_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_headline(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(ROOT)
    script = tmp_path / "example.py"
    script.write_text(block.code)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path(str(script))
    finally:
        sys.modules.pop("headline", None)
    assert same_but_for_rounding(out.getvalue(), expected), f"{block.name}\nprints\n{out.getvalue()}"


@pytest.mark.parametrize("block", README, ids=lambda block: block.name)
def test_commands_of_the_readme_run(
    block: Block, default_model: str, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for line in block.code.splitlines():
        if line.startswith("$ "):
            done = cli(*shlex.split(line)[2:])
            assert done.code == 0, done.err
            assert done.out.strip()


def test_comparison_is_strict() -> None:
    assert same_but_for_rounding("p 0.442 x", "p 0.443 x")
    assert not same_but_for_rounding("p 0.442 x", "p 0.445 x")
    assert not same_but_for_rounding("p 0.442 x", "p 0.442 y")
