"""Muon, loss on prompts, blocks that begin at zero, and training by the clock."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from tiny_models import tiny_config

from nlpkit.core.errors import ConfigError
from nlpkit.core.train.checkpoints.checkpoint import latest_checkpoint, save_checkpoint
from nlpkit.core.train.checkpoints.resume import resume
from nlpkit.core.train.data.packing import collate
from nlpkit.core.train.init import new_model
from nlpkit.core.train.loop import UNSETTLED, train
from nlpkit.core.train.loss import loss_sum
from nlpkit.core.train.muon import Muon, orthogonalize
from nlpkit.core.train.schedule import learning_rate

MUON = {"optimizer": "muon", "lr": 4e-3, "embed_lr": 8e-3, "weight_decay": 0.1}
BY_CLOCK: dict[str, Any] = {"max_steps": None, "max_minutes": 1.0, "schedule": "wsd", "decay": 0.5, "warmup": 1}


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (3, 6, 9)])
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_sizes(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalize(matrices, dtype=torch.float32)
    assert found.shape == matrices.shape
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.6
    assert sizes.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    # In the basis of the matrix's own singular vectors the result is diagonal.
    inside = u.mT @ found @ v.mT
    assert (inside - torch.diag_embed(torch.diagonal(inside, dim1=-2, dim2=-1))).abs().max() < 1e-4


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d", **MUON)
    names = {id(master): name for name, master in made.weights.masters.items()}
    hidden, rest = ([names[id(p)] for p in group["params"]] for group in made.optimizer.param_groups)
    assert all(".attn." in name or ".mlp." in name for name in hidden)
    assert "embed.weight" in rest
    assert len(hidden) + len(rest) == len(names)
    info = next(iter(train(made)))
    assert [group["lr"] for group in made.optimizer.param_groups] == pytest.approx([info.lr, 2 * info.lr])


def test_an_update_has_the_size_that_the_rate_says() -> None:
    weight = torch.nn.Parameter(torch.zeros(16, 64))
    weight.grad = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    Muon([{"params": [weight], "muon": True}], lr=0.01).step()
    # 16 singular values of about 1, times 0.2 * sqrt(64): a mean square of about 0.2 squared.
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.01 * 0.2 * 16**0.5 / 4, rel=0.3)


def test_weights_decay_only_where_the_update_goes_the_same_way() -> None:
    start = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    plain, decayed = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for weight, decay in ((plain, 0.0), (decayed, 0.5)):
        weight.grad = torch.randn(6, 6, generator=torch.Generator().manual_seed(4))
        Muon([{"params": [weight], "muon": True, "weight_decay": decay}], lr=0.1).step()
    update = start - plain.detach()
    expected = torch.where(update * start > 0, plain.detach() - 0.05 * start, plain.detach())
    torch.testing.assert_close(decayed.detach(), expected)


def test_muon_needs_matrices_and_embed_lr_needs_muon(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="embed_lr goes with muon"):
        tiny_training.config(embed_lr=1e-3)
    made = tiny_training.trainer(tmp_path / "d")
    from nlpkit.core.train.optim import build_optimizer

    with pytest.raises(ConfigError, match="matrices inside the blocks"):
        build_optimizer(tiny_training.config(**MUON), {"embed.weight": made.weights.masters["embed.weight"]})


def test_muon_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = tiny_training.trainer(tmp_path / "a", **MUON, prompt_loss=0.2)
    expected = [info.loss for info in train(whole)]
    first = tiny_training.trainer(tmp_path / "b", **MUON, prompt_loss=0.2)
    found = [info.loss for info in train(first, until=5)]
    save_checkpoint(tmp_path / "c", first, identity={})
    second = tiny_training.trainer(tmp_path / "e", **MUON, prompt_loss=0.2)
    checkpoint, _ = latest_checkpoint(tmp_path / "c")
    assert checkpoint is not None
    resume(second, checkpoint, identity={})
    found += [info.loss for info in train(second)]
    assert found == expected
    for name, master in whole.weights.masters.items():
        assert torch.equal(master, second.weights.masters[name])


def test_prompt_tokens_weigh_what_they_should(tmp_path: Path) -> None:
    made = tiny_training.trainer(tmp_path / "d")
    batch = collate(made.packer, made.packer.take(4), n_rows=4)
    both = batch.with_prompt_loss(0.25)
    assert both.weights is not None
    assert both.segments is not None
    # All slots of a row predict the token after them, and none a token of another row.
    for row in range(4):
        for slot in range(batch.token_ids.shape[1] - 1):
            follows = both.segments[row, slot] == both.segments[row, slot + 1] != 0
            label, old = int(both.labels[row, slot]), int(batch.labels[row, slot])
            assert label == (old if old >= 0 else int(batch.token_ids[row, slot + 1]) if follows else -1)
    assert set(both.weights[batch.labels < 0].tolist()) == {0.25}
    model = made.model
    hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask())
    targets, plain = loss_sum(model, hidden, batch.labels)
    total, reported = loss_sum(model, hidden, both.labels, weights=both.weights, chunk=16)
    prompts = torch.where(batch.labels < 0, both.labels, -1)
    expected = targets + 0.25 * loss_sum(model, hidden, prompts)[0]
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    assert reported.item() == pytest.approx(plain.item())
    parts: list[tuple[torch.Tensor, ...]] = []
    for value in (total, expected):
        model.zero_grad()
        hidden = model.hidden(batch.token_ids, positions=batch.positions, mask=batch.mask())
        if value is total:
            loss_sum(model, hidden, both.labels, weights=both.weights, chunk=16)[0].backward()
        else:
            one = loss_sum(model, hidden, batch.labels)[0] + 0.25 * loss_sum(model, hidden, prompts)[0]
            one.backward()
        parts.append(tuple(p.grad.clone() for p in model.parameters() if p.grad is not None))
    for one, other in zip(*parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_prompts_are_learned_in_the_first_steps_alone(tmp_path: Path) -> None:
    with_it, without = (
        tiny_training.trainer(tmp_path / name, prompt_loss=weight, prompt_loss_steps=0.25, max_steps=8)
        for name, weight in (("a", 0.5), ("b", 0.0))
    )
    assert with_it._prompt_loss() == 0.5
    losses = [[info.loss for info in train(made)] for made in (with_it, without)]
    # What is reported is the loss on targets; it begins alike and then differs.
    assert losses[0][0] == pytest.approx(losses[1][0])
    assert losses[0][2] != losses[1][2]
    with_it.step = 2
    assert with_it._prompt_loss() == 0.0


def test_blocks_begin_as_the_identity() -> None:
    config = dataclasses.replace(tiny_config(vocab_size=29))
    model = new_model(config, seed=1, zero_outputs=True)
    ids = torch.arange(12)[None]
    # With blocks that do nothing, the hidden state is the normed embedding.
    torch.testing.assert_close(model.hidden(ids), model.final_norm(model.embed(ids)))
    assert new_model(config, seed=1).blocks[0].attn.o.weight.abs().sum() > 0  # type: ignore[union-attr, operator]


class _Clock:
    """A clock on which each step takes six seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 3.0
        return self.now


