"""The command that serves."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nlpkit.apps.cli.options import Device, Dtype
from nlpkit.apps.cli.output import note
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.serve.settings import ServedModel, ServeSettings

_MODELS = "Models"
_DOOR = "Who may come in"
_LIMITS = "Limits"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve."""

    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="[ID=]NAME",
            help="Name, file, folder or hub id, and what requests call it. Repeatable; the first is the usual one.",
            rich_help_panel=_MODELS,
        ),
    ] = None
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=PATH",
            help="A model with an adapter of its own, as ID=PATH on the first model. Repeatable.",
            rich_help_panel=_MODELS,
        ),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="GB",
            help="Weights in memory; the longest unused model goes first.",
            rich_help_panel=_MODELS,
        ),
    ] = None
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.", rich_help_panel=_MODELS)] = "auto"
    device: Annotated[Device, typer.Option(help="Where to run.", rich_help_panel=_MODELS)] = "auto"
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", rich_help_panel=_MODELS)] = None
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of each model's cache in use at once.", rich_help_panel=_MODELS)
    ] = 32_768
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Others than 127.0.0.1 let other machines in.", rich_help_panel=_DOOR),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=_DOOR)] = 8000
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Another name that requests may call it by. Repeatable.", rich_help_panel=_DOOR
        ),
    ] = None
    api_keys: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="SHA-256 of each key that opens the door, one a line.", rich_help_panel=_DOOR
        ),
    ] = None
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests running or waiting; more get 429.", rich_help_panel=_LIMITS)
    ] = 256
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, max=1024, help="Longest body of a request.", rich_help_panel=_LIMITS)
    ] = 4
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a request is given up.", rich_help_panel=_LIMITS)
    ] = 600
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that requests get when the server ends.", rich_help_panel=_LIMITS)
    ] = 10

    def settings(self) -> ServeSettings:
        """Return them as a value.

        Raises:
            ConfigError: Two models have the same id, or the file of keys cannot be used.
        """
        from nlpkit.apps.serve.door.keys import read_keys
        from nlpkit.apps.serve.settings import ServedModel, ServeSettings

        models = [_served(one) for one in self.model or ["default"]]
        for one in self.adapter or []:
            name, equals, path = one.partition("=")
            if not (equals and name and path):
                raise ConfigError(
                    f"--adapter is {one!r}; it must be an id and a folder, such as legal=./adapters/legal."
                )
            models.append(ServedModel(id=name, name=models[0].name, adapter=path))
        return ServeSettings(
            models=tuple(models),
            dtype=self.dtype,
            device=self.device,
            threads=self.threads,
            batch_tokens=self.batch_tokens,
            memory_bytes=None if self.memory is None else int(self.memory * 1e9),
            host=self.host,
            port=self.port,
            allowed_hosts=tuple(self.allow_host or ()),
            queue=self.max_requests,
            max_body_bytes=int(self.max_body_mb * 2**20),
            timeout=self.timeout,
            grace=self.grace,
            api_keys=frozenset() if self.api_keys is None else read_keys(self.api_keys),
        )


def serve(
    options: ServeOptions,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log each request on stderr, without texts.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Serve models and tasks over HTTP, with a page.

    The interfaces are nlpkit's own, OpenAI's and LibreTranslate's.
    """
    return serve_models(options.settings(), verbose=verbose, quiet=quiet)


def serve_models(
    settings: ServeSettings,
    *,
    verbose: bool = False,
    quiet: bool = False,
    on_start: Callable[[str], None] | None = None,
) -> int:
    """Serve until the process is told to end.

    Args:
        settings: How to serve.
        verbose: Whether to log each request.
        quiet: Whether nothing is said on stderr.
        on_start: Called with the page's address when requests are answered; by default it is said on stderr.

    Returns:
        The exit code.

    Raises:
        ConfigError: Serving needs a package that is not installed, or the address cannot be listened on.
    """
    try:
        from nlpkit.apps.serve.app import build_app
        from nlpkit.apps.serve.run import open_socket
        from nlpkit.apps.serve.run import serve as run
    except ImportError as error:
        raise ConfigError(
            f"Serving needs the package {error.name}, which is not installed. Install it with: pip install "
            "'nlpkit[serve]'."
        ) from error
    from nlpkit.apps.cli.progress import show_download
    from nlpkit.apps.serve.models import ServedModels
    from nlpkit.apps.serve.settings import is_loopback
    from nlpkit.core.fetch.catalogue import find_entry
    from nlpkit.core.fetch.resolve import resolve_model

    _log(verbose=verbose)
    with open_socket(settings.host, settings.port) as listening:
        if not is_loopback(settings.host):
            who = "who has a key" if settings.api_keys else "anybody"
            note(f"other machines that reach {settings.host} are let in: {who} may use the models", quiet=quiet)
        models = ServedModels(settings)
        first = settings.models[0].name
        if find_entry(first) is not None:
            with show_download(first, quiet=quiet) as bar:
                resolve_model(first, progress=bar)
        with models.lend(models.ids[0]) as loaded:
            for text in loaded.lm.notes:
                note(text, quiet=quiet)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        where = f"http://{host}:{listening.getsockname()[1]}"

        def started() -> None:
            if on_start is None:
                note(f"serving {', '.join(models.ids)}; its page is {where}, its interface {where}/docs", quiet=quiet)
            else:
                on_start(where)

        run(build_app(settings, models=models), settings, listening, on_start=started)
    return 0


def _log(*, verbose: bool) -> None:
    """Let the server's log go to stderr: bugs in any case, each request where that is wanted."""
    handler = logging.StreamHandler(sys.stderr)
    for name, level in (("nlpkit.serve", logging.INFO if verbose else logging.ERROR), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False


def _served(text: str) -> ServedModel:
    from nlpkit.apps.serve.settings import ServedModel

    name, equals, rest = text.partition("=")
    if equals and not (name and rest):
        raise ConfigError(f"--model is {text!r}; it must be a name, or an id and a name, such as small=default.")
    return ServedModel(id=name, name=rest) if equals else ServedModel(id=text, name=text)
