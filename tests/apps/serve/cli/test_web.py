"""The command that opens the page: on the loopback, in a browser where there is one."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable
from typing import Any

import pytest

from nlpkit.apps.serve.cli import web as command
from nlpkit.apps.serve.settings import ServeSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """Settings that would have been served; the page is 'ready' at once."""
    seen: list[ServeSettings] = []

    def serve(settings: ServeSettings, *, quiet: bool, on_start: Callable[[str], None]) -> int:
        seen.append(settings)
        on_start("http://127.0.0.1:1234")
        return 0

    monkeypatch.setattr(command, "serve_models", serve)
    return seen


def test_the_page_is_opened(
    served: list[ServeSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = threading.Event()
    addresses: list[str] = []

    def show(address: str) -> bool:
        addresses.append(address)
        opened.set()
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    assert command.web(model=["small=default"], port=1234) == 0
    assert opened.wait(5)
    assert addresses == ["http://127.0.0.1:1234"]
    (settings,) = served
    assert (settings.host, settings.port, settings.models[0].id) == ("127.0.0.1", 1234, "small")
    assert "http://127.0.0.1:1234" in capsys.readouterr().err


@pytest.mark.parametrize("error", [None, webbrowser.Error()])
def test_without_a_browser_the_address_is_said(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(address: str) -> bool:
        if error is not None:
            raise error
        return False

    monkeypatch.setattr(webbrowser, "open", show)
    command._show("http://127.0.0.1:1", False)
    assert "open http://127.0.0.1:1 yourself" in capsys.readouterr().err


def test_no_browser_is_opened_unasked(served: list[ServeSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(command, "_show", lambda *arguments: calls.append(arguments))
    command.web(browser=False, port=0, quiet=True)
    assert served
    assert not calls


@pytest.mark.local_server
def test_another_port_is_taken_where_the_usual_one_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(command, "PORT", other.getsockname()[1])
        assert command._free_port() == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    monkeypatch.setattr(command, "PORT", free)
    assert command._free_port() == free
