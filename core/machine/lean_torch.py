"""A quicker ``import torch`` for commands that live for a second or two.

About a third of that import prepares what decoding never uses: rules for tensors without content (which compilers work
on), exporting, data loading, distributions, older quantization. These parts are put off until something asks for one of
their names. The rules are not asked for by name, so they are loaded as soon as a library that relies on them is; new
`torch.Generator`s need them, too, so this is for our own decoding only, which makes none.

What depends on what inside of torch is its own affair, so this is done only for versions on which it has been tested.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

TESTED = ("2.13.",)
"""Beginnings of the versions of torch on which parts are put off."""

RULES = "torch._meta_registrations"
"""What registers itself when it is loaded, and is never looked at."""

PUT_OFF = frozenset(
    {
        RULES,
        "torch._export",
        "torch.distributions",
        "torch.export",
        "torch.masked",
        "torch.nn.intrinsic",
        "torch.nn.qat",
        "torch.nn.quantizable",
        "torch.nn.quantized",
        "torch.quantization",
        "torch.utils.data",
    }
)

_NEEDS_RULES = frozenset({"accelerate", "peft", "torch._dynamo", "torch._inductor", "torch.onnx", "transformers"})


class _PutOff(importlib.abc.Loader):
    """Runs a module when one of its names is asked for."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader
        self._lock = threading.RLock()

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def ask(name: str) -> Any:
            self.run(module)
            return getattr(module, name)

        # A module's own `__getattr__` (PEP 562) is asked for names that it does not have.
        module.__dict__["__getattr__"] = ask

    def run(self, module: ModuleType) -> None:
        """Run the module, unless that has been done or is being done by this thread."""
        with self._lock:
            spec = module.__spec__
            if spec is not None and isinstance(spec.loader, _PutOff):
                spec.loader = self._loader
                ask = module.__dict__.pop("__getattr__")
                try:
                    self._loader.exec_module(module)
                except BaseException:
                    spec.loader, module.__dict__["__getattr__"] = self, ask
                    raise


class _Present(importlib.abc.Loader):
    """Gives a module that has been imported meanwhile."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules to put off while torch is imported; afterwards it watches for what needs the rules."""

    def __init__(self) -> None:
        self.importing = True

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent, _, _ = name.rpartition(".")
        if _run(parent) and name in sys.modules:
            # Python would take the module's own description, if it has another one by now, and run the module again.
            module = sys.modules[name]
            module.__spec__ = importlib.machinery.ModuleSpec(name, _Present(module))
            return module.__spec__
        if self.importing and name in PUT_OFF:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = _PutOff(spec.loader)
            return spec
        if not self.importing and name in _NEEDS_RULES:
            load_rules()
        return None


def _run(name: str) -> bool:
    """Run a module if it was put off; tell whether it was."""
    module = sys.modules.get(name)
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if module is None or not isinstance(loader, _PutOff):
        return False
    loader.run(module)
    return True


def import_torch() -> None:
    """Import torch, without the parts of `PUT_OFF` where that is tested; where it is imported, nothing happens."""
    if "torch" in sys.modules or not importlib.metadata.version("torch").startswith(TESTED):
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        import torch  # noqa: F401
    except BaseException:
        sys.meta_path.remove(finder)
        raise
    finder.importing = False


def load_rules() -> None:
    """Load the rules for tensors without content, if they were put off."""
    _run(RULES)
