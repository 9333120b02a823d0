"""A sample of what ``tests/benchmarks/kill_commands.py`` does at many moments to many commands."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script

pytest.importorskip("resource")
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def driver() -> ModuleType:
    return load_script("kill_commands")


@pytest.fixture(scope="module")
def whole(driver: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, float, dict[str, bytes]]:
    """What an undisturbed run of a command writes, and how long it takes."""
    root = tmp_path_factory.mktemp("kill")
    driver.make_model(root)
    (root / "warm").mkdir()
    place = driver.Place(root, driver.CASES["-o"])
    code, text, seconds = place.run(place.case.arguments)
    assert code == 0, text
    made = place.made()
    assert made
    shutil.rmtree(root / "warm")
    shutil.copytree(place.cache, root / "warm")
    place.remove()
    return root, place.case, seconds, made


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL", "full disk"])
def test_nothing_is_torn_lost_or_left(
    name: str, driver: ModuleType, whole: tuple[Path, Any, float, dict[str, bytes]]
) -> None:
    tally = driver.disturb(whole[0], whole[1], name, random.Random(name), whole[2], whole[3])
    assert tally.wrong == []


def test_what_is_torn_or_left_is_seen(driver: ModuleType, whole: tuple[Path, Any, float, dict[str, bytes]]) -> None:
    root, case, _, made = whole
    place = driver.Place(root, dataclasses.replace(case))
    (place.folder / "made.txt").write_bytes(made[""][:-3])
    (place.folder / ".made.txt.nlpkit-00000000-1-00000000.part").write_text("left")
    try:
        assert driver.check_whole(place, made) is not None
        assert driver.asides(place.folder) == [".made.txt.nlpkit-00000000-1-00000000.part"]
    finally:
        place.remove()
