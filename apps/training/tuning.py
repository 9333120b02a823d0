"""The command ``tune``: trains with many sets of hyperparameters and keeps the best."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpkit.apps.training.curves import draw_curves
from nlpkit.apps.training.dev_set import DevSet
from nlpkit.apps.training.recipe import Recipe, build_recipe, load_toml
from nlpkit.apps.training.search import Choice, Pruned, Search, Trial, Value, parse_space, run_search
from nlpkit.apps.training.setup import set_up
from nlpkit.core.errors import ConfigError, did_you_mean
from nlpkit.core.train.config import LOWER_IS_BETTER
from nlpkit.core.train.distributed import SINGLE
from nlpkit.core.train.session import Session

if TYPE_CHECKING:
    from nlpkit.apps.training.dev_set import Scorer

_TUNE = ("space", "method", "trials", "seed", "prune", "folds", "workers")
_SECTIONS = ("train", "lora", "model", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search over trainings.

    Attributes:
        recipe: The training without the hyperparameters that are searched.
        search: What to search.
        folds: Folds of the cross-validation; 0 measures on the recipe's own dev data.
        workers: Processes that run trials at once.
    """

    recipe: Recipe
    search: Search
    folds: int
    workers: int

    @property
    def metric(self) -> str:
        """What is compared."""
        return str(self.recipe.train.get("metric", "loss"))


def load_plan(path: str, *, output: str | None, trials: int | None, workers: int | None) -> Plan:
    """Read a configuration with a table ``[tune]``.

    Args:
        path: The TOML file.
        output: Overrules its ``output``.
        trials: Overrules its number of trials.
        workers: Overrules its number of workers.

    Returns:
        The plan.

    Raises:
        ConfigError: It cannot be used.
    """
    values = dict(load_toml(path))
    table = values.pop("tune", None)
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path} has no table [tune], which says what to search.")
    for key in table:
        if key not in _TUNE:
            raise ConfigError(f"[tune] has no option {key!r}. {did_you_mean(key, _TUNE)}")
    space = parse_space(table.get("space", {}))
    for name in space:
        section, dot, _ = name.partition(".")
        if not dot or section not in _SECTIONS:
            raise ConfigError(
                f"[tune.space] has {name!r}; names are those of the configuration, such as 'train.lr' or 'lora.rank'."
            )
    recipe = build_recipe(values, {"output": output})
    folds = table.get("folds", 0)
    count = workers if workers is not None else table.get("workers", 1)
    if not isinstance(folds, int) or folds == 1 or folds < 0:
        raise ConfigError(f"[tune] folds is {folds!r}; it must be 0 (no cross-validation) or at least 2.")
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"[tune] workers is {count!r}; it must be a whole number from 1.")
    if folds and recipe.eval_data:
        raise ConfigError("Cross-validation takes its dev data from the training data: leave eval_data out.")
    if not folds and not recipe.eval_data:
        raise ConfigError("There is nothing to compare trials on: give eval_data, or folds under [tune].")
    metric = str(recipe.train.get("metric", "loss"))
    search = Search(
        space=space,
        method=table.get("method", "tpe"),
        trials=trials if trials is not None else table.get("trials", 20),
        minimize=metric in LOWER_IS_BETTER,
        seed=table.get("seed", 0),
        prune=table.get("prune", True),
    )
    plan = Plan(recipe=recipe, search=search, folds=folds, workers=count)
    # The first point is built now: a wrong name or value should not wait for its trial.
    with_params(recipe, {name: _example(choice) for name, choice in space.items()}, output=recipe.output)
    return plan


def _example(choice: Choice) -> Value:
    return choice.options[0] if choice.options else choice.low


def with_params(recipe: Recipe, params: Mapping[str, Value], *, output: str) -> Recipe:
    """Return the recipe with some hyperparameters set."""
    tables = {section: dict(getattr(recipe, section)) for section in _SECTIONS}
    for name, value in params.items():
        section, _, key = name.partition(".")
        tables[section][key] = value
    values = {**recipe.to_dict(), **{section: table for section, table in tables.items() if table}, "output": output}
    return build_recipe(values, {})


