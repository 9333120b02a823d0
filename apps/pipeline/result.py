"""`TaskResult`: what running a task on one example gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlpkit.apps.tasks.task import Prediction
from nlpkit.core.decode.request import Completion

RESERVED = frozenset(
    {
        "prediction",
        "completion",
        "finish_reason",
        "input_tokens",
        "used_tokens",
        "output_tokens",
        "truncated",
        "chunks",
        "degenerate",
        "model",
        "adapter",
        "adapter_sha256",
        "seconds",
        "seed",
        "alternatives",
        "warnings",
        "error",
    }
)
"""Keys of `TaskResult.to_dict` that a task's own fields must not use."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One of several predictions for the same example.

    Attributes:
        text: The prediction.
        score: Higher is better: beam search's ranking score, or else the log-probability in nats; summed over chunks.
    """

    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The outcome of one example. ``str(result)`` is the predicted text.

    Attributes:
        prediction: Text and task fields.
        completion: What the model wrote, chunks joined by line ends.
        finish_reason: ``length`` if any chunk hit its token limit, else ``stop`` if any met a stop string, else
            ``eos``; ``error`` for a failed row.
        input_tokens: Tokens of the whole prompt before any cut.
        used_tokens: Prompt tokens that the model read, over all chunks and rounds.
        output_tokens: Tokens that the model wrote, over all chunks and rounds.
        truncated: Whether input text was cut off.
        chunks: Pieces the input was read in.
        degenerate: Whether a completion runs in circles.
        model: Name of the model.
        adapter: Name of the adapter, if any.
        adapter_sha256: Hex sha256 of its weights.
        seconds: From planning to the last token.
        seed: Seed of the sampler, or None where nothing was sampled.
        alternatives: All predictions, the first one included, when more than one was asked for.
        warnings: What a user should know, one sentence each.
        error: Why the row failed, or None.
        example: The row as it was given.
        completions: What the engine gave, token by token, where one request did it all; not part of `to_dict`.
    """

    prediction: Prediction
    completion: str = ""
    finish_reason: str = "eos"
    input_tokens: int = 0
    used_tokens: int = 0
    output_tokens: int = 0
    truncated: bool = False
    chunks: int = 0
    degenerate: bool = False
    model: str = ""
    adapter: str | None = None
    adapter_sha256: str | None = None
    seconds: float = 0.0
    seed: int | None = None
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict, repr=False)
    completions: tuple[Completion, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The predicted text."""
        return self.prediction.text

    @property
    def fields(self) -> Mapping[str, Any]:
        """The task's own values."""
        return self.prediction.fields

    def __str__(self) -> str:
        return self.prediction.text

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary: the prediction, the task's fields, then the facts about the run."""
        return {
            "prediction": self.prediction.text,
            **{name: value for name, value in self.prediction.fields.items() if name not in RESERVED},
            "completion": self.completion,
            "finish_reason": self.finish_reason,
            "input_tokens": self.input_tokens,
            "used_tokens": self.used_tokens,
            "output_tokens": self.output_tokens,
            "truncated": self.truncated,
            "chunks": self.chunks,
            "degenerate": self.degenerate,
            "model": self.model,
            "adapter": self.adapter,
            "adapter_sha256": self.adapter_sha256,
            "seed": self.seed,
            "seconds": round(self.seconds, 4),
            "alternatives": [{"text": other.text, "score": other.score} for other in self.alternatives],
            "warnings": list(self.warnings),
            "error": self.error,
        }
