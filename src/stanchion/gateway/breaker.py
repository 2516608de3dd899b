"""A circuit breaker for each provider, tool and guard service: stop asking what fails, and try again gently.

Closed: calls go through and are counted in a sliding window of ten parts. It opens when, with enough calls in
the window, the share of failures or of slow calls reaches its limit. Open: no calls for a while, twice as
long after each failed probe. Half open: a few probes at a time; enough good ones close it, one bad one opens
it. A probe that ends by the caller's own doing is neither: the next call is the probe. Source of the pattern:
M. Nygard, *Release It!* (2007), chapter 5.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
import pydantic

from stanchion.core.clock import Clock
from stanchion.core.errors import UsageError
from stanchion.files.schema import FieldError, FileModel

_PARTS = 10


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerRule(FileModel):
    """When a breaker opens, and how it closes again."""

    window_s: float = pydantic.Field(default=30.0, gt=0, le=3600, description="How far back calls count.")
    minimum_calls: int = pydantic.Field(default=10, ge=1, le=10**6, description="Fewer calls decide nothing.")
    error_share: float = pydantic.Field(
        default=0.5, gt=0, le=1, description="Share of failures that opens it."
    )
    slow_ms: float | None = pydantic.Field(
        default=None, gt=0, description="A call is slow above this; none: never."
    )
    slow_share: float = pydantic.Field(
        default=0.8, gt=0, le=1, description="Share of slow calls that opens it."
    )
    open_s: float = pydantic.Field(default=5.0, gt=0, le=3600, description="How long it stays open at first.")
    open_most_s: float = pydantic.Field(default=60.0, gt=0, le=86_400, description="How long at most.")
    probes: int = pydantic.Field(
        default=3, ge=1, le=1000, description="Good calls that close it, and calls at a time."
    )
    probe_s: float = pydantic.Field(
        default=60.0,
        gt=0,
        le=3600,
        description="A probe that nobody reports on counts as failed after so long.",
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> BreakerRule:
        if self.open_most_s < self.open_s:
            raise FieldError("open_most_s must not be below open_s.")
        return self


class BreakerSection(FileModel):
    """The section `breaker`: a rule for all, and rules by name (`openai`, `tool:search`, `guard:azure`)."""

    default: BreakerRule = BreakerRule()
    by_name: dict[str, BreakerRule] = pydantic.Field(default_factory=dict)


class BreakerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker for status pages: calls, failures and slow calls within the window."""

    name: str
    state: BreakerState
    calls: int
    failures: int
    slow: int
    opened: int


class _Circuit:
    __slots__ = ("deadlines", "good", "is_open", "opened", "opens", "parts", "rule", "totals", "until_s")

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule
        self.parts: list[list[int]] = []  # [number of the part, calls, failures, slow], oldest first
        self.totals = [0, 0, 0]  # calls, failures, slow ones of all parts
        self.is_open = False
        self.until_s = 0.0
        self.opens = 0  # in a row, without closing
        self.opened = 0
        self.good = 0
        self.deadlines: list[float] = []  # when each probe under way counts as lost


