"""Who may import whom, what is packaged, and what must not be imported before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "tokenizers", "numpy", "huggingface_hub", "gguf", "sacrebleu", "jinja2"}

BASE = ("core.errors", "core.typed_fields", "core.files", "core.machine")
ROOMS: dict[str, tuple[str, ...]] = {
    # Room (or module) -> what it may import besides itself. The longest matching name decides; anything not named here
    # is refused. A module name allows that module alone, a room everything below it.
    "": ("core", "apps"),
    "cli": ("core", "apps", "eval"),
    "core.errors": (),
    "core.typed_fields": ("core.errors",),
    "core.files": ("core.errors",),
    "core.machine": ("core.errors",),
    "core.fetch": BASE,
    "core.model": ("core.errors", "core.typed_fields"),
    "core.tokenizers": BASE,
    "core.chat": (*BASE, "core.tokenizers"),
    "core.quantization": (*BASE, "core.model"),
    "core.formats": (*BASE, "core.model", "core.tokenizers", "core.chat"),
    "core.decode": (*BASE, "core.tokenizers", "core.model.cache"),
    "core.runners": (
        *(*BASE, "core.model", "core.quantization", "core.formats"),
        *("core.tokenizers", "core.chat", "core.decode"),
    ),
    "core.train": (*BASE, "core.model", "core.tokenizers", "core.chat", "core.formats"),
    "core.language_model": (*BASE, "core.decode", "core.tokenizers", "core.chat"),
    "core.load": ("core",),
    # Kept for one release, for tasks of other packages.
    "core.tokenizers.base": ("core.chat.message", "core.tokenizers.tokenizer"),
    "apps.task": ("apps.tasks", "apps.text.cleaning", "core.decode.config", "core.chat.message"),
    "apps.text": ("core.errors",),
    "apps.show": ("core.errors",),
    "apps.tasks": (
        *("core.errors", "core.decode.config", "core.decode.constraint", "core.chat", "core.tokenizers"),
        "apps.text",
    ),
    "apps.documents": ("core.errors", "apps.tasks", "apps.data", "apps.text"),
    "apps.data": ("core.errors", "apps.tasks.task", "apps.documents.files"),
    "apps.models": ("core", "apps.tasks", "apps.text"),
    "apps.pipeline": ("core", "apps.tasks", "apps.text", "apps.models"),
    "apps.training": (
        *("core", "apps.tasks", "apps.text", "apps.data", "apps.documents", "apps.pipeline", "apps.models"),
        "apps.show",
    ),
    "apps.translating": ("core", "apps.tasks", "apps.text", "apps.documents", "apps.pipeline", "apps.models"),
    "apps.asking": (*("core.errors", "apps.text", "apps.documents", "apps.translating.trees", "apps.pipeline.result"),),
    "apps.bench": ("core",),
    "apps.weights": ("core", "apps.text", "apps.models"),
    "apps.toolkit": (
        *("core", "apps.tasks", "apps.text", "apps.documents", "apps.pipeline", "apps.models"),
        "apps.translating",
        "apps.asking",
    ),
    "apps.load": ("core", "apps.pipeline", "apps.models", "apps.toolkit"),
    "apps.serve": ("core", "apps.tasks", "apps.text", "apps.models", "apps.pipeline", "apps.documents", "apps.toolkit"),
    "apps.serve.cli": ("core", "apps"),
    "apps.cli": ("core", "apps"),
    "eval.metrics": ("core.errors", "apps.text"),
    "eval.statistics": ("core.errors", "eval.metrics"),
    "eval.data": (
        *(*BASE, "core.chat", "apps.tasks", "apps.text", "apps.data", "apps.documents"),
        "eval.metrics",
    ),
    "eval.runs": (
        *("core", "apps.tasks", "apps.text", "apps.data", "apps.documents", "apps.pipeline", "apps.models"),
        *("eval.metrics", "eval.statistics", "eval.data"),
    ),
    "eval.report": (*BASE, "apps.show", "eval.metrics", "eval.statistics", "eval.runs", "eval.data"),
    "eval.cli": ("core", "apps", "eval"),
    "eval.lm_eval": ("core", "apps.tasks", "apps.models", "apps.toolkit"),
}
LATE = ("cli", "core.load", "apps.cli", "apps.serve.cli", "eval.cli")
"""Where our own modules may be imported inside functions, besides the package itself: it decides how fast things start."""
PURE = ("eval.metrics", "eval.statistics", "apps.text", "core.errors")
"""Rooms without torch."""
MOST_MODULES = 15
MOST_LINES = 500


def package_files() -> list[Path]:
    """Python files of the package: in the root, or below its four code folders."""
    files = list(ROOT.glob("*.py"))
    for folder in ("core", "apps", "eval"):
        files += ROOT.joinpath(folder).rglob("*.py")
    return sorted(files)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str | None:
    known = [room for room in ROOMS if module == room or (room and inside(module, room))]
    return max(known, key=len, default=None)


def may_import(module: str, target: str) -> bool:
    room = room_of(module)
    if room is None or room_of(target) is None:
        return False
    return room_of(target) == room or any(inside(target, allowed) for allowed in ROOMS[room])


@dataclass(frozen=True)
class Import:
    """One name that a file imports, wherever in the file: at its top, in a function, or for type checkers only."""

    line: int
    target: str
    late: bool


def imports(tree: ast.Module, modules: frozenset[str]) -> Iterator[Import]:
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) in late)
        elif isinstance(node, ast.ImportFrom):
            # A relative import would hide from the rules.
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield Import(node.lineno, full if full.removeprefix("nlpkit.") in modules else module, id(node) in late)


def read_house() -> dict[str, tuple[Path, list[Import]]]:
    """Return what each module of the package imports."""
    modules = frozenset(module_name(path) for path in package_files()) - {""}
    house = {}
    for path in package_files():
        found = list(imports(ast.parse(path.read_text(encoding="utf-8")), modules))
        house[module_name(path)] = (path.relative_to(ROOT), found)
    return house


def violations(house: dict[str, tuple[Path, list[Import]]]) -> Iterator[str]:
    for module, (path, found) in house.items():
        for entry in found:
            where = f"{path}:{entry.line} imports {entry.target}"
            first = entry.target.split(".")[0]
            if entry.target.startswith("."):
                yield f"{where}: relative"
            elif first in {"core", "apps", "eval", "cli"}:
                yield f"{where}: would be a second copy of the module"
            elif first == "torch" and any(inside(module, room) for room in PURE):
                yield f"{where}: there is no torch in {room_of(module)}"
            elif first == "nlpkit":
                target = entry.target.removeprefix("nlpkit").lstrip(".")
                if not may_import(module, target):
                    yield f"{where}: {room_of(module)} must not"
                if entry.late and module and not any(inside(module, room) for room in LATE):
                    yield f"{where}: inside a function"


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    rings: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                rings.append(sorted(ring))

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return rings


def edges_of(house: dict[str, tuple[Path, list[Import]]]) -> dict[str, set[str]]:
    return {
        module: {
            target
            for entry in found
            if (target := entry.target.removeprefix("nlpkit").lstrip(".")) in house and target != module
        }
        for module, (_, found) in house.items()
    }


def test_rooms_import_what_they_may() -> None:
    house = read_house()
    assert len(house) > 200
    assert sorted(set(violations(house))) == []


def test_no_modules_import_each_other() -> None:
    assert circles(edges_of(read_house())) == []


def test_rooms_are_small() -> None:
    sizes = Counter(path.parent for path in package_files() if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_files_are_short() -> None:
    files = [*package_files(), *ROOT.joinpath("tests").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_tests_lie_in_the_rooms_of_what_they_test() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    other = {Path(name) for name in (".", "parity", "property", "system")}
    assert sorted(str(folder) for folder in folders - other if not (ROOT / folder).is_dir()) == []


def test_the_rules_see_what_they_forbid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for name in (
        "apps/__init__.py",
        "core/__init__.py",
        "core/model/gpt.py",
        "core/decode/engine.py",
        "core/decode/config.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    bad = tmp_path / "core" / "model" / "bad.py"
    bad.write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import gpt\n"
        "import core.errors\n"
        "from nlpkit import apps\n"
        "def f():\n"
        "    from nlpkit.core.decode.engine import Engine\n"
        "if TYPE_CHECKING:\n"
        "    from nlpkit.core.decode.config import DecodeConfig\n"
        "def g():\n"
        "    from nlpkit.core.model.gpt import GPT\n"
    )
    (tmp_path / "core" / "model" / "gpt.py").write_text("from nlpkit.core.model import bad\n")
    house = read_house()
    assert {int(text.split(":")[1].split()[0]) for text in violations(house)} == {2, 3, 4, 6, 8, 10}
    assert circles(edges_of(house)) == [["core.model.bad", "core.model.gpt"]]


def test_every_package_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in package_files()}
    assert sorted(listed) == sorted(".".join(["nlpkit", *folder.relative_to(ROOT).parts]) for folder in folders)
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()]
    assert missing == []


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import nlpkit",
        "import nlpkit.cli",
        "from nlpkit import NlpkitError, DecodeConfig",
        "import nlpkit.apps.toolkit, nlpkit.apps.bench.engine",
        "import nlpkit.apps.cli.task_command, nlpkit.apps.tasks.table as c; [c.load_task(n) for n in ('translation', 'qa', 'summarization', 'writing')]",
    ],
)
def test_light_imports_stay_light(code: str) -> None:
    modules = modules_after(code)
    assert modules & {"torch", "transformers", "tokenizers", "huggingface_hub", "gguf", "sacrebleu"} == set()
    assert {"core", "apps", "eval", "cli"}.isdisjoint(modules)


def test_the_command_line_module_is_light() -> None:
    modules = modules_after("import nlpkit.cli")
    assert modules & HEAVY == set()
    assert "rich.progress" not in modules


def test_this_process_has_one_copy_of_each_module() -> None:
    import nlpkit.cli  # noqa: F401

    assert {"core", "apps", "eval", "cli"}.isdisjoint(sys.modules)


def test_public_names_resolve() -> None:
    import nlpkit

    assert nlpkit.__version__
    for name in nlpkit.__all__:
        assert getattr(nlpkit, name) is not None
    assert set(nlpkit.__all__) <= set(dir(nlpkit))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nlpkit.nonsense  # type: ignore[attr-defined]


def test_help_answers_fast() -> None:
    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60)
        return time.perf_counter() - began

    # The promise is 0.3 s, which is 2.5 times what Python and typer take to start where that was measured: so a loaded
    # machine, which is slow at both, tells the same.
    tries = [(seconds("-m", "nlpkit.cli", "--help"), seconds("-c", "import typer")) for _ in range(5)]
    assert min(help_ for help_, _ in tries) < 2.5 * min(typer for _, typer in tries)
