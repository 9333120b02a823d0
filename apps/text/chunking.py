"""Cutting text into sentences, lines and paragraphs, and packing them to a token budget, without losing a character.

Every function returns pieces that, joined, are the text again: separators stay at the end of the piece before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from nlpkit.apps.text.abbreviations import ABBREVIATIONS, MAY_END, NUMBERED, STARTERS

CountTokens = Callable[[str], int]

LINE_ENDS = "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""Everything that `str.splitlines` takes for the end of a line."""

_LINE = re.compile(f"[^{LINE_ENDS}]*(?:\r\n|[{LINE_ENDS}])|[^{LINE_ENDS}]+")
_BLANK_LINES = re.compile(r"(?:\r\n|\n|\r)(?:[ \t]*(?:\r\n|\n|\r))+")
# “ and « open in some languages and close in others; before white space they close.
_CLOSERS = "\"'”’“‘»«›)]}｣」』）】》〉〕"
_CJK_CLOSERS = "\"'”’)]」』）】》〉〕"
_CJK_STOPS = "。！？｡．"
_STOPS = ".!?…‽۔؟।॥።։៕"
# A stop needs white space after it, so that numbers, versions, addresses and links stay whole.
_STOP = re.compile(
    rf"(?<![{_STOPS}])(?P<stop>[{_STOPS}]+)(?P<close>(?:[{re.escape(_CLOSERS)}*_]|[\u00a0\u202f ]»)*)(?P<space>\s+)"
    rf"|(?P<cjk>[{_CJK_STOPS}]+[{_CJK_STOPS}!?…]*)[{re.escape(_CJK_CLOSERS)}]*\s*"
)
_LAST_WORD = re.compile(r"[^\s(\[{\"'“‘„«‹]+$")
AFTER_ORDINAL = (
    r"(?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|Jh|Kapitel|Klasse|Auflage|Tag|Platz|Weltkrieg"
    r"|Stock|Etage|Mal|Geburtstag|Lebensjahr|Jahr|Monat|Woche|Stunde|Runde|Liga|Teil|Band|Absatz|Person|Grad)"
)
"""Pattern of what follows a German ordinal most often."""
_AFTER_ORDINAL = re.compile(AFTER_ORDINAL)
_BEFORE_ORDINAL = re.compile(
    r"(?<!\w)(?:am|der|die|das|dem|den|des|im|vom|zum|zur|beim|ab|bis|seit|jeder|jede|jedes|jeden|dieser|ihr|ihren|sein|"
    r"seinen|mein|meinen)[ \u00a0]$",
    re.IGNORECASE,
)
_NEXT_WORD = re.compile(r"[^\W\d_]+")
_ROMAN = re.compile(r"(?=[IVX]{2})[IVX]+")
_OPENERS = "\"'“‘„«‹([{¿¡*_-–—•#"
_CLAUSE = re.compile(r"(?:[,;:]\s+|\s+[-–—]\s+|[，；：、]\s*)")
_WORD = re.compile(r"\s+")


def split_lines(text: str) -> list[str]:
    """Cut text after each line end; the line end stays with its line.

    Lines end where `str.splitlines` ends them, so that both count alike.
    """
    return _LINE.findall(text)


def split_paragraphs(text: str) -> list[str]:
    """Cut text after each run of blank lines, which stays with the paragraph before it."""
    return _cut_at(text, [match.end() for match in _BLANK_LINES.finditer(text)])


def split_sentences(text: str) -> list[str]:
    """Cut text into sentences by rule; white space after a sentence stays with it.

    A sentence ends at a stop (with the quotes and brackets that close on it) before white space, at a Chinese or
    Japanese stop, and at the end of a paragraph. A full stop ends none before a lower-case word, after an
    abbreviation of a dozen languages, after an initial, after the number of a list item, or after an ordinal before
    a German month and the like. There is no model behind it: unusual abbreviations before capitals are cut.

    Args:
        text: Text in any language.

    Returns:
        The sentences; joined they are the text.
    """
    cuts = [match.end() for match in _BLANK_LINES.finditer(text)]
    start = 0
    for match in _STOP.finditer(text):
        if match.group("cjk") or _ends_sentence(text, start, match):
            cuts.append(match.end())
            start = match.end()
    return _cut_at(text, cuts)


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    stop = match.group("stop")
    follower = text[match.end() : match.end() + 4].lstrip(_OPENERS)[:1]
    if "\n" in match.group("space") and not follower.islower():
        return True
    if follower.islower():
        # "Really?" she asked; also behind a dash, and in Yahoo! itself.
        return False
    if stop != "." or match.group("close"):
        return True
    found = _LAST_WORD.search(text, max(start, match.start() - 40), match.start())
    return _is_last(found.group() if found else "", text, start, match)


