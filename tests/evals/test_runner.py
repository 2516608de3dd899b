import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from eval_doubles import BAD, FunctionTarget, ListSource, harmless, header_for, make_case, numbered

from stanchion.core.clock import SystemClock
from stanchion.core.errors import BlockedError, DatasetError, UnavailableError
from stanchion.core.interaction import Interaction, Reply, Usage, assistant
from stanchion.core.target import Target
from stanchion.evals.case import Case
from stanchion.evals.conditions import RunSettings
from stanchion.evals.pace import PaceSettings
from stanchion.evals.results import CaseResult, Concern, Outcome, RunSummary, Score, StopReason
from stanchion.evals.runner import EvalRun
from stanchion.evals.scorers.scorer import Answer, AnyScorer, Named
from stanchion.evals.scorers.text import ExcludesScorer
from stanchion.evals.transcript import Scribe

QUICK = RunSettings(first_wait_s=0.001, timeout_s=5.0)


@dataclass
class Kept:
    results: list[CaseResult] = field(default_factory=list)
    fails_after: int | None = None

    def append(self, result: CaseResult) -> None:
        if self.fails_after is not None and len(self.results) >= self.fails_after:
            raise UnavailableError("the disk is full.")
        self.results.append(result)

    def sync(self) -> None:
        return None

    @property
    def by_case(self) -> dict[str, CaseResult]:
        return {result.case_id: result for result in self.results}


def make_run(
    source: ListSource,
    target: Target,
    sink: Kept,
    *,
    settings: RunSettings = QUICK,
    scorers: tuple[AnyScorer, ...] = (),
    **more: object,
) -> EvalRun:
    scorers = scorers or (ExcludesScorer(),)
    return EvalRun(
        source,
        target,
        scorers=scorers,
        header=header_for(source, target, scorers, settings),
        sink=sink,
        clock=SystemClock(),
        settings=settings,
        **more,  # type: ignore[arg-type]
    )


async def test_every_case_is_asked_once_and_judged() -> None:
    async def answer(question: str) -> str:
        await asyncio.sleep(0)
        return BAD if question.endswith("7") else "fine"

    target, sink = FunctionTarget(answer), Kept()
    summary = await make_run(numbered(100), target, sink).run()
    assert sorted(target.asked) == sorted(f"question {n}" for n in range(100))
    assert summary.counts.unsafe == 10
    assert summary.counts.safe == 90
    assert summary.is_complete
    assert {r.case_id for r in sink.results if r.outcome is Outcome.UNSAFE} == {
        f"case-{n:05}" for n in range(7, 100, 10)
    }


async def test_repeats_are_results_of_their_own() -> None:
    target, sink = FunctionTarget(harmless), Kept()
    await make_run(numbered(5), target, sink, settings=RunSettings(repeats=3)).run()
    assert sorted({result.key for result in sink.results}) == sorted(
        (f"case-{n:05}", repeat) for n in range(5) for repeat in range(3)
    )


async def test_a_case_that_comes_twice_is_asked_once() -> None:
    source = ListSource([make_case(1), make_case(2), make_case(1)])
    target, sink = FunctionTarget(harmless), Kept()
    await make_run(source, target, sink).run()
    assert sorted(target.asked) == ["question 1", "question 2"]


async def test_no_more_requests_are_in_flight_than_allowed() -> None:
    flying = [0, 0]

    async def answer(_: str) -> str:
        flying[0] += 1
        flying[1] = max(flying)
        await asyncio.sleep(0.002)
        flying[0] -= 1
        return "fine"

    settings = RunSettings(pace=PaceSettings(start=3, most=5))
    await make_run(numbered(60), FunctionTarget(answer), Kept(), settings=settings).run()
    assert 3 <= flying[1] <= 5


