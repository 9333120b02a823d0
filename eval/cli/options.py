"""Groups of options of the `nlpkit eval` commands. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nlpkit.apps.cli.options import Adapter, DeviceOption, DtypeOption, Threads
from nlpkit.apps.data.columns import parse_pairs

if TYPE_CHECKING:
    from nlpkit.apps.models.spec import ModelSpec
    from nlpkit.eval.data.datasets import DataOptions
    from nlpkit.eval.runs.evaluation import ScoringChoice

_MODEL = "Model"
_DATA = "Data"
_SCORING = "Scoring"
RUN_OUTPUT = "Output"

Format = Literal["auto", "jsonl", "csv", "tsv", "squad", "text", "parquet"]


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """Which models to run, and how."""

    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Name, file, folder or hub id. Repeatable.", rich_help_panel=_MODEL),
    ] = None
    adapter: Adapter = None
    dtype: DtypeOption = "auto"
    device: DeviceOption = "auto"
    threads: Threads = None

    def each(self) -> tuple[ModelSpec, ...]:
        """Return each model.

        Raises:
            InputError: A name is not valid text.
        """
        from nlpkit.apps.cli.options import ModelOptions

        return tuple(
            ModelOptions(
                model=name, adapter=self.adapter, dtype=self.dtype, device=self.device, threads=self.threads
            ).spec()
            for name in dict.fromkeys(self.models or ["default"])
        )


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Which data to read, and how."""

    data: Annotated[
        list[str] | None, typer.Option("--data", "-d", metavar="PATH", help="Data. Repeatable.", rich_help_panel=_DATA)
    ] = None
    data_format: Annotated[
        Format, typer.Option("--format", help="auto goes by the file's name.", rich_help_panel=_DATA)
    ] = "auto"
    references: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="For plain text: a reference a line. Repeatable.", rich_help_panel=_DATA),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=THEIRS", help="The data's name for a column. Repeatable.", rich_help_panel=_DATA
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=VALUE", help="A value for all rows. Repeatable.", rich_help_panel=_DATA),
    ] = None
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split of a folder of parquet files.", rich_help_panel=_DATA)
    ] = None
    limit: Annotated[int | None, typer.Option(help="Only the first N rows.", rich_help_panel=_DATA)] = None
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every N-th row, from the I-th.", rich_help_panel=_DATA)
    ] = None
    exclude_overlap: Annotated[
        list[str] | None,
        typer.Option(metavar="TRAIN", help="Leave out rows that share n-grams with this file.", rich_help_panel=_DATA),
    ] = None
    overlap_n: Annotated[
        int, typer.Option("--overlap-ngram", min=1, help="Length of those n-grams.", rich_help_panel=_DATA)
    ] = 13
    shots: Annotated[int, typer.Option(min=0, help="Solved examples in each prompt.", rich_help_panel=_DATA)] = 0
    shots_from: Annotated[
        str | None, typer.Option(metavar="PATH", help="File to take them from.", rich_help_panel=_DATA)
    ] = None
    shots_seed: Annotated[int, typer.Option(help="Decides which ones.", rich_help_panel=_DATA)] = 0
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Record unusable rows and go on.", rich_help_panel=_DATA)
    ] = False

    def reading(self) -> DataOptions:
        """Return how to read."""
        from nlpkit.eval.data.datasets import DataOptions

        return DataOptions(
            format=self.data_format,
            references=tuple(self.references or ()),
            columns=parse_pairs(self.columns or (), "--map"),
            values=parse_pairs(self.values or (), "--set"),
            split=self.split,
        )


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """How to score."""

    lang: Annotated[str | None, typer.Option(help="Language of the references.", rich_help_panel=_SCORING)] = None
    tokenizer: Annotated[
        str | None, typer.Option(help="By the metric's own names, such as 13a, zh, char.", rich_help_panel=_SCORING)
    ] = None
    lowercase: Annotated[
        bool | None,
        typer.Option(
            "--lowercase/--cased",
            show_default=False,
            help="Ignore case, or regard it; the metric's own choice by default.",
            rich_help_panel=_SCORING,
        ),
    ] = None
    stemmer: Annotated[
        bool, typer.Option("--stemmer", help="ROUGE: strip English suffixes.", rich_help_panel=_SCORING)
    ] = False
    rouge_split: Annotated[
        Literal["newline", "sentence"] | None,
        typer.Option(help="ROUGE-Lsum: where sentences end.", rich_help_panel=_SCORING),
    ] = None
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="Label set of F1 scores. Repeatable.", rich_help_panel=_SCORING),
    ] = None
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples.", rich_help_panel=_SCORING)] = 1000
    bootstrap_seed: Annotated[int | None, typer.Option(help="Their seed.", rich_help_panel=_SCORING)] = None

    def choice(self, metrics: Sequence[str]) -> ScoringChoice:
        """Return the choice for these metrics."""
        from nlpkit.eval.metrics.registry import MetricOptions
        from nlpkit.eval.runs.evaluation import ScoringChoice

        names = [part for name in metrics for part in name.split(",") if part]
        return ScoringChoice(
            metrics=tuple(dict.fromkeys(names)),
            options=MetricOptions(
                lang=self.lang,
                tokenizer=self.tokenizer,
                lowercase=self.lowercase,
                stemmer=self.stemmer,
                split=self.rouge_split,
                labels=tuple(self.labels or ()),
            ),
            n_resamples=self.resamples,
            seed=self.bootstrap_seed,
        )


Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="The task's own by default. Repeatable.", rich_help_panel=_SCORING),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, one object a line.", rich_help_panel=RUN_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes and no bars on stderr.", rich_help_panel=RUN_OUTPUT)
]
Folders = Annotated[list[str], typer.Argument(metavar="DIR...", help="Run directories.")]
