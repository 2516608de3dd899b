"""`injection.encoder`: a small transformer over windows of the readings of a text, read by its origin.

The second tier after `injection.linear`. It needs the extra `ml` and the package `stanchion-ml-weights`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.errors import IntegrityError, JudgementError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind, Severity
from stanchion.core.origin import Origin
from stanchion.detectors import classifier, hashing
from stanchion.detectors.capping import covering, rest_reason, worst_apart_of
from stanchion.detectors.encoder_model import (
    EncoderManifest,
    EncoderModel,
    OperatingPoint,
    check_installed,
    load_encoder,
    read_manifest,
)
from stanchion.detectors.linear import WEIGHTS as LINEAR_WEIGHTS
from stanchion.detectors.linear import highest_logit, readings
from stanchion.detectors.scan import Scanner
from stanchion.detectors.views import TextViewSet

ID = "injection.encoder"
CODE_VERSION = 1
MOST_WINDOWS = 256
MOST_CHARACTERS = 400_000  # of all readings together
MAX_FINDINGS = 16
DOUBLING = 0.35  # logits that a window must have more for each doubling of the number of windows
LARGEST_ALLOWANCE = 1.5

_INDIRECT, _DIRECT, _JAILBREAK = "injection.indirect", "injection.direct", "injection.jailbreak"


class _Suspect(NamedTuple):
    logit: float
    view: str
    start: int  # offsets in the original
    end: int
    is_jailbreak: bool


class EncoderDetector:
    """Finds injections and jailbreaks by what a text says, in windows of about a hundred words.

    The logit of the linear model is added unless `with_linear` is off: the two err on different texts. A
    text of more than `most_windows` windows is not read at all: that is an error, and the policy says what
    follows from it (`fail`, `stand_in`). Only findings of at least `minimum` are reported; 0.5 is the frozen
    operating point of every origin.
    """

    id = ID
    categories = (_DIRECT, _INDIRECT, _JAILBREAK)
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MILLISECONDS
    is_pure = True

    def __init__(
        self,
        *,
        minimum: float = 0.5,
        with_linear: bool = True,
        most_windows: int = MOST_WINDOWS,
        threads: int = 1,
    ) -> None:
        _check_options(minimum, most_windows, threads)
        manifest = read_manifest()
        self._point = manifest.with_linear if with_linear else manifest.alone
        self._with_linear = with_linear
        if with_linear:
            _check_linear(self._point)
        self.version = version_of(manifest, self._point)
        self._minimum = minimum
        self._most_windows = most_windows
        self._threads = threads

    def prepare(self) -> None:
        """Load the weights, those of the linear model too where it is added, so that no text waits for it.

        Raises:
            IntegrityError: when the weights are not the right ones.
        """
        load_encoder(self._threads)
        if self._with_linear:
            classifier.load_linear(LINEAR_WEIGHTS)
            hashing.prepare()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """The worst windows that do not overlap, by position; at most `MAX_FINDINGS`, one for the rest.

        Raises:
            JudgementError: when the text is longer than what is read.
            IntegrityError: when the weights are not the right ones.
        """
        model = load_encoder(self._threads)
        view_set, origin = detector_input.view_set, detector_input.origin
        suspects = list(window_logits(model, view_set, most_windows=self._most_windows))
        if not suspects:
            return []
        added = -allowance(len(suspects))
        if self._with_linear:
            added += self._point.added(linear_logit(view_set))
        suspects = [suspect._replace(logit=suspect.logit + added) for suspect in suspects]
        found = [s for s in suspects if self._point.score(s.logit, origin.value) >= self._minimum]
        kept, left = worst_apart_of(found, lambda suspect: suspect.logit, most=MAX_FINDINGS)
        findings = [self._finding(suspect, origin) for suspect in kept]
        if left:
            start, end = covering(left)
            findings.append(self._finding(left[0]._replace(start=start, end=end), origin, rest=len(left)))
        return sorted(findings, key=lambda finding: (finding.location.start, finding.location.end))

    def _finding(self, suspect: _Suspect, origin: Origin, *, rest: int = 0) -> Finding:
        kind = _JAILBREAK if suspect.is_jailbreak else _DIRECT
        reason = f"says what attacks say, read as {origin.value}"
        return Finding(
            detector=self.id,
            version=self.version,
            category=_INDIRECT if origin.is_untrusted else kind,
            score=round(self._point.score(suspect.logit, origin.value), 6),
            location=Location(start=suspect.start, end=suspect.end),
            severity=Severity.HIGH,
            view=suspect.view,
            reason=rest_reason(reason, rest) if rest else reason,
        )


def version_of(manifest: EncoderManifest, point: OperatingPoint) -> str:
    """Changes with the code, the weights, the linear weights and the thresholds."""
    calibrated = digest(msgspec.to_builtins(point))
    return f"{CODE_VERSION}.{manifest.version}+{short(manifest.model.digest)}.{short(calibrated)}"


def window_logits(
    model: EncoderModel, view_set: TextViewSet, *, most_windows: int = MOST_WINDOWS
) -> Iterator[_Suspect]:
    """Every window of every reading with its logit; equal windows are computed once.

    Raises:
        JudgementError: when there are more than `most_windows` different ones.
    """
    views = list(readings(view_set))
    size = sum(len(view.text) for view in views)
    if size > MOST_CHARACTERS:
        raise JudgementError(f"{ID}: {size} characters are more than the {MOST_CHARACTERS} that are read.")
    windows = [(view, *window) for view in views for window in model.tokens(view.text).windows()]
    different = {ids for *_, ids in windows}
    if len(different) > most_windows:
        raise JudgementError(
            f"{ID}: {len(different)} windows are more than the {most_windows} that are read.",
            hint="Raise 'most_windows', or name a detector that reads it instead in 'stand_in'.",
        )
    logits = {ids: model.logits(ids) for ids in dict.fromkeys(ids for *_, ids in windows)}
    for view, start, end, ids in windows:
        attack, jailbreak = logits[ids]
        found = view.to_original(start, end)
        yield _Suspect(attack, view.name, *found, is_jailbreak=jailbreak > 0)


def allowance(windows: int) -> float:
    """By how much the windows of a text must beat the threshold: the worst of many is high by chance.

    The same step as the linear model's, `classifier.allowance`.
    """
    return min(DOUBLING * math.log2(max(windows, 1)), LARGEST_ALLOWANCE)


def linear_logit(view_set: TextViewSet) -> float:
    """The linear model's logit for a text; minus infinity for one without words."""
    return highest_logit(classifier.load_linear(LINEAR_WEIGHTS), view_set)


