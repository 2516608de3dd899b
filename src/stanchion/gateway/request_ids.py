"""References that lead back to a request: decisions made within one are numbered under its id."""

from __future__ import annotations

from contextvars import ContextVar

from stanchion.core.clock import Ids

_request: ContextVar[tuple[str, list[int]] | None] = ContextVar("request", default=None)


def begin_request(request_id: str) -> None:
    """From now on, in this task, references belong to this request."""
    _request.set((request_id, [0]))


class RequestIds:
    """`req_01....3` for the third decision of a request; outside of requests, ids of `others`."""

    def __init__(self, others: Ids) -> None:
        self._others = others

    def new(self, kind: str) -> str:
        """A fresh reference."""
        request = _request.get()
        if request is None:
            return self._others.new(kind)
        name, count = request
        count[0] += 1
        return f"{name}.{count[0]}"


def request_of(reference: str) -> str:
    """The request that a reference belongs to."""
    return reference.partition(".")[0]
