"""`nlpkit bench` without measuring anything: what is planned, how it is shown, what a failing engine says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.bench import measure as bench
from nlpkit.apps.bench.measure import build_plans, measure
from nlpkit.apps.bench.plan import BenchLine, BenchPlan
from nlpkit.apps.cli.bench import render_bench
from nlpkit.core.errors import ConfigError, NlpkitError


def line(plan: BenchPlan, batch: int) -> BenchLine:
    return BenchLine(
        engine=plan.engine,
        dtype=plan.dtype,
        batch=batch,
        prefill_tokens_per_s=100.0,
        decode_tokens_per_s=10.0 * batch if plan.engine == "nlpkit" else 5.0 * batch,
        load_s=0.5,
        first_token_s=1.0,
        peak_memory_bytes=10**9,
    )


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(plan: BenchPlan) -> Iterator[BenchLine]:
        for batch in plan.batches:
            yield line(plan, batch)

    monkeypatch.setattr(bench, "measure", fake)


def test_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(bench, "is_installed", lambda engine: engine in there)
    (only,) = build_plans(Path("m.gguf"), threads=3)
    assert (only.engine, only.dtype, only.batches, only.threads) == ("nlpkit", "auto", (1, 8, 32), 3)
    plans = build_plans(Path("m.gguf"), peers=True, dtypes=["int8", "fp32", "int8"], batches=[4, 4])
    assert [(plan.engine, plan.dtype) for plan in plans] == [
        ("nlpkit", "int8"),
        ("nlpkit", "fp32"),
        ("transformers", "fp32"),
    ]
    assert plans[0].batches == (4,)
    plans = build_plans(Path("m.gguf"), peers=True, dtypes=["int4"])
    assert [(plan.engine, plan.dtype) for plan in plans] == [("nlpkit", "int4"), ("transformers", "auto")]
    there |= {"llama.cpp", "ctranslate2"}
    plans = build_plans(Path("m.gguf"), peers=True, dtypes=["int4"])
    assert [(plan.engine, plan.batches) for plan in plans[2:]] == [("llama.cpp", (1,)), ("ctranslate2", (1, 8, 32))]
    plans = build_plans(Path("folder"), peers=True, dtypes=["int4"], batches=[8])
    assert [plan.engine for plan in plans] == ["nlpkit", "transformers", "ctranslate2"]
    with pytest.raises(ConfigError, match="Did you mean 'int8'"):
        build_plans(Path("m.gguf"), dtypes=["int88"])


@pytest.mark.usefixtures("no_measuring")
def test_json_has_a_line_per_engine_and_batch(cli: Callable[..., Any], model_file: str) -> None:
    done = cli("bench", "--model", model_file, "--peers", "--batch", "1", "--batch", "2", "--json")
    assert (done.code, done.err) == (0, "")
    rows = [json.loads(row) for row in done.out.splitlines()]
    assert [(row["engine"], row["batch"]) for row in rows] == [
        ("nlpkit", 1),
        ("nlpkit", 2),
        ("transformers", 1),
        ("transformers", 2),
    ]
    wanted = {"dtype", "prefill_tokens_per_s", "decode_tokens_per_s", "load_s", "peak_memory_bytes"}
    assert wanted <= rows[0].keys()


@pytest.mark.usefixtures("no_measuring")
def test_table(cli: Callable[..., Any], model_file: str) -> None:
    done = cli("bench", "-m", model_file, "--peers", "--batch", "2")
    assert done.code == 0
    head, _, ours, theirs, legend = done.out.splitlines()
    assert head.split()[:3] == ["engine", "dtype", "batch"]
    assert "1.00x" in ours.split()
    assert "2.00x" in theirs.split()
    assert legend.startswith("ratio: how many times faster nlpkit")


def test_nothing_measured_is_a_table_without_rows() -> None:
    head, rule = render_bench([]).splitlines()
    assert head.startswith("engine")
    assert set(rule) == {"-", " "}


def test_a_failing_engine_says_why(model_file: str) -> None:
    (plan,) = build_plans(Path(model_file), threads=1)
    with pytest.raises(NlpkitError, match=r"The engine 'nlpkit' could not be measured in auto: [A-Z/].*model\.gguf"):
        list(measure(plan))