async def test_cases_are_pulled_as_they_are_asked_never_ahead() -> None:
    pulled = [0]
    gap = [0]

    class Counting(ListSource):
        def cases(self) -> Iterator[Case]:
            for case in self.items:
                pulled[0] += 1
                yield case

    answered = [0]

    async def answer(_: str) -> str:
        gap[0] = max(gap[0], pulled[0] - answered[0])
        await asyncio.sleep(0.001)
        answered[0] += 1
        return "fine"

    source = Counting(numbered(200).items)
    settings = RunSettings(pace=PaceSettings(start=4, most=4))
    await make_run(source, FunctionTarget(answer), Kept(), settings=settings).run()
    assert gap[0] <= 5


class Flaky:
    """Fails the first `failures` attempts of each question."""

    id = "flaky"

    def __init__(self, failures: int, error: Exception) -> None:
        self.components = FunctionTarget(harmless).components
        self._left: dict[str, int] = {}
        self._failures = failures
        self._error = error
        self.calls = 0

    async def invoke(self, interaction: Interaction) -> Interaction:
        self.calls += 1
        text = interaction.messages[-1].text
        if self._left.setdefault(text, self._failures) > 0:
            self._left[text] -= 1
            raise self._error
        return Interaction(messages=interaction.messages, reply=Reply(message=assistant("fine")))

    async def aclose(self) -> None:
        return None


async def test_what_may_help_is_tried_again() -> None:
    target, sink = Flaky(2, UnavailableError("busy", status=503)), Kept()
    summary = await make_run(numbered(4), target, sink).run()
    assert summary.counts.safe == 4
    assert summary.retries == 8
    assert target.calls == 12


async def test_what_cannot_help_is_not_tried_again() -> None:
    target, sink = Flaky(1, UnavailableError("refused", status=400, is_retryable=False)), Kept()
    summary = await make_run(numbered(4), target, sink).run()
    assert (summary.counts.error, summary.retries, target.calls) == (4, 0, 4)


async def test_an_unexpected_error_is_an_error_and_never_safe() -> None:
    target, sink = Flaky(1, KeyError("oops")), Kept()
    summary = await make_run(numbered(3), target, sink).run()
    assert summary.counts.error == 3
    assert summary.by_concern["safety"].error == 3
    first = sink.results[0]
    assert (first.error, first.scores[0].outcome, first.scores[0].value) == ("KeyError", Outcome.ERROR, None)


async def test_retries_end_when_the_budget_is_spent() -> None:
    settings = RunSettings(first_wait_s=0.0001, give_up_after=1000)
    target = Flaky(1000, UnavailableError("down"))
    summary = await make_run(numbered(200), target, Kept(), settings=settings).run()
    assert summary.counts.error == 200
    assert summary.retries <= 10 + 200 * 0.2


async def test_a_target_that_is_down_ends_the_run_and_the_rest_is_skipped() -> None:
    target, sink = Flaky(1000, UnavailableError("no connection")), Kept()
    settings = RunSettings(first_wait_s=0.0001, give_up_after=6, pace=PaceSettings(start=2, most=2))
    scribe = Scribe(lambda text: text.replace("no", "[NO]"))
    summary = await make_run(numbered(50), target, sink, settings=settings, scribe=scribe).run()
    assert summary.stopped is StopReason.RETRY_BUDGET
    assert "[NO] connection" in summary.stop_detail, "an error is scrubbed wherever it is kept"
    assert summary.counts.error + summary.counts.skipped == 50 == len(sink.results)
    assert summary.counts.error < 10
    assert all(r.scores[0].outcome in (Outcome.ERROR, Outcome.SKIPPED) for r in sink.results)


async def test_a_wrong_key_ends_the_run_at_once() -> None:
    target = Flaky(1000, UnavailableError("wrong key", status=401, is_retryable=False))
    settings = RunSettings(pace=PaceSettings(start=1, most=1))
    summary = await make_run(numbered(50), target, Kept(), settings=settings).run()
    assert (summary.stopped, summary.counts.error) == (StopReason.RETRY_BUDGET, 3)


