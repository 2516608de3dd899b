"""Checks that share a look that rules texts out: asked once, recorded as run, and failed where it fails."""

from __future__ import annotations

from typing import Any

import pytest
from guard_fakes import PlainViews, Words

from stanchion.core.decision import CheckStatus
from stanchion.core.finding import ViewSet
from stanchion.core.origin import Origin
from stanchion.guard.checks import Check, CheckInput, look
from stanchion.guard.policy_model import DetectorSettings

TEXT = CheckInput(field="text", text="write to me@example.com", origin=Origin.USER)


class Look:
    """Counts how often it is asked, and says what it was told to say."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def __call__(self, views: ViewSet) -> bool:
        self.asked.append(views.original)
        if isinstance(self._answer, Exception):
            raise self._answer
        return bool(self._answer)


class Sharing(Words):
    """Finds words, unless its look rules the text out."""

    def __init__(self, rules_out: Look, **options: Any) -> None:
        super().__init__(**options)
        self._look = rules_out

    @property
    def rules_out(self) -> Look:
        return self._look


class FindsMore(Sharing):
    """Adds to what it inherits, so that the look of the other does not hold for it."""


def checked(*detectors: Any) -> list[Any]:
    checks = [Check(detector=one, settings=DetectorSettings()) for one in detectors]
    return look(checks, TEXT, PlainViews)


def test_a_look_is_asked_once_for_all_that_share_it() -> None:
    shared = Look(answer=True)
    detectors = [
        Sharing(shared),
        Sharing(shared, id="secrets"),
        Words(id="other"),
        Sharing(shared, id="last"),
    ]
    results = checked(*detectors)
    assert shared.asked == [TEXT.text]
    assert [one.status for one in results] == [CheckStatus.RAN] * 4
    assert [len(one.findings) for one in results] == [0, 0, 1, 0]
    assert [len(one.seen) for one in detectors] == [0, 0, 1, 0]
    assert results[0].elapsed_ms > 0
    assert results[1].elapsed_ms == results[3].elapsed_ms == 0


def test_two_looks_are_asked_each() -> None:
    silent, loud = Look(answer=True), Look(answer=False)
    results = checked(Sharing(silent), Sharing(loud, id="secrets"))
    assert (silent.asked, loud.asked) == ([TEXT.text], [TEXT.text])
    assert [len(one.findings) for one in results] == [0, 1]


def test_what_is_not_ruled_out_is_looked_at_by_each() -> None:
    loud = Look(answer=False)
    results = checked(Sharing(loud), Sharing(loud, id="secrets"))
    assert loud.asked == [TEXT.text]
    assert [len(one.findings) for one in results] == [1, 1]


def test_a_class_that_adds_to_another_is_not_ruled_out_by_it() -> None:
    silent = Look(answer=True)
    (result,) = checked(FindsMore(silent))
    assert silent.asked == []
    assert len(result.findings) == 1


def test_a_look_that_breaks_is_a_check_that_broke() -> None:
    broken = Look(answer=ValueError("no"))
    results = checked(Sharing(broken), Sharing(broken, id="secrets"), Words(id="other"))
    assert [one.status for one in results] == [CheckStatus.ERRORED, CheckStatus.ERRORED, CheckStatus.RAN]
    assert "ValueError" in results[0].reason


@pytest.mark.parametrize("name", ["secrets", "pii", "injection.patterns", "obfuscation"])
def test_the_packaged_detectors_share_one_look(name: str) -> None:
    from stanchion.detectors.registry import Registry
    from stanchion.detectors.scan import packaged_scanner

    check = Check(detector=Registry().create(name), settings=DetectorSettings())
    assert check.rules_out is packaged_scanner().shared_look("pii")
