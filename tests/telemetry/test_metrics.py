"""The metrics: what the table says is what Prometheus reads, and no label can fill the memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stanchion.core.errors import UnknownNameError
from stanchion.telemetry.metrics import MAX_LABEL_VALUES, METRICS, OTHER, Kind, Metrics, table


def read(data: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(data.decode())
        for sample in family.samples
    }


def test_every_metric_of_the_table_can_be_used_and_read_back() -> None:
    metrics = Metrics()
    for one in METRICS:
        labels = tuple("x" for _ in one.labels)
        use = {Kind.COUNTER: metrics.add, Kind.GAUGE: metrics.set, Kind.HISTOGRAM: metrics.observe}[one.kind]
        use(one.name, 2.0, *labels)
    got = read(metrics.exposition())
    for one in METRICS:
        name = f"{one.name}_sum" if one.kind is Kind.HISTOGRAM else one.name
        assert got[name, tuple(sorted((label, "x") for label in one.labels))] == 2.0


def test_an_unknown_metric_is_an_error_that_names_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="stanchion_requests_total"):
        Metrics().add("stanchion_request_total")


def test_a_label_with_too_many_values_says_other() -> None:
    metrics = Metrics()
    for number in range(MAX_LABEL_VALUES + 50):
        metrics.add("stanchion_unknown_events_total", 1, f"kind{number}")
    got = read(metrics.exposition())
    values = {labels[0][1] for (name, labels), _ in got.items() if name == "stanchion_unknown_events_total"}
    assert len(values) == MAX_LABEL_VALUES + 1
    assert got["stanchion_unknown_events_total", (("kind", OTHER),)] == 50


def test_workers_of_one_host_are_added_up(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from stanchion.telemetry.metrics import Metrics, share_between_workers
        folder = Path(sys.argv[1])
        environ = {}
        share_between_workers(folder, environ)
        os.environ.update(environ)
        children = []
        for worker, amount in enumerate((2, 3)):
            pid = os.fork()
            if pid == 0:
                metrics = Metrics(folder, worker=worker)
                metrics.add("stanchion_unprotected_total", amount)
                metrics.set("stanchion_switch_version", 7.0 + amount)
                metrics.fold()
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        here = Metrics(folder, worker=2)
        here.set("stanchion_switch_version", 12.0)
        sys.stdout.buffer.write(here.exposition())
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "shared")],
        check=True,
        capture_output=True,
        env={**os.environ},
    ).stdout
    got = read(out)
    assert got["stanchion_unprotected_total", ()] == 5
    assert got["stanchion_switch_version", ()] == 9  # the oldest version that some worker still obeys


_VALUES = st.lists(st.one_of(st.floats(0, 100), st.sampled_from([0.001, 0.1, 60.0, 1e300])), max_size=40)


@given(st.lists(_VALUES, min_size=1, max_size=3))
def test_what_is_folded_is_what_the_library_would_have_counted(rounds: list[list[float]]) -> None:
    name = "stanchion_guard_seconds"
    metrics, peer = Metrics(), CollectorRegistry()
    theirs = Histogram(name, table()[name].help, ["surface"], buckets=table()[name].buckets, registry=peer)
    for values in rounds:
        for value in values:
            metrics.observe(name, value, "check")
            theirs.labels("check").observe(value)
        metrics.fold()
    ours = {key: v for key, v in read(metrics.exposition()).items() if key[0].startswith(name)}
    expected = {key: v for key, v in read(generate_latest(peer)).items() if not key[0].endswith("_created")}
    ours = {key: v for key, v in ours.items() if not key[0].endswith("_created")}
    assert ours == pytest.approx(expected) if any(rounds) else ours == {}


def test_reading_twice_counts_nothing_twice() -> None:
    metrics = Metrics()
    metrics.add("stanchion_findings_total", 2, "pii")
    metrics.observe("stanchion_guard_seconds", 0.2, "check")
    assert read(metrics.exposition()) == read(metrics.exposition())
    metrics.add("stanchion_findings_total", 3, "pii")
    assert read(metrics.exposition())["stanchion_findings_total", (("category", "pii"),)] == 5


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, one in table().items():
        assert name.startswith("stanchion_")
        assert name.endswith("_total") == (one.kind is Kind.COUNTER), name
        assert one.help.endswith(".")


def test_a_number_that_cannot_be_counted_spoils_no_other() -> None:
    metrics = Metrics()
    counter = next(one for one in METRICS if one.kind is Kind.COUNTER)
    histogram = next(one for one in METRICS if one.kind is Kind.HISTOGRAM)
    labels = {one.name: ["x"] * len(one.labels) for one in (counter, histogram)}
    for amount in (2.0, -1.0, math.nan, math.inf, 1.0):
        if 0 <= amount < math.inf:
            metrics.add(counter.name, amount, *labels[counter.name])
            metrics.observe(histogram.name, amount, *labels[histogram.name])
            continue
        with pytest.raises(ValueError, match="cannot grow"):
            metrics.add(counter.name, amount, *labels[counter.name])
        if not math.isfinite(amount):
            with pytest.raises(ValueError, match="cannot be"):
                metrics.observe(histogram.name, amount, *labels[histogram.name])
    got = read(metrics.exposition())
    for one, name in ((counter, counter.name), (histogram, f"{histogram.name}_sum")):
        assert got[name, tuple(sorted((label, "x") for label in one.labels))] == 3.0
