"""Which path belongs to which API."""

from __future__ import annotations

from collections.abc import Mapping

from stanchion.models.surface import SurfaceCodec

_PATHS = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/messages": "anthropic.messages",
    "/anthropic/v1/messages": "anthropic.messages",
}


def served_paths(codecs: Mapping[str, SurfaceCodec]) -> dict[str, SurfaceCodec]:
    """The paths that are served, with their codecs; an API without a codec is not served."""
    return {path: codecs[name] for path, name in _PATHS.items() if name in codecs}
