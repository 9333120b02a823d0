"""Kept terms, reviews, source beside translation, what glossaries did, and what people corrected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nlpkit.apps.documents.document import Code, Document, ReadOptions, Segment
from nlpkit.apps.documents.formats.prose.markdown import Markdown
from nlpkit.apps.documents.tools.bilingual import bilingual_rows, write_html, write_tsv
from nlpkit.apps.documents.tools.corrections import Correction, find_candidates, read_corrections
from nlpkit.apps.documents.tools.kept_terms import read_kept_terms, with_kept_terms, without_kept_terms
from nlpkit.apps.documents.tools.review import Reviewed, from_review, read_review, reviewed, write_review
from nlpkit.apps.documents.tools.terms_report import TermsReport
from nlpkit.apps.documents.translation.attempts import Answer
from nlpkit.apps.documents.translation.translate import translate_segments
from nlpkit.core.errors import InputError

PAGE = b"# The dog\n\nThe **black** dog barks. Nobody\thears it.\n\nThe end: 5 dogs.\n"


def page() -> Document:
    return Markdown().read(PAGE, ReadOptions(name="page.md"))


def shout(texts: Sequence[str]) -> list[Answer]:
    return [Answer(text.upper(), 0.9 if "dog" in text else 0.2) for text in texts]


def refuse(texts: Sequence[str]) -> list[Answer]:
    raise AssertionError(f"the model was asked about {texts}")


def test_kept_terms_come_through_whatever_the_model_does(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("# names\nNova Box\nNova\n\n")
    terms = read_kept_terms(str(tmp_path / "keep.txt"))
    assert terms == ("Nova Box", "Nova")
    document = Document(
        format="text", segments=(Segment(parts=("Open the Nova Box, Novas and Nova.",)),), skeleton=None
    )
    kept = with_kept_terms(document, terms)
    assert [part.literal for part in kept.segments[0].parts if isinstance(part, Code)] == ["Nova Box", "Nova"]
    translation = translate_segments(kept, shout)
    (result,) = without_kept_terms(translation.results)
    assert result is not None
    assert result.parts == ("OPEN THE Nova Box, NOVAS AND Nova.",)
    assert kept.segments[0].text == document.segments[0].text


def test_a_review_comes_back_as_it_was(tmp_path: Path) -> None:
    document = page()
    translation = translate_segments(document, shout)
    rows = list(reviewed("page.md", document, translation))
    path = tmp_path / "r.tsv"
    path.write_text(write_review(rows))
    read = read_review(str(path))
    assert sorted(read, key=lambda row: row.id) == rows
    assert [row.confidence for row in read] == sorted(row.confidence for row in rows)
    again = translate_segments(document, refuse, known=from_review(read, "page.md"))
    assert again.results == translation.results


def test_an_edited_review_is_merged(tmp_path: Path) -> None:
    document = page()
    text = write_review(reviewed("page.md", document, translate_segments(document, shout)))
    path = tmp_path / "r.tsv"
    path.write_text(text.replace("THE ⟦1⟧BLACK⟦2⟧ DOG BARKS.", "Es bellt der ⟦1⟧schwarze⟦2⟧ Hund.", 1))
    rows = read_review(str(path))
    translation = translate_segments(document, refuse, known=from_review(rows, "page.md"))
    data = Markdown().write(document.skeleton, translation.results, ReadOptions())
    assert b"Es bellt der **schwarze** Hund." in data
    assert [row["right"] for row in map(vars, read_corrections(str(path)))] == ["Es bellt der ⟦1⟧schwarze⟦2⟧ Hund."]


def test_cells_that_a_spreadsheet_has_quoted(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text(
        'source\ttranslation\tmachine\n"He said ""hi"" to me."\t"Er sagte ""hallo""."\tEr sagte hi.\n"All of it"\t"Alles"\tx\n'
    )
    one, two = read_review(str(path))
    assert (one.source, one.translation) == ('He said "hi" to me.', 'Er sagte "hallo".')
    assert (two.source, two.translation) == ('"All of it"', '"Alles"')
    path.write_text('"source"\t"translation"\t"machine"\n"The end"\t"Das ""Ende"""\t""\n')
    (row,) = read_review(str(path))
    assert (row.source, row.translation, row.machine) == ("The end", 'Das "Ende"', "")
    assert [change.right for change in read_corrections(str(path))] == ['Das "Ende"']


