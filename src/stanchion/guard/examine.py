"""From texts to decisions: sizes, checks, rules, and what a failed check means, surface by surface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.decision import CheckRecord, CheckStatus, Decision, Effect, Mode, OnFailure, Surface
from stanchion.core.finding import Finding, Location, Severity
from stanchion.core.taxonomy import taxonomy
from stanchion.guard.checks import Check, CheckInput, Rows
from stanchion.guard.fields import Field, TextField, UncheckedPart
from stanchion.guard.frames import LONGEST, FieldScan
from stanchion.guard.framing import FramedChecks
from stanchion.guard.joined_messages import Places
from stanchion.guard.manifest_lines import ManifestLines
from stanchion.guard.media import media_word
from stanchion.guard.plan import Plan
from stanchion.guard.policy_model import Handling, Policy
from stanchion.guard.rules import FoundIn, Rule, RuleHit, Ruling
from stanchion.guard.workers import Door

LIMITS = "guard.limits"
PARTS = "guard.parts"
TOOLS = "guard.tools"
VERSION = "1"
FAILED = "check.failed"
# On these surfaces a text that must not be seen is taken out and the exchange goes on.
TAKEN_OUT = frozenset({Surface.RETRIEVED, Surface.TOOL_RESULT, Surface.TOOL_DEFINITION, Surface.REASONING})


_SURFACES = tuple(Surface)
_SAID = frozenset({Surface.OUTPUT, Surface.REASONING, Surface.TOOL_CALL})
_NOTHING_SAID = Ruling()
_ALLOW = Effect.ALLOW


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all texts of one exchange."""

    context: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    session_id: str = ""
    locale: str = ""
    tenant: str = ""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for an effect: what raised it, and the category whose words the user is told."""

    effect: Effect
    rule_id: str
    category: str
    reason: str
    message: str = ""


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """One field with what was found in it; `effect` is the strictest that concerns this field alone."""

    field: TextField
    ruling: Ruling
    effect: Effect
    said: tuple[Finding, ...] = ()


class SurfaceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on one surface, the ground that decided it, and its fields."""

    decision: Decision
    ground: Ground | None
    examined: tuple[Examined, ...]

    @property
    def is_silent(self) -> bool:
        """Whether no rule says anything of any field."""
        return self.ground is None or not any(one.ruling.hits for one in self.examined)


class _Gathered(msgspec.Struct):
    """What speaks against one surface, as it is found."""

    grounds: list[Ground]
    findings: list[Finding]


class Passing(msgspec.Struct):
    """What was checked of the texts of one answer while they came: frames by field, checks given up."""

    scans: dict[str, FieldScan] = msgspec.field(default_factory=dict)
    given_up: set[str] = msgspec.field(default_factory=set)


