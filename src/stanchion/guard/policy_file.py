"""The policy file as a person writes it. What each option means is told in `docs/reference/policy.md`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from stanchion.core.decision import Mode, OnFailure, Surface
from stanchion.core.errors import UnknownNameError
from stanchion.core.finding import Severity
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import check_selector
from stanchion.files.references import Secret
from stanchion.files.schema import FieldError, FileModel
from stanchion.guard.media_rules import KINDS, MediaHandling
from stanchion.guard.policy_model import Capture, Guarantee, Handling, MarkingStyle, WholeMessage
from stanchion.guard.retrieval_rules import CitationHandling
from stanchion.guard.rules import Operator

OWN_OCCASIONS = ("approval", "check.failed", "default")  # what users are told about besides findings
TextEffect = Literal["allow", "redact", "replace", "route", "require_approval", "block"]
ToolEffect = Literal["allow", "require_approval", "block"]
Style = Literal["short", "offer_help", "hand_over"]
OriginName = Origin | Literal["untrusted"]


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _known_category(selector: str) -> str:
    try:
        check_selector(selector)
    except UnknownNameError as error:
        raise FieldError(error.message, hint=error.hint) from error
    return selector


def _re2_pattern(pattern: str) -> str:
    import re2

    try:
        re2.compile(pattern)
    except re2.error as error:
        reason = error.args[0] if error.args else "not understood"
        shown = reason.decode() if isinstance(reason, bytes) else reason
        raise FieldError(f"not an RE2 pattern: {shown}") from error
    return pattern


def _known_occasion(selector: str) -> str:
    return selector if selector in OWN_OCCASIONS else _known_category(selector)


MessageSelector = Annotated[str, AfterValidator(_known_occasion)]
CategorySelector = Annotated[str, AfterValidator(_known_category)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
SourcePattern = Annotated[str, Field(min_length=1, max_length=500)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class SelectorEntry(FileModel):
    """`when` and `unless` of a rule."""

    category: Annotated[tuple[CategorySelector, ...], BeforeValidator(_as_list)] = ()
    surface: Annotated[tuple[Surface, ...], BeforeValidator(_as_list)] = ()
    origin: Annotated[tuple[OriginName, ...], BeforeValidator(_as_list)] = ()
    detector: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    text: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    min_score: Fraction = 0.0
    min_severity: Severity = Severity.INFO


class RuleEntry(FileModel):
    """One rule."""

    id: Identifier
    when: SelectorEntry = SelectorEntry()
    unless: SelectorEntry | None = None
    effect: TextEffect
    redact: Operator | None = None
    message: str = ""
    mode: Mode = Mode.ENFORCE

    @model_validator(mode="after")
    def _operator_needs_redact(self) -> RuleEntry:
        if self.redact is not None and self.effect != "redact":
            raise FieldError(
                f"'redact' is given, but the effect is {self.effect!r}.",
                hint="Write 'effect: redact', or leave 'redact' out.",
            )
        return self


def _as_entries(value: Any) -> Any:
    """A calibration by its file's name alone, by a mapping, or a list of these."""
    listed = value if isinstance(value, list) else [value]
    return tuple({"file": one} if isinstance(one, str) else one for one in listed)


class CalibrationEntry(FileModel):
    """A calibration: its file, relative to the policy, and the digest it must have."""

    file: Annotated[str, Field(min_length=1)]
    digest: DigestText | None = None


class DetectorEntry(FileModel):
    """One detector."""

    enabled: bool = True
    options: dict[str, Any] = Field(default_factory=dict)
    threshold: Fraction = 0.5
    thresholds: dict[CategorySelector, Fraction] = Field(default_factory=dict)
    calibration: Annotated[tuple[CalibrationEntry, ...], BeforeValidator(_as_entries)] = ()
    fail: OnFailure = OnFailure.CLOSED
    stand_in: str = ""
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] = 250
    stream: WholeMessage = WholeMessage.AT_END
    surfaces: Annotated[tuple[Surface, ...], BeforeValidator(_as_list)] = ()
    mode: Mode = Mode.ENFORCE

    @model_validator(mode="after")
    def _one_source_of_thresholds(self) -> DetectorEntry:
        if self.calibration and self.model_fields_set & {"threshold", "thresholds"}:
            raise FieldError(
                "both a threshold and a calibration are given.",
                hint="Leave the threshold out: the calibration says it.",
            )
        return self


class LimitsEntry(FileModel):
    """Sizes."""

    text_characters: Annotated[int, Field(ge=1, le=100_000_000)] = 0
    total_characters: Annotated[int, Field(ge=1, le=100_000_000)] = 0
    output_characters: Annotated[int, Field(ge=1, le=100_000_000)] = 0
    parts: Annotated[int, Field(ge=1, le=1_000_000)] = 0
    argument_depth: Annotated[int, Field(ge=1, le=200)] = 0


