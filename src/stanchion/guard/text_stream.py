"""One text of a streamed answer: what of it may leave now, rewritten where the policy says so.

A text may run over several blocks of the answer, as its reader sees it. It is checked as one text, and every
block is checked for itself as well; what leaves is cut back into the blocks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import msgspec

from stanchion.core.finding import Finding
from stanchion.guard.frames import FieldScan
from stanchion.guard.json_answer import JsonAnswer
from stanchion.guard.policy_model import Guarantee, Streaming
from stanchion.guard.redaction import Mark
from stanchion.guard.restore import Restorer
from stanchion.guard.workers import Door


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules make of one finding: the stretch to rewrite, or that the text ends before it."""

    mark: Mark | None = None
    is_stop: bool = False
    is_taken_out: bool = False


Piece = tuple[int, str]  # the number of a block among those of the text, and words of it
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
        self.ended_early = False  # it stopped before its end was looked at, and no notice goes on for it
        self.escaped = 0
        self.undecided = 0
        self.changed: set[int] = set()  # blocks in which something was rewritten
        self._begins = [0]  # where each block begins
        self._json: list[JsonAnswer | None] = [None if self.is_audit else JsonAnswer()]  # of each block
        self._own: FieldScan | None = None  # the frames of the last block alone, where there are several
        self._held_from: int | None = None
        self._extra_work = 0

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
        return self._scan.work + self._extra_work + (self._own.work if self._own is not None else 0)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing behind `stop_at` may leave."""
        return self.stop_at is not None

    @property
    def stopped_in(self) -> int:
        """The number of the block in which the text stops."""
        return max(0, bisect_right(self._begins, self.stop_at or 0) - 1)

    def block_text(self, number: int) -> str:
        """All that came of a block."""
        ends = [*self._begins[1:], self.length]
        return "".join(self._pieces)[self._begins[number] : ends[number]]

    def checked_text(self, number: int) -> str:
        """What of a block the findings so far are about."""
        text = "".join(self._pieces)
        end = len(text)
        if self.is_stopped:
            own = 0 if self._own is None else self._begins[-1] + self._own.settled
            end = max(self._scan.settled, own)
        last = self._begins[number + 1] if number + 1 < len(self._begins) else end
        return text[self._begins[number] : max(self._begins[number], min(end, last))]

    @property
    def is_audit(self) -> bool:
        """Whether everything leaves as it came."""
        return self._streaming.guarantee is Guarantee.AUDIT_ONLY

    async def begin(
        self, door: Door, scan: FieldScan, *, first: FieldScan | None = None, is_held: bool = False
    ) -> None:
        """A further block begins, and `scan` are its own frames; `first` are those of the first block alone.

        With `is_held` nothing of it leaves before `finish`.
        """
        if not self.is_stopped:
            if first is not None:
                self._own = first
                first.add("".join(self._pieces))
            await self._end_block(door)
        self._close_json()
        self._begins.append(self.length)
        self._json.append(None if self.is_audit else JsonAnswer())
        self._own = scan
        if is_held and self._held_from is None:
            self._held_from = self.length
        if self.is_stopped:
            scan.stop()

    def _close_json(self) -> None:
        if (last := self._json[-1]) is not None:
            last.close()

    async def _end_block(self, door: Door) -> None:
        """What the end of a block, as a text of its own, says."""
        own, begin = self._own, self._begins[-1]
        if own is None or own.is_over:
            return
        await self._step(door, own, begin)
        if not self.is_stopped:
            before = own.settled
            self._take(await own.finish(door), before, own, begin)
        self._extra_work += own.work

    async def _step(self, door: Door, scan: FieldScan, begin: int) -> None:
        while not self.is_stopped:
            before = scan.settled
            found = await scan.step(door)
            if found is None:
                break
            self._take(found, before, scan, begin)

    async def feed(self, door: Door, piece: str, *, is_last: bool = False) -> list[Piece]:
        """What may leave after one more piece of the last block; may be empty.

        The last piece may wait for `finish`, which follows at once.
        """
        self._take_piece(piece)
        if is_last and self._own is None:
            return []
        await self._step(door, self._scan, 0)
        if self._own is not None:
            await self._step(door, self._own, self._begins[-1])
        if self.is_stopped or self.is_held:
            return []
        return self._leave_to(self._may_leave())

    async def finish(self, door: Door) -> list[Piece]:
        """What may still leave: the text is over. A text that is stopped leaves up to where it stops."""
        await self._run_out(door)
        self._close_json()
        if not self.is_stopped:
            await self._end_block(door)
        end = self.length if self.stop_at is None else self.stop_at
        out = self._leave_to(max(end, self.released))
        rest = self._restorer.finish() if self._restorer is not None else ""
        return [*out, (self._block_at(self.released), rest)] if rest else out

    async def _run_out(self, door: Door) -> None:
        """Look at all that is left: once, where that finds what its frames would find."""
        scan = self._scan
        while not self.is_stopped and not scan.is_over:
            before = scan.settled
            found = await scan.at_once(door) if scan.is_due else None
            is_early = False
            if found is None:
                found = await scan.step(door)
                is_early = found is not None
            if found is None:
                found = await scan.finish(door)
            self._take(found, before, scan, 0)
            self.ended_early = is_early and self.stop_at is not None and not self.is_taken_out

    def _block_at(self, place: int) -> int:
        """The number of the block in which the text up to a place ends."""
        return max(0, bisect_left(self._begins, place) - 1)

    def _leave_to(self, end: int) -> list[Piece]:
        """The text up to a place, cut into its blocks: what runs over an edge is rewritten on both sides."""
        out: list[Piece] = []
        while self.released < end:
            number = bisect_right(self._begins, self.released) - 1
            is_last = number + 1 == len(self._begins)
            edge = end if is_last else min(end, self._begins[number + 1])
            text = self._leave(edge, number)
            if not is_last and edge == self._begins[number + 1] and self._restorer is not None:
                text += self._restorer.finish()
            out.append((number, text))
        return out

    def _take_piece(self, piece: str) -> None:
        self._pieces.append(piece)
        self._kept += piece
        if (answer := self._json[-1]) is not None:
            answer.add(piece)
            if answer.is_prose:
                self._json[-1] = None
        self._scan.add(piece)
        if self._own is not None:
            self._own.add(piece)

    def _take(self, found: Sequence[Finding], before: int, scan: FieldScan, begin: int) -> None:
        """What a frame says: marks, or the place where the text stops. `begin` is where its scan begins."""
        if self.is_audit:
            return
        for finding in found:
            place = finding.location
            start, end = place.start + begin, place.end + begin
            verdict = self._judge(finding, scan.text(place.start, place.end))
            if verdict.is_stop and (self.stop_at is None or start < self.stop_at):
                self.stop_at, self.is_taken_out = start, verdict.is_taken_out
            elif verdict.mark is not None:
                self._marks.append(msgspec.structs.replace(verdict.mark, start=start, end=end))
            if (verdict.is_stop or verdict.mark is not None) and start < self.released:
                self.escaped += min(end, self.released) - start
        if self.stop_at is None and (scan.is_overlong or scan.is_refused):
            self.stop_at = begin + before
        if self.is_stopped:
            self._scan.stop()
            if self._own is not None:
                self._own.stop()

    def _may_leave(self) -> int:
        if self.is_audit:
            return self.length
        end = max(self._scan.settled, self._scan.cleared())
        if self._own is not None:
            end = min(end, self._begins[-1] + max(self._own.settled, self._own.cleared()))
        if self._streaming.guarantee is Guarantee.BOUNDED:
            forced = self.length - self._streaming.hold_back
            self.undecided += max(0, forced - max(end, self.released))
            end = max(end, forced)
        return self._whole_to(end if self._held_from is None else min(end, self._held_from))

    def _whole_to(self, end: int) -> int:
        """Where the text may be cut in front of a place, so that what is rewritten in JSON stays JSON."""
        number = bisect_right(self._begins, end) - 1
        answer, begin = self._json[number], self._begins[number]
        if answer is None:
            return end
        cut = begin + answer.whole_to(end - begin)
        if cut < end:
            for mark in sorted(self._marks, key=lambda one: -one.start):
                if mark.start < cut < mark.end:
                    cut = begin + answer.whole_to(max(0, mark.start - begin))
        return max(cut, self.released)

    def _leave(self, end: int, number: int) -> str:
        count = end - self.released
        text, self._kept = self._kept[:count], self._kept[count:]
        marks = [
            msgspec.structs.replace(
                mark, start=max(mark.start - self.released, 0), end=min(mark.end - self.released, count)
            )
            for mark in self._in_json(number)
            if mark.start < end and mark.end > self.released
        ]
        self._marks = [mark for mark in self._marks if mark.end > end]
        self.released = end
        shown = self._redact(text, marks) if marks else text
        if shown != text:
            self.changed.add(number)
        return shown if self._restorer is None else self._restorer.feed(shown)

    def _in_json(self, number: int) -> Sequence[Mark]:
        """The marks, fitted to a block that is JSON."""
        answer, begin = self._json[number], self._begins[number]
        if answer is None or not self._marks:
            return self._marks
        inside = [
            msgspec.structs.replace(mark, start=max(0, mark.start - begin), end=mark.end - begin)
            for mark in self._marks
            if mark.end > begin
        ]
        return [
            msgspec.structs.replace(mark, start=mark.start + begin, end=mark.end + begin)
            for mark in answer.fitted(inside)
        ]
