"""Taking a text apart into sentences to translate and the layout around them, and putting it together again.

What stands around the sentences comes back byte for byte: white space, line ends, marks of lists, headings, quotes
and dialogues, table pipes, speakers' names. Hard-wrapped paragraphs are joined before they are cut into sentences, and
wrapped again to their width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from nlpkit.apps.text.chunking import AFTER_ORDINAL, LINE_ENDS, split_lines, split_sentences
from nlpkit.apps.text.translation.protected_grammar import ProtectedSpan, find_protected

_BLANK = " \t\u00a0\u202f\u3000\u2007\ufeff\u200b"
_BULLETS = "-*+•‣◦▪●○■□◆◇–—―·∙☐☑✓✔✗✘→⇒➤►"
_PIPES = "|│┃║"
_BLANKS = rf"[{_BLANK}]"
_MARK = re.compile(
    "|".join(
        (
            rf"{_BLANKS}+",
            rf">+(?={_BLANKS}|$|[^\W\d_])",
            rf"[{re.escape(_BULLETS)}]+(?={_BLANKS})",
            rf"\[[ xX✓✔]?\](?={_BLANKS})",
            rf"\(?(?:\d{{1,3}}(?:\.\d{{1,3}}){{0,4}}|[A-Za-z]|[ivxIVX]{{1,5}})\)(?={_BLANKS})",
            rf"\d{{1,3}}(?:\.\d{{1,3}}){{0,4}}\.(?={_BLANKS})(?!{_BLANKS}{{1,3}}{AFTER_ORDINAL})",
            rf"\d{{1,2}}(?:\.\d{{1,2}}){{1,4}}(?={_BLANKS}+[^\W\d_a-z])",
            rf"[#=]{{1,6}}(?={_BLANKS})",
            r"[–—―](?=[^\W\d_]|[¿¡«\"“„'‘…])",
            r"-(?=[^\W\d_a-zß-ÿ]|[¿¡«])",
            rf"[♪♫]+(?={_BLANKS}|[^\W\d_])",
            r"[\u2500-\u257f|]+",
        )
    )
)
_MOST_MARKS = 12
_SPEAKER = re.compile(
    r"(?P<name>[^\W\d_a-zß-ÿ](?:[^\W\d_a-zß-ÿ]|[ .'’&-]){1,30}(?: \d{1,2})?)(?: \([^()\n]{1,30}\))?: +(?=\S)"
)
_LABEL_WORDS = (
    "NOTE NOTES WARNING CAUTION TIP INFO ERROR IMPORTANT TODO FIXME DANGER HINT ATTENTION EXAMPLE QUESTION ANSWER PS "
    "HINWEIS ACHTUNG WARNUNG FEHLER WICHTIG TIPP VORSICHT GEFAHR BEISPIEL FRAGE ANTWORT REMARQUE AVERTISSEMENT ERREUR "
    "EXEMPLE ASTUCE CONSEIL QUESTION RÉPONSE NOTA AVISO ADVERTENCIA ATENCIÓN CONSEJO EJEMPLO PREGUNTA RESPUESTA"
)
_LABELS = frozenset(_LABEL_WORDS.split())
"""Words before a colon that are to be translated, though they stand in capitals as speakers' names do."""
_CELL = re.compile(rf"{_BLANKS}*[{_PIPES}]+{_BLANKS}*|\t[{_BLANK}]*")
_PIPE = re.compile(rf"(?:^|{_BLANKS})[{_PIPES}](?:{_BLANKS}|$)")
_END = re.compile(rf"[{_BLANK}♪♫]+$")
_HEADING_END = re.compile(rf"{_BLANKS}+[#=]{{1,6}}$")
_STOPPED = re.compile(r"[.!?…:;。！？][\"'”’»«)\]]*$")
_HYPHENATED = re.compile(r"[^\W\d_]-$")
_AND = re.compile(r"(?:und|oder|bzw|and|or|et|ou|y|o|e|u)\b")
_CODE = re.compile(
    r"(?:\$|>>>|#!) ?\S.*|(?:sudo|curl|wget|chmod|mkdir|scp|ssh) \S+(?: .*[^.!?…:])?"
    r"|(?:npm|npx|pip3?|git|docker|apt|apt-get|brew|cargo|yarn|conda) (?:install|run|build|add|commit|push|pull|clone"
    r"|checkout|start|test|exec|ps|update|upgrade|remove|init|status|log|diff|i|create)(?: .*[^.!?…:])?"
    r"|(?:SELECT .+ FROM|INSERT INTO|UPDATE .+ SET|DELETE FROM|CREATE TABLE) .+"
    r"|[^;{}]*(?:[=<>]|\w\()[^;{}]*[;{](?:.*[;}])?|(?:break|continue|return);"
    r"|import \w+\.[\w.]+;?|from [\w.]+ import .+|#include .+",
    re.DOTALL,
)

