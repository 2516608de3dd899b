"""The metrics of the product: one table of names, units and labels, shown in Prometheus's format.

Every metric is named here and nowhere else; the dashboards are checked against this table. Labels hold ids
and words of fixed lists, never text of a request; a label that gets too many values says `other` from then
on, so that no caller can fill the memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from stanchion.core.errors import UnknownNameError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

T = TypeVar("T")

MAX_LABEL_VALUES = 200
OTHER = "other"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Kind(StrEnum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. Gauges say how several workers add up: `livesum`, `livemin` or `livemax`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    of_workers: str = "livesum"


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str, of_workers: str = "livesum") -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, help=help, labels=labels, of_workers=of_workers)


def _seconds(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, help=help, labels=labels, buckets=_SECONDS)


METRICS: tuple[Metric, ...] = (
    _counter("stanchion_requests_total", "Requests, by how they ended.", "surface", "outcome", "stream"),
    _seconds("stanchion_request_seconds", "Time from a request to its answer's end.", "surface", "stream"),
    _seconds("stanchion_first_byte_seconds", "Time to the first byte of a streamed answer.", "surface"),
    _seconds("stanchion_guard_seconds", "Time that the guard took of a request.", "surface"),
    _seconds("stanchion_upstream_seconds", "Time that a try at a provider took.", "provider"),
    _counter("stanchion_upstream_tries_total", "Tries at a provider, by result.", "provider", "status"),
    _gauge("stanchion_in_flight_requests", "Requests in progress."),
    _counter("stanchion_decisions_total", "Decisions of the guard.", "surface", "effect", "mode"),
    _counter("stanchion_findings_total", "Findings, by category.", "category"),
    _counter("stanchion_checks_total", "Checks of the manifest, by what became of them.", "status"),
    _counter("stanchion_fail_open_total", "Failed checks that the policy lets pass.", "surface"),
    _counter("stanchion_deadline_total", "Checks that ran out of time.", "surface"),
    _counter("stanchion_input_texts_total", "Texts of requests: `seen` before, or `new`.", "memory"),
    _counter("stanchion_unprotected_total", "Requests that no policy looked at."),
    _counter("stanchion_ungated_total", "Requests whose component set is not on the list.", "feature"),
    _counter("stanchion_unserved_total", "Requests for what is not served, by what was wrong.", "reason"),
    _counter("stanchion_unknown_events_total", "Events of an upstream that no rule understands.", "kind"),
    _counter("stanchion_switched_off_total", "Requests that a switch stopped.", "switch"),
    _gauge("stanchion_switch_version", "Version of the switches that are obeyed.", of_workers="livemin"),
    _gauge("stanchion_switch_age_seconds", "Time since switches were last confirmed.", of_workers="livemax"),
    _gauge("stanchion_switches_engaged", "Switches that are engaged.", of_workers="livemax"),
    _gauge("stanchion_breaker_open", "1 while a breaker is open, 0.5 half.", "name", of_workers="livemax"),
    _gauge("stanchion_queue_depth", "What waits in this process: records to be written.", "queue"),
    _gauge("stanchion_approvals_pending", "Tickets that wait for a person.", of_workers="livemax"),
    _counter("stanchion_records_lost_total", "Audit records that could not be kept."),
    _counter("stanchion_tokens_total", "Tokens, as providers told them.", "model", "direction"),
    _counter("stanchion_cost_usd_total", "Cost by configured prices, in US dollars.", "model"),
    _counter("stanchion_observer_errors_total", "Errors of telemetry that were swallowed."),
    _counter("stanchion_upkeep_failures_total", "Turns beside requests that failed, by part.", "part"),
)  # fmt: skip


class Count:
    """What was counted of one set of labels since the last `fold`."""

    __slots__ = ("amount", "child", "name")

    def __init__(self, name: str, child: Any) -> None:
        self.name = name
        self.child = child
        self.amount = 0.0

    def add(self, amount: float) -> None:
        """Count more.

        Raises:
            ValueError: for less than nothing, or what is no finite number; nothing is counted then.
        """
        if not 0.0 <= amount < inf:
            raise ValueError(f"{self.name} cannot grow by {amount}")
        self.amount += amount

    def fold(self) -> None:
        """Give it to the library."""
        if self.amount:
            amount, self.amount = self.amount, 0.0
            self.child.inc(amount)


class Measure:
    """What was measured of one set of labels since the last `fold`: how many in each bucket, and the sum."""

    __slots__ = ("bounds", "child", "counts", "name", "total")

    def __init__(self, name: str, child: Any, bounds: Sequence[float]) -> None:
        self.name = name
        self.child = child
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more measured value.

        Raises:
            ValueError: for what is no finite number; nothing is counted then.
        """
        if not -inf < value < inf:
            raise ValueError(f"{self.name} cannot be {value}")
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def fold(self) -> None:
        """Give it to the library."""
        if not any(self.counts):
            return
        for index, count in enumerate(self.counts):
            if count:
                self.child._buckets[index].inc(count)  # the library has no public way to add many at once
                self.counts[index] = 0
        self.child._sum.inc(self.total)
        self.total = 0.0


