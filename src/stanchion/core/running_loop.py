"""The running event loop, asked for often.

`asyncio.get_running_loop` of Python 3.11 asks the system for the number of the process each time, and a call
to the system costs as much as ten of Python's functions. Here a thread remembers its loop: while that one
runs, it is the one that runs in the thread, unless it was moved to another thread, which nobody does.
"""

from __future__ import annotations

import asyncio
import os
import threading


class _Known(threading.local):
    loop: asyncio.AbstractEventLoop | None = None


_known = _Known()


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs in this thread.

    Raises:
        RuntimeError: when none does.
    """
    loop = _known.loop
    if loop is None or not loop.is_running():
        loop = _known.loop = asyncio.get_running_loop()
    return loop


def _forget() -> None:
    """A forked process has a copy of a loop that seems to run, and does not."""
    _known.loop = None


os.register_at_fork(after_in_child=_forget)