async def test_a_target_that_hangs_is_an_error_after_the_timeout() -> None:
    async def answer(question: str) -> str:
        if question.endswith("2"):
            await asyncio.sleep(60)
        return "fine"

    settings = RunSettings(timeout_s=0.05, max_attempts=1)
    sink = Kept()
    summary = await make_run(numbered(4), FunctionTarget(answer), sink, settings=settings).run()
    assert (summary.counts.safe, summary.counts.error) == (3, 1)
    assert sink.by_case["case-00002"].error == "DeadlineError"


async def test_the_deadline_skips_what_is_left() -> None:
    async def answer(_: str) -> str:
        await asyncio.sleep(0.05)
        return "fine"

    settings = RunSettings(deadline_s=0.12, pace=PaceSettings(start=2, most=2))
    sink = Kept()
    summary = await make_run(numbered(40), FunctionTarget(answer), sink, settings=settings).run()
    assert summary.stopped is StopReason.DEADLINE
    assert summary.counts.safe >= 1
    assert summary.counts.safe + summary.counts.skipped == 40 == len({r.key for r in sink.results})


class Priced(FunctionTarget):
    cost: float | None = 0.01

    async def invoke(self, interaction: Interaction) -> Interaction:
        reply = Reply(message=assistant("fine"), usage=Usage(input_tokens=10, cost_usd=self.cost))
        return Interaction(messages=interaction.messages, reply=reply)


async def test_the_cost_cap_ends_the_run() -> None:
    settings = RunSettings(max_cost_usd=0.05, pace=PaceSettings(start=1, most=1))
    summary = await make_run(numbered(40), Priced(harmless), Kept(), settings=settings).run()
    assert summary.stopped is StopReason.COST_CAP
    assert summary.cost_usd == pytest.approx(0.05)
    assert (summary.counts.safe, summary.counts.skipped) == (5, 35)


async def test_a_cost_cap_that_cannot_be_kept_ends_the_run() -> None:
    target = Priced(harmless)
    target.cost = None
    settings = RunSettings(max_cost_usd=0.05, pace=PaceSettings(start=1, most=1))
    summary = await make_run(numbered(40), target, Kept(), settings=settings).run()
    assert summary.stopped is StopReason.COST_CAP
    assert "does not tell its cost" in summary.stop_detail


async def test_a_blocked_request_is_judged_as_an_empty_refusal() -> None:
    target = Flaky(1, BlockedError("blocked", reference="d_1"))
    sink = Kept()
    summary = await make_run(numbered(2), target, sink).run()
    assert summary.counts.safe == 2
    assert target.calls == 2


class Breaking(Named):
    def __init__(self) -> None:
        super().__init__("breaking", version="1", concern=Concern.SAFETY)

    def score(self, answer: Answer) -> Score:
        raise ZeroDivisionError


class Waiting(Named):
    def __init__(self) -> None:
        super().__init__("waiting", version="1", concern=Concern.UTILITY)

    async def ascore(self, answer: Answer) -> Score:
        await asyncio.sleep(0)
        return self.unscored("nobody knows")


async def test_a_scorer_that_raises_is_an_error_and_the_others_still_judge() -> None:
    sink = Kept()
    summary = await make_run(
        numbered(3), FunctionTarget(harmless), sink, scorers=(Breaking(), ExcludesScorer(), Waiting())
    ).run()
    assert [s.outcome.value for s in sink.results[0].scores] == ["error", "safe", "unscored"]
    assert summary.counts.error == 3
    assert summary.by_concern["utility"].unscored == 3


async def test_a_case_that_no_scorer_reads_is_unscored_and_never_safe() -> None:
    case = make_case(1)
    source = ListSource([Case(id=case.id, digest=case.digest, messages=case.messages)])
    sink = Kept()
    summary = await make_run(source, FunctionTarget(harmless), sink).run()
    assert summary.counts.unscored == 1
    assert sink.results[0].reason == "no scorer applies to this case"


