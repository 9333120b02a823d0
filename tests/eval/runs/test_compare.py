"""Comparing runs: what is refused, and that the numbers are those of the tests behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nlpkit.core.errors import ConfigError, InputError
from nlpkit.eval.metrics.base import Sample
from nlpkit.eval.metrics.registry import MetricOptions, get_metric
from nlpkit.eval.runs.compare import CompareOptions, compare_runs
from nlpkit.eval.runs.predictions import describe_predictions, load_predictions
from nlpkit.eval.runs.rescoring import rescore, write_run
from nlpkit.eval.runs.run_folder import Run, load_run
from nlpkit.eval.runs.scoring import ScoringOptions
from nlpkit.eval.statistics.significance import paired_approximate_randomization, paired_bootstrap

REFERENCES = [f"the old man number {n} saw a {'red' if n % 2 else 'green'} dog near the house" for n in range(40)]
GOOD = [text.replace("near", "by") if n % 4 == 0 else text for n, text in enumerate(REFERENCES)]
BAD = [text.replace("dog", "cat").replace("old man", "woman") for text in REFERENCES]

Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a run of predictions."""

    def build(
        name: str,
        predictions: list[str],
        *,
        references: list[str] = REFERENCES,
        metrics: tuple[str, ...] = ("bleu", "chrf"),
        options: MetricOptions | None = None,
    ) -> Run:
        ours, theirs = tmp_path / f"{name}.txt", tmp_path / f"{name}.ref"
        ours.write_text("\n".join(predictions) + "\n", encoding="utf-8")
        theirs.write_text("\n".join(references) + "\n", encoding="utf-8")
        records = load_predictions(str(ours), [str(theirs)])
        record = describe_predictions(str(ours), [str(theirs)], records, name=name)
        scoring = ScoringOptions(metrics=metrics, options=options or MetricOptions(), n_resamples=100)
        write_run(tmp_path / name, record, records, scoring)
        return load_run(tmp_path / name)

    return build


def test_numbers_are_those_of_the_tests(make: Make) -> None:
    comparison = compare_runs([make("bad", BAD), make("good", GOOD)], CompareOptions(n_resamples=300, n_trials=500))
    metric = get_metric("bleu")
    stats = [
        metric.segment_stats([Sample(text, (reference,)) for text, reference in zip(texts, REFERENCES, strict=True)])
        for texts in (BAD, GOOD)
    ]
    bootstrap = paired_bootstrap(*stats, metric, n_resamples=300)
    randomization = paired_approximate_randomization(*stats, metric, n_trials=500)
    bleu = comparison.metrics[0]
    baseline, system = bleu.systems
    assert (bleu.name, bleu.n, bleu.signature) == ("bleu", 40, metric.signature([Sample("a", ("a",))]))
    assert not baseline.paired
    assert baseline.value == pytest.approx(bootstrap.baseline)
    assert system.difference == pytest.approx(bootstrap.difference)
    assert system.p_values["bootstrap"] == bootstrap.p_value
    assert system.p_values["randomization"] == randomization.p_value
    assert (system.wins, system.losses, system.ties) == (bootstrap.wins, bootstrap.losses, bootstrap.ties)
    assert system.low_difference <= system.difference <= system.high_difference
    assert system.wins == 40


def test_the_rows_that_changed_most(make: Make) -> None:
    changed = list(REFERENCES)
    changed[7] = "something else entirely"
    changed[12] = changed[12].replace("dog", "cat")
    comparison = compare_runs([make("a", REFERENCES), make("b", changed)], CompareOptions(n_examples=3))
    assert [example.id for example in comparison.examples] == ["7", "12"]
    first = comparison.examples[0]
    assert first.before == pytest.approx(100.0)
    assert first.after < 20
    assert first.predictions == {"a": REFERENCES[7], "b": changed[7]}


def test_equal_systems(make: Make) -> None:
    comparison = compare_runs([make("a", GOOD), make("b", GOOD), make("c", BAD)])
    same, other = comparison.metrics[0].systems[1:]
    assert set(same.p_values.values()) == {1.0}
    assert (same.wins, same.losses, same.ties) == (0, 0, 40)
    assert all(other.p_corrected[method] >= p for method, p in other.p_values.items())
    assert json.loads(json.dumps(comparison.to_dict()))["metrics"][0]["systems"][0]["name"] == "a"


def test_other_data_is_refused_by_name(make: Make) -> None:
    references = list(REFERENCES)
    references[4] = "something else"
    with pytest.raises(InputError, match=r"row '4' .*other references"):
        compare_runs([make("a", GOOD), make("b", GOOD, references=references)])
    with pytest.raises(InputError, match="different rows: 10 only in the first, 0 only in the second"):
        compare_runs([make("a", GOOD), make("c", GOOD[:30], references=REFERENCES[:30])])


def test_other_signatures_are_refused_by_name(make: Make) -> None:
    one, two = make("a", GOOD), make("b", GOOD, options=MetricOptions(tokenizer="char"))
    with pytest.raises(InputError, match=r"bleu was computed differently: .*tok:13a.*tok:char"):
        compare_runs([one, two])
    assert [metric.name for metric in compare_runs([one, two], CompareOptions(metrics=("chrf",))).metrics] == ["chrf"]
    rescore(one.folder, ScoringOptions(metrics=("bleu",), options=MetricOptions(tokenizer="char"), n_resamples=50))
    assert compare_runs([load_run(one.folder), two]).metrics[0].systems[1].difference == 0


def test_metrics_that_not_all_have(make: Make) -> None:
    one, two = make("a", GOOD), make("b", GOOD, metrics=("chrf", "ter"))
    assert [metric.name for metric in compare_runs([one, two]).metrics] == ["chrf"]
    with pytest.raises(ConfigError, match="b has no score for 'bleu'"):
        compare_runs([one, two], CompareOptions(metrics=("bleu",)))
    with pytest.raises(ConfigError, match="no metric in common"):
        compare_runs([one, make("c", GOOD, metrics=("ter",))])
    with pytest.raises(ConfigError, match="takes two"):
        compare_runs([one])


def test_unfinished_runs_are_refused(make: Make) -> None:
    one, two = make("a", GOOD), make("b", GOOD)
    samples = two.folder / "samples.jsonl"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(InputError, match="37 of 40 rows"):
        compare_runs([one, load_run(two.folder)])


def test_failed_rows_are_left_out_of_all(make: Make) -> None:
    one, two = make("a", GOOD), make("b", GOOD)
    path = two.folder / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["error"] = "failed"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparison = compare_runs([one, load_run(two.folder)])
    assert comparison.metrics[0].n == 39
    assert "1 rows failed" in comparison.notes[0]


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_run(tmp_path / "none")
    with pytest.raises(InputError, match=r"no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"nlpkit_run": 99}')
    with pytest.raises(InputError, match="newer nlpkit"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_run(tmp_path)
