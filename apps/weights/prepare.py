"""Training data of the shipped adapters, from the corpora that their cards name: ``python -m ... DATA OUTPUT``.

Everything is chosen by hashes of the rows, so the result depends on the corpora alone. What is held out never enters a
training file: whole articles for questions, whole rows elsewhere.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nlpkit.apps.text.chunking import split_sentences
from nlpkit.apps.text.forms import HAIKU_SYLLABLES
from nlpkit.apps.text.language_detection import detect_language
from nlpkit.apps.text.verse.sounds import count_syllables

Row = Mapping[str, Any]
HELD_OUT_ARTICLES = 0.05
"""Share of the articles whose questions are only for development."""
INVERSE_ROWS = 0.4
"""Share of the questions that are also learned the other way: the answer is given, the question is the target. A
question has about three times as many tokens as an answer, so this gives both the same weight in the loss."""
DEV_ROWS = 500
DEV_QUESTIONS = 1500
"""Questions of held-out articles by which adapters are chosen; all others score what was chosen."""


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
    sys.stderr.write(f"{path}: {count} rows\n")


def chance(*parts: object) -> float:
    """Return a number from 0 to below 1 that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sample(rows: Iterable[Row], count: int) -> list[Row]:
    """Take rows by their hashes."""
    return sorted(rows, key=lambda row: chance("sample", json.dumps(row, sort_keys=True)))[:count]


