"""Training data of the shipped adapters, from the corpora that their cards name: ``python -m ... DATA OUTPUT``.

Everything is chosen by hashes of the rows, so the result depends on the corpora alone. What is held out never enters a
training file: whole articles for questions, whole rows elsewhere.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
HELD_OUT_ARTICLES = 0.05
"""Share of the articles whose questions are only for development."""
DEV_ROWS = 500


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file, compressed or not."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON Lines."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    print(f"{path}: {count} rows")


def chance(*parts: object) -> float:
    """Return a number from 0 to below 1 that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sample(rows: Iterable[Row], count: int) -> list[Row]:
    """Take rows by their hashes."""
    return sorted(rows, key=lambda row: chance("sample", json.dumps(row, sort_keys=True)))[:count]


def qa(data: Path, output: Path) -> None:
    """SQuAD 1.1: every third paragraph or so also gets a question that it does not answer."""
    articles: dict[str, dict[str, list[Row]]] = {}
    for row in read(data / "squad_v1.1" / "train.jsonl.gz"):
        articles.setdefault(row["title"], {}).setdefault(row["context"], []).append(row)
    train: list[Row] = []
    dev: list[Row] = []
    unanswerable: list[Row] = []
    for title, paragraphs in articles.items():
        held_out = chance("article", title) < HELD_OUT_ARTICLES
        for context, rows in paragraphs.items():
            kept = [{key: row[key] for key in ("id", "context", "question", "answers")} for row in rows]
            (dev if held_out else train).extend(kept)
            if chance("negative", context) < 0.6:
                foreign = _foreign_question(context, paragraphs)
                if foreign is not None:
                    row = {"id": f"{foreign['id']}-no", "context": context, "question": foreign["question"], "answers": []}
                    (unanswerable if held_out else train).append(row)
    write(output / "qa.train.jsonl", train)
    write(output / "qa.dev.jsonl", sample(dev, DEV_ROWS))
    write(output / "qa.dev-unanswerable.jsonl", sample(unanswerable, DEV_ROWS // 2))


def _foreign_question(context: str, paragraphs: Mapping[str, list[Row]]) -> Row | None:
    others = [row for other, rows in paragraphs.items() if other != context for row in rows]
    for row in sorted(others, key=lambda row: chance("foreign", context, row["id"]))[:4]:
        if not any(answer.casefold() in context.casefold() for answer in row["answers"]):
            return row
    return None


TASKS = {"qa": qa}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the corpora")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="which")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        TASKS[name](options.data, options.output)


if __name__ == "__main__":
    main()
