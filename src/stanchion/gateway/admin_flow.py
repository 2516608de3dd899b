"""The routes of the admin API about what waits for people, what is rolled out, and prompts."""

from __future__ import annotations

from typing import TypeVar

from stanchion.gateway import admin_messages as m
from stanchion.gateway.actor import Actor
from stanchion.gateway.admin_acts import AdminParts, NotConfigured, check_line
from stanchion.gateway.approval_views import TicketViews
from stanchion.gateway.approvals import ApprovalQueue
from stanchion.gateway.prompts_registry import PromptStore
from stanchion.gateway.rollout_store import ExperimentState, RolloutStore

PartT = TypeVar("PartT")


def approvals(parts: AdminParts, actor: Actor) -> m.TicketsAnswer:
    """The queue of what waits for a person, the oldest first."""
    return m.TicketsAnswer(tickets=tuple(_queue(parts).tickets(status="pending")))


def approval(parts: AdminParts, actor: Actor, ticket: str) -> m.TicketAnswer:
    """One ticket with what is to be decided on; personal data and secrets are masked."""
    queue = _queue(parts)
    found, view = queue.get(ticket), _views(parts).masked(ticket)
    return m.TicketAnswer(ticket=found, subject=view.value, masked=view.masked)


def reveal(parts: AdminParts, actor: Actor, ticket: str, body: m.RevealBody) -> m.TicketAnswer:
    """One ticket with what is to be decided on, in the clear; the audit log keeps who looked, and why."""
    check_line(body.reason)
    queue = _queue(parts)
    subject = _views(parts).revealed(ticket, by=actor, reason=body.reason)
    return m.TicketAnswer(ticket=queue.get(ticket), subject=subject, masked=0)


def decide(parts: AdminParts, actor: Actor, ticket: str, body: m.DecideBody) -> m.DecidedAnswer:
    """Approve or deny, once."""
    if body.note:
        check_line(body.note)
    decided = _queue(parts).decide(ticket, approve=body.approve, by=actor, note=body.note)
    return m.DecidedAnswer(ticket=decided)


def rollouts(parts: AdminParts, actor: Actor) -> m.RolloutsAnswer:
    """How far every experiment is."""
    return m.RolloutsAnswer(experiments=tuple(_rollouts(parts).states()))


def promote(parts: AdminParts, actor: Actor, experiment: str, body: m.VariantBody) -> m.RolloutAnswer:
    """Give a variant its next weight."""
    return _moved(parts, actor, experiment, body, is_forward=True)


def roll_back(parts: AdminParts, actor: Actor, experiment: str, body: m.VariantBody) -> m.RolloutAnswer:
    """Take a variant out."""
    return _moved(parts, actor, experiment, body, is_forward=False)


def prompts(parts: AdminParts, actor: Actor) -> m.PromptsAnswer:
    """All versions of all prompts, and where their labels point."""
    store = _prompts(parts)
    infos = tuple(
        m.PromptInfo(**{name: getattr(each, name) for name in m.PromptInfo.__struct_fields__})
        for each in store.versions()
    )
    return m.PromptsAnswer(versions=infos, labels=tuple(store.labels()))


def label_prompt(parts: AdminParts, actor: Actor, body: m.LabelBody) -> m.LabelAnswer:
    """Point a label at a version."""
    store = _prompts(parts)
    return m.LabelAnswer(label=store.label(body.name, body.label, body.version, by=actor.person))


def roll_back_prompt(parts: AdminParts, actor: Actor, body: m.LabelBackBody) -> m.LabelAnswer:
    """Point a label at the version it had before."""
    return m.LabelAnswer(label=_prompts(parts).rollback(body.name, body.label, by=actor.person))


def _moved(
    parts: AdminParts, actor: Actor, experiment: str, body: m.VariantBody, *, is_forward: bool
) -> m.RolloutAnswer:
    check_line(body.reason)
    store = _rollouts(parts)
    state: ExperimentState = store.get(experiment)
    act = store.promote if is_forward else store.roll_back
    is_changed = act(state, body.variant, by=actor.person, reason=body.reason)
    return m.RolloutAnswer(experiment=store.get(experiment), is_changed=is_changed)


def _queue(parts: AdminParts) -> ApprovalQueue:
    return _there(parts.approvals, "queue of approvals")


def _views(parts: AdminParts) -> TicketViews:
    return _there(parts.views, "queue of approvals")


def _rollouts(parts: AdminParts) -> RolloutStore:
    return _there(parts.rollouts, "rollouts")


def _prompts(parts: AdminParts) -> PromptStore:
    return _there(parts.prompts, "registry of prompts")


def _there(part: PartT | None, name: str) -> PartT:
    if part is None:
        raise NotConfigured(name)
    return part


OPTIONAL = (
    approvals,
    approval,
    reveal,
    decide,
    rollouts,
    promote,
    roll_back,
    prompts,
    label_prompt,
    roll_back_prompt,
)
