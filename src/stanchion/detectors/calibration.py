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
from stanchion.stats.planning import zero_failure_size
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
    error. With `by_origin` every origin with enough rows, and the others together, are tested by themselves
    and share the error; all rows are then promised only what follows from these.

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
    several = len(origins) > 1
    rule = _rule_by_origin(benign, origins, goals, share) if several else _one_rule(benign, goals, share)
    low, notes = rule.threshold, (*_notes(benign, rule, has_errors=scored.errors > 0), *rule.notes)
    if low is None:
        return Chosen(threshold=None, candidate=None, reasons=rule.reasons, notes=notes)
    promised, own = rule.guarantees, rule.own
    if goals.min_recall is None:
        return Chosen(threshold=low, candidate=low, guarantees=promised, origins=own, notes=notes)
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
        guarantees=(*promised, _guarantee(misses, 1.0 - goals.min_recall)),
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


class _Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When there is an alarm, and what is promised of it; `units` independent ones were counted in all."""

    threshold: float | None
    units: int
    own: dict[Origin, float] = msgspec.field(default_factory=dict)
    guarantees: tuple[Guarantee, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _one_rule(benign: Scored, goals: Goals, share: float) -> _Rule:
    alarms = _certified(benign, goals.max_false_alarms, share)
    if not alarms.thresholds:
        return _Rule(threshold=None, units=alarms.n, reasons=(_too_few(alarms),))
    promised = (_guarantee(alarms, goals.max_false_alarms),)
    return _Rule(threshold=alarms.thresholds[0], units=alarms.n, guarantees=promised)


def _rule_by_origin(benign: Scored, origins: Sequence[Origin], goals: Goals, share: float) -> _Rule:
    """A threshold for every origin with enough rows, and one for the others together.

    Who has enough is told by the number of rows alone, never by scores, so that the choice takes nothing from
    the tests. Others that have too few rows even together get the threshold that would do for all rows, and
    no promise; so do origins that were never seen.
    """
    each = share / len(origins)
    needed = zero_failure_size(goals.max_false_alarms, 1.0 - each)
    units = {one: {row.unit for row in benign.rows if row.origin is one} for one in origins}
    large = [one for one in origins if len(units[one]) >= needed]
    rest = [one for one in origins if one not in large]
    pooled = _one_rule(benign, goals, share)
    if not large:
        told = f"No origin has the {needed:,} rows that a threshold of its own needs."
        return msgspec.structs.replace(pooled, notes=(told,))
    tested: dict[tuple[Origin, ...], Certified] = {(one,): _part(benign, [one], goals, each) for one in large}
    notes = []
    threshold = pooled.threshold
    if rest and len(set[str]().union(*(units[one] for one in rest))) >= needed:
        tested[tuple(rest)] = _part(benign, rest, goals, each)
        threshold = tested[tuple(rest)].lowest
    elif rest:
        notes.append(
            f"{_named(rest)}: the threshold of all rows, without a promise, since one needs {needed:,} "
            "independent rows; so nothing is promised of all rows together, either."
        )
    if failed := [f"{_named(part)}: {_too_few(one)}" for part, one in tested.items() if not one.thresholds]:
        return _Rule(threshold=None, units=pooled.units, reasons=tuple(failed), notes=tuple(notes))
    own = {one: tested[one,].thresholds[0] for one in large}
    promised = [_guarantee(one, goals.max_false_alarms, applies_to=_named(p)) for p, one in tested.items()]
    if sum(len(one) for one in units.values()) > pooled.units:
        notes.append(
            "Groups or texts have rows of several origins, so nothing is promised of all rows together."
        )
    elif len(tested) == len(large) + bool(rest):
        promised.insert(0, _of_all_rows(pooled.units, goals.max_false_alarms, 1.0 - share))
    return _Rule(
        threshold=max(own.values()) if threshold is None else threshold,
        units=pooled.units,
        own=own,
        guarantees=tuple(promised),
        notes=tuple(notes),
    )


def _part(benign: Scored, origins: Sequence[Origin], goals: Goals, error: float) -> Certified:
    rows = benign.where([row.origin in origins for row in benign.rows])
    return _certified(rows, goals.max_false_alarms, error)


def _named(origins: Sequence[Origin]) -> str:
    names = " and ".join(one.value for one in origins)
    return f"origin {names}" if len(origins) == 1 else f"origins {names} together"


def _of_all_rows(units: int, limit: float, confidence: float) -> Guarantee:
    """What follows where every part is promised: the rate of all rows is a mean of the rates of the parts."""
    level = confidence_level(confidence)
    return Guarantee(
        risk="false alarms",
        limit=limit,
        confidence=confidence,
        units=units,
        method="Mean of parts that are each tested",
        statement=f"false-alarm rate {at_most(limit)} with {level} confidence, since each part below keeps "
        "it (all rows)",
    )


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


def _notes(benign: Scored, rule: _Rule, *, has_errors: bool) -> tuple[str, ...]:
    """What the counts do not say by themselves."""
    told = []
    rows = len(benign.rows)
    if rule.units < rows:
        told.append(
            f"{rows:,} benign rows count as {rule.units:,}: a group counts once, and so do copies of a text."
        )
    if threshold_grid()[0] in (rule.threshold, *rule.own.values()):
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
