from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from eval_doubles import FunctionTarget, header_for, numbered
from test_runner import Kept

from stanchion.core.clock import ManualClock, SystemClock
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import FinishReason, Interaction, Reply, assistant, user
from stanchion.evals.cache import AnswerCache, CachedTarget, cache_key
from stanchion.evals.conditions import RunSettings
from stanchion.evals.results import RunSummary
from stanchion.evals.runner import EvalRun
from stanchion.evals.scorers.text import ExcludesScorer

SECRET = "jane.doe@shop.example"
QUESTION = Interaction(messages=(user(f"What is the mail of Jane? Not {SECRET}?"),))
MODEL = ComponentSet(model="sha256:" + "1" * 64)
REPLY = Reply(message=assistant(f"It is {SECRET}"), latency_ms=12.5)


def cache(path: Path | None = None, **options: object) -> AnswerCache:
    return AnswerCache(path, clock=ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), **options)  # type: ignore[arg-type]


def test_an_answer_comes_back_marked_with_its_request(tmp_path: Path) -> None:
    first = cache(tmp_path / "a.sqlite")
    key = cache_key(QUESTION, MODEL)
    assert first.find(key) is None
    first.keep(key, REPLY)
    first.close()
    again = cache(tmp_path / "a.sqlite")
    found = again.find(key)
    assert found == msgspec.structs.replace(REPLY, reused_from=key.request)
    assert not again.was_asked_here(key.request)
    assert first.was_asked_here(key.request)


def test_the_file_tells_nothing_of_the_words(tmp_path: Path) -> None:
    one = cache(tmp_path / "a.sqlite")
    one.keep(cache_key(QUESTION, MODEL), REPLY)
    one.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for word in (SECRET, "jane", "shop.example", "assistant", "It is"):
        assert word.encode() not in written
    assert (tmp_path / "a.sqlite").stat().st_mode & 0o077 == 0


def test_another_question_model_or_repeat_is_another_answer() -> None:
    one = cache()
    one.keep(cache_key(QUESTION, MODEL), REPLY)
    others = [
        cache_key(Interaction(messages=(user("else"),)), MODEL),
        cache_key(QUESTION, ComponentSet(model="sha256:" + "2" * 64)),
        cache_key(msgspec.structs.replace(QUESTION, labels={"repeat": "1"}), MODEL),
    ]
    assert [one.find(key) for key in others] == [None, None, None]
    same = msgspec.structs.replace(QUESTION, id="i_2", environment="prod", labels={"x": "y"})
    assert one.find(cache_key(same, MODEL)) is not None


def test_a_damaged_or_foreign_answer_is_asked_for_again(tmp_path: Path) -> None:
    one = cache(tmp_path / "a.sqlite")
    key = cache_key(QUESTION, MODEL)
    one.keep(key, REPLY)
    one._db.execute("UPDATE answers SET sealed = zeroblob(80)")
    assert one.find(key) is None


def test_an_old_answer_is_asked_for_again() -> None:
    clock = ManualClock()
    one = AnswerCache(None, clock=clock, max_age_s=60)
    key = cache_key(QUESTION, MODEL)
    one.keep(key, REPLY)
    clock.advance(59)
    assert one.find(key) is not None
    clock.advance(2)
    assert one.find(key) is None


def test_an_answer_that_broke_off_is_not_kept() -> None:
    one = cache()
    key = cache_key(QUESTION, MODEL)
    one.keep(key, msgspec.structs.replace(REPLY, finish_reason=FinishReason.ERROR))
    assert one.find(key) is None
    assert one.was_asked_here(key.request)


def test_a_file_that_is_no_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_text("no database, but a text that is long enough to be looked at " * 20)
    with pytest.raises(UnavailableError, match="only a cache"):
        cache(tmp_path / "a.sqlite")


async def answer(question: str) -> str:
    return f"about {question}"


async def run(target: FunctionTarget, answers: AnswerCache) -> RunSummary:
    source, scorers = numbered(10), (ExcludesScorer(),)
    one = EvalRun(
        source,
        CachedTarget(target, answers),
        scorers=scorers,
        header=header_for(source, target, scorers),
        sink=Kept(),
        clock=SystemClock(),
        settings=RunSettings(),
        answers=answers,
    )
    return await one.run()


async def test_answers_of_this_run_are_reused_and_those_of_earlier_ones_are_cached(tmp_path: Path) -> None:
    path, target = tmp_path / "a.sqlite", FunctionTarget(answer)
    with_cache = cache(path)
    first = await run(target, with_cache)
    twin = await run(target, with_cache)
    later = await run(target, cache(path))
    fresh = await run(target, cache(path, fresh=True))
    assert [(s.cached, s.reused) for s in (first, twin, later, fresh)] == [(0, 0), (0, 10), (10, 0), (0, 0)]
    assert len(target.asked) == 20


async def test_a_fresh_cache_still_shares_answers_between_the_arms_of_one_run(tmp_path: Path) -> None:
    path, target = tmp_path / "a.sqlite", FunctionTarget(answer)
    await run(target, cache(path))
    fresh = cache(path, fresh=True)
    await run(target, fresh)
    assert (await run(target, fresh)).reused == 10
    assert len(target.asked) == 20


async def test_a_cache_that_breaks_costs_time_and_no_result(tmp_path: Path) -> None:
    one, target = cache(tmp_path / "a.sqlite"), FunctionTarget(answer)
    one._db.execute("DROP TABLE answers")
    summary = await run(target, one)
    assert (summary.counts.safe, len(target.asked)) == (10, 10)
