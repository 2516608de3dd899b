"""Plugs the control plane together: the admin side with its signing key, and the side that only obeys.

What `org.yaml` says about switches and admission is read here and passed down, because the gateway stands
below governance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from stanchion.core.clock import Clock, Ids, SortableIds, SystemClock
from stanchion.core.errors import StanchionError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from starlette.applications import Starlette

    from stanchion.config import Settings
    from stanchion.gateway.access import KeyAccess
    from stanchion.gateway.admission import AdmissionList, AdmissionRules, Ungated
    from stanchion.gateway.approval_views import TicketViews
    from stanchion.gateway.approvals import ApprovalQueue
    from stanchion.gateway.control_announce import Way
    from stanchion.gateway.control_reader import ControlReader
    from stanchion.gateway.control_store import ControlStore, Published
    from stanchion.gateway.control_watch import ControlWatch
    from stanchion.gateway.key_acts import KeyActs
    from stanchion.gateway.key_state import Pepper
    from stanchion.gateway.reloading import Reloaded
    from stanchion.gateway.replicas import Replicas
    from stanchion.gateway.switch_acts import LiftRule, SwitchActs
    from stanchion.gateway.switch_state import SwitchTarget
    from stanchion.gateway.switches import SwitchBoard
    from stanchion.gateway.upstream_secrets import UpstreamSecrets
    from stanchion.governance.folder import SafetyFolder
    from stanchion.governance.organisation import Tier
    from stanchion.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """What the safety folder at `path` says about operation. `note` tells what could not be read."""

    path: Path | None = None
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)
    people: frozenset[str] | None = None
    note: str = ""

    def lift_rule(self, target: SwitchTarget) -> LiftRule:
        """What lifting takes: a feature's tier, or for anything broader the strictest tier there is."""
        from stanchion.gateway.switch_acts import DEFAULT_RULE, LiftRule
        from stanchion.gateway.switch_state import SwitchLevel

        named = self.features.get(target.name, "") if target.level is SwitchLevel.FEATURE else ""
        tiers = [self.tiers[named]] if named in self.tiers else list(self.tiers.values())
        if not tiers or self.note:
            return DEFAULT_RULE
        wait = max(tier.lift_wait for tier in tiers)
        return LiftRule(
            people=max(tier.lift_people for tier in tiers), wait_s=int(wait / timedelta(seconds=1))
        )

    def ungated(self) -> dict[str, Ungated]:
        """What the gateway does with ungated component sets, by feature.

        Raises:
            UsageError: when the safety folder cannot be read: then nobody knows.
        """
        from stanchion.core.errors import UsageError
        from stanchion.gateway.admission import Ungated

        if self.note:
            raise UsageError(
                "what becomes of component sets that passed no gate is not known: " + self.note,
                hint="See what is wrong: stanchion check",
            )
        if not self.features:
            return {}
        from stanchion.governance.organisation import Tier

        return {
            feature: Ungated(self.tiers.get(tier, Tier()).ungated) for feature, tier in self.features.items()
        }


def read_organisation(settings: Settings) -> Organisation:
    """The safety folder's word; never raises, because nobody is kept from a switch by a broken file."""
    if not settings.safety_folder.exists():
        return Organisation()
    from stanchion.config import process_environment
    from stanchion.governance.folder import find_safety_folder, read_cases

    try:
        path = find_safety_folder(settings.safety_folder)
        folder = read_cases(path, env=process_environment())
    except (StanchionError, OSError) as error:
        return Organisation(note=f"the safety folder cannot be read, so the default holds: {error}")
    if folder.organisation is None:
        return Organisation(note=f"org.yaml cannot be read, so the default holds: {_first(folder)}")
    org = folder.organisation.value
    unread = sorted(each.name for each in folder.features if each.case is None)
    return Organisation(
        path=path,
        tiers=org.tiers,
        features={each.name: str(each.case.value.tier) for each in folder.features if each.case is not None},
        people=frozenset(org.people),
        note=f"the case of {', '.join(unread)} cannot be read: {_first(folder)}" if unread else "",
    )


