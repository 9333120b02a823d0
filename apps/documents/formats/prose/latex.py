r"""LaTeX: paragraphs, titles, items and captions; commands, formulas, listings and comments stay."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nlpkit.apps.documents.document import (
    Code,
    Document,
    Kind,
    Part,
    ReadOptions,
    Results,
    Role,
    Segment,
    Translated,
    has_words,
)
from nlpkit.apps.documents.formats.markup.html import wrap_of
from nlpkit.apps.documents.formats.spans import Place, SpanSkeleton, flowed, matched_end, span_document, write_spans
from nlpkit.apps.documents.formats.strings.messages import pair_codes
from nlpkit.apps.documents.source_text import SourceText, decode_source

_HEADINGS = frozenset(
    ["part", "chapter", "section", "subsection", "subsubsection", "paragraph", "subparagraph", "title", "subtitle"]
)
_TEXT = frozenset(
    [
        "textbf",
        "textit",
        "emph",
        "textsc",
        "textsf",
        "textrm",
        "textsl",
        "underline",
        "textup",
        "textmd",
        "mbox",
        "text",
        "enquote",
        "uline",
        "hl",
    ]
)
_APART = frozenset(["footnote", "caption", "captionof", "thanks", "marginpar", "footnotetext", "subcaption"])
_VERBATIM = frozenset(
    [
        *(
            "verbatim",
            "lstlisting",
            "minted",
            "equation",
            "align",
            "gather",
            "multline",
            "eqnarray",
            "math",
            "displaymath",
        ),
        *(
            "tikzpicture",
            "Verbatim",
            "alltt",
            "comment",
            "filecontents",
            "thebibliography",
            "tabular",
            "tabularx",
            "array",
        ),
        *("algorithm", "algorithmic", "pgfpicture", "flalign", "longtable", "tabbing", "picture"),
    ]
)
_TOKEN = re.compile(
    r"(?P<line>\\\\\*?(?:\[[^\]\n]*\])?)|(?P<escape>\\[%&_#${}])"
    r"|(?P<comment>%[^\n]*(?:\n[ \t]*)?)|(?P<blank>\r?\n[ \t]*(?:\r?\n[ \t]*)+)"
    r"|(?P<math>\$\$?|\\[\[(])"
    r"|\\begin[ \t]*\{(?P<begin>[^{}\n]*)\}|\\end[ \t]*\{(?P<end>[^{}\n]*)\}"
    r"|(?P<verb>\\(?:verb|lstinline)\*?(?P<bar>[^\w\s{*]).*?(?P=bar))"
    r"|(?P<space>~|\\[ ,;:!/@-])"
    r"|(?P<accent>\\[`'^\"~=.](?:\{\\?[A-Za-z]\}|[A-Za-z])|\\c\{[A-Za-z]\}"
    r"|\\(?:ss|ae|oe|o|aa|l|AE|OE|O|AA|L|i|j)(?![A-Za-z])(?:\{\}|[ ]?))"
    r"|\\(?P<command>[A-Za-z@]+)\*?|(?P<open>\{)|(?P<close>\})|(?P<sign>[&#_^$])",
    re.DOTALL,
)
_FORMULA_ENDS = {
    "$$": re.compile(r".+?\$\$", re.DOTALL),
    "$": re.compile(r"(?:[^$\\]|\\.)+\$", re.DOTALL),
    "\\[": re.compile(r".+?\\\]", re.DOTALL),
    "\\(": re.compile(r".+?\\\)", re.DOTALL),
}
_ARGUMENTS = re.compile(r"(?:[ \t]*(?:\[[^\[\]]*\]|\{(?:[^{}\\]|\\.|\{(?:[^{}\\]|\\.|\{[^{}]*\})*\})*\}))*", re.DOTALL)
_SPACE = re.compile(r"\s*")
_OPTION = re.compile(r"[ \t]*\[[^\[\]]*\]")


class Latex:
    """Reads and writes LaTeX."""

    name = "latex"

    def read(self, data: bytes, options: ReadOptions) -> Document:
        """Read a paper.

        Raises:
            InputError: It is no text.
        """
        source = decode_source(data, options)
        found = _Reader(source).segments()
        return span_document(self.name, source, found)

    def write(self, skeleton: SpanSkeleton, results: Results, options: ReadOptions) -> bytes:
        """Write a paper."""

        def render(result: Translated, segment: Segment, place: Place) -> str:
            return flowed(result, _escaped, segment.wrap)

        return write_spans(skeleton, results, render)


def _escaped(text: str) -> str:
    text = re.sub(r"[\r\n]+", " ", text)
    return re.sub(r"[\\%&_#${}]", lambda match: _ESCAPES.get(match.group(), "\\" + match.group()), text)


_ESCAPES = {"\\": "\\textbackslash{}"}


@dataclass
class _Group:
    """An open brace: what it belongs to, and what stood before it."""

    kind: str
    start: int


class _Reader:
    """Walks through a paper and collects the parts of a paragraph until something ends it."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.text = source.text
        self.found: list[tuple[Segment, Place]] = []
        self.parts: list[Part] = []
        self.begin = 0
        self.done = 0
        self.kind: Kind = "paragraph"
        self.groups: list[_Group] = []
        self.open_ended: set[tuple[str, int]] = set()

    def segments(self) -> list[tuple[Segment, Place]]:
        """Return all segments."""
        body = re.search(r"\\begin[ \t]*\{document\}", self.text)
        at = 0
        if body is not None:
            self._head(body.start())
            at = body.end()
        self.begin = self.done = at
        stop = re.compile(r"\\end[ \t]*\{document\}").search(self.text, at)
        end = stop.start() if stop else len(self.text)
        while (match := _TOKEN.search(self.text, self.done, end)) is not None:
            self._words(match.start())
            self._take(match, end)
        self._words(end)
        self._flush(end)
        return self.found

    def _head(self, end: int) -> None:
        """Take the title out of what stands before the document."""
        for match in re.finditer(r"\\(?:title|subtitle)\*?[ \t]*(?:\[[^\]]{0,2000}\])?\{", self.text[:end]):
            if match.start() < self.done:
                continue
            self.begin = self.done = match.end()
            close = _closing(self.text, match.end(), end)
            while (token := _TOKEN.search(self.text, self.done, close)) is not None:
                self._words(token.start())
                self._take(token, close)
            self._words(close)
            self.kind = "title"
            self._flush(close)

    def _words(self, end: int) -> None:
        if end > self.done:
            self.parts.append(re.sub(r"\s+", " ", self.text[self.done : end]))
            self.done = end

    def _code(self, end: int, *, role: Role = "alone", text: str = "", breaks: bool = False) -> None:
        self.parts.append(Code(literal=self.text[self.done : end], role=role, text=text, breaks=breaks))
        self.done = end

    def _take(self, match: re.Match[str], end: int) -> None:
        kind, literal = match.lastgroup, match.group()
        if match.group("begin") is not None or match.group("end") is not None:
            self._environment(match, end)
        elif kind == "blank":
            self._flush(match.start())
            self.begin = self.done = match.end()
        elif kind == "comment":
            self._code(match.end())
        elif kind == "math":
            self._math(match, end)
        elif match.group("command") is not None:
            self._command(match, end)
        elif kind == "open":
            self.groups.append(_Group("brace", match.start()))
            self._code(match.end(), role="open")
        elif kind == "close":
            self._close(match)
        elif kind == "line":
            self._code(match.end(), breaks=True)
        elif match.group("accent") is not None:
            self.parts.append(_letter(literal))
            self.done = match.end()
        elif kind == "escape":
            self._code(match.end(), text=literal[1:])
        elif kind == "space":
            self._code(match.end(), text=" " if literal == "~" else "")
        else:
            self._code(match.end(), text=literal)

    def _math(self, match: re.Match[str], end: int) -> None:
        """Take a formula; a mark that begins none is a sign, and so are those like it further on."""
        opens = match.group()
        stop = None if (opens, end) in self.open_ended else _FORMULA_ENDS[opens].match(self.text, match.end(), end)
        if stop is not None:
            self._code(stop.end(), text=self.text[match.start() : stop.end()])
            return
        if opens != "$":
            self.open_ended.add((opens, end))
        self._code(match.end(), text=opens) if opens[0] == "$" else self._words(match.end())

    def _environment(self, match: re.Match[str], end: int) -> None:
        name = (match.group("begin") or match.group("end") or "").rstrip("*")
        self._flush(match.start())
        if match.group("begin") is not None and name in _VERBATIM:
            stop = re.compile(rf"\\end[ \t]*\{{{re.escape(match.group('begin'))}\}}").search(
                self.text, match.end(), end
            )
            self.done = stop.end() if stop else end
        else:
            self.done = match.end()
            if match.group("begin") is not None:
                self.done = matched_end(_ARGUMENTS, self.text, self.done, end)
        self.begin = self.done

    def _command(self, match: re.Match[str], end: int) -> None:
        name = match.group("command")
        option = _OPTION.match(self.text, match.end(), end)
        after = option.end() if option else match.end()
        opened = self.text[after : after + 1] == "{"
        if name == "item":
            self._flush(match.start())
            self.begin = self.done = after
            self.kind = "list_item"
        elif name in _HEADINGS and opened:
            self._flush(match.start())
            self.begin = self.done = after + 1
            self.groups.append(_Group("heading", match.start()))
            self.kind = "heading"
        elif name in _APART and opened:
            self._code(after + 1, breaks=True)
            self.groups.append(_Group("apart", match.start()))
        elif name in _TEXT and opened:
            self._code(after + 1, role="open")
            self.groups.append(_Group("brace", match.start()))
        else:
            stop = _ARGUMENTS.match(self.text, match.end(), end)
            self._code(stop.end() if stop else match.end(), text="" if name in _SILENT else " ")

    def _close(self, match: re.Match[str]) -> None:
        group = self.groups.pop() if self.groups else None
        if group is not None and group.kind == "heading":
            self._flush(match.start())
            self.begin = self.done = match.end()
        else:
            apart = group is None or group.kind == "apart"
            self._code(match.end(), role="alone" if apart else "close", breaks=apart)

    def _flush(self, end: int) -> None:
        """End the paragraph."""
        parts, kind = self.parts, self.kind
        self.parts, self.kind = [], "paragraph"
        # A heading ends the paragraph before it: only other groups stand open within it.
        while self.groups and self.groups[-1].kind != "heading":
            self.groups.pop()
        start = matched_end(_SPACE, self.text, self.begin, end)
        # What stands before the first word, such as a label, keeps its own line.
        silent = next((index for index, part in enumerate(parts) if not _is_silent(part)), len(parts))
        for part in parts[:silent]:
            if isinstance(part, Code):
                start += len(part.literal)
            start = matched_end(_SPACE, self.text, start, end)
        parts = parts[silent:]
        raw = self.text[start:end]
        end -= len(raw) - len(raw.rstrip())
        if parts and isinstance(parts[0], str):
            parts[0] = parts[0].lstrip()
        if parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
        if start >= end or not has_words(parts):
            return
        found = tuple(pair_codes([part for part in parts if part != ""], lambda literal: "{"))
        # A comment ends at its line end: such a paragraph cannot be wrapped again.
        comment = any(isinstance(part, Code) and "%" in part.literal and "\n" in part.literal for part in found)
        segment = Segment(
            parts=found,
            kind=kind,
            line=self.source.line(start),
            offset=start,
            wrap=None if comment else wrap_of(self.text, start, end),
            flowing=True,
        )
        self.found.append((segment, Place(start, end)))


