"""Citations in the two APIs of OpenAI: `annotations` of a chat message, and of a text of a response.

Responses say `{type: url_citation, url, title, ...}`, chat says the same one level down:
`{type: url_citation, url_citation: {url, title, ...}}`. Inside, a citation is an `Opaque` part or a
`Citation` event that keeps the wire's own words.
"""

from __future__ import annotations

from typing import Any

from stanchion.core.interaction import Opaque
from stanchion.models.wire import JsonObject

_TYPES = frozenset({"file_citation", "url_citation", "container_file_citation", "file_path"})
_LINK = "url_citation"


def citation_part(annotation: JsonObject) -> Opaque:
    """An annotation of either API as the part that a stream's `Citation` event amounts to."""
    inner = _inner(annotation)
    names = (inner.get(key) for key in ("url", "filename", "file_id", "title"))
    title = inner.get("title")
    payload = {
        "document_id": next((name for name in names if isinstance(name, str)), ""),
        "quote": title if isinstance(title, str) else "",
        "wire": annotation,
    }
    return Opaque(kind="citation", payload=payload)


def flat_annotation(wire: Any, quote: str, document_id: str) -> JsonObject | None:
    """A citation as responses say it; another vendor's becomes a link when it has an address, else None."""
    if isinstance(wire, dict) and wire.get("type") in _TYPES:
        return {"type": wire["type"], **_inner(wire)}
    url = wire.get("url") if isinstance(wire, dict) else None
    place = url if isinstance(url, str) else document_id
    if not place.startswith(("https://", "http://")):
        return None
    return {"type": _LINK, "url": place, "title": quote[:200], "start_index": 0, "end_index": 0}


def nested_annotation(wire: Any, quote: str, document_id: str) -> JsonObject | None:
    """A citation as chat says it, which knows links only; None for anything without an address."""
    flat = flat_annotation(wire, quote, document_id)
    if flat is None or flat["type"] != _LINK:
        return None
    return {"type": _LINK, _LINK: {key: value for key, value in flat.items() if key != "type"}}


def _inner(annotation: JsonObject) -> JsonObject:
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return inner if isinstance(inner, dict) else annotation
