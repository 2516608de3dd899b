"""Links between the files of a feature: every id that one file names must exist in another."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import msgspec

from stanchion.core.errors import Problem, did_you_mean
from stanchion.files.document import Step
from stanchion.files.schema import Loaded
from stanchion.governance.case import Citation
from stanchion.governance.catalogues import citation_fault
from stanchion.governance.folder import Feature
from stanchion.governance.organisation import OrganisationFile, RiskMatrix

At = tuple[Step, ...]


def organisation_problems(loaded: Loaded[OrganisationFile]) -> Iterator[Problem]:
    """People, roles and tiers that `org.yaml` names and does not have, and roles that must stay apart."""
    org = loaded.value
    for name, role in org.roles.items():
        yield from _unknown(loaded, ("roles", name, "people"), "person", role.people, known=org.people)
    for index, separation in enumerate(org.separation):
        at: At = ("separation", index, "roles")
        yield from _unknown(loaded, at, "role", separation.roles, known=org.roles)
        holders = [set(org.roles[role].people) for role in separation.roles if role in org.roles]
        both = set.intersection(*holders) if len(holders) > 1 else set()
        for person in sorted(both):
            message = f"{person!r} holds roles that must be apart: {', '.join(separation.roles)}."
            yield loaded.document.problem(at, rule="separation", message=message, hint="Give one to another.")
    for decision, roles in org.decisions.items():
        yield from _unknown(loaded, ("decisions", decision), "role", roles, known=org.roles)
    for name, tier in org.tiers.items():
        yield from _unknown(loaded, ("tiers", name, "approvals"), "role", tier.approvals, known=org.roles)
        if name not in ("0", "1", "2", "3"):
            line, column = loaded.document.key_position(("tiers", name))
            yield Problem(
                file=loaded.document.file,
                line=line,
                column=column,
                rule="unknown-tier",
                message=f"unknown tier {name!r}.",
                hint="Tiers go from 0 to 3.",
            )


def feature_problems(
    feature: Feature, organisation: Loaded[OrganisationFile] | None, *, today: date
) -> Iterator[Problem]:
    """Everything that one feature's files say of each other and of `org.yaml` and that does not hold."""
    yield from _name_problems(feature)
    yield from _duplicates(feature)
    yield from _node_links(feature)
    yield from _threat_links(feature)
    yield from _claim_links(feature)
    yield from _runbook_links(feature)
    yield from _citations(feature)
    yield from _reviews(feature, today)
    matrix = RiskMatrix()
    if organisation is not None:
        matrix = organisation.value.risk_matrix
        yield from _owners(feature, organisation.value)
    yield from _coverage(feature, matrix)


def _unknown(
    loaded: Loaded[Any], at: At, kind: str, names: Iterable[str], *, known: Collection[str]
) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in known:
            yield _unknown_one(loaded, (*at, index), kind, name, known=known)


def _unknown_one(loaded: Loaded[Any], at: At, kind: str, name: str, *, known: Collection[str]) -> Problem:
    return loaded.document.problem(
        at,
        rule=f"unknown-{'-'.join(re.findall('[a-z]+', kind))}",
        message=f"unknown {kind} {name!r}.",
        hint=did_you_mean(name, known) if known else f"There is no {kind} yet.",
    )


def _warning(loaded: Loaded[Any], at: At, *, rule: str, message: str, hint: str) -> Problem:
    problem = loaded.document.problem(at, rule=rule, message=message, hint=hint)
    return msgspec.structs.replace(problem, severity="warning")


def _ids(loaded: Loaded[Any] | None, key: str) -> list[str]:
    return [] if loaded is None else [item.id for item in getattr(loaded.value, key)]


def _lists(feature: Feature) -> Iterator[tuple[Loaded[Any], str, str]]:
    """Each file that is a list of nodes: the file, the key of the list, what an item is."""
    for loaded, key, noun in (
        (feature.components, "components", "component"),
        (feature.risks, "risks", "risk"),
        (feature.controls, "controls", "control"),
        (feature.evals, "evals", "eval"),
        (feature.monitors, "monitors", "monitor"),
        (feature.threats, "threats", "threat"),
    ):
        if loaded is not None:
            yield loaded, key, noun


