"""nlpkit: language tasks on one shared GPT core, offline.

``import nlpkit`` loads neither torch nor transformers; `nlpkit.load` does, when called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlpkit.apps.load import load
    from nlpkit.apps.tasks.task import Field, Prediction, Prompt, Reranks, Scores, Splits, Target, Task
    from nlpkit.apps.toolkit import Toolkit
    from nlpkit.core.chat.message import Message
    from nlpkit.core.decode.config import DecodeConfig
    from nlpkit.core.decode.constraint import Constraint
    from nlpkit.core.errors import NlpkitError

__all__ = [
    "Constraint",
    "DecodeConfig",
    "Field",
    "Message",
    "NlpkitError",
    "Prediction",
    "Prompt",
    "Reranks",
    "Scores",
    "Splits",
    "Target",
    "Task",
    "Toolkit",
    "__version__",
    "load",
]

_LAZY = {
    "load": "nlpkit.apps.load",
    "Toolkit": "nlpkit.apps.toolkit",
    "Constraint": "nlpkit.core.decode.constraint",
    "DecodeConfig": "nlpkit.core.decode.config",
    "NlpkitError": "nlpkit.core.errors",
    "Message": "nlpkit.core.chat.message",
    **dict.fromkeys(
        ("Field", "Prediction", "Prompt", "Reranks", "Scores", "Splits", "Target", "Task"), "nlpkit.apps.tasks.task"
    ),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nlpkit")
    if name in _LAZY:
        from importlib import import_module

        from nlpkit.core.machine.processor import calm_openmp

        calm_openmp()
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'nlpkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
