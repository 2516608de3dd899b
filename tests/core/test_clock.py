"""Times as records say them are what `datetime` writes."""

from datetime import UTC, datetime, timedelta

import pytest

from stanchion.core import clock
from stanchion.core.clock import ManualClock, SystemClock, now_iso

FIRST = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("microseconds", [0, 1, 999_999, 1_000_000, 1_000_001, 2 * 86_400_000_000])
def test_the_time_is_written_as_datetime_writes_it(
    monkeypatch: pytest.MonkeyPatch, microseconds: int
) -> None:
    at = FIRST + timedelta(microseconds=microseconds)
    nanoseconds = (int(FIRST.timestamp()) * 1_000_000 + microseconds) * 1000 + 999
    monkeypatch.setattr(clock.time, "time_ns", lambda: nanoseconds)
    assert now_iso(SystemClock()) == at.isoformat()
    assert now_iso(SystemClock()) == at.isoformat()


def test_another_clock_is_asked_itself() -> None:
    manual = ManualClock(FIRST)
    assert now_iso(manual) == FIRST.isoformat()
    manual.advance(0.5)
    assert now_iso(manual) == (FIRST + timedelta(seconds=0.5)).isoformat()


def test_the_time_is_the_machines() -> None:
    before = datetime.now(UTC)
    said = datetime.fromisoformat(now_iso(SystemClock()))
    assert before - timedelta(microseconds=1) <= said <= datetime.now(UTC)
