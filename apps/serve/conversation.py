"""A conversation with a model: what was said, how much of it fits the context, and its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.request import Request, TokenEvent
from nlpkit.core.errors import ConfigError, ContextOverflowError, InputError
from nlpkit.core.files.read import read_json_file
from nlpkit.core.files.write import unwritable, write_json

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

ANSWER_TOKENS = 512
"""Most tokens of an answer, where nothing else is said."""
ROLES = ("user", "assistant")


@dataclass
class Conversation:
    """What was said so far.

    Attributes:
        system: What the model is told before all else, or an empty text.
        messages: What was said, by turns, the user first.
    """

    system: str = ""
    messages: list[Message] = field(default_factory=list)

    @property
    def whole(self) -> list[Message]:
        """All of it, as a template takes it."""
        return [*([Message("system", self.system)] if self.system else []), *self.messages]

    def take_back(self) -> str | None:
        """Remove the user's last message and what came after; return it, or None where there is none."""
        for place in range(len(self.messages) - 1, -1, -1):
            if self.messages[place].role == "user":
                text = self.messages[place].content
                del self.messages[place:]
                return text
        return None

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        said = [{"role": message.role, "content": message.content} for message in self.messages]
        with unwritable(f"{path} cannot be written"):
            write_json(Path(path).expanduser(), {"system": self.system, "messages": said})

    @classmethod
    def load(cls, path: str | Path) -> Conversation:
        """Read a file that `save` has written.

        Raises:
            InputError: It is something else.
        """
        values: Mapping[str, Any] = read_json_file(Path(path).expanduser(), error=InputError)
        system, said = values.get("system", ""), values.get("messages")
        problem = InputError(f"{path} is no conversation: it must be a JSON object as /save writes it.")
        if not isinstance(system, str) or not isinstance(said, list):
            raise problem
        messages = []
        for one in said:
            if not isinstance(one, dict) or one.get("role") not in ROLES or not isinstance(one.get("content"), str):
                raise problem
            messages.append(Message(one["role"], one["content"]))
        return cls(system, messages)


@dataclass(frozen=True)
class Asked:
    """What the model is asked.

    Attributes:
        request: For the engine.
        left_out: How many of the oldest messages do not fit the context.
    """

    request: Request
    left_out: int


def ask(lm: LanguageModel, conversation: Conversation, config: DecodeConfig) -> Asked:
    """Make a prompt of a conversation; the oldest turns give way where it is longer than the context.

    Args:
        lm: The model.
        conversation: It ends with a message of the user's.
        config: How to answer.

    Raises:
        ConfigError: The model has no chat template.
        ContextOverflowError: Not even the last message fits.
        InputError: The template refuses the conversation.
    """
    if lm.chat is None:
        raise ConfigError(f"{lm.name} has no chat template: it continues texts. Use nlpkit generate, or another model.")
    messages = conversation.messages
    room = lm.max_seq_len - config.max_tokens
    for first in range(0, len(messages), 2):
        kept = Conversation(conversation.system, messages[first:]).whole
        ids = lm.chat.render_tokens(kept, lm.tokenizer, add_generation_prompt=True)
        if len(ids) <= room:
            return Asked(Request(prompt_ids=tuple(ids), config=config), first)
    raise ContextOverflowError(
        f"The message is longer than the {max(0, room)} tokens that the context of {lm.name} has room for beside an "
        f"answer of {config.max_tokens}. Shorten it, or lower --max-tokens."
    )


def answer(lm: LanguageModel, asked: Asked) -> Iterator[TokenEvent]:
    """Write the answer, piece by piece; the last event carries it whole."""
    return lm.stream(asked.request)
