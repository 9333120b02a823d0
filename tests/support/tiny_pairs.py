"""A few translations, a tokenizer that knows their words, and a tiny model that can be fine-tuned on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_models import tiny_config, tiny_gpt

from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.formats.export import save_native
from nlpkit.core.tokenizers.train import CHATML, END_OF_TEXT, train_tokenizer

PAIRS = [("Hello", "Hallo"), ("Good morning", "Guten Morgen"), ("Thank you", "Danke"), ("The dog", "Der Hund")] * 3
VOCAB = 400


def pairs_tokenizer() -> Any:
    """A tokenizer of the pairs."""
    texts = [f"{a} {b} translate from English to German" for a, b in PAIRS] * 9
    return train_tokenizer("bpe", texts, vocab_size=VOCAB)


def save_base(path: Path, tokenizer: Any) -> Path:
    """Write a random model with a chat template."""
    model = tiny_gpt(tiny_config(vocab_size=VOCAB, max_seq_len=256), scale=0.05)
    chat = ChatTemplate(CHATML, eos_token=END_OF_TEXT)
    save_native(path, model.config, model.state_dict(), tokenizer=tokenizer, chat=chat)
    return path


def save_pairs(path: Path) -> Path:
    """Write the pairs as rows."""
    rows = [{"source": a, "target": b, "source_lang": "en", "target_lang": "de"} for a, b in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train_arguments(data: Path, base: Path, output: Path, *more: str, task: str = "translation") -> list[str]:
    """Arguments of the command ``train``; the defaults here give way to what follows."""
    usual = ["train", "--task", task, "--data", str(data), "--base", str(base), "--output", str(output),
            "--seq-len", "128", "--batch-size", "2", "--lr", "0.01", "--compile", "off"]  # fmt: skip
    return changed(usual, *more)


def changed(arguments: Sequence[str], *more: str) -> list[str]:
    """Return arguments with further ones, which replace those of the same name."""
    kept = list(arguments)
    for flag in {word for word in more if word.startswith("-")} & set(kept):
        place = kept.index(flag)
        del kept[place : place + 2]
    return [*kept, *more]
