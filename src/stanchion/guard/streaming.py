"""A streamed answer under guard: words leave as soon as nothing that may follow changes what is said of them.

What settles as a text passes (see `frames`) is decided on the way: stretches are rewritten before they leave,
and a finding that ends the answer ends it in front of the first character it is about. Tool calls, citations
and signatures leave at the end: a call acts as a whole, and is decided as a whole, after every word.
Detectors that need the whole answer decide at the end, or make the answer wait (`stream: buffer`). An answer
that breaks off, or whose check breaks, leaves nothing of what waited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import msgspec

from stanchion.core.decision import Decision, Mode, Surface
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Interaction,
    Message,
    Part,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    UnknownEvent,
    UsageEvent,
)
from stanchion.core.origin import Origin
from stanchion.guard.exchange import is_stop
from stanchion.guard.fields import joined_name
from stanchion.guard.passing_answer import PassingAnswer
from stanchion.guard.policy_model import Guarantee, WholeMessage
from stanchion.guard.stream_citations import kept as kept_citations
from stanchion.guard.stream_citations import words_of
from stanchion.guard.text_stream import TextStream
from stanchion.models.events import Assembler, events_of

Finish = Callable[[Reply], Awaitable[Interaction]]
_TextEvent = TextDelta | RefusalDelta | ReasoningDelta
_TEXTS = {TextDelta: "text", RefusalDelta: "refusal", ReasoningDelta: "reasoning"}
_ANSWERED = (Surface.OUTPUT, Surface.REASONING, Surface.TOOL_CALL)


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream promised and kept. Lengths are characters as the model wrote them.

    `at_end` are the detectors that decide about the whole answer when its words have left: the guarantee does
    not cover them. `buffered_for` are those that made the answer wait. `most_held` and `mean_held` are what
    waited after an event. `undecided` left before it was decided (`bounded` only); `escaped` belongs to
    findings that came too late, and is 0 unless a detector's reach is not what it says. `work` counts the
    characters that checks were given, each as often as it was.
    """

    guarantee: Guarantee
    at_end: tuple[str, ...] = ()
    buffered_for: tuple[str, ...] = ()
    characters: int = 0
    most_held: int = 0
    mean_held: float = 0.0
    undecided: int = 0
    escaped: int = 0
    work: int = 0


