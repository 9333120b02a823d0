"""Groups of command-line options that several commands share, each a frozen dataclass.

`command` expands the groups that a command function asks for into single options, so that the function gets
objects and not forty parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.models import OptionInfo

from nlpkit.apps.cli.output import discard_stdout
from nlpkit.apps.cli.process import Interrupted, StrictCommand
from nlpkit.apps.documents.files import MAX_BYTES, check_text
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.models.spec import ModelSpec

_MODEL = "Model"
_DECODING = "Decoding"
_INPUT = "Input"
_OUTPUT = "Output"

Dtype = Literal["auto", "fp32", "bf16", "int8", "int4"]
Device = Literal["auto", "cpu", "cuda", "mps"]
SpeculationChoice = Literal["none", "prompt"]
OverflowChoice = Literal["error", "chunk", "truncate"]
FORMAT_HELP = "auto goes by the file's name: jsonl, csv and tsv are data rows, the others documents."

Adapter = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH|none",
        help="Adapter; with the default model, the task's own by default.",
        rich_help_panel=_MODEL,
    ),
]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the weights.", rich_help_panel=_MODEL)]
DeviceOption = Annotated[Device, typer.Option(help="Where to run.", rich_help_panel=_MODEL)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads; as many as this process may use by default.", rich_help_panel=_MODEL),
]

_Function = TypeVar("_Function", bound=Callable[..., int | None])


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model to run, and how."""

    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, file, folder or hub id.", rich_help_panel=_MODEL)
    ] = "default"
    adapter: Adapter = None
    dtype: DtypeOption = "auto"
    device: DeviceOption = "auto"
    threads: Threads = None
    prefix_cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Keep what is computed for beginnings of prompts here.", rich_help_panel=_MODEL
        ),
    ] = None

    def spec(self) -> ModelSpec:
        """Return the model as a value.

        Raises:
            InputError: A name is not valid text.
        """
        from nlpkit.apps.models.spec import ModelSpec

        named = (("--model", self.model), ("--adapter", self.adapter), ("--prefix-cache", self.prefix_cache))
        for flag, value in named:
            if value is not None:
                check_text(value, where=flag)
        return ModelSpec(
            name=self.model,
            adapter=self.adapter,
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
            prefix_cache=self.prefix_cache,
        )


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """How to decode. None means the task's own default."""

    max_tokens: Annotated[int | None, typer.Option(help="Most tokens to write.", rich_help_panel=_DECODING)] = None
    min_tokens: Annotated[int | None, typer.Option(help="Fewest tokens to write.", rich_help_panel=_DECODING)] = None
    temperature: Annotated[
        float | None, typer.Option(help="0 takes the likeliest token each time.", rich_help_panel=_DECODING)
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample from the likeliest tokens of this total.", rich_help_panel=_DECODING),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(help="Sample from the k likeliest tokens; 0 is off.", rich_help_panel=_DECODING),
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(help="Drop tokens below this share of the likeliest.", rich_help_panel=_DECODING),
    ] = None
    typical_p: Annotated[
        float | None, typer.Option(help="Locally typical sampling; 1 is off.", rich_help_panel=_DECODING)
    ] = None
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Per earlier occurrence, -2 to 2.", rich_help_panel=_DECODING)
    ] = None
    presence_penalty: Annotated[
        float | None, typer.Option(help="Once for tokens that occurred, -2 to 2.", rich_help_panel=_DECODING)
    ] = None
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1 discourages repeats; 1 is off.", rich_help_panel=_DECODING)
    ] = None
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option(help="Never write an n-gram of this length twice.", rich_help_panel=_DECODING),
    ] = None
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=VALUE",
            help="Add VALUE to a token id's logit; -100 bans it. Repeatable.",
            rich_help_panel=_DECODING,
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help=r"End before this text; \n, \t and \\ are read. Repeatable.",
            rich_help_panel=_DECODING,
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.", rich_help_panel=_DECODING)] = None
    beam_size: Annotated[int | None, typer.Option(help="Beam search when above 1.", rich_help_panel=_DECODING)] = None
    length_penalty: Annotated[
        float | None, typer.Option(help="Beams rank by log p / length^penalty.", rich_help_panel=_DECODING)
    ] = None
    beam_groups: Annotated[
        int | None, typer.Option(help="Groups of beams that keep apart.", rich_help_panel=_DECODING)
    ] = None
    diversity_penalty: Annotated[
        float | None, typer.Option(help="How far groups of beams keep apart, 0.5.", rich_help_panel=_DECODING)
    ] = None
    must_include: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Words that must occur; beam search. Repeatable.", rich_help_panel=_DECODING),
    ] = None
    contrastive_alpha: Annotated[
        float | None,
        typer.Option(help="Contrastive search among top-k when above 0; 0.6 is usual.", rich_help_panel=_DECODING),
    ] = None
    speculation: Annotated[
        SpeculationChoice | None,
        typer.Option(help="Guess tokens that repeat the prompt: the same text, sooner.", rich_help_panel=_DECODING),
    ] = None
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens to work on at once; lower saves memory.", rich_help_panel=_DECODING),
    ] = None
    on_overflow: Annotated[
        OverflowChoice | None,
        typer.Option(help="What to do with inputs beyond the context.", rich_help_panel=_DECODING),
    ] = None

    def overrides(self) -> dict[str, Any]:
        """Return the decoding options that the user gave, by `DecodeConfig` field.

        Raises:
            ConfigError: A stop string or a logit bias is malformed.
            InputError: A stop string or a word to include is not valid text.
        """
        given: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("batch_tokens", "on_overflow") and getattr(self, field.name) not in (None, [])
        }
        if "stop" in given:
            given["stop"] = tuple(_unescape(check_text(text, where="--stop")) for text in given["stop"])
        if "must_include" in given:
            given["must_include"] = tuple(check_text(text, where="--must-include") for text in given["must_include"])
        if "logit_bias" in given:
            given["logit_bias"] = dict(_bias(entry) for entry in given["logit_bias"])
        return given


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Where the text comes from."""

    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="Read this file; - is a pipe. Repeatable.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    lines: Annotated[
        bool,
        typer.Option("--lines", help="Each line is an input; lines out = lines in.", rich_help_panel=_INPUT),
    ] = False
    input_format: Annotated[
        str,
        typer.Option(metavar="FORMAT", help=FORMAT_HELP, rich_help_panel=_INPUT),
    ] = "auto"
    encoding: Annotated[str, typer.Option(metavar="NAME", help="Encoding of text files.", rich_help_panel=_INPUT)] = (
        "utf-8"
    )
    max_input_mb: Annotated[
        float, typer.Option(min=0.001, max=65536, help="Refuse larger inputs.", rich_help_panel=_INPUT)
    ] = MAX_BYTES / 2**20
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=THEIRS", help="The rows' name for a column. Repeatable.", rich_help_panel=_INPUT
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COLUMN=VALUE", help="A column's value in all rows. Repeatable.", rich_help_panel=_INPUT
        ),
    ] = None
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="Go on when an input fails; the exit code is then 3.", rich_help_panel=_INPUT
        ),
    ] = False

    @property
    def format(self) -> str:
        """The input format, ``--lines`` counted in.

        Raises:
            ConfigError: ``--lines`` and another ``--input-format``.
        """
        if self.lines and self.input_format not in ("auto", "lines"):
            raise ConfigError(f"--lines contradicts --input-format {self.input_format}: leave one of the two out.")
        return "lines" if self.lines else self.input_format

    @property
    def max_bytes(self) -> int:
        """Largest input in bytes."""
        return int(self.max_input_mb * 2**20)


@dataclass(frozen=True, kw_only=True)
class SinkOptions:
    """Where the result goes, and what is said beside it."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write here, whole or not at all.", rich_help_panel=_OUTPUT
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.", rich_help_panel=_OUTPUT)] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no bars on stderr.", rich_help_panel=_OUTPUT)
    ] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions(SinkOptions):
    """The same for commands that decode."""

    stats: Annotated[
        bool, typer.Option("--stats", help="Tokens, seconds and speed on stderr.", rich_help_panel=_OUTPUT)
    ] = False


