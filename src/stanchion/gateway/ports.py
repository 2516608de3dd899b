"""The joints of the gateway: what one request is to every part, and what each part promises the data plane.

The data plane (`enforcement`) knows the other parts only by these protocols. What is
asked on the hot path before the model (`Switches.find`, `Admission.check`, `Rollout.choose`) is synchronous
and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision
from stanchion.core.interaction import FinishReason, Usage


class ApiSurface(StrEnum):
    """The APIs that the gateway speaks; the manifest, metrics and the coverage matrix use these names."""

    OPENAI_CHAT = "openai.chat"
    OPENAI_RESPONSES = "openai.responses"
    OPENAI_EMBEDDINGS = "openai.embeddings"
    OPENAI_MODERATIONS = "openai.moderations"
    OPENAI_MODELS = "openai.models"
    ANTHROPIC_MESSAGES = "anthropic.messages"
    ANTHROPIC_COUNT_TOKENS = "anthropic.count_tokens"
    CHECK = "check"
    CHECK_TOOL_CALL = "check_tool_call"
    FEEDBACK = "feedback"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as far as the key says. `user_key` and `tenant` are keyed ids, never the outside ones.

    `features`, `models` and `surfaces` are what the key may be used for; empty means all. `person` is the id
    in `org.yaml` of the person that an admin key is bound to.
    """

    key_id: str
    tenant: str = ""
    user_key: str = ""
    person: str = ""
    roles: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a request before a model sees it: ids and names, never its text.

    `model` is the name the client asked for until a route is chosen, then the route's; `provider` is the
    name in the gateway file. `prompt` is `name@version`, `guard_version` the digest of the policy. The ids of
    the trace are those of `telemetry.trace_context`: the span is the gateway's own, its parent the client's.
    """

    id: str
    surface: ApiSurface
    is_stream: bool = False
    feature: str = ""
    tenant: str = ""
    key_id: str = ""
    user_key: str = ""
    session_id: str = ""
    environment: str = "dev"
    traffic: str = "live"
    model: str = ""
    provider: str = ""
    tools: tuple[str, ...] = ()
    prompt: str = ""
    guard_version: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    is_sampled: bool = True


class Stage(StrEnum):
    """Where a request ended, in the order of enforcement."""

    DECODE = "decode"
    ACCESS = "access"
    SWITCHES = "switches"
    LIMITS = "limits"
    ADMISSION = "admission"
    INPUT = "input"
    UPSTREAM = "upstream"
    OUTPUT = "output"
    TOOL_CALLS = "tool_calls"
    DONE = "done"


class Outcome(StrEnum):
    """How a request ended; every request has exactly one, a crash included."""

    ALLOWED = "allowed"
    REDACTED = "redacted"
    REPLACED = "replaced"
    PENDING_APPROVAL = "pending_approval"
    BLOCKED = "blocked"
    SWITCHED_OFF = "switched_off"
    LIMITED = "limited"
    NOT_ADMITTED = "not_admitted"
    DENIED = "denied"
    INVALID = "invalid"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_GONE = "client_gone"
    DEADLINE = "deadline"
    INTERNAL_ERROR = "internal_error"


class Refused(Exception):
    """A part of the gateway says no. The data plane turns it into the API's own error shape.

    `code` is a stable word for machines, `message` and `hint` are for people and hold no text of the
    request, no secret and no stack. `status` is the HTTP status. `may_retry` tells clients whether it may
    help to try again; None leaves it to them, as the vendor's own answer would.
    """

    def __init__(
        self,
        outcome: Outcome,
        *,
        status: int,
        code: str,
        message: str,
        hint: str = "",
        retry_after_s: float | None = None,
        may_retry: bool | None = False,
    ) -> None:
        super().__init__(message)
        self.may_retry = may_retry
        self.outcome = outcome
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s


# --- switches -----------------------------------------------------------------------------------------------


class Engaged(msgspec.Struct, frozen=True, kw_only=True):
    """A switch that stands in a request's way: its `level` (`global`, `tenant`, `tool`, ...) and `name`."""

    switch_id: str
    level: str
    name: str
    version: int
    reason: str = ""


class Follow(Protocol):
    """A watch on the switches for the time of one request."""

    def move(self, facts: RequestFacts) -> None:
        """Watch for what is known of the request now; what is engaged already is told too."""
        ...

    def close(self) -> None:
        """Stop watching; safe to call twice."""
        ...


