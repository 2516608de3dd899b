"""Signed webhooks to addresses that the configuration names, and only there.

Signature and headers are those of Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec,
symmetric `v1`): HMAC-SHA-256 over id, timestamp and body, so a receiver can refuse what is old or changed. A
delivery is tried again with growing, jittered pauses; the id stays, so a receiver can drop the second one.

An address never comes from a request. Redirects are not followed, and the name is resolved for the very
connection: a public name that leads into a private network is refused, unless the file allows it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pydantic

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError
from stanchion.files.references import Secret
from stanchion.files.schema import FieldError, FileModel

if TYPE_CHECKING:
    import aiohttp

MIN_SECRET_BYTES = 16
_RETRYABLE = frozenset({408, 425, 429})


class WebhookTarget(FileModel):
    """Where a webhook goes."""

    url: str = pydantic.Field(description="https://...; http:// only to this machine.")
    secret: Secret = pydantic.Field(description="The shared secret of the signature, 16 bytes or more.")
    timeout_s: float = pydantic.Field(default=5.0, gt=0, le=60)
    tries: int = pydantic.Field(default=6, ge=1, le=20, description="How often a delivery is tried.")
    pause_s: float = pydantic.Field(default=0.5, gt=0, le=60, description="The first pause; it doubles.")
    allow_private: bool = pydantic.Field(
        default=False, description="Whether the name may lead to a private or loopback address."
    )

    @pydantic.model_validator(mode="after")
    def _safe(self) -> WebhookTarget:
        try:
            parts = urlsplit(self.url)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as error:
            raise FieldError("the url cannot be read.") from error
        if parts.scheme not in ("https", "http") or not host or parts.username or parts.password:
            raise FieldError("the url must be https://host/path, without user and password.")
        if parts.scheme == "http" and not (self.allow_private and _is_here(host)):
            raise FieldError(
                "a webhook over http is readable on the way.",
                hint="Use https; http works only to this machine, with allow_private.",
            )
        if len(self.secret.reveal().encode()) < MIN_SECRET_BYTES:
            raise FieldError(f"the secret needs {MIN_SECRET_BYTES} bytes or more.")
        return self


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How a delivery ended: the HTTP status, and after how many tries."""

    id: str
    status: int
    tries: int


def sign(secret: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def is_signed(
    secret: bytes, headers: Mapping[str, str], body: bytes, *, now_s: float, tolerance_s: float = 300
) -> bool:
    """Whether a received webhook is genuine and not old; for receivers in Python, and for tests."""
    stamp = headers.get("webhook-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 13):
        return False
    wanted = sign(secret, message_id=headers.get("webhook-id", ""), timestamp=int(stamp), body=body)
    given = headers.get("webhook-signature", "").split()
    is_fresh = abs(now_s - int(stamp)) <= tolerance_s
    return is_fresh and any(hmac.compare_digest(wanted.encode(), one.encode()) for one in given)


class Webhook:
    """Sends to one target. One asyncio loop uses it."""

    def __init__(
        self,
        target: WebhookTarget,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.target = target
        self._clock = clock
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def send(self, message_id: str, payload: Mapping[str, Any]) -> Delivery:
        """Deliver once, or say that it could not be. `payload` holds ids and counts, never raw text.

        Raises:
            UnavailableError: after the last try, or at once for an answer that trying again cannot change.
        """
        body = msgspec.json.encode(payload, order="sorted")
        reason = ""
        for number in range(1, self.target.tries + 1):
            if number > 1:
                await self._sleep(self._pause_s(number - 1))
            status, reason = await self._post(message_id, body)
            if 200 <= status < 300:
                return Delivery(id=message_id, status=status, tries=number)
            if 300 <= status < 500 and status not in _RETRYABLE:
                raise UnavailableError(
                    f"the webhook was refused with status {status}.",
                    hint="Check its address and secret; redirects are not followed.",
                    status=status,
                    is_retryable=False,
                )
        raise UnavailableError(
            f"the webhook was not delivered in {self.target.tries} tries ({reason}).",
            hint="Check that the receiver runs and can be reached.",
        )

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _pause_s(self, failures: int) -> float:
        """Exponential, up to a minute, with full jitter on its upper half so that senders do not march."""
        most: float = min(60.0, self.target.pause_s * 2 ** min(failures - 1, 20))
        return most * (0.5 + secrets.randbelow(1000) / 2000)

    async def _post(self, message_id: str, body: bytes) -> tuple[int, str]:
        import aiohttp

        timestamp = int(self._clock.now().timestamp())
        secret = self.target.secret.reveal().encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secret, message_id=message_id, timestamp=timestamp, body=body),
        }
        try:
            async with self._open().post(
                self.target.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status, f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, type(error).__name__

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self._checked_socket),
                timeout=aiohttp.ClientTimeout(total=self.target.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _checked_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for the address that is really connected to: no second look-up gets around it."""
        family, kind, protocol, _, where = address
        if not self.target.allow_private and not ipaddress.ip_address(where[0].partition("%")[0]).is_global:
            raise OSError("the webhook's name leads to an address that is not public")
        return socket.socket(family, kind, protocol)


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
