"""Signature Version 4 of Amazon Web Services, for requests with a JSON body.

Written from the published algorithm: AWS General Reference, "Signing AWS API requests" (create a canonical
request, a string to sign, a signature). Checked against the published examples in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from stanchion.core.errors import UsageError

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = frozenset({"authorization", "user-agent", "accept-encoding", "content-length", "connection"})
_ADDED: tuple[str, ...] = ("x-amz-date", "x-amz-security-token")


class SecretLike(Protocol):
    """A value that shows itself only when asked to."""

    def reveal(self) -> str:
        """The value itself."""
        ...


class AwsCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """A key pair; temporary ones come with a session token. Never shown."""

    access_key: str
    secret_key: SecretLike
    session_token: SecretLike | None = None

    def __repr__(self) -> str:
        return f"AwsCredentials(access_key={self.access_key[:4]}...)"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature is good for; the names as AWS spells them, such as `eu-central-1` and `bedrock`."""

    region: str
    service: str


class Signer:
    """Signs requests of one key pair. The key of the day is derived once and kept."""

    def __init__(self, credentials: AwsCredentials, scope: Scope) -> None:
        for name, value in (("region", scope.region), ("service", scope.service)):
            if not value.replace("-", "").isalnum() or not value.isascii():
                raise UsageError(f"the AWS {name} {value!r} is no {name}.", hint="For example us-east-1.")
        self._credentials = credentials
        self._scope = scope
        self._key: tuple[str, bytes] = ("", b"")

    def sign(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> dict[str, str]:
        """The headers with date, token and signature.

        Args:
            method: such as `POST`.
            url: the address exactly as it is sent, its path percent-encoded.
            headers: what else is sent; all are signed, apart from those that proxies change.
            body: the bytes that are sent.
            now: the time; AWS takes signatures that are at most five minutes old.
        """
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        parts = urlsplit(url)
        signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
        signed |= {"host": parts.netloc, "x-amz-date": stamp}
        if self._credentials.session_token is not None:
            signed["x-amz-security-token"] = self._credentials.session_token.reveal()
        covered = sorted(name for name in signed if name not in _UNSIGNED)
        canonical = canonical_request(
            method, url, {name: signed[name] for name in covered}, hashlib.sha256(body).hexdigest()
        )
        place = f"{stamp[:8]}/{self._scope.region}/{self._scope.service}/aws4_request"
        text = string_to_sign(canonical, stamp=stamp, place=place)
        signature = hmac.new(self._day_key(stamp[:8]), text.encode(), hashlib.sha256).hexdigest()
        added: dict[str, str] = {name: signed[name] for name in _ADDED if name in signed}
        return {
            **headers,
            **added,
            "authorization": f"{_ALGORITHM} Credential={self._credentials.access_key}/{place}, "
            f"SignedHeaders={';'.join(covered)}, Signature={signature}",
        }

    def _day_key(self, day: str) -> bytes:
        if self._key[0] != day:
            key = f"AWS4{self._credentials.secret_key.reveal()}".encode()
            for word in (day, self._scope.region, self._scope.service, "aws4_request"):
                key = hmac.new(key, word.encode(), hashlib.sha256).digest()
            self._key = (day, key)
        return self._key[1]


def canonical_request(method: str, url: str, headers: Mapping[str, str], body_digest: str) -> str:
    """The request in the one form that both sides sign; `headers` are sorted, with lower-case names.

    The path is encoded once more, as the algorithm asks of all services but S3.
    """
    parts = urlsplit(url)
    query = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(parts.query, True))
    return "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~"),
            "&".join(f"{key}={value}" for key, value in query),
            *(f"{name}:{value}" for name, value in headers.items()),
            "",
            ";".join(headers),
            body_digest,
        ]
    )


def string_to_sign(canonical: str, *, stamp: str, place: str) -> str:
    """What the key of the day signs."""
    return "\n".join([_ALGORITHM, stamp, place, hashlib.sha256(canonical.encode()).hexdigest()])
