"""API keys: a file of their hashes, so that whoever reads it cannot come in."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from nlpkit.core.errors import ConfigError

_HASH = re.compile(r"[0-9a-fA-F]{64}")
MOST_BYTES = 2**20
"""Largest file of keys."""


def hash_key(key: str) -> bytes:
    """Return what is kept of a key. Keys are long and random: a slow hash would add nothing."""
    # Not every string that a program may be given is text; one that is not is a wrong key like any other.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def knows_key(key: str, hashes: frozenset[bytes]) -> bool:
    """Tell whether a key is one of those, in a time that does not depend on which; an empty one is none."""
    given = hash_key(key)
    found = False
    for known in hashes:
        found |= hmac.compare_digest(given, known)
    return found and bool(key)


def bearer_key(header: str) -> str:
    """Return the key in an ``Authorization`` header; an empty text where it brings none."""
    kind, _, key = header.partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def read_keys(path: str | Path) -> frozenset[bytes]:
    """Read a file of keys.

    Args:
        path: A text file: each line the SHA-256 of a key in hexadecimal, then, if one likes, whose it is. Lines that
            begin with ``#`` do not count.

    Returns:
        The hashes.

    Raises:
        ConfigError: The file cannot be read, a line is no hash, or there is none.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"The file of keys {str(path)!r} cannot be read: {error.strerror}.") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"The file of keys {str(path)!r} is longer than {MOST_BYTES:,} bytes.")
    found = set()
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word = line.split()[0]
        if not _HASH.fullmatch(word):
            # The line itself is not shown: it may be a key.
            raise ConfigError(
                f"Line {number} of the file of keys {str(path)!r} is no SHA-256 hash. Make one with: "
                "printf %s KEY | sha256sum"
            )
        found.add(bytes.fromhex(word))
    if not found:
        raise ConfigError(f"The file of keys {str(path)!r} holds none: nobody could come in.")
    return frozenset(found)