@pytest.mark.parametrize("text", ['"so"', '"a ""b"" c"', '"""', '"', '""""', "a\tb\\n\n", '"a\t""b"'])
def test_any_cell_of_a_review_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    row = Reviewed("#a.md", "1.1", "", 1.0, (), text, text, text)
    path = tmp_path / "r.tsv"
    path.write_text(write_review([row]))
    assert read_review(str(path)) == [row]


def test_an_edit_that_loses_a_code_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("source\ttranslation\nA ⟦1⟧\tEin ⟦1⟧\nTwo ⟦1⟧dogs⟦2⟧\tZwei ⟦1⟧Hunde\n")
    with pytest.raises(InputError, match=r"line 3 \(⟦2⟧\)"):
        read_review(str(path))
    path.write_text("a\tb\n")
    with pytest.raises(InputError, match="no review file"):
        read_review(str(path))


def test_numbers_in_words_are_a_persons_right(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("source\ttranslation\nThe end: 5 dogs.\tEnde: fünf Hunde.\n")
    translation = translate_segments(page(), shout, known=from_review(read_review(str(path)), "other.md"))
    assert translation.outcomes[2][0].text == "Ende: fünf Hunde."


def test_what_is_known_with_other_masks_is_not_used() -> None:
    from nlpkit.apps.documents.translation.attempts import Outcome

    translation = translate_segments(page(), shout, known=lambda s, u, text, masked: Outcome("Nichts ⟦9⟧"))
    assert translation.outcomes[0][0].text == "THE DOG"


def test_source_and_translation_side_by_side() -> None:
    document = page()
    rows = bilingual_rows("a<b.md", document, translate_segments(document, shout))
    assert write_tsv(rows).splitlines()[:3] == [
        "file\tplace\tsource\ttranslation",
        "a<b.md\tline 1\tThe dog\tTHE DOG",
        "a<b.md\tline 3\tThe black dog barks. Nobody hears it.\tTHE BLACK DOG BARKS. NOBODY HEARS IT.",
    ]
    text = write_html(rows, source_lang="en", target_lang="de")
    assert "<h2>a&lt;b.md</h2>" in text
    assert text.count('<tr class="unsure">') == 1
    assert '<td lang="de">THE DOG</td>' in text


def test_hits_and_misses_of_a_glossary() -> None:
    document = page()
    report = TermsReport()
    report.add(
        *(document, translate_segments(document, shout), {"dog": "Dog", "end": "Schluss", "cat": "Katze"}),
        source_lang="en",
        target_lang="de",
    )
    assert report.hits == {"dog": 3}
    assert report.misses == {"end": 1}
    assert report.places == {"end": ["line 5"]}


def test_what_is_corrected_alike_looks_like_a_term(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(
        "source\twrong\tright\nThe bank opens.\tDie Bank öffnet.\tDas Ufer öffnet.\n"
        "The bank was closed.\tDie Bank war zu.\tDie Sparkasse war zu.\nAt the bank we met.\tWir trafen uns an der Bank.\t"
        "Wir trafen uns an der Sparkasse.\nA dog.\tEin Hund.\tEin Hund.\n"
    )
    found = read_corrections(str(path))
    assert len(found) == 3
    (candidate,) = find_candidates([*found, Correction("Our bank", "Unsere Bank", "Unsere Sparkasse")])
    assert (candidate.source, candidate.wrong, candidate.right, candidate.count) == ("bank", "Bank", "Sparkasse", 3)


def test_changes_of_grammar_are_no_terms() -> None:
    pairs = (("The dog barks", "der Hund", "ein Hund"), ("The dog sleeps", "der Hund", "ein Hund"))
    assert find_candidates([Correction(*one) for one in pairs]) == []


def test_corrections_need_three_columns(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("a\tb\n")
    with pytest.raises(InputError, match="three columns"):
        read_corrections(str(tmp_path / "c.tsv"))
