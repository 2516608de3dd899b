"""Which path belongs to which API, and what answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from stanchion.gateway.check_api import CheckApi, CheckToolCallApi, answer_check
from stanchion.gateway.enforcement import enforce
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.feedback_api import FeedbackApi, answer_feedback
from stanchion.gateway.http_io import Answer
from stanchion.gateway.vectors import count_tokens, embed, moderate
from stanchion.models.surface import SurfaceCodec

Answering = Callable[[Exchange, SurfaceCodec, Answer], Awaitable[None]]
Served = tuple[SurfaceCodec, Answering]

_PATHS = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
    "/v1/moderations": "openai.moderations",
    "/v1/messages": "anthropic.messages",
    "/anthropic/v1/messages": "anthropic.messages",
    "/v1/messages/count_tokens": "anthropic.count_tokens",
    "/anthropic/v1/messages/count_tokens": "anthropic.count_tokens",
}
_OWN: dict[str, Served] = {
    "/v1/check": (CheckApi(), answer_check),
    "/v1/check-tool-call": (CheckToolCallApi(), answer_check),
    "/v1/feedback": (FeedbackApi(), answer_feedback),
}
_ANSWERING: dict[str, Answering] = {
    "openai.embeddings": embed,
    "openai.moderations": moderate,
    "anthropic.count_tokens": count_tokens,
}


def served_paths(codecs: Mapping[str, SurfaceCodec]) -> dict[str, Served]:
    """The paths that are served, with codec and what answers; an API without a codec is not served."""
    found: dict[str, Served] = {
        path: (codecs[name], _ANSWERING.get(name, enforce)) for path, name in _PATHS.items() if name in codecs
    }
    return found | _OWN
