"""`TrainConfig`: everything that decides how a model is trained, checked before anything runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from nlpkit.core.errors import ConfigError, did_you_mean, shown
from nlpkit.core.typed_fields import check_table, is_number

Method = Literal["scratch", "full", "lora"]
Schedule = Literal["cosine", "linear", "wsd", "constant"]
OptimizerName = Literal["adamw", "muon", "lion", "adafactor"]
Precision = Literal["fp32", "bf16"]
Parallel = Literal["ddp", "fsdp"]
LongPolicy = Literal["auto", "drop", "truncate", "split", "error"]
CompileChoice = Literal["auto", "on", "off"]

LOWER_IS_BETTER = frozenset({"loss", "perplexity", "bits_per_byte", "ter"})
"""Metrics of which less is better; of all others more is."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Attributes:
        method: ``scratch``, ``full`` or ``lora``.
        seq_len: Slots of a packed row, in tokens.
        batch_size: Packed rows in one micro-batch of one process.
        accumulate: Micro-batches in one step of one process.
        max_steps: Optimizer updates.
        epochs: Passes over the data.
        max_minutes: Minutes of training by the clock, compilation, evaluations and checkpoints not counted; only for
            ``wsd`` and ``constant``. When wsd's decay begins, the number of steps that is left is settled, so what
            follows can be resumed exactly. Exactly one of `max_steps`, `epochs` and `max_minutes` is set.
        lr: Peak learning rate.
        embed_lr: Peak learning rate of what Muon does not train (embeddings, norms, head); None takes `lr`.
        min_lr: Final learning rate as a fraction of the peak.
        warmup: Steps of linear warm-up; a value below 1 is a fraction of all steps.
        schedule: ``cosine``, ``linear``, ``wsd`` (constant, then a linear decay; Hu et al. 2024, arXiv:2404.06395) or
            ``constant``.
        decay: Length of wsd's decay as a fraction of all steps.
        optimizer: ``adamw`` (Loshchilov and Hutter 2017, arXiv:1711.05101), ``muon`` (Jordan et al. 2024) for the
            matrices of the blocks with AdamW for the rest, ``lion`` (Chen et al. 2023, arXiv:2302.06675) or
            ``adafactor`` (Shazeer and Stern 2018, arXiv:1804.04235).
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of squares (adamw), or of the momentum (lion).
        eps: Added to AdamW's denominator.
        weight_decay: Applied to matrices only: not to norms, biases or embeddings.
        clip: Largest norm of all gradients together; 0 turns clipping off.
        label_smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2015, arXiv:1512.00567).
        prompt_loss: Weight of the loss on prompt tokens beside that on targets, early in training; 0 is off.
        prompt_loss_steps: Steps with that loss; a value below 1 is a fraction of all steps.
        zero_init: Let the output projections of attention and MLP begin at 0 in a model from scratch, so that every
            block begins as the identity (Zhang et al. 2019, arXiv:1901.09321).
        dropout: On embeddings, attention weights and sublayer outputs.
        ema: Decay of an exponential moving average of the weights, which is then evaluated and saved; 0 is off.
        average: At the end take the mean of the weights of so many last evaluations, or of checkpoints where nothing is
            evaluated while training (Izmailov et al. 2018, arXiv:1803.05407), if it is better; 0 is off.
        dtype: ``fp32``, or ``bf16`` with fp32 master weights.
        checkpointing: Recompute blocks in the backward pass: less memory, about a third more time.
        compile: Compile the blocks: ``auto`` does where there is a compiler.
        seed: Decides initial weights, data order and dropout.
        on_long: What to do with rows that do not fit `seq_len`: ``drop`` them, ``truncate`` their prompts from the
            start, ``split`` plain text into pieces, or ``error``; ``auto`` splits plain text and drops the others.
        eval_every: Steps between evaluations; 0 only at the end.
        save_every: Steps between checkpoints; 0 only at the end.
        keep: Checkpoints to keep beside the best one.
        patience: Evaluations without improvement after which training stops; 0 never stops early.
        metric: What to improve: ``loss``, or a metric that the caller's `evaluate` returns.
        parallel: Under torchrun: ``ddp`` or ``fsdp``.
        chunk: Target positions that go through the output head at once; 0 takes as many as give 32 million logits.
    """

    method: Method
    seq_len: int = 256
    batch_size: int = 8
    accumulate: int = 1
    max_steps: int | None = None
    epochs: float | None = None
    max_minutes: float | None = None
    lr: float = 3e-4
    embed_lr: float | None = None
    min_lr: float = 0.1
    warmup: float = 0.03
    schedule: Schedule = "cosine"
    decay: float = 0.2
    optimizer: OptimizerName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    label_smoothing: float = 0.0
    prompt_loss: float = 0.0
    prompt_loss_steps: float = 0.3
    zero_init: bool = False
    dropout: float = 0.0
    ema: float = 0.0
    average: int = 0
    dtype: Precision = "fp32"
    checkpointing: bool = False
    compile: CompileChoice = "auto"
    seed: int = 0
    on_long: LongPolicy = "auto"
    eval_every: int = 0
    save_every: int = 0
    keep: int = 2
    patience: int = 0
    metric: str = "loss"
    parallel: Parallel = "ddp"
    chunk: int = 0

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name, kind in (("max_steps", int), ("epochs", float), ("max_minutes", float), ("embed_lr", float)):
            check_table({name: getattr(self, name)}, {name: kind}, "The training")
        check_table({name: getattr(self, name) for name in _PLAIN}, _PLAIN, "The training")
        for field in dataclasses.fields(self):
            choices = get_args(hints[field.name])
            value = getattr(self, field.name)
            if (
                choices
                and all(isinstance(choice, str) for choice in choices)
                and (not isinstance(value, str) or value not in choices)
            ):
                hint = did_you_mean(value if isinstance(value, str) else "", choices)
                raise ConfigError(f"There is no {field.name} {shown(value)}. {hint}")
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(f"{name} is {shown(value)}; it must be a whole number from {low}.")
        for name, (low_f, high, open_low, open_high) in _RANGES.items():
            value = getattr(self, name)
            usable = is_number(value) and low_f <= value <= high
            if not usable or (open_low and value == low_f) or (open_high and value == high):
                above, below = ("above" if open_low else "from"), ("below" if open_high else "to")
                upper = "" if high == math.inf else f" {below} {high:g}"
                raise ConfigError(f"{name} is {shown(value)}; it must be a number {above} {low_f:g}{upper}.")
        lengths = [name for name in sorted(LENGTH) if getattr(self, name) is not None]
        if len(lengths) != 1:
            got = " and ".join(lengths) or "neither"
            raise ConfigError(f"How long to train is given by one of max_steps, epochs and max_minutes; got {got}.")
        if self.max_steps is not None and (not isinstance(self.max_steps, int) or self.max_steps < 1):
            raise ConfigError(f"max_steps is {self.max_steps!r}; it must be a whole number from 1.")
        if self.epochs is not None and not 0 < self.epochs < 1e6:
            raise ConfigError(f"epochs is {self.epochs!r}; it must be a number above 0.")
        if self.max_minutes is not None:
            if not 0 < self.max_minutes < 1e6:
                raise ConfigError(f"max_minutes is {self.max_minutes!r}; it must be a number above 0.")
            if self.schedule not in ("wsd", "constant"):
                raise ConfigError(
                    f"With the schedule {self.schedule} the rate depends on the number of steps, which max_minutes "
                    "does not tell. Choose wsd or constant."
                )
            for name in ("warmup", "prompt_loss_steps"):
                if 0 < getattr(self, name) < 1 and (name == "warmup" or self.prompt_loss):
                    raise ConfigError(f"{name} is a share of all steps, which max_minutes does not tell: give steps.")
        if self.embed_lr is not None and not 0 < self.embed_lr <= 1000:
            raise ConfigError(f"embed_lr is {self.embed_lr!r}; it must be a number above 0.")
        if self.embed_lr is not None and self.optimizer != "muon":
            raise ConfigError(f"embed_lr goes with muon alone; the optimizer is {self.optimizer}.")
        if self.patience and not self.eval_every:
            raise ConfigError(f"patience {self.patience} counts evaluations, but eval_every is 0: set it as well.")
        if self.average == 1:
            raise ConfigError("average is 1, but a mean is of at least 2 states of the weights; 0 turns it off.")
        if self.average and not (self.eval_every or self.save_every):
            raise ConfigError(
                f"average {self.average} counts evaluations, or else checkpoints, but eval_every and save_every are "
                "both 0: set one of them."
            )
        if self.average and self.ema:
            raise ConfigError(
                f"ema {self.ema} and average {self.average} are two ways of averaging the weights: choose one."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build a configuration from names and values.

        Raises:
            ConfigError: A name is unknown or a value is out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"There is no training option {name!r}. {did_you_mean(name, known)}")
        return cls(**values)


_PLAIN: Mapping[str, type] = {"zero_init": bool, "checkpointing": bool, "metric": str}
_AT_LEAST: Mapping[str, int] = {
    "seq_len": 2,
    "batch_size": 1,
    "accumulate": 1,
    "eval_every": 0,
    "save_every": 0,
    "keep": 1,
    "patience": 0,
    "average": 0,
    "seed": 0,
    "chunk": 0,
}
_RANGES: Mapping[str, tuple[float, float, bool, bool]] = {
    "lr": (0, 1000, True, False),
    "min_lr": (0, 1, False, False),
    "warmup": (0, math.inf, False, False),
    "decay": (0, 1, True, False),
    "beta1": (0, 1, False, True),
    "beta2": (0, 1, False, True),
    "eps": (0, 1, True, False),
    "weight_decay": (0, 100, False, False),
    "clip": (0, math.inf, False, False),
    "label_smoothing": (0, 1, False, True),
    "prompt_loss": (0, 1, False, False),
    "prompt_loss_steps": (0, math.inf, False, False),
    "dropout": (0, 1, False, True),
    "ema": (0, 1, False, True),
}

FREE_ON_RESUME = frozenset(
    {"batch_size", "accumulate", "eval_every", "save_every", "keep", "patience", "parallel", "checkpointing", "compile"}
    | {"chunk", "metric", "average"}
)
"""Options that may change when training resumes: they do not change what is learned, up to rounding."""

LENGTH = frozenset({"max_steps", "epochs", "max_minutes"})
"""Options that say how long to train; `nlpkit.core.train.checkpoints.resume` tells when they may change."""


def changed_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Name the options that differ, those that may differ left out.

    Args:
        before: `TrainConfig.to_dict` of the checkpoint, perhaps from a version with fewer options.
        after: That of the new run.

    Returns:
        The names, in order.
    """
    # An option that did not exist had the value that it has by default.
    known = {field.name: field.default for field in dataclasses.fields(TrainConfig)} | dict(before)
    names = sorted((set(known) | set(after)) - FREE_ON_RESUME)
    return [name for name in names if known.get(name) != after.get(name)]
