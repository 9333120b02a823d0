"""The former place of `Message` and `Tokenizer`, kept for one release: `nlpkit.Message` is the name to import."""

from __future__ import annotations

from nlpkit.core.chat.message import Message
from nlpkit.core.tokenizers.tokenizer import Tokenizer

__all__ = ["Message", "Tokenizer"]
