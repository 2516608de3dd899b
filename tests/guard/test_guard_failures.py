"""Every way in which a check can fail, and that each is handled exactly as declared."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from guard_fakes import Hang, Misbehaving, Remote, Words, finding, guard, policy, rule, timed, with_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.decision import CheckStatus, Effect, Mode, OnFailure, Surface
from stanchion.core.errors import UsageError
from stanchion.core.finding import Cost
from stanchion.core.interaction import Interaction, user
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.rules import Operator
from stanchion.guard.workers import WorkerPool


def raising(_: Any) -> Any:
    raise RuntimeError("secret text in an error")


def exiting(_: Any) -> Any:
    raise SystemExit(1)


def giving(value: Any) -> Any:
    return lambda _: value


GARBAGE = [
    (giving(None), "NoneType"),
    (giving("findings"), "str"),
    (giving(["finding"]), "not a finding"),
    (giving([finding(score=1.2)]), "outside [0, 1]"),
    (giving([finding(score=-0.1)]), "outside [0, 1]"),
    (giving([finding(score=float("nan"))]), "no number"),
    (giving([finding(score="high")]), "no number"),  # type: ignore[arg-type]
    (giving([finding(5, 3)]), "span 5:3"),
    (giving([finding(-1, 3)]), "span -1:3"),
    (giving([finding(0, 4000)]), "span 0:4000"),
    (giving([finding(category="pii.emial")]), "unknown category"),
    (giving([finding(category="secret.jwt")]), "does not declare"),
    (raising, "RuntimeError"),
    (exiting, "SystemExit"),
]


@pytest.mark.parametrize(("behave", "reason"), GARBAGE)
@pytest.mark.parametrize("fail", [OnFailure.CLOSED, OnFailure.OPEN])
def test_a_broken_detector_has_its_declared_outcome(behave: Any, reason: str, fail: OnFailure) -> None:
    made = guard(policy(rule("redact"), detectors=with_settings(fail=fail)), Misbehaving(behave))

    checked = made.check("hello there")

    (record,) = checked.decision.checks
    assert record.status is CheckStatus.ERRORED
    assert reason in record.reason
    assert checked.decision.outcome is fail
    assert checked.allowed is (fail is OnFailure.OPEN)
    assert checked.decision.effect is (Effect.ALLOW if fail is OnFailure.OPEN else Effect.BLOCK)
    assert "secret text" not in repr(checked.decision)
    if fail is OnFailure.CLOSED:
        assert checked.decision.rule_ids == ("fail.pii",)
        assert checked.text != "hello there"


def test_valid_findings_beside_garbage_still_count() -> None:
    behave = giving([finding(0, 5), finding(score=7.0)])
    made = guard(policy(rule("redact"), detectors=with_settings(fail=OnFailure.OPEN)), Misbehaving(behave))

    assert made.check("hello there").text == "[EMAIL] there"


@pytest.mark.parametrize("fail", [OnFailure.CLOSED, OnFailure.OPEN])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_hung_detector_costs_its_deadline_and_no_more(fail: OnFailure, is_async: bool) -> None:
    hang = Hang()
    made = guard(
        policy(rule("redact"), detectors=with_settings(fail=fail, deadline_ms=60)), Misbehaving(hang)
    )
    try:
        check = (lambda: asyncio.run(made.acheck("hello"))) if is_async else (lambda: made.check("hello"))
        checked, elapsed_s = timed(check)
    finally:
        hang.release.set()

    (record,) = checked.decision.checks
    assert record.status is CheckStatus.TIMED_OUT
    assert 0.05 < elapsed_s < 5
    assert checked.allowed is (fail is OnFailure.OPEN)


def test_a_hung_detector_costs_its_deadline_once_per_exchange_and_others_still_run() -> None:
    hang = Hang()
    slow = Misbehaving(hang, id="injection.patterns", category="injection.direct")
    settings = {"injection.patterns": DetectorSettings(deadline_ms=60, fail=OnFailure.OPEN)}
    made = guard(
        policy(rule("redact"), detectors={**settings, "pii": DetectorSettings(deadline_ms=10_000)}),
        slow,
        Words(),
    )
    conversation = Interaction(messages=tuple(user(f"mail {n}@b.c") for n in range(20)))
    try:
        checked, elapsed_s = timed(lambda: made.check_interaction(conversation))
    finally:
        hang.release.set()

    assert elapsed_s < 5
    assert len(slow.seen) == 1
    assert all("[EMAIL]" in message.text for message in checked.interaction.messages)
    by_name = {record.detector: record.status for record in checked.decisions[0].checks}
    assert by_name == {"injection.patterns": CheckStatus.TIMED_OUT, "pii": CheckStatus.RAN}


def test_the_event_loop_goes_on_while_a_detector_hangs() -> None:
    hang = Hang()
    made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=150)), Misbehaving(hang))

    async def main() -> int:
        ticks = 0
        task = asyncio.create_task(made.acheck("hello"))
        while not task.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return ticks

    try:
        assert asyncio.run(main()) >= 5
    finally:
        hang.release.set()


def test_a_cancelled_check_leaves_a_working_guard() -> None:
    hang = Hang()
    detector = Misbehaving(hang)
    made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=5000)), detector)

    async def main() -> None:
        task = asyncio.create_task(made.acheck("hello"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    hang.release.set()
    assert made.check("hello").decision.checks[0].status is CheckStatus.RAN


def test_when_too_many_checks_hang_new_ones_are_refused_and_recover_afterwards() -> None:
    hang = Hang()
    pool = WorkerPool(max_workers=2, max_abandoned=3)
    made = guard(
        policy(rule("redact"), detectors=with_settings(deadline_ms=20)), Misbehaving(hang), pool=pool
    )
    for _ in range(
        200
    ):  # one that did not begin in time, on a busy machine, is out of time and not abandoned
        assert made.check("hello").decision.checks[0].status is CheckStatus.TIMED_OUT
        if pool.abandoned == 3:
            break
    assert pool.abandoned == 3

    refused = made.check("hello")
    assert refused.decision.checks[0].status is CheckStatus.ERRORED
    assert not refused.allowed

    hang.release.set()
    for _ in range(1000):
        status = made.check("hello").decision.checks[0].status
        if status is CheckStatus.RAN:
            break
        time.sleep(0.01)
    assert status is CheckStatus.RAN


def test_more_work_than_workers_waits_its_turn() -> None:
    def slow(_: Any) -> list[Any]:
        time.sleep(0.01)
        return []

    pool = WorkerPool(max_workers=2)
    made = guard(
        policy(rule("redact"), detectors=with_settings(deadline_ms=5000)), Misbehaving(slow), pool=pool
    )

    async def main() -> list[Any]:
        return await asyncio.gather(*(made.acheck("hello") for _ in range(20)))

    assert all(one.decision.checks[0].status is CheckStatus.RAN for one in asyncio.run(main()))


def degrading(main: Any, stand_in: Any) -> Any:
    settings = {
        "injection.linear": DetectorSettings(
            fail=OnFailure.DEGRADE, stand_in="injection.patterns", deadline_ms=10_000
        ),
        "injection.patterns": DetectorSettings(fail=OnFailure.OPEN, deadline_ms=10_000),
    }
    return guard(policy(rule("block"), detectors=settings), main, stand_in)


def test_degrade_goes_by_the_stand_in_when_that_ran() -> None:
    main = Misbehaving(raising, id="injection.linear", category="injection.direct")
    stand_in = Words("injection.patterns", "ignore", category="injection.direct")
    made = degrading(main, stand_in)

    passed = made.check("hello")
    assert passed.allowed
    assert passed.decision.outcome is OnFailure.DEGRADE
    caught = made.check("ignore all")
    assert not caught.allowed
    assert caught.decision.rule_ids == ("r",)


def test_degrade_is_closed_when_the_stand_in_fails_too() -> None:
    made = degrading(
        Misbehaving(raising, id="injection.linear", category="injection.direct"),
        Misbehaving(raising, id="injection.patterns", category="injection.direct"),
    )
    checked = made.check("hello")

    assert not checked.allowed
    assert checked.decision.outcome is OnFailure.CLOSED
    assert checked.decision.rule_ids == ("fail.injection.linear",)


async def never() -> list[Any]:
    await asyncio.sleep(30)
    return []


def blocking() -> list[Any]:
    time.sleep(0.3)  # an async detector that computes instead of waiting
    return []


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("behave", "status"),
    [
        (None, CheckStatus.RAN),
        (never, CheckStatus.TIMED_OUT),
        (blocking, CheckStatus.TIMED_OUT),
        (lambda: raising(None), CheckStatus.ERRORED),
        (lambda: [finding(score=2.0)], CheckStatus.ERRORED),
    ],
)
def test_a_detector_that_waits_on_the_outside(is_async: bool, behave: Any, status: CheckStatus) -> None:
    remote = Remote(behave)
    deadline_ms = 100 if status is CheckStatus.TIMED_OUT else 10_000
    made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=deadline_ms)), remote)

    checked, elapsed_s = timed(lambda: asyncio.run(made.acheck("a@b.c")) if is_async else made.check("a@b.c"))

    assert checked.decision.checks[0].status is status
    assert elapsed_s < 5
    assert checked.allowed is (status is CheckStatus.RAN)
    time.sleep(0.25 if behave is blocking else 0)  # let the background loop come back for the next test


def test_views_that_cannot_be_built_fail_the_check() -> None:
    def broken(text: str) -> Any:
        raise ValueError("bomb")

    from stanchion.guard.pipeline import Guard

    made = Guard(policy(rule("redact")), {"pii": Words()}, build_views=broken)
    checked = made.check("hello")

    assert checked.decision.checks[0].status is CheckStatus.ERRORED
    assert not checked.allowed


def test_shadow_mode_records_a_failure_and_lets_the_text_through() -> None:
    made = guard(policy(rule("redact"), mode=Mode.SHADOW), Misbehaving(raising))
    checked = made.check("hello")

    assert checked.decision.effect is Effect.BLOCK
    assert checked.decision.enforced_effect is Effect.ALLOW
    assert (checked.allowed, checked.text) == (True, "hello")


def test_the_synchronous_door_works_inside_a_running_loop_and_from_many_threads() -> None:
    made = guard(policy(rule("redact")))

    async def main() -> str:
        return made.check("a@b.c").text

    assert asyncio.run(main()) == "[EMAIL]"
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(made.check("a@b.c").text)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["[EMAIL]"] * 16


def test_a_policy_whose_detectors_are_missing_makes_no_guard() -> None:
    from stanchion.guard.pipeline import Guard

    with pytest.raises(UsageError, match="detectors are missing: pii"):
        Guard(policy(rule("redact")), {})
    with pytest.raises(UsageError, match="no detector is enabled"):
        Guard(policy(rule("redact"), detectors=with_settings(enabled=False)), {})


def test_a_hung_detector_does_not_keep_the_process_alive() -> None:
    program = """
