"""The switches as the data plane asks them: from memory, without I/O, and closed when they are not known.

Following requests hear of a switch on their own event loop, in batches, so that stopping thousands of
streams at once does not hold up the loop. The finish reason of a stream that a switch ended is
`content_filter` in OpenAI's shape and `refusal` in Anthropic's; the error's code is `switched_off`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from stanchion.core.clock import Clock
from stanchion.core.errors import IntegrityError
from stanchion.core.running_loop import running_loop
from stanchion.gateway.control_document import ControlKind, body_of
from stanchion.gateway.control_reader import ControlReader, Trust, Update
from stanchion.gateway.ports import Engaged, Follow, RequestFacts
from stanchion.gateway.switch_index import HeldLease, SwitchIndex, fail_closed, index_of
from stanchion.gateway.switch_state import Lease, SwitchState
from stanchion.store.times import to_us

BATCH = 128


class _Following:
    """One request's watch."""

    __slots__ = ("_board", "callback", "facts", "loop", "number")

    def __init__(
        self,
        board: SwitchBoard,
        facts: RequestFacts,
        callback: Callable[[Engaged], None],
        *,
        number: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._board, self.facts, self.callback = board, facts, callback
        self.number, self.loop = number, loop

    def move(self, facts: RequestFacts) -> None:
        """Watch for other facts."""
        self.facts = facts
        index = self._board._index
        if not index.is_calm and index.find(facts) is not None:
            self.loop.call_soon(self._board._tell, [self])

    def close(self) -> None:
        """Stop watching."""
        self._board._follows.pop(self.number, None)


class SwitchBoard:
    """Implements `ports.Switches` on the documents of a ControlReader."""

    def __init__(self, reader: ControlReader, *, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._state = SwitchState()
        self._held: tuple[HeldLease, ...] = ()
        self._wall_high_us = 0
        self._index = fail_closed("the switches are not known yet")
        self._follows: dict[int, _Following] = {}
        self._count = 0
        reader.subscribe(ControlKind.SWITCHES, self._take)

    @property
    def version(self) -> int:
        """The version that is obeyed; 0 when nothing was ever switched, -1 when it is not known."""
        return self._index.version

    @property
    def state(self) -> SwitchState:
        """The state that is obeyed, for people to look at."""
        return self._state

    @property
    def engaged(self) -> int:
        """How many switches stop something; not knowing counts as one, because it stops everything."""
        return self._index.count

    @property
    def following(self) -> int:
        """How many requests are watched."""
        return len(self._follows)

    def find(self, facts: RequestFacts) -> Engaged | None:
        """The switch that stops this request, the broadest level first."""
        index = self._index
        if index.leases and self._is_due(index):
            index = self.expire()
        return None if index.is_calm else index.find(facts)

    def find_tool(self, facts: RequestFacts, tool: str) -> Engaged | None:
        """The switch that stops a call of this tool."""
        index = self._index
        if index.leases and self._is_due(index):
            index = self.expire()
        return index.find_tool(facts, tool)

    def follow(self, facts: RequestFacts, on_engaged: Callable[[Engaged], None]) -> Follow:
        """Call back once, on the running event loop, as soon as a switch that matches is engaged."""
        self._count += 1
        loop = running_loop()
        following = _Following(self, facts, on_engaged, number=self._count, loop=loop)
        self._follows[following.number] = following
        following.move(facts)  # a switch may have been engaged between `find` and `follow`
        return following

    def expire(self) -> SwitchIndex:
        """Turn leases that have ended into switches; the watcher calls this between requests too."""
        with self._lock:
            if self._index.leases and self._is_due(self._index):
                self._rebuild(self._index.version)
            return self._index

    def seconds_to_next_end(self) -> float | None:
        """How long until the next lease ends by the monotonic clock; None without one."""
        index = self._index
        if not index.leases:
            return None
        return max(0.0, (index.next_end_ns - self._clock.monotonic_ns()) / 1e9)

    # --- taking in -----------------------------------------------------------------------------------------

    def _take(self, update: Update) -> None:
        standing = update.standing
        if standing.trust is Trust.NONE:
            self._swap(SwitchIndex((), version=0))
            return
        if standing.trust is not Trust.VERIFIED or update.document is None:
            self._swap(fail_closed(f"the switches cannot be verified: {standing.reason}"))
            return
        state = body_of(update.document, SwitchState)
        if any(lease.ttl_s <= 0 for lease in state.leases):
            raise IntegrityError("a lease without a time in the signed switches.")
        with self._lock:
            known = {held.lease: held for held in self._held}
            self._state = state
            self._held = tuple(known.get(lease) or self._hold(lease, update) for lease in state.leases)
            self._rebuild(update.document.version)

    def _hold(self, lease: Lease, update: Update) -> HeldLease:
        """A lease as of now: never longer than what was granted, and over if the clock went back meanwhile.

        Where the document was waiting on disk, what is left is known by the wall clock alone. If that clock
        is behind the last time seen before the restart, nobody knows how long the pause was.
        """
        now_us, now_ns = to_us(self._clock.now()), self._clock.monotonic_ns()
        left_us = min(lease.expires_at_us - now_us, lease.ttl_s * 1_000_000)
        if now_us < update.restarted_at_us:
            left_us = 0
        return HeldLease(lease, ends_ns=now_ns + max(0, left_us) * 1000)

    def _is_due(self, index: SwitchIndex) -> bool:
        if self._clock.monotonic_ns() >= index.next_end_ns:
            return True
        return to_us(self._clock.now()) >= index.next_end_us

    def _rebuild(self, version: int) -> None:
        now_us, now_ns = to_us(self._clock.now()), self._clock.monotonic_ns()
        ended = tuple(held for held in self._held if held.has_ended(now_ns=now_ns, now_us=now_us))
        for held in ended:
            held.ends_ns = 0  # a clock that is set back does not give it back
        left = tuple(held for held in self._held if held not in ended)
        self._swap(index_of(self._state, version=version, leases=left, ended=ended))

    def _swap(self, index: SwitchIndex) -> None:
        self._index = index
        if index.is_calm or not self._follows:
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[_Following]] = {}
        for following in list(self._follows.values()):
            by_loop.setdefault(following.loop, []).append(following)
        for loop, waiting in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to tell
                loop.call_soon_threadsafe(self._tell, waiting)

    def _tell(self, waiting: list[_Following]) -> None:
        """On the event loop: tell those whom the index stops, some at a time."""
        batch, rest = waiting[:BATCH], waiting[BATCH:]
        for following in batch:
            if following.number not in self._follows:
                continue
            hit = self._index.find(following.facts)
            if hit is not None:
                following.close()
                try:
                    following.callback(hit)
                except Exception as error:  # one request's failure must not keep the others running
                    following.loop.call_exception_handler(
                        {"message": "a request could not be told of a switch", "exception": error}
                    )
        if rest:
            batch[0].loop.call_soon(self._tell, rest)
