"""A whole training: steps, evaluations, checkpoints, early stopping, and what is left at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.checkpoints.checkpoint import has_checkpoints, latest_checkpoint, save_checkpoint
from nlpkit.core.train.checkpoints.kept_weights import load_best, mean_of_snapshots, save_best, save_snapshot
from nlpkit.core.train.checkpoints.resume import other_length, resume
from nlpkit.core.train.checkpoints.rewind import (
    at_decay,
    checkpoint_for_length,
    drop_later,
    save_before_decay,
    steps_before_decay,
)
from nlpkit.core.train.config import LOWER_IS_BETTER
from nlpkit.core.train.data.packing import Packer
from nlpkit.core.train.loop import StepInfo, Trainer, train
from nlpkit.core.train.metrics_log import MetricsLog
from nlpkit.core.train.progress import Progress

_SNAPSHOTS = "average"

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
        averaged: Steps whose weights they are the mean of; empty where they are those of one step.
    """

    step: int
    reason: str
    problem: str | None
    best: tuple[float, int] | None
    loss: float
    weights: Mapping[str, Tensor]
    weights_step: int
    averaged: tuple[int, ...] = ()


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
            folder: Where checkpoints and ``metrics.jsonl`` go.
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
        self._progress = Progress()
        self._mean: Mapping[str, Tensor] = {}
        self._log: MetricsLog | None = None
        self._saved = -1

    def resume(self) -> bool:
        """Go on from the last complete checkpoint, or the last that fits where another length is wanted.

        Returns:
            Whether there was one.

        Raises:
            ConfigError: Something changed since.
        """
        trainer = self.trainer
        checkpoint, notes = latest_checkpoint(self.checkpoints)
        if checkpoint is not None:
            longer = bool(other_length(trainer, checkpoint))
            if longer:
                checkpoint, notes = checkpoint_for_length(self.checkpoints, trainer)
            notes += resume(trainer, checkpoint, identity=self.identity)
            self._progress = Progress.from_dict(checkpoint.progress)
            self._saved = checkpoint.step
            if longer:
                trainer.process.wait()
                fits = not trainer.process.is_first or drop_later(self.checkpoints, checkpoint)
                if trainer.process.any(not fits):
                    self._progress.best = None
                    notes.append(f"the best weights so far are from after step {checkpoint.step} and count no more")
        for note in notes:
            self.watcher.on_note(note)
        return checkpoint is not None

    def begin_anew(self) -> None:
        """Refuse to start over where checkpoints lie.

        Raises:
            InputError: There are some.
        """
        if has_checkpoints(self.checkpoints):
            raise InputError(f"{self.folder} holds a training already. Go on with --resume, or name another folder.")

    def run(self) -> Outcome:
        """Train to the end, or until something stops it."""
        trainer = self.trainer
        if trainer.process.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._log = MetricsLog(
                self.folder,
                from_step=trainer.step,
                evaluated=self._progress.evaluated,
                tensorboard=self.tensorboard,
            )
        try:
            return self._run()
        finally:
            if self._log is not None:
                self._log.close()

    def _run(self) -> Outcome:
        trainer = self.trainer
        for note in trainer.notes:
            self.watcher.on_note(note)
        reason, problem = ("early", None) if self._gave_up() else self._steps()
        # Also where it diverged: the state before the bad update is what one would go on from, with other options. What
        # is measured at the end alone comes after, for a longer training would not have measured it.
        self._save()
        if reason == "finished":
            if self._can_evaluate and self._progress.evaluated != trainer.step:
                self._evaluate(due=False)
            self._snapshot()
        averaged = self._average() if reason in ("finished", "early") else ()
        return self._finish(reason, problem, averaged)

    @property
    def _can_evaluate(self) -> bool:
        return self.dev is not None or self.evaluate is not None

    def _steps(self) -> tuple[str, str | None]:
        """Make all steps, with what is due after each; return how they ended."""
        trainer, config = self.trainer, self.trainer.config
        n_notes = len(trainer.notes)
        for info in train(trainer):
            for note in trainer.notes[n_notes:]:
                self.watcher.on_note(note)
            n_notes = len(trainer.notes)
            problem = info.problem or self._progress.diverged(info.loss)
            self._record(info)
            if problem is not None:
                return "diverged", problem
            if config.eval_every and trainer.step % config.eval_every == 0:
                self._evaluate()
            reason = "early" if self._gave_up() else "stopped" if trainer.process.any(self.stop()) else None
            if at_decay(trainer):
                progress = self._progress.to_dict()
                save_before_decay(self.checkpoints, trainer, identity=self.identity, progress=progress)
            if config.save_every and trainer.step % config.save_every == 0:
                if not config.eval_every:
                    self._snapshot()
                self._save()
            if reason is not None:
                return reason, None
        return "finished", None

    def _gave_up(self) -> bool:
        patience = self.trainer.config.patience
        return bool(patience) and self._progress.stale >= patience

    def _record(self, info: StepInfo) -> None:
        if self._log is not None:
            values = {name: getattr(info, name) for name in
                      ("loss", "lr", "grad_norm", "tokens", "targets", "seconds", "epoch")}  # fmt: skip
            self._log.write("train", info.step, values)
        self.watcher.on_step(info, self.trainer.expected_steps)

    def _measure(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Measure the model as it is, or with other weights."""
        values: dict[str, float] = {}
        if self.dev is not None:
            values["loss"], _ = self.trainer.measure(self.dev, weights)
        if self.evaluate is not None:
            with self.trainer.evaluating(weights) as model:
                values |= self.evaluate(model)
        metric = self.trainer.config.metric
        if metric not in values:
            raise ConfigError(f"The metric {metric!r} is to be improved; measured were {', '.join(values)}.")
        return values

    @property
    def _sign(self) -> int:
        return -1 if self.trainer.config.metric in LOWER_IS_BETTER else 1

    def _evaluate(self, *, due: bool = True) -> None:
        trainer, progress = self.trainer, self._progress
        values = self._measure()
        shown: Sequence[Mapping[str, str]] = ()
        if self.samples is not None:
            with trainer.evaluating() as model:
                # In all processes: with sharded weights none can run the model alone.
                shown = self.samples(model)
        metric = trainer.config.metric
        improved = progress.improve(values[metric], trainer.step, sign=self._sign)
        if improved and due:
            weights = trainer.result()
            if trainer.process.is_first:
                save_best(self.checkpoints, weights, step=trainer.step, metric=metric, value=values[metric])
        if due:
            progress.evaluated = trainer.step
        self._snapshot()
        if self._log is not None:
            self._log.write("eval", trainer.step, values)
            for sample in shown:
                self._log.write("sample", trainer.step, sample)
        self.watcher.on_evaluation(trainer.step, values, improved=improved)
        if shown and trainer.process.is_first:
            self.watcher.on_samples(trainer.step, shown)

    def _snapshot(self) -> None:
        """Keep the weights of this step to be averaged, where that is wanted."""
        trainer, progress = self.trainer, self._progress
        count = trainer.config.average
        if not count or trainer.step in progress.snapshots:
            return
        progress.snapshots = [*progress.snapshots, trainer.step][-count:]
        weights = trainer.result()
        if trainer.process.is_first:
            keep = {*progress.snapshots, *steps_before_decay(self.checkpoints)}
            save_snapshot(self.checkpoints / _SNAPSHOTS, weights, step=trainer.step, keep=keep)

    def _average(self) -> tuple[int, ...]:
        """Average the last snapshots, and keep the mean if it is the best."""
        trainer, progress = self.trainer, self._progress
        if not trainer.config.average:
            return ()
        trainer.process.wait()
        notes: list[str] = []
        latest = progress.snapshots[-trainer.config.average :]
        steps, mean = mean_of_snapshots(self.checkpoints / _SNAPSHOTS, latest, notes)
        for note in notes:
            self.watcher.on_note(note)
        if not steps:
            self.watcher.on_note("nothing was averaged: there are not two states of the weights to take the mean of")
            return ()
        named = f"the mean of the weights of steps {', '.join(map(str, steps))}"
        if not self._can_evaluate:
            self.watcher.on_note(f"{named} is kept; there are no dev data that could tell whether it is better")
            self._mean = mean
            return tuple(steps)
        values = self._measure(mean)
        if self._log is not None:
            self._log.write("average", trainer.step, {**values, "steps": steps})
        metric, before = trainer.config.metric, progress.best
        better = progress.improve(values[metric], trainer.step, sign=self._sign)
        against = f"{metric} {values[metric]:.4g} against {math.nan if before is None else before:.4g}"
        self.watcher.on_note(f"{named} is {'better and kept' if better else 'not better and not kept'}: {against}")
        self._mean = mean if better else {}
        return tuple(steps) if better else ()

    def _save(self) -> None:
        trainer = self.trainer
        if self._saved == trainer.step:
            return
        save_checkpoint(self.checkpoints, trainer, identity=self.identity, progress=self._progress.to_dict())
        self._saved = trainer.step

    def _finish(self, reason: str, problem: str | None, averaged: tuple[int, ...]) -> Outcome:
        trainer, progress = self.trainer, self._progress
        if self._log is not None:
            self._log.close()
        step = trainer.step
        weights = self._mean if averaged else trainer.result()
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
            averaged=averaged,
        )
