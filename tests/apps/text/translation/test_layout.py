"""Layout: what stands around sentences comes back as it was."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlpkit.apps.text.translation.layout import copies_as_is, read_layout, write_layout

WRAPPED = """The old miller lived in a small house beside the river. He had
three sons, a donkey and a cat. Every evening the sons went to
the village and sold the flour that the miller had ground.
"""


def shouted(text: str, *, lines: bool = False) -> str:
    layout = read_layout(text, lines=lines)
    return write_layout(layout, [f"<{segment}>" for segment in layout.segments])


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("", ""),
        ("One. Two!  Three", "<One.> <Two!>  <Three>"),
        ("  One.  \r\n\r\n\tTwo\t\r\n", "  <One.>  \r\n\r\n\t<Two>\t\r\n"),
        ("- One\n* Two\n• Three\n+ Four", "- <One>\n* <Two>\n• <Three>\n+ <Four>"),
        ("1. One\n2) Two\n(a) Three\n(iv) Four\n1.2.3. Five\n1.2 Six", "1. <One>\n2) <Two>\n(a) <Three>\n(iv) <Four>\n1.2.3. <Five>\n1.2 <Six>"),
        ("- [ ] One\n- [x] Two", "- [ ] <One>\n- [x] <Two>"),
        ("# One\n## Two ##\n== Three ==", "# <One>\n## <Two> ##\n== <Three> =="),
        ("One\n===\n\nTwo\n---", "<One>\n===\n\n<Two>\n---"),
        ("> One\n> > Two\n>", "> <One>\n> > <Two>\n>"),
        ("– One\n—Two\n— ¿Tres?\n-Four", "– <One>\n—<Two>\n— <¿Tres?>\n-<Four>"),
        ("♪ One ♪\n♫Two", "♪ <One> ♪\n♫<Two>"),
        ("│ One │ two │\n└──┘", "│ <One> │ <two> │\n└──┘"),
        ("| One | Two |\n|---|:-:|\n| 3 | Four |", "| <One> | <Two> |\n|---|:-:|\n| 3 | <Four> |"),
        ("One\ttwo\t3", "<One>\t<two>\t3"),
        ("ANNA: One. Two.\nDR. MÜLLER (off): Three", "ANNA: <One.> <Two.>\nDR. MÜLLER (off): <Three>"),
        ("NOTE: One.", "<NOTE: One.>"),
        ("3. Mai ist da.\n2024 was good.\n5 cats", "<3. Mai ist da.>\n<2024 was good.>\n<5 cats>"),
        ("12345 !\n...\n{}", "12345 !\n...\n{}"),
        ("\ufeffOne\u2028Two\x0cThree\rFour", "\ufeff<One>\u2028<Two>\x0c<Three>\r<Four>"),
        ('See <a title="One. Two">this</a>. Three', '<See <a title="One. Two">this</a>.> <Three>'),
        ("Use `a | b` now", "<Use `a | b` now>"),
        ("either|or", "<either|or>"),
    ],
)  # fmt: skip
def test_marks_stay(text: str, translated: str) -> None:
    assert shouted(text) == translated


def test_wrapped_paragraphs_are_joined_and_wrapped_again() -> None:
    layout = read_layout(WRAPPED)
    assert layout.segments == (
        "The old miller lived in a small house beside the river.",
        "He had three sons, a donkey and a cat.",
        "Every evening the sons went to the village and sold the flour that the miller had ground.",
    )
    longer = [segment.replace("the ", "the very old and very wise ") for segment in layout.segments]
    written = write_layout(layout, longer)
    assert written.split() == " ".join(longer).split()
    assert max(map(len, written.splitlines())) <= 62
    assert written.endswith("\n")
    assert not written.endswith("\n\n")


@pytest.mark.parametrize(
    ("lead", "indent"), [("> ", "> "), ("  ", "  "), ("- ", "  "), ("* ", ""), ("1. ", "   "), ("  - ", "    ")]
)
def test_wrapped_paragraphs_keep_their_indent(lead: str, indent: str) -> None:
    text = lead + WRAPPED.rstrip("\n").replace("\n", "\r\n" + indent) + "\r\n\r\nNext."
    layout = read_layout(text)
    assert len(layout.segments) == 4
    written = write_layout(layout, [segment.replace("a", "aa") for segment in layout.segments])
    first, *rest = written.partition("\r\n\r\n")[0].split("\r\n")
    assert first.startswith(lead + "T")
    assert all(line.startswith(indent) and line[len(indent)] != " " for line in rest)
    assert written.endswith("\r\n\r\nNext.")


def test_new_lines_never_begin_like_lists() -> None:
    text = "The number of the apples that he had counted yesterday is\nprobably 12. That is what he told us before he left the\nhouse of the others - or not.\n"
    layout = read_layout(text)
    written = write_layout(
        layout, [segment.replace("probably", "with a great probability and") for segment in layout.segments]
    )
    assert not any(line.startswith(("12.", "- ")) for line in written.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame thy fearful symmetry?\n",
        "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;\n",
        "Mr. John Smith\n12 High Street\nLondon SW1A 1AA\n",
        "milk\nbread and butter from the shop around the corner\neggs\nthree apples\n",
        "The train to the mountains leaves at noon from here.\nBring your passport and enough food for the journey.\n",
        "Good morning\nthe door is open\n",
        "A very long line that nobody has wrapped at all since it stands for itself and is long enough.\n- and a list item\n",
        "Name: the first and the last name of the person here\nMail: the address to which we may write to you then\n",
    ],
)  # fmt: skip
def test_verse_addresses_and_lists_are_not_joined(text: str) -> None:
    assert len(read_layout(text).blocks) == text.count("\n")


def test_capitals_behind_line_ends_follow_the_other_paragraphs() -> None:
    text = WRAPPED + "\nThe sons were called Peter, Paul and Johann. Their father and\nMaria lived in the mill."
    assert read_layout(text).segments[-1] == "Their father and Maria lived in the mill."


def test_hyphens_at_line_ends() -> None:
    text = "The house beside the river was sold to a very well-\nknown man who had come to the village with his dog.\n"
    assert read_layout(text).segments[0].endswith("a very well-known man who had come to the village with his dog.")


def test_lines_stand_for_themselves_on_demand() -> None:
    assert len(read_layout(WRAPPED, lines=True).blocks) == 3
    assert shouted("One. Two\nthree", lines=True) == "<One.> <Two>\n<three>"


def test_line_ends_in_translations_become_blanks() -> None:
    assert write_layout(read_layout("- One\n"), ["Eins\r\nund"]) == "- Eins und\n"
    with pytest.raises(ValueError, match="2 translations for 1 segments"):
        write_layout(read_layout("One"), ["a", "b"])


@pytest.mark.parametrize(
    "text",
    ["", "12345", "a.txt", "$5.00", "{name}: %s", "https://a.org", "ABC-123", "`x = 1`", "SELECT a FROM b WHERE id = 3;", "sudo apt-get install house", "if (x > 3 && y < 4) { return true; }", "printf(a);", "git commit -m fix", "20 km/h", "😀"],
)  # fmt: skip
def test_codes_are_copied(text: str) -> None:
    assert copies_as_is(text)


@pytest.mark.parametrize(
    "text",
    ["Tom", "open a.txt", "He came; she left", "from Berlin", "import duties are high", "Select one from the list", "A", "If x > 3, stop.", "Docker is good", "日本語"],
)  # fmt: skip
def test_words_are_not(text: str) -> None:
    assert not copies_as_is(text)


LINES = [
    "", " ", "a", "The dog is black. ", "and so it goes on and on for a long while until the end of it", "- ", "> ", "# ", "1. ", "(a) ",
    "| ", "♪", "\t", "ANNA: ", "...", "「はい。」", "\n", "\r\n", "\r", "\u2028", "\n\n", "<b>", "`", "–", "\u00a0", "Hello-", "x" * 70, "12.",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(LINES), max_size=40).map("".join))


@pytest.mark.property
@given(TEXTS, st.booleans())
def test_a_layout_loses_nothing(text: str, lines: bool) -> None:
    layout = read_layout(text, lines=lines)
    assert write_layout(layout, layout.segments) == text
    assert "".join(block.source for block in layout.blocks) == text
    assert all(any(map(str.isalpha, segment)) and segment == segment.strip() for segment in layout.segments)
    for block in layout.blocks:
        assert len(block.glue) == len(block.segments) + 1
        if block.wrap is None:
            glued = zip(block.segments, block.glue[1:], strict=True)
            assert block.glue[0] + "".join(one + two for one, two in glued) == block.source


@pytest.mark.property
@given(TEXTS)
def test_any_translation_can_be_written(text: str) -> None:
    layout = read_layout(text)
    words = [f"Wort{number}" for number in range(len(layout.segments))]
    written = write_layout(layout, words)
    places = [written.index(word) for word in words]
    assert places == sorted(places)
    copies_as_is(text)


@pytest.mark.property
@pytest.mark.parametrize(
    "atom",
    [
        "a",
        "a\n",
        "- ",
        "|",
        "a|",
        "A: ",
        "♪ ",
        "\r",
        "1. ",
        "a b c d e f g h i j k l m\n",
        "`a\n",
        "=",
        "x;",
        "(=",
        "—",
    ],
)
def test_hostile_texts_take_linear_time(atom: str) -> None:
    def seconds(length: int) -> float:
        text = (atom * length)[:length]
        start = time.perf_counter()
        layout = read_layout(text)
        write_layout(layout, [segment + "." for segment in layout.segments])
        copies_as_is(text)
        return time.perf_counter() - start

    seconds(1000)
    small, large = seconds(10_000), seconds(80_000)
    assert large < 5 or large < 24 * small
