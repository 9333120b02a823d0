"""Chat templates: from messages to the text, and the token ids, that an instruct model was trained on."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from nlpkit.core.chat.message import Message
from nlpkit.core.chat.sandbox import MAX_SOURCE_CHARS, SandboxedTemplate
from nlpkit.core.errors import InputError, ModelFileError, TokenizerError, shown
from nlpkit.core.files.read import read_small_file
from nlpkit.core.tokenizers.special_tokens import is_there, read_json, read_special_tokens
from nlpkit.core.tokenizers.tokenizer import Tokenizer

MAX_SPELLINGS_SQUARED = 16_000_000
"""Most of the sum of the squares of the special tokens' lengths: their beginnings and ends are all kept."""


@runtime_checkable
class ProtectingTokenizer(Tokenizer, Protocol):
    """A tokenizer that can keep typed special spellings apart from a template's own.

    Attributes:
        special_spellings: Spelling and id of every special token.
    """

    @property
    def special_spellings(self) -> Mapping[str, int]: ...  # noqa: D102

    def encode_protected(self, text: str, originals: Mapping[str, str]) -> list[int]:
        """Encode with special spellings read as special tokens and stand-in characters as plain text.

        Args:
            text: A rendering, with stand-ins in the spellings that must stay text.
            originals: Stand-in character -> the character that it stands for.

        Returns:
            The ids of the text with the stand-ins turned back.
        """
        ...


class ChatTemplate:
    """A jinja chat template, rendered in a sandbox.

    Args:
        source: The template.
        bos_token: What the template's ``bos_token`` stands for.
        eos_token: What its ``eos_token`` stands for.
        variables: Further special tokens, such as ``{"unk_token": "<unk>"}``.

    A template that is no valid jinja, or that uses what the sandbox does not offer, is refused where it is first used:
    its model may still continue plain text.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        named = {**(variables or {}), "bos_token": bos_token, "eos_token": eos_token}
        # A token that the model does not have is undefined in transformers too, and templates test for that.
        self._variables = {name: spelling for name, spelling in named.items() if spelling}

    @functools.cached_property
    def _template(self) -> SandboxedTemplate:
        return SandboxedTemplate(self.source)

    @property
    def problem(self) -> str | None:
        """Why the template cannot be used, or None."""
        try:
            _ = self._template
        except ModelFileError as error:
            return str(error)
        return None

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over the source and the special tokens that it is rendered with."""
        value = json.dumps([self.source, sorted(self._variables.items())], ensure_ascii=False)
        return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Render a conversation to text, as ``transformers``' ``apply_chat_template(tokenize=False)`` does.

        Args:
            messages: The turns, oldest first.
            add_generation_prompt: End with the opening of the assistant's turn.

        Raises:
            InputError: There are no messages, or the template refuses this conversation (many demand that
            user and
                assistant alternate).
            ModelFileError: The template cannot be used, fails, or runs away.
        """
        if not messages:
            raise InputError("There are no messages to render. Give at least one user message.")
        return self._template.render(
            {
                **self._variables,
                "messages": [{"role": message.role, "content": message.content} for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            }
        )

    def render_tokens(
        self, messages: Sequence[Message], tokenizer: Tokenizer, *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Render a conversation to token ids; special spellings inside the messages stay text.

        Where no message holds the spelling of a special token, the ids are those of the whole rendering, as
        in `transformers`. Where one does, one character of each typed spelling is exchanged for a stand-in
        before rendering; then the rendering is cut at the template's own special tokens, and the stretches
        between them that hold stand-ins are encoded as plain text with the stand-ins turned back. A special
        token is a boundary for every tokenizer, so nothing but the typed spellings is tokenized differently.

        Args:
            messages: The turns, oldest first.
            tokenizer: Of the model that the template belongs to.
            add_generation_prompt: End with the opening of the assistant's turn.

        Raises:
            InputError: As `render`; or the tokenizer cannot protect a special spelling that a message holds.
            ModelFileError: As `render`.
        """
        if not isinstance(tokenizer, ProtectingTokenizer):
            return self._render_unprotected(messages, tokenizer, add_generation_prompt)
        guard = _guard_for(tuple(tokenizer.special_spellings))
        if not any(guard.touches(text) for m in messages for text in (m.content, m.role)):
            return tokenizer.encode(
                self.render(messages, add_generation_prompt=add_generation_prompt), parse_special=True
            )
        stand_ins = guard.stand_ins([self.source, *self._variables.values(), *(m.content for m in messages)])
        hidden = [Message(guard.hide(m.role, stand_ins), guard.hide(m.content, stand_ins)) for m in messages]
        rendering = self.render(hidden, add_generation_prompt=add_generation_prompt)
        return tokenizer.encode_protected(rendering, {stand_in: char for char, stand_in in stand_ins.items()})

    def save(self, directory: str | Path) -> None:
        """Write ``chat_template.jinja``, which `load_chat_template` and `transformers` read.

        Args:
            directory: Must exist.
        """
        (Path(directory) / "chat_template.jinja").write_text(self.source, encoding="utf-8", newline="")

    def _render_unprotected(
        self, messages: Sequence[Message], tokenizer: Tokenizer, add_generation_prompt: bool
    ) -> list[int]:
        for message in messages:
            plain = tokenizer.encode(message.content)
            if tokenizer.encode(message.content, parse_special=True) != plain:
                raise InputError(
                    "A message holds the spelling of one of the model's special tokens, which this tokenizer "
                    "cannot tell from the template's own. Take it out of the text."
                )
        rendering = self.render(messages, add_generation_prompt=add_generation_prompt)
        return tokenizer.encode(rendering, parse_special=True)


