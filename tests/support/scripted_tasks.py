"""A server whose tasks answer what a test says: pages of it look the same every time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tiny_server import tiny_lm, tiny_settings

from nlpkit.apps.pipeline.result import Alternative, TaskResult
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServeSettings
from nlpkit.apps.tasks.task import Prediction, Task
from nlpkit.core.decode.shared.submission import current_cancellation
from nlpkit.core.errors import InputError

EVIL = "<img src=x onerror=\"document.title='broken in'\">"


class ScriptedToolkit:
    """Answers by a task's name. A text that holds ``fail`` fails; one that holds ``slow`` is written until stopped, and so
    are several answers to one that holds ``later``."""

    def __init__(self, stopped: threading.Event) -> None:
        self.stopped = stopped

    def run(self, task: Task[Any], rows: Sequence[Mapping[str, Any]], **options: Any) -> list[TaskResult]:
        return [self._result(task, row, options.get("options") or {}) for row in rows]

    def stream(self, task: Task[Any], row: Mapping[str, Any], **options: Any) -> Iterator[str | TaskResult]:
        wanted = options.get("options") or {}
        result = self._result(task, row, wanted)
        text = str(row.get(task.text_field))
        if "slow" in text or ("later" in text and wanted.get("n", 1) > 1):
            try:
                while True:
                    yield "word "
                    time.sleep(0.02)
            finally:
                self.stopped.set()
        if task.name != "translation":
            middle = len(result.text) // 2
            yield result.text[:middle]
            yield result.text[middle:]
        yield result

    def translate_bytes(self, data: bytes, target_lang: str, *, name: str, source_lang: str) -> SimpleNamespace:
        """Translate a file: one that holds ``slow`` until stopped."""
        try:
            while b"slow" in data:
                current_cancellation().check()
                time.sleep(0.02)
        finally:
            self.stopped.set()
        return SimpleNamespace(data=data)

    def _result(self, task: Task[Any], row: Mapping[str, Any], options: Mapping[str, Any]) -> TaskResult:
        text = str(row.get(task.text_field))
        if "fail" in text:
            raise InputError("This text cannot be used.")
        warnings: tuple[str, ...] = ()
        others: tuple[Alternative, ...] = ()
        fields: dict[str, Any] = {}
        prediction = ""
        if task.name == "translation":
            prediction = f"Guten Morgen. {EVIL}"
            fields = {"source_lang": "en", "target_lang": row["target_lang"], "confidence": 0.62, "flagged": []}
            warnings = ("numbers differ: 3",)
            if options.get("n", 1) > 1:
                others = tuple(Alternative(text=one, score=0.0) for one in (prediction, "Einen guten Morgen."))
        elif task.name == "summarization":
            prediction = "Drones leave in autumn. The queen lays many eggs."
        elif task.name == "qa":
            context, answerable = str(row["context"]), "Frisch" in str(row["context"])
            start = context.find("Karl von Frisch") if answerable else None
            end = None if start is None else start + len("Karl von Frisch")
            prediction = "Karl von Frisch" if answerable else ""
            fields = {
                "answer": prediction, "start": start, "end": end, "score": 0.9, "answerable": answerable,
                "evidence": "Karl von Frisch described it.", "exact": True,
            }  # fmt: skip
        elif task.name == "writing":
            prediction = "one two three four five"
            parsed = task.parse(prediction, task.prepare(row))
            fields, warnings = dict(parsed.fields), parsed.warnings
        elif task.name in ("classification", "sentiment"):
            labels = row.get("labels") or ["positive", "negative"]
            prediction = labels[0]
            fields = {"label": prediction, "probability": 0.75, "probabilities": {labels[0]: 0.75, labels[1]: 0.25}}
        return TaskResult(
            prediction=Prediction(prediction, fields), completion=prediction, warnings=warnings, alternatives=others,
            seed=7,
        )  # fmt: skip


class ScriptedModels(ServedModels):
    """Models whose tasks are scripted; their completions are those of a tiny model."""

    def __init__(self, settings: ServeSettings | None = None) -> None:
        super().__init__(settings or tiny_settings(), load=lambda model, adapter, mate: tiny_lm(model.name))
        self.stopped = threading.Event()

    @contextlib.contextmanager
    def toolkit(self, name: str) -> Iterator[Any]:
        self.find(name)
        yield ScriptedToolkit(self.stopped)
