"""A streamed answer on its way through: the provider's events into the guard, and out what it lets go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from itertools import groupby

import msgspec

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Reply,
    StreamEvent,
    TextDelta,
    ToolCall,
    UnknownEvent,
    UsageEvent,
    assistant,
    stand_in,
)
from stanchion.gateway.answering import head
from stanchion.gateway.asking import stream
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.http_io import Answer
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.ports import Engaged, Outcome, Refused, Stage
from stanchion.gateway.tool_calls import (
    parked,
    person_asked,
    switched_off_words,
    ticket_outcome,
    tool_switch,
)
from stanchion.gateway.transparency import notices
from stanchion.gateway.upstream import Question, Route
from stanchion.guard.exchange import PreparedInteraction
from stanchion.models.events import Assembler, events_of, merged_usage
from stanchion.models.surface import StreamEncoder, SurfaceCodec

_NOTICE = 1_000_000  # the block of our own words, behind every block of an answer
_MOST_KEPT = 1_000_000  # characters of an answer that are kept for a person to read


class StreamFlow:
    """One stream. `deliver` runs it to its end."""

    def __init__(
        self,
        exchange: Exchange,
        prepared: PreparedInteraction,
        encoder: StreamEncoder,
        answer: Answer,
    ) -> None:
        self._exchange = exchange
        self._prepared = prepared
        self._guard = exchange.held_to.guard.stream(prepared)
        exchange.guarantee = self._guard.guarantee.value
        self.encoder = encoder
        self._answer = answer
        self._tool_switch: Engaged | None = None
        shadows = exchange.assignment is not None and exchange.assignment.shadows
        self._keeps = exchange.live.parts.approvals is not None or bool(shadows)
        self._kept = Assembler()
        self._kept_characters = 0
        self._sent: list[str] = []
        self._held: Sequence[StreamEvent] = ()  # the guard's last words, while a person may be asked

    async def deliver(self, route: Route, question: Question) -> None:
        """Ask, and pass on what the guard gives back.

        Raises:
            Refused: when the provider fails, or the answer breaks off.
        """
        exchange = self._exchange
        question = msgspec.structs.replace(question, shown=self._answer)
        async with aclosing(stream(exchange, route, question)) as batches:
            async for batch in batches:
                data = b"".join(await self._passed(batch))
                if self._guard.is_over:
                    break
                if data:
                    await self._give(data)
            else:
                raise _broken_off()
            if self._held:
                data += await self._decided(batches)
        self._take_decisions()
        if self._keeps:
            self._kept.feed(End(finish_reason=FinishReason.UNKNOWN))
            exchange.said = self._kept.reply()
        exchange.stage = Stage.DONE
        exchange.outcome = self._outcome()
        exchange.status = 200
        await self._give(b"".join([data, *self.encoder.finish()]), is_last=True)

    def _outcome(self) -> Outcome:
        if self._tool_switch is not None:
            return Outcome.SWITCHED_OFF
        return (
            ticket_outcome(self._exchange) if self._exchange.ticket else outcome_of(self._exchange.decisions)
        )

    async def _passed(self, batch: Sequence[StreamEvent]) -> list[bytes]:
        """The bytes that may leave after some events of the provider."""
        exchange, clock = self._exchange, self._exchange.live.clock
        began_ns = clock.monotonic_ns()
        out: list[bytes] = []
        events = together(batch)
        last_words = last_words_of(events)
        for event in events:
            kind = type(event)
            if kind is UnknownEvent:
                exchange.count_unknown(event.kind)  # type: ignore[union-attr]
            elif kind is UsageEvent:
                usage = merged_usage(exchange.usage, event.usage)  # type: ignore[union-attr]
                exchange.usage = exchange.priced(usage)
            elif kind is End:
                exchange.stage = Stage.OUTPUT
            if self._keeps:
                self._keep(event)
            if self._held:
                continue
            shown: Sequence[StreamEvent] = await self._guard.feed(event, is_last=event is last_words)
            if self._guard.is_over and self._keeps and self._waits_for_person():
                self._held = shown
                continue
            if self._keeps:
                self._sent += [one.text for one in shown if isinstance(one, TextDelta)]
            for one in self._noticed(self._allowed(shown)) if shown else ():
                out += self.encoder.feed(one)
            if self._guard.is_over:
                break
        exchange.guard_ns += clock.monotonic_ns() - began_ns
        return out

    def _allowed(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """The events without the calls of an answer that calls a tool which is switched off."""
        exchange, switches = self._exchange, self._exchange.live.parts.switches
        if isinstance(events[-1], End):
            exchange.finish_reason = events[-1].finish_reason
        if switches is None:
            return events
        named = tuple(event.name for event in events if isinstance(event, ArgumentDelta) and event.name)
        self._tool_switch = self._tool_switch or tool_switch(exchange, named)
        if self._tool_switch is None:
            return events
        kept: list[StreamEvent] = [event for event in events if not isinstance(event, ArgumentDelta | End)]
        if isinstance(events[-1], End):
            kept += [
                TextDelta(text=switched_off_words(exchange), index=_NOTICE, stands_in=True),
                End(finish_reason=FinishReason.CONTENT_FILTER),
            ]
            exchange.finish_reason = FinishReason.CONTENT_FILTER
        return kept

    def _noticed(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """The events, with the notices of the feature before an end that came of itself."""
        if self._exchange.held_to.notices is None or not events or not isinstance(events[-1], End):
            return events
        self._take_decisions()
        words = notices(self._exchange) if events[-1].finish_reason is FinishReason.STOP else ""
        return [*events[:-1], TextDelta(text=words, index=_NOTICE), events[-1]] if words else events

    def _keep(self, event: StreamEvent) -> None:
        """Remember what the model says, up to a limit: for a person to decide on, or for shadows."""
        self._kept_characters += len(getattr(event, "text", "") or getattr(event, "json", ""))
        if self._kept_characters <= _MOST_KEPT and not isinstance(event, End):
            self._kept.feed(event)

    def _waits_for_person(self) -> bool:
        self._take_decisions()
        return person_asked(self._exchange) is not None and self._kept_characters <= _MOST_KEPT

    async def _decided(self, batches: AsyncIterator[Sequence[StreamEvent]]) -> bytes:
        """The end of an answer that needs a person's word: the answer, or how its ticket stands.

        What the model still says is read first, so that the person sees all of it.
        """
        exchange, held = self._exchange, self._held
        async for batch in batches:
            for event in batch:
                self._keep(event)
                if isinstance(event, UsageEvent):
                    exchange.usage = exchange.priced(merged_usage(exchange.usage, event.usage))
        return b"".join(piece for one in await self._with_person(held) for piece in self.encoder.feed(one))

    async def _with_person(self, held: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        exchange = self._exchange
        self._kept.feed(End(finish_reason=FinishReason.UNKNOWN))
        reply = self._kept.reply()
        if tool_switch(exchange, tuple(call.name for call in reply.message.tool_calls)) is not None:
            return self._ended(switched_off_words(exchange))
        words = "".join(event.text for event in held if isinstance(event, TextDelta))
        stopped = Reply(message=stand_in(words), finish_reason=FinishReason.CONTENT_FILTER)
        decided = await parked(exchange, self._prepared, reply, stopped)
        if decided is stopped:
            return self._ended(words)
        return self._rest(decided)

    def _ended(self, words: str) -> Sequence[StreamEvent]:
        self._exchange.finish_reason = FinishReason.CONTENT_FILTER
        told = TextDelta(text=words, index=_NOTICE, stands_in=True)
        return (told, End(finish_reason=FinishReason.CONTENT_FILTER))

    def _rest(self, decided: Reply) -> Sequence[StreamEvent]:
        """The events of an answer without the words that were sent already."""
        self._exchange.finish_reason = decided.finish_reason
        words, sent = decided.message.text, "".join(self._sent)
        rest = words[len(sent) :] if sent and words.startswith(sent) else words
        calls = tuple(part for part in decided.message.parts if isinstance(part, ToolCall))
        say = stand_in if decided.finish_reason is FinishReason.CONTENT_FILTER else assistant
        message = say(rest) if rest else msgspec.structs.replace(decided.message, parts=())
        message = msgspec.structs.replace(message, parts=(*message.parts, *calls))
        return [
            msgspec.structs.replace(event, index=event.index + _NOTICE)
            if isinstance(event, TextDelta | ArgumentDelta)
            else event
            for event in events_of(msgspec.structs.replace(decided, message=message))
        ]

    async def _give(self, data: bytes, *, is_last: bool = False) -> None:
        exchange, answer = self._exchange, self._answer
        if is_last and exchange.before_end is not None:
            await exchange.before_end()
        if not answer.has_begun:
            self._take_decisions()
            exchange.first_byte_ns = exchange.live.clock.monotonic_ns() - exchange.started_ns
            exchange.status = 200
            await answer.begin(200, head(exchange, is_stream=True))
        if is_last:
            await answer.end(data)
        else:
            await answer.piece(data)

    def _take_decisions(self) -> None:
        answered = self._guard.answer
        if answered is not None and answered.reply is not None:
            self._exchange.decisions = (*answered.reply.decisions, *self._exchange.beside)
            self._exchange.shown = answered.reply


def together(batch: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
    """The same events, with words of one block that came together as one: they are checked in one look."""
    if len(batch) == 1:
        return batch
    out: list[StreamEvent] = []
    for block, events in groupby(batch, key=_block_of_words):
        if block is None:
            out += events
        else:
            out.append(TextDelta(text="".join([event.text for event in events]), index=block))  # type: ignore[union-attr]
    return out


def last_words_of(events: Sequence[StreamEvent]) -> StreamEvent | None:
    """The words in front of an end that came with them; None where other things came between."""
    if type(events[-1]) is not End:
        return None
    for event in reversed(events[:-1]):
        if type(event) is TextDelta:
            return event
        if type(event) is not UsageEvent:
            return None
    return None


def _block_of_words(event: StreamEvent) -> int | None:
    return event.index if type(event) is TextDelta else None


def _broken_off() -> Refused:
    return Refused(
        Outcome.UPSTREAM_ERROR,
        status=502,
        may_retry=True,
        code="upstream_broke_off",
        message="the provider's answer broke off before it was over.",
        hint="Try again.",
    )


async def stream_answer(
    exchange: Exchange,
    codec: SurfaceCodec,
    prepared: PreparedInteraction,
    answer: Answer,
    *,
    route: Route,
    question: Question,
) -> None:
    """Stream the answer to a prepared request; an error after its head was sent is its last event."""
    request = exchange.asked
    encoder = codec.stream_encoder(
        asked=request, response_id=exchange.id, created=int(exchange.live.clock.now().timestamp())
    )
    exchange.encoder = encoder
    flow = StreamFlow(exchange, prepared, encoder, answer)
    try:
        await flow.deliver(route, question)
    except UnavailableError as error:  # the guard could not decide
        raise Refused(
            Outcome.INTERNAL_ERROR,
            status=502,
            may_retry=True,
            code="answer_not_decided",
            message=error.message,
            hint=error.hint or "",
        ) from None
