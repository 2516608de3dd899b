"""The requests of vendors' SDKs that a guard can read, by method and path; everything else is refused.

An endpoint that is not here could carry a prompt out, or an answer in, past the guard.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from stanchion.models.surface import SurfaceCodec
from stanchion.models.surfaces import SURFACES
from stanchion.models.upstreams import UPSTREAMS, UpstreamCodec

_PATHS = {
    "openai": {
        "/chat/completions": "openai.chat",
        "/responses": "openai.responses",
        "/embeddings": "openai.embeddings",
        "/moderations": "openai.moderations",
    },
    "anthropic": {"/messages": "anthropic.messages"},
}
ERRORS = {"openai": "openai.chat", "anthropic": "anthropic.messages"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WireApi:
    """One API from both sides."""

    name: str
    surface: SurfaceCodec
    upstream: UpstreamCodec


def api_named(name: str) -> WireApi:
    """The API of a name such as `openai.chat`."""
    return WireApi(name=name, surface=SURFACES[name], upstream=UPSTREAMS[name])


def api_of(vendor: str, method: str, path: str) -> WireApi | None:
    """The API of a request that a guard can read; None for every other."""
    if method != "POST":
        return None
    path = path.rstrip("/")
    for end, name in _PATHS[vendor].items():
        if path.endswith(end):
            return api_named(name)
    return None


def passes_unread(method: str, path: str, allowed: Collection[str]) -> bool:
    """Whether a request may pass though no guard can read it: lists of models, and what the user named.

    `allowed` are the ends of paths, such as `/messages/count_tokens`.
    """
    path = path.rstrip("/")
    if any(path.endswith(end.rstrip("/")) for end in allowed if end.strip("/")):
        return True
    head, _, last = path.rpartition("/")
    return method == "GET" and (last == "models" or head.endswith("/models"))
