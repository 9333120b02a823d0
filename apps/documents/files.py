"""Opening and decoding what users hand in: each way to fail has its own clear error; memory stays bounded."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import IO, cast

from nlpkit.core.errors import ConfigError, InputError, did_you_mean

STDIN = "-"
"""The path that stands for standard input."""

MAX_BYTES = 64 * 2**20
"""Largest whole input that is read unless the caller says otherwise, in bytes after decompression."""

_GZIP_MAGIC = b"\x1f\x8b"
_BINARY_KINDS = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"GGUF", "a model file"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x7fELF", "a program"),
)
_PACKED = (
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\0", "xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
    (b"Rar!\x1a\x07", "RAR", "unrar x"),
)
"""How packed files begin, by what, and what unpacks them. Gzip is seen through."""
_PATH = re.compile(
    r"(?:\.{0,2}|~)[/\\]\S+|\S*\w\.(?:txt|text|md|rst|html?|xml|json|jsonl|ndjson|csv|tsv|pdf|docx?|odt|rtf|pptx?|xlsx?|"
    r"epub|srt|vtt|ass|po|pot|xliff|xlf|ya?ml|toml|ini|properties|strings|tex|log|eml|ics|svg|gz|zip)",
    re.IGNORECASE,
)
_COMMON_ENCODINGS = (
    "utf-8",
    "utf-16",
    "cp1252",
    "latin-1",
    "cp1250",
    "cp1251",
    "shift_jis",
    "gb18030",
    "big5",
    "euc-kr",
)


def display_name(path: str) -> str:
    """Return `path` as it can be printed: ``standard input`` for ``-``, and no undecodable bytes."""
    if path == STDIN:
        return "standard input"
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_file(text: str) -> bool:
    """Return whether a text is the path of a file, which somebody who passes it as a text may not have meant."""
    try:
        return os.path.isfile(text)
    except ValueError:
        return False


def looks_like_path(text: str) -> bool:
    """Return whether a text that is no file's name looks like one: a single word with a usual suffix, or a folder."""
    if len(text) > 255 or not text.strip() or text.split() != [text] or "://" in text:
        return False
    return _PATH.fullmatch(text) is not None


def stdin_waits() -> bool:
    """Return whether somebody sent something through a pipe, or from the beginning of a file; never waits for it.

    A terminal, an empty or closed input and /dev/null hold nothing. A file that is read already is somebody else's, as
    in a shell's loop over its lines.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return False
    try:
        number = sys.stdin.fileno()
    except (OSError, ValueError):
        # Not the process's own, but what a program put in its place.
        return bool(_peek(cast("io.BufferedReader", getattr(sys.stdin, "buffer", None)), 1))
    try:
        state = os.fstat(number)
        if stat.S_ISREG(state.st_mode):
            return state.st_size > 0 and os.lseek(number, 0, os.SEEK_CUR) == 0
        if not stat.S_ISFIFO(state.st_mode) and not stat.S_ISSOCK(state.st_mode):
            return False
        import fcntl
        import termios

        # Not select: it says "ready" at the end of a pipe as well.
        return any(fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
    except (OSError, ImportError):
        return False


@contextlib.contextmanager
def open_input(path: str) -> Iterator[IO[bytes]]:
    """Open a file or standard input for reading, decompressing gzip by its magic number.

    Args:
        path: A path, or ``-`` for standard input.

    Yields:
        A buffered binary stream. Errors while reading it are turned into `InputError` too, as long as they
        are raised inside the ``with`` block.

    Raises:
        InputError: The file is missing, a directory, unreadable or damaged.
    """
    name = display_name(path)
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(_open_raw(path))
            if _peek(raw, 2) == _GZIP_MAGIC:
                yield cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb")))
            else:
                yield raw
        except FileNotFoundError as error:
            raise InputError(f"There is no file {name!r}. {_nearby(path)}".rstrip()) from error
        except PermissionError as error:
            raise InputError(f"{name} cannot be read: permission denied. Change its mode, or copy it.") from error
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise InputError(
                f"{name} is a damaged or cut-off gzip file ({error}). Get it again; `gzip -t` checks it."
            ) from error
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}.") from error


def read_bytes(path: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read one whole input.

    Args:
        path: A path, or ``-`` for standard input.
        max_bytes: Largest size, after decompression.

    Returns:
        Its bytes, decompressed.

    Raises:
        InputError: The input cannot be read or is larger than `max_bytes`; no more than that is ever held.
    """
    with open_input(path) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(
            f"{display_name(path)} is larger than {max_bytes / 2**20:g} MB. "
            "Split it, or raise the limit with --max-input-mb."
        )
    return data


HEAD = 4096
"""Bytes by which a file is known."""


def read_head(path: str, size: int = HEAD) -> bytes:
    """Return the first bytes of a file, decompressed; none where it cannot be read, or reading would take them away.

    Args:
        path: Its path; standard input is looked at without taking anything from it.
        size: Most bytes.
    """
    if path == STDIN:
        if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
            return b""
        peek = getattr(getattr(sys.stdin, "buffer", None), "peek", None)
        try:
            return b"" if peek is None else bytes(peek(size)[:size])
        except (OSError, ValueError):
            return b""
    if not is_file(path):
        # A pipe that has a name: what is read of it here would be missing later.
        return b""
    try:
        with open(path, "rb") as file:
            head = file.read(size)
        if head.startswith(_GZIP_MAGIC):
            with gzip.open(path) as unpacked:
                head = unpacked.read(size)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
    return head


