"""The sentences of a text on their way through a translation: where each has to go, and how far it has got."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from nlpkit.apps.text.chunking import cut_long
from nlpkit.apps.text.language_detection import dominant_script, sure_language
from nlpkit.apps.text.languages import LANGUAGES, same_language
from nlpkit.apps.text.translation.checks import Checked, check_translation
from nlpkit.apps.text.translation.confidence import LOW, Signals, confidence
from nlpkit.apps.text.translation.glossary import Match, followed
from nlpkit.apps.text.translation.language_pairs import Pairs, find_route, foreign_script
from nlpkit.apps.text.translation.layout import TextLayout, read_layout, write_layout
from nlpkit.apps.text.translation.letter_case import lower_caps
from nlpkit.apps.text.translation.number_forms import adapt_numbers
from nlpkit.apps.text.translation.protected import Masked, cut_to_masks, find_protected, mask, unmask

TRIES = 2
"""How often a sentence is decoded, at the most, for each language that it goes through."""

SERIOUS = frozenset({"empty", "loop", "cut", "copied", "wrong_language", "placeholders", "numbers", "length"})
"""What makes a sentence worth a second try."""

Raise = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came out of one try.

    Attributes:
        text: The translation, with protected spans and capitals as they should be.
        confidence: How likely it is right, from 0 to 1.
        signals: What that rests on.
        checked: What was noticed.
        missed: Glossary terms that were not followed.
    """

    text: str
    confidence: float
    signals: Signals
    checked: Checked
    missed: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[bool, int, float]:
        """What makes one try better than another: nothing wrong, then glossary terms, then confidence."""
        return not SERIOUS.intersection(self.signals.reasons), -len(self.missed), self.confidence


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """A sentence, or a part of a long one.

    Attributes:
        segment: Index of the layout's segment that it belongs to.
        lead: White space of the segment in front of it.
        source: The text, without white space around it.
        trail: White space of the segment behind it.
        language: Its language, where that is known.
        route: Languages to translate into, one after the other; none where it stays as it is.
        kept: Whether it is in the language wanted already.
        foreign: Whether the model did not learn its language.
        leg: How many languages of the route it has gone through.
        tries: How often it was decoded for the next one.
        text: How far it has got: the source, or its translation into a language of the route.
        best: The best try for the next language, or for the last one.
        certainty: Product of the confidences of the languages gone through before.
        earlier: What was wrong on the way to these, if that was too much.
        terms: Glossary terms in it.
    """

    segment: int
    lead: str = ""
    source: str
    trail: str = ""
    language: str | None = None
    route: tuple[str, ...] = ()
    kept: bool = False
    foreign: bool = False
    leg: int = 0
    tries: int = 0
    text: str = ""
    best: Attempt | None = None
    certainty: float = 1.0
    earlier: tuple[str, ...] = ()
    terms: tuple[Match, ...] = ()

    @property
    def missed(self) -> tuple[str, ...]:
        """Glossary terms that were not followed."""
        return () if self.best is None else self.best.missed

    @property
    def is_open(self) -> bool:
        """Whether there is a language that it has yet to go through."""
        return self.leg < len(self.route)

    @property
    def pivots(self) -> bool:
        """Whether it goes through another language."""
        return len(self.route) > 1

    @property
    def confidence(self) -> float:
        """How likely its translation is right; 1 for what was not translated."""
        if self.foreign:
            return 0.0
        return 1.0 if self.best is None else self.certainty * self.best.confidence

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong with it, as keys of `confidence.REASONS`; empty where it is to be trusted."""
        if self.foreign:
            return ("unlearned",)
        if self.best is None or self.confidence >= LOW:
            return ()
        return tuple(dict.fromkeys((*self.earlier, *self.best.signals.reasons))) or ("unsure",)


@dataclass(frozen=True)
class Asked:
    """What the model is asked about a piece.

    Attributes:
        text: The text for the model.
        masked: The same with what its masks stand for; None where nothing was masked.
        raise_caps: Gives a translation the capitals that were taken from the text.
    """

    text: str
    masked: Masked | None
    raise_caps: Raise

    def read(self, translation: str) -> str | None:
        """Return a translation with protected spans and capitals; None where a mask was lost or doubled."""
        if self.masked is None:
            return self.raise_caps(translation)
        restored = unmask(translation, self.masked)
        return None if restored is None else self.raise_caps(restored)


def ask_about(text: str, *, masks: bool) -> Asked:
    """Make of a sentence what the model is asked.

    Args:
        text: The sentence.
        masks: Whether protected spans are replaced by masks.
    """
    lowered, raise_caps = lower_caps(text)
    if masks:
        masked = mask(lowered)
        if masked.values and masked.fits:
            return Asked(masked.text, masked, raise_caps)
    return Asked(lowered, None, raise_caps)


@dataclass(frozen=True, kw_only=True)
class State:
    """A text on its way.

    Attributes:
        layout: What stands around its sentences.
        pieces: The sentences, in order.
        legs: Languages that the piece with the longest way goes through; those with shorter ways wait.
    """

    layout: TextLayout
    pieces: tuple[TextPiece, ...]
    legs: int = 0

    @property
    def due(self) -> tuple[int, ...]:
        """Return the indices of the pieces to ask the model about now: those with the longest way still to go."""
        left = max((len(piece.route) - piece.leg for piece in self.pieces), default=0)
        return tuple(i for i, piece in enumerate(self.pieces) if left and len(piece.route) - piece.leg == left)

    def text(self) -> str:
        """Return the text with the translations in their places."""
        segments = ["" for _ in self.layout.segments]
        for piece in self.pieces:
            segments[piece.segment] += f"{piece.lead}{piece.text}{piece.trail}"
        return write_layout(self.layout, segments)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is known about a translation before it begins.

    Attributes:
        source: Language of the text, if it was given or is certain.
        given: Whether it was given.
        target: Language wanted.
        learned: Pairs that the model learned; empty where nothing is said.
        masks: Whether the model has masks.
        lines: Whether every line stands for itself.
    """

    source: str | None
    given: bool
    target: str
    learned: Pairs = ()
    masks: bool = False
    lines: bool = False


