"""The effective policy: plain frozen records, after files were merged and checked.

`guard/policy.py` reads files into these; nothing here touches a disk. Every record is part of the policy's
digest, except names and places.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec

from stanchion.core.codec import Digest, digest, to_builtins
from stanchion.core.decision import Effect, Mode, OnFailure, Surface
from stanchion.core.finding import Finding
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import matches
from stanchion.guard.media_rules import MediaRules
from stanchion.guard.retrieval_rules import RetrievalRules
from stanchion.guard.rules import FoundIn, Operator, Rule, RuleTable, Ruling

DEFAULT_THRESHOLD = 0.5
DEFAULT_DEADLINE_MS = 250
EVERY_CATEGORY = "*"
_NOT_IN_DIGEST = ("name", "environment", "sources")


class Handling(StrEnum):
    """What becomes of a part that no check can read."""

    BLOCK = "block"
    ALLOW = "allow"


class Capture(StrEnum):
    """What a record may hold of a text. `none`: digests, offsets, categories and counts only."""

    NONE = "none"
    REDACTED = "redacted"
    RAW = "raw"


class MarkingStyle(StrEnum):
    """How untrusted text is set apart in the prompt."""

    NONE = "none"
    DELIMIT = "delimit"
    DATAMARK = "datamark"
    ENCODE = "encode"


class Guarantee(StrEnum):
    """What is promised about an answer that is given on while it comes.

    `no-leak`: nothing leaves before every check that settles as a text passes has cleared it. `bounded`: at
    most `hold_back` characters wait; what is undecided beyond them leaves, and is counted. `audit-only`:
    nothing waits and nothing is changed; what is found is recorded.
    """

    AUDIT_ONLY = "audit-only"
    BOUNDED = "bounded"
    NO_LEAK = "no-leak"

    @property
    def rank(self) -> int:
        """0 for the one that promises least."""
        return _GUARANTEES.index(self)


_GUARANTEES = (Guarantee.AUDIT_ONLY, Guarantee.BOUNDED, Guarantee.NO_LEAK)


class WholeMessage(StrEnum):
    """How a detector that needs the whole answer is treated while one comes.

    `buffer`: the answer waits for it. `at_end`: it decides when all but the tool calls has left; it can still
    end the stream.
    """

    AT_END = "at_end"
    BUFFER = "buffer"


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for streamed answers. `hold_back` counts characters, for `bounded` only."""

    guarantee: Guarantee = Guarantee.NO_LEAK
    hold_back: int = 2_000


class Views(msgspec.Struct, frozen=True, kw_only=True):
    """What detectors read beyond the usual readings. `rot13`: every text turned by 13 letters, too."""

    rot13: bool = False


class DetectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One detector in this policy.

    `thresholds` maps category selectors to scores and goes before `threshold`; of several selectors the
    longest holds. `surfaces` empty: every surface on which a rule speaks of one of its categories.
    `origin_thresholds` maps a selector of `thresholds`, or `*` for `threshold`, to the scores that hold for
    texts of some origins in its place. `calibrations` are the digests of the files that said these numbers;
    `report_from` is the lowest score that the detector is asked to report for them.
    `mode` shadow: what it finds, and its failure, is recorded and changes nothing.
    `stand_in` is the detector whose answer counts when this one fails and `fail` is `degrade`. `stream` is
    for what of a detector needs the whole answer.
    """

    enabled: bool = True
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    threshold: float = DEFAULT_THRESHOLD
    thresholds: dict[str, float] = msgspec.field(default_factory=dict)
    origin_thresholds: dict[str, dict[Origin, float]] = msgspec.field(default_factory=dict)
    calibrations: tuple[Digest, ...] = ()
    report_from: float | None = None
    fail: OnFailure = OnFailure.CLOSED
    stand_in: str = ""
    deadline_ms: int = DEFAULT_DEADLINE_MS
    surfaces: tuple[Surface, ...] = ()
    stream: WholeMessage = WholeMessage.AT_END
    mode: Mode = Mode.ENFORCE

    def threshold_for(self, category: str, origin: Origin | None = None) -> float:
        """The score from which a finding of this category counts, in a text of this origin."""
        fitting = [selector for selector in self.thresholds if matches(selector, category)]
        selector = max(fitting, key=len) if fitting else EVERY_CATEGORY
        general = self.thresholds[selector] if fitting else self.threshold
        own = self.origin_thresholds.get(selector)
        return general if own is None or origin is None else own.get(origin, general)

    @property
    def lowest_threshold(self) -> float:
        """The lowest score from which anything counts."""
        by_origin = (score for own in self.origin_thresholds.values() for score in own.values())
        return min([self.threshold, *self.thresholds.values(), *by_origin])

    @property
    def creation_options(self) -> dict[str, Any]:
        """The options that the detector is made with."""
        if self.report_from is None:
            return self.options
        own = self.options.get("minimum")
        own = own if isinstance(own, int | float) else 1.0
        least = min(self.report_from, self.lowest_threshold, own)
        return {**self.options, "minimum": least}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes beyond which nothing is checked and nothing passes. Lengths are code points."""

    text_characters: int = 200_000
    total_characters: int = 1_000_000
    output_characters: int = 200_000
    parts: int = 2_000
    argument_depth: int = 32