def _check_options(minimum: float, most_windows: int, threads: int) -> None:
    if not 0.0 <= minimum <= 1.0:
        raise UsageError(f"detector {ID!r}: minimum {minimum} is not a score.", hint="Give 0 to 1.")
    for name, value in (("most_windows", most_windows), ("threads", threads)):
        if value < 1:
            raise UsageError(f"detector {ID!r}: {name} {value} is too small.", hint="Give 1 or more.")


def _check_linear(point: OperatingPoint) -> None:
    found = classifier.read_manifest(LINEAR_WEIGHTS).digest
    if found != point.linear_digest:
        raise IntegrityError(
            f"detector {ID!r} was calibrated with linear weights {short(point.linear_digest)}, "
            f"these are {short(found)}.",
            hint="Set 'with_linear' to false, or run: python training/train_encoder.py --only calibrate",
        )


def create(
    *,
    scanner: Scanner,
    minimum: float = 0.5,
    with_linear: bool = True,
    most_windows: int = MOST_WINDOWS,
    threads: int = 1,
) -> EncoderDetector:
    """The detector; it needs no patterns.

    Args:
        scanner: not used.
        minimum: the lowest score that is reported.
        with_linear: whether the linear model's logit is added.
        most_windows: of a text with more windows nothing is said: the check fails.
        threads: of one run; more make one answer quicker and a busy server slower.

    Raises:
        UsageError: when an option is out of range, or something is not installed.
        IntegrityError: when the linear weights are not those it was calibrated with.
    """
    check_installed()
    return EncoderDetector(
        minimum=minimum, with_linear=with_linear, most_windows=most_windows, threads=threads
    )
