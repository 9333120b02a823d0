"""Translation memories: what goes in comes out, exactly, nearly, with other numbers and other masks; and TMX."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.memory.entries import Entry, with_numbers
from nlpkit.apps.documents.memory.exchange import read_entries, write_entries
from nlpkit.apps.documents.memory.store import Added, Memory
from nlpkit.apps.documents.memory.tmx import read_tmx, write_tmx
from nlpkit.core.errors import ConfigError, InputError

DOG = Entry("The dog is black.", "Der Hund ist schwarz.", "en", "de", "me")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(str(tmp_path / "m.db"), create=True) as store:
        store.add([DOG])
        yield store


def test_what_goes_in_comes_out(memory: Memory) -> None:
    assert list(memory.entries()) == [DOG]
    assert memory.counts() == {("en", "de"): 1}
    found = memory.find("The  dog is black. ", "en", "de")
    assert found is not None
    assert (found.target, found.score) == (DOG.target, 1.0)
    assert memory.find("The dog is black.", "en", "fr") is None
    assert memory.find("The cat is black.", "en", "de") is None


def test_the_last_word_counts(memory: Memory) -> None:
    new = Entry(DOG.source, "Dieser Hund ist schwarz.", "en", "de", "you")
    assert memory.add([DOG, new, new, Entry("", "x", "en", "de")]) == Added(new=0, replaced=1, known=2)
    assert list(memory.entries("en", "de")) == [new]


def test_masks_are_renamed(memory: Memory) -> None:
    memory.add([Entry("Press ⟦3⟧OK⟦4⟧ now.", "Jetzt ⟦3⟧OK⟦4⟧ drücken ⟦9⟧.", "en", "de")])
    found = memory.find("Press ⟦7⟧OK⟦8⟧ now.", "en", "de")
    assert found is not None
    assert found.target == "Jetzt ⟦7⟧OK⟦8⟧ drücken ."
    assert memory.find("Press OK now.", "en", "de") is None


def test_masks_of_the_source_alone_do_not_count(memory: Memory) -> None:
    memory.add([Entry("Press ⟦1⟧OK⟦2⟧ now.", "Jetzt OK⟦2⟧ drücken.", "en", "de")])
    found = memory.find("Press OK⟦5⟧ now.", "en", "de")
    assert found is not None
    assert found.target == "Jetzt OK⟦5⟧ drücken."


def test_blanks_of_translations_stay_as_they_are(memory: Memory) -> None:
    target = "«\u00a0Le chien\u00a0»\u202f:\nnoir"
    memory.add([Entry("“The\u00a0dog”:\nblack", target, "en", "fr")])
    assert [entry.target for entry in memory.entries("en", "fr")] == [target]
    for source, wanted in (("“The dog”:\nblack", target), ("“The dog”: black", target.replace("\n", " "))):
        found = memory.find(source, "en", "fr")
        assert found is not None
        assert found.target == wanted


def test_forms_of_unicode_make_no_difference(memory: Memory) -> None:
    memory.add([Entry("A cafe\u0301.", "Ein Café.", "en", "de")])
    assert memory.find("A caf\u00e9.", "en", "de") is not None


def test_long_sides_are_left_out(memory: Memory) -> None:
    assert memory.add([Entry("One", "x" * 20_001, "en", "de"), Entry("x" * 20_001, "Eins", "en", "de")]) == Added()


@pytest.mark.parametrize("word", ["PRAGMA application_id =", "PRAGMA user_version =", "CREATE"])
def test_a_memory_that_was_left_half_made_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    real = sqlite3.connect

    class Killed(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if word in sql:
                raise KeyboardInterrupt
            return super().execute(sql, *values)  # type: ignore[arg-type]

    path = str(tmp_path / "m.db")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, **options, factory=Killed))
        with pytest.raises(KeyboardInterrupt):
            Memory(path, create=True)
    with Memory(path, create=True) as store:
        assert store.add([DOG]) == Added(new=1)


def test_other_numbers_are_put_in(memory: Memory) -> None:
    memory.add([Entry("Pages 3 to 15 of ⟦1⟧.", "Von ⟦1⟧ die Seiten 3 bis 15.", "en", "de")])
    found = memory.find("Pages 21 to 2,5 of ⟦4⟧.", "en", "de")
    assert found is not None
    assert found.target == "Von ⟦4⟧ die Seiten 21 bis 2,5."


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("2 of 3", Entry("1 of 1", "1 von 1", "en", "de")),
        ("2 dogs", Entry("1 dogs", "Ein Hund", "en", "de")),
        ("2 dogs", Entry("1 cats", "1 Katzen", "en", "de")),
    ],
    ids=["the same twice", "in words", "other words"],
)
def test_numbers_that_are_not_clear_stay_out(source: str, entry: Entry) -> None:
    assert with_numbers(source, entry) is None


def test_sentences_that_are_nearly_the_same(memory: Memory) -> None:
    memory.add([Entry("The dog is black and big.", "Der Hund ist schwarz und groß.", "en", "de")])
    found = memory.find_like("The dog is black and old.", "en", "de", at_least=0.6, most=2)
    assert [one.source for one in found] == ["The dog is black and big.", "The dog is black."]
    assert 0.8 < found[0].score < 1
    assert memory.find_like("Something else altogether", "en", "de", at_least=0.6) == []


def test_a_memory_that_is_only_asked_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        Memory(str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to look like something" * 20)
    with pytest.raises(InputError, match="no translation memory"):
        Memory(str(tmp_path / "text.db"), create=True)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE entries (a)")
    other.close()
    with pytest.raises(InputError, match="no translation memory of this version"):
        Memory(str(tmp_path / "other.db"), create=True)


def test_a_damaged_memory_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory(str(path), create=True) as store:
        store.add(Entry(f"Sentence number {n} of them", f"Satz {n}", "en", "de") for n in range(500))
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"), Memory(str(path)) as store:
        store.find("Sentence number 3 of them", "en", "de")


def test_nothing_goes_in_where_one_entry_cannot(memory: Memory) -> None:
    def entries() -> object:
        yield Entry("New", "Neu", "en", "de")
        raise InputError("line 2 is damaged")

    with pytest.raises(InputError):
        memory.add(entries())  # type: ignore[arg-type]
    assert list(memory.entries()) == [DOG]


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="⟦⟧\ufffe\uffff"),
    min_size=1,
    max_size=20,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, st.booleans()), min_size=1, max_size=4))
def test_tmx_says_what_went_in(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, bool]]) -> None:
    entries = [
        Entry(f"a{one}⟦1⟧z" if code else f"a{one}z", f"b⟦1⟧{two}z" if code else f"b{two}z", "en", "de")
        for one, two, code in rows
    ]
    path = tmp_path_factory.mktemp("tmx") / "m.tmx"
    path.write_text("".join(write_tmx(entries, version="1")), encoding="utf-8")
    read = [Entry(entry.source, entry.target, entry.source_lang, entry.target_lang) for entry in read_tmx(str(path))]
    assert read == entries


def test_tmx_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "m.tmx"
    path.write_text(
        '<?xml version="1.0"?><tmx version="1.4"><header srclang="en-US"/><body><tu><tuv xml:lang="EN-us"><seg>Press '
        '<bpt i="1">&lt;b></bpt><hi>OK</hi><ept i="1">&lt;/b></ept>.</seg></tuv><tuv xml:lang="de-DE"><seg><bpt i="1">x'
        '<sub>y</sub></bpt>OK<ept i="1"/> drücken.</seg></tuv><tuv xml:lang="xx-klingon"><seg>z</seg></tuv></tu></body></tmx>'
    )
    (entry,) = read_tmx(str(path))
    assert (entry.source, entry.target) == ("Press ⟦1⟧OK⟦2⟧.", "⟦1⟧OK⟦2⟧ drücken.")
    (back,) = read_tmx(str(path), source_lang="de")
    assert (back.source_lang, back.target_lang) == ("de", "en")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<tmx><body>", "cannot be read as TMX"),
        ("<html/>", "is no TMX"),
        ('<!DOCTYPE tmx [<!ENTITY a "b">]><tmx/>', "declares entities"),
    ],
)
def test_what_is_no_tmx_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "m.tmx").write_text(content)
    with pytest.raises(InputError, match=why):
        list(read_tmx(str(tmp_path / "m.tmx")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.tsv", 'A "dog"\tEin "Hund"\n\n# no\nTwo\tZwei\n'),
        ("m.tsv", 'id\ttarget\tsource\n1\tEin "Hund"\tA "dog"\n2\tZwei\tTwo\n'),
        ("m.csv", 'A "dog","Ein ""Hund"""\nTwo,Zwei\n'),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found = read_entries(str(tmp_path / name), source_lang="en", target_lang="de")
    assert [(entry.source, entry.target) for entry in found] == [('A "dog"', 'Ein "Hund"'), ("Two", "Zwei")]
    with pytest.raises(ConfigError, match="Name them"):
        next(read_entries(str(tmp_path / name)))


