"""One text of a streamed answer: what of it may leave now, rewritten where the policy says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from stanchion.core.finding import Finding
from stanchion.guard.frames import FieldScan
from stanchion.guard.policy_model import Guarantee, Streaming
from stanchion.guard.redaction import Mark
from stanchion.guard.restore import Restorer
from stanchion.guard.workers import Door


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules make of one finding: the stretch to rewrite, or that the text ends before it."""

    mark: Mark | None = None
    is_stop: bool = False
    is_taken_out: bool = False


Judge = Callable[[Finding, str], Verdict]
Redact = Callable[[str, Sequence[Mark]], str]


class TextStream:
    """Feed it every piece of the text; it gives back what may leave. Offsets count the text as it came."""

    def __init__(
        self,
        scan: FieldScan,
        judge: Judge,
        redact: Redact,
        *,
        restorer: Restorer | None,
        streaming: Streaming,
        is_held: bool,
    ) -> None:
        """`is_held`: nothing leaves before `finish`. `restorer` puts the user's own values back."""
        self._scan = scan
        self._judge = judge
        self._redact = redact
        self._restorer = restorer
        self._streaming = streaming
        self.is_held = is_held
        self._pieces: list[str] = []
        self._kept = ""  # the text from `released` on
        self._marks: list[Mark] = []
        self.released = 0
        self.stop_at: int | None = None
        self.is_taken_out = False
        self.is_changed = False
        self.escaped = 0
        self.undecided = 0

    @property
    def length(self) -> int:
        """How many characters came."""
        return self.released + len(self._kept)

    @property
    def waiting(self) -> int:
        """How many characters came and have not left."""
        return len(self._kept)

    @property
    def work(self) -> int:
        """How many characters its checks were given, each as often as it was."""
        return self._scan.work

    @property
    def is_stopped(self) -> bool:
        """Whether nothing behind `stop_at` may leave."""
        return self.stop_at is not None

    @property
    def checked_text(self) -> str:
        """The text that the findings so far are about."""
        text = "".join(self._pieces)
        return text[: self._scan.settled] if self.is_stopped else text

    @property
    def is_audit(self) -> bool:
        """Whether everything leaves as it came."""
        return self._streaming.guarantee is Guarantee.AUDIT_ONLY

    async def feed(self, door: Door, piece: str) -> str:
        """What may leave after one more piece; may be empty."""
        self._take_piece(piece)
        while not self.is_stopped:
            before = self._scan.settled
            found = await self._scan.step(door)
            if found is None:
                break
            self._take(found, before)
        if self.is_stopped or self.is_held:
            return ""
        return self._leave(self._may_leave())

    async def finish(self, door: Door) -> str:
        """What may still leave: the text is over. A text that is stopped leaves up to where it stops."""
        if not self.is_stopped and not self._scan.is_over:
            before = self._scan.settled
            found = await self._scan.finish(door)
            self._take(found, before)
        end = self.length if self.stop_at is None else self.stop_at
        rest = self._leave(max(end, self.released))
        return rest + (self._restorer.finish() if self._restorer is not None else "")

    def _take_piece(self, piece: str) -> None:
        self._pieces.append(piece)
        self._kept += piece
        self._scan.add(piece)

    def _take(self, found: Sequence[Finding], before: int) -> None:
        """What a frame says: marks, or the place where the text stops."""
        if self.is_audit:
            return
        for finding in found:
            place = finding.location
            verdict = self._judge(finding, self._scan.text(place.start, place.end))
            if verdict.is_stop and (self.stop_at is None or place.start < self.stop_at):
                self.stop_at, self.is_taken_out = place.start, verdict.is_taken_out
            elif verdict.mark is not None:
                self._marks.append(verdict.mark)
            if (verdict.is_stop or verdict.mark is not None) and place.start < self.released:
                self.escaped += min(place.end, self.released) - place.start
        if self.stop_at is None and (self._scan.is_overlong or self._scan.is_refused):
            self.stop_at = before
        if self.is_stopped:
            self._scan.stop()

    def _may_leave(self) -> int:
        if self.is_audit:
            return self.length
        end = max(self._scan.settled, self._scan.cleared())
        if self._streaming.guarantee is Guarantee.BOUNDED:
            forced = self.length - self._streaming.hold_back
            self.undecided += max(0, forced - max(end, self.released))
            end = max(end, forced)
        return end

    def _leave(self, end: int) -> str:
        count = end - self.released
        if count <= 0:
            return ""
        text, self._kept = self._kept[:count], self._kept[count:]
        marks = [
            msgspec.structs.replace(
                mark, start=max(mark.start - self.released, 0), end=min(mark.end - self.released, count)
            )
            for mark in self._marks
            if mark.start < end and mark.end > self.released
        ]
        self._marks = [mark for mark in self._marks if mark.end > end]
        self.released = end
        shown = self._redact(text, marks) if marks else text
        self.is_changed = self.is_changed or shown != text
        return shown if self._restorer is None else self._restorer.feed(shown)
