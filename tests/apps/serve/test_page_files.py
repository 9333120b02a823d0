"""What the page is made of: texts in every language, nothing from elsewhere, no HTML out of strings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from tiny_server import running, tiny_settings

from nlpkit.apps.serve.page import routes
from nlpkit.apps.tasks.writing import FORMS

STATIC = Path(routes.__file__).parent / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
LANGUAGES = ("en", "de", "fr", "es")


def texts() -> dict[str, dict[str, str]]:
    script = (STATIC / "texts.js").read_text(encoding="utf-8")
    table = re.search(r"const TEXTS = (\{.*?\n\});", script, re.DOTALL)
    assert table is not None
    return json.loads(table.group(1))


def used_names() -> set[str]:
    """Names of texts in the scripts; of a name that is put together, the beginning with a star."""
    found = set()
    for path in SCRIPTS:
        # What `dom.js` gives these names to are properties of elements.
        script = "" if path.name == "dom.js" else path.read_text(encoding="utf-8")
        found |= set(re.findall(r"\bt\(\"([\w]+)\"\)", script))
        found |= set(re.findall(r"\b(?:t|tLabel|tPlaceholder|hint|placeholder): \"([a-z]\w+)\"", script))
        found |= set(re.findall(r"(?<!\.)\b(?:field|meter|output|textPane|runner|add)\(\"(\w+)\"", script))
        found |= {f"{name}*" for name in re.findall(r"`(\w+_)\$\{", script)}
    return found


def test_all_languages_have_the_same_texts() -> None:
    table = texts()
    assert tuple(table) == LANGUAGES
    for code in LANGUAGES:
        assert table[code].keys() == table["en"].keys()
        assert all(value.strip() for value in table[code].values())


def test_every_text_that_is_used_is_there() -> None:
    names, used = set(texts()["en"]), used_names()
    assert len(used) > 60
    missing = [
        one for one in used if not (one in names or any(name.startswith(one[:-1]) for name in names if "*" in one))
    ]
    assert not missing


def test_no_text_is_left_over() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS if path.name != "texts.js")
    unused = [
        name
        for name in texts()["en"]
        if f'"{name}"' not in scripts and f"`{name.partition('_')[0]}_$" not in scripts and not name.endswith("Lead")
    ]
    assert not unused


def test_nothing_becomes_html_and_nothing_comes_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        content = path.read_text(encoding="utf-8")
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert forbidden not in content, (path.name, forbidden)
        addresses = set(re.findall(r"https?://[^\"'\s)]+", content))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name
        # Strict pages run no code and no styles that stand in them.
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=\"", content), path.name


def test_forms_are_those_of_the_task() -> None:
    listed = re.search(r"FORMS = (\[.*?\])", (STATIC / "write.js").read_text(encoding="utf-8"))
    assert listed is not None
    assert json.loads(listed.group(1)) == list(FORMS)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(tiny_settings()) as address:
        yield address


@pytest.mark.local_server
def test_the_page_is_served_with_a_strict_policy(address: str) -> None:
    answer = httpx.get(f"{address}/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in re.findall(r"/page/([\w.]+)", answer.text):
        assert httpx.get(f"{address}/page/{name}").status_code == 200
    for path in SCRIPTS:
        found = httpx.get(f"{address}/page/{path.name}")
        assert found.headers["content-type"].startswith("text/javascript")
        assert found.content == path.read_bytes()


@pytest.mark.local_server
def test_what_did_not_change_is_not_sent_again(address: str) -> None:
    first = httpx.get(f"{address}/page/app.js")
    again = httpx.get(f"{address}/page/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert not again.content


@pytest.mark.local_server
@pytest.mark.parametrize("name", ["other.js", "..%2froutes.py", "%2e%2e%2froutes.py", "static", "__init__.py"])
def test_nothing_else_is_served(address: str, name: str) -> None:
    assert httpx.get(f"{address}/page/{name}").status_code == 404
