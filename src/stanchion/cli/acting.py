"""What commands of the control plane share: opening it, knowing who acts, and telling who obeys."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stanchion.cli.output import note
from stanchion.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.actor import Actor, Permission
    from stanchion.gateway.control_store import Published
    from stanchion.gateway.key_state import KeysState, VirtualKey
    from stanchion.gateway.replicas import Acknowledgement

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="`sqlite:///path` or `postgresql://...`. Default: the setting `store_url`.",
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="PERSON",
        help="Who you are, an id of `org.yaml`. With an admin key (`STANCHION_ADMIN_KEY`) it says so itself. "
        "Default: your account's name.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
WaitOption = Annotated[
    float,
    typer.Option("--wait", min=0, max=600, help="Wait so many seconds for all replicas to obey."),
]
REASON_HELP = "Why; one line for the record and for those who look at the list."


@contextmanager
def admin_plane(ctx: typer.Context, url: str | None = None) -> Iterator[AdminPlane]:
    """The admin plane of this host, straight on the database; no gateway has to run."""
    from stanchion.bootstrap_control import make_admin_plane
    from stanchion.config import load_settings

    plane = make_admin_plane(load_settings(file=ctx.obj, flags={"store_url": url}))
    try:
        yield plane
    finally:
        plane.close()


def who(
    plane: AdminPlane, stated: str | None, permission: Permission, *, is_containment: bool = False
) -> Actor:
    """The person who acts.

    An admin key proves it. While nobody has one, the word of whoever may use the signing key is taken and
    recorded as only stated. Once somebody has one, only containment goes without: at 3 a.m. nobody is kept
    from stopping something by a key that lies elsewhere.

    Raises:
        UsageError: without a key where one is needed, with a wrong one, or for a person nobody knows.
    """
    from stanchion.gateway.actor import Actor, folded, roles_with

    login = pwd.getpwuid(os.getuid()).pw_name
    account = f"{os.getuid()}@{socket.gethostname()}"
    _, state = plane.keys.state()
    secret = plane.settings.admin_key
    if secret is not None:
        key = _key_of(plane, state, secret.reveal())
        actor = Actor(
            person=key.person,
            proof=f"key:{key.id}",
            roles=key.roles,
            login=login,
            account=account,
            known_to=key.holders,
        )
        if stated is not None and folded(stated) != folded(actor.person):
            raise UsageError(f"the admin key is bound to {actor.person!r}, not to {stated!r}.")
        if not actor.may(permission):
            raise UsageError(
                f"{actor.person!r} has the roles {', '.join(actor.roles)}, which do not allow this.",
                hint=f"It takes one of: {', '.join(roles_with(permission))}.",
            )
        return actor
    has_admin_keys = any(key.roles and key.revoked_at_us is None for key in state.keys)
    if has_admin_keys and not is_containment:
        raise UsageError(
            "there are admin keys, so this takes one.", hint="Set it: export STANCHION_ADMIN_KEY=stn_..."
        )
    person = folded(stated or login)
    people = plane.organisation.people
    if people is not None:
        person = next((each for each in people if folded(each) == person), person)
    if people is not None and person not in people:
        message = f"{person!r} is nobody in org.yaml."
        hint = f"{did_you_mean(person, people)} Say who you are: --as PERSON"
        if not is_containment:
            raise UsageError(message, hint=hint)
        note(f"note: {message}")
    return Actor(person=person, proof="stated", login=login, account=account)


def check_sole(plane: AdminPlane) -> None:
    """Whether somebody may act as the only operator: not where others are known.

    Raises:
        UsageError: when the admin keys of two people count as two, or org.yaml names two.
    """
    from itertools import combinations

    from stanchion.gateway.actor import are_one

    _, state = plane.keys.state()
    keys = [key for key in state.keys if key.roles and key.revoked_at_us is None]
    are_two = any(
        not are_one(a.person, b.person, one_known_to=a.holders, other_known_to=b.holders)
        for a, b in combinations(keys[:1000], 2)
    )
    if are_two or len(plane.organisation.people or ()) > 1:
        raise UsageError(
            "there is more than one operator here, so nobody acts as the only one.",
            hint="Let another person confirm, with an admin key: stanchion access-keys new --help",
        )


def tell_acknowledged(
    plane: AdminPlane, published: Published, *, since_ns: int, wait_s: float
) -> Acknowledgement | None:
    """Wait for the replicas; None when nothing was published."""
    if published.envelope is None:
        return None
    return plane.replicas.wait(published.kind, published.version, timeout_s=wait_s, since_ns=since_ns)


def show_acknowledged(heard: Acknowledgement | None, troubles: list[str]) -> None:
    """The lines about who obeys, and about ways of telling them that did not work."""
    if heard is not None:
        typer.echo(f"  obeyed   {heard}")
        for replica in heard.missing:
            kind = heard.kind.value
            at = replica.versions.get(kind, -1)
            state = replica.trust.get(kind, "unknown")
            typer.secho(f"  NOT YET  {replica.host} pid {replica.pid}: at v{at} ({state})", fg="red")
    for trouble in troubles:
        typer.secho(f"  trouble  {trouble}; the poll of the database stands in", fg="yellow")


def told(heard: Acknowledgement | None) -> dict[str, Any] | None:
    """The same for JSON."""
    if heard is None:
        return None
    return {**msgspec.to_builtins(heard), "is_complete": heard.is_complete}


def parse_seconds(text: str) -> int:
    """`30m`, `2h`, `7d` or `45s` in seconds.

    Raises:
        UsageError: for anything else.
    """
    from stanchion.evals.criteria import parse_duration

    try:
        parsed: timedelta = parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return int(parsed / timedelta(seconds=1))


def keyed_tenant(plane: AdminPlane, name: str) -> str:
    """The keyed id of a tenant; one that is keyed already stays."""
    from stanchion.bootstrap_secrets import id_keys_of
    from stanchion.store.identity import is_keyed

    if not name or is_keyed("tenant", name):
        return name
    return id_keys_of(plane.settings).key("tenant", name)


def _key_of(plane: AdminPlane, state: KeysState, secret: str) -> VirtualKey:
    from stanchion.bootstrap_control import pepper_of
    from stanchion.gateway.key_state import MAX_KEY_LENGTH
    from stanchion.store.times import to_us

    pepper = pepper_of(plane.settings, create=False)
    now_us = to_us(plane.clock.now())
    hashed = "" if pepper is None else pepper.hash(secret.encode()[:MAX_KEY_LENGTH])
    for key in state.keys:
        for each in key.secrets:
            if each.hash == hashed and key.is_valid(each, now_us=now_us) and key.roles and key.person:
                return key
    raise UsageError(
        "the admin key is not valid, or has no role.",
        hint="See the keys: stanchion access-keys list --all",
    )
