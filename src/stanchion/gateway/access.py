"""Virtual keys as the data plane and the admin plane ask about them: from memory, and alike in every refusal.

A missing, malformed, unknown, expired and revoked key get the same answer along the same steps: one keyed
hash, one look into a dictionary, one comparison. The hash hides from an attacker which entry is near.
While no key was ever made, a server on loopback serves its own machine without one; a browser's page that
reaches for it (a foreign `Host` or `Origin`) is refused, and so is what a proxy sends on for somebody else.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

import pydantic

from stanchion.core.clock import Clock
from stanchion.core.errors import StanchionError
from stanchion.files.schema import FileModel
from stanchion.gateway.actor import Actor
from stanchion.gateway.control_document import ControlKind, body_of
from stanchion.gateway.control_reader import ControlReader, Trust, Update
from stanchion.gateway.key_state import MAX_KEY_LENGTH, KeySecret, KeysState, Pepper, VirtualKey
from stanchion.gateway.ports import ApiSurface, Caller, Outcome, Refused
from stanchion.store.times import to_us

LOCAL_CALLER = Caller(key_id="local")
_DUMMY_HASH = "0" * 64
_NOBODY = VirtualKey(id="", name="", secrets=(), made_at_us=0, made_by="", revoked_at_us=0)
_NO_SECRET = KeySecret(hash=_DUMMY_HASH, made_at_us=0, ends_at_us=0)
_LONGEST_NAMES = 512  # bytes; longer ones are not ours
FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})  # what a proxy adds
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class KeyAccess:
    """Implements `ports.Access`; `is_loopback` says that the server can be reached from this machine only."""

    def __init__(
        self,
        reader: ControlReader,
        *,
        pepper: Callable[[], Pepper | None],
        clock: Clock,
        is_loopback: bool,
    ) -> None:
        self._pepper_of = pepper
        self._pepper: Pepper | None = None
        self._clock = clock
        self._is_loopback = is_loopback
        self._by_hash: dict[str, tuple[VirtualKey, KeySecret]] = {}
        self._trust = Trust.UNKNOWN
        self.trouble = "the keys are not known yet"
        reader.subscribe(ControlKind.KEYS, self._take)

    @property
    def needs_keys(self) -> bool:
        """Whether a key is asked for; only when it is certain that none was ever made, it is not."""
        return self._trust is not Trust.NONE

    async def authenticate(self, headers: Mapping[bytes, bytes], *, surface: ApiSurface) -> Caller:
        """Whose key it is."""
        caller = self.identify(headers)
        return self.for_surface(caller, surface) if caller.surfaces else caller

    def for_surface(self, caller: Caller, surface: ApiSurface) -> Caller:
        """The caller, if the key may be used for the surface.

        Raises:
            Refused: 403.
        """
        if caller.surfaces and surface.value not in caller.surfaces:
            raise Refused(
                Outcome.DENIED,
                status=403,
                code="surface_not_allowed",
                message=f"This key may not be used for {surface.value}.",
                hint="Ask for a key with this surface.",
            )
        return caller

    def identify(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose key it is, whatever it may be used for."""
        if not self.needs_keys and self._is_loopback:
            _check_local(headers)
            return LOCAL_CALLER
        return self.keyed(headers)

    def keyed(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose key it is; without one nobody's, from whichever machine."""
        key = self.key_of(presented(headers))
        return Caller(
            key_id=key.id,
            tenant=key.tenant,
            person=key.person,
            roles=key.roles,
            features=key.features,
            models=key.models,
            surfaces=key.surfaces,
        )

    def actor_of(self, token: bytes) -> Actor:
        """The person behind an admin key.

        Raises:
            Refused: 401 as in `authenticate`; 403 for a key without a role and a person.
        """
        key = self.key_of(token)
        if not key.roles or not key.person:
            raise Refused(
                Outcome.DENIED,
                status=403,
                code="no_role",
                message="This key has no role on the admin plane.",
                hint="Make one: stanchion access-keys new NAME --role operator --person PERSON",
            )
        return Actor(person=key.person, proof=f"key:{key.id}", roles=key.roles, known_to=key.holders)

    def key_of(self, token: bytes) -> VirtualKey:
        """The valid key that was presented.

        Raises:
            Refused: 401 for whatever is wrong with it, 503 while the keys are not known.
        """
        if self._trust not in (Trust.VERIFIED, Trust.NONE) or (self._by_hash and self._pepper is None):
            raise Refused(
                Outcome.DENIED,
                status=503,
                code="keys_unavailable",
                message="Keys cannot be checked at the moment.",
                hint="See `stanchion switch list` or the admin API's /status.",
                retry_after_s=1.0,
            )
        pepper = self._pepper or _EMPTY_PEPPER
        hashed = pepper.hash(token[:MAX_KEY_LENGTH])
        key, secret = self._by_hash.get(hashed, (_NOBODY, _NO_SECRET))
        is_same = hmac.compare_digest(hashed, secret.hash)
        is_valid = key.is_valid(secret, now_us=to_us(self._clock.now()))
        if not (is_same & is_valid & (len(token) <= MAX_KEY_LENGTH)):
            raise _refused()
        return key

    def _take(self, update: Update) -> None:
        self._trust = update.standing.trust
        self.trouble = update.standing.reason
        if update.standing.trust is not Trust.VERIFIED or update.document is None:
            if update.standing.trust is Trust.NONE:
                self._by_hash = {}
            return
        state = body_of(update.document, KeysState)
        try:
            pepper = self._pepper_of()
        except StanchionError as error:
            pepper, self.trouble = None, str(error)
        if pepper is None:
            self.trouble = self.trouble or f"the keys need pepper {state.pepper_id}; this host has none"
        elif state.pepper_id and pepper.id != state.pepper_id:
            self.trouble = f"the keys need pepper {state.pepper_id}; this host has {pepper.id}"
            pepper = None
        self._pepper = pepper
        self._by_hash = {secret.hash: (key, secret) for key in state.keys for secret in key.secrets}


class AccessSection(FileModel):
    """The section `access`. The keys themselves are made by people: `stanchion access-keys`."""

    keys: Literal["required", "from_first_key"] = pydantic.Field(
        default="from_first_key",
        description="`from_first_key`: on loopback nobody needs a key until the first one is made; "
        "`required`: everybody does from the start, so that it serves nobody before.",
    )


class RequiredKeys:
    """The same keys, and nobody is served without one; implements `ports.Access`."""

    needs_keys = True

    def __init__(self, access: KeyAccess) -> None:
        self._access = access

    async def authenticate(self, headers: Mapping[bytes, bytes], *, surface: ApiSurface) -> Caller:
        """Whose key it is."""
        return self._access.for_surface(self.identify(headers), surface)

    def identify(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose key it is, whatever it may be used for."""
        return self._access.keyed(headers)


def presented(headers: Mapping[bytes, bytes]) -> bytes:
    """The key in `Authorization: Bearer`, `x-api-key` or `api-key`; empty when there is none."""
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and value.strip():
        return value.strip()
    return headers.get(b"x-api-key", b"").strip() or headers.get(b"api-key", b"").strip()


def _refused() -> Refused:
    return Refused(
        Outcome.DENIED,
        status=401,
        code="invalid_api_key",
        message="The key is missing or not valid.",
        hint="Send it as `Authorization: Bearer` or `x-api-key`. Make one: stanchion access-keys new NAME",
    )


def _check_local(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what a web page in a browser here may have sent (DNS rebinding, cross-site requests)."""
    host, origin = headers.get(b"host", b""), headers.get(b"origin", b"")
    if not FORWARDED.isdisjoint(headers):
        raise Refused(
            Outcome.DENIED,
            status=403,
            code="not_local",
            message="Without keys this gateway serves its own machine only; a proxy sent this request.",
            hint="Make a key for those who come through the proxy: stanchion access-keys new NAME",
        )
    if len(host) + len(origin) <= _LONGEST_NAMES and _is_local(host, origin):
        return
    raise Refused(
        Outcome.DENIED,
        status=403,
        code="not_local",
        message="Without keys this gateway serves its own machine only.",
        hint="Use http://127.0.0.1 or http://localhost, or make a key: stanchion access-keys new NAME",
    )


@functools.lru_cache(maxsize=256)
def _is_local(host: bytes, origin: bytes) -> bool:
    """Whether this machine was asked by its own name, by a page of its own or by no page."""
    return _host_name(b"//" + host) in _LOCAL_NAMES and (not origin or _host_name(origin) in _LOCAL_NAMES)


def _host_name(address: bytes) -> str:
    try:
        return (urlsplit(address.decode("ascii")).hostname or "").lower()
    except ValueError:
        return ""


_EMPTY_PEPPER = Pepper(bytes(32))
