"""`Guide`: which tokens a constraint allows next, computed by the library llguidance.

The library matches bytes, so a character may be spread over tokens. Compiling a constraint takes about a millisecond
and a step some tens of microseconds; both happen outside Python.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nlpkit.core.decode.constraint import Constraint
from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.tokenizer import begins_anew, drops_space

if TYPE_CHECKING:
    from nlpkit.core.tokenizers.tokenizer import Tokenizer

MAX_COMPILED = 64
"""Most compiled constraints that are kept for one tokenizer."""

LEXER_FUEL = 50_000
FUEL_PER_CHARACTER = 2
"""What the library may spend on preparing the regular expressions of a constraint, some 500 units a millisecond where
it is at its slowest: a bound on the time that a few characters such as ``((a{1000}){1000}){1000}`` can cost."""

_SPECIAL = b"\xff"
"""Marks the name of a special token in the library's vocabulary: no UTF-8 text has this byte."""
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_MAX_REASON = 300


class Guide:
    """How far one completion has come in its constraint."""

    def __init__(self, matcher: Any, vocabulary: _Vocabulary, constraint: Constraint) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._constraint = constraint

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the tokenizer."""
        return self._vocabulary.size

    def accept(self, token_id: int) -> None:
        """Take the next token, which must be one that was allowed and must not end the text."""
        self._matcher.consume_token(token_id)

    def after(self, token_id: int) -> Guide:
        """Return the guide for the completion with one more token; this one stays as it is."""
        grown = Guide(self._matcher.deep_copy(), self._vocabulary, self._constraint)
        grown.accept(token_id)
        return grown

    def fill(self, bits: np.ndarray[Any, np.dtype[np.int32]], row: int) -> None:
        """Write the tokens allowed next into one row of a bit mask, 32 tokens a word.

        An end-of-sequence token is among them only if the text so far satisfies the constraint.

        Raises:
            ConfigError: No token of the vocabulary can go on, or the constraint is too complex.
        """
        matcher = self._matcher
        _library().numpy.fill_next_token_bitmask(matcher, bits, row)
        # At a dead end the library allows the end of the text, whether or not that satisfies the constraint.
        if matcher.is_error() or (matcher.is_stopped() and not matcher.is_accepting()):
            self._vocabulary.forget(self._constraint)
            reason = matcher.get_error() or matcher.stop_reason()
            if reason.startswith("NoExtension"):
                reason = "no token of this model's vocabulary can follow"
            raise ConfigError(
                f"The {self._constraint.kind} constraint {_shown(self._constraint.text)} came to a dead end: "
                f"{_first_sentence(reason)}. Change the constraint."
            )


def start_guide(constraint: Constraint, tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = ()) -> Guide:
    """Return the guide of an empty completion.

    Args:
        constraint: Is compiled at its first use with a tokenizer.
        tokenizer: Of the model that will write.
        prompt_ids: What it will continue. Where that is nothing, some tokenizers take a space off the front of the
            text: the tokens must spell it, the constraint does not hold it.

    Raises:
        ConfigError: llguidance is not installed, the constraint is malformed or uses what llguidance does not have,
            or the tokenizer has no end-of-sequence token or no bytes for its tokens.
    """
    with _lock:
        vocabulary = _vocabularies.get(tokenizer)
        if vocabulary is None:
            vocabulary = _vocabularies[tokenizer] = _Vocabulary(tokenizer)
        drops = vocabulary.drops_space and begins_anew(tokenizer, prompt_ids)
        return Guide(vocabulary.matcher(constraint, drops_space=drops), vocabulary, constraint)


def check_constraint(constraint: Constraint, tokenizer: Tokenizer, *, prompt_ids: Sequence[int] = ()) -> None:
    """Refuse a constraint that cannot be used.

    What takes longest is done here, where nobody else waits for it, and not between the steps of texts.

    Args:
        constraint: As `start_guide` takes it.
        tokenizer: The same.
        prompt_ids: The same.

    Raises:
        ConfigError: As `start_guide`; or no token can be the first, or the constraint is too complex.
    """
    guide = start_guide(constraint, tokenizer, prompt_ids=prompt_ids)
    guide.fill(np.zeros((1, -(-guide.vocab_size // 32)), dtype=np.int32), 0)


def allowed_masks(guides: Sequence[Guide | None], logits: Tensor) -> list[Tensor | None]:
    """Return which tokens may come next in each row of a batch.

    Args:
        guides: One a row, None where there is no constraint; all of one tokenizer.
        logits: Shape ``(len(guides), vocab_size)``; they may be for more tokens than the tokenizer has.

    Returns:
        For each row None or a bool mask of shape ``(vocab_size,)``, on the device of the logits.

    Raises:
        ConfigError: A constraint came to a dead end.
    """
    active = [guide for guide in guides if guide is not None]
    if not active:
        return [None] * len(guides)
    known = active[0].vocab_size
    bits = np.zeros((len(active), -(-known // 32)), dtype=np.int32)
    for row, guide in enumerate(active):
        guide.fill(bits, row)
    spread = np.unpackbits(bits.astype("<i4", copy=False).view(np.uint8), axis=1, count=known, bitorder="little")
    allowed = torch.zeros(len(active), logits.shape[-1], dtype=torch.bool)
    allowed[:, :known] = torch.from_numpy(spread.view(np.bool_))[:, : logits.shape[-1]]
    masks = iter(allowed.to(logits.device))
    return [None if guide is None else next(masks) for guide in guides]


class _Vocabulary:
    """A tokenizer as the library sees it, and the constraints compiled for it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if not tokenizer.eos_ids:
            raise ConfigError(
                "A constraint needs a model with an end-of-sequence token, which says when the text is complete; this "
                "model's tokenizer has none."
            )
        if not getattr(tokenizer, "is_concatenative", True):
            raise ConfigError(
                "A constraint needs a tokenizer whose text is the bytes of its tokens in a row, as all GPT models "
                "have; this model's tokenizer puts text together in another way."
            )
        self.size = tokenizer.vocab_size
        self.drops_space = _drops_space(tokenizer)
        self._compiled: OrderedDict[tuple[Constraint, bool], Any] = OrderedDict()
        self._tokenizer = _library().LLTokenizer(_Spelling(tokenizer), eos_token=sorted(tokenizer.eos_ids))

    def matcher(self, constraint: Constraint, *, drops_space: bool) -> Any:
        """Return a fresh matcher; a copy of one that was made before, where there is one.

        Args:
            constraint: The constraint.
            drops_space: Whether decoding will take a space off the front of the completion.
        """
        key = constraint, drops_space
        compiled = self._compiled.pop(key, None)
        if compiled is None:
            compiled = self._compile(*key)
        self._compiled[key] = compiled
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return compiled.deep_copy()

    def forget(self, constraint: Constraint) -> None:
        """Compile a constraint anew next time: copies share memory that may be what ran out."""
        with _lock:
            for drops_space in (False, True):
                self._compiled.pop((constraint, drops_space), None)

    def _compile(self, constraint: Constraint, drops_space: bool) -> Any:
        library = _library()
        grammar = json.dumps({"grammars": _grammars(constraint, drops_space)})
        fuel = LEXER_FUEL + FUEL_PER_CHARACTER * len(constraint.text)
        limits = library.LLParserLimits(initial_lexer_fuel=fuel)
        matcher = library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise ConfigError(
                f"The {constraint.kind} constraint {_shown(constraint.text)} cannot be used: "
                f"{_first_sentence(matcher.get_error())}."
            )
        return matcher


