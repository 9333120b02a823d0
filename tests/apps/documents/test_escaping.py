"""Whatever words a translation brings, each format writes them so that its own library reads these words again."""

from __future__ import annotations

import json
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


def _po(data: str) -> str:
    return polib.pofile(data)[0].msgstr


def _without_codes(text: str) -> str:
    """Return a text without what our reader takes for tags, shortcuts and arguments."""
    return "".join(char for char in text if char not in "<&_{")


def _again(name: str) -> Callable[[str], str]:
    def read(data: str) -> str:
        entry = find_format(name, data.encode(), columns=True)
        assert entry is not None
        segments = read_document(data.encode(), entry, OPTIONS).segments
        return segments[0].text if segments else ""

    return read


CASES: list[tuple[str, str, Callable[[str], str]]] = [
    ("a.json", json.dumps({"k": WORDS}), lambda data: json.loads(data)["k"]),
    ("a.json", '{"k": "Good \\u0064ay to you"}', lambda data: json.loads(data)["k"]),
    ("a.yml", f"k: {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: '{WORDS}'\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f'k: "{WORDS}"\nn: 1\n', lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: |-\n  {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.yml", f"k: >-\n  {WORDS}\nn: 1\n", lambda data: yaml.safe_load(data)["k"]),
    ("a.toml", f'k = "{WORDS}"\n', lambda data: tomllib.loads(data)["k"]),
    ("a.toml", f"k = '{WORDS}'\n", lambda data: tomllib.loads(data)["k"]),
    ("a.toml", f'k = """{WORDS}"""\n', lambda data: tomllib.loads(data)["k"]),
    ("a.po", f'msgid "{WORDS}"\nmsgstr ""\n', _po),
    ("a.properties", f"k={WORDS}\n", _again("a.properties")),
    ("a.properties", f"é=1\nk={WORDS}\n", _again("a.properties")),
    ("a.strings", f'"k" = "{WORDS}";\n', _again("a.strings")),
    ("a.php", f"<?php return ['k' => '{WORDS}'];\n", _again("a.php")),
    (
        "a.resx",
        f'<root><data name="k"><value>{WORDS}</value></data></root>',
        lambda data: ET.fromstring(data)[0][0].text or "",
    ),
    ("a.svg", f"<svg><text>{WORDS}</text></svg>", lambda data: ET.fromstring(data)[0].text or ""),
    ("a.csv", f"k,text\n1,{WORDS}\n", _again("a.csv")),
    ("a.csv", f'k,text\n1,"{WORDS}"\n', _again("a.csv")),
    ("a.ics", f"BEGIN:VCALENDAR\r\nSUMMARY:{WORDS}\r\nEND:VCALENDAR\r\n", _again("a.ics")),
]


@pytest.mark.parametrize(("name", "source", "read"), CASES, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)])
@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_any_words_are_read_again(name: str, source: str, read: Callable[[str], str], text: str) -> None:
    if name.endswith((".properties", ".strings", ".php", ".csv", ".ics")):
        text = _without_codes(text)
    got = read(written(name, source, text, columns=True))
    # Of our own reader nothing is got where the words are none for people.
    assert " ".join(got.split()) == " ".join(text.split()) or not got


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
