"""Search for hyperparameters with Optuna (Akiba et al. 2019, arXiv:1907.10902): grid or TPE, pruned and resumable."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nlpkit.core.errors import ConfigError, OutputError, did_you_mean

SearchMethod = Literal["tpe", "grid"]
STUDY = "nlpkit"
MAX_GRID = 100_000

Value = float | int | str | bool
Objective = Callable[[Mapping[str, Value], Callable[[int, float], bool], int], float]
"""Takes parameters, a function to report an intermediate value to (it tells whether to give up), and the trial's
number; returns the value. Raises `Pruned` when it gave up."""


class Pruned(Exception):
    """Raised by an objective that gave up because it was told to."""


@dataclass(frozen=True, kw_only=True)
class SearchRange:
    """One hyperparameter's values.

    Attributes:
        options: The values to choose among; empty for a range.
        low: Least value of a range.
        high: Greatest value of a range.
        log: Whether the range is even on a logarithmic scale.
        step: Distance between the values of a range; None for all of them.
    """

    options: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the range has whole numbers only."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def grid(self, name: str) -> tuple[Value, ...]:
        """List all values.

        Raises:
            ConfigError: A range without a step has too many.
        """
        if self.options:
            return self.options
        if self.step is None:
            raise ConfigError(f"Grid search needs a list of values, or a step, for {name}.")
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + i * self.step for i in range(count))


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search, and how.

    Attributes:
        space: Hyperparameters by dotted name, such as ``train.lr``.
        method: ``tpe`` (Bergstra et al. 2011) or ``grid``.
        trials: Trials to finish, pruned ones included; for ``grid`` at most its size.
        minimize: Whether lower values are better.
        seed: Decides what TPE tries.
        prune: Give up trials that are below the median of earlier ones at the same step.
    """

    space: Mapping[str, SearchRange]
    method: SearchMethod = "tpe"
    trials: int = 20
    minimize: bool = True
    seed: int = 0
    prune: bool = True

    def __post_init__(self) -> None:
        if self.method not in get_args(SearchMethod):
            raise ConfigError(
                f"There is no search method {self.method!r}. {did_you_mean(self.method, get_args(SearchMethod))}"
            )
        if not self.space:
            raise ConfigError("There is nothing to search: name hyperparameters under [tune.space].")
        if self.trials < 1:
            raise ConfigError(f"The number of trials is {self.trials}; it must be at least 1.")
        if self.method == "grid" and self.grid_size() > MAX_GRID:
            raise ConfigError(f"The grid has {self.grid_size():,} points; at most {MAX_GRID:,} are searched. Thin it.")

    def grid_size(self) -> int:
        """Return the number of points of the grid."""
        return math.prod(len(choice.grid(name)) for name, choice in self.space.items())

    @property
    def wanted(self) -> int:
        """Trials to finish."""
        return min(self.trials, self.grid_size()) if self.method == "grid" else self.trials


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished, pruned, failed or running trial.

    Attributes:
        number: Its number.
        state: ``complete``, ``pruned``, ``fail``, ``running`` or ``waiting``.
        value: Its value, if it has one.
        params: Its hyperparameters.
        seconds: How long it took.
        steps: Intermediate values by step.
    """

    number: int
    state: str
    value: float | None
    params: Mapping[str, Value]
    seconds: float | None
    steps: Mapping[int, float] = field(default_factory=dict)


def parse_space(values: Mapping[str, Any]) -> dict[str, SearchRange]:
    """Read hyperparameters from a configuration.

    Args:
        values: By name a list of values, or a table with ``low``, ``high`` and perhaps ``log`` or ``step``.

    Returns:
        The choices by name.

    Raises:
        ConfigError: One of them cannot be used.
    """
    space = {}
    for name, value in values.items():
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            space[name] = SearchRange(options=tuple(value))
            continue
        if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= {"low", "high", "log", "step"}:
            raise ConfigError(
                f"The values of {name} are {value!r}; give a list, or {{ low = ..., high = ... }} with log or step."
            )
        choice = SearchRange(**value)
        numbers = all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (choice.low, choice.high))
        usable = numbers and choice.low < choice.high and (choice.step is None or choice.step > 0)
        if not usable or (choice.log and (choice.low <= 0 or choice.step is not None)):
            raise ConfigError(
                f"The range of {name} is {value!r}: low must be below high (above 0 with log); log goes without step."
            )
        space[name] = choice
    return space


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "Searching for hyperparameters needs Optuna, which is not installed: pip install 'nlpkit[tune]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(folder: Path, search: Search, *, worker: int) -> Any:
    """Open or create the study in ``tune.db``.

    Args:
        folder: Where it lies.
        search: What is searched.
        worker: Number of this process. For 0, the first of its run, trials that still run were killed before, and
            are tried again.

    Returns:
        Optuna's study.

    Raises:
        ConfigError: The study there searches something else, or Optuna is missing.
        OutputError: The database cannot be written.
    """
    optuna = _optuna()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4) if search.prune else optuna.pruners.NopPruner()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{(folder / 'tune.db').resolve().as_posix()}",
            study_name=STUDY,
            pruner=pruner,
            direction="minimize" if search.minimize else "maximize",
            load_if_exists=True,
        )
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    described = repr(sorted((name, repr(choice)) for name, choice in search.space.items())) + search.method
    known = study.user_attrs.get("search")
    if known not in (None, described):
        raise ConfigError(
            f"{folder} holds a search over other hyperparameters or values. Go on with those, or name another folder."
        )
    study.set_user_attr("search", described)
    trials = study.get_trials(deepcopy=False)
    if search.method == "grid":
        # Every point is put into the queue, so that a killed or failed one can be put there again.
        study.sampler = optuna.samplers.RandomSampler(seed=search.seed)
    else:
        # A seed must not bring the same random trials again in another process or run.
        study.sampler = optuna.samplers.TPESampler(
            seed=search.seed + 1000 * worker + len(trials), n_startup_trials=min(10, max(3, search.trials // 3))
        )
    if worker == 0:
        _retry_killed(optuna, study, again=search.method != "grid")
        if search.method == "grid":
            _fill_queue(study, search)
    return study


def _retry_killed(optuna: Any, study: Any, *, again: bool) -> None:
    state = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
        study._storage.set_trial_state_values(trial._trial_id, state.FAIL)
        if again:
            study.enqueue_trial(trial.params)


def _fill_queue(study: Any, search: Search) -> None:
    """Put the points of a grid into the queue that are neither done nor waiting there."""
    known = [
        dict(trial.system_attrs.get("fixed_params", trial.params))
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name != "FAIL"
    ]
    points = grid_points(search)
    random.Random(search.seed).shuffle(points)  # noqa: S311
    for point in points[: search.wanted]:
        if point not in known:
            study.enqueue_trial(point)


def run_search(
    folder: Path,
    search: Search,
    objective: Objective,
    *,
    worker: int = 0,
    report: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Run trials until enough are done; several processes may do so in the same folder at once.

    Args:
        folder: Where the study lies.
        search: What to search.
        objective: Measures one set of hyperparameters.
        worker: See `open_study`.
        report: Told of each trial that this process ended.

    Returns:
        All trials so far.

    Raises:
        NlpkitError: What the objective raises, or the study cannot be opened.
    """
    optuna = _optuna()
    study = open_study(folder, search, worker=worker)

    def measured(trial: Any) -> float:
        params = {name: _suggest(trial, name, choice, search) for name, choice in search.space.items()}

        def intermediate(step: int, value: float) -> bool:
            trial.report(value, step)
            return bool(trial.should_prune())

        try:
            value = objective(params, intermediate, trial.number)
        except Pruned as error:
            raise optuna.TrialPruned from error
        if not math.isfinite(value):
            raise optuna.TrialPruned
        return value

    while _has_more(study, search):
        known = {trial.number for trial in list_trials(study)}
        study.optimize(measured, n_trials=1)
        if report is not None:
            for ended in list_trials(study):
                if ended.number not in known:
                    report(ended)
    return list_trials(study)


