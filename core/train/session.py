"""A whole training: steps, evaluations, checkpoints, early stopping, and what is left at the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.checkpoint import latest_checkpoint, load_best, resume, save_best, save_checkpoint
from nlpkit.core.train.config import LOWER_IS_BETTER
from nlpkit.core.train.loop import StepInfo, Trainer, train
from nlpkit.core.train.metrics_log import MetricsLog, read_metrics, write_curves
from nlpkit.core.train.packing import Packer

_WINDOW = 20
_RISE = 2.0
"""Nats by which the mean loss of a window may lie above the best window's before training counts as diverged."""

Evaluate = Callable[[GPT], Mapping[str, float]]
"""Measures a model by other means than its loss, for example by generating; higher is better unless listed above."""


class Watcher(Protocol):
    """Is told what happens. The library itself never prints."""

    def on_step(self, info: StepInfo, total: int) -> None:
        """Hear of a step."""
        ...

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        """Hear of an evaluation."""
        ...

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Hear what the model writes."""
        ...

    def on_note(self, text: str) -> None:
        """Hear what a user should know."""
        ...


class Silence:
    """A watcher that says nothing."""

    def on_step(self, info: StepInfo, total: int) -> None:
        """Say nothing."""

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        """Say nothing."""

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Say nothing."""

    def on_note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: Steps done.
        reason: ``finished``, ``early``, ``stopped`` or ``diverged``.
        problem: What went wrong, where it did.
        best: Best value of the metric, and its step; None without evaluations.
        loss: Mean training loss of the last steps.
        weights: The weights to keep: the best where there were evaluations, else the last.
        weights_step: The step that they are from.
    """

    step: int
    reason: str
    problem: str | None
    best: tuple[float, int] | None
    loss: float
    weights: Mapping[str, Tensor]
    weights_step: int


@dataclass(kw_only=True)
class _Progress:
    """What must survive a restart beside the trainer's own state."""

    best: float | None = None
    best_step: int = 0
    stale: int = 0
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    lowest: float = math.inf

    def to_dict(self) -> dict[str, Any]:
        lowest = None if math.isinf(self.lowest) else self.lowest
        return {"best": self.best, "best_step": self.best_step, "stale": self.stale, "losses": list(self.losses),
                "lowest": lowest}  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> _Progress:
        made = cls(best=values.get("best"), best_step=values.get("best_step", 0), stale=values.get("stale", 0))
        made.losses.extend(values.get("losses", ()))
        lowest = values.get("lowest")
        made.lowest = math.inf if lowest is None else lowest
        return made

    def diverged(self, loss: float) -> str | None:
        """Take in a loss and say what is wrong, if anything is."""
        self.losses.append(loss)
        if len(self.losses) < _WINDOW:
            return None
        mean = sum(self.losses) / _WINDOW
        if mean > self.lowest + _RISE:
            return f"the loss rose from {self.lowest:.2f} to {mean:.2f}, each the mean of {_WINDOW} steps"
        self.lowest = min(self.lowest, mean)
        return None


