"""Prefixes: computed once, kept within bounds, on disk too, and never with another result."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from counting_runner import CountingRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ToyTokenizer, tiny_config, tiny_engine, tiny_gpt

from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.decode.engine import Engine
from nlpkit.core.decode.prefix_cache.order import SHORTEST, common_prefix, plan_order
from nlpkit.core.decode.prefix_cache.prefixes import PrefixCache
from nlpkit.core.decode.prefix_cache.store import PrefixStore
from nlpkit.core.decode.request import Generation, Request
from nlpkit.core.errors import ConfigError, OutputError
from nlpkit.core.language_model import LanguageModel, ModelFacts
from nlpkit.core.model.cache import KVSegment

MODEL = tiny_gpt(tiny_config(max_seq_len=512))


class RowsOfIds:
    """Stands in for a runner: what it holds of a token is the token's id."""

    def __init__(self) -> None:
        self.rows: dict[int, list[int]] = {}

    def save_segment(self, row: int, start: int, stop: int) -> KVSegment:
        ids = torch.tensor(self.rows[row][start:stop], dtype=torch.float32)[None, None, :, None]
        return KVSegment(ids.clone(), ids.clone())

    def load_segment(self, row: int, start: int, segment: KVSegment) -> bool:
        assert torch.equal(segment.keys, segment.values)
        self.rows[row] = [*self.rows.get(row, [])[:start], *map(int, segment.keys.flatten().tolist())]
        return True


class Counted:
    """An engine whose runners are counted."""

    def __init__(self, **options: int) -> None:
        self.runners: list[CountingRunner] = []
        self.engine = Engine(self._new, ToyTokenizer(29), **options)

    def _new(self) -> CountingRunner:
        self.runners.append(CountingRunner(MODEL))
        return self.runners[-1]

    def run(self, requests: Sequence[Request]) -> tuple[list[tuple[int, ...]], int]:
        """Return the generated ids and how many tokens were computed for them."""
        results: dict[int, Generation] = dict(self.engine.generate(requests))
        ids = [results[i].completions[0].token_ids for i in range(len(requests))]
        return ids, self.runners[-1].n_tokens


def prompt(seed: int, length: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(1, 29) for _ in range(length))


def request(*parts: tuple[int, ...], max_tokens: int = 6) -> Request:
    return Request(
        prompt_ids=tuple(token for part in parts for token in part),
        config=DecodeConfig(max_tokens=max_tokens, ignore_eos=True),
    )


def alone(requests: Sequence[Request]) -> list[tuple[int, ...]]:
    engine = tiny_engine(max_seq_len=512)
    engine.prefixes = None
    return [dict(engine.generate([one]))[0].completions[0].token_ids for one in requests]


IDS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


@pytest.mark.property
@settings(deadline=None)
@given(a=IDS, b=IDS)
def test_common_prefix_is_what_zip_says(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == expected


@pytest.mark.property
@settings(deadline=None)
@given(prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), max_size=8))
def test_the_plan_takes_each_prompt_once_and_knows_what_they_share(prompts: list[tuple[int, ...]]) -> None:
    order, shared = plan_order(prompts)
    assert sorted(order) == list(range(len(prompts)))
    for i, one in enumerate(prompts):
        others = [common_prefix(one, other) for j, other in enumerate(prompts) if j != i]
        assert shared[i] == max(others, default=0)


def test_the_plan_puts_families_together_and_long_ones_first() -> None:
    contexts = [prompt(seed, 40 + 10 * seed) for seed in range(5)]
    prompts = [(*contexts[i % 5], *prompt(100 + i, 3 + i % 7)) for i in range(20)]
    order, _ = plan_order(prompts)
    families = [i % 5 for i in order]
    assert families == sorted(families, reverse=True)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), max_tokens=st.sampled_from([0, 20, 60, 10_000]))
