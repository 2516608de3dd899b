"""The audit record, written behind: one thread, one transaction per batch, a stated bound on loss.

Killed at once, the process loses at most what came in the last `every_s` seconds and the batch being written,
which waits no longer than that for a lock (`lock_wait_s`). While the store takes nothing, records go to the
spill file every `every_s` seconds and before each try at the store, so the bound holds then too; what has no
room there (`spill_bytes`, a full disk) waits in memory (`most_waiting`), and what is left out beyond that is
counted.
A record that the store refuses, while it takes others, is kept in a file beside it, and counted as lost.
Where the policy wants the record first, `write_first` waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import StanchionError, UnavailableError
from stanchion.gateway.ports import ExchangeRecord
from stanchion.gateway.record_rows import rows_of
from stanchion.gateway.record_spill import Spill
from stanchion.store.database import LOCK_WAIT_S
from stanchion.store.exchanges import ExchangeStore
from stanchion.store.interactions import InteractionStore

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 10.0


def lock_wait_s(every_s: float) -> float:
    """How long the sink of a recorder may wait for a lock: no longer than what comes meanwhile may wait."""
    return min(every_s, LOCK_WAIT_S)


class RecordHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the recorder does. `waiting` records are in memory, `oldest_s` is the age of the first of them.

    `bound_s` is what a kill can cost in seconds of records, `worst_s` the longest that one waited so far.
    """

    is_writing: bool
    waiting: int
    oldest_s: float
    written: int
    spilled: int
    lost: int
    failures: int
    bound_s: float
    worst_s: float
    trouble: str = ""


class RecordSink(Protocol):
    """Where batches go; called from the recorder's own thread."""

    def write(self, records: Sequence[ExchangeRecord]) -> None:
        """Write all of them or nothing; those that are there already stay.

        Raises:
            StanchionError: when they could not be written.
        """
        ...


class StoreSink:
    """The tables of interactions and exchanges."""

    def __init__(self, interactions: InteractionStore, exchanges: ExchangeStore) -> None:
        self._interactions = interactions
        self._exchanges = exchanges

    def write(self, records: Sequence[ExchangeRecord]) -> None:
        """See `RecordSink.write`; both tables in one transaction."""
        rows = [rows_of(one) for one in records]
        with self._interactions.write() as connection:
            self._interactions.insert_rows_in(connection, [one for one, _ in rows if one is not None])
            self._exchanges.insert_rows_in(connection, [one for _, one in rows])