def _name_problems(feature: Feature) -> Iterator[Problem]:
    if feature.case is not None and feature.case.value.feature != feature.name:
        yield feature.case.document.problem(
            ("feature",),
            rule="feature-name",
            message=f"the case is of {feature.case.value.feature!r}, but its folder is {feature.name!r}.",
            hint="Make the two the same.",
        )


def _duplicates(feature: Feature) -> Iterator[Problem]:
    """An id is one node of a feature; claims and evals name controls, risks and monitors by id alone."""
    seen: dict[str, str] = {}
    for loaded, key, noun in _lists(feature):
        for index, name in enumerate(_ids(loaded, key)):
            if name in seen:
                message = f"id {name!r} is used twice; the first is the {seen[name]}."
                yield loaded.document.problem(
                    (key, index, "id"), rule="duplicate-id", message=message, hint="Give one of them another."
                )
            else:
                line, _ = loaded.document.position((key, index, "id"))
                seen[name] = f"{noun} in {loaded.path.name}, line {line}"


def _node_links(feature: Feature) -> Iterator[Problem]:
    risks, controls = _ids(feature.risks, "risks"), _ids(feature.controls, "controls")
    components = _ids(feature.components, "components")
    if feature.risks is not None and feature.components is not None:
        for i, risk in enumerate(feature.risks.value.risks):
            at: At = ("risks", i, "components")
            yield from _unknown(feature.risks, at, "component", risk.components, known=components)
    if feature.controls is not None and feature.risks is not None:
        for i, control in enumerate(feature.controls.value.controls):
            at = ("controls", i, "mitigates")
            yield from _unknown(feature.controls, at, "risk", control.mitigates, known=risks)
    if feature.evals is not None:
        for i, item in enumerate(feature.evals.value.evals):
            if feature.risks is not None and feature.controls is not None:
                known = [*controls, *risks]
                at = ("evals", i, "verifies")
                yield from _unknown(feature.evals, at, "control or risk", item.verifies, known=known)
            if feature.components is not None:
                at = ("evals", i, "applies_to")
                yield from _unknown(feature.evals, at, "component", item.applies_to, known=components)
    if feature.monitors is not None and feature.risks is not None:
        for i, monitor in enumerate(feature.monitors.value.monitors):
            at = ("monitors", i, "detects")
            yield from _unknown(feature.monitors, at, "risk", monitor.detects, known=risks)


def _threat_links(feature: Feature) -> Iterator[Problem]:
    threats = feature.threats
    if threats is None:
        return
    nodes = [node.id for node in threats.value.nodes]
    if feature.components is not None:
        known = _ids(feature.components, "components")
        for i, node in enumerate(threats.value.nodes):
            if node.component and node.component not in known:
                yield _unknown_one(
                    threats, ("nodes", i, "component"), "component", node.component, known=known
                )
    for i, flow in enumerate(threats.value.flows):
        for key, name in (("from", flow.source), ("to", flow.target)):
            if name not in nodes:
                yield _unknown_one(threats, ("flows", i, key), "node", name, known=nodes)
    for i, threat in enumerate(threats.value.threats):
        yield from _unknown(threats, ("threats", i, "nodes"), "node", threat.nodes, known=nodes)
        if feature.risks is not None:
            at: At = ("threats", i, "risks")
            yield from _unknown(threats, at, "risk", threat.risks, known=_ids(feature.risks, "risks"))


def _claim_links(feature: Feature) -> Iterator[Problem]:
    parts = (feature.controls, feature.evals, feature.risks)
    if feature.case is None or any(part is None for part in parts):
        return
    known = [
        *_ids(feature.evals, "evals"),
        *_ids(feature.controls, "controls"),
        *_ids(feature.monitors, "monitors"),
    ]
    for i, claim in enumerate(feature.case.value.claims):
        at: At = ("claims", i, "supported_by")
        yield from _unknown(feature.case, at, "eval, control or monitor", claim.supported_by, known=known)


