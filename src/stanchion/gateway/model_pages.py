"""The models that a caller may use: the list and single ones, in either vendor's shape.

A request with the header `anthropic-version` is answered as Anthropic's API does, any other as OpenAI's.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from stanchion.gateway.http_io import Scope
from stanchion.gateway.live import Live
from stanchion.gateway.ports import Outcome, Refused
from stanchion.models import anthropic_surface, openai_errors
from stanchion.models.openai_vectors import anthropic_models, openai_models

PATH = "/v1/models"
_LIMIT = 1000
_USUAL = 20


def list_models(live: Live, scope: Scope) -> tuple[int, Any]:
    """Every model by name, on pages for Anthropic's clients."""
    try:
        names = _names(live, scope)
        if not _is_anthropic(scope):
            return 200, openai_models(names, created=_created(live))
        return 200, _page(names, dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"))), live)
    except Refused as refused:
        return refused.status, _error(scope, refused)


def one_model(live: Live, scope: Scope) -> tuple[int, Any]:
    """The model that the path names; one that the caller may not use is not there."""
    name = scope["path"].partition(f"{PATH}/")[2]
    try:
        allowed = _allowed(live, scope)
        vendor = "anthropic" if _is_anthropic(scope) else "openai"
        if (allowed and name not in allowed) or not live.models.knows(name, vendor=vendor):
            raise Refused(
                Outcome.INVALID,
                status=404,
                code="model_not_found",
                message="there is no model of this name here.",
                hint="List them: GET /v1/models",
            )
    except Refused as refused:
        return refused.status, _error(scope, refused)
    if _is_anthropic(scope):
        return 200, anthropic_models([name], created=_created_at(live))["data"][0]
    return 200, openai_models([name], created=_created(live))["data"][0]


def _page(names: tuple[str, ...], query: dict[str, str], live: Live) -> dict[str, Any]:
    """One page: at most `limit` names behind `after_id` or before `before_id`.

    Raises:
        Refused: for a limit that is none, and for an id that is not in the list.
    """
    said = query.get("limit", str(_USUAL))
    limit = int(said) if said.isdecimal() and len(said) <= 4 else 0
    if not 1 <= limit <= _LIMIT:
        raise _invalid(f"limit: a number from 1 to {_LIMIT} is needed here.")
    start, end = 0, len(names)
    for key in ("after_id", "before_id"):
        if key in query and query[key] not in names:
            raise _invalid(f"{key}: there is no model of this name here.")
    if "after_id" in query:
        start = names.index(query["after_id"]) + 1
    if "before_id" in query:
        end = names.index(query["before_id"])
    is_backwards = "before_id" in query and "after_id" not in query
    shown = names[start:end][-limit:] if is_backwards else names[start:end][:limit]
    page = anthropic_models(shown, created=_created_at(live))
    return page | {"has_more": len(shown) < end - start}


def _names(live: Live, scope: Scope) -> tuple[str, ...]:
    allowed = _allowed(live, scope)
    return tuple(name for name in live.models.names() if not allowed or name in allowed)


def _allowed(live: Live, scope: Scope) -> tuple[str, ...]:
    """The models of the caller's key; empty means all.

    Raises:
        Refused: when a key is asked for, and none or a wrong one came.
    """
    if live.parts.access is None:
        return ()
    return live.parts.access.identify(dict(reversed(scope["headers"]))).models


def _is_anthropic(scope: Scope) -> bool:
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def _created(live: Live) -> int:
    return int(live.clock.now().timestamp())


def _created_at(live: Live) -> str:
    return live.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _invalid(message: str) -> Refused:
    return Refused(Outcome.INVALID, status=400, code="invalid_request", message=message)


def _error(scope: Scope, refused: Refused) -> dict[str, Any]:
    encode = anthropic_surface.encode_error if _is_anthropic(scope) else openai_errors.encode_error
    message = f"{refused.message} {refused.hint}".strip()
    return encode(status=refused.status, code=refused.code, message=message)
