"""Parts and events that only one vendor can say: whose they are, and an answer without them.

The kind of an `Opaque` part or an `UnknownEvent` begins with the API it came from and a colon.
"""

from __future__ import annotations

import msgspec

from stanchion.core.interaction import Opaque, Part, Reply

_NEUTRAL = frozenset({"citation"})


def is_foreign(part: Part, api: str) -> bool:
    """Whether a part is another API's, without a meaning in this one."""
    if not isinstance(part, Opaque) or part.kind in _NEUTRAL:
        return False
    return part.kind.partition(":")[0] != api


def without_foreign(reply: Reply, api: str) -> Reply:
    """The reply as this API can say it: other vendors' parts are left out."""
    parts = reply.message.parts
    kept = tuple(part for part in parts if not is_foreign(part, api))
    if len(kept) == len(parts):
        return reply
    message = msgspec.structs.replace(reply.message, parts=kept)
    return msgspec.structs.replace(reply, message=message)


def lost_in(reply: Reply, api: str) -> dict[str, int]:
    """How many parts `without_foreign` leaves out, by kind."""
    lost: dict[str, int] = {}
    for part in reply.message.parts:
        if is_foreign(part, api) and isinstance(part, Opaque):
            lost[part.kind] = lost.get(part.kind, 0) + 1
    return lost
