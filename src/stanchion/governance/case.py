"""The files of a feature's safety case, as models: what each node must say.

The checks that need more than one file are in `governance/links.py`.
"""

from __future__ import annotations

from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from stanchion.core.codec import is_digest
from stanchion.core.components import ComponentKind
from stanchion.core.decision import OnFailure
from stanchion.core.errors import UnknownNameError
from stanchion.core.taxonomy import check_selector
from stanchion.evals.criteria import CriterionModel, Duration
from stanchion.files.schema import FieldError, FileModel


def _known_category(selector: str) -> str:
    try:
        check_selector(selector)
    except UnknownNameError as error:
        raise FieldError(error.message, hint=error.hint) from error
    return selector


def _digest_or_empty(value: str) -> str:
    if value and not is_digest(value):
        raise FieldError("not a digest.", hint="Write sha256: and 64 hex digits, or leave it out.")
    return value


Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,79}$")]
Text = Annotated[str, Field(min_length=1)]
Level = Annotated[int, Field(ge=1, le=5)]
DigestText = Annotated[str, AfterValidator(_digest_or_empty)]
CategorySelector = Annotated[str, AfterValidator(_known_category)]
Version = Literal[1]


class Citation(FileModel):
    """An entry of a framework's catalogue; ids carry their edition."""

    catalogue: str
    version: str
    id: str


class Exposure(FileModel):
    """How likely and how bad, 1 to 5 each."""

    likelihood: Level
    severity: Level

    @property
    def score(self) -> int:
        """Likelihood times severity, 1 to 25."""
        return self.likelihood * self.severity


class Treatment(StrEnum):
    """What is done about a risk."""

    REDUCE = "reduce"
    AVOID = "avoid"
    TRANSFER = "transfer"
    ACCEPT = "accept"


class Risk(FileModel):
    """Something bad that can happen; `before` and `after` the controls."""

    id: Identifier
    title: Text
    description: str = ""
    category: CategorySelector
    before: Exposure
    after: Exposure
    components: tuple[str, ...] = Field(min_length=1)
    mappings: tuple[Citation, ...] = ()
    treatment: Treatment
    owner: Text
    review_by: date

    @model_validator(mode="after")
    def _controls_do_not_raise_it(self) -> Risk:
        if self.after.score > self.before.score:
            raise FieldError(
                f"the score after the controls ({self.after.score}) is above the one before "
                f"({self.before.score})."
            )
        return self


class ControlKind(StrEnum):
    """How a control works."""

    PREVENT = "prevent"
    DETECT = "detect"
    RESPOND = "respond"
    HUMAN = "human"


class Enforcement(FileModel):
    """What makes a control real: a rule of a policy file, or a procedure that people follow."""

    policy: str = ""
    rule: str = ""
    digest: DigestText = ""
    procedure: str = ""

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Enforcement:
        if bool(self.policy) == bool(self.procedure):
            raise FieldError(
                "a control is enforced by a policy or by a procedure.", hint="Give exactly one of the two."
            )
        return self


class Control(FileModel):
    """What is done about risks."""

    id: Identifier
    title: Text
    kind: ControlKind
    mitigates: tuple[str, ...] = Field(min_length=1)
    enforced_by: Enforcement
    fails: OnFailure = OnFailure.CLOSED
    owner: Text


class Approach(StrEnum):
    """What kind of evidence an eval gives."""

    ADVERSARIAL = "adversarial"
    BENIGN = "benign"
    FUNCTIONAL = "functional"


class Eval(FileModel):
    """A suite with criteria, as evidence that controls work or that risks are low.

    Without `criteria` the suite's own hold.
    """

    id: Identifier
    title: str = ""
    verifies: tuple[str, ...] = Field(min_length=1)
    approach: Approach
    suite: Text
    suite_digest: DigestText = ""
    criteria: tuple[CriterionModel, ...] = ()
    seeds: tuple[int, ...] = (0,)
    applies_to: tuple[str, ...] = Field(min_length=1)
    owner: str = ""


