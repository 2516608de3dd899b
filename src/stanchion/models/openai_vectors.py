"""OpenAI embeddings, moderations and the list of models: both directions. Pure, no I/O.

Shapes: OpenAI API reference, embeddings, moderations, models. Each text that is embedded or judged is checked
as what a user says. Texts that come as token numbers cannot be read here and are refused unless a rule lets
them pass as `Opaque`. An answer is one `Opaque` part that holds the vectors or verdicts.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reply,
    Role,
    Text,
    Usage,
)
from stanchion.core.origin import Origin
from stanchion.models import openai_errors
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.openai_answers import decode_usage
from stanchion.models.surface import StreamEncoder, asked_model, no_stream
from stanchion.models.wire import (
    JsonObject,
    Request,
    WireError,
    as_list,
    as_object,
    as_text,
    as_unavailable,
    error_object,
    location_of,
    maybe_int,
    maybe_text,
    media_from_url,
)

EMBEDDINGS = "openai.embeddings"
MODERATIONS = "openai.moderations"
TOKENS = f"{EMBEDDINGS}:tokens"
VECTORS = f"{EMBEDDINGS}:data"
VERDICTS = f"{MODERATIONS}:results"
_MAX_INPUTS = 2048
_LARGEST = 1e6
_CATEGORY = re.compile(r"[a-z]{1,24}(?:[-_/.][a-z]{1,24}){0,3}")  # `self-harm/instructions`; no digits


class ModerationVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One text's verdict in the words of the API: categories such as `violence/graphic`, scores in [0, 1]."""

    flagged: bool
    categories: dict[str, bool]
    scores: dict[str, float]


DEFAULT_MODERATION = "omni-moderation-latest"  # the API's own default


def moderation_reply(verdicts: Iterable[ModerationVerdict], *, model: str) -> Reply:
    """An answer of our own, one verdict for each input."""
    results = [
        {
            "flagged": verdict.flagged,
            "categories": verdict.categories,
            "category_scores": verdict.scores,
            "category_applied_input_types": {name: ["text"] for name in verdict.categories},
        }
        for verdict in verdicts
    ]
    return _reply(VERDICTS, results, model, Usage())


def _reply(kind: str, data: Any, model: str, usage: Usage) -> Reply:
    part = Opaque(kind=kind, payload=data)
    return Reply(message=Message(role=Role.ASSISTANT, parts=(part,)), model=model, usage=usage)


def _data(reply: Reply, kind: str) -> list[Any]:
    for part in reply.message.parts:
        if isinstance(part, Opaque) and part.kind == kind:
            return list(part.payload)
    return []


