"""Requests and answers that say nothing unusual, in one step; every function is asked before the long way.

Each of them gives None for what it does not expect, and for APIs that have no short way.
"""

from __future__ import annotations

from stanchion.core.interaction import Interaction, Reply
from stanchion.models import openai_chat_surface
from stanchion.models.plain_chat import read_answer, read_chat, write_answer, write_chat
from stanchion.models.wire import JsonObject, Request

_CHAT = openai_chat_surface.NAME


def plain_request(api: str, raw: bytes) -> Request | None:
    """The request in a body, as `SurfaceCodec.decode_request` reads it."""
    return read_chat(raw) if api == _CHAT else None


def plain_question(
    api: str, asked: Interaction, *, model: str, stream: bool, extras: JsonObject
) -> bytes | None:
    """A request to a provider as bytes, as `UpstreamCodec.encode_request` says it."""
    return write_chat(asked, model=model, stream=stream) if api == _CHAT and not extras else None


def plain_reply(api: str, raw: bytes) -> Reply | None:
    """The reply in a whole answer, as `UpstreamCodec.decode_reply` reads it."""
    return read_answer(raw) if api == _CHAT else None


def plain_body(api: str, reply: Reply, *, asked: Request, response_id: str, created: int) -> bytes | None:
    """The answer as bytes, as `SurfaceCodec.encode_reply` writes it."""
    if api != _CHAT:
        return None
    return write_answer(reply, asked=asked, response_id=response_id, created=created)
