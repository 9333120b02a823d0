"""Scoring lists, and the table of metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import get_metric, metric_names
from nlpkit.eval.statistics.measure import build_samples, measure, score_samples


def test_result_says_everything() -> None:
    samples = build_samples(["the cat sat on the mat", "hello there"], ["the cat sat on a mat", "hello there you"])
    result = score_samples("bleu", samples, n_resamples=100, seed=3)
    record = result.as_dict()
    assert record["metric"] == "bleu"
    assert record["n"] == 2
    assert record["low"] <= record["value"] <= record["high"]
    assert record["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert any("too few" in note for note in record["notes"])
    assert result == score_samples("bleu", samples, n_resamples=100, seed=3)


def test_options_reach_the_metric() -> None:
    samples = build_samples(["THE CAT"], ["the cat"])
    assert score_samples("chrf", samples, lowercase=True, n_resamples=2).value == pytest.approx(100.0)
    assert "case:mixed" in score_samples("ter", samples, lowercase=False, n_resamples=2).signature
    assert "tok:char" in score_samples("bleu", samples, tokenizer="char", n_resamples=2).signature
    assert "case:lc" in score_samples("ter", samples, n_resamples=2).signature


def test_options_that_a_metric_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"chrf does not take stemmer.*It takes: lowercase"):
        get_metric("chrf", stemmer=True)
    with pytest.raises(ConfigError, match="takes: no options"):
        get_metric("perplexity", tokenizer="13a")
    get_metric("perplexity", lang="de")


@pytest.mark.parametrize(
    ("name", "hint"), [("blue", "bleu"), ("rougel", "rougeL"), ("ROUGELSUM", "rougeLsum"), ("f1", "f1")]
)
def test_unknown_metrics_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        get_metric(name)


def test_the_promised_names_exist() -> None:
    promised = "bleu chrf chrf++ ter rouge1 rouge2 rougeL rougeLsum exact_match squad_f1 accuracy macro_f1 micro_f1 mcc"
    promised += " span_f1 perplexity bits_per_byte distinct1 distinct2 self_bleu repetition"
    assert set(promised.split()) <= set(metric_names())
    assert [get_metric(name).name for name in metric_names()] == list(metric_names())


@pytest.mark.parametrize("references", [["a"], "a", ("a", 1), None])
def test_wrongly_shaped_references_cannot_be_made(references: object) -> None:
    with pytest.raises(InputError):
        Sample("a", references)  # type: ignore[arg-type]


def test_wrongly_shaped_predictions_cannot_be_made() -> None:
    with pytest.raises(InputError, match="must be a string"):
        Sample(None)  # type: ignore[arg-type]


def test_streams_must_be_parallel() -> None:
    with pytest.raises(InputError, match="Reference stream 2 has 1 segments and there are 2"):
        build_samples(["a", "b"], ["a", "b"], ["a"])
    with pytest.raises(InputError, match="list of strings"):
        build_samples(["a", "b"], "ab")
    assert build_samples(["a"], ["b"], ["c"]) == [Sample("a", ("b", "c"))]


def test_nothing_to_score() -> None:
    with pytest.raises(InputError, match="nothing to score"):
        measure(get_metric("bleu"), [])


def test_metrics_need_no_torch() -> None:
    code = (
        "import sys; from nlpkit.eval.statistics.measure import build_samples, score_samples\n"
        "s = build_samples(['a b'], ['a b'])\n"
        "[score_samples(n, s, n_resamples=2) for n in ('bleu', 'rouge1', 'squad_f1', 'mcc')]\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
