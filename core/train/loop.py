"""The one training loop."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlpkit.core.errors import ConfigError
from nlpkit.core.model.gpt import GPT
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.data.ahead import Ahead, StepData
from nlpkit.core.train.data.packing import Batch, DataState, Packer, collate
from nlpkit.core.train.distributed import SINGLE, Process, gathered, shard, whole
from nlpkit.core.train.loss import loss_sum
from nlpkit.core.train.optim import MovingAverage, Weights, build_optimizer
from nlpkit.core.train.prepare import prepare_model, run_eagerly
from nlpkit.core.train.schedule import learning_rate, warmup_steps

_LOGITS_AT_ONCE = 1 << 25
UNSETTLED = 1 << 40
"""Steps of a training whose length the clock has not settled yet: more than any has."""
_MEASURED_AT_ONCE = 4096
"""Slots of a pass that only measures the loss."""


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """What one step did.

    Attributes:
        step: Steps done, this one included.
        loss: Mean cross-entropy per target token, in nats, before label smoothing.
        lr: Learning rate.
        grad_norm: Norm of all gradients together, before clipping.
        tokens: Tokens that went through the model, padding not counted, on all processes.
        targets: Tokens that carried loss.
        seconds: Wall time.
        epoch: Passes over the data so far.
        problem: Why the update was not made, one clause, or None: then training cannot go on.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    targets: int
    seconds: float
    epoch: float
    problem: str | None = None