class _Guard:
    """Breaks special spellings in messages by exchanging one character of each for a stand-in.

    Stand-ins are single characters from the private use area, so lengths, slices and whatever else a template
    looks at stay the same. The beginning of a spelling at the end of a message, and the end of one at its
    beginning, are broken too: neither the template's text nor the next message must complete them.

    Args:
        spellings: Of all special tokens.
    """

    def __init__(self, spellings: Sequence[str]) -> None:
        by_length = sorted(filter(None, spellings), key=len, reverse=True)
        if sum(len(s) ** 2 for s in by_length) > MAX_SPELLINGS_SQUARED:
            raise TokenizerError(
                f"The model has {len(by_length):,} special tokens, the longest {shown(by_length[0], 60)}: that is "
                "more than any model needs. The tokenizer is damaged or hostile; use another model."
            )
        self._pattern = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        self._beginnings = {s[:n] for s in by_length for n in range(1, len(s))}
        self._ends = {s[-n:] for s in by_length for n in range(1, len(s))}
        self._longest = max(map(len, by_length), default=0)
        self._edges = sorted({s[0] for s in by_length} | {s[-1] for s in by_length})

    def stand_ins(self, texts: Sequence[str]) -> dict[str, str]:
        """Choose a stand-in for each character that may be exchanged.

        Args:
            texts: Everything that will be rendered; its characters cannot be stand-ins.

        Returns:
            Character -> stand-in.
        """
        used: set[str] = set().union(*map(set, texts))
        free = [char for char in map(chr, range(0xE000, 0xF900)) if char not in used]
        if len(free) < len(self._edges):
            raise InputError(
                "The messages use nearly the whole private use area of Unicode (U+E000 to U+F8FF) beside "
                "special tokens of the model. Take those characters out."
            )
        return dict(zip(self._edges, free, strict=False))

    def touches(self, text: str) -> bool:
        """Return whether `hide` would change this text."""
        head, tail = self._seams(text)
        return bool(head or tail or self._pattern.search(text))

    def hide(self, text: str, stand_ins: Mapping[str, str]) -> str:
        """Return the text with every special spelling broken."""
        head, tail = self._seams(text)
        while self._pattern.search(text):
            text = self._pattern.sub(lambda match: stand_ins[match[0][0]] + match[0][1:], text)
        chars = list(text)
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for position in ([start + head - 1] if head else []) + ([end - tail] if tail else []):
            chars[position] = stand_ins.get(chars[position], chars[position])
        return "".join(chars)

    def _seams(self, text: str) -> tuple[int, int]:
        # Templates strip messages, so a seam is where the white space ends.
        text = text.strip()
        lengths = range(min(self._longest - 1, len(text)), 0, -1)
        head = next((n for n in lengths if text[:n] in self._ends), 0)
        tail = next((n for n in lengths if text[len(text) - n :] in self._beginnings), 0)
        return head, tail


@functools.lru_cache(maxsize=16)
def _guard_for(spellings: tuple[str, ...]) -> _Guard:
    return _Guard(spellings)


def load_chat_template(directory: str | Path) -> ChatTemplate | None:
    """Read the chat template of a model directory in the HF layout.

    Args:
        directory: ``chat_template.jinja`` is read first, then ``chat_template.json``, then the
            ``chat_template`` of ``tokenizer_config.json``; of several named templates the one called
            ``default`` is taken.

    Returns:
        The template, or None where there is none (a base model).

    Raises:
        ModelFileError: There is one that cannot be used.
        TokenizerError: One of the JSON files is damaged.
    """
    directory = Path(directory)
    special = read_special_tokens(directory)
    source: object = None
    path = directory / "chat_template.jinja"
    if is_there(path):
        data = read_small_file(path, max_bytes=4 * MAX_SOURCE_CHARS, error=ModelFileError, what="a chat template")
        try:
            source = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise ModelFileError(f"The chat template {path} cannot be read: {error}.") from error
    else:
        source = read_json(directory / "chat_template.json").get("chat_template")
        source = special.config.get("chat_template") if source is None else source
    if isinstance(source, Sequence) and not isinstance(source, str):
        source = _default_of(source)
    if source is None:
        return None
    if not isinstance(source, str):
        raise ModelFileError(f"The chat template in {directory} is a {type(source).__name__}, not a text.")
    return ChatTemplate(source, bos_token=special.bos or "", eos_token=special.eos or "", variables=special.roles)


def _default_of(templates: Sequence[object]) -> object:
    """Return the template called ``default`` out of a list of ``{"name", "template"}``."""
    named = {
        t["name"]: t.get("template") for t in templates if isinstance(t, Mapping) and isinstance(t.get("name"), str)
    }
    if "default" not in named:
        raise ModelFileError(
            f"The model's chat templates are {shown([*named][:20]) if named else 'nameless'}; none is the 'default'."
        )
    return named["default"]
