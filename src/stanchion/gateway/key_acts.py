"""What people do with virtual keys: make, rotate, revoke. The secret itself is in the answer, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.gateway.actor import Actor, ActorRole
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_store import Change, ControlStore, Published
from stanchion.gateway.key_state import KeySecret, KeysState, Pepper, VirtualKey, new_secret
from stanchion.gateway.ports import ApiSurface
from stanchion.store.identity import check_keyed
from stanchion.store.times import to_us

MAX_KEYS = 20_000
MAX_SECRETS = 5
MAX_HOLDERS = 100
FORGET_REVOKED_S = 90 * 24 * 3600
MAX_GRACE_S = 30 * 24 * 3600
_replace = msgspec.structs.replace


class KeyWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key is to be; `ttl_s` None: it does not expire."""

    name: str
    person: str = ""
    roles: tuple[str, ...] = ()
    tenant: str = ""
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    ttl_s: int | None = None


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key and, this one time, its secret."""

    key: VirtualKey
    secret: str


class KeyActs:
    """The acts; each is one transaction with its entry in the audit log, which never holds a secret."""

    def __init__(
        self,
        store: ControlStore,
        *,
        pepper: Callable[[], Pepper],
        clock: Clock,
        ids: Ids,
        announce: Callable[[Published], list[str]],
    ) -> None:
        self._store, self._pepper, self._clock, self._ids = store, pepper, clock, ids
        self._announce = announce
        self.troubles: list[str] = []

    def state(self) -> tuple[int, KeysState]:
        """The version and the keys that the database holds, verified."""
        return self._store.state(ControlKind.KEYS, KeysState)

    def new(self, wish: KeyWish, *, actor: Actor, dry_run: bool = False) -> Published:
        """Make a key; the answer is a MadeKey.

        Raises:
            UsageError: for a name in use, an unknown role or surface, a role without a person.
        """
        _check(wish)
        pepper, now, secret = self._pepper(), self._now(), new_secret()
        hashed = KeySecret(hash=pepper.hash(secret.encode()), made_at_us=now)
        key = VirtualKey(
            id=self._ids.new("key"),
            secrets=(hashed,),
            made_at_us=now,
            made_by=actor.person,
            known_to=actor.makes_known_to,
            expires_at_us=None if wish.ttl_s is None else now + wish.ttl_s * 1_000_000,
            **{name: getattr(wish, name) for name in wish.__struct_fields__ if name != "ttl_s"},
        )

        def act(state: KeysState, version: int) -> Change[KeysState]:
            if any(each.name == wish.name and each.revoked_at_us is None for each in state.keys):
                raise UsageError(
                    f"there is a key {wish.name!r}.",
                    hint="Rotate it (stanchion access-keys rotate), or take another name.",
                )
            if len(state.keys) >= MAX_KEYS:
                raise UsageError(f"there are {MAX_KEYS:,} keys; that is the most.")
            kept = tuple(each for each in state.keys if not _is_forgotten(each, now))
            body = _replace(self._same_pepper(state, pepper), keys=(*kept, key))
            return _change("key.made", body, key, actor, answer=MadeKey(key=key, secret=secret))

        return self._publish(act, actor, dry_run=dry_run)

    def rotate(self, name: str, *, grace_s: int, actor: Actor, dry_run: bool = False) -> Published:
        """Give a key a new secret; the old ones stay valid for the grace time. The answer is a MadeKey."""
        if not 0 <= grace_s <= MAX_GRACE_S:
            raise UsageError(f"the grace time is 0 s to {MAX_GRACE_S // 86400} days, not {grace_s} s.")
        pepper, now, secret = self._pepper(), self._now(), new_secret()
        fresh = KeySecret(hash=pepper.hash(secret.encode()), made_at_us=now)
        end = now + grace_s * 1_000_000

        def act(state: KeysState, version: int) -> Change[KeysState]:
            self._same_pepper(state, pepper)
            old = state.find(name)
            if old.revoked_at_us is not None:
                raise UsageError(
                    f"the key {name!r} is revoked.", hint="Make a new one: stanchion access-keys new NAME"
                )
            left = [each for each in old.secrets if each.ends_at_us is None or each.ends_at_us > now]
            ending = [_replace(each, ends_at_us=min(each.ends_at_us or end, end)) for each in left]
            known_to = tuple(dict.fromkeys((*old.holders, *actor.makes_known_to)))[:MAX_HOLDERS]
            key = _replace(old, secrets=(fresh, *ending[: MAX_SECRETS - 1]), known_to=known_to)
            body = _with(state, old, key)
            made = MadeKey(key=key, secret=secret)
            return _change("key.rotated", body, key, actor, answer=made, grace_s=grace_s)

        return self._publish(act, actor, dry_run=dry_run)

    def revoke(self, name: str, *, reason: str, actor: Actor, dry_run: bool = False) -> Published:
        """End a key at once; the answer is the VirtualKey. Revoking twice changes nothing."""

        def act(state: KeysState, version: int) -> Change[KeysState]:
            old = state.find(name)
            if old.revoked_at_us is not None:
                return Change(body=None, audit_kind="key.revoked", payload={}, answer=old)
            key = _replace(
                old, revoked_at_us=self._now(), revoked_by=actor.person, revoked_reason=reason, secrets=()
            )
            return _change("key.revoked", _with(state, old, key), key, actor, answer=key, reason=reason)

        return self._publish(act, actor, dry_run=dry_run)

    def _publish(
        self, act: Callable[[KeysState, int], Change[KeysState]], actor: Actor, *, dry_run: bool
    ) -> Published:
        published = self._store.publish(ControlKind.KEYS, KeysState, act, actor=actor.person, dry_run=dry_run)
        self.troubles = [] if published.envelope is None else self._announce(published)
        return published

    def _same_pepper(self, state: KeysState, pepper: Pepper) -> KeysState:
        if state.pepper_id and state.pepper_id != pepper.id:
            raise UsageError(
                f"the keys were made with pepper {state.pepper_id}, and this host has {pepper.id}.",
                hint="Copy STATE_DIR/control/key-pepper from the host where the first key was made.",
            )
        return _replace(state, pepper_id=pepper.id)

    def _now(self) -> int:
        return to_us(self._clock.now())


def _check(wish: KeyWish) -> None:
    if not (0 < len(wish.name) <= 100 and wish.name.isprintable() and wish.name == wish.name.strip()):
        raise UsageError("a key's name is 1 to 100 printable characters.")
    for role in wish.roles:
        if role not in set(ActorRole):
            raise UnknownNameError("role", role, [each.value for each in ActorRole])
    if wish.roles and not wish.person:
        raise UsageError("a key with a role is bound to a person.", hint="Say whose it is: --person ID")
    for surface in wish.surfaces:
        if surface not in set(ApiSurface):
            raise UnknownNameError("surface", surface, [each.value for each in ApiSurface])
    check_keyed("the tenant of a key", wish.tenant)
    listed = (*wish.features, *wish.models, wish.person)
    if len(listed) > 1000 or any(len(each) > 200 or not each.isprintable() for each in listed):
        raise UsageError("a feature, model or person of a key is at most 200 printable characters.")
    if wish.ttl_s is not None and not 1 <= wish.ttl_s <= 10 * 366 * 86400:
        raise UsageError(f"a key lasts 1 s to 10 years, not {wish.ttl_s} s.")


def _is_forgotten(key: VirtualKey, now_us: int) -> bool:
    """Revoked long ago: the audit log still knows it."""
    return key.revoked_at_us is not None and now_us - key.revoked_at_us > FORGET_REVOKED_S * 1_000_000


def _with(state: KeysState, old: VirtualKey, key: VirtualKey) -> KeysState:
    return _replace(state, keys=tuple(key if each is old else each for each in state.keys))


def _change(
    kind: str, body: KeysState, key: VirtualKey, actor: Actor, *, answer: Any, **more: Any
) -> Change[KeysState]:
    payload = {"key": key.id, "name": key.name, "roles": list(key.roles), **actor.told(), **more}
    return Change(body=body, audit_kind=kind, payload=payload, answer=answer)