class _Block:
    """One part of the answer while it comes: a text, or events that wait for the end."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.text: TextStream | None = None
        self.number = 0  # among the blocks of its text
        self.field = ""
        self.said = ""  # all of it, where blocks of its text are mixed
        self.shown = ""
        self.is_held = False
        self.events: list[StreamEvent] = []
        self.length = 0
        self.has_begun = self.has_left = False

    def delta(self, text: str) -> StreamEvent:
        """The event that carries more of this text."""
        if self.kind == "text":
            return TextDelta(text=text, index=self.index)
        if self.kind == "refusal":
            return RefusalDelta(text=text, index=self.index)
        return ReasoningDelta(text=text, index=self.index)


class _Voice:
    """The blocks that a reader takes for one text, and the stream of it."""

    def __init__(self, text: TextStream) -> None:
        self.text = text
        self.blocks: list[_Block] = []
        self.is_mixed = False

    def mix(self, passing: PassingAnswer) -> None:
        """The answer went back to an earlier block: nothing more leaves before all was checked."""
        if self.is_mixed or self.text.is_stopped:
            return
        self.is_mixed = True
        for block in self.blocks:
            block.said = self.text.block_text(block.number)
            passing.forget(block.field)
            passing.forget(joined_name(block.field))


class StreamGuard:
    """Feed it every event and send on what it gives back; call `finish` when the stream is over."""

    def __init__(self, checks: PassingAnswer | Finish, *, refused: Reply | None = None) -> None:
        """`checks` decide about the answer; a mere function finishes an answer that nobody checks.

        With `refused` the request was refused, and its safe completion stands for whatever is answered.
        """
        self._refused = refused
        self._passing = checks if isinstance(checks, PassingAnswer) else None
        self._finish = checks
        self._blocks: dict[tuple[str, int], _Block] = {}
        self._voices: dict[str, _Voice] = {}
        self._citations: list[Citation] = []
        self._usage: list[UsageEvent] = []
        self._given = Assembler()
        self._is_over = self._is_broken = self._was_stopped = False
        self._holds_new = False
        self._characters = 0
        self._held = (0, 0, 0)  # events, characters held after them, the most
        self._answer: Interaction | None = None

    @property
    def answer(self) -> Interaction | None:
        """The interaction with the reply that was given on; None before the end."""
        return self._answer

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be given on, because the answer ended or was ended."""
        return self._is_over

    @property
    def was_stopped(self) -> bool:
        """Whether the guard ended the answer; what the model still says is not looked at."""
        return self._was_stopped

    @property
    def guarantee(self) -> Guarantee:
        """What holds for this stream; audit only where there is no policy."""
        return Guarantee.AUDIT_ONLY if self._passing is None else self._passing.streaming.guarantee

    @property
    def report(self) -> StreamReport:
        """What was promised and kept so far."""
        texts = [voice.text for voice in self._voices.values()]
        events, held, most = self._held
        return StreamReport(
            guarantee=self.guarantee,
            at_end=() if self._passing is None else self._passing.whole(WholeMessage.AT_END),
            buffered_for=() if self._passing is None else self._passing.whole(WholeMessage.BUFFER),
            characters=sum(text.length for text in texts),
            most_held=most,
            mean_held=held / events if events else 0.0,
            undecided=sum(text.undecided for text in texts),
            escaped=sum(text.escaped for text in texts),
            work=sum(text.work for text in texts),
        )

    async def feed(self, event: StreamEvent, *, is_last: bool = False) -> tuple[StreamEvent, ...]:
        """The events that may leave now.

        `is_last` says that these are the last words and the end is here too: they are looked at with it.

        Raises:
            UsageError: for an event after `End`, or after an error.
        """
        if self._is_broken:
            raise UsageError("this stream broke; nothing more can be fed to it.")
        if isinstance(event, UsageEvent):
            self._usage.append(event)
            return (event,)
        if self._was_stopped:
            return ()
        if self._is_over:
            raise UsageError(f"an event of kind {type(event).__name__} came after the end of the answer.")
        try:
            out = await (self._fed(event, is_last) if self._refused is None else self._refuse(self._refused))
        except BaseException:
            self._drop()
            raise
        waiting = sum(voice.text.waiting for voice in self._voices.values())
        events, held, most = self._held
        self._held = (events + 1, held + waiting, max(most, waiting))
        return out

    async def finish(self) -> tuple[StreamEvent, ...]:
        """The stream is over; gives nothing more.

        Raises:
            UnavailableError: when it broke off before `End`; what was held is dropped.
        """
        if not self._is_over:
            self._drop()
            broke = "the stream broke off before the answer was over."
            raise UnavailableError(broke, hint="Ask again, or look at the endpoint.")
        return ()

    def _drop(self) -> None:
        """Nothing of what waits will ever leave."""
        self._is_broken = self._is_over = True
        self._blocks.clear()
        self._voices.clear()
        self._citations.clear()

    async def _refuse(self, reply: Reply) -> tuple[StreamEvent, ...]:
        """The safe completion of a request that was refused; whatever answers it is not looked at."""
        self._is_over = self._was_stopped = True
        out = self._given_on(events_of(reply))
        self._answer = await cast(Finish, self._finish)(reply)
        return out

    async def _fed(self, event: StreamEvent, is_last: bool) -> tuple[StreamEvent, ...]:
        match event:
            case TextDelta() | RefusalDelta() | ReasoningDelta():
                return await self._fed_text(event, is_last and self._waits)
            case ArgumentDelta():
                return await self._fed_call(event)
            case Citation():
                self._citations.append(event)
                return await self._grown(len(event.quote)) if self._waits else self._given_on([event])
            case UnknownEvent():
                return await self._fed_unknown(event)
            case End():
                return await self._conclude(event)
            case _:
                raise UsageError(f"an event of kind {type(event).__name__} is none that a guard knows.")

    @property
    def _waits(self) -> bool:
        """Whether anything is held at all."""
        return self.guarantee is not Guarantee.AUDIT_ONLY

    async def _grown(self, characters: int, of_block: int = 0) -> tuple[StreamEvent, ...]:
        """Nothing leaves, unless the answer has grown beyond a limit: then it is decided now."""
        self._characters += characters
        passing = self._passing
        if passing is None or (
            of_block <= passing.limits.output_characters
            and self._characters <= passing.limits.total_characters
        ):
            return ()
        return await self._conclude(None)

    async def _fed_text(self, event: _TextEvent, is_last: bool) -> tuple[StreamEvent, ...]:
        if (passing := self._passing) is None:
            return self._given_on([event])
        block = await self._text_block(passing, _TEXTS[type(event)], event.index)
        voice = self._voices[_voice(block.kind)]
        if event.text and voice.blocks[-1] is not block:
            voice.mix(passing)
        is_sealed = isinstance(event, ReasoningDelta) and (event.signature is not None or event.redacted)
        if is_sealed:
            block.events.append(msgspec.structs.replace(event, text=""))
        piece = event.text[: max(0, passing.limits.output_characters + 1 - block.length)]
        block.length += len(piece)
        if voice.is_mixed:
            block.said += piece
            left = []
        else:
            left = await voice.text.feed(passing.door, piece, is_last=is_last)
        if not self._waits:
            left = [(block.number, piece)]
        out = self._given_on(
            [one for number, text in left for one in self._shown(voice.blocks[number], text)]
        )
        if is_sealed and not self._waits:
            out = (*out, *self._given_on([block.events.pop()]))
        is_redacted = isinstance(event, ReasoningDelta) and event.redacted
        if (voice.text.is_stopped and not voice.text.is_taken_out) or (
            is_redacted and passing.blocks("redacted_reasoning")
        ):
            return (*out, *await self._conclude(None))
        return (*out, *await self._grown(len(piece), block.length))

    async def _fed_call(self, event: ArgumentDelta) -> tuple[StreamEvent, ...]:
        block = self._block("call", event.index)
        if not self._waits:
            block.events.append(event)
            return self._given_on([event])
        self._holds_new = True
        if event.json or event.call_id or event.name or not block.events:
            block.events.append(event)
        block.length += len(event.json)
        return await self._grown(len(event.json), block.length)

    async def _fed_unknown(self, event: UnknownEvent) -> tuple[StreamEvent, ...]:
        block = self._block("unknown", len(self._blocks))
        if self._passing is not None and self._passing.blocks("opaque"):
            block.events.append(event)
            return await self._conclude(None)
        if self._holds_new:
            block.events.append(event)
            return ()
        block.has_left = True
        block.events.append(event)
        return self._given_on([*self._placeholders(block), event])

    def _block(self, kind: str, index: int) -> _Block:
        block = self._blocks.get((kind, index))
        if block is None:
            block = self._blocks[kind, index] = _Block(kind, index)
        return block

    async def _text_block(self, passing: PassingAnswer, kind: str, index: int) -> _Block:
        """The block of some words; a new one goes on with the text of those of its kind before it."""
        known = self._blocks.get((kind, index))
        if known is not None:
            return known
        block = self._block(kind, index)
        field, named = f"reply.parts[{len(self._blocks) - 1}]", _voice(kind)
        surface = Surface.REASONING if named == "reasoning" else Surface.OUTPUT
        voice = self._voices.get(named)
        if voice is None:
            text = passing.text(
                field, surface, is_restored=surface is Surface.OUTPUT, is_held=self._holds_new
            )
            voice = self._voices[named] = _Voice(text)
        elif not voice.is_mixed:
            first, began = None, voice.blocks[0].field
            if len(voice.blocks) == 1:
                passing.rename(began, joined_name(began))
                first = passing.scan(began, surface)
            scan = passing.scan(field, surface)
            await voice.text.begin(passing.door, scan, first=first, is_held=self._holds_new)
        block.text, block.number, block.field = voice.text, len(voice.blocks), field
        block.is_held = voice.text.is_held or self._holds_new
        voice.blocks.append(block)
        return block

    def _shown(self, block: _Block, text: str) -> list[StreamEvent]:
        """More of a text, behind a sign of those that came before it and have shown nothing yet."""
        block.shown += text
        return [*self._placeholders(block), block.delta(text)] if text else []

    def _placeholders(self, block: _Block) -> Iterator[StreamEvent]:
        for other in self._blocks.values():
            if other is block:
                break
            if other.text is not None and not other.has_begun:
                other.has_begun = True
                yield other.delta("")
        block.has_begun = True

    def _given_on(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        out = tuple(events)
        for event in out:
            if not isinstance(event, Citation):
                self._given.feed(event)
        return out

    async def _conclude(self, end: End | None) -> tuple[StreamEvent, ...]:
        """The end of the answer: its own, or (None) one that the policy makes."""
        self._is_over = True
        last = end or End(finish_reason=FinishReason.CONTENT_FILTER)
        if (passing := self._passing) is None:
            out = self._given_on([last])
            self._answer = await cast(Finish, self._finish)(self._given.reply())
            return out
        tails: dict[_Block, str] = {}
        for voice in self._voices.values():
            for number, text in () if voice.is_mixed else await voice.text.finish(passing.door):
                block = voice.blocks[number]
                tails[block] = tails.get(block, "") + text
        if any(voice.text.ended_early for voice in self._voices.values()):
            end, last = None, End(finish_reason=FinishReason.CONTENT_FILTER)
        reply = self._said(last)
        quotes = tuple(Text(text=words_of(citation), origin=Origin.MODEL) for citation in self._citations)
        whole = msgspec.structs.replace(reply.message, parts=(*reply.message.parts, *quotes))
        answer = await passing.finish(msgspec.structs.replace(reply, message=whole))
        checked = answer.reply
        if checked is None:
            raise UnavailableError("the answer could not be decided.", is_retryable=False)
        if not self._waits:
            out = self._given_on([*self._tails(tails, ()), last])
            self._answered(answer, tuple(_not_acted_on(one) for one in checked.decisions))
            return out
        if any(is_stop(decision) for decision in checked.decisions):
            out = self._given_on([*self._tails(tails, ()), *self._refusal(checked, last)])
        elif end is None:
            raise UnavailableError("the answer was stopped, and nothing says why.", is_retryable=False)
        else:
            parts = checked.message.parts
            events = self._given_on([*self._tails(tails, parts), *self._rest(reply.message.parts, parts)])
            kept = kept_citations(self._citations, quotes, parts[len(reply.message.parts) :])
            out = (*events, *kept, *self._given_on([last]))
        self._answered(answer, checked.decisions)
        return out

    def _answered(self, answer: Interaction, decisions: tuple[Decision, ...]) -> None:
        """Keep what was given on, with the decisions about what was said."""
        given = self._given.reply()
        self._answer = msgspec.structs.replace(
            answer, reply=msgspec.structs.replace(given, decisions=decisions)
        )

    def _said(self, end: End) -> Reply:
        """The answer that the decisions are about: all that came, a stopped text as far as checked."""
        said = Assembler()
        for block in self._blocks.values():
            if block.text is not None:
                is_mixed = self._voices[_voice(block.kind)].is_mixed
                said.feed(block.delta(block.said if is_mixed else block.text.checked_text(block.number)))
            for event in block.events:
                said.feed(event)
        for usage in self._usage:
            said.feed(usage)
        said.feed(end)
        return said.reply()

    def _tails(self, tails: Mapping[_Block, str], parts: Sequence[Part]) -> Iterator[StreamEvent]:
        """What texts still show; without `parts` the answer was stopped, and those that waited show none."""
        for number, block in enumerate(self._blocks.values()):
            text = block.text
            if text is None:
                continue
            said = getattr(parts[number], "text", "") if parts else ""
            if self._voices[_voice(block.kind)].is_mixed:
                yield from self._shown(block, _rest_of(said, block.shown) if parts else "")
            elif block.is_held:
                yield from self._shown(block, said)
            else:
                is_told = text.is_taken_out and block.number == text.stopped_in
                yield from self._shown(block, tails.get(block, "") + (said if is_told else ""))

    def _rest(self, before: Sequence[Part], after: Sequence[Part]) -> Iterator[StreamEvent]:
        """What waited for the end: calls, signatures of thoughts that are unchanged, unknown events."""
        for number, block in enumerate(self._blocks.values()):
            if block.kind == "call":
                yield from _call_events(block, before[number], after[number])
            elif block.text is not None:
                if before[number] == after[number] and block.number not in block.text.changed:
                    yield from block.events
            elif not block.has_left:
                yield from block.events

    def _refusal(self, checked: Reply, last: End) -> Iterator[StreamEvent]:
        """The safe completion, in a block of its own behind what was shown before."""
        self._was_stopped = True
        has_shown = any(block.has_begun for block in self._blocks.values())
        index = 1 + max(block.index for block in self._blocks.values()) if has_shown else 0
        yield TextDelta(text=checked.message.text, index=index, stands_in=True)
        yield End(finish_reason=checked.finish_reason, model=last.model)


def _rest_of(said: str, shown: str) -> str:
    """What of a text was not shown yet."""
    if not said.startswith(shown):
        raise UnavailableError(
            "the answer went back to a block whose words had left and would now be others.",
            is_retryable=False,
        )
    return said[len(shown) :]


def _voice(kind: str) -> str:
    """What a reader takes words of a kind for: a refusal is read on from the words before it."""
    return kind if kind == "reasoning" else "words"


def _call_events(block: _Block, before: Part, after: Part) -> Iterator[StreamEvent]:
    if before == after:
        yield from block.events
        return
    for event in events_of(Reply(message=Message(role=Role.ASSISTANT, parts=(after,)))):
        if isinstance(event, ArgumentDelta):
            yield msgspec.structs.replace(event, index=block.index)


def _not_acted_on(decision: Decision) -> Decision:
    if decision.surface not in _ANSWERED:
        return decision
    return msgspec.structs.replace(decision, mode=Mode.SHADOW)
