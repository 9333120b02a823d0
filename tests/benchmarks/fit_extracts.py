"""Fits the weights of extracts: ``python tests/benchmarks/fit_extracts.py [--dev] ROWS[:SENTENCES] ...``.

Each file holds rows with ``document`` and ``summary`` (JSON Lines; .gz and .xz are read). A sentence is as good as its
ROUGE-1 and ROUGE-2 with the summary, as a share of the best one's; the weights make a softmax over the sentences of a
document like one over how good they are (ListNet: Cao et al., 2007). Every file counts alike, every document of a file
too. With ``--dev`` nothing is fitted: ROUGE of as many sentences as follow the colon is printed for extracts by today's
weights, for the first sentences, and for TextRank and LexRank of ``sumy`` where that is installed.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import lzma
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rouge_score import rouge_scorer

from nlpkit.apps.text.extracts.choice import extract
from nlpkit.apps.text.extracts.features import NAMES, features
from nlpkit.apps.text.extracts.sentences import find_sentences

SHARPNESS, DECAY = 0.15, 1e-3
FEWEST, MOST = 3, 400
"""Sentences of documents that are learned from."""
OPENERS: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open}


def read(path: str, most: int) -> list[dict[str, Any]]:
    with OPENERS.get(path.rpartition(".")[2], open)(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    random.Random(0).shuffle(rows)
    return rows[:most]


def references(row: dict[str, Any]) -> list[str]:
    return [text for text in row.get("references") or [row.get("summary")] if text]


@functools.cache
def scorer() -> rouge_scorer.RougeScorer:
    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def lessons(path: str, most: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for row in read(path, most):
        sentences = find_sentences(row["document"])
        if not FEWEST <= len(sentences) <= MOST or not references(row):
            continue
        scores = [scorer().score(references(row)[0], one.text) for one in sentences]
        good = torch.tensor([one["rouge1"].fmeasure + one["rouge2"].fmeasure for one in scores], dtype=torch.float64)
        if good.max() > 0:
            yield torch.tensor(features(sentences), dtype=torch.float64), good / good.max()


def fit(sources: list[list[tuple[torch.Tensor, torch.Tensor]]]) -> dict[str, float]:
    weights = torch.zeros(len(NAMES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = DECAY * (weights * weights).sum()
        for source in sources:
            for rows, good in source:
                wanted = torch.softmax(good / SHARPNESS, 0)
                loss = loss - (wanted * torch.log_softmax(rows @ weights, 0)).sum() / len(source) / len(sources)
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = dict(zip(NAMES, map(float, weights.detach()), strict=True))
    # Headings match titles, which does not make fragments readable.
    return {**fitted, "incomplete": min(0.0, fitted["incomplete"])}


def systems() -> dict[str, Callable[[str, int], str]]:
    found: dict[str, Callable[[str, int], str]] = {
        "nlpkit": lambda text, n: "\n".join(one.text for one in extract(text, sentences=n).sentences),
        "first": lambda text, n: "\n".join(one.text for one in find_sentences(text)[:n]),
    }
    try:
        from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence  # type: ignore[import-not-found]
        from sumy.nlp.stemmers import Stemmer  # type: ignore[import-not-found]
        from sumy.summarizers.lex_rank import LexRankSummarizer  # type: ignore[import-not-found]
        from sumy.summarizers.text_rank import TextRankSummarizer  # type: ignore[import-not-found]
        from sumy.utils import get_stop_words  # type: ignore[import-not-found]
    except ImportError:
        return found

    class Words:
        def to_words(self, text: str) -> tuple[str, ...]:
            return next((one.words for one in find_sentences(text)), ())

    def ranked(kind: Any) -> Callable[[str, int], str]:
        summarizer = kind(Stemmer("english"))
        summarizer.stop_words = get_stop_words("english")

        def summarize(text: str, n: int) -> str:
            # The same sentences for all.
            sentences = [Sentence(one.text, Words()) for one in find_sentences(text)]
            return "\n".join(str(one) for one in summarizer(ObjectDocumentModel([Paragraph(sentences)]), n))

        return summarize

    return {**found, "TextRank": ranked(TextRankSummarizer), "LexRank": ranked(LexRankSummarizer)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--rows", type=int, default=250, help="of each file")
    options = parser.parse_args()
    named = [name.rpartition(":") if name.rpartition(":")[2].isdigit() else (name, ":", "3") for name in options.files]
    if not options.dev:
        for name, weight in fit([list(lessons(path, options.rows)) for path, _, _ in named]).items():
            print(f'    "{name}": {weight:.2f},')
        return
    kinds = ("rouge1", "rouge2", "rougeL")
    print(f"{'rows':<40}{'sentences':>10}" + "".join(f"{name:>20}" for name in systems()))
    for path, _, count in named:
        rows = [row for row in read(path, options.rows) if references(row) and find_sentences(row["document"])]
        cells = []
        for summarize in systems().values():
            found = [
                max(
                    ([scorer().score(one, text)[kind].fmeasure for kind in kinds] for one in references(row)),
                    key=lambda values: values[0],
                )
                for row in rows
                for text in [summarize(row["document"], int(count))]
            ]
            means = [100 * sum(values) / len(values) for values in zip(*found, strict=True)]
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        print(f"{path.rpartition('/')[2]:<40}{count:>10}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