class _Whole:
    """What APIs without streams have in common."""

    name = ""
    can_stream = False

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """Refused: there is no streamed answer."""
        raise no_stream(self.name)

    def reader(self) -> AnswerReader:
        """Refused: there is no streamed answer."""
        raise no_stream(self.name)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the OpenAI APIs."""
        return openai_errors.encode_error(
            status=status, code=code, message=message, retry_after_s=retry_after_s
        )


class Embeddings(_Whole):
    """The codec of embeddings, as it is served and as it is asked."""

    name = EMBEDDINGS

    def __init__(self, *, tokens: Literal["refuse", "pass"] = "refuse") -> None:
        self._tokens = tokens

    def decode_request(self, body: Any) -> Request:
        """An embeddings request: one user turn with a part for each input.

        Raises:
            WireError: for a wrong shape, more than 2048 inputs, and for tokens that the rule refuses.
        """
        fields = as_object(body, "body")
        extras = {k: v for k, v in fields.items() if k not in ("input", "model") and v is not None}
        value = fields.get("input")
        if isinstance(value, list) and value and all(type(item) is int for item in value):
            value = [value]  # one text as tokens
        items = [value] if isinstance(value, str) else as_list(value, "input")
        parts = tuple(self._input(item, f"input[{n}]") for n, item in enumerate(items))
        return _asked(parts, fields, extras)

    def _input(self, item: Any, where: str) -> Part:
        if isinstance(item, list) and all(type(number) is int for number in item):
            if self._tokens == "refuse":
                raise WireError(
                    f"{where}: token numbers cannot be checked here.", hint="Send the text itself."
                )
            return Opaque(kind=TOKENS, payload=item)
        return Text(text=as_text(item, where), origin=Origin.USER)

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """The request body; texts as the guard left them."""
        inputs = [_embedded(part) for message in interaction.messages for part in message.parts]
        one = inputs[0] if len(inputs) == 1 else inputs
        return {"model": interaction.model, "input": one} | dict(extras or {})

    def decode_reply(self, body: Any) -> Reply:
        """The vectors, as lists of numbers or in base64; no number of a million or more.

        Nothing else of them is kept. `check_vectors` holds them against what was asked.
        """
        with as_unavailable(EMBEDDINGS):
            fields = _answer(body)
            data = [_vector(item, number) for number, item in enumerate(as_list(fields.get("data"), "data"))]
            model = maybe_text(fields.get("model"), "model") or ""
            return _reply(VECTORS, data, model, decode_usage(fields.get("usage")))

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """The list of vectors."""
        tokens = reply.usage.input_tokens or 0
        return {
            "object": "list",
            "data": _data(reply, VECTORS),
            "model": asked_model(reply, asked),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def check_vectors(reply: Reply, asked: Request) -> None:
    """Hold vectors against the request: as many as texts, each in its place, base64 only if it was asked for.

    Numbers are always taken: servers that do not know base64 send them, and clients read them.

    Raises:
        UnavailableError: when they are others.
    """
    with as_unavailable(EMBEDDINGS):
        data = _data(reply, VECTORS)
        texts = sum(len(message.parts) for message in asked.interaction.messages)
        if sorted(item["index"] for item in data) != list(range(texts)):
            raise WireError(f"data: a vector for each of {texts} texts is needed here, found {len(data)}.")
        for number, item in enumerate(data):
            if isinstance(item["embedding"], str) and asked.extras.get("encoding_format") != "base64":
                raise WireError(f"data[{number}].embedding: base64 was not asked for.")


def _vector(item: Any, number: int) -> JsonObject:
    where = f"data[{number}]"
    fields = as_object(item, where)
    vector, index = fields.get("embedding"), maybe_int(fields.get("index"), f"{where}.index")
    is_vector = _is_base64(vector) if isinstance(vector, str) else _is_numbers(vector)
    if not is_vector:
        raise WireError(f"{where}.embedding: numbers, or floats in base64, are needed here.")
    return {"object": "embedding", "index": number if index is None else index, "embedding": vector}


def _is_numbers(value: Any) -> bool:
    """Whether these can be an embedding; larger numbers are none, but could be those of cards or people."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(number) in (int, float) and abs(number) < _LARGEST for number in value)
    )


