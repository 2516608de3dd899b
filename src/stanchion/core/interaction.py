"""What user, model, tools and retrieval said in one exchange, in no provider's dialect.

Every part of a message carries its *origin*: who could have written the words. Detectors, taint and policy
read the origin, so a codec that cannot tell must say `unknown`, which is never treated as trusted.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision
from stanchion.core.origin import Origin

JsonValue = Any  # a JSON value; typed as Any because it is opened only at the wire

# How long a vendor is asked to keep what stands up to here: its default, five minutes, an hour. Words that
# only one vendor has are UNSET elsewhere, and then no part of a record or its digest.
CacheMark = Literal["ephemeral", "5m", "1h"]


class Role(StrEnum):
    """Whose turn a message is."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """Words. `source` names the document or tool they came from, where there is one.

    `stands_in` marks words of the guard, or of the gateway, in place of a model's answer.
    """

    text: str
    origin: Origin
    source: str | None = None
    cache: CacheMark | UnsetType = UNSET
    stands_in: bool | UnsetType = UNSET


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning"):
    """What a model thought aloud; shown to nobody by default, checked all the same.

    `signature` is the opaque token by which the vendor accepts the part again;
    `redacted` parts hold only that.
    """

    text: str
    signature: str | None = None
    redacted: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A refusal that the vendor's API marks as one."""

    text: str


class Media(msgspec.Struct, frozen=True, kw_only=True, tag="media"):
    """An image, a sound or a file, by digest; `location` is a URL or a data URL as the wire carried it.

    A `location` such as `openai-file:ID` names a file that the vendor keeps. `detail` is the wire's word for
    the resolution to look at it with, `name` a file's name or a document's title. `extra` keeps what else the
    wire said about it: never taken as checked, sent back only to the same vendor.
    """

    media_type: str
    origin: Origin
    digest: str
    location: str | None = None
    detail: str | None = None
    name: str | None = None
    extra: Opaque | None = None


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, tag="tool_call"):
    """A model asks for a tool. `arguments` is None when `raw_arguments` is not a JSON object."""

    id: str
    name: str
    arguments: dict[str, JsonValue] | None
    raw_arguments: str | None = None
    cache: CacheMark | UnsetType = UNSET


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered; a trusted annotation may give its text another origin."""

    call_id: str
    name: str
    text: str
    is_error: bool = False
    origin: Origin = Origin.TOOL_RESULT
    cache: CacheMark | UnsetType = UNSET


class Opaque(msgspec.Struct, frozen=True, kw_only=True, tag="opaque"):
    """A part of the wire that we do not understand; kept so that nothing is lost, never taken as checked."""

    kind: str
    payload: JsonValue


Part = Text | Reasoning | Refusal | Media | ToolCall | ToolResult | Opaque


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn. `said_as` is the wire's own word for the role, where a vendor has several for one."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    said_as: Literal["developer", "instructions", "system"] | UnsetType = UNSET

    @property
    def text(self) -> str:
        """The words of the turn (text and refusal parts), joined by newlines."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text | Refusal))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the turn, in order."""
        for part in self.parts:
            if isinstance(part, ToolCall):
                return tuple([part for part in self.parts if isinstance(part, ToolCall)])
        return ()


def system(text: str) -> Message:
    """A system turn."""
    return Message(role=Role.SYSTEM, parts=(Text(text=text, origin=Origin.SYSTEM),))


def user(text: str) -> Message:
    """A user's turn."""
    return Message(role=Role.USER, parts=(Text(text=text, origin=Origin.USER),))


def assistant(text: str, *calls: ToolCall) -> Message:
    """A model's turn, with the tool calls it makes."""
    words = (Text(text=text, origin=Origin.MODEL),) if text else ()
    return Message(role=Role.ASSISTANT, parts=(*words, *calls))


