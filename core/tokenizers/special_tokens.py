"""Special tokens as the JSON files beside a tokenizer declare them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlpkit.core.errors import TokenizerError
from nlpkit.core.files.read import read_json_file

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_MAX_ID = 2_000_000


@dataclass(frozen=True, kw_only=True)
class AddedSpec:
    """One token that is put on top of a vocabulary.

    Attributes:
        id: Its id, or None where the file gives only the spelling.
        content: Its spelling.
        special: Control tokens are special: never read from text that a user typed.
        lstrip: Swallow white space on its left.
        rstrip: Swallow white space on its right.
        single_word: Match whole words only.
        normalized: Match the normalised text instead of the original.
    """

    id: int | None
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """What `read_special_tokens` found.

    Attributes:
        bos: Spelling of the beginning-of-sequence token; None when no file names one.
        bos_id: The id that `config.json` gives it, for tokenizers without a spelling of it.
        eos: Spelling of the end-of-sequence token.
        eos_ids: Ids that `generation_config.json`, `config.json` or our own `eos_token_ids` key name.
        roles: Role, such as ``unk_token``, and spelling of every token that has one.
        named: Spellings of all tokens with a role (bos, eos, unk, pad, additional ...).
        added: Tokens that the files put on top of the vocabulary, by id.
        config: The whole of `tokenizer_config.json`.
    """

    bos: str | None = None
    bos_id: int | None = None
    eos: str | None = None
    eos_ids: frozenset[int] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    added: tuple[AddedSpec, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self, token_to_id: Callable[[str], int | None]) -> tuple[int | None, frozenset[int]]:
        """Turn the spellings into ids.

        Args:
            token_to_id: The tokenizer's look-up, None for an unknown spelling.

        Returns:
            The bos id, or None, and all eos ids: what the tokenizer, the model and its generation settings
            name.
        """
        bos_id = self.bos_id if self.bos is None else token_to_id(self.bos)
        eos_id = None if self.eos is None else token_to_id(self.eos)
        return bos_id, self.eos_ids | (frozenset() if eos_id is None else {eos_id})

    def stated_eos(self, token_to_id: Callable[[str], int | None]) -> int | None:
        """Return the id of the end of a text, where the files are our own, which tell it from the ends of turns.

        Args:
            token_to_id: The tokenizer's look-up, None for an unknown spelling.
        """
        return None if self.eos is None or "eos_token_ids" not in self.config else token_to_id(self.eos)


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object, with a bound on its size; a file that is not there is an empty object.

    Raises:
        TokenizerError: The file cannot be read, is no regular file, too large or holds no JSON object.
    """
    return read_json_file(path, error=TokenizerError) if is_there(path) else {}


def is_there(path: Path) -> bool:
    """Tell whether a file of a folder is there, whatever it is.

    Raises:
        TokenizerError: The folder cannot be read.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def read_special_tokens(directory: Path) -> SpecialTokens:
    """Read what the files of a HF model directory say about special tokens.

    A token that `tokenizer_config.json` names wins over `special_tokens_map.json`; ids in `config.json` give
    the bos id only where no tokenizer file speaks of one (Qwen's configuration has a bos id that its
    tokenizer refuses).

    Args:
        directory: Where the files lie; each may be missing.

    Raises:
        TokenizerError: One of the files cannot be used.
    """
    tokenizer_config = read_json(directory / "tokenizer_config.json")
    token_map = read_json(directory / "special_tokens_map.json")
    merged = {**token_map, **tokenizer_config}
    model_config = read_json(directory / "config.json")
    if isinstance(model_config.get("text_config"), dict):
        model_config = {**model_config["text_config"], **model_config}
    generation = read_json(directory / "generation_config.json")

    spellings = {role: token_spelling(merged.get(role)) for role in _ROLES}
    extra = [token_spelling(token) for token in _listed(merged, "additional_special_tokens", "extra_special_tokens")]
    named = dict.fromkeys(token for token in [*spellings.values(), *extra] if token)
    eos_ids = frozenset().union(
        *(
            ids_of(source.get(key))
            for source, key in (
                (generation, "eos_token_id"),
                (model_config, "eos_token_id"),
                (tokenizer_config, "eos_token_ids"),
            )
        )
    )
    bos_ids = sorted(ids_of(model_config.get("bos_token_id")))
    return SpecialTokens(
        bos=spellings["bos_token"],
        bos_id=None if "bos_token" in merged or not bos_ids else bos_ids[0],
        eos=spellings["eos_token"],
        eos_ids=eos_ids,
        roles={role: spelling for role, spelling in spellings.items() if spelling},
        named=tuple(named),
        added=_added_tokens(directory, tokenizer_config, set(named)),
        config=tokenizer_config,
    )


def token_spelling(value: object) -> str | None:
    """Return the spelling out of a string or an AddedToken object; None for anything else or an empty one."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value and _is_text(value) else None


def _is_text(value: str) -> bool:
    """Tell whether a string has a UTF-8 form: JSON can spell lone surrogates, which no tokenizer takes."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def ids_of(value: object) -> frozenset[int]:
    """Return the usable ids of a JSON value that holds one id, a list of them, or nothing."""
    values = value if isinstance(value, list) else [value]
    return frozenset(
        item for item in values if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < _MAX_ID
    )


def _listed(merged: Mapping[str, Any], *keys: str) -> list[object]:
    found: list[object] = []
    for key in keys:
        value = merged.get(key)
        if isinstance(value, list):
            found.extend(value)
        elif isinstance(value, Mapping):
            found.extend(value.values())
    return found


def _added_tokens(directory: Path, tokenizer_config: Mapping[str, Any], named: set[str]) -> tuple[AddedSpec, ...]:
    by_id: dict[int, AddedSpec] = {}
    for content, token_id in read_json(directory / "added_tokens.json").items():
        if isinstance(token_id, int) and 0 <= token_id < _MAX_ID and content and _is_text(content):
            by_id[token_id] = AddedSpec(id=token_id, content=content, special=content in named)
    decoder = tokenizer_config.get("added_tokens_decoder")
    for key, spec in decoder.items() if isinstance(decoder, Mapping) else ():
        spelling = token_spelling(spec)
        # Not more digits than the largest id has: Python reads no number of thousands of them.
        if spelling is None or re.fullmatch("[0-9]{1,7}", str(key)) is None or int(key) >= _MAX_ID:
            continue
        flags = spec if isinstance(spec, Mapping) else {}
        by_id[int(key)] = AddedSpec(
            id=int(key),
            content=spelling,
            special=bool(flags.get("special", False)) or spelling in named,
            lstrip=bool(flags.get("lstrip", False)),
            rstrip=bool(flags.get("rstrip", False)),
            single_word=bool(flags.get("single_word", False)),
            normalized=bool(flags.get("normalized", False)),
        )
    return tuple(by_id[token_id] for token_id in sorted(by_id))
