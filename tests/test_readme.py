"""The pages written for people: their commands parse, their links resolve, and nothing of a workplace is in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import whole
from pages import PAGES, ROOT, Block, blocks, commands, prose

from nlpkit.cli import build_command

_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
_CODE_SPAN = re.compile(r"`(?P<code>[^`\n]+)`")
ids = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def set_up_commands() -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.split("\n## Set-up\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)\n```$", section, re.MULTILINE | re.DOTALL)


def test_exactly_two_set_up_commands() -> None:
    first, second = set_up_commands()
    for command in (first, second):
        assert "\n" not in command
        assert command.startswith("pip install ")
    assert re.fullmatch(r"pip install \. && nlpkit .+", first)
    assert re.fullmatch(r"pip install -e '\.\[dev\]' && pytest", second)


def nlpkit_lines(command: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of nlpkit in a shell line."""
    tokens = shlex.split(command, comments=True)
    call: list[str] | None = None
    for token in [*tokens, "&&"]:
        if token in ("&&", "|", ";", ">") or token.endswith(";"):
            if call is not None:
                yield [*call, token[:-1]] if len(token) > 1 and token.endswith(";") else call
            call = None
        elif token == "nlpkit" and call is None:
            call = []
        elif call is not None:
            call.append(token)


def parse(arguments: list[str]) -> None:
    """Parse a command line as nlpkit does, without running it."""
    command: Any = build_command(plain=True)
    name = "nlpkit"
    # The groups' own options are switches, so the first word that is none names the command.
    while hasattr(command, "commands") and not all(word.startswith("-") for word in arguments):
        place = next(i for i, word in enumerate(arguments) if not word.startswith("-"))
        name = arguments[place]
        assert name in command.commands, f"there is no command {name!r}"
        command, arguments = whole(command.commands[name]), arguments[:place] + arguments[place + 1 :]
    if "--help" not in arguments:
        command.make_context(name, list(arguments))


@ids
def test_commands_parse(page: Path) -> None:
    for block in blocks(page):
        for line in commands(block):
            for arguments in nlpkit_lines(line):
                try:
                    parse(arguments)
                except Exception as error:
                    pytest.fail(f"{block.name}: `nlpkit {shlex.join(arguments)}`: {error}")


@ids
def test_options_named_in_the_text_exist(page: Path) -> None:
    known = set(all_options(build_command(plain=True)))
    foreign = {"--no-deps", "--help", "--import-mode", "--check", "--fix"}
    text = prose(page)
    named = {
        option
        for span in _CODE_SPAN.finditer(text)
        # Only spans about nlpkit: others speak of pip, git and the like.
        if not span["code"].startswith(("pip ", "pytest ", "python", "uv ", "git ", "ruff ", "mypy "))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span["code"])
    }
    assert named <= known | foreign, f"{page.name} names options that do not exist: {sorted(named - known - foreign)}"


def all_options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from all_options(whole(child))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = (match["title"] for match in _HEADING.finditer(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@ids
def test_links_resolve(page: Path) -> None:
    for match in _LINK.finditer(prose(page)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.is_relative_to(ROOT), f"{page.name} links outside the project: {target}"
        assert path.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}, which is no heading"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {match["target"].partition("#")[0] for match in _LINK.finditer(prose(ROOT / "README.md"))}
    missing = [
        str(page.relative_to(ROOT)) for page in PAGES if str(page.relative_to(ROOT)) not in {*linked, "README.md"}
    ]
    assert not missing


def test_files_named_in_the_text_exist() -> None:
    named = {
        (page.name, span["code"])
        for page in PAGES
        for span in _CODE_SPAN.finditer(prose(page))
        if re.fullmatch(r"(?:core|apps|eval|tests|docs)/[\w/.-]+\.(?:py|md|txt)", span["code"])
    }
    missing = sorted(f"{page}: {name}" for page, name in named if not (ROOT / name).exists())
    assert named
    assert not missing


@ids
def test_nothing_of_a_workplace(page: Path) -> None:
    text = page.read_text("utf-8")
    for pattern in (
        r"(?<![\w.`/:~-])/(?:home|work|tmp|root|opt|mnt|Users|var)/\w+",
        r"\bC:\\",
        r"\bissues? #?\d+\b",
        r"\b(?:this session|helper session|sub-?agent|TODO|FIXME|XXX)\b",
    ):
        found = re.search(pattern, text)
        assert found is None, f"{page.name} has {found.group()!r}" if found else ""


def test_the_wheel_named_in_the_pages_is_the_catalogues() -> None:
    from nlpkit.core.fetch.catalogue import WheelSource, find_entry

    entry = find_entry("default")
    assert entry is not None
    source = entry.sources[0]
    assert isinstance(source, WheelSource)
    text = (ROOT / "docs" / "models.md").read_text("utf-8")
    for wanted in (source.wheel, f"{source.package}=={source.version}"):
        assert wanted in text


def test_helpers_see_what_they_should(tmp_path: Path) -> None:
    block = Block(tmp_path, "console", "$ a | nlpkit qa x -c - && nlpkit doctor; echo\nout\n", "")
    assert [list(nlpkit_lines(line)) for line in commands(block)] == [[["qa", "x", "-c", "-"], ["doctor"]]]
    with pytest.raises(AssertionError, match="no command"):
        parse(["sumarize", "x"])
    with pytest.raises(Exception, match="--lenght"):
        parse(["summarize", "x", "--lenght", "short"])
