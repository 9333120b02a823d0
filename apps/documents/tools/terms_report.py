"""What became of the terms of a glossary in a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nlpkit.apps.documents.document import Document
from nlpkit.apps.documents.translation.translate import DocumentTranslation
from nlpkit.apps.documents.translation.units import plan_segment
from nlpkit.apps.text.translation.glossary import find_terms, followed


@dataclass
class TermsReport:
    """How often the terms of a glossary were translated as they should be.

    Attributes:
        hits: Term to how often its translation was used.
        misses: Term to how often it was not.
        places: Term to where it was not: lines or places, in the order of the documents.
    """

    hits: Counter[str] = field(default_factory=Counter)
    misses: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self,
        document: Document,
        translation: DocumentTranslation,
        glossary: Mapping[str, str],
        *,
        source_lang: str | None,
        target_lang: str,
    ) -> None:
        """Count a document.

        Args:
            document: The document.
            translation: Its translation.
            glossary: Terms and how to translate them.
            source_lang: Code of its language; None if that is not certain.
            target_lang: Code of the translation's.
        """
        for segment, outcomes in zip(document.segments, translation.outcomes, strict=True):
            plan = plan_segment(segment)
            for unit, outcome in zip(plan.units, outcomes, strict=True):
                if unit.copied:
                    continue
                said, became = plan.masked.plain(unit.text), plan.masked.plain(outcome.text)
                for match in find_terms(said, glossary, language=source_lang):
                    if followed(match, became, language=target_lang):
                        self.hits[match.term] += 1
                    else:
                        self.misses[match.term] += 1
                        self.places.setdefault(match.term, []).append(segment.where)