class _Objective(nn.Module):
    """The model and its loss in one module, as wrappers for several processes need it."""

    def __init__(self, model: GPT, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.smoothing = config.label_smoothing
        self.chunk = config.chunk or max(64, _LOGITS_AT_ONCE // model.config.vocab_size)
        self.compiled = False

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden = self.model.hidden(
            batch.token_ids, positions=batch.positions, mask=batch.mask(), longest=batch.token_ids.shape[1]
        )
        # In evaluation nothing is compiled: see `Trainer.evaluating`.
        compiled = self.compiled and self.training
        return loss_sum(
            self.model,
            hidden,
            batch.labels,
            weights=batch.weights,
            at=batch.labelled,
            smoothing=self.smoothing,
            chunk=self.chunk,
            compiled=compiled,
        )


class Trainer:
    """A model in training: makes steps, measures loss, and can be saved and restored.

    Attributes:
        model: The model.
        config: How it is trained.
        packer: Where its data come from.
        total_steps: Steps of the whole training; `UNSETTLED` until the clock has settled it.
        warmup_steps: Steps of warm-up.
        elapsed: Seconds of all steps done, in this process and before, those that compiled left out.
        rows_per_step: Packed rows of a step, of all micro-batches and processes.
        step: Steps done.
        compiled: Whether the blocks are compiled.
        notes: What a user should know about how the model runs.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        packer: Packer,
        *,
        process: Process = SINGLE,
        total_steps: int | None = None,
    ) -> None:
        """Set everything up; the model is taken over.

        Args:
            model: With the parameters to train requiring gradients.
            config: How to train.
            packer: The data.
            process: This process among several.
            total_steps: Steps of the whole training; by default as `config` says.

        Raises:
            ConfigError: Nothing is to be trained, or rows are longer than the model's context.
        """
        if config.seq_len > model.config.max_seq_len:
            raise ConfigError(
                f"The sequence length is {config.seq_len}; the model's context holds {model.config.max_seq_len} "
                "tokens. Lower it."
            )
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError("No parameter of the model is to be trained.")
        self.model, self.config, self.packer, self.process = model, config, packer, process
        self.rows_per_step = config.batch_size * config.accumulate * process.world
        self.total_steps = total_steps or count_steps(config, packer, world=process.world)
        self.warmup_steps = warmup_steps(config, self.total_steps)
        model.to(process.device)
        masters = process.world == 1
        exact: dict[str, Tensor] = {}
        if masters and config.dtype == "bf16":
            # Masters start from the weights before rounding.
            exact = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        n_tokens = self.total_steps * self.rows_per_step * config.seq_len / process.world
        prepared = prepare_model(model, config, n_tokens=n_tokens, masters=masters)
        self.compiled, self.notes = prepared.compiled, list(prepared.notes)
        self._ran = False
        self._objective = _Objective(model, config)
        self._objective.compiled = self.compiled
        self.objective: nn.Module = shard(self._objective, config, process)
        self.weights = Weights(model, keep_masters=masters)
        if exact:
            self.weights.use(exact)
            exact.clear()
        self.optimizer = build_optimizer(config, self.weights.masters)
        self.average = MovingAverage(self.weights, config.ema) if config.ema else None
        self._ahead = Ahead(packer, self._step_data)
        self.step = 0
        self.elapsed = 0.0
        self._autocast = config.dtype == "bf16" and not masters and config.parallel == "ddp"

    def make_step(self) -> StepInfo | None:
        """Do one step.

        Returns:
            What it did, or None when the data are at their end.
        """
        began, compiles = time.perf_counter(), self.compiled and not self._ran
        config, world = self.config, self.process.world
        data = self._ahead.take()
        if data is None:
            return None
        slots, targets = data.slots, data.targets
        # Randomness is a function of seed, step and process: nothing that happens between steps changes it.
        torch.manual_seed((config.seed * 1_000_003 + self.step) * 1009 + self.process.rank)
        self._objective.train()
        self.weights.clear_gradients()
        plain = torch.zeros((), dtype=torch.float64, device=self.process.device)
        prompt_loss = self._prompt_loss()
        # Labels on prompts: all slots but the targets have one.
        counted = targets + prompt_loss * (slots - targets)
        used = len(data.batches)
        for micro, batch in enumerate(data.batches):
            if prompt_loss:
                batch = batch.with_prompt_loss(prompt_loss)
            batch = batch.to(self.process.device)
            with self.process.synchronised(self.objective, last=micro == used - 1):
                total, unsmoothed = self._loss(batch)
                # Wrappers for several processes average gradients; the loss is a sum over all of them.
                torch.autograd.backward(total * (world / max(1, counted)))
            plain += unsmoothed
        # The one moment in a step when the host waits for the device.
        loss_sum_, norm = torch.stack((self.process.sum(plain), self._clip())).tolist()
        loss = loss_sum_ / max(1, targets)
        lr = learning_rate(config, self.step, self.total_steps, warmup=self.warmup_steps)
        problem = None
        if not math.isfinite(loss):
            problem = f"the loss of step {self.step + 1} is {loss}"
        elif not math.isfinite(norm):
            problem = f"the gradient of step {self.step + 1} is {norm}"
        if problem is None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            self.optimizer.step()
            self.weights.publish()
            self.step += 1
            if self.average is not None:
                self.average.update(self.step)
        self.weights.clear_gradients()
        seconds = time.perf_counter() - began
        if not compiles:
            self.elapsed += seconds
        self._settle_length()
        return StepInfo(
            step=self.step,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            tokens=slots,
            targets=targets,
            seconds=seconds,
            epoch=data.epoch,
            problem=problem,
        )

    def _step_data(self, packer: Packer) -> StepData | None:
        """Pack the rows of one step and make this process's micro-batches of them."""
        config, world = self.config, self.process.world
        bins = packer.take(self.rows_per_step)
        if not bins:
            return None
        slots, targets = packer.count(bins)
        batches = []
        for micro in range(min(config.accumulate, -(-len(bins) // (config.batch_size * world)))):
            first = (micro * world + self.process.rank) * config.batch_size
            batch = collate(packer, bins[first : first + config.batch_size], n_rows=config.batch_size)
            batches.append(batch.pinned() if self.process.device.type == "cuda" else batch)
        state = copy.copy(packer.state)
        return StepData(batches=batches, slots=slots, targets=targets, state=state, epoch=packer.epoch)

    def _prompt_loss(self) -> float:
        """Return the weight of the loss on prompt tokens in the next step."""
        config = self.config
        until = config.prompt_loss_steps * (self.total_steps if config.prompt_loss_steps < 1 else 1)
        return config.prompt_loss if self.step < until else 0.0

    def _settle_length(self) -> None:
        """Settle the number of steps once the clock says that the rate must fall now, or that time is up."""
        config = self.config
        if config.max_minutes is None or self.total_steps != UNSETTLED:
            return
        decay = config.decay if config.schedule == "wsd" else 0.0
        if self.elapsed >= 60 * config.max_minutes * (1 - decay):
            self.total_steps = self.step if decay == 0 else max(self.step + 1, round(self.step / (1 - decay)))

    @property
    def expected_steps(self) -> int:
        """Steps of the whole training, estimated where the clock decides."""
        if self.total_steps != UNSETTLED or self.config.max_minutes is None or not self.step:
            return self.total_steps
        return max(self.step + 1, round(60 * self.config.max_minutes * self.step / max(self.elapsed, 1e-9)))

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        cast = torch.autocast(self.process.device.type, torch.bfloat16, enabled=self._autocast)
        untried = self.compiled and not self._ran
        random = torch.get_rng_state() if untried else None
        try:
            with cast:
                result: tuple[Tensor, Tensor] = self.objective(batch)
        except torch._dynamo.exc.TorchDynamoException as error:
            if random is None:
                raise
            if self.config.compile == "on":
                raise ConfigError(
                    f"The model could not be compiled ({type(error).__name__}). Is the C++ compiler working? Leave "
                    "--compile at auto to train without compilation where there is none."
                ) from error
            self.compiled = self._objective.compiled = False
            run_eagerly(self.model, self.config)
            self.notes.append(f"the model could not be compiled ({type(error).__name__}), so it runs as it is: slower")
            torch.set_rng_state(random)
            with cast:
                result = self.objective(batch)
        self._ran = True
        return result

    def _clip(self) -> Tensor:
        parameters = [master for master in self.weights.masters.values() if master.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)
        return whole(norm).double()

    @contextlib.contextmanager
    def evaluating(self, values: Mapping[str, Tensor] | None = None) -> Iterator[GPT]:
        """Lend the model for evaluation: no dropout, no compiled shapes.

        Args:
            values: Weights to evaluate, by name; by default the moving average where there is one, else those that
                are trained.
        """
        kept: dict[str, Tensor] | None = None
        if values is None and self.average is not None:
            values = self.average.values
        if values is not None:
            kept = {name: master.detach().clone() for name, master in self.weights.masters.items()}
            self.weights.use(values)
        self._objective.eval()
        try:
            # Shapes vary here: compiling anew for each would take for ever.
            eager = torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()
            with torch.no_grad(), eager, gathered(self.objective):
                yield self.model
        finally:
            self._objective.train()
            if kept is not None:
                self.weights.use(kept)

    def measure(self, packer: Packer, values: Mapping[str, Tensor] | None = None) -> tuple[float, int]:
        """Measure the mean cross-entropy over all rows of a packer that ends.

        Args:
            packer: The data; rewound first.
            values: See `evaluating`.

        Returns:
            Nats per target token, and the number of target tokens.
        """
        packer.restore(DataState(drawn=[0] * len(packer.sources)))
        # Without gradients more rows fit at once.
        size, world = max(self.config.batch_size, _MEASURED_AT_ONCE // self.config.seq_len), self.process.world
        total = torch.zeros((), dtype=torch.float64, device=self.process.device)
        count = 0
        with self.evaluating(values):
            while bins := packer.take(size * world):
                count += packer.count(bins)[1]
                first = self.process.rank * size
                batch = collate(packer, bins[first : first + size], n_rows=size).to(self.process.device)
                with torch.autocast(self.process.device.type, torch.bfloat16, enabled=self._autocast):
                    total += self.objective(batch)[1]
        return float(self.process.sum(total)) / max(1, count), count

    def result(self) -> Mapping[str, Tensor]:
        """Return the trained weights by name, averaged where asked for, in fp32 and in one piece."""
        if self.average is not None:
            return {name: whole(value) for name, value in self.average.values.items()}
        return {name: whole(master.detach()) for name, master in self.weights.masters.items()}


def count_steps(config: TrainConfig, packer: Packer, *, world: int = 1) -> int:
    """Return the steps of the whole training."""
    if config.max_steps is not None:
        return config.max_steps
    if config.max_minutes is not None:
        return UNSETTLED
    return -(-packer.count_bins() // (config.batch_size * config.accumulate * world))


def train(trainer: Trainer, *, until: int | None = None) -> Iterator[StepInfo]:
    """Train, one step at a time. The caller logs, evaluates, saves, and may stop at any step.

    Args:
        trainer: What to train.
        until: Steps to stop after; by default all.

    Yields:
        What each step did. One with a `problem` is the last.
    """
    # The clock may settle the number of steps on the way.
    while trainer.step < (trainer.total_steps if until is None else min(until, trainer.total_steps)):
        info = trainer.make_step()
        if info is None:
            return
        yield info
        if info.problem is not None:
            return
