"""Something wrong that was confirmed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from stanchion.core.finding import Severity


class DefectSource(StrEnum):
    """Who or what found it."""

    TEST = "test"
    RED_TEAM = "red_team"
    REVIEW = "review"
    SUPPORT = "support"
    BOUNTY = "bounty"
    MONITOR = "monitor"


class Stage(StrEnum):
    """Where in its life a feature was when the defect was first seen."""

    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class Defect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A confirmed defect, from first sight to verified fix.

    A defect without `fixed_by` is open; one without `verified_by` is not verified, whatever was fixed.
    """

    id: str
    title: str
    source: DefectSource
    first_seen: Stage
    severity: Severity
    owner: str
    confirmed_at: datetime
    due: datetime | None = None
    risk_id: str = ""
    case_digest: str = ""
    fixed_by: str = ""
    verified_by: str = ""
    verified_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether a verified fix is still missing."""
        return not (self.fixed_by and self.verified_by)

    @property
    def escaped(self) -> bool:
        """Whether it reached production before anyone saw it."""
        return self.first_seen is Stage.PRODUCTION
