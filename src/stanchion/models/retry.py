"""When to ask again, how long to wait, and how often in all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from stanchion.core.errors import DeadlineError, UnavailableError

Jitter = Callable[[float, float], float]
Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter, under a budget that all requests of a client share.

    Wait n is drawn from [0, min(max_wait_s, first_wait_s * 2**n)]; what the other side asks for with
    `Retry-After` is waited at least. Each retry takes one from the budget and each success gives `refill`
    back, so that an endpoint that is down is not hammered by every case of a run (the scheme of gRPC's retry
    throttling, proposal A6).
    """

    attempts: int = 4
    first_wait_s: float = 0.5
    max_wait_s: float = 20.0
    budget: float = 100.0
    refill: float = 0.1


class Deadline:
    """The time one request has, from the moment this is made; needs a running loop."""

    def __init__(self, seconds: float, *, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + seconds

    @property
    def remaining_s(self) -> float:
        """Seconds that are left; negative when time is up."""
        return self._ends_at - self._loop.time()

    async def hold(self, work: Awaitable[T]) -> T:
        """Wait for the work.

        Raises:
            DeadlineError: when the deadline passes first; the work is cancelled.
            UnavailableError: when the work gave up waiting for a connection by itself.
        """
        try:
            async with asyncio.timeout_at(self._ends_at) as scope:
                return await work
        except TimeoutError as error:
            if not scope.expired():
                raise UnavailableError(
                    f"{self._what}: no connection came about in time ({type(error).__name__}).",
                    hint="Is it running, and are host and port right?",
                ) from error
            raise DeadlineError(
                f"{self._what}: no whole answer came within {self._seconds:g} s.",
                hint="Raise `deadline_s`, ask for fewer tokens, or lower the concurrency.",
            ) from error


class Retries:
    """The budget of one client, and the waits."""

    def __init__(
        self, policy: RetryPolicy, *, sleep: Sleep = asyncio.sleep, jitter: Jitter | None = None
    ) -> None:
        self._sleep = sleep
        self._policy = policy
        self._left = policy.budget
        self._jitter = jitter or random.Random().uniform  # noqa: S311  (spreads load, guards nothing)

    @property
    def left(self) -> float:
        """Retries that are left."""
        return self._left

    async def run(self, ask: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """The answer, asking again as the policy allows.

        Raises:
            UnavailableError: the last attempt's, saying how many there were.
            DeadlineError: when the deadline passes.
        """
        attempt = 1
        while True:
            try:
                answer = await deadline.hold(ask())
            except UnavailableError as error:
                wait = self.wait_s(error, attempt=attempt, remaining_s=deadline.remaining_s)
                if wait is None:
                    raise (error if attempt == 1 else _after(error, attempt)) from error.__cause__
            else:
                self._left = min(self._policy.budget, self._left + self._policy.refill)
                return answer
            attempt += 1
            await self._sleep(wait)

    def wait_s(self, error: UnavailableError, *, attempt: int, remaining_s: float) -> float | None:
        """How long to wait before asking again; None when not to.

        Args:
            error: what the attempt ended in.
            attempt: 1 for the first.
            remaining_s: time until the request's deadline; a wait beyond it is no use.
        """
        if not error.is_retryable or attempt >= self._policy.attempts or self._left < 1:
            return None
        longest = min(self._policy.max_wait_s, self._policy.first_wait_s * 2 ** (attempt - 1))
        wait = max(self._jitter(0.0, longest), error.retry_after_s or 0.0)
        if wait >= remaining_s:
            return None
        self._left -= 1
        return wait


def _after(error: UnavailableError, attempts: int) -> UnavailableError:
    return UnavailableError(
        f"{error.message.removesuffix('.')}; asked {attempts} times.",
        hint=error.hint,
        status=error.status,
        retry_after_s=error.retry_after_s,
        is_retryable=error.is_retryable,
    )
