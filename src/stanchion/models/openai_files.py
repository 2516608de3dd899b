"""File parts of OpenAI chat completions <-> Media: embedded files, and files that the vendor keeps."""

from __future__ import annotations

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Media
from stanchion.core.origin import Origin
from stanchion.models.wire import JsonObject, location_of, media_from_url, own_payload, split_data_url

UNKNOWN_TYPE = "application/octet-stream"
KEPT = "openai-file:"


def decode_file(part: JsonObject, origin: Origin) -> Media | None:
    """A `file` part as media; None when it has a shape of which something would be lost."""
    match part:
        case {"type": "file", "file": dict(file), **rest} if not rest:
            name = file.get("filename")
            data, kept = file.get("file_data"), file.get("file_id")
            if set(file) <= {"filename", "file_data", "file_id"} and isinstance(name, str | None):
                if isinstance(data, str) and kept is None and split_data_url(data) is not None:
                    return media_from_url(data, origin=origin, fallback_type=UNKNOWN_TYPE, name=name)
                if isinstance(kept, str) and data is None:
                    url = f"{KEPT}{kept}"
                    return media_from_url(url, origin=origin, fallback_type=UNKNOWN_TYPE, name=name)
    return None


def encode_file(part: Media) -> JsonObject:
    """A file part.

    Raises:
        UsageError: for what only points somewhere: this API takes embedded files and its own ids.
    """
    if part.extra is not None:
        own_payload(part.extra, api="openai")
    url = location_of(part)
    named = {"filename": part.name} if part.name is not None else {}
    if url.startswith(KEPT):
        return {"type": "file", "file": {"file_id": url.removeprefix(KEPT)} | named}
    if split_data_url(url) is None:
        raise UsageError(f"a {part.media_type} part that is not embedded cannot be said in the openai API.")
    return {"type": "file", "file": {"file_data": url} | named}