def test_the_clock_settles_the_length_when_the_rate_must_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr("nlpkit.core.train.loop.time.perf_counter", clock.perf_counter)
    made = tiny_training.trainer(tmp_path / "d", **BY_CLOCK)
    assert made.total_steps == UNSETTLED
    infos = []
    for info in train(made):
        infos.append(info)
        if info.step == 4:
            assert made.expected_steps == 20
    # Steps of three seconds: the rate falls from half a minute on, and a minute has twenty.
    assert made.total_steps == made.step == 20
    assert [info.lr for info in infos[1:10]] == [infos[1].lr] * 9
    falling = [info.lr for info in infos[10:]]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < falling[0] < infos[1].lr * 1.0001
    assert infos[-1].lr == pytest.approx(learning_rate(made.config, 19, 20, warmup=1))


def test_a_settled_length_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr("nlpkit.core.train.loop.time.perf_counter", clock.perf_counter)
    first = tiny_training.trainer(tmp_path / "a", **BY_CLOCK)
    for info in train(first):
        if info.step == 12:
            break
    save_checkpoint(tmp_path / "c", first, identity={})
    second = tiny_training.trainer(tmp_path / "b", **BY_CLOCK)
    checkpoint, _ = latest_checkpoint(tmp_path / "c")
    assert checkpoint is not None
    resume(second, checkpoint, identity={})
    assert (second.total_steps, second.elapsed) == (20, first.elapsed)
    assert [info.lr for info in train(second)] == [info.lr for info in train(first)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, "Choose wsd or constant"),
        ({"warmup": 0.1}, "warmup is a share of all steps"),
        ({"prompt_loss": 0.1, "prompt_loss_steps": 0.5}, "prompt_loss_steps is a share of all steps"),
        ({"max_steps": 5}, "got max_minutes and max_steps"),
        ({"max_minutes": 0}, "max_minutes is 0"),
    ],
)
def test_what_the_clock_cannot_tell_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_training.config(**{**BY_CLOCK, **changes})