def qa(data: Path, output: Path) -> None:
    """SQuAD 1.1: most paragraphs also get a question that they do not answer; some rows are learned inversely too."""
    articles: dict[str, dict[str, list[Row]]] = {}
    for row in read(data / "squad_v1.1" / "train.jsonl.gz"):
        articles.setdefault(row["title"], {}).setdefault(row["context"], []).append(row)
    train: list[Row] = []
    both: list[Row] = []
    dev: list[Row] = []
    unanswerable: list[Row] = []
    for title, paragraphs in articles.items():
        held_out = chance("article", title) < HELD_OUT_ARTICLES
        for context, rows in paragraphs.items():
            kept = [{key: row[key] for key in ("id", "context", "question", "answers")} for row in rows]
            (dev if held_out else train).extend(kept)
            learned = [] if held_out else list(kept)
            if chance("negative", context) < 0.6:
                foreign = _foreign_question(context, paragraphs)
                if foreign is not None:
                    row = {
                        "id": f"{rows[0]['id']}-no",
                        "context": context,
                        "question": foreign["question"],
                        "answers": [],
                    }
                    (unanswerable if held_out else train).append(row)
                    if not held_out:
                        learned.append(row)
            # Beside the rows with the same context, which is then learned once for all of them.
            inverse = [row for row in learned if chance("inverse", row["id"]) < INVERSE_ROWS]
            both += [*learned, *({**row, "id": f"{row['id']}-inverse", "inverse": 1} for row in inverse)]
    write(output / "qa.train.jsonl", train)
    write(output / "qa-both.train.jsonl", both)
    shuffled = sample(dev, len(dev))
    write(output / "qa.dev.jsonl", shuffled[:DEV_QUESTIONS])
    write(output / "qa.test.jsonl", shuffled[DEV_QUESTIONS:])
    write(output / "qa.dev-unanswerable.jsonl", sample(unanswerable, DEV_ROWS // 2))


def _foreign_question(context: str, paragraphs: Mapping[str, list[Row]]) -> Row | None:
    others = [row for other, rows in paragraphs.items() if other != context for row in rows]
    for row in sorted(others, key=lambda row: chance("foreign", context, row["id"]))[:4]:
        if not any(answer.casefold() in context.casefold() for answer in row["answers"]):
            return row
    return None


def translation(data: Path, output: Path) -> None:
    """Tatoeba, Debian descriptions and the WMT sample, each pair in both directions; short, aligned, deduplicated."""
    corpora = {
        "tatoeba": (["tatoeba_anki/train.en-de.jsonl.gz"], ["tatoeba_anki/dev.en-de.jsonl"]),
        "debian": (
            [f"debian_ddtp/train.en-{lang}.jsonl.gz" for lang in ("de", "fr")],
            [f"debian_ddtp/dev.en-{lang}.jsonl" for lang in ("de", "fr")],
        ),
        "wmt": (["opennmt_sample/train.en-de.jsonl.gz"], []),
    }
    dev = {name: [row for path in paths for row in read(data / path)] for name, (_, paths) in corpora.items()}
    held_out = {_key(row[side]) for rows in dev.values() for row in rows for side in ("source", "target")}
    for name, (paths, _) in corpora.items():
        pairs = [(_detokenized(row["source"]), _detokenized(row["target"]), row["target_lang"])
                 for path in paths for row in read(data / path)]  # fmt: skip
        seen: set[tuple[str, str]] = set()
        rows: list[Row] = []
        for source, target, lang in pairs:
            key = (_key(source), lang)
            if {_key(source), _key(target)} & held_out or not _aligned(source, target, lang):
                continue
            # Several translations of one sentence are kept for short ones only, where they are paraphrases.
            if key in seen and (len(source) > 60 or (key[0], _key(target)) in seen):
                continue
            seen |= {key, (key[0], _key(target))}
            rows.append({"source": source, "target": target, "source_lang": "en", "target_lang": lang})
            rows.append({"source": target, "target": source, "source_lang": lang, "target_lang": "en"})
        write(output / f"translation.{name}.train.jsonl", rows)
    for name, rows in dev.items():
        for lang in ("de", "fr"):
            chosen = sample([row for row in rows if row["target_lang"] == lang and len(row["source"]) <= 600], 200)
            if chosen:
                back = [{"source": row["target"], "target": row["source"], "source_lang": lang, "target_lang": "en"}
                        for row in chosen]  # fmt: skip
                keys = ("source", "target", "source_lang", "target_lang")
                write(output / f"translation.{name}.dev.en-{lang}.jsonl", ({k: r[k] for k in keys} for r in chosen))
                write(output / f"translation.{name}.dev.{lang}-en.jsonl", back)


def summarization(data: Path, output: Path) -> None:
    """Debian descriptions with their synopses, papers with one-sentence summaries, prose with its topic sentences."""
    dev = list(read(data / "debian_synopsis" / "dev.jsonl"))
    held_out = {_key(row["document"]) for row in dev} | {_key(row["summary"]) for row in dev}
    rows = []
    per_summary: dict[str, int] = {}
    for row in read(data / "debian_synopsis" / "train.jsonl.gz"):
        document, summary = row["document"].strip(), row["summary"].strip()
        key = _key(summary)
        # Debug symbols and the like: the same synopsis a thousand times over.
        per_summary[key] = per_summary.get(key, 0) + 1
        if per_summary[key] > 2 or key in held_out or _key(document) in held_out:
            continue
        if 80 <= len(document) <= 1600 and 12 <= len(summary) < len(document) / 2:
            rows.append({"document": document, "summary": summary})
    write(output / "summarization.debian.train.jsonl", rows)
    papers = [{"document": row["document"], "summary": row["summary"]}
              for row in read(data / "scitldr_a" / "train.jsonl.gz")]  # fmt: skip
    write(output / "summarization.papers.train.jsonl", papers)
    write(output / "summarization.debian.dev.jsonl", sample(dev, 300))
    write(output / "summarization.papers.dev.jsonl", sample(read(data / "scitldr_a" / "dev.jsonl"), 300))
    prose: dict[bool, list[Row]] = {False: [], True: []}
    # The paragraphs of the questions' articles: their dev articles are held out here as well.
    articles: dict[str, dict[str, None]] = {}
    for row in read(data / "squad_v1.1" / "train.jsonl.gz"):
        articles.setdefault(row["title"], {})[row["context"].strip()] = None
    for title, paragraphs in articles.items():
        held = chance("article", title) < HELD_OUT_ARTICLES
        ordered = list(paragraphs)
        for paragraph, following in zip(ordered, [*ordered[1:], ""], strict=True):
            summary = _topic_sentence(paragraph)
            if summary:
                longer = following and chance("longer", paragraph) < 0.3 and len(paragraph) + len(following) < 1600
                document = f"{paragraph}\n\n{following}" if longer else paragraph
                prose[held].append({"document": document, "summary": summary})
    write(output / "summarization.prose.train.jsonl", prose[False])
    write(output / "summarization.prose.dev.jsonl", sample(prose[True], 300))


_LEANS_ON_OTHERS = re.compile(
    r"(?:He|She|It|They|His|Her|Its|Their|This|That|These|Those|Such|There|Here|We|I|You|Some|Others?|Another|Both"
    r"|Neither|However|But|And|Or|So|Then|Thus|Therefore|Also|Later|Since|Meanwhile|Moreover|Furthermore|Instead"
    r"|Similarly|Conversely|Following|Additionally|Finally|For (?:example|instance)|In (?:addition|contrast|this|that)"
    r"|As a result|On the other hand|At (?:the time|this|that)|(?:By|During|After) this|By then"
    r"|The (?:same|first|second|latter|former)|When|If|As|Although|Though|While|Despite|Because|Unlike)\b"
)
_WHEN_OR_WHERE = re.compile(
    r"(?:In|By|During|Since|From|On|At|According to|As of|Throughout|Until|After|Under) [^,]{1,40}, (?:\d{4}, )?(?=\w)"
)
_SUBORDINATE = re.compile(
    r", (?:which|who|whom|whose|where|while|whereas|although|though|even though|because|since|despite|such as|including"
    r"|as well as|along with|unlike|but|and (?:he|she|it|they|the|has|have|had|is|are|was|were)|making|leading"
    r"|resulting|allowing|causing|giving|reflecting|with|so|as|having|being|according|especially|particularly|mostly"
    r"|often|usually|in|on|at|from|for|after|before|until|when|if|to) "
)
_UNFINISHED = re.compile(r"\b(?:is|are|was|were|be|been|has|have|had|of|to|and|or|the|a|an)$")


def _topic_sentence(paragraph: str) -> str | None:
    """Return a paragraph's first sentence, cut down to its main clause, where the rest is about the same things."""
    first, *others = [sentence.strip() for sentence in split_sentences(paragraph)] or [""]
    if len(others) < 2 or not first[:1].isupper() or not first.endswith(".") or _LEANS_ON_OTHERS.match(first):
        return None
    bare = re.sub(r" ?[(\[][^()\[\]]*[)\]]", "", first).rstrip(".")
    if re.search(r'[()"]|on the other hand', bare):
        return None
    bare = _WHEN_OR_WHERE.sub("", bare) if _WHEN_OR_WHERE.match(bare) else bare
    bare = re.split("[;:—]| [–-] ", bare, maxsplit=1)[0]
    clause = _SUBORDINATE.search(bare)
    if clause and len(bare[: clause.start()].split()) >= 6:
        bare = bare[: clause.start()]
    bare = bare.strip(" ,")
    bare = bare[:1].upper() + bare[1:]
    shared = {word[:6] for word in _content_words(bare)} & {word[:6] for word in _content_words(" ".join(others))}
    if not 6 <= len(bare.split()) <= 22 or bare.count(",") > 2 or len(shared) < 2:
        return None
    return None if _LEANS_ON_OTHERS.match(bare) or _UNFINISHED.search(bare) else f"{bare}."


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _detokenized(text: str) -> str:
    text = re.sub(r" ([,.;:!?%)\]}”»])", r"\1", html.unescape(text).strip())
    text = re.sub(r"([(\[{„«]) ", r"\1", text)
    return re.sub(r"(\w) (['’]\w)", r"\1\2", text)


def _aligned(source: str, target: str, lang: str) -> bool:
    a, b = len(source), len(target)
    if not (2 <= a <= 420 and 2 <= b <= 520) or (a > 20 and not 0.5 <= b / a <= 2.0):
        return False
    if _key(source) == _key(target) or "\n" in source or "\n" in target:
        return False
    if a > 60:
        numbers, others = (set(re.findall(r"\d{2,}", text)) for text in (source, target))
        found, confidence = detect_language(target, ("en", "de", "fr"))
        if numbers != others or (found != lang and confidence > 0.6):
            return False
    return True


def writing(data: Path, output: Path) -> None:
    """Short verse on a subject, laid out anew (haiku where the syllables allow), and pieces of Shakespeare's scenes."""
    for split in ("train", "dev"):
        texts = [" ".join(row["text"].split()) for row in read(data / "haiku_gutenberg" / f"{split}.jsonl")]
        counts = Counter(word for text in texts for word in set(_content_words(text)))
        rows: list[Row] = []
        for text in texts:
            subject = _subject(text, counts)
            if subject is None:
                continue
            haiku, lines = _as_haiku(text), _VERSE_LINE.split(text)
            if haiku is not None:
                rows.append({"form": "haiku", "prompt": subject, "text": haiku})
            # A capital within a line was taken for the start of one.
            if 3 <= len(lines) <= 8 and all(3 <= len(line.split()) <= 12 for line in lines):
                rows.append({"form": "poem", "prompt": subject, "text": "\n".join(lines)})
        if split == "train":
            rows += _scenes(data)
        write(output / f"writing.{split}.jsonl", rows)


_VERSE_LINE = re.compile(r"(?<=[a-z,;:.!?'’\-—]) (?=(?!I\b|I'|God\b|Lord\b)[A-Z\"“][a-z'’]+)")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        about above across after again against alone along always among another because before behind being below
        between beyond cannot could every first found from great have hear here into itself like little long made
        many might more most must never nothing once only other over should since some something such than that
        their them then there these they thing things this those though thou through till under until upon very what
        when where which while who whom whose will with within without would your yours ever even shall still thee
        thine know come came goes gone make take think said says tell told look looked give gave done does near well
        much good best away back
        """,
    )
)


def _content_words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in _COMMON]


def _subject(text: str, counts: Mapping[str, int]) -> str | None:
    """Return one or two words that the text is about: neither rare nor frequent ones."""
    words = [word for word in dict.fromkeys(_content_words(text)) if 4 <= counts[word] <= 120]
    if not words:
        return None
    several = 1 + (chance("two", text) < 0.4)
    chosen = sorted(words, key=lambda word: (-len(word), chance(word, text)))[:several]
    return " and ".join(word for word in words if word in chosen)


def _as_haiku(text: str) -> str | None:
    words = text.split()
    sizes = [count_syllables(word) if any(map(str.isalpha, word)) else 0 for word in words]
    if not 15 <= sum(sizes) <= 19:
        return None
    best: tuple[float, int, int] | None = None
    for first in range(1, len(words) - 1):
        for second in range(first + 1, len(words)):
            lines = (sum(sizes[:first]), sum(sizes[first:second]), sum(sizes[second:]))
            off = sum(abs(got - wanted) for got, wanted in zip(lines, HAIKU_SYLLABLES, strict=True))
            pauses = sum(words[at - 1][-1] in ",.;:!?—" for at in (first, second))
            if off <= 1 and (best is None or off - 0.3 * pauses < best[0]):
                best = (off - 0.3 * pauses, first, second)
    if best is None:
        return None
    _, first, second = best
    return "\n".join(" ".join(part) for part in (words[:first], words[first:second], words[second:]))


def _scenes(data: Path) -> Iterator[Row]:
    """Yield pieces of four to eight speeches with who speaks and the words that stand out."""
    scenes = [row["text"] for row in read(data / "shakespeare_scenes" / "all.jsonl")]
    counts = Counter(word for text in scenes for word in _content_words(text))
    for text in scenes:
        speeches = [part for part in re.split(r"\n\s*\n", text.strip()) if re.match(r"[A-Z][A-Za-z .']+:", part)]
        start = 0
        while start < len(speeches):
            end, size = start, 0
            while end < len(speeches) and end - start < 8 and size + len(speeches[end]) < 900:
                size += len(speeches[end])
                end += 1
            piece = speeches[start:end]
            start = max(end, start + 1)
            words = sorted(
                set(_content_words(" ".join(piece))),
                key=lambda word: (counts[word] > 40, counts[word] < 5, -len(word), word),
            )
            if len(piece) >= 3 and len(words) >= 2:
                yield {"form": "dialogue", "prompt": f"{words[0]} and {words[1]}", "text": "\n\n".join(piece)}


TASKS = {"writing": writing, "qa": qa, "translation": translation, "summarization": summarization}


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
