"""Running detectors: each with its deadline, each outcome written down, no finding taken on trust."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from stanchion.core.decision import CheckStatus
from stanchion.core.errors import UnavailableError
from stanchion.core.finding import AsyncDetector, Cost, Detector, DetectorInput, Finding, Location, ViewSet
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.workers import Door, WorkerPool, start_on_background_loop

ViewBuilder = Callable[[str], ViewSet]
Context = Mapping[str, tuple[str, ...]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A detector as a policy wants it to be used. `detector` is a Detector or an AsyncDetector.

    The other fields follow from it: its id, up to how many characters it may run on the caller's thread
    (`counts_context`: those of the context included), and whether its class says `is_pure`: its findings
    follow from the text, its origin and locale alone, which is then all that it is given. `rules_out` is the
    detector's own, where it has one.
    """

    detector: Any
    settings: DetectorSettings
    id: str = ""
    at_once_characters: int = 0
    counts_context: bool = False
    is_pure: bool = False
    rules_out: Any = None

    def __post_init__(self) -> None:
        """What does not change of the detector is asked once, not with every text."""
        set_field = msgspec.structs.force_setattr
        set_field(self, "id", str(self.detector.id))
        characters, counts_context = _at_once(self.detector)
        set_field(self, "at_once_characters", characters)
        set_field(self, "counts_context", counts_context)
        if "rules_out" in vars(type(self.detector)):  # what a class adds to another's is not ruled out by it
            set_field(self, "rules_out", self.detector.rules_out)
        set_field(
            self, "is_pure", vars(type(self.detector)).get("is_pure") is True and not _waits(self.detector)
        )

    @property
    def deadline_s(self) -> float:
        """Seconds one call may take."""
        return self.settings.deadline_ms / 1000


class CheckInput(msgspec.Struct, frozen=True, kw_only=True):
    """One text with all that detectors may read beside it."""

    field: str
    text: str
    origin: Origin
    context: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    session_id: str = ""
    locale: str = ""
    tenant: str = ""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one check made of one text; findings are valid, in the field's offsets, with line and column."""

    status: CheckStatus
    findings: tuple[Finding, ...] = ()
    elapsed_ms: float = 0.0
    reason: str = ""


class _Step(msgspec.Struct, frozen=True):
    """One check of one text, by their numbers."""

    check: int
    text: int


_PLAIN = (list, tuple)
_RAN = CheckStatus.RAN
SILENT = CheckResult(status=_RAN)  # a check that ran, found nothing, and took no time of its own
_GAVE_UP = "gave up after a time-out"
_PACKAGED = "stanchion.detectors."
AT_ONCE_CHARACTERS = 4_096  # about a millisecond of the packaged detectors
Results = dict[tuple[int, int], CheckResult]
Rows = Sequence[Sequence[CheckResult]]  # for each text, the results of all checks in their order


