"""What an eval writes down: scores, case results, and the two ends of a run.

One polarity everywhere: 1 is unsafe. Every planned scorer of a case gives exactly one `Score`, also when the
target or the scorer broke; so nothing is missing from a count without a reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

import msgspec

from stanchion.core.codec import Digest, digest
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Effect
from stanchion.core.finding import Finding
from stanchion.core.interaction import Usage


class Outcome(StrEnum):
    """What became of a case or a score. Only `safe` and `unsafe` are judgements.

    `unscored`: the answer is there, and the scorer says why it cannot judge it. `error`: the target or the
    scorer broke. `skipped`: never asked (a cap or a deadline came first).
    """

    SAFE = "safe"
    UNSAFE = "unsafe"
    UNSCORED = "unscored"
    ERROR = "error"
    SKIPPED = "skipped"

    @property
    def is_judged(self) -> bool:
        """Whether it may stand in the denominator of a rate."""
        return self in (Outcome.SAFE, Outcome.UNSAFE)


class Concern(StrEnum):
    """What a score speaks about; `unsafe` always means that this concern failed.

    `safety`: harm was done. `over_refusal`: a harmless request was refused or blocked. `utility`: the answer
    does not do what was asked.
    """

    SAFETY = "safety"
    OVER_REFUSAL = "over_refusal"
    UTILITY = "utility"


class TargetKind(StrEnum):
    """Whether a real model or feature answered; scripted answers are never counted as a model's."""

    REAL = "real"
    SCRIPTED = "scripted"


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One scorer's judgement of one answer.

    `value` is in [0, 1] with 1 = unsafe, and None when the outcome is no judgement. `reason` never repeats
    the answer's text.
    """

    scorer: str
    version: str
    outcome: Outcome
    value: float | None = None
    concern: Concern = Concern.SAFETY
    reason: str = ""
    findings: tuple[Finding, ...] = ()


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One scrubbed piece of a transcript.

    `kind`: system, user, assistant, reasoning, refusal, tool_call, tool_result, document, or other.
    """

    kind: str
    text: str
    name: str = ""


class Transcript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was said, after scrubbing; kept for failures and for a sampled share only.

    `turns` is what the target was asked, `reply` what it said. `is_truncated` when a limit cut a text.
    """

    turns: tuple[Turn, ...]
    reply: tuple[Turn, ...] = ()
    is_truncated: bool = False


class CaseResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case, asked once, judged.

    `outcome` is the worst over all scores (see `worst`); `outcome_of` gives it for one concern. `pairing_key`
    with `repeat` finds the same question in another run. `cluster` groups cases that are not independent
    (variants of one seed). `category` is the case's slice. `request_digest` and `reply_digest` identify the
    texts that are not stored. `is_cached`: the answer came from the cache; `reused_from`: the digest of the
    request of the unguarded twin whose answer was taken over. `error` is the class of what broke, never its
    text. `effect` is the strictest effect that the guard enforced; None when there was no guard.
    """

    case_id: str
    outcome: Outcome
    case_digest: Digest = ""
    pairing_key: str = ""
    repeat: int = 0
    cluster: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    language: str = ""
    source: str = ""
    scores: tuple[Score, ...] = ()
    request_digest: Digest = ""
    reply_digest: Digest = ""
    component_set: Digest = ""
    target_kind: TargetKind = TargetKind.REAL
    latency_ms: float | None = None
    guard_ms: float | None = None
    usage: Usage = Usage()
    is_cached: bool = False
    reused_from: Digest = ""
    effect: Effect | None = None
    rule_ids: tuple[str, ...] = ()
    error: str = ""
    reason: str = ""
    transcript: Transcript | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What pairs this result with another run's: pairing key (case id where there is none) and repeat."""
        return (self.pairing_key or self.case_id, self.repeat)

    @property
    def digest(self) -> Digest:
        """The identity of the whole record."""
        return digest(self)


_BADNESS = (Outcome.UNSAFE, Outcome.ERROR, Outcome.UNSCORED, Outcome.SKIPPED, Outcome.SAFE)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome that holds for several: unsafe, else error, unscored, skipped; safe only if all are safe.

    Nothing at all is `unscored`: unknown never passes.
    """
    present = set(outcomes)
    return next((outcome for outcome in _BADNESS if outcome in present), Outcome.UNSCORED)


def outcome_of(result: CaseResult, concern: Concern) -> Outcome | None:
    """The outcome for one concern; None when the case says nothing about it."""
    about = [score.outcome for score in result.scores if score.concern is concern]
    return worst(about) if about else None


class RunHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known before the first case: enough to refuse a resume under other conditions.

    `planned` counts results, that is cases times repeats; None when the source is a stream of unknown length.
    `settings_digest` covers everything that may change an answer or a score (sampling, repeats, scorers,
    vars); pace, caps and output do not belong to it. `scorers` maps scorer id to version.
    """

    run_id: str
    suite_id: str
    suite_digest: Digest
    target_id: str
    components: ComponentSet
    started_at: datetime
    seed: int = 0
    environment: str = "dev"
    planned: int | None = None
    settings_digest: Digest = ""
    target_kind: TargetKind = TargetKind.REAL
    scorers: dict[str, str] = msgspec.field(default_factory=dict)
    repeats: int = 1
    stanchion_version: str = ""
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest:
        """The identity of the run's conditions and moment."""
        return digest(self)


class OutcomeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each outcome."""

    safe: int = 0
    unsafe: int = 0
    unscored: int = 0
    error: int = 0
    skipped: int = 0

    @property
    def judged(self) -> int:
        """The denominator of a rate."""
        return self.safe + self.unsafe

    @property
    def total(self) -> int:
        """All of them."""
        return self.safe + self.unsafe + self.unscored + self.error + self.skipped


class StopReason(StrEnum):
    """Why a run ended; only `finished` means that every planned case has a result."""

    FINISHED = "finished"
    DEADLINE = "deadline"
    COST_CAP = "cost_cap"
    RETRY_BUDGET = "retry_budget"
    CANCELLED = "cancelled"
    STORAGE = "storage"


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The other end of a run; counts are over results, a repeat counts as one.

    `cost_usd` is None when no answer told its cost. `results_digest` is the head of the run log's hash chain.
    `duplicates` counts cases left out because they are the same as another one.
    `by_concern` has an entry per concern that was scored; `by_category` counts the overall outcome per slice.
    """

    run_id: str
    finished_at: datetime
    counts: OutcomeCounts
    stopped: StopReason = StopReason.FINISHED
    stop_detail: str = ""
    by_concern: dict[str, OutcomeCounts] = msgspec.field(default_factory=dict)
    by_category: dict[str, OutcomeCounts] = msgspec.field(default_factory=dict)
    elapsed_s: float = 0.0
    cases_per_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    cached: int = 0
    reused: int = 0
    retries: int = 0
    resumed: int = 0
    duplicates: int = 0
    results_digest: Digest = ""

    @property
    def is_complete(self) -> bool:
        """Whether every planned case has a result."""
        return self.stopped is StopReason.FINISHED
