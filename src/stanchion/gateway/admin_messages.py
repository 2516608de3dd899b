"""The bodies of the admin API; its OpenAPI document is made from these very types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from stanchion.gateway.admission import GatedSet
from stanchion.gateway.approvals import Ticket
from stanchion.gateway.penalties import Blocked
from stanchion.gateway.prompts_registry import Label
from stanchion.gateway.replicas import Replica
from stanchion.gateway.rollout_store import ExperimentState
from stanchion.gateway.switch_state import SwitchState

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=300, description="Why; one line.")]
Target = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=220,
        description="`global`, or LEVEL:NAME such as `feature:checkout`.",
        examples=["global", "feature:checkout", "tool:refund"],
    ),
]
WaitS = Annotated[float, msgspec.Meta(ge=0, le=30, description="Wait so long for all replicas to obey.")]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=34_560_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]
DryRun = Annotated[bool, msgspec.Meta(description="Say what would happen, and change nothing.")]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what is sent to the API: unknown fields are errors."""


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A stable code for machines, a message and a hint for people."""

    code: str
    message: str
    hint: str = ""


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What every refusal looks like."""

    error: ErrorDetail


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class KindStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What this process knows of one kind of control document."""

    kind: str
    trust: str
    version: int
    source: str
    reason: str
    heard_at_us: int
    is_on_disk: bool
    rejected: int
    last_rejected: str


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """This process, and the replicas that are live."""

    kinds: tuple[KindStatus, ...]
    live_replicas: int
    troubles: dict[str, str]


class SwitchesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The switches as the database holds them."""

    version: int
    state: SwitchState


class EngageBody(_Body, frozen=True):
    """Stop something."""

    target: Target
    reason: Reason
    wait_s: WaitS = 2.0
    dry_run: DryRun = False


class LiftBody(_Body, frozen=True):
    """Ask for a lift."""

    target: Target
    reason: Reason
    wait_s: WaitS = 2.0
    dry_run: DryRun = False


class ConfirmBody(_Body, frozen=True):
    """Confirm a lift."""

    target: Target
    wait_s: WaitS = 2.0
    dry_run: DryRun = False


class LeaseBody(_Body, frozen=True):
    """Grant for a time."""

    target: Target
    ttl_s: Seconds
    reason: Reason
    wait_s: WaitS = 2.0
    dry_run: DryRun = False


class RenewBody(_Body, frozen=True):
    """Renew a lease; `ttl_s` null: as long as before."""

    target: Target
    ttl_s: Seconds | None = None
    wait_s: WaitS = 2.0
    dry_run: DryRun = False


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """Who obeys, after how long."""

    version: int
    live: int
    obeying: int
    after_ms: float
    is_complete: bool
    missing: tuple[Replica, ...] = ()


class ActAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an act did. `answer` is the switch, the lease or the state of the lift.

    `unreached` says so where no replica knows the target, so that nothing is stopped by the act.
    """

    version: int
    is_changed: bool
    by: str
    answer: dict[str, Any]
    acknowledged: Acknowledged | None = None
    troubles: tuple[str, ...] = ()
    unreached: str = ""


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit log; `payload` null: erased."""

    sequence: int
    at: datetime
    kind: str
    actor: str
    payload: dict[str, Any] | None
    digest: str


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Entries about the control plane, the newest first."""

    entries: tuple[HistoryEntry, ...]


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its hashes."""

    id: str
    name: str
    standing: str
    made_at_us: int
    made_by: str
    person: str = ""
    roles: tuple[str, ...] = ()
    tenant: str = ""
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    revoked_by: str = ""
    revoked_reason: str = ""
    known_to: tuple[str, ...] = ()


class KeysAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every key."""

    version: int
    keys: tuple[KeyInfo, ...]


class NewKeyBody(_Body, frozen=True):
    """A key to be made."""

    name: Name
    person: Annotated[str, msgspec.Meta(max_length=100)] = ""
    roles: Names = ()
    tenant: Annotated[str, msgspec.Meta(max_length=100)] = ""
    features: Names = ()
    models: Names = ()
    surfaces: Names = ()
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=316_224_000)] | None = None
    dry_run: DryRun = False


class RotateBody(_Body, frozen=True):
    """A new secret; the old ones stay valid for `grace_s`."""

    grace_s: Annotated[int, msgspec.Meta(ge=0, le=2_592_000)] = 86_400
    dry_run: DryRun = False


class RevokeBody(_Body, frozen=True):
    """The end of a key."""

    reason: Reason
    dry_run: DryRun = False


class MadeKeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The key, and its secret this one time; null in a dry run."""

    key: KeyInfo
    secret: str | None
    version: int


class RevokedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The key that was revoked."""

    key: KeyInfo
    version: int
    is_changed: bool


class ReplicasAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas that are live."""

    replicas: tuple[Replica, ...]


class AdmissionListAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The list of gated component sets."""

    version: int
    sets: tuple[GatedSet, ...]


class GatedName(_Body, frozen=True):
    """One entry of the list, by its key."""

    components: str
    feature: str = ""


class AdmissionBody(_Body, frozen=True):
    """What is put on the list and taken off it."""

    add: Annotated[tuple[GatedSet, ...], msgspec.Meta(max_length=1000)] = ()
    remove: Annotated[tuple[GatedName, ...], msgspec.Meta(max_length=1000)] = ()
    dry_run: DryRun = False


class AdmissionWritten(msgspec.Struct, frozen=True, kw_only=True):
    """How many sets are on the list."""

    version: int
    count: int
    is_changed: bool


class BlockedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The block list."""

    entries: tuple[Blocked, ...]


class BlockBody(_Body, frozen=True):
    """Block a caller for a time."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    seconds: Annotated[int, msgspec.Meta(ge=1, le=31_622_400)]
    reason: Reason


class UnblockBody(_Body, frozen=True):
    """Let a caller in again."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    reason: Reason


class UnblockedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the caller was blocked."""

    was_blocked: bool


class ReloadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the reload did: in a line, and the digest that so many of the gateway's workers have.

    `needs_restart` names changed settings that are read at the start only. `elsewhere` counts live replicas
    of other gateways, which were not asked.
    """

    said: str
    configuration: str
    workers: int
    taken: int
    elsewhere: int
    needs_restart: tuple[str, ...]


class TicketsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What waits."""

    tickets: tuple[Ticket, ...]


class TicketAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One ticket, and what is to be decided on. `masked` counts what only `reveal` shows; 0: all is there."""

    ticket: Ticket
    subject: dict[str, Any]
    masked: int


class RevealBody(_Body, frozen=True):
    """Why somebody reads the words; it stays in the audit log with the name."""

    reason: Reason


class DecideBody(_Body, frozen=True):
    """A decision."""

    approve: bool
    note: Annotated[str, msgspec.Meta(max_length=300)] = ""


class DecidedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The ticket after the decision."""

    ticket: Ticket


class RolloutsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every experiment."""

    experiments: tuple[ExperimentState, ...]


class VariantBody(_Body, frozen=True):
    """A variant that is moved, and why."""

    variant: Name
    reason: Reason


class RolloutAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The experiment after the act; `is_changed` false: another act came first."""

    experiment: ExperimentState
    is_changed: bool


class PromptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a prompt, without its text."""

    name: str
    version: int
    digest: str
    is_signed: bool
    at_us: int
    added_by: str


class PromptsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Versions, and where labels point."""

    versions: tuple[PromptInfo, ...]
    labels: tuple[Label, ...]


class LabelBody(_Body, frozen=True):
    """Where a label is to point."""

    name: Name
    label: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class LabelBackBody(_Body, frozen=True):
    """A label that goes back."""

    name: Name
    label: Name


class LabelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Where the label points now."""

    label: Label
