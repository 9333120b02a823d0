"""The page in a real browser, on a server whose tasks answer by a script."""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import axe_script, find_browser, open_browser
from scripted_tasks import EVIL, ScriptedModels
from tiny_server import running, tiny_settings

pytestmark = [
    pytest.mark.local_server,
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium with its driver"),
    pytest.mark.skipif(importlib.util.find_spec("selenium") is None, reason="selenium is not installed"),
]
VIEWS = ("translate", "summarize", "ask", "write", "classify", "playground")
DOCUMENT = "🐝 Bees fly. Karl von Frisch described it. In autumn the drones leave. The queen lays 2,000 eggs."
AXE_OPTIONS = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"


@pytest.fixture(scope="module")
def models() -> ScriptedModels:
    return ScriptedModels()


@pytest.fixture(scope="module")
def address(models: ScriptedModels) -> Iterator[str]:
    with running(models.settings, models) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, address: str) -> Page:
    return Page(browser, address)


class Page:
    """The page, as its user sees it: without what was kept before."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        self.resize(1280, 900)
        browser.get(f"{address}/page/icon.svg")
        self.script("localStorage.clear(); sessionStorage.clear()")
        self.open(f"{address}/")

    def open(self, url: str) -> None:
        self.browser.get(url)
        self.wait(lambda: self.all("h1"))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def all(self, selector: str) -> list[Any]:
        """Elements that can be seen."""
        seen = "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility())"
        return list(self.script(seen, selector))

    def one(self, selector: str) -> Any:
        found = self.all(selector)
        assert found, selector
        return found[0]

    def button(self, text: str) -> Any:
        seen = "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility())"
        found = f"return {seen}.find((one) => one.textContent === arguments[0])"
        return self.script(found, text)

    def wait(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, self.one("body").text
            time.sleep(0.02)
        return found

    def view(self, name: str) -> None:
        self.script("location.hash = arguments[0]", name)
        self.wait(lambda: self.all(f"#view-{name} h1"))

    def put(self, *texts: str) -> None:
        """Write into the text fields of the view, one after the other."""
        for box, text in zip(self.all("main textarea, main input[type=text]"), texts, strict=False):
            self.script("arguments[0].value = arguments[1]", box, text)

    def run(self) -> None:
        self.one("main button.main").click()
        self.wait(lambda: not self.all(".busy"))

    def wait_for_models(self) -> None:
        self.wait(lambda: self.script("return document.querySelectorAll('#view-playground option').length"))

    def use(self, name: str) -> None:
        """Go to a view and let it show a result."""
        self.view(name)
        if name == "ask":
            self.put(DOCUMENT, "Who described it?")
        elif name == "write":
            self.put("the sea", "gull, five")
        elif name == "classify":
            self.put(DOCUMENT, "bees, weather")
        else:
            self.put(DOCUMENT)
        if name == "playground":
            self.wait_for_models()
            self.script("arguments[0].value = 6", self.one("input[type=number]"))
        self.run()
        assert not self.all(".error")

    @property
    def output(self) -> str:
        return str(self.one(".output .result").text)


def test_no_view_is_an_obstacle(page: Page, tmp_path: Path) -> None:
    script = axe_script(tmp_path)
    if script is None:
        pytest.skip("there is no axe-core: name its axe.min.js in NLPKIT_AXE, or install npm")
    page.script(script)
    for name in VIEWS:
        page.use(name)
        if name == "translate":
            page.button("Show alternatives").click()
            page.wait(lambda: page.all(".choice"))
        if name == "playground":
            page.script("arguments[0].focus()", page.wait(lambda: page.all(".token"))[0])
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            found = page.browser.execute_async_script(
                f"const done = arguments[0]; axe.run(document, {AXE_OPTIONS}).then((found) => done(found.violations.map("
                "(one) => [one.impact, one.id, one.nodes.map((node) => node.html)])))"
            )
            assert not found, (name, scheme)
    page.prefer("light")
    assert page.browser.get_log("browser") == []


def test_a_translation_is_shown_with_its_confidence_and_alternatives(page: Page) -> None:
    page.use("translate")
    assert page.one(".result .text").text == f"Guten Morgen. {EVIL}"
    assert "Confidence 62 %" in page.output
    assert "Detected: English" in page.output
    assert "Numbers differ: 3" in page.output
    page.button("Show alternatives").click()
    choices = page.wait(lambda: page.all(".choice"))
    assert [one.get_attribute("aria-pressed") for one in choices] == ["true", "false"]
    choices[1].click()
    assert page.one(".result .text").text == "Einen guten Morgen."
    # What models and users write stays text.
    assert not page.all("img")
    assert page.browser.title == "Translate · nlpkit"


def test_sentences_of_a_summary_lead_to_their_sources(page: Page) -> None:
    page.use("summarize")
    first, second = page.all(".traced")
    page.script("arguments[0].focus()", first)
    assert page.one(".lit").text == "In autumn the drones leave."
    page.wait(lambda: page.script("return document.getElementById('live').textContent").startswith("Source: In autumn"))
    page.script("arguments[0].focus()", second)
    assert page.one(".lit").text == "The queen lays 2,000 eggs."
    page.button("Edit the text").click()
    assert page.one("textarea").get_attribute("value") == DOCUMENT


def test_a_label_is_shown_with_how_likely_each_is(page: Page) -> None:
    page.use("classify")
    assert page.one(".result .text").text == "bees"
    assert "bees 75 %" in page.output
    assert "weather 25 %" in page.output
    # Bars that are compared begin in one line, and less likely is not worse.
    bars = page.all(".shares meter")
    assert len({bar.rect["x"] for bar in bars}) == 1
    assert not [bar for bar in bars if bar.get_attribute("optimum") == "1"]
    page.put(DOCUMENT, "")
    page.run()
    assert page.one(".result .text").text == "positive"


def test_an_answer_is_shown_in_its_place_and_its_source_named(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "bees.txt"
    path.write_text(DOCUMENT, encoding="utf-8")
    page.view("ask")
    page.browser.find_element("css selector", "#view-ask input[type=file]").send_keys(str(path))
    page.wait(lambda: page.one("textarea").get_attribute("value") == DOCUMENT)
    page.script("arguments[0].value = 'Who?'", page.one("input[type=text]"))
    page.run()
    assert page.one("mark").text == "Karl von Frisch"
    assert "Source: bees.txt" in page.output
    page.button("Edit the text").click()
    page.put("Nothing of the kind.")
    page.run()
    assert "does not answer" in page.output
    assert not page.all("mark")


def test_files_that_are_no_text_are_refused(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(b"\xff\xd8\xff\x00")
    page.browser.find_element("css selector", "#view-translate input[type=file]").send_keys(str(path))
    assert "cannot be read" in page.wait(lambda: page.all(".error"))[0].text


def test_forms_are_checked(page: Page) -> None:
    page.view("write")
    page.script("arguments[0].value = 'haiku'", page.one("main select"))
    page.put("the sea", "gull, five")
    page.run()
    assert page.one(".verse").text == "one two three four five"
    facts = {row.text.partition("\n")[0]: row.text.partition("\n")[2] for row in page.all(".facts div")}
    assert facts["Keeps to the form"] == "No"
    assert facts["Uses all words"] == "No gull"
    assert facts["Seed"] == "7"


def test_tokens_show_how_likely_they_were(page: Page) -> None:
    page.use("playground")
    tokens = page.all(".token")
    assert 1 <= len(tokens) <= 6
    assert all(one.get_attribute("title").endswith("%") for one in tokens)
    assert len([one for one in tokens if one.get_attribute("tabindex") == "0"]) == 1
    page.script("arguments[0].focus()", tokens[0])
    assert 2 <= len(page.all(".details tr")) <= 6
    tokens[0].send_keys("\ue014")
    assert page.script("return document.activeElement === arguments[0]", tokens[1])


def test_work_can_be_stopped(page: Page, models: ScriptedModels) -> None:
    page.view("write")
    page.put("slow")
    page.one("main button.main").click()
    page.wait(lambda: "word word" in page.output)
    assert page.one("main button.main").text == "Stop"
    models.stopped.clear()
    page.one("main button.main").click()
    page.wait(lambda: not page.all(".busy"))
    assert page.one("main button.main").text == "Write"
    # The server's part of it ends as well.
    assert models.stopped.wait(10)


def test_more_of_a_translation_and_whole_files_can_be_stopped(
    page: Page, models: ScriptedModels, tmp_path: Path
) -> None:
    page.view("translate")
    page.put("later")
    page.run()
    page.button("Show alternatives").click()
    models.stopped.clear()
    page.wait(lambda: page.button("Stop")).click()
    assert models.stopped.wait(10)
    assert page.wait(lambda: page.button("Show alternatives"))
    path = tmp_path / "page.html"
    path.write_text("<!DOCTYPE html><p>slow</p>")
    models.stopped.clear()
    page.script("return document.querySelector('#view-translate input[type=file]')").send_keys(str(path))
    page.wait(lambda: page.button("Stop")).click()
    assert models.stopped.wait(10)
    page.wait(lambda: not page.button("Stop"))
    assert not page.all("[role=alert]")


def test_swapping_takes_nothing_away_that_was_written(page: Page) -> None:
    page.use("translate")
    page.put("something else")
    page.one(".swap").click()
    assert page.one("textarea").get_attribute("value") == "something else"
    page.run()
    page.one(".swap").click()
    assert page.one("textarea").get_attribute("value") == f"Guten Morgen. {EVIL}"


def test_errors_are_said_in_plain_words(page: Page) -> None:
    page.view("translate")
    page.run()
    assert page.one("[role=alert]").text == "There is no text yet."
    page.put("fail")
    page.run()
    assert page.one("[role=alert]").text == "This text cannot be used."
    page.browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page.put("text")
        page.run()
        assert "cannot be reached" in page.one("[role=alert]").text
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
        page.browser.get_log("browser")


def test_history_is_kept_in_the_browser_until_it_is_cleared(page: Page, address: str) -> None:
    page.use("ask")
    page.open(f"{address}/")
    page.button("History").click()
    (entry,) = page.wait(lambda: page.all(".entry"))
    assert "Who described it?" in entry.text
    entry.click()
    page.wait(lambda: page.all("#view-ask h1"))
    assert page.one("#view-ask textarea").get_attribute("value") == DOCUMENT
    page.button("History").click()
    page.wait(lambda: page.all(".entry"))
    page.button("Clear history").click()
    assert not page.all(".entry")
    assert page.script("return localStorage.getItem('nlpkit.history')") is None


def test_the_page_speaks_four_languages(page: Page, address: str) -> None:
    titles = {"de": "Übersetzen", "fr": "Traduire", "es": "Traducir", "en": "Translate"}
    page.use("translate")
    for code, title in titles.items():
        picker = page.one("select[aria-label]")
        page.script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", picker, code)
        assert page.one("h1").text == title
        assert page.script("return document.documentElement.lang") == code
        page.browser.refresh()
        assert page.wait(lambda: page.all("h1"))[0].text == title
        # All that stands at the top fits into one line.
        assert page.one(".settings").rect["y"] < page.one("nav").rect["y"] + 30, code


def test_dark_and_light(page: Page) -> None:
    def ground() -> int:
        shade = page.script("return getComputedStyle(document.documentElement).backgroundColor")
        return int(shade.removeprefix("rgb(").partition(",")[0])

    page.prefer("dark")
    assert ground() < 60
    picker = page.all("header select")[1]
    for value, dark in (("light", False), ("dark", True), ("auto", True)):
        page.script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", picker, value)
        assert (ground() < 60) is dark
    page.prefer("light")
    assert ground() > 200


def test_small_screens_need_no_scrolling_sideways(page: Page) -> None:
    page.resize(360, 640)
    for name in VIEWS:
        page.use(name)
        assert page.script("return document.documentElement.scrollWidth") <= 360, name
        if name == "translate":
            page.button("Show alternatives").click()
            card, *choices = [page.one(".output"), *page.wait(lambda: page.all(".choice"))]
            right = card.rect["x"] + card.rect["width"]
            assert all(one.rect["x"] - card.rect["x"] == right - one.rect["x"] - one.rect["width"] for one in choices)
        small = [
            one.text
            for one in page.all("button, select, main input")
            if one.size["height"] < 24 and one.get_attribute("type") != "checkbox"
        ]
        assert not small, name


def test_keys_do_everything(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        chain = ActionChains(page.browser)
        for key in keys[:-1]:
            chain.key_down(key)
        chain.send_keys(keys[-1])
        for key in keys[:-1]:
            chain.key_up(key)
        chain.perform()

    def focused() -> Any:
        return page.script("return document.activeElement")

    press(Keys.TAB)
    assert focused().text == "Skip to the content"
    seen = []
    for _ in range(20):
        press(Keys.TAB)
        seen.append(focused())
        outline = page.script("return getComputedStyle(arguments[0]).outlineStyle", focused())
        assert outline == "solid", focused().text
        if focused().tag_name == "textarea":
            break
    assert focused().tag_name == "textarea"
    assert {one.text for one in seen} >= {"Translate", "Ask", "History"}
    press("Good morning.")
    press(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: "Confidence" in page.output)


def test_a_key_is_asked_for_and_kept_for_the_session(browser: Any) -> None:
    settings = tiny_settings(api_keys=frozenset({hashlib.sha256(b"secret").digest()}))
    models = ScriptedModels(settings)
    with running(settings, models) as address:
        page = Page(browser, address)
        page.put("text")
        page.one("main button.main").click()
        for key in ("wrong", "secret"):
            page.wait(lambda: page.all("dialog input"))[0].send_keys(key)
            page.button("Use this key").click()
            page.wait(lambda: page.all("dialog .error") or not page.all("dialog"))
        page.wait(lambda: "Confidence" in page.output)
        page.open(f"{address}/#playground")
        page.wait_for_models()
        assert not page.all("dialog")
        assert page.script("return Object.values(localStorage).join().includes('secret')") is False
    browser.get_log("browser")
