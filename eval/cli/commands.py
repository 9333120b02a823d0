"""The `nlpkit eval` commands: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nlpkit.apps.cli.options import DecodeOptions, command, named_as_flags
from nlpkit.apps.cli.output import Writer, note
from nlpkit.core.errors import ConfigError
from nlpkit.eval.cli.options import (
    RUN_OUTPUT,
    DatasetOptions,
    Folders,
    Json,
    Metrics,
    ModelsOptions,
    Quiet,
    ScoreOptions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlpkit.eval.runs.rescoring import RunOutcome

app = typer.Typer(
    help="Evaluate: run tasks over data, score, compare, report.",
    no_args_is_help=True,
    add_completion=False,
)


@command(app)
def run(
    models: ModelsOptions,
    dataset: DatasetOptions,
    decode: DecodeOptions,
    scoring: ScoreOptions,
    task: Annotated[str, typer.Argument(help="Name of the task, or a Python file with one.")],
    metric: Metrics = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Run directory; under runs/ by default.", rich_help_panel=RUN_OUTPUT
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run rows again that failed before.", rich_help_panel=RUN_OUTPUT)
    ] = False,
    max_errors: Annotated[
        int | None, typer.Option(min=0, help="Stop when more rows fail.", rich_help_panel=RUN_OUTPUT)
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the system in tables.", rich_help_panel=RUN_OUTPUT)] = "",
    remark: Annotated[str, typer.Option("--note", help="Free text for the record.", rich_help_panel=RUN_OUTPUT)] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run a task over data and score it. The same command goes on with a run that was stopped."""
    from nlpkit.apps.cli.loading import load_shown
    from nlpkit.apps.cli.progress import ProgressBar
    from nlpkit.apps.tasks.table import is_task_file, run_task_file
    from nlpkit.eval.cli.views import run_table
    from nlpkit.eval.runs.evaluation import Evaluation, Selection, ShotOptions
    from nlpkit.eval.runs.runner import RunSettings
    from nlpkit.eval.runs.scoring import ScoringOptions

    if is_task_file(task):
        run_task_file(task)
    evaluation = Evaluation(
        task=task,
        data=tuple(dataset.data or ()),
        models=models.each(),
        data_options=dataset.reading(),
        selection=Selection(
            limit=dataset.limit,
            shard=dataset.shard,
            exclude_overlap=tuple(dataset.exclude_overlap or ()),
            overlap_n=dataset.overlap_n,
        ),
        scoring=scoring.choice(metric or ()),
        overrides=decode.overrides(),
        settings=RunSettings(
            scoring=ScoringOptions(metrics=()),
            on_overflow=decode.on_overflow,
            batch_tokens=decode.batch_tokens,
            retry_failed=retry_failed,
            max_errors=max_errors,
            name=name,
            note=remark,
        ),
        shots=ShotOptions(count=dataset.shots, path=dataset.shots_from, seed=dataset.shots_seed),
        keep_going=dataset.keep_going,
    )
    with named_as_flags():
        prepared = evaluation.prepare()
    load = partial(load_shown, quiet=quiet)
    with ProgressBar(prepared.task.name, enabled=not quiet) as bar:
        outcomes = prepared.run(output, load=load, report=lambda text: note(text, quiet=quiet), progress=bar)
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for outcome in outcomes:
                writer.write(_full(outcome))
        else:
            writer.write(run_table([outcome.record for outcome in outcomes]))
    return _conclude(outcomes, quiet=quiet)


def _full(outcome: RunOutcome) -> dict[str, Any]:
    from nlpkit.eval.runs.run_folder import finite

    record: dict[str, Any] = finite({**outcome.record, "folder": str(outcome.folder)})
    return record


