"""One text that grows, checked frame by frame: the same frames however it is cut into pieces.

At steps that only the text decides, the part that is not settled yet is checked together with what stands in
front of it. What is settled then is a frame: its findings are final, and it is not looked at again. A whole
text is checked by the same frames, so that an answer means the same streamed and unstreamed. Between steps,
`cleared` says how far the text is free of anything that could still become a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from stanchion.core.decision import CheckStatus, OnFailure
from stanchion.core.finding import DetectorInput, Finding, Location, ReachKind, ViewSet
from stanchion.guard.checks import Check, CheckInput, CheckResult, CheckRunner, detector_input, placed_in
from stanchion.guard.workers import Door

STEP = 64  # characters between two steps while everything settles
LONGEST = 65_536  # characters that may stay unsettled; more is a finding of its own
_CALM = 32  # characters in front of a step that may be undecided where nothing else needs a full check
_SHARE = 4  # of what is unsettled, one in so many must be new before the next step
_LEAD = 8  # characters in front of a place that assertions of patterns may read
_SENTENCE_BEFORE = 300
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*\s|\n")

_NOTHING_YET = CheckResult(status=CheckStatus.RAN)

Views = Callable[[str], ViewSet]


class Parts(msgspec.Struct, frozen=True):
    """A check in two: what settles as a text passes, and what needs the whole text."""

    passing: tuple[Check, ...]
    whole: tuple[Check, ...]


class Settling(msgspec.Struct, frozen=True):
    """Checks that settle as a text passes.

    `before` is how far in front of a place they may read. `clearing` are asked, for all of them, up to where
    nothing can be found; None where one of them cannot tell.
    """

    checks: tuple[Check, ...]
    before: int
    clearing: tuple[Any, ...] | None = None


def settling(checks: Sequence[Check]) -> Settling:
    """Checks that all settle (see `parts_of`), ready for many texts."""
    from stanchion.detectors.incremental import asked_together

    detectors = [check.detector for check in checks]
    can_tell = all(hasattr(detector, "clear") for detector in detectors)
    return Settling(
        tuple(checks),
        max(map(_before, detectors), default=0),
        tuple(asked_together(detectors)) if can_tell else None,
    )


def parts_of(check: Check) -> Parts:
    """The parts of a check, by the reach of its detector's parts."""
    detectors = getattr(check.detector, "parts", None) or (check.detector,)
    checks = [msgspec.structs.replace(check, detector=detector) for detector in detectors]
    passing = tuple(one for one in checks if settles(one.detector))
    return Parts(passing, tuple(one for one in checks if one not in passing))


def settles(detector: Any) -> bool:
    """Whether a detector's findings are final before the end of a text, and it can say how far."""
    kind = ReachKind(detector.reach.kind)
    if hasattr(detector, "adetect") or kind is ReachKind.MESSAGE:
        return False
    return kind is not ReachKind.AUTOMATON or hasattr(detector, "settled")


