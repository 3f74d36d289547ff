"""How long a computation takes, said once."""

from __future__ import annotations

import logging

import pytest

from sdaxr.inference.remaining import telling


def test_the_seconds_to_go_are_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The first evaluation takes a minute, in which much is set up; the others take a second each."""
    clock, ticked = [0.0], []
    monkeypatch.setattr("sdaxr.inference.remaining.time.monotonic", lambda: clock[0])
    tick = telling(ticked.append, 80, what="forecast")
    with caplog.at_level(logging.INFO, "sdaxr"):
        for number in range(40):
            clock[0] += 60.0 if number == 0 else 2.0
            tick(2)
    assert ticked == [2] * 40
    assert [record.getMessage() for record in caplog.records] == [
        "forecast: 6 of 80 evaluations are done, about 74 s to go"
    ]


def test_nothing_is_said_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sdaxr"):
        for _ in range(2):
            tick = telling(lambda _: None, 2, what="forecast")
            tick(1)
            tick(1)
    assert not caplog.records
