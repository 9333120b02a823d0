"""The command ``train``: options to a recipe, a progress bar while it runs, and what is said at the end."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from nlpkit.apps.output import Writer, note
from nlpkit.apps.progress import watching
from nlpkit.apps.recipe import DataSpec, Recipe, build_recipe, load_toml, render_toml
from nlpkit.apps.train_options import HowOptions, LoraOptions, NewModelOptions, TrainRunOptions, WhatOptions
from nlpkit.core.errors import ConfigError

if TYPE_CHECKING:
    from nlpkit.apps.dev_set import Scorer
    from nlpkit.apps.training import Training
    from nlpkit.core.train.loop import StepInfo
    from nlpkit.core.train.session import Outcome


def recipe_from_options(
    what: WhatOptions, how: HowOptions, lora: LoraOptions, new: NewModelOptions, run: TrainRunOptions
) -> Recipe:
    """Join the configuration file and the options.

    Raises:
        ConfigError: They do not fit together.
    """
    values = load_toml(what.config) if what.config is not None else {}
    fields = dict(_assignment(text) for text in what.field or ())
    task = what.task or values.get("task")
    weights = what.weight or []
    data = what.data or []
    if weights and len(weights) != len(data):
        raise ConfigError(f"--weight is given {len(weights)} times and --data {len(data)} times: give one for each.")

    def specs(paths: Sequence[str], shares: Sequence[float | None]) -> tuple[DataSpec, ...]:
        if paths and task is None:
            raise ConfigError(f"Which task is {paths[0]} for? Name it with --task; --task text is plain text.")
        return tuple(
            DataSpec(path=path, task=str(task), weight=share, limit=what.limit, fields=fields)
            for path, share in zip(paths, shares, strict=True)
        )

    method = what.method or ("scratch" if new.preset and "method" not in values else None)
    flags: dict[str, Any] = {
        "output": what.output,
        "method": method or values.get("method") or "lora",
        "base": what.base,
        "prompts": what.prompts,
        "adapter": lora.adapter,
        "preset": new.preset,
        "data": specs(data, weights or [None] * len(data)),
        "eval_data": specs(run.eval_data or [], [None] * len(run.eval_data or [])),
        "lora": lora.given(),
        "tokenizer": new.given(),
        "train": how.given(),
        "evaluation": run.evaluation(),
    }
    return build_recipe(values, flags)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--field is {text!r}; it must be a name and a value, such as target_lang=de.")
    return name, value


def run_train(recipe: Recipe, run: TrainRunOptions, *, scorer: Scorer | None) -> int:
    """Train, or show what would be trained on.

    Args:
        recipe: What to do.
        run: What happens around it.
        scorer: Scores predictions by the name of a metric.

    Returns:
        The exit code: 0, or 3 if training diverged, or 130 if it was interrupted (a checkpoint is there).

    Raises:
        NlpkitError: Something cannot be used.
    """
    from nlpkit.core.language_model import pick_device
    from nlpkit.core.threads import set_threads
    from nlpkit.core.train.distributed import join, leave

    set_threads(run.threads)
    process = join(pick_device(run.device))
    try:
        if run.dry_run:
            from nlpkit.apps.dry_run import show

            return show(recipe, run, process)
        return _train(recipe, run, scorer, process)
    finally:
        leave()


def _train(recipe: Recipe, run: TrainRunOptions, scorer: Scorer | None, process: Any) -> int:
    from nlpkit.apps.dev_set import DevSet
    from nlpkit.apps.training import set_up, write_result
    from nlpkit.core.train.checkpoint import has_checkpoints
    from nlpkit.core.train.session import Session

    quiet = run.quiet or not process.is_first
    folder = Path(recipe.output)
    if not run.resume and has_checkpoints(folder / "checkpoints"):
        raise ConfigError(f"{folder} holds a training already. Go on with --resume, or name another folder.")
    began = time.perf_counter()
    with TrainingBar(quiet=quiet) as bar:
        training = set_up(recipe, process=process, report=bar.on_rows)
        for source in (*training.sources, *training.dev_sources):
            bar.on_note(f"{source.name}: {source.describe(training.start.config.seq_len)}")
        dev = DevSet(recipe, training.start, scorer=scorer)
        with stopping() as stop:
            session = Session(
                training.trainer,
                folder,
                identity=training.identity,
                dev=training.dev,
                evaluate=dev.evaluate(),
                samples=dev.samples if dev.has_samples else None,
                watcher=bar,
                stop=stop.asked,
                tensorboard=run.tensorboard,
            )
            if run.resume and not session.resume():
                bar.on_note("there is no checkpoint to go on from: training starts at the beginning")
            if process.is_first:
                (folder / "recipe.toml").write_text(render_toml(recipe.to_dict()), "utf-8")
            outcome = session.run()
    if not process.is_first:
        return 0
    written = (
        None if outcome.reason in ("stopped", "diverged") else write_result(recipe, training.start, outcome.weights)
    )
    _report(training, outcome, written, run, seconds=time.perf_counter() - began)
    return {"stopped": 130, "diverged": 3}.get(outcome.reason, 0)


def _report(
    training: Training, outcome: Outcome, written: Path | None, run: TrainRunOptions, *, seconds: float
) -> None:
    metric = training.start.config.metric
    if outcome.reason == "diverged":
        note(
            f"training diverged: {outcome.problem}. It stopped at step {outcome.step} with a checkpoint of the state "
            "before. Start anew with a lower --lr, a longer --warmup or a smaller --clip"
        )
    elif outcome.reason == "stopped":
        note(f"stopped at step {outcome.step}, with a checkpoint; go on with --resume")
    elif outcome.reason == "early":
        note(f"stopped early at step {outcome.step}: {metric} no longer improved", quiet=run.quiet)
    if outcome.best is not None and written is not None and outcome.weights_step != outcome.step:
        best, step = outcome.best
        note(f"the weights are those of step {step}, the best by {metric} ({best:.4g})", quiet=run.quiet)
    values = {
        "output": None if written is None else str(written),
        "reason": outcome.reason,
        "steps": outcome.step,
        "loss": None if math.isnan(outcome.loss) else outcome.loss,
        "metric": metric,
        "best": None if outcome.best is None else outcome.best[0],
        "best_step": None if outcome.best is None else outcome.best[1],
        "averaged_steps": list(outcome.averaged),
        "seconds": seconds,
    }
    with Writer(None, as_json=run.as_json) as writer:
        if run.as_json:
            writer.write(values)
        elif written is not None:
            writer.write(str(written))


class _Stop:
    def __init__(self) -> None:
        self._asked = False

    def asked(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        note("stopping after this step; once more stops at once", new_line=True)


@contextlib.contextmanager
def stopping() -> Iterator[_Stop]:
    """Let Ctrl-C stop the training between two steps, with a checkpoint; a second one stops at once."""
    stop = _Stop()
    try:
        before = signal.signal(signal.SIGINT, stop.ask)
    except ValueError:
        # Not the main thread: nobody types Ctrl-C here.
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class TrainingBar:
    """Shows a training on stderr: a bar where a person is watching, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._rate = self._loss = 0.0
        self._lined = 0.0

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def on_rows(self, name: str, rows: int) -> None:
        """Show how far reading the data is."""
        if self._quiet or not watching() or rows % 500:
            return
        sys.stderr.write(f"\rreading {name}: {rows:,} rows\x1b[K")
        sys.stderr.flush()

    def on_step(self, info: StepInfo, total: int) -> None:
        """Show one step: loss and speed smoothed over the last ones."""
        if self._quiet:
            return
        speed = info.tokens / max(info.seconds, 1e-9)
        keep = 0.0 if self._rate == 0 else 0.9
        self._rate = keep * self._rate + (1 - keep) * speed
        self._loss = keep * self._loss + (1 - keep) * info.loss
        if watching():
            if self._bar is None:
                self._bar = _new_bar()
                self._task = self._bar.add_task("training", total=total, completed=info.step - 1, facts="")
                self._bar.start()
            facts = f"loss {self._loss:.3f}  {self._rate:,.0f} tokens/s"
            self._bar.update(self._task, completed=info.step, facts=facts)
        elif info.step == total or time.monotonic() - self._lined > 30:
            self._lined = time.monotonic()
            left = (total - info.step) * info.seconds
            note(
                f"step {info.step}/{total}: loss {self._loss:.3f}, {self._rate:,.0f} tokens/s, about {left / 60:.0f} "
                "minutes left"
            )

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        """Show the dev set's values."""
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"step {step}: dev {shown}{' (best so far)' if improved else ''}")

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Show what the model writes."""
        for sample in samples:
            text = "  ".join(f"{name}: {' '.join(value.split())[:160]!r}" for name, value in sample.items())
            self._say(f"step {step}: {text}")

    def on_note(self, text: str) -> None:
        """Show what a user should know."""
        self._say(text)

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            if watching():
                sys.stderr.write("\r\x1b[K")
            note(text)


def _new_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
