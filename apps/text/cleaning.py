"""Cleaning what instruction models put around an answer: reasoning, announcements, quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nlpkit.apps.text.chunking import LINE_ENDS

ANNOUNCEMENT_LENGTH = 100
"""Longest line, in characters, that is taken for an announcement."""

LINE_BREAK = re.compile(f"[{LINE_ENDS}]+")

_OPENERS = (
    *("sure", "certainly", "of course", "okay", "here is", "here's", "here are", "below is", "this is", "translat"),
    *("the following", "the translat", "the summary", "the answer", "summary", "answer"),
)
_REASONING_TAGS = ("<think>", "<thinking>")
_REASONING = re.compile(r"\s*<(think|thinking)>.*?(?:</\1>|\Z)", re.DOTALL)
_MARKUP = "*_# \t"
_QUOTES = {
    '"': '"',
    "“": "”",
    "„": "“",
    "«": "»",
    "'": "'",
    "‘": "’",
    "`": "`",
    "「": "」",
    "『": "』",
    "**": "**",
}


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What to take off a completion before it is parsed, and what of a growing one is certain.

    Attributes:
        strip: Whether white space around the text goes.
        announcements: Whether reasoning and an announcement in front of the answer go.
        first_line: Whether the answer is the first line, unless the input has several. Where decoding ends with that
            line, and it was no answer, it goes on once more.
        quotes: Whether one pair of quotes around the whole text goes.
        by_input: Whether what the input begins with itself, an announcement or a quote, stays.
        shows: Whether the text can be shown as it grows.
        retries_loops: Whether a greedy completion that runs in circles is decoded once more without repeats.
    """

    strip: bool = True
    announcements: bool = False
    first_line: bool = False
    quotes: bool = False
    by_input: bool = False
    shows: bool = True
    retries_loops: bool = False

    def clean(self, completion: str, *, like: str = "") -> str:
        """Clean a whole completion.

        Args:
            completion: What the model wrote.
            like: The input text, where that matters.
        """
        text = completion
        if self.announcements:
            text = clean(text, like=like)
        elif self.strip:
            text = text.strip()
        if self.first_line and not LINE_BREAK.search(like.strip()):
            text = LINE_BREAK.split(text, maxsplit=1)[0]
        return strip_quotes(text, like=like) if self.quotes else text

    def preview(self, partial: str, *, like: str = "") -> str:
        """Return text that `clean` is sure to begin with, whatever follows the partial completion."""
        text = partial
        if self.announcements:
            text = clean_preview(text, like=like)
        elif self.strip:
            text = text.strip()
        if self.quotes and may_be_quoted(text):
            return ""
        if self.first_line and not LINE_BREAK.search(like.strip()):
            text = LINE_BREAK.split(text, maxsplit=1)[0]
        return text.strip() if self.quotes else text

    def ended_too_soon(self, completion: str, finish_reason: str, *, like: str = "") -> bool:
        """Tell whether a completion that was to end with its first line ended before the answer."""
        return self.first_line and ends_too_soon(completion, finish_reason, like=like)


def clean(completion: str, *, like: str = "") -> str:
    """Take reasoning and an announcement off the front of a completion.

    A leading ``<think>`` section goes (an unfinished one is all there is), then a first line such as ``Here is the
    translation:`` if anything follows it.

    Args:
        completion: What the model wrote.
        like: The input text; if that begins with such a line itself, the line stays.
    """
    text = _REASONING.sub("", completion, count=1) if _REASONING.match(completion) else completion
    text = text.strip()
    first, rest = _first_line(text)
    if rest is not None and rest.strip() and is_announcement(first) and not _announces(like):
        return rest.strip()
    return text


def clean_preview(partial: str, *, like: str = "") -> str:
    """Return text that `clean` is sure to begin with, whatever follows the partial completion."""
    text = partial.lstrip()
    if any(tag.startswith(text[: len(tag)]) for tag in _REASONING_TAGS):
        match = _REASONING.match(text)
        if match is None or not match.group().endswith(f"</{match.group(1)}>"):
            return ""
        text = text[match.end() :].lstrip()
    first, rest = _first_line(text)
    if _announces(like):
        return text.strip()
    if rest is not None:
        return rest.strip() if is_announcement(first) else text.strip()
    stem = _stem(first)
    may_announce = stem.startswith(_OPENERS) or any(opener.startswith(stem) for opener in _OPENERS)
    return "" if may_announce and len(first) <= ANNOUNCEMENT_LENGTH else text.strip()


def ends_too_soon(completion: str, finish_reason: str, *, like: str = "") -> bool:
    """Tell whether a completion that was to end with its first line ended before the answer.

    So it did if that line was empty, an announcement, or reasoning.

    Args:
        completion: What the model wrote before the stop string.
        finish_reason: Why it ended.
        like: The input text, as in `clean`.
    """
    text = completion.strip()
    no_answer = not text or is_announcement(text) or text.startswith("<")
    return finish_reason == "stop" and no_answer and not clean_preview(completion, like=like)


def is_announcement(line: str) -> bool:
    """Tell whether a line only announces what follows, as ``Here is the translation:`` does."""
    return (
        len(line) <= ANNOUNCEMENT_LENGTH
        and line.rstrip(_MARKUP).endswith((":", "："))
        and _stem(line).startswith(_OPENERS)
    )


def strip_quotes(text: str, *, like: str = "") -> str:
    """Take off one pair of quotes around the whole text, unless `like` begins with a quote too."""
    text = text.strip()
    for opening, closing in _QUOTES.items():
        inner = text[len(opening) : len(text) - len(closing)]
        if (
            inner.strip()
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
            and closing not in inner
        ):
            return text if may_be_quoted(like) else inner.strip()
    return text


def may_be_quoted(text: str) -> bool:
    """Tell whether a text begins with a quotation mark or the like."""
    return text.lstrip().startswith(tuple(opening[0] for opening in _QUOTES))


def _announces(like: str) -> bool:
    return is_announcement(_first_line(like.strip())[0])


def _stem(line: str) -> str:
    return line.lstrip(_MARKUP)[:ANNOUNCEMENT_LENGTH].lower()


def _first_line(text: str) -> tuple[str, str | None]:
    match = LINE_BREAK.search(text)
    return (text, None) if match is None else (text[: match.start()], text[match.end() :])