class Recorder:
    """Takes records from the event loop and writes them from a thread of its own.

    Args:
        sink: where they go; it gives up on a lock within `lock_wait_s(every_s)`.
        first: where those go that an answer waits for, which may wait longer; None: to the same.
        clock: for the age of what waits.
        batch: the most in one transaction.
        every_s: how often it writes, unless a batch is full.
        most_waiting: how many it keeps in memory, when they can go nowhere else.
        spill: the file for what the store does not take; None: there is none.
        spill_bytes: the most that the file may grow to.
    """

    def __init__(
        self,
        sink: RecordSink,
        *,
        first: RecordSink | None = None,
        clock: Clock,
        batch: int = 1000,
        every_s: float = 0.5,
        most_waiting: int = 20_000,
        spill: Path | None = None,
        spill_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._sink = sink
        self._first = first or sink
        self._clock = clock
        self._batch = self._wake_at = batch
        self._every_s = every_s
        self._most_waiting = most_waiting
        self._spill = None if spill is None else Spill(spill, most_bytes=spill_bytes)
        self._refused = (
            None if spill is None else Spill(spill.with_name(f"refused.{spill.name}"), most_bytes=spill_bytes)
        )
        self._one_keeper = threading.Lock()  # of what waits, and of the spill file
        self._one_writer = threading.Lock()  # to the store
        self._wake = threading.Event()
        self._waiting: deque[tuple[int, ExchangeRecord]] = deque()
        self._is_closed = False
        self._written = self._written_first = self._spilled = self._lost = self._failures = 0
        self._worst_ns = 0
        self._trouble = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; records that were spilled before are written first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stanchion-records", daemon=True)
            self._thread.start()

    def put(self, record: ExchangeRecord) -> None:
        """Take a record; never waits for the store."""
        self._waiting.append((self._clock.monotonic_ns(), record))
        if len(self._waiting) >= self._wake_at and not self._wake.is_set():
            self._wake.set()

    async def write_first(self, record: ExchangeRecord) -> None:
        """Write a record now; it is on disk when this returns.

        Raises:
            StanchionError: when it could not be written.
        """
        await asyncio.get_running_loop().run_in_executor(None, self._write_one, record)

    def health(self) -> RecordHealth:
        """How it does."""
        return RecordHealth(
            is_writing=not self._trouble,
            waiting=len(self._waiting),
            oldest_s=self._oldest_s(),
            written=self._written + self._written_first,
            spilled=self._spilled,
            lost=self._lost,
            failures=self._failures,
            bound_s=self._every_s,
            worst_s=self._worst_ns / 1e9,
            trouble=self._trouble,
        )

    def _oldest_s(self) -> float:
        try:
            return (self._clock.monotonic_ns() - self._waiting[0][0]) / 1e9
        except IndexError:
            return 0.0

    def close(self, *, wait_s: float = 10.0) -> None:
        """Write what waits, or spill it; safe to call twice."""
        self._is_closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        while self._flush() and self._waiting:
            pass
        if self._waiting:
            self._spill_waiting(most_waiting=0)

    def _run(self) -> None:
        pause_s, next_ns = self._every_s, 0
        while not self._is_closed:
            self._wake.wait(self._every_s)
            self._wake.clear()
            now = self._clock.monotonic_ns()
            try:
                if next_ns and self._waiting:
                    self._spill_waiting(most_waiting=self._most_waiting)
                if now >= next_ns:
                    is_well = self._flush() and self._take_back()
                    pause_s = self._every_s if is_well else min(pause_s * 2, _LONGEST_PAUSE_S)
                    next_ns = 0 if is_well else self._clock.monotonic_ns() + round(pause_s * 1e9)
                if next_ns and self._waiting:
                    self._spill_waiting(most_waiting=self._most_waiting)
            except Exception as error:  # an edge: without this thread no record is written any more
                self._failed(f"the records could not be kept ({type(error).__name__}).")

    def _flush(self) -> bool:
        """Write everything that waits now, and whole batches that come meanwhile; whether the store took it.

        What else comes meanwhile waits for its turn: it would be a small transaction each time.
        """
        with self._one_keeper:
            try:
                return self._flush_batches()
            finally:
                self._wake_at = self._batch

    def _flush_batches(self) -> bool:
        left = len(self._waiting)
        while left > 0 or len(self._waiting) >= self._batch:
            left = left if left > 0 else self._batch
            self._wake_at = left + self._batch  # what is being written is no reason to write again
            size = -(-left // -(-left // self._batch))  # batches of one size, none of them a small rest
            left -= size
            taken = [self._waiting[index] for index in range(size)]
            if not self._tried([record for _, record in taken]):
                return False
            for _ in range(size):
                self._waiting.popleft()
            self._written += size
            self._worst_ns = max(self._worst_ns, self._clock.monotonic_ns() - taken[0][0])
        return True

    def _write_one(self, record: ExchangeRecord) -> None:
        with self._one_writer:
            self._first.write([record])
            self._written_first += 1

    def _tried(self, records: Sequence[ExchangeRecord]) -> bool:
        """Whether the store took them; one that is held up by a record which comes first takes nothing."""
        if not self._one_writer.acquire(timeout=self._every_s):
            self._failed("the store is held up by one record.")
            return False
        try:
            return self._written_or_aside(records)
        finally:
            self._one_writer.release()

    def _written_or_aside(self, records: Sequence[ExchangeRecord]) -> bool:
        try:
            self._sink.write(records)
        except UnavailableError as error:
            self._failed(error.message)
            return False
        except Exception as error:
            said = error.message if isinstance(error, StanchionError) else f"{type(error).__name__}."
            self._failed(said)
            return self._one_by_one(records)
        self._trouble = ""
        return True

    def _one_by_one(self, records: Sequence[ExchangeRecord]) -> bool:
        """One record that the store refuses must not keep the others out: it is put aside and counted.

        A store that refuses all of several is damaged; then they wait.
        """
        refused: list[ExchangeRecord] = []
        odd: list[ExchangeRecord] = []
        for record in records:
            try:
                self._sink.write([record])
            except UnavailableError:
                return False
            except StanchionError:
                refused.append(record)
            except Exception as error:
                odd.append(record)
                _log.error(
                    "the record of request %s could not be written: %s",
                    record.facts.id,
                    type(error).__name__,
                )
        if len(refused) == len(records) > 1:
            return False
        aside = refused + odd
        kept = self._refused.add(aside) if self._refused is not None and aside else 0
        self._lost += len(aside)
        for record in refused:
            _log.error("the store refused the record of request %s", record.facts.id)
        if kept:
            _log.error("%d refused records are in %s", kept, self._refused.path if self._refused else "")
        self._trouble = ""
        return True

    def _failed(self, trouble: str) -> None:
        self._failures += 1
        if not self._trouble:
            _log.error("records wait: %s", trouble)
        self._trouble = trouble

    def _spill_waiting(self, *, most_waiting: int) -> None:
        """Move what waits to the spill file; of what has no room there, the oldest beyond memory is lost."""
        with self._one_keeper:
            count = len(self._waiting)
            kept = lost = 0
            if self._spill is not None:
                kept = self._spill.add([self._waiting[index][1] for index in range(count)])
            for _ in range(kept):
                self._waiting.popleft()
            while len(self._waiting) > most_waiting:
                self._waiting.popleft()
                lost += 1
            self._spilled += kept
            self._lost += lost
        if lost:
            place = "memory" if self._spill is None else self._spill.path
            _log.error("%d records were lost: no room in %s", lost, place)

    def _take_back(self) -> bool:
        """Write what was spilled, once the store takes records again."""
        if self._spill is None:
            return True
        found = unread_of_all = 0
        for records, unread in self._spill.batches(self._batch):
            if self._oldest_s() >= self._every_s and not self._flush():
                return False
            unread_of_all += unread  # lines that a crash cut off
            with self._one_keeper:
                if records and not self._tried(records):
                    return False
            found += len(records)
        if found or unread_of_all:
            self._written += found
            self._lost += unread_of_all
            self._spill.clear()
        return True