def test_what_is_loaded_is_what_was_kept(seed: int, max_tokens: int) -> None:
    rng = random.Random(seed)
    runner, cache = RowsOfIds(), PrefixCache(max_tokens)
    kept: list[tuple[int, ...]] = []
    for _ in range(30):
        base = rng.choice(kept) if kept and rng.random() < 0.7 else ()
        tokens = (*base[: rng.randint(0, len(base))], *(rng.randrange(3) for _ in range(rng.randint(1, 40))))
        found = cache.match(tokens)
        assert cache.load(runner, 0, tokens) == found
        assert tuple(runner.rows.get(0, [])[:found]) == tokens[:found]
        if max_tokens == 10_000:
            # Ends too short to be worth a place of their own may be missing.
            best = max((common_prefix(tokens, one) for one in kept), default=0)
            assert best - SHORTEST < found <= best
        runner.rows[1] = list(tokens)
        cache.keep(runner, 1, tokens, n_prompt=len(tokens))
        kept.append(tokens)
        assert cache.n_tokens <= max_tokens
        assert cache.n_tokens == sum(len(node.tokens) for node in nodes(cache))
        for node in nodes(cache):
            assert node.segment is not None
            assert tuple(map(int, node.segment.keys.flatten().tolist())) == node.tokens


def nodes(cache: PrefixCache) -> list:
    found, stack = [], list(cache._root.children.values())
    while stack:
        found.append(stack.pop())
        stack += found[-1].children.values()
    return found


def test_a_beginning_in_use_outlives_the_ends() -> None:
    runner, cache = RowsOfIds(), PrefixCache(150)
    common = prompt(0, 50)
    for i in range(10):
        tokens = (*common, *prompt(i + 1, 40))
        cache.load(runner, 0, tokens)
        runner.rows[0] = list(tokens)
        cache.keep(runner, 0, tokens, n_prompt=90)
    assert cache.match(common) == 50
    assert cache.match((*common, *prompt(10, 40))) == 90
    assert cache.match((*common, *prompt(1, 40))) == 50


def test_requests_of_one_call_compute_their_common_beginning_once() -> None:
    common = prompt(0, 100)
    requests = [request(common, (i + 1,), prompt(i, 9)) for i in range(8)]
    counted = Counted(prefix_tokens=0)
    ids, computed = counted.run(requests)
    assert ids == alone(requests)
    assert computed == 100 + 8 * 10 + 8 * 5
    assert counted.engine.prefixes is not None
    assert counted.engine.prefixes.reused == 7 * 100


def test_beginnings_within_beginnings_are_computed_once_too() -> None:
    instruction, contexts = prompt(0, 60), [prompt(1, 80), prompt(2, 90)]
    requests = [request(instruction, contexts[i % 2], (i + 1,), prompt(i, 4)) for i in range(6)]
    ids, computed = Counted().run(requests)
    assert ids == alone(requests)
    assert computed == 60 + 80 + 90 + 6 * 5 + 6 * 5


def test_a_short_common_beginning_is_not_waited_for() -> None:
    requests = [request(prompt(0, SHORTEST + 4), prompt(i + 1, 30)) for i in range(3)]
    counted = Counted(prefix_tokens=0)
    ids, _ = counted.run(requests)
    assert ids == alone(requests)
    assert counted.runners[-1].passes[0] == [SHORTEST + 34] * 3


def test_a_later_call_reuses_what_an_earlier_one_computed() -> None:
    context = prompt(0, 90)
    counted = Counted()
    first, computed = counted.run([request(context, prompt(1, 10))])
    assert computed == 100 + 5
    second, computed = counted.run([request(context, prompt(2, 12))])
    assert computed == 12 + 5
    assert [*first, *second] == alone([request(context, prompt(1, 10)), request(context, prompt(2, 12))])
    # The text that was written is a beginning as well: a conversation goes on after it.
    grown = request(context, prompt(1, 10), first[0], prompt(3, 20))
    third, computed = counted.run([grown])
    # The last token was written but never read.
    assert computed == 1 + 20 + 5
    assert third == alone([grown])


def test_the_same_prompt_again_computes_its_last_token_alone() -> None:
    counted = Counted()
    one = request(prompt(0, 50), max_tokens=1)
    first, _ = counted.run([one])
    again, computed = counted.run([one])
    assert (again, computed) == (first, 1)


def test_many_requests_leave_only_what_they_share() -> None:
    common = prompt(0, 40)
    counted = Counted()
    counted.run([request(common, (i + 1,), prompt(i, 30)) for i in range(10)])
    assert counted.engine.prefixes is not None
    assert counted.engine.prefixes.n_tokens == 40


