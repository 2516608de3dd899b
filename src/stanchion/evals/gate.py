"""The gate: a pure function from digested evidence to PASS, FAIL, INCONCLUSIVE or INVALID.

How one criterion is judged, in this order:

1. Evidence that cannot carry a verdict is INVALID: nothing judged, a run cut short with an unknown rest,
   results too old, real and scripted targets mixed, a scorer's results missing.
2. Unjudged results (error, unscored, skipped) beyond the error budget are INVALID, unless the criterion fails
   even with every one of them counted as good: then it is FAIL. They never help a criterion to pass.
3. FAIL when the exact one-sided test says that the true rate is on the wrong side of the limit.
4. PASS when the exact one-sided bound (Clopper-Pearson; at the effective size of Korn and Graubard where
   results come in clusters) is on the right side of the limit, on at least `min_n` judged results.
5. Else INCONCLUSIVE, with the number of further results that would settle it, had none of them gone wrong.

Several criteria: to pass, each must pass at its own confidence. That alone bounds the chance of a false pass
(intersection-union test: R. Berger, Technometrics 24 (1982) 295-300). A failure is claimed only when it
survives Holm's adjustment over the release family, or Benjamini-Hochberg's over the explored one; what fails
only before adjustment is INCONCLUSIVE, never a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.evals.criteria import CriterionModel, Direction, Family
from stanchion.evals.results import CaseResult, RunHeader, RunSummary, StopReason
from stanchion.evals.tally import Tally, describe_metric, tally
from stanchion.evals.verdict import CriterionVerdict, PairedEvidence, Verdict, VerdictOutcome, overall
from stanchion.stats.distributions import beta_tails
from stanchion.stats.intervals import Interval, clopper_pearson, effective_size, korn_graubard, wilson
from stanchion.stats.multiple import benjamini_hochberg, holm
from stanchion.stats.planning import cases_still_needed
from stanchion.stats.wording import at_least, at_most, confidence_level, percent, points_between


class Missing(msgspec.Struct, frozen=True):
    """Evidence that was asked for and is not there, with the reason."""

    reason: str


Paired = PairedEvidence | Missing
_NAMED = 3
_ENDED = {
    VerdictOutcome.PASS: "passed",
    VerdictOutcome.FAIL: "failed",
    VerdictOutcome.INCONCLUSIVE: "inconclusive",
    VerdictOutcome.INVALID: "invalid",
}


class GateContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict needs beside the counts.

    `paired` maps a criterion's name to the comparison that its baseline rule asks for.
    """

    header: RunHeader
    summary: RunSummary | None
    now: datetime
    paired: dict[str, Paired] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def criteria_digest(criteria: Sequence[CriterionModel]) -> Digest:
    """The identity of a list of criteria."""
    return digest([criterion.model_dump(mode="json") for criterion in criteria])


def gate(results: Iterable[CaseResult], criteria: Sequence[CriterionModel], context: GateContext) -> Verdict:
    """Judge a run by its criteria; reads the results once."""
    tallies = tally(results, criteria, repeats=context.header.repeats)
    return judge(tallies, context)


def judge(tallies: Sequence[Tally], context: GateContext) -> Verdict:
    """Judge counts that were already taken."""
    for one in tallies:
        one.add_missing(_never_reached(one, context))
    significant = _significant_failures(tallies)
    verdicts = tuple(
        _judge_one(one, context, fails=fails) for one, fails in zip(tallies, significant, strict=True)
    )
    blocking = [verdict for verdict in verdicts if verdict.is_blocking]
    header, summary = context.header, context.summary
    outcome = overall(verdict.outcome for verdict in blocking)
    return Verdict(
        outcome=outcome,
        criteria=verdicts,
        run_id=header.run_id,
        target_id=header.target_id,
        suite_id=header.suite_id,
        suite_digest=header.suite_digest,
        results_digest=summary.results_digest if summary else "",
        criteria_digest=criteria_digest([one.criterion for one in tallies]),
        components=header.components,
        reason=_overall_reason(outcome, blocking),
        judged_at=context.now,
        notes=context.notes,
    )