@contextlib.contextmanager
def named_as_flags(other: Mapping[str, str] | None = None) -> Iterator[None]:
    """Let errors about decoding options name the flags that set them, as in ``--top-p is 2``.

    Args:
        other: Flags of fields that the command itself has, such as ``n``.

    Raises:
        ConfigError: As the block raises it, in other words.
    """
    try:
        yield
    except ConfigError as error:
        flags = {field.name: f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(DecodeOptions)}
        flags |= other or {}
        # Words of one part are words of the language as well: they are fields where the sentence begins with them.
        long = [name for name in flags if "_" in name]
        pattern = rf"\b(?<!-)(?:{'|'.join(long)})\b|^(?:{'|'.join(flags)})(?= is | \()"
        raise ConfigError(re.sub(pattern, lambda match: flags[match.group()], str(error))) from error


def command(app: typer.Typer, name: str | None = None) -> Callable[[_Function], _Function]:
    """Register a command whose parameters may be option groups.

    Args:
        app: Where to register it.
        name: Its name; by default the function's.

    Returns:
        A decorator. The function may take dataclasses of options beside plain typer parameters; each of their
        fields becomes an option of its own. Every command also gets ``--debug``, which `nlpkit.cli.main`
        looks at. Options that take one value are refused when they are given twice, or with an empty value.
    """

    def register(function: _Function) -> _Function:
        groups: dict[str, type] = {}
        plain: list[inspect.Parameter] = []
        options: list[inspect.Parameter] = []
        # Not typing.get_type_hints: before Python 3.11 it wraps whatever has the default None in Optional.
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            kind = parameter.annotation
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                groups[parameter.name] = kind
                options += _options(kind)
            else:
                plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        options.append(_DEBUG)
        for parameter in (*plain, *options):
            _show_as_flag(parameter.annotation)

        @functools.wraps(function)
        def run(**values: Any) -> int | None:
            values.pop("debug")
            for parameter, group in groups.items():
                fields = {field.name: values.pop(field.name) for field in dataclasses.fields(group)}
                values[parameter] = group(**fields)
            try:
                return function(**values)
            except KeyboardInterrupt as error:
                # Here, before click sees them: its own exit codes for both differ by version.
                raise Interrupted from error
            except BrokenPipeError:
                discard_stdout()
                return 0

        signature = inspect.Signature([*plain, *options])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        # typer asks inspect for the signature of the wrapped function where it finds one.
        del run.__wrapped__
        app.command(name, cls=StrictCommand)(run)
        return function

    return register


_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_OUTPUT)],
)


def _options(group: type) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]


def _show_as_flag(annotation: Any) -> None:
    """Keep the help from giving a switch a value: newer versions of typer write ``--json <bool>``."""
    if typing.get_origin(annotation) is Annotated and typing.get_args(annotation)[0] is bool:
        for part in typing.get_args(annotation)[1:]:
            if isinstance(part, OptionInfo) and part.metavar is None:
                part.metavar = ""


def _unescape(text: str) -> str:
    pieces = text.split("\\\\")
    return "\\".join(piece.replace("\\n", "\n").replace("\\t", "\t") for piece in pieces)


def _bias(entry: str) -> tuple[int, float]:
    token, _, value = entry.partition("=")
    try:
        return int(token), float(value)
    except ValueError as error:
        raise ConfigError(
            f"--logit-bias is {entry!r}; it must be a token id and a number, such as 198=-100."
        ) from error
