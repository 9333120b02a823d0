"""Files that have the suffix of a format for people, and hold a program or its settings."""

from __future__ import annotations

import os
import re

from nlpkit.apps.documents.files import display_name
from nlpkit.core.errors import InputError

_PACKAGE = "the settings of a program's package"
_BUILD = "the settings of a program's building"
_LOGGING = "the settings of a program's log"

_NAMES = {
    "package.json": _PACKAGE,
    "package-lock.json": _PACKAGE,
    "composer.json": _PACKAGE,
    "pyproject.toml": _PACKAGE,
    "cargo.toml": _PACKAGE,
    "pubspec.yaml": _PACKAGE,
    "pubspec.lock": _PACKAGE,
    "requirements.txt": _PACKAGE,
    "tsconfig.json": "the settings of a compiler",
    "manifest.json": "the settings of an application",
    "cmakelists.txt": _BUILD,
    "gradle.properties": _BUILD,
    "gradle-wrapper.properties": _BUILD,
    "docker-compose.yml": _BUILD,
    "docker-compose.yaml": _BUILD,
    ".travis.yml": _BUILD,
    ".gitlab-ci.yml": _BUILD,
    "appveyor.yml": _BUILD,
    "log4j.properties": _LOGGING,
    "log4j2.properties": _LOGGING,
    "logging.properties": _LOGGING,
    "robots.txt": "rules for programs that read a site",
}

_FOLDERS = ((".github", "workflows"), (".github", "actions"))
"""Folders whose YAML is for programs."""

_PHP_PROGRAM = re.compile(
    rb"^[ \t]*(?:(?:(?:abstract|final|readonly)[ \t]+)*(?:class|interface|trait|enum)[ \t]+\w+[^=;\n]*(?:$|\{)"
    rb"|namespace[ \t]+[\w\\]+[ \t]*[;{]|function[ \t]+&?\w+[ \t]*\()",
    re.MULTILINE,
)
"""Lines that PHP has in programs and not in arrays of messages."""


def check_for_people(path: str, head: bytes, format_name: str | None) -> None:
    """Refuse a file that is known to hold nothing for people.

    Args:
        path: Its path.
        head: Its first bytes.
        format_name: The format that its name tells, or None.

    Raises:
        InputError: It is a program, or holds the settings of one.
    """
    parts = path.lower().replace(os.sep, "/").removesuffix(".gz").split("/")
    what = _NAMES.get(parts[-1])
    if what is None and format_name == "yaml" and any(tuple(parts[-3:-1]) == folder for folder in _FOLDERS):
        what = _BUILD
    if format_name == "php" and _PHP_PROGRAM.search(head):
        raise InputError(f"{display_name(path)} is a program and no array of messages, so it must not be translated.")
    if what is not None:
        raise InputError(
            f"{display_name(path)} holds {what}, which must not be translated. Say --input-format "
            f"{format_name or 'text'} to have its texts translated all the same."
        )
