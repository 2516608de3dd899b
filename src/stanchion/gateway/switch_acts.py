"""What people do with switches: engage, ask for a lift, confirm it; grant, renew and end leases.

Engaging takes one person and no waiting. Lifting takes as many people as the tier says (two by default, and
nobody counts twice: neither under two spellings, nor from one account without keys that prove who is who,
nor with a key that the other one had in hand);
where one is enough, or somebody says that nobody else is there, a wait stands in for the second. Engaging
again while a lift waits drops the lift: somebody disagrees.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import UsageError
from stanchion.gateway.actor import Actor, folded
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_store import Change, ControlStore, Published
from stanchion.gateway.switch_index import lease_id
from stanchion.gateway.switch_state import (
    MAX_ENTRIES,
    Lease,
    Lift,
    Switch,
    SwitchState,
    SwitchTarget,
    checked,
    checked_reason,
)
from stanchion.store.times import from_us, to_us

AUDIT_KINDS = tuple(
    f"switch.{act}"
    for act in (
        "engaged",
        "lift_asked",
        "lift_confirmed",
        "lift_dropped",
        "lifted",
        "lease_granted",
        "lease_renewed",
    )
)
LIFT_STANDS_FOR = timedelta(hours=24)
SOLE_WAIT_S = 900  # the least that a sole operator waits
MIN_LEASE_S = 1
MAX_LEASE_S = 400 * 24 * 3600
_replace = msgspec.structs.replace


class LiftRule(msgspec.Struct, frozen=True, kw_only=True):
    """How many people lifting takes; with one, how long the wait is that stands in for the second."""

    people: int = 2
    wait_s: int = 900

    def __post_init__(self) -> None:
        if not (1 <= self.people <= 10 and 0 <= self.wait_s <= 7 * 24 * 3600):
            raise UsageError("lifting takes 1 to 10 people and a wait of at most a week.")


DEFAULT_RULE = LiftRule()


class Lifting(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a lift: done, or what it still waits for; `proofs` says how each of `by` is known."""

    target: SwitchTarget
    is_lifted: bool
    by: tuple[str, ...]
    still_needed: int
    not_before: str
    expires_at: str
    proofs: tuple[str, ...] = ()
    is_sole: bool = False


