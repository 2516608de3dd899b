"""What a provider says beside its words: ids, model names, signatures. No check reads them as words.

So only what has the plain form of such a field goes on. An id of another form is replaced by one of our own,
the same for the same id; a model's name gives way to the route's, a signature is left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from operator import is_

import msgspec

from stanchion.core.codec import digest_text
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    Part,
    Reasoning,
    ReasoningDelta,
    Reply,
    StreamEvent,
    Text,
    ToolCall,
)

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}\Z")
_MODEL = re.compile(r"(?!.*[0-9]{9})[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z")
_LONGEST_MODEL = 128
_SEALED = re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z")


def plain_id(given: str) -> str:
    """The id of a tool call where it is a plain one, else an id made of it."""
    if not given or _ID.match(given):
        return given
    return f"call_{digest_text(given).rpartition(':')[2][:24]}"


def plain_model(given: str, route: str) -> str:
    """The name of the model that answered where it is a plain one, else the name of its route."""
    return given if not given or (len(given) <= _LONGEST_MODEL and _is_model(given)) else route


@functools.lru_cache(maxsize=256)
def _is_model(given: str) -> bool:
    return _MODEL.match(given) is not None


def plain_signature(given: str | None) -> str | None:
    """A signature where it looks like base64, else none."""
    return given if given is None or _SEALED.match(given) else None


def plain_reply(reply: Reply, route: str) -> Reply:
    """A whole answer with its fields in their plain form; the very same object where they are."""
    before = reply.message.parts
    parts = before if len(before) == 1 and type(before[0]) is Text else tuple(map(_plain_part, before))
    model = plain_model(reply.model, route)
    if model == reply.model and (parts is before or all(map(is_, parts, before))):
        return reply
    return msgspec.structs.replace(
        reply, model=model, message=msgspec.structs.replace(reply.message, parts=parts)
    )


def plain_events(events: Sequence[StreamEvent], route: str) -> Sequence[StreamEvent]:
    """The same for some events of a stream."""
    return [_plain_event(event, route) for event in events]


def _plain_part(part: Part) -> Part:
    if isinstance(part, ToolCall) and (id_ := plain_id(part.id)) != part.id:
        return msgspec.structs.replace(part, id=id_)
    if isinstance(part, Reasoning) and plain_signature(part.signature) != part.signature:
        return msgspec.structs.replace(part, signature=None)
    return part


def _plain_event(event: StreamEvent, route: str) -> StreamEvent:
    if isinstance(event, ArgumentDelta) and event.call_id:
        id_ = plain_id(event.call_id)
        return event if id_ == event.call_id else msgspec.structs.replace(event, call_id=id_)
    if isinstance(event, ReasoningDelta) and plain_signature(event.signature) != event.signature:
        return msgspec.structs.replace(event, signature=None)
    if isinstance(event, End) and plain_model(event.model, route) != event.model:
        return msgspec.structs.replace(event, model=route)
    return event