class _Spelling:
    """What the library asks of a tokenizer: the bytes of each token, and the usual tokens of a text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.ref(tokenizer)
        special = set(tokenizer.eos_ids) | set(getattr(tokenizer, "special_ids", ()))
        special |= set() if tokenizer.bos_id is None else {tokenizer.bos_id}
        names = {token_id: name for name, token_id in getattr(tokenizer, "special_spellings", {}).items()}
        self.tokens = [
            _SPECIAL + names.get(i, f"<special {i}>").encode() if i in special else tokenizer.token_bytes(i)
            for i in range(tokenizer.vocab_size)
        ]
        self.special_token_ids = sorted(special)
        self.eos_token_id = min(tokenizer.eos_ids)

    def __call__(self, text: str) -> list[int]:
        """Return the usual tokens of a text, or of as much of it as can be spelled.

        No exception may leave here: it would end the library's work in a panic.
        """
        tokenizer = self._tokenizer()
        wanted = text.encode()
        if tokenizer is not None:
            # Where the encoder puts a space in front, the text without its own comes out right.
            for attempt in (text, text[1:]) if text.startswith(" ") else (text,):
                with contextlib.suppress(Exception):
                    ids = tokenizer.encode(attempt)
                    if b"".join(self.tokens[i] for i in ids) == wanted:
                        return ids
        return self._spell_out(wanted)

    def _spell_out(self, wanted: bytes) -> list[int]:
        """Take the longest token each time, as far as that goes."""
        ids: list[int] = []
        start = 0
        while start < len(wanted):
            ends = range(min(len(wanted), start + self._longest), start, -1)
            found = next((token for end in ends if (token := self._by_bytes.get(wanted[start:end])) is not None), None)
            if found is None:
                break
            ids.append(found)
            start += len(self.tokens[found])
        return ids

    @functools.cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {data: token_id for token_id, data in reversed(list(enumerate(self.tokens))) if data}

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_bytes))


def _grammars(constraint: Constraint, drops_space: bool) -> list[dict[str, Any]]:
    """Return a constraint as the library has it, behind one space more where the decoder takes one off."""
    if constraint.kind == "json_schema":
        schema = json.loads(constraint.text)
        own = schema.get("x-guidance")
        style = {**_JSON_STYLE, **(own if isinstance(own, dict) else {})}
        body: dict[str, Any] = {"json_schema": {**schema, "x-guidance": style}}
    elif constraint.kind == "choice":
        texts = (json.dumps(text, ensure_ascii=False) for text in constraint.options)
        body = {"lark_grammar": "start: " + " | ".join(texts)}
    elif constraint.kind == "regex":
        body = json.loads(_library().LLMatcher.grammar_from_regex(constraint.text))["grammars"][0]
    else:
        body = {"lark_grammar": constraint.text}
    if not drops_space:
        return [body]
    return [{"lark_grammar": 'start: " " @form'}, {**body, "name": "form"}]


def _drops_space(tokenizer: Tokenizer) -> bool:
    """Tell whether the decoder takes a space off the front of a text."""
    spaced = (i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i).startswith(b" "))
    first = next(spaced, None)
    return first is not None and drops_space(tokenizer, first)


def _library() -> ModuleType:
    try:
        import llguidance
        import llguidance.numpy
    except ImportError as error:
        raise ConfigError(
            "Constraints (choices, regular expressions, JSON schemas, grammars) need the library llguidance, which is "
            "not installed: pip install 'nlpkit[constrain]'."
        ) from error
    return llguidance


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _first_sentence(reason: str) -> str:
    """Return a message of the library on one line, without the state that it prints for its own developers."""
    text = " ".join(reason.split("<state>")[0].split("<backtrace>")[0].split()).rstrip(".")
    return text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 3] + "..."


_lock = threading.RLock()
_vocabularies: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()
