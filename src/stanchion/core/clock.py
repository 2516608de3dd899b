"""The only source of time and of identifiers; both are passed in, so that every record can be replayed."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case


class Clock(Protocol):
    """Wall time for records, monotonic time for durations and deadlines."""

    def now(self) -> datetime:
        """The current time, timezone-aware, in UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes back."""
        ...


class Ids(Protocol):
    """Makes identifiers that sort by the time they were made."""

    def new(self, kind: str) -> str:
        """A fresh identifier such as `run_01jd9q...`; `kind` is a short lower-case noun."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        """The machine's monotonic clock."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that moves only when told to; for tests, drills and replays."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic_ns = 0

    def now(self) -> datetime:
        """The time it was last moved to."""
        return self._now

    def monotonic_ns(self) -> int:
        """Nanoseconds it was moved since it was made."""
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Move both clocks forward; a negative step is refused."""
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds} s")
        self._now += timedelta(seconds=seconds)
        self._monotonic_ns += round(seconds * 1e9)


class SortableIds:
    """48 bits of milliseconds and 80 random bits, in base 32 (the ULID layout, lower case)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def new(self, kind: str) -> str:
        """A fresh identifier; unpredictable, so that a reference cannot be guessed."""
        value = (int(self._clock.now().timestamp() * 1000) << 80) | secrets.randbits(80)
        return f"{kind}_{_encode(value)}"


class CountingIds:
    """`run_1`, `run_2`, ...: for tests and for output that must be the same every time."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def new(self, kind: str) -> str:
        """The next number of this kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"


def _encode(value: int) -> str:
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
