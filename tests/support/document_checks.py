"""Translators that need no model, and checks of what documents become: for tests and measurements."""

from __future__ import annotations

import json
import random
import re
import sys
import xml.parsers.expat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from nlpkit.apps.documents.document import Code, Document, ReadOptions
from nlpkit.apps.documents.registry import FORMATS, FormatEntry, read_document
from nlpkit.apps.documents.translation.attempts import Answer
from nlpkit.apps.documents.translation.translate import DocumentTranslation
from nlpkit.apps.text.translation.protected_grammar import find_protected

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MASK = re.compile(r"(⟦\d+⟧)")


def shout(texts: Sequence[str]) -> Iterator[Answer]:
    """Translate into capitals; what must not be touched stays."""
    for text in texts:
        pieces, done = [], 0
        for span in find_protected(text):
            pieces += [text[done : span.start].upper(), text[span.start : span.end]]
            done = span.end
        yield Answer("".join(pieces) + text[done:].upper())


class Mangler:
    """A translator that does to masks and placeholders what bad models do, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, texts: Sequence[str]) -> Iterator[Answer]:
        return (Answer(self._mangled(text)) for text in texts)

    def _mangled(self, text: str) -> str:
        words = re.split(r"(\s+|⟦\d+⟧)", text)
        change = self._random.randrange(9)
        if change == 0:
            return text.swapcase()
        if change == 1:
            return _MASK.sub("", text)
        if change == 2:
            return _MASK.sub(r"\1\1", text)
        if change == 3:
            self._random.shuffle(words)
        elif change == 4:
            return text.replace("⟦", "[").replace("⟧", "]")
        elif change == 5:
            return text + " ⟦7⟧ <b> {name} %s"
        elif change == 6:
            return " ".join(reversed(text.split()))
        elif change == 7:
            return ""
        else:
            return re.sub(r"\d", lambda match: str((int(match.group()) + 1) % 10), text)
        return "".join(words)


def lost_after(document: Document, translation: DocumentTranslation) -> tuple[int, list[str]]:
    """Return how many codes a document has, and which are not there once after its translation."""
    count, lost = 0, []
    for segment, result in zip(document.segments, translation.results, strict=True):
        before = Counter(part.literal for part in segment.parts if isinstance(part, Code))
        count += sum(before.values())
        if result is not None:
            after = Counter(part.literal for part in result.parts if isinstance(part, Code))
            lost += [*(before - after), *(after - before)]
    return count, lost


def opens_again(name: str, before: bytes, after: bytes, options: ReadOptions, *, words: bool = True) -> str:
    """Return why a written file cannot be read any more, or is another than it was; empty if all is well.

    Args:
        name: Name of the format.
        before: The file.
        after: Its translation.
        options: As it was read with.
        words: Whether its texts are words still, so that as many segments must be found again.
    """
    entry = next(entry for entry in FORMATS if entry.name == name)
    try:
        check = _CHECKS.get(name)
        if check is not None:
            return check(before, after)
        return _same_shape(entry, before, after, options, words=words)
    except Exception as error:
        return repr(error)[:300]


def _same_shape(entry: FormatEntry, before: bytes, after: bytes, options: ReadOptions, *, words: bool) -> str:
    """Read both with our own reader; where their texts are words, compare the segments."""
    one, two = (read_document(data, entry, options) for data in (before, after))
    if one.bilingual or not words:
        return ""
    if len(one.segments) != len(two.segments):
        return f"{len(one.segments)} segments became {len(two.segments)}"
    return ""


def _json(before: bytes, after: bytes) -> str:
    one, two = (json.loads(data.decode("utf-8-sig")) for data in (before, after))
    return "" if _skeleton(one) == _skeleton(two) else "keys or values that are no strings differ"


def _skeleton(value: object) -> object:
    """Return a value with its strings left out: keys, order, numbers stay."""
    if isinstance(value, dict):
        return [(key, _skeleton(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [_skeleton(one) for one in value]
    return "" if isinstance(value, str) else value


def _yaml(before: bytes, after: bytes) -> str:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("", lambda loader, tag, node: f"!{tag}")
    one, two = (list(yaml.load_all(data, Loader=Loader)) for data in (before, after))
    return "" if _skeleton(one) == _skeleton(two) else "keys or values that are no strings differ"


def _toml(before: bytes, after: bytes) -> str:
    one, two = (tomllib.loads(data.decode()) for data in (before, after))
    return "" if _skeleton(one) == _skeleton(two) else "keys or values that are no strings differ"


def _xml(before: bytes, after: bytes) -> str:
    one, two = (_events(data) for data in (before, after))
    return "" if one == two else "elements or attributes differ"


def _events(data: bytes) -> list[tuple[str, ...]]:
    events: list[tuple[str, ...]] = []
    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: events.append((name, *sorted(attributes)))
    parser.EndElementHandler = lambda name: events.append((name,))
    parser.Parse(data, True)
    return events


def _well_formed(before: bytes, after: bytes) -> str:
    _events(after)
    return ""


def _html(before: bytes, after: bytes) -> str:
    from html.parser import HTMLParser

    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[tuple[object, ...]] = []

        def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
            people = ("alt", "title", "placeholder", "content", "label", "value", "summary", "lang")
            self.tags.append((tag, *((n, v) for n, v in attrs if n not in people and not n.startswith("aria-"))))

        def handle_endtag(self, tag: str) -> None:
            self.tags.append((tag,))

    found = []
    for data in (before, after):
        parser = Tags()
        parser.feed(data.decode("utf-8", "replace"))
        found.append(Counter(parser.tags))
    return "" if found[0] == found[1] else f"tags differ: {list((found[0] - found[1]) + (found[1] - found[0]))[:3]}"


def _markdown(before: bytes, after: bytes) -> str:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    # Without footnotes a note of one word would be read as the target of a link.
    before, after = (data.replace(b"\n[^", b"\n^") for data in (before, after))
    one, two = ([token.type for token in parser.parse(data.decode())] for data in (before, after))
    if one != two:
        at = next(
            (i for i, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), min(len(one), len(two))
        )
        return f"blocks differ at {at}: {one[at : at + 3]} {two[at : at + 3]}"
    codes = []
    for data in (before, after):
        inline = [child for token in parser.parse(data.decode()) for child in token.children or ()]
        codes.append(
            Counter(
                (
                    child.type,
                    child.content if child.type == "code_inline" else "",
                    str(child.attrs.get("href", "")),
                    str(child.attrs.get("src", "")),
                )
                for child in inline
                if child.type not in ("text", "softbreak")
            )
        )
    return (
        ""
        if codes[0] == codes[1]
        else f"inline marks differ: {list((codes[0] - codes[1]) + (codes[1] - codes[0]))[:4]}"
    )


def _po(before: bytes, after: bytes) -> str:
    import polib

    one, two = (polib.pofile(data.decode("utf-8", "replace")) for data in (before, after))
    before_ids, after_ids = ([(e.msgctxt, e.msgid, e.msgid_plural, e.obsolete) for e in po] for po in (one, two))
    return "" if before_ids == after_ids else "entries differ"


def _rst(before: bytes, after: bytes) -> str:
    import docutils.core
    import docutils.nodes

    counts = []
    for data in (before, after):
        tree = docutils.core.publish_doctree(
            data.decode(),
            settings_overrides={
                "report_level": 5,
                "halt_level": 6,
                "raw_enabled": False,
                "file_insertion_enabled": False,
            },
        )
        counts.append(
            Counter(type(node).__name__ for node in tree.findall() if not isinstance(node, docutils.nodes.Text))
        )
    differ = (counts[0] - counts[1]) + (counts[1] - counts[0])
    return f"nodes differ: {dict(differ)}" if differ else ""


_CHECKS = {
    "json": _json,
    "yaml": _yaml,
    "toml": _toml,
    "svg": _xml,
    "android": _xml,
    "resx": _xml,
    "xliff": _well_formed,
    "tmx": _well_formed,
    "qt": _well_formed,
    "html": _html,
    "markdown": _markdown,
    "po": _po,
    "rst": _rst,
}
