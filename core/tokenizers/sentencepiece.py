"""`SentencePieceTokenizer`: SentencePiece models (``tokenizer.model``), with HF's added tokens on top."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlpkit.core.errors import TokenizerError
from nlpkit.core.files.read import read_small_file
from nlpkit.core.tokenizers.special_tokens import AddedSpec, read_special_tokens
from nlpkit.core.tokenizers.unicode import check_unicode

MAX_MODEL_BYTES = 256 * 2**20
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNKNOWN = " ⁇ "


class SentencePieceTokenizer:
    """A SentencePiece model (Kudo and Richardson 2018, arXiv:1808.06226) behind the `Tokenizer` protocol.

    A text is cut at added tokens first, and at special ones only where `parse_special` says so; the stretches between
    are encoded by the model. Only the first stretch of a text gets the model's dummy prefix space, unless
    `prefix_sections`. Decoding joins `token_bytes` and drops one leading space where the model puts one in front.

    Args:
        model: Serialized model, or the path of its file.
        bos_id: Beginning-of-sequence id; None takes the model's own, if it has one.
        eos_ids: Ids that end a completion; None takes the model's own.
        added: Tokens on top of the model's vocabulary, or in place of its entries; all need an id.
        prefix_sections: Whether the stretches behind added tokens get the dummy prefix space, too.

    Raises:
        TokenizerError: The model cannot be read, or an id contradicts it.

    Attributes:
        eos_id: The one of `eos_ids` that ends a text, where the files tell it from those that end a turn; else None.
        notes: What a user should know about what was read.
        prefixes_sections: Whether the text behind a special token gets a space in front, as the start of a text does.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        *,
        bos_id: int | None = None,
        eos_ids: Iterable[int] | None = None,
        added: Sequence[AddedSpec] = (),
        prefix_sections: bool = False,
    ) -> None:
        self._proto, origin = _read_model(model)
        self._model = _processor(self._proto, origin)
        self._added: dict[int, AddedSpec] = {}
        for spec in added:
            if spec.id is None or spec.id < 0 or not spec.content:
                raise TokenizerError(f"The added token {spec.content!r} has the id {spec.id}; it needs one from 0 on.")
            self._added[spec.id] = spec
        size = int(self._model.vocab_size())
        controls = {i: self._model.id_to_piece(i) for i in range(size) if self._model.is_control(i)}
        self._special = {spec.content: i for i, spec in self._added.items() if spec.special}
        self._special.update({piece: i for i, piece in controls.items() if i not in self._added})
        self._plain = {spec.content: i for i, spec in self._added.items() if not spec.special}
        self._special_ids = frozenset(self._special.values())
        own_bos, own_eos = int(self._model.bos_id()), int(self._model.eos_id())
        self._bos_id = bos_id if bos_id is not None else (own_bos if own_bos >= 0 else None)
        self._eos_ids = frozenset(eos_ids if eos_ids is not None else ([own_eos] if own_eos >= 0 else []))
        self.adds_bos = self._bos_id is not None
        self.eos_id: int | None = None
        self.notes: tuple[str, ...] = ()
        self._vocab_size = max([size - 1, *self._added]) + 1
        pieces = "".join(self._model.encode("x", out_type=str))
        if pieces.endswith("▁"):
            raise TokenizerError(
                f"{origin} marks spaces at the end of words (treat_whitespace_as_suffix), which is not supported."
            )
        self._has_prefix = pieces.startswith("▁")
        self.prefixes_sections = prefix_sections and self._has_prefix

    @classmethod
    def from_files(cls, directory: str | Path) -> SentencePieceTokenizer:
        """Load ``tokenizer.model`` and the JSON files beside it from a directory in the HF layout.

        Raises:
            TokenizerError: A file is missing or cannot be used.
        """
        directory = Path(directory)
        special = read_special_tokens(directory)
        plain = cls(directory / "tokenizer.model", added=special.added)
        bos_id, eos_ids = special.resolve(plain.token_to_id)
        eos_ids |= plain.eos_ids if special.eos is None else frozenset()
        sections = special.config.get("prefix_sections") is True
        result = cls(plain._proto, bos_id=bos_id, eos_ids=eos_ids, added=special.added, prefix_sections=sections)
        result.eos_id = special.stated_eos(result.token_to_id)
        stated = special.config.get("add_bos_token")
        if isinstance(stated, bool):
            result.adds_bos = stated and result.bos_id is not None
        return result

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._vocab_size

    @property
    def bos_id(self) -> int | None:
        """Beginning-of-sequence id, or None."""
        return self._bos_id

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a completion."""
        return self._eos_ids

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens, which ordinary text never encodes to."""
        return self._special_ids

    @property
    def special_spellings(self) -> dict[str, int]:
        """Spelling and id of each special token."""
        return dict(self._special)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over the model, the added tokens and the special ids."""
        digest = hashlib.sha256(self._proto)
        added = [
            [i, self._added[i].content, self._added[i].special, *_flags(self._added[i])] for i in sorted(self._added)
        ]
        sections = ["sections"] if self.prefixes_sections else []
        digest.update(json.dumps([added, self._bos_id, sorted(self._eos_ids), *sections]).encode())
        return digest.hexdigest()

    def encode(
        self, text: str, *, add_bos: bool = False, parse_special: bool = False, at_start: bool = True
    ) -> list[int]:
        """Tokenize `text`; see `nlpkit.core.tokenizers.tokenizer.Tokenizer.encode`.

        Raises:
            InputError: The text holds a lone surrogate, which no encoding of Unicode has.
            TokenizerError: `add_bos` was asked of a tokenizer without a bos token.
        """
        if add_bos and self._bos_id is None:
            raise TokenizerError("This tokenizer has no beginning-of-sequence token; encode without add_bos.")
        check_unicode(text)
        ids = [self._bos_id] if add_bos and self._bos_id is not None else []
        return ids + self._encode_cut(text, parse_special=parse_special, first=at_start)

    def encode_protected(self, text: str, originals: Mapping[str, str]) -> list[int]:
        """Encode a chat rendering; see `nlpkit.core.chat.template.ProtectingTokenizer`."""
        check_unicode(text)
        restore = str.maketrans(dict(originals))
        ids: list[int] = []
        for piece, token_id, first in self._cut(text, self._special_pattern):
            if token_id is not None:
                ids.append(token_id)
            else:
                anew = first or self.prefixes_sections
                ids += self._encode_cut(piece.translate(restore), parse_special=False, first=anew)
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn ids back into text; see `nlpkit.core.tokenizers.tokenizer.Tokenizer.decode`.

        Ids outside the vocabulary add nothing (models pad their embedding to round sizes).
        """
        data = b"".join(
            self.token_bytes(i) if skip_special or i not in self._special_ids else self._piece(i).encode()
            for i in token_ids
        )
        if self._has_prefix and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one token adds to the text, the leading space of a whole text included.

        Empty for special tokens and ids outside the vocabulary.
        """
        if token_id in self._special_ids or not 0 <= token_id < self._vocab_size:
            return b""
        if token_id in self._added:
            return self._added[token_id].content.encode()
        if token_id >= self._model.vocab_size():
            return b""
        if self._model.is_unknown(token_id):
            return _UNKNOWN.encode()
        piece = self._piece(token_id)
        byte = _BYTE_PIECE.fullmatch(piece) if self._model.is_byte(token_id) else None
        return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()

    def token_to_id(self, token: str) -> int | None:
        """Return the id of one exact vocabulary entry, or None."""
        for table in (self._special, self._plain):
            if token in table:
                return table[token]
        token_id = int(self._model.piece_to_id(token))
        if token_id in self._added or (self._model.is_unknown(token_id) and self._piece(token_id) != token):
            return None
        return token_id

    def id_to_token(self, token_id: int) -> str | None:
        """Return the vocabulary entry of one id, or None."""
        if token_id in self._added or 0 <= token_id < self._model.vocab_size():
            return self._piece(token_id)
        return None

    def save(self, directory: str | Path) -> None:
        """Write ``tokenizer.model``, ``added_tokens.json`` and ``tokenizer_config.json``, which `from_files` reads.

        Args:
            directory: Made if it does not exist.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.model").write_bytes(self._proto)
        eos = [token for i in self._eos_first() if (token := self.id_to_token(i))]
        config: dict[str, Any] = {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": False,
            "add_prefix_space": self._has_prefix,
            "add_bos_token": self.adds_bos,
            "clean_up_tokenization_spaces": False,
            "bos_token": None if self._bos_id is None else self.id_to_token(self._bos_id),
            "eos_token": eos[0] if eos else None,
            "eos_token_ids": sorted(self._eos_ids),
            "added_tokens_decoder": {
                str(i): {"content": spec.content, "special": spec.special, **dict.fromkeys(_flags(spec), True)}
                for i, spec in sorted(self._added.items())
            },
        }
        if self.prefixes_sections:
            config["prefix_sections"] = True
        files = {"tokenizer_config.json": config}
        if self._added:
            files["added_tokens.json"] = {spec.content: i for i, spec in sorted(self._added.items())}
        for name, value in files.items():
            (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _eos_first(self) -> list[int]:
        return sorted(self._eos_ids, key=lambda index: (index != self.eos_id, index))

    def _piece(self, token_id: int) -> str:
        if token_id in self._added:
            return self._added[token_id].content
        return str(self._model.id_to_piece(token_id))

    @functools.cached_property
    def _without_prefix(self) -> Any:
        # Protocol buffers merge a message field that appears twice, so this sets ModelProto.normalizer_spec (field 3)
        # .add_dummy_prefix (field 3) to false and leaves the rest of the specification alone.
        return _processor(self._proto + b"\x1a\x02\x18\x00", "The SentencePiece model")

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return _any_of(self._special)

    @functools.cached_property
    def _plain_pattern(self) -> re.Pattern[str]:
        return _any_of(self._plain)

    @functools.cached_property
    def _full_pattern(self) -> re.Pattern[str]:
        return _any_of({**self._special, **self._plain})

    def _encode_cut(self, text: str, *, parse_special: bool, first: bool) -> list[int]:
        ids: list[int] = []
        for piece, token_id, at_start in self._cut(text, self._full_pattern if parse_special else self._plain_pattern):
            if token_id is not None:
                ids.append(token_id)
            elif piece:
                begins = first if at_start else self.prefixes_sections
                model = self._model if begins or not self._has_prefix else self._without_prefix
                ids += model.encode(piece)
        return ids

    def _cut(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, int | None, bool]]:
        """Yield ``(piece, id or None, whether it is the start of the text)``."""
        done = search = 0
        while match := pattern.search(text, search):
            token_id = self._special.get(match[0], self._plain.get(match[0], -1))
            spec = self._added.get(token_id, _NO_FLAGS)
            around = text[max(0, match.start() - 1) : match.start()] + text[match.end() : match.end() + 1]
            if spec.single_word and any(char.isalnum() or char == "_" for char in around):
                search = match.start() + 1
                continue
            before = text[done : match.start()]
            if spec.lstrip:
                before = before.rstrip()
            if before:
                yield before, None, done == 0
            yield match[0], token_id, match.start() == 0
            done = match.end()
            if spec.rstrip:
                while done < len(text) and text[done].isspace():
                    done += 1
            search = done
        if done < len(text):
            yield text[done:], None, done == 0


