"""What went wrong with an HTTP exchange, as one clear error: what, why, what to do next.

No message holds a key, a prompt, or prose of the other side: error bodies may quote all three. Only its
error codes are shown (`wire.error_label`).
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from stanchion.core.errors import UnavailableError
from stanchion.models.wire import error_label

RETRYABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_HINTS = {
    400: "The endpoint does not accept this request: check the model's limits and the parameters.",
    401: "Check the API key that is configured for this endpoint.",
    403: "The key may not use this model or this endpoint.",
    404: "Check the model name and the base URL (an OpenAI-compatible one usually ends in /v1).",
    413: "The request is too large for this endpoint.",
    422: "The endpoint does not accept this request: check the parameters.",
    429: "Lower the concurrency, wait, or ask for a higher limit.",
}
_REASONS = {
    400: "the endpoint refused the request",
    401: "the endpoint did not accept the key",
    403: "the endpoint forbids this",
    404: "there is no such model or path",
    429: "the endpoint's rate limit is reached",
}


class StatusError(UnavailableError):
    """A status that is no success. `labels` are the plain words of the error body: type, code, parameter."""

    labels: tuple[str, ...] = ()


def status_error(
    what: str, status: int, headers: Mapping[str, str], body: bytes, *, now: datetime
) -> StatusError:
    """The error of a status that is not a success; `what` names model and endpoint."""
    usual = "the endpoint failed" if status >= 500 else "the endpoint refused the request"
    reason = _REASONS.get(status, usual)
    label = error_label(json_or_none(body))
    detail = f"HTTP {status}, {label}" if label else f"HTTP {status}"
    if not label and looks_like_html(headers, body):
        detail += " with an HTML page"
    hint = _HINTS.get(status, "The endpoint has trouble: try again later." if status >= 500 else None)
    error = StatusError(
        f"{what}: {reason} ({detail}).",
        hint=hint,
        status=status,
        retry_after_s=retry_after_s(headers, now=now),
        is_retryable=status in RETRYABLE_STATUS,
    )
    error.labels = tuple(label.split(", ")) if label else ()
    return error


def no_json_error(what: str, headers: Mapping[str, str], body: bytes) -> UnavailableError:
    """A success status with a web page in it, or with something else that is no JSON."""
    if looks_like_html(headers, body):
        found, hint = (
            "an HTML page",
            "Is the base URL that of an API? A login page may stand in between.",
        )
    else:
        found, hint = (
            f"{len(body)} bytes of something else",
            "Check the base URL, and what it sends.",
        )
    return UnavailableError(f"{what}: the answer is not JSON but {found}.", hint=hint, is_retryable=False)


def web_page_error(what: str) -> UnavailableError:
    """A success status with a web page where plain words were expected."""
    return UnavailableError(
        f"{what}: the answer is a web page.",
        hint="Is the URL that of an API? A login page may stand in between.",
        is_retryable=False,
    )


def too_large_error(what: str, limit: int) -> UnavailableError:
    """More bytes than we are willing to hold."""
    return UnavailableError(
        f"{what}: the answer is larger than the limit of {limit} bytes.",
        hint="Ask for fewer output tokens, or raise the limit.",
        is_retryable=False,
    )


def redirect_error(what: str, status: int, host: str) -> UnavailableError:
    """A redirect that is not followed: it would take the key and the prompt elsewhere."""
    return UnavailableError(
        f"{what}: the endpoint redirects (HTTP {status}) to {host or 'nowhere'}; this is not followed.",
        hint="If that is where the API lives, make it the base URL.",
        status=status,
        is_retryable=False,
    )


def connection_error(what: str, error: BaseException) -> UnavailableError:
    """No connection, or one that broke; `error` is aiohttp's or the system's."""
    import aiohttp

    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            why, hint, retry = "its TLS certificate is not accepted", "Check the host name and the CA.", False
        case aiohttp.ClientConnectorDNSError():
            why, hint, retry = "its host name is not known", "Check the base URL and the network.", True
        case aiohttp.ClientConnectorError():
            why, hint, retry = "it cannot be reached", "Is it running, and are host and port right?", True
        case aiohttp.InvalidURL():
            why, hint, retry = "its address is not a URL", "Check the base URL.", False
        case _:
            why, hint, retry = "the connection broke", "Try again; look at the endpoint's log.", True
    return UnavailableError(f"{what}: {why} ({type(error).__name__}).", hint=hint, is_retryable=retry)


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for: a number or an HTTP date (RFC 9110, 10.2.3); None without it."""
    milliseconds = headers.get("retry-after-ms", "")
    if milliseconds.isdecimal():
        return int(milliseconds[:9]) / 1000
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(int(value[:9]))
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        return None
    return max((moment - now).total_seconds(), 0.0)


def looks_like_html(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer is a web page."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml") or body.lstrip()[:9].lower().startswith(
        (b"<!doctype", b"<html")
    )


def json_or_none(body: bytes) -> Any:
    """The JSON value of a body; None when it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
