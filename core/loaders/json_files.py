"""Reading small JSON files that nobody vouches for. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nlpkit.core.errors import ModelFileError

MAX_JSON_BYTES = 64 * 2**20


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        ModelFileError: The file is missing, too large, not UTF-8 or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            size = path.stat().st_size
            raise ModelFileError(f"{path} is {size:,} bytes; a configuration may have {MAX_JSON_BYTES:,}.")
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} holds {type(value).__name__}, not a JSON object.")
    return value
