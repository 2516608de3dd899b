"""What the parts of a gateway say of themselves, as metrics: switches, breakers, queues, what was lost.

Counts of requests come with their records (`observed`); these are asked for when the metrics are read, and
every second besides, because with several workers any of them may be the one that answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from stanchion.core.clock import Clock
from stanchion.core.errors import StanchionError
from stanchion.gateway.app import Gateway
from stanchion.gateway.approvals import ApprovalQueue
from stanchion.gateway.breaker import BreakerState, SlidingBreaker
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_reader import ControlReader
from stanchion.gateway.live import Live
from stanchion.gateway.record import Recorder
from stanchion.gateway.switches import SwitchBoard
from stanchion.guard.seen_texts import SeenTexts
from stanchion.store.times import to_us
from stanchion.telemetry.metrics import Metrics

_EVERY_S = 1.0
_APPROVALS_EVERY_S = 5.0
_OPEN = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauged:
    """What is asked. `live` and the counts are functions, so that a reload is followed."""

    live: Callable[[], Live]
    reader: ControlReader
    board: SwitchBoard
    recorder: Recorder
    in_flight: Callable[[], int]
    swallowed: Callable[[], int]
    unserved: Callable[[], dict[str, int]]
    clock: Clock


class Gauges:
    """Sets the gauges of one process; call it with the metrics, or let it `run`.

    `upkeep_failures` is where whoever gives the parts their turns counts by part.
    """

    def __init__(self, asked: Gauged) -> None:
        self._asked = asked
        self.upkeep_failures: dict[str, int] = {}
        self._began_us = to_us(asked.clock.now())
        self._next_approvals_s = 0.0

    def __call__(self, metrics: Metrics) -> None:
        """Set everything that memory knows; no I/O."""
        asked = self._asked
        self._set_switches(metrics)
        breaker = asked.live().parts.breaker
        if isinstance(breaker, SlidingBreaker):
            for each in breaker.health():
                metrics.set("stanchion_breaker_open", _OPEN[each.state], each.name)
        metrics.set("stanchion_in_flight_requests", asked.in_flight())
        seen = {id(one): one for one in _seen_texts(asked.live())}.values()
        metrics.total("stanchion_input_texts_total", sum(one.seen for one in seen), "seen")
        metrics.total("stanchion_input_texts_total", sum(one.new for one in seen), "new")
        records = asked.recorder.health()
        metrics.set("stanchion_queue_depth", records.waiting, "records")
        metrics.total("stanchion_records_lost_total", records.lost)
        metrics.total("stanchion_observer_errors_total", asked.swallowed())
        for reason, count in asked.unserved().items():
            metrics.total("stanchion_unserved_total", count, reason)
        for part, count in self.upkeep_failures.items():
            metrics.total("stanchion_upkeep_failures_total", count, part)

    async def run(self, metrics: Metrics) -> None:
        """Set them again and again until cancelled, and let the other workers see what was counted.

        A turn that fails is counted as a failure of upkeep (`metrics`), and the next one comes.
        """
        try:
            while True:
                try:
                    self(metrics)
                    metrics.fold()
                    await self._count_approvals(metrics)
                except Exception:  # an edge: metrics must not stay dark for one bad number
                    self.upkeep_failures["metrics"] = self.upkeep_failures.get("metrics", 0) + 1
                await asyncio.sleep(_EVERY_S)
        finally:
            metrics.fold()

    def _set_switches(self, metrics: Metrics) -> None:
        asked = self._asked
        heard_us = asked.reader.standing(ControlKind.SWITCHES).heard_at_us or self._began_us
        age_s = max(0.0, (to_us(asked.clock.now()) - heard_us) / 1e6)
        metrics.set("stanchion_switch_version", asked.board.version)
        metrics.set("stanchion_switch_age_seconds", age_s)
        metrics.set("stanchion_switches_engaged", asked.board.engaged)

    async def _count_approvals(self, metrics: Metrics) -> None:
        """The tickets that wait stand in the database; it is asked seldom, and off the loop."""
        queue = self._asked.live().parts.approvals
        now_s = self._asked.clock.monotonic_ns() / 1e9
        if not isinstance(queue, ApprovalQueue) or now_s < self._next_approvals_s:
            return
        self._next_approvals_s = now_s + _APPROVALS_EVERY_S
        try:
            metrics.set("stanchion_approvals_pending", await asyncio.to_thread(queue.pending))
        except StanchionError:
            metrics.add("stanchion_upkeep_failures_total", 1, "approvals_gauge")


def _seen_texts(live: Live) -> list[SeenTexts]:
    """What the guards of all features remember."""
    return [feature.guard.seen_texts for feature in (*live.features.values(), *live.variants.values())]


def make_gauges(
    gateway: Gateway, recorder: Recorder, reader: ControlReader, board: SwitchBoard, *, clock: Clock
) -> Gauges:
    """What the parts of a gateway's process say of themselves."""
    return Gauges(
        Gauged(
            live=lambda: gateway.live,
            reader=reader,
            board=board,
            recorder=recorder,
            in_flight=lambda: gateway.in_flight,
            swallowed=lambda: gateway.swallowed_errors,
            unserved=lambda: gateway.unserved,
            clock=clock,
        )
    )
