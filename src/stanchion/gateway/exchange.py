"""The state of one request while it lasts: every stage writes into it, one function reads it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision
from stanchion.core.interaction import FinishReason, Reply, Usage
from stanchion.gateway.ports import (
    ApiSurface,
    Assignment,
    Caller,
    Engaged,
    Follow,
    Outcome,
    RequestFacts,
    Reservation,
    Stage,
    UpstreamTry,
)

if TYPE_CHECKING:
    from stanchion.gateway.live import Feature, Live
    from stanchion.gateway.upstream import Route
    from stanchion.models.surface import StreamEncoder
    from stanchion.models.wire import Request

Headers = Mapping[bytes, bytes]
NOBODY = Caller(key_id="")
_KEYLESS = ("", "local")
_NO_COMPONENTS = ComponentSet()
_NO_USAGE = Usage()
NEVER = float("inf")
_SAID_IN_HEADERS = ("anthropic-version", "anthropic-beta")


class Interrupt(StrEnum):
    """Why a request was ended from outside itself."""

    CLIENT_GONE = "client_gone"
    SWITCHED_OFF = "switched_off"
    DEADLINE = "deadline"
    SLOW_BODY = "slow_body"
    DRAIN = "drain"


class Exchange:
    """One request. `interrupt` ends it from outside; whoever comes first is the reason."""

    __slots__ = (
        "assignment",
        "at",
        "before_end",
        "beside",
        "caller",
        "components",
        "decisions",
        "encoder",
        "ends_at",
        "ends_why",
        "engaged",
        "error",
        "facts",
        "feature",
        "finish_reason",
        "first_byte_ns",
        "follow",
        "guarantee",
        "guard_ns",
        "headers",
        "id",
        "interrupted_by",
        "is_approved",
        "is_gated",
        "is_looked_at",
        "is_recorded",
        "is_settled",
        "live",
        "loop",
        "outcome",
        "prompt_digest",
        "reference",
        "request",
        "reservation",
        "route",
        "said",
        "shown",
        "stage",
        "started_ns",
        "status",
        "surface",
        "switch_id",
        "task",
        "ticket",
        "tries",
        "try_ended",
        "try_ends_at",
        "ungated",
        "unknown_events",
        "upstream_ns",
        "usage",
    )

    def __init__(
        self, *, id: str, surface: ApiSurface, live: Live, headers: Headers, started_ns: int
    ) -> None:
        self.id = id
        self.surface = surface
        self.live = live
        self.headers = headers
        self.started_ns = started_ns
        self.at = ""
        self.caller = NOBODY
        self.feature: Feature | None = None
        self.facts = RequestFacts(id=id, surface=surface, environment=live.environment)
        self.request: Request | None = None
        self.components = _NO_COMPONENTS
        self.assignment: Assignment | None = None
        self.decisions: tuple[Decision, ...] = ()
        self.beside: tuple[Decision, ...] = ()
        self.outcome = Outcome.INTERNAL_ERROR
        self.stage = Stage.DECODE
        self.status = 0
        self.reference = id
        self.ticket = ""
        self.is_approved = False
        self.prompt_digest = ""
        self.said: Reply | None = None
        self.shown: Reply | None = None
        self.finish_reason = FinishReason.UNKNOWN
        self.usage = _NO_USAGE
        self.guarantee = ""
        self.guard_ns = 0
        self.upstream_ns = 0
        self.first_byte_ns = 0
        self.tries: list[UpstreamTry] = []
        self.unknown_events: dict[str, int] = {}
        self.reservation: Reservation | None = None
        self.is_gated: bool | None = None
        self.ungated = ""
        self.switch_id = ""
        self.error = ""
        self.before_end: Callable[[], Awaitable[None]] | None = None
        self.encoder: StreamEncoder | None = None
        self.engaged: Engaged | None = None
        self.follow: Follow | None = None
        self.route: Route | None = None
        self.interrupted_by: Interrupt | None = None
        self.is_settled = False
        self.is_recorded = False
        self.task: asyncio.Task[Any] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None  # asking which one runs is a call to the system
        self.is_looked_at = False
        self.ends_at = self.try_ends_at = NEVER
        self.ends_why = Interrupt.DEADLINE
        self.try_ended = False

    @property
    def is_single_user(self) -> bool:
        """Whether it came without a virtual key, from this machine, as it may while there are none.

        Such a client's own vendor key is forwarded, and what it says of user, tenant and traffic is believed.
        """
        return self.live.is_local and self.caller.key_id in _KEYLESS

    @property
    def vendor_headers(self) -> dict[str, str]:
        """What the client says to its vendor in headers; only Anthropic's API has such."""
        if not self.surface.startswith("anthropic."):
            return {}
        return {name: said for name in _SAID_IN_HEADERS if (said := self.header(name.encode()))}

    @property
    def asked(self) -> Request:
        """The request; there is one from the first decision on."""
        if self.request is None:
            raise RuntimeError("the request was not read yet")
        return self.request

    @property
    def held_to(self) -> Feature:
        """The feature; there is one from the first decision on."""
        if self.feature is None:
            raise RuntimeError("the feature was not chosen yet")
        return self.feature

    def interrupt(self, why: Interrupt, engaged: Engaged | None = None) -> None:
        """End the request as soon as it waits for anything; ignored when it is over or was ended already."""
        if self.is_settled or self.interrupted_by is not None or self.task is None:
            return
        self.interrupted_by = why
        self.engaged = engaged
        self.task.cancel()

    def client_gone(self) -> None:
        """End the request because nobody waits for its answer any more."""
        self.interrupt(Interrupt.CLIENT_GONE)

    def switched_off(self, engaged: Engaged) -> None:
        """End the request because a switch was engaged that matches it."""
        self.interrupt(Interrupt.SWITCHED_OFF, engaged)

    def unfollow(self) -> None:
        """Stop watching the switches; safe to call twice."""
        if self.follow is not None:
            self.follow.close()
            self.follow = None

    def priced(self, usage: Usage) -> Usage:
        """The usage with its cost, by the prices of the route that answers."""
        return usage if self.route is None else self.route.priced(usage)

    def within(self, seconds: float, why: Interrupt = Interrupt.DEADLINE) -> None:
        """Interrupt it when it is not over after so many seconds; replaces the time before."""
        loop = self.loop or asyncio.get_running_loop()
        self.ends_at, self.ends_why = loop.time() + seconds, why

    def look(self, now: float) -> None:
        """End what is late: the request, or the try at a provider."""
        if now >= self.ends_at:
            self.ends_at = NEVER
            self.interrupt(self.ends_why)
        elif now >= self.try_ends_at and self.task is not None and self.interrupted_by is None:
            self.try_ends_at, self.try_ended = NEVER, True
            self.task.cancel()

    def header(self, name: bytes) -> str:
        """A header as text; empty when it is not there."""
        said = self.headers.get(name)
        return "" if said is None else said.decode("latin-1")

    def count_unknown(self, kind: str) -> None:
        """One more event that nobody knows."""
        kind = kind[:80]
        if kind in self.unknown_events or len(self.unknown_events) < _MAX_KINDS:
            self.unknown_events[kind] = self.unknown_events.get(kind, 0) + 1


_MAX_KINDS = 32
