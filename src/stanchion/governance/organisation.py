"""`org.yaml`: who may decide what, and the lines that a case is measured against."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from stanchion.evals.criteria import Duration
from stanchion.files.schema import FileModel
from stanchion.governance.case import Identifier, Text, Version

Score = Annotated[int, Field(ge=1, le=26)]


class Person(FileModel):
    """Somebody who can own or approve; `keys` are ids of files in `safety/keys/`."""

    name: Text
    contact: str = ""
    keys: tuple[str, ...] = ()


class Role(FileModel):
    """A role and who holds it."""

    title: Text
    people: tuple[str, ...] = Field(min_length=1)


class Separation(FileModel):
    """Roles that no person may hold together."""

    roles: tuple[str, ...] = Field(min_length=2)
    why: str = ""


class RiskMatrix(FileModel):
    """Lines on the risk score (likelihood x severity, 1 to 25).

    From `control_from` a risk needs a control, an eval and a monitor; from `adversarial_from` the eval is an
    adversarial one; at `not_waivable_from` and above nothing is waived. 26 means never.
    """

    control_from: Score = 6
    adversarial_from: Score = 15
    not_waivable_from: Score = 20


class Freshness(FileModel):
    """How old evidence may be."""

    eval_max_age: Duration = timedelta(days=30)
    review_every: Duration = timedelta(days=180)
    runbook_exercise: Duration = timedelta(days=180)


class Tier(FileModel):
    """What a release and the operation of a feature of this tier need; tiers go from 0 to 3.

    `lift_people` is how many people it takes to lift a kill switch; where it is 1, `lift_wait` is how long
    the lift waits instead. `ungated` is what the gateway does with a component set that passed no gate.
    """

    approvals: tuple[str, ...] = ()
    has_kill_switch_probe: bool = False
    lift_people: Annotated[int, Field(ge=1, le=10)] = 2
    lift_wait: Duration = timedelta(minutes=15)
    ungated: Literal["allow", "warn", "block"] = "warn"


class OrganisationFile(FileModel):
    """`org.yaml`. `decisions` says which roles may take a decision, such as `accept-risk`."""

    version: Version
    organisation: Text
    people: dict[Identifier, Person] = Field(min_length=1)
    roles: dict[Identifier, Role] = Field(min_length=1)
    separation: tuple[Separation, ...] = ()
    risk_matrix: RiskMatrix = RiskMatrix()
    freshness: Freshness = Freshness()
    tiers: dict[str, Tier] = Field(default_factory=dict)
    decisions: dict[Identifier, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def owners(self) -> frozenset[str]:
        """Whoever may own something: roles and people."""
        return frozenset({*self.roles, *self.people})
