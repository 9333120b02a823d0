"""Reading small JSON files that nobody vouches for. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError
from nlpkit.core.small_files import read_json_file


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        ModelFileError: The file is missing, no regular file, too large, not UTF-8 or not a JSON object.
    """
    return read_json_file(path, error=ModelFileError)
