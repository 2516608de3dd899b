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

    monotonic_ns = staticmethod(time.monotonic_ns)  # the machine's monotonic clock itself: no call of ours


def now_iso(clock: Clock) -> str:
    """The current time in UTC as `datetime.isoformat` writes it."""
    if type(clock) is not SystemClock:
        return clock.now().isoformat()
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    global _second
    second, said = _second
    if second != seconds:
        said = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
        _second = seconds, said
    return f"{said}.{microseconds:06d}+00:00" if microseconds else f"{said}+00:00"


# The second that was last written, without its end: the times within one share it.
_second: tuple[int, str] = (-1, "")


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
        self._is_system = type(clock) is SystemClock  # whose time is had for less as a number

    def new(self, kind: str) -> str:
        """A fresh identifier; unpredictable, so that a reference cannot be guessed."""
        if self._is_system:
            milliseconds = time.time_ns() // 1_000_000
        else:
            milliseconds = int(self._clock.now().timestamp() * 1000)
        global _moments
        spans, said = _moments
        if spans != milliseconds >> 5:
            spans = milliseconds >> 5
            said = "".join([_ALPHABET[(spans >> shift) & 31] for shift in range(40, -1, -5)])
            _moments = spans, said
        return f"{kind}_{said}{_ALPHABET[milliseconds & 31]}{_noise.take()}"


# The first nine characters of a time in spans of 32 ms: the ids of one span share them.
_moments: tuple[int, str] = (-1, "")


class _Noise:
    """Random characters, drawn from the system many at a time: a call for each id costs more than the id.

    A byte stands for its character 8 times out of 256, so each character is worth 5 random bits.
    """

    _EACH = 16
    _DRAWN = 256 * _EACH

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave what was drawn to the process that drew it."""
        self._lock = threading.Lock()
        self._drawn = ""
        self._next = 0

    def take(self) -> str:
        """Sixteen characters that were never given before."""
        with self._lock:
            start = self._next
            if start >= len(self._drawn):
                self._drawn, start = secrets.token_bytes(self._DRAWN).translate(_CHARACTERS).decode(), 0
            self._next = start + self._EACH
            return self._drawn[start : start + self._EACH]


_CHARACTERS = (_ALPHABET * 8).encode()
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