_NO_FLAGS = AddedSpec(id=None, content="", special=False)


def _flags(spec: AddedSpec) -> list[str]:
    """Return the names of the flags that are set."""
    return [name for name in ("lstrip", "rstrip", "single_word") if getattr(spec, name)]


def _any_of(spellings: Iterable[str]) -> re.Pattern[str]:
    """Match any of the spellings, the longest first; without spellings match nothing."""
    return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))) or r"(?!)")


def _read_model(model: bytes | str | Path) -> tuple[bytes, str]:
    if isinstance(model, bytes):
        return model, "The SentencePiece model"
    path = Path(model)
    data = read_small_file(path, max_bytes=MAX_MODEL_BYTES, error=TokenizerError, what="a SentencePiece model")
    return data, str(path)


def _processor(proto: bytes, origin: str) -> Any:
    import sentencepiece

    try:
        # An empty model would be a processor without vocabulary that only complains, on stderr, when it is used.
        model = sentencepiece.SentencePieceProcessor(model_proto=proto) if proto else None
        if model is None or model.vocab_size() < 1:
            raise RuntimeError("it has no vocabulary")
    except (RuntimeError, OSError, ValueError, TypeError, IndexError) as error:
        raise TokenizerError(
            f"{origin} is no SentencePiece model or is damaged ({str(error).strip() or 'no details'}). "
            "Download the file again."
        ) from error
    return model