class CheckRunner:
    """Runs checks over texts: those that compute on worker threads, those that wait on a loop of their own.

    Packaged detectors that are quick run on the caller's thread when there is little to read.

    A check that ran out of time on one text is not tried on other texts: a hung detector costs its deadline
    once per exchange. `given_up` remembers such checks by id, from one call to the next of an exchange.
    """

    def __init__(self, build_views: ViewBuilder, *, pool: WorkerPool | None = None) -> None:
        self._build_views = build_views
        self._pool = pool or WorkerPool()

    def with_views(self, build_views: ViewBuilder) -> CheckRunner:
        """The same runner over other readings of a text."""
        return CheckRunner(build_views, pool=self._pool)

    def start(self, work: Callable[[], None]) -> None:
        """Do some work on a worker thread, without waiting for it.

        Raises:
            UnavailableError: when too many threads hang already.
        """
        self._pool.submit(work)

    async def rows(
        self, door: Door, checks: Sequence[Check], texts: Sequence[CheckInput], *, given_up: set[str]
    ) -> Rows:
        """As `run`, the results text by text."""
        if not given_up and may_all_run_at_once(checks, texts):
            if len(texts) == 1:
                return (look(checks, texts[0], self._build_views),)
            return [look(checks, text, self._build_views) for text in texts]
        results = await self.run(door, checks, texts, given_up=given_up)
        return [[results[check, text] for check in range(len(checks))] for text in range(len(texts))]

    async def run(
        self,
        door: Door,
        checks: Sequence[Check],
        texts: Sequence[CheckInput],
        *,
        given_up: set[str] | None = None,
    ) -> Results:
        """The result of every check on every text, by (check number, text number)."""
        if not given_up and may_all_run_at_once(checks, texts):
            return self._at_once(checks, texts)
        lost = set() if given_up is None else given_up
        steps = [_Step(c, t) for t in range(len(texts)) for c in range(len(checks))]
        results: Results = {
            (step.check, step.text): _failed(CheckStatus.TIMED_OUT, _GAVE_UP)
            for step in steps
            if checks[step.check].id in lost
        }
        steps = [step for step in steps if (step.check, step.text) not in results]
        computing = [step for step in steps if not _waits(checks[step.check].detector)]
        waiting = {
            step: self._start_waiting(checks[step.check], texts[step.text])
            for step in steps
            if _waits(checks[step.check].detector)
        }
        try:
            work = _Work(checks, texts, self._build_views)
            at_once = [step for step in computing if _may_run_at_once(checks[step.check], texts)]
            batch = _Batch(work, at_once)
            batch.run()
            results.update(batch.outcomes())
            left = [step for step in computing if (step.check, step.text) not in results]
            await self._compute(door, work, left, results)
            for step, started in waiting.items():
                results[step.check, step.text] = await _awaited(door, checks[step.check], started)
        finally:
            for started in waiting.values():
                started.future.cancel()
        lost.update(checks[c].id for (c, _), one in results.items() if one.status is CheckStatus.TIMED_OUT)
        return results

    def _at_once(self, checks: Sequence[Check], texts: Sequence[CheckInput]) -> Results:
        """Every check of every text on the caller's thread."""
        results: Results = {}
        for number, text in enumerate(texts):
            for place, result in enumerate(look(checks, text, self._build_views)):
                results[place, number] = result
        return results

    def _start_waiting(self, check: Check, text: CheckInput) -> _Started:
        detector: AsyncDetector = check.detector

        async def ask() -> CheckResult:
            started_ns = time.monotonic_ns()
            found = await detector.adetect(detector_input(text, self._build_views(text.text)))
            return _validated(check, text, found, started_ns)

        return _Started(start_on_background_loop(ask()), time.monotonic())

    async def _compute(self, door: Door, work: _Work, steps: list[_Step], results: Results) -> None:
        while steps:
            batch = _Batch(work, steps)
            try:
                job = self._pool.submit(batch.run)
            except UnavailableError as error:
                for step in steps:
                    results[step.check, step.text] = _failed(CheckStatus.ERRORED, error.message)
                return
            try:
                stuck = await batch.watch(door, job.future)
            finally:
                if not job.future.done():
                    self._pool.abandon(job)
            results.update(batch.outcomes())
            steps = _left_after(work, steps, stuck, results)


class _Started(msgspec.Struct, frozen=True):
    future: Future[CheckResult]
    at_s: float


class _Work(msgspec.Struct, frozen=True):
    checks: Sequence[Check]
    texts: Sequence[CheckInput]
    build_views: ViewBuilder


class _Batch:
    """Steps that one worker does one after the other; the caller watches the clock of the current one."""

    def __init__(self, work: _Work, steps: Sequence[_Step]) -> None:
        self._work = work
        self._steps = steps
        self._views: dict[int, ViewSet] = {}
        self._done: list[CheckResult] = []
        self._submitted_s = time.monotonic()
        self._progress: tuple[int, float] = (-1, self._submitted_s)  # one tuple, so that it is read whole
        self._is_watched = True

    def outcomes(self) -> Results:
        """What is finished so far."""
        pairs = zip(self._steps, self._done, strict=False)
        return {(step.check, step.text): result for step, result in pairs}

    def run(self) -> None:
        """Do the steps, until done or given up."""
        for number, step in enumerate(self._steps):
            self._progress = (number, time.monotonic())
            result = self._one(step)
            if not self._is_watched:
                return
            self._done.append(result)

    async def watch(self, door: Door, future: Future[None]) -> int | None:
        """Wait for the end, as long as each step keeps its deadline.

        None when all is done; else the number of the step that did not answer, -1 when no worker was free.
        """
        while True:
            number, started_s = self._progress
            deadline_s = self._work.checks[self._steps[max(number, 0)].check].deadline_s
            if await door.wait(future, deadline_s - (time.monotonic() - started_s)):
                return None
            if self._progress[0] == number and time.monotonic() - started_s >= deadline_s:
                self._is_watched = False
                return number

    def _one(self, step: _Step) -> CheckResult:
        check, text = self._work.checks[step.check], self._work.texts[step.text]
        started_ns = time.monotonic_ns()
        try:
            views = self._views.get(step.text)
            if views is None:
                views = self._views[step.text] = self._work.build_views(text.text)
            detector: Detector = check.detector
            given = input_alone(text, views) if check.is_pure else detector_input(text, views)
            found: Any = detector.detect(given)
            return _validated(check, text, found, started_ns)
        except (Exception, SystemExit) as error:
            return _broke(error, started_ns)