def test_without_prefixes_every_prompt_is_computed_whole() -> None:
    counted = Counted()
    counted.engine.prefixes = None
    requests = [request(prompt(0, 80), prompt(1, 3))] * 3
    assert counted.run(requests)[1] == 3 * (83 + 5)
    assert counted.run(requests)[1] == 3 * (83 + 5)


def test_prefixes_stay_within_their_bound() -> None:
    counted = Counted(batch_tokens=400)
    for seed in range(6):
        counted.run([request(prompt(seed, 60))])
    assert counted.engine.prefixes is not None
    assert 0 < counted.engine.prefixes.n_tokens <= 100


@pytest.mark.property
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), batch_tokens=st.sampled_from([1, 200, 500, 8192]))
def test_shared_prefixes_change_no_result(seed: int, batch_tokens: int) -> None:
    rng = random.Random(seed)
    bases = [prompt(seed + i, rng.randint(1, 60)) for i in range(3)]
    engine = tiny_engine(max_seq_len=512)
    for _ in range(2):
        requests = []
        for i in range(rng.randint(1, 9)):
            parts = [rng.choice(bases)[: rng.randint(1, 60)] for _ in range(rng.randint(1, 3))]
            sampled = DecodeConfig(max_tokens=5, temperature=0.9, seed=i, n=rng.randint(1, 3))
            config = rng.choice([DecodeConfig(max_tokens=rng.randint(0, 6)), sampled])
            requests.append(Request(prompt_ids=tuple(t for part in parts for t in part), config=config))
        plain = tiny_engine(max_seq_len=512)
        plain.prefixes = None
        got = dict(engine.generate(requests, batch_tokens=batch_tokens))
        for i, one in enumerate(requests):
            expected = dict(plain.generate([one]))[0].completions
            assert [c.token_ids for c in got[i].completions] == [c.token_ids for c in expected]


def stored(folder: Path, *, fingerprint: str = "model", max_bytes: int = 2**30) -> Counted:
    counted = Counted()
    assert counted.engine.prefixes is not None
    counted.engine.prefixes.store = PrefixStore(folder, fingerprint=fingerprint, max_bytes=max_bytes)
    return counted


def test_another_process_reads_what_was_stored(tmp_path: Path) -> None:
    context = prompt(0, 90)
    first, second = request(context, prompt(1, 10)), request(context, prompt(2, 12))
    stored(tmp_path).run([first])
    ids, computed = stored(tmp_path).run([second])
    assert computed == 12 + 5
    assert ids == alone([second])
    # Another model, or the same one in another number format, reads nothing of it.
    assert stored(tmp_path, fingerprint="other").run([second])[1] == 102 + 5


def test_streams_are_stored_too(tmp_path: Path) -> None:
    one = request(prompt(0, 90))
    list(stored(tmp_path).engine.stream(one))
    assert stored(tmp_path).run([one])[1] == 1 + 5


def test_generated_text_is_not_stored(tmp_path: Path) -> None:
    counted = stored(tmp_path)
    (ids,), _ = counted.run([request(prompt(0, 90), max_tokens=20)])
    store = PrefixStore(tmp_path, fingerprint="model")
    assert store.match((*prompt(0, 90), *ids)) == 90


def test_short_or_nearly_stored_prefixes_get_no_file(tmp_path: Path) -> None:
    stored(tmp_path).run([request(prompt(0, 40))])
    assert not list(tmp_path.rglob("*.safetensors"))
    stored(tmp_path).run([request(prompt(0, 100))])
    stored(tmp_path).run([request(prompt(0, 100), prompt(1, 20))])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    # A much longer one takes the place of its own beginning.
    stored(tmp_path).run([request(prompt(0, 100), prompt(1, 200))])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert PrefixStore(tmp_path, fingerprint="model").match((*prompt(0, 100), *prompt(1, 200))) == 300


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "rubbish"])
def test_a_damaged_file_is_ignored_and_written_anew(tmp_path: Path, damage: str) -> None:
    one = request(prompt(0, 90))
    stored(tmp_path).run([one])
    (path,) = tmp_path.rglob("*.safetensors")
    good = path.read_bytes()
    broken = {
        "truncated": good[:-100],
        "flipped": good[:-100] + bytes([good[-100] ^ 64]) + good[-99:],
        "emptied": b"",
        "rubbish": os.urandom(500),
    }
    path.write_bytes(broken[damage])
    ids, computed = stored(tmp_path).run([one])
    assert (ids, computed) == (alone([one]), 90 + 5)
    assert path.stat().st_size == len(good)
    assert stored(tmp_path).run([one])[1] == 1 + 5