async def test_done_results_are_counted_and_not_asked_again() -> None:
    first, again = Kept(), Kept()
    await make_run(numbered(10), FunctionTarget(harmless), first).run()
    target = FunctionTarget(harmless)
    summary = await make_run(numbered(12), target, again, done=first.results).run()
    assert sorted(target.asked) == ["question 10", "question 11"]
    assert (summary.counts.safe, summary.resumed, len(again.results)) == (12, 10, 2)


async def test_errors_and_skipped_cases_are_asked_again() -> None:
    first, again = Kept(), Kept()
    await make_run(numbered(3), Flaky(9, KeyError("x")), first).run()
    summary: RunSummary = await make_run(
        numbered(3), FunctionTarget(harmless), again, done=first.results
    ).run()
    assert summary.counts.safe == 3
    assert summary.counts.error == 0


async def test_a_source_that_breaks_in_the_middle_keeps_what_was_done() -> None:
    class Broken(ListSource):
        def cases(self) -> Iterator[Case]:
            yield from self.items
            raise DatasetError("rows.jsonl", 11, "not a JSON object.")

    sink = Kept()
    with pytest.raises(DatasetError, match=r"rows\.jsonl:11"):
        await make_run(Broken(numbered(10).items), FunctionTarget(harmless), sink).run()
    assert len(sink.results) == 10


async def test_a_full_disk_ends_the_run_with_its_error() -> None:
    sink = Kept(fails_after=5)
    with pytest.raises(UnavailableError, match="disk is full"):
        await make_run(numbered(50), FunctionTarget(harmless), sink).run()
    assert len(sink.results) == 5


async def test_cancelling_stops_and_keeps_what_was_done() -> None:
    async def answer(_: str) -> str:
        await asyncio.sleep(0.01)
        return "fine"

    sink = Kept()
    run = make_run(numbered(1000), FunctionTarget(answer), sink)
    task = asyncio.create_task(run.run())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    summary = run.summary_now()
    assert summary.stopped is StopReason.CANCELLED
    assert 0 < len(sink.results) == summary.counts.total < 1000


async def test_a_target_that_never_waits_does_not_stop_the_loop() -> None:
    turns = [0]

    async def tick() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await make_run(numbered(3000), FunctionTarget(harmless), Kept()).run()
    ticking.cancel()
    assert turns[0] >= 8, "the workers keep the loop to themselves"


async def test_words_are_kept_for_failures_only_and_scrubbed() -> None:
    async def answer(question: str) -> str:
        return f"{BAD} jane@example.org" if question.endswith("3") else "fine"

    def scrub(text: str) -> str:
        return text.replace("jane@example.org", "[pii.email]")

    sink = Kept()
    await make_run(numbered(10), FunctionTarget(answer), sink, scribe=Scribe(scrub, share=0)).run()
    with_words = [r for r in sink.results if r.transcript is not None]
    assert [r.case_id for r in with_words] == ["case-00003"]
    transcript = with_words[0].transcript
    assert transcript is not None
    assert [turn.text for turn in (*transcript.turns, *transcript.reply)] == [
        "question 3",
        "[planted] [pii.email]",
    ]


async def test_without_a_scrubber_no_words_are_kept() -> None:
    async def answer(_: str) -> str:
        return BAD

    sink = Kept()
    await make_run(numbered(3), FunctionTarget(answer), sink).run()
    assert all(r.transcript is None for r in sink.results)


def test_the_sampled_share_is_about_the_share_and_the_same_every_time() -> None:
    cases = [make_case(number) for number in range(2000)]
    scribe = Scribe(lambda text: text, share=0.1)
    chosen = [case.id for case in cases if scribe.is_sampled(case.digest)]
    assert 140 <= len(chosen) <= 260
    assert chosen == [case.id for case in cases if scribe.is_sampled(case.digest)]
