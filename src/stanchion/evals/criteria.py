"""What a suite promises to stay within: the part of a suite file that the gate judges.

A criterion is read here and judged in `stanchion.evals.gate`; nothing here computes.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stanchion.evals.results import Concern, TargetKind
from stanchion.files.schema import FileModel


class Metric(StrEnum):
    """What is measured; `score:<scorer id>` is the fifth form, see `CriterionModel.metric`.

    * `unsafe_rate`: share of judged results whose safety outcome is unsafe
    * `over_refusal_rate`: share of judged results whose over-refusal outcome is unsafe
    * `utility_rate`: share of judged results whose utility outcome is safe
    * `error_rate`: share of all results that are error, unscored or skipped
    """

    UNSAFE_RATE = "unsafe_rate"
    OVER_REFUSAL_RATE = "over_refusal_rate"
    UTILITY_RATE = "utility_rate"
    ERROR_RATE = "error_rate"

    @property
    def concern(self) -> Concern | None:
        """The concern whose scores it counts; None for `error_rate`, which counts over all."""
        return _CONCERNS.get(self)


_CONCERNS = {
    Metric.UNSAFE_RATE: Concern.SAFETY,
    Metric.OVER_REFUSAL_RATE: Concern.OVER_REFUSAL,
    Metric.UTILITY_RATE: Concern.UTILITY,
}
SCORE_PREFIX = "score:"


class Direction(StrEnum):
    """On which side of its limit a metric must stay."""

    AT_MOST = "at_most"
    AT_LEAST = "at_least"


class RepeatRule(StrEnum):
    """What a case asked several times counts as.

    `mean`: every answer counts, the case is the cluster. `ever`: a case is unsafe if any of its answers was.
    """

    MEAN = "mean"
    EVER = "ever"


class Family(StrEnum):
    """How several criteria are judged together: Holm for `release`, Benjamini-Hochberg for `explore`."""

    RELEASE = "release"
    EXPLORE = "explore"


_DURATION = re.compile(r"(\d+)\s*(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: Any) -> Any:
    """`30d`, `12h`, `90m`, `45s` or `2w` as a timedelta; anything else is left to the validator."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(
                f"{value!r} is not a duration. Write a whole number and s, m, h, d or w, as in 30d."
            )
        return timedelta(seconds=int(match[1]) * _UNIT_S[match[2]])
    return value


def parse_share(value: Any) -> Any:
    """`0.5 %` as 0.005; a plain number is a share already."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip().removesuffix("%")) / 100
        except ValueError as error:
            raise ValueError(f"{value!r} is not a share. Write 0.01 or 1%.") from error
    return value


def as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text is a list of one."""
    return (value,) if isinstance(value, str) else value


if TYPE_CHECKING:
    OneOrMany = tuple[str, ...]
else:  # what a file may say; what a model holds is always a tuple
    OneOrMany = Annotated[str | tuple[str, ...], AfterValidator(as_tuple)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Share = Annotated[float, BeforeValidator(parse_share), Field(ge=0, le=1)]


class SliceModel(FileModel):
    """Which results count; every given field must hold, a list means any of its values."""

    category: OneOrMany = ()
    tags: OneOrMany = ()
    language: OneOrMany = ()
    source: OneOrMany = ()
    target_kind: TargetKind | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.category or self.tags or self.language or self.source or self.target_kind)


class BaselineModel(FileModel):
    """Not worse than an earlier run, by the paired comparison.

    `run`: a run id, a run folder, or a path to one (`safety/baselines/main`). `margin`: by how much the rate
    may be worse (non-inferiority). `max_new_failures`: how many paired cases may fail that did not before.
    """

    run: str
    margin: Share = 0.0
    max_new_failures: int | None = Field(default=None, ge=0)


class CriterionModel(FileModel):
    """One promise: a metric, on which side of which limit, how surely, and on how much evidence.

    `metric` is a `Metric` or `score:<scorer id>` (share of that scorer's judged scores that are unsafe).
    `error_budget` is the share of the slice's results that may be error, unscored or skipped before the
    verdict is INVALID. `max_age` is how old the oldest result may be. Limits and budgets are shares in [0, 1]
    or percentages (`1%`).
    """

    metric: str
    limit: Share
    id: str = ""
    direction: Direction | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_n: int = Field(default=1, ge=1)
    error_budget: Share = 0.05
    max_age: Duration | None = None
    slice: SliceModel = SliceModel()
    baseline: BaselineModel | None = None
    repeats: RepeatRule = RepeatRule.MEAN
    family: Family = Family.RELEASE
    why: str = ""

    @model_validator(mode="after")
    def _metric_is_known(self) -> CriterionModel:
        known = [metric.value for metric in Metric]
        if self.metric not in known and not self.scorer:
            raise ValueError(
                f"unknown metric {self.metric!r}. Allowed: {', '.join(known)}, {SCORE_PREFIX}<scorer id>."
            )
        return self

    @property
    def scorer(self) -> str:
        """The scorer's id of a `score:` metric; empty for the others."""
        return self.metric.removeprefix(SCORE_PREFIX) if self.metric.startswith(SCORE_PREFIX) else ""

    @property
    def side(self) -> Direction:
        """The direction as written, or the metric's own: at least for `utility_rate`, else at most."""
        if self.direction is not None:
            return self.direction
        return Direction.AT_LEAST if self.metric == Metric.UTILITY_RATE else Direction.AT_MOST

    @property
    def name(self) -> str:
        """The id as written, or `metric` with the slice, such as `unsafe_rate[injection.direct]`."""
        if self.id:
            return self.id
        chosen = [*self.slice.category, *self.slice.tags, *self.slice.language, *self.slice.source]
        return f"{self.metric}[{','.join(chosen)}]" if chosen else self.metric
