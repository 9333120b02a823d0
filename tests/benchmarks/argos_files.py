"""Translates the same files with argos-translate-files (what LibreTranslate uses) and with nlpkit, by one stand-in.

    python tests/benchmarks/argos_files.py FOLDER... [--limit N]

The stand-in writes capitals and keeps placeholders. What comes out is read by nlpkit's readers: a text counts as kept
if it says the same in capitals and has the same codes (looks, links, tags) in the same order. Needs
argos-translate-files, bs4 and pysrt; of argostranslate its tags alone, so its models and ctranslate2 may be missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).parent))

from document_checks import shout
from office_files import same

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import NlpkitError

SUFFIXES = (".txt", ".docx", ".pptx", ".odt", ".odp", ".epub", ".html", ".srt")


class Capitals:
    """Stands for a translation of argostranslate."""

    def translate(self, text: str) -> str:
        return next(iter(shout([text]))).text


def load_argos() -> Any:
    """Import argos-translate-files without the models and libraries that it needs to translate in earnest."""
    translate = types.ModuleType("argostranslate.translate")
    translate.ITranslation = Capitals  # type: ignore[attr-defined]
    utils = types.ModuleType("argostranslate.utils")
    utils.info = lambda *_: None  # type: ignore[attr-defined]
    package = types.ModuleType("argostranslate")
    for place in sys.path:
        if (Path(place) / "argostranslate").is_dir():
            package.__path__ = [str(Path(place) / "argostranslate")]
            break
    sys.modules.setdefault("pymupdf", types.ModuleType("pymupdf"))
    sys.modules |= {"argostranslate": package, "argostranslate.translate": translate, "argostranslate.utils": utils}
    from argostranslatefiles import argostranslatefiles

    return argostranslatefiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--limit", type=int, default=20, help="most files of a format")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    argos = load_argos()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for path in sorted(path for folder in arguments.folders for path in Path(folder).rglob("*") if path.is_file()):
        if path.suffix.lower() not in SUFFIXES or path.stat().st_size > 2_000_000:
            continue
        data, options = path.read_bytes(), ReadOptions(name=path.name, target_lang="de")
        try:
            entry = find_format(path.name, data[:4096])
            document = None if entry is None else read_document(data, entry, options)
        except NlpkitError:
            continue
        if entry is None or document is None or not document.segments or counts[entry.name]["files"] >= arguments.limit:
            continue
        count = counts[entry.name]
        count["files"] += 1
        count["texts"] += len(document.segments)
        for who in ("nlpkit", "argos"):
            began = time.process_time()
            try:
                if who == "nlpkit":
                    written = write_document(document, translate_segments(document, shout).results, entry, options)
                else:
                    with tempfile.TemporaryDirectory() as folder:
                        out = Path(folder) / path.name
                        if not argos.translate_file(Capitals(), str(path), lambda *_, out=out: str(out)):
                            raise ValueError("unsupported")
                        written = out.read_bytes()
                count[f"{who} seconds"] += time.process_time() - began
                again = read_document(written, entry, options)
            except Exception as error:
                count[f"{who} failed"] += 1
                if arguments.verbose:
                    print(who, path, repr(error)[:200])
                continue
            left = list(again.segments)
            for segment in document.segments:
                at = next((index for index, one in enumerate(left) if same(segment, one)), None)
                if at is not None:
                    del left[: at + 1]
                    count[f"{who} kept"] += 1
                elif arguments.verbose:
                    print(who, path.name, segment.parts)
    names = (
        "files",
        "texts",
        *(f"{who} {what}" for who in ("nlpkit", "argos") for what in ("failed", "kept", "seconds")),
    )
    print("\t".join(("format", *names)))
    for name, count in sorted(counts.items()):
        print("\t".join((name, *(f"{count[one]:.3g}" if "seconds" in one else str(count[one]) for one in names))))


if __name__ == "__main__":
    main()