class Examiner:
    """Decides about fields by one policy and one plan of checks."""

    def __init__(self, policy: Policy, plan: Plan, checks: FramedChecks, *, clock: Clock, ids: Ids) -> None:
        self._policy = policy
        self._plan = plan
        self._checks = checks
        self._clock = clock
        self._ids = ids
        self._always_read = min(policy.limits.text_characters, policy.limits.output_characters)
        self._lines = {surface: ManifestLines(surface, plan.on(surface)) for surface in _SURFACES}

    async def examine(
        self,
        door: Door,
        fields: Iterable[Field],
        subject: Subject,
        *,
        grounds: Mapping[Surface, Sequence[tuple[Ground, Finding]]] | None = None,
        passing: Passing | None = None,
    ) -> dict[Surface, SurfaceOutcome]:
        """The outcome on every surface that the fields stand on, in the order of `Surface`.

        `grounds` are what was decided elsewhere (tool rules), with the finding that says so; `passing` is
        what was checked of the texts while they came.
        """
        by_surface: dict[Surface, list[Field]] = {}
        characters = parts = 0
        for field in fields:
            if field.surface in by_surface:
                by_surface[field.surface].append(field)
            else:
                by_surface[field.surface] = [field]
            if not isinstance(field, TextField):
                parts += 1
            elif not field.pieces:
                parts += 1
                characters += len(field.text)
        limits = self._policy.limits
        too_much: Sequence[tuple[Ground, Finding]] = ()
        if characters > limits.total_characters or parts > limits.parts:
            too_much = self._beyond_totals(characters, parts)
        outcomes = {}
        passing = passing or Passing()
        for surface in _SURFACES:
            given = grounds.get(surface, ()) if grounds else ()
            if surface in by_surface or given:
                outcomes[surface] = await self._surface(
                    door,
                    surface,
                    by_surface.get(surface, ()),
                    subject,
                    given=[*too_much, *given] if given else too_much,
                    passing=passing,
                )
        return outcomes

    async def _surface(
        self,
        door: Door,
        surface: Surface,
        fields: Sequence[Field],
        subject: Subject,
        *,
        given: Sequence[tuple[Ground, Finding]],
        passing: Passing,
    ) -> SurfaceOutcome:
        started_ns = self._clock.monotonic_ns()
        gathered = _Gathered([], [])
        for ground, finding in given:
            gathered.grounds.append(ground)
            gathered.findings.append(finding)
        texts = self._readable(fields, gathered)
        inputs = []
        for text in texts:
            inputs.append(_check_input(text, subject))  # noqa: PERF401 - a comprehension is a call more
        rows, overlong = await self._checks.run(
            door, surface, inputs, given_up=passing.given_up, scans=passing.scans
        )
        for number in sorted(overlong) if overlong else ():
            ground, finding = _limit(
                "unsettled_characters", len(texts[number].text), LONGEST, field=texts[number]
            )
            gathered.grounds.append(ground)
            gathered.findings.append(finding)
        outcome = None
        records = self._lines[surface].silent(rows)
        if records is not None:
            examined = []
            for text in texts:
                nothing = Examined(field=text, ruling=_NOTHING_SAID, effect=_ALLOW)
                examined.append(nothing)
        else:
            records = self._lines[surface].of(rows, self._counted(texts, rows))
            examined = self._examined(texts, rows, gathered)
            outcome, failures = _failures(self._plan.on(surface), records)
            gathered.grounds.extend(failures)
        if len(gathered.grounds) > 1:
            gathered.grounds.sort(key=_strictest_first)
        decision = self._decision(
            surface, gathered, records, examined, outcome=outcome, started_ns=started_ns
        )
        return SurfaceOutcome(
            decision=decision,
            ground=gathered.grounds[0] if gathered.grounds else None,
            examined=tuple(examined),
        )

    def _counted(self, texts: Sequence[TextField], rows: Rows) -> list[int]:
        """How many findings of each check count."""
        counts = self._policy.table.counts
        return [
            sum(
                [
                    counts(one, text.origin)
                    for text, result in zip(texts, results, strict=True)
                    for one in result.findings
                ]
            )
            for results in zip(*rows, strict=True)
        ]

    def _examined(self, texts: Sequence[TextField], rows: Rows, gathered: _Gathered) -> list[Examined]:
        """Each text with what the rules say of what was found in it."""
        examined: list[Examined] = []
        for text, row in zip(texts, rows, strict=True):
            found = [one for result in row for one in result.findings]
            counted = [one for one in found if self._policy.table.counts(one, text.origin)]
            if text.pieces and counted:
                counted = _not_said(counted, text, examined)
            one, grounds = self.judged(text, counted)
            examined.append(one)
            gathered.findings.extend(counted)
            gathered.grounds.extend(grounds)
        return examined

    def _decision(
        self,
        surface: Surface,
        gathered: _Gathered,
        records: tuple[CheckRecord, ...],
        examined: Sequence[Examined],
        *,
        outcome: OnFailure | None,
        started_ns: int,
    ) -> Decision:
        grounds = gathered.grounds
        shadow: list[Rule] = []
        for one in examined:
            if one.ruling is not _NOTHING_SAID:
                shadow.extend([hit.rule for hit in one.ruling.shadow_hits])
        if len(shadow) > 1:
            shadow.sort(key=lambda rule: -rule.effect.rank)
        return Decision(
            effect=grounds[0].effect if grounds else _ALLOW,
            surface=surface,
            mode=self._policy.mode,
            rule_ids=tuple(dict.fromkeys([ground.rule_id for ground in grounds])) if grounds else (),
            findings=tuple(gathered.findings),
            checks=records,
            policy_digest=self._policy.digest,
            reason=grounds[0].reason if grounds else "",
            reference=self._ids.new("dec"),
            shadow_effect=shadow[0].effect if shadow else _ALLOW,
            shadow_rule_ids=tuple(dict.fromkeys([rule.id for rule in shadow])) if shadow else (),
            outcome=outcome,
            elapsed_ms=(self._clock.monotonic_ns() - started_ns) / 1e6,
        )

    def _readable(self, fields: Sequence[Field], gathered: _Gathered) -> list[TextField]:
        """The texts that may be checked; what stands against the others is written down."""
        is_refused = bool(gathered.grounds) and any(g.category == "input.limit" for g in gathered.grounds)
        texts = []
        for field in fields:
            if not is_refused and isinstance(field, TextField) and len(field.text) <= self._always_read:
                texts.append(field)
                continue
            fault = self._beyond_reach(field)
            if fault is not None:
                gathered.grounds.append(fault[0])
                gathered.findings.append(fault[1])
            elif isinstance(field, TextField) and not is_refused:
                texts.append(field)
        return texts

    def prepare_streams(self) -> None:
        """Get ready for texts that come in pieces, in the background."""
        self._checks.prepare()

    def whole(self, surface: Surface) -> tuple[Check, ...]:
        """The checks of a surface that streams, or parts of them, that need the whole text."""
        return self._checks.whole(surface)

    def scan(self, field: TextField, subject: Subject, passing: Passing) -> FieldScan:
        """The frames of a text that will come in pieces; `examine` counts it when given `passing`."""
        scan = self._checks.scan(field.surface, _check_input(field, subject), passing.given_up)
        passing.scans[field.field] = scan
        return scan

    def judged(
        self, field: TextField, findings: Sequence[Finding], *, offset: int = 0
    ) -> tuple[Examined, list[Ground]]:
        """What the rules say of findings in a field; `field.text` begins at `offset` of the field."""
        findings = [one for one in findings if self._policy.table.counts(one, field.origin)]
        ruling = self._policy.table.judge(
            FoundIn(
                finding=finding,
                surface=field.surface,
                origin=field.origin,
                text=field.text[finding.location.start - offset : finding.location.end - offset],
            )
            for finding in findings
        )
        grounds = [_ground(hit, field) for hit in ruling.hits]
        effect = max((ground.effect for ground in grounds), key=lambda e: e.rank, default=Effect.ALLOW)
        return Examined(field=field, ruling=ruling, effect=effect, said=tuple(findings)), grounds

    def _beyond_totals(self, characters: int, parts: int) -> list[tuple[Ground, Finding]]:
        limits = self._policy.limits
        found = []
        for name, value in (("total_characters", characters), ("parts", parts)):
            limit = getattr(limits, name)
            if value > limit:
                found.append(_limit(name, value, limit))
        return found

    def _beyond_reach(self, field: Field) -> tuple[Ground, Finding] | None:
        """What stands against a field before any check: its size, or that no check can read it."""
        if isinstance(field, UncheckedPart):
            return self._unchecked(field)
        is_output = field.surface in _SAID
        limits = self._policy.limits
        limit = limits.output_characters if is_output else limits.text_characters
        length = 0 if field.pieces else len(field.text)  # each piece has its own field
        if length <= limit:
            return None
        return _limit("output_characters" if is_output else "text_characters", length, limit, field=field)

    def _unchecked(self, part: UncheckedPart) -> tuple[Ground, Finding]:
        if part.kind == "media":
            is_allowed, reason = media_word(self._policy.media, part)
        else:
            handling: Handling = getattr(self._policy, part.kind)
            is_allowed = handling is Handling.ALLOW
            reason = f"a part of kind {part.kind} cannot be checked; the policy says {handling.value}."
        effect = Effect.ALLOW if is_allowed else Effect.BLOCK
        ground = Ground(effect=effect, rule_id=part.kind, category="input.media", reason=reason)
        return ground, own_finding(PARTS, "input.media", field=part.field, rule=part.kind, reason=reason)


