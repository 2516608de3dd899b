"""Content parts, reasoning items and opaque items of the OpenAI responses API <-> our parts. Pure, no I/O.

Shapes: OpenAI API reference, responses (as typed by the `openai` client 3.x).

A reasoning item's pieces (summaries, then thoughts) become one `Reasoning` part, joined by blank lines; its
`signature` holds the id, the sealed content and the lengths of the pieces, so that the item can be given
back. A text that a guard changed no longer has those lengths and goes back as one summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Media, Opaque, Part, Reasoning, Refusal, Text
from stanchion.core.origin import Origin
from stanchion.models.openai_citations import citation_part
from stanchion.models.openai_files import KEPT, UNKNOWN_TYPE
from stanchion.models.wire import (
    JsonObject,
    WireError,
    as_list,
    as_object,
    as_text,
    data_url,
    location_of,
    maybe_text,
    media_from_url,
    own_payload,
    split_data_url,
)

API = "openai.responses"
_SIGNED = f"{API}:"
_BETWEEN = "\n\n"
_WORDS = frozenset({"output", "text", "stdout", "stderr", "result", "content", "logs", "error", "outputs"})
_MAX_DEPTH = 12

# --- content ------------------------------------------------------------------------------------------------


def decode_content(value: Any, origin: Origin, where: str) -> tuple[Part, ...]:
    """The content of a message or of a tool's output: a string, or a list of parts."""
    if isinstance(value, str):
        return (Text(text=value, origin=origin),)
    parts: list[Part] = []
    for number, item in enumerate(as_list(value, where)):
        parts += _decode_part(as_object(item, f"{where}[{number}]"), origin, f"{where}[{number}]")
    return tuple(parts)


def _decode_part(part: JsonObject, origin: Origin, where: str) -> Iterator[Part]:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            yield Text(text=text, origin=origin)
            for citation in as_list(part.get("annotations"), f"{where}.annotations"):
                yield citation_part(as_object(citation, f"{where}.annotations[]"))
        case {"type": "refusal", "refusal": str(text)}:
            yield Refusal(text=text)
        case {"type": "input_image", "image_url": str(url)}:
            yield _image(url, part, origin, where)
        case {"type": "input_image", "file_id": str(file)}:
            yield _image(f"{KEPT}{file}", part, origin, where)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}:
            yield media_from_url(data_url(f"audio/{kind}", data), origin=origin, fallback_type="audio/*")
        case {"type": "input_file"}:
            yield _file(part, origin, where)
        case _:
            yield Opaque(kind=f"{API}:part.{as_text(part.get('type'), f'{where}.type')}", payload=part)


def _image(url: str, part: JsonObject, origin: Origin, where: str) -> Media:
    detail = maybe_text(part.get("detail"), f"{where}.detail")
    wanted = None if detail == "auto" else detail
    return media_from_url(url, origin=origin, fallback_type="image/*", detail=wanted)


def _file(part: JsonObject, origin: Origin, where: str) -> Part:
    name = maybe_text(part.get("filename"), f"{where}.filename")
    places = [key for key in ("file_data", "file_url", "file_id") if part.get(key) is not None]
    if len(places) != 1 or not set(part) <= {"type", "filename", "detail", *places}:
        return Opaque(kind=f"{API}:part.input_file", payload=part)
    said = as_text(part[places[0]], f"{where}.{places[0]}")
    url = f"{KEPT}{said}" if places[0] == "file_id" else said
    if places[0] == "file_data" and split_data_url(said) is None:
        url = data_url(UNKNOWN_TYPE, said)
    detail = maybe_text(part.get("detail"), f"{where}.detail")
    return media_from_url(url, origin=origin, fallback_type=UNKNOWN_TYPE, name=name, detail=detail)


def encode_content(parts: Iterable[Part]) -> str | list[JsonObject]:
    """What a system or a user said: a string where one text is all there is."""
    members = tuple(parts)
    if len(members) == 1 and isinstance(members[0], Text):
        return members[0].text
    return [encode_part(part) for part in members]


