"""Round trips of real office files: what comes back without and with translation, and what other libraries say of it.

    python tests/benchmarks/office_files.py FOLDER...

Each file is read and written without translation, which must give the same bytes; then with every text in capitals,
which must change the parts with text alone, keep every code, say the same when it is read again, and open in the
format's own library where that opens the original.
"""

from __future__ import annotations

import io
import sys
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from nlpkit.apps.documents.document import Code, ReadOptions, Segment, Translated
from nlpkit.apps.documents.registry import FORMATS, FormatEntry
from nlpkit.core.errors import NlpkitError

NAMES = ("docx", "pptx", "xlsx", "odt", "odp", "ods", "fodt", "epub", "ipynb", "rtf")


def open_docx(data: bytes) -> None:
    import docx

    document = docx.Document(io.BytesIO(data))
    for paragraph in document.paragraphs:
        _ = paragraph.text


def open_pptx(data: bytes) -> None:
    import pptx

    for slide in pptx.Presentation(io.BytesIO(data)).slides:
        for shape in slide.shapes:
            _ = shape.has_text_frame and shape.text_frame.text


def open_xlsx(data: bytes) -> None:
    import openpyxl

    for sheet in openpyxl.load_workbook(io.BytesIO(data)):
        for row in sheet.iter_rows():
            for cell in row:
                _ = cell.value


def open_odf(data: bytes) -> None:
    from odf.opendocument import load

    load(io.BytesIO(data))


def open_epub(data: bytes) -> None:
    from ebooklib import ITEM_DOCUMENT, epub

    for item in epub.read_epub(io.BytesIO(data)).get_items_of_type(ITEM_DOCUMENT):
        item.get_content()


OPENERS: dict[str, Callable[[bytes], None]] = {
    "docx": open_docx,
    "pptx": open_pptx,
    "xlsx": open_xlsx,
    "odt": open_odf,
    "odp": open_odf,
    "ods": open_odf,
    "epub": open_epub,
}


def opens(entry: FormatEntry, data: bytes) -> str:
    opener = OPENERS.get(entry.name)
    if opener is None:
        return "-"
    try:
        opener(data)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return "yes"


def changed_parts(before: bytes, after: bytes) -> str:
    if before[:4] != b"PK\x03\x04":
        return "-"
    one, two = zipfile.ZipFile(io.BytesIO(before)), zipfile.ZipFile(io.BytesIO(after))
    assert one.namelist() == two.namelist(), "the parts are others, or in another order"
    assert two.testzip() is None
    changed = sum(one.read(name) != two.read(name) for name in one.namelist())
    return f"{changed}/{len(one.namelist())}"


def capitals(parts: tuple) -> tuple:
    return tuple(part.upper() if isinstance(part, str) else part for part in parts)


def same(one: Segment, two: Segment) -> bool:
    """Return whether a segment says in capitals what it said, with the same codes; a note within a code is in capitals."""
    codes, others = (
        [(part.role, part.literal.upper()) for part in segment.parts if isinstance(part, Code)]
        for segment in (one, two)
    )
    return one.text.upper().split() == two.text.upper().split() and codes == others


def check(path: Path, entry: FormatEntry) -> tuple[str, str]:
    """Return how it went in a word, and details."""
    data = path.read_bytes()
    options = ReadOptions(name=str(path))
    began = time.perf_counter()
    try:
        document = entry.build().read(data, options)
    except NlpkitError as error:
        state = opens(entry, data)
        return "refused", f"own library opens it: {state}; {str(error).split('cannot be read as')[-1][:90]}"
    segments = document.segments
    if entry.build().write(document.skeleton, [None] * len(segments), options) != data:
        return "CHANGED", "without translation"
    results = [Translated(parts=capitals(segment.parts)) for segment in segments]
    after = entry.build().write(document.skeleton, results, options)
    again = entry.build().read(after, options)
    seconds = time.perf_counter() - began
    kept = [same(one, two) for one, two in zip(segments, again.segments, strict=False)]
    details = f"{len(segments)} segments, parts changed {changed_parts(data, after)}, {seconds:.2f} s"
    if len(again.segments) != len(segments) or not all(kept):
        return "DIFFERS", f"{details}; {len(again.segments)} read again, {kept.count(False)} differ"
    before = opens(entry, data)
    now = opens(entry, after)
    if before != now:
        return "UNOPENED", f"{details}; before {before}, now {now}"
    return "kept", f"{details}; opens: {now}"


def main() -> None:
    warnings.simplefilter("ignore")
    counts: Counter[tuple[str, str]] = Counter()
    entries = {suffix: entry for entry in FORMATS if entry.name in NAMES for suffix in entry.suffixes}
    for folder in sys.argv[1:]:
        for path in sorted(Path(folder).rglob("*")):
            entry = entries.get(path.suffix.lower())
            if entry is None or not path.is_file():
                continue
            try:
                state, details = check(path, entry)
            except Exception as error:
                state, details = "FAILED", f"{type(error).__name__}: {str(error)[:120]}"
            counts[entry.name, state] += 1
            print(f"{entry.name}\t{state}\t{path.relative_to(folder)}\t{details}")
    print()
    states = sorted({state for _, state in counts})
    print("format\t" + "\t".join(states))
    for name in NAMES:
        if any(counts[name, state] for state in states):
            print(name + "\t" + "\t".join(str(counts[name, state]) for state in states))


if __name__ == "__main__":
    main()