def test_a_file_that_does_not_fit_the_model_is_ignored(tmp_path: Path) -> None:
    one = request(prompt(0, 90))
    store = PrefixStore(tmp_path, fingerprint="model")
    shape = (MODEL.config.n_layers, MODEL.config.n_kv_heads, 90, MODEL.config.head_dim)
    wrong = torch.zeros(shape, dtype=torch.bfloat16)
    store.save(one.prompt_ids, KVSegment(wrong, wrong.clone()))
    assert stored(tmp_path).run([one]) == (alone([one]), 95)


def test_the_oldest_files_go_first_and_nobody_elses(tmp_path: Path) -> None:
    foreign = tmp_path / "0123456789abcdef" / "notes.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"x" * 10_000_000)
    segments = {
        seed: KVSegment(torch.full((1, 1, 100, 8), float(seed)), torch.zeros(1, 1, 100, 8)) for seed in range(4)
    }
    store = PrefixStore(tmp_path, fingerprint="model", max_bytes=25_000)
    for age, seed in enumerate((0, 1)):
        store.save(prompt(seed, 100), segments[seed])
        for path in store._own.glob("*.safetensors"):
            if path.stat().st_mtime > 1_000_000:
                os.utime(path, (1000 + age, 1000 + age))
    assert store.load(prompt(0, 100)) is not None  # read now, so the other one is the oldest
    store.save(prompt(2, 100), segments[2])
    store.save(prompt(3, 100), segments[3])
    assert [store.match(prompt(seed, 100)) for seed in range(4)] == [100, 0, 100, 100]
    assert len(PrefixStore(tmp_path, fingerprint="model")) == 3
    assert foreign.exists()
    store.save(prompt(4, 100), KVSegment(torch.zeros(1, 1, 100, 99), torch.zeros(1, 1, 100, 99)))
    assert len(store) == 3  # larger than all that may be kept


def test_a_store_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be made"):
        PrefixStore(tmp_path / "file", fingerprint="model")
    with pytest.raises(ConfigError, match="-1"):
        PrefixStore(tmp_path, fingerprint="model", max_bytes=-1)
    counted = stored(tmp_path / "gone")
    one = request(prompt(0, 90))
    folder = next((tmp_path / "gone").iterdir())
    folder.rmdir()
    folder.write_text("in the way")
    assert counted.run([one])[0] == alone([one])
    assert counted.engine.prefixes is not None
    assert counted.engine.prefixes.store is not None
    assert "cannot be written" in str(counted.engine.prefixes.store.problem)


def test_a_loaded_model_keeps_prefixes_for_its_own_files_alone(tmp_path: Path) -> None:
    def loaded(name: str) -> LanguageModel:
        model = tiny_gpt(tiny_config(max_seq_len=512), seed=len(name))
        path = tmp_path / f"{name}.bin"
        path.write_text(name)
        runner = CountingRunner(model)
        facts = ModelFacts(
            name=name, path=path, format="native", dtype="fp32", device="cpu", files={"weights": path},
            family="llama", n_parameters=1,
        )  # fmt: skip
        lm = LanguageModel(facts, lambda: runner, ToyTokenizer(29), None)
        lm.keep_prefixes(tmp_path / "kept")
        runner.passes.clear()
        list(lm.generate([request(prompt(0, 90))]))
        assert lm.engine.prefixes is not None
        assert runner.n_tokens == 95 - lm.engine.prefixes.reused
        return lm

    reused = [lm.engine.prefixes.reused for lm in map(loaded, ("one", "other", "one", "other")) if lm.engine.prefixes]
    assert reused == [0, 0, 89, 89]
    nameless = loaded("one")
    nameless.facts = replace(nameless.facts, files={})
    with pytest.raises(ConfigError, match="loaded from files"):
        nameless.keep_prefixes(tmp_path / "kept")