def encode_part(part: Part) -> JsonObject:
    """One content part of the request.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    match part:
        case Text(text=text):
            return {"type": "input_text", "text": text}
        case Media():
            return _encode_media(part)
        case Opaque(kind=kind, payload=dict(payload)) if kind.startswith(f"{API}:part."):
            return dict(payload)
        case Opaque():
            raise UsageError(f"a part of kind {part.kind!r} cannot be said in the {API} API.")
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot stand in the content of this turn.")


def _encode_media(part: Media) -> JsonObject:
    if part.extra is not None:
        own_payload(part.extra, api=API)
    url = location_of(part)
    if url.startswith("anthropic-file:"):
        raise UsageError(f"a file that another vendor keeps cannot be said in the {API} API.")
    embedded = split_data_url(url)
    detail = {} if part.detail is None else {"detail": part.detail}
    if part.media_type.startswith("image/"):
        place = {"file_id": url.removeprefix(KEPT)} if url.startswith(KEPT) else {"image_url": url}
        return {"type": "input_image", "detail": "auto", **place, **detail}
    if part.media_type.startswith("audio/") and embedded is not None:
        return {"type": "input_audio", "input_audio": {"data": embedded[1], "format": part.media_type[6:]}}
    named = {} if part.name is None else {"filename": part.name}
    if url.startswith(KEPT):
        return {"type": "input_file", "file_id": url.removeprefix(KEPT), **named, **detail}
    return {"type": "input_file", "file_url" if embedded is None else "file_data": url, **named, **detail}


# --- reasoning ----------------------------------------------------------------------------------------------


def decode_reasoning(item: JsonObject, where: str) -> Reasoning:
    """A reasoning item; without words, what is sealed is all there is."""
    pieces: list[str] = []
    layout: list[tuple[str, int]] = []
    for key, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        for number, value in enumerate(as_list(item.get(key), f"{where}.{key}")):
            piece = as_object(value, f"{where}.{key}[{number}]")
            text = as_text(piece.get("text"), f"{where}.{key}[{number}].text")
            pieces.append(text)
            layout.append((kind, len(text)))
    sealed = maybe_text(item.get("encrypted_content"), f"{where}.encrypted_content")
    packed = {"id": maybe_text(item.get("id"), f"{where}.id"), "sealed": sealed, "layout": layout}
    text = _BETWEEN.join(pieces)
    signature = _SIGNED + msgspec.json.encode(packed).decode()
    return Reasoning(text=text, signature=signature, redacted=not text and sealed is not None)


def encode_reasoning(part: Reasoning, *, default_id: str = "") -> JsonObject | None:
    """The reasoning item of a part; None when another vendor made it and there are no words to show."""
    packed = _unpacked(part.signature)
    if packed is None and not part.text:
        return None
    item: JsonObject = {"type": "reasoning", "id": (packed or {}).get("id") or default_id, "summary": []}
    thoughts: list[JsonObject] = []
    for kind, text in _pieces(part.text, (packed or {}).get("layout") or ()):
        (item["summary"] if kind == "summary_text" else thoughts).append({"type": kind, "text": text})
    if thoughts:
        item["content"] = thoughts
    if packed is not None and packed.get("sealed") is not None:
        item["encrypted_content"] = packed["sealed"]
    return item


def is_own_reasoning(part: Reasoning) -> bool:
    """Whether this API made the part, and takes it again."""
    return _unpacked(part.signature) is not None


def _unpacked(signature: str | None) -> JsonObject | None:
    if signature is None or not signature.startswith(_SIGNED):
        return None
    try:
        value = msgspec.json.decode(signature.removeprefix(_SIGNED))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None


def _pieces(text: str, layout: Iterable[Any]) -> Iterator[tuple[str, str]]:
    lengths = [(str(kind), int(size)) for kind, size in layout]
    whole = sum(size for _, size in lengths) + len(_BETWEEN) * max(len(lengths) - 1, 0)
    if whole != len(text):
        if text:
            yield "summary_text", text
        return
    start = 0
    for kind, size in lengths:
        yield kind, text[start : start + size]
        start += size + len(_BETWEEN)


# --- items that we do not understand ------------------------------------------------------------------------


def words_of(payload: Any, depth: int = 0) -> Iterator[str]:
    """The words in an opaque item that a tool or a search gave: they are checked as retrieved text."""
    if depth > _MAX_DEPTH:
        raise WireError("input: an item is nested too deep to be checked.")
    if isinstance(payload, dict):
        for key, value in payload.items():
            if key in _WORDS and isinstance(value, str):
                yield value
            else:
                yield from words_of(value, depth + 1)
    elif isinstance(payload, list):
        for value in payload:
            yield from words_of(value, depth + 1)
