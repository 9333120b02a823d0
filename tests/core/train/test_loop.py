"""Invariants of the loop: what must be equal is equal."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from tiny_models import tiny_config, tiny_gpt
from torch import Tensor, nn

from nlpkit.core.errors import ConfigError
from nlpkit.core.model.attention import attend
from nlpkit.core.model.gpt import GPT
from nlpkit.core.model.lora import LoraConfig, add_lora, merge_lora
from nlpkit.core.train import loss, prepare
from nlpkit.core.train.attention import TrainingAttend
from nlpkit.core.train.checkpoints.checkpoint import latest_checkpoint, save_checkpoint
from nlpkit.core.train.checkpoints.resume import resume
from nlpkit.core.train.config import TrainConfig
from nlpkit.core.train.data.packing import Packer, collate
from nlpkit.core.train.init import new_model
from nlpkit.core.train.loop import Trainer, train
from nlpkit.core.train.loss import loss_sum
from nlpkit.core.train.optim import Weights, build_optimizer, decays
from nlpkit.core.train.schedule import learning_rate

SEQ = tiny_training.SEQ


def gradients_of_one_step(trainer: Trainer) -> dict[str, Tensor]:
    """Make a step whose update is not made; return the gradients."""
    found: dict[str, Tensor] = {}

    def keep(*_: Any, **__: Any) -> None:
        found.update({name: master.grad.clone() for name, master in trainer.weights.masters.items()})  # type: ignore[union-attr]

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    info = trainer.make_step()
    assert info is not None
    found["loss"] = torch.tensor(info.loss)
    return found


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "chunk": 7}, {"lora": True}])
def test_accumulated_gradients_equal_the_full_batch(options: dict[str, Any], tmp_path: Path) -> None:
    whole = gradients_of_one_step(tiny_training.trainer(tmp_path / "d", batch_size=8, clip=0, **options))
    for batch_size, accumulate in ((4, 2), (1, 8), (2, 4)):
        parts = gradients_of_one_step(
            tiny_training.trainer(tmp_path / "d", batch_size=batch_size, accumulate=accumulate, clip=0, **options)
        )
        assert parts.keys() == whole.keys()
        for name, gradient in whole.items():
            assert torch.allclose(parts[name], gradient, atol=1e-6), name


def test_recomputed_blocks_have_the_same_gradients(tmp_path: Path) -> None:
    plain = gradients_of_one_step(tiny_training.trainer(tmp_path / "d", dropout=0.2))
    again = gradients_of_one_step(tiny_training.trainer(tmp_path / "d", dropout=0.2, checkpointing=True))
    assert all(torch.allclose(again[name], plain[name], atol=1e-6) for name in plain)
    other = gradients_of_one_step(tiny_training.trainer(tmp_path / "d", dropout=0.0))
    assert not torch.allclose(other["loss"], plain["loss"], atol=1e-6)


def naive_loss(model: GPT, hidden: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return nn.functional.cross_entropy(
        model.logits(hidden).float().flatten(0, 1),
        torch.where(labels < 0, -100, labels).flatten(),
        label_smoothing=smoothing,
        reduction="sum",
    )


@pytest.mark.parametrize("changes", [{}, {"tied_head": False, "head_bias": True}, {"logit_softcap": 3.0}])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk", [4, 1000])
def test_chunked_loss_and_gradients_equal_plain_cross_entropy(
    changes: dict[str, Any], smoothing: float, chunk: int
) -> None:
    model = tiny_gpt(tiny_config(**changes)).requires_grad_(True)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(2, 9, 32, generator=generator, requires_grad=True)
    labels = torch.randint(-1, 29, (2, 9), generator=generator)
    labels[0, :4] = -1
    expected = naive_loss(model, hidden, labels, smoothing)
    (expected * 0.25).backward()
    wanted = {"hidden": hidden.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}
    model.zero_grad()
    hidden.grad = None
    total, plain = loss_sum(model, hidden, labels, smoothing=smoothing, chunk=chunk)
    (total * 0.25).backward()
    assert math.isclose(total.item(), expected.item(), rel_tol=1e-5)
    assert math.isclose(plain.item(), naive_loss(model, hidden, labels, 0.0).item(), rel_tol=1e-5)
    got = {"hidden": hidden.grad, **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, atol=2e-5), name
    with torch.no_grad():
        assert math.isclose(loss_sum(model, hidden, labels, chunk=chunk)[1].item(), plain.item(), rel_tol=1e-6)


class _CountingHead(GPT):
    rows = 0

    def logits(self, hidden: Tensor) -> Tensor:
        self.rows += hidden.shape[:-1].numel()
        return super().logits(hidden)


def test_prompt_tokens_never_go_through_the_head(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", chunk=100_000)
    model = made.model
    model.__class__ = _CountingHead
    info = made.make_step()
    assert isinstance(model, _CountingHead)
    assert info is not None
    assert model.rows == info.targets < info.tokens


def packed_batch(packer: Packer, count: int) -> tuple[Any, list[Any]]:
    bins = packer.take(count)
    return collate(packer, bins, n_rows=count), bins


@pytest.mark.parametrize(
    "changes", [{}, {"sliding_window": 5, "sliding_layers": [0]}, {"positions": "learned"}, {"attn_softcap": 5.0}]
)
@pytest.mark.parametrize("plain", [True, False])
def test_packed_rows_equal_separate_ones(changes: dict[str, Any], plain: bool, tmp_path: Path) -> None:
    """The loss of a bin is the sum of its rows' losses, and no row sees another, not even by a bit."""
    model = tiny_gpt(tiny_config(**changes))
    for block in model.iter_blocks():
        block.attn.attend = TrainingAttend() if plain else attend
    packer = Packer([tiny_training.store(tmp_path / "d")], seq_len=SEQ, seed=3)
    batch, bins = packed_batch(packer, 6)
    assert max(map(len, bins)) >= 2
    with torch.no_grad():
        hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask())
        packed = loss_sum(model, hidden, batch.labels)[0].item()
        separate = 0.0
        for draw in (draw for one in bins for draw in one):
            tokens, prompt = packer.sources[0].row(draw.index, 0)
            ids = torch.from_numpy(tokens)[None]
            logprobs = model(ids[:, :-1]).log_softmax(-1)
            chosen = logprobs[0].gather(1, ids[0, 1:, None])[:, 0]
            separate -= float(chosen[max(0, prompt - 1) :].sum())
        assert math.isclose(packed, separate, rel_tol=1e-5)
        disturbed = batch.token_ids.clone()
        first = batch.segments == 1
        disturbed[first] = (disturbed[first] + 7) % 29
        other = model.hidden(disturbed, positions=batch.positions, mask=batch.mask())
    assert torch.equal(other[~first], hidden[~first])
    assert not torch.allclose(other[first], hidden[first])


