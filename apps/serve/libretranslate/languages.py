"""Which languages the served models translate between."""

from __future__ import annotations

from typing import Any

from nlpkit.apps.serve.errors import ApiError
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Task
from nlpkit.apps.text.language_detection import detect_language
from nlpkit.apps.text.languages import LANGUAGES, parse_language
from nlpkit.apps.text.translation.language_pairs import find_route
from nlpkit.core.errors import ConfigError

TASK = "translation"
AUTO = "auto"


def translation_task() -> Task[Any]:
    """Return the task."""
    return load_task(TASK)


def learned_pairs(models: ServedModels) -> list[tuple[str, str]]:
    """Return the pairs of languages that the first model learned; none where its files do not say."""
    task = translation_task()
    adapter = models.usual(task)
    return [] if adapter is None or task.name not in adapter.tuned.names else list(adapter.tuned.languages)


def list_languages(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Describe languages as the interface does.

    Args:
        pairs: What the model learned; where it is empty, all languages that have a name are listed.

    Returns:
        Each with its code, its English name, and the codes of those that it can be translated into.
    """
    codes = [code for code in LANGUAGES if not pairs or any(code in pair for pair in pairs)]
    listed = []
    for code in codes:
        targets = [one for one in codes if one != code and find_route(pairs, code, one) is not None]
        if targets:
            listed.append({"code": code, "name": LANGUAGES[code].name, "targets": sorted([code, *targets])})
    return sorted(listed, key=lambda one: str(one["name"]))


def language_code(name: str, *, param: str) -> str:
    """Return a language's code.

    Raises:
        ApiError: There is none of that name.
    """
    try:
        return parse_language(name)
    except ConfigError:
        raise ApiError(f"{name[:40]} is not supported", param=param) from None


def detected(text: str) -> dict[str, Any] | None:
    """Say in which language a text seems to be, with a confidence from 0 to 100; None where nothing tells."""
    code, confidence = detect_language(text)
    return None if code is None else {"confidence": round(100 * confidence, 1), "language": code}
