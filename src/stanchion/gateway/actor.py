"""Who acts on the control plane, how that is known, and what the roles may do."""

from __future__ import annotations

import unicodedata
from enum import StrEnum

import msgspec

from stanchion.core.errors import UsageError


class ActorRole(StrEnum):
    """What a key may do on the admin plane; a key without roles is for the data plane only."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    RESPONDER = "responder"
    OPERATOR = "operator"
    APPROVER = "approver"
    REVEALER = "revealer"
    ADMIN = "admin"


class Permission(StrEnum):
    """What an act on the admin plane needs."""

    READ = "read"
    READ_AUDIT = "read_audit"
    CONTAIN = "contain"  # engage a switch, end a lease: towards safety, one person
    OPERATE = "operate"  # renew a lease, ask for a lift, reload, write the prompt registry
    APPROVE = "approve"  # confirm a lift, decide about what is parked
    REVEAL = "reveal"  # read the words of what is parked, which everybody else sees masked
    ADMINISTER = "administer"  # keys, the admission list, rollouts, limits


GRANTS: dict[ActorRole, frozenset[Permission]] = {
    ActorRole.VIEWER: frozenset({Permission.READ}),
    ActorRole.AUDITOR: frozenset({Permission.READ, Permission.READ_AUDIT}),
    ActorRole.RESPONDER: frozenset({Permission.READ, Permission.CONTAIN, Permission.OPERATE}),
    ActorRole.OPERATOR: frozenset({Permission.READ, Permission.CONTAIN, Permission.OPERATE}),
    ActorRole.APPROVER: frozenset({Permission.READ, Permission.CONTAIN, Permission.APPROVE}),
    ActorRole.REVEALER: frozenset({Permission.READ, Permission.REVEAL}),
    ActorRole.ADMIN: frozenset(Permission),
}


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """A person who acts. `proof` says how the person is known: `key:ID`, or `stated` when only said so.

    `login` is the account of the operating system, where the act came by the command line. `account` is what
    one human cannot have two of without more rights: the account's number and host, or the token of the API.
    `known_to` are people, and accounts, that had the secret of the proving key in hand when it was made.
    """

    person: str
    proof: str = "stated"
    roles: tuple[str, ...] = ()
    login: str = ""
    account: str = ""
    known_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (0 < len(self.person) <= 100 and self.person.isprintable()):
            raise UsageError("a person is named by 1 to 100 printable characters.", hint="Say who: --as")

    def may(self, permission: Permission) -> bool:
        """Whether one of the roles grants it."""
        known = {role.value: granted for role, granted in GRANTS.items()}
        return any(permission in known.get(role, ()) for role in self.roles)

    @property
    def is_proved(self) -> bool:
        """Whether a key says who it is."""
        return self.proof.startswith("key:")

    @property
    def makes_known_to(self) -> tuple[str, ...]:
        """Who has the secret of a key that this person makes: whoever may act as this person, too."""
        account = () if self.is_proved or not self.account else (self.account,)
        return tuple(dict.fromkeys((self.person, *account, *self.known_to)))

    def told(self) -> dict[str, str]:
        """What the audit log keeps besides the name."""
        return {"proof": self.proof, "login": self.login, "account": self.account}


def are_one(
    one: str, other: str, *, one_known_to: tuple[str, ...] = (), other_known_to: tuple[str, ...] = ()
) -> bool:
    """Whether two names may be one human: the same name, or one who had the secret of the other's key."""
    a, b = folded(one), folded(other)
    return a == b or a in map(folded, other_known_to) or b in map(folded, one_known_to)


def folded(person: str) -> str:
    """A name as it is compared: `Ann`, ` ann` and full-width letters are one person (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", person).casefold()).strip()


def roles_with(permission: Permission) -> list[str]:
    """The roles that grant a permission."""
    return [role.value for role in ActorRole if permission in GRANTS[role]]
