"""Draws real sentences with codes and placeholders, and lets a bad translator at them: what is kept, and what is not.

    python tests/benchmarks/inline_codes.py FOLDER... [--count 500] [--seed 0] [--show 50]

The translator drops, doubles, shuffles and invents codes. Counted are the codes and placeholders of sentences that were
translated all the same, of those that were left as they were and told, of those that it gave back unchanged, and those
that were lost or doubled (must be 0).
--show prints so many places that the grammar of protected text has found, for a person to judge.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from document_checks import Mangler

from nlpkit.apps.documents.document import Code, Document, ReadOptions, Segment, Translated
from nlpkit.apps.documents.registry import FormatEntry, find_format, read_document
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.apps.text.translation.protected_grammar import HARD_KINDS, find_protected
from nlpkit.core.errors import NlpkitError


def codes_of(parts: tuple[str | Code, ...]) -> Counter[tuple[str, str]]:
    """Return the codes of a text, and the placeholders within its words."""
    found: Counter[tuple[str, str]] = Counter()
    for part in parts:
        if isinstance(part, Code):
            found["code", part.literal] += 1
        else:
            spans = find_protected(part)
            found.update((span.kind, part[span.start : span.end]) for span in spans if span.kind in HARD_KINDS)
    return found


def drawn(folders: list[str], draw: random.Random, count: int) -> list[tuple[str, Document, Segment]]:
    """Draw segments until they have so many codes, as many of each format as there are."""
    by_format: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        if path.stat().st_size < 200_000:
            entry = _format(path)
            if entry is not None:
                by_format[entry.name].append(path)
    for paths in by_format.values():
        draw.shuffle(paths)
    found: list[tuple[str, Document, Segment]] = []
    n_codes = 0
    while n_codes < count and any(by_format.values()):
        for name, paths in by_format.items():
            path = paths.pop() if paths else None
            entry = _format(path) if path is not None else None
            if path is None or entry is None:
                continue
            try:
                document = read_document(path.read_bytes(), entry, ReadOptions(name=path.name, target_lang="de"))
            except NlpkitError:
                continue
            with_codes = [segment for segment in document.segments if codes_of(segment.parts)]
            for segment in draw.sample(with_codes, min(2, len(with_codes))):
                found.append((name, document, segment))
                n_codes += sum(codes_of(segment.parts).values())
            if n_codes >= count:
                break
    return found


def _format(path: Path) -> FormatEntry | None:
    try:
        entry = find_format(str(path), path.read_bytes()[:4096])
    except NlpkitError:
        return None
    return None if entry is None or entry.read_only or entry.name in ("csv-columns", "tsv-columns") else entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0, help="print so many places that were found")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    segments = drawn(arguments.folders, draw, arguments.count)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    mangle = Mangler(arguments.seed)
    for name, document, segment in segments:
        one = Document(segments=(segment,), skeleton=None, format=document.format)
        translation = translate_segments(one, mangle)
        before = codes_of(segment.parts)
        result: Translated | None = translation.results[0]
        n = sum(before.values())
        counts[name]["codes"] += n
        if result is None or result.parts == segment.parts:
            # A translator may also give a sentence back as it was.
            counts[name]["left" if translation.kept else "unchanged"] += n
        else:
            after = codes_of(result.parts)
            # What stands around a placeholder may hide it from the grammar, and not from a program that fills it.
            words = "".join(part for part in result.parts if isinstance(part, str))
            lost = {key: n for key, n in (before - after).items() if key[0] == "code" or key[1] not in words}
            wrong = sum(lost.values()) + sum((after - before).values())
            counts[name]["translated"] += n
            counts[name]["wrong"] += wrong
            if wrong:
                print("WRONG:", name, lost, dict(after - before), segment.parts, result.parts)
    names = ("codes", "translated", "left", "unchanged", "wrong")
    print("\t".join(("format", *names)))
    total: Counter[str] = Counter()
    for name, count in sorted(counts.items()):
        total.update(count)
        print("\t".join((name, *(str(count[one]) for one in names))))
    print("\t".join(("all", *(str(total[one]) for one in names))))
    places = [
        (name, part, span)
        for name, _, segment in segments
        for part in segment.parts
        if isinstance(part, str)
        for span in find_protected(part)
    ]
    for name, part, span in draw.sample(places, min(arguments.show, len(places))):
        around = part[max(0, span.start - 30) : span.start], part[span.start : span.end], part[span.end : span.end + 30]
        print(name, span.kind, "{}>>>{}<<<{}".format(*(text.replace("\n", " ") for text in around)), sep="\t")


if __name__ == "__main__":
    main()
