"""Google Vertex AI: Anthropic's models by `rawPredict`, others by the endpoint that speaks chat completions.

Betas are a header of the request, as of Anthropic's own API; the version of that API is a field of the body.
Sources: Vertex AI documentation, "Claude models" and "OpenAI compatibility"; RFC 7523 and Google's "Using
OAuth 2.0 for server to server applications" for tokens of a service account.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import Reply
from stanchion.models.http_client import Call, HttpClient, HttpLimits, checked_url, json_body, shown_url
from stanchion.models.providers import SecretLike, base_headers, secret_text
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import JsonObject, as_object, as_text, as_unavailable, maybe_int

_VERSION = "vertex-2023-10-16"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME_S = 3600
_EARLY_S = 120
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105  (an address)
_MODEL = re.compile(r"[A-Za-z0-9._@/-]{1,200}")


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A service account; `private_key` is the PEM text of its key file. Never shown."""

    email: str
    private_key: SecretLike
    key_id: str = ""
    token_url: str = _TOKEN_URL

    def __repr__(self) -> str:
        return f"ServiceAccount(email={self.email!r})"


class AccessTokens:
    """Tokens of a service account, each kept until shortly before it ends; asked for by one caller at a time.

    Args:
        account: whose tokens.
        clock: for the times in the assertion, and for how long a token holds.
        limits: of the request for a token.
    """

    def __init__(
        self, account: ServiceAccount, *, clock: Clock | None = None, limits: HttpLimits | None = None
    ) -> None:
        checked_url(account.token_url, what="the address for tokens")
        self._account = account
        self._clock = clock or SystemClock()
        self._http = HttpClient(limits or HttpLimits(max_connections=2), clock=self._clock)
        self._token = ""
        self._ends_ns = 0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        """A token that holds for two minutes at least.

        Raises:
            UnavailableError: when none could be had; nothing of the account is shown.
            UsageError: for a private key that cannot be read.
        """
        if self._is_good():
            return self._token
        async with self._lock:
            if not self._is_good():
                await self._renew()
        return self._token

    async def aclose(self) -> None:
        """Close the connections; safe to call twice."""
        await self._http.aclose()

    def _is_good(self) -> bool:
        return bool(self._token) and self._clock.monotonic_ns() < self._ends_ns

    async def _renew(self) -> None:
        began = self._clock.monotonic_ns()
        what = f"the tokens at {shown_url(self._account.token_url)}"
        body = urlencode({"grant_type": _GRANT, "assertion": self._assertion()}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        call = Call(what=what, url=self._account.token_url, headers=headers, body=body)
        answer = await self._http.fetch_json(call)
        with as_unavailable("OAuth 2.0"):
            fields = as_object(answer, "body")
            token = as_text(fields.get("access_token"), "access_token")
            lifetime = maybe_int(fields.get("expires_in"), "expires_in")
        if not token.isascii() or not token.isprintable():
            raise UnavailableError(f"{what}: the token holds characters that no header can carry.")
        self._token = token
        self._ends_ns = began + max(0, (lifetime or _LIFETIME_S) - _EARLY_S) * 1_000_000_000

    def _assertion(self) -> str:
        """The signed claim of who we are (RFC 7523, section 3)."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        now = self._clock.now()
        header = {"alg": "RS256", "typ": "JWT"} | (
            {"kid": self._account.key_id} if self._account.key_id else {}
        )
        claims = {
            "iss": self._account.email,
            "scope": _SCOPE,
            "aud": self._account.token_url,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=_LIFETIME_S)).timestamp()),
        }
        try:
            key = load_pem_private_key(self._account.private_key.reveal().encode(), password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise UsageError(
                "the private key of the service account is no RSA key in PEM.",
                hint="Take `private_key` of the key file as it is, with its line breaks.",
            )
        text = f"{_base64url(msgspec.json.encode(header))}.{_base64url(msgspec.json.encode(claims))}"
        return f"{text}.{_base64url(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class VertexOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which project and location are asked, and how.

    `api` `messages` is for Anthropic's models, `chat` for the others, whose names carry their publisher, such
    as `google/NAME`. `endpoint` replaces the public address of the location.
    """

    project: str
    location: str
    api: Literal["messages", "chat"] = "messages"
    endpoint: str = ""


class StaticToken:
    """A token that somebody else renews."""

    def __init__(self, secret: SecretLike) -> None:
        self._secret = secret

    async def token(self) -> str:
        """The token."""
        return secret_text(self._secret)


class VertexProvider:
    """One project in one location."""

    def __init__(self, options: VertexOptions, *, tokens: AccessTokens | StaticToken) -> None:
        for name, value in (("project", options.project), ("location", options.location)):
            if not value or not value.replace("-", "").replace(":", "").replace(".", "").isalnum():
                raise UsageError(f"{value[:60]!r} cannot be the {name} of Vertex AI.")
        host = "aiplatform" if options.location == "global" else f"{options.location}-aiplatform"
        base = checked_url(
            options.endpoint or f"https://{host}.googleapis.com", what="the endpoint of Vertex AI"
        )
        self._place = f"{base}/v1/projects/{options.project}/locations/{options.location}"
        self._is_chat = options.api == "chat"
        self._tokens = tokens
        self.codec = UPSTREAMS["openai.chat" if self._is_chat else "anthropic.messages"]

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """See `Provider.call`."""
        if not model or not _MODEL.fullmatch(model) or ".." in model:
            raise UsageError(f"{model[:60]!r} cannot be the name of a model.")
        if self._is_chat:
            url = f"{self._place}/endpoints/openapi/chat/completions"
            body = {**body, "model": model}
        else:
            action = ("rawPredict", "streamRawPredict")[stream]
            url = f"{self._place}/publishers/anthropic/models/{model}:{action}"
            body = {k: v for k, v in body.items() if k != "model"} | {"anthropic_version": _VERSION}
        own = {"authorization": f"Bearer {await self._tokens.token()}"}
        return Call(
            what=f"model {model!r} at {shown_url(self._place)}",
            url=url,
            headers=base_headers(headers, own),
            body=json_body(body),
        )

    def refusal(self, error: UnavailableError) -> Reply | None:
        """None: errors are errors."""
        return None


def service_account(document: Any, secret: Any) -> ServiceAccount:
    """The account of a key file (the JSON that Google hands out).

    Args:
        document: the JSON value of the file.
        secret: makes a secret of the private key's text.

    Raises:
        UsageError: for a missing field, by its name; no value is shown.
    """
    fields = as_object(document, "key file")
    return ServiceAccount(
        email=as_text(fields.get("client_email"), "key file: client_email"),
        private_key=secret(as_text(fields.get("private_key"), "key file: private_key")),
        key_id=str(fields.get("private_key_id") or ""),
        token_url=str(fields.get("token_uri") or _TOKEN_URL),
    )