def _is_base64(text: str) -> bool:
    """Whether these are little-endian floats of four bytes, written as base64 is, with nothing beside."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    if not data or len(data) % 4 or base64.b64encode(data).decode("ascii") != text:
        return False
    return all(abs(number) < _LARGEST for (number,) in struct.iter_unpack("<f", data))


def _embedded(part: Part) -> Any:
    match part:
        case Text(text=text):
            return text
        case Opaque(kind="openai.embeddings:tokens", payload=tokens):
            return tokens
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot be embedded.")


class Moderations(_Whole):
    """The codec of moderations, as it is served and as it is asked."""

    name = MODERATIONS

    def decode_request(self, body: Any) -> Request:
        """A moderations request: one user turn with a part for each text or picture.

        Raises:
            WireError: for a wrong shape.
        """
        fields = as_object(body, "body")
        extras = {k: v for k, v in fields.items() if k not in ("input", "model") and v is not None}
        value = fields.get("input")
        items = [value] if isinstance(value, str) else as_list(value, "input")
        parts = tuple(_judged(item, f"input[{n}]") for n, item in enumerate(items))
        return _asked(parts, {"model": DEFAULT_MODERATION, **fields}, extras)

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """The request body; texts alone as a list of texts."""
        parts = [part for message in interaction.messages for part in message.parts]
        inputs: list[Any] = [part.text for part in parts if isinstance(part, Text)]
        if len(inputs) != len(parts):
            inputs = [_judged_wire(part) for part in parts]
        return {"model": interaction.model, "input": inputs} | dict(extras or {})

    def decode_reply(self, body: Any) -> Reply:
        """The verdicts: flags, scores and kinds of input by category; nothing else of them is kept."""
        with as_unavailable(MODERATIONS):
            fields = _answer(body)
            results = as_list(fields.get("results"), "results")
            results = [_verdict(item, f"results[{number}]") for number, item in enumerate(results)]
            return _reply(VERDICTS, results, maybe_text(fields.get("model"), "model") or "", Usage())

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """The object with the verdicts."""
        return {"id": response_id, "model": asked_model(reply, asked), "results": _data(reply, VERDICTS)}


def _verdict(item: Any, where: str) -> JsonObject:
    fields = as_object(item, where)
    verdict: JsonObject = {"flagged": fields.get("flagged")}
    if not isinstance(verdict["flagged"], bool):
        raise WireError(f"{where}.flagged: true or false is needed here.")
    for key, (wanted, fits) in _BY_CATEGORY.items():
        said = as_object(fields.get(key) or {}, f"{where}.{key}")
        for name, value in said.items():
            if not _CATEGORY.fullmatch(name):
                raise WireError(f"{where}.{key}: the name of a category is needed here.")
            if not fits(value):
                raise WireError(f"{where}.{key}.{name}: {wanted} is needed here.")
        if said or key != "category_applied_input_types":
            verdict[key] = said
    return verdict


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_kinds(value: Any) -> bool:
    return isinstance(value, list) and all(kind in ("text", "image") for kind in value)


_BY_CATEGORY: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "categories": ("true, false or nothing", lambda value: value is None or isinstance(value, bool)),
    "category_scores": ("a score from 0 to 1", lambda value: value is None or _is_score(value)),
    "category_applied_input_types": ("a list of text and image", _is_kinds),
}


def _asked(parts: tuple[Part, ...], fields: JsonObject, extras: JsonObject) -> Request:
    if not parts:
        raise WireError("input: at least one text is needed here.")
    if len(parts) > _MAX_INPUTS:
        raise WireError(f"input: at most {_MAX_INPUTS} are taken at once.", hint="Send several requests.")
    model = as_text(fields.get("model"), "model")
    messages = tuple([Message(role=Role.USER, parts=(part,)) for part in parts])  # inputs are no one text
    return Request(interaction=Interaction(messages=messages, model=model), extras=extras)


def _answer(body: Any) -> JsonObject:
    fields = as_object(body, "body")
    if fields.get("error"):
        raise error_object("the endpoint answered with an error object", body)
    return fields


def _judged(item: Any, where: str) -> Part:
    match item:
        case str(text) | {"type": "text", "text": str(text)}:
            return Text(text=text, origin=Origin.USER)
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return media_from_url(url, origin=Origin.USER, fallback_type="image/*")
        case _:
            raise WireError(f"{where}: a text or a picture is needed here.")


def _judged_wire(part: Part) -> JsonObject:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Media():
            return {"type": "image_url", "image_url": {"url": location_of(part)}}
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot be moderated.")


# --- models -------------------------------------------------------------------------------------------------


def openai_models(names: Iterable[str], *, created: int, owner: str = "stanchion") -> JsonObject:
    """The list of models as the OpenAI API gives it; `created` is in seconds since 1970."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": owner} for name in names]
    return {"object": "list", "data": data}


def anthropic_models(names: Iterable[str], *, created: str) -> JsonObject:
    """The list of models as the Anthropic API gives it, on one page; `created` is an RFC 3339 time."""
    usual = {"type": "model", "created_at": created, "lifecycle": "active"}
    data = [{**usual, "id": name, "display_name": name} for name in names]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def decode_models(body: Any) -> tuple[str, ...]:
    """The names in a list of models of either API.

    Raises:
        UnavailableError: for a wrong shape or an error object.
    """
    with as_unavailable("models"):
        items = as_list(_answer(body).get("data"), "data")
        return tuple(as_text(as_object(item, f"data[{n}]").get("id"), "id") for n, item in enumerate(items))
