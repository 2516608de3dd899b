"""The language-neutral API: interactions and tool calls in, decisions out; no model is asked.

`POST /v1/check` takes `{"interaction": ...}`, `{"interactions": [...]}` or `{"text": ..., "surface": ...}`;
`POST /v1/check-tool-call` takes `{"call": ..., "definition": ..., "calls_before": ...}`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.codec import digest
from stanchion.core.decision import Decision, Effect, Surface, strictest
from stanchion.core.interaction import Interaction, Message, Role, Text, ToolCall, ToolDefinition
from stanchion.core.origin import Origin
from stanchion.gateway.answering import head
from stanchion.gateway.enforcement import count_without_model, reserve
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.guard_sessions import guard_session
from stanchion.gateway.http_io import Answer
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.permits import heed_switches
from stanchion.gateway.ports import Stage
from stanchion.models import openai_errors
from stanchion.models.surface import StreamEncoder, SurfaceCodec, encode_json, no_stream
from stanchion.models.wire import JsonObject, Request, WireError, as_schema
from stanchion.store.identity import is_plain

MOST_AT_ONCE = 100


class CheckText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One text with the surface it stands on."""

    text: str
    surface: Surface = Surface.INPUT
    session_id: str = ""
    locale: str = ""


class CheckBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of the three."""

    interaction: Interaction | None = None
    interactions: tuple[Interaction, ...] = ()
    text: str | None = None
    surface: Surface = Surface.INPUT
    session_id: str = ""
    locale: str = ""


class ToolCallBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call before it is made."""

    call: ToolCall
    definition: ToolDefinition | None = None
    calls_before: int | None = None
    session_id: str = ""


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided: `text` or `interaction` is what may be used instead of what was sent."""

    reference: str
    allowed: bool
    effect: Effect
    decisions: tuple[Decision, ...]
    text: str | None = None
    interaction: Interaction | None = None
    call: ToolCall | None = None
    denial: str = ""
    needs_approval: bool = False


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each interaction, in their order."""

    results: tuple[CheckAnswer, ...]


