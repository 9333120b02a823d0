"""Bootstrap and randomization: against sacrebleu's own p-values, exact enumeration, and theory."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Likelihood, Sample
from nlpkit.eval.metrics.registry import METRICS, get_metric
from nlpkit.eval.statistics import resampling
from nlpkit.eval.statistics.measure import build_samples, measure
from nlpkit.eval.statistics.significance import (
    bootstrap_interval,
    bootstrap_scores,
    compare_systems,
    corpus_score,
    holm,
    paired_approximate_randomization,
    paired_bootstrap,
)

WORDS = [f"w{i}" for i in range(40)]


def make_systems(n: int, rates: dict[str, float], seed: int = 1) -> tuple[list[str], dict[str, list[str]]]:
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) for _ in range(n)]
    systems = {
        name: [" ".join(rng.choice(WORDS) if rng.random() < rate else w for w in r.split()) for r in references]
        for name, rate in rates.items()
    }
    return references, systems


REFERENCES, SYSTEMS = make_systems(70, {"base": 0.3, "same": 0.3, "worse": 0.42, "better": 0.12})
SACREBLEU = {"bleu": BLEU, "chrf": CHRF, "ter": TER}


def stats_of(name: str) -> tuple[dict[str, np.ndarray], object]:
    metric = get_metric(name)
    return {s: measure(metric, build_samples(lines, REFERENCES)).stats for s, lines in SYSTEMS.items()}, metric


@pytest.mark.parity
@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_paired_bootstrap_p_values_are_those_of_sacrebleu(name: str) -> None:
    stats, metric = stats_of(name)
    test = PairedTest(list(SYSTEMS.items()), {name: SACREBLEU[name]()}, [REFERENCES], test_type="bs", n_samples=400)
    theirs = next(rows for key, rows in test()[1].items() if key != "System")
    others = {s: stats[s] for s in list(SYSTEMS)[1:]}
    rows = compare_systems(("base", stats["base"]), others, metric, method="bootstrap", n_resamples=400)
    for row, result in zip(rows, theirs, strict=True):
        assert row.value == pytest.approx(result.score)
        assert row.interval.mean == pytest.approx(result.mean, rel=1e-5)  # sacrebleu sums in float32
        if row.paired is not None:
            # The resamples are the same. TER's mean reference lengths are rounded to float32 there.
            assert row.paired.p_value == pytest.approx(result.p_value, abs=0 if name != "ter" else 0.006)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_randomization_p_values_are_those_of_sacrebleu(name: str) -> None:
    stats, metric = stats_of(name)
    test = PairedTest(list(SYSTEMS.items()), {name: SACREBLEU[name]()}, [REFERENCES], test_type="ar", n_samples=500)
    theirs = next(rows for key, rows in test()[1].items() if key != "System")
    for system, result in zip(list(SYSTEMS)[1:], theirs[1:], strict=True):
        got = paired_approximate_randomization(stats["base"], stats[system], metric, n_trials=500, n_resamples=10)
        # TER's whole edits make ties, which count as extreme here and not there.
        assert got.p_value == pytest.approx(result.p_value, abs=1e-12) or (
            name == "ter" and got.p_value > result.p_value
        )


@pytest.mark.parity
def test_p_values_of_the_command_line(tmp_path) -> None:
    (tmp_path / "ref").write_text("\n".join(REFERENCES) + "\n", encoding="utf-8")
    for name in ("base", "better"):
        (tmp_path / name).write_text("\n".join(SYSTEMS[name]) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "base", "better", "-m", "bleu", "-w", "6"]
    command += ["--paired-bs", "--paired-bs-n", "300", "-f", "json"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    stats, metric = stats_of("bleu")
    got = paired_bootstrap(stats["base"], stats["better"], metric, n_resamples=300)
    assert f'"p_value": {got.p_value}' in output


def test_blocks_do_not_change_the_draws(monkeypatch) -> None:
    for n in (1, 7, 32, 50):
        counts = np.concatenate(list(resampling.resample_counts(n, 90, 3)))
        masks = np.concatenate(list(resampling.swap_masks(n, 90, 3)))
        monkeypatch.setattr(resampling, "BLOCK_CELLS", 2 * n + 1)
        assert np.array_equal(np.concatenate(list(resampling.resample_counts(n, 90, 3))), counts)
        blocks = list(resampling.swap_masks(n, 90, 3))
        assert np.array_equal(np.concatenate(blocks), masks)
        assert max(map(len, blocks)) == 2 + (n == 1)
        monkeypatch.undo()
        indices = np.random.default_rng(3).choice(n, size=(90, n), replace=True)
        assert np.array_equal(counts, np.stack([np.bincount(row, minlength=n) for row in indices]))
        assert np.array_equal(masks, np.random.default_rng(3).integers(2, size=(90, n), dtype=bool))


def test_resampling_equals_scoring_the_resampled_corpora() -> None:
    rng = random.Random(8)
    samples = build_samples(SYSTEMS["worse"], REFERENCES)
    for name in ("bleu", "chrf++", "ter", "rouge2", "squad_f1"):
        metric = get_metric(name, **({"lang": "en"} if name == "rouge2" else {}))
        stats = measure(metric, samples).stats
        scores = bootstrap_scores([stats], metric, n_resamples=5, seed=4)[0]
        indices = np.random.default_rng(4).choice(len(samples), size=(5, len(samples)), replace=True)
        row = rng.randrange(5)
        assert scores[row] == pytest.approx(measure(metric, [samples[i] for i in indices[row]]).value)


def test_randomization_approaches_the_exact_test() -> None:
    rng = np.random.default_rng(2)
    metric = get_metric("accuracy")
    a, b = (np.stack([rng.integers(0, 2, 9), np.ones(9)], axis=1).astype(float) for _ in range(2))
    b[:6, 0] = 1
    observed = abs(corpus_score(a, metric) - corpus_score(b, metric))
    hits = 0
    for swap in itertools.product([False, True], repeat=9):
        mask = np.array(swap)[:, None]
        difference = corpus_score(np.where(mask, a, b), metric) - corpus_score(np.where(mask, b, a), metric)
        hits += abs(difference) >= observed - 1e-9
    got = paired_approximate_randomization(a, b, metric, n_trials=20000, n_resamples=1)
    assert got.p_value == pytest.approx(hits / 512, abs=0.012)


def test_null_p_values_are_not_too_small() -> None:
    """Two systems of equal quality must come out as different about as often as the level says, not more."""
    metric = get_metric("accuracy")
    rng = np.random.default_rng(9)
    p_values = []
    for trial in range(200):
        draws = (rng.random((2, 60)) < 0.6).astype(float)
        a, b = (np.stack([row, np.ones(60)], axis=1) for row in draws)
        p_values.append(paired_approximate_randomization(a, b, metric, n_trials=200, n_resamples=1, seed=trial).p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert np.mean(p_values) > 0.4


def test_interval_of_a_mean_matches_theory() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(0.5, 0.1, 400)
    stats = np.stack([values, np.ones(400)], axis=1)
    interval = bootstrap_interval(stats, get_metric("accuracy"), n_resamples=4000)
    error = 100 * values.std() / np.sqrt(400)
    assert interval.std == pytest.approx(error, rel=0.06)
    assert interval.low == pytest.approx(100 * values.mean() - 1.96 * error, abs=0.12 * error * 2)
    assert interval.high == pytest.approx(100 * values.mean() + 1.96 * error, abs=0.12 * error * 2)
    narrow = bootstrap_interval(stats, get_metric("accuracy"), n_resamples=4000, level=0.5)
    assert interval.low < narrow.low < narrow.high < interval.high


def test_distinct_interval_lies_around_the_value() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=8)) for _ in range(200)]
    for name in ("distinct1", "distinct2", "self_bleu"):
        result = measure(get_metric(name), build_samples(texts)).result()
        assert result.low < result.value < result.high


def test_system_against_itself() -> None:
    stats, metric = stats_of("bleu")
    for result in (
        paired_bootstrap(stats["base"], stats["base"], metric, n_resamples=50),
        paired_approximate_randomization(stats["base"], stats["base"], metric, n_trials=50, n_resamples=50),
    ):
        assert (result.p_value, result.difference, result.low, result.high) == (1.0, 0.0, 0.0, 0.0)
        assert (result.wins, result.losses, result.ties) == (0, 0, 70)


@pytest.mark.parametrize("method", ["bootstrap", "randomization"])
def test_a_clear_difference_is_found_in_the_right_direction(method: str) -> None:
    for name in ("bleu", "ter"):
        stats, metric = stats_of(name)
        others = {s: stats[s] for s in ("better", "same")}
        rows = compare_systems(("base", stats["base"]), others, metric, method=method, n_resamples=500, n_trials=500)
        assert [row.name for row in rows] == ["base", "better", "same"]
        assert rows[0].paired is None
        better, same = rows[1].paired, rows[2].paired
        assert better is not None
        assert same is not None
        assert better.p_value < 0.05 < same.p_value
        assert better.wins > better.losses
        assert (better.difference > 0) == metric.higher_is_better
        assert better.low < better.difference < better.high
        assert better.wins + better.losses + better.ties == 70


def test_one_pair_at_a_time_gives_the_same_as_the_table() -> None:
    stats, metric = stats_of("chrf")
    others = {s: stats[s] for s in ("better", "worse")}
    rows = compare_systems(("base", stats["base"]), others, metric, method="bootstrap", n_resamples=200)
    assert rows[2].paired == paired_bootstrap(stats["base"], stats["worse"], metric, n_resamples=200)
    rows = compare_systems(
        ("base", stats["base"]), others, metric, method="randomization", n_resamples=200, n_trials=100
    )
    assert rows[1].paired == paired_approximate_randomization(
        stats["base"], stats["better"], metric, n_resamples=200, n_trials=100
    )


def test_seeds_decide() -> None:
    stats, metric = stats_of("bleu")
    first = bootstrap_interval(stats["base"], metric, n_resamples=50, seed=1)
    assert first == bootstrap_interval(stats["base"], metric, n_resamples=50, seed=1)
    assert first != bootstrap_interval(stats["base"], metric, n_resamples=50, seed=2)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_an_interval_and_both_tests(name: str) -> None:
    rng = random.Random(name)

    def make(shift: int) -> list[Sample]:
        samples = []
        for i in range(12):
            likelihood = Likelihood(-float(rng.randint(5, 9) + shift), 4, 9)
            if name == "span_f1":
                prediction, reference = " ".join(rng.choices(["O", "B-A", "I-A"], k=5)), "B-A I-A O O B-A"
            elif name in {"macro_f1", "micro_f1", "mcc", "accuracy"}:
                prediction, reference = rng.choice("xyz"), "xyz"[i % 3]
            else:
                prediction, reference = " ".join(rng.choices(WORDS, k=6)), " ".join(WORDS[i : i + 6])
            unanswerable = name.endswith("no_ans") or (name in {"squad_f1", "exact_match"} and i % 3 == 0)
            references = () if unanswerable else (reference,)
            samples.append(Sample("" if i % 4 == 3 else prediction, references, form="lines:1", likelihood=likelihood))
        return samples

    metric = get_metric(name)
    first, second = measure(metric, make(0)), measure(metric, make(1))
    assert first.signature == second.signature
    result = first.result(n_resamples=50)
    assert result.low <= result.high
    assert np.isfinite([result.value, result.low, result.high]).all()
    for test in (paired_bootstrap, paired_approximate_randomization):
        paired = test(first.stats, second.stats, first.metric, n_resamples=50)
        assert 0 < paired.p_value <= 1
        assert paired.difference == pytest.approx(second.value - first.value)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_bad_arguments() -> None:
    stats, metric = stats_of("bleu")
    with pytest.raises(InputError, match="same segments"):
        paired_bootstrap(stats["base"], stats["base"][:5], metric)
    with pytest.raises(InputError, match="nothing to resample"):
        bootstrap_interval(stats["base"][:0], metric)
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap_interval(stats["base"], metric, n_resamples=0)
    with pytest.raises(ConfigError, match="trials"):
        paired_approximate_randomization(stats["base"], stats["base"], metric, n_trials=0)
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval(stats["base"], metric, n_resamples=5, level=95)
    with pytest.raises(ConfigError, match="bootstrap"):
        compare_systems(("a", stats["base"]), {}, metric, method="bootstrapping")
