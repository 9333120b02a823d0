"""Makes three long documents, and measures all of their translation but the model, which is left to a real run.

    python tests/benchmarks/time_documents.py FOLDER [--only NAME]

The documents: a Word document of 20 pages (200 paragraphs of 45 words, with bold words and a table), 2,000 cues of SRT,
and 3,000 entries of gettext PO with placeholders. A translator into capitals stands for the model. The real run is
`nlpkit translate -f FOLDER/long.docx --from en --to de -o OUT --fresh`, and likewise for the others.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from document_checks import lost_after, shout

from nlpkit.apps.documents.document import ReadOptions
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.translation.translate import translate_segments

SUBJECTS = ("The manager", "Our neighbour", "The new system", "A visitor", "The committee", "My sister", "The driver")
VERBS = ("opened", "described", "needed", "changed", "forgot", "repaired", "presented", "received", "watched")
OBJECTS = ("the door", "a long report", "the old bridge", "two letters", "the settings", "a small garden", "the plan")
PLACES = ("in the morning", "at the station", "without a word", "after the meeting", "near the river", "last week")
FILLED = ("The file %s was opened.", "%d of %d parts were copied to {folder}.", "Hello %(name)s, you have mail.")


def sentence(draw: random.Random) -> str:
    """Return a plain sentence."""
    return " ".join(draw.choice(words) for words in (SUBJECTS, VERBS, OBJECTS, PLACES)) + "."


def make_word(path: Path, draw: random.Random) -> None:
    """Write a Word document of 20 pages."""
    import docx

    document = docx.Document()
    for number in range(200):
        if number % 10 == 0:
            document.add_heading(f"Chapter {number // 10 + 1}: {sentence(draw)[:-1]}", level=1)
        paragraph = document.add_paragraph(f"{sentence(draw)} ")
        paragraph.add_run("It is important").bold = True
        paragraph.add_run(f" that {sentence(draw)[:-1].lower()}. {sentence(draw)} {sentence(draw)}")
        if number % 50 == 25:
            table = document.add_table(rows=4, cols=3)
            for row in table.rows:
                for cell in row.cells:
                    cell.text = sentence(draw)
    document.save(str(path))


def make_subtitles(path: Path, draw: random.Random) -> None:
    """Write 2,000 cues."""
    cues = []
    for number in range(2000):
        begin, end = (number * 4000, number * 4000 + 3500)
        times = [f"{t // 3600000:02}:{t // 60000 % 60:02}:{t // 1000 % 60:02},{t % 1000:03}" for t in (begin, end)]
        words = sentence(draw)
        text = f"<i>{words}</i>" if number % 7 == 0 else words.replace(" the", "\nthe", 1)
        cues.append(f"{number + 1}\n{times[0]} --> {times[1]}\n{text}\n")
    path.write_text("\n".join(cues), "utf-8")


def make_messages(path: Path, draw: random.Random) -> None:
    """Write 3,000 entries, a quarter of them with placeholders."""
    head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n'
    entries = []
    for number in range(3000):
        text = draw.choice(FILLED) if number % 4 == 0 else sentence(draw)
        entries.append(f'#: src/main.c:{number + 1}\nmsgctxt "{number}"\nmsgid "{text}"\nmsgstr ""\n')
    path.write_text(head + "\n" + "\n".join(entries), "utf-8")


MAKERS = {"long.docx": make_word, "long.srt": make_subtitles, "long.po": make_messages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=MAKERS, default=None)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("file\tsegments\tcodes\tlost\tread s\ttranslate s\twrite s\tprocessor s")
    for name, make in MAKERS.items():
        if arguments.only not in (None, name):
            continue
        path = arguments.folder / name
        make(path, random.Random(0))
        data, options = path.read_bytes(), ReadOptions(name=name, target_lang="de", source_lang="en")
        entry = find_format(name, data[:4096])
        if entry is None:
            raise SystemExit(f"{name} is in no known format.")
        times, used = [time.perf_counter()], time.process_time()
        document = read_document(data, entry, options)
        times.append(time.perf_counter())
        translation = translate_segments(document, shout)
        times.append(time.perf_counter())
        written = write_document(document, translation.results, entry, options)
        times.append(time.perf_counter())
        (arguments.folder / f"capitals-{name}").write_bytes(written)
        codes, lost = lost_after(document, translation)
        took = "\t".join(f"{two - one:.2f}" for one, two in itertools.pairwise(times))
        print(f"{name}\t{len(document.segments)}\t{codes}\t{len(lost)}\t{took}\t{time.process_time() - used:.2f}")


if __name__ == "__main__":
    main()
