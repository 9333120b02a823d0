"""`HFTokenizer`: tokenizers in the format of the `tokenizers` library (``tokenizer.json``)."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nlpkit.core.errors import TokenizerError
from nlpkit.core.tokenizers.special_tokens import read_special_tokens
from nlpkit.core.tokenizers.tokenizer_json import (
    apply_added,
    byte_to_char,
    char_to_byte,
    load_tokenizer_json,
    load_vocab_and_merges,
    run_library,
)
from nlpkit.core.tokenizers.unicode import check_unicode

if TYPE_CHECKING:
    import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_Kind = Literal["byte_level", "metaspace", "other"]
_T = TypeVar("_T")


class HFTokenizer:
    """A `tokenizers.Tokenizer` behind the `Tokenizer` protocol.

    Decoding is defined by `token_bytes`: the bytes of all tokens, joined, less one leading space where the
    encoder puts one in front, read as UTF-8. So streamed text and whole text agree by construction. The
    library's own decoder gives the same text, except that it spells a whole run of byte-fallback tokens as
    U+FFFD when only a part of it is broken.

    Threads may share one tokenizer: a lock serialises what changes the library object.

    Args:
        tokenizer: The library object. It is taken over: truncation, padding and BPE dropout are switched off.
        bos_id: Beginning-of-sequence id, or None.
        eos_ids: Ids that end a completion.
        special_ids: Ids to treat as special beside those that the object itself marks so.

    Attributes:
        eos_id: The one of `eos_ids` that ends a text, where the files tell it from those that end a turn; else None.
        notes: What a user should know about what was read.

    Raises:
        TokenizerError: One of the ids is not in the vocabulary.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        bos_id: int | None,
        eos_ids: Iterable[int],
        special_ids: Iterable[int] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._bos_id = bos_id
        self._eos_ids = frozenset(eos_ids)
        self.adds_bos = False
        self.eos_id: int | None = None
        self.notes: tuple[str, ...] = ()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        added = tokenizer.get_added_tokens_decoder()
        unmarked = {i for i in special_ids or () if i not in added or not added[i].special}
        if unmarked:
            import tokenizers

            spellings = {i: tokenizer.id_to_token(i) for i in sorted(unmarked)}
            missing = [i for i, spelling in spellings.items() if not spelling]
            if missing:
                raise TokenizerError(f"The special token ids {missing} are not in the tokenizer's vocabulary.")
            tokenizer.add_special_tokens(
                [tokenizers.AddedToken(s, special=True, normalized=False) for s in spellings.values()]
            )
            added = tokenizer.get_added_tokens_decoder()
        self._added = {i: token.content for i, token in added.items()}
        self._special = frozenset(i for i, token in added.items() if token.special)
        self._unk_id = self._find_unk()
        self._kind, self._strip_left = _decoder_kind(tokenizer)
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_files(cls, directory: str | Path) -> HFTokenizer:
        """Load from a directory in the HF layout.

        Args:
            directory: Holds ``tokenizer.json``, or GPT-2's ``vocab.json`` with ``merges.txt``; special tokens
                come from ``tokenizer_config.json``, ``special_tokens_map.json``, ``generation_config.json``
                and ``config.json``, each of which may be missing.

        Raises:
            TokenizerError: A file is missing or cannot be used.
        """
        directory = Path(directory)
        special = read_special_tokens(directory)
        path = directory / "tokenizer.json"
        tokenizer = load_tokenizer_json(path) if path.exists() else load_vocab_and_merges(directory, special.config)
        apply_added(tokenizer, special, directory)
        bos_id, eos_ids = special.resolve(tokenizer.token_to_id)
        # A stated rule wins; else the file's own template of special tokens tells.
        stated = special.config.get("add_bos_token")
        by_template = bos_id is not None and _first_of(tokenizer) == bos_id
        result = cls(tokenizer, bos_id=bos_id, eos_ids=eos_ids)
        result.eos_id = special.stated_eos(tokenizer.token_to_id)
        result.adds_bos = bos_id is not None and (stated if isinstance(stated, bool) else by_template)
        return result

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

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
        return self._special

    @property
    def special_spellings(self) -> dict[str, int]:
        """Spelling and id of each special token."""
        return {self._added[i]: i for i in sorted(self._special)}

    @property
    def is_concatenative(self) -> bool:
        """Whether decoding joins `token_bytes` (every GPT family; not WordPiece)."""
        return self._kind != "other"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over the whole tokenizer and its special ids."""
        digest = hashlib.sha256(self._tokenizer.to_str().encode())
        digest.update(json.dumps([self._bos_id, sorted(self._eos_ids), sorted(self._special)]).encode())
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
        if not at_start and self._continuing is not self:
            rest = self._continuing.encode(text, parse_special=parse_special)
            return [self._bos_id, *rest] if add_bos and self._bos_id is not None else rest
        check_unicode(text)
        with self._lock:
            # The library's name means "encode the spelling of special tokens as text".
            if self._tokenizer.encode_special_tokens is parse_special:
                self._tokenizer.encode_special_tokens = not parse_special
            ids: list[int] = run_library(lambda: self._tokenizer.encode(text, add_special_tokens=False).ids)
        if not parse_special and not self._special.isdisjoint(ids):
            ids = [plain for token_id in ids for plain in self._spell_out(token_id)]
        return [self._bos_id, *ids] if add_bos and self._bos_id is not None else ids

    def encode_protected(self, text: str, originals: Mapping[str, str]) -> list[int]:
        """Encode a chat rendering; see `nlpkit.core.chat.template.ProtectingTokenizer`."""
        check_unicode(text)
        with self._lock:
            self._tokenizer.encode_special_tokens = False
            encoding = run_library(lambda: self._tokenizer.encode(text, add_special_tokens=False))
        restore = str.maketrans(dict(originals))
        ids: list[int] = []
        section: list[int] = []
        start = 0

        def close(end: int) -> None:
            piece = text[start:end]
            plain = piece.translate(restore)
            ids.extend(section if plain == piece else self._encode_section(plain, first=start == 0))
            section.clear()

        for token_id, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token_id in self._special and token_id != self._unk_id:
                close(begin)
                ids.append(token_id)
                start = end
            else:
                section.append(token_id)
        close(len(text))
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn ids back into text; see `nlpkit.core.tokenizers.tokenizer.Tokenizer.decode`.

        Ids outside the vocabulary add nothing (models pad their embedding to round sizes).
        """
        if self._kind == "other":
            return str(run_library(lambda: self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special)))
        special = self._special
        data = b"".join(
            self.token_bytes(i) if skip_special or i not in special else self._added[i].encode() for i in token_ids
        )
        if self._strip_left and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one token adds to the text, the leading space of a whole text included.

        Empty for special tokens and ids outside the vocabulary.
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._bytes_of(token_id)
        return known

    def token_to_id(self, token: str) -> int | None:
        """Return the id of one exact vocabulary entry, or None."""
        token_id: int | None = self._tokenizer.token_to_id(token)
        return token_id

    def id_to_token(self, token_id: int) -> str | None:
        """Return the vocabulary entry of one id, or None."""
        if not 0 <= token_id < 2**32:
            return None
        token: str | None = self._tokenizer.id_to_token(token_id)
        return token

    def save(self, directory: str | Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``.

        Both `from_files` and `transformers.AutoTokenizer` read them back.

        Args:
            directory: Made if it does not exist.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._tokenizer.encode_special_tokens = False
            (directory / "tokenizer.json").write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        roles: dict[str, str] = {}
        if self._bos_id is not None:
            roles["bos_token"] = self.id_to_token(self._bos_id) or ""
        eos = [token for i in self._eos_first() if (token := self.id_to_token(i))]
        if eos:
            roles["eos_token"] = eos[0]
        if self._unk_id is not None:
            roles["unk_token"] = self.id_to_token(self._unk_id) or ""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "bos_token": None,
            "add_bos_token": self.adds_bos,
            **roles,
            "eos_token_ids": sorted(self._eos_ids),
        }
        for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", roles)):
            (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _eos_first(self) -> list[int]:
        return sorted(self._eos_ids, key=lambda index: (index != self.eos_id, index))

    def _find_unk(self) -> int | None:
        spelling = getattr(self._tokenizer.model, "unk_token", None)
        return self.token_to_id(spelling) if spelling else None

    def _bytes_of(self, token_id: int) -> bytes:
        token = self.id_to_token(token_id)
        if token is None or token_id in self._special:
            return b""
        if self._kind == "byte_level":
            if token_id in self._added:
                return token.encode()
            table = char_to_byte()
            try:
                return bytes([table[char] for char in token])
            except KeyError:
                return token.encode()
        if self._kind == "metaspace":
            byte = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        return str(run_library(lambda: self._tokenizer.decode([token_id], skip_special_tokens=True))).encode()

    def _encode_section(self, text: str, *, first: bool) -> list[int]:
        """Encode plain text that follows a special token, unless it is the `first` of its text."""
        if first or not text:
            return self.encode(text) if text else []
        return self._section_tokenizer.encode(text)

    @functools.cached_property
    def _section_tokenizer(self) -> HFTokenizer:
        # Metaspace tokenizers of the "first" scheme put their space before the first section of a text only;
        # all other schemes treat every section alike.
        return self._changed(_without_first)

    @functools.cached_property
    def _continuing(self) -> HFTokenizer:
        # Nothing is put in front of what continues a text, whatever the scheme.
        return self._changed(_without_prefix)

    @functools.cached_property
    def prefixes_sections(self) -> bool:
        """Whether the text behind a special token gets a space in front, as the start of a text does."""
        return self._continuing is not self and self._section_tokenizer is self

    def _changed(self, change: Callable[[dict[str, Any]], bool]) -> HFTokenizer:
        """Return a copy with a change, or this tokenizer itself where there is nothing to change."""
        with self._lock:
            state = json.loads(self._tokenizer.to_str())
        if not change(state):
            return self
        import tokenizers

        clone = tokenizers.Tokenizer.from_str(json.dumps(state))
        return HFTokenizer(clone, bos_id=None, eos_ids=(), special_ids=self._special)

    def _spell_out(self, token_id: int) -> list[int]:
        # The library leaves special spellings in plain text alone, but merges learned on raw text, or a model
        # that looks whole words up, can still arrive at a special id (Llama 2: "<", "s", ">" -> <s>).
        if token_id not in self._special or token_id == self._unk_id:
            return [token_id]
        spelled: list[int] = []
        for char in self._added[token_id]:
            data = char.encode()
            pieces = [byte_to_char()[b] for b in data] if self._kind == "byte_level" else [char]
            ids = [self.token_to_id(piece) for piece in pieces]
            if None in ids:
                ids = [self.token_to_id(f"<0x{b:02X}>") for b in data]
            if None in ids:
                ids = [self._unk_id]
            spelled.extend(i for i in ids if i is not None)
        if not spelled or not self._special.isdisjoint(set(spelled) - {self._unk_id}):
            raise TokenizerError(
                f"The text holds {self._added[token_id]!r}, a special token of this model that its tokenizer "
                "cannot spell as plain text. Take it out of the text."
            )
        return spelled


def _first_of(tokenizer: tokenizers.Tokenizer) -> int | None:
    """Return the first token that the file's own template gives a text."""
    ids: list[int] = run_library(lambda: tokenizer.encode("a", add_special_tokens=True).ids)
    return ids[0] if ids else None


def _pre_steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    step = state.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = step.get("pretokenizers", [step])
    return steps


def _without_first(state: dict[str, Any]) -> bool:
    """Take the space of Metaspace's "first" scheme out of a tokenizer's state; return whether there was one."""
    found = [step for step in _pre_steps(state) if step.get("prepend_scheme") == "first"]
    for step in found:
        step["prepend_scheme"] = "never"
    return bool(found)


def _without_prefix(state: dict[str, Any]) -> bool:
    """Take whatever puts a space in front of a text out of a tokenizer's state; return whether there was anything."""
    changed = False
    for step in _pre_steps(state):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            step["prepend_scheme"] = "never"
            changed = True
        if step.get("type") == "ByteLevel" and step.get("add_prefix_space"):
            step["add_prefix_space"] = False
            changed = True
    normalizer = state.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    kept = [step for step in steps if step.get("type") != "Prepend"]
    if len(kept) < len(steps):
        state["normalizer"] = {"type": "Sequence", "normalizers": kept}
        changed = True
    return changed


def _decoder_kind(tokenizer: tokenizers.Tokenizer) -> tuple[_Kind, bool]:
    """Return how tokens spell bytes, and whether a text loses its first space on decoding."""
    decoder = tokenizer.decoder
    if decoder is None:
        return "other", False
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    steps: list[dict[str, Any]] = state["decoders"] if state.get("type") == "Sequence" else [state]
    kinds = {step.get("type") for step in steps}
    strip_left = any(
        (step.get("type") == "Strip" and step.get("content") == " " and step.get("start", 0) > 0)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse", "Strip"}:
        return "byte_level", strip_left
    if kinds & {"Metaspace", "Replace"} and kinds <= {
        "Metaspace",
        "Replace",
        "ByteFallback",
        "Fuse",
        "Strip",
    }:
        return "metaspace", strip_left
    return "other", False
