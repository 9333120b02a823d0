"""Reads and writes real files without translating them, and with a translator of capitals; prints what came back.

Usage: python tests/benchmarks/round_trips.py FOLDER... [--limit N] [--verbose]

For each format: files found, read, refused (with their errors under --verbose), bytes that changed without a
translation (must be 0), files that their own library no longer reads after one, and codes that were lost (must be 0).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from document_checks import lost_after, opens_again, shout

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.files import read_bytes
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import NlpkitError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--limit", type=int, default=60, help="most files of a format")
    parser.add_argument("--max-bytes", type=int, default=60_000)
    parser.add_argument("--format", default="", help="names of formats, with commas; by default all")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for folder in arguments.folders:
        for here, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(here, name)
                if os.path.islink(path) or not os.path.isfile(path):
                    continue
                try_file(path, counts, arguments)
    columns = ("files", "refused", "changed", "segments", "codes", "kept", "lost", "unreadable", "errors", "seconds")
    print(f"{'format':12}", *(f"{column:>10}" for column in columns))
    total: Counter[str] = Counter()
    for format_name, count in sorted(counts.items()):
        total.update(count)
        print(f"{format_name:12}", *(f"{count[column]:>10.0f}" for column in columns))
    print(f"{'all':12}", *(f"{total[column]:>10.0f}" for column in columns))


def try_file(path: str, counts: dict[str, Counter[str]], arguments: argparse.Namespace) -> None:
    try:
        data = read_bytes(path) if 0 < os.path.getsize(path) <= arguments.max_bytes else b""
        entry = find_format(path, data[:4096]) if data else None
    except NlpkitError:
        return
    if entry is None or entry.read_only or (arguments.format and entry.name not in arguments.format.split(",")):
        return
    count = counts[entry.name]
    if count["files"] >= arguments.limit:
        return
    count["files"] += 1
    options = ReadOptions(name=path, target_lang="de")
    began = time.perf_counter()
    try:
        document = read_document(data, entry, options)
    except NlpkitError as error:
        count["refused"] += 1
        if arguments.verbose:
            print("refused:", error)
        return
    except Exception as error:
        count["errors"] += 1
        print("ERROR:", path, repr(error))
        return
    count["segments"] += len(document.segments)
    try:
        if write_document(document, [None] * len(document.segments), entry, options) != data:
            count["changed"] += 1
            print("CHANGED:", path)
        translation = translate_segments(document, shout)
        codes, lost = lost_after(document, translation)
        count["codes"] += codes
        count["lost"] += len(lost)
        count["kept"] += translation.kept
        written = write_document(document, translation.results, entry, options)
        why = opens_again(entry.name, data, written, options)
        if why:
            count["unreadable"] += 1
            print("UNREADABLE:", path, why, flush=True)
    except Exception as error:
        count["errors"] += 1
        print("ERROR:", path, repr(error))
        if arguments.verbose:
            traceback.print_exc(file=sys.stdout)
    seconds = time.perf_counter() - began
    count["seconds"] += seconds
    if seconds > 20:
        print(f"SLOW: {path} {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
