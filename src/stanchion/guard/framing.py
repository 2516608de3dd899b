"""Checks on the surfaces that stream: frames for what settles as a text passes, the rest at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from stanchion.core.decision import CheckStatus, Surface
from stanchion.core.errors import UnavailableError
from stanchion.guard.checks import (
    Check,
    CheckInput,
    CheckResult,
    CheckRunner,
    Rows,
    detector_input,
    look,
    may_all_run_at_once,
)
from stanchion.guard.frames import FieldScan, Parts, parts_of, settling
from stanchion.guard.plan import Plan
from stanchion.guard.seen_texts import REMEMBERED, RememberedChecks, SeenTexts
from stanchion.guard.view_builders import Readings
from stanchion.guard.workers import Door

# What a model says leaves as it comes, so it is checked in the same frames streamed and unstreamed. Arguments
# of tools are acted on as a whole and are checked as a whole.
FRAMED = frozenset({Surface.OUTPUT, Surface.REASONING})
_RAN = CheckStatus.RAN
_NONE: frozenset[int] = frozenset()


class FramedChecks:
    """Runs the checks of a plan; on a framed surface alike for a text that comes whole or in pieces."""

    def __init__(
        self, plan: Plan, runner: CheckRunner, readings: Readings, *, seen: SeenTexts | None = None
    ) -> None:
        """`readings` are for the texts of framed surfaces; other texts get those of `runner`.

        `seen` remembers what was found in texts that go to a model.
        """
        self._remembered: dict[Surface, RememberedChecks] = {}
        if seen is not None and seen.is_on:
            for surface in sorted(REMEMBERED):
                self._remembered[surface] = RememberedChecks(surface, plan.on(surface), runner, seen)
        self._again = readings.again
        self._plan = plan
        self._runner = runner
        self._views = readings.frame
        self._is_prepared = False
        self._parts = {surface: [parts_of(check) for check in plan.on(surface)] for surface in sorted(FRAMED)}
        self._passing = {
            surface: settling(tuple(check for one in parts for check in one.passing))
            for surface, parts in self._parts.items()
        }
        self._whole = {
            surface: tuple(check for one in parts for check in one.whole)
            for surface, parts in self._parts.items()
        }

        self._parted = {
            surface: (*self._passing[surface].checks, *whole) for surface, whole in self._whole.items()
        }
        self._places = {surface: _places_of(parts) for surface, parts in self._parts.items()}

    def prepare(self) -> None:
        """Compile in the background what the first piece of an answer would compile; once."""
        if self._is_prepared:
            return
        self._is_prepared = True
        passing = [check for one in self._passing.values() for check in one.checks]
        asked = [one for settling in self._passing.values() for one in settling.clearing or ()]
        readers = [*asked, *(check.detector for check in passing)]
        watches = [one.watch for one in readers if hasattr(one, "watch")]
        if watches:
            with suppress(UnavailableError):  # too busy to hurry: the first piece compiles it then
                self._runner.start(lambda: _prepare(watches))

    def scan(self, surface: Surface, like: CheckInput, given_up: set[str]) -> FieldScan:
        """The frames of one text that will come in pieces."""
        passing = self._passing[surface]
        return FieldScan(self._runner, passing, like, views=self._views, given_up=given_up)

    def whole(self, surface: Surface) -> tuple[Check, ...]:
        """The checks of a framed surface, or parts of them, that need the whole text."""
        return self._whole[surface]

    async def run(
        self,
        door: Door,
        surface: Surface,
        texts: Sequence[CheckInput],
        *,
        given_up: set[str],
        scans: Mapping[str, FieldScan],
    ) -> tuple[Rows, frozenset[int]]:
        """The results of each text, and the texts too much of which never settled.

        `scans` are frames already begun, by field; what is left of them is checked now.
        """
        if surface not in FRAMED:
            remembered = self._remembered.get(surface)
            if remembered is not None:
                return await remembered.run(door, texts, given_up=given_up), _NONE
            checks = self._plan.on(surface)
            return await self._runner.rows(door, checks, texts, given_up=given_up), _NONE
        if len(texts) == 1 and not given_up and not scans:
            found = self._one_look(surface, texts[0])
            if found is not None:
                return [found], _NONE
        wholes = await self._runner.rows(door, self.whole(surface), texts, given_up=given_up)
        overlong = set()
        rows = []
        for number, (text, whole) in enumerate(zip(texts, wholes, strict=True)):
            scan = await self._scanned(door, surface, text, given_up=given_up, begun=scans.get(text.field))
            if scan.is_overlong:
                overlong.add(number)
            rows.append(self._joined(surface, scan.results(text.text), whole))
        return rows, frozenset(overlong)

    def _one_look(self, surface: Surface, text: CheckInput) -> list[CheckResult] | None:
        """The results of a short text in which nothing settles that is a finding, however it is cut.

        None where that cannot be told, or a check breaks: then frame by frame.
        """
        passing, whole = self._passing[surface].checks, self._whole[surface]
        if not may_all_run_at_once(self._parted[surface], (text,)):
            return None
        try:
            frame = self._views(text.text)
            given = detector_input(text, frame)
            for check in passing:
                if not check.detector.calm(given):
                    return None
        except Exception:  # the frames say what is wrong
            return None
        settled = look(passing, text, lambda _: frame)
        for one in settled:
            if one.findings or one.status is not _RAN:
                return None
        return self._joined(surface, settled, look(whole, text, lambda _: self._again(frame)))

    async def _scanned(
        self, door: Door, surface: Surface, text: CheckInput, *, given_up: set[str], begun: FieldScan | None
    ) -> FieldScan:
        """The frames of one text, all of them checked; one look stands for them where it finds the same."""
        scan = begun or self.scan(surface, text, given_up)
        if not scan.is_over and scan.length == 0:
            scan.add(text.text)
        while await scan.at_once(door) is None and await scan.step(door) is not None:
            pass
        await scan.finish(door)
        return scan

    def _joined(
        self, surface: Surface, passing: Sequence[CheckResult], whole: Sequence[CheckResult]
    ) -> list[CheckResult]:
        """One result for each check, out of those of its parts."""
        results = [*passing, *whole]
        joined = []
        for first, *others in self._places[surface]:
            one = results[first]
            for place in others:
                one = _both(one, results[place])
            joined.append(one)
        return joined


def _places_of(parts: Sequence[Parts]) -> list[list[int]]:
    """For each check, where the results of its parts stand behind one another: passing ones, then whole."""
    passing, whole = 0, sum([len(one.passing) for one in parts])
    places = []
    for one in parts:
        first = [*range(passing, passing + len(one.passing)), *range(whole, whole + len(one.whole))]
        passing, whole = passing + len(one.passing), whole + len(one.whole)
        places.append(first)
    return places


def _prepare(watches: Sequence[Any]) -> None:
    for watch in watches:
        watch.prepare()


def _both(one: CheckResult, other: CheckResult) -> CheckResult:
    """One result out of two of the same check; the first failure stays."""
    elapsed_ms = one.elapsed_ms + other.elapsed_ms
    if one.status is _RAN and other.status is _RAN and not (one.findings or other.findings):
        return CheckResult(status=_RAN, elapsed_ms=elapsed_ms)
    kept = other if one.status is _RAN and other.status is not _RAN else one
    found = [*one.findings, *other.findings]
    found.sort(key=lambda f: (f.location.start, f.location.end, f.rule))
    return CheckResult(status=kept.status, findings=tuple(found), elapsed_ms=elapsed_ms, reason=kept.reason)
