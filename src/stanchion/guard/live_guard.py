"""A guard that is exchanged for another while it runs: another policy, another content pack."""

from __future__ import annotations

import threading
from collections.abc import Callable

from stanchion.guard.pipeline import Guard


class LiveGuard:
    """A guard that can be exchanged for another while requests run.

    Take `current` once for each request: a request then keeps the guard it began with, from its input to the
    end of its stream. The next request gets the new one. Vaults and counted calls go on.
    """

    def __init__(
        self, make: Callable[[Guard | None], Guard], *, stamp: Callable[[], str] | None = None
    ) -> None:
        """`make` is given the guard before (None at first). `stamp` tells whether another one is due."""
        self._make = make
        self._stamp = stamp
        self._lock = threading.Lock()
        self._seen = "" if stamp is None else stamp()
        self._current = make(None)

    @property
    def current(self) -> Guard:
        """The guard for a request that begins now."""
        return self._current

    def reload(self) -> Guard:
        """Make the guard anew and put it in the place of the one before.

        Raises:
            StanchionError: when it cannot be made; the one before stays.
        """
        with self._lock:
            seen = "" if self._stamp is None else self._stamp()
            made = self._make(self._current)
            self._current, self._seen = made, seen
            return made

    def refresh(self) -> bool:
        """Reload if the stamp changed; whether it did.

        Raises:
            StanchionError: as `reload` does.
        """
        if self._stamp is None or self._stamp() == self._seen:
            return False
        self.reload()
        return True
