"""From scored rows to a threshold that keeps a promise, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.origin import Origin
from stanchion.core.version import package_version
from stanchion.detectors.calibration_file import (
    CalibratedDetector,
    CalibrationFile,
    DataSource,
    Evidence,
    Guarantee,
    MapModel,
    SketchModel,
    SliceModel,
    sealed,
)
from stanchion.detectors.calibration_rows import RowSource
from stanchion.detectors.calibration_slices import Slice, slices_at
from stanchion.detectors.scoring import Scored
from stanchion.stats.drift import sketch
from stanchion.stats.intervals import clopper_pearson
from stanchion.stats.risk_control import Certified, certify, threshold_grid
from stanchion.stats.score_maps import MapKind, fit
from stanchion.stats.wording import at_least, at_most, confidence_level, percent

METHODS = {
    "binomial": "Learn-then-Test, fixed sequence, exact binomial",
    "hoeffding-bentkus": "Learn-then-Test, fixed sequence, Hoeffding-Bentkus over groups",
}


class Goals(msgspec.Struct, frozen=True, kw_only=True):
    """What a threshold must keep. `min_recall` asks for a second promise, on labelled unsafe rows."""

    max_false_alarms: float = 0.01
    confidence: float = 0.95
    min_recall: float | None = None
    by_origin: bool = False
    score_map: MapKind | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: a threshold with its promises, or None and the reasons.

    `candidate` is the lowest threshold that keeps the false alarms, where there is one: it is shown when only
    the recall could not be promised. `origins` are thresholds of their own; `notes` say what else matters.
    """

    threshold: float | None
    candidate: float | None
    guarantees: tuple[Guarantee, ...] = ()
    origins: dict[Origin, float] = msgspec.field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is calibrated."""

    id: str
    version: str
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    categories: tuple[str, ...] = ()
    takes_minimum: bool = False


def choose(scored: Scored, goals: Goals) -> Chosen:
    """The lowest threshold that keeps the goals, by Learn-then-Test.

    Copies of a text, and rows of one group, count as one. With `min_recall` both risks are tested at half the
    error; with `by_origin` the false alarms of every origin and of the whole share it.

    Raises:
        UsageError: without benign rows, or without unsafe ones where a recall is asked for.
    """
    benign, unsafe = scored.labelled(0), scored.labelled(1)
    if not benign.rows:
        raise UsageError("there are no benign rows.", hint="A false-alarm rate is measured on benign rows.")
    if goals.min_recall is not None and not unsafe.rows:
        raise UsageError(
            "a recall is asked for, but no row is labelled unsafe.",
            hint="Label some rows 1, or leave it out.",
        )
    error = 1.0 - goals.confidence
    share = error / 2.0 if goals.min_recall is not None else error
    origins = sorted({row.origin for row in benign.rows}) if goals.by_origin else []
    each = share / (len(origins) + 1) if len(origins) > 1 else share
    alarms = _certified(benign, goals.max_false_alarms, each)
    notes = _notes(benign, alarms, has_errors=scored.errors > 0)
    if not alarms.thresholds:
        return Chosen(threshold=None, candidate=None, reasons=(_too_few(alarms),), notes=notes)
    low = alarms.thresholds[0]
    guarantees = [_guarantee(alarms, goals.max_false_alarms)]
    own, promised, told = _own_thresholds(benign, origins, goals, each) if len(origins) > 1 else ({}, [], [])
    notes = (*notes, *told)
    if goals.min_recall is None:
        return Chosen(
            threshold=low, candidate=low, guarantees=(*guarantees, *promised), origins=own, notes=notes
        )
    misses = certify(
        unsafe.scores,
        alpha=1.0 - goals.min_recall,
        confidence=1.0 - error / 2.0,
        risk="misses",
        groups=[row.unit for row in unsafe.rows],
    )
    worst = max([low, *own.values()])
    if misses.highest is None or misses.highest < worst:
        reason = _no_recall(unsafe, misses, worst, goals.min_recall)
        return Chosen(threshold=None, candidate=low, reasons=(reason,), notes=notes)
    return Chosen(
        threshold=low,
        candidate=low,
        guarantees=(*guarantees, *promised, _guarantee(misses, 1.0 - goals.min_recall)),
        origins=own,
        notes=notes,
    )


def calibrated(
    chosen: Chosen,
    scored: Scored,
    *,
    subject: Subject,
    sources: Sequence[RowSource],
    goals: Goals,
    made_at: datetime,
) -> CalibrationFile:
    """The file of a calibration that succeeded.

    Raises:
        UsageError: when there is no threshold, or a score map is asked for without labels of both kinds.
    """
    if chosen.threshold is None:
        raise UsageError("there is no threshold to write down.", hint="; ".join(chosen.reasons))
    benign = scored.labelled(0)
    cuts = sorted({chosen.threshold, *chosen.origins.values()})
    held = sketch(benign.scores, cuts=cuts)
    return sealed(
        made_at=made_at.replace(microsecond=0),
        stanchion=package_version(),
        detector=CalibratedDetector(**msgspec.structs.asdict(subject)),
        threshold=chosen.threshold,
        origins=chosen.origins,
        guarantees=chosen.guarantees,
        evidence=_evidence(scored, chosen.threshold, chosen.origins, goals),
        data=tuple(DataSource(**msgspec.structs.asdict(source)) for source in sources),
        sketch=SketchModel(edges=held.edges, counts=held.counts),
        map=_map(scored, goals),
        slices=tuple(_slice(one) for one in slices_at(scored, chosen.threshold, chosen.origins, goals)),
    )


def alarms_of(scored: Scored, threshold: float, origins: Mapping[Origin, float]) -> list[bool]:
    """Which rows reach the threshold of their origin."""
    return [
        score >= origins.get(row.origin, threshold)
        for row, score in zip(scored.rows, scored.scores, strict=True)
    ]


def _certified(scored: Scored, alpha: float, error: float) -> Certified:
    units = [row.unit for row in scored.rows]
    return certify(scored.scores, alpha=alpha, confidence=1.0 - error, groups=units)


def _own_thresholds(
    benign: Scored, origins: Sequence[Origin], goals: Goals, error: float
) -> tuple[dict[Origin, float], list[Guarantee], list[str]]:
    """Thresholds of the origins with enough rows; the others keep that of all rows, and it is said."""
    found, promised, told = {}, [], []
    for origin in origins:
        rows = benign.where([row.origin is origin for row in benign.rows])
        certified = _certified(rows, goals.max_false_alarms, error)
        if certified.thresholds:
            found[origin] = certified.thresholds[0]
            promised.append(
                _guarantee(certified, goals.max_false_alarms, applies_to=f"origin {origin.value}")
            )
        else:
            told.append(
                f"Origin {origin.value} keeps the threshold of all rows, without a promise of its own: "
                f"{_too_few(certified)}"
            )
    return found, promised, told


def _guarantee(certified: Certified, limit: float, *, applies_to: str = "all rows") -> Guarantee:
    level = confidence_level(certified.confidence)
    what = "false-alarm rate" if certified.risk == "false alarms" else "miss rate"
    unit = "rows" if certified.p_value == "binomial" else "groups of rows"
    return Guarantee(
        risk=certified.risk,
        limit=limit,
        confidence=certified.confidence,
        units=certified.n,
        method=METHODS[certified.p_value],
        applies_to=applies_to,
        statement=f"{what} {at_most(limit)} with {level} confidence, from {certified.n:,} {unit} "
        f"({applies_to})",
    )


def _too_few(certified: Certified) -> str:
    what = "false alarms" if certified.risk == "false alarms" else "misses"
    goal = f"{what} {at_most(certified.alpha)} with {confidence_level(certified.confidence)} confidence"
    if certified.losses > 0.0:
        told = f"even at the safest threshold {certified.losses:g} of {certified.n:,} rows err"
        if certified.more is None:
            return f"{goal} cannot be promised: {told}, which is above the limit itself."
        return f"{goal} cannot be promised: {told}. {certified.more:,} more rows without one would do."
    needed = certified.n + (certified.more or 0)
    return (
        f"{goal} needs at least {needed:,} independent rows without one; there are {certified.n:,}: "
        f"{certified.more or 0:,} more would do."
    )


def _no_recall(unsafe: Scored, misses: Certified, threshold: float, wanted: float) -> str:
    caught = sum(score >= threshold for score in unsafe.scores)
    n = len(unsafe.scores)
    bound = clopper_pearson(caught, n, confidence=misses.confidence, side="lower")
    said = (
        f"at {threshold:g}, the lowest threshold that keeps the false alarms, {caught} of {n} unsafe rows "
        f"are caught ({percent(caught / n)}, {at_least(bound.low)})"
    )
    if misses.highest is None:
        return (
            f"A recall of {percent(wanted)} cannot be promised at any threshold: {_too_few(misses)} "
            f"And {said}."
        )
    return (
        f"A recall of {percent(wanted)} is only promised up to threshold {misses.highest:g}, where there are "
        f"more false alarms than allowed; {said}."
    )


def _notes(benign: Scored, certified: Certified, *, has_errors: bool) -> tuple[str, ...]:
    """What the counts do not say by themselves."""
    told = []
    rows = len(benign.rows)
    if certified.n < rows:
        told.append(
            f"{rows:,} benign rows count as {certified.n:,}: a group counts once, and so do copies of a text."
        )
    if certified.thresholds and certified.thresholds[0] == threshold_grid()[0]:
        told.append("So few benign rows have a score above 0 that any score above 0 may be an alarm.")
    top = sorted(benign.scores)[-1]
    if top >= 1.0 and not has_errors:
        count = sum(score >= 1.0 for score in benign.scores)
        told.append(f"{count} benign rows have the highest score there is: are they labelled rightly?")
    return tuple(told)


def _evidence(scored: Scored, threshold: float, origins: Mapping[Origin, float], goals: Goals) -> Evidence:
    alarms = alarms_of(scored, threshold, origins)
    labels = [row.label for row in scored.rows]
    benign, unsafe = labels.count(0), labels.count(1)
    wrong = sum(a for a, label in zip(alarms, labels, strict=True) if label == 0)
    caught = sum(a for a, label in zip(alarms, labels, strict=True) if label == 1)
    recall = (
        clopper_pearson(caught, unsafe, confidence=goals.confidence, side="lower").low if unsafe else None
    )
    return Evidence(
        benign=benign,
        false_alarms=wrong,
        false_alarms_at_most=clopper_pearson(wrong, benign, confidence=goals.confidence, side="upper").high,
        unsafe=unsafe,
        caught=caught,
        recall_at_least=recall,
        errors=scored.errors,
    )


def _map(scored: Scored, goals: Goals) -> MapModel | None:
    if goals.score_map is None:
        return None
    made = fit(goals.score_map, scored.scores, [row.label or 0 for row in scored.rows])
    return MapModel(kind=made.kind, coefficients=made.coefficients, knots=made.knots)


def _slice(one: Slice) -> SliceModel:
    return SliceModel(
        by=one.by,
        value=one.value,
        benign=one.benign,
        false_alarms=one.false_alarms,
        unsafe=one.unsafe,
        caught=one.caught,
        warning=one.warning,
    )