def test_a_table_comes_back(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("".join(write_entries([DOG])))
    (entry,) = read_entries(str(tmp_path / "m.tsv"), source_lang="en", target_lang="de")
    assert (entry.source, entry.target) == (DOG.source, DOG.target)


def test_a_review_file_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text(
        'file\tsource\ttranslation\tmachine\n#a.md\tOne\\ntwo\t"Er sagt ""zwei"""\tx\nb.md\tThree\t\tx\n'
    )
    read = list(read_entries(str(tmp_path / "r.tsv"), source_lang="en", target_lang="de"))
    assert [(entry.source, entry.target) for entry in read] == [("One\ntwo", 'Er sagt "zwei"'), ("Three", "")]


def test_a_language_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("source\ttarget\ttarget_lang\nA\tB\tde\nA\tB\tklingonisch\n")
    with pytest.raises(InputError, match=r"m\.tsv:3: There is no language"):
        list(read_entries(str(tmp_path / "m.tsv"), source_lang="en"))
    with pytest.raises(ConfigError, match="Name them"):
        next(read_entries(str(tmp_path / "m.tsv")))


def test_a_unit_of_nothing_but_codes_takes_little_memory(tmp_path: Path) -> None:
    codes = "".join(f'<ph x="{n}"/>' for n in range(60_000))
    (tmp_path / "m.tmx").write_text(
        '<tmx><header srclang="en"/><body><tu><tuv xml:lang="en"><seg>A'
        f'{codes}</seg></tuv><tuv xml:lang="de"><seg>B</seg></tuv></tu><tu><tuv xml:lang="en"><seg>C</seg></tuv>'
        '<tuv xml:lang="de"><seg>D</seg></tuv></tu></body></tmx>'
    )
    assert [entry.source for entry in read_tmx(str(tmp_path / "m.tmx"))] == ["C"]


def test_a_row_that_is_no_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("one\teins\ntwo\n")
    with pytest.raises(InputError, match=r"m\.tsv:2"):
        list(read_entries(str(tmp_path / "m.tsv"), source_lang="en", target_lang="de"))
