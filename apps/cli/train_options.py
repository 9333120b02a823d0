"""Options of the command ``train``, in groups. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import typer

from nlpkit.apps.cli.options import Device

_WHAT = "What to train"
_HOW = "How to train"
_LORA = "LoRA"
_NEW = "A new model"
_CHECK = "Evaluation and checkpoints"


@dataclass(frozen=True, kw_only=True)
class WhatOptions:
    """What to train on what."""

    task: Annotated[
        str | None,
        typer.Option(help="Task of the rows; text is plain text.", rich_help_panel=_WHAT),
    ] = None
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="PATH", help="Rows, or a text file. Repeatable.", rich_help_panel=_WHAT),
    ] = None
    weight: Annotated[
        list[float] | None,
        typer.Option(metavar="X", help="Share of each --data, in order. Repeatable.", rich_help_panel=_WHAT),
    ] = None
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Value for rows that lack it, as target_lang=de.", rich_help_panel=_WHAT
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=THEIRS", help="The rows' name for a column. Repeatable.", rich_help_panel=_WHAT
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COLUMN=VALUE", help="A column's value in all rows. Repeatable.", rich_help_panel=_WHAT
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to read of each file.", rich_help_panel=_WHAT)] = None
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.", rich_help_panel=_WHAT)
    ] = None
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Model to start from.", rich_help_panel=_WHAT)] = (
        None
    )
    method: Annotated[
        Literal["lora", "full", "scratch"] | None,
        typer.Option(help="lora by default; scratch with --preset.", rich_help_panel=_WHAT),
    ] = None
    prompts: Annotated[
        Literal["chat", "brief", "learned"] | None,
        typer.Option(
            help="chat by default, brief for closed answers; short prompts are shorter, for a model of one task.",
            rich_help_panel=_WHAT,
        ),
    ] = None
    config: Annotated[
        str | None,
        typer.Option(metavar="F.toml", help="Configuration file; options given here win.", rich_help_panel=_WHAT),
    ] = None


@dataclass(frozen=True, kw_only=True)
class HowOptions:
    """Options of the training itself; their names are those of `nlpkit.core.train.config.TrainConfig`."""

    max_steps: Annotated[int | None, typer.Option(min=1, help="Optimizer updates.", rich_help_panel=_HOW)] = None
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; 1 by default.", rich_help_panel=_HOW)] = (
        None
    )
    max_minutes: Annotated[
        float | None, typer.Option(help="Minutes of training; for wsd and constant.", rich_help_panel=_HOW)
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Packed rows at once; with --accumulate, 8 a step by default.", rich_help_panel=_HOW),
    ] = None
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Batches in one update; 1 where --batch-size is given.", rich_help_panel=_HOW),
    ] = None
    seq_len: Annotated[
        int | None, typer.Option(min=2, help="Tokens in a packed row; 512 by default.", rich_help_panel=_HOW)
    ] = None
    on_long: Annotated[
        Literal["auto", "drop", "truncate", "split", "error"] | None,
        typer.Option(help="Rows that do not fit.", rich_help_panel=_HOW),
    ] = None
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=_HOW)] = None
    embed_lr: Annotated[
        float | None, typer.Option(help="Peak rate of embeddings and norms, with muon.", rich_help_panel=_HOW)
    ] = None
    schedule: Annotated[
        Literal["cosine", "linear", "wsd", "constant"] | None,
        typer.Option(help="How the rate falls; cosine by default.", rich_help_panel=_HOW),
    ] = None
    warmup: Annotated[float | None, typer.Option(help="Steps; below 1 a share of them.", rich_help_panel=_HOW)] = None
    optimizer: Annotated[
        Literal["adamw", "muon", "lion", "adafactor"] | None,
        typer.Option(help="adamw by default.", rich_help_panel=_HOW),
    ] = None
    weight_decay: Annotated[float | None, typer.Option(help="On matrices only.", rich_help_panel=_HOW)] = None
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm; 0 is off.", rich_help_panel=_HOW)] = None
    dropout: Annotated[float | None, typer.Option(help="0 by default.", rich_help_panel=_HOW)] = None
    label_smoothing: Annotated[float | None, typer.Option(help="0 by default.", rich_help_panel=_HOW)] = None
    prompt_loss: Annotated[
        float | None, typer.Option(help="Weight of the loss on prompts, early on; 0 by default.", rich_help_panel=_HOW)
    ] = None
    prompt_loss_steps: Annotated[
        float | None, typer.Option(help="For so many steps; below 1 a share of them.", rich_help_panel=_HOW)
    ] = None
    zero_init: Annotated[
        bool | None,
        typer.Option("--zero-init/--no-zero-init", help="Blocks from scratch begin as 0.", rich_help_panel=_HOW),
    ] = None
    ema: Annotated[float | None, typer.Option(help="Average the weights with this decay.", rich_help_panel=_HOW)] = None
    average: Annotated[
        int | None,
        typer.Option(
            min=0, help="Try the mean of the weights of so many last evaluations at the end.", rich_help_panel=_HOW
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="0 by default.", rich_help_panel=_HOW)] = None
    dtype: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option(help="bf16 keeps fp32 master weights.", rich_help_panel=_HOW),
    ] = None
    checkpointing: Annotated[
        bool | None,
        typer.Option("--recompute/--no-recompute", help="Recompute activations to save memory.", rich_help_panel=_HOW),
    ] = None
    compile: Annotated[
        Literal["auto", "on", "off"] | None,
        typer.Option(help="Compile the model: auto does for long trainings.", rich_help_panel=_HOW),
    ] = None
    parallel: Annotated[Literal["ddp", "fsdp"] | None, typer.Option(help="Under torchrun.", rich_help_panel=_HOW)] = (
        None
    )
    eval_every: Annotated[int | None, typer.Option(min=0, help="Steps.", rich_help_panel=_CHECK)] = None
    save_every: Annotated[int | None, typer.Option(min=0, help="Steps.", rich_help_panel=_CHECK)] = None
    keep: Annotated[int | None, typer.Option(min=1, help="Checkpoints to keep.", rich_help_panel=_CHECK)] = None
    patience: Annotated[
        int | None, typer.Option(min=0, help="Stop after so many evaluations without gain.", rich_help_panel=_CHECK)
    ] = None
    metric: Annotated[
        str | None, typer.Option(help="What to improve: loss, or a metric of the task.", rich_help_panel=_CHECK)
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Options of the adapter."""

    lora_rank: Annotated[int | None, typer.Option(min=1, help="16 by default.", rich_help_panel=_LORA)] = None
    lora_alpha: Annotated[float | None, typer.Option(help="32 by default.", rich_help_panel=_LORA)] = None
    lora_dropout: Annotated[float | None, typer.Option(help="0 by default.", rich_help_panel=_LORA)] = None
    lora_target: Annotated[
        list[str] | None,
        typer.Option(help="q, k, v, o, gate, up, down or a pattern. Repeatable.", rich_help_panel=_LORA),
    ] = None
    rslora: Annotated[bool | None, typer.Option("--rslora/--no-rslora", rich_help_panel=_LORA)] = None
    dora: Annotated[bool | None, typer.Option("--dora/--no-dora", rich_help_panel=_LORA)] = None
    adapter: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Go on from this adapter.", rich_help_panel=_LORA)
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the options of `nlpkit.core.model.lora.LoraConfig` that were given."""
        values = {
            "rank": self.lora_rank,
            "alpha": self.lora_alpha,
            "dropout": self.lora_dropout,
            "targets": self.lora_target or None,
            "use_rslora": self.rslora,
            "use_dora": self.dora,
        }
        return {name: value for name, value in values.items() if value is not None}


_KINDS = ("bpe", "sentencepiece", "sentencepiece-bpe", "char")


@dataclass(frozen=True, kw_only=True)
class NewModelOptions:
    """Options of a model from scratch."""

    preset: Annotated[
        str | None, typer.Option(help="nano, 1m, 5m, 15m, 30m, 60m, 135m, 350m, 760m, 1b.", rich_help_panel=_NEW)
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="KIND|PATH", help="bpe, sentencepiece, sentencepiece-bpe, char; or a folder.", rich_help_panel=_NEW
        ),
    ] = None
    vocab_size: Annotated[int | None, typer.Option(min=1, help="Of a new tokenizer.", rich_help_panel=_NEW)] = None

    def given(self) -> dict[str, Any]:
        """Return the options of the tokenizer that were given."""
        values: dict[str, Any] = {}
        if self.tokenizer is not None:
            values["kind" if self.tokenizer in _KINDS else "path"] = self.tokenizer
        if self.vocab_size is not None:
            values["vocab_size"] = self.vocab_size
        return values


@dataclass(frozen=True, kw_only=True)
class TrainRunOptions:
    """What happens around the training."""

    eval_data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Development rows. Repeatable.", rich_help_panel=_CHECK),
    ] = None
    eval_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows to generate for; 64 by default.", rich_help_panel=_CHECK)
    ] = None
    eval_metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric to measure by generating. Repeatable.", rich_help_panel=_CHECK),
    ] = None
    samples: Annotated[
        int | None, typer.Option(min=0, help="Dev rows to show answers to; 3 by default.", rich_help_panel=_CHECK)
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.", rich_help_panel=_CHECK)
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the model will see, and train nothing.")] = False
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")] = False
    device: Annotated[Device, typer.Option(help="Where to train.")] = "auto"
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no bars on stderr.")] = False

    def evaluation(self) -> dict[str, Any]:
        """Return the options of the evaluation that were given."""
        values = {"rows": self.eval_rows, "samples": self.samples, "metrics": self.eval_metric or None}
        return {name: value for name, value in values.items() if value is not None}