class Switches(Protocol):
    """The signed snapshot in memory. All methods are synchronous, do no I/O and never raise."""

    @property
    def version(self) -> int:
        """The version of the snapshot that is obeyed; -1 when none could be verified (see `find`)."""
        ...

    def find(self, facts: RequestFacts) -> Engaged | None:
        """The switch that stops this request, the broadest level first.

        Fails closed: a snapshot that was there and cannot be verified any more counts as a global switch.
        """
        ...

    def find_tool(self, facts: RequestFacts, tool: str) -> Engaged | None:
        """The switch that stops a call of this tool."""
        ...

    def follow(self, facts: RequestFacts, on_engaged: Callable[[Engaged], None]) -> Follow:
        """Call back, on the event loop, as soon as a switch that matches is engaged."""
        ...


# --- limits -------------------------------------------------------------------------------------------------


class Reservation(Protocol):
    """Tokens and money set aside for a request; must be settled or released exactly once."""

    async def settle(self, usage: Usage) -> None:
        """What it really took; unknown counts are charged as reserved."""
        ...

    async def release(self) -> None:
        """Nothing was used."""
        ...


class Limits(Protocol):
    """Requests, concurrency, tokens and money, per key, tenant, user and feature; penalties, block list."""

    async def reserve(
        self, facts: RequestFacts, *, input_tokens: int, max_output_tokens: int | None, requests: int = 1
    ) -> Reservation:
        """Set aside what the request may take; a batch counts as so many `requests`, and is one at a time.

        `max_output_tokens` None: the request names no length, and what the settings say for that is set
        aside. 0: it is answered without text of a model.

        Raises:
            Refused: `limited` (429, with `retry_after_s`), or `denied` (403) for a blocked caller.
        """
        ...

    async def observe(self, facts: RequestFacts, outcome: Outcome) -> None:
        """What became of it, for progressive penalties."""
        ...


# --- breaker ------------------------------------------------------------------------------------------------


class Breaker(Protocol):
    """Sliding error ratio, latency trip and half-open probes, per provider, tool and guard service."""

    def allows(self, name: str) -> bool:
        """Whether a call may be tried now; takes one of the probes when half open."""
        ...

    def succeeded(self, name: str, *, latency_ms: float) -> None:
        """A call went well (slow ones may count as failures)."""
        ...

    def failed(self, name: str) -> None:
        """A call failed by the other side's fault."""
        ...

    def released(self, name: str) -> None:
        """A call ended without a word on the other side's health; gives a probe back."""
        ...

    def retry_after_s(self, name: str) -> float:
        """Seconds until the next probe may be tried; 0 when calls go through or probes are under way."""
        ...

    def state(self, name: str) -> str:
        """`closed`, `open` or `half_open`."""
        ...


# --- rollout ------------------------------------------------------------------------------------------------


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """What runs beside the real one: another model, prompt or policy."""

    experiment: str
    variant: str
    model: str = ""
    prompt: str = ""
    policy: str = ""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The variants of one request, by experiment; empty fields leave things as they are.

    `shadows` are variants that are asked or checked beside the real one and never shown.
    """

    variants: dict[str, str] = msgspec.field(default_factory=dict)
    model: str = ""
    prompt: str = ""
    policy: str = ""
    shadows: tuple[Shadow, ...] = ()


class Rollout(Protocol):
    """Canary, A/B and shadow, by weight and sticky key."""

    def choose(self, facts: RequestFacts) -> Assignment:
        """The variants; the same sticky key gets the same ones while weights do not change."""
        ...

    def observe(
        self, facts: RequestFacts, assignment: Assignment, outcome: Outcome, *, latency_ms: float
    ) -> None:
        """What became of the request; feeds the confidence sequence, which may act."""
        ...


# --- admission ----------------------------------------------------------------------------------------------


class AdmissionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`action` is `allow`, `warn` or `block`; `is_gated` says whether the set is on the list."""

    action: str
    is_gated: bool
    reason: str = ""


class Admission(Protocol):
    """Whether the component set of a request was gated."""

    def check(self, facts: RequestFacts, components: ComponentSet) -> AdmissionAnswer:
        """Looked up in the signed list; never raises."""
        ...


