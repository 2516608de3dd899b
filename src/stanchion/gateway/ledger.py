"""Counts of windows and of requests in flight, all limits of a request at once: all hold, or none is touched.

A window is counted in two buckets, the current one and the one before it. What the older bucket holds counts
with the share of it that a window ending now still covers (the sliding-window counter); a whole window after
the last charge nothing counts, whatever share the buckets would still have, so that no wait is longer than
the window. No request can leave a gap: what is reserved is in the current bucket at once, and settling
corrects the bucket it was put in, as long as that bucket still counts. A reservation that nobody settles
leaves with its window.

Amounts are whole numbers: requests, tokens, millionths of a dollar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from stanchion.core.clock import Clock

OVERFLOW_KEY = "~"
_SWEEP_EVERY = 4096
CONCURRENCY_RETRY_S = 1.0


class Charge(msgspec.Struct, frozen=True):
    """One count that a request asks for; `window_s` 0 means requests in flight (`amount` is then 1)."""

    key: str
    most: int
    amount: int
    window_s: int = 0


class Refusal(msgspec.Struct, frozen=True):
    """The first charge that does not fit, and when it would if nobody else asked; None: never."""

    index: int
    retry_after_s: float | None


class Ledger(Protocol):
    """Where the counts are."""

    async def hold(
        self, charges: Sequence[Charge], *, hold_id: str, lease_s: float
    ) -> Refusal | tuple[int, ...]:
        """Take all charges or none; the buckets they went to, by charge.

        Raises:
            UnavailableError: when the counts cannot be reached.
        """
        ...

    async def settle(
        self, charges: Sequence[Charge], slots: Sequence[int], actual: Sequence[int], *, hold_id: str
    ) -> None:
        """Correct what was held to what was used, and end the request's own place in flight."""
        ...

    async def renew(self, keys: Sequence[tuple[str, str]], *, lease_s: float) -> None:
        """Keep (key, hold_id) pairs in flight for another lease."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class _Window:
    __slots__ = ("before", "charged_s", "current", "slot", "window_s")

    def __init__(self, slot: int, window_s: int) -> None:
        self.slot, self.before, self.current, self.window_s = slot, 0, 0, window_s
        self.charged_s = 0.0  # when the last charge came


def roll(slot: int, before: int, current: int, *, now_slot: int) -> tuple[int, int]:
    """Both buckets after time went on to `now_slot`."""
    if now_slot <= slot:
        return before, current
    return (current, 0) if now_slot == slot + 1 else (0, 0)


def retry_after(
    before: int, current: int, charge: Charge, *, elapsed_s: float, charged_ago_s: float
) -> float | None:
    """Seconds until the charge fits if nothing else comes; None when it is above the limit by itself."""
    room = charge.most - charge.amount
    if room < 0:
        return None
    window = float(charge.window_s)
    if current <= room:  # the older bucket has to fade: before * (1 - t / window) <= room - current
        fades_s = max(0.0, window * (1.0 - (room - current) / before) - elapsed_s) if before else 0.0
    else:
        fades_s = (window - elapsed_s) + max(0.0, window * (1.0 - room / current))
    return min(fades_s, max(0.0, window - charged_ago_s))


class MemoryLedger:
    """Counts of this process; no I/O, nothing awaited.

    At most `max_keys` windows are kept; further subjects then share one count, so that a flood of made-up
    ids can fill neither the memory nor a hole.
    """

    def __init__(self, clock: Clock, *, max_keys: int = 500_000) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._windows: dict[str, _Window] = {}
        self._flying: dict[str, dict[str, float]] = {}
        self._until_sweep = _SWEEP_EVERY

    def now_s(self) -> float:
        """Seconds of the wall clock, by which windows are cut."""
        return self._clock.now().timestamp()

    async def hold(
        self, charges: Sequence[Charge], *, hold_id: str, lease_s: float
    ) -> Refusal | tuple[int, ...]:
        """See `Ledger.hold`."""
        now = self.now_s()
        windows: list[_Window | None] = []
        for index, charge in enumerate(charges):
            if charge.window_s == 0:
                flying = self._flying.get(charge.key)
                if flying is not None and len(self._alive(flying, now)) >= charge.most:
                    return Refusal(index, CONCURRENCY_RETRY_S)
                windows.append(None)
                continue
            window = self._window(charge, now)
            elapsed = now - window.slot * charge.window_s
            weighted = window.before * (1.0 - elapsed / charge.window_s)
            if weighted + window.current + charge.amount > charge.most:
                ago = now - window.charged_s
                after = retry_after(
                    window.before, window.current, charge, elapsed_s=elapsed, charged_ago_s=ago
                )
                return Refusal(index, after)
            windows.append(window)
        for charge, held in zip(charges, windows, strict=True):
            if held is None:
                self._flying.setdefault(charge.key, {})[hold_id] = now + lease_s
            else:
                held.current += charge.amount
                if charge.amount:
                    held.charged_s = now
        return tuple(0 if held is None else held.slot for held in windows)

    async def settle(
        self, charges: Sequence[Charge], slots: Sequence[int], actual: Sequence[int], *, hold_id: str
    ) -> None:
        """See `Ledger.settle`."""
        now = self.now_s()
        for charge, slot, used in zip(charges, slots, actual, strict=True):
            if charge.window_s == 0:
                self._land(charge.key, hold_id)
                continue
            window = self._window(charge, now)
            difference = used - charge.amount
            if slot == window.slot:
                window.current = max(0, window.current + difference)
            elif slot == window.slot - 1:
                window.before = max(0, window.before + difference)

    async def renew(self, keys: Sequence[tuple[str, str]], *, lease_s: float) -> None:
        """See `Ledger.renew`."""
        until = self.now_s() + lease_s
        for key, hold_id in keys:
            self._flying.setdefault(key, {})[hold_id] = until

    async def close(self) -> None:
        """Nothing to let go of."""

    def used(self, key: str, window_s: int) -> float:
        """What counts now, for tests and status pages."""
        if window_s == 0:
            return len(self._alive(self._flying.get(key, {}), self.now_s()))
        window = self._windows.get(key)
        now = self.now_s()
        if window is None or now - window.charged_s >= window_s:
            return 0.0
        now_slot = int(now // window_s)
        before, current = roll(window.slot, window.before, window.current, now_slot=now_slot)
        return before * (1.0 - (now / window_s - now_slot)) + current

    def _window(self, charge: Charge, now: float) -> _Window:
        now_slot = int(now // charge.window_s)
        window = self._windows.get(charge.key)
        if window is None:
            window = self._new_window(charge, now_slot, now)
        if now_slot > window.slot:
            window.before, window.current = roll(
                window.slot, window.before, window.current, now_slot=now_slot
            )
            window.slot = now_slot
        if now - window.charged_s >= charge.window_s:
            window.before = window.current = 0
        return window

    def _new_window(self, charge: Charge, now_slot: int, now: float) -> _Window:
        self._until_sweep -= 1
        if self._until_sweep <= 0 or len(self._windows) >= self._max_keys:
            self._sweep(now)
        key = charge.key
        if len(self._windows) >= self._max_keys:
            key = f"{OVERFLOW_KEY}{key.partition('|')[0]}"
        found = self._windows.get(key)
        if found is None:
            found = self._windows[key] = _Window(now_slot, charge.window_s)
        return found

    def _sweep(self, now: float) -> None:
        """Forget windows that no longer count; paid for by the keys that were added since the last time."""
        live = {k: w for k, w in self._windows.items() if w.slot >= int(now // w.window_s) - 1}
        self._windows = live
        self._flying = {k: f for k, f in self._flying.items() if self._alive(f, now)}
        self._until_sweep = max(_SWEEP_EVERY, len(live))

    def _alive(self, flying: dict[str, float], now: float) -> dict[str, float]:
        """Drop places whose lease is over; the oldest come first unless they were renewed."""
        for hold_id in [one for one, until in flying.items() if until <= now]:
            del flying[hold_id]
        return flying

    def _land(self, key: str, hold_id: str) -> None:
        flying = self._flying.get(key)
        if flying is not None:
            flying.pop(hold_id, None)
            if not flying:
                del self._flying[key]
