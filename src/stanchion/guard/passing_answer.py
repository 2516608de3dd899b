"""The checks of one answer that comes in pieces: its texts one by one, and the whole at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from stanchion.core.decision import Effect, Mode, Surface
from stanchion.core.finding import Finding
from stanchion.core.interaction import Interaction, Reply
from stanchion.core.origin import Origin
from stanchion.guard.examine import TAKEN_OUT, Passing
from stanchion.guard.exchange import Exchange, PreparedInteraction, subject_of
from stanchion.guard.fields import TextField
from stanchion.guard.frames import FieldScan
from stanchion.guard.policy_model import Guarantee, Handling, Policy, Streaming, WholeMessage
from stanchion.guard.redaction import Mark
from stanchion.guard.text_stream import TextStream, Verdict
from stanchion.guard.workers import AsyncDoor


class PassingAnswer:
    """What a stream asks of a policy, for the answer to one prepared request."""

    def __init__(
        self,
        policy: Policy,
        exchange: Exchange,
        prepared: PreparedInteraction,
        context: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._policy = policy
        self._exchange = exchange
        self._prepared = prepared
        self._context = context
        self._passing = Passing()
        self.door = AsyncDoor()
        self.limits = policy.limits
        exchange.examiner.prepare_streams()

    @property
    def streaming(self) -> Streaming:
        """What holds for this stream; a policy that is not acted on is audit only."""
        if self._policy.mode is Mode.SHADOW:
            return Streaming(guarantee=Guarantee.AUDIT_ONLY)
        return self._policy.streaming

    def blocks(self, kind: str) -> bool:
        """Whether the policy blocks parts of this kind (`opaque`, `redacted_reasoning`)."""
        is_acted_on = self.streaming.guarantee is not Guarantee.AUDIT_ONLY
        return is_acted_on and getattr(self._policy, kind) is Handling.BLOCK

    def whole(self, handling: WholeMessage) -> tuple[str, ...]:
        """The detectors that need the whole answer and are handled so, each once."""
        surfaces = (Surface.OUTPUT, Surface.REASONING)
        found = [check for surface in surfaces for check in self._exchange.examiner.whole(surface)]
        return tuple(dict.fromkeys(check.id for check in found if check.settings.stream is handling))

    def text(self, field: str, surface: Surface, *, is_restored: bool, is_held: bool) -> TextStream:
        """The stream of one text. `is_restored`: the user's own values come back in it."""
        examiner = self._exchange.examiner
        place = TextField(field=field, surface=surface, origin=Origin.MODEL, text="")
        subject = subject_of(self._prepared.original, self._context)
        needs_whole = any(check.settings.stream is WholeMessage.BUFFER for check in examiner.whole(surface))
        streaming = self.streaming
        is_audit = streaming.guarantee is Guarantee.AUDIT_ONLY
        return TextStream(
            examiner.scan(place, subject, self._passing),
            lambda finding, found: self._judge(place, finding, found),
            self._redact,
            restorer=self._prepared.vault.restorer() if is_restored else None,
            streaming=streaming,
            is_held=is_held or (needs_whole and not is_audit),
        )

    def scan(self, field: str, surface: Surface) -> FieldScan:
        """The frames of one block alone, beside those of a text that runs over it."""
        place = TextField(field=field, surface=surface, origin=Origin.MODEL, text="")
        subject = subject_of(self._prepared.original, self._context)
        return self._exchange.examiner.scan(place, subject, self._passing)

    def rename(self, field: str, name: str) -> None:
        """What was checked as one field is another: its text went on in a further block."""
        scan = self._passing.scans[name] = self._passing.scans.pop(field)
        scan.rename(name)

    def forget(self, field: str) -> None:
        """What was checked of a field while it came does not count: it is checked again at the end."""
        self._passing.scans.pop(field, None)

    async def finish(self, reply: Reply) -> Interaction:
        """The decisions about the whole answer; frames that were checked are not checked again."""
        return await self._exchange.finish(
            self.door, self._prepared, reply, self._context, passing=self._passing
        )

    def _judge(self, place: TextField, finding: Finding, found: str) -> Verdict:
        offset = finding.location.start
        field = msgspec.structs.replace(place, text=found or " ")  # a finding without extent has no text
        examined, grounds = self._exchange.examiner.judged(field, [finding], offset=offset)
        effect = max((ground.effect for ground in grounds), key=lambda e: e.rank, default=Effect.ALLOW)
        if effect.rank >= Effect.REPLACE.rank:
            is_taken_out = effect is Effect.REPLACE and place.surface in TAKEN_OUT
            return Verdict(is_stop=True, is_taken_out=is_taken_out)
        marks = [self._exchange.mark(finding, hit.rule.operator) for hit in examined.ruling.redactions()]
        if not marks:
            return Verdict()
        return Verdict(mark=max(marks, key=lambda mark: mark.operator.removes))

    def _redact(self, text: str, marks: Sequence[Mark]) -> str:
        return self._exchange.redactor.redact(text, marks)
