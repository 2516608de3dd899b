"""What a policy makes of findings."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stanchion.core.finding import Finding


class Effect(StrEnum):
    """What happens, from mildest to strictest; of several, the strictest holds.

    allow < redact < transform < replace < route < require_approval < block
    """

    ALLOW = "allow"
    REDACT = "redact"
    TRANSFORM = "transform"
    REPLACE = "replace"
    ROUTE = "route"
    REQUIRE_APPROVAL = "require_approval"
    BLOCK = "block"

    @property
    def rank(self) -> int:
        """0 for allow up to 6 for block."""
        return _EFFECT_RANK[self]


_EFFECT_RANK = {effect: rank for rank, effect in enumerate(Effect)}


def strictest(*effects: Effect) -> Effect:
    """The effect that holds when several apply; allow when none does."""
    return max(effects, key=lambda effect: effect.rank, default=Effect.ALLOW)


class Mode(StrEnum):
    """Whether a decision is acted on. `shadow` records what would have happened."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class OnFailure(StrEnum):
    """The declared outcome of a check that breaks or runs out of time."""

    CLOSED = "closed"
    OPEN = "open"
    DEGRADE = "degrade"


class Surface(StrEnum):
    """Where in an exchange a text stands; a policy names surfaces."""

    SYSTEM = "system"
    INPUT = "input"
    RETRIEVED = "retrieved"
    TOOL_DEFINITION = "tool_definition"
    TOOL_RESULT = "tool_result"
    TOOL_CALL = "tool_call"
    REASONING = "reasoning"
    OUTPUT = "output"


class CheckStatus(StrEnum):
    """What became of one check; only `ran` counts as checked."""

    RAN = "ran"
    TIMED_OUT = "timed_out"
    ERRORED = "errored"
    SKIPPED = "skipped"


class CheckRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line of the guard manifest: an expected check, and what became of it."""

    detector: str
    version: str
    surface: Surface
    status: CheckStatus
    elapsed_ms: float = 0.0
    findings: int = 0
    on_failure: OnFailure = OnFailure.CLOSED
    reason: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The policy's answer about one surface of one exchange, and everything needed to explain it.

    `effect` is what the rules say; it is acted on only when `mode` is `enforce`. `is_protected` is False when
    no policy was loaded: never a green state. `outcome` is the declared failure
    outcome that was applied, if a check failed. `shadow_effect` is what the rules that are themselves in
    shadow mode would have done; it is never acted on.
    """

    effect: Effect
    surface: Surface
    mode: Mode = Mode.ENFORCE
    rule_ids: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    policy_digest: str = ""
    reason: str = ""
    reference: str = ""
    elapsed_ms: float = 0.0
    is_protected: bool = True
    outcome: OnFailure | None = None
    shadow_effect: Effect = Effect.ALLOW
    shadow_rule_ids: tuple[str, ...] = ()

    @property
    def enforced_effect(self) -> Effect:
        """What is acted on: the effect, or allow in shadow mode."""
        return self.effect if self.mode is Mode.ENFORCE else Effect.ALLOW