def _never_reached(one: Tally, context: GateContext) -> int:
    """Planned results that the run has no record of; their slice is unknown, so all of them count."""
    summary, planned = context.summary, context.header.planned
    if planned is None:
        return 0
    written = summary.counts.total if summary is not None else one.total
    return max(planned - written, 0)


def _rest_is_unknown(context: GateContext) -> bool:
    """Whether the run ended without a record of what it left out, and nobody knows how much that is.

    A run that stopped at a cap or a deadline wrote down every case that it skipped.
    """
    if context.header.planned is not None:
        return False
    return context.summary is None or context.summary.stopped in (StopReason.CANCELLED, StopReason.STORAGE)


def _significant_failures(tallies: Sequence[Tally]) -> list[bool]:
    """Which criteria fail after the adjustment of their family."""
    p_values = [_failure_p(one) for one in tallies]
    fails = [False] * len(tallies)
    for family, adjust in ((Family.RELEASE, holm), (Family.EXPLORE, benjamini_hochberg)):
        members = [index for index, one in enumerate(tallies) if one.criterion.family is family and one.n]
        if not members:
            continue
        adjusted = adjust([p_values[index] for index in members]).p_values
        for index, p in zip(members, adjusted, strict=True):
            fails[index] = p <= 1.0 - tallies[index].criterion.confidence
    return fails


def _failure_p(one: Tally) -> float:
    """The exact p-value of "the rate is within its limit"; small when it is not.

    Beyond the error budget every unjudged result counts as good.
    """
    if one.n == 0:
        return 1.0
    extra_good = one.unjudged if _over_budget(one) else 0
    bad, size = _effective(one, good=extra_good)
    limit = _bad_limit(one.criterion)
    if bad <= 0.0:
        return 1.0
    if limit <= 0.0:
        return 0.0
    if limit >= 1.0:
        return 1.0
    return beta_tails(bad, size - bad + 1.0, limit)[0]


def _bad_limit(criterion: CriterionModel) -> float:
    """The limit as one on the share of bad results."""
    return criterion.limit if criterion.side is Direction.AT_MOST else 1.0 - criterion.limit


def _over_budget(one: Tally) -> bool:
    return one.total > 0 and one.unjudged / one.total > one.criterion.error_budget


def _sample(one: Tally, *, good: int = 0, bad: int = 0) -> tuple[list[int], list[int]]:
    """Hits and sizes per cluster; results that stand alone are clusters of one."""
    alone_bad, alone_n = one.singles[0] + bad, one.singles[1] + bad + good
    hits = [k for k, _ in one.clusters.values()] + [1] * alone_bad + [0] * (alone_n - alone_bad)
    sizes = [n for _, n in one.clusters.values()] + [1] * alone_n
    return hits, sizes


def _effective(one: Tally, *, good: int = 0, bad: int = 0) -> tuple[float, float]:
    """Bad and all results at the effective sample size; the plain counts where nothing is clustered."""
    n, k = one.n + good + bad, one.bad + bad
    if not one.clusters:
        return float(k), float(n)
    hits, sizes = _sample(one, good=good, bad=bad)
    worth = effective_size(hits, sizes, tail=1.0 - one.criterion.confidence).n_effective
    return k / n * worth, worth


def _upper_bad(one: Tally, *, bad: int = 0) -> float:
    """The one-sided exact upper bound of the share of bad results."""
    confidence = one.criterion.confidence
    if not one.clusters:
        return clopper_pearson(one.bad + bad, one.n + bad, confidence=confidence, side="upper").high
    hits, sizes = _sample(one, bad=bad)
    return korn_graubard(hits, sizes, confidence=confidence, side="upper").high