def _conclude(outcomes: Sequence[RunOutcome], *, quiet: bool) -> int:
    """Say what a reader of the scores must know; return the exit code."""
    code = 0
    for outcome in outcomes:
        name = str(outcome.record["name"])
        for text in outcome.record.get("notes") or ():
            note(f"{name}: {text}", quiet=quiet)
        for text in _metric_notes(outcome.record["metrics"]):
            note(f"{name}: {text}", quiet=quiet)
        counts = outcome.record["counts"]
        if counts["failed"]:
            # Failures are no chatter: they are said even when notes are not wanted.
            note(f"{name}: {counts['failed']} of {counts['rows']} rows failed; {outcome.folder}/samples.jsonl says why")
            code = 3
        for metric, why in outcome.metric_errors.items():
            note(
                f"{name}: {metric} could not be computed: {why} The samples are kept; score them again with "
                f"nlpkit eval rescore {outcome.folder}"
            )
            code = code or 2
        note(f"{name}: written to {outcome.folder}", quiet=quiet)
    return code


def _metric_notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics' notes, one that several metrics make only once."""
    metrics: dict[str, list[str]] = {}
    for metric, result in results.items():
        for text in result.get("notes") or ():
            metrics.setdefault(text, []).append(metric)
    return [f"{', '.join(names)}: {text}" for text, names in metrics.items()]


