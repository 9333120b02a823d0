"""The tokenizer and chat template that a GGUF file carries in its metadata (``tokenizer.*``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nlpkit.core.errors import NlpkitError, TokenizerError, did_you_mean
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.gguf_pretokenizers import PRE_TOKENIZERS, PreTokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import AddedSpec
from nlpkit.core.tokenizers.spm_model import PieceType, SpmAlgorithm, VocabularyPiece, write_spm_model

if TYPE_CHECKING:
    import tokenizers

ENDS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<eos>"),
        *("<end_of_utterance>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
        # What fills up, or goes from file to file, where code is completed.
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"),
    }
)
"""Spellings of tokens that end a completion, whatever type a file gives them, as in llama.cpp (``llama-vocab.cpp``).
Files name one or two of theirs, and models write others."""
_CALLS = (
    {"<|return|>", "<|call|>"},
    {"<|return|>", "<|calls|>"},
    {"<|call|>", "<|flush|>"},
    {"<|calls|>", "<|flush|>"},
)
"""Beside such a pair, ``<|end|>`` ends a message of several (Harmony, Solar)."""
_LLAMA_IDS = {"bos": 1, "eos": 2}
"""What SentencePiece files mean that do not say."""

_T = TypeVar("_T")


class Vocabulary:
    """The checked ``tokenizer.*`` metadata.

    Attributes:
        source: What the metadata came from, for messages.
        tokens: Spellings by id.
        types: Piece types by id.
        bos_id: Beginning-of-sequence id, or None.
        eos_id: End-of-sequence id, or None.
        eos_ids: Ids that end a completion.
        notes: What was left out of account.
    """

    def __init__(self, metadata: Mapping[str, Any], *, vocab_size: int, source: str) -> None:
        """Check and take the metadata.

        Raises:
            TokenizerError: An entry is missing, of the wrong kind, or out of range.
        """
        self.metadata = metadata
        self.source = source
        self.tokens = self._strings("tokenizer.ggml.tokens")
        if not 0 < len(self.tokens) <= vocab_size:
            raise self.error(f"it has {len(self.tokens):,} tokens for an embedding of {vocab_size:,} rows")
        self.types = self._types()
        self.notes: list[str] = []
        self.bos_id = self._id("tokenizer.ggml.bos_token_id")
        self.eos_id = self._id("tokenizer.ggml.eos_token_id")
        if metadata.get("tokenizer.ggml.model") == "llama":
            self.bos_id = self._usual("bos") if self.bos_id is None else self.bos_id
            self.eos_id = self._usual("eos") if self.eos_id is None else self.eos_id
        self.pad_id = self._spare_id("tokenizer.ggml.padding_token_id")
        self.unk_id = self._spare_id("tokenizer.ggml.unknown_token_id")
        turns = {self._spare_id("tokenizer.ggml.eot_token_id"), self._spare_id("tokenizer.ggml.eom_token_id")}
        stated = {index for index in {self.eos_id, *turns} if index is not None}
        self.eos_ids = frozenset(stated | self._spelled_ends(stated))
        self._mark_special()

    def _usual(self, role: str) -> int | None:
        """Return the id that llama.cpp takes for a role where a SentencePiece file names none."""
        if f"tokenizer.ggml.{role}_token_id" in self.metadata:
            return None
        index = _LLAMA_IDS[role]
        special = index < len(self.tokens) and self.types[index] is PieceType.CONTROL
        return index if special or self.tokens[index : index + 1] == [{"bos": "<s>", "eos": "</s>"}[role]] else None

    def _spelled_ends(self, stated: set[int]) -> set[int]:
        ends = {index for index, token in enumerate(self.tokens) if token in ENDS}
        spellings = {self.tokens[index] for index in ends}
        left_out = {"<|end|>"} if any(pair <= spellings for pair in _CALLS) else set()
        left_out |= {"</s>"} if "<|tool_response>" in spellings else set()
        return {index for index in ends if self.tokens[index] not in left_out or index in stated}

    def _mark_special(self) -> None:
        """Type what begins and ends texts as control tokens, where a file types it as text."""
        for index in (*self.eos_ids, *([] if self.bos_id is None else [self.bos_id])):
            token = self.tokens[index]
            marked = token in ENDS or (token[:1] in ("<", "[") and token[-1:] in (">", "]"))
            if marked and self.types[index] in (PieceType.NORMAL, PieceType.USER_DEFINED, PieceType.UNUSED):
                self.types[index] = PieceType.CONTROL

    def error(self, what: str) -> TokenizerError:
        """Return an error about this tokenizer."""
        return TokenizerError(
            f"The tokenizer in {self.source} cannot be used: {what}. Get the model from another source."
        )

    @property
    def control_ids(self) -> list[int]:
        """Ids of control tokens."""
        return [index for index, kind in enumerate(self.types) if kind is PieceType.CONTROL]

    def _strings(self, key: str) -> list[str]:
        values = self.metadata.get(key)
        # An empty list has no element type worth speaking of.
        if isinstance(values, list) and all(isinstance(value, str) for value in values):
            return values
        raise self.error(f"{key} is missing or no list of strings")

    def _types(self) -> list[PieceType]:
        values = self.metadata.get("tokenizer.ggml.token_type")
        if values is None:
            return [PieceType.NORMAL] * len(self.tokens)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or len(values) != len(self.tokens):
            raise self.error("tokenizer.ggml.token_type does not give one whole number for each token")
        if values.min() < 0 or values.max() > max(PieceType):
            raise self.error("tokenizer.ggml.token_type holds an unknown type")
        # Type 0 is "undefined" and treated as a normal token.
        by_number = [PieceType.NORMAL, *sorted(PieceType)]
        return [by_number[value] for value in values.tolist()]

    def _id(self, key: str) -> int | None:
        value = self.metadata.get(key)
        if value is None or value == 0xFFFF_FFFF or value == -1:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(self.tokens):
            raise self.error(f"{key} is {value!r}, which is not one of its {len(self.tokens):,} tokens")
        return value

    def _spare_id(self, key: str) -> int | None:
        """Return an id that a tokenizer can do without: one that is none of its tokens is left out, with a note."""
        try:
            return self._id(key)
        except TokenizerError:
            self.notes.append(f"{key} of {self.source} is {str(self.metadata[key])[:40]}, no token of it; left out.")
            return None

    @property
    def swallowing(self) -> frozenset[int]:
        """Ids of tokens that swallow the white space behind them: GGUF has no such flag, so Phi-3 is told by its name.

        As in llama.cpp; beside it, by the architecture, where a file is named otherwise.
        """
        name, kind = self.metadata.get("general.name"), self.metadata.get("tokenizer.ggml.model")
        named = isinstance(name, str) and any(part in name.lower() for part in ("phi-3", "phi3"))
        if not named and (self.metadata.get("general.architecture") != "phi3" or kind != "llama"):
            return frozenset()
        kinds, never = (PieceType.CONTROL, PieceType.USER_DEFINED), {"<unk>", "<s>", "<|endoftext|>"}
        return frozenset(
            index
            for index, (spelled, type_) in enumerate(zip(self.tokens, self.types, strict=True))
            if (type_ in kinds or spelled == "</s>") and spelled not in never
        )

    def flag(self, key: str, default: bool) -> bool:
        """Return a switch.

        Raises:
            TokenizerError: It is not a boolean.
        """
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {value!r}, not true or false")
        return value

    def merges(self) -> list[tuple[str, str]]:
        """Return the merge rules, most important first.

        Raises:
            TokenizerError: They are missing or one is no pair.
        """
        pairs: list[tuple[str, str]] = []
        for rule in self._strings("tokenizer.ggml.merges"):
            # From the second character on: a token may itself begin with a space.
            cut = rule.find(" ", 1)
            if cut < 0 or cut == len(rule) - 1:
                raise self.error(f"the merge rule {rule[:80]!r} is no pair of tokens")
            pairs.append((rule[:cut], rule[cut + 1 :]))
        return pairs

    def scores(self) -> list[float]:
        """Return one score for each token.

        Raises:
            TokenizerError: They are missing, of the wrong kind or not finite.
        """
        values = self.metadata.get("tokenizer.ggml.scores")
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or len(values) != len(self.tokens):
            raise self.error("tokenizer.ggml.scores does not give one number for each token")
        scores: list[float] = values.tolist()
        if not all(math.isfinite(score) for score in scores):
            raise self.error("tokenizer.ggml.scores holds a number that is not finite")
        return scores

    def bytes_of(self, key: str) -> bytes:
        """Return a list of bytes, empty where it is missing.

        Raises:
            TokenizerError: It is no list of bytes.
        """
        value = self.metadata.get(key)
        if value is None:
            return b""
        if not isinstance(value, np.ndarray) or value.dtype.itemsize != 1:
            raise self.error(f"{key} is no list of bytes")
        return value.tobytes()


def build_tokenizer(
    metadata: Mapping[str, Any], *, vocab_size: int, source: str
) -> HFTokenizer | SentencePieceTokenizer:
    """Build the tokenizer that GGUF metadata describe.

    Args:
        metadata: `GGUFFile.metadata`.
        vocab_size: Rows of the model's embedding: no token may have a larger id.
        source: Where the metadata came from, for messages.

    Returns:
        The tokenizer; its attribute ``adds_bos`` says whether the model wants its bos token in front of raw prompts,
        and ``notes`` what was left out of account.

    Raises:
        TokenizerError: There is none, it is of an unknown kind, or it is damaged.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None:
        raise TokenizerError(f"{source} carries no tokenizer. Get the model from another source.")
    if not isinstance(kind, str) or kind not in _BUILDERS:
        raise TokenizerError(
            f"{source} has a tokenizer of the kind {str(kind)[:80]!r}, which nlpkit does not know. "
            f"{did_you_mean(str(kind)[:80], _BUILDERS)}"
        )
    vocabulary = Vocabulary(metadata, vocab_size=vocab_size, source=source)
    tokenizer = _BUILDERS[kind](vocabulary)
    tokenizer.adds_bos = tokenizer.bos_id is not None and adds_bos(metadata)
    tokenizer.eos_id = vocabulary.eos_id
    tokenizer.notes = tuple(vocabulary.notes)
    return tokenizer


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Return whether the file asks for a beginning-of-sequence token in front of every text.

    Where it does not say, SentencePiece vocabularies do, and byte-level ones whose pre-tokenizer does, as in llama.cpp.

    Args:
        metadata: `GGUFFile.metadata`.
    """
    stated = metadata.get("tokenizer.ggml.add_bos_token")
    if isinstance(stated, bool):
        return stated
    named = metadata.get("tokenizer.ggml.pre")
    if isinstance(named, str) and named in PRE_TOKENIZERS and PRE_TOKENIZERS[named].adds_bos:
        return True
    return metadata.get("tokenizer.ggml.model") == "llama"


def _guarded(vocabulary: Vocabulary, build: Callable[[], _T]) -> _T:
    """Run library code on untrusted data and turn whatever it throws into our error."""
    try:
        return build()
    except (KeyboardInterrupt, SystemExit, MemoryError, NlpkitError):
        raise
    except BaseException as error:  # a panic of the Rust code is no Exception
        raise vocabulary.error(str(error)[:200] or type(error).__name__) from error


def _byte_level(vocabulary: Vocabulary) -> HFTokenizer:
    """GPT-2's kind: byte-level BPE."""
    name = vocabulary.metadata.get("tokenizer.ggml.pre", "default")
    rules = PRE_TOKENIZERS.get(name) if isinstance(name, str) else None
    if rules is None:
        hint = did_you_mean(str(name)[:80], PRE_TOKENIZERS).rstrip(".")
        raise vocabulary.error(f"its pre-tokenizer {str(name)[:80]!r} is not known. {hint}")
    prefix = vocabulary.flag("tokenizer.ggml.add_space_prefix", False)
    merges = vocabulary.merges()
    known = rules

    def build() -> HFTokenizer:
        tokenizer = new_bpe(vocabulary.tokens, merges, known, add_prefix_space=prefix)
        _add_tokens(tokenizer, vocabulary)
        return HFTokenizer(
            tokenizer, bos_id=vocabulary.bos_id, eos_ids=vocabulary.eos_ids, special_ids=vocabulary.control_ids
        )

    return _guarded(vocabulary, build)