def _is_last(word: str, text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a word before a full stop and a capital or a sign ends its sentence."""
    begin = match.start() - len(word)
    following = _NEXT_WORD.match(text, match.end())
    starts = following is not None and following.group() in STARTERS
    lowered = word.lower()
    if len(word) == 1 and word.isalpha():
        # J. R. R. Tolkien, z. B. Der; but: Plan B. Then.
        return word.isupper() and starts and text[begin - 2 : begin - 1] != "."
    if word.isdecimal():
        # "3. Open it" numbers an item, "am 3. Mai" is an ordinal; but "in 1999. Then" ends.
        numbers_item = len(word) <= 3 and not text[start:begin].strip()
        ordinal = _AFTER_ORDINAL.match(text, match.end()) or (
            len(word) <= 3 and not starts and _BEFORE_ORDINAL.search(text, max(start, begin - 9), begin)
        )
        return not numbers_item and not ordinal
    if lowered in NUMBERED and lowered not in ABBREVIATIONS:
        beside = (
            text[match.end() : match.end() + 1].isdecimal()
            or text[max(start, begin - 3) : begin].strip(" .")[-1:].isdecimal()
        )
        return not beside
    if lowered in MAY_END:
        return starts
    if _ROMAN.fullmatch(word):
        # Ludwig XIV. König; but: Band XIV. Der
        return starts
    return lowered not in ABBREVIATIONS and (starts or not _is_dotted(word))


def _is_dotted(word: str) -> bool:
    return "." in word and len(word) <= 5 and word.replace(".", "").isalpha()


def pack(pieces: Sequence[str], max_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Join neighbouring pieces into chunks of at most `max_tokens`, cutting pieces that are longer on their own.

    Args:
        pieces: Sentences, lines or paragraphs with their separators.
        max_tokens: Budget of a chunk, in tokens, at least 1.
        count_tokens: Counts the tokens of a text.

    Returns:
        Chunks; joined they are the joined pieces. Each is within the budget unless a single character is not.
    """
    chunks: list[str] = []
    current: list[str] = []
    used = 0
    for piece in pieces:
        size = count_tokens(piece)
        if size > max_tokens:
            chunks.extend(_fitting(current, max_tokens, count_tokens))
            current, used = [], 0
            chunks.extend(cut_long(piece, max_tokens, count_tokens))
            continue
        if current and used + size > max_tokens:
            chunks.extend(_fitting(current, max_tokens, count_tokens))
            current, used = [], 0
        current.append(piece)
        used += size
    chunks.extend(_fitting(current, max_tokens, count_tokens))
    return chunks


def _fitting(pieces: list[str], max_tokens: int, count_tokens: CountTokens) -> list[str]:
    # Sums of token counts are an estimate: the parts of some tokenizers do not add up to the whole.
    if not pieces:
        return []
    joined = "".join(pieces)
    if len(pieces) == 1 or count_tokens(joined) <= max_tokens:
        return [joined]
    middle = len(pieces) // 2
    return _fitting(pieces[:middle], max_tokens, count_tokens) + _fitting(pieces[middle:], max_tokens, count_tokens)


def split_to_fit(text: str, max_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Cut text into chunks of at most `max_tokens` at the best boundaries: paragraphs, then sentences.

    Paragraphs that fit are never cut to fill a chunk up.

    Args:
        text: Text of any length.
        max_tokens: Budget of a chunk, in tokens.
        count_tokens: Counts the tokens of a text.

    Returns:
        Chunks; joined they are the text.
    """
    pieces: list[str] = []
    for paragraph in split_paragraphs(text):
        if count_tokens(paragraph) <= max_tokens:
            pieces.append(paragraph)
        else:
            pieces.extend(pack(split_sentences(paragraph), max_tokens, count_tokens))
    return pack(pieces, max_tokens, count_tokens)


def cut_long(text: str, max_tokens: int, count_tokens: CountTokens) -> list[str]:
    """Cut one overlong sentence: at clause boundaries, else between words, else between characters.

    Args:
        text: The sentence.
        max_tokens: Budget of a piece, in tokens.
        count_tokens: Counts the tokens of a text.

    Returns:
        Pieces; joined they are the text. Each is within the budget unless a single character is not.
    """
    pieces = []
    while text and count_tokens(text) > max_tokens:
        head = cut_to_fit(text, max_tokens, count_tokens) or text[:1]
        pieces.append(head)
        text = text[len(head) :]
    return [*pieces, text] if text else pieces


def cut_to_fit(text: str, max_tokens: int, count_tokens: CountTokens) -> str:
    """Return the longest beginning of a text within the budget, cut at a boundary where one is near.

    Args:
        text: Text of any length.
        max_tokens: Budget, in tokens.
        count_tokens: Counts the tokens of a text.

    Returns:
        A prefix of the text; empty if not even its first character fits.
    """
    # A token spells at least a few bytes on average: look at no more text than could fit, then double if it all does.
    reach = min(len(text), max(16, 8 * max_tokens))
    while reach < len(text) and count_tokens(text[:reach]) <= max_tokens:
        reach = min(len(text), 2 * reach)
    if count_tokens(text[:reach]) <= max_tokens:
        return text
    low, high = 0, reach - 1
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    for boundary, least in ((_STOP, low // 2), (_CLAUSE, low // 2), (_WORD, 0)):
        ends = [match.end() for match in boundary.finditer(text, 0, low + 1) if least < match.end() <= low]
        if ends and count_tokens(text[: ends[-1]]) <= max_tokens:
            return text[: ends[-1]]
    return text[:low]


def _cut_at(text: str, cuts: Sequence[int]) -> list[str]:
    edges = sorted({0, *cuts, len(text)})
    return [text[begin:end] for begin, end in pairwise(edges) if begin < end]
