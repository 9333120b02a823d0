"""What a run over a document does with kept terms, with what is known, and with formats that are only read."""

from __future__ import annotations

from collections.abc import Sequence

import office_files as made
import pytest

from nlpkit.apps.documents.document import Document, ReadOptions
from nlpkit.apps.documents.registry import find_format
from nlpkit.apps.documents.translation.attempts import Answer, Outcome
from nlpkit.apps.documents.translation.translate import Translate
from nlpkit.apps.translating.run import run_document
from nlpkit.core.errors import InputError


def shouting(document: Document) -> Translate:
    def translate(texts: Sequence[str]) -> list[Answer]:
        return [Answer(text.upper()) for text in texts]

    return translate


def test_a_word_document_keeps_terms_and_takes_what_is_known() -> None:
    entry = find_format("a.docx")
    assert entry is not None

    def known(document: Document) -> object:
        return lambda s, u, text, masked: Outcome("In einer Zelle") if text == "In a cell" else None

    done = run_document(
        *(made.word_file(), entry, ReadOptions(), shouting),
        known=known,  # type: ignore[arg-type]
        kept_terms=("report", "today"),
    )
    assert made.texts(entry.build(), done.data) == [
        "ON EVERY PAGE",
        "A report",
        "THE DOG IS BLACK & BIG <today>.",
        "In einer Zelle",
    ]
    assert done.translation.kept == 0


def test_a_code_that_would_be_lost_keeps_its_sentence() -> None:
    entry = find_format("a.docx")
    assert entry is not None

    def losing(document: Document) -> Translate:
        return lambda texts: [Answer("Ohne ⟦9⟧") for _ in texts]

    done = run_document(made.word_file(), entry, ReadOptions(), losing)
    assert made.parts_of(done.data) == made.parts_of(made.word_file())
    assert done.translation.kept == 4


def test_what_can_only_be_read_is_refused_before_the_model_is_asked() -> None:
    entry = find_format("a.eml")
    assert entry is not None
    with pytest.raises(InputError, match="can be read but not written"):
        run_document(b"Subject: Hi\n\nText\n", entry, ReadOptions(), shouting)
