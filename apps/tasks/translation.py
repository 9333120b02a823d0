"""Translation, sentence by sentence, with the layout of the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import (
    Chunk,
    ChunkResult,
    Field,
    Lack,
    Learned,
    Prediction,
    Prompt,
    Row,
    Splits,
    Target,
    TaskDecoding,
    TextBudget,
)
from nlpkit.apps.text.chunking import cut_to_fit
from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.apps.text.language_detection import detect_language, sure_language
from nlpkit.apps.text.languages import language_name, parse_language
from nlpkit.apps.text.translation.confidence import REASONS, Signals
from nlpkit.apps.text.translation.glossary import Match, find_terms
from nlpkit.apps.text.translation.language_pairs import describe_pairs, find_route, foreign_script
from nlpkit.apps.text.translation.pieces import (
    SERIOUS,
    Asked,
    State,
    TextPiece,
    Wish,
    ask_about,
    flagged,
    plan_pieces,
    tried,
)
from nlpkit.apps.text.translation.protected import MAX_MASKS
from nlpkit.apps.text.translation.protected_grammar import HARD_KINDS, find_protected
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError

CHUNK_TOKENS = 192
"""Most source tokens of one piece: small models lose the thread of long sentences."""

LEARNED_CHUNK_TOKENS = 120
"""The same for a model tuned with short prompts, which learned from sentences."""

LEARNED_BEAMS = 4
"""Beams of a tuned model: likelier translations read better, and sentences are short."""

SURE_LANGUAGE = 0.9
"""A language that is detected in a text with this confidence counts as if it were given."""

RETRY_BEAMS = 8
"""Beams of a second try."""

RETRY_NGRAM = 4
"""Length of the token n-grams that a second try of what ran in circles must not repeat."""

SHOWN = 3
"""Most sentences that a warning quotes."""

SHOWN_LENGTH = 40
"""Most characters of a quoted sentence."""


@dataclass(frozen=True, kw_only=True)
class TranslationStep:
    """What a chunk asks about.

    Attributes:
        index: The piece.
        asked: What the model is asked about it.
        terms: Glossary terms to translate as they should be.
        cut: Whether the piece was too long to be asked about as a whole.
    """

    index: int
    asked: Asked
    terms: tuple[Match, ...] = ()
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """A text to translate, or a sentence of it.

    Attributes:
        source: The text.
        target_lang: Code of the language wanted.
        source_lang: Code of the text's own language, or None where it is not known, or seems to be the one wanted.
        glossary: Terms and how to translate them.
        references: Reference translations.
        confidence: How sure the detection of the language was; None where the language was given.
        sure: Whether a detected language counts as if it were given.
        same: Whether the text seems to be in the language wanted.
        state: How far the sentences of the text have got; None before they are cut.
        step: Of a sentence, which one it is.
    """

    source: str
    target_lang: str
    source_lang: str | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    confidence: float | None = None
    sure: bool = False
    same: bool = False
    state: State | None = None
    step: TranslationStep | None = None

    @property
    def certain_lang(self) -> str | None:
        """The language of the text, if it was given or is certain: a guess may be wrong, above all in short texts."""
        return self.source_lang if self.confidence is None or self.sure else None


class Translation(Splits[Sentences]):
    """Translates text sentence by sentence; all that stands around the sentences comes back as it was.

    Sentences that are in the language wanted stay as they are. Between two languages that the model did not learn
    together, a translation goes through English. Each sentence gets a confidence; what is certainly wrong is tried
    once more. Rows may carry a ``glossary`` (source term to target term): the terms that occur are included in the
    translation, and the result says which were followed.
    """

    name = "translation"
    version = 2
    fields: ClassVar[tuple[Field, ...]] = (
        Field("source", aliases=("src",), help="text to translate"),
        Field("target_lang", role="option", help="language to translate into: code or name"),
        Field("source_lang", required=False, role="option", help="language of the source, or auto (the default)"),
        Field(
            "target",
            required=False,
            role="reference",
            aliases=("tgt", "ref", "translation"),
            help="reference translation",
        ),
        Field("references", list, required=False, role="reference", help="several reference translations"),
        Field("glossary", dict, required=False, role="option", help="source terms and how to translate them"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "ter")
    options = DecodeConfig(max_tokens=512, stop=("\n",))
    cleaning = Cleaning(announcements=True, first_line=True, quotes=True, by_input=True, shows=False)
    combines = True
    explains = True

    def prepare(self, row: Row) -> Sentences:
        """Turn language names into codes and detect the source language where it is not given.

        Raises:
            ConfigError: A language is unknown, or source and target are the same.
        """
        text, target = str(row["source"]), parse_language(row["target_lang"])
        references = [str(reference) for reference in row.get("references") or []]
        if not references and row.get("target"):
            references = [str(row["target"])]
        source = Sentences(
            source=text, target_lang=target, glossary=row.get("glossary") or {}, references=tuple(references)
        )
        given = str(row.get("source_lang") or "auto").strip()
        if given.lower() != "auto":
            language = parse_language(given)
            if language == target:
                raise ConfigError(
                    f"Source and target language are both {language_name(target)} ({target}); give two different ones."
                )
            return replace(source, source_lang=language)
        detected, confidence = detect_language(text)
        beyond_doubt = sure_language(text)
        detected = beyond_doubt or detected
        # Naming one language twice would only confuse the model; the result says what was seen.
        same = detected == target
        return replace(
            source,
            source_lang=None if same else detected,
            confidence=confidence,
            sure=beyond_doubt is not None or confidence >= SURE_LANGUAGE,
            same=same,
        )

    def prompt(self, example: Sentences) -> Prompt:
        """Ask for the translation of one piece of text, with the glossary terms that occur in it.

        The short prompt is the name of the language and the text, which itself shows its own. The language comes
        first, so that what is made of the text can already be meant for it; models learned it last before. Glossary
        terms have no place there: decoding includes them.
        """
        target = language_name(example.target_lang)
        origin = f" from {language_name(example.source_lang)}" if example.source_lang else ""
        terms = find_terms(example.source, example.glossary)
        hint = "".join(dict.fromkeys(f' Translate "{term.term}" as "{term.target}".' for term in terms))
        return Prompt(
            f"Translate{origin} to {target}.{hint}\n\n{example.source}",
            short=f"{target}: {example.source}\n",
            former=f"{example.source}\n{target}:",
        )

    def decoding(self, example: Sentences, *, learned: Learned | None) -> TaskDecoding:
        """Require what the glossary wants; search with beams once tuned, and in another way on a second try.

        The limit is twice the prompt, for no language pair needs more and a loop ends soon, and what the glossary adds.
        """
        terms = example.step.terms if example.step is not None else ()
        beams, ngram = LEARNED_BEAMS if learned else 1, None
        piece = None if example.state is None or example.step is None else example.state.pieces[example.step.index]
        again = piece is not None and piece.tries > 0
        # Of an inflected term an inflected translation is wanted, which only the model knows: at first it is free.
        wanted = [term.target for term in terms if again or _is_plain(term)]
        if piece is not None and piece.tries and piece.best is not None:
            beams = RETRY_BEAMS
            if {"loop", "cut"}.intersection(piece.best.signals.reasons):
                ngram = RETRY_NGRAM
            if "placeholders" in piece.best.signals.reasons:
                text = piece.text
                wanted += [text[span.start : span.end] for span in find_protected(text) if span.kind in HARD_KINDS]
        return TaskDecoding(
            max_tokens=16 + sum(len(term.target.encode()) for term in terms),
            per_prompt_token=2,
            beam_size=beams,
            # A stop string would end the text within such a term.
            must_include=tuple(word for word in dict.fromkeys(wanted) if word.strip() and "\n" not in word),
            no_repeat_ngram=ngram,
        )

    def split(self, example: Sentences, budget: TextBudget, *, learned: Learned | None) -> list[Chunk[Sentences]]:
        """Cut into sentences, and return those that the model is to be asked about now."""
        state = example.state
        if state is None:
            limit = max(1, min(budget.max_text_tokens, LEARNED_CHUNK_TOKENS if learned else CHUNK_TOKENS))
            state = plan_pieces(example.source, _wish(example, learned), limit=limit, count_tokens=budget.count_tokens)
        return [Chunk(_sentence_of(example, state, index, budget, masks=_has_masks(learned))) for index in state.due]

    def reduce(
        self,
        results: Sequence[ChunkResult[Sentences]],
        example: Sentences,
        *,
        learned: Learned | None,
        user_options: Mapping[str, Any],
    ) -> Sentences | None:
        """Go on with the sentences that have not arrived."""

        def retry_for(asked: Asked) -> Collection[str]:
            if user_options.get("n", 1) > 1:
                return ()
            if not user_options:
                return SERIOUS
            # In the user's own way a second try can differ by its masks alone.
            return ("placeholders",) if asked.masked is not None else ()

        state = _state_after(results, example, learned)
        for result in results:
            step = _step_of(result)
            state = _taken(state, result, retry_for=frozenset(retry_for(step.asked)))
        return replace(example, state=state) if state.due else None

    def merge(
        self, results: Sequence[ChunkResult[Sentences]], example: Sentences, *, learned: Learned | None
    ) -> Prediction:
        """Take the translations to where they belong; the text, and what is to be known of it."""
        state = _state_after(results, example, learned)
        for result in results:
            state = _taken(state, result)
        facts = _facts(state, example)
        return Prediction(state.text(), facts, _warnings(state, example, facts, learned))

    def target(self, example: Sentences) -> Target | None:
        """Return the reference translations."""
        return Target(example.references[0], example.references) if example.references else None

    def teaches(self, example: Sentences) -> Mapping[str, str]:
        """Return the pair of languages, where the row names both: what a detector saw may be wrong."""
        if example.confidence is not None or example.source_lang is None:
            return {}
        return {"source_lang": example.source_lang, "target_lang": example.target_lang}

    def lack(self, example: Sentences, learned: Learned) -> Lack | None:
        """Say that there is no way between the languages, not even through English: nothing else could help then."""
        pairs, source = _pairs(learned), example.certain_lang
        script = foreign_script(pairs, example.source)
        foreign = source is None and script is not None
        if not foreign and find_route(pairs, source, example.target_lang) is not None:
            return None
        origin = f"from {language_name(source)} " if source else f"from {script} letters " if script else ""
        wanted = language_name(example.target_lang)
        return Lack(f"learned {describe_pairs(pairs)}, not to translate {origin}to {wanted}", refused=True)


def _pairs(learned: Learned | None) -> tuple[tuple[str, str], ...]:
    """Return the pairs of source and target language that a model learned; none where nothing is said."""
    options = () if learned is None else learned.options
    return tuple(
        (pair["source_lang"], pair["target_lang"]) for pair in options if {"source_lang", "target_lang"} <= pair.keys()
    )


def _has_masks(learned: Learned | None) -> bool:
    """Tell whether a model has masks for protected spans in its vocabulary."""
    return learned is not None and all(learned.has_token(f"⟦{number}⟧") for number in range(1, MAX_MASKS + 1))


def _wish(example: Sentences, learned: Learned | None) -> Wish:
    known = example.certain_lang
    return Wish(
        source=example.target_lang if example.same and example.sure else known,
        given=example.confidence is None and known is not None,
        target=example.target_lang,
        learned=_pairs(learned),
        masks=_has_masks(learned),
    )


def _sentence_of(example: Sentences, state: State, index: int, budget: TextBudget, *, masks: bool) -> Sentences:
    """Return what the model is asked about one piece now."""
    piece = state.pieces[index]
    # A second try without masks: the model may have stumbled over them.
    lost = piece.tries and piece.best is not None and "placeholders" in piece.best.signals.reasons
    asked: Asked = ask_about(piece.text, masks=masks and not lost)
    # What came out of the step before may be longer than any sentence that was cut to fit.
    cut = bool(piece.leg or piece.tries) and budget.count_tokens(asked.text) > budget.max_text_tokens
    if cut:
        asked = replace(asked, text=cut_to_fit(asked.text, budget.max_text_tokens, budget.count_tokens).rstrip())
    terms: tuple[Match, ...] = ()
    if piece.leg + 1 == len(piece.route):
        terms = find_terms(piece.source, example.glossary, language=piece.language)
    return replace(
        example,
        source=asked.text,
        source_lang=piece.language if piece.leg == 0 else piece.route[piece.leg - 1],
        target_lang=piece.route[piece.leg],
        glossary={term.term: term.target for term in terms},
        state=state,
        step=TranslationStep(index=index, asked=asked, terms=terms, cut=cut),
    )


def _step_of(result: ChunkResult[Sentences]) -> TranslationStep:
    step = result.chunk.example.step
    if step is None:
        raise ValueError("a result of a chunk that `split` did not make")
    return step


def _state_after(results: Sequence[ChunkResult[Sentences]], example: Sentences, learned: Learned | None) -> State:
    """Return the state that the results are to be taken to."""
    state = results[0].chunk.example.state if results else example.state
    return state or plan_pieces(example.source, _wish(example, learned), limit=None)


def _taken(state: State, result: ChunkResult[Sentences], *, retry_for: frozenset[str] = frozenset()) -> State:
    """Return the state with one more result; what is poor for one of the reasons stays due."""
    step = _step_of(result)
    cut = result.finish_reason == "length" or step.cut
    reasons = tuple(name for name, holds in (("loop", result.loops), ("cut", cut)) if holds)
    signals = Signals(logprob=result.logprob, min_logprob=result.min_logprob, ratio=1.0, reasons=reasons)
    pieces = list(state.pieces)
    pieces[step.index] = tried(
        pieces[step.index], step.asked, result.prediction.text, signals, terms=step.terms, retry_for=retry_for
    )
    return replace(state, pieces=tuple(pieces))


def _is_plain(match: Match) -> bool:
    """Tell whether a term stands in the text as it stands in the glossary, as far as the number of letters tells."""
    return match.end - match.start == len(match.term)


def _facts(state: State, example: Sentences) -> dict[str, Any]:
    pieces, target = state.pieces, example.target_lang
    done = [piece for piece in pieces if piece.best is not None]
    attempts = [piece.best for piece in done if piece.best is not None]
    facts: dict[str, Any] = {
        "source_lang": target if example.same else example.source_lang,
        "target_lang": target,
        "via": next((piece.route[0] for piece in pieces if piece.pivots), None),
        "confidence": round(min((piece.confidence for piece in pieces), default=1.0), 3),
        "kept": sum(piece.kept for piece in pieces),
        "untranslated": sum(attempt.checked.copied for attempt in attempts) + sum(piece.foreign for piece in pieces),
        "wrong_language": next((one.checked.wrong_language for one in attempts if one.checked.wrong_language), None),
        "placeholders_missing": [value for one in attempts for value in one.checked.differences.missing],
        "numbers_changed": [value for one in attempts for value in one.checked.differences.numbers_changed],
        "flagged": [
            {
                "source": piece.source,
                "translation": piece.text,
                "confidence": round(piece.confidence, 3),
                "reasons": list(piece.reasons),
            }
            for piece in flagged(pieces)
        ],
        "sentences": [_sentence(piece) for piece in pieces],
    }
    if example.confidence is not None:
        facts["source_lang_confidence"] = example.confidence
    terms = {term.term: term.target for piece in done for term in piece.terms}
    if terms:
        missed = {term for piece in done for term in piece.missed}
        facts["glossary_hits"] = {term: wanted for term, wanted in terms.items() if term not in missed}
        facts["glossary_misses"] = {term: wanted for term, wanted in terms.items() if term in missed}
    return facts


def _sentence(piece: TextPiece) -> dict[str, Any]:
    facts: dict[str, Any] = {"confidence": round(piece.confidence, 3)}
    if piece.best is not None:
        signals = piece.best.signals
        numbers = {name: getattr(signals, name) for name in ("logprob", "min_logprob", "ratio")}
        facts |= {name: round(value, 3) for name, value in numbers.items()}
        facts["reasons"] = list(signals.reasons)
    return facts


def _warnings(state: State, example: Sentences, facts: Mapping[str, Any], learned: Learned | None) -> tuple[str, ...]:
    pieces, target = state.pieces, language_name(example.target_lang)
    warnings = []
    if facts["kept"] == len(pieces) > 0:
        warnings.append(f"the text is in {target} already and stayed as it is")
    elif facts["kept"]:
        warnings.append(f"{facts['kept']} of {len(pieces)} sentences are in {target} already and stayed as they are")
    pivot = next((piece for piece in pieces if piece.pivots), None)
    if pivot is not None:
        origin = "" if pivot.language is None else f"from {language_name(pivot.language)} "
        between = language_name(pivot.route[0])
        warnings.append(f"the way {origin}to {target} leads through {between}, which costs accuracy")
    poor = flagged(pieces)
    if poor:
        warnings.append(_doubts(poor, len(pieces)))
    if facts["wrong_language"]:
        warnings.append(f"the translation looks like {language_name(facts['wrong_language'])}, not {target}")
    if facts["placeholders_missing"]:
        warnings.append("the translation lacked " + ", ".join(facts["placeholders_missing"][:8]))
    if facts["numbers_changed"]:
        warnings.append("numbers differ: " + ", ".join(facts["numbers_changed"][:8]))
    if facts.get("glossary_misses"):
        warnings.append("glossary terms not followed: " + ", ".join(facts["glossary_misses"]))
    if any(piece.foreign for piece in pieces):
        warnings.append(f"the model learned {describe_pairs(_pairs(learned))}; name another with --model for the rest")
    # The short prompt does not name the source's language, so naming it would change nothing.
    if "source_lang_confidence" in facts and facts["source_lang"] is None and not learned:
        warnings.append("the language of the source could not be told; name it with --from")
    return tuple(warnings)


def _doubts(poor: Sequence[TextPiece], total: int) -> str:
    """Say which sentences are not to be trusted, and why."""
    if total == 1:
        return "this translation is not to be trusted: " + "; ".join(REASONS[name] for name in poor[0].reasons)
    quoted = [f"“{_short(piece.source)}” ({'; '.join(REASONS[name] for name in piece.reasons)})" for piece in poor]
    more = f", and {len(poor) - SHOWN} more (--json has them all)" if len(poor) > SHOWN else ""
    return f"{len(poor)} of {total} sentences are not to be trusted: {', '.join(quoted[:SHOWN])}{more}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1].rstrip() + "…"