class Metrics:
    """Counts, in the process or, with a folder, across the workers of a host.

    What is added and observed is kept as plain numbers until `fold` gives it to the library, whose lock for
    each number costs more than the number; reading folds first. One thread counts and reads. A worker that is
    killed takes with it what it counted since its last `fold`.

    Args:
        folder: where workers share their counts. It must have been given to the library before its first
            import (see `share_between_workers`).
        worker: the worker's number there. One that takes a dead one's place goes on with its counts, so that
            there are never more files than workers.
    """

    def __init__(self, folder: Path | None = None, *, worker: int = 0) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

        if folder is not None:
            values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
        self._folder = folder
        self._totals: dict[tuple[str, ...], float] = {}
        self._registry = CollectorRegistry()
        self._made: dict[str, Any] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}
        self._gauges: dict[tuple[str, ...], Any] = {}
        self._counts: dict[tuple[str, ...], Count] = {}
        self._measures: dict[tuple[str, ...], Measure] = {}
        for one in METRICS:
            if one.kind is Kind.COUNTER:
                made: Any = Counter(one.name, one.help, one.labels, registry=self._registry)
            elif one.kind is Kind.GAUGE:
                mode: Any = one.of_workers
                made = Gauge(one.name, one.help, one.labels, registry=self._registry, multiprocess_mode=mode)
            else:
                made = Histogram(one.name, one.help, one.labels, registry=self._registry, buckets=one.buckets)
            self._made[one.name] = made
            self._labels[one.name] = one.labels

    def add(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Count more of something.

        Raises:
            ValueError: for less than nothing, or what is no finite number; nothing is counted then.
        """
        self.count(name, *labels).add(amount)

    def count(self, name: str, *labels: str) -> Count:
        """What counts for these labels, for whoever counts often."""
        count = self._counts.get((name, *labels))
        if count is None:
            count = self._found(self._counts, name, labels, lambda child: Count(name, child))
        return count

    def set(self, name: str, value: float, *labels: str) -> None:
        """Say how much there is now."""
        self._found(self._gauges, name, labels, lambda child: child).set(value)

    def total(self, name: str, value: float, *labels: str) -> None:
        """Say how much of something another part has counted since the process began."""
        key = (name, *labels)
        more = value - self._totals.get(key, 0.0)
        self._totals[key] = value
        if more > 0 or key not in self._counts:
            self.add(name, max(more, 0.0), *labels)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """One more measured value.

        Raises:
            ValueError: for what is no finite number; nothing is counted then.
        """
        self.measure(name, *labels).observe(value)

    def measure(self, name: str, *labels: str) -> Measure:
        """What measures for these labels, for whoever measures often."""
        measure = self._measures.get((name, *labels))
        if measure is None:
            bounds = _TABLE[name].buckets if name in _TABLE else ()
            measure = self._found(self._measures, name, labels, lambda child: Measure(name, child, bounds))
        return measure

    def fold(self) -> None:
        """Give what was counted to the library, where other workers see it."""
        for count in self._counts.values():
            count.fold()
        for measure in self._measures.values():
            measure.fold()

    def exposition(self) -> bytes:
        """Everything in Prometheus's text format."""
        from prometheus_client import generate_latest

        self.fold()
        return generate_latest(self._whole())

    def _whole(self) -> CollectorRegistry:
        if self._folder is None:
            return self._registry
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=str(self._folder))  # type: ignore[no-untyped-call]
        return merged

    def _found(
        self, kept: dict[tuple[str, ...], T], name: str, labels: Sequence[str], make: Callable[[Any], T]
    ) -> T:
        """What counts for these labels; where a label has too many values, that of `other`."""
        made = self._made.get(name)
        if made is None:
            raise UnknownNameError("metric", name, self._made)
        values = zip(self._labels[name], labels, strict=True)
        bounded = tuple([self._bounded(name, label, value) for label, value in values])
        key = (name, *bounded)
        one = kept.get(key)
        if one is None:
            one = kept[key] = make(made.labels(*bounded) if bounded else made)
        return one

    def _bounded(self, name: str, label: str, value: str) -> str:
        seen = self._seen.setdefault((name, label), set())
        if value in seen:
            return value
        if len(seen) >= MAX_LABEL_VALUES:
            return OTHER
        seen.add(value)
        return value


def share_between_workers(folder: Path, environ: dict[str, str]) -> None:
    """Make the library keep its counts in files of this folder; call before the workers start.

    `environ` is the environment that the workers will get.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()
    environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def forget_worker(folder: Path, worker: int) -> None:
    """Leave out what a worker that is gone said of the present; what it counted stays."""
    for old in folder.glob(f"gauge_live*_{worker}.db"):
        old.unlink(missing_ok=True)


_TABLE = {one.name: one for one in METRICS}


def table() -> Mapping[str, Metric]:
    """The metrics by name."""
    return _TABLE
