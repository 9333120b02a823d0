"""Who may import whom, what is packaged, and what must not be imported before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "tokenizers", "numpy", "huggingface_hub", "gguf", "sacrebleu", "jinja2"}

# From -> what it must not import. The longest matching prefix on the left decides, together with all shorter ones.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "nlpkit.core": ("nlpkit.apps", "nlpkit.eval", "nlpkit.cli"),
    "nlpkit.core.errors": ("nlpkit", "torch"),
    "nlpkit.core.tokenizers": (
        "nlpkit.core.model",
        "nlpkit.core.loaders",
        "nlpkit.core.decode",
        "nlpkit.core.train",
        "nlpkit.core.language_model",
    ),
    "nlpkit.core.model": (
        "nlpkit.core.loaders",
        "nlpkit.core.decode",
        "nlpkit.core.train",
        "nlpkit.core.language_model",
    ),
    "nlpkit.core.loaders": ("nlpkit.core.language_model", "nlpkit.core.train"),
    "nlpkit.core.decode": ("nlpkit.core.language_model", "nlpkit.core.train"),
    "nlpkit.core.train": ("nlpkit.core.language_model",),
    "nlpkit.apps": ("nlpkit.eval", "nlpkit.cli"),
    "nlpkit.eval": ("nlpkit.cli",),
    "nlpkit.eval.metrics": ("torch", "nlpkit.core", "nlpkit.apps"),
    "nlpkit.eval.statistics.significance": ("torch", "nlpkit.core", "nlpkit.apps"),
}


# Only names of exceptions and a spelling hint, from the standard library alone: anybody may raise them.
ALLOWED = "nlpkit.core.errors"


def package_files() -> list[Path]:
    """Python files of the package: in the root, or below its four code folders."""
    files = list(ROOT.glob("*.py"))
    for folder in ("core", "apps", "eval"):
        files += ROOT.joinpath(folder).rglob("*.py")
    return sorted(files)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["nlpkit", *(part for part in parts if part != "__init__")])


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def type_checking_lines(tree: ast.AST) -> set[int]:
    """Lines under ``if TYPE_CHECKING:``: they are never executed."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in node.body
        for line in range(inner.lineno, (inner.end_lineno or inner.lineno) + 1)
    }


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            # A relative import would hide from the rules below.
            yield node.lineno, "." * node.level + (node.module or "")
            if node.level == 0 and node.module is not None:
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"


def violations(path: Path) -> Iterator[str]:
    module = module_name(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ignored = type_checking_lines(tree)
    for line, name in imports(tree):
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if name.startswith("."):
            yield f"{where}: relative"
        if name.split(".")[0] in {"core", "apps", "eval", "cli"}:
            yield f"{where}: would be a second copy of the module"
        if line in ignored or inside(name, ALLOWED):
            continue
        for source, targets in FORBIDDEN.items():
            if inside(module, source):
                yield from (f"{where}: {source} must not" for target in targets if inside(name, target))


def test_import_direction() -> None:
    assert len(package_files()) > 30
    found = sorted({text for path in package_files() for text in violations(path)})
    assert found == []


def test_the_rule_sees_what_it_forbids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / "core" / "model" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import gpt\n"
        "import core.errors\n"
        "from nlpkit import apps\n"
        "def f():\n"
        "    from nlpkit.core.decode.engine import Engine\n"
        "if TYPE_CHECKING:\n"
        "    from nlpkit.core.decode.config import DecodeConfig\n"
    )
    lines = {int(text.split(":")[1].split()[0]) for text in violations(bad)}
    assert lines == {2, 3, 4, 6}


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
        "import nlpkit.apps.cli.task_command as c; [c.load_task(n) for n in ('translation', 'qa', 'summarization', 'writing')]",
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
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nlpkit.cli", "--help"], capture_output=True, check=True, timeout=60)
        return time.perf_counter() - began

    # The promise is 0.4 s; a loaded machine gets five tries and some air.
    assert min(seconds() for _ in range(5)) < 0.6