def new_bpe(
    tokens: Sequence[str], merges: list[tuple[str, str]], rules: PreTokenizer, *, add_prefix_space: bool
) -> tokenizers.Tokenizer:
    """Assemble a byte-level BPE tokenizer without its added tokens.

    Args:
        tokens: Spellings by id.
        merges: Merge rules, most important first.
        rules: How text is cut first.
        add_prefix_space: Put a space in front of every text.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    vocab: dict[str, int] = {}
    for index, token in enumerate(tokens):
        vocab.setdefault(token, index)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=rules.whole_words))
    if rules.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if rules.single_digits else []
    steps += [pre_tokenizers.Split(tokenizers.Regex(split), behavior="isolated") for split in rules.splits]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=rules.gpt2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: Any, vocabulary: Vocabulary) -> None:
    import tokenizers

    swallowing = vocabulary.swallowing
    for kind, special in ((PieceType.CONTROL, True), (PieceType.USER_DEFINED, False)):
        added = [
            tokenizers.AddedToken(token, special=special, normalized=False, rstrip=index in swallowing)
            for index, (token, type_) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
            if type_ is kind and token
        ]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _sentencepiece(vocabulary: Vocabulary) -> SentencePieceTokenizer:
    """Llama 2's kind: SentencePiece BPE."""
    return _spm(vocabulary, SpmAlgorithm.BPE, remove_extra_whitespaces=False)