def check_encoding(name: str) -> str:
    """Return the canonical name of a text encoding.

    Raises:
        ConfigError: There is none of that name, or it does not encode text.
    """
    try:
        info = codecs.lookup(name)
        # Codecs such as rot13 and hex turn text into text or bytes into bytes: bytes.decode refuses those.
        # Not of nothing: Python answers that without asking the codec.
        with contextlib.suppress(UnicodeDecodeError):
            b"text".decode(name)
    except (LookupError, ValueError) as error:
        raise ConfigError(f"There is no text encoding {name!r}. {did_you_mean(name, _COMMON_ENCODINGS)}") from error
    return info.name


def decode_text(
    data: bytes, *, encoding: str = "utf-8", where: str, keep_mark: bool = False, by_option: bool = True
) -> str:
    """Decode strictly; strip a byte order mark.

    Args:
        data: The whole input.
        encoding: Name of a text encoding.
        where: What the data is called in errors.
        keep_mark: Keep a byte order mark that the encoding itself does not take away.
        by_option: Whether the user can name the encoding; errors say else how to get UTF-8.

    Returns:
        The text, its line ends untouched.

    Raises:
        ConfigError: There is no such encoding.
        InputError: The data is binary, or not in this encoding; the message gives the byte, its offset and
            its line.
    """
    encoding = check_encoding(encoding)
    wide = encoding.startswith(("utf-16", "utf-32"))
    _refuse_binary(data, wide=wide, where=where, by_option=by_option)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{data[error.start]:02X} at offset {error.start} (line {line})"
        raise InputError(
            f"{where} is not valid {encoding.upper()}: {got}. {_other_encoding(data, encoding, by_option=by_option)}"
        ) from error
    except UnicodeError as error:
        raise InputError(f"{where} is not valid {encoding.upper()}: {error}.") from error
    if not keep_mark:
        text = text.removeprefix("\ufeff")
    if wide and "\0" in text:
        raise InputError(f"{where} holds NUL characters when read as {encoding.upper()}: that is not a text.")
    return text


def check_text(text: str, *, where: str) -> str:
    """Return `text` if it can be encoded as UTF-8.

    Raises:
        InputError: It holds lone surrogates (undecodable bytes of an argument) or a NUL character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = ord(text[error.start])
        got = f"byte 0x{bad - 0xDC00:02X}" if 0xDC80 <= bad <= 0xDCFF else f"the lone surrogate U+{bad:04X}"
        raise InputError(
            f"{where} is not valid text: {got} at character {error.start}. Give it as a file whose encoding "
            "you name: -f PATH --encoding NAME."
        ) from error
    if "\0" in text:
        raise InputError(f"{where} holds a NUL character at offset {text.index(chr(0))}: that is not a text.")
    return text


def _open_raw(path: str) -> contextlib.AbstractContextManager[io.BufferedReader]:
    if path == STDIN:
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("Standard input is closed. Give the text as an argument, or a file with -f PATH.")
        return contextlib.nullcontext(cast("io.BufferedReader", sys.stdin.buffer))
    if "\0" in path:
        raise InputError(f"{display_name(path)!r} holds a NUL character: that is no path.")
    if stat.S_ISDIR(os.stat(path).st_mode):
        raise InputError(f"{display_name(path)} is a folder. Name the files in it, one -f PATH each.")
    return open(path, "rb")


def _peek(raw: io.BufferedReader, count: int) -> bytes:
    """Look at the first bytes without consuming them; a pipe may show fewer."""
    peek = getattr(raw, "peek", None)
    return bytes(peek(count)[:count]) if peek is not None else b""


def _nearby(path: str) -> str:
    folder, base = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return f"There is no folder {display_name(folder)!r} either." if folder else ""
    hint = did_you_mean(base, names)
    return hint if hint.startswith("Did you mean") else "Check the spelling and the current folder."


def _refuse_binary(data: bytes, *, wide: bool, where: str, by_option: bool) -> None:
    for magic, kind in _BINARY_KINDS:
        if data.startswith(magic):
            raise InputError(f"{where} is {kind}, not a text. Extract its text first.")
    for magic, kind, tool in _PACKED:
        if data.startswith(magic) and b"\0" in data:
            raise InputError(
                f"{where} is packed with {kind}, not a text. Unpack it first ({tool}), or pack it with gzip."
            )
    if data[257:262] == b"ustar":
        raise InputError(f"{where} is a tar archive, not a text. Take its files out first (tar -xf).")
    do = "Add --encoding utf-16." if by_option else _recode("utf-16")
    if not wide and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{where} looks like UTF-16 (it begins with its byte order mark). {do}")
    if not wide and (offset := data.find(b"\0")) >= 0:
        raise InputError(
            f"{where} holds a NUL byte at offset {offset}: it is binary, not a text, unless it is UTF-16. {do}"
        )


def _other_encoding(data: bytes, tried: str, *, by_option: bool) -> str:
    for candidate in ("utf-8", "cp1252"):
        if candidate == tried:
            continue
        try:
            data.decode(candidate)
        except UnicodeDecodeError:
            continue
        if not by_option:
            return _recode(candidate)
        return f"If it is in another encoding, name it, such as --encoding {candidate}."
    return "If it is in another encoding, name it with --encoding." if by_option else _recode("ENCODING")


def _recode(encoding: str) -> str:
    return f"It must be UTF-8; `iconv -f {encoding} -t utf-8` makes it so."