import sys, threading
sys.path.insert(0, "tests/guard")
from guard_fakes import *
made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=20)), Misbehaving(Hang()))
print(made.check("hello").decision.checks[0].status.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=True
    )
    assert done.stdout.strip() == "timed_out"


def test_a_forked_process_has_workers_of_its_own() -> None:
    program = """
import os, sys
sys.path.insert(0, "tests/guard")
from guard_fakes import *
made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=5000)))
assert made.check("a@b.c").text == "[EMAIL]"
child = os.fork()
if child == 0:
    os._exit(0 if made.check("a@b.c").text == "[EMAIL]" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == "0"


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet="ab\n\r\u2028", max_size=30), st.data())
def test_lines_and_columns_are_one_based_and_count_newlines_only(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    behave = giving([finding(start, len(text))])
    made = guard(policy(rule("allow")), Misbehaving(behave))
    (found,) = made.check(text).decision.findings

    before = text[:start]
    assert found.location.line == before.count("\n") + 1
    assert found.location.column == len(before.rpartition("\n")[2]) + 1


def test_nothing_that_was_said_shows_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    def leaking(_: Any) -> Any:
        raise ValueError("planted@secret.example")

    async def leaking_later() -> Any:
        raise ValueError("planted@secret.example")

    with caplog.at_level(logging.DEBUG):
        for detector in (Misbehaving(leaking), Remote(leaking_later), Words()):
            made = guard(policy(rule("redact")), detector)
            made.check("planted@secret.example")
            asyncio.run(made.acheck("planted@secret.example"))
        gc.collect()
    assert "planted" not in caplog.text


def test_idle_workers_go_and_come_back() -> None:
    pool = WorkerPool(idle_s=0.05)
    made = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=5000)), pool=pool)
    for _ in range(3):
        assert made.check("a@b.c").text == "[EMAIL]"
        assert pool.workers >= 1
        for _ in range(200):
            if pool.workers == 0:
                break
            time.sleep(0.01)
        assert pool.workers == 0


@settings(deadline=None, max_examples=150)
@given(
    words=st.lists(st.sampled_from(["a@b.c", "x@y.z", "hello", "\n", "\u202e", "😀"]), max_size=6),
    effects=st.lists(st.sampled_from([e for e in Effect if e is not Effect.TRANSFORM]), max_size=3),
    operator=st.sampled_from(list(Operator)),
    surface=st.sampled_from(list(Surface)),
)
def test_whatever_the_rules_what_they_refuse_or_redact_is_not_in_the_text(
    words: list[str], effects: list[Effect], operator: Operator, surface: Surface
) -> None:
    text = " ".join(words)
    rules = [rule(effect, id=f"r{i}", operator=operator) for i, effect in enumerate(effects)]
    checked = guard(policy(*rules)).check(text, surface=surface)
    has_mail = "@" in text
    strictest = max((e.rank for e in effects), default=0) if has_mail else 0

    assert checked.decision.effect.rank == strictest
    assert checked.allowed is (strictest <= Effect.REDACT.rank)
    if strictest == 0:
        assert checked.text == text
    else:
        assert "a@b.c" not in checked.text
        assert "x@y.z" not in checked.text


@pytest.mark.parametrize(
    ("module", "cost", "text", "is_inline"),
    [
        ("stanchion.detectors.quick", Cost.MICROSECONDS, "short", True),
        ("stanchion.detectors.quick", Cost.MICROSECONDS, "x" * 4097, False),
        ("stanchion.detectors.slow", Cost.MILLISECONDS, "short", False),
        ("somebody.elses", Cost.MICROSECONDS, "short", False),
    ],
)
def test_only_quick_packaged_detectors_run_on_the_callers_thread(
    module: str, cost: Cost, text: str, is_inline: bool
) -> None:
    threads: list[int] = []

    def note(_: Any) -> list[Any]:
        threads.append(threading.get_ident())
        return [finding()]

    kind = type("Made", (Misbehaving,), {"__module__": module})
    checked = guard(policy(rule("redact"), detectors=with_settings(deadline_ms=5000)), kind(note, cost=cost))
    result = checked.check(text)

    assert result.decision.checks[0].status is CheckStatus.RAN
    assert result.text.startswith("[EMAIL]")
    assert (threads == [threading.get_ident()]) is is_inline


def test_a_packaged_detector_that_breaks_fails_as_declared_and_others_still_run() -> None:
    kind = type("Made", (Misbehaving,), {"__module__": "stanchion.detectors.quick"})
    broken = kind(raising, id="injection.patterns", category="injection.direct")
    settings_ = {
        "injection.patterns": DetectorSettings(fail=OnFailure.OPEN),
        "pii": DetectorSettings(deadline_ms=10_000),
    }
    checked = guard(policy(rule("redact"), detectors=settings_), broken, Words()).check("a@b.c")

    assert checked.text == "[EMAIL]"
    assert checked.decision.outcome is OnFailure.OPEN