def _judge_one(one: Tally, context: GateContext, *, fails: bool) -> CriterionVerdict:
    criterion = one.criterion
    outcome, reason, needed = _absolute(one, context, fails=fails)
    paired = context.paired.get(criterion.name)
    if criterion.baseline is not None:
        outcome, reason = _with_baseline(criterion, paired, outcome, reason)
    verdict = CriterionVerdict(
        id=criterion.name,
        outcome=outcome,
        metric=criterion.metric,
        direction=criterion.side.value,
        limit=criterion.limit,
        confidence=criterion.confidence,
        reason=reason,
        n=one.n,
        bad=one.bad,
        unjudged=one.unjudged,
        total=one.total,
        still_needed=needed,
        is_blocking=criterion.family is Family.RELEASE,
        target_kind="+".join(sorted(one.kinds)),
        paired=paired if isinstance(paired, PairedEvidence) else None,
        why=criterion.why,
        clusters=len(one.clusters),
    )
    return verdict if one.n == 0 else _with_numbers(verdict, one)


def _with_numbers(verdict: CriterionVerdict, one: Tally) -> CriterionVerdict:
    """Fill in estimate, intervals and bounds, worded as the metric is."""
    at_least_side = one.criterion.side is Direction.AT_LEAST
    shown_k = one.n - one.bad if at_least_side else one.bad
    upper = _upper_bad(one)
    worst = _upper_bad(one, bad=one.unjudged)
    return msgspec.structs.replace(
        verdict,
        estimate=shown_k / one.n,
        shown=_shown(one, shown_k),
        bound=1.0 - upper if at_least_side else upper,
        worst_case=1.0 - worst if at_least_side else worst,
        effective_n=_effective(one)[1] if one.clusters else None,
    )


def _shown(one: Tally, k: int) -> Interval:
    """The two-sided interval that people see: Wilson, or Korn-Graubard for clusters."""
    if not one.clusters:
        return wilson(k, one.n, confidence=one.criterion.confidence)
    hits, sizes = _sample(one)
    if k != one.bad:
        hits = [n - h for h, n in zip(hits, sizes, strict=True)]
    return korn_graubard(hits, sizes, confidence=one.criterion.confidence)


def _absolute(one: Tally, context: GateContext, *, fails: bool) -> tuple[VerdictOutcome, str, int | None]:
    """Outcome, reason and results still needed, against the criterion's own limit; steps 1 to 5."""
    criterion = one.criterion
    invalid = _why_invalid(one, context)
    if invalid:
        return VerdictOutcome.INVALID, invalid, None
    if fails:
        return VerdictOutcome.FAIL, _fail_reason(one), None
    if _over_budget(one):
        share, budget = percent(one.unjudged / one.total), percent(criterion.error_budget)
        reason = f"{one.unjudged} of {one.total} results ({share}) have no judgement; the budget is {budget}"
        return VerdictOutcome.INVALID, reason, None
    bound = _upper_bad(one)
    if bound > _bad_limit(criterion):
        return _inconclusive(one, bound)
    if one.n < criterion.min_n:
        missing = criterion.min_n - one.n
        reason = f"{one.n} judged results; at least {criterion.min_n} are asked for, {missing} more"
        return VerdictOutcome.INCONCLUSIVE, reason, missing
    return VerdictOutcome.PASS, _bound_words(one, bound) + _worst_words(one), None


def _why_invalid(one: Tally, context: GateContext) -> str:
    criterion, kinds = one.criterion, sorted(one.kinds)
    if one.total == 0:
        return "no result is about this criterion; is the slice or the scorer's name right?"
    if one.n == 0:
        return f"none of {one.total} results could be judged"
    if _rest_is_unknown(context):
        return "the run was cut short, and how many cases it never reached is not known; go on with it"
    if len(kinds) > 1:
        return f"results of {' and '.join(kinds)} targets are mixed; judge them apart with slice.target_kind"
    age = context.now - context.header.started_at
    if criterion.max_age is not None and age > criterion.max_age:
        return f"the run is {age.days} days old; at most {criterion.max_age.days} are allowed"
    return ""


def _inconclusive(one: Tally, bound: float) -> tuple[VerdictOutcome, str, int | None]:
    criterion = one.criterion
    worded = f"{_bound_words(one, bound)}: not within the limit yet"
    if one.clusters:
        return VerdictOutcome.INCONCLUSIVE, f"{worded}; results come in clusters, so add new ones", None
    needed = cases_still_needed(one.bad, one.n, limit=_bad_limit(criterion), confidence=criterion.confidence)
    if needed.more is None:
        return VerdictOutcome.INCONCLUSIVE, f"{worded}; {needed.reason}", None
    words = f"about {needed.more:,} more cases without a bad one would settle it"
    if needed.more_at_observed_rate is not None and needed.more_at_observed_rate != needed.more:
        words += f", about {needed.more_at_observed_rate:,} at the present rate"
    return VerdictOutcome.INCONCLUSIVE, f"{worded}; {words}", needed.more


