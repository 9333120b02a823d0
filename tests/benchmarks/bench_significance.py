"""Time the paired bootstrap of several systems against sacrebleu's, at the same settings.

Extracting statistics costs both sides the same and is left out on both: sacrebleu's extraction is replaced by a look-up
while it runs. Prints one JSON object; never gates.

Run: ``python tests/benchmarks/bench_significance.py [--segments 2000] [--systems 9] [--resamples 10000]``
"""

from __future__ import annotations

import argparse
import json
import random
import time

import numpy as np
import sacrebleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from nlpkit.eval.metrics.registry import get_metric
from nlpkit.eval.statistics.measure import build_samples, measure
from nlpkit.eval.statistics.significance import compare_systems


class StoredBleu(BLEU):
    """sacrebleu's BLEU with statistics taken from a table, so that only its resampling is timed."""

    def __init__(self, table: dict[str, list[list[int]]], n_references: int) -> None:
        super().__init__()
        self._table = table
        self.num_refs = n_references

    def _extract_corpus_statistics(self, hypotheses, references):
        return self._table[hypotheses[0]]


def build_systems(n_segments: int, n_systems: int, seed: int = 7) -> tuple[list[str], dict[str, list[str]]]:
    """Make references and ever worse copies of them. Each first line names its system, for the look-up."""
    rng = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(3000)]
    references = [" ".join(rng.choices(vocabulary, k=rng.randint(8, 40))) for _ in range(n_segments)]
    systems = {}
    for system in range(n_systems):
        rate = 0.15 + 0.01 * system
        lines = [
            " ".join(rng.choice(vocabulary) if rng.random() < rate else word for word in line.split())
            for line in references
        ]
        systems[f"s{system}"] = [f"s{system} {lines[0]}", *lines[1:]]
    return references, systems


def main() -> None:
    """Run both and print the times, their ratio, and the largest difference of p-values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--segments", type=int, default=2000)
    parser.add_argument("--systems", type=int, default=9)
    parser.add_argument("--resamples", type=int, default=10000)
    options = parser.parse_args()

    references, systems = build_systems(options.segments, options.systems)
    metric = get_metric("bleu")
    stats = {name: measure(metric, build_samples(lines, references)).stats for name, lines in systems.items()}

    start = time.perf_counter()
    names = list(systems)
    others = {name: stats[name] for name in names[1:]}
    baseline = (names[0], stats[names[0]])
    rows = compare_systems(baseline, others, metric, method="bootstrap", n_resamples=options.resamples)
    ours = time.perf_counter() - start

    table = {systems[name][0]: stats[name].astype(int).tolist() for name in names}
    start = time.perf_counter()
    test = PairedTest(
        list(systems.items()), {"BLEU": StoredBleu(table, 1)}, [references], test_type="bs", n_samples=options.resamples
    )
    _, scores = test()
    theirs = time.perf_counter() - start

    differences = [
        abs(row.paired.p_value - result.p_value)
        for row, result in zip(rows[1:], scores["BLEU"][1:], strict=True)
        if row.paired is not None
    ]
    print(
        json.dumps(
            {
                "segments": options.segments,
                "systems": options.systems,
                "resamples": options.resamples,
                "nlpkit_s": round(ours, 3),
                "sacrebleu_s": round(theirs, 3),
                "ratio": round(theirs / ours, 1),
                "largest_p_value_difference": float(np.max(differences)),
                "sacrebleu": sacrebleu.__version__,
                "numpy": np.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