def _runbook_links(feature: Feature) -> Iterator[Problem]:
    known = {runbook.value.id for runbook in feature.runbooks}
    monitors = _ids(feature.monitors, "monitors")
    if feature.monitors is not None and not feature.broken_runbooks:
        for i, monitor in enumerate(feature.monitors.value.monitors):
            if monitor.runbook not in known:
                at: At = ("monitors", i, "runbook")
                yield _unknown_one(feature.monitors, at, "runbook", monitor.runbook, known=known)
    for runbook in feature.runbooks:
        if feature.monitors is not None:
            yield from _unknown(runbook, ("triggers",), "monitor", runbook.value.triggers, known=monitors)
        if runbook.value.id != runbook.path.stem:
            yield runbook.document.problem(
                ("id",),
                rule="runbook-name",
                message=f"the runbook is {runbook.value.id!r}, but its file is {runbook.path.name!r}.",
                hint="Make the two the same.",
            )


def _citations(feature: Feature) -> Iterator[Problem]:
    for loaded, key, _ in _lists(feature):
        for i, item in enumerate(getattr(loaded.value, key)):
            mappings: Sequence[Citation] = getattr(item, "mappings", ())
            for j, citation in enumerate(mappings):
                fault = citation_fault(citation.catalogue, citation.version, citation.id)
                if fault is not None:
                    yield loaded.document.problem(
                        (key, i, "mappings", j, fault.key),
                        rule="citation",
                        message=fault.message,
                        hint=fault.hint,
                    )


def _owners(feature: Feature, org: OrganisationFile) -> Iterator[Problem]:
    owners = org.owners
    if feature.case is not None and feature.case.value.owner not in owners:
        yield _unknown_one(feature.case, ("owner",), "owner", feature.case.value.owner, known=owners)
    for loaded, key, _ in _lists(feature):
        for i, item in enumerate(getattr(loaded.value, key)):
            owner = getattr(item, "owner", "")
            if owner and owner not in owners:
                yield _unknown_one(loaded, (key, i, "owner"), "owner", owner, known=owners)
    for runbook in feature.runbooks:
        value = runbook.value
        if value.owner not in owners:
            yield _unknown_one(runbook, ("owner",), "owner", value.owner, known=owners)
        yield from _unknown(runbook, ("approvals",), "role", value.approvals, known=org.roles)
        for i, step in enumerate(value.steps):
            if step.role and step.role not in org.roles:
                yield _unknown_one(runbook, ("steps", i, "role"), "role", step.role, known=org.roles)


def _reviews(feature: Feature, today: date) -> Iterator[Problem]:
    if feature.risks is None:
        return
    for i, risk in enumerate(feature.risks.value.risks):
        if risk.review_by < today:
            message = f"risk {risk.id!r} was to be reviewed by {risk.review_by}."
            yield _warning(
                feature.risks,
                ("risks", i, "review_by"),
                rule="review-due",
                message=message,
                hint="Review it.",
            )


def _coverage(feature: Feature, matrix: RiskMatrix) -> Iterator[Problem]:
    """Gaps in risk -> control -> eval and risk -> monitor; the gate of a release decides on them."""
    if feature.risks is None or feature.controls is None or feature.evals is None:
        return
    controls, evals = feature.controls.value.controls, feature.evals.value.evals
    monitors = feature.monitors.value.monitors if feature.monitors is not None else ()
    verified = {name for item in evals for name in item.verifies}
    for i, risk in enumerate(feature.risks.value.risks):
        if risk.before.score < matrix.control_from or risk.treatment != "reduce":
            continue
        mine = [control for control in controls if risk.id in control.mitigates]
        line = f"its score is {risk.before.score}, and the line is {matrix.control_from}."
        if not mine:
            yield _gap(feature.risks, i, "uncontrolled-risk", f"risk {risk.id!r} has no control; {line}")
        elif not verified & {risk.id, *(control.id for control in mine)}:
            yield _gap(feature.risks, i, "unverified-risk", f"no eval verifies risk {risk.id!r}; {line}")
        if not any(risk.id in monitor.detects for monitor in monitors):
            yield _gap(feature.risks, i, "unmonitored-risk", f"no monitor detects risk {risk.id!r}; {line}")


def _gap(loaded: Loaded[Any], index: int, rule: str, message: str) -> Problem:
    return _warning(loaded, ("risks", index, "id"), rule=rule, message=message, hint="Add one.")
