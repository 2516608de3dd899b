"""The same work in several processes: results come in the order of the work, whatever their number."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence

from pipeline.instances import Bags, bags, joined
from pipeline.rows import Row

PART = 10_000  # rows


def mapped(function: Callable, work: Sequence, *, processes: int | None = None) -> list:
    """`function` of each piece of work. Processes are forked, so they see everything that exists already."""
    global _function
    wanted = processes or min(os.cpu_count() or 1, 8)
    _function = function
    if wanted == 1 or len(work) < 2:
        return [function(piece) for piece in work]
    with multiprocessing.get_context("fork").Pool(wanted) as pool:
        return pool.map(_call, work, chunksize=1)


_function: Callable = len


def _call(piece: object) -> object:
    return _function(piece)


def all_bags(rows: Sequence[Row], *, most_windows: int) -> Bags:
    """`bags` of many rows."""
    parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
    return joined(mapped(lambda part: bags(part, most_windows=most_windows), parts))
