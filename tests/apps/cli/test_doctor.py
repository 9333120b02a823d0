"""The doctor finds what is wrong, says what to do, and never falls ill itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlpkit.apps.cli import doctor
from nlpkit.apps.cli.doctor import Finding, Report, examine, render
from nlpkit.core.fetch.catalogue import CATALOGUE


def findings(section: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    sections = tuple(entry for entry in doctor._SECTIONS if entry[0] == section)
    monkeypatch.setattr(doctor, "_SECTIONS", sections)
    return {finding.name: finding for finding in examine().findings}


def test_software(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("typer", "no-such-package"))
    found = findings("Software", monkeypatch)
    assert found["typer"].advice is None
    assert found["no-such-package"].value == "missing"
    assert "pip install no-such-package" in str(found["no-such-package"].advice)
    assert "extra dev" in found


def test_broken_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "broken-c++"
    fake.write_text("#!/bin/sh\necho cannot find cc1plus >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CXX", str(fake))
    found = findings("Compiler", monkeypatch)
    assert "cannot find cc1plus" in found["c++"].value
    assert "torch.compile" in str(found["c++"].advice)


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    wrong = findings("Compiler", monkeypatch)["c++"]
    assert str(wrong.value).endswith("(works)")
    assert "CXX names no-such-compiler" in str(wrong.advice)
    monkeypatch.setenv("PATH", "")
    assert findings("Compiler", monkeypatch)["c++"].value == "not found"


def test_empty_cache_and_damaged_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path / "home"))
    (name,) = [key for key in findings("Models", monkeypatch) if key.startswith(CATALOGUE[0].name)]
    assert findings("Models", monkeypatch)[name].value == "not downloaded"
    path = CATALOGUE[0].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut off")
    damaged = findings("Models", monkeypatch)[name]
    assert damaged.value == "damaged (wrong size)"
    assert f"nlpkit models pull {CATALOGUE[0].name}" in str(damaged.advice)
    with path.open("wb") as file:
        file.truncate(CATALOGUE[0].size)
    damaged = findings("Models", monkeypatch)[name]
    assert damaged.value == "damaged (wrong sha256)"
    assert str(path) in str(damaged.advice)


def test_low_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlpkit.core.machine.memory.available_memory", lambda: 100 * 2**20)
    found = findings("Memory", monkeypatch)
    assert found["available"].value == "100 MiB"
    assert "--dtype int8" in str(found["available"].advice)


def test_foreign_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.locale, "getpreferredencoding", lambda _: "ISO-8859-1")
    assert "C.UTF-8" in str(findings("Text", monkeypatch)["locale"].advice)


def test_a_failing_check_becomes_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_SECTIONS", (("Processor", fail),))
    (problem,) = examine().problems
    assert "libtorch.so" in problem.value


def test_report_as_text_and_json() -> None:
    report = Report((Finding("A", "one", True), Finding("A", "two", ["x", "y"]), Finding("B", "three", 3, "Mend it.")))
    text = render(report)
    assert text.splitlines()[:4] == ["A", "  one    yes", "  two    x, y", ""]
    assert "! three  3" in text
    assert text.endswith("What to do\n! three: Mend it.")
    values = json.loads(json.dumps(report.to_dict()))
    assert values["A"] == {"one": True, "two": ["x", "y"]}
    assert values["problems"] == [{"section": "B", "name": "three", "value": 3, "advice": "Mend it."}]
    assert render(Report(())).endswith("No problems found.")
