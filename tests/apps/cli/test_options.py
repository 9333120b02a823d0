"""Option groups become options, and options become groups again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from nlpkit.apps.cli.options import DecodeOptions, InputOptions, command
from nlpkit.core.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class Group:
    """Two options."""

    size: Annotated[int | None, typer.Option("--size", "-s", help="How large.")] = None
    names: Annotated[list[str] | None, typer.Option("--name")] = None


def test_a_group_is_expanded_and_rebuilt() -> None:
    app = typer.Typer()
    got: list[tuple[str | None, Group, bool]] = []

    @command(app)
    def work(
        group: Group,
        text: Annotated[str | None, typer.Argument()] = None,
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> int:
        """Work."""
        got.append((text, group, loud))
        return 0

    runner = CliRunner()
    assert runner.invoke(app, ["hello", "-s", "3", "--name", "a", "--name", "b", "--loud"]).exit_code == 0
    assert runner.invoke(app, ["--debug"]).exit_code == 0
    assert [entry[0] for entry in got] == ["hello", None]
    assert got[0][1:] == (Group(size=3, names=["a", "b"]), True)
    assert got[1][1].size is None
    assert "How large." in runner.invoke(app, ["--help"]).output


def test_only_what_was_given_overrides() -> None:
    assert DecodeOptions().overrides() == {}
    assert DecodeOptions(temperature=0.0, top_k=0, batch_tokens=9, on_overflow="error").overrides() == {
        "temperature": 0.0,
        "top_k": 0,
    }


@pytest.mark.parametrize(
    ("typed", "meant"), [(r"\n", "\n"), (r"a\tb", "a\tb"), (r"\\n", r"\n"), (r"\\\n", "\\\n"), (r"\d", r"\d")]
)
def test_escapes_of_stop_strings(typed: str, meant: str) -> None:
    assert DecodeOptions(stop=[typed]).overrides() == {"stop": (meant,)}


def test_bad_values() -> None:
    with pytest.raises(ConfigError, match="--logit-bias is '5'"):
        DecodeOptions(logit_bias=["5"]).overrides()
    with pytest.raises(InputError, match="--stop is not valid text"):
        DecodeOptions(stop=["\udce9"]).overrides()
    with pytest.raises(ConfigError, match="contradicts"):
        _ = InputOptions(lines=True, input_format="tsv").format
