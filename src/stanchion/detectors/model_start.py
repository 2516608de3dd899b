"""Models that load something, loaded before the first question."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from stanchion.core.target import Target


def start(model: Target) -> None:
    """Let a model load what it needs now, where it has something to load; safe inside a running event loop.

    Raises:
        StanchionError: what its `start` raises.
    """
    starting = getattr(model, "start", None)
    if starting is None:
        return
    with ThreadPoolExecutor(1) as apart:
        apart.submit(lambda: asyncio.run(starting())).result()
