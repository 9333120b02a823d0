"""LibreTranslate's interface, asked by its own client and by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from tiny_server import running, tiny_lm, tiny_models, tiny_settings

from nlpkit.apps.serve.libretranslate import files
from nlpkit.apps.serve.libretranslate.languages import learned_pairs, list_languages
from nlpkit.apps.serve.models import ServedModels
from nlpkit.apps.serve.settings import ServeSettings
from nlpkit.apps.toolkit import Toolkit

libretranslatepy = pytest.importorskip("libretranslatepy")
pytestmark = pytest.mark.local_server
TEXT = "Good morning."


def lm() -> object:
    return tiny_lm("tiny", max_seq_len=512)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    settings = tiny_settings(max_body_bytes=100_000)
    with running(settings, tiny_models(settings, lambda name: lm())) as address:
        yield address


@pytest.fixture(scope="module")
def expected() -> str:
    (result,) = Toolkit(lm()).run("translate", [{"source": TEXT, "source_lang": "en", "target_lang": "de"}])
    return result.text


def test_its_own_client_works(address: str, expected: str) -> None:
    client = libretranslatepy.LibreTranslateAPI(address)
    assert client.translate(TEXT, "en", "de") == expected
    (found,) = client.detect("Der Hund und die Katze sind nicht in dem Garten.")
    assert found["language"] == "de"
    assert 50 < found["confidence"] <= 100
    german = next(one for one in client.languages() if one["code"] == "de")
    assert german["name"] == "German"
    assert "en" in german["targets"]


def test_languages_may_be_asked_for_with_a_form(address: str) -> None:
    answer = httpx.post(f"{address}/languages", data={"api_key": "any"})
    assert answer.status_code == 200
    assert answer.json() == httpx.get(f"{address}/languages").json()


def test_fields_may_stand_in_the_address(address: str, expected: str) -> None:
    fields = {"q": TEXT, "source": "en", "target": "de", "format": "text", "api_key": "any"}
    assert httpx.post(f"{address}/translate", params=fields, timeout=60).json() == {"translatedText": expected}


def test_json_and_forms_say_the_same(address: str, expected: str) -> None:
    body = {"q": TEXT, "source": "en", "target": "de"}
    forms = [
        httpx.post(f"{address}/translate", json=body, timeout=60),
        httpx.post(f"{address}/translate", data=body, timeout=60),
        httpx.post(f"{address}/translate", files={name: (None, value) for name, value in body.items()}, timeout=60),
    ]
    assert [one.json() for one in forms] == [{"translatedText": expected}] * 3


def test_lists_come_back_as_lists(address: str, expected: str) -> None:
    body = {"q": [TEXT, "", TEXT], "source": "auto", "target": "de", "alternatives": 2, "format": "html"}
    answer = httpx.post(f"{address}/translate", json=body, timeout=60).json()
    assert len(answer["translatedText"]) == len(answer["detectedLanguage"]) == len(answer["alternatives"]) == 3
    assert answer["translatedText"][1] == ""
    assert answer["alternatives"][1] == []
    assert len(answer["alternatives"][0]) == 2
    assert set(answer["detectedLanguage"][0]) == {"confidence", "language"}


def test_one_text_of_unknown_language(address: str) -> None:
    text = "Der Hund und die Katze sind nicht in dem Garten."
    answer = httpx.post(f"{address}/translate", json={"q": text, "source": "auto", "target": "en"}, timeout=60).json()
    assert answer["detectedLanguage"]["language"] == "de"
    assert isinstance(answer["translatedText"], str)


def test_what_is_in_the_language_already_stays(address: str) -> None:
    answer = httpx.post(f"{address}/translate", json={"q": " a\n", "source": "de", "target": "de"})
    assert answer.json() == {"translatedText": " a\n"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"source": "en", "target": "de"}, "missing q"),
        ({"q": "x", "target": "de"}, "missing source"),
        ({"q": "x", "source": "en"}, "missing target"),
        ({"q": "x", "source": "en", "target": "klingon"}, "klingon is not supported"),
        ({"q": "x", "source": "en", "target": "de", "format": "pdf"}, "format"),
        ({"q": "x", "source": "en", "target": "de", "alternatives": -1}, "alternatives"),
        ({"q": "x", "source": "en", "target": "de", "alternatives": 1000}, "alternatives"),
        ({"q": [], "source": "en", "target": "de"}, "q must be"),
        ({"q": [3], "source": "en", "target": "de"}, "q must be"),
        ({"q": ["x"] * 1000, "source": "en", "target": "de"}, "at most"),
        ([], "JSON object"),
    ],
)
def test_errors_have_its_form(address: str, body: object, said: str) -> None:
    answer = httpx.post(f"{address}/translate", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"q": "\ud800", "source": "en", "target": "de"},
        {"q": "x", "source": "en", "target": "\ud800"},
        {"q": "x", "source": "en", "target": "de", "\ud800": 1},
        {"q": float("nan"), "source": "en", "target": "de"},
    ],
)
def test_halves_of_characters_are_refused(address: str, body: object) -> None:
    for path in ("/translate", "/detect"):
        # Written out by hand: the client refuses such itself.
        answer = httpx.post(f"{address}{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert (answer.status_code, set(answer.json())) == (400, {"error"})


@pytest.mark.parametrize("charset", ["utf-7", "punycode", "idna", "hex", "none"])
def test_forms_cannot_name_charsets_that_make_no_text(address: str, charset: str) -> None:
    parts = [("q", "+2AA-"), ("source", "en"), ("target", "+2AA-")]
    lines = [f'--a\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts]
    kind = f"multipart/form-data; boundary=a; charset={charset}"
    answer = httpx.post(
        f"{address}/translate", content="".join([*lines, "--a--\r\n"]).encode(), headers={"Content-Type": kind}
    )
    assert (answer.status_code, set(answer.json())) == (400, {"error"})


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"--a\r\nnonsense"),
        ("application/x-www-form-urlencoded", b"a=1&" * 5000),
        ("application/json", b"[" * 90_000),
    ],
)
def test_what_is_no_form_is_refused(address: str, kind: str, data: bytes) -> None:
    answer = httpx.post(f"{address}/translate", content=data, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_files_go_up_and_down(address: str, expected: str, tmp_path: object) -> None:
    upload = {"file": ("../my notes.TXT", TEXT.encode()), "source": (None, "en"), "target": (None, "de")}
    url = httpx.post(f"{address}/translate_file", files=upload, timeout=60).json()["translatedFileUrl"]
    assert url.startswith(f"{address}/download_file/")
    answer = httpx.get(url)
    assert answer.text == expected
    assert answer.headers["content-disposition"] == 'attachment; filename="my_notes_de.txt"'
    assert httpx.get(f"{address}/download_file/other.txt").status_code == 404


@pytest.mark.parametrize(
    ("name", "shown"), [("brief.m\u0430rt", "brief_de.mrt"), ('x.a"b', "x_de.a"), ("a." + "x" * 500, "a_de.")]
)
def test_no_name_of_a_file_breaks_the_answer(address: str, name: str, shown: str) -> None:
    upload = {"file": (name, b"<!DOCTYPE html><p>Hi</p>"), "source": (None, "de"), "target": (None, "de")}
    url = httpx.post(f"{address}/translate_file", files=upload, timeout=60).json()["translatedFileUrl"]
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{shown}')
    assert len(answer.headers["content-disposition"]) < 100


def test_documents_keep_their_form(address: str) -> None:
    page = b"<!DOCTYPE html>\n<html><body>\n<p class='a'>Good morning.</p>\n<pre>x = 1</pre>\n</body></html>\n"
    upload = {"file": ("page.html", page), "source": (None, "en"), "target": (None, "de")}
    url = httpx.post(f"{address}/translate_file", files=upload, timeout=60).json()["translatedFileUrl"]
    answer = httpx.get(url)
    assert answer.headers["content-type"].startswith("text/html")
    begin, end = page.split(b"Good morning.")
    assert answer.content.startswith(begin)
    assert answer.content.endswith(end)
    assert {".html", ".docx", ".md", ".srt"} <= set(
        httpx.get(f"{address}/frontend/settings").json()["supportedFilesFormat"]
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (("package.json", b"{}"), "must not be translated"),
        (("a.docx", b"PK"), "a.docx"),
        (("a.pdf", b"%PDF-1.4"), "a.pdf"),
        (("a.exe", b"MZ"), ".exe"),
        (("noend", b"x"), "without an end"),
        (("a.txt", b"\0\1\2\xff"), "a.txt"),
        (None, "missing file"),
    ],
)
def test_other_files_are_refused(address: str, file: tuple[str, bytes] | None, said: str) -> None:
    upload = {"source": (None, "en"), "target": (None, "de"), **({} if file is None else {"file": file})}
    answer = httpx.post(f"{address}/translate_file", files=upload)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_few_files_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "KEPT_BYTES", 10)
    kept = files.KeptFiles()
    first, second = (kept.keep("a.txt", "de", b"x" * 8, "text/plain") for _ in range(2))
    assert kept.take(second).data == b"x" * 8
    with pytest.raises(files.ApiError):
        kept.take(first)
    monkeypatch.setattr(files.time, "monotonic", lambda: 1e12)
    with pytest.raises(files.ApiError):
        kept.take(second)


def test_settings_tell_what_a_page_needs(address: str) -> None:
    settings = httpx.get(f"{address}/frontend/settings").json()
    assert settings["keyRequired"] is False
    assert ".txt" in settings["supportedFilesFormat"]
    assert settings["language"]["source"]["code"] == "auto"


def test_keys_come_as_a_field() -> None:
    with running(tiny_settings(api_keys=frozenset({hashlib.sha256(b"secret").digest()}))) as address:
        body = {"q": "x", "source": "de", "target": "de"}
        assert httpx.post(f"{address}/translate", json=body).status_code == 403
        assert httpx.post(f"{address}/translate", json={**body, "api_key": "wrong"}).json() == {
            "error": "Invalid API key"
        }
        assert httpx.post(f"{address}/translate", json={**body, "api_key": "secret"}).status_code == 200
        assert httpx.post(f"{address}/translate", json=body, headers={"Authorization": "Bearer secret"}).is_success
        assert httpx.post(f"{address}/detect", data={"q": "x"}).status_code == 403
        assert httpx.post(f"{address}/detect", content=b'{"q": "x", "api_key": "\\ud800"}').status_code == 400
        assert httpx.get(f"{address}/languages").status_code == 200
        assert httpx.get(f"{address}/frontend/settings").json()["keyRequired"] is True


def test_languages_are_those_that_were_learned() -> None:
    models = ServedModels(ServeSettings())
    try:
        listed = {one["code"]: one["targets"] for one in list_languages(learned_pairs(models))}
    finally:
        models.close()
    assert {"de", "en", "fr"} <= set(listed)
    assert "zu" not in listed
    # Not learned together: through English.
    assert "fr" in listed["de"]
