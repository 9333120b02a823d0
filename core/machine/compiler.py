"""The C++ compiler."""

from __future__ import annotations

import os
import shutil


def find_compiler() -> str | None:
    """Return the path of the C++ compiler: ``CXX`` if set, else ``g++`` or ``clang++``; None where there is none."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((path for name in names if name and (path := shutil.which(name))), None)
