"""Translation, sentence by sentence, with the layout of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import (
    BRIEF,
    LEARNED,
    MASKS,
    ORDERED,
    SEVERAL,
    BaseTask,
    Budget,
    Example,
    Field,
    Overflow,
    Part,
    Prediction,
)
from nlpkit.apps.text.chunking import cut_to_fit
from nlpkit.apps.text.cleaning import LINE_BREAK, clean, clean_preview, ends_too_soon, may_be_quoted, strip_quotes
from nlpkit.apps.text.language_detection import detect_language, sure_language
from nlpkit.apps.text.languages import language_name, parse_language
from nlpkit.apps.text.translation.confidence import REASONS, Signals
from nlpkit.apps.text.translation.glossary import Match, find_terms
from nlpkit.apps.text.translation.language_pairs import describe_pairs
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
from nlpkit.apps.text.translation.protected_grammar import HARD_KINDS, find_protected
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError

CHUNK_TOKENS = 192
"""Most source tokens of one piece: small models lose the thread of long sentences."""

LEARNED_CHUNK_TOKENS = 120
"""The same for a model tuned with brief prompts, which learned from sentences."""

BRIEF_BEAMS = 4
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

_STATE, _PIECE, _ASKED, _TERMS, _CUT = "_state", "_piece", "_asked", "_terms", "_cut"


class Translation(BaseTask):
    """Translates text sentence by sentence; all that stands around the sentences comes back as it was.

    Sentences that are in the language wanted stay as they are. Between two languages that the model did not learn
    together, a translation goes through English. Each sentence gets a confidence; what is certainly wrong is tried
    once more. Rows may carry a ``glossary`` (source term to target term): the terms that occur are included in the
    translation, and the result says which were followed.
    """

    name = "translation"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("source", help="text to translate"),
        Field("target_lang", help="language to translate into: code or name"),
        Field("source_lang", required=False, help="language of the source, or auto (the default)"),
        Field("target", required=False, help="reference translation"),
        Field("references", list, required=False, help="several reference translations"),
        Field("glossary", dict, required=False, help="source terms and how to translate them"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "chrf", "ter")
    decoding = DecodeConfig(max_tokens=512, stop=("\n",))
    version = 2
    text_field = "source"
    on_overflow: ClassVar[Overflow] = "chunk"
    streams = False
    combines = True
    explains = True

    def prepare(self, example: Example) -> Example:
        """Turn language names into codes and detect the source language where it is not given.

        Raises:
            ConfigError: A language is unknown, or source and target are the same.
        """
        target = parse_language(example["target_lang"])
        given = str(example.get("source_lang") or "auto").strip()
        notes: dict[str, Any] = {}
        if given.lower() != "auto":
            source: str | None = parse_language(given)
            if source == target:
                raise ConfigError(
                    f"Source and target language are both {language_name(target)} ({target}); give two different ones."
                )
        elif "_confidence" in example:
            return {**example, "target_lang": target}
        else:
            source, notes["_confidence"] = detect_language(str(example["source"]))
            beyond_doubt = sure_language(str(example["source"]))
            source = beyond_doubt or source
            notes["_sure"] = beyond_doubt is not None or notes["_confidence"] >= SURE_LANGUAGE
            if source == target:
                # Naming one language twice would only confuse the model; the result says what was seen.
                source, notes["_same"] = None, True
        return {**example, "target_lang": target, "source_lang": source or "auto", **notes}

    def prompt(self, example: Example) -> list[Message]:
        """Ask for the translation of one piece of text, with the glossary terms that occur in it."""
        target = language_name(example["target_lang"])
        source = str(example.get("source_lang") or "auto")
        origin = "" if source == "auto" else f" from {language_name(source)}"
        terms = find_terms(str(example["source"]), example.get("glossary") or {})
        hints = dict.fromkeys(f' Translate "{term.term}" as "{term.target}".' for term in terms)
        hint = "".join(hints)
        return [Message("user", f"Translate{origin} to {target}.{hint}\n\n{example['source']}")]

    def brief(self, example: Example) -> str | None:
        """Give the name of the language and the text, which itself shows its own.

        The language comes first, so that what is made of the text can already be meant for it. Glossary terms have no
        place here: decoding includes them.
        """
        return f"{language_name(example['target_lang'])}: {example['source']}\n"

    def former_brief(self, example: Example) -> str:
        """Give the brief prompt that models learned before, the language last: see `encoder.FORMER`."""
        return f"{example['source']}\n{language_name(example['target_lang'])}:"

    def parse(self, completion: str, example: Example) -> Prediction:
        """Take the first line that is no announcement, without quotes that the source does not have."""
        source = str(example.get("source", ""))
        text = clean(completion, like=source)
        if not LINE_BREAK.search(source.strip()):
            text = LINE_BREAK.split(text, maxsplit=1)[0]
        return Prediction(strip_quotes(text, like=source))

    def preview(self, partial: str, example: Example) -> str:
        """Hold back a beginning that may yet turn out to be an announcement, a quote or reasoning."""
        source = str(example.get("source", ""))
        text = clean_preview(partial, like=source)
        if may_be_quoted(text):
            return ""
        if not LINE_BREAK.search(source.strip()):
            text = LINE_BREAK.split(text, maxsplit=1)[0]
        return text.strip()

    def second_try(self, completion: str, example: Example, finish_reason: str) -> Mapping[str, Any]:
        """Go on after the first line if that was empty, an announcement or reasoning."""
        early = ends_too_soon(completion, finish_reason, like=str(example.get("source", "")))
        return {"stop": ()} if early else {}

    def options(self, chunk: Example) -> Mapping[str, Any]:
        """Require what the glossary wants; search with beams once tuned, and in another way on a second try."""
        wishes: dict[str, Any] = {"beam_size": BRIEF_BEAMS} if chunk.get(BRIEF) else {}
        state = chunk.get(_STATE)
        piece = state.pieces[chunk[_PIECE]] if isinstance(state, State) else None
        again = piece is not None and piece.tries > 0
        # Of an inflected term an inflected translation is wanted, which only the model knows: at first it is free.
        wanted = [term.target for term in chunk.get(_TERMS, ()) if again or _is_plain(term)]
        if piece is not None and piece.tries and piece.best is not None:
            wishes["beam_size"] = RETRY_BEAMS
            if {"loop", "cut"}.intersection(piece.best.signals.reasons):
                wishes["no_repeat_ngram"] = RETRY_NGRAM
            if "placeholders" in piece.best.signals.reasons:
                text = piece.text
                wanted += [text[span.start : span.end] for span in find_protected(text) if span.kind in HARD_KINDS]
        # A stop string would end the text within such a term.
        wanted = [word for word in dict.fromkeys(wanted) if word.strip() and "\n" not in word]
        return {**wishes, "must_include": tuple(wanted)} if wanted else wishes

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut into sentences, and return those that the model is to be asked about now."""
        state = example.get(_STATE)
        if not isinstance(state, State):
            most = LEARNED_CHUNK_TOKENS if example.get(BRIEF) else CHUNK_TOKENS
            limit = max(1, min(budget.max_text_tokens, most))
            state = plan_pieces(str(example["source"]), _wish(example), limit=limit, count_tokens=budget.count_tokens)
        return [_chunk(example, state, index, budget) for index in state.due]

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Take the translations to where they belong; the text, if all have arrived, and what is to be known of it."""
        known = [part.example.get(_STATE) for part in parts]
        state = known[0] if known else example.get(_STATE)
        if not isinstance(state, State):
            state = plan_pieces(str(example["source"]), _wish(example), limit=None)
            parts = [
                replace(part, example=_chunk(example, state, index))
                for part, index in zip(parts, state.due, strict=False)
            ]
        pieces = list(state.pieces)
        for part in parts:
            index, asked = part.example[_PIECE], part.example[_ASKED]
            cut = part.finish_reason == "length" or bool(part.example.get(_CUT))
            reasons = [name for name, holds in (("loop", part.loops), ("cut", cut)) if holds]
            signals = Signals(logprob=part.logprob, min_logprob=part.min_logprob, ratio=1.0, reasons=tuple(reasons))
            pieces[index] = tried(
                pieces[index],
                asked,
                part.prediction.text,
                signals,
                terms=part.example[_TERMS],
                retry_for=_retry_reasons(example, asked),
            )
        state = replace(state, pieces=tuple(pieces))
        if state.due:
            return Prediction("", {_STATE: state})
        facts = _facts(state, example)
        return Prediction(state.text(), facts, _warnings(state, example, facts))

    def reduce(self, prediction: Prediction, example: Example) -> Example | None:
        """Go on with the sentences that have not arrived."""
        state = prediction.fields.get(_STATE)
        return None if state is None else {**example, _STATE: state}

    def references(self, example: Example) -> list[str]:
        """Return the reference translations."""
        several = [str(reference) for reference in example.get("references") or []]
        return several or ([str(example["target"])] if example.get("target") else [])

    def max_tokens(self, example: Example, prompt_tokens: int) -> int:
        """Allow twice the prompt, for no language pair needs more and a loop ends soon, and what the glossary adds."""
        terms = example.get(_TERMS) or ()
        return 2 * prompt_tokens + 16 + sum(len(term.target.encode()) for term in terms)


def _retry_reasons(example: Example, asked: Asked) -> frozenset[str]:
    """Return what makes a sentence worth a second try, as keys of `REASONS`."""
    if example.get(SEVERAL):
        return frozenset()
    if not example.get(ORDERED):
        return SERIOUS
    # In the user's own way a second try can differ by its masks alone.
    return frozenset({"placeholders"} if asked.masked is not None else ())


def _wish(example: Example) -> Wish:
    given = "_confidence" not in example
    source = str(example.get("source_lang") or "auto")
    target = str(example["target_lang"])
    known = None if source == "auto" or not (given or example.get("_sure")) else source
    if example.get("_same") and example.get("_sure"):
        known = target
    return Wish(
        source=known,
        given=given and known is not None,
        target=target,
        learned=example.get(LEARNED) or (),
        masks=bool(example.get(MASKS)),
    )


def _chunk(example: Example, state: State, index: int, budget: Budget | None = None) -> Example:
    piece = state.pieces[index]
    # A second try without masks: the model may have stumbled over them.
    lost = piece.tries and piece.best is not None and "placeholders" in piece.best.signals.reasons
    asked: Asked = ask_about(piece.text, masks=bool(example.get(MASKS)) and not lost)
    is_long = budget is not None and budget.count_tokens(asked.text) > budget.max_text_tokens
    if budget is not None and is_long and (piece.leg or piece.tries):
        # What came out of the step before may be longer than any sentence that was cut to fit.
        asked = replace(asked, text=cut_to_fit(asked.text, budget.max_text_tokens, budget.count_tokens).rstrip())
    terms: tuple[Match, ...] = ()
    if piece.leg + 1 == len(piece.route):
        terms = find_terms(piece.source, example.get("glossary") or {}, language=piece.language)
    language = piece.language if piece.leg == 0 else piece.route[piece.leg - 1]
    return {
        **example,
        "source": asked.text,
        "source_lang": language or "auto",
        "target_lang": piece.route[piece.leg],
        "glossary": {term.term: term.target for term in terms},
        _STATE: state,
        _PIECE: index,
        _ASKED: asked,
        _TERMS: terms,
        _CUT: is_long and (piece.leg or piece.tries),
    }


def _is_plain(match: Match) -> bool:
    """Tell whether a term stands in the text as it stands in the glossary, as far as the number of letters tells."""
    return match.end - match.start == len(match.term)


def _facts(state: State, example: Example) -> dict[str, Any]:
    pieces, target = state.pieces, str(example["target_lang"])
    source = example.get("source_lang")
    done = [piece for piece in pieces if piece.best is not None]
    attempts = [piece.best for piece in done if piece.best is not None]
    facts: dict[str, Any] = {
        "source_lang": target if example.get("_same") else None if source in ("auto", None) else source,
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
    if "_confidence" in example:
        facts["source_lang_confidence"] = example["_confidence"]
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


def _warnings(state: State, example: Example, facts: Mapping[str, Any]) -> tuple[str, ...]:
    pieces, target = state.pieces, language_name(str(example["target_lang"]))
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
    learned = example.get(LEARNED) or ()
    if any(piece.foreign for piece in pieces):
        warnings.append(f"the model learned {describe_pairs(learned)}; name another with --model for the rest")
    # A brief prompt does not name the source's language, so naming it would change nothing.
    if "source_lang_confidence" in facts and facts["source_lang"] is None and not example.get(BRIEF):
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