def plan_pieces(text: str, wish: Wish, *, limit: int | None, count_tokens: Callable[[str], int] = len) -> State:
    """Cut a text into sentences, and say of each where it has to go.

    Args:
        text: The text.
        wish: Languages, and what the model knows.
        limit: Most tokens of a piece; None where no piece is to be cut.
        count_tokens: Counts the tokens of a text.
    """
    layout = read_layout(text, lines=wish.lines)
    pieces: list[TextPiece] = []
    for index, segment in enumerate(layout.segments):
        for part in _fitting(segment, wish.masks, limit, count_tokens):
            body = part.strip()
            lead, trail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :] if body else ""
            pieces.append(TextPiece(segment=index, lead=lead, source=body, trail=trail, text=body))
    pieces = [_directed(piece, wish, near) for piece, near in zip(pieces, _languages_near(pieces, wish), strict=True)]
    return State(layout=layout, pieces=tuple(pieces), legs=max((len(piece.route) for piece in pieces), default=0))


def _fitting(segment: str, masks: bool, limit: int | None, count_tokens: Callable[[str], int]) -> list[str]:
    parts = [segment]
    if masks and not mask(segment).fits:
        parts = cut_to_masks(segment)
    if limit is not None:
        parts = [piece for part in parts for piece in cut_long(part, limit, count_tokens)]
    return parts


def _languages_near(pieces: Sequence[TextPiece], wish: Wish) -> list[str | None]:
    """Return for each piece the language that it is in if its own words do not tell.

    That is the language of the text, or else of the sentence before it or of the first that tells, but never the one
    wanted: what does not tell is not left alone for what stands beside it.
    """
    if wish.source is not None:
        return [wish.source] * len(pieces)
    told = [_sure(piece.source) for piece in pieces]
    told = [None if one is None or same_language(one, wish.target) else one for one in told]
    before = next((one for one in told if one is not None), None)
    near = []
    for one in told:
        before = one or before
        near.append(before)
    return near


