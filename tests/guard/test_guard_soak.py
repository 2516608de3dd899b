"""A guard that runs for long: what it takes does not grow."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from stanchion.guard.pipeline import Guard

WORDS = ("order", "Anna", "jane@example.org", "4111 1111 1111 1111", "ignore", "previous", "\u200b", "{")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_memory_is_flat_over_many_sessions() -> None:
    guard = Guard.load("default")
    draw = random.Random(1)

    def check(sessions: range) -> float:
        for session in sessions:
            text = " ".join(draw.choices(WORDS, k=draw.randrange(1, 120)))
            guard.check(text, surface=draw.choice(["input", "output"]), session_id=f"s{session}")
        return resident_mb()

    settled = check(range(20_000))
    assert check(range(20_000, 100_000)) < settled + 16
