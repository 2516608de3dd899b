"""One call from a suite and a target to a finished run in its folder."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stanchion.core.clock import Clock, Ids, SortableIds, SystemClock
from stanchion.core.components import ComponentSet
from stanchion.core.target import Target
from stanchion.evals.conditions import CaseSource, RunSettings, check_resumable, make_header
from stanchion.evals.kept_criteria import keep_criteria
from stanchion.evals.pace import PaceSettings
from stanchion.evals.progress import Observer
from stanchion.evals.results import CaseResult, RunHeader, RunSummary, StopReason, TargetKind
from stanchion.evals.rundata import RunData
from stanchion.evals.runlog import RunFolder, RunReader, RunWriter
from stanchion.evals.runlog_chain import check_counts
from stanchion.evals.runlog_segments import SEGMENT_BYTES
from stanchion.evals.runner import Answers, EvalRun
from stanchion.evals.scorers.scorer import AnyScorer
from stanchion.evals.suite import Suite
from stanchion.evals.summary import Counts
from stanchion.evals.transcript import Scribe

DEFAULT_RUNS = Path(".stanchion") / "runs"
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs beside the suite and the target; everything has a default but the folder.

    `scrub` takes personal data and secrets out of a text; without one no text is stored. `answers` is the
    cache that the target was wrapped in, if it was.
    """

    runs: RunFolder
    clock: Clock = _CLOCK
    ids: Ids | None = None
    observer: Observer | None = None
    answers: Answers | None = None
    scrub: Callable[[str], str] | None = None
    version: str = ""
    notes: tuple[str, ...] = ()
    segment_bytes: int = SEGMENT_BYTES

    def new_ids(self) -> Ids:
        """The given ids, or ones that sort by time."""
        return self.ids or SortableIds(self.clock)


def settings_of(suite: Suite) -> RunSettings:
    """How the suite's own file says it is to be run."""
    file, limits, base = suite.file, suite.file.limits, RunSettings()
    most = limits.concurrency or base.pace.most
    return RunSettings(
        repeats=file.repeats,
        seed=file.seed,
        pace=PaceSettings(start=min(base.pace.start, most), most=most, max_per_s=limits.requests_per_s),
        timeout_s=limits.timeout.total_seconds() if limits.timeout else base.timeout_s,
        deadline_s=limits.deadline.total_seconds() if limits.deadline else None,
        max_cost_usd=limits.cost_usd,
        max_attempts=limits.attempts or base.max_attempts,
    )


async def run_suite(
    suite: CaseSource,
    target: Target,
    *,
    scorers: tuple[AnyScorer, ...],
    around: Surroundings,
    settings: RunSettings | None = None,
    kind: TargetKind = TargetKind.REAL,
    components: ComponentSet | None = None,
    resume: str = "",
) -> RunData:
    """Run a suite, or go on with a run that was cut off, and write it all to the run's folder.

    Args:
        suite: the cases; a `Suite`, or anything that gives cases.
        target: what is asked. The caller closes it.
        scorers: from `scorers.build.build_scorers`.
        around: folder, clock, cache, observer, scrubber.
        settings: pace, caps, repeats; default `settings_of(suite)` for a `Suite`.
        kind: whether a real target answers.
        components: what the suite puts before the target; default the suite's own.
        resume: a run's id, the beginning of one, `latest`, or its folder.

    Raises:
        UsageError: when the run to resume was made under other conditions.
        DatasetError: when a row cannot be read; what was judged before is kept.
        UnavailableError: when the disk refuses; what was judged before is kept.
    """
    if isinstance(suite, Suite):
        settings = settings or settings_of(suite)
        components = components or suite.components
    settings = settings or RunSettings()
    header = make_header(
        suite,
        target,
        scorers=scorers,
        settings=settings,
        clock=around.clock,
        ids=around.new_ids(),
        kind=kind,
        components=components,
        version=around.version,
        notes=around.notes,
    )
    folder = around.runs.find(resume) if resume else around.runs.path(header.run_id)
    if resume:
        header = _resumed_header(folder, header)
    run = _make_run(
        suite, target, header, folder, scorers=scorers, around=around, settings=settings, resume=bool(resume)
    )
    if isinstance(suite, Suite):
        keep_criteria(folder, suite.file.criteria)
    with run.writer as writer:
        try:
            summary = await run.eval_run.run()
        except asyncio.CancelledError:
            writer.finish(run.eval_run.summary_now())
            raise
        writer.finish(summary)
    return open_run(folder)


@dataclass(frozen=True, slots=True)
class _Ready:
    eval_run: EvalRun
    writer: RunWriter


def _make_run(
    suite: CaseSource,
    target: Target,
    header: RunHeader,
    folder: Path,
    *,
    scorers: tuple[AnyScorer, ...],
    around: Surroundings,
    settings: RunSettings,
    resume: bool,
) -> _Ready:
    reader = RunReader(folder) if resume else None
    size = around.segment_bytes
    if resume:
        writer = RunWriter.resume(folder, segment_bytes=size)
    else:
        writer = RunWriter.create(folder, header, segment_bytes=size)
    try:
        eval_run = EvalRun(
            suite,
            target,
            scorers=scorers,
            header=header,
            sink=writer,
            clock=around.clock,
            settings=settings,
            scribe=Scribe(around.scrub, share=settings.transcript_share),
            observer=around.observer,
            answers=around.answers,
            done=reader.results() if reader is not None else (),
        )
    except BaseException:
        writer.close()
        raise
    finally:
        if reader is not None:
            reader.close()
    return _Ready(eval_run, writer)


def _resumed_header(folder: Path, now: RunHeader) -> RunHeader:
    with RunReader(folder) as reader:
        check_resumable(reader.header, now)
        return reader.header


def open_run(folder: Path, *, title: str = "") -> RunData:
    """A run in its folder, to be shown, compared and judged; one that was cut off says so.

    Its results are checked while they are read, each time: every record against the hash chain, the end of
    the chain and the counts against the summary.

    Raises:
        UsageError: when the folder is no run.
        IntegrityError: when the summary or a record was changed; while results are read too.
    """
    with RunReader(folder) as reader:
        told = reader.summary
        summary = told or _cut_off(reader)
    location = str(folder)

    def results() -> Iterator[CaseResult]:
        seen: Counter[str] = Counter()
        with RunReader(folder) as again:
            for result in again.results():
                seen[result.outcome] += 1
                yield result
        if told is not None:
            check_counts(folder, seen, told.counts)

    return RunData(
        header=reader.header, summary=summary, open_results=results, title=title, location=location
    )


def _cut_off(reader: RunReader) -> RunSummary:
    """The counts of a run that has no summary: it was killed, or it still goes on."""
    counts = Counts()
    for result in reader.results():
        counts.add(result)
    return counts.summary(
        reader.header,
        finished_at=reader.header.started_at,
        stopped=StopReason.CANCELLED,
        stop_detail="the run still goes on" if reader.is_being_written else "the run was cut off",
        elapsed_s=0.0,
        asked=0,
        retries=0,
        resumed=0,
    )