class SlidingBreaker:
    """All breakers of a process; see `ports.Breaker`. Synchronous, for one thread."""

    def __init__(
        self, section: BreakerSection | None = None, *, clock: Clock, most_names: int = 10_000
    ) -> None:
        self._section = section or BreakerSection()
        self._clock = clock
        self._most = most_names
        self._circuits: dict[str, _Circuit] = {}

    def allows(self, name: str) -> bool:
        """Whether a call may be tried now; takes one of the probes when half open."""
        circuit = self._circuits.get(name)
        if circuit is None or not circuit.is_open:
            return True
        now = self._now()
        if now < circuit.until_s:
            return False
        if circuit.deadlines and circuit.deadlines[0] <= now:  # a probe was lost: it counts as failed
            self._open(circuit)
            return False
        if len(circuit.deadlines) + circuit.good >= circuit.rule.probes:
            return False
        circuit.deadlines.append(now + circuit.rule.probe_s)
        return True

    def succeeded(self, name: str, *, latency_ms: float) -> None:
        """A call went well; a slow one is a failed probe, and counts towards the latency trip."""
        circuit = self._circuits.get(name) or self._circuit(name)
        is_slow = circuit.rule.slow_ms is not None and latency_ms > circuit.rule.slow_ms
        if circuit.is_open:
            self._probed(circuit, is_good=not is_slow)
        else:
            self._count(circuit, failures=0, slow=int(is_slow))

    def failed(self, name: str) -> None:
        """A call failed by the other side's fault."""
        circuit = self._circuit(name)
        if circuit.is_open:
            self._probed(circuit, is_good=False)
        else:
            self._count(circuit, failures=1, slow=0)

    def released(self, name: str) -> None:
        """A call ended without a word on the other side's health; a probe is given back for the next call."""
        circuit = self._circuits.get(name)
        if circuit is not None and circuit.is_open and circuit.deadlines and self._now() >= circuit.until_s:
            circuit.deadlines.pop()

    def state(self, name: str) -> str:
        """`closed`, `open` or `half_open`."""
        circuit = self._circuits.get(name)
        if circuit is None or not circuit.is_open:
            return BreakerState.CLOSED.value
        return (BreakerState.OPEN if self._now() < circuit.until_s else BreakerState.HALF_OPEN).value

    def retry_after_s(self, name: str) -> float:
        """Seconds until the next probe may be tried; 0 when calls go through."""
        circuit = self._circuits.get(name)
        return 0.0 if circuit is None or not circuit.is_open else max(0.0, circuit.until_s - self._now())

    def health(self) -> tuple[BreakerHealth, ...]:
        """Every breaker that has seen a call."""
        return tuple(self._health(name, circuit) for name, circuit in sorted(self._circuits.items()))

    def _health(self, name: str, circuit: _Circuit) -> BreakerHealth:
        self._forget(circuit)
        calls, failures, slow = circuit.totals
        return BreakerHealth(
            name=name,
            state=BreakerState(self.state(name)),
            calls=calls,
            failures=failures,
            slow=slow,
            opened=circuit.opened,
        )

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9

    def _circuit(self, name: str) -> _Circuit:
        circuit = self._circuits.get(name)
        if circuit is None:
            if len(self._circuits) >= self._most:
                raise UsageError(
                    f"more than {self._most:,} breakers; names must come from the configuration."
                )
            rule = self._section.by_name.get(name, self._section.default)
            circuit = self._circuits[name] = _Circuit(rule)
        return circuit

    def _count(self, circuit: _Circuit, *, failures: int, slow: int) -> None:
        rule = circuit.rule
        number = self._forget(circuit)
        if not circuit.parts or circuit.parts[-1][0] != number:
            circuit.parts.append([number, 0, 0, 0])
        last, (calls, failed, slowed) = circuit.parts[-1], circuit.totals
        last[1] += 1
        last[2] += failures
        last[3] += slow
        circuit.totals = [calls := calls + 1, failed := failed + failures, slowed := slowed + slow]
        if calls >= rule.minimum_calls and (
            failed >= rule.error_share * calls
            or (rule.slow_ms is not None and slowed >= rule.slow_share * calls)
        ):
            self._open(circuit)

    def _forget(self, circuit: _Circuit) -> int:
        """Let go of what is older than the window; the number of the part that is now."""
        number = int(self._clock.monotonic_ns() / 1e9 * _PARTS / circuit.rule.window_s)
        while circuit.parts and circuit.parts[0][0] <= number - _PARTS:
            _, calls, failures, slow = circuit.parts.pop(0)
            totals = circuit.totals
            circuit.totals = [totals[0] - calls, totals[1] - failures, totals[2] - slow]
        return number

    def _probed(self, circuit: _Circuit, *, is_good: bool) -> None:
        if self._now() < circuit.until_s:
            return  # a call from before it opened: it says nothing new
        if not circuit.deadlines:
            return  # likewise: no probe is under way
        circuit.deadlines.pop(0)
        if not is_good:
            self._open(circuit)
            return
        circuit.good += 1
        if circuit.good >= circuit.rule.probes:
            circuit.is_open, circuit.opens = False, 0
            circuit.parts, circuit.totals = [], [0, 0, 0]
            circuit.deadlines, circuit.good = [], 0

    def _open(self, circuit: _Circuit) -> None:
        rule = circuit.rule
        lasts = min(rule.open_s * 2 ** min(circuit.opens, 30), rule.open_most_s)
        circuit.is_open, circuit.until_s = True, self._now() + lasts
        circuit.opens += 1
        circuit.opened += 1
        circuit.parts, circuit.totals = [], [0, 0, 0]
        circuit.deadlines, circuit.good = [], 0


def make_breaker(section: BreakerSection | None, *, clock: Clock) -> SlidingBreaker:
    """The breakers of a section."""
    return SlidingBreaker(section, clock=clock)
