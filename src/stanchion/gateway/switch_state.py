"""The body of the switches' document: what is engaged, what is only lent, and which lifts wait."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.gateway.actor import Actor, are_one

MAX_ENTRIES = 5000
MAX_NAME = 200
MAX_REASON = 300


class SwitchLevel(StrEnum):
    """What a switch stops, the broadest first; that is the order in which they are looked up."""

    GLOBAL = "global"
    TENANT = "tenant"
    FEATURE = "feature"
    MODEL = "model"
    PROVIDER = "provider"
    GUARD_VERSION = "guard_version"
    PROMPT_VERSION = "prompt_version"
    TOOL = "tool"


class SwitchTarget(msgspec.Struct, frozen=True, order=True):
    """What a switch or a lease is about. `name` is empty for the global level and only there.

    A prompt is named `name@version`, or `name` for all its versions; a tenant by its keyed id, a guard
    version by the policy's digest.
    """

    level: SwitchLevel
    name: str = ""

    def __str__(self) -> str:
        return self.level.value if self.level is SwitchLevel.GLOBAL else f"{self.level.value}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> SwitchTarget:
        """The target that a person writes as `global` or `feature:checkout`.

        Raises:
            UsageError: for an unknown level, or a name that is missing, too long or not printable.
        """
        level_text, _, name = text.strip().partition(":")
        try:
            level = SwitchLevel(level_text.replace("-", "_"))
        except ValueError:
            names = [each.value for each in SwitchLevel]
            raise UnknownNameError("switch level", level_text, names) from None
        return checked(cls(level, name))


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engaged switch. `people` and `wait_s` are what lifting it took when it was engaged."""

    id: str
    target: SwitchTarget
    reason: str
    engaged_by: str
    engaged_at_us: int
    version: int
    people: int
    wait_s: int


class Lease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A permission that ends unless renewed; when it has ended, its target counts as switched off."""

    target: SwitchTarget
    ttl_s: int
    expires_at_us: int
    granted_by: str
    reason: str
    version: int


class Lift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lift that was asked for and waits. `people` says how many have to want it, `by` who does so far.

    `proofs`, `accounts` and `known_to` say of each of them how the person is known, and who else had the key
    in hand. `is_sole`: somebody who is alone asked, and a wait stands in for the others.
    """

    switch_id: str
    by: tuple[str, ...]
    reason: str
    asked_at_us: int
    not_before_us: int
    expires_at_us: int
    people: int
    proofs: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    is_sole: bool = False
    known_to: tuple[tuple[str, ...], ...] = ()

    def counts(self, actor: Actor) -> bool:
        """Whether somebody counts already.

        By name; as one who had the other's key in hand; by account where not both are proved by keys.
        """
        for number, person in enumerate(self.by):
            proof = self.proofs[number] if number < len(self.proofs) else ""
            account = self.accounts[number] if number < len(self.accounts) else ""
            known_to = self.known_to[number] if number < len(self.known_to) else ()
            are_proved = actor.is_proved and proof.startswith("key:")
            if are_one(person, actor.person, one_known_to=known_to, other_known_to=actor.known_to):
                return True
            if not are_proved and account in ("", actor.account, *actor.known_to):
                return True
            if not are_proved and actor.account in known_to:
                return True
        return False


class SwitchState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that the switches' document says."""

    engaged: tuple[Switch, ...] = ()
    leases: tuple[Lease, ...] = ()
    lifts: tuple[Lift, ...] = ()

    def find(self, target: SwitchTarget) -> Switch | None:
        """The engaged switch on exactly this target."""
        return next((switch for switch in self.engaged if switch.target == target), None)

    def by_id(self, switch_id: str) -> Switch | None:
        """The engaged switch with this id."""
        return next((switch for switch in self.engaged if switch.id == switch_id), None)

    def lift_of(self, switch_id: str) -> Lift | None:
        """The lift of a switch that waits."""
        return next((lift for lift in self.lifts if lift.switch_id == switch_id), None)

    def lease_of(self, target: SwitchTarget) -> Lease | None:
        """The lease on exactly this target."""
        return next((lease for lease in self.leases if lease.target == target), None)


def checked(target: SwitchTarget) -> SwitchTarget:
    """The target itself.

    Raises:
        UsageError: for a name that is missing, too long, not printable, or given for the global level.
    """
    name = target.name
    if target.level is SwitchLevel.GLOBAL:
        if name:
            raise UsageError("the global switch has no name.", hint="Write just: global")
        return target
    if not name or len(name) > MAX_NAME or not name.isprintable() or name != name.strip():
        raise UsageError(
            f"the switch level {target.level.value!r} needs a printable name of 1 to {MAX_NAME} characters.",
            hint=f"Write it as {target.level.value}:NAME.",
        )
    return target


def checked_reason(text: str) -> str:
    """A reason for the record.

    Raises:
        UsageError: when it is empty, too long or more than one line.
    """
    text = text.strip()
    if not text or len(text) > MAX_REASON or not text.isprintable():
        raise UsageError(f"a reason is one line of 1 to {MAX_REASON} characters.", hint="Say why: --reason")
    return text
