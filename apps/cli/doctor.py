"""`nlpkit doctor`: what matters when something is wrong or slow, and what to do about it. Opens no socket."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from types import ModuleType
from typing import Any

from nlpkit.apps.cli.options import SinkOptions
from nlpkit.apps.cli.output import Writer

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "gguf",
    "huggingface_hub",
    "numpy",
    "jinja2",
    "typer",
)
"""The dependencies that a report about a problem should name."""

MIN_FREE_BYTES = 2 * 2**30
"""Less free memory or disk than this is worth a word."""


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        section: Group it is shown in.
        name: What it is about.
        value: What was found.
        advice: What to do about it, or None if all is well.
    """

    section: str
    name: str
    value: Any
    advice: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that something should be done about."""
        return tuple(finding for finding in self.findings if finding.advice is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary: sections of name to value, and the problems."""
        sections: dict[str, Any] = {}
        for finding in self.findings:
            sections.setdefault(finding.section, {})[finding.name] = finding.value
        problems = [{"section": p.section, "name": p.name, "value": p.value, "advice": p.advice} for p in self.problems]
        return {**sections, "problems": problems}


def examine() -> Diagnosis:
    """Look at everything. Whatever goes wrong while looking becomes a finding too."""
    findings: list[Finding] = []
    for section, look in _SECTIONS:
        try:
            findings += [Finding(section, *rest) for rest in look()]
        # A diagnosis that crashes on what it should diagnose helps nobody.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            findings.append(Finding(section, "check", what, f"The {section} check itself failed; report this."))
    return Diagnosis(tuple(findings))


def render_diagnosis(report: Diagnosis) -> str:
    """Lay a report out as text, problems repeated at the end with what to do."""
    lines: list[str] = []
    section = ""
    width = max((len(finding.name) for finding in report.findings), default=0)
    for finding in report.findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section] if lines else [section]
        mark = "!" if finding.advice is not None else " "
        lines.append(f"{mark} {finding.name:<{width}}  {_shown(finding.value)}")
    lines.append("")
    if not report.problems:
        lines.append("No problems found.")
    else:
        lines.append("What to do")
        lines += [f"! {problem.name}: {problem.advice}" for problem in report.problems]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)


_Fact = tuple[str, Any] | tuple[str, Any, str | None]


def _software() -> Iterator[_Fact]:
    yield "nlpkit", version("nlpkit")
    yield "python", f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "missing", f"Install it: pip install {package}, or install nlpkit again."
    for extra in metadata("nlpkit").get_all("Provides-Extra") or []:
        missing = [name for name in _extra_packages(extra) if not _installed(name)]
        yield f"extra {extra}", "installed" if not missing else f"not installed (lacks {', '.join(missing)})"


def _extra_packages(extra: str) -> list[str]:
    marker = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    entries = [entry for entry in requires("nlpkit") or [] if marker.search(entry)]
    return [re.split(r"[\s\[<>=!~;(]", entry, maxsplit=1)[0] for entry in entries]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _torch() -> ModuleType:
    import torch

    return torch


def _processor() -> Iterator[_Fact]:
    from nlpkit.core.machine.processor import available_cores, cpu_flags, cpu_name, set_threads

    torch = _torch()
    capability = torch.backends.cpu.get_cpu_capability()
    yield "processor", cpu_name()
    slow = (
        "Decoding will be slow: this processor, or this build of torch, has no AVX2."
        if capability == "DEFAULT"
        else None
    )
    yield "torch kernels", capability, slow
    flags = cpu_flags()
    for name, wanted in (
        ("avx2", {"avx2"}),
        ("avx512", {"avx512f"}),
        ("vnni", {"avx512_vnni", "avx_vnni"}),
        ("bf16", {"avx512_bf16", "amx_bf16", "bf16"}),
        ("amx", {"amx_tile"}),
    ):
        yield name, bool(flags & wanted)
    yield "cores", os.cpu_count() or 1
    usable = available_cores()
    yield "usable cores", usable
    threads = set_threads(None)
    crowd = None
    if threads > usable:
        crowd = f"{threads} threads on {usable} cores get in each other's way: set OMP_NUM_THREADS={usable}."
    yield "threads", threads, crowd
    yield "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "not set")


def _numbers() -> Iterator[_Fact]:
    from nlpkit.core.load import pick_dtype
    from nlpkit.core.quantization.kernel_build import load_library, why_not
    from nlpkit.core.quantization.linear import smoke_test

    torch = _torch()
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name(0)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield "devices", devices
    reason = why_not() or (None if load_library() is not None else "they could not be compiled: see Compiler")
    yield "dtype auto", pick_dtype("auto", torch.device("cpu")) if reason else "int8"
    yield "compiled kernels", "work" if reason is None else f"not used: {reason}"
    yield "torch's int8 kernels", smoke_test("int8")
    yield "torch's int4 kernels", smoke_test("int4")


def _memory() -> Iterator[_Fact]:
    from nlpkit.core.machine.memory import available_memory, memory_limit, total_memory

    total, limit, free = total_memory(), memory_limit(), available_memory()
    if total is not None:
        yield "total", _size(total)
    if limit is not None:
        yield "limit of this group", _size(limit)
    if free is not None:
        low = "Close other programs, or use --dtype int8 and a small --batch-tokens." if free < MIN_FREE_BYTES else None
        yield "available", _size(free), low


