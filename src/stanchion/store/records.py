"""Interaction records: what is kept of an exchange: ids, digests, decisions, counts; never its text."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from stanchion.core.components import ComponentSet
from stanchion.core.decision import CheckRecord, Decision, Effect, strictest
from stanchion.core.errors import UsageError
from stanchion.core.finding import Finding
from stanchion.core.interaction import FinishReason, Interaction, Usage
from stanchion.store.identity import IdKeys, check_keyed, check_plain, is_plain

NO_TEXT = "no text was kept"


class Traffic(StrEnum):
    """Whose traffic it was: only `live` counts in indicators of production."""

    LIVE = "live"
    SENTINEL = "sentinel"
    DRILL = "drill"
    SHADOW = "shadow"


class InteractionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange without its words.

    `tenant_key` and `subject_key` are keyed ids. Free text inside decisions (the reasons) is dropped on the
    way in; rule ids, categories and offsets explain them. `replay_note` says why there can be no replay.

    Raises:
        UsageError: for a field that does not have the form of an id, or a time without a zone.
    """

    id: str
    at: datetime
    environment: str = "dev"
    feature: str = ""
    traffic: Traffic = Traffic.LIVE
    session_id: str = ""
    tenant_key: str = ""
    subject_key: str = ""
    model: str = ""
    components: ComponentSet = ComponentSet()
    decisions: tuple[Decision, ...] = ()
    finish_reason: FinishReason = FinishReason.UNKNOWN
    usage: Usage = Usage()
    latency_ms: float | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    is_replayable: bool = False
    replay_note: str = NO_TEXT

    def __post_init__(self) -> None:
        if not self.id:
            raise UsageError("an interaction record needs an id.")
        if self.at.tzinfo is None:
            raise UsageError(f"interaction {self.id}: its time has no time zone.", hint="Use UTC.")
        check_plain("id", self.id)
        check_names(self.environment, self.feature, self.model)
        check_people(self.session_id, self.tenant_key, self.subject_key)
        for name, value in self.labels.items():
            _check_label(name, value)

    @property
    def effect(self) -> Effect:
        """The strictest effect that was acted on."""
        found = Effect.ALLOW
        for decision in self.decisions:
            if decision.effect is not Effect.ALLOW:
                found = strictest(found, decision.enforced_effect)
        return found

    @property
    def is_protected(self) -> bool:
        """Whether a policy decided, and on every surface that was looked at."""
        for decision in self.decisions:
            if not decision.is_protected:
                return False
        return bool(self.decisions)

    @property
    def categories(self) -> dict[str, int]:
        """How many findings of each category, by name."""
        found: dict[str, int] = {}
        for decision in self.decisions:
            for finding in decision.findings:
                found[finding.category] = found.get(finding.category, 0) + 1
        return dict(sorted(found.items())) if found else found

    @property
    def guard_ms(self) -> float | None:
        """Time spent in guards; None when nothing was checked."""
        return sum([decision.elapsed_ms for decision in self.decisions]) if self.decisions else None


# What was looked at once is not looked at again: a gateway sees few of these, in every record.


@lru_cache(maxsize=256)
def check_names(environment: str, feature: str, model: str) -> None:
    """Raise UsageError unless all of them have the form of an id."""
    check_plain("environment", environment)
    check_plain("feature", feature)
    check_plain("model", model)


@lru_cache(maxsize=1024)
def check_people(session_id: str, tenant_key: str, subject_key: str) -> None:
    """Raise UsageError unless the session has the form of an id, and the others are keyed ids."""
    check_plain("session_id", session_id)
    check_keyed("tenant_key", tenant_key)
    check_keyed("subject_key", subject_key)


@lru_cache(maxsize=256)
def _check_label(name: str, value: str) -> None:
    check_plain("the name of a label", name)
    check_plain(f"label {name}", value)


def record_of(
    interaction: Interaction,
    *,
    keys: IdKeys,
    subject: str = "",
    traffic: Traffic = Traffic.LIVE,
    label_names: Collection[str] = (),
) -> InteractionRecord:
    """The record of an interaction.

    `subject` is the outside id of the person; it and the tenant are keyed here, and so is a session id that
    does not have the form of an id. Of the labels, those in `label_names` are kept; others may hold anything.

    Raises:
        UsageError: for an interaction without id or time, or a kept label that is free text.
    """
    if interaction.at is None:
        raise UsageError(f"interaction {interaction.id!r} has no time, so it cannot be recorded.")
    session, reply = interaction.session_id, interaction.reply
    decisions = () if reply is None else reply.decisions
    return InteractionRecord(
        id=interaction.id,
        at=interaction.at,
        environment=interaction.environment,
        feature=interaction.feature,
        traffic=traffic,
        session_id=session if is_plain(session) else keys.key("session", session),
        tenant_key=keys.key("tenant", interaction.tenant),
        subject_key=keys.key("subject", subject),
        model=interaction.model if reply is None else reply.model or interaction.model,
        components=interaction.components,
        decisions=tuple(without_words(decision) for decision in decisions),
        finish_reason=FinishReason.UNKNOWN if reply is None else reply.finish_reason,
        usage=Usage() if reply is None else reply.usage,
        latency_ms=None if reply is None else reply.latency_ms,
        labels={name: value for name, value in interaction.labels.items() if name in label_names},
    )


def without_words(decision: Decision) -> Decision:
    """A decision without free text: reasons go, and names of fields that a model may have chosen."""
    has_reason = False
    for check in decision.checks:
        if check.reason:
            has_reason = True
            break
    if not has_reason and not decision.findings:
        return msgspec.structs.replace(decision, reason="") if decision.reason else decision
    return msgspec.structs.replace(
        decision,
        reason="",
        findings=tuple(finding_without_words(finding) for finding in decision.findings),
        checks=tuple([_check_without_words(check) for check in decision.checks]),
    )


def finding_without_words(finding: Finding) -> Finding:
    """A finding without its reason, and without the name of a field that a model may have chosen."""
    location = finding.location
    if location.field and not is_plain(location.field.replace("[", ".").replace("]", ".")):
        location = msgspec.structs.replace(location, field="")
    return msgspec.structs.replace(finding, reason="", location=location)


def _check_without_words(check: CheckRecord) -> CheckRecord:
    return msgspec.structs.replace(check, reason="") if check.reason else check
