"""Opens translated documents with the programs that their formats are made for, before and after; prints what they say.

    python tests/benchmarks/open_written.py FOLDER... [--limit N] [--format NAME,NAME]

Each file is translated into capitals, with the codes as they are, and given to a program: msgfmt (gettext PO), lrelease
(Qt TS), LibreOffice without a window (its text of office documents must be that of the original, in capitals),
epubcheck (no more errors than before), php, asciidoctor, and the libraries icalendar, pysubs2 and nbformat. What a
program does not open before is told apart. Programs that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from document_checks import shout

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.files import read_bytes
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import NlpkitError

Said = Mapping[Path, str | None]
"""What a program says of files: a text or a number to compare, empty where it opens them, None where it does not."""

LRELEASE = ("lrelease", "/usr/lib/qt6/bin/lrelease", "/usr/lib/qt5/bin/lrelease")


def run(*arguments: str | Path, seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """Run a program without a display, and keep what it says."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [str(one) for one in arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        env=environment,
        check=False,
    )


def each(*arguments: str) -> Callable[[Sequence[Path]], Said]:
    """Run a program for each file; its exit code says whether it opens it."""

    def said(paths: Sequence[Path]) -> Said:
        return {path: "" if run(*arguments, path).returncode == 0 else None for path in paths}

    return said


def office(filter_name: str, suffix: str) -> Callable[[Sequence[Path]], Said]:
    """Convert files with LibreOffice; their texts are compared without case and blanks."""

    def said(paths: Sequence[Path]) -> Said:
        with tempfile.TemporaryDirectory() as folder:
            profile = f"-env:UserInstallation=file://{folder}/profile"
            run("soffice", profile, "--headless", "--convert-to", filter_name, "--outdir", f"{folder}/out", *paths,
                seconds=1800)  # fmt: skip
            found: dict[Path, str | None] = {}
            for path in paths:
                made = Path(folder, "out", path.with_suffix(suffix).name)
                text = made.read_text("utf-8", "replace") if made.exists() and suffix != ".pdf" else ""
                found[path] = "".join(text.upper().split()) if made.exists() else None
        return found

    return said


def epubcheck(paths: Sequence[Path]) -> Said:
    """Count what the checker of EPUB calls an error, by kind."""
    found: dict[Path, str | None] = {}
    for path in paths:
        # Its file is a Java archive, which not every system runs by its name.
        done = run("java", "-jar", shutil.which("epubcheck") or "", path, "--json", "-", "-q")
        at = done.stdout.find("{")
        messages = json.loads(done.stdout[at:])["messages"] if at >= 0 else []
        kinds = Counter(one["ID"] for one in messages if one["severity"] in ("ERROR", "FATAL"))
        found[path] = " ".join(f"{kind}:{count}" for kind, count in sorted(kinds.items()))
    return found


def library(read: Callable[[Path], object]) -> Callable[[Sequence[Path]], Said]:
    """Open files with a library, which returns what must stay."""

    def said(paths: Sequence[Path]) -> Said:
        found: dict[Path, str | None] = {}
        for path in paths:
            try:
                found[path] = str(read(path))
            except Exception:
                found[path] = None
        return found

    return said


def _calendar(path: Path) -> object:
    import icalendar

    calendars = icalendar.Calendar.from_ical(path.read_bytes(), multiple=True)
    words = {"SUMMARY", "DESCRIPTION", "LOCATION", "COMMENT", "CATEGORIES", "CONTACT", "RESOURCES"}
    words |= {"X-WR-CALNAME", "X-WR-CALDESC"}
    return [
        [(item.name, sorted((key, str(value)) for key, value in item.items() if key not in words))
         for item in calendar.walk()]
        for calendar in calendars
    ]  # fmt: skip


def _subtitles(path: Path) -> object:
    import pysubs2

    return [(event.start, event.end, event.style) for event in pysubs2.load(str(path), encoding="utf-8-sig")]


