"""Translation, line by line and sentence by sentence, with the layout of the source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nlpkit.apps.chunking import pack, split_lines, split_sentences
from nlpkit.apps.completions import LINE_BREAK, clean, clean_preview, ends_too_soon, may_be_quoted, strip_quotes
from nlpkit.apps.language_detection import detect_language, is_detectable
from nlpkit.apps.languages import LANGUAGES, language_name, parse_language, same_language
from nlpkit.apps.placeholders import missing_placeholders
from nlpkit.apps.task import BRIEF, BaseTask, Budget, Example, Field, Overflow, Part, Prediction
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError
from nlpkit.core.tokenizers.base import Message

CHUNK_TOKENS = 192
"""Most source tokens of one chunk: small models lose sentences of long passages."""

LEARNED_CHUNK_TOKENS = 120
"""The same for a model tuned with brief prompts, which learned from sentences and short paragraphs."""

BRIEF_BEAMS = 4
"""Beams of a tuned model: likelier translations read better, and chunks are short."""

COPY_LENGTH = 24
"""Shorter texts may well be the same in both languages (names, titles)."""
SURE = 0.9
"""A detected language of at least this confidence counts as if it were given."""
_FIRST_UNSPACED = "\u2e80"
"""From here on most scripts write words without spaces between them."""


class Translation(BaseTask):
    """Translates text. Each line of the source becomes one line of the target; blank lines stay.

    Lines without letters are copied. Rows may carry a ``glossary`` (source term to target term): the terms that occur
    go into the prompt as a hint, and the result says which were followed.
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
    text_field = "source"
    on_overflow: ClassVar[Overflow] = "chunk"
    retries_loops = True

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
            notes["_sure"] = source is not None and notes["_confidence"] >= SURE
            if source == target:
                # Naming one language twice would only confuse the model; the result says what was seen.
                source, notes["_same"] = None, True
        return {**example, "target_lang": target, "source_lang": source or "auto", **notes}

    def prompt(self, example: Example) -> list[Message]:
        """Ask for the translation of one piece of text, with the glossary terms that occur in it."""
        target = language_name(example["target_lang"])
        source = str(example.get("source_lang") or "auto")
        origin = "" if source == "auto" else f" from {language_name(source)}"
        terms = _terms_in(str(example["source"]), example.get("glossary") or {})
        hint = "".join(f' Translate "{term}" as "{wanted}".' for term, wanted in terms.items())
        return [Message("user", f"Translate{origin} to {target}.{hint}\n\n{example['source']}")]

    def brief(self, example: Example) -> str | None:
        """Give the text and the name of the language; the text itself shows its own.

        Glossary terms have no place here: decoding includes them.
        """
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
        """Require the glossary's translations of the terms that occur in the chunk; search with beams once tuned."""
        terms = _terms_in(str(chunk["source"]), chunk.get("glossary") or {})
        # A stop string would end the text within such a term.
        wanted = tuple(word for word in dict.fromkeys(terms.values()) if word.strip() and "\n" not in word)
        beams = {"beam_size": BRIEF_BEAMS} if chunk.get(BRIEF) else {}
        return {**beams, "must_include": wanted} if wanted else beams

    def split(self, example: Example, budget: Budget) -> list[Example]:
        """Cut into chunks of whole sentences that never cross a line end.

        Each chunk notes in ``_lead`` and ``_trail`` what stands around it in the source.
        """
        limit = max(1, min(budget.max_text_tokens, LEARNED_CHUNK_TOKENS if example.get(BRIEF) else CHUNK_TOKENS))
        chunks: list[dict[str, Any]] = []
        around = ""
        for line in split_lines(str(example["source"])):
            pieces = pack(split_sentences(line), limit, budget.count_tokens)
            for piece in pieces:
                body = piece.strip()
                if not any(char.isalpha() for char in body):
                    around += piece
                    continue
                lead = around + piece[: len(piece) - len(piece.lstrip())]
                trail = piece[len(piece.rstrip()) :]
                if chunks:
                    chunks[-1]["_trail"] += lead
                    lead = ""
                chunks.append({**example, "source": body, "_lead": lead, "_trail": trail})
                around = ""
        if chunks:
            chunks[-1]["_trail"] += around
        return list(chunks)

    def frame(self, chunk: Example) -> tuple[str, str] | None:
        """Return the chunk's surroundings in the source."""
        return str(chunk.get("_lead", "")), str(chunk.get("_trail", ""))

    def merge(self, parts: Sequence[Part], example: Example) -> Prediction:
        """Put the translations where their sources stood, and check the whole."""
        source = str(example["source"])
        if not parts:
            return Prediction(source, self._facts(example, source))
        pieces = []
        for part in parts:
            lead, trail = self.frame(part.example) or ("", "")
            pieces.append(f"{lead}{part.prediction.text}{trail}")
        text = "".join(pieces)
        facts = self._facts(example, text)
        facts["untranslated"] = sum(_is_copy(part.example, part.prediction.text) for part in parts)
        return Prediction(text, facts, _warnings(facts, len(parts), brief=bool(example.get(BRIEF))))

    def _facts(self, example: Example, text: str) -> dict[str, Any]:
        source = str(example["source"])
        terms = _terms_in(source, example.get("glossary") or {})
        hits = {term: wanted for term, wanted in terms.items() if wanted.casefold() in text.casefold()}
        detected, confidence = detect_language(text)
        target = str(example["target_lang"])
        wrong = None
        if detected and not same_language(detected, target) and text.strip() != source.strip():
            # Closely related languages are told apart poorly: only a confident guess counts, unless the script differs.
            other_script = LANGUAGES[detected].script != LANGUAGES[target].script
            if other_script or (confidence >= 0.8 and is_detectable(target)):
                wrong = detected
        facts: dict[str, Any] = {
            "source_lang": None if example.get("source_lang") == "auto" else example.get("source_lang"),
            "target_lang": target,
            "placeholders_missing": missing_placeholders(source, text),
            "untranslated": 0,
            "wrong_language": wrong,
        }
        if example.get("_same"):
            facts["source_lang"] = target
        if "_confidence" in example:
            facts["source_lang_confidence"] = example["_confidence"]
        if terms:
            facts["glossary_hits"] = hits
            facts["glossary_misses"] = {term: wanted for term, wanted in terms.items() if term not in hits}
        return facts

    def references(self, example: Example) -> list[str]:
        """Return the reference translations."""
        several = [str(reference) for reference in example.get("references") or []]
        return several or ([str(example["target"])] if example.get("target") else [])

    def max_tokens(self, example: Example, prompt_tokens: int) -> int:
        """Allow twice the prompt, for no language pair needs more and a loop ends soon, and what the glossary adds."""
        terms = _terms_in(str(example["source"]), example.get("glossary") or {})
        return 2 * prompt_tokens + 16 + sum(len(wanted.encode()) for wanted in terms.values())


