"""The working memory that Hyperscan needs, one piece for each thread."""

from __future__ import annotations

import threading
from typing import Any


class ThreadScratch(threading.local):
    """`own` is the calling thread's scratch for one database, made when the thread first asks for it."""

    own: Any

    def __init__(self, database: Any) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        if name != "own":
            raise AttributeError(name)
        import hyperscan

        self.own = hyperscan.Scratch(self._database)
        return self.own