def _has_more(study: Any, search: Search) -> bool:
    states = [trial.state for trial in list_trials(study)]
    if search.method == "grid":
        return "waiting" in states
    return sum(state in ("complete", "pruned", "running") for state in states) < search.wanted


def _suggest(trial: Any, name: str, choice: SearchRange, search: Search) -> Value:
    value: Value
    if choice.options or search.method == "grid":
        value = trial.suggest_categorical(name, list(choice.grid(name)))
    elif choice.is_whole and not choice.log:
        value = trial.suggest_int(name, choice.low, choice.high, step=int(choice.step or 1))
    elif choice.is_whole:
        value = trial.suggest_int(name, choice.low, choice.high, log=True)
    else:
        value = trial.suggest_float(name, choice.low, choice.high, step=choice.step, log=choice.log)
    return value


def list_trials(study: Any) -> list[Trial]:
    """Return the trials of a study in the order they were begun."""
    return [
        Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            value=trial.value if trial.state.name == "COMPLETE" else None,
            params=dict(trial.params),
            seconds=None if trial.duration is None else trial.duration.total_seconds(),
            steps=dict(trial.intermediate_values),
        )
        for trial in study.get_trials(deepcopy=False)
    ]


def best_trial(trials: Sequence[Trial], *, minimize: bool) -> Trial | None:
    """Return the best complete trial; the earlier of two equals."""
    done = [trial for trial in trials if trial.value is not None]
    sign = 1 if minimize else -1
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def grid_points(search: Search) -> list[dict[str, Value]]:
    """List the points of a grid."""
    names = list(search.space)
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(search.space[name].grid(name) for name in names))
    ]