MIN_WIDTH = 30
"""Lines of paragraphs that are less wide are verse, addresses or lists: they are never joined."""
SURE_WIDTH = 45
"""From this width on, a line may be joined to one that begins with a capital."""


@dataclass(frozen=True)
class Wrap:
    """How a paragraph was wrapped: `width` in characters, what each further line begins with, and its line end."""

    width: int
    indent: str
    line_end: str


@dataclass(frozen=True)
class LayoutBlock:
    """A line, or a wrapped paragraph, of a text.

    Attributes:
        source: The block as it stands in the text.
        segments: Its sentences without white space around them; a wrapped one has blanks for its line ends.
        glue: What stands before, between and after the sentences; one more than there are sentences.
        wrap: How to wrap the translation; None for a single line.
    """

    source: str
    segments: tuple[str, ...]
    glue: tuple[str, ...]
    wrap: Wrap | None = None


@dataclass(frozen=True)
class TextLayout:
    """A text as blocks; joined, their sources are the text."""

    blocks: tuple[LayoutBlock, ...]

    @property
    def segments(self) -> tuple[str, ...]:
        """All sentences to translate, in order; each has a letter."""
        return tuple(segment for block in self.blocks for segment in block.segments)


@dataclass(frozen=True)
class _Line:
    lead: str
    body: str
    trail: str

    @property
    def whole(self) -> str:
        return self.lead + self.body + self.trail

    @property
    def length(self) -> int:
        return len(self.lead) + len(self.body)


def read_layout(text: str, *, lines: bool = False) -> TextLayout:
    """Take a text apart.

    A line is joined to the next one if no word of the next would have fitted into the paragraph's width, the two
    have the same indent or quote mark, the next is no list item or heading, and the paragraph shows that it is
    wrapped: a sentence runs over a line end into a small letter, or lines are long. Verse, addresses and lists fail
    this.

    Args:
        text: Any text.
        lines: Every line stands for itself; none are joined.

    Returns:
        The layout; `write_layout` with its own segments gives the text back byte for byte.
    """
    parsed = [_parse(line) for line in split_lines(text)]
    groups = [[line] for line in parsed] if lines else _joined(parsed)
    return TextLayout(tuple(_paragraph(group) if len(group) > 1 else _single(group[0]) for group in groups))


def write_layout(layout: TextLayout, translations: Sequence[str]) -> str:
    """Put translations where their sentences stood.

    Args:
        layout: The source's layout.
        translations: One for each of ``layout.segments``, in order; line ends in them become blanks.

    Returns:
        The translated text. A block whose sentences did not change comes back as it was.

    Raises:
        ValueError: There are more or fewer translations than segments.
    """
    expected = sum(len(block.segments) for block in layout.blocks)
    if expected != len(translations):
        raise ValueError(f"{len(translations)} translations for {expected} segments")
    written, done = [], 0
    for block in layout.blocks:
        mine = translations[done : done + len(block.segments)]
        done += len(mine)
        written.append(block.source if tuple(mine) == block.segments else _write(block, mine))
    return "".join(written)