class Redaction(msgspec.Struct, frozen=True, kw_only=True):
    """How redaction is done where a rule does not say. Seconds count from a vault's last use."""

    operator: Operator = Operator.REPLACE
    mask_character: str = "*"
    mask_keep_last: int = 0
    vault_ttl_s: int = 3_600


class SafeCompletions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user reads instead. `messages` maps category selectors to the operator's own words."""

    language: str = "en"
    style: str = "offer_help"
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    messages: dict[str, str] = msgspec.field(default_factory=dict)


class ArgumentRule(msgspec.Struct, frozen=True, kw_only=True):
    """What one argument of a tool may be; `otherwise` applies when it is something else.

    `allowed` are shell-style patterns over the value's text, `pattern` an RE2 expression that must match all
    of it. `minimum` and `maximum` are inclusive and demand a number.
    """

    allowed: tuple[str, ...] = ()
    pattern: str = ""
    minimum: float | None = None
    maximum: float | None = None
    max_characters: int | None = None
    required: bool = False
    otherwise: Effect = Effect.BLOCK


class ToolRule(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy says about one tool. Arguments not named are free unless `only_named_arguments`."""

    effect: Effect = Effect.ALLOW
    arguments: dict[str, ArgumentRule] = msgspec.field(default_factory=dict)
    only_named_arguments: bool = False
    calls_per_session: int | None = None
    message: str = ""


class ToolRules(msgspec.Struct, frozen=True, kw_only=True):
    """Which tools may be called. `default` is for tools that are not named."""

    default: Effect = Effect.BLOCK
    named: dict[str, ToolRule] = msgspec.field(default_factory=dict)


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """A named person's leave to be looser than an extended policy, for named settings, until a day.

    `covers` are paths such as `detectors.pii.threshold` or `rules.secrets-in`; what lies below is covered.
    """

    id: str
    covers: tuple[str, ...]
    reason: str
    approved_by: str
    expires: str


class Loosening(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that is looser than in an extended policy, and the waiver that permits it."""

    path: tuple[str, ...]
    before: str
    after: str
    waiver: str = ""

    @property
    def name(self) -> str:
        """The path as a waiver writes it."""
        return ".".join(self.path)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file that went into the policy."""

    file: str
    digest: Digest


class Policy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What turns findings into a decision: one effective policy."""

    name: str = ""
    environment: str = ""
    mode: Mode = Mode.ENFORCE
    detectors: dict[str, DetectorSettings] = msgspec.field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    media: MediaRules = MediaRules()
    opaque: Handling = Handling.BLOCK
    redacted_reasoning: Handling = Handling.ALLOW
    retrieval: RetrievalRules = RetrievalRules()
    redaction: Redaction = Redaction()
    streaming: Streaming = Streaming()
    views: Views = Views()
    safe_completions: SafeCompletions = SafeCompletions()
    capture: Capture = Capture.NONE
    marking: MarkingStyle = MarkingStyle.NONE
    tools: ToolRules = ToolRules()
    waivers: tuple[Waiver, ...] = ()
    loosenings: tuple[Loosening, ...] = ()
    sources: tuple[Source, ...] = ()

    @cached_property
    def digest(self) -> Digest:
        """The identity of what the policy says; names, comments, order of keys and places play no part."""
        record: dict[str, Any] = to_builtins(self)
        return digest({key: value for key, value in record.items() if key not in _NOT_IN_DIGEST})

    @property
    def keeps_values(self) -> bool:
        """Whether a rule puts tokens in the place of users' values, and keeps those for the session."""
        return any(
            rule.effect is Effect.REDACT
            and (rule.operator or self.redaction.operator) is Operator.VAULT
            and (not rule.when.surfaces or Surface.INPUT in rule.when.surfaces)
            for rule in self.rules
        )

    @property
    def limits_calls(self) -> bool:
        """Whether a tool may be called so many times in a session."""
        return any(rule.calls_per_session is not None for rule in self.tools.named.values())

    @cached_property
    def table(self) -> RuleTable:
        """The rules, ready to judge."""
        shadowed = {name for name, one in self.detectors.items() if one.mode is Mode.SHADOW}
        return RuleTable(self.rules, threshold=self.threshold, shadowed=shadowed)

    def threshold(self, detector: str, category: str, origin: Origin | None = None) -> float:
        """The score from which a finding counts; 0 for what the guard itself finds (limits, media)."""
        settings = self.detectors.get(detector)
        if settings is not None:
            return settings.threshold_for(category, origin)
        return 0.0 if detector.startswith("guard.") else DEFAULT_THRESHOLD

    def judge(
        self, findings: Iterable[Finding], *, surface: Surface, origin: Origin, text: str | None = None
    ) -> Ruling:
        """The rules' word on the findings of one text; `text` lets exemptions read what was found."""
        return self.table.judge(
            FoundIn(
                finding=finding,
                surface=surface,
                origin=origin,
                text=None if text is None else text[finding.location.start : finding.location.end],
            )
            for finding in findings
        )

    def speaks_of(self, categories: Iterable[str], surface: Surface) -> bool:
        """Whether some rule could apply, on this surface, to one of these categories."""
        known = tuple(categories)
        return any(
            (not rule.when.surfaces or surface in rule.when.surfaces)
            and any(rule.when.covers_category(category) for category in known)
            for rule in self.rules
        )

    @property
    def enabled_detectors(self) -> dict[str, DetectorSettings]:
        """The detectors that run, in the file's order."""
        return {name: settings for name, settings in self.detectors.items() if settings.enabled}
