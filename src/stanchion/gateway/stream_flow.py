"""A streamed answer on its way through: the provider's events into the guard, and out what it lets go."""

from __future__ import annotations

from collections.abc import Sequence
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
    UnknownEvent,
    UsageEvent,
    assistant,
)
from stanchion.gateway.answering import head
from stanchion.gateway.asking import stream
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.http_io import Answer
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.ports import Engaged, Outcome, Refused, Stage
from stanchion.gateway.tool_calls import SWITCHED_OFF, approval_asked, parked, ticket_outcome
from stanchion.gateway.upstream import Question, Route
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.streaming import StreamGuard
from stanchion.models.events import Assembler, events_of, merged_usage
from stanchion.models.surface import StreamEncoder, SurfaceCodec

_NOTICE = 1_000_000  # the block of our own words, behind every block of an answer


class StreamFlow:
    """One stream. `deliver` runs it to its end."""

    def __init__(
        self, exchange: Exchange, guard: StreamGuard, encoder: StreamEncoder, answer: Answer
    ) -> None:
        self._exchange = exchange
        self._guard = guard
        self.encoder = encoder
        self._answer = answer
        self._tool_switch: Engaged | None = None
        self._keeps_calls = exchange.live.parts.approvals is not None
        self._calls = Assembler()

    async def deliver(self, route: Route, question: Question) -> None:
        """Ask, and pass on what the guard gives back.

        Raises:
            Refused: when the provider fails, or the answer breaks off.
        """
        exchange = self._exchange
        async with aclosing(stream(exchange, route, question)) as batches:
            async for batch in batches:
                data = b"".join(await self._passed(batch, route))
                if self._guard.is_over:
                    break
                if data:
                    await self._give(data)
            else:
                raise _broken_off()
        self._take_decisions()
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

    async def _passed(self, batch: Sequence[StreamEvent], route: Route) -> list[bytes]:
        """The bytes that may leave after some events of the provider."""
        exchange, clock = self._exchange, self._exchange.live.clock
        began_ns = clock.monotonic_ns()
        out: list[bytes] = []
        for event in together(batch):
            kind = type(event)
            if kind is UnknownEvent:
                exchange.count_unknown(event.kind)  # type: ignore[union-attr]
            elif kind is UsageEvent:
                usage = merged_usage(exchange.usage, event.usage)  # type: ignore[union-attr]
                exchange.usage = route.priced(usage)
            elif kind is End:
                exchange.stage = Stage.OUTPUT
            elif kind is ArgumentDelta and self._keeps_calls:
                self._calls.feed(event)
            shown: Sequence[StreamEvent] = await self._guard.feed(event)
            if self._guard.is_over and self._keeps_calls:
                shown = await self._with_approval(shown)
            for one in self._allowed(shown) if shown else ():
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
        for event in events:
            if isinstance(event, ArgumentDelta) and event.name:
                engaged = switches.find_tool(exchange.facts, event.name)
                if engaged is not None:
                    self._tool_switch = engaged
                    exchange.switch_id = engaged.switch_id
        if self._tool_switch is None:
            return events
        kept: list[StreamEvent] = [event for event in events if not isinstance(event, ArgumentDelta | End)]
        if isinstance(events[-1], End):
            words = SWITCHED_OFF.format(reference=exchange.reference)
            kept += [TextDelta(text=words, index=_NOTICE), End(finish_reason=FinishReason.CONTENT_FILTER)]
            exchange.finish_reason = FinishReason.CONTENT_FILTER
        return kept

    async def _with_approval(self, shown: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """The end of an answer whose calls need a person's word: the calls, or how their ticket stands."""
        exchange = self._exchange
        self._take_decisions()
        decision = approval_asked(exchange.decisions)
        if decision is None or not isinstance(shown[-1], End):
            return shown
        self._calls.feed(End(finish_reason=FinishReason.TOOL_CALLS, model=shown[-1].model))
        said = self._calls.reply()
        words = "".join(event.text for event in shown if isinstance(event, TextDelta))
        stopped = Reply(message=assistant(words), finish_reason=FinishReason.CONTENT_FILTER)
        decided = await parked(exchange, decision, said, stopped)
        if decided is stopped:
            return shown
        index = max((event.index for event in shown if isinstance(event, TextDelta)), default=0)
        return [
            msgspec.structs.replace(event, index=event.index + index)
            if isinstance(event, TextDelta | ArgumentDelta)
            else event
            for event in events_of(decided)
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
    out: list[StreamEvent] = []
    for block, events in groupby(batch, key=_block_of_words):
        if block is None:
            out += events
        else:
            out.append(TextDelta(text="".join([event.text for event in events]), index=block))  # type: ignore[union-attr]
    return out


def _block_of_words(event: StreamEvent) -> int | None:
    return event.index if type(event) is TextDelta else None


def _broken_off() -> Refused:
    return Refused(
        Outcome.UPSTREAM_ERROR,
        status=502,
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
    request, feature = exchange.asked, exchange.held_to
    guard = feature.guard.stream(prepared)
    exchange.guarantee = guard.guarantee.value
    encoder = codec.stream_encoder(
        asked=request, response_id=exchange.id, created=int(exchange.live.clock.now().timestamp())
    )
    exchange.encoder = encoder
    flow = StreamFlow(exchange, guard, encoder, answer)
    try:
        await flow.deliver(route, question)
    except UnavailableError as error:  # the guard could not decide
        raise Refused(
            Outcome.INTERNAL_ERROR,
            status=502,
            code="answer_not_decided",
            message=error.message,
            hint=error.hint or "",
        ) from None
