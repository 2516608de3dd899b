"""The APIs that can be served, by name. The names are those of the gateway's surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stanchion.models import (
    anthropic_count,
    anthropic_surface,
    openai_chat_surface,
    openai_responses_surface,
    openai_vectors,
)
from stanchion.models.surface import SurfaceCodec

SURFACES: Mapping[str, SurfaceCodec] = MappingProxyType(
    {
        openai_chat_surface.NAME: openai_chat_surface.ChatSurface(),
        openai_responses_surface.NAME: openai_responses_surface.ResponsesSurface(),
        openai_vectors.EMBEDDINGS: openai_vectors.Embeddings(),
        openai_vectors.MODERATIONS: openai_vectors.Moderations(),
        anthropic_surface.NAME: anthropic_surface.MessagesSurface(),
        anthropic_count.NAME: anthropic_count.CountTokens(),
    }
)