def _directed(piece: TextPiece, wish: Wish, near: str | None) -> TextPiece:
    """Say where a piece has to go, by its language, or by what is near where that does not tell."""
    if not _has_words(piece.source):
        return piece
    sure = _sure(piece.source)
    if sure is not None and same_language(sure, wish.target):
        return replace(piece, language=sure, kept=True)
    if near is not None and LANGUAGES[near].script != dominant_script(piece.source)[0]:
        near = None
    language = wish.source if wish.given else sure or near
    if language is not None and same_language(language, wish.target):
        return replace(piece, language=language, kept=True)
    strange = sure is None and not wish.given and foreign_script(wish.learned, piece.source) is not None
    route = None if strange else find_route(wish.learned, language, wish.target)
    if route is None and not wish.given and find_route(wish.learned, None, wish.target) is not None:
        return replace(piece, language=language, foreign=True)
    # Whoever names a model for languages that it did not learn gets what it makes of them.
    return replace(piece, language=language, route=route or (wish.target,))


def _has_words(text: str) -> bool:
    """Tell whether there are letters outside protected spans."""
    done, spans = 0, find_protected(text)
    for span in spans:
        if any(map(str.isalpha, text[done : span.start])):
            return True
        done = span.end
    return any(map(str.isalpha, text[done:]))


@lru_cache(maxsize=4096)
def _sure(text: str) -> str | None:
    """Return the language of a sentence where it is beyond doubt; capitals make no difference."""
    return sure_language(lower_caps(text)[0])


def tried(
    piece: TextPiece,
    asked: Asked,
    written: str,
    signals: Signals,
    *,
    terms: tuple[Match, ...] = (),
    retry_for: Collection[str] = (),
) -> TextPiece:
    """Take what the model wrote about a piece.

    Args:
        piece: The piece.
        asked: What it was asked.
        written: What it wrote, cleaned.
        signals: What decoding says; ``reasons`` are those that decoding knows.
        terms: Glossary terms in the piece.
        retry_for: Reasons for which a translation is tried again; if there are any, a missed term is one too.

    Returns:
        The piece; with the next language where this one is done, with one more try where it is not.
    """
    target = piece.route[piece.leg]
    read = asked.read(written)
    lost = read is None
    text = (written if read is None else read).strip()
    spoken = piece.route[piece.leg - 1] if piece.leg else piece.language
    text = adapt_numbers(text, piece.text, source_lang=spoken, target_lang=target)
    checked = check_translation(piece.text, text, target)
    reasons = [*signals.reasons, *checked.reasons, *(["placeholders"] if lost else [])]
    if terms and "length" in reasons and len(piece.text.split()) <= 2:
        reasons.remove("length")
    ratio = len(text) / max(1, len(piece.text))
    signals = replace(signals, ratio=ratio, reasons=tuple(dict.fromkeys(reasons)), pivot=piece.pivots)
    missed = tuple(dict.fromkeys(term.term for term in terms if not followed(term, text, language=target)))
    attempt = Attempt(text=text, confidence=confidence(signals), signals=signals, checked=checked, missed=missed)
    best = piece.best if piece.tries and piece.best is not None else attempt
    if attempt.rank > best.rank:
        best = attempt
    piece = replace(piece, tries=piece.tries + 1, best=best, terms=terms)
    poor = set(retry_for).intersection(best.signals.reasons) or (retry_for and missed)
    if poor and piece.tries < TRIES:
        return piece
    # What breaks a program or a page is worse than what was not translated.
    text = piece.text if "placeholders" in best.signals.reasons else best.text or piece.text
    if piece.leg + 1 == len(piece.route):
        return replace(piece, leg=piece.leg + 1, text=text)
    earlier = best.signals.reasons if best.confidence < LOW else ()
    certainty = piece.certainty * best.confidence
    return replace(piece, leg=piece.leg + 1, tries=0, text=text, certainty=certainty, earlier=earlier)


def flagged(pieces: Sequence[TextPiece]) -> list[TextPiece]:
    """Return the pieces whose translation is not to be trusted."""
    return [piece for piece in pieces if piece.reasons]