def _compiler() -> Iterator[_Fact]:
    from nlpkit.core.machine.compiler import find_compiler

    path = find_compiler()
    advice = "Fast int8 and int4 decoding and torch.compile need one: install g++ or clang, or set CXX."
    if path is None:
        yield "c++", "not found", advice
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.cpp")
        source.write_text('#include <cmath>\nextern "C" double f(double x) { return std::exp(x); }\n')
        command = [path, "-shared", "-fPIC", "-o", str(Path(folder, "try.so")), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            works = done.returncode == 0
            said = "" if works else (done.stderr.strip().splitlines() or ["no message"])[-1]
        except (OSError, subprocess.TimeoutExpired) as error:
            works, said = False, str(error)
    asked = os.environ.get("CXX")
    if works and asked and shutil.which(asked) is None:
        yield "c++", f"{path} (works)", f"CXX names {asked}, which is not there: set it to another one, or unset it."
        return
    yield "c++", f"{path} ({'works' if works else said})", None if works else advice


def _cache() -> Iterator[_Fact]:
    from nlpkit.core.fetch.catalogue import list_models
    from nlpkit.core.files.cache import cache_home, is_offline
    from nlpkit.core.files.hashing import sha256_file

    home = cache_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    advice = None
    if not os.access(existing, os.W_OK):
        advice = f"{existing} cannot be written: change its mode, or set NLPKIT_HOME to another folder."
    yield "folder", str(home), advice
    yield "NLPKIT_HOME", os.environ.get("NLPKIT_HOME", "not set")
    free = shutil.disk_usage(existing).free
    little = "Free some space, or set NLPKIT_HOME to another disk." if free < MIN_FREE_BYTES else None
    yield "free space", _size(free), little
    yield "offline", is_offline() or "no variable forbids downloads"
    for status in list_models():
        entry = status.entry
        names = " = ".join([entry.name, *entry.aliases[:1]])
        if not status.cached:
            damaged = entry.path.exists()
            get = f"Download it: nlpkit models pull {entry.name}."
            yield names, "damaged (wrong size)" if damaged else "not downloaded", get
        elif sha256_file(entry.path) != entry.sha256:
            yield names, "damaged (wrong sha256)", f"Delete {entry.path}, then: nlpkit models pull {entry.name}."
        else:
            yield names, f"{_size(entry.size)}, sha256 {entry.sha256[:12]} verified"


def _adapters() -> Iterator[_Fact]:
    from nlpkit.apps.models.adapters import BASE, MODEL, shipped_adapters, shipped_models
    from nlpkit.core.errors import NlpkitError
    from nlpkit.core.fetch.catalogue import find_entry
    from nlpkit.core.files.hashing import sha256_file
    from nlpkit.core.formats.open import open_model
    from nlpkit.core.formats.peft.adapter import open_adapter
    from nlpkit.core.formats.peft.settings import WEIGHTS_NAME

    entry, shipped = find_entry(BASE), shipped_adapters()
    if not shipped:
        yield "shipped", "none"
    for own in shipped_models():
        try:
            open_model(own.path / MODEL)
        except NlpkitError as error:
            yield own.name, f"damaged ({error})", "Install nlpkit again."
            continue
        yield f"{own.name}, a model", f"{_size((own.path / MODEL).stat().st_size)}, from {own.path}", None
    for adapter in shipped:
        try:
            opened = open_adapter(adapter.path)
        except NlpkitError as error:
            yield adapter.name, f"damaged ({error})", "Install nlpkit again."
            continue
        weights = opened.files[WEIGHTS_NAME]
        wanted = adapter.tuned.base_sha256
        other = entry is not None and wanted is not None and wanted != entry.sha256
        yield (
            adapter.name,
            f"{_size(weights.stat().st_size)}, sha256 {sha256_file(weights)[:12]}",
            f"It belongs to another model than {BASE}: install nlpkit again." if other else None,
        )


def _text() -> Iterator[_Fact]:
    advice = "Names of files may come out wrong: set LC_ALL=C.UTF-8 or PYTHONUTF8=1."
    for name, encoding in (
        ("locale", locale.getpreferredencoding(False)),
        ("file names", sys.getfilesystemencoding()),
    ):
        utf8 = encoding.lower().replace("-", "") == "utf8"
        yield name, encoding, None if utf8 else advice
    yield "LANG, LC_ALL", ", ".join(os.environ.get(name, "not set") for name in ("LANG", "LC_ALL"))
    yield "terminal", [name for name in ("stdin", "stdout", "stderr") if _is_terminal(getattr(sys, name))]


_SECTIONS: tuple[tuple[str, Callable[[], Iterator[_Fact]]], ...] = (
    ("Software", _software),
    ("Processor", _processor),
    ("Number formats", _numbers),
    ("Memory", _memory),
    ("Compiler", _compiler),
    ("Models", _cache),
    ("Adapters", _adapters),
    ("Text", _text),
)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and not stream.closed and bool(stream.isatty())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def doctor(sink: SinkOptions) -> int:
    """Print what matters for help, and what to do about problems."""
    report = examine()
    with Writer(sink.output, as_json=sink.as_json) as writer:
        writer.write(report.to_dict() if sink.as_json else render_diagnosis(report))
    return 0
