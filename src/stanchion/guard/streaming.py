"""A streamed answer under guard. Guarantee: *no-leak* by buffering.

Nothing that a model says leaves before the whole answer was checked; token counts pass at once. An answer
that passes leaves event by event as it came; one that was changed leaves as new events with the same words
that an unstreamed answer would have. An answer that breaks off leaves nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Interaction,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    StreamEvent,
    Text,
    TextDelta,
    UsageEvent,
)
from stanchion.core.origin import Origin
from stanchion.guard.exchange import is_stop
from stanchion.guard.fields import json_texts
from stanchion.models.events import Assembler, events_of

Finish = Callable[[Reply], Awaitable[Interaction]]


class StreamGuard:
    """Feed it every event and send on what it gives back; call `finish` when the stream is over."""

    def __init__(self, finish: Finish, *, output_characters: int = 200_000) -> None:
        """`finish` checks a whole reply; beyond `output_characters` nothing more is kept, only counted."""
        self._finish = finish
        self._limit = output_characters
        self._assembler = Assembler()
        self._held: list[StreamEvent] = []
        self._citations: list[Citation] = []
        self._characters = 0
        self._is_over = False
        self._answer: Interaction | None = None

    @property
    def answer(self) -> Interaction | None:
        """The interaction with the reply that was given on; None before the end."""
        return self._answer

    async def feed(self, event: StreamEvent) -> tuple[StreamEvent, ...]:
        """The events that may leave now. At `End` the answer is checked, and all of it leaves."""
        if isinstance(event, UsageEvent):
            self._assembler.feed(event)
            return (event,)
        if self._is_over:
            raise UsageError(f"an event of kind {type(event).__name__} came after the end of the answer.")
        if self._characters > self._limit and not isinstance(event, End):
            return ()  # what is held is beyond the limit already, so the check will refuse it
        self._characters += _length(event)
        self._held.append(event)
        if isinstance(event, Citation):
            self._citations.append(event)
        else:
            self._assembler.feed(event)
        if not isinstance(event, End):
            return ()
        self._is_over = True
        return await self._release(event)

    async def finish(self) -> tuple[StreamEvent, ...]:
        """The stream is over; gives nothing more.

        Raises:
            UnavailableError: when it broke off before `End`; what was held is dropped.
        """
        if not self._is_over:
            self._held.clear()
            self._assembler.reply()  # says that the end is missing
        return ()

    async def _release(self, end: End) -> tuple[StreamEvent, ...]:
        reply = self._assembler.reply()
        parts = reply.message.parts
        quotes = tuple(Text(text=_said(citation), origin=Origin.MODEL) for citation in self._citations)
        whole = msgspec.structs.replace(reply.message, parts=(*parts, *quotes))
        answer = await self._finish(msgspec.structs.replace(reply, message=whole))
        checked = answer.reply
        held, self._held = tuple(self._held), []
        if checked is None:
            self._answer = answer
            return (End(finish_reason=FinishReason.ERROR, model=end.model),)
        is_stopped = any(is_stop(decision) for decision in checked.decisions)
        if not is_stopped:
            words = msgspec.structs.replace(checked.message, parts=checked.message.parts[: len(parts)])
            quoted = checked.message.parts[len(parts) :]
            checked = msgspec.structs.replace(checked, message=words)
            citations = _kept(self._citations, quotes, quoted)
        else:
            citations = ()
        self._answer = msgspec.structs.replace(answer, reply=checked)
        if not is_stopped and checked.message == reply.message and citations == tuple(self._citations):
            return held
        bare = msgspec.structs.replace(checked, usage=Reply(message=checked.message).usage)
        *events, last = events_of(bare)
        return (*events, *citations, last)


def _length(event: StreamEvent) -> int:
    match event:
        case TextDelta() | RefusalDelta() | ReasoningDelta():
            return len(event.text)
        case ArgumentDelta():
            return len(event.json)
        case Citation():
            return len(event.quote)
        case _:
            return 0


def _said(citation: Citation) -> str:
    """Every word of a citation, the vendor's own form included."""
    wire = [text for _, text, _ in json_texts(citation.wire, "wire")]
    return "\n".join([citation.document_id, citation.quote, *wire])


def _kept(
    citations: list[Citation], before: tuple[Text, ...], after: tuple[object, ...]
) -> tuple[Citation, ...]:
    """The citations as they may leave: one in which a word had to go loses its quote."""
    return tuple(
        citation if then == now else Citation(document_id="", quote="", index=citation.index)
        for citation, then, now in zip(citations, before, after, strict=True)
    )
