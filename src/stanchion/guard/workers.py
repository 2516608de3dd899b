"""Threads that run detectors, and a way to give up on one that does not come back.

A Python thread cannot be stopped. A job that outlives its deadline is therefore *abandoned*: its thread is
left to finish (or not), another takes its place, and nobody waits for it again. Threads are daemons, so that
a hung detector cannot keep the process from ending. At most `max_abandoned` threads may hang at a time; from
then on new work is refused with a reason, which the pipeline treats as the failure of the check. A detector
that hangs inside one C call without releasing the interpreter lock stops every thread: nothing in the
process can help then.

At the end of the process a thread that comes back from a compiled library is ended inside it, and C++ ones
answer that by aborting the process. So the end waits a moment for work that nobody gave up.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from stanchion.core.errors import UnavailableError, UsageError

T = TypeVar("T")
_END_S = 3.0  # how long the end of the process waits for work that was begun
_SPIN_S = 0.001  # an event loop may be held this long, so that short checks need no switch


class Job:
    """One piece of work. `finished` is set when it is done, whether anybody still waits or not."""

    __slots__ = ("_abandoned", "_work", "future")

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._abandoned = False
        self.future: Future[None] = Future()

    @property
    def is_abandoned(self) -> bool:
        """Whether the caller has given up on it; work that looks can stop early."""
        return self._abandoned

    def run(self) -> None:
        """Do the work; what it raises goes to the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self._work()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


_POOLS: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


@atexit.register
def _settle() -> None:
    until_s = time.monotonic() + _END_S
    for pool in list(_POOLS):
        pool.settle(until_s)


class WorkerPool:
    """A few daemon threads, started when needed, gone when idle for a while; thread-safe."""

    def __init__(self, *, max_workers: int = 8, max_abandoned: int = 32, idle_s: float = 10.0) -> None:
        self._max_workers = max_workers
        self._max_abandoned = max_abandoned
        self._idle_s = idle_s
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._queue: deque[Job] = deque()
        self._begun: set[Job] = set()
        self._workers = 0
        self._idle = 0
        self._abandoned = 0

    @property
    def workers(self) -> int:
        """How many threads work or wait for work."""
        return self._workers

    @property
    def abandoned(self) -> int:
        """How many threads hang in work that was given up."""
        return self._abandoned

    def submit(self, work: Callable[[], None]) -> Job:
        """Start work.

        Raises:
            UnavailableError: when too many threads hang already.
        """
        if self._process != os.getpid():
            self._reset()  # after a fork none of the threads is there
        job = Job(work)
        with self._lock:
            if self._abandoned >= self._max_abandoned:
                raise UnavailableError(f"{self._abandoned} abandoned checks still hang; no more are started.")
            self._queue.append(job)
            self._staff()
        return job

    def abandon(self, job: Job) -> None:
        """Give up on a job: if it has not begun it never will, else its thread no longer counts."""
        if job.future.cancel():
            return
        with self._lock:
            if job.future.done() or job._abandoned:
                return
            job._abandoned = True
            self._abandoned += 1
            self._workers -= 1
            self._staff()

    def settle(self, until_s: float) -> None:
        """Begin nothing more, and wait for what was begun and not given up; at most until then, monotonic."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._queue.clear()
            begun = [job for job in self._begun if not job.is_abandoned]
        for job in begun:
            _is_done(job.future, until_s - time.monotonic())

    def _staff(self) -> None:
        if self._idle:
            self._wake.notify()
        if len(self._queue) > self._idle and self._workers < self._max_workers:
            self._workers += 1
            threading.Thread(target=self._serve, name="stanchion-check", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._queue:
                    self._idle += 1
                    was_woken = self._wake.wait(self._idle_s)
                    self._idle -= 1
                    if not was_woken and not self._queue:
                        self._workers -= 1
                        return
                job = self._queue.popleft()
                self._begun.add(job)
            job.run()
            with self._lock:
                self._begun.discard(job)
                if job.is_abandoned:
                    self._abandoned -= 1
                    return  # another thread has taken this one's place


class Door(Protocol):
    """How the pipeline waits: an event loop must not be blocked, a plain thread may be."""

    async def wait(self, future: Future[Any], timeout_s: float) -> bool:
        """Whether the future was done in time; what it holds is not looked at."""
        ...


class AsyncDoor:
    """Waits on the running event loop."""

    async def wait(self, future: Future[Any], timeout_s: float) -> bool:
        """See `Door.wait`."""
        if _is_done(future, min(_SPIN_S, timeout_s)):
            return True
        waiter = asyncio.wrap_future(future)
        waiter.add_done_callback(_mark_as_seen)
        done, _ = await asyncio.wait({waiter}, timeout=max(timeout_s - _SPIN_S, 0.0))
        return bool(done)


class SyncDoor:
    """Blocks the calling thread."""

    async def wait(self, future: Future[Any], timeout_s: float) -> bool:
        """See `Door.wait`."""
        return _is_done(future, timeout_s)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the pipeline that waits through `SyncDoor` only: it never suspends.

    Safe inside a running event loop, which it blocks for as long as the check takes.
    """
    try:
        work.send(None)
    except StopIteration as finished:
        value: T = finished.value
        return value
    work.close()
    raise UsageError(
        "a check waited on the event loop inside a synchronous call.", hint="Use the async twin."
    )


def start_on_background_loop(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the one loop for detectors that wait on the outside.

    They have a loop of their own so that one that blocks instead of waiting cannot stall the caller's.
    """
    return asyncio.run_coroutine_threadsafe(work, _background_loop())


def _is_done(future: Future[Any], timeout_s: float) -> bool:
    try:
        future.exception(max(timeout_s, 0.0))
    except TimeoutError:
        return False
    except CancelledError:
        return True
    return True


def _mark_as_seen(waiter: asyncio.Future[Any]) -> None:
    """The pipeline reads the future itself; without this asyncio would log its error, and the text in it."""
    if not waiter.cancelled():
        waiter.exception()


_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process, because threads do not survive a fork
_loop_lock = threading.Lock()


def _background_loop() -> asyncio.AbstractEventLoop:
    with _loop_lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="stanchion-loop", daemon=True).start()
        return loop