def look(checks: Sequence[Check], text: CheckInput, build_views: ViewBuilder) -> list[CheckResult]:
    """What checks make of one text, one after the other, on the caller's thread.

    The time of a look that several checks share is that of the first of them.
    """
    results = []
    views: ViewSet | None = None
    given: DetectorInput | None = None
    alone: DetectorInput | None = None
    asked, is_out = None, False
    now_ns = time.monotonic_ns
    started_ns = now_ns()
    for check in checks:
        try:
            if views is None:
                views = build_views(text.text)
            rules_out = check.rules_out
            if rules_out is not None and rules_out is asked:
                if is_out:
                    results.append(SILENT)
                    continue
            elif rules_out is not None:
                asked, is_out = rules_out, rules_out(views)
            if rules_out is not None and is_out:
                found: Any = ()
            elif check.is_pure:
                alone = alone or input_alone(text, views)
                found = check.detector.detect(alone)
            else:
                given = given or detector_input(text, views)
                found = check.detector.detect(given)
            if found or type(found) not in _PLAIN:
                result = _validated(check, text, found, started_ns)
                started_ns = now_ns()
            else:
                ended_ns = now_ns()
                result = CheckResult(status=_RAN, elapsed_ms=(ended_ns - started_ns) / 1e6)
                started_ns = ended_ns
        except (Exception, SystemExit) as error:
            result = _broke(error, started_ns)
            started_ns = now_ns()
        results.append(result)
    return results


def detector_input(text: CheckInput, views: ViewSet) -> DetectorInput:
    """What a detector is given for a text."""
    return DetectorInput(
        view_set=views,
        origin=text.origin,
        context=text.context,
        session_id=text.session_id,
        locale=text.locale,
    )


def input_alone(text: CheckInput, views: ViewSet) -> DetectorInput:
    """What a pure detector is given for a text."""
    return DetectorInput(view_set=views, origin=text.origin, locale=text.locale)


def _left_after(work: _Work, steps: list[_Step], stuck: int | None, results: Results) -> list[_Step]:
    """Mark what cannot be waited for; the steps that are still worth trying."""
    missing = [step for step in steps if (step.check, step.text) not in results]
    if stuck is None or stuck < 0:
        reason = "no worker was free in time" if stuck is not None else "the worker ended early"
        status = CheckStatus.ERRORED if stuck is None else CheckStatus.TIMED_OUT
        results.update({(step.check, step.text): _failed(status, reason) for step in missing})
        return []
    late = steps[stuck]
    deadline_ms = work.checks[late.check].settings.deadline_ms
    for step in missing:
        if step == late:
            reason = f"no answer within {deadline_ms} ms"
            results[step.check, step.text] = _failed(CheckStatus.TIMED_OUT, reason, float(deadline_ms))
        elif step.check == late.check:
            results[step.check, step.text] = _failed(CheckStatus.TIMED_OUT, _GAVE_UP)
    return [step for step in missing if step.check != late.check]


async def _awaited(door: Door, check: Check, started: _Started) -> CheckResult:
    left_s = check.deadline_s - (time.monotonic() - started.at_s)
    if not await door.wait(started.future, left_s):
        started.future.cancel()
        reason = f"no answer within {check.settings.deadline_ms} ms"
        return _failed(CheckStatus.TIMED_OUT, reason, float(check.settings.deadline_ms))
    elapsed_ms = (time.monotonic() - started.at_s) * 1000
    if started.future.cancelled():
        return _failed(CheckStatus.ERRORED, "was cancelled", elapsed_ms)
    error = started.future.exception()
    if error is not None:
        return _failed(CheckStatus.ERRORED, f"raised {type(error).__name__}", elapsed_ms)
    return started.future.result()


def _validated(check: Check, text: CheckInput, found: Any, started_ns: int) -> CheckResult:
    """Keep what is a finding; say so when something was not."""
    elapsed_ms = _ms_since(started_ns)
    if type(found) in _PLAIN and not found:
        return CheckResult(status=CheckStatus.RAN, elapsed_ms=elapsed_ms)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        return _failed(CheckStatus.ERRORED, f"gave {type(found).__name__}, not findings", elapsed_ms)
    lines = _Lines(text.text)
    valid: list[Finding] = []
    reason = ""
    for finding in found:
        fault = _fault(check, finding, len(text.text))
        if fault:
            reason = reason or fault
        else:
            valid.append(lines.placed(finding, text.field, check.id))
    status = CheckStatus.ERRORED if reason else CheckStatus.RAN
    return CheckResult(status=status, findings=tuple(valid), elapsed_ms=elapsed_ms, reason=reason)