def _write(block: LayoutBlock, translations: Sequence[str]) -> str:
    pieces = [block.glue[0]]
    for translation, glue in zip(translations, block.glue[1:], strict=True):
        pieces += [" ".join(re.split(f"[{LINE_ENDS}]+", translation)), glue]
    if block.wrap is None:
        return "".join(pieces)
    return pieces[0] + _wrapped("".join(pieces[1:-1]), len(pieces[0]), block.wrap) + pieces[-1]


def _wrapped(text: str, used: int, wrap: Wrap) -> str:
    done: list[str] = []
    line: list[str] = []
    for word in text.split(" "):
        if line and used + len(word) > wrap.width and not _parse(word + " x").lead:
            done.append(" ".join(line))
            line, used = [], len(wrap.indent)
        line.append(word)
        used += len(word) + 1
    return (wrap.line_end + wrap.indent).join([*done, " ".join(line)])


def _parse(line: str) -> _Line:
    """Separate marks, white space and line end from what is said in a line."""
    said = line.rstrip(LINE_ENDS)
    if not said.strip():
        return _Line(line, "", "")
    at = 0
    for _ in range(_MOST_MARKS):
        match = _MARK.match(said, at)
        if match is None:
            break
        at = match.end()
    speaker = _SPEAKER.match(said, at)
    if speaker and speaker.group("name").strip() not in _LABELS:
        at = speaker.end()
    heading = said[:at].strip()[:1] in tuple("#=") and _HEADING_END.search(said, at)
    end = heading.start() if heading else len(said)
    tail = _END.search(said[max(at, end - 400) : end])
    if tail:
        end -= len(tail.group())
    if not _has_letter(said[at:end]):
        return _Line(line, "", "")
    return _Line(line[:at], line[at:end], line[end:])


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


