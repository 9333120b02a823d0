"""Pre-tokenizers by the name that a GGUF file gives (``tokenizer.ggml.pre``).

A byte-level BPE vocabulary is half of a tokenizer: how text is cut into words before merging is the other
half, and GGUF files only name it. The names are llama.cpp's; the rules are those of each model's own
``tokenizer.json``. Where llama.cpp comes close to those only, we differ from it: it knows no combining marks in the
cased rules (gpt-4o, llama4, tekken) and no normal form C (qwen2), and cuts files that name nothing by a rule that no
model has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS_AND_REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """How text is cut before merging.

    Attributes:
        splits: Regular expressions; each cuts the pieces that the ones before left, matches and gaps alike.
        gpt2: Cut by GPT-2's own expression at the end.
        single_digits: Cut every digit off first.
        nfc: Bring text to Unicode's normal form C first.
        whole_words: A piece that is a vocabulary entry is one token whatever the merges say.
        adds_bos: A text begins with the beginning-of-sequence token, where the file does not say.
    """

    splits: tuple[str, ...] = ()
    gpt2: bool = False
    single_digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    adds_bos: bool = False


_GPT2 = PreTokenizer(gpt2=True)
_SINGLE_DIGITS = PreTokenizer(gpt2=True, single_digits=True)
_GPT4 = (_CONTRACTIONS + "|" + _WORDS_AND_REST % r"\p{N}{1,3}",)
_LLAMA3 = PreTokenizer(splits=_GPT4, whole_words=True, adds_bos=True)
_CL100K = PreTokenizer(splits=_GPT4)
_QWEN2_SPLITS = (_CONTRACTIONS + "|" + _WORDS_AND_REST % r"\p{N}",)
_QWEN2 = PreTokenizer(splits=_QWEN2_SPLITS, nfc=True)
_O200K = PreTokenizer(splits=(_CASED % (_CONTRACTIONS + "?", _CONTRACTIONS + "?", r"\p{N}{1,3}"),))
_TEKKEN = PreTokenizer(splits=(_CASED % ("", "", r"\p{N}"),), whole_words=True, adds_bos=True)
_DEEPSEEK_CODER = PreTokenizer(splits=("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"))
_DEEPSEEK3 = PreTokenizer(
    splits=(
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        _ASCII_PUNCTUATION
        + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    )
)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(
        ("default", "gpt-2", "gpt2", "gpt-neox", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "trillion"), _GPT2
    ),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), _SINGLE_DIGITS),
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _CL100K),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("stablelm2", "hunyuan"), PreTokenizer(splits=_QWEN2_SPLITS)),
    **dict.fromkeys(("gpt-4o", "llama4"), _O200K),
    "tekken": _TEKKEN,
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-v3": _DEEPSEEK3,
}
"""Known values of ``tokenizer.ggml.pre``."""
