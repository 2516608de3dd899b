"""`traceparent`: what follows the recommendation is read back, everything else is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.telemetry.trace_context import new_trace, parse

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_example_of_the_recommendation_is_read() -> None:
    found = parse(GOOD, "rojo=00f067aa0ba902b7")
    assert found is not None
    assert (found.trace_id, found.span_id, found.is_sampled) == (GOOD[3:35], GOOD[36:52], True)
    assert found.traceparent == GOOD
    assert found.state == "rojo=00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "ff" + GOOD[2:],
        "00-" + "0" * 32 + GOOD[35:],
        GOOD[:36] + "0" * 16 + "-01",
        GOOD.upper(),
        GOOD + "-extra",
        GOOD[:-1],
        "00-é" + GOOD[4:],
    ],
)
def test_what_does_not_follow_it_is_ignored(header: str) -> None:
    assert parse(header) is None


def test_a_later_version_may_say_more() -> None:
    assert parse("01" + GOOD[2:] + "-more") is not None


@given(st.text(max_size=80))
def test_no_header_breaks_it(header: str) -> None:
    found = parse(header, header)
    assert found is None or parse(found.traceparent) is not None


def test_a_child_is_of_the_same_trace() -> None:
    first = new_trace()
    child = first.child()
    assert child.trace_id == first.trace_id
    assert child.span_id != first.span_id
