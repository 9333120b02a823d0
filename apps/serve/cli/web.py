"""The command that opens the page."""

from __future__ import annotations

import dataclasses
import socket
import threading
from typing import Annotated

import typer

from nlpkit.apps.cli.output import note
from nlpkit.apps.serve.cli.serve import ServeOptions, serve_models

PORT = 8000
"""The usual port. What the page keeps in the browser belongs to its address, so it should stay the same."""


def web(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", metavar="[ID=]NAME", help="Name, file, folder or hub id. Repeatable; the first is usual."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Port; 0 takes a free one. By default {PORT}, or a free one."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes on stderr.")] = False,
) -> int:
    """Open a page for all tasks in the browser."""
    options = ServeOptions(model=model, port=_free_port() if port is None else port)
    # Nobody but this machine comes in, whatever else there is to set.
    settings = dataclasses.replace(options.settings(), host="127.0.0.1")
    return serve_models(settings, quiet=quiet, on_start=lambda where: _open(where, browser=browser, quiet=quiet))


def _free_port() -> int:
    with socket.socket() as probe:
        # As the server itself does: a port that was used a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return 0
    return PORT


def _open(where: str, *, browser: bool, quiet: bool) -> None:
    note(f"the page is at {where}; Ctrl-C ends it", quiet=quiet)
    if browser:
        # Some browsers keep whoever starts them waiting, and the server has requests to answer.
        threading.Thread(target=_show, args=(where, quiet), daemon=True).start()


def _show(where: str, quiet: bool) -> None:
    import webbrowser

    try:
        opened = webbrowser.open(where)
    except webbrowser.Error:
        opened = False
    if not opened:
        note(f"no browser could be opened: open {where} yourself", quiet=quiet)
