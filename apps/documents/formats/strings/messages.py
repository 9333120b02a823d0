"""Messages of programs: text with tags and ICU arguments, as all formats of programs' texts have them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from nlpkit.apps.documents.document import Code, Part, Role, joined

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[A-Za-z][\w:.-]*|\d{1,3})(?:\s[^<>]{0,400}?)?(?P<empty>/?)>")
_VOID = frozenset(["area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
_ICU = re.compile(r"\{\s{0,9}[\w.]{1,60}\s{0,9},\s{0,9}(?:plural|select|selectordinal)\s{0,9},")
_ACCELERATOR = re.compile(r"(?<![^\s(\"'])[&_](?=[^\W\d_])(?![A-Za-z]{1,31};)")
MAX_DEPTH = 8
"""Deepest nesting of ICU plurals and choices whose cases are told apart."""

LONGEST_LABEL = 80
"""Characters up to which a message may be the label of a button or menu, which have keyboard shortcuts."""
_CHOICE = re.compile(r"\s*(?:offset:\d+\s*)?(?:=\d+|[\w-]+)\s*\{")


def _same(text: str) -> str:
    return text


def message_parts(text: str, escape: Callable[[str], str] = _same) -> tuple[Part, ...]:
    """Cut a message into text and codes.

    Tags are codes; those that enclose text are pairs. Of ICU plurals and choices the cases are texts for themselves.

    Args:
        text: The message as people read it.
        escape: Writes text as it stands in the file.
    """
    return tuple(pair_codes(_unpaired(text, escape)))


def message_pieces(pieces: Iterable[Part], escape: Callable[[str], str] = _same) -> tuple[Part, ...]:
    """Cut a message of which some pieces are codes already into text and codes.

    Args:
        pieces: Text as people read it, and codes, such as escapes that are not undone.
        escape: Writes text as it stands in the file.
    """
    parts: list[Part] = []
    for piece in joined(pieces):
        parts += [piece] if isinstance(piece, Code) else _unpaired(piece, escape)
    return tuple(pair_codes(parts))


def join_surrogates(text: str) -> str:
    """Return a text whose characters beyond U+FFFF were written as two escapes; half of a pair becomes U+FFFD.

    Args:
        text: The text, each escape undone for itself.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unpaired(text: str, escape: Callable[[str], str], depth: int = 0) -> list[Part]:
    parts: list[Part] = []
    done = 0
    for start, end, cases in _icu(text) if depth < MAX_DEPTH else ():
        parts += _tagged(text[done:start], escape)
        parts += _argument(text, start, end, cases, escape, depth + 1)
        done = end
    return [*parts, *_tagged(text[done:], escape)]


def accelerated(text: str, escape: Callable[[str], str] = _same) -> list[Part]:
    """Cut a short text at the mark of its keyboard shortcut, as in ``&Open`` and ``Save _as``, if it has one.

    Args:
        text: Text of a message.
        escape: Writes text as it stands in the file.
    """
    found = list(_ACCELERATOR.finditer(text)) if len(text) <= LONGEST_LABEL else []
    if len(found) != 1 or text.count(found[0].group()) > 1:
        return [text]
    (match,) = found
    code = Code(literal=escape(match.group()))
    return [part for part in (text[: match.start()], code, text[match.end() :]) if part]


def has_cases(text: str) -> bool:
    """Return whether a message has ICU plurals or choices, whose cases are for people."""
    return "{" in text and bool(_icu(text))


def _tagged(text: str, escape: Callable[[str], str]) -> list[Part]:
    parts: list[Part] = []
    done = 0
    for match in _TAG.finditer(text):
        parts += accelerated(text[done : match.start()], escape) if match.start() > done else []
        name = match.group("name").lower()
        alone = match.group("empty") or name in _VOID
        role: Role = "close" if match.group("close") else "alone" if alone else "open"
        parts.append(Code(literal=escape(match.group()), role=role, breaks=name in ("br", "hr", "p")))
        done = match.end()
    return [*parts, *accelerated(text[done:], escape)] if text[done:] else parts


def pair_codes(parts: list[Part], name: Callable[[str], str] | None = None) -> list[Part]:
    """Number the opening and closing codes that belong together; others stand alone.

    Args:
        parts: Text and codes.
        name: Returns the name of a code's literal; by default that of a tag.
    """
    found = name or _tag_name
    numbers: dict[int, int] = {}
    stack: list[tuple[str, int]] = []
    there: Counter[str] = Counter()
    for index, part in enumerate(parts):
        if isinstance(part, str) or part.role == "alone":
            continue
        called = found(part.literal)
        if part.role == "open":
            stack.append((called, index))
            there[called] += 1
        elif there[called]:
            while stack[-1][0] != called:
                there[stack.pop()[0]] -= 1
            there[called] -= 1
            numbers[stack.pop()[1]] = numbers[index] = len(numbers) // 2 + 1
    done: list[Part] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            done.append(part)
        elif index in numbers:
            done.append(
                Code(literal=part.literal, role=part.role, pair=numbers[index], breaks=part.breaks, text=part.text)
            )
        else:
            # Half a pair keeps its order among the others, as what breaks a text does.
            done.append(Code(literal=part.literal, breaks=part.breaks or part.role != "alone", text=part.text))
    return done


def _tag_name(literal: str) -> str:
    match = re.match(r"(?:<|&lt;|\\?<)/?([\w:.-]+)", literal)
    return match.group(1).lower() if match else literal


def _icu(text: str) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Return begin and end of each ICU argument with cases, and where these cases stand."""
    found = []
    at = 0
    closes: dict[int, int] | None = None
    while (match := _ICU.search(text, at)) is not None:
        at = match.end()
        closes = _closes(text) if closes is None else closes
        cases = _cases(text, at, closes)
        if cases is not None:
            at = cases[-1][1]
            found.append((match.start(), at, cases[:-1]))
    return found


def _argument(
    text: str, start: int, end: int, cases: list[tuple[int, int]], escape: Callable[[str], str], depth: int
) -> list[Part]:
    parts: list[Part] = []
    done = start
    for begin, stop in cases:
        parts.append(Code(literal=escape(text[done:begin]), breaks=True))
        parts += _hashes(pair_codes(_unpaired(text[begin:stop], escape, depth)), escape)
        done = stop
    return [*parts, Code(literal=escape(text[done:end]), breaks=True)]


def _hashes(parts: Sequence[Part], escape: Callable[[str], str]) -> list[Part]:
    done: list[Part] = []
    for part in parts:
        if not isinstance(part, str):
            done.append(Code(literal=part.literal, breaks=part.breaks, text=part.text))
            continue
        for index, piece in enumerate(part.split("#")):
            done += [Code(literal=escape("#"), text="5")] if index else []
            done += [piece] if piece else []
    return done


def _cases(text: str, at: int, closes: Mapping[int, int]) -> list[tuple[int, int]] | None:
    """Return where the cases of an ICU argument stand, and last where the argument ends; None if it never does."""
    spans: list[tuple[int, int]] = []
    while (match := _CHOICE.match(text, at)) is not None:
        end = closes.get(match.end() - 1)
        if end is None:
            return None
        spans.append((match.end(), end))
        at = end + 1
    rest = re.compile(r"\s*\}").match(text, at)
    return [*spans, (at, rest.end())] if spans and rest else None


def _closes(text: str) -> dict[int, int]:
    """Return where each brace that opens is closed."""
    closes: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"[{}]", text):
        if match.group() == "{":
            opened.append(match.start())
        elif opened:
            closes[opened.pop()] = match.start()
    return closes