class Session:
    """Runs a trainer to its end, with everything around it."""

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        *,
        identity: Mapping[str, str],
        dev: Packer | None = None,
        evaluate: Evaluate | None = None,
        samples: Callable[[GPT], Sequence[Mapping[str, str]]] | None = None,
        watcher: Watcher | None = None,
        stop: Callable[[], bool] = lambda: False,
        tensorboard: bool = False,
    ) -> None:
        """Set up.

        Args:
            trainer: What to train.
            folder: Where checkpoints, ``metrics.jsonl`` and curves go.
            identity: See `save_checkpoint`.
            dev: Data to measure the loss on.
            evaluate: Measures more; its values are logged beside the loss.
            samples: Writes a few examples to look at.
            watcher: Is told what happens.
            stop: Asked after each step whether to stop.
            tensorboard: Whether to write event files.

        Raises:
            ConfigError: Evaluations are asked for and there is nothing to evaluate on.
        """
        config = trainer.config
        if (config.eval_every or config.patience) and dev is None and evaluate is None:
            raise ConfigError("Evaluations are asked for, but there are no data to evaluate on.")
        if config.metric != "loss" and evaluate is None:
            raise ConfigError(f"The metric {config.metric!r} is to be improved, but nothing measures it.")
        if config.metric == "loss" and dev is None and config.patience:
            raise ConfigError("Early stopping on the loss needs data to evaluate on.")
        self.trainer, self.folder, self.identity = trainer, folder, identity
        self.dev, self.evaluate, self.samples = dev, evaluate, samples
        self.watcher: Watcher = watcher or Silence()
        self.stop, self.tensorboard = stop, tensorboard
        self.checkpoints = folder / "checkpoints"
        self._progress = _Progress()
        self._log: MetricsLog | None = None
        self._saved = -1

    def resume(self) -> bool:
        """Go on from the last complete checkpoint.

        Returns:
            Whether there was one.

        Raises:
            ConfigError: Something changed since.
        """
        checkpoint, notes = latest_checkpoint(self.checkpoints)
        if checkpoint is not None:
            notes += resume(self.trainer, checkpoint, identity=self.identity)
            self._progress = _Progress.from_dict(checkpoint.progress)
            self._saved = checkpoint.step
        for note in notes:
            self.watcher.on_note(note)
        return checkpoint is not None

    def begin_anew(self) -> None:
        """Refuse to start over where checkpoints lie.

        Raises:
            InputError: There are some.
        """
        found = sorted(self.checkpoints.glob("step-*"))
        if found:
            raise InputError(
                f"{self.folder} holds a training already ({found[-1].name}). Go on with --resume, or name "
                "another folder."
            )

    def run(self) -> Outcome:
        """Train to the end, or until something stops it."""
        trainer, config = self.trainer, self.trainer.config
        first = trainer.process.is_first
        if first:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log = MetricsLog(self.folder, from_step=trainer.step, tensorboard=self.tensorboard)
        for note in trainer.notes:
            self.watcher.on_note(note)
        reason, problem = "finished", None
        evaluated = -1
        n_notes = len(trainer.notes)
        if self._gave_up():
            reason = "early"
        steps = iter(train(trainer)) if reason == "finished" else iter(())
        for info in steps:
            for note in trainer.notes[n_notes:]:
                self.watcher.on_note(note)
            n_notes = len(trainer.notes)
            problem = info.problem or self._progress.diverged(info.loss)
            self._record(info)
            if problem is not None:
                reason = "diverged"
                break
            if config.eval_every and trainer.step % config.eval_every == 0:
                self._evaluate()
                evaluated = trainer.step
                if self._gave_up():
                    reason = "early"
            if trainer.process.any(self.stop()) and reason == "finished":
                reason = "stopped"
            if reason != "finished" or (config.save_every and trainer.step % config.save_every == 0):
                self._save()
            if reason != "finished":
                break
        if reason == "finished" and evaluated != trainer.step and (self.dev is not None or self.evaluate is not None):
            self._evaluate()
        # Also where it diverged: the state before the bad update is what one would go on from, with other options.
        self._save()
        return self._finish(reason, problem)

    def _gave_up(self) -> bool:
        patience = self.trainer.config.patience
        return bool(patience) and self._progress.stale >= patience

    def _record(self, info: StepInfo) -> None:
        if self._log is not None:
            values = {name: getattr(info, name) for name in
                      ("loss", "lr", "grad_norm", "tokens", "targets", "seconds", "epoch")}  # fmt: skip
            self._log.write("train", info.step, values)
        self.watcher.on_step(info, self.trainer.total_steps)

    def _evaluate(self) -> None:
        trainer, progress = self.trainer, self._progress
        values: dict[str, float] = {}
        if self.dev is not None:
            values["loss"], _ = trainer.measure(self.dev)
        shown: Sequence[Mapping[str, str]] = ()
        if self.evaluate is not None or self.samples is not None:
            with trainer.evaluating() as model:
                if self.evaluate is not None:
                    values |= self.evaluate(model)
                if self.samples is not None:
                    # In all processes: with sharded weights none can run the model alone.
                    shown = self.samples(model)
        metric = trainer.config.metric
        if metric not in values:
            raise ConfigError(f"The metric {metric!r} is to be improved; measured were {', '.join(values)}.")
        sign = -1 if metric in LOWER_IS_BETTER else 1
        value = values[metric]
        improved = math.isfinite(value) and (progress.best is None or sign * value > sign * progress.best)
        if improved:
            progress.best, progress.best_step, progress.stale = value, trainer.step, 0
            weights = trainer.result()
            if trainer.process.is_first:
                save_best(self.checkpoints, weights, step=trainer.step, metric=metric, value=value)
        else:
            progress.stale += 1
        if self._log is not None:
            self._log.write("eval", trainer.step, values)
            for sample in shown:
                self._log.write("sample", trainer.step, sample)
        self.watcher.on_evaluation(trainer.step, values, improved=improved)
        if shown and trainer.process.is_first:
            self.watcher.on_samples(trainer.step, shown)

    def _save(self) -> None:
        if self._saved == self.trainer.step:
            return
        progress = self._progress.to_dict()
        save_checkpoint(self.checkpoints, self.trainer, identity=self.identity, progress=progress)
        self._saved = self.trainer.step

    def _finish(self, reason: str, problem: str | None) -> Outcome:
        trainer, progress = self.trainer, self._progress
        if self._log is not None:
            self._log.close()
            write_curves(self.folder, read_metrics(self._log.path), title=f"Training: {self.folder.name}")
        weights, step = trainer.result(), trainer.step
        if progress.best is not None and progress.best_step != trainer.step and trainer.process.is_first:
            found = load_best(self.checkpoints)
            if found is not None:
                step, weights = found
        losses = list(progress.losses)
        return Outcome(
            step=trainer.step,
            reason=reason,
            problem=problem,
            best=None if progress.best is None else (progress.best, progress.best_step),
            loss=sum(losses) / len(losses) if losses else math.nan,
            weights=weights,
            weights_step=step,
        )
