"""The command that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nlpkit.apps.cli.options import Device, Dtype
from nlpkit.apps.cli.output import note
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.serve.settings import ServedModel


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="[ID=]NAME", help="Name, file, folder or hub id. Repeatable."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than the loopback are reachable.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where to run.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Serve models over HTTP, with the interface of OpenAI's completions."""
    try:
        from nlpkit.apps.serve.app import build_app
        from nlpkit.apps.serve.run import open_socket
        from nlpkit.apps.serve.run import serve as run
    except ImportError as error:
        raise ConfigError(
            f"Serving needs the package {error.name}, which is not installed. Install it with: pip install "
            "'nlpkit[serve]'."
        ) from error
    from nlpkit.apps.serve.models import ServedModels
    from nlpkit.apps.serve.settings import ServeSettings

    settings = ServeSettings(
        models=tuple(_served(one) for one in model or ["default"]),
        dtype=dtype,
        device=device,
        threads=threads,
        host=host,
        port=port,
    )
    with open_socket(host, port) as listening:
        models = ServedModels(settings)
        with models.lend(models.ids[0]):
            pass
        where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        run(
            build_app(settings, models=models),
            settings,
            listening,
            on_start=lambda: note(f"serving {', '.join(models.ids)} at {where}", quiet=quiet),
        )
    return 0


def _served(text: str) -> ServedModel:
    from nlpkit.apps.serve.settings import ServedModel

    name, equals, rest = text.partition("=")
    return ServedModel(id=name, name=rest) if equals else ServedModel(id=text, name=text)
