"""Compiled kernels: the model's own results for every kind of model, whoever else is in the pass."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_models import (
    LIBRARY,
    PROMPTS,
    VARIANTS,
    config,
    decoded,
    library,
    needs_kernels,
    quantized,
    restored,
    runner_of,
    runs_kernels,
    unpacked,
)
from tiny_models import tiny_gpt

from nlpkit.core.machine.compiler import find_compiler
from nlpkit.core.model.cache import FEWEST_ROWS, MOST_SPARE_BYTES, KVCache
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT
from nlpkit.core.quantization import kernel_build as kernels
from nlpkit.core.quantization.apply import quantize_model
from nlpkit.core.quantization.fuse import fuse_projections
from nlpkit.core.quantization.kernel_library import SOURCE, Library
from nlpkit.core.quantization.kernel_linear import KernelLinear, fits_kernels
from nlpkit.core.quantization.kernel_pass import Kernels
from nlpkit.core.quantization.ready import ReadyWeights, is_kept
from nlpkit.core.runners.kernels import KernelRunner


@needs_kernels
@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
def test_results_are_the_models_own(name: str, kind: str) -> None:
    model = quantized(kind, **VARIANTS[name])
    assert runs_kernels(model)
    expected, found = decoded(restored(model)), decoded(model)
    # What is left is the rounding of activations to 8 bits and of keys and values to bf16.
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 0.06 * largest
    assert float((found - expected).square().mean().sqrt()) <= 0.012 * largest


@needs_kernels
@pytest.mark.parametrize("name", ["llama", "sliding, two rotations", "parallel, part of the head rotated"])
def test_a_token_does_not_depend_on_the_pass(name: str) -> None:
    model = quantized(**VARIANTS[name])
    together = decoded(model)
    assert torch.equal(decoded(model, chunk=4), together)
    alone = runner_of(model)
    alone.reserve(1)
    first = torch.cat([alone.extend(0, [prompt], [0]) for prompt in PROMPTS])
    assert torch.equal(first, together[:3])
    threads = torch.get_num_threads()
    try:
        for other in (1, 2, 3, 5):
            torch.set_num_threads(other)
            assert torch.equal(decoded(model), together)
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@pytest.mark.parametrize("name", VARIANTS)
def test_only_wanted_tokens_go_through_the_end(name: str) -> None:
    model = quantized(**VARIANTS[name])
    passes = Kernels(model)
    token_ids = torch.tensor([*PROMPTS[0], *PROMPTS[1]])
    rows = torch.tensor([0] * len(PROMPTS[0]) + [1] * len(PROMPTS[1]))
    positions = torch.tensor([*range(len(PROMPTS[0])), *range(len(PROMPTS[1]))])

    def hidden(wanted: list[int] | None) -> tuple[torch.Tensor, torch.Tensor]:
        cache = KVCache(model.config, n_rows=2, dtype=torch.bfloat16, device=torch.device("cpu"))
        cache.reserve(32)
        chosen = None if wanted is None else torch.tensor(wanted)
        found = passes.hidden(token_ids, rows, positions, cache, longest=19, wanted=chosen)
        return found, torch.cat([cache.keys, cache.values])

    whole, cached = hidden(None)
    for threads in (1, 2, 5):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for wanted in ([], [0], [21], [18, 21], [0, 1, 5, 20], list(range(22))):
                found, left = hidden(wanted)
                assert torch.equal(found, whole[wanted])
                assert torch.equal(left, cached)
        finally:
            torch.set_num_threads(before)
    for wrong in ([22], [-1], [3, 3], [5, 4]):
        with pytest.raises(IndexError):
            hidden(wrong)


@needs_kernels
def test_rows_whose_rotations_depend_on_their_length_run_through_the_kernels() -> None:
    scaled = {"scaling": "dynamic", "factor": 2.0, "original_max_seq_len": 16}
    model = quantized(rope=scaled)
    assert model.config.depends_on_length
    assert runs_kernels(model)
    assert isinstance(runner_of(model), KernelRunner)
    expected, found = decoded(restored(model)), decoded(model)
    assert float((found - expected).abs().max()) <= 0.06 * float(expected.abs().max())


@needs_kernels
@pytest.mark.parametrize(("row", "position"), [(3, 0), (0, 64), (-1, 0), (0, -1)])
def test_nothing_is_written_outside_the_cache(row: int, position: int) -> None:
    model = quantized()
    cache = KVCache(model.config, n_rows=3, dtype=model.dtype, device=model.device)
    cache.reserve(64)
    at = torch.tensor([row]), torch.tensor([position])
    with torch.inference_mode(), pytest.raises(IndexError, match="cache"):
        Kernels(model).hidden(torch.tensor([1]), *at, cache, longest=65)


def test_caches_have_room_for_more_rows_only_while_that_is_cheap() -> None:
    cpu = torch.device("cpu")
    small = KVCache(config(), n_rows=0, dtype=torch.bfloat16, device=cpu)
    small.reserve_rows(1)
    small.reserve(64)
    assert (small.n_rows, small.keys.shape[1]) == (1, FEWEST_ROWS)
    small.keys[:, 0, :, :64] = 7
    for rows, slots in ((40, 64), (40, 200), (90, 300)):
        small.reserve_rows(rows)
        small.reserve(slots)
        assert small.n_rows == rows <= small.keys.shape[1]
        assert bool((small.keys[:, 0, :, :64] == 7).all())
        assert not bool(small.keys[:, 1:].any())
        assert not bool(small.keys[:, 0, :, 64:].any())
    # Shapes of a model of seven billion weights: a row of 4,096 slots is a gigabyte.
    wide = config(n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, max_seq_len=4096)
    large = KVCache(wide, n_rows=0, dtype=torch.bfloat16, device=cpu)
    large.reserve_rows(1)
    for slots in (256, 4096):
        large.reserve(slots)
        row = large.keys[:, 0].numel() * 2
        assert large.keys.nbytes <= max(row, MOST_SPARE_BYTES)
    large.reserve_rows(2)
    assert large.keys.shape[1] == 2


@needs_kernels
def test_long_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tokens than are quantized together, and more slots than a cache starts with."""
    model = quantized(max_seq_len=512)
    prompt = torch.randint(29, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    whole, steps = runner_of(model), runner_of(model)
    whole.reserve(1)
    steps.reserve(1)
    expected = whole.extend(0, [prompt], [0])
    for at in range(0, 300, 60):
        found = steps.extend(0, [prompt[at : at + 60]], [at])
    assert torch.equal(found, expected)
    exact = runner_of(restored(model))
    exact.reserve(1)
    reference = exact.extend(0, [prompt], [0])
    assert float((expected - reference).abs().max()) <= 0.06 * float(reference.abs().max())


@needs_kernels
@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 70),
    groups=st.integers(1, 5),
    rows=st.sampled_from([1, 2, 7, 8, 64, 65, 130]),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
)
def test_products(outputs: int, groups: int, rows: int, bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, 32 * groups, generator=generator)
    bias = torch.randn(outputs, generator=generator) if seed % 2 else None
    layer = KernelLinear(library(), weight, bias, bits=bits)
    stands_for = unpacked(layer)
    steps = (weight.view(outputs, groups, 32).amax(2) - weight.view(outputs, groups, 32).amin(2)) / 15
    if bits == 8:
        steps = weight.view(outputs, groups, 32).abs().amax(2) / 127
    assert bool(((stands_for - weight).abs().view(outputs, groups, 32) <= 0.51 * steps[:, :, None] + 2e-3).all())
    # Whole numbers up to 127 are activations that 8 bits hold exactly.
    x = torch.randint(-127, 128, (rows, 32 * groups), generator=generator).float()
    x[:, ::32] = 127.0
    exact = (x.double() @ stands_for.double().t()).float() + (0 if bias is None else bias)
    torch.testing.assert_close(layer(x), exact, rtol=1e-4, atol=2e-2)