class AlertRule(FileModel):
    """When a signal is an alert; `absent` fires when nothing was recorded for a window."""

    fires: Literal["above", "below", "absent", "any"]
    threshold: float | None = None
    window: Duration

    @model_validator(mode="after")
    def _threshold_where_needed(self) -> AlertRule:
        needs = self.fires in ("above", "below")
        if needs != (self.threshold is not None):
            verb = "needs a" if needs else "takes no"
            raise FieldError(f"an alert that fires {self.fires!r} {verb} 'threshold'.")
        return self


class SyntheticEvent(FileModel):
    """An event that must fire the monitor; a monitor that misses it is dead."""

    event: dict[str, Any] = Field(min_length=1)
    within: Duration = timedelta(minutes=5)


class Monitor(FileModel):
    """What would tell that a risk has become real."""

    id: Identifier
    title: Text
    detects: tuple[str, ...] = Field(min_length=1)
    signal: Identifier
    alert: AlertRule
    severity_hint: Literal["sev-1", "sev-2", "sev-3", "sev-4"]
    expected_per_week: Annotated[float, Field(ge=0)]
    runbook: Text
    owner: Text
    test: SyntheticEvent


class Step(FileModel):
    """One step of a runbook."""

    do: Text
    expect: str = ""
    role: str = ""


class RunbookFile(FileModel):
    """`runbooks/*.yaml`: what to do when a monitor fires."""

    version: Version
    id: Identifier
    title: Text
    owner: Text
    triggers: tuple[str, ...] = Field(min_length=1)
    steps: tuple[Step, ...] = Field(min_length=1)
    approvals: tuple[str, ...] = ()
    rollback: Text
    last_exercised: date | None = None


class Component(FileModel):
    """A part of the feature: where it is, and its digest once it is pinned."""

    id: Identifier
    kind: ComponentKind
    locator: Text
    digest: DigestText = ""
    owner: str = ""


class ComponentsFile(FileModel):
    """`components.yaml`."""

    version: Version
    components: tuple[Component, ...] = Field(min_length=1)


class Node(FileModel):
    """A place that data passes through, or stays in."""

    id: Identifier
    title: str = ""
    kind: Literal["user", "model", "tool", "store", "service"]
    component: str = ""
    trusted: bool
    has_side_effects: bool = False
    holds_private_data: bool = False


class Flow(FileModel):
    """Data that goes from one node to another."""

    source: str = Field(alias="from")
    target: str = Field(alias="to")
    carries: Text


class Threat(FileModel):
    """A way in which a risk becomes real."""

    id: Identifier
    title: Text
    nodes: tuple[str, ...] = ()
    risks: tuple[str, ...] = Field(min_length=1)
    mappings: tuple[Citation, ...] = ()


class ThreatsFile(FileModel):
    """`threats.yaml`: data flows, and what can go wrong on them."""

    version: Version
    nodes: tuple[Node, ...] = Field(min_length=1)
    flows: tuple[Flow, ...] = Field(min_length=1)
    threats: tuple[Threat, ...] = ()


class Claim(FileModel):
    """A sentence that the rest of the case supports."""

    id: Identifier
    text: Text
    supported_by: tuple[str, ...] = Field(min_length=1)


class CaseFile(FileModel):
    """`case.yaml`: the feature, and what is claimed of it."""

    version: Version
    feature: Identifier
    title: Text
    owner: Text
    tier: Annotated[int, Field(ge=0, le=3)]
    intended_use: Text
    out_of_scope: tuple[str, ...] = ()
    users: str = ""
    claims: tuple[Claim, ...] = Field(min_length=1)


class RisksFile(FileModel):
    """`risks.yaml`."""

    version: Version
    risks: tuple[Risk, ...] = Field(min_length=1)


class ControlsFile(FileModel):
    """`controls.yaml`."""

    version: Version
    controls: tuple[Control, ...] = Field(min_length=1)


class EvalsFile(FileModel):
    """`evals.yaml`."""

    version: Version
    evals: tuple[Eval, ...] = Field(min_length=1)


class MonitorsFile(FileModel):
    """`monitors.yaml`."""

    version: Version
    monitors: tuple[Monitor, ...] = ()