def _terms_in(text: str, glossary: Mapping[str, str]) -> dict[str, str]:
    return {term: wanted for term, wanted in glossary.items() if _occurs(term, text)}


def _occurs(term: str, text: str) -> bool:
    pattern = re.escape(term.strip().casefold())
    if not pattern:
        return False
    if not any(char >= _FIRST_UNSPACED for char in term):
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.search(pattern, text.casefold()) is not None


def _is_copy(chunk: Example, translation: str) -> bool:
    source = " ".join(str(chunk["source"]).casefold().split())
    return len(source) >= COPY_LENGTH and " " in source and source == " ".join(translation.casefold().split())


def _warnings(facts: Mapping[str, Any], chunks: int, *, brief: bool) -> tuple[str, ...]:
    warnings = []
    if facts["untranslated"]:
        which = "the text was" if chunks == 1 else f"{facts['untranslated']} of {chunks} pieces were"
        warnings.append(f"{which} copied instead of translated")
    if facts["wrong_language"]:
        got, wanted = (language_name(facts[key]) for key in ("wrong_language", "target_lang"))
        warnings.append(f"the translation looks like {got}, not {wanted}")
    if facts["placeholders_missing"]:
        warnings.append("the translation lacks " + ", ".join(facts["placeholders_missing"][:8]))
    if facts.get("glossary_misses"):
        warnings.append("glossary terms not followed: " + ", ".join(facts["glossary_misses"]))
    # A brief prompt does not name the source's language, so naming it would change nothing.
    if facts["source_lang"] == facts["target_lang"]:
        advice = "" if brief else "; name it with --from"
        warnings.append(f"the source looks like {language_name(facts['target_lang'])} already{advice}")
    if facts.get("source_lang_confidence") is not None and facts["source_lang"] is None and not brief:
        warnings.append("the language of the source could not be told; name it with --from")
    return tuple(warnings)