def _joined(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Group lines into wrapped paragraphs and lines that stand for themselves."""
    runs: list[list[_Line]] = []
    for line in lines:
        if runs and runs[-1][-1].body and line.body and _continues(runs[-1], line):
            runs[-1].append(line)
        else:
            runs.append([line])
    split = [_full_lines(run) for run in runs]
    sure = [_width(group) for groups in split for group in groups if _runs_over(group)]
    width = max(sure, default=0)
    return [part for groups in split for group in groups for part in _decided(group, width)]


def _continues(run: Sequence[_Line], line: _Line) -> bool:
    """Whether a line could belong to the paragraph before it, by its beginning alone."""
    if _CELL.search(line.body) or _CELL.search(run[-1].body):
        return False
    previous = run[-1].lead
    if len(run) > 1 or not previous.strip(_BLANK + ">"):
        return line.lead == previous
    # Behind a list mark: further lines hang below the text, or begin where the mark began.
    return not line.lead.strip(_BLANK) and (bool(line.lead) or previous[:1] not in _BLANK)


def _full_lines(run: Sequence[_Line]) -> list[list[_Line]]:
    """Cut a run of lines behind each that had room for the next word; verse falls into single lines."""
    width = _width(run)
    short = [not _is_full(one, two, width) for one, two in pairwise(run)]
    if width < MIN_WIDTH or (len(run) >= 4 and sum(short) * 2 > len(short)):
        return [[line] for line in run]
    groups = [[run[0]]]
    for line, cut in zip(run[1:], short, strict=True):
        if cut:
            groups.append([line])
        else:
            groups[-1].append(line)
    return groups


def _width(lines: Iterable[_Line]) -> int:
    return max(line.length for line in lines)


def _is_full(line: _Line, following: _Line, width: int) -> bool:
    word = following.body.split(" ", 1)[0]
    return line.length + 1 + len(word) > width


def _runs_over(group: Sequence[_Line]) -> bool:
    """Whether a sentence certainly goes on over a line end of the group."""
    return any(not _STOPPED.search(one.body) and two.body[:1].islower() for one, two in pairwise(group))


def _decided(group: list[_Line], width: int) -> list[list[_Line]]:
    if len(group) == 1 or _runs_over(group):
        return [group]
    # Nothing but capitals behind the line ends: wrapped if others are, to the same width, or if many long lines without
    # a stop have no room for the next word, which verse hardly ever does.
    pairs = list(pairwise(group))
    full = width >= SURE_WIDTH and all(_is_full(one, two, width) for one, two in pairs)
    unstopped = sum(one.body[-1:].isalnum() for one, _ in pairs)
    full = full or (len(pairs) >= 3 and _width(group) >= SURE_WIDTH and unstopped * 2 > len(pairs))
    return [group] if full else [[line] for line in group]


def _paragraph(group: Sequence[_Line]) -> LayoutBlock:
    text = group[0].body
    for one, two in pairwise(group):
        text = f"{text.rstrip(_BLANK)}{_between(one.body, two.body)}{two.body}"
    segments, glue = _sentences(text)
    line_end = group[0].trail.lstrip(_BLANK)
    glue[0] = group[0].lead + glue[0]
    glue[-1] += group[-1].trail
    source = "".join(line.whole for line in group)
    return LayoutBlock(source, tuple(segments), tuple(glue), Wrap(_width(group), group[1].lead, line_end))


def _between(one: str, two: str) -> str:
    hyphenated = _HYPHENATED.search(one) and two[:1].islower() and not _AND.match(two)
    unspaced = one[-1:] >= "\u2e80" and two[:1] >= "\u2e80" and one[-1:] < "\uac00" and two[:1] < "\uac00"
    return "" if hyphenated or unspaced else " "


def _single(line: _Line) -> LayoutBlock:
    if not line.body:
        return LayoutBlock(line.whole, (), (line.whole,))
    segments: list[str] = []
    glue = [line.lead]
    for cell, behind in _cells(line.body):
        found, around = _sentences(cell)
        segments += found
        glue[-1] += around[0]
        glue += around[1:]
        glue[-1] += behind
    glue[-1] += line.trail
    return LayoutBlock(line.whole, tuple(segments), tuple(glue))


def _cells(body: str) -> list[tuple[str, str]]:
    """Cut the cells of a table's row apart; pipes inside code and placeholders are none."""
    if "\t" not in body and not _PIPE.search(body):
        return [(body, "")]
    cells, done = [], 0
    spans = find_protected(body)
    inside = _inside([match.start() for match in _CELL.finditer(body)], spans)
    for match in _CELL.finditer(body):
        if match.start() not in inside:
            cells.append((body[done : match.start()], match.group()))
            done = match.end()
    return [*cells, (body[done:], "")]


def _inside(places: Sequence[int], spans: Sequence[ProtectedSpan]) -> set[int]:
    """Return the places, of those in order, that lie within a span."""
    found, at = set(), 0
    for place in places:
        while at < len(spans) and spans[at].end <= place:
            at += 1
        if at < len(spans) and spans[at].start < place:
            found.add(place)
    return found


def _sentences(text: str) -> tuple[list[str], list[str]]:
    """Cut text into sentences with letters, and what stands before, between and after them."""
    pieces = split_sentences(text)
    cuts = list(accumulate(map(len, pieces)))[:-1]
    inside = _inside(cuts, find_protected(text)) if cuts else set()
    edges = [0, *(cut for cut in cuts if cut not in inside), len(text)]
    segments: list[str] = []
    glue = [""]
    for begin, end in pairwise(edges):
        piece = text[begin:end]
        body = piece.strip()
        if not _has_letter(body):
            glue[-1] += piece
            continue
        glue[-1] += piece[: len(piece) - len(piece.lstrip())]
        segments.append(body)
        glue.append(piece[len(piece.rstrip()) :])
    return segments, glue


def copies_as_is(text: str) -> bool:
    """Tell whether a text has nothing to translate: no letters but those of names of files, codes, placeholders.

    Lines of program code and commands count too, where their signs leave no doubt.
    """
    done = 0
    for span in find_protected(text):
        if _has_letter(text[done : span.start]):
            break
        done = span.end
    else:
        if not _has_letter(text[done:]):
            return True
    body = text.strip()
    return len(body) <= 400 and _CODE.fullmatch(body) is not None
