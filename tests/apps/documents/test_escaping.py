"""Whatever words a translation brings, each format writes them so that its own library reads these words again."""

from __future__ import annotations

import html
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import polib
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpkit.apps.documents.document import ReadOptions, Translated
from nlpkit.apps.documents.registry import find_format, read_document, write_document
from nlpkit.apps.documents.source_text import SourceText

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTIONS = ReadOptions(name="it", target_lang="de", columns=("text",))
WORDS = "Good day to you"
TEXT = st.text("abC ,.;:!?'\"\\&<>{}[]()#%=|$@*-_/~`^+äßé€中", min_size=1, max_size=40).map(
    lambda text: ("x " + text).strip()
)


def written(name: str, source: str, text: str, *, columns: bool = False) -> str:
    """Return a file with its one segment replaced."""
    entry = find_format(name, source.encode(), columns=columns)
    assert entry is not None
    document = read_document(source.encode(), entry, OPTIONS)
    results = [Translated(parts=(text,)) if segment.text.strip() == WORDS else None for segment in document.segments]
    assert any(results)
    return write_document(document, results, entry, OPTIONS).decode()


def again(name: str, source: str) -> str:
    """Return a file whose segments are written with the text and codes that were read."""
    entry = find_format(name, source.encode(), columns=True)
    assert entry is not None
    document = read_document(source.encode(), entry, OPTIONS)
    assert document.segments
    results = [Translated(parts=segment.parts) for segment in document.segments]
    return write_document(document, results, entry, OPTIONS).decode()


def _po(data: str) -> str:
    return polib.pofile(data)[0].msgstr


def _front(data: str) -> str:
    front, separator, _ = data.removeprefix("---\n").partition("\n---\n")
    assert separator
    return str(yaml.safe_load(front)["title"])


def _vtt(data: str) -> str:
    head, _, text = data.partition(" --> 00:03.000\n")
    assert (head, text[-2:]) == ("WEBVTT\n\n00:01.000", "\n\n")
    assert "-->" not in text
    return html.unescape(re.sub(r"<[^<>]*>", "", text))


def _without_codes(text: str) -> str:
    """Return a text without what our reader takes for tags, shortcuts and arguments."""
    return "".join(char for char in text if char not in "<&_{")


