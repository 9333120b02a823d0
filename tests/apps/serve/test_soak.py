"""Hundreds of requests, of which a third hang up: nothing is left over, and nothing fails but what should."""

from __future__ import annotations

import asyncio
import time

import pytest
from soaking import soak
from tiny_server import running, tiny_models, tiny_settings


@pytest.mark.local_server
def test_nothing_is_left_of_many_requests(caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny_settings()
    models = tiny_models(settings)
    with running(settings, models) as address:
        ended = asyncio.run(soak(address, "tiny", count=250))
        assert sum(ended.values()) == 250
        assert ended["hung up"] > 25
        wrong = {how for how in ended if ": " in how and not how.endswith(" 200") and not how.startswith("wrong")}
        assert wrong == set()
        assert {how for how in ended if how.startswith("wrong")} <= {"wrong: 400", "wrong: 404"}
        for _ in range(500):
            (loaded,) = models.loaded.values()
            if not loaded.users and not loaded.engine.busy and not loaded.engine.reader.busy:
                break
            time.sleep(0.01)
        assert (loaded.users, loaded.engine.n_slots, loaded.engine.n_waiting) == (0, 0, 0)
        assert not loaded.engine.reader.busy
    # Hanging up is no bug.
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
