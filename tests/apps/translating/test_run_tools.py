"""What a run over a document does with kept terms, with what is known, and with formats that are only read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import office_files as made
import pytest
from fakes import FakeModel

from nlpkit.apps.documents.document import Document, ReadOptions
from nlpkit.apps.documents.registry import find_format
from nlpkit.apps.documents.translation.attempts import FAILED, Answer, Outcome
from nlpkit.apps.documents.translation.translate import Translate
from nlpkit.apps.models.adapters import AdapterChooser, ModelChoice, NotLearnedError
from nlpkit.apps.pipeline.pool import only
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.translating.run import Asking, run_document, translate_bytes
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


class _English(AdapterChooser):
    def choose(self, task: Any, example: Any, *, solved: Sequence[Any] = ()) -> ModelChoice:
        if "Wort" in example.source or "hier" in example.source:
            raise NotLearnedError("What is shipped did not learn German.")
        return ModelChoice()


@pytest.mark.parametrize("refused", ["Noch ein Wort {name} hier", "Noch ein Wort"])
def test_a_sentence_that_no_model_learned_does_not_keep_the_others_back(refused: str) -> None:
    asking = Asking(
        task=load_task("translation"),
        pool=only(FakeModel()),  # type: ignore[arg-type]
        chooser=_English("default", "none"),
        target_lang="fr",
    )
    data = json.dumps({"a": "Hello there", "b": refused}).encode()
    done = translate_bytes(data, asking, name="a.json", source_lang="en")
    assert json.loads(done.data) == {"a": "HELLO THERE", "b": refused}
    assert [(flag.source, flag.reasons) for flag in done.translation.flags] == [(refused, (FAILED,))]
    with pytest.raises(NotLearnedError, match="did not learn German"):
        translate_bytes(json.dumps({"b": refused}).encode(), asking, name="a.json", source_lang="en")