class OwnApi:
    """What both APIs have in common: no streams, errors as the OpenAI APIs say them."""

    name = ""
    can_stream = False
    body: type[Any] = CheckBody

    def decode_request(self, body: Any) -> Request:
        """The request; the body itself is kept whole for the answer."""
        try:
            read = msgspec.convert(body, self.body, strict=True)
        except msgspec.ValidationError as error:
            raise WireError(f"{str(error)[:300]}.", hint="See docs/reference/check-api.md") from None
        _look_at_schemas(read)
        return Request(interaction=_interaction(read), extras={"read": read})

    def encode_reply(self, reply: Any, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """Not used: these answers are no replies of a model."""
        raise no_stream(self.name)

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """Refused: there is no streamed answer."""
        raise no_stream(self.name)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object."""
        return openai_errors.encode_error(
            status=status, code=code, message=message, retry_after_s=retry_after_s
        )


class CheckApi(OwnApi):
    """`POST /v1/check`."""

    name = "check"
    body = CheckBody


class CheckToolCallApi(OwnApi):
    """`POST /v1/check-tool-call`."""

    name = "check_tool_call"
    body = ToolCallBody


def _look_at_schemas(read: CheckBody | ToolCallBody) -> None:
    """Refuse definitions whose parameters are no JSON schema: no call could be held against them."""
    if isinstance(read, ToolCallBody):
        if read.definition is not None:
            as_schema(read.definition.parameters, "definition.parameters")
        return
    given = [("interaction", read.interaction)] if read.interaction is not None else []
    given += [(f"interactions[{number}]", one) for number, one in enumerate(read.interactions)]
    for where, one in given:
        for number, tool in enumerate(one.tools):
            as_schema(tool.parameters, f"{where}.tools[{number}].parameters")


def _interaction(read: CheckBody | ToolCallBody) -> Interaction:
    """What facts and limits are taken from."""
    if isinstance(read, ToolCallBody):
        message = Message(role=Role.ASSISTANT, parts=(read.call,))
        return Interaction(messages=(message,), session_id=read.session_id)
    given = sum((read.interaction is not None, bool(read.interactions), read.text is not None))
    if given != 1:
        raise WireError("body: one of interaction, interactions, text is needed here.")
    if len(read.interactions) > MOST_AT_ONCE:
        raise WireError(f"interactions: at most {MOST_AT_ONCE} are taken at once.")
    if read.text is not None:
        words = Text(text=read.text, origin=Origin.UNKNOWN)
        return Interaction(messages=(Message(role=Role.USER, parts=(words,)),), session_id=read.session_id)
    return read.interaction or read.interactions[0]


async def answer_check(exchange: Exchange, codec: SurfaceCodec, answer: Answer) -> None:
    """Decide about what was sent, and answer with the decisions."""
    request = exchange.asked
    if isinstance(request.extras["read"], ToolCallBody):
        exchange.facts = msgspec.structs.replace(exchange.facts, tools=(request.extras["read"].call.name,))
    heed_switches(exchange)
    read = request.extras["read"]
    _write_down(exchange, read)
    batch = read.interactions if isinstance(read, CheckBody) else ()
    await reserve(exchange, request, *batch[1:])
    exchange.stage = Stage.INPUT
    began_ns = exchange.live.clock.monotonic_ns()
    if isinstance(read, ToolCallBody):
        body: Any = await _checked_call(exchange, read)
    elif read.text is not None:
        body = await _checked_text(exchange, read)
    elif read.interaction is not None:
        body = await _checked(exchange, read.interaction)
    else:
        body = BatchAnswer(results=tuple([await _checked(exchange, one) for one in read.interactions]))
    exchange.guard_ns += exchange.live.clock.monotonic_ns() - began_ns
    await count_without_model(exchange)
    exchange.outcome, exchange.stage, exchange.status = outcome_of(exchange.decisions), Stage.DONE, 200
    if exchange.before_end is not None:
        await exchange.before_end()
    await answer.whole(200, head(exchange, is_stream=False), encode_json(body))


def _write_down(exchange: Exchange, read: CheckBody | ToolCallBody) -> None:
    """What the record says beside the decisions: what decided, and the session, where it is one."""
    asked = exchange.asked.interaction
    tools = asked.tools
    if isinstance(read, ToolCallBody):
        tools = () if read.definition is None else (read.definition,)
    exchange.components = msgspec.structs.replace(
        exchange.held_to.components,
        tools=digest([msgspec.to_builtins(tool) for tool in tools]) if tools else "",
    )
    sessions = {read.session_id}
    if isinstance(read, CheckBody) and read.text is None:
        sessions = {one.session_id for one in (read.interaction, *read.interactions) if one is not None}
    if not exchange.facts.session_id and len(sessions) == 1:
        [named] = sessions
        session = named if is_plain(named) else exchange.live.id_keys.key("session", named)
        exchange.facts = msgspec.structs.replace(exchange.facts, session_id=session)


def _session(exchange: Exchange, named: str) -> str:
    """The guard's session for what was sent: the one named there, else that of the request."""
    return guard_session(exchange, named or exchange.facts.session_id)


async def _checked(exchange: Exchange, interaction: Interaction) -> CheckAnswer:
    interaction = msgspec.structs.replace(interaction, session_id=_session(exchange, interaction.session_id))
    checked = await exchange.held_to.guard.acheck_interaction(interaction)
    exchange.decisions += checked.decisions
    return CheckAnswer(
        reference=exchange.reference,
        allowed=checked.allowed,
        effect=strictest(*(one.enforced_effect for one in checked.decisions)),
        decisions=checked.decisions,
        interaction=checked.interaction,
    )


async def _checked_text(exchange: Exchange, read: CheckBody) -> CheckAnswer:
    checked = await exchange.held_to.guard.acheck(
        read.text or "",
        surface=read.surface,
        session_id=_session(exchange, read.session_id),
        locale=read.locale,
    )
    exchange.decisions += (checked.decision,)
    return CheckAnswer(
        reference=exchange.reference,
        allowed=checked.allowed,
        effect=checked.decision.enforced_effect,
        decisions=(checked.decision,),
        text=checked.text,
    )


async def _checked_call(exchange: Exchange, read: ToolCallBody) -> CheckAnswer:
    switches = exchange.live.parts.switches
    engaged = None if switches is None else switches.find_tool(exchange.facts, read.call.name)
    checked = await exchange.held_to.guard.acheck_tool_call(
        read.call,
        session_id=_session(exchange, read.session_id),
        definition=read.definition,
        calls_before=read.calls_before,
    )
    exchange.decisions += (checked.decision,)
    if engaged is not None:
        exchange.switch_id = engaged.switch_id
    return CheckAnswer(
        reference=exchange.reference,
        allowed=checked.allowed and engaged is None,
        effect=Effect.BLOCK if engaged is not None else checked.decision.enforced_effect,
        decisions=(checked.decision,),
        call=checked.call if checked.allowed and engaged is None else None,
        denial="the tool was switched off by its operator." if engaged is not None else checked.denial,
        needs_approval=checked.needs_approval,
    )