class FieldScan:
    """The frames of one text. `add` pieces, `step` until there is none due, `finish` at the end."""

    def __init__(
        self,
        runner: CheckRunner,
        checks: Settling,
        like: CheckInput,
        *,
        views: Views,
        given_up: set[str],
    ) -> None:
        """`like` is what the checks are given, its text left out."""
        self._views = _LastViews(views)
        self._runner = runner.with_views(self._views)
        self._checks = checks.checks
        self._clearing = checks.clearing
        self._like = like
        self._given_up = given_up
        self._before = checks.before
        self._text = ""
        self._dropped = 0  # characters of the field that are not kept any more
        self._settled = 0
        self._clear = self._looked_at = 0
        self._next = STEP
        self._tried = 4 * LONGEST
        self._results = [_NOTHING_YET] * len(self._checks)
        self._found: list[list[Finding]] = [[] for _ in self._checks]
        self.work = 0
        self.is_over = False
        self.is_overlong = False

    @property
    def length(self) -> int:
        """How many characters were added."""
        return self._dropped + len(self._text)

    @property
    def settled(self) -> int:
        """Up to where the findings are final; a function of the text alone."""
        return self._settled

    @property
    def is_due(self) -> bool:
        """Whether there is text for a frame that was not looked at."""
        return not self.is_over and self._next <= self.length

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks in the order of their results."""
        return self._checks

    def rename(self, field: str) -> None:
        """Say its findings of another field from now on."""
        self._like = msgspec.structs.replace(self._like, field=field)

    def add(self, piece: str) -> None:
        """More of the text."""
        keep = max(0, min(self._settled - self._before, self._clear - _LEAD) - self._dropped)
        self._text = self._text[keep:] + piece
        self._dropped += keep

    async def step(self, door: Door) -> tuple[Finding, ...] | None:
        """The findings of the next frame that is due; None when more text is needed first."""
        if self.is_over or self._next > self.length:
            return None
        base = max(0, self._settled - _LEAD)
        clear = base + self._clear_in(self._slice(base, self._next), self._settled - base)
        if self._next - clear <= _CALM and not self._given_up:
            self._settle(clear, self._next)
            return ()
        return await self._commit(door, self._next, is_last=False)

    async def finish(self, door: Door) -> tuple[Finding, ...]:
        """The findings of what is left: the text is over."""
        if self.is_over:
            return ()
        found = await self._commit(door, self.length, is_last=True)
        self.is_over = True
        return found

    async def at_once(self, door: Door) -> tuple[Finding, ...] | None:
        """Check what is left in one look, where it can be told that frames would find the same: nothing.

        All of the text must have been added. None where it was not done; then nothing happened. It is tried
        where half of what was left the last time is settled, so that trying costs no more than two looks.
        """
        left = self.length - self._settled
        if self.is_over or self._given_up or left > LONGEST or 2 * left > self._tried:
            return None
        self._tried = left
        if not self._is_calm():
            return None
        found = await self._commit(door, self.length, is_last=True)
        self.is_over = True
        return found

    def stop(self) -> None:
        """Nothing more is checked: what is settled is all that counts."""
        self.is_over = True

    def cleared(self) -> int:
        """Up to where nothing unsettled stands and nothing can come to be, whatever follows."""
        self._clear = max(self._clear, self._settled)
        waiting = self.length - self._clear
        if self.is_over or waiting == 0:
            return self._settled if self.is_over else self._clear
        if waiting > STEP and self.length - self._looked_at < waiting // _SHARE:
            return self._clear
        self._looked_at = self.length
        base = max(0, self._clear - _LEAD)
        self._clear = base + self._clear_in(self._slice(base, self.length), self._clear - base)
        return self._clear

    def results(self, text: str) -> list[CheckResult]:
        """The result of each check over all frames, with lines and columns in the whole `text`."""
        return [
            msgspec.structs.replace(result, findings=placed_in(text, found, self._like.field, check.id))
            if found
            else result
            for check, result, found in zip(self._checks, self._results, self._found, strict=True)
        ]

    @property
    def is_refused(self) -> bool:
        """Whether a check failed over some frame in a way that ends the text at once.

        One whose stand-in needs the whole text is decided at its end.
        """
        failed = {
            check.id
            for check, result in zip(self._checks, self._results, strict=True)
            if result.status is not CheckStatus.RAN
        }
        return any(
            check.settings.fail is OnFailure.CLOSED
            or (check.settings.fail is OnFailure.DEGRADE and check.settings.stand_in in failed)
            for check in self._checks
            if check.id in failed
        )

    def text(self, start: int, end: int) -> str:
        """The characters of the field between two offsets that are not settled for long."""
        return self._slice(start, end)

    def _slice(self, start: int, end: int) -> str:
        return self._text[start - self._dropped : end - self._dropped]

    def _clear_in(self, window: str, start: int) -> int:
        cut = len(window)
        self.work += cut
        if self._clearing is None:
            return start
        if not self._clearing:
            return cut
        like = self._like
        try:
            given = DetectorInput(
                view_set=self._views(window),
                origin=like.origin,
                context=like.context,
                session_id=like.session_id,
                locale=like.locale,
            )
            for one in self._clearing:
                cut = min(cut, max(start, int(one.clear(given, start))))
        except Exception:  # the step that follows runs the check itself and says what is wrong
            return start
        return cut

    def _is_calm(self) -> bool:
        """Whether no check finds anything in any part of what frames still look at, however they cut it."""
        window = self._slice(max(0, self._settled - self._before), self.length)
        given = msgspec.structs.replace(self._like, text=window)
        view_set = self._views(window)
        try:
            return all(check.detector.calm(detector_input(given, view_set)) for check in self._checks)
        except Exception:  # one that cannot tell, or breaks: the frames say what is wrong
            return False

    async def _commit(self, door: Door, end: int, *, is_last: bool) -> tuple[Finding, ...]:
        base = max(0, self._settled - self._before)
        window = self._slice(base, end)
        self.work += len(window)
        given = msgspec.structs.replace(self._like, text=window)
        ran = await self._runner.run(door, self._checks, [given], given_up=self._given_up)
        results = [ran[number, 0] for number in range(len(self._checks))]
        cut = end if is_last else base + self._cut(given, results, self._settled - base)
        new: list[Finding] = []
        for number, result in enumerate(results):
            self._results[number] = _joined(self._results[number], result)
            own = [_moved(one, base) for one in result.findings]
            own = [one for one in own if self._settled <= one.location.start and (is_last or _ends(one, cut))]
            self._found[number].extend(own)
            new.extend(own)
        self._settle(cut, end)
        return tuple(new)

    def _settle(self, cut: int, end: int) -> None:
        self._settled = cut
        if end - cut > LONGEST:
            self.is_overlong, self._settled = True, end
        self._next = end + max(STEP, (end - self._settled) // _SHARE)

    def _cut(self, given: CheckInput, results: list[CheckResult], start: int) -> int:
        """Up to where, in a window, every check is settled and no finding is cut in two."""
        cut = len(given.text)
        view_set = self._views(given.text)
        for number, check in enumerate(self._checks):
            if results[number].status is not CheckStatus.RAN:
                continue
            try:
                cut = min(cut, _settled(check.detector, given, view_set, start))
            except Exception as error:  # its declared outcome takes over
                reason = f"raised {type(error).__name__} when asked what is settled"
                results[number] = CheckResult(status=CheckStatus.ERRORED, reason=reason)
        found = [one.location for result in results for one in result.findings]
        for place in sorted(found, key=lambda place: -place.end):
            if place.start < cut < place.end:
                cut = place.start
        return max(start, cut)


class _LastViews:
    """Makes the readings of a text, and remembers the last one made."""

    def __init__(self, build: Views) -> None:
        self._build = build
        self._last: tuple[str, ViewSet] | None = None

    def __call__(self, text: str) -> ViewSet:
        last = self._last
        if last is None or last[0] is not text:
            last = self._last = (text, self._build(text))
        return last[1]


def sentences_end(text: str) -> int:
    """Where the last whole sentence of a text ends; 0 when there is none."""
    last = 0
    for last_match in _ends_of_sentences(text):
        last = last_match
    return last


def _ends_of_sentences(text: str) -> Iterator[int]:
    return (match.end() for match in _SENTENCE_END.finditer(text))


def _settled(detector: Any, given: CheckInput, view_set: ViewSet, start: int) -> int:
    match ReachKind(detector.reach.kind):
        case ReachKind.AUTOMATON:
            return int(detector.settled(detector_input(given, view_set), start))
        case ReachKind.BOUNDED:
            return max(start, len(given.text) - int(detector.reach.characters))
        case _:
            return max(start, sentences_end(given.text))


def _before(detector: Any) -> int:
    """How many characters in front of a place a detector may read."""
    match ReachKind(detector.reach.kind):
        case ReachKind.AUTOMATON:
            return int(detector.before)
        case ReachKind.BOUNDED:
            return int(detector.reach.characters)
        case _:
            return _SENTENCE_BEFORE


def _ends(finding: Finding, cut: int) -> bool:
    place = finding.location
    return place.end <= cut and (place.start < cut or place.start == place.end < cut)


def _moved(finding: Finding, by: int) -> Finding:
    place = finding.location
    location = Location(start=place.start + by, end=place.end + by, field=place.field)
    return msgspec.structs.replace(finding, location=location)


def _joined(before: CheckResult, now: CheckResult) -> CheckResult:
    """What two frames say of one check: the first failure stays."""
    if before is _NOTHING_YET and not now.findings:
        return now
    kept = before if before.status is not CheckStatus.RAN else now
    return CheckResult(status=kept.status, reason=kept.reason, elapsed_ms=before.elapsed_ms + now.elapsed_ms)
