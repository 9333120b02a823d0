"""Writing and reading SentencePiece models.

A GGUF file holds the pieces, scores and types of a SentencePiece vocabulary but not the model file. Written
back into one, the sentencepiece library itself reads it, and so every detail of its algorithm is the
original's. The format is protocol buffers (``sentencepiece_model.proto``); the few fields that matter are
written by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from nlpkit.core.errors import TokenizerError


class PieceType(IntEnum):
    """Kinds of pieces; GGUF's ``token_type`` has the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class SpmAlgorithm(IntEnum):
    """Segmentation algorithms."""

    UNIGRAM = 1
    BPE = 2


@dataclass(frozen=True)
class VocabularyPiece:
    """One vocabulary entry.

    Attributes:
        text: Its spelling, with U+2581 for a space.
        score: Log-probability (unigram) or minus the merge rank (BPE).
        type: What it stands for.
    """

    text: str
    score: float
    type: PieceType


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(field: int, value: int) -> bytes:
    # Negative numbers are written as their 64-bit complement.
    return _varint(field << 3) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _data(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


_FLOAT = struct.Struct("<Bf")
"""A float of four bytes behind its key; field 2 has the key 0x15."""


def write_spm_model(
    pieces: Sequence[VocabularyPiece],
    *,
    algorithm: SpmAlgorithm,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    charsmap: bytes = b"",
    bos_id: int | None = None,
    eos_id: int | None = None,
    pad_id: int | None = None,
) -> bytes:
    """Return the bytes of a SentencePiece model.

    Args:
        pieces: The vocabulary in the order of ids; one of them, and only one, is of type UNKNOWN.
        algorithm: How text is segmented.
        add_dummy_prefix: Put a space in front of every text.
        remove_extra_whitespaces: Fold runs of spaces and strip the ends.
        charsmap: Compiled normalisation rules; empty for none.
        bos_id: Id of the beginning-of-sequence piece, or None.
        eos_id: Id of the end-of-sequence piece, or None.
        pad_id: Id of the padding piece, or None.
    """
    out = bytearray()
    kinds = {kind: _integer(3, kind) for kind in PieceType}
    for piece in pieces:
        text = piece.text.encode()
        score_and_kind = _FLOAT.pack(0x15, piece.score) + kinds[piece.type]
        size = len(text) + len(score_and_kind) + 2
        if size > 0x7F:
            out += _data(1, _data(1, text) + score_and_kind)
        else:
            # A vocabulary has tens of thousands of short pieces, and every start of a command makes this model.
            out += bytes((0x0A, size, 0x0A, len(text))) + text + score_and_kind
    unk_id = next((index for index, piece in enumerate(pieces) if piece.type is PieceType.UNKNOWN), -1)
    byte_fallback = any(piece.type is PieceType.BYTE for piece in pieces)
    trainer = _integer(3, algorithm) + _integer(4, len(pieces)) + _integer(35, byte_fallback)
    for field, spelling_field, index in ((40, 45, unk_id), (41, 46, bos_id), (42, 47, eos_id), (43, 48, pad_id)):
        trainer += _integer(field, -1 if index is None else index)
        if index is not None and 0 <= index < len(pieces):
            trainer += _data(spelling_field, pieces[index].text.encode())
    normalizer = (
        _data(1, b"nmt_nfkc" if charsmap else b"identity")
        + _data(2, charsmap)
        + _integer(3, add_dummy_prefix)
        + _integer(4, remove_extra_whitespaces)
        + _integer(5, True)
    )
    return bytes(out + _data(2, trainer) + _data(3, normalizer))


@dataclass(frozen=True, kw_only=True)
class SpmModel:
    """What `read_spm_model` found.

    Attributes:
        pieces: The vocabulary in the order of ids.
        algorithm: Its number; see `SpmAlgorithm` for those that GGUF knows.
        add_dummy_prefix: Whether a space is put in front of every text.
        remove_extra_whitespaces: Whether runs of spaces are folded.
        charsmap: Compiled normalisation rules.
    """

    pieces: tuple[VocabularyPiece, ...]
    algorithm: int
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Walk over one protocol buffer message: field number and value."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise TokenizerError("A SentencePiece model is cut short or damaged.")
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        length = number() if kind == 2 else {1: 8, 5: 4}.get(kind, len(data) + 1)
        if length > len(data) - at:
            raise TokenizerError("A SentencePiece model is cut short or damaged.")
        yield key >> 3, data[at : at + length]
        at += length


def read_spm_model(data: bytes) -> SpmModel:
    """Read the vocabulary and switches of a serialized SentencePiece model.

    Args:
        data: The contents of a ``tokenizer.model`` file.

    Raises:
        TokenizerError: It is damaged.
    """
    pieces: list[VocabularyPiece] = []
    algorithm, flags, charsmap = int(SpmAlgorithm.UNIGRAM), {3: True, 4: True}, b""
    for field, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if field == 1:
            entry = dict(_fields(value))
            text, score, kind = entry.get(1, b""), entry.get(2, bytes(4)), entry.get(3, 1)
            if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
                raise TokenizerError("A SentencePiece model is damaged: a piece is no text with a score.")
            if not isinstance(kind, int) or kind not in set(PieceType):
                raise TokenizerError("A SentencePiece model is damaged: a piece is of an unknown type.")
            pieces.append(
                VocabularyPiece(text.decode("utf-8", "replace"), struct.unpack("<f", score)[0], PieceType(kind))
            )
        elif field == 2:
            number = dict(_fields(value)).get(3, algorithm)
            algorithm = number if isinstance(number, int) else algorithm
        elif field == 3:
            settings = dict(_fields(value))
            flags = {key: bool(settings.get(key, True)) for key in (3, 4)}
            rules = settings.get(2, b"")
            charsmap = rules if isinstance(rules, bytes) else b""
    return SpmModel(
        pieces=tuple(pieces),
        algorithm=algorithm,
        add_dummy_prefix=flags[3],
        remove_extra_whitespaces=flags[4],
        charsmap=charsmap,
    )
