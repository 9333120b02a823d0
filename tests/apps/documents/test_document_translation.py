"""Sentences with codes on their way through a translator: masks, attempts, and what is flagged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from document_checks import Mangler, lost_after
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import Code, Document, Part, ReadOptions, Segment, Translated, Wrap
from nlpkit.apps.documents.formats.prose.plain import PlainText
from nlpkit.apps.documents.formats.spans import flowed
from nlpkit.apps.documents.formats.strings.messages import message_parts
from nlpkit.apps.documents.reading import document_text
from nlpkit.apps.documents.registry import find_format, read_document
from nlpkit.apps.documents.translation.attempts import Answer
from nlpkit.apps.documents.translation.masks import mask_parts, mask_protected, problems, respaced
from nlpkit.apps.documents.translation.translate import DocumentTranslation, translate_segments
from nlpkit.apps.documents.translation.units import plan_segment

BOLD = (Code(literal="<b>", role="open", pair=1), Code(literal="</b>", role="close", pair=1))


def document(*parts: Part) -> Document:
    return Document(format="x", segments=(Segment(parts=parts, line=3, key="k"),), skeleton=None)


def answers(table: dict[str, str]) -> Callable[[Sequence[str]], list[Answer]]:
    return lambda texts: [Answer(table.get(text, "")) for text in texts]


def translated(translation: DocumentTranslation) -> str:
    (result,) = translation.results
    assert result is not None
    return "".join(part if isinstance(part, str) else part.literal for part in result.parts)


def test_codes_at_the_edges_are_not_asked_about() -> None:
    plan = plan_segment(Segment(parts=(*BOLD[:1], "Open the door.", *BOLD[1:])))
    assert [unit.text for unit in plan.units] == ["Open the door."]
    assert plan.parts(["Zu."]) == (BOLD[0], "Zu.", BOLD[1])


def test_a_good_answer_with_masks_is_taken() -> None:
    doc = document("Open the ", BOLD[0], "door", BOLD[1], ", please.")
    told = translate_segments(doc, answers({"Open the ⟦1⟧door⟦2⟧, please.": "Bitte die ⟦1⟧Tür⟦2⟧ auf."}))
    assert translated(told) == "Bitte die <b>Tür</b> auf."
    assert told.flags == ()


def test_lost_masks_lead_to_the_sentence_without_them() -> None:
    doc = document("Open the ", BOLD[0], "big door", BOLD[1], ", please.")
    table = {
        "Open the ⟦1⟧big door⟦2⟧, please.": "Bitte die große Tür auf.",
        "Open the big door, please.": "Bitte den großen Garten auf.",
        "big door": "großer Garten",
    }
    assert translated(translate_segments(doc, answers(table))) == "Bitte den <b>großen Garten</b> auf."


def test_at_last_a_sentence_is_translated_around_its_codes() -> None:
    doc = document("Good morning ", Code(literal="{x}"), " and welcome.")
    table = {"Good morning": "Guten Morgen.", "and welcome.": "und willkommen."}
    told = translate_segments(doc, answers(table))
    assert translated(told) == "Guten Morgen {x} und willkommen."
    assert told.flags[0].reasons == ("pieces",)


def test_what_loses_a_code_in_every_way_keeps_its_source_and_is_flagged() -> None:
    doc = document("Use ", Code(literal="{x}", text="x"), " now.")
    told = translate_segments(doc, answers({"Use ⟦1⟧ now.": "Jetzt."}))
    assert told.results == (None,)
    (flag,) = told.flags
    assert (flag.line, flag.key, flag.source, flag.lost) == (3, "k", "Use x now.", ("{x}",))
    assert told.kept == 1


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("⟦1⟧a⟦2⟧ b ⟦3⟧", []),
        ("⟦3⟧ b ⟦1⟧a⟦2⟧", []),
        ("⟦2⟧a⟦1⟧ b ⟦3⟧", ["</b>"]),
        ("⟦1⟧a b ⟦3⟧", ["</b>"]),
        ("⟦1⟧a⟦2⟧ b ⟦3⟧⟦3⟧", ["{x}"]),
        ("⟦1⟧a⟦2⟧ b ⟦3⟧ ⟦4⟧", ["⟦4⟧"]),
        ("⟦1⟧a⟦2⟧ b ⟦3⟧ ⟦", ["⟦"]),
    ],
)
def test_problems(answer: str, wrong: list[str]) -> None:
    masked = mask_parts((BOLD[0], "a", BOLD[1], " b ", Code(literal="{x}")))
    assert problems(masked.text, answer, masked) == wrong


def test_unnumbered_placeholders_keep_their_order() -> None:
    masked = mask_parts((Code(literal="<i>"), "a"))
    assert problems(masked.text, masked.text, masked) == []
    told = translate_segments(document("From %s to %d."), answers({"From %s to %d.": "Bis %d von %s."}))
    assert told.results == (None,)
    numbered = translate_segments(document("From %1$s to %2$d."), answers({"From %1$s to %2$d.": "Bis %2$d von %1$s."}))
    assert translated(numbered) == "Bis %2$d von %1$s."


def test_a_changed_number_is_not_taken() -> None:
    assert translate_segments(document("Bring 3 eggs."), answers({"Bring 3 eggs.": "Bring 4 Eier."})).results == (None,)


def test_codes_get_the_blanks_of_the_source() -> None:
    masked = mask_parts(("Hello ", BOLD[0], "Tom", BOLD[1], " and you"))
    assert respaced(masked.text, "Hallo⟦1⟧ Tom ⟦2⟧und du", masked) == "Hallo ⟦1⟧Tom⟦2⟧ und du"


def test_brackets_of_the_text_are_no_masks() -> None:
    doc = document("See ⟦1⟧ and ", Code(literal="{x}"), " there now.")
    for seed in range(20):
        told = translate_segments(doc, Mangler(seed))
        assert told.results == (None,) or translated(told).count("⟦1⟧") >= 1
        assert lost_after(doc, told)[1] == []


_TEXT = st.text(st.sampled_from("ab C.,!?%{}<>&⟦⟧12\n\t `*_#|\\äß—"), max_size=30)
_CODE = st.sampled_from(("<i>", "{name}", "\n", "&nbsp;", "⟦1⟧", "%s"))
_PARTS = st.lists(
    st.one_of(
        _TEXT,
        st.builds(
            lambda literal, role, pair, breaks: Code(literal=literal, role=role, pair=pair, breaks=breaks),
            _CODE,
            st.sampled_from(("alone", "open", "close")),
            st.integers(0, 2),
            st.booleans(),
        ),
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_PARTS, st.integers(0, 2**16))
def test_any_segment_keeps_its_codes_under_any_translator(parts: list[Part], seed: int) -> None:
    doc = document(*parts)
    assert lost_after(doc, translate_segments(doc, Mangler(seed)))[1] == []


@settings(max_examples=200, deadline=None)
@given(_PARTS)
def test_a_translator_that_repeats_changes_nothing(parts: list[Part]) -> None:
    plan = plan_segment(Segment(parts=tuple(parts)))
    again = plan.parts([unit.text for unit in plan.units])
    assert "".join(part if isinstance(part, str) else part.literal for part in again) == "".join(
        part if isinstance(part, str) else part.literal for part in parts
    )


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_plain_text_comes_back(text: str) -> None:
    data = text.replace("\0", "").removeprefix("\ufeff").encode("utf-8", "ignore")
    options = ReadOptions(name="it")
    read = PlainText().read(data, options)
    assert PlainText().write(read.skeleton, [None] * len(read.segments), options) == data


def test_equal_sentences_are_asked_about_once() -> None:
    asked: list[str] = []

    def translate(texts: Sequence[str]) -> list[Answer]:
        asked.extend(texts)
        return [Answer(text.upper()) for text in texts]

    segments = tuple(Segment(parts=("Open the door.",)) for _ in range(3))
    translate_segments(Document(format="x", segments=segments, skeleton=None), translate)
    assert asked == ["Open the door."]


def test_wrapped_text_is_wrapped_again_and_codes_are_no_places_to_break_at() -> None:
    link = Code(literal="(a b c d)")
    result = Translated(parts=("one two three ", link, " four"))
    assert flowed(result, str, Wrap(14, "  ", "\n")) == "one two three\n  (a b c d)\n  four"


@pytest.mark.parametrize("sign", ["\ue0b7", "\ufdd0", "\ufdd1", "\ufdd10", "\ufdd1\ufdd0"])
def test_any_character_may_stand_in_what_is_wrapped(sign: str) -> None:
    result = Translated(parts=(f"one{sign}two three ", Code(literal=f"({sign} b)"), f" {sign}"))
    assert flowed(result, str, Wrap(30, "", "\n")).replace("\n", " ") == f"one{sign}two three ({sign} b) {sign}"


def test_the_text_of_a_document_knows_its_places() -> None:
    data = b"# One\n\nTwo is **here**.\n\n- three\n- four\n"
    entry = find_format("a.md")
    assert entry is not None
    text = document_text(read_document(data, entry, ReadOptions(name="a.md")))
    assert text.text == "One\n\nTwo is here.\n\nthree\nfour"
    assert data[text.offset_in_file(text.text.index("four")) :].startswith(b"four")
    place = text.find(text.text.index("here"))
    assert place is not None
    assert (place.line, place.exact) == (3, False)


def test_the_sentences_of_a_text_share_its_codes() -> None:
    masked = mask_parts((BOLD[0], "One", BOLD[1], " of {name} at https://example.org."))
    full, more = mask_protected(masked.text, masked)
    assert full == "⟦1⟧One⟦2⟧ of ⟦3⟧ at ⟦4⟧."
    assert more.codes is masked.codes
    assert [more.code(number) for number in range(1, more.n_codes + 1)] == [*BOLD, "{name}", "https://example.org"]
    assert more.parts(full) == (BOLD[0], "One", BOLD[1], " of {name} at https://example.org.")


@pytest.mark.parametrize(
    ("name", "data", "exact"),
    [
        ("a.json", '{"a": "Say \\"hi\\" to Ann", "b": "Write to Ann"}', [False, True]),
        ("a.po", 'msgid "Write to Ann"\nmsgstr ""\n', [False]),
        ("a.yml", "a: 'It''s for Ann'\nb: 'It is for Ann'\nc: It is for Ann\n", [False, False, True]),
        ("a.toml", 'a = "Write to Ann"\n', [False]),
        ("a.html", "<p>Write  to\tAnn</p><p>Write to Ann</p><p>Write to <b>Ann</b></p>", [False, True, False]),
        ("a.md", "Write to Ann\nand *Tom*\n\nWrite to Ann\n", [False, True]),
    ],
)
def test_places_are_exact_where_the_file_has_the_very_words(name: str, data: str, exact: list[bool]) -> None:
    entry = find_format(name, data.encode())
    assert entry is not None
    read = document_text(read_document(data.encode(), entry, ReadOptions(name=name)))
    assert [place.exact for place in read.places] == exact
    for place in read.places:
        if place.exact:
            at = read.text.index("Ann", place.start)
            assert data[read.offset_in_file(at) :].startswith("Ann")


def test_words_that_stayed_within_codes_are_asked_about_without_them() -> None:
    doc = document("The shop is ", BOLD[0], "open", BOLD[1], " today.")
    table = {
        "The shop is ⟦1⟧open⟦2⟧ today.": "Der Laden ist ⟦1⟧open⟦2⟧ heute.",
        "The shop is open today.": "Der Laden ist heute geöffnet.",
        "open": "geöffnet",
    }
    assert translated(translate_segments(doc, answers(table))) == "Der Laden ist heute <b>geöffnet</b>."
    del table["open"]
    assert translated(translate_segments(doc, answers(table))) == "Der Laden ist <b>open</b> heute."


def test_a_subtitle_that_cannot_be_read_in_time_is_flagged() -> None:
    segment = Segment(parts=("Too much for me.",), kind="cue", seconds=1.0, line=4)
    doc = Document(format="srt", segments=(segment,), skeleton=None)
    told = translate_segments(doc, answers({"Too much for me.": "Das ist für mich leider zu viel."}))
    assert [(flag.line, flag.reasons) for flag in told.flags] == [(4, ("reading_speed",))]


def test_a_subtitle_of_more_than_two_lines_is_flagged() -> None:
    long = "Das ist für mich leider viel zu viel auf einmal, und auch zu spät. " * 2
    for source, flags in (("Too much for me.", [(4, ("cue_length",))]), ("It was " + "much " * 30 + "too long.", [])):
        segment = Segment(parts=(source,), kind="cue", seconds=60.0, line=4)
        doc = Document(format="srt", segments=(segment,), skeleton=None)
        told = translate_segments(doc, lambda texts: (Answer(long) for _ in texts))
        assert [(flag.line, flag.reasons) for flag in told.flags if "cue_length" in flag.reasons] == flags


@pytest.mark.parametrize(
    ("label", "asked", "said", "wanted"),
    [
        ("&Open file", "Open file", "Datei öffnen", "&Datei öffnen"),
        ("Save _as", "Save as", "Speichern als", "Speichern _als"),
        ("Save &all", "Save all", "Speichern", "&Speichern"),
    ],
)
def test_keyboard_shortcuts_stay(label: str, asked: str, said: str, wanted: str) -> None:
    doc = document(*message_parts(label))
    assert translated(translate_segments(doc, answers({asked: said}))) == wanted


def test_what_looks_like_a_shortcut_and_is_none() -> None:
    for text in ("R&D", "a & b", "&amp; b", "__name__", "a_b and _c", "Fish &chips &peas"):
        assert message_parts(text) == (text,)