# --- approvals ----------------------------------------------------------------------------------------------


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits for a person. `status`: pending, approved, denied, expired."""

    ticket: str
    status: str
    expires_at: str
    reason: str = ""


class Redeemed(Protocol):
    """A ticket that a client came back with; `subject` only when it was approved."""

    @property
    def parked(self) -> Parked:
        """How it stands."""
        ...

    @property
    def subject(self) -> dict[str, Any] | None:
        """What was approved."""
        ...


class Approvals(Protocol):
    """The queue of tool calls and answers that wait for a person; time-out means deny."""

    async def park(
        self, facts: RequestFacts, *, kind: str, subject: Mapping[str, object], decision: Decision
    ) -> Parked:
        """Put something in the queue.

        `kind` is `tool_call` or `answer`; `subject` is what a person has to see (tool name, arguments after
        redaction), stored encrypted or redacted.

        Raises:
            UnavailableError: when the queue cannot be written; the caller then denies.
        """
        ...

    async def wait(self, ticket: str, *, seconds: float) -> Parked:
        """Wait for the decision, at most so long; pending when there is none yet."""
        ...

    async def redeem(self, facts: RequestFacts, ticket: str, *, asked: str = "") -> Redeemed:
        """What a client that came back with a ticket gets; what was approved is given once.

        `asked` is the digest of the request that the ticket came with.

        Raises:
            Refused: `invalid`: 404 for a ticket that is not there, or is somebody else's, 409 for one that
                was redeemed, or was given for another request.
        """
        ...


# --- access -------------------------------------------------------------------------------------------------


class Access(Protocol):
    """Virtual keys."""

    async def authenticate(self, headers: Mapping[bytes, bytes], *, surface: ApiSurface) -> Caller:
        """Whose key it is; constant time in what is wrong with a key.

        Raises:
            Refused: `denied` with status 401 (no key, unknown, expired, revoked: all alike), or 403 when the
                key may not do this.
        """
        ...

    def identify(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose key it is, for what is no call of a surface; raises like `authenticate`."""
        ...


# --- record -------------------------------------------------------------------------------------------------


class UpstreamTry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One try at a provider; `span_id` is what its `traceparent` said, where spans are made.

    `detail` says of a try that failed where the provider is and what went wrong; no client is told.
    """

    provider: str
    model: str
    status: str
    latency_ms: float
    span_id: str = ""
    detail: str = ""


class ExchangeRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The one record of a request: everything that happened, no word of its text.

    `manifest` is the expected checks with what became of each (they are in the decisions' `checks`; here are
    the counts by state: expected, ran, did_not_run). Times are milliseconds; `cost_usd` None: not known.
    `ungated` is what was done about a set that passed no gate: `allow`, `warn` or `block`. `flags` is the
    version of the feature flags that held. `input_hash` and `output_hash` are keyed and stand for the words
    in spans; empty where none are made.
    """

    facts: RequestFacts
    at: str
    outcome: Outcome
    stage: Stage
    status: int
    reference: str = ""
    decisions: tuple[Decision, ...] = ()
    components: ComponentSet = ComponentSet()
    is_gated: bool | None = None
    manifest: dict[str, int] = msgspec.field(default_factory=dict)
    guarantee: str = ""
    guard_state: str = ""
    finish_reason: FinishReason = FinishReason.UNKNOWN
    usage: Usage = Usage()
    total_ms: float = 0.0
    guard_ms: float = 0.0
    upstream_ms: float = 0.0
    first_byte_ms: float | None = None
    tries: tuple[UpstreamTry, ...] = ()
    variants: dict[str, str] = msgspec.field(default_factory=dict)
    switch_version: int = 0
    switch_id: str = ""
    ungated: str = ""
    flags: str = ""
    unknown_events: dict[str, int] = msgspec.field(default_factory=dict)
    error: str = ""
    input_hash: str = ""
    output_hash: str = ""


class Observer(Protocol):
    """Hears of every request; metrics, spans, the audit record and the terminal are observers.

    Methods are synchronous, quick, and their errors are counted and swallowed by the data plane, except
    for the recorder's when the policy says that records are written synchronously.
    """

    def started(self, facts: RequestFacts) -> None:
        """A request was decoded and authenticated."""
        ...

    def finished(self, record: ExchangeRecord) -> None:
        """A request is over; called exactly once for every request, whatever happened."""
        ...
