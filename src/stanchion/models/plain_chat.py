"""Chat completions that say nothing unusual, read and written in one step.

Most requests and answers hold a model, turns of plain words and a few numbers. Those are read straight into
typed fields. What these readers do not expect (another field, another type, a key that may be said twice)
gives None, and the caller goes the long way, which checks everything and names what is wrong. What they do
read means exactly what the long way would have read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stanchion.core.interaction import FinishReason, Interaction, Message, Reply, Role, Sampling, Text, Usage
from stanchion.core.origin import Origin
from stanchion.models.openai_answers import FINISH_REASONS, finish_word
from stanchion.models.served import NAME, served_by
from stanchion.models.strict_json import has_as_many_colons
from stanchion.models.wire import MOST_TOKENS, Request

_TURNS = {
    "system": (Role.SYSTEM, Origin.SYSTEM),
    "developer": (Role.SYSTEM, Origin.SYSTEM),
    "user": (Role.USER, Origin.USER),
    "assistant": (Role.ASSISTANT, Origin.MODEL),
}
# what is beyond these bounds is read, or refused, the long way
_MOST = 10**15
_Whole = Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)]
_Real = Annotated[float, msgspec.Meta(ge=-_MOST, le=_MOST)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
_Named = Annotated[str, msgspec.Meta(pattern=NAME)]
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_json = msgspec.json.Encoder().encode


class _Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    include_usage: bool


class _Chat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    # None is what nobody said: a null leaves one more colon in the text than in what is written again
    model: str
    messages: list[_Turn]
    stream: bool | None = None
    max_tokens: _Whole | None = None
    max_completion_tokens: _Whole | None = None
    temperature: _Whole | _Real | None = None
    top_p: _Whole | _Real | None = None
    seed: _Whole | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None


_read_chat = msgspec.json.Decoder(_Chat).decode


def read_chat(raw: bytes) -> Request | None:
    """A plain chat completions request; None: read it the long way."""
    try:
        chat = _read_chat(raw)
    except _BROKEN:
        return None
    if not has_as_many_colons(raw, chat):
        return None
    options, longest = chat.stream_options, chat.max_completion_tokens
    return Request(
        interaction=Interaction(
            messages=tuple([_message(turn) for turn in chat.messages]),
            model=chat.model,
            sampling=Sampling(
                temperature=chat.temperature,
                top_p=chat.top_p,
                max_output_tokens=chat.max_tokens if longest is None else longest,
                seed=chat.seed,
            ),
        ),
        stream=chat.stream is True,
        include_usage=options is not None and options.include_usage,
        extras={} if chat.user is None else {"user": chat.user},
    )


def _message(turn: _Turn) -> Message:
    role, origin = _TURNS[turn.role]
    parts = (Text(text=turn.content, origin=origin),)
    return Message(role=role, parts=parts, said_as="developer" if turn.role == "developer" else UNSET)


_SPOKEN = {
    role: b'{"role":"%b","content":' % role.encode() for role in (Role.SYSTEM, Role.USER, Role.ASSISTANT)
}


def write_chat(asked: Interaction, *, model: str, stream: bool) -> bytes | None:
    """A plain chat completions request to `model` as bytes; None: write it the long way."""
    sampling = asked.sampling
    if (
        asked.tools
        or not model
        or sampling.stop
        or sampling.tool_choice
        or sampling.response_schema is not None
    ):
        return None
    turns: list[bytes] = []
    try:
        for message in asked.messages:
            head, parts = _SPOKEN.get(message.role), message.parts
            if head is None or len(parts) != 1 or type(parts[0]) is not Text:
                return None
            if message.name is not None or message.said_as is not UNSET:
                return None
            turns.append(b"%b%b}" % (head, _json(parts[0].text)))
        said = [b'{"model":%b,"messages":[%b]' % (_json(model), b",".join(turns))]
    except UnicodeEncodeError:
        return None
    if sampling.temperature is not None:
        said.append(b',"temperature":' + _json(sampling.temperature))
    if sampling.top_p is not None:
        said.append(b',"top_p":' + _json(sampling.top_p))
    if sampling.max_output_tokens is not None:
        said.append(b',"max_completion_tokens":%d' % sampling.max_output_tokens)
    if sampling.seed is not None:
        said.append(b',"seed":%d' % sampling.seed)
    said.append(b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b"}")
    return b"".join(said)


# --- answers ------------------------------------------------------------------------------------------------

_Nothing = tuple[()] | None | UnsetType


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    content: str
    role: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    tool_calls: _Nothing = UNSET
    annotations: _Nothing = UNSET


class _Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    message: _Said
    finish_reason: str | UnsetType | None = UNSET
    index: int | UnsetType = UNSET
    logprobs: UnsetType | None = UNSET


class _Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):  # as in `_Chat`
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: dict[str, _Count] | None = None
    completion_tokens_details: dict[str, _Count] | None = None


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    choices: tuple[_Choice]
    model: str
    usage: _Tokens | UnsetType = UNSET
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    created: int | UnsetType = UNSET
    service_tier: _Named | UnsetType | None = UNSET
    system_fingerprint: _Named | UnsetType | None = UNSET


_NO_TOKENS = _Tokens()
_read_answer = msgspec.json.Decoder(_Answer).decode


def read_answer(raw: bytes) -> Reply | None:
    """A plain chat completion; None: read it the long way."""
    try:
        answer = _read_answer(raw)
    except _BROKEN:
        return None
    if not has_as_many_colons(raw, answer):
        return None
    choice, told = answer.choices[0], answer.usage
    words = choice.message.content
    return Reply(
        message=Message(role=Role.ASSISTANT, parts=(Text(text=words, origin=Origin.MODEL),) if words else ()),
        finish_reason=FINISH_REASONS.get(choice.finish_reason or "", FinishReason.UNKNOWN),
        model=answer.model,
        usage=_usage(_NO_TOKENS if told is UNSET else told, _served(answer)),
    )


def _served(answer: _Answer) -> dict[str, str] | UnsetType:
    """What the provider says of how it served; see `models.served`."""
    said = {}
    if answer.service_tier:
        said["openai:service_tier"] = answer.service_tier
    if answer.system_fingerprint:
        said["openai:system_fingerprint"] = answer.system_fingerprint
    return said or UNSET


def _usage(told: _Tokens, served: dict[str, str] | UnsetType) -> Usage:
    read, said = told.prompt_tokens_details, told.completion_tokens_details
    return Usage(
        input_tokens=told.prompt_tokens,
        output_tokens=told.completion_tokens,
        cached_input_tokens=None if read is None else read.get("cached_tokens"),
        cache_write_tokens=UNSET if read is None else read.get("cache_write_tokens", UNSET),
        reasoning_tokens=UNSET if said is None else said.get("reasoning_tokens", UNSET),
        served=served,
    )


def write_answer(reply: Reply, *, asked: Request, response_id: str, created: int) -> bytes | None:
    """A plain chat completion as bytes; None: write it the long way."""
    parts, usage = reply.message.parts, reply.usage
    if len(parts) != 1 or type(parts[0]) is not Text:
        return None
    said = [
        b'{"id":',
        _json(response_id),
        b',"object":"chat.completion","created":%d,"model":' % created,
        _json(reply.model or asked.interaction.model),
        b',"choices":[{"index":0,"message":{"role":"assistant","content":',
        _json(parts[0].text),
        b',"refusal":null},"logprobs":null,"finish_reason":"',
        finish_word(reply.finish_reason).encode(),
        b'"}]',
    ]
    read, written = usage.input_tokens, usage.output_tokens
    if read is not None or written is not None:
        read, written = read or 0, written or 0
        said.append(
            b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d'
            % (read, written, read + written)
        )
        cached, kept = usage.cached_input_tokens, usage.cache_write_tokens
        if kept is not UNSET:
            before = b"" if cached is None else b'"cached_tokens":%d,' % cached
            said.append(b',"prompt_tokens_details":{%b"cache_write_tokens":%d}' % (before, kept))
        elif cached is not None:
            said.append(b',"prompt_tokens_details":{"cached_tokens":%d}' % cached)
        if usage.reasoning_tokens is not UNSET:
            told = usage.reasoning_tokens
            said.append(b',"completion_tokens_details":{"reasoning_tokens":%d}' % told)
        said.append(b"}")
    if usage.served is not UNSET:
        said += [b',"%b":%b' % (n.encode(), _json(v)) for n, v in served_by("openai", usage).items()]
    said.append(b"}")
    return b"".join(said)