def _is_silent(part: Part) -> bool:
    return not part.strip() if isinstance(part, str) else part.role == "alone" and not part.text.strip()


_SILENT = frozenset(
    [
        "label",
        "index",
        "noindent",
        "centering",
        "newpage",
        "clearpage",
        "maketitle",
        "tableofcontents",
        "vspace",
        "hspace",
        "bigskip",
        "medskip",
        "smallskip",
        "small",
        "large",
        "Large",
        "bfseries",
        "itshape",
        "protect",
    ]
)
_ACCENTS = {
    "`": "\u0300",
    "'": "\u0301",
    "^": "\u0302",
    "~": "\u0303",
    '"': "\u0308",
    "=": "\u0304",
    ".": "\u0307",
    "c": "\u0327",
}
_LETTERS = {
    "ss": "ß",
    "ae": "æ",
    "oe": "œ",
    "o": "ø",
    "aa": "å",
    "l": "ł",
    "AE": "Æ",
    "OE": "Œ",
    "O": "Ø",
    "AA": "Å",
    "L": "Ł",
    "i": "ı",
    "j": "ȷ",
}


def _letter(literal: str) -> str:
    import unicodedata

    name = re.match(r"\\([A-Za-z]+)", literal)
    if name and name.group(1) in _LETTERS:
        return _LETTERS[name.group(1)]
    base = re.findall(r"[A-Za-z]", literal)[-1]
    return unicodedata.normalize("NFC", base + _ACCENTS.get(literal[1], ""))


def _closing(text: str, at: int, end: int) -> int:
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at, end):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return end
