"""W3C Trace Context: the headers `traceparent` and `tracestate`, read strictly and written.

Source: W3C Recommendation "Trace Context", sections 2.2 and 2.3; version 00. What does not follow it is
ignored, as the recommendation says, and never passed on.
"""

from __future__ import annotations

import re
import secrets

import msgspec

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE_CHARACTERS = re.compile(r"[\x20-\x7e]{1,512}", re.ASCII)
_SAMPLED = 1


class TraceContext(msgspec.Struct, frozen=True, kw_only=True):
    """One place in a trace: ids in lower-case hexadecimal, 32 and 16 digits."""

    trace_id: str
    span_id: str
    is_sampled: bool = True
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"

    def child(self) -> TraceContext:
        """A new span of the same trace."""
        return msgspec.structs.replace(self, span_id=secrets.token_hex(8))


def begun(came: TraceContext | None, *, share: float) -> TraceContext:
    """Our span of a trace that came with a request, or of a new one.

    A new trace is sampled when the low half of its id says so, for a share of all (the rule of
    OpenTelemetry's TraceIdRatioBased sampler), so that every service decides alike.
    """
    if came is not None:
        return came.child()
    fresh = new_trace()
    is_sampled = int(fresh.trace_id[16:], 16) < share * (1 << 64)
    return msgspec.structs.replace(fresh, is_sampled=is_sampled)


def new_trace() -> TraceContext:
    """The first span of a new trace."""
    return TraceContext(trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8))


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """What the headers say; None when they say nothing that follows the recommendation."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = tracestate.strip()
    return TraceContext(
        trace_id=trace_id,
        span_id=span_id,
        is_sampled=bool(int(flags, 16) & _SAMPLED),
        state=state if _STATE_CHARACTERS.fullmatch(state) else "",
    )
