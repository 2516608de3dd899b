"""What a guard makes of its policy: which checks run where, which findings count, what stands without one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from guard_fakes import Model, Words, chat, guard, policy, rule

from stanchion.core.decision import Surface
from stanchion.core.errors import BlockedError, FilesError, UsageError
from stanchion.core.finding import Cost, Severity
from stanchion.core.interaction import user
from stanchion.guard.answers import GuardState
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings


async def test_without_a_policy_everything_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = Guard.unprotected()
        checked = made.check("a@b.c")
        made.check("again")
    assert [record.message for record in caplog.records] == [
        "UNPROTECTED: this guard has no policy, so nothing is checked."
    ]
    assert made.state is GuardState.UNPROTECTED
    assert made.state.value == "UNPROTECTED"
    assert (checked.allowed, checked.text, checked.decision.is_protected) == (True, "a@b.c", False)
    assert "UNPROTECTED" in checked.decision.reason
    assert made.unscanned == tuple(Surface)
    model = Model()
    answered = await made.wrap(model).invoke(chat(user("a@b.c")))
    assert answered.reply is not None
    assert [d.is_protected for d in answered.reply.decisions] == [False, False]
    assert made.checks("input") == ()


def test_a_policy_that_is_missing_makes_no_guard(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="no such file"):
        Guard.load(tmp_path / "policy.yaml")
    with pytest.raises(UsageError, match="unknown packaged policy"):
        Guard.load("defualt")


def test_what_was_refused_is_not_in_the_answer_and_raises_on_demand() -> None:
    made = guard(policy(rule("block")))
    checked = made.check("a@b.c", locale="de-AT")

    assert not checked.allowed
    assert "a@b.c" not in checked.text
    assert "helfen" in checked.text or "nicht" in checked.text
    with pytest.raises(BlockedError) as caught:
        checked.raise_if_blocked()
    assert caught.value.reference == checked.reference
    assert made.check("fine").raise_if_blocked().text == "fine"


@pytest.mark.parametrize("surface", list(Surface))
def test_single_texts_can_be_checked_on_every_surface(surface: Surface) -> None:
    made = guard(policy(rule("replace")))
    checked = made.check("a@b.c", surface=surface)

    assert checked.decision.surface is surface
    assert not checked.allowed
    assert "a@b.c" not in checked.text


def test_the_plan_runs_detectors_where_rules_speak_of_them_cheap_ones_first() -> None:
    settings_ = {
        "injection.linear": DetectorSettings(),
        "pii": DetectorSettings(),
        "secrets": DetectorSettings(surfaces=(Surface.SYSTEM,)),
    }
    made = guard(
        policy(
            rule("redact", "pii.*", id="a", surfaces=(Surface.INPUT, Surface.OUTPUT)),
            rule("block", "injection.*", id="b", surfaces=(Surface.INPUT,)),
            detectors=settings_,
        ),
        Words("injection.linear", category="injection.direct", cost=Cost.MILLISECONDS),
        Words(),
        Words("secrets", category="secret.token"),
    )
    assert [check.id for check in made.checks(Surface.INPUT)] == ["pii", "injection.linear"]
    assert [check.id for check in made.checks("output")] == ["pii"]
    assert [check.id for check in made.checks(Surface.SYSTEM)] == ["secrets"]
    assert set(made.unscanned) == set(Surface) - {Surface.INPUT, Surface.OUTPUT, Surface.SYSTEM}


def test_a_rule_that_can_never_apply_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        guard(policy(rule("block", "bias.*", id="never"), rule("redact", "pii", id="yes")))

    assert ["never" in record.message for record in caplog.records] == [True]


def test_a_finding_below_its_threshold_does_not_count() -> None:
    made = guard(
        policy(rule("block"), detectors={"pii": DetectorSettings(threshold=0.95, deadline_ms=10_000)}),
        Words(score=0.9),
    )
    checked = made.check("a@b.c")

    assert checked.allowed
    assert checked.decision.findings == ()
    assert checked.decision.checks[0].findings == 0


def test_severity_selects() -> None:
    high = guard(policy(rule("block", min_severity=Severity.HIGH)), Words(severity=Severity.HIGH))
    low = guard(policy(rule("block", min_severity=Severity.HIGH)), Words(severity=Severity.LOW))

    assert not high.check("a@b.c").allowed
    assert low.check("a@b.c").allowed


class Slow(Words):
    """A detector that has something to load; `prepare` is called before any text."""

    def __init__(self, *, fault: Exception | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.calls: list[str] = []

    def prepare(self) -> None:
        self.calls.append("prepare")
        if self.fault is not None:
            raise self.fault


def test_detectors_get_ready_once_before_the_first_text() -> None:
    slow = Slow()
    Guard(policy(rule("block")), {"pii": slow})
    assert slow.calls == ["prepare"]


def test_a_detector_that_cannot_get_ready_makes_no_guard() -> None:
    with pytest.raises(UsageError, match="broken weights"):
        Guard(policy(rule("block")), {"pii": Slow(fault=UsageError("broken weights"))})


def test_the_first_text_of_a_policy_with_content_is_checked_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The automaton of `content` takes seconds to build: that is done when the guard is made."""
    text = (
        "version: 1\ndetectors: {content: {}}\nrules:\n"
        "- {id: harm, when: {category: content.*, surface: input}, effect: block}\n"
    )
    (tmp_path / "policy.yaml").write_text(text)
    made = Guard.load(tmp_path / "policy.yaml")
    monkeypatch.setattr("stanchion.detectors.automaton._build", lambda *_: pytest.fail("built too late"))
    assert made.check("What a lovely day").allowed
    assert not made.check("I will kill you tonight").allowed
