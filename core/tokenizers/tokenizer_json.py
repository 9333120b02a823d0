"""Opens tokenizer files in the HF layout as objects of the `tokenizers` library."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nlpkit.core.errors import TokenizerError, shown
from nlpkit.core.files.read import read_small_file
from nlpkit.core.tokenizers.json_bounds import check_spelling, check_tokenizer_json
from nlpkit.core.tokenizers.special_tokens import SpecialTokens, read_json

# One text at a time is encoded here, so the library's thread pool brings nothing but a warning at every fork.
# Said before the library is imported, which functions here and in `bpe` do.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    import tokenizers

MAX_TOKENIZER_BYTES = 128 * 2**20
_T = TypeVar("_T")


@functools.cache
def byte_to_char() -> tuple[str, ...]:
    """Return the printable character that stands for each byte in byte-level BPE vocabularies (GPT-2).

    Printable Latin-1 bytes stand for themselves; the other 68 take the code points from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table, spare = [], 256
    for byte in range(256):
        if byte in printable:
            table.append(chr(byte))
        else:
            table.append(chr(spare))
            spare += 1
    return tuple(table)


@functools.cache
def char_to_byte() -> dict[str, int]:
    """Return the inverse of `byte_to_char`."""
    return {char: byte for byte, char in enumerate(byte_to_char())}


def load_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """Open one ``tokenizer.json``.

    Raises:
        TokenizerError: The file is missing, too large or damaged.
    """
    import tokenizers

    data = read_small_file(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError, what="a tokenizer file")
    try:
        text = data.decode("utf-8")
        check_tokenizer_json(text)
    except ValueError as error:
        raise TokenizerError(
            f"The tokenizer file {path} is damaged or hostile: {error}. Download it again, or use another model."
        ) from error
    tokenizer = _guarded(lambda: tokenizers.Tokenizer.from_str(text), path)
    # At once: with the padding of the file, one letter could become a billion tokens.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _guarded(build: Callable[[], _T], path: Path) -> _T:
    """Run library code that reads an untrusted file and turn whatever it throws into our error."""
    with _no_panic() as failed:
        return build()
    raise TokenizerError(
        f"The tokenizer file {path} is damaged or of an unknown kind ({failed[0]}). Download it again."
    ) from failed[0]


def run_library(call: Callable[[], _T]) -> _T:
    """Run library code on a text or on tokens, and turn whatever it throws into our error.

    Raises:
        TokenizerError: The library gave up, say on a regular expression of the file that backtracks without end.
    """
    with _no_panic() as failed:
        return call()
    raise TokenizerError(
        f"The model's tokenizer fails on this text ({shown(str(failed[0]))}). Its file is damaged or hostile; use "
        "another model."
    ) from failed[0]


@contextlib.contextmanager
def _no_panic() -> Iterator[list[BaseException]]:
    """Catch what the library throws, and tell it."""
    failed: list[BaseException] = []
    stderr = _silence()
    try:
        yield failed
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the Rust code is no Exception
        failed.append(error)
    finally:
        if stderr is not None:
            os.dup2(stderr, 2)
            os.close(stderr)


@functools.cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _silence() -> int | None:
    """Send standard error nowhere: Rust writes a trace of a panic to it before it throws.

    It belongs to the whole process, so it is left alone where other threads might write. That costs 2 microseconds.

    Returns:
        A copy of standard error, to put back; None where nothing was done.
    """
    if threading.active_count() > 1:
        return None
    try:
        stderr = os.dup(2)
        os.dup2(_nowhere(), 2)
    except OSError:  # closed
        return None
    return stderr


def load_vocab_and_merges(directory: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Open GPT-2's ``vocab.json`` and ``merges.txt``.

    Args:
        directory: Where both lie.
        config: ``tokenizer_config.json``; its ``add_prefix_space`` matters.

    Raises:
        TokenizerError: One is missing or damaged, or they are no byte-level BPE.
    """
    import tokenizers

    vocab_path, merges_path = directory / "vocab.json", directory / "merges.txt"
    missing = [path.name for path in (vocab_path, merges_path) if not path.exists()]
    if missing:
        raise TokenizerError(
            f"{directory} has no tokenizer: neither tokenizer.json nor {' and '.join(missing)} is there."
        )
    vocab = read_json(vocab_path)
    if not all(char in vocab for char in byte_to_char()):
        raise TokenizerError(
            f"{vocab_path} is no byte-level BPE vocabulary (GPT-2's kind): some of the 256 byte symbols are "
            "missing. Convert the tokenizer to tokenizer.json with transformers first."
        )
    data = read_small_file(merges_path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError, what="a tokenizer file")
    try:
        lines = [line for line in data.decode("utf-8").split("\n") if line and not line.startswith("#version")]
    except ValueError as error:
        raise TokenizerError(f"The tokenizer file {merges_path} is damaged: {error}. Download it again.") from error
    merges = [(left, right) for left, _, right in (line.rstrip("\r").partition(" ") for line in lines)]
    model = _guarded(lambda: tokenizers.models.BPE(vocab, merges), merges_path)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=bool(config.get("add_prefix_space", False))
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def apply_added(tokenizer: tokenizers.Tokenizer, special: SpecialTokens, directory: Path) -> None:
    """Bring the object in line with what the files beside it say about added and special tokens.

    Raises:
        TokenizerError: The files give one token two ids.
    """
    import tokenizers

    present = tokenizer.get_added_tokens_decoder()
    try:
        for spelling in (*special.named, *(spec.content for spec in special.added)):
            check_spelling(spelling)
    except ValueError as error:
        raise TokenizerError(f"The tokenizer in {directory} is damaged or hostile: {error}.") from error
    for spec in special.added:
        known = present.get(spec.id) if spec.id is not None else None
        if known is not None and known.content == spec.content and known.special >= spec.special:
            continue
        token = tokenizers.AddedToken(
            spec.content,
            special=spec.special,
            lstrip=spec.lstrip,
            rstrip=spec.rstrip,
            single_word=spec.single_word,
            normalized=spec.normalized,
        )
        (tokenizer.add_special_tokens if spec.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(spec.content) != spec.id:
            raise TokenizerError(
                f"The tokenizer in {directory} contradicts itself: its settings give {spec.content!r} the id "
                f"{spec.id}, its vocabulary {tokenizer.token_to_id(spec.content)}."
            )
    present = tokenizer.get_added_tokens_decoder()
    marked = {token.content for token in present.values() if token.special}
    unmarked = [s for s in special.named if s not in marked and tokenizer.token_to_id(s) is not None]
    if unmarked:
        tokenizer.add_special_tokens([tokenizers.AddedToken(s, special=True, normalized=False) for s in unmarked])
