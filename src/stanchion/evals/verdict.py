"""What a gate answers: a verdict per criterion and one for the whole, computed from digested evidence."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import ExitCode
from stanchion.stats.intervals import Interval


class VerdictOutcome(StrEnum):
    """What the evidence allows to be said.

    `inconclusive`: sound evidence, too little of it. `invalid`: evidence that cannot carry a verdict (errors
    beyond the budget, nothing judged, too old, mixed kinds of target, a run that was cut short).
    """

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"

    @property
    def exit_code(self) -> ExitCode:
        """0 for pass, 1 for fail, 3 for everything that could not be judged."""
        match self:
            case VerdictOutcome.PASS:
                return ExitCode.OK
            case VerdictOutcome.FAIL:
                return ExitCode.FOUND
            case VerdictOutcome.INCONCLUSIVE | VerdictOutcome.INVALID:
                return ExitCode.NOT_JUDGED


_PRECEDENCE = (
    VerdictOutcome.FAIL,
    VerdictOutcome.INVALID,
    VerdictOutcome.INCONCLUSIVE,
    VerdictOutcome.PASS,
)


def overall(outcomes: Iterable[VerdictOutcome]) -> VerdictOutcome:
    """The outcome of several together: fail, else invalid, inconclusive; pass only if all pass.

    Nothing at all is invalid: a gate without criteria has not judged anything.
    """
    present = set(outcomes)
    return next((outcome for outcome in _PRECEDENCE if outcome in present), VerdictOutcome.INVALID)


class PairedEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison with a baseline run, case by case.

    `only_now` and `only_before` count cases that are bad in one of the two runs only. `difference` is the
    share of bad results now minus before, with its two-sided interval [low, high]; worse is positive.
    """

    baseline_run: str
    pairs: int
    only_now: int
    only_before: int
    difference: float
    low: float
    high: float
    confidence: float
    method: str
    p_value: float
    unpaired: int = 0
    new_failures: tuple[str, ...] = ()


class CriterionVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One criterion, judged.

    Rates are of the metric as the criterion words it (a utility rate is a share of good answers). `bad` of
    `n` judged results speak against; `unjudged` of `total` were error, unscored or skipped. `shown` is the
    two-sided Wilson interval for people; `bound` the one-sided exact bound towards the limit, which decides.
    `worst_case` is that bound with every unjudged result counted as bad. `effective_n` is below `n` when
    results come in clusters. `still_needed` is how many further results without a bad one would make it pass;
    None when no number would, or when it is not the number of results that is missing.
    """

    id: str
    outcome: VerdictOutcome
    metric: str
    direction: str
    limit: float
    confidence: float
    reason: str
    n: int = 0
    bad: int = 0
    unjudged: int = 0
    total: int = 0
    estimate: float | None = None
    shown: Interval | None = None
    bound: float | None = None
    worst_case: float | None = None
    effective_n: float | None = None
    clusters: int = 0
    still_needed: int | None = None
    is_blocking: bool = True
    target_kind: str = ""
    paired: PairedEvidence | None = None
    why: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of a gate, with the digests of all that went into it.

    Anybody who has the run log and the criteria can compute it again and compare `digest`. `judged_at` is
    left out of the digest, because the moment of judging matters only through `max_age`, which is an input.
    """

    outcome: VerdictOutcome
    criteria: tuple[CriterionVerdict, ...]
    run_id: str
    target_id: str
    suite_id: str
    suite_digest: Digest
    results_digest: Digest
    criteria_digest: Digest
    components: ComponentSet
    reason: str = ""
    judged_at: datetime | None = None
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest:
        """The identity of the verdict: everything but the moment it was computed."""
        return digest(msgspec.structs.replace(self, judged_at=None))

    @property
    def exit_code(self) -> ExitCode:
        """What a process that ends with this verdict says."""
        return self.outcome.exit_code
