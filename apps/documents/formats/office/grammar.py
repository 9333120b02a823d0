"""What the elements of an XML format are for readers: paragraphs, text within them, things kept whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Kind
from nlpkit.apps.documents.formats.office.xml_tokens import Token

_NONE: frozenset[str] = frozenset()


def _keep_none(token: Token) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The elements of a format, by the names of `xml_tokens.NAMESPACES`.

    Attributes:
        paragraphs: Elements whose content is a segment.
        containers: Elements that enclose text within a paragraph.
        direct: Whether text stands in paragraphs and containers themselves rather than in elements of its own.
        loose: Whether text between the blocks of a page is a segment too; `containers` and `pieces` do not end it.
        pieces: With `loose`, elements within text that are kept whole.
        runs: Elements with a piece of text and its looks.
        looks: The element of a run that says how it looks.
        texts: Elements with the text of a run.
        leading: Elements that stay before the text of a paragraph.
        trailing: Elements that stay behind it.
        letters: Elements that stand for a character.
        blanks: The element that stands for several blanks.
        breaks: Elements between which text is read apart.
        dropped: Elements that say something about the old text alone, such as marks of a spell checker.
        hidden: Elements that hold nothing for readers.
        said: Elements that are kept whole, but say something to readers.
        attributes: Attributes for readers, by element.
        kinds: What a paragraph is for readers, by the elements around it.
        leading_kinds: The same by patterns for what stands in the leading element.
        keeps: Whether an element is kept whole, by its attributes.
        noise: Attributes and elements, as a pattern, that make no difference to how a run looks.
        keep_blanks: Whether texts say by an attribute that their outer blanks count.
        keep_lines: Whether line ends in texts are line breaks, as in cells.
    """

    paragraphs: frozenset[str]
    containers: frozenset[str] = _NONE
    direct: bool = False
    loose: bool = False
    pieces: frozenset[str] = _NONE
    runs: frozenset[str] = _NONE
    looks: frozenset[str] = _NONE
    texts: frozenset[str] = _NONE
    leading: frozenset[str] = _NONE
    trailing: frozenset[str] = _NONE
    letters: Mapping[str, str] = field(default_factory=dict)
    blanks: str = ""
    breaks: frozenset[str] = _NONE
    dropped: frozenset[str] = _NONE
    hidden: frozenset[str] = _NONE
    said: frozenset[str] = _NONE
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    leading_kinds: tuple[tuple[str, Kind], ...] = ()
    keeps: Callable[[Token], bool] = _keep_none
    noise: str = ""
    keep_blanks: bool = False
    keep_lines: bool = False
