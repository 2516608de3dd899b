"""Words in parameters: a predicted answer, a schema's descriptions, a field that nobody knows yet.

They reach the model beside the messages, so they are checked as words of unknown origin. They cannot be
rewritten, so what a policy redacts in a message stays here, and what it stops ends the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stanchion.core.decision import Surface
from stanchion.core.origin import Origin
from stanchion.gateway.exchange import Exchange
from stanchion.gateway.json_body import invalid
from stanchion.gateway.manifest import outcome_of
from stanchion.gateway.ports import Refused
from stanchion.models.wire import Request

_FEW = 48  # characters: enough for the words that options are chosen by
_MOST = 2_000  # strings


def words_of(request: Request) -> str:
    """Every string in the parameters of a request, one to a line; empty when they are few characters in all.

    Keys count: the names of a schema's properties are read by the model too.
    """
    found: list[str] = []
    for value in (request.extras, request.interaction.sampling.response_schema):
        if value:
            found += _strings(value)
    return "\n".join(found) if sum(map(len, found)) > _FEW else ""


async def check_parameters(exchange: Exchange) -> None:
    """Check the words in the parameters.

    Raises:
        Refused: with status 400, when the policy stops them.
    """
    words = words_of(exchange.asked)
    if not words:
        return
    checked = await exchange.held_to.guard.acheck(words, surface=Surface.INPUT, origin=Origin.UNKNOWN)
    exchange.beside = (checked.decision,)
    exchange.decisions += exchange.beside
    if not checked.allowed:
        raise Refused(
            outcome_of((checked.decision,)),
            status=400,
            code="content_filter",
            message=f"a parameter holds words that the policy stops. Reference: {checked.reference}.",
            hint="Put them into a message, or leave them out.",
        )


def _strings(value: Any) -> Iterator[str]:
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            count += 1
            yield item
        elif isinstance(item, dict):
            waiting += [*reversed(item.values()), *reversed(item)]
        elif isinstance(item, list):
            waiting += reversed(item)
        if count > _MOST:
            raise invalid("too_many_parameters", f"the parameters hold more than {_MOST} texts.")
