"""The index of spans names every span that overlaps, in the order of their numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stanchion.detectors.overlaps import Overlaps

spans = st.tuples(st.integers(0, 2000), st.integers(0, 700)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(spans, max_size=30), spans)
def test_no_overlapping_span_is_missed(kept: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    index = Overlaps()
    for number, (start, end) in enumerate(kept):
        index.add(number, start, end)
    near = list(index.near(*asked))
    assert near == sorted(set(near))
    overlapping = {n for n, (start, end) in enumerate(kept) if start < asked[1] and asked[0] < end}
    inside = {
        n for n, (start, end) in enumerate(kept) if start <= asked[0] and asked[1] <= end and end > start
    }
    assert overlapping | (inside if asked[0] < asked[1] else set()) <= set(near)
