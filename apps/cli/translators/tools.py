"""The translators' tools of one run: what is known before the model is asked, and what is written at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlpkit.apps.cli.translators.tool_options import ToolOptions
from nlpkit.apps.documents.files import display_name
from nlpkit.apps.documents.memory.store import NO_LIKENESS, Found, Memory, finds_alike
from nlpkit.apps.documents.tools.bilingual import Row, bilingual_rows, write_html, write_tsv
from nlpkit.apps.documents.tools.kept_terms import read_kept_terms
from nlpkit.apps.documents.tools.review import Reviewed, from_review, is_edited, read_review, reviewed, write_review
from nlpkit.apps.documents.tools.terms_report import TermsReport
from nlpkit.apps.documents.translation.attempts import Outcome
from nlpkit.apps.documents.translation.masks import MaskedText, problems
from nlpkit.apps.documents.translation.translate import Known
from nlpkit.apps.text.languages import fits_language
from nlpkit.apps.translating.run import DocumentRun
from nlpkit.core.errors import ConfigError
from nlpkit.core.files.write import atomic_write, unwritable

LIKE = "memory"
"""The reason of a translation of a sentence that is not quite the same."""

HINT = 0.7
"""Likeness from which a review file shows what the memory has."""

SHOWN = 8
"""Most terms that are named on stderr."""


@dataclass(kw_only=True)
class TranslatorTools:
    """The tools of a run.

    Attributes:
        options: What the user asked for.
        glossary: Terms and how to translate them.
        kept_terms: Terms that stay as they are.
        memory: The memory.
        review: Rows of the review file that is merged.
        counts: Sentences from the memory, from the memory but not quite the same, and from the review.
    """

    options: ToolOptions = field(default_factory=ToolOptions)
    glossary: Mapping[str, str] = field(default_factory=dict)
    kept_terms: tuple[str, ...] = ()
    memory: Memory | None = None
    review: list[Reviewed] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"memory": 0, "like": 0, "reviewed": 0})
    _rows: list[Row] = field(default_factory=list)
    _reviewed: list[Reviewed] = field(default_factory=list)
    _used: set[Reviewed] = field(default_factory=set)
    _terms: TermsReport = field(default_factory=TermsReport)
    _languages: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, options: ToolOptions, glossary: Mapping[str, str], *, others: Sequence[tuple[str, str]] = ()
    ) -> TranslatorTools:
        """Open all that the user named; what cannot be used is said before the model is loaded.

        Args:
            options: What the user asked for.
            glossary: Terms and how to translate them.
            others: Other options that name files, and these files, which must not be written over.

        Raises:
            ConfigError: Options contradict each other, or a name does not say in what format to write.
            InputError: A file cannot be read.
        """
        if options.memory_like is not None and options.memory is None:
            raise ConfigError("--memory-like says how alike sentences of a memory must be: name it with --memory PATH.")
        if options.bilingual is not None and not options.bilingual.lower().endswith((".html", ".htm", ".tsv")):
            raise ConfigError(f"--bilingual {options.bilingual} must end in .html or .tsv, which says what to write.")
        if options.memory_like is not None and not finds_alike():
            raise ConfigError(NO_LIKENESS)
        _check_files(options, others)
        return cls(
            options=options,
            glossary=glossary,
            kept_terms=() if options.keep_terms is None else read_kept_terms(options.keep_terms),
            review=[] if options.reviewed is None else read_review(options.reviewed),
            memory=None if options.memory is None else Memory(options.memory),
        )

    def known(self, file: str, source_lang: str, target_lang: str) -> Known | None:
        """Return what is known of the sentences of a document: first what its review says, then what the memory says.

        Args:
            file: What the document is called.
            source_lang: Code of its language, or ``auto``.
            target_lang: Code of the language wanted.
        """
        pair = self._languages[file] = self._pair(source_lang, target_lang)
        if self.memory is None and not self.review:
            return None
        reviewed_here = from_review(self.review, file, self._used)

        def find(segment: int, unit: int, text: str, masked: MaskedText) -> Outcome | None:
            outcome = reviewed_here(segment, unit, text, masked)
            if outcome is not None:
                self.counts["reviewed"] += 1
                return outcome
            return self._from_memory(text, masked, *pair)

        return find

    def _pair(self, source_lang: str, target_lang: str) -> tuple[str, str]:
        """Return the languages to look up; where that of the document is not certain, the memory may have one alone."""
        if source_lang == "auto" and self.memory is not None:
            there = [one for one, two in self.memory.counts() if two == target_lang]
            return (there[0] if len(there) == 1 else ""), target_lang
        if self.memory is not None and (source_lang, target_lang) not in self.memory.counts():
            fitting = [
                (one, two)
                for one, two in self.memory.counts()
                if fits_language(source_lang, one) and fits_language(target_lang, two)
            ]
            return fitting[0] if len(fitting) == 1 else (source_lang, target_lang)
        return source_lang, target_lang

    def _from_memory(self, text: str, masked: MaskedText, source_lang: str, target_lang: str) -> Outcome | None:
        if self.memory is None:
            return None
        found = self.memory.find(text, source_lang, target_lang)
        if found is not None and not problems(text, found.target, masked):
            self.counts["memory"] += 1
            return Outcome(found.target, 1.0, ())
        at_least = self.options.memory_like
        like = self._like(text, source_lang, target_lang, at_least) if at_least is not None else None
        if like is None or problems(text, like.target, masked):
            return None
        self.counts["like"] += 1
        return Outcome(like.target, round(like.score, 3), (LIKE,))

    def _like(self, text: str, source_lang: str, target_lang: str, at_least: float) -> Found | None:
        if self.memory is None:
            return None
        return next(iter(self.memory.find_like(text, source_lang, target_lang, at_least=at_least)), None)

    def add(self, file: str, done: DocumentRun) -> None:
        """Take in a document that is translated.

        Args:
            file: What the document is called.
            done: What became of it.
        """
        source_lang, target_lang = self._languages.get(file, ("", ""))
        if self.options.bilingual is not None:
            self._rows += bilingual_rows(file, done.document, done.translation)
        if self.options.review is not None:

            def hint(text: str) -> str:
                found = self._like(text, source_lang, target_lang, HINT)
                return "" if found is None else f"{found.score:.0%}: {found.target}"

            hints = self.memory is not None and finds_alike()
            self._reviewed += reviewed(file, done.document, done.translation, hint if hints else None)
        if self.glossary:
            self._terms.add(
                *(done.document, done.translation, self.glossary),
                source_lang=None if source_lang in ("", "auto") else source_lang,
                target_lang=target_lang,
            )

    def close(self) -> None:
        """Close the memory, whatever happened."""
        if self.memory is not None:
            self.memory.close()

    def finish(self) -> Iterator[str]:
        """Write the files that the user asked for, and yield what there is to say."""
        if self.options.bilingual is not None:
            page = self.options.bilingual.lower().endswith((".html", ".htm"))
            one, two = next(iter(self._languages.values()), ("", ""))
            text = write_html(self._rows, source_lang=one, target_lang=two) if page else write_tsv(self._rows)
            _write(self.options.bilingual, text)
        if self.options.review is not None:
            _write(self.options.review, write_review(self._reviewed))
            name = display_name(self.options.review)
            yield f"{name}: {len(self._reviewed)} sentences to look at; edit the column translation"
        if self.memory is not None:
            like = self.counts["like"]
            more = f", {like} more from sentences that are not quite the same" if like else ""
            yield f"{self.counts['memory']} sentences came from the memory{more}"
        if self.options.reviewed is not None:
            yield f"{self.counts['reviewed']} sentences came from {display_name(self.options.reviewed)}"
        yield from self._edits_unused()
        yield from self._terms_said()

    def _edits_unused(self) -> Iterator[str]:
        """Say which edits of the review no sentence was translated by."""
        files = {"", *self._languages}
        unused = [row for row in self.review if is_edited(row) and row not in self._used]
        here = [row for row in unused if row.file in files]
        for row in here[:SHOWN]:
            where = f" ({row.file}, {row.place or row.id})" if row.file else ""
            yield (
                f"review: the edited translation of {row.source!r}{where} was not used: no sentence is as its source, "
                "or its codes would cross"
            )
        if len(here) > SHOWN:
            yield f"review: {len(here) - SHOWN} more edited translations were not used"
        others = [row.file for row in unused if row.file not in files]
        if others:
            named = ", ".join([*dict.fromkeys(others)][:SHOWN])
            yield f"review: {len(others)} edited translations are of files that were not translated now: {named}"

    def _terms_said(self) -> Iterator[str]:
        if not self.glossary:
            return
        hits, misses = sum(self._terms.hits.values()), sum(self._terms.misses.values())
        yield f"glossary: followed {hits} times of {hits + misses}"
        for term, count in self._terms.misses.most_common(SHOWN):
            places = ", ".join(dict.fromkeys(self._terms.places[term][:4]))
            yield f"glossary: {term!r} was not followed {count} times ({places})"


def _check_files(options: ToolOptions, others: Sequence[tuple[str, str]]) -> None:
    """Refuse to write over what is read, or two things into one file.

    Raises:
        ConfigError: Two options name the same file.
    """
    read = [("--reviewed", options.reviewed), ("--memory", options.memory), ("--keep-terms", options.keep_terms)]
    taken = {os.path.realpath(path): name for name, path in (*others, *read) if path is not None}
    for name, path in (("--review", options.review), ("--bilingual", options.bilingual)):
        other = name if path is None else taken.setdefault(os.path.realpath(path), name)
        if other != name:
            raise ConfigError(f"{name} would write over the file that {other} names. Name another one.")


def _write(path: str, text: str) -> None:
    with unwritable(f"{display_name(path)} cannot be written"), atomic_write(Path(path)) as file:
        file.write(text.encode("utf-8", "replace"))