def _bound_words(one: Tally, upper_bad: float) -> str:
    """The bound that decides, in the metric's own words."""
    criterion = one.criterion
    sure = f"one-sided {confidence_level(criterion.confidence)}"
    if criterion.side is Direction.AT_MOST:
        return f"{one.bad} of {one.n} {describe_metric(criterion)}: {at_most(upper_bad)} ({sure})"
    good = one.n - one.bad
    return f"{good} of {one.n} {describe_metric(criterion)}: {at_least(1.0 - upper_bad)} ({sure})"


def _worst_words(one: Tally) -> str:
    """What the unjudged results could hide, said beside every pass that has some."""
    if not one.unjudged:
        return ""
    worst = _upper_bad(one, bad=one.unjudged)
    side = one.criterion.side is Direction.AT_MOST
    return (
        f"; {one.unjudged} unjudged, {at_most(worst) if side else at_least(1.0 - worst)} were all of them bad"
    )


def _fail_reason(one: Tally) -> str:
    criterion = one.criterion
    side = criterion.side is Direction.AT_MOST
    count = one.bad if side else one.n - one.bad
    limit = f"{'at most' if side else 'at least'} {100 * criterion.limit:g} %"
    words = f"{count} of {one.n} {describe_metric(criterion)}; {limit} is allowed"
    if _over_budget(one):
        words += f"; fails even with all {one.unjudged} unjudged results counted as good"
    return words


def _with_baseline(
    criterion: CriterionModel, paired: Paired | None, outcome: VerdictOutcome, reason: str
) -> tuple[VerdictOutcome, str]:
    """Add the comparison with a baseline: non-inferior by the margin, and not too many new failures."""
    rule = criterion.baseline
    if rule is None:
        return outcome, reason
    if paired is None or isinstance(paired, Missing):
        why = paired.reason if paired else f"the baseline {rule.run!r} was not compared"
        return overall([outcome, VerdictOutcome.INVALID]), f"{reason}; {why}"
    words = points_between(paired.low, paired.high)
    compared = f"{words} bad against the baseline over {paired.pairs} pairs"
    if rule.max_new_failures is not None and paired.only_now > rule.max_new_failures:
        allowed = f"{paired.only_now} new failures, {rule.max_new_failures} allowed"
        return VerdictOutcome.FAIL, f"{reason}; {allowed}; {compared}"
    if paired.low > rule.margin:
        return VerdictOutcome.FAIL, f"{reason}; worse than the margin {percent(rule.margin)}: {compared}"
    if paired.high > rule.margin:
        return overall(
            [outcome, VerdictOutcome.INCONCLUSIVE]
        ), f"{reason}; not shown to be no worse: {compared}"
    return outcome, f"{reason}; {compared}"


def _overall_reason(outcome: VerdictOutcome, blocking: Sequence[CriterionVerdict]) -> str:
    if not blocking:
        return "there is no release criterion, so nothing was judged"
    ids: Mapping[VerdictOutcome, list[str]] = {
        kind: [verdict.id for verdict in blocking if verdict.outcome is kind] for kind in VerdictOutcome
    }
    noun = "criterion" if len(blocking) == 1 else "criteria"
    words = f"{len(ids[outcome])} of {len(blocking)} {noun} {_ENDED[outcome]}"
    if outcome is not VerdictOutcome.PASS:
        left_out = len(ids[outcome]) - _NAMED
        words += f": {', '.join(ids[outcome][:_NAMED])}" + (f" and {left_out} more" if left_out > 0 else "")
    others = [
        f"{len(ids[kind])} {_ENDED[kind]}" for kind in VerdictOutcome if kind is not outcome and ids[kind]
    ]
    return "; ".join([words, *([", ".join(others)] if others else [])])
