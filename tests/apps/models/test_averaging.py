"""The mean of adapters, against means of whole matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from tiny_pairs import VOCAB, pairs_tokenizer, save_base
from torch import Tensor

from nlpkit.apps.models.averaging import average_adapters
from nlpkit.core.errors import ConfigError, InputError, ModelFileError
from nlpkit.core.files.hashing import sha256_file
from nlpkit.core.formats.learned_tasks import read_learned_tasks, write_learned_tasks
from nlpkit.core.formats.peft.adapter import open_adapter
from nlpkit.core.formats.peft.save import save_adapter
from nlpkit.core.model.lora import LoraWeights

Updates = Mapping[str, LoraWeights]
Save = Callable[..., str]
CONFIG = tiny_config(vocab_size=VOCAB, max_seq_len=256)
QUERY, GATE = "blocks.0.attn.q", "blocks.1.mlp.gate"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model", pairs_tokenizer())


@pytest.fixture
def save(tmp_path: Path, base: Path) -> Save:
    def adapter(name: str, updates: Updates, *, task: str | None = "qa", base_sha256: str | None = None) -> str:
        path = tmp_path / name
        path.mkdir()
        save_adapter(path, CONFIG, updates, base_model="some base")
        if task is not None:
            write_learned_tasks(path, [task], base_sha256=base_sha256)
        return str(path)

    return adapter


def shape_of(module: str) -> tuple[int, int]:
    width = CONFIG.n_heads * CONFIG.head_dim
    return (width, CONFIG.d_model) if module == QUERY else (CONFIG.d_ff, CONFIG.d_model)


def update(seed: int, module: str = QUERY, *, rank: int = 2, scale: float = 0.5) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape_of(module)
    a, b = (torch.randn(shape, generator=generator) for shape in ((rank, columns), (rows, rank)))
    return LoraWeights(a, b, scale)


def whole(weights: LoraWeights) -> Tensor:
    return weights.scale * weights.b.double() @ weights.a.double()


def read(path: Path) -> dict[str, LoraWeights]:
    return open_adapter(path).internal(CONFIG)


def close(got: Tensor, expected: Tensor) -> bool:
    return bool(torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max())))


def test_with_rank_enough_it_is_the_weighted_mean_of_the_updates(save: Save, base: Path, tmp_path: Path) -> None:
    one, two = update(1), update(2, rank=3, scale=2.0)
    paths = [save("one", {QUERY: one}), save("two", {QUERY: two})]
    done = average_adapters(str(base), paths, str(tmp_path / "mean"), weights=[3, 1], rank=5)
    assert close(whole(read(done.path)[QUERY]), 0.75 * whole(one) + 0.25 * whole(two))
    assert (done.modules, done.lost) == (1, pytest.approx(0, abs=1e-9))


def test_otherwise_it_is_the_nearest_of_its_rank(save: Save, base: Path, tmp_path: Path) -> None:
    one, two = update(1), update(2)
    paths = [save("one", {QUERY: one}), save("two", {QUERY: two})]
    done = average_adapters(str(base), paths, str(tmp_path / "mean"))
    got, mean = read(done.path)[QUERY], (whole(one) + whole(two)) / 2
    u, sizes, v = torch.linalg.svd(mean, full_matrices=False)
    assert got.a.shape[0] == 2
    assert close(whole(got), (u[:, :2] * sizes[:2]) @ v[:2])
    assert done.lost == pytest.approx(float((sizes[2:] ** 2).sum() / (sizes**2).sum()), rel=1e-4)
    assert 0.1 < done.lost < 0.9


def test_an_adapter_and_itself_give_itself_however_it_is_factored(save: Save, base: Path, tmp_path: Path) -> None:
    one = update(1)
    turn = torch.tensor([[0.0, -3.0], [0.5, 1.0]])
    other = LoraWeights(turn @ one.a, one.b @ torch.linalg.inv(turn), one.scale)
    paths = [save("one", {QUERY: one}), save("two", {QUERY: other})]
    done = average_adapters(str(base), paths, str(tmp_path / "mean"))
    assert close(whole(read(done.path)[QUERY]), whole(one))
    # The mean of the factors would be something else.
    assert not close(one.scale * ((one.b + other.b) / 2 @ ((one.a + other.a) / 2)).double(), whole(one))


def test_a_layer_that_is_left_alone_counts_as_zero(save: Save, base: Path, tmp_path: Path) -> None:
    query, gate = update(1), update(2, GATE, rank=1)
    paths = [save("one", {QUERY: query}), save("two", {QUERY: query, GATE: gate})]
    done = average_adapters(str(base), paths, str(tmp_path / "mean"))
    got = read(done.path)
    assert close(whole(got[QUERY]), whole(query))
    assert close(whole(got[GATE]), whole(gate) / 2)
    assert got[GATE].a.shape[0] == 1


def test_what_it_was_tuned_for_is_kept(save: Save, base: Path, tmp_path: Path) -> None:
    sha256 = sha256_file(base / "model.safetensors")
    paths = [save("one", {QUERY: update(1)}), save("two", {QUERY: update(2)}, base_sha256=sha256)]
    done = average_adapters(str(base), paths, str(tmp_path / "mean"))
    tuned = read_learned_tasks(done.path)
    assert (tuned.names, tuned.base_sha256) == ({"qa"}, sha256)
    assert open_adapter(done.path).base_model == "some base"
    assert {path.stat().st_mode & 0o777 for path in done.path.iterdir()} == {0o644}


def test_a_task_learned_both_ways_may_be_averaged_with_it_learned_one_way(base: Path, tmp_path: Path) -> None:
    paths = []
    for number, names in enumerate((["qa"], ["qa", "qa-inverse"])):
        path = tmp_path / str(number)
        path.mkdir()
        save_adapter(path, CONFIG, {QUERY: update(number + 1)}, base_model="some base")
        write_learned_tasks(path, names)
        paths.append(str(path))
    done = average_adapters(str(base), paths, str(tmp_path / "mean"))
    assert read_learned_tasks(done.path).names == {"qa", "qa-inverse"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weights": [1]}, "2 adapters and the weights"),
        ({"weights": [1, 0]}, "needs one above 0"),
        ({"weights": [1, float("nan")]}, "needs one above 0"),
        ({"weights": [1, float("inf")]}, "needs one above 0"),
        ({"rank": -1}, "rank is -1"),
    ],
)
def test_wrong_options_are_refused(save: Save, base: Path, tmp_path: Path, more: dict[str, Any], message: str) -> None:
    paths = [save("one", {QUERY: update(1)}), save("two", {QUERY: update(2)})]
    with pytest.raises(ConfigError, match=message):
        average_adapters(str(base), paths, str(tmp_path / "mean"), **more)
    assert not (tmp_path / "mean").exists()


def test_what_does_not_belong_together_is_refused(save: Save, base: Path, tmp_path: Path) -> None:
    one, mean = save("one", {QUERY: update(1)}), str(tmp_path / "mean")
    with pytest.raises(ConfigError, match="at least two"):
        average_adapters(str(base), [one], mean)
    other = save("other", {QUERY: update(2)}, task=None)
    with pytest.raises(ConfigError, match="qa, and chat prompts"):
        average_adapters(str(base), [one, other], mean)
    foreign = save("foreign", {QUERY: update(2)}, base_sha256="0" * 64)
    with pytest.raises(ModelFileError, match="trained on weights with the sha256 000000000000"):
        average_adapters(str(base), [one, foreign], mean)
    weights = update(3)
    lengths = torch.ones(weights.b.shape[0])
    dora = save("dora", {QUERY: LoraWeights(weights.a, weights.b, weights.scale, lengths)})
    with pytest.raises(ConfigError, match="DoRA"):
        average_adapters(str(base), [one, dora], mean)
    endless = save("endless", {QUERY: LoraWeights(weights.a * float("inf"), weights.b, weights.scale)})
    with pytest.raises(ModelFileError, match="not finite"):
        average_adapters(str(base), [one, endless], mean)
    assert not Path(mean).exists()
    with pytest.raises(InputError, match="already exists"):
        average_adapters(str(base), [one, one], one)


def test_the_command(save: Save, base: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    one, two = update(1), update(2)
    paths = [save("one", {QUERY: one}), save("two", {QUERY: two})]
    arguments = ["--adapter", paths[0], "--adapter", paths[1], "--weight", "1", "--weight", "3", "--rank", "4"]
    done = cli("models", "average", str(base), *arguments, "-o", str(tmp_path / "mean"))
    assert (done.code, done.out.strip()) == (0, str(tmp_path / "mean"))
    assert "averaged 2 adapters of 1 layers; the rank leaves out 0.0%" in done.err
    assert close(whole(read(tmp_path / "mean")[QUERY]), 0.25 * whole(one) + 0.75 * whole(two))
    again = cli("models", "average", str(base), *arguments, "-o", str(tmp_path / "mean"))
    assert (again.code, "already exists" in again.err) == (2, True)