def _unigram(vocabulary: Vocabulary) -> SentencePieceTokenizer:
    """T5's kind: SentencePiece unigram."""
    return _spm(vocabulary, SpmAlgorithm.UNIGRAM, remove_extra_whitespaces=True)


def _spm(vocabulary: Vocabulary, algorithm: SpmAlgorithm, *, remove_extra_whitespaces: bool) -> SentencePieceTokenizer:
    types = vocabulary.types
    if PieceType.UNKNOWN not in types and vocabulary.unk_id is not None:
        # Some converters mark the unknown token as a control token; the library needs to know it.
        types[vocabulary.unk_id] = PieceType.UNKNOWN
    if types.count(PieceType.UNKNOWN) != 1:
        raise vocabulary.error("a SentencePiece vocabulary needs exactly one token of type unknown")
    # The library wants a spelling for each; one that is never used stands for an empty one.
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(vocabulary.tokens)]
    types = [kind if token else PieceType.UNUSED for token, kind in zip(vocabulary.tokens, types, strict=True)]
    if len(set(tokens)) != len(tokens):
        raise vocabulary.error("a token appears twice")
    pieces = []
    for token, score, kind in zip(tokens, vocabulary.scores(), types, strict=True):
        # Converters spell user-defined runs of spaces as they are; the library looks them up escaped.
        text = token.replace(" ", "\u2581") if kind is PieceType.USER_DEFINED else token
        pieces.append(VocabularyPiece(text, score, kind))
    model = write_spm_model(
        pieces,
        algorithm=algorithm,
        add_dummy_prefix=vocabulary.flag("tokenizer.ggml.add_space_prefix", True),
        remove_extra_whitespaces=vocabulary.flag("tokenizer.ggml.remove_extra_whitespaces", remove_extra_whitespaces),
        charsmap=vocabulary.bytes_of("tokenizer.ggml.precompiled_charsmap"),
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
        pad_id=vocabulary.pad_id,
    )
    return _guarded(
        vocabulary,
        lambda: SentencePieceTokenizer(
            model,
            bos_id=vocabulary.bos_id,
            eos_ids=vocabulary.eos_ids,
            added=[
                AddedSpec(
                    id=index,
                    content=vocabulary.tokens[index],
                    special=vocabulary.types[index] is not PieceType.USER_DEFINED,
                    rstrip=True,
                )
                for index in sorted(vocabulary.swallowing)
            ],
            # As llama.cpp, and as the tokenizers that came with Llama 2, Mistral and Phi-3: every stretch behind a
            # special token begins like a text.
            prefix_sections=True,
        ),
    )


_BUILDERS: Mapping[str, Callable[[Vocabulary], HFTokenizer | SentencePieceTokenizer]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "t5": _unigram,
}