def _first(folder: SafetyFolder) -> str:
    return folder.problems[0].render() if folder.problems else "it is empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPlane:
    """What decides: the store with the signing key, the acts, and who obeys."""

    settings: Settings
    database: Database
    store: ControlStore
    switches: SwitchActs
    keys: KeyActs
    replicas: Replicas
    announce: Callable[[Published], list[str]]
    clock: Clock
    ids: Ids
    organisation: Organisation

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def make_admin_plane(
    settings: Settings,
    *,
    reader: ControlReader | None = None,
    database: Database | None = None,
    clock: Clock | None = None,
    creates_key: bool = True,
) -> AdminPlane:
    """The admin plane of this host; `reader` is the replica in the same process, where there is one.

    Raises:
        UnavailableError: when the database does not answer.
        UsageError: when a key file cannot be used.
    """
    from stanchion.gateway.control_announce import InProcess, RedisWay, ThisHost, announcer
    from stanchion.gateway.control_disk import ControlDisk
    from stanchion.gateway.control_store import ControlStore
    from stanchion.gateway.key_acts import KeyActs
    from stanchion.gateway.replicas import Replicas
    from stanchion.gateway.switch_acts import SwitchActs
    from stanchion.store.database import open_database

    the_clock = clock or SystemClock()
    ids = SortableIds(the_clock)
    opened = database or open_database(settings.store_url.reveal())
    disk = ControlDisk(settings.state_dir)
    store = ControlStore(
        opened,
        clock=the_clock,
        trusted=lambda: trusted_of(settings),
        key=lambda: signing_key_of(settings, create=creates_key),
        disk=disk,
    )
    ways: list[Way] = [] if reader is None else [InProcess(reader)]
    ways.append(ThisHost(disk, clock=the_clock))
    if settings.redis_url is not None:
        ways.append(RedisWay(settings.redis_url.reveal()))
    announce = announcer(ways)
    return AdminPlane(
        settings=settings,
        database=opened,
        store=store,
        switches=SwitchActs(store, clock=the_clock, ids=ids, announce=announce),
        keys=KeyActs(store, pepper=lambda: _pepper(settings), clock=the_clock, ids=ids, announce=announce),
        replicas=Replicas(opened, clock=the_clock),
        announce=announce,
        clock=the_clock,
        ids=ids,
        organisation=read_organisation(settings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlane:
    """What obeys. Call `watch.start()` before requests are served and `watch.stop()` at the end."""

    reader: ControlReader
    switches: SwitchBoard
    access: KeyAccess
    admission: AdmissionList
    watch: ControlWatch


def make_replica_plane(
    settings: Settings,
    *,
    is_loopback: bool,
    has_database: bool = True,
    clock: Clock | None = None,
) -> ReplicaPlane:
    """The obeying side of one process. It needs no signing key, and starts while the database is away.

    `has_database` False: this host has none, and the file in the state directory is the authority.
    """
    from stanchion.gateway.access import KeyAccess
    from stanchion.gateway.admission import AdmissionList
    from stanchion.gateway.control_disk import ControlDisk
    from stanchion.gateway.control_reader import ControlReader
    from stanchion.gateway.control_store import ControlStore
    from stanchion.gateway.control_watch import ControlWatch, WatchSources
    from stanchion.gateway.switches import SwitchBoard
    from stanchion.store.database import open_database

    the_clock = clock or SystemClock()

    def trusted() -> dict[str, Ed25519PublicKey]:
        return trusted_of(settings)

    def connect() -> ControlStore:
        return ControlStore(open_database(url), clock=the_clock, trusted=trusted)

    url = settings.store_url.reveal()
    disk = ControlDisk(settings.state_dir)
    reader = ControlReader(disk, trusted=trusted, clock=the_clock, has_database=has_database)
    board = SwitchBoard(reader, clock=the_clock)
    access = KeyAccess(
        reader,
        pepper=lambda: pepper_of(settings, create=False),
        clock=the_clock,
        is_loopback=is_loopback,
    )
    admission = AdmissionList(reader, clock=the_clock)
    sources = WatchSources(
        connect=connect if has_database else None,
        postgres_url=url if has_database and url.startswith("postgres") else "",
        redis_url="" if settings.redis_url is None else settings.redis_url.reveal(),
    )
    watch = ControlWatch(reader, board, sources, clock=the_clock, ids=SortableIds(the_clock))
    return ReplicaPlane(reader=reader, switches=board, access=access, admission=admission, watch=watch)


def make_admission(
    settings: Settings,
    gated: AdmissionList,
    *,
    at_least: Ungated,
    flag: Callable[[], Ungated] | None = None,
) -> AdmissionRules:
    """What becomes of ungated component sets: each feature's tier as `org.yaml` says now, or stricter.

    Raises:
        UsageError: when the safety folder cannot be read.
    """
    from stanchion.gateway.admission import AdmissionRules

    tiers = read_organisation(settings).ungated()
    return AdmissionRules(gated, tiers=tiers, at_least=at_least, flag=flag)


def make_admin_api(
    settings: Settings,
    plane: AdminPlane,
    replica: ReplicaPlane,
    *,
    approvals: ApprovalQueue | None = None,
    views: TicketViews | None = None,
    reload: Callable[[], Reloaded] | None = None,
) -> Starlette:
    """The admin API of a process that also obeys.

    `approvals` is the queue of the same gateway, `views` how people look at it.

    Raises:
        UsageError: when the token's file can be read by others.
    """
    from stanchion.gateway.admin_acts import AdminParts
    from stanchion.gateway.admin_app import load_token, make_admin_app
    from stanchion.gateway.penalties import BlockList
    from stanchion.gateway.prompts_registry import PromptStore
    from stanchion.gateway.rollout_store import RolloutStore

    parts = AdminParts(
        store=plane.store,
        switches=plane.switches,
        keys=plane.keys,
        replicas=plane.replicas,
        reader=replica.reader,
        access=replica.access,
        clock=plane.clock,
        announce=plane.announce,
        lift_rule=plane.organisation.lift_rule,
        troubles=lambda: dict(replica.watch.troubles),
        blocks=BlockList(plane.database, clock=plane.clock),
        approvals=approvals,
        views=views,
        rollouts=RolloutStore(plane.database, clock=plane.clock),
        prompts=PromptStore(plane.database, clock=plane.clock),
        reload=reload,
    )
    return make_admin_app(parts, token=load_token(settings.state_dir))


def make_upstream_secrets(settings: Settings, *, renew_s: float | None = None) -> UpstreamSecrets:
    """What reads and renews the secrets of upstreams; Vault is asked on the first reference to it."""
    from stanchion.gateway.upstream_secrets import RENEW_S, UpstreamSecrets, VaultSettings, VaultSource

    def vault() -> VaultSource:
        return VaultSource(
            VaultSettings(
                address=settings.vault_addr,
                token=settings.vault_token,
                token_file=settings.vault_token_file,
                namespace=settings.vault_namespace,
            )
        )

    return UpstreamSecrets(vault=vault, renew_s=renew_s or RENEW_S)


def trusted_of(settings: Settings) -> dict[str, Ed25519PublicKey]:
    """The public keys that this host trusts: a fleet's folder pins them, and nothing else counts then."""
    from stanchion.gateway.control_keys import trusted_folder, trusted_keys

    if settings.fleet_dir is not None:
        return trusted_keys((settings.fleet_dir,))
    return trusted_keys((trusted_folder(settings.state_dir),))


def signing_key_of(settings: Settings, *, create: bool = True) -> Ed25519PrivateKey:
    """The private key of this host's admin plane; in a fleet only one whose public key all replicas trust.

    Raises:
        UsageError: when there is none, or the fleet does not trust it: signing would stop every replica.
    """
    from stanchion.core.errors import UsageError
    from stanchion.core.signatures import key_id
    from stanchion.gateway.control_keys import load_signing_key

    if settings.fleet_dir is None:
        return load_signing_key(settings.state_dir, create=create)
    key = load_signing_key(settings.state_dir, create=False)
    if key_id(key.public_key()) not in trusted_of(settings):
        raise UsageError(
            f"the fleet in {settings.fleet_dir} does not trust this host's signing key.",
            hint="Act where its admin plane runs, or export the key: stanchion switch keys --export FOLDER",
        )
    return key


def pepper_of(settings: Settings, *, create: bool) -> Pepper | None:
    """The pepper of virtual keys: the fleet's, else this host's own, made when wanted.

    Raises:
        UsageError: when it cannot be read, or others can read it.
    """
    from stanchion.gateway.fleet_keys import fleet_pepper
    from stanchion.gateway.key_state import load_pepper

    if settings.fleet_dir is not None:
        return fleet_pepper(settings.fleet_dir)
    return load_pepper(settings.state_dir, create=create)


def _pepper(settings: Settings) -> Pepper:
    pepper = pepper_of(settings, create=True)
    assert pepper is not None  # noqa: S101 - made when it was not there
    return pepper