def fold_recipe(recipe: Recipe, fold: int, folds: int) -> Recipe:
    """Return the recipe that trains on all folds but one and measures on that one."""
    data = tuple(dataclasses.replace(spec, folds=folds, fold=fold) for spec in recipe.data)
    held_out = tuple(dataclasses.replace(spec, held_out=True, weight=None) for spec in data)
    return dataclasses.replace(recipe, data=data, eval_data=held_out)


class _Reporter:
    """Hears of a trial's evaluations, and tells when to give up."""

    def __init__(self, metric: str, intermediate: Callable[[int, float], bool] | None) -> None:
        self.metric, self._intermediate = metric, intermediate
        self.pruned = False

    def on_step(self, info: Any, total: int) -> None:
        pass

    def on_evaluation(self, step: int, values: Mapping[str, float], *, improved: bool) -> None:
        value = values[self.metric]
        if self._intermediate is not None and math.isfinite(value):
            self.pruned = self.pruned or self._intermediate(step, value)

    def on_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        pass

    def on_note(self, text: str) -> None:
        pass


def measure(recipe: Recipe, intermediate: Callable[[int, float], bool] | None, scorer: Scorer | None) -> float:
    """Train once and return the best value of the metric on the dev data; infinity where training diverged.

    Args:
        recipe: What to train; its output folder keeps the log alone.
        intermediate: Told of each evaluation; returns whether to give up.
        scorer: Scores predictions.

    Raises:
        Pruned: It gave up.
    """
    folder = Path(recipe.output)
    shutil.rmtree(folder, ignore_errors=True)
    training = set_up(recipe, process=SINGLE)
    reporter = _Reporter(training.start.config.metric, intermediate)
    dev = DevSet(recipe, training.start, scorer=scorer)
    session = Session(
        training.trainer,
        folder,
        identity=training.identity,
        dev=training.dev,
        evaluate=dev.evaluate(),
        watcher=reporter,
        stop=lambda: reporter.pruned,
    )
    outcome = session.run()
    draw_curves(folder)
    for heavy in ("checkpoints", "data"):
        shutil.rmtree(folder / heavy, ignore_errors=True)
    if reporter.pruned:
        raise Pruned
    return math.inf if outcome.best is None or outcome.reason == "diverged" else outcome.best[0]


def run_plan(plan: Plan, *, scorer: Scorer | None, report: Callable[[str], None], worker: int = 0) -> list[Trial]:
    """Run a plan's trials in this process, until enough are done.

    Args:
        plan: The plan.
        scorer: Scores predictions by the name of a metric.
        report: Gets a line for each trial.
        worker: Number of this process.

    Returns:
        All trials so far.
    """
    folder = Path(plan.recipe.output)

    def objective(params: Mapping[str, Value], intermediate: Callable[[int, float], bool], number: int) -> float:
        output = folder / "trials" / str(number)
        if not plan.folds:
            return measure(with_params(plan.recipe, params, output=str(output)), intermediate, scorer)
        values: list[float] = []
        for fold in range(plan.folds):
            recipe = with_params(plan.recipe, params, output=str(output / f"fold-{fold}"))
            values.append(measure(fold_recipe(recipe, fold, plan.folds), None, scorer))
            mean = sum(values) / len(values)
            if fold + 1 < plan.folds and math.isfinite(mean) and intermediate(fold, mean):
                raise Pruned
        return sum(values) / len(values)

    def tell(trial: Trial) -> None:
        shown = trial.state if trial.value is None else f"{plan.metric} {trial.value:.4g}"
        report(f"trial {trial.number}: {shown} with {_params(trial.params)}")

    return run_search(folder, plan.search, objective, worker=worker, report=tell)


def _params(params: Mapping[str, Value]) -> str:
    return ", ".join(f"{name} {show_value(value)}" for name, value in params.items())


def show_value(value: Value) -> str:
    """Return a hyperparameter's value as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
