"""From a suite file to a run in its folder, and on with it."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from eval_doubles import FunctionTarget, harmless, numbered

from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.evals.conditions import RunSettings
from stanchion.evals.kept_criteria import kept_criteria
from stanchion.evals.results import Outcome, StopReason, TargetKind
from stanchion.evals.run_suite import Surroundings, open_run, run_suite, settings_of
from stanchion.evals.runlog import RunFolder, RunReader
from stanchion.evals.scorers.text import ExcludesScorer
from stanchion.evals.suite import load_suite

SCORERS = (ExcludesScorer(),)


def around(folder: Path) -> Surroundings:
    return Surroundings(runs=RunFolder(folder / "runs"))


async def test_a_suite_file_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(
        "suite: s\nsystem: Be kind.\nrepeats: 2\nseed: 9\n"
        "limits: {concurrency: 3, timeout: 5s, deadline: 1m, cost_usd: 2, attempts: 1, requests_per_s: 500}\n"
        "criteria: [{metric: unsafe_rate, limit: 10%}]\n"
        "cases: [{prompt: a, expect: {excludes: x}}, {prompt: b, expect: {excludes: x}}]\n"
    )
    suite = load_suite(tmp_path / "suite.yaml")
    settings = settings_of(suite)
    assert (settings.pace.most, settings.pace.start, settings.pace.max_per_s) == (3, 3, 500)
    assert (settings.timeout_s, settings.deadline_s, settings.max_cost_usd) == (5, 60, 2)
    settings = msgspec.structs.replace(settings, max_cost_usd=None)
    done = await run_suite(
        suite, FunctionTarget(harmless), scorers=SCORERS, around=around(tmp_path), settings=settings
    )
    assert (done.header.planned, done.summary.counts.safe, done.header.seed) == (4, 4, 9)
    assert done.header.components.prompt == suite.components.prompt
    assert done.header.suite_digest == suite.digest
    assert done.header.scorers == {"excludes": "1"}
    assert [c.metric for c in kept_criteria(Path(done.location))] == ["unsafe_rate"]
    with RunReader(Path(done.location)) as reader:
        assert reader.verify() == 4


async def test_a_run_of_other_conditions_cannot_go_on(tmp_path: Path) -> None:
    target = FunctionTarget(harmless)
    await run_suite(numbered(3), target, scorers=SCORERS, around=around(tmp_path))

    async def again(count: int = 3, **changed: object) -> None:
        other = FunctionTarget(harmless, **changed)  # type: ignore[arg-type]
        await run_suite(numbered(count), other, scorers=SCORERS, around=around(tmp_path), resume="latest")

    await again()
    with pytest.raises(UsageError, match="suite changed"):
        await again(4)
    with pytest.raises(UsageError, match="target changed"):
        await again(id="another")
    with pytest.raises(UsageError, match="model changed"):
        await again(components=ComponentSet(model="sha256:" + "0" * 64))
    with pytest.raises(UsageError, match="settings or scorers"):
        await run_suite(
            numbered(3),
            target,
            scorers=SCORERS,
            around=around(tmp_path),
            settings=RunSettings(repeats=2),
            resume="latest",
        )
    with pytest.raises(UsageError, match="kind of target"):
        await run_suite(
            numbered(3),
            target,
            scorers=SCORERS,
            around=around(tmp_path),
            kind=TargetKind.SCRIPTED,
            resume="latest",
        )


async def test_a_stopped_run_is_kept_and_goes_on(tmp_path: Path) -> None:
    async def slow(_: str) -> str:
        await asyncio.sleep(0.01)
        return "fine"

    task = asyncio.create_task(
        run_suite(numbered(500), FunctionTarget(slow), scorers=SCORERS, around=around(tmp_path))
    )
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped = open_run(RunFolder(tmp_path / "runs").find("latest"))
    assert stopped.summary.stopped is StopReason.CANCELLED
    assert 0 < stopped.summary.counts.total < 500
    target = FunctionTarget(harmless)
    done = await run_suite(numbered(500), target, scorers=SCORERS, around=around(tmp_path), resume="latest")
    assert done.summary.is_complete
    assert len(target.asked) == 500 - stopped.summary.counts.total
    assert len({result.key for result in done.results()}) == 500 == done.summary.counts.total


async def test_a_run_without_an_end_says_so(tmp_path: Path) -> None:
    done = await run_suite(numbered(5), FunctionTarget(harmless), scorers=SCORERS, around=around(tmp_path))
    (Path(done.location) / "summary.json").unlink()
    cut = open_run(Path(done.location))
    assert not cut.summary.is_complete
    assert (cut.summary.stop_detail, cut.summary.counts.safe) == ("the run was cut off", 5)


async def test_results_can_be_walked_again_and_filtered(tmp_path: Path) -> None:
    async def answer(question: str) -> str:
        return "forbidden" if question.endswith("1") else "fine"

    done = await run_suite(numbered(12), FunctionTarget(answer), scorers=SCORERS, around=around(tmp_path))
    assert len(list(done.results())) == len(list(done.results())) == 12
    assert {r.case_id for r in done.results(outcomes=[Outcome.UNSAFE])} == {"case-00001", "case-00011"}
