"""The working memory that Hyperscan needs, one piece for each thread."""

from __future__ import annotations

import threading
from typing import Any


class ThreadScratch(threading.local):
    """`get()` gives the calling thread's scratch for one database."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._scratch: Any = None

    def get(self) -> Any:
        """The scratch of this thread, made at its first call."""
        if self._scratch is None:
            import hyperscan

            self._scratch = hyperscan.Scratch(self._database)
        return self._scratch