class SwitchActs:
    """The acts; each is one transaction with its entry in the audit log."""

    def __init__(
        self,
        store: ControlStore,
        *,
        clock: Clock,
        ids: Ids,
        announce: Callable[[Published], list[str]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._announce = announce
        self.troubles: list[str] = []  # ways of telling replicas that did not work in the last act

    def state(self) -> tuple[int, SwitchState]:
        """The version and the state that the database holds, verified."""
        return self._store.state(ControlKind.SWITCHES, SwitchState)

    def engage(
        self,
        target: SwitchTarget,
        *,
        reason: str,
        actor: Actor,
        rule: LiftRule = DEFAULT_RULE,
        dry_run: bool = False,
    ) -> Published:
        """Stop what the target names. The answer is the Switch; engaging what is engaged changes nothing."""
        target, reason = checked(target), checked_reason(reason)

        def act(state: SwitchState, version: int) -> Change[SwitchState]:
            state = self._without_old_lifts(state)
            found = state.find(target)
            if found is not None:
                lift = state.lift_of(found.id)
                body = None if lift is None else _without_lift(state, found.id)
                return _change("switch.lift_dropped", body, found, actor, reason=reason)
            if len(state.engaged) >= MAX_ENTRIES:
                raise UsageError(f"{MAX_ENTRIES:,} switches are engaged; that is the most.")
            switch = Switch(
                id=self._ids.new("switch"),
                target=target,
                reason=reason,
                engaged_by=actor.person,
                engaged_at_us=self._now(),
                version=version,
                people=rule.people,
                wait_s=rule.wait_s,
            )
            body = _replace(state, engaged=(*state.engaged, switch))
            return _change("switch.engaged", body, switch, actor, reason=reason)

        return self._publish(act, actor, dry_run=dry_run)

    def lift(
        self,
        target: SwitchTarget,
        *,
        reason: str,
        actor: Actor,
        rule: LiftRule = DEFAULT_RULE,
        is_sole: bool = False,
        dry_run: bool = False,
    ) -> Published:
        """Ask that a switch, or a lease's end, be lifted. The answer is a Lifting.

        What it takes is the stricter of what the tier said when the switch was engaged and says now.
        `is_sole`: nobody else is there; the same person confirms after a wait, and the record says so.

        Raises:
            UsageError: when nothing is engaged there, or a lift waits already.
        """
        target, reason = checked(target), checked_reason(reason)

        def act(state: SwitchState, version: int) -> Change[SwitchState]:
            state = self._without_old_lifts(state)
            name, needed = self._needed(state, target, rule)
            if state.lift_of(name) is not None and not is_sole:
                raise UsageError(
                    f"a lift of {target} waits already.",
                    hint=f"Confirm it: stanchion switch confirm {target}",
                )
            wait_s = needed.wait_s if needed.people == 1 else 0
            if is_sole:
                needed, wait_s = LiftRule(people=1), max(SOLE_WAIT_S, needed.wait_s)
            now = self._now()
            lift = Lift(
                switch_id=name,
                by=(actor.person,),
                reason=reason,
                asked_at_us=now,
                not_before_us=now + wait_s * 1_000_000,
                expires_at_us=now + wait_s * 1_000_000 + LIFT_STANDS_FOR // timedelta(microseconds=1),
                people=needed.people,
                proofs=(actor.proof,),
                accounts=(actor.account,),
                known_to=(actor.known_to,),
                is_sole=is_sole,
            )
            return self._advance(state, target, lift, actor, kind="switch.lift_asked")

        return self._publish(act, actor, dry_run=dry_run)

    def confirm(self, target: SwitchTarget, *, actor: Actor, dry_run: bool = False) -> Published:
        """Want a lift that waits, too. The answer is a Lifting.

        Raises:
            UsageError: when none waits, the wait is not over, or the person counted already.
        """
        target = checked(target)

        def act(state: SwitchState, version: int) -> Change[SwitchState]:
            state = self._without_old_lifts(state)
            lift = state.lift_of(_name(state, target))
            if lift is None:
                raise UsageError(
                    f"no lift of {target} waits.",
                    hint=f"Ask for it: stanchion switch lift {target} --reason ...",
                )
            if lift.people > 1 and lift.counts(actor):
                raise UsageError(
                    f"{actor.person!r} wants this lift already, or is not proved to be somebody else than "
                    f"{', '.join(lift.by)}; it takes {lift.people} people.",
                    hint="Somebody else confirms it, from another account or with an admin key bound to a "
                    "person that none of them made. Who is alone asks anew: stanchion switch lift "
                    "--sole-operator",
                )
            if lift.is_sole and folded(actor.person) != folded(lift.by[0]):
                raise UsageError(
                    f"{lift.by[0]!r} asked as the sole operator, and only the same person confirms that.",
                    hint=f"With two people: stanchion switch engage {target}, then lift and confirm.",
                )
            if self._now() < lift.not_before_us:
                raise UsageError(
                    f"the lift of {target} waits until {_shown(lift.not_before_us)}.",
                    hint="One person is enough in this tier, and the wait stands in for the second.",
                )
            if not lift.counts(actor):
                lift = _replace(
                    lift,
                    by=(*lift.by, actor.person),
                    proofs=(*lift.proofs, actor.proof),
                    accounts=(*lift.accounts, actor.account),
                    known_to=(*lift.known_to, actor.known_to),
                )
            return self._advance(state, target, lift, actor, kind="switch.lift_confirmed", is_confirmed=True)

        return self._publish(act, actor, dry_run=dry_run)

    def lease(
        self, target: SwitchTarget, *, ttl_s: int, reason: str, actor: Actor, dry_run: bool = False
    ) -> Published:
        """Make a permission that ends unless renewed; the answer is the Lease.

        Raises:
            UsageError: for a time out of range, or where a lease is.
        """
        target, reason, ttl_s = checked(target), checked_reason(reason), _checked_ttl(ttl_s)

        def act(state: SwitchState, version: int) -> Change[SwitchState]:
            if state.lease_of(target) is not None:
                raise UsageError(
                    f"there is a lease on {target}.", hint=f"Renew it: stanchion switch renew {target}"
                )
            if len(state.leases) >= MAX_ENTRIES:
                raise UsageError(f"there are {MAX_ENTRIES:,} leases; that is the most.")
            lease = Lease(
                target=target,
                ttl_s=ttl_s,
                expires_at_us=self._now() + ttl_s * 1_000_000,
                granted_by=actor.person,
                reason=reason,
                version=version,
            )
            body = _replace(state, leases=(*state.leases, lease))
            return _change("switch.lease_granted", body, lease, actor, reason=reason)

        return self._publish(act, actor, dry_run=dry_run)

    def renew(
        self, target: SwitchTarget, *, actor: Actor, ttl_s: int | None = None, dry_run: bool = False
    ) -> Published:
        """Let a lease run anew from now; the answer is the Lease.

        Raises:
            UsageError: when there is none, or it has ended: then it takes a lift.
        """
        target = checked(target)
        chosen = None if ttl_s is None else _checked_ttl(ttl_s)

        def act(state: SwitchState, version: int) -> Change[SwitchState]:
            old = _lease(state, target)
            if self._now() >= old.expires_at_us:
                raise UsageError(
                    f"the lease on {target} ended at {_shown(old.expires_at_us)}, so it is switched off.",
                    hint=f"Bring it back as any switch: stanchion switch lift {target} --reason ...",
                )
            body, lease = self._renewed(state, old, actor, version=version, ttl_s=chosen)
            return _change("switch.lease_renewed", body, lease, actor, reason=lease.reason)

        return self._publish(act, actor, dry_run=dry_run)

    # --- steps -------------------------------------------------------------------------------------------

    def _publish(
        self, act: Callable[[SwitchState, int], Change[SwitchState]], actor: Actor, *, dry_run: bool
    ) -> Published:
        published = self._store.publish(
            ControlKind.SWITCHES, SwitchState, act, actor=actor.person, dry_run=dry_run
        )
        self.troubles = [] if published.envelope is None else self._announce(published)
        return published

    def _advance(
        self,
        state: SwitchState,
        target: SwitchTarget,
        lift: Lift,
        actor: Actor,
        *,
        kind: str,
        is_confirmed: bool = False,
    ) -> Change[SwitchState]:
        """Count the people; when they are enough, the lift is done, else it waits."""
        is_done = is_confirmed and len(lift.by) >= lift.people
        answer = Lifting(
            target=target,
            is_lifted=is_done,
            by=lift.by,
            still_needed=max(0, lift.people - len(lift.by)),
            not_before=_shown(lift.not_before_us),
            expires_at=_shown(lift.expires_at_us),
            proofs=lift.proofs,
            is_sole=lift.is_sole,
        )
        state = _without_lift(state, lift.switch_id)
        if not is_done:
            body = _replace(state, lifts=(*state.lifts, lift))
        else:
            kind, body = "switch.lifted", self._lifted(state, target, lift, actor)
        payload = {
            "target": str(target),
            "by": list(lift.by),
            "proofs": list(lift.proofs),
            "sole_operator": lift.is_sole,
            "reason": lift.reason,
            **actor.told(),
        }
        return Change(body=body, audit_kind=kind, payload=payload, answer=answer)

    def _lifted(self, state: SwitchState, target: SwitchTarget, lift: Lift, actor: Actor) -> SwitchState:
        """Without the switch; or with the lease renewed if it had ended, and without it if it had not."""
        if state.by_id(lift.switch_id) is not None:
            return _replace(state, engaged=tuple(s for s in state.engaged if s.id != lift.switch_id))
        old = _lease(state, target)
        if self._now() >= old.expires_at_us:
            return self._renewed(state, old, actor, version=old.version + 1)[0]
        return _replace(state, leases=tuple(each for each in state.leases if each is not old))

    def _renewed(
        self, state: SwitchState, old: Lease, actor: Actor, *, version: int, ttl_s: int | None = None
    ) -> tuple[SwitchState, Lease]:
        ttl = old.ttl_s if ttl_s is None else ttl_s
        lease = _replace(
            old,
            ttl_s=ttl,
            expires_at_us=self._now() + ttl * 1_000_000,
            granted_by=actor.person,
            version=version,
        )
        leases = tuple(lease if each is old else each for each in state.leases)
        return _replace(state, leases=leases), lease

    def _needed(self, state: SwitchState, target: SwitchTarget, rule: LiftRule) -> tuple[str, LiftRule]:
        name = _name(state, target)
        switch = state.by_id(name)
        if switch is None:
            return name, rule
        people = max(rule.people, switch.people)
        return name, LiftRule(people=people, wait_s=max(rule.wait_s, switch.wait_s))

    def _without_old_lifts(self, state: SwitchState) -> SwitchState:
        now = self._now()
        return _replace(state, lifts=tuple(lift for lift in state.lifts if now < lift.expires_at_us))

    def _now(self) -> int:
        return to_us(self._clock.now())


def _name(state: SwitchState, target: SwitchTarget) -> str:
    """What a lift of this target is about: the engaged switch, else the lease."""
    switch = state.find(target)
    if switch is not None:
        return switch.id
    if state.lease_of(target) is not None:
        return lease_id(target)
    raise UsageError(
        f"nothing is switched off at {target}.", hint="See what is: stanchion switch list"
    ) from None


def _lease(state: SwitchState, target: SwitchTarget) -> Lease:
    found = state.lease_of(target)
    if found is None:
        raise UsageError(f"there is no lease on {target}.", hint="See what there is: stanchion switch list")
    return found


def _without_lift(state: SwitchState, switch_id: str) -> SwitchState:
    return _replace(state, lifts=tuple(lift for lift in state.lifts if lift.switch_id != switch_id))


def _change(
    kind: str, body: SwitchState | None, subject: Switch | Lease, actor: Actor, *, reason: str
) -> Change[SwitchState]:
    payload: dict[str, Any] = {"target": str(subject.target), "reason": reason, **actor.told()}
    if isinstance(subject, Switch):
        payload["switch"] = subject.id
    else:
        payload["ttl_s"] = subject.ttl_s
        payload["expires_at_us"] = subject.expires_at_us
    return Change(body=body, audit_kind=kind, payload=payload, answer=subject)


def _checked_ttl(ttl_s: int) -> int:
    if not MIN_LEASE_S <= ttl_s <= MAX_LEASE_S:
        raise UsageError(f"a lease lasts {MIN_LEASE_S} s to {MAX_LEASE_S // 86400} days, not {ttl_s} s.")
    return ttl_s


def _shown(at_us: int) -> str:
    return from_us(at_us).isoformat(timespec="seconds")