def test_eos_is_always_a_label(tmp_path: Path) -> None:
    packer = Packer([tiny_training.store(tmp_path / "d")], seq_len=SEQ, epochs=1)
    count = 0
    while bins := packer.take(4):
        batch = collate(packer, bins, n_rows=4)
        count += int((batch.labels == 0).sum())
        # Padding has no label; its token id 0 is also that of EOS, which is no input anywhere.
        assert bool((batch.labels[batch.segments == 0] == -1).all())
    assert count == 60


def test_a_model_trained_on_counting_counts_and_stops(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", max_steps=150, lr=1e-2, weight_decay=0.0)
    losses = [info.loss for info in train(made)]
    assert losses[0] > 3
    assert losses[-1] < 0.9
    with made.evaluating() as model:
        ids = [3, 4, 5, 6]
        for _ in range(4):
            ids.append(int(model(torch.tensor([ids]))[0, -1, 1:].argmax()) + 1)
    assert ids == [3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion", "adafactor"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_optimizer_learns(optimizer: str, dtype: str, tmp_path: Path) -> None:
    lr = {"adamw": 1e-2, "muon": 1e-2, "lion": 1e-3, "adafactor": 3e-2}[optimizer]
    made = tiny_training.trainer(tmp_path / "d", max_steps=60, optimizer=optimizer, lr=lr, dtype=dtype)
    losses = [info.loss for info in train(made)]
    assert losses[-1] < losses[0] - 1
    assert all(master.dtype == torch.float32 for master in made.weights.masters.values())
    assert made.model.dtype == (torch.bfloat16 if dtype == "bf16" else torch.float32)


def test_lora_trains_only_its_own_weights_and_merges(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", lora=True, max_steps=40, lr=2e-2)
    before = {name: parameter.clone() for name, parameter in made.model.named_parameters() if "lora" not in name}
    losses = [info.loss for info in train(made)]
    assert losses[-1] < losses[0] - 0.1
    after = dict(made.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    ids = torch.randint(1, 29, (2, 20), generator=torch.Generator().manual_seed(0))
    with made.evaluating() as model:
        unmerged = model(ids)
        merge_lora(model)
        merged = model(ids)
    difference = float((merged - unmerged).abs().max())
    print(f"largest logit difference of merged and unmerged weights: {difference:.1e}")
    assert difference < 1e-4


def test_masters_keep_what_16_bits_would_lose() -> None:
    model = nn.Linear(2, 2, bias=False, dtype=torch.bfloat16)
    weights = Weights(model, keep_masters=True)
    start = weights.masters["weight"].detach().clone()
    optimizer = build_optimizer(TrainConfig(method="full", max_steps=1, lr=1e-5, weight_decay=0), weights.masters)
    for _ in range(3):
        for _ in range(2):
            (model(torch.ones(1, 2, dtype=torch.bfloat16)).sum() * 0.5).backward()
        assert torch.equal(weights.masters["weight"].grad, torch.ones(2, 2))
        optimizer.step()
        weights.publish()
        weights.clear_gradients()
    assert torch.allclose(weights.masters["weight"], start - 3e-5, atol=1e-7)
    assert model.weight.dtype == torch.bfloat16


def test_masters_start_from_the_weights_before_rounding(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", dtype="bf16")
    start = new_model(tiny_config(vocab_size=29), seed=1)
    for name, parameter in start.named_parameters():
        assert torch.equal(made.weights.masters[name], parameter)
        assert torch.equal(made.model.get_parameter(name), parameter.to(torch.bfloat16))


def test_weight_decay_groups() -> None:
    names = {name for name, parameter in tiny_gpt().named_parameters() if decays(name, parameter)}
    assert "blocks.0.attn.q.weight" in names
    assert not {name for name in names if "norm" in name or "embed" in name}


def test_initial_weights_are_those_of_gpt2() -> None:
    model = new_model(tiny_config(d_model=256, n_layers=8, n_heads=4, n_kv_heads=4, head_dim=64, d_ff=512), seed=3)
    assert abs(float(model.blocks[0].attn.q.weight.detach().std()) - 0.02) < 0.001
    assert abs(float(model.blocks[7].mlp.down.weight.detach().std()) - 0.02 / 4) < 0.0003
    assert bool((model.final_norm.weight == 1).all())
    again = new_model(model.config, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd", "constant"])
def test_schedules_rise_and_fall(schedule: str) -> None:
    config = TrainConfig(method="full", max_steps=100, lr=2.0, warmup=10, min_lr=0.1, schedule=schedule, decay=0.2)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rates) == 2.0
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[100] == pytest.approx(2.0 if schedule == "constant" else 0.2)
    if schedule == "wsd":
        assert rates[79] == 2.0
        assert rates[90] == pytest.approx(2 * (0.1 + 0.9 * 0.5))


def test_a_broken_gradient_changes_nothing(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", max_steps=5)
    made.make_step()
    before = {name: master.detach().clone() for name, master in made.weights.masters.items()}
    with torch.no_grad():
        made.model.final_norm.weight[0] = math.nan
    infos = list(train(made))
    assert len(infos) == 1
    assert infos[0].problem == "the loss of step 2 is nan"
    assert made.step == 1
    same = {name: torch.equal(master, before[name]) for name, master in made.weights.masters.items()}
    assert [name for name, equal in same.items() if not equal] == ["final_norm.weight"]


def test_epochs_see_every_row_once_and_steps_are_counted(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", max_steps=None, epochs=2, batch_size=3)
    infos = list(train(made))
    assert len(infos) == made.total_steps == made.step
    assert sum(info.targets for info in infos) == 2 * made.packer.sources[0].stats.targets  # type: ignore[attr-defined]
    assert infos[-1].epoch == pytest.approx(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": None}, "got neither"),
        ({"epochs": 1}, "got epochs and max_steps"),
        ({"lr": 0}, "lr is 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dropout": 1.0}, "below 1"),
        ({"patience": 3}, "eval_every"),
        ({"learning_rate": 3}, "learning_rate"),
    ],
)
def test_unusable_options_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict({"method": "full", "max_steps": 10, **changes})


def test_rows_longer_than_the_context_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="context holds 16"):
        Trainer(new_model(tiny_config(max_seq_len=16), seed=0), tiny_training.config(),
                Packer([tiny_training.store(tmp_path / "d")], seq_len=SEQ))  # fmt: skip


def test_step_0_of_lora_has_the_loss_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same library multiplies in both.
    monkeypatch.setattr(prepare, "prefers_onednn", lambda: False)
    base = tiny_training.trainer(tmp_path / "d").make_step()
    adapted = tiny_training.trainer(tmp_path / "d", lora=True).make_step()
    assert base is not None
    assert adapted is not None
    assert adapted.loss == base.loss


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    model = tiny_gpt()
    with pytest.raises(ConfigError, match="No parameter"):
        Trainer(model, tiny_training.config(), Packer([tiny_training.store(tmp_path / "d")], seq_len=SEQ))
    with pytest.raises(ConfigError, match="No layer matches"):
        add_lora(model, LoraConfig(targets=("query",)))


def test_without_a_compiler_it_runs_as_it_is_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "has_compiler", lambda device: False)
    monkeypatch.setattr(prepare, "WORTH_COMPILING", 1.0)
    made = tiny_training.trainer(tmp_path / "d", compile="auto")
    assert not made.compiled
    assert "no C++ compiler" in made.notes[0]
    assert made.make_step() is not None
    with pytest.raises(ConfigError, match="Install g"):
        tiny_training.trainer(tmp_path / "d", compile="on")
    monkeypatch.setattr(prepare, "WORTH_COMPILING", 1e30)
    assert tiny_training.trainer(tmp_path / "d", compile="auto").notes == []


def broken_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        torch.rand(3)  # what was drawn before the failure must not matter
        raise torch._dynamo.exc.TorchDynamoException("no")

    monkeypatch.setattr(prepare, "has_compiler", lambda device: True)
    monkeypatch.setattr(prepare, "WORTH_COMPILING", 1.0)
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: setattr(self, "_compiled_call_impl", broken))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_compiler_that_fails_is_no_failure(resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where training goes on: the first step of a process is the first that is compiled."""
    options: dict[str, Any] = {"dropout": 0.2, "accumulate": 2}
    expected = list(train(tiny_training.trainer(tmp_path / "d", **options), until=4))
    first = tiny_training.trainer(tmp_path / "d", **options)
    if resumed:
        list(train(first, until=2))
        save_checkpoint(tmp_path / "c", first, identity={})
    broken_compiler(monkeypatch)
    made = tiny_training.trainer(tmp_path / "d", compile="auto", **options)
    if resumed:
        found, _ = latest_checkpoint(tmp_path / "c")
        assert found is not None
        notes = resume(made, found, identity={})
        assert notes == ["the model is compiled now and was not: the result will agree up to rounding only"]
    assert made.compiled
    infos = list(train(made, until=4))
    assert [info.loss for info in infos] == [info.loss for info in expected[4 - len(infos) :]]
    assert not made.compiled
    assert [text for text in made.notes if "could not be compiled" in text]
    assert len(made.notes) == 1


def test_a_compiler_that_fails_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_compiler(monkeypatch)
    with pytest.raises(ConfigError, match=r"could not be compiled.*--compile at auto"):
        tiny_training.trainer(tmp_path / "d", compile="on").make_step()


def test_a_failure_after_steps_that_ran_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_compiler(monkeypatch)
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: None)
    monkeypatch.setattr(loss, "_compiled_part", lambda: loss._softmax_part)
    made = tiny_training.trainer(tmp_path / "d", compile="auto")
    made.make_step()
    broken_compiler(monkeypatch)
    for block in made.model.blocks:
        block.compile(dynamic=False)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        made.make_step()
