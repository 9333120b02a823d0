"""Masks for inline codes: text and codes become one text for the model, and its answer becomes text and codes again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nlpkit.apps.documents.document import Code, Part
from nlpkit.apps.documents.document import joined as joined
from nlpkit.apps.text.translation.protected_grammar import find_protected

MASK = re.compile(r"⟦([1-9]\d{0,5})⟧")
_BRACKETS = re.compile(r"[⟦⟧]+")
_BLANKS = " \u00a0\u202f\t"
_PLAIN_NUMBER = re.compile(r"\d{1,4}(?:[.,]\d{1,2})?")


@dataclass(frozen=True)
class MaskedText:
    """A text with masks.

    Attributes:
        text: The text; ``⟦1⟧`` stands for the first of `codes`.
        codes: What the masks stand for: codes of the format, or pieces of text that must stay as they are.
        more: What masks with higher numbers stand for, which one sentence of the text has for itself.
    """

    text: str
    codes: tuple[Part, ...] = ()
    more: tuple[Part, ...] = ()

    @property
    def n_codes(self) -> int:
        """How many masks there are."""
        return len(self.codes) + len(self.more)

    def code(self, number: str | int) -> Part:
        """Return what a mask stands for."""
        index = int(number) - 1
        return self.codes[index] if index < len(self.codes) else self.more[index - len(self.codes)]

    def parts(self, text: str) -> tuple[Part, ...]:
        """Return the text and codes of a text with these masks."""
        parts: list[Part] = []
        done = 0
        for match in MASK.finditer(text):
            parts += [text[done : match.start()], self.code(match.group(1))]
            done = match.end()
        return joined([*parts, text[done:]])

    def plain(self, text: str) -> str:
        """Return what people read of a text with these masks."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts(text))

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of the masks in a text, in order."""
        return [int(match.group(1)) for match in MASK.finditer(text)]


def mask_parts(parts: Sequence[Part]) -> MaskedText:
    """Put a mask in the place of each code; brackets that look like masks are masked as well."""
    pieces: list[str] = []
    codes: list[Part] = []

    def masked(code: Part) -> None:
        codes.append(code)
        pieces.append(f"⟦{len(codes)}⟧")

    for part in parts:
        if isinstance(part, Code):
            masked(part)
            continue
        done = 0
        for match in _BRACKETS.finditer(part):
            pieces.append(part[done : match.start()])
            masked(match.group())
            done = match.end()
        pieces.append(part[done:])
    return MaskedText("".join(pieces), tuple(codes))


def mask_protected(text: str, masked: MaskedText) -> tuple[str, MaskedText]:
    """Mask placeholders, addresses, code and long numbers in a text with masks.

    Args:
        text: A sentence of ``masked.text``.
        masked: What its masks stand for.

    Returns:
        The sentence with more masks, and all that they stand for.
    """
    # Those of the whole text are shared: it may have very many sentences.
    more = list(masked.more)
    pieces, done = [], 0
    for span in find_protected(text):
        if MASK.fullmatch(text, span.start, span.end):
            continue
        if span.kind == "number" and _PLAIN_NUMBER.fullmatch(text, span.start, span.end):
            continue
        more.append(text[span.start : span.end])
        pieces += [text[done : span.start], f"⟦{len(masked.codes) + len(more)}⟧"]
        done = span.end
    return "".join(pieces) + text[done:], replace(masked, more=tuple(more))


def problems(source: str, answer: str, masked: MaskedText) -> list[str]:
    """Say which codes an answer lost, doubled, made up or put into an order that means something else.

    Args:
        source: What the model was asked, with masks.
        answer: What it answered.
        masked: What the masks stand for.

    Returns:
        The literals in question; none if every code is there once and in a valid order.
    """
    wanted, got = masked.numbers(source), masked.numbers(answer)
    differ = (Counter(wanted) - Counter(got)) + (
        Counter(number for number in got if number <= masked.n_codes) - Counter(wanted)
    )
    wrong = [_literal(masked.code(number)) for number in differ]
    stray = _BRACKETS.findall(MASK.sub("", answer))
    wrong += stray + [f"⟦{number}⟧" for number in got if number > masked.n_codes]
    if wrong:
        return wrong
    return _unnested(wanted, got, masked) or _unordered(wanted, got, masked)


def _literal(code: Part) -> str:
    return code if isinstance(code, str) else code.literal


def _unnested(wanted: Sequence[int], got: Sequence[int], masked: MaskedText) -> list[str]:
    """Return the codes that close before they open, or cross, where they did not do so in the source."""
    return [] if _crossing(wanted, masked) else _crossing(got, masked)


def _crossing(numbers: Sequence[int], masked: MaskedText) -> list[str]:
    codes = [code for code in map(masked.code, numbers) if isinstance(code, Code) and code.role != "alone"]
    both = {code.pair for code in codes if code.role == "open"} & {code.pair for code in codes if code.role == "close"}
    stack: list[int] = []
    for code in codes:
        if code.pair not in both:
            continue
        if code.role == "open":
            stack.append(code.pair)
        elif not stack or stack.pop() != code.pair:
            return [code.literal]
    return []


def _unordered(wanted: Sequence[int], got: Sequence[int], masked: MaskedText) -> list[str]:
    """Return the codes whose order matters that changed it: half pairs, line breaks and unnumbered placeholders."""

    def ordered(numbers: Sequence[int]) -> list[int]:
        whole = Counter(code.pair for code in map(masked.code, numbers) if isinstance(code, Code) and code.pair)
        return [number for number in numbers if _keeps_order(masked.code(number), whole)]

    before, after = ordered(wanted), ordered(got)
    return [_literal(masked.code(one)) for one, two in zip(before, after, strict=True) if one != two]


def _keeps_order(code: Part, whole: Counter[int]) -> bool:
    if isinstance(code, Code):
        return code.breaks or (code.role != "alone" and whole[code.pair] < 2)
    return any(
        span.kind == "printf" and not re.match(r"%\d+\$|%\(|%[<{]|%%", code[span.start :])
        for span in find_protected(code)
    )


def respaced(source: str, answer: str, masked: MaskedText) -> str:
    """Give the codes of an answer the blanks around them that they had in the source.

    An opening code touches the text behind it as it did, a closing one the text before it; a code that stood between
    blanks does not run into a word.
    """
    sides = {match.group(1): (source[: match.start()], source[match.end() :]) for match in MASK.finditer(source)}
    pieces: list[str] = []
    done = 0
    for match in MASK.finditer(answer):
        before, after = sides[match.group(1)]
        code = masked.code(match.group(1))
        role = code.role if isinstance(code, Code) else "alone"
        between = answer[done : match.start()]
        if role == "close" and not before.endswith(tuple(_BLANKS)):
            between = between.rstrip(_BLANKS) or between
        elif role != "close" and before.endswith(tuple(_BLANKS)) and between[-1:].isalnum():
            between += " "
        pieces += [between, match.group()]
        done = match.end()
        following = answer[done : done + 1]
        if role == "open" and following and following in _BLANKS and not after.startswith(tuple(_BLANKS)):
            done += 1
        elif role != "open" and after[:1] in tuple(_BLANKS) and after[:1] and following.isalnum():
            pieces.append(" ")
    return "".join(pieces) + answer[done:]