def _as_media(value: Any) -> Any:
    """One word stands for every kind; `allow` also for parts that only point somewhere."""
    if not isinstance(value, str):
        return value
    return {**dict.fromkeys(KINDS, value), "remote": value == MediaHandling.ALLOW.value}


class MediaEntry(FileModel):
    """What becomes of parts that are not text, by kind."""

    text: MediaHandling = MediaHandling.EXTRACT
    image: MediaHandling = MediaHandling.BLOCK
    audio: MediaHandling = MediaHandling.BLOCK
    video: MediaHandling = MediaHandling.BLOCK
    file: MediaHandling = MediaHandling.BLOCK
    remote: bool = False
    max_bytes: Annotated[int, Field(ge=1, le=1_000_000_000)] = 20_000_000


class QuarantineEntry(FileModel):
    """What may not come in."""

    digests: Annotated[tuple[DigestText, ...], BeforeValidator(_as_list)] = ()
    sources: Annotated[tuple[SourcePattern, ...], BeforeValidator(_as_list)] = ()


class RetrievalEntry(FileModel):
    """What holds for retrieved documents."""

    sources: Annotated[tuple[SourcePattern, ...], BeforeValidator(_as_list)] = ("*",)
    max_age_days: Annotated[int, Field(ge=0, le=36_500)] | None = None
    quarantine: QuarantineEntry = QuarantineEntry()
    max_documents: Annotated[int, Field(ge=0, le=10_000)] = 50
    document_characters: Annotated[int, Field(ge=1, le=100_000_000)] = 50_000
    total_characters: Annotated[int, Field(ge=1, le=100_000_000)] = 200_000
    citations: CitationHandling = CitationHandling.BLOCK


class RedactionEntry(FileModel):
    """How redaction is done."""

    operator: Operator = Operator.REPLACE
    mask_character: Annotated[str, Field(min_length=1, max_length=1)] = "*"
    mask_keep_last: Annotated[int, Field(ge=0, le=4)] = 0
    vault_ttl_s: Annotated[int, Field(ge=1, le=2_592_000)] = 3_600
    key: Secret | None = None


class StreamingEntry(FileModel):
    """What holds for streamed answers."""

    guarantee: Guarantee = Guarantee.NO_LEAK
    hold_back: Annotated[int, Field(ge=0, le=1_000_000)] = 2_000


class ViewsEntry(FileModel):
    """What detectors read beyond the usual readings."""

    rot13: bool = False


class SafeCompletionsEntry(FileModel):
    """What the user reads instead."""

    language: str = "en"
    style: Style = "offer_help"
    variables: dict[str, str] = Field(default_factory=dict)
    messages: dict[MessageSelector, str] = Field(default_factory=dict)


class ArgumentEntry(FileModel):
    """What one argument of a tool may be."""

    allowed: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    pattern: Annotated[str, AfterValidator(_re2_pattern)] = ""
    minimum: float | None = None
    maximum: float | None = None
    max_characters: Annotated[int, Field(ge=0)] | None = None
    required: bool = False
    otherwise: Literal["require_approval", "block"] = "block"

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> ArgumentEntry:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise FieldError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        return self


class ToolEntry(FileModel):
    """What the policy says about one tool."""

    effect: ToolEffect = "allow"
    arguments: dict[str, ArgumentEntry] = Field(default_factory=dict)
    only_named_arguments: bool = False
    calls_per_session: Annotated[int, Field(ge=0)] | None = None
    message: str = ""


class ToolsEntry(FileModel):
    """Which tools may be called."""

    default: ToolEffect = "block"
    named: dict[str, ToolEntry] = Field(default_factory=dict)


class WaiverEntry(FileModel):
    """Leave to be looser than an extended policy."""

    id: Identifier
    covers: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    approved_by: Annotated[str, Field(min_length=1)]
    expires: datetime.date


class PolicyFile(FileModel):
    """A policy file. Keys that are left out keep what `extends` says, or the built-in default."""

    version: Literal[1]
    name: str = ""
    extends: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    environment: str = ""
    mode: Mode = Mode.ENFORCE
    detectors: dict[str, DetectorEntry] = Field(default_factory=dict)
    rules: tuple[RuleEntry, ...] = ()
    limits: LimitsEntry | None = None
    media: Annotated[MediaEntry, BeforeValidator(_as_media)] = MediaEntry()
    opaque: Handling = Handling.BLOCK
    redacted_reasoning: Handling = Handling.ALLOW
    retrieval: RetrievalEntry | None = None
    redaction: RedactionEntry | None = None
    streaming: StreamingEntry | None = None
    views: ViewsEntry | None = None
    safe_completions: SafeCompletionsEntry | None = None
    capture: Capture = Capture.NONE
    marking: MarkingStyle = MarkingStyle.NONE
    tools: ToolsEntry | None = None
    waivers: tuple[WaiverEntry, ...] = ()


def written(entry: FileModel) -> Mapping[str, Any]:
    """What the file really says: the keys it holds, as plain values."""
    return entry.model_dump(mode="json", exclude_unset=True)
