"""Training tokenizers: byte-level BPE, SentencePiece, and one token a byte."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import tokenizers

from nlpkit.core.errors import ConfigError, InputError, did_you_mean
from nlpkit.core.tokenizers.bpe import HFTokenizer
from nlpkit.core.tokenizers.sentencepiece import SentencePieceTokenizer
from nlpkit.core.tokenizers.special_tokens import AddedSpec
from nlpkit.core.tokenizers.tokenizer_json import byte_to_char
from nlpkit.core.tokenizers.unicode import check_unicode

TokenizerKind = Literal["bpe", "sentencepiece", "sentencepiece-bpe", "char"]
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, TURN_START, TURN_END)
SENTENCES = 1_000_000
"""Lines that SentencePiece learns from; the first ones of a text that has more."""
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The chat template that goes with `SPECIAL`."""


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    *,
    vocab_size: int,
    special: tuple[str, ...] = SPECIAL,
    symbols: Sequence[str] = (),
) -> HFTokenizer | SentencePieceTokenizer:
    """Train a tokenizer that can encode any text.

    Args:
        kind: ``bpe`` (byte-level; Radford et al. 2019), ``sentencepiece`` (unigram with byte fallback; Kudo 2018,
            arXiv:1804.10959), ``sentencepiece-bpe`` (its byte-pair encoding with byte fallback, as in GGUF files of
            Llama) or ``char`` (one token for each byte that occurs, as nanoGPT's character models for
            ASCII text).
        texts: What to learn from; read once, as a stream.
        vocab_size: Ids to have, special ones included; ``char`` has as many as it needs.
        symbols: Texts that are always one piece wherever they occur; for SentencePiece alone.
        special: Special tokens. `END_OF_TEXT` and `TURN_END`, where they are among them, end a completion.

    Returns:
        The tokenizer.

    Raises:
        ConfigError: The kind is unknown or the vocabulary too small.
        InputError: There is no text.
    """
    if kind not in get_args(TokenizerKind):
        raise ConfigError(f"There is no kind of tokenizer {kind!r}. {did_you_mean(kind, get_args(TokenizerKind))}")
    if kind != "char" and not 256 + len(special) < vocab_size <= 1_000_000:
        raise ConfigError(
            f"A vocabulary of {vocab_size} is asked for; it must be above {256 + len(special)} (all bytes and the "
            "special tokens) and at most 1,000,000."
        )
    if END_OF_TEXT not in special:
        raise ConfigError(f"The special tokens need {END_OF_TEXT} among them.")
    if symbols and not kind.startswith("sentencepiece"):
        raise ConfigError(f"Only SentencePiece takes symbols that are always one piece; the kind is {kind!r}.")
    checked = _checked(texts)
    if kind == "char":
        return _train_char(checked, special)
    if kind == "bpe":
        return _train_bpe(checked, vocab_size, special)
    algorithm = "bpe" if kind == "sentencepiece-bpe" else "unigram"
    return _train_sentencepiece(checked, vocab_size, special, algorithm, symbols)


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        check_unicode(text)
        if text:
            yield text


def _wrap(tokenizer: tokenizers.Tokenizer, special: tuple[str, ...]) -> HFTokenizer:
    ids = {token: i for token in special if (i := tokenizer.token_to_id(token)) is not None}
    ends = [ids[token] for token in (END_OF_TEXT, TURN_END) if token in ids]
    return HFTokenizer(tokenizer, bos_id=None, eos_ids=ends, special_ids=ids.values())


def _train_bpe(texts: Iterator[str], vocab_size: int, special: tuple[str, ...]) -> HFTokenizer:
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=list(byte_to_char()),
        show_progress=False,
    )
    counted = _Counted(texts)
    tokenizer.train_from_iterator(iter(counted), trainer)
    counted.check()
    return _wrap(tokenizer, special)


def _train_char(texts: Iterator[str], special: tuple[str, ...]) -> HFTokenizer:
    from tokenizers import decoders, models, pre_tokenizers

    seen: set[int] = set()
    for text in texts:
        seen.update(text.encode("utf-8"))
    if not seen:
        raise InputError("There is no text to train a tokenizer on.")
    table = byte_to_char()
    # The unknown token is there for bytes that the training text does not have; it decodes to U+FFFD.
    vocab = {token: i for i, token in enumerate((*special, "<unk>", *(table[byte] for byte in sorted(seen))))}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    return _wrap(tokenizer, special)


def _train_sentencepiece(
    texts: Iterator[str], vocab_size: int, special: tuple[str, ...], algorithm: str, symbols: Sequence[str]
) -> SentencePieceTokenizer:
    import sentencepiece

    model = io.BytesIO()
    counted = _Counted(texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(iter(counted)),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=algorithm,
            byte_fallback=True,
            character_coverage=0.9995,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            # A dummy prefix would make a completion's first word depend on whether something stands before it.
            add_dummy_prefix=False,
            split_digits=True,
            user_defined_symbols=["\n", *symbols],
            control_symbols=[token for token in special if token != END_OF_TEXT],
            eos_piece=END_OF_TEXT,
            bos_id=-1,
            pad_id=-1,
            unk_id=0,
            eos_id=1,
            input_sentence_size=SENTENCES,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        counted.check()
        raise ConfigError(f"SentencePiece cannot train a vocabulary of {vocab_size} on this text: {error}") from error
    counted.check()
    plain = SentencePieceTokenizer(model.getvalue())
    ends = [i for token in (END_OF_TEXT, TURN_END) if (i := plain.token_to_id(token)) is not None]
    added = [AddedSpec(id=plain.token_to_id(token), content=token, special=True) for token in special]
    return SentencePieceTokenizer(model.getvalue(), eos_ids=ends, added=added)


def _lines(texts: Iterator[str]) -> Iterator[str]:
    """Yield lines, which SentencePiece wants short; their ends are a piece of their own."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), 2048):
                yield line[start : start + 2048]


class _Counted:
    """Counts what passes."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self._count = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self._count += 1
            yield text

    def check(self) -> None:
        """Refuse to have learned from nothing."""
        if not self._count:
            raise InputError("There is no text to train a tokenizer on.")
