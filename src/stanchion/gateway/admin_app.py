"""The admin API as a Starlette app of its own: who asks, how large, which act, and every error as JSON.

It is bound to loopback by default, and needs a key even there. Until the first key with a role is made, a
token in a file that only its owner can read stands in; then the token opens nothing any more. There is no
CORS: a web page has no business here.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from stanchion.core.errors import (
    BlockedError,
    IntegrityError,
    StanchionError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from stanchion.gateway.access import presented
from stanchion.gateway.actor import Actor, ActorRole, folded
from stanchion.gateway.admin_acts import AdminParts, NotConfigured
from stanchion.gateway.admin_messages import ErrorAnswer, ErrorDetail, Health
from stanchion.gateway.admin_routes import PREFIX, ROUTES, Route, openapi
from stanchion.gateway.control_keys import write_private
from stanchion.gateway.ports import Refused

BODY_WAIT_S = 10.0
PERSON_HEADER = "stanchion-person"
_LOG = logging.getLogger("stanchion.admin")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


Endpoint = Callable[[Request], Awaitable[Response]]


class _Problem(Exception):
    """A request that cannot be done, as status and error."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.detail = status, ErrorDetail(code=code, message=message, hint=hint)


def make_admin_app(parts: AdminParts, *, token: str = "") -> Starlette:
    """The app. `token` is what stands in while there is no key with a role (see `load_token`)."""
    document = msgspec.json.encode(openapi())

    async def describe(request: Request) -> Response:
        return _response(200, document)

    async def health(request: Request) -> Response:
        return _response(200, Health(status="ok"))

    by_path: dict[str, dict[str, Endpoint]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = _endpoint(route, parts, token)
    routes = [
        StarletteRoute("/openapi.json", describe, methods=["GET"]),
        StarletteRoute("/health", health, methods=["GET"]),
    ]
    routes += [StarletteRoute(path, _by_method(found), methods=[*found]) for path, found in by_path.items()]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        HTTPException: _http_error,
        Exception: _unexpected,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def token_path(state_dir: Path) -> Path:
    """Where the token is that stands in for the first admin key."""
    return state_dir / "admin" / "token"


def load_token(state_dir: Path) -> str:
    """The token; made on first use, readable by its owner only.

    Raises:
        UsageError: when others can read it.
    """
    path = token_path(state_dir)
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"the token {path} can be read by others.", hint=f"chmod 600 {path}")
    return path.read_text("ascii").strip()


def _by_method(found: dict[str, Endpoint]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await found["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def _endpoint(route: Route, parts: AdminParts, token: str) -> Callable[[Request], Awaitable[Response]]:
    decoder: msgspec.json.Decoder[Any] | None = (
        None if route.body is None else msgspec.json.Decoder(route.body)
    )

    async def endpoint(request: Request) -> Response:
        try:
            actor = await run_in_threadpool(_actor, request, parts, token)
            if route.permission is not None and not actor.may(route.permission):
                raise _Problem(
                    403,
                    "role_missing",
                    f"This takes the permission {route.permission.value!r}.",
                    "See the table of roles in the documentation.",
                )
            arguments = [_parameter(request.path_params[name]) for name in route.parameters]
            if decoder is not None:
                arguments.append(_decoded(decoder, await _body(request, route.max_body)))
            return _response(200, await run_in_threadpool(route.act, parts, actor, *arguments))
        except _Problem as problem:
            return _error(problem.status, problem.detail)
        except NotConfigured as error:
            return _error(404, ErrorDetail(code="not_configured", message=f"This gateway has no {error}."))
        except Refused as refused:
            detail = ErrorDetail(code=refused.code, message=refused.message, hint=refused.hint)
            return _error(refused.status, detail)
        except StanchionError as error:
            return _error(*_translated(error, has_parameters=bool(route.parameters)))

    return endpoint


def _actor(request: Request, parts: AdminParts, token: str) -> Actor:
    given = presented(dict(request.headers.raw))
    if token and hmac.compare_digest(given, token.encode()):
        _, state = parts.keys.state()
        if not any(key.roles for key in state.keys):
            person = request.headers.get(PERSON_HEADER, "") or "local-admin"
            try:
                return Actor(person=folded(person), roles=(ActorRole.ADMIN.value,), account="admin-token")
            except UsageError as error:
                raise _Problem(422, "invalid", error.message, error.hint or "") from error
    return parts.access.actor_of(given)


def _parameter(text: str) -> str:
    if not (0 < len(text) <= 100 and text.isprintable()):
        raise _Problem(422, "invalid", "A name in the path has 1 to 100 printable characters.")
    return text


async def _body(request: Request, most: int) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Problem(415, "not_json", "The body is not application/json.")
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            async for chunk in request.stream():
                read += chunk
                if len(read) > most:
                    raise _Problem(413, "too_large", f"The body is larger than {most:,} bytes.")
    except TimeoutError:
        raise _Problem(408, "too_slow", f"The body took longer than {BODY_WAIT_S:.0f} s.") from None
    except ClientDisconnect:
        raise _Problem(400, "gone", "The client went away.") from None
    return bytes(read)


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _Problem(422, "invalid", f"{error}.", "See /openapi.json.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Problem(400, "not_json", "The body is no JSON.") from error


def _translated(error: StanchionError, *, has_parameters: bool) -> tuple[int, ErrorDetail]:
    hint = error.hint or ""
    if isinstance(error, BlockedError):
        return 403, ErrorDetail(code="not_allowed", message=error.message, hint=hint)
    if isinstance(error, IntegrityError):
        return 409, ErrorDetail(code="not_verified", message=error.message, hint=hint)
    if isinstance(error, UnavailableError):
        return 503, ErrorDetail(code="unavailable", message=error.message, hint=hint)
    if isinstance(error, UsageError):
        is_missing = isinstance(error, UnknownNameError) or error.message.startswith("there is no key")
        if has_parameters and is_missing:
            return 404, ErrorDetail(code="not_found", message=error.message, hint=hint)
        return 422, ErrorDetail(code="invalid", message=error.message, hint=hint)
    return 503, ErrorDetail(code="unavailable", message=error.message, hint=hint)


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = ErrorDetail(code="http", message=str(error.detail), hint=f"Routes begin with {PREFIX}.")
    response = _error(error.status_code, detail)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("unexpected %s at %s %s", type(error).__name__, request.method, request.url.path)
    return _error(500, ErrorDetail(code="internal", message="Something went wrong; it was logged."))


def _error(status: int, detail: ErrorDetail) -> Response:
    response = _response(status, ErrorAnswer(error=detail))
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _response(status: int, body: Any) -> Response:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(data, status_code=status, media_type="application/json", headers=_HEADERS)
