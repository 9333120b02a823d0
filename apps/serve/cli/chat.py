"""The command that chats in the terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlpkit.apps.cli.options import DecodeOptions, ModelOptions, named_as_flags
from nlpkit.apps.cli.output import note, printable
from nlpkit.core.errors import ConfigError, NlpkitError, did_you_mean

if TYPE_CHECKING:
    from nlpkit.apps.serve.conversation import Conversation
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.decode.request import Completion
    from nlpkit.core.language_model import LanguageModel

TEMPERATURE, TOP_P = 0.7, 0.9
"""How answers are chosen, where nothing else is said: small models go in circles on the likeliest way."""
BLOCK = '"""'
HELP = {
    "/help": "say what there is",
    "/system TEXT": "tell the model something before all else; without a text, say what it is told",
    "/retry": "write the last answer anew",
    "/undo": "take the last message and its answer back",
    "/clear": "forget what was said",
    "/save FILE": "write the conversation to a file",
    "/load FILE": "go on with a conversation from a file",
    "/quit": "leave; so does Ctrl-D",
}


def chat(
    model: ModelOptions,
    decode: DecodeOptions,
    system: Annotated[str, typer.Option(metavar="TEXT", help="What the model is told before all else.")] = "",
    load: Annotated[str | None, typer.Option(metavar="FILE", help="Go on with a conversation from a file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each answer.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Talk to a model; Ctrl-C stops an answer, Ctrl-D leaves."""
    from nlpkit.apps.cli.loading import load_shown
    from nlpkit.apps.models.adapters import NONE, AdapterChooser
    from nlpkit.apps.serve.conversation import ANSWER_TOKENS, Conversation
    from nlpkit.core.decode.config import DecodeConfig

    given = decode.overrides()
    usual = {} if {"beam_size", "contrastive_alpha"} & given.keys() else {"temperature": TEMPERATURE, "top_p": TOP_P}
    with named_as_flags():
        config = DecodeConfig(**{"max_tokens": ANSWER_TOKENS, **usual, **given})
        if config.beam_size > 1 or config.n > 1:
            raise ConfigError("beam_size cannot be used in a conversation: its text is known only at the end.")
    conversation = Conversation() if load is None else Conversation.load(load)
    conversation.system = system or conversation.system
    lm = load_shown(model.spec(), AdapterChooser(model.model, model.adapter or NONE).named, quiet=quiet, lean=True)
    if lm.chat is None:
        raise ConfigError(f"{lm.name} has no chat template: it continues texts. Use nlpkit generate, or another model.")
    talk = _Talk(lm, config, conversation, as_json=as_json, quiet=quiet)
    if talk.watched:
        note(f"{lm.name}; /help says what there is, Ctrl-D leaves", quiet=quiet)
    talk.run()
    return 0


@dataclass
class _Talk:
    """One session.

    Attributes:
        lm: The model.
        config: How it answers.
        conversation: What was said.
        as_json: Whether answers are JSON objects.
        quiet: Whether nothing is said beside answers.
    """

    lm: LanguageModel
    config: DecodeConfig
    conversation: Conversation
    as_json: bool
    quiet: bool

    def __post_init__(self) -> None:
        self.watched = sys.stdin is not None and sys.stdin.isatty() and not self.as_json
        if self.watched:
            with contextlib.suppress(ImportError):
                # Arrow keys, and lines of before.
                import readline  # noqa: F401

    def run(self) -> None:
        """Answer until the user leaves."""
        while (text := self._read()) is not None:
            try:
                # What has several lines is no command, however it begins.
                if text.startswith("/") and not text.startswith("//") and "\n" not in text:
                    if not self._obey(text):
                        return
                elif text.strip():
                    self._say(text.removeprefix("/") if text.startswith("//") else text)
            except NlpkitError as error:
                if not self.watched:
                    raise
                note(str(error))

    def _read(self) -> str | None:
        r"""Read a message: a line, lines that end with ``\``, or what stands between two lines of three quotes."""
        lines: list[str] = []
        block = False
        while True:
            try:
                line = self._line("... " if lines or block else "> ")
            except EOFError:
                if self.watched:
                    sys.stderr.write("\n")
                return "\n".join(lines) if lines else None
            except KeyboardInterrupt:
                if not self.watched:
                    raise
                sys.stderr.write("\n")
                note("/quit or Ctrl-D leaves", quiet=self.quiet)
                lines, block = [], False
                continue
            if line.strip() == BLOCK:
                if block:
                    return "\n".join(lines)
                block = True
            elif block:
                lines.append(line)
            elif line.endswith("\\"):
                lines.append(line[:-1])
            else:
                return "\n".join([*lines, line])

    def _line(self, sign: str) -> str:
        if self.watched:
            # With an empty line break before nothing: readline knows where the line begins.
            return input(sign)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def _obey(self, text: str) -> bool:
        """Do what a command says; return whether to go on."""
        word, _, rest = text.partition(" ")
        rest = rest.strip()
        commands: dict[str, Callable[[str], object]] = {
            "/help": self._help,
            "/system": self._system,
            "/retry": self._retry,
            "/undo": self._undo,
            "/clear": lambda _: self.conversation.messages.clear(),
            "/save": self._save,
            "/load": self._load,
        }
        if word in ("/quit", "/exit", "/bye"):
            return False
        if word not in commands:
            note(f"There is no {word}. {did_you_mean(word, commands)} A message that begins with / begins with //.")
        else:
            commands[word](rest)
        return True

    def _help(self, rest: str) -> None:
        for name, what in HELP.items():
            note(f"{name}: {what}")
        note(f"a line that ends with \\ goes on in the next; so do all lines between two of {BLOCK}")

    def _system(self, rest: str) -> None:
        if rest:
            self.conversation.system = rest
        else:
            note(self.conversation.system or "the model is told nothing")

    def _retry(self, rest: str) -> None:
        before = list(self.conversation.messages)
        text = self.conversation.take_back()
        if text is None:
            note("nothing was said yet")
            return
        try:
            # Another seed: with the same one the answer would be the same.
            self._say(text, config=self.config.replace(seed=None))
        except BaseException:
            # There is no new answer to take the place of the old one.
            self.conversation.messages[:] = before
            raise

    def _undo(self, rest: str) -> None:
        note("nothing was said yet" if self.conversation.take_back() is None else "taken back", quiet=self.quiet)

    def _save(self, rest: str) -> None:
        if not rest:
            raise ConfigError("/save needs the name of a file.")
        self.conversation.save(rest)
        note(f"written to {rest}", quiet=self.quiet)

    def _load(self, rest: str) -> None:
        from nlpkit.apps.serve.conversation import Conversation

        if not rest:
            raise ConfigError("/load needs the name of a file.")
        found = Conversation.load(rest)
        self.conversation.system, self.conversation.messages = found.system, found.messages
        note(f"{len(found.messages)} messages", quiet=self.quiet)

    def _say(self, text: str, *, config: DecodeConfig | None = None) -> None:
        """Put a message to the model, and show its answer."""
        from nlpkit.apps.serve.conversation import answer, ask
        from nlpkit.core.chat.message import Message

        said = self.conversation.messages
        said.append(Message("user", text))
        try:
            asked = ask(self.lm, self.conversation, config or self.config)
            if asked.left_out:
                note(f"the first {asked.left_out} messages no longer fit, and are left out", quiet=self.quiet)
            shown: list[str] = []
            completion = None
            with _stopping() as stop:
                for event in answer(self.lm, asked):
                    self._show(event.text)
                    shown.append(event.text)
                    completion = event.completion
                    if stop.wanted:
                        break
        except BaseException:
            said.pop()
            raise
        said.append(Message("assistant", "".join(shown)))
        self._end("".join(shown), completion)

    def _show(self, text: str) -> None:
        if text and not self.as_json:
            sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()

    def _end(self, text: str, completion: Completion | None) -> None:
        if self.as_json:
            reason = "interrupted" if completion is None else completion.finish_reason
            values: dict[str, Any] = {"role": "assistant", "content": text, "finish_reason": reason}
            if completion is not None:
                values |= {"output_tokens": completion.n_tokens, "seed": completion.seed}
            sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write("\n")
        sys.stdout.flush()
        if completion is None:
            note("stopped", quiet=self.quiet)
        elif completion.finish_reason == "length":
            note(f"stopped at the limit of {self.config.max_tokens} tokens; --max-tokens sets it", quiet=self.quiet)


@dataclass
class _Stop:
    wanted: bool = False


@contextlib.contextmanager
def _stopping() -> Iterator[_Stop]:
    """Let Ctrl-C ask for a stop in the block, so that nothing is torn apart; asked for twice it interrupts."""
    stop = _Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.wanted = True

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:
        # Not in the main thread.
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