@pytest.fixture(scope="module", params=["-mno-avx512f", "-mno-avx512f -mno-avxvnni"])
def lesser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The kernels of a processor with fewer instructions than this one may have."""
    path = tmp_path_factory.mktemp("lesser") / "kernels.so"
    compiler = find_compiler()
    if LIBRARY is None or compiler is None:
        pytest.skip("this machine has no compiled kernels")
    command = [compiler, *kernels._FLAGS, *request.param.split(), "-o", str(path)]
    nothing = path.with_suffix(".cpp")
    nothing.write_text("")
    if subprocess.run([*command, str(nothing)], check=False, capture_output=True).returncode:
        pytest.skip("the compiler does not know these instructions")
    subprocess.run([*command, str(SOURCE)], check=True, capture_output=True)
    return Library(path)


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
def test_processors_with_fewer_instructions_give_the_same(name: str, kind: str, lesser: Library) -> None:
    model = tiny_gpt(config(**VARIANTS[name]), scale=0.15).to(torch.bfloat16)
    fuse_projections(model)
    quantize_model(model, kind, lesser)
    assert runs_kernels(model)
    expected, found = decoded(quantized(kind, **VARIANTS[name])), decoded(model)
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 0.01 * largest
    for chunk in (1, 5):
        assert torch.equal(decoded(model, chunk=chunk), found)


@pytest.mark.parametrize("bits", [4, 8])
def test_no_sum_of_products_overflows(bits: int, lesser: Library) -> None:
    weight = torch.ones(16, 64)
    weight[1], weight[2, ::2], weight[3, 1::2] = -1, -1, -1
    layer = KernelLinear(lesser, weight, None, bits=bits)
    for x in (torch.ones(1, 64), -torch.ones(1, 64), weight[2:3], weight[3:4]):
        torch.testing.assert_close(layer(x), x @ weight.t(), rtol=2e-3, atol=5e-2)


@needs_kernels
def test_weights_beyond_half_precision_and_constant_groups() -> None:
    weight = torch.zeros(16, 64)
    weight[0] = 3.0
    weight[1, :32] = 1e-30
    weight[2, 0] = 1e9
    for bits in (4, 8):
        layer = KernelLinear(library(), weight, None, bits=bits)
        out = layer(torch.ones(1, 64))[0]
        assert bool(torch.isfinite(out).all())
        assert float(out[0]) == pytest.approx(192.0, rel=2e-3)
        assert abs(float(out[1])) < 1e-3
        assert float(out[3]) == 0.0


def test_shapes_that_do_not_fit_run_as_they_are() -> None:
    assert fits_kernels(config())
    assert not fits_kernels(config(d_model=48, n_heads=4, head_dim=8))
    assert not fits_kernels(config(head_dim=24, n_heads=4))
    assert not fits_kernels(config(d_ff=80))
    if LIBRARY is not None:
        model = tiny_gpt(config(d_ff=80)).to(torch.bfloat16)
        fuse_projections(model)
        quantize_model(model, "int4", LIBRARY)
        assert not runs_kernels(model)
        assert not any(isinstance(module, KernelLinear) for module in model.modules())


@needs_kernels
def test_the_model_itself_knows_no_passes_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized()
    monkeypatch.setattr(Library, "run", lambda *args, **kwargs: pytest.fail("the model has one way of computing"))
    with torch.inference_mode():
        free = model(torch.tensor([PROMPTS[0]]))
    expected = restored(model)(torch.tensor([PROMPTS[0]]))
    assert float((free - expected).abs().max()) <= 0.06 * float(expected.abs().max())


@needs_kernels
def test_sequences_that_begin_alike_are_scored_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized()
    runner = runner_of(model)
    begin = [7, 3, 11, 2] * 6
    sequences = [[*begin, 5, 1, 9], [*begin, 5, 8], begin, [*begin[:-3], 4, 4, 4, 4], [6, *begin], [6, *begin, 2]]
    # The second could share more of the first than what comes before its first token to score.
    starts = [25, 20, 23, 22, 1, 25]
    passes: list[int] = []
    hidden = Kernels.hidden
    monkeypatch.setattr(
        Kernels,
        "hidden",
        lambda self, ids, *args, **kwargs: passes.append(len(ids)) or hidden(self, ids, *args, **kwargs),
    )
    together = runner.logprobs(sequences, starts)
    assert sum(passes) < sum(map(len, sequences)) / 1.8
    for sequence, start, (scores, greedy) in zip(sequences, starts, together, strict=True):
        ((alone, alone_greedy),) = runner.logprobs([sequence], [start])
        assert torch.equal(scores, alone)
        assert torch.equal(greedy, alone_greedy)
        assert len(scores) == len(sequence) - start


@needs_kernels
def test_scoring_gives_the_log_probabilities_of_decoding() -> None:
    model = quantized()
    runner = runner_of(model)
    runner.reserve(1)
    found = runner.logprobs([[*prompt, 1] for prompt in PROMPTS], [1, 2, 1])
    for prompt, start, (scores, greedy) in zip(PROMPTS, [1, 2, 1], found, strict=True):
        logits = runner.extend(0, [prompt], [0], wanted=[len(prompt)])
        expected = torch.log_softmax(logits, -1)[range(start - 1, len(prompt)), [*prompt, 1][start:]]
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)
        assert greedy.tolist() == [
            int(row.argmax()) == token for row, token in zip(logits[start - 1 :], [*prompt, 1][start:], strict=True)
        ]
    assert runner_of(model).logprobs([[1, 2]], [2])[0][0].shape == (0,)


@needs_kernels
def test_threads_at_the_same_time_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = quantized()
    expected = decoded(model)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: decoded(model), range(12)):
            assert torch.equal(found, expected)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLPKIT_HOME", str(tmp_path))
    kernels._library_at.cache_clear()
    yield tmp_path
    kernels._library_at.cache_clear()


@needs_kernels
def test_made_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kernels.load_library()
    assert found is not None
    assert [path.name for path in (cache / "kernels").iterdir()] == [found.path.name]
    kernels._library_at.cache_clear()
    monkeypatch.setattr(kernels, "build_library", lambda: pytest.fail("it is there"))
    assert kernels.load_library() is not None


@needs_kernels
def test_a_damaged_file_is_made_again(cache: Path) -> None:
    path = kernels.library_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no library at all")
    assert kernels.load_library() is not None
    assert path.stat().st_size > 10_000


@needs_kernels
def test_wrong_products_are_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_TOLERANCE", -1.0)
    assert kernels.load_library() is None


def test_without_a_compiler_there_are_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert kernels.load_library() is None


def test_a_compiler_that_fails_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", shutil.which("false") or "false")
    assert kernels.load_library() is None
    assert not list((cache / "kernels").iterdir()) if (cache / "kernels").exists() else True


def test_other_machines_and_a_wish_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "cpu_flags", lambda: frozenset({"avx"}))
    assert "avx2" in (kernels.why_not() or "")
    monkeypatch.setattr(kernels.platform, "machine", lambda: "aarch64")
    assert "aarch64" in (kernels.why_not() or "")
    monkeypatch.setenv(kernels.OFF, "off")
    assert kernels.OFF in (kernels.why_not() or "")
    assert kernels.load_library() is None


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_are_counted(name: str) -> None:
    shape = config(**VARIANTS[name])
    assert shape.n_parameters == sum(parameter.numel() for parameter in GPT(shape).parameters())


@needs_kernels
@pytest.mark.parametrize("name", VARIANTS)
def test_ready_weights_are_the_same_model(name: str, cache: Path, tmp_path: Path) -> None:
    model = quantized(**VARIANTS[name])
    source, adapter = tmp_path / "weights", tmp_path / "adapter"
    source.write_bytes(b"weights")
    adapter.write_bytes(b"adapter")

    def ready(
        dtype: str = "int4", files: Path = source, *adapters: Path, shape: ModelConfig | None = None
    ) -> ReadyWeights:
        merged = {path.name: path for path in adapters}
        return ReadyWeights(shape or model.config, dtype, {"w": files}, merged, blocks_only=True)

    assert ready().load(library()) is None
    assert ready().save(model)
    found = ready().load(library())
    assert found is not None
    assert torch.equal(decoded(found), decoded(model))
    # Whatever decides what is in them decides their names.
    other = config(**{**VARIANTS[name], "norm_eps": 1e-3})
    assert ready("int8").load(library()) is None
    assert ready("int4", adapter).load(library()) is None
    assert ready("int4", source, adapter).load(library()) is None
    assert ready(shape=other).load(library()) is None
    # An adapter of the blocks alone shares embedding and head, and so do both formats.
    before = len(list((cache / "ready").iterdir()))
    assert ready("int4", source, adapter).save(model)
    assert len(list((cache / "ready").iterdir())) == before + 1
    assert ready("int8").save(quantized("int8", **VARIANTS[name]))
    assert len(list((cache / "ready").iterdir())) == before + 2
    wide = ready("int8").load(library())
    assert wide is not None
    assert torch.equal(decoded(wide), decoded(quantized("int8", **VARIANTS[name])))


@needs_kernels
def test_ready_weights_that_do_not_fit_are_not_used(cache: Path, tmp_path: Path) -> None:
    model, source = quantized(), tmp_path / "weights"
    source.write_bytes(b"weights")
    ready = ReadyWeights(model.config, "int4", {"w": source}, {}, blocks_only=True)
    assert ready.save(model)
    paths = sorted((cache / "ready").iterdir())
    whole = {path: path.read_bytes() for path in paths}
    generator = random.Random(0)
    for path in paths:
        length = int.from_bytes(whole[path][:8], "little")
        for _ in range(60):
            content = bytearray(whole[path])
            at = generator.randrange(8 + length)
            content[at] = generator.randrange(256)
            path.write_bytes(content)
            found = ready.load(library())
            if found is not None:
                # Other numbers, perhaps, but nothing beyond the memory that is its own.
                decoded(found)
        for cut in (0, 7, 100, len(whole[path]) - 1):
            path.write_bytes(whole[path][:cut])
            assert ready.load(library()) is None
        path.write_bytes(whole[path])
    assert ready.load(library()) is not None


@needs_kernels
def test_ready_weights_take_bounded_room(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized()
    size = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    monkeypatch.setattr("nlpkit.core.quantization.ready.MAX_BYTES", 3 * size)
    for number in range(6):
        source = tmp_path / f"weights{number}"
        source.write_bytes(b"%d" % number)
        ready = ReadyWeights(model.config, "int4", {"w": source}, {}, blocks_only=True)
        assert ready.save(model)
        assert ready.load(library()) is not None
        assert sum(path.stat().st_size for path in (cache / "ready").iterdir()) <= 3.5 * size
    # A model that would take most of the room is not kept at all.
    assert is_kept(model.config, "int4")
    monkeypatch.setattr("nlpkit.core.quantization.ready.MAX_BYTES", 2 * size - size // 4)
    assert not is_kept(model.config, "int4")
    monkeypatch.setattr("nlpkit.core.quantization.ready.MAX_BYTES", 2 * size + size // 4)
    assert is_kept(model.config, "int4")


@needs_kernels
def test_a_cache_that_cannot_be_written_only_costs_time(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    ready = ReadyWeights(quantized().config, "int4", {"w": source}, {}, blocks_only=True)
    (cache / "ready").write_text("no folder")
    assert not ready.save(quantized())
    assert ready.load(library()) is None
