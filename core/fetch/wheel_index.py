"""Finds a wheel on the package indexes that the user's own settings name.

The settings are those of uv and pip: their environment variables, and pip's configuration files as ``pip config list``
tells them. The indexes are read as PEP 503 (HTML) or PEP 691 (JSON) say. That the wheel is the right one is not decided
here: its sha256 is known beforehand.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import url2pathname

from nlpkit.core.errors import without_secrets
from nlpkit.core.fetch.download import DownloadError, read_url

PYPI = "https://pypi.org/simple"
MAX_PAGE_BYTES = 32 * 2**20
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_PIP_SETTING = re.compile(r"^[\w.:-]+\.([\w-]+)='(.*)'$")


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Where to look for packages.

    Attributes:
        indexes: URLs of simple indexes, in order.
        find_links: Folders, and URLs of pages, with links to files.
    """

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]


def has_pip() -> bool:
    """Return whether this Python has pip (environments made by uv have none)."""
    return importlib.util.find_spec("pip") is not None


@functools.cache
def pip_config() -> dict[str, str]:
    """Return pip's settings, the environment's over the files', by their long name; empty without pip."""
    if not has_pip():
        return {}
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, str] = {}
    # The sections that matter to an installation, weakest first: pip lets a command's section win over [global].
    for section in ("global.", "install.", "download.", ":env:."):
        for line in done.stdout.splitlines():
            match = _PIP_SETTING.match(line.strip()) if line.startswith(section) else None
            if match:
                found[match[1]] = _unquoted(line.strip().partition("=")[2])
    return found


def index_settings() -> IndexSettings:
    """Return the user's settings; PyPI where they name no index."""
    pip = pip_config()
    environment = os.environ
    no_index = pip.get("no-index") or environment.get("PIP_NO_INDEX") or environment.get("UV_NO_INDEX") or ""
    main = (
        environment.get("UV_DEFAULT_INDEX")
        or environment.get("UV_INDEX_URL")
        or environment.get("PIP_INDEX_URL")
        or pip.get("index-url")
        or PYPI
    )
    extra = " ".join(
        filter(
            None,
            [
                environment.get("UV_INDEX"),
                environment.get("UV_EXTRA_INDEX_URL"),
                environment.get("PIP_EXTRA_INDEX_URL"),
                pip.get("extra-index-url"),
            ],
        )
    )
    links = " ".join(
        filter(
            None,
            [
                (environment.get("UV_FIND_LINKS") or "").replace(",", " "),
                environment.get("PIP_FIND_LINKS"),
                pip.get("find-links"),
            ],
        )
    )
    # uv allows "name=url"; a "=" in front of the scheme can be nothing else.
    urls = [re.sub(r"^[\w.-]+=(?=[a-z]+:)", "", url) for url in [main, *extra.split()]]
    indexes = () if no_index.strip().lower() in {"1", "true", "yes", "on"} else tuple(dict.fromkeys(urls))
    return IndexSettings(indexes=indexes, find_links=tuple(dict.fromkeys(links.split())))


def find_wheel(index: str, *, package: str, wheel: str) -> str:
    """Look a wheel up on one simple index.

    Args:
        index: URL of the index, ``http(s):`` or ``file:``.
        package: Name of the package.
        wheel: File name of the wheel.

    Returns:
        The URL of the wheel.

    Raises:
        DownloadError: The index cannot be read or does not have the wheel.
    """
    name = re.sub(r"[-_.]+", "-", package).lower()
    return find_link(f"{index.rstrip('/')}/{name}/", wheel=wheel)


def find_link(page_url: str, *, wheel: str) -> str:
    """Find the link to a file on one page, or the file itself in one local folder.

    Raises:
        DownloadError: The page cannot be read or does not have the link.
    """
    folder = local_path(page_url)
    if folder is not None:
        if (folder / wheel).is_file():
            return (folder / wheel).absolute().as_uri()
        page = folder / "index.html" if folder.is_dir() else folder
        try:
            if not page.is_file() or page.stat().st_size > MAX_PAGE_BYTES:
                raise DownloadError(f"{page_url} has no {wheel}", kind="absent")
            body, content_type, base = page.read_bytes(), "text/html", page.absolute().as_uri()
        except OSError as error:
            raise DownloadError(f"{page} cannot be read: {error.strerror or error}", kind="absent") from error
    else:
        body, content_type, base = read_url(page_url, accept=_ACCEPT, limit=MAX_PAGE_BYTES)
    for href in _links(body, content_type):
        url = urllib.parse.urldefrag(urllib.parse.urljoin(base, href))[0]
        if urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2] == wheel:
            return _with_credentials(url, page_url)
    raise DownloadError(f"{without_secrets(page_url)} has no {wheel}", kind="absent")


def local_path(location: str) -> Path | None:
    """Return the path of a ``file:`` URL or a plain path; None for a URL of another kind."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    # One letter is a Windows drive.
    return None if len(parts.scheme) > 1 else Path(location).expanduser()


def _with_credentials(url: str, page_url: str) -> str:
    """Carry the user and password of an index over to files on the same host, as pip does."""
    page, link = urllib.parse.urlsplit(page_url), urllib.parse.urlsplit(url)
    user, at, host = page.netloc.rpartition("@")
    same = (link.scheme, link.netloc) == (page.scheme, host)
    return link._replace(netloc=user + at + host).geturl() if at and same else url


def _links(body: bytes, content_type: str) -> list[str]:
    text = body.decode("utf-8", "replace")
    if content_type.partition(";")[0].strip().endswith("json"):
        try:
            files = json.loads(text)["files"]
            return [file["url"] for file in files if isinstance(file["url"], str)]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DownloadError(f"the index gave a page that cannot be read ({error})", kind="absent") from error
    parser = _Anchors()
    parser.feed(text)
    return parser.found


class _Anchors(HTMLParser):
    """Collects the addresses of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.extend(value for name, value in attrs if name == "href" and value)


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value.strip("'\"")
