"""How well questions to a folder are answered: ``python tests/benchmarks/ask_files.py ROWS [--documents 100]``.

ROWS (JSON Lines; .gz and .xz are read) have ``title``, ``context``, ``question`` and ``answers``; the contexts of a title
are one document. Documents are drawn at random, ``--titles FILE`` names those that questions are drawn from (a title a
line; all by default). Prints how often the right document is among the first ones and an answer in the passages asked,
and F1 and exact match (as SQuAD's) of the answers, beside those with the right paragraph given.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import nlpkit
from nlpkit.apps.asking import answers as asking
from nlpkit.apps.asking.collection import Collection
from nlpkit.eval.metrics.squad import answer_f1, normalise_answer

OPENERS: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open}
WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--questions", type=int, default=100, help="that are answered; more are searched for")
    parser.add_argument("--searches", type=int, default=2000)
    parser.add_argument("--titles", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with OPENERS.get(options.rows.rpartition(".")[2], open)(options.rows, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    documents: dict[str, dict[str, None]] = {}
    for row in rows:
        documents.setdefault(row["title"], {})[row["context"]] = None
    asked = options.titles.read_text().splitlines() if options.titles else sorted(documents)
    rng = random.Random(options.seed)
    others = sorted(set(documents) - set(asked))
    titles = rng.sample(sorted(set(asked) & set(documents)), min(len(asked), options.documents))
    titles += rng.sample(others, max(0, min(len(others), options.documents - len(titles))))
    questions = [row for row in rows if row["title"] in titles and row["title"] in set(asked)]
    rng.shuffle(questions)
    with tempfile.TemporaryDirectory() as name:
        for title in titles:
            Path(name, title.replace("/", "-") + ".txt").write_text("\n\n".join(documents[title]), encoding="utf-8")
        began = time.perf_counter()
        collection = Collection.read([name])
        print(
            f"{len(titles)} documents, {len(collection.passages)} passages, read in {time.perf_counter() - began:.1f} s"
        )
        search(collection, questions[: options.searches])
        answer(collection, questions[: options.questions])


def search(collection: Collection, questions: list[dict[str, Any]]) -> None:
    counts = {name: dict.fromkeys((1, 3, 5, 8, 12), 0) for name in ("document", "answer")}
    began = time.perf_counter()
    ranked = [collection.best(row["question"], most=40) for row in questions]
    seconds = time.perf_counter() - began
    for row, found in zip(questions, ranked, strict=True):
        names = list(dict.fromkeys(Path(collection.texts[one.source].name).stem for one, _ in found))
        right = [
            any(text in one.text for text in row["answers"])
            and Path(collection.texts[one.source].name).stem == row["title"].replace("/", "-")
            for one, _ in found
        ]
        for n in counts["document"]:
            counts["document"][n] += row["title"].replace("/", "-") in names[:n]
            counts["answer"][n] += any(right[:n])
    print(f"{len(questions)} searches, {1000 * seconds / len(questions):.1f} ms each; among the first n, in percent:")
    for name, found_at in counts.items():
        print(f"  {name:<10}" + "".join(f"  {n}: {100 * hits / len(questions):.1f}" for n, hits in found_at.items()))


def answer(collection: Collection, questions: list[dict[str, Any]]) -> None:
    lm = nlpkit.load()
    given = lm.run("qa", [{"context": row["context"], "question": row["question"]} for row in questions])
    show("the right paragraph given", [one.text for one in given], questions)
    seconds = []
    texts: dict[float, list[str]] = {weight: [] for weight in WEIGHTS}
    for row in questions:
        began = time.perf_counter()
        known: list[Any] = []

        def ask(asked: Any, known: list[Any] = known) -> Any:
            known[:] = known or lm.run("qa", list(asked))
            return known

        for weight in WEIGHTS:
            asking.RANK_WEIGHT = weight
            found = asking.ask_collection(ask, row["question"], collection)
            texts[weight].append(found.answers[0].text if found.answers else "")
        seconds.append(time.perf_counter() - began)
    for weight in WEIGHTS:
        show(f"from all documents, rank weight {weight:g}", texts[weight], questions)
    print(f"{sorted(seconds)[len(seconds) // 2]:.2f} s a question in the median")


def show(name: str, texts: list[str], questions: list[dict[str, Any]]) -> None:
    pairs = list(zip(texts, questions, strict=True))
    f1 = sum(max(answer_f1(text, one) for one in row["answers"]) for text, row in pairs) / len(pairs)
    exact = sum(
        max(float(normalise_answer(text) == normalise_answer(one)) for one in row["answers"]) for text, row in pairs
    ) / len(pairs)
    print(f"{name:<40} F1 {100 * f1:.1f}  exact {100 * exact:.1f}", flush=True)


if __name__ == "__main__":
    main()
