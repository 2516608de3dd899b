"""The only source of time and of identifiers; both are passed in, so that every record can be replayed."""

from __future__ import annotations

import os
import secrets
import threading
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
        value = (int(self._clock.now().timestamp() * 1000) << 80) | int.from_bytes(_noise.take(), "big")
        return f"{kind}_{_encode(value)}"


class _Noise:
    """Random bytes of the system, drawn many at a time: a system call for each id costs more than the id."""

    _EACH = 10
    _DRAWN = 200 * _EACH

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave what was drawn to the process that drew it."""
        self._lock = threading.Lock()
        self._drawn = b""
        self._next = 0

    def take(self) -> bytes:
        """Ten bytes that were never given before."""
        with self._lock:
            if self._next >= len(self._drawn):
                self._drawn, self._next = secrets.token_bytes(self._DRAWN), 0
            start = self._next
            self._next = start + self._EACH
            return self._drawn[start : start + self._EACH]


_noise = _Noise()
os.register_at_fork(after_in_child=_noise.forget)


class CountingIds:
    """`run_1`, `run_2`, ...: for tests and for output that must be the same every time."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def new(self, kind: str) -> str:
        """The next number of this kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}_{self._counts[kind]}"


_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def _encode(value: int) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])
