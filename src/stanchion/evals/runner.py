"""Runs a suite against a target: one pool of workers pulls cases from one iterator.

Nothing is held per case beyond what is in flight, so memory does not grow with the suite.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest
from stanchion.core.errors import BlockedError, DeadlineError, UnavailableError
from stanchion.core.interaction import Interaction, Reply
from stanchion.core.target import Target
from stanchion.evals.case import Case
from stanchion.evals.conditions import CaseSource, RunSettings
from stanchion.evals.judging import Attempted, Judge, blocked_reply
from stanchion.evals.keyset import KeySet
from stanchion.evals.pace import Pace, RetryBudget
from stanchion.evals.progress import Observer, Silent
from stanchion.evals.results import CaseResult, Outcome, RunHeader, RunSummary, StopReason
from stanchion.evals.scorers.scorer import AnyScorer
from stanchion.evals.summary import Counts
from stanchion.evals.transcript import Scribe

_SLICE_NS = 5_000_000  # a worker whose target never waits gives the loop a turn this often
_SYNC_S = 5.0
_LONGEST_WAIT_S = 30.0
_BUSY = frozenset({429, 503, 529})
_WRONG_ADDRESS = frozenset({401, 403, 404})
_WRONG_ADDRESS_LIMIT = 3
_AGAIN = (Outcome.SKIPPED, Outcome.ERROR)


class Sink(Protocol):
    """Where results go; `runlog.RunWriter` is the real one."""

    def append(self, result: CaseResult) -> None:
        """Keep one result."""
        ...

    def sync(self) -> None:
        """Make what was kept safe against a power cut."""
        ...


class Answers(Protocol):
    """What the runner asks the cache: whether an answer that was taken over came from an earlier run."""

    def was_asked_here(self, request: Digest) -> bool:
        """Whether this process asked the model that request."""
        ...


class EvalRun:
    """One run of a suite; `run` gives the summary, `stop` ends it early.

    Args:
        source: the cases.
        target: what is asked.
        scorers: what judges.
        header: from `make_header`, or of the run that is resumed.
        sink: where results go.
        clock: for durations and the end.
        settings: pace, caps, repeats.
        scribe: what is kept of the words.
        observer: who watches.
        answers: the cache, if answers may come from one.
        done: results that an earlier process wrote; they are counted and not asked again.
    """

    def __init__(
        self,
        source: CaseSource,
        target: Target,
        *,
        scorers: tuple[AnyScorer, ...],
        header: RunHeader,
        sink: Sink,
        clock: Clock,
        settings: RunSettings | None = None,
        scribe: Scribe | None = None,
        observer: Observer | None = None,
        answers: Answers | None = None,
        done: Iterable[CaseResult] = (),
    ) -> None:
        self._source = source
        self._target = target
        self._header = header
        self._sink = sink
        self._clock = clock
        self._settings = settings or RunSettings()
        self._observer: Observer = observer or Silent()
        self._answers = answers
        self._judge = Judge(scorers, header.components, kind=header.target_kind, scribe=scribe or Scribe())
        self._pace = Pace(self._settings.pace, clock)
        self._retries = RetryBudget()
        self._random = random.Random(header.seed)  # noqa: S311 - jitter between retries
        self._counts = Counts()
        self._seen = KeySet()
        self._known = 0  # cases of the source that had been seen before, or were done by an earlier process
        for result in done:
            if result.outcome not in _AGAIN:
                self._seen.add(result.key)
                self._known -= result.repeat == 0
                self._counts.add(result)
        self._resumed = len(self._seen)
        self._stopped: StopReason | None = None
        self._stop_detail = ""
        self._failed_in_a_row = 0
        self._asking: dict[int, tuple[Case, int]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._turn_ns = 0
        self._turn_ends = False
        self._begin_ns = clock.monotonic_ns()
        self._feed = self._questions()

    async def run(self) -> RunSummary:
        """Ask, judge and write down every case that is not done yet.

        Raises:
            FilesError: when the source breaks in the middle; what was judged before is in the sink.
            UnavailableError: when the sink refuses to write.
        """
        self._begin_ns = self._clock.monotonic_ns()
        self._observer.started(self._header, self._resumed)
        loop = asyncio.get_running_loop()
        timer = None
        if self._settings.deadline_s is not None:
            timer = loop.call_later(self._settings.deadline_s, self.stop, StopReason.DEADLINE)
        syncing = asyncio.create_task(self._sync_now_and_then())
        try:
            await self._work_all()
        finally:
            syncing.cancel()
            if timer is not None:
                timer.cancel()
        if self._stopped not in (None, StopReason.CANCELLED):
            await self._skip_the_rest()
        summary = self.summary_now()
        self._observer.finished(summary)
        return summary

    def stop(self, reason: StopReason, detail: str = "") -> None:
        """End the run; what is in flight is given up for a deadline or a cancellation, else awaited."""
        if self._stopped is not None:
            return
        self._stopped, self._stop_detail = reason, detail
        if reason in (StopReason.DEADLINE, StopReason.CANCELLED):
            for worker in self._workers:
                worker.cancel()

    def summary_now(self) -> RunSummary:
        """The counts so far, with the reason why the run ended if it did."""
        return self._counts.summary(
            self._header,
            finished_at=self._clock.now(),
            stopped=self._stopped or StopReason.FINISHED,
            stop_detail=self._stop_detail,
            elapsed_s=(self._clock.monotonic_ns() - self._begin_ns) / 1e9,
            asked=self._counts.total - self._resumed,
            retries=self._retries.used,
            resumed=self._resumed,
            duplicates=max(self._known, 0),
        )

    def _questions(self) -> Iterator[tuple[Case, int]]:
        """Every case and repeat that has no result yet; a case that comes twice is asked once."""
        for case in self._source.cases():
            for repeat in range(self._settings.repeats):
                if self._seen.add((case.key, repeat)):
                    yield case, repeat
                elif repeat == 0:
                    self._known += 1

    async def _work_all(self) -> None:
        self._begin_turn()
        self._workers = [
            asyncio.create_task(self._work(number)) for number in range(max(1, self._settings.pace.most))
        ]
        try:
            outcomes = await asyncio.gather(*self._workers, return_exceptions=True)
        except asyncio.CancelledError:
            self.stop(StopReason.CANCELLED)
            await asyncio.gather(*self._workers, return_exceptions=True)
            raise
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    async def _work(self, number: int) -> None:
        try:
            while (attempt := await self._ask_next(number)) is not None:
                tries = 1
                while (wait_s := self._wait_before_retry(attempt, tries)) is not None:
                    await asyncio.sleep(wait_s)
                    attempt = await self._ask_again(attempt)
                    tries += 1
                await self._record(attempt)
                del self._asking[number]
                await self._give_turn()
        except asyncio.CancelledError:
            raise
        except BaseException:  # the source or the sink broke: nobody goes on, and the run raises it
            self.stop(StopReason.STORAGE)
            for worker in self._workers:
                if worker is not asyncio.current_task():
                    worker.cancel()
            raise

    async def _give_turn(self) -> None:
        """Let the loop see to other things when this turn of it has taken long enough."""
        if self._clock.monotonic_ns() - self._turn_ns < _SLICE_NS:
            return
        if not self._turn_ends:
            self._turn_ends = True
            asyncio.get_running_loop().call_soon(self._begin_turn)
        await asyncio.sleep(0)

    def _begin_turn(self) -> None:
        self._turn_ends = False
        self._turn_ns = self._clock.monotonic_ns()

    async def _ask_next(self, number: int) -> Attempted | None:
        await self._pace.enter()
        try:
            question = None if self._stopped else next(self._feed, None)
            if question is None:
                return None
            self._asking[number] = question
            self._retries.earn()
            return await self._ask(*question)
        finally:
            self._pace.leave()

    async def _ask_again(self, attempt: Attempted) -> Attempted:
        await self._pace.enter()
        try:
            return await self._ask(attempt.case, attempt.repeat)
        finally:
            self._pace.leave()

    async def _ask(self, case: Case, repeat: int) -> Attempted:
        asked = self._request(case, repeat)
        begin = self._clock.monotonic_ns()
        error: Exception | None = None
        reply: Reply | None = None
        done = asked
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                done = await self._target.invoke(asked)
            reply = done.reply
        except BlockedError:
            reply = blocked_reply((self._clock.monotonic_ns() - begin) / 1e6)
        except TimeoutError:
            error = DeadlineError(f"no answer within {self._settings.timeout_s:g} s")
        except Exception as broken:
            error = broken
        latency_ms = (self._clock.monotonic_ns() - begin) / 1e6
        self._report_pace(error, latency_ms)
        is_cached = bool(reply and reply.reused_from) and not self._was_asked_here(reply)
        return Attempted(case, repeat, asked, done, reply, latency_ms, error, is_cached)

    def _request(self, case: Case, repeat: int) -> Interaction:
        request = case.interaction(environment=self._settings.environment, feature=self._source.id)
        if repeat == 0:
            return request
        sampling = request.sampling
        if sampling.seed is not None:
            sampling = msgspec.structs.replace(sampling, seed=sampling.seed + repeat)
        return msgspec.structs.replace(request, sampling=sampling, labels={"repeat": str(repeat)})

    def _was_asked_here(self, reply: Reply | None) -> bool:
        if self._answers is None or reply is None or reply.reused_from is None:
            return True
        return self._answers.was_asked_here(reply.reused_from)

    def _report_pace(self, error: Exception | None, latency_ms: float) -> None:
        match error:
            case None:
                self._pace.answered(latency_ms)
            case UnavailableError() if error.status in _BUSY or error.retry_after_s:
                self._pace.was_busy(retry_after_s=error.retry_after_s)
            case DeadlineError():
                self._pace.was_busy()
            case _:
                pass

    def _wait_before_retry(self, attempt: Attempted, tries: int) -> float | None:
        """Seconds until the case is asked again; None when it is not."""
        error = attempt.error
        can_help = isinstance(error, DeadlineError) or (
            isinstance(error, UnavailableError) and error.is_retryable
        )
        if not can_help or self._stopped or tries >= self._settings.max_attempts:
            return None
        if not self._retries.spend():
            return None
        wait_s = self._settings.first_wait_s * 2.0 ** (tries - 1) * self._random.uniform(0.5, 1.5)
        if isinstance(error, UnavailableError) and error.retry_after_s:
            wait_s = max(wait_s, error.retry_after_s)
        wait_s = min(wait_s, _LONGEST_WAIT_S)
        self._observer.retried(attempt.case.id, type(error).__name__, wait_s)
        return wait_s

    async def _record(self, attempt: Attempted) -> None:
        result = await self._judge.result(attempt)
        self._keep(result)
        self._watch_failures(attempt.error, why=result.reason or result.error)
        self._watch_cost(attempt)

    def _keep(self, result: CaseResult) -> None:
        self._sink.append(result)
        self._counts.add(result)
        self._observer.case_finished(result)

    def _watch_failures(self, error: BaseException | None, *, why: str) -> None:
        if not isinstance(error, UnavailableError | DeadlineError):
            self._failed_in_a_row = 0
            return
        self._failed_in_a_row += 1
        is_wrong = isinstance(error, UnavailableError) and error.status in _WRONG_ADDRESS
        most = min(_WRONG_ADDRESS_LIMIT, self._settings.give_up_after) if is_wrong else None
        if self._failed_in_a_row >= (most or self._settings.give_up_after):
            detail = f"{self._failed_in_a_row} cases in a row had no answer; the last: {why}"
            self.stop(StopReason.RETRY_BUDGET, detail)

    def _watch_cost(self, attempt: Attempted) -> None:
        cap, reply = self._settings.max_cost_usd, attempt.reply
        if cap is None or reply is None or reply.reused_from:
            return
        if reply.usage.cost_usd is None:
            self.stop(StopReason.COST_CAP, "the target does not tell its cost, so no cap can be kept")
        elif (self._counts.cost_usd or 0.0) >= cap:
            self.stop(StopReason.COST_CAP, f"{self._counts.cost_usd:.4f} USD spent of {cap:g} USD")

    async def _skip_the_rest(self) -> None:
        """Every planned case gets a result, so that what was not asked is counted."""
        reason = f"the run was stopped: {self._stopped}"
        for case, repeat in self._asking.values():
            self._keep(self._judge.skipped(case, repeat, reason))
        for count, (case, repeat) in enumerate(self._feed):
            self._keep(self._judge.skipped(case, repeat, reason))
            if count % 500 == 499:
                await asyncio.sleep(0)

    async def _sync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_S)
            self._sink.sync()