class Own:
    """Reads a file with our own reader, which finds nothing where the words are none for people."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, data: str) -> str:
        entry = find_format(self.name, data.encode(), columns=True)
        assert entry is not None
        segments = read_document(data.encode(), entry, OPTIONS).segments
        return segments[0].text if segments else ""


CASES: list[tuple[str, str, Callable[[str], str]]] = [
    ("a.json", json.dumps({"k": WORDS}), lambda data: json.loads(data)["k"]),
    ("a.json", '{"k": "Good \\u0064ay to you"}', lambda data: json.loads(data)["k"]),
    ("a.yml", f"k: {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: '{WORDS}'\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f'k: "{WORDS}"\nn: 1\n', lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: |-\n  {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: >-\n  {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.toml", f'k = "{WORDS}"\n', lambda data: tomllib.loads(data)["k"]),
    ("a.yml", f"k: [{WORDS}, b]\nn: 1\n", lambda data: yaml.safe_load(data)["k"][0]),
    ("a.yml", f"k: {{a: {WORDS}, b: c}}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]["a"]),
    ("a.yml", 'k: "Good \\u0064ay to you"\nn: 1\n', lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"a:\n  k: |2\n    {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["a"]["k"]),
    ("a.yml", f"k: >+\n  {WORDS}\n\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.md", f"---\ntitle: {WORDS}\n---\n", _front),
    ("a.md", f"---\nn: 1\ntitle: '{WORDS}'\n---\nx\n", _front),
    ("a.md", f'---\ntitle: "{WORDS}" # note\n---\n', _front),
    ("a.md", f"---\ntitle: >-\n  {WORDS}\nn: 1\n---\n", _front),
    ("a.toml", f"k = '{WORDS}'\n", lambda data: tomllib.loads(data)["k"]),
    ("a.toml", f'k = """{WORDS}"""\n', lambda data: tomllib.loads(data)["k"]),
    ("a.toml", f"k = '''{WORDS}'''\n", lambda data: tomllib.loads(data)["k"]),
    ("a.toml", f'k = """\n  {WORDS}\n"""\n', lambda data: tomllib.loads(data)["k"]),
    ("a.vtt", f"WEBVTT\n\n00:01.000 --> 00:03.000\n{WORDS}\n\n", _vtt),
    ("a.po", f'msgid "{WORDS}"\nmsgstr ""\n', _po),
    ("a.properties", f"k={WORDS}\n", Own("a.properties")),
    ("a.properties", f"é=1\nk={WORDS}\n", Own("a.properties")),
    ("a.strings", f'"k" = "{WORDS}";\n', Own("a.strings")),
    ("a.php", f"<?php return ['k' => '{WORDS}'];\n", Own("a.php")),
    (
        "a.resx",
        f'<root><data name="k"><value>{WORDS}</value></data></root>',
        lambda data: ET.fromstring(data)[0][0].text or "",
    ),
    ("a.svg", f"<svg><text>{WORDS}</text></svg>", lambda data: ET.fromstring(data)[0].text or ""),
    ("a.csv", f"k,text\n1,{WORDS}\n", Own("a.csv")),
    ("a.csv", f'k,text\n1,"{WORDS}"\n', Own("a.csv")),
    ("a.ics", f"BEGIN:VCALENDAR\r\nSUMMARY:{WORDS}\r\nEND:VCALENDAR\r\n", Own("a.ics")),
]


@pytest.mark.parametrize(("name", "source", "read"), CASES, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)])
@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_any_words_are_read_again(name: str, source: str, read: Callable[[str], str], text: str) -> None:
    if name.endswith((".properties", ".strings", ".php", ".csv", ".ics")):
        text = _without_codes(text)
    got = read(written(name, source, text, columns=True))
    assert " ".join(got.split()) == " ".join(text.split()) or (isinstance(read, Own) and not got)


_ANDROID = '<resources><string name="k">{}</string></resources>\n'

SAME = [
    ("a.yml", 'k: "Caf\\u00e9 \\U0001f600 is open"\n'),
    ("a.yml", "k: >\n  One line\n\n\n  and two  more\n\n  in it\n\nn: 1\n"),
    ("a.yml", "k: |+\n  One line  \n    and two\n\n\nn: 1\n"),
    ("a.yml", "k: [One line, two lines]\nm: {a: Three lines, b: 'It''s it'}\n"),
    ("a.toml", 'k = """Use C:\\\\new\nand C:\\\\old"""\n'),
    ("a.toml", 'k = """\r\nOne \\"line\\"\r\nand two"""\n'),
    ("a.md", "---\ntitle: 'It''s a garden'\nsubtitle: \"A \\\\ and \\\" in it\"\ndescription: A garden\n---\n"),
    ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello there\n2\n00:00:03,000 --> 00:00:04,000\nAnd bye\n"),
    ("a.tex", "One line \\\\% a secret note\nand two \\% of it \\& a_b, 5 \\textbackslash{} x & y\n"),
    ("a.xml", _ANDROID.format('"Say \\"hi\\" and  it\'s all"')),
    ("a.xml", _ANDROID.format('Say \\"hi\\" and it\\\'s all\\\\')),
    ("a.xml", _ANDROID.format('<![CDATA[Say \\"hi\\" & it\\\'s\\nall]]>')),
    ("a.ini", '[a]\nk = "say \\"hi\\" to \\n all"\nl = "say "hi" to all"\n'),
    (
        "a.php",
        "<?php return ['k' => \"One \\x41 \\u{41} \\101 \\$x $y[0] {$z->a} \\\"q\\\" for $5\\n\", 'l' => 'it\\'s \\\\ so'];\n",
    ),
    ("a.properties", "k='{0}' is it''s {1} 'so' on\n=A value\n"),
    ("a.adoc", "|===\n|One \\| two `a \\| b` |Three\n|===\n"),
    ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nYou &amp; me &lt; you&nbsp;all\n"),
]


@pytest.mark.parametrize(("name", "source"), SAME)
def test_words_that_stay_the_same_are_escaped_as_they_were(name: str, source: str) -> None:
    assert again(name, source) == source


@pytest.mark.parametrize(
    "source",
    [
        "k: |2\n    Good day\n   to you\nn: 1\n",
        "k: |\n\n  Good day\n  to you\nn: 1\n",
        "k: >\n  Good day\n    to you\n  all\nn: 1\n",
        "k:\n  - |-\n\n   Good day\n  - x y\n",
    ],
)
def test_blocks_that_begin_with_blanks_keep_their_value(source: str) -> None:
    assert yaml.safe_load(again("a.yml", source)) == yaml.safe_load(source)


@pytest.mark.parametrize(
    "text", ["0xFF", "0o17", "1_000", "1:30", ".inf", "2024-01-01", "2024-01-01 10:00:00", "=", "<<", "~"]
)
def test_what_yaml_reads_as_another_type_is_quoted(text: str) -> None:
    assert yaml.safe_load(written("a.yml", f"k: {WORDS}\n", text)) == {"k": text}
    assert yaml.safe_load(written("a.yml", f"k: [{WORDS}]\n", text)) == {"k": [text]}


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\tb", "a\nb", "a\x07b", "a\ufeffb", "a\u202fb", "\U0001f600"])
@pytest.mark.parametrize("source", ["k: {}", "k: '{}'", 'k: "{}"', "k: |-\n  {}\n", "k: >-\n  {}\n", 'k: "\\x20{}"'])
def test_characters_that_yaml_does_not_take_are_escaped(source: str, text: str) -> None:
    assert yaml.safe_load(written("a.yml", source.format(WORDS), text))["k"] == text


def test_a_cue_does_not_end_early() -> None:
    two = "1\n00:00:01,000 --> 00:00:02,000\n{}\n2\n00:00:03,000 --> 00:00:04,000\nBye\n"
    assert written("a.srt", two.format(WORDS), "\nOne\n\n  \ntwo\n") == two.format("One\ntwo")
    entry = find_format("a.srt")
    assert entry is not None
    found = read_document(two.format("Hi").encode(), entry, OPTIONS).segments
    assert [segment.text for segment in found] == ["Hi", "Bye"]


def test_the_end_of_cdata_is_escaped() -> None:
    assert ET.fromstring(written("a.svg", f"<svg><text>{WORDS}</text></svg>", "x ]]> y"))[0].text == "x ]]> y"


@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_html_is_read_again(text: str) -> None:
    data = written("a.html", f"<p>{WORDS}</p>", text)
    from html.parser import HTMLParser

    class Words(HTMLParser):
        said = ""

        def handle_data(self, data: str) -> None:
            self.said += data

    parser = Words(convert_charrefs=True)
    parser.feed(data)
    parser.close()
    assert parser.said == text


@pytest.mark.parametrize("text", ["x % & _ # $ { } \\ y", "{\\}", "\\% a"])
def test_latex_escapes_each_sign_once(text: str) -> None:
    data = written("a.tex", f"{WORDS}\n", text).rstrip("\n")
    assert re.sub(r"\\textbackslash\{\}|\\([%&_#${}])", lambda match: match.group(1) or "\\", data) == text


def test_characters_beyond_the_first_plane_may_be_two_escapes() -> None:
    for name, source in (
        ("a.xml", _ANDROID.format(r"Good \ud83d\ude00 day")),
        ("a.strings", r'"k" = "Good \ud83d\ude00 day";'),
        ("a.properties", r"k=Good \ud83d\ude00 day"),
    ):
        entry = find_format(name, source.encode())
        assert entry is not None
        assert read_document(source.encode(), entry, OPTIONS).segments[0].text == "Good \U0001f600 day"
        again(name, source).encode()


def test_what_stands_in_cdata_is_escaped_as_android_reads_it() -> None:
    entry = find_format("a.xml", _ANDROID.encode())
    assert entry is not None
    data = _ANDROID.format("<![CDATA[It\\'s & so\\nall]]>").encode()
    document = read_document(data, entry, OPTIONS)
    assert [segment.text for segment in document.segments] == ["It's & so\nall"]
    first, _, last = document.segments[0].parts
    done = write_document(document, [Translated(parts=(first, 'C\'est "&"', last))], entry, OPTIONS).decode()
    assert ET.fromstring(done)[0].text == 'C\\\'est \\"&\\"'


def test_variables_of_php_are_no_words() -> None:
    data = written("a.php", f"<?php return ['k' => \"{WORDS}\"];\n", "x $y {$z} ${a} $5 \\")
    assert data == "<?php return ['k' => \"x \\$y {\\$z} \\${a} $5 \\\\\"];\n"


def test_properties_in_latin_1_escape_what_that_does_not_have() -> None:
    source = f"a=caf\u00e9\nk={WORDS}\n".encode("latin-1")
    entry = find_format("a.properties", source)
    assert entry is not None
    document = read_document(source, entry, OPTIONS)
    done = write_document(document, [None, Translated(parts=("Zo\u0142\u0105 \u00e9",))], entry, OPTIONS)
    assert done == "a=caf\u00e9\nk=Zo\\u0142\\u0105 \u00e9\n".encode("latin-1")


def test_texts_within_texts_of_a_drawing_are_one() -> None:
    source = "<svg><text>See <a><title>More here</title>this page</a> now</text><g><title>A sign</title></g></svg>"
    assert again("a.svg", source) == source
    with pytest.raises(ValueError, match="begins in one that ends at 5"):
        SourceText("one two three").replaced([(0, 5, "x"), (4, 6, "y")])
