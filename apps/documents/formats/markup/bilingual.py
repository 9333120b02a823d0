"""XML files that keep source and translation beside each other: XLIFF 1.2 and 2, TMX, and Qt's TS."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from nlpkit.apps.documents.document import Document, Part, ReadOptions, Results, Segment, has_words
from nlpkit.apps.documents.formats.markup.tree import Element, content, content_parts, escaper, read_rooted
from nlpkit.apps.documents.formats.markup.xml_strings import markup_messages, rendered
from nlpkit.apps.documents.source_text import SourceText
from nlpkit.apps.text.translation.layout import copies_as_is

_CODES = frozenset(["bpt", "ept", "ph", "it", "sub", "ut", "x", "bx", "ex"])
"""Elements of XLIFF and TMX whose content is a code of another format."""

_DONE = frozenset(["translated", "final", "signed-off", "reviewed"])


@dataclass(frozen=True)
class _Target:
    """Where a translation goes.

    Attributes:
        start: Where it begins.
        end: Where it ends; what stands between is replaced.
        before: What is written before it.
        after: What is written behind it.
        doubtful: What is written before a doubtful one, where that differs.
        doubt: Span of the file and what stands there instead where the translation is doubtful.
        sure: The same where it is not.
    """

    start: int
    end: int
    before: str = ""
    after: str = ""
    doubtful: str = ""
    doubt: tuple[int, int, str] | None = None
    sure: tuple[int, int, str] | None = None


@dataclass(frozen=True)
class BilingualSkeleton:
    """A text, and where its translations go; one a segment."""

    source: SourceText
    targets: tuple[_Target, ...]
    raws: tuple[str, ...]
    header: tuple[tuple[int, int, str], ...] = ()


class _Bilingual(ABC):
    """What the formats share."""

    name = ""
    title = ""
    roots: frozenset[str] = frozenset()

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a file.

        Raises:
            InputError: It is no such file, or not well-formed.
        """
        source, root = read_rooted(data, options, self.title, self.roots)
        segments: list[Segment] = []
        targets: list[_Target] = []
        raws: list[str] = []
        for element, key, target in self.units(source.text, root, options):
            parts = self.parts(source.text, element)
            if not has_words(parts) or copies_as_is("".join(part for part in parts if isinstance(part, str))):
                continue
            start, end = element.inner
            segments.append(Segment(parts=parts, kind="message", line=source.line(start), offset=start, key=key))
            targets.append(target)
            raws.append(source.text[start:end])
        language, header = self.languages(source.text, root, options)
        return Document(
            format=self.name,
            segments=tuple(segments),
            skeleton=BilingualSkeleton(source, tuple(targets), tuple(raws), tuple(header)),
            source_lang=language,
            bilingual=True,
            source_text=source.text,
        )

    def write(self, skeleton: BilingualSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a file; doubtful translations are marked as the format marks them."""
        new: list[tuple[int, int, str]] = []
        marks: dict[tuple[int, int], str] = {}
        for target, raw, result in zip(skeleton.targets, skeleton.raws, results, strict=True):
            if result is None:
                continue
            text = rendered(result, escaper(raw, skeleton.source))
            before = target.before if result.sure else target.doubtful or target.before
            new.append((target.start, target.end, before + text + target.after))
            # Of several forms of one message a doubtful one counts.
            if result.sure and target.sure is not None:
                marks.setdefault(target.sure[:2], target.sure[2])
            elif not result.sure and target.doubt is not None:
                marks[target.doubt[:2]] = target.doubt[2]
        new += [(start, end, mark) for (start, end), mark in marks.items()]
        if new:
            new += skeleton.header
        return skeleton.source.replaced(sorted(dict.fromkeys(new), key=lambda change: change[:2]))

    @abstractmethod
    def units(self, text: str, root: Element, options: ReadOptions) -> Iterator[tuple[Element, str, _Target]]:
        """Yield sources that want a translation, with their keys and where it goes."""

    def languages(
        self, text: str, root: Element, options: ReadOptions
    ) -> tuple[str | None, list[tuple[int, int, str]]]:
        """Return the language of the sources, and what of the file's head changes with the language wanted."""
        return None, []

    def parts(self, text: str, element: Element) -> tuple[Part, ...]:
        """Return text and codes of a source."""
        return content_parts(text, element, copied=lambda child: child.local in _CODES, read=markup_messages)


def _indent(text: str, element: Element) -> str:
    """Return the line end and blanks before an element, so that another can stand below it."""
    match = re.search(r"\r?\n[ \t]*\Z", text[: element.open.start])
    return match.group() if match else ""


def _attribute(name: str, value: str, text: str, element: Element) -> tuple[int, int, str]:
    """Return the change that gives an element an attribute."""
    tag = text[element.open.start : element.open.end]
    found = re.search(rf"(?<=\s){re.escape(name)}\s*=\s*([\"'])(.*?)\1", tag)
    if found:
        return element.open.start + found.start(2), element.open.start + found.end(2), value
    at = element.open.end - (2 if element.empty else 1)
    at -= len(text[element.open.start : at]) - len(text[element.open.start : at].rstrip())
    return at, at, f' {name}="{value}"'


class Xliff(_Bilingual):
    """XLIFF 1.2 and 2.0: targets that are missing, empty, new or need a translation are filled."""

    name = "xliff"
    title = "XLIFF"
    roots = frozenset({"xliff"})

    def units(self, text: str, root: Element, options: ReadOptions) -> Iterator[tuple[Element, str, _Target]]:
        """Yield sources without a translation."""
        two = root.attributes.get("version", "").startswith("2")
        for unit in root.walk():
            if unit.local not in (("segment",) if two else ("trans-unit",)) or _is_protected(unit):
                continue
            key = unit.attributes.get("resname") or unit.attributes.get("id", "")
            if two and unit.parent is not None:
                key = unit.parent.attributes.get("id", key)
            source = next(unit.elements("source"), None)
            target = next(unit.elements("target"), None)
            if source is None:
                continue
            state = unit.attributes.get("state", "initial") if two else ""
            if target is not None and not two:
                state = target.attributes.get("state", "")
            filled = target is not None and bool(content(text, target).strip())
            done = state in _DONE or unit.attributes.get("approved") == "yes"
            if done or (filled and not _is_new(state, text, source, target)):
                continue
            yield source, key, _xliff_target(text, unit, source, target, two=two)

    def languages(
        self, text: str, root: Element, options: ReadOptions
    ) -> tuple[str | None, list[tuple[int, int, str]]]:
        """Return the language of the sources; what lacks a target language gets one."""
        two = root.attributes.get("version", "").startswith("2")
        holders = [root] if two else list(root.elements("file"))
        names = ("srcLang", "trgLang") if two else ("source-language", "target-language")
        said = [holder.attributes.get(names[0].lower()) for holder in holders]
        language = next(filter(None, said), None)
        changes = [
            _attribute(names[1], options.target_lang, text, holder)
            for holder in holders
            if options.target_lang and not holder.attributes.get(names[1].lower())
        ]
        return language, changes


def _is_protected(unit: Element) -> bool:
    element: Element | None = unit
    while element is not None:
        if element.attributes.get("translate") == "no":
            return True
        element = element.parent
    return False


def _is_new(state: str, text: str, source: Element, target: Element | None) -> bool:
    """Tell whether a target that is there is no translation yet: tools copy the source into it."""
    same = target is not None and content(text, source) == content(text, target)
    return state in ("new", "needs-translation", "initial", "") and same


def _xliff_target(text: str, unit: Element, source: Element, target: Element | None, *, two: bool) -> _Target:
    # Version 2 says how far a translation is at the segment, version 1 at the target.
    doubt = _attribute("state", "initial", text, unit) if two else None
    sure = _attribute("state", "translated", text, unit) if two else None
    if target is not None and not target.empty:
        start, end = target.inner
        if not two:
            doubt = _attribute("state", "needs-review-translation", text, target)
            sure = _attribute("state", "translated", text, target)
        return _Target(start, end, doubt=doubt, sure=sure)
    if target is None:
        name = source.name[: -len(source.local)] + "target"
        start = end = source.close.end
        opened = f"{_indent(text, source)}<{name}"
    else:
        name, start, end = target.name, target.open.start, target.open.end
        opened = re.sub(r"\sstate\s*=\s*(\"[^\"]*\"|'[^']*')", "", text[start : end - 2].rstrip())
    states = ("", "") if two else (' state="translated"', ' state="needs-review-translation"')
    return _Target(start, end, f"{opened}{states[0]}>", f"</{name}>", f"{opened}{states[1]}>", doubt, sure)


class QtTs(_Bilingual):
    """Qt's TS: unfinished messages get a translation, and stay unfinished where it is doubtful."""

    name = "qt"
    title = "Qt translations (TS)"
    roots = frozenset({"TS"})

    def units(self, text: str, root: Element, options: ReadOptions) -> Iterator[tuple[Element, str, _Target]]:
        """Yield messages without a translation."""
        for context in root.elements("context"):
            name = next(context.elements("name"), None)
            for message in context.elements("message"):
                source, target = next(message.elements("source"), None), next(message.elements("translation"), None)
                if source is None or target is None or target.attributes.get("type") in ("obsolete", "vanished"):
                    continue
                forms = list(target.elements("numerusform"))
                wanted = forms or [target]
                if any(content(text, one).strip() for one in wanted):
                    continue
                key = "" if name is None else content(text, name)
                for one in wanted:
                    yield source, key, _qt_target(text, target, one)

    def languages(
        self, text: str, root: Element, options: ReadOptions
    ) -> tuple[str | None, list[tuple[int, int, str]]]:
        """Return the language of the sources; a file without a language gets one."""
        changes = []
        if options.target_lang and not root.attributes.get("language"):
            changes = [_attribute("language", options.target_lang, text, root)]
        return root.attributes.get("sourcelanguage"), changes


def _qt_target(text: str, target: Element, one: Element) -> _Target:
    begin = target.open.start
    unfinished = re.search(r"\s+type\s*=\s*([\"'])unfinished\1", text[begin : target.open.end])
    sure = doubt = None
    if unfinished is not None:
        span = begin + unfinished.start(), begin + unfinished.end()
        sure, doubt = (*span, ""), (*span, unfinished.group())
    if not one.empty:
        return _Target(*one.inner, sure=sure, doubt=doubt)
    start, end = one.open.start, one.open.end
    opened = text[start : end - 2].rstrip()
    if one is not target:
        return _Target(start, end, f"{opened}>", f"</{one.name}>", sure=sure, doubt=doubt)
    finished = opened if unfinished is None else opened.replace(unfinished.group(), "")
    return _Target(start, end, f"{finished}>", f"</{one.name}>", f"{opened}>")


class Tmx(_Bilingual):
    """TMX: translation units that lack the language wanted get it."""

    name = "tmx"
    title = "TMX"
    roots = frozenset({"tmx"})

    def units(self, text: str, root: Element, options: ReadOptions) -> Iterator[tuple[Element, str, _Target]]:
        """Yield units without a variant in the language wanted."""
        header = next(root.elements("header"), None)
        usual = "" if header is None else header.attributes.get("srclang", "")
        for unit in (unit for body in root.elements("body") for unit in body.elements("tu")):
            variants = list(unit.elements("tuv"))
            language = unit.attributes.get("srclang", usual)
            if any(_same(_language(variant), options.target_lang) for variant in variants) or not variants:
                continue
            chosen = next((one for one in variants if _same(_language(one), language)), variants[0])
            source = next(chosen.elements("seg"), None)
            if source is None or not options.target_lang:
                continue
            last = variants[-1]
            indent, inner = _indent(text, last), _indent(text, source)
            before = f'{indent}<tuv xml:lang="{options.target_lang}">{inner}<seg>'
            after = f"</seg>{indent if inner else ''}</tuv>"
            yield source, unit.attributes.get("tuid", ""), _Target(last.close.end, last.close.end, before, after)

    def languages(
        self, text: str, root: Element, options: ReadOptions
    ) -> tuple[str | None, list[tuple[int, int, str]]]:
        """Return the language of the sources."""
        header = next(root.elements("header"), None)
        language = None if header is None else header.attributes.get("srclang")
        return (None if language in ("*all*", "") else language), []


def _language(variant: Element) -> str:
    return variant.attributes.get("xml:lang") or variant.attributes.get("lang", "")


def _same(one: str, two: str) -> bool:
    bare = [language.replace("_", "-").split("-")[0].lower() for language in (one, two)]
    return bool(one and two) and bare[0] == bare[1]