def stand_in(text: str) -> Message:
    """Words of ours in place of a model's turn; APIs that have a part for refusals say them in it."""
    words = (Text(text=text, origin=Origin.MODEL, stands_in=True),) if text else ()
    return Message(role=Role.ASSISTANT, parts=words)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of retrieved text that was put before the model."""

    id: str
    text: str
    source: str = ""
    digest: str = ""


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the model may ask for; `parameters` is a JSON schema.

    `extra` keeps what else the wire said about it: never taken as checked, sent back only to the same vendor.
    """

    name: str
    description: str = ""
    parameters: dict[str, JsonValue] = msgspec.field(default_factory=dict)
    extra: Opaque | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer is drawn. None leaves it to the model's own default.

    `response_name` is what the client calls its schema, for vendors that want a name.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    tool_choice: str | None = None
    response_schema: dict[str, JsonValue] | None = None
    response_name: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one exchange consumed. None means: not told, which is not zero.

    `input_tokens` holds those read from a cache (`cached_input_tokens`) and newly written to one
    (`cache_write_tokens`, of them `cache_write_1h_tokens` for an hour), `output_tokens` those of reasoning.
    `served` is what the provider says of how it served the request, as `vendor:name`; see `models.served`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cost_usd: float | None = None
    cache_write_tokens: int | UnsetType = UNSET
    cache_write_1h_tokens: int | UnsetType = UNSET
    reasoning_tokens: int | UnsetType = UNSET
    served: dict[str, str] | UnsetType = UNSET


class FinishReason(StrEnum):
    """Why a model stopped. `paused`: the vendor broke a long turn off, to go on with it when asked again."""

    STOP = "stop"
    LENGTH = "length"
    PAUSED = "paused"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"
    UNKNOWN = "unknown"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: the message, and how it came about.

    `stop_sequence` is the one of the request at which the model stopped, where the vendor tells it.
    `decisions` are the guard's, input surfaces first. `reused_from` is the digest of the request whose answer
    was taken over unchanged (cache or an unguarded twin); None when the model was asked now.
    """

    message: Message
    finish_reason: FinishReason = FinishReason.STOP
    model: str = ""
    usage: Usage = Usage()
    latency_ms: float | None = None
    decisions: tuple[Decision, ...] = ()
    reused_from: str | None = None
    stop_sequence: str | UnsetType = UNSET


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange: what was asked, with what in hand, and the reply once there is one."""

    messages: tuple[Message, ...]
    id: str = ""
    at: datetime | None = None
    environment: str = "dev"
    feature: str = ""
    session_id: str = ""
    tenant: str = ""
    documents: tuple[Document, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    model: str = ""
    sampling: Sampling = Sampling()
    components: ComponentSet = ComponentSet()
    reply: Reply | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)


# --- stream events: the one model that every API decodes into and every guard reads -------------------------


class TextDelta(msgspec.Struct, frozen=True, kw_only=True, tag="text_delta"):
    """More words of the answer; `index` tells content blocks apart, `stands_in` is as in `Text`."""

    text: str
    index: int = 0
    stands_in: bool | UnsetType = UNSET


class ReasoningDelta(msgspec.Struct, frozen=True, kw_only=True, tag="reasoning_delta"):
    """More of what the model thinks aloud; a `signature` closes the part.

    `redacted` says that the signature is all there will ever be.
    """

    text: str
    index: int = 0
    signature: str | None = None
    redacted: bool = False


class ArgumentDelta(msgspec.Struct, frozen=True, kw_only=True, tag="argument_delta"):
    """More of a tool call. The first delta of a call carries `call_id` and `name`; `json` is a fragment."""

    index: int
    json: str = ""
    call_id: str | None = None
    name: str | None = None


class RefusalDelta(msgspec.Struct, frozen=True, kw_only=True, tag="refusal_delta"):
    """More words of a refusal that the API marks as one."""

    text: str
    index: int = 0


class Citation(msgspec.Struct, frozen=True, kw_only=True, tag="citation"):
    """The answer cites a document; `wire` is the citation as the vendor's API said it."""

    document_id: str
    quote: str = ""
    index: int = 0
    wire: JsonValue = None


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, tag="usage"):
    """Token counts as far as they are known."""

    usage: Usage


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The answer is over; `stop_sequence` as in `Reply`."""

    finish_reason: FinishReason
    model: str = ""
    stop_sequence: str | UnsetType = UNSET


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True, tag="unknown"):
    """An event of the wire that we do not understand; passed or blocked by an explicit rule, and counted."""

    kind: str
    payload: JsonValue = None


StreamEvent = (
    TextDelta | ReasoningDelta | ArgumentDelta | RefusalDelta | Citation | UsageEvent | End | UnknownEvent
)
