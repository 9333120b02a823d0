"""Whether a text keeps the form that was asked for, as facts that can be checked. Nothing here judges quality."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nlpkit.core.errors import InputError, did_you_mean
from nlpkit.eval.metrics.base import BaseMetric, FloatArray, Sample, segment_label, stack_rows
from nlpkit.eval.metrics.text import unicode_tokens


@dataclass(frozen=True)
class Fact:
    """One checkable property of a text.

    Attributes:
        name: What was checked.
        expected: What the form asks for.
        found: What the text has.
        holds: Whether they agree.
    """

    name: str
    expected: str
    found: str
    holds: bool


def check_form(text: str, form: str) -> tuple[Fact, ...]:
    """Check a text against a form.

    Known forms: ``haiku`` (3 lines), ``limerick`` (5), ``sonnet`` (14), ``couplet`` (2), ``quatrain`` (4), ``lines:N``,
    ``acrostic:WORD`` (one line a letter, each beginning with it), ``dialogue`` (two or more spoken lines),
    ``min_words:N``, ``max_words:N``. Several may be joined with ``+``, as in ``haiku+max_words:20``. ``free``, ``poem``
    and ``story`` ask for a text that is not empty. Blank lines do not count. Metre, rhyme and syllables are not
    checked: they need a pronunciation dictionary.

    Args:
        text: The text.
        form: The form.

    Returns:
        The facts, at least one.

    Raises:
        InputError: The form is unknown, or lacks its value.
    """
    return tuple(fact for part in form.split("+") for fact in _check_one(text, part.strip()))


def _check_one(text: str, form: str) -> tuple[Fact, ...]:
    name, _, value = form.partition(":")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if name in _LINES:
        return (_count("lines", _LINES[name], len(lines)),)
    check = _CHECKS.get(name)
    if check is None:
        known = [*_LINES, *_CHECKS]
        raise InputError(f"There is no form {form!r}. {did_you_mean(name, known)}")
    return check(lines, value.strip())


def _count(name: str, expected: int, found: int) -> Fact:
    return Fact(name, str(expected), str(found), expected == found)


def _number(form: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"The form {form!r} needs a whole number after the colon, not {value!r}. Write {form}:12.")
    return int(value)


def _first_letter(line: str) -> str:
    letter = next((char for char in line if char.isalpha()), "")
    return unicodedata.normalize("NFD", letter)[:1].casefold()


def _acrostic(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    word = "".join(char for char in unicodedata.normalize("NFD", value).casefold() if char.isalpha())
    if not word:
        raise InputError("The form 'acrostic' needs the word to spell after the colon. Write acrostic:ROSE.")
    found = "".join(_first_letter(line) for line in lines)
    return (_count("lines", len(word), len(lines)), Fact("initials", word, found, found == word))


def _dialogue(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    spoken = sum(bool(_SPOKEN.search(line)) for line in lines)
    return (Fact("spoken lines", "2 or more", str(spoken), spoken >= 2),)


def _text(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    return (Fact("text", "not empty", f"{len(lines)} lines", bool(lines)),)


def _words(lines: Sequence[str]) -> int:
    return len(unicode_tokens("\n".join(lines)))


def _min_words(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    least, found = _number("min_words", value), _words(lines)
    return (Fact("words", f"{least} or more", str(found), found >= least),)


def _max_words(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    most, found = _number("max_words", value), _words(lines)
    return (Fact("words", f"1 to {most}", str(found), 1 <= found <= most),)


def _n_lines(lines: Sequence[str], value: str) -> tuple[Fact, ...]:
    return (_count("lines", _number("lines", value), len(lines)),)


# A spoken line has a quotation, a leading dash, or a short speaker's name and a colon.
_SPOKEN = re.compile(r"[\"“”„«»「」『』]|^[—–-]\s*\S|^\w[\w .'’-]{0,30}[:：]")
_LINES = {"couplet": 2, "haiku": 3, "quatrain": 4, "limerick": 5, "sonnet": 14}
_CHECKS: dict[str, Callable[[Sequence[str], str], tuple[Fact, ...]]] = {
    "acrostic": _acrostic,
    "dialogue": _dialogue,
    "free": _text,
    "lines": _n_lines,
    "max_words": _max_words,
    "min_words": _min_words,
    "poem": _text,
    "story": _text,
}


class FormAdherence(BaseMetric):
    """Mean share of facts of the requested form that hold (`check_form`); 0-100.

    Segments that ask for no form are left out. Statistics per segment (2): share, 1; both 0 where no form is asked for.
    """

    def __init__(self) -> None:
        """Name the metric."""
        self.name = "form"

    def segment_stats(self, samples: Sequence[Sample]) -> FloatArray:
        """Return the share of facts that hold and 1, ``[n_segments, 2]``.

        Raises:
            InputError: No segment asks for a form, or one asks for an unknown form.
        """
        rows = []
        for index, sample in enumerate(samples):
            if not sample.form:
                rows.append((0.0, 0.0))
                continue
            try:
                facts = check_form(sample.prediction, sample.form)
            except InputError as error:
                raise InputError(f"{segment_label(index, sample)}: {error}") from error
            rows.append((sum(fact.holds for fact in facts) / len(facts), 1.0))
        if rows and not any(weight for _, weight in rows):
            raise InputError("No segment asks for a form, so there is no form to keep. Leave the metric out.")
        return stack_rows(rows, 2)

    def signature(self, samples: Sequence[Sample]) -> str:
        """Return how facts are put together."""
        return f"{self.name}|facts:share|agg:mean|nlpkit:1"