def own_finding(
    detector: str, category: str, *, field: str, rule: str, reason: str, length: int = 0
) -> Finding:
    """A finding of the guard itself about a whole field."""
    return Finding(
        detector=detector,
        version=VERSION,
        category=category,
        score=1.0,
        location=Location(start=0, end=length, field=field, line=1, column=1),
        severity=taxonomy()[category].severity if category in taxonomy() else Severity.MEDIUM,
        rule=rule,
        reason=reason,
    )


def _strictest_first(ground: Ground) -> int:
    return -ground.effect.rank


def _limit(name: str, value: int, limit: int, *, field: TextField | None = None) -> tuple[Ground, Finding]:
    reason = f"{value:,} {name.replace('_', ' ')} are beyond the limit of {limit:,}."
    ground = Ground(effect=Effect.BLOCK, rule_id=f"limits.{name}", category="input.limit", reason=reason)
    place, length = ("", 0) if field is None else (field.field, len(field.text))
    return ground, own_finding(
        LIMITS, "input.limit", field=place, rule=f"limits.{name}", reason=reason, length=length
    )


def _not_said(findings: Sequence[Finding], joined: TextField, examined: Sequence[Examined]) -> list[Finding]:
    """Those findings in a text over several parts that were not made in one of its parts already."""
    known: set[tuple[Any, ...]] = set()
    for one in examined:
        if one.said:
            before = Places(one.field.pieces) if one.field.pieces else None
            known.update([_identity(found, one.field, before) for found in one.said])
    places = Places(joined.pieces)
    return [
        found
        for found in findings
        if _identity(found, joined, places) not in known
        and not places.is_of_cut(found.location.start, found.location.end)
    ]


