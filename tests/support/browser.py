"""A real browser without a window, driven by selenium; it reaches 127.0.0.1 alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
AXE = "NLPKIT_AXE"
"""Names the file ``axe.min.js`` of the npm package axe-core; unset, npm fetches it into the test's folder."""


def find_browser() -> tuple[str, str] | None:
    """Return the paths of a browser and its driver; None where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextlib.contextmanager
def open_browser(*, language: str = "en") -> Iterator[Any]:
    """Open a browser for as long as the block runs."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found = find_browser()
    if found is None:
        raise RuntimeError("there is no browser")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for one in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--no-first-run", f"--lang={language}"),
        # Whatever name is asked for, nothing but this machine is found.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(one)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def axe_script(folder: Path) -> str | None:
    """Return the script of axe-core; None where there is none and npm cannot fetch it.

    Args:
        folder: Where to put it.
    """
    named = os.environ.get(AXE)
    if named:
        return Path(named).read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None or os.environ.get("NLPKIT_TEST_OFFLINE"):
        return None
    done = subprocess.run([npm, "pack", "--silent", "axe-core@4"], cwd=folder, capture_output=True, timeout=60)
    archive = next(folder.glob("axe-core-*.tgz"), None)
    if done.returncode or archive is None:
        return None
    with tarfile.open(archive) as found, found.extractfile("package/axe.min.js") as script:  # type: ignore[union-attr]
        return script.read().decode()