@command(app)
def score(
    scoring: ScoreOptions,
    metrics: Annotated[list[str], typer.Argument(metavar="METRIC...", help="Names of metrics.")],
    predictions: Annotated[
        str, typer.Option("--predictions", "-p", metavar="PATH", help="Text, a segment a line, or JSONL.")
    ],
    references: Annotated[
        list[str] | None,
        typer.Option("--references", "-r", metavar="PATH", help="Text, JSONL or SQuAD JSON. Repeatable."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="Also write a run directory, to compare and report."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the system in that directory.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score predictions of any system."""
    from nlpkit.eval.cli.views import score_table
    from nlpkit.eval.runs.predictions import describe_predictions, load_predictions
    from nlpkit.eval.runs.run_folder import finite
    from nlpkit.eval.runs.scoring import score_records, with_language

    choice = scoring.choice(metrics).settle()
    records = load_predictions(predictions, references or (), metrics=choice.metrics)
    options = with_language(choice, records)
    scores = score_records(records, options)
    for metric, why in scores.errors.items():
        raise ConfigError(f"{metric} could not be computed: {why}")
    if output is not None:
        from nlpkit.eval.runs.rescoring import write_run

        write_run(output, describe_predictions(predictions, references or (), records, name=name), records, options)
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for result in scores.results.values():
                writer.write(finite({key: value for key, value in result.items() if key in _JSON_KEYS}))
        else:
            writer.write(score_table(scores.results))
    for text in _metric_notes(scores.results):
        note(text, quiet=quiet)
    return 0


_JSON_KEYS = ("metric", "value", "low", "high", "signature", "n")


@command(app)
def compare(
    folders: Folders,
    metric: Metrics = None,
    test: Annotated[Literal["both", "bootstrap", "randomization"], typer.Option(help="Which paired test.")] = "both",
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.")] = 1000,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the randomization test.")] = 10000,
    seed: Annotated[int | None, typer.Option(help="Seed of both.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Show this many rows that changed most.")] = 5,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare systems on the same data; the first is the baseline."""
    from nlpkit.eval.cli.views import comparison_text
    from nlpkit.eval.runs.compare import CompareOptions, compare_runs
    from nlpkit.eval.runs.run_folder import load_run
    from nlpkit.eval.statistics.resampling import DEFAULT_SEED
    from nlpkit.eval.statistics.significance import METHODS

    if len(folders) < 2:
        raise ConfigError(f"There is one run, {folders[0]}, and it takes two to compare. Name another one.")
    comparison = compare_runs(
        [load_run(folder) for folder in folders],
        CompareOptions(
            metrics=tuple(metric or ()),
            methods=METHODS if test == "both" else (test,),
            n_resamples=resamples,
            n_trials=trials,
            seed=DEFAULT_SEED if seed is None else seed,
            n_examples=examples,
        ),
    )
    for text in comparison.notes:
        note(text, quiet=quiet)
    with Writer(None, as_json=as_json) as writer:
        writer.write(comparison.to_dict() if as_json else comparison_text(comparison))
    return 0


@command(app)
def rescore(
    scoring: ScoreOptions,
    folders: Folders,
    metric: Metrics = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score runs again, without a model: by default with the same metrics, else with those given."""
    from nlpkit.eval.cli.views import run_table
    from nlpkit.eval.runs.evaluation import rescore_run

    choice = scoring.choice(metric or ())
    outcomes = [rescore_run(folder, choice) for folder in folders]
    for outcome in outcomes:
        for text in outcome.notes:
            note(f"{outcome.folder}: {text}", quiet=quiet)
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for outcome in outcomes:
                writer.write(_full(outcome))
        else:
            writer.write(run_table([outcome.record for outcome in outcomes]))
    return _conclude(outcomes, quiet=quiet)


@command(app)
def merge(
    folders: Folders,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Run directory to write.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Put the shards of one run together and score the whole."""
    from nlpkit.eval.cli.views import run_table
    from nlpkit.eval.runs.shards import merge_runs

    outcome = merge_runs(folders, output)
    with Writer(None, as_json=as_json) as writer:
        writer.write(_full(outcome) if as_json else run_table([outcome.record]))
    return _conclude([outcome], quiet=quiet)


@command(app)
def report(
    folders: Folders,
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="File to write: .html, .md or .json.")],
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Best and worst rows to show.")] = 5,
    quiet: Quiet = False,
) -> int:
    """Write one self-contained page about runs on the same task."""
    from nlpkit.eval.report.content import build_report, report_kind
    from nlpkit.eval.report.render import render_report
    from nlpkit.eval.runs.run_folder import load_run

    kind = report_kind(output)
    built = build_report([load_run(folder) for folder in folders], title=title, n_examples=examples)
    with Writer(output) as writer:
        writer.write_raw(render_report(built, kind))
    for text in built.notes:
        note(text, quiet=quiet)
    note(f"written to {output}", quiet=quiet)
    return 0


@command(app)
def contamination(
    train: Annotated[list[str], typer.Option("--train", metavar="PATH", help="Training data. Repeatable.")],
    test: Annotated[list[str], typer.Option("--test", metavar="PATH", help="Test data. Repeatable.")],
    ngram: Annotated[list[int] | None, typer.Option(min=1, help="Length of n-grams; 13 and 8. Repeatable.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="Look only at this column. Repeatable.")] = None,
    details: Annotated[bool, typer.Option("--list", help="Name every text that overlaps.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Say how much of the test data the training data give away."""
    from nlpkit.eval.cli.views import overlap_text
    from nlpkit.eval.data.overlap import data_overlap, read_test_rows

    overlap = data_overlap(train, read_test_rows(test), columns=column or (), orders=tuple(ngram or (13, 8)))
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for record in overlap.details() if details else overlap.summary():
                writer.write(record)
        else:
            writer.write(overlap_text(overlap, details=details))
    return 0


@command(app)
def suite(
    path: Annotated[str, typer.Argument(metavar="FILE", help="Suite file (TOML).")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the runs; the file's own by default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of each data set.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this evaluation. Repeatable.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run what a suite file names, or go on with it, and print one table."""
    from nlpkit.apps.cli.loading import load_shown
    from nlpkit.apps.cli.progress import ProgressBar
    from nlpkit.eval.cli.views import suite_table
    from nlpkit.eval.runs.suite import load_suite, run_suite

    loaded = load_suite(path, limit=limit, only=only or ())
    with ProgressBar(loaded.name, enabled=not quiet) as bar:
        load = partial(load_shown, quiet=quiet)
        results = run_suite(
            loaded,
            output,
            load=load,
            report=lambda text: note(text, quiet=quiet),
            progress=bar,
        )
    with Writer(None, as_json=as_json) as writer:
        if as_json:
            for result in results:
                for outcome in result.outcomes:
                    writer.write({"evaluation": result.name, **_full(outcome)})
        else:
            writer.write(suite_table(results))
    return _conclude([outcome for result in results for outcome in result.outcomes], quiet=quiet)