def _identity(found: Finding, field: TextField, places: Places | None) -> tuple[Any, ...]:
    """What was found, and where in the parts: the same for a part alone and for a text over several."""
    start, end = found.location.start, found.location.end
    ends = ((field.field, start), (field.field, end)) if places is None else places.ends_of(start, end)
    return found.detector, found.rule, found.category, *ends


def _ground(hit: RuleHit, field: TextField) -> Ground:
    finding = hit.found.finding
    effect = hit.rule.effect
    reason = f"rule {hit.rule.id}: {finding.category} by {finding.detector}"
    if not _can_be_done(effect, finding, field):
        reason += f"; the rule says {effect.value}, but this text cannot be rewritten"
        effect = Effect.BLOCK
    return Ground(
        effect=effect,
        rule_id=hit.rule.id,
        category=finding.category,
        reason=reason,
        message=hit.rule.message,
    )


def _can_be_done(effect: Effect, finding: Finding, field: TextField) -> bool:
    """Whether a text that the effect changes can be changed, and it is known where."""
    if effect is Effect.REDACT:
        has_extent = finding.location.start < finding.location.end or not field.text
        return field.is_rewritable and has_extent
    return effect is not Effect.REPLACE or field.is_rewritable or field.surface not in TAKEN_OUT


def _check_input(field: TextField, subject: Subject) -> CheckInput:
    return CheckInput(
        field=field.field,
        text=field.text,
        origin=field.origin,
        context=dict(subject.context),
        session_id=subject.session_id,
        locale=subject.locale,
        tenant=subject.tenant,
    )


def _failures(
    checks: Sequence[Check], records: Sequence[CheckRecord]
) -> tuple[OnFailure | None, list[Ground]]:
    """The declared outcome of the checks that failed; the strictest one, and the grounds for blocking."""
    status: dict[str, Any] = {record.detector: record.status for record in records}
    outcomes: list[OnFailure] = []
    grounds = []
    for check, record in zip(checks, records, strict=True):
        if record.status not in (CheckStatus.TIMED_OUT, CheckStatus.ERRORED):
            continue
        if check.settings.mode is Mode.SHADOW:
            continue  # it is recorded, and nobody relies on it yet
        outcome = check.settings.fail
        if outcome is OnFailure.DEGRADE and status.get(check.settings.stand_in) is not CheckStatus.RAN:
            outcome = OnFailure.CLOSED
        outcomes.append(outcome)
        if outcome is OnFailure.CLOSED:
            reason = f"check {check.id} {record.status.value} ({record.reason}) and fails closed."
            grounds.append(
                Ground(effect=Effect.BLOCK, rule_id=f"fail.{check.id}", category=FAILED, reason=reason)
            )
    for outcome in (OnFailure.CLOSED, OnFailure.DEGRADE, OnFailure.OPEN):
        if outcome in outcomes:
            return outcome, grounds
    return None, grounds
