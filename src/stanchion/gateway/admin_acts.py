"""What each route of the admin API does: a body and a person in, an answer out; no HTTP here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UsageError
from stanchion.gateway import admin_messages as m
from stanchion.gateway.access import KeyAccess
from stanchion.gateway.actor import Actor
from stanchion.gateway.admission import AdmissionState, write_admission
from stanchion.gateway.approval_views import REVEALED, TicketViews
from stanchion.gateway.approvals import ApprovalQueue
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.control_reader import ControlReader
from stanchion.gateway.control_store import ControlStore, Published
from stanchion.gateway.key_acts import KeyActs, KeyWish
from stanchion.gateway.key_state import VirtualKey
from stanchion.gateway.known_targets import unreached
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.prompts_registry import PromptStore
from stanchion.gateway.reloading import Reloaded
from stanchion.gateway.replicas import Replicas
from stanchion.gateway.rollout_store import RolloutStore
from stanchion.gateway.switch_acts import AUDIT_KINDS, DEFAULT_RULE, LiftRule, SwitchActs
from stanchion.gateway.switch_state import SwitchTarget
from stanchion.store.audit_log import AuditLog
from stanchion.store.times import to_us

HISTORY_KINDS = (*AUDIT_KINDS, "key.made", "key.rotated", "key.revoked", "admission.written", REVEALED)
HISTORY_ENTRIES = 200


class NotConfigured(Exception):
    """This gateway was started without the part that a route is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What the admin API acts on; a part that is None is not configured here.

    `lift_rule` says what lifting a target takes, and `troubles` what the replica of this process could not
    reach.
    """

    store: ControlStore
    switches: SwitchActs
    keys: KeyActs
    replicas: Replicas
    reader: ControlReader
    access: KeyAccess
    clock: Clock
    announce: Callable[[Published], list[str]]
    lift_rule: Callable[[SwitchTarget], LiftRule] = lambda target: DEFAULT_RULE
    troubles: Callable[[], dict[str, str]] = field(default=dict)
    blocks: BlockList | None = None
    approvals: ApprovalQueue | None = None
    views: TicketViews | None = None
    rollouts: RolloutStore | None = None
    prompts: PromptStore | None = None
    reload: Callable[[], Reloaded] | None = None


def status(parts: AdminParts, actor: Actor) -> m.StatusAnswer:
    """What this process knows, and how many replicas are live."""
    standings = [parts.reader.standing(kind) for kind in ControlKind]
    kinds = tuple(msgspec.convert(msgspec.to_builtins(each), m.KindStatus) for each in standings)
    troubles = parts.troubles()
    return m.StatusAnswer(kinds=kinds, live_replicas=len(parts.replicas.live()), troubles=dict(troubles))


def replicas(parts: AdminParts, actor: Actor) -> m.ReplicasAnswer:
    """The live replicas."""
    return m.ReplicasAnswer(replicas=tuple(parts.replicas.live()))


def history(parts: AdminParts, actor: Actor) -> m.HistoryAnswer:
    """The last acts on the control plane."""
    log = AuditLog(parts.store.database, clock=parts.clock)
    entries = log.newest(kinds=HISTORY_KINDS, limit=HISTORY_ENTRIES)
    fields = m.HistoryEntry.__struct_fields__
    rows = [m.HistoryEntry(**{name: getattr(each, name) for name in fields}) for each in entries]
    return m.HistoryAnswer(entries=tuple(rows))


# --- switches -------------------------------------------------------------------------------------------


def switches(parts: AdminParts, actor: Actor) -> m.SwitchesAnswer:
    """The switches."""
    version, state = parts.switches.state()
    return m.SwitchesAnswer(version=version, state=state)


def engage(parts: AdminParts, actor: Actor, body: m.EngageBody) -> m.ActAnswer:
    """Stop something."""
    target = SwitchTarget.parse(body.target)
    rule = parts.lift_rule(target)
    answer = _acted(
        parts,
        actor,
        body.wait_s,
        lambda: parts.switches.engage(
            target, reason=body.reason, actor=actor, rule=rule, dry_run=body.dry_run
        ),
    )
    said = unreached(target, parts.replicas.live(with_about=True))
    return answer if said is None else msgspec.structs.replace(answer, unreached=said.message)


def lift(parts: AdminParts, actor: Actor, body: m.LiftBody) -> m.ActAnswer:
    """Ask for a lift."""
    target = SwitchTarget.parse(body.target)
    rule = parts.lift_rule(target)
    return _acted(
        parts,
        actor,
        body.wait_s,
        lambda: parts.switches.lift(target, reason=body.reason, actor=actor, rule=rule, dry_run=body.dry_run),
    )


def confirm(parts: AdminParts, actor: Actor, body: m.ConfirmBody) -> m.ActAnswer:
    """Confirm a lift."""
    target = SwitchTarget.parse(body.target)
    return _acted(
        parts,
        actor,
        body.wait_s,
        lambda: parts.switches.confirm(target, actor=actor, dry_run=body.dry_run),
    )


def lease(parts: AdminParts, actor: Actor, body: m.LeaseBody) -> m.ActAnswer:
    """Grant for a time."""
    target = SwitchTarget.parse(body.target)
    return _acted(
        parts,
        actor,
        body.wait_s,
        lambda: parts.switches.lease(
            target, ttl_s=body.ttl_s, reason=body.reason, actor=actor, dry_run=body.dry_run
        ),
    )


def renew(parts: AdminParts, actor: Actor, body: m.RenewBody) -> m.ActAnswer:
    """Renew a lease."""
    target = SwitchTarget.parse(body.target)
    return _acted(
        parts,
        actor,
        body.wait_s,
        lambda: parts.switches.renew(target, actor=actor, ttl_s=body.ttl_s, dry_run=body.dry_run),
    )


def _acted(parts: AdminParts, actor: Actor, wait_s: float, act: Callable[[], Published]) -> m.ActAnswer:
    since_ns = parts.clock.monotonic_ns()
    published = act()
    heard = None
    if published.envelope is not None:
        waited = parts.replicas.wait(published.kind, published.version, timeout_s=wait_s, since_ns=since_ns)
        heard = m.Acknowledged(
            version=waited.version,
            live=waited.live,
            obeying=waited.obeying,
            after_ms=waited.after_ms,
            is_complete=waited.is_complete,
            missing=waited.missing,
        )
    answer: dict[str, Any] = msgspec.to_builtins(published.answer)
    return m.ActAnswer(
        version=published.version,
        is_changed=published.envelope is not None,
        by=actor.person,
        answer=answer,
        acknowledged=heard,
        troubles=tuple(parts.switches.troubles),
    )


# --- keys -----------------------------------------------------------------------------------------------


def keys(parts: AdminParts, actor: Actor) -> m.KeysAnswer:
    """Every key."""
    version, state = parts.keys.state()
    return m.KeysAnswer(version=version, keys=tuple(_info(parts, key) for key in state.keys))


def new_key(parts: AdminParts, actor: Actor, body: m.NewKeyBody) -> m.MadeKeyAnswer:
    """Make a key."""
    fields = {name: getattr(body, name) for name in KeyWish.__struct_fields__}
    return _made(parts, parts.keys.new(KeyWish(**fields), actor=actor, dry_run=body.dry_run))


def rotate_key(parts: AdminParts, actor: Actor, key: str, body: m.RotateBody) -> m.MadeKeyAnswer:
    """Give a key a new secret."""
    published = parts.keys.rotate(key, grace_s=body.grace_s, actor=actor, dry_run=body.dry_run)
    return _made(parts, published)


def revoke_key(parts: AdminParts, actor: Actor, key: str, body: m.RevokeBody) -> m.RevokedAnswer:
    """End a key."""
    published = parts.keys.revoke(key, reason=body.reason, actor=actor, dry_run=body.dry_run)
    return m.RevokedAnswer(
        key=_info(parts, published.answer),
        version=published.version,
        is_changed=published.envelope is not None,
    )


def _made(parts: AdminParts, published: Published) -> m.MadeKeyAnswer:
    made = published.answer
    secret = None if published.envelope is None else made.secret
    return m.MadeKeyAnswer(key=_info(parts, made.key), secret=secret, version=published.version)


def _info(parts: AdminParts, key: VirtualKey) -> m.KeyInfo:
    now_us = to_us(parts.clock.now())
    fields = {name: getattr(key, name) for name in m.KeyInfo.__struct_fields__ if name != "standing"}
    return m.KeyInfo(standing=key.standing(now_us=now_us), **fields)


# --- admission, block list, reload -------------------------------------------------------------------------


def admission(parts: AdminParts, actor: Actor) -> m.AdmissionListAnswer:
    """The list of gated sets."""
    version, state = parts.store.state(ControlKind.ADMISSION, AdmissionState)
    return m.AdmissionListAnswer(version=version, sets=state.sets)


def change_admission(parts: AdminParts, actor: Actor, body: m.AdmissionBody) -> m.AdmissionWritten:
    """Put sets on the list, or take them off."""
    published = write_admission(
        parts.store,
        add=body.add,
        remove=[(each.feature, each.components) for each in body.remove],
        actor=actor,
        announce=parts.announce,
        dry_run=body.dry_run,
    )
    return m.AdmissionWritten(
        version=published.version, count=published.answer, is_changed=published.envelope is not None
    )


def blocked(parts: AdminParts, actor: Actor) -> m.BlockedAnswer:
    """Who is blocked."""
    return m.BlockedAnswer(entries=tuple(_blocks(parts).entries()))


def block(parts: AdminParts, actor: Actor, body: m.BlockBody) -> m.BlockedAnswer:
    """Block a caller."""
    check_line(body.subject)
    check_line(body.reason)
    entry = _blocks(parts).block(body.subject, seconds=body.seconds, reason=body.reason, by=actor.person)
    return m.BlockedAnswer(entries=(entry,))


def unblock(parts: AdminParts, actor: Actor, body: m.UnblockBody) -> m.UnblockedAnswer:
    """Let a caller in again."""
    check_line(body.subject)
    check_line(body.reason)
    was = _blocks(parts).unblock(body.subject, by=actor.person, reason=body.reason)
    return m.UnblockedAnswer(was_blocked=was)


def reload(parts: AdminParts, actor: Actor) -> m.ReloadAnswer:
    """Read the configuration anew in every worker of this gateway; a broken one changes nothing."""
    if parts.reload is None:
        raise NotConfigured("reload")
    done = parts.reload()
    return m.ReloadAnswer(said=str(done), **msgspec.structs.asdict(done))


def _blocks(parts: AdminParts) -> BlockList:
    if parts.blocks is None:
        raise NotConfigured("block list")
    return parts.blocks


def check_line(text: str) -> None:
    """Raise UsageError unless a text is one printable line."""
    if not text.isprintable() or not text.strip():
        raise UsageError("a subject or reason is one printable line.")