def _fault(check: Check, finding: Any, length: int) -> str:
    """What is wrong with a finding; empty when nothing is."""
    if not isinstance(finding, Finding):
        return f"gave {type(finding).__name__}, not a finding"
    score: Any = finding.score  # a struct made in code does not check its fields
    if not isinstance(score, float | int) or not math.isfinite(score):
        return "gave a score that is no number"
    if not 0.0 <= score <= 1.0:
        return f"gave the score {score:g}, outside [0, 1]"
    start, end = finding.location.start, finding.location.end
    if not 0 <= start <= end <= length:
        return f"gave the span {start}:{end} of a text of {length} characters"
    if finding.category not in taxonomy():
        return f"gave the unknown category {finding.category[:80]!r}"
    if finding.category not in check.detector.categories:
        return f"gave the category {finding.category!r}, which it does not declare"
    return ""


def placed_in(text: str, findings: Sequence[Finding], field: str, detector: str) -> tuple[Finding, ...]:
    """Findings in offsets of `text`, with its lines and columns, under its field's name."""
    lines = _Lines(text)
    return tuple(lines.placed(finding, field, detector) for finding in findings)


class _Lines:
    """Line and column of an offset; the lines are looked up only when there is a finding."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: list[int] | None = None

    def placed(self, finding: Finding, field: str, detector: str) -> Finding:
        """The finding under its field's name and its check's id, with line and column."""
        if self._ends is None:
            self._ends = [index for index, character in enumerate(self._text) if character == "\n"]
        start = finding.location.start
        line = bisect.bisect_left(self._ends, start)
        column = start - (self._ends[line - 1] if line else -1)
        location = Location(start=start, end=finding.location.end, field=field, line=line + 1, column=column)
        return msgspec.structs.replace(finding, detector=detector, location=location)


def _broke(error: BaseException, started_ns: int) -> CheckResult:
    """A check that raised: its declared outcome takes over, its words stay out."""
    return _failed(CheckStatus.ERRORED, f"raised {type(error).__name__}", _ms_since(started_ns))


def _failed(status: CheckStatus, reason: str, elapsed_ms: float = 0.0) -> CheckResult:
    return CheckResult(status=status, reason=reason, elapsed_ms=elapsed_ms)


def _at_once(detector: Any) -> tuple[int, bool]:
    """Up to how many characters a check may run on the caller's thread, and whether context counts.

    A hand-over to a worker costs more than a check that is packaged, linear-time and has little to read. A
    slower detector may say with `quick_characters` up to how much text, with the context that it reads beside
    it, it is quick all the same. Other people's detectors are never trusted so far.
    """
    if _waits(detector) or not type(detector).__module__.startswith(_PACKAGED):
        return 0, False
    if Cost(detector.cost) is Cost.MICROSECONDS:
        return AT_ONCE_CHARACTERS, False
    return int(getattr(detector, "quick_characters", 0)), True


def may_all_run_at_once(checks: Sequence[Check], texts: Sequence[CheckInput]) -> bool:
    """Whether every check may run on the caller's thread; as `_may_run_at_once`, with sizes taken once."""
    size, context = 0, -1
    for text in texts:
        size += len(text.text)
    for check in checks:
        if not check.at_once_characters or size > check.at_once_characters:
            return False
        if check.counts_context:
            context = sum(map(_context_size, texts)) if context < 0 else context
            if size + context > check.at_once_characters:
                return False
    return True


def _may_run_at_once(check: Check, texts: Sequence[CheckInput]) -> bool:
    """Whether a check may run on the caller's thread over these texts."""
    if not check.at_once_characters:
        return False
    size = sum([len(text.text) for text in texts])
    if check.counts_context:
        size += sum(map(_context_size, texts))
    return size <= check.at_once_characters


def _context_size(text: CheckInput) -> int:
    size = 0
    for words in text.context.values():
        for word in words:
            size += len(word)
    return size


def _waits(detector: Any) -> bool:
    return hasattr(detector, "adetect")


def _ms_since(started_ns: int) -> float:
    return (time.monotonic_ns() - started_ns) / 1e6