def _notebook(path: Path) -> object:
    import nbformat

    book = nbformat.read(str(path), as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    return [(cell.cell_type, cell.source if cell.cell_type == "code" else "") for cell in book.cells]


def openers() -> Iterator[tuple[str, str, Callable[[Sequence[Path]], Said]]]:
    """Yield formats, their programs that are installed, and what runs these."""
    if shutil.which("msgfmt"):
        yield "po", "msgfmt -c", each("msgfmt", "-c", "-o", os.devnull)
    release = next(filter(None, map(shutil.which, LRELEASE)), None)
    if release:
        yield "qt", "lrelease", each(release, "-silent", "-qm", os.devnull)
    if shutil.which("soffice"):
        for names, to, suffix in (
            (("docx", "odt", "rtf", "fodt"), "txt:Text (encoded):UTF8", ".txt"),
            (("xlsx", "ods"), "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1", ".csv"),
            (("pptx", "odp"), "pdf", ".pdf"),
        ):
            for name in names:
                # With a file a sheet their names are not those of the workbook: whether it opens must do.
                to_name, to_suffix = ("pdf", ".pdf") if suffix == ".csv" else (to, suffix)
                yield name, "LibreOffice", office(to_name, to_suffix)
    if shutil.which("epubcheck") and shutil.which("java"):
        yield "epub", "epubcheck", epubcheck
    if shutil.which("php"):
        yield "php", "php -l", each("php", "-n", "-l")
    if shutil.which("asciidoctor"):
        yield "asciidoc", "asciidoctor", each("asciidoctor", "-q", "-S", "secure", "-o", os.devnull)
    for module, names, read in (
        ("icalendar", ("ics",), _calendar),
        ("pysubs2", ("ass", "srt", "vtt"), _subtitles),
        ("nbformat", ("ipynb",), _notebook),
    ):
        if importlib.util.find_spec(module):
            for name in names:
                yield name, module, library(read)


def pairs(folders: Sequence[str], wanted: set[str], limit: int, work: Path) -> Mapping[str, list[tuple[Path, Path]]]:
    """Copy files and write their translations beside them; return both by format."""
    found: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        try:
            data = read_bytes(str(path)) if 0 < path.stat().st_size < 2_000_000 and not path.is_symlink() else b""
            entry = find_format(str(path), data[:4096]) if data else None
            if entry is None or entry.name not in wanted or len(found[entry.name]) >= limit:
                continue
            options = ReadOptions(name=path.name, target_lang="de")
            document = read_document(data, entry, options)
            if not document.segments:
                continue
            written = write_document(document, translate_segments(document, shout).results, entry, options)
        except NlpkitError:
            continue
        number = len(found[entry.name])
        name = f"{number}-{re.sub(r'[^A-Za-z0-9.]', '_', path.name)}"
        both = (work / entry.name / f"before-{name}", work / entry.name / f"after-{name}")
        both[0].parent.mkdir(exist_ok=True)
        for place, content in zip(both, (data, written), strict=True):
            place.write_bytes(content)
        found[entry.name].append(both)
    return found


def judged(name: str, before: str | None, after: str | None) -> str:
    """Say how a file fares in its program."""
    if before is None:
        return "not before either" if after is None else "after alone"
    if after is None:
        return "NOT OPENED"
    if name == "epub":
        one, two = (Counter({k: int(v) for k, _, v in (x.partition(":") for x in t.split())}) for t in (before, after))
        return "MORE ERRORS" if two - one else "opened"
    return "opened" if before == after else "DIFFERS"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--limit", type=int, default=20, help="most files of a format")
    parser.add_argument("--format", default="", help="names of formats, with commas; by default all")
    parser.add_argument("--keep", default=None, help="folder to keep the files in")
    arguments = parser.parse_args()
    known = list(openers())
    wanted = {name for name, _, _ in known} & (
        set(arguments.format.split(",")) if arguments.format else {n for n, _, _ in known}
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(arguments.keep or folder)
        work.mkdir(exist_ok=True)
        found = pairs(arguments.folders, wanted, arguments.limit, work)
        for name, program, said in known:
            both = found.get(name, [])
            if not both:
                continue
            before, after = said([one for one, _ in both]), said([two for _, two in both])
            counts: Counter[str] = Counter()
            for one, two in both:
                verdict = judged(name, before[one], after[two])
                counts[verdict] += 1
                if verdict.isupper():
                    print(f"{verdict}: {name} {two.name}", flush=True)
            print(
                f"{name}\t{program}\t{len(both)}\t" + ", ".join(f"{n} {v}" for v, n in counts.most_common()), flush=True
            )


if __name__ == "__main__":
    main()
