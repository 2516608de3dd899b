"""Image and document blocks of the Anthropic API <-> Media.

A document of plain text becomes a `text/plain` part with its words embedded, so that a guard can read them.
Documents made of content blocks, and search results, stay as they are: no media type says what they are.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Media, Opaque
from stanchion.core.origin import Origin
from stanchion.models.wire import (
    JsonObject,
    data_url,
    location_of,
    media_from_url,
    own_payload,
    split_data_url,
)

KEPT = "anthropic-file:"
_PDF = "application/pdf"
_ANY_IMAGE = "image/*"
_ANY_FILE = "application/octet-stream"


def decode_media(block: JsonObject, origin: Origin) -> Media | None:
    """An image or document block as media; None when it is none that a media part can say."""
    match block:
        case {"type": "image", "source": {"type": _}}:
            url = _url(block["source"])
            if url is None:
                return None
            rest = {key: value for key, value in block.items() if key not in ("type", "source")}
            extra = Opaque(kind="anthropic:image", payload=rest) if rest else None
            return media_from_url(url, origin=origin, fallback_type=_ANY_IMAGE, extra=extra)
        case {"type": "document", "source": {"type": kind}}:
            url = _url(block["source"])
            title = block.get("title")
            if url is None or not isinstance(title, str | None):
                return None
            rest = {key: value for key, value in block.items() if key not in ("type", "source", "title")}
            return media_from_url(
                url,
                origin=origin,
                fallback_type=_PDF if kind == "url" else _ANY_FILE,
                name=title,
                extra=Opaque(kind="anthropic:document", payload=rest) if rest else None,
            )
        case _:
            return None


def _url(source: JsonObject) -> str | None:
    """Where the bytes are, for a source that has just the documented fields."""
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data), **more} if not more:
            return data_url(kind, data)
        case {"type": "text", "media_type": "text/plain", "data": str(data), **more} if not more:
            return data_url("text/plain", base64.b64encode(data.encode("utf-8", "replace")).decode("ascii"))
        case {"type": "url", "url": str(url), **more} if not more:
            return url
        case {"type": "file", "file_id": str(file), **more} if not more:
            return f"{KEPT}{file}"
        case _:
            return None


def words_of(part: Media) -> str | None:
    """The words of an embedded plain text; None for anything else."""
    embedded = split_data_url(part.location or "")
    if embedded is None or part.media_type != "text/plain":
        return None
    try:
        return base64.b64decode(embedded[1], validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def encode_media(part: Media) -> JsonObject:
    """An image or document block.

    Raises:
        UsageError: for a kind of media, or another vendor's file, that this API cannot say.
    """
    extra: dict[str, Any] = {} if part.extra is None else dict(own_payload(part.extra, api="anthropic")[1])
    source = _source(part)
    is_image = part.media_type.startswith("image/")
    if not is_image and not part.media_type.startswith(("text/", "application/")):
        raise UsageError(f"a {part.media_type} part cannot be said in the anthropic API.")
    if is_image:
        return {"type": "image", "source": source, **extra}
    title = {"title": part.name} if part.name is not None else {}
    return {"type": "document", **title, "source": source, **extra}


def _source(part: Media) -> JsonObject:
    url = location_of(part)
    if url.startswith(KEPT):
        return {"type": "file", "file_id": url.removeprefix(KEPT)}
    if url.startswith("openai-file:"):
        raise UsageError("a file that another vendor keeps cannot be said in the anthropic API.")
    embedded = split_data_url(url)
    if embedded is None:
        return {"type": "url", "url": url}
    words = words_of(part)
    if words is not None:
        return {"type": "text", "media_type": "text/plain", "data": words}
    return {"type": "base64", "media_type": embedded[0], "data": embedded[1]}
