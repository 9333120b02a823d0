"""The command ``train``: options to a recipe, a progress bar while it runs, and what is said at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from nlpkit.apps.cli.output import Writer, note
from nlpkit.apps.cli.progress import TrainingBar
from nlpkit.apps.cli.train_options import HowOptions, LoraOptions, NewModelOptions, TrainRunOptions, WhatOptions
from nlpkit.apps.data.columns import parse_pairs
from nlpkit.apps.tasks.table import is_task_file, run_task_file
from nlpkit.apps.training.dry_run import _facts, _rows
from nlpkit.apps.training.recipe import DataSpec, Recipe, build_recipe, load_toml, render_toml
from nlpkit.apps.training.setup import set_up
from nlpkit.core.errors import ConfigError
from nlpkit.core.train.distributed import Process

if TYPE_CHECKING:
    from nlpkit.apps.training.dev_set import Scorer
    from nlpkit.apps.training.setup import Training
    from nlpkit.core.train.session import TrainingOutcome


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
    if what.task is not None and is_task_file(what.task):
        run_task_file(what.task)
    weights = what.weight or []
    data = what.data or []
    if weights and len(weights) != len(data):
        raise ConfigError(f"--weight is given {len(weights)} times and --data {len(data)} times: give one for each.")

    def specs(paths: Sequence[str], shares: Sequence[float | None]) -> tuple[DataSpec, ...]:
        if paths and task is None:
            raise ConfigError(f"Which task is {paths[0]} for? Name it with --task; --task text is plain text.")
        return tuple(
            DataSpec(
                path=path,
                task=str(task),
                weight=share,
                limit=what.limit,
                fields=fields,
                values=parse_pairs(what.values or (), "--set"),
                columns=parse_pairs(what.columns or (), "--map"),
            )
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
    from nlpkit.core.machine.devices import pick_device
    from nlpkit.core.machine.processor import set_threads
    from nlpkit.core.train.distributed import join, leave

    set_threads(run.threads)
    process = join(pick_device(run.device))
    try:
        if run.dry_run:
            return show(recipe, run, process)
        return _train(recipe, run, scorer, process)
    finally:
        leave()


def _train(recipe: Recipe, run: TrainRunOptions, scorer: Scorer | None, process: Any) -> int:
    from nlpkit.apps.training.curves import draw_curves
    from nlpkit.apps.training.dev_set import DevSet
    from nlpkit.apps.training.setup import set_up, write_result
    from nlpkit.core.train.checkpoints.checkpoint import has_checkpoints
    from nlpkit.core.train.session import TrainingSession

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
            session = TrainingSession(
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
            if process.is_first:
                draw_curves(folder)
    if not process.is_first:
        return 0
    written = (
        None if outcome.reason in ("stopped", "diverged") else write_result(recipe, training.start, outcome.weights)
    )
    _report(training, outcome, written, run, seconds=time.perf_counter() - began)
    return {"stopped": 130, "diverged": 3}.get(outcome.reason, 0)


def _report(
    training: Training, outcome: TrainingOutcome, written: Path | None, run: TrainRunOptions, *, seconds: float
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


def show(recipe: Recipe, run: TrainRunOptions, process: Process) -> int:
    """Print it all.

    Args:
        recipe: What would be trained.
        run: Says whether to print JSON.
        process: This process.

    Returns:
        The exit code 0.

    Raises:
        NlpkitError: Something cannot be used: just what a dry run is for.
    """
    # Compiling takes longer than the few steps that are measured.
    recipe = dataclasses.replace(recipe, train={**recipe.train, "compile": "off"})
    with tempfile.TemporaryDirectory(prefix="nlpkit-dry-run-") as folder:
        training = set_up(recipe, process=process, folder=Path(folder))
        rows = _rows(training)
        facts = _facts(training)
    with Writer(None, as_json=run.as_json) as writer:
        writer.write({"rows": rows, **facts} if run.as_json else _render(rows, facts))
    return 0


def _render(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    lines = []
    for row in rows:
        lines.append(
            f"== {row['source']}, row {row['row']}: {row['tokens']} tokens, {row['prompt_tokens']} of them prompt "
            f"(no loss), {row['target_tokens']} targets"
        )
        lines += [f"-- prompt\n{row['prompt']}"] if row["prompt_tokens"] else []
        lines += [f"-- target\n{row['target']}", f"-- token ids, targets in brackets\n{_marked(row)}", ""]
    for source in facts["sources"]:
        lines.append(
            f"{source['name']} ({source['task']}): {source['description']}; tokens a row: median "
            f"{source['median_tokens']}, 95% up to {source['p95_tokens']}, longest {source['longest_kept']}"
        )
    lines += [f"dev {source['name']}: {source['description']}" for source in facts["dev_sources"]]
    lines += [
        f"model: {facts['parameters']:,} parameters, {facts['trained_parameters']:,} of them trained, {facts['dtype']}"
        " (measured without compilation)",
        f"packing: rows of {facts['seq_len']} tokens, {100 * facts['filled']:.1f}% full; "
        f"{100 * facts['target_share']:.1f}% of the tokens are targets",
        f"steps: {facts['steps']:,} of {facts['rows_per_step']} packed rows",
        f"time: {facts['step_seconds']:.2f} s a step measured over a few, {facts['tokens_per_second']:,.0f} tokens/s, "
        f"about {_duration(facts['seconds'])} in all without evaluations",
        f"memory: {facts['memory_bytes'] / 2**20:,.0f} MiB of weights, gradients and optimizer state; "
        f"{facts['peak_memory_bytes'] / 2**20:,.0f} MiB in all at the peak of the measured steps",
    ]
    lines += [f"note: {text}" for text in facts["notes"]]
    return "\n".join(lines)


def _marked(row: dict[str, Any]) -> str:
    shown = [f"[{i}]" if on else str(i) for i, on in zip(row["token_ids"], row["supervised"], strict=True)]
    return " ".join(shown) + (" ..." if row["tokens"] > len(shown) else "")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
