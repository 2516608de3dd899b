"""`injection.linear`: a linear classifier over windows of the readings of a text, read by its origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stanchion.core.codec import short
from stanchion.core.errors import UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind, Severity
from stanchion.core.origin import Origin
from stanchion.detectors import hashing
from stanchion.detectors.capping import covering, rest_reason, worst_apart_of
from stanchion.detectors.classifier import (
    LONG_WINDOW,
    LinearModel,
    allowance,
    load_linear,
    read_manifest,
    windows_of,
    worst_apart,
)
from stanchion.detectors.hashing import shared_n_grams
from stanchion.detectors.scan import Scanner
from stanchion.detectors.transforms.folding import unmarked
from stanchion.detectors.views import TextView, TextViewSet

ID = "injection.linear"
WEIGHTS = "injection-linear"
BLOCK = 1 << 16  # characters scored at once; blocks overlap by the longest window
MAX_FINDINGS = 16

_INDIRECT, _DIRECT, _JAILBREAK = "injection.indirect", "injection.direct", "injection.jailbreak"
_COMPAT, _UNMARKED = "compat", "unmarked"
DOUBLING, LARGEST_ALLOWANCE = 0.9, 3.5
_SOME = 0.05  # of a reading: so much of it in code is not wording, and a later reading has it in clear
_MUCH = 0.5
_LOWEST = float("-inf")
_NEEDS_SKELETON = frozenset({"confusables", "marks"})


class _Suspect(NamedTuple):
    logit: float
    view: str
    start: int  # offsets in the original
    end: int
    is_jailbreak: bool
    windows: int = 0  # of the rest, which is not told apart: how many there are; 0 for a window of its own


class LinearDetector:
    """Finds injections and jailbreaks by their wording, in the reading of the text that hides least.

    A text from outside (a tool's result, a document) is suspect at a lower logit than a user's words, and a
    system prompt, which is made of instructions, at a much higher one: see the thresholds of the weights.
    Only findings of at least `minimum` are reported; 0.5 is the frozen operating point of every origin.
    """

    id = ID
    categories = (_DIRECT, _INDIRECT, _JAILBREAK)
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(self, *, minimum: float = 0.5) -> None:
        if not 0.0 <= minimum <= 1.0:
            raise UsageError(f"detector {ID!r}: minimum {minimum} is not a score.", hint="Give 0 to 1.")
        manifest = read_manifest(WEIGHTS)
        self.version = f"{manifest.version}+{short(manifest.digest)}"
        self._minimum = minimum
        self._limits: dict[Origin, float] = {}

    def prepare(self) -> None:
        """Load the weights and make the tables of letters, so that no text waits for them.

        Raises:
            IntegrityError: when the weights are not those the manifest names.
        """
        load_linear(WEIGHTS)
        hashing.prepare()

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """The worst windows that do not overlap, by position; at most `MAX_FINDINGS`, one for the rest."""
        model = load_linear(WEIGHTS)
        origin = detector_input.origin
        limit = self._limits.get(origin)
        if limit is None:
            limit = self._limits[origin] = model.logit(self._minimum, origin.value)
        view_set = detector_input.view_set
        suspects: list[_Suspect] = []
        for view in readings(view_set):
            highest = model.highest_of_short(view.text) if limit > _LOWEST else None
            if highest is None or highest >= limit:  # `text_allowance` asks nothing more of a text so short
                suspects.extend(_suspects(model, view, limit, memo=view_set.memo))
        if not suspects:
            return ()
        found = sorted(_capped(suspects), key=lambda s: (s.start, s.end))
        return [self._finding(model, suspect, origin) for suspect in found]

    def _finding(self, model: LinearModel, suspect: _Suspect, origin: Origin) -> Finding:
        kind = _JAILBREAK if suspect.is_jailbreak else _DIRECT
        reason = f"wording of an attack, read as {origin.value}"
        return Finding(
            detector=self.id,
            version=self.version,
            category=_INDIRECT if origin.is_untrusted else kind,
            score=round(model.score(suspect.logit, origin.value), 6),
            location=Location(start=suspect.start, end=suspect.end),
            severity=Severity.HIGH,
            view=suspect.view,
            reason=reason if suspect.windows == 0 else rest_reason(reason, suspect.windows),
        )


def readings(view_set: TextViewSet) -> Iterator[TextView]:
    """The readings that are scored: the text without disguise, then what was hidden in it.

    Of every level of decoding, the text without invisible characters and compatibility forms; a level that is
    in code is left out, since the next one has all of it, what stood in clear included. Look-alikes are
    resolved only where they were mixed into Latin words: the skeleton of a text in another script is not a
    text in any language.
    """
    views = view_set.readings
    if len(views) == 1:
        yield views[0]
        return
    levels: dict[str, dict[str, TextView]] = {}
    for view in views:
        kind, _, how = view.name.partition(":")
        if kind == "folded" and (how == _COMPAT or how.startswith(f"{_COMPAT}+")):
            kind, how = _COMPAT, how[len(_COMPAT) + 1 :]
        levels.setdefault(how, {})["base" if kind in {"raw", "decoded"} else kind] = view
    for number, level in enumerate(levels.values(), start=1):
        if number < len(levels) and max(view.encoded for view in level.values()) >= _SOME:
            continue
        if "spaced" in level and max(view.apart for view in level.values()) >= _MUCH:
            yield level["spaced"]
            continue
        yield from _of_level(level, view_set.signals)


def _of_level(level: dict[str, TextView], signals: frozenset[str]) -> Iterator[TextView]:
    plain, folded = level.get(_COMPAT), level.get("folded")
    if plain is None and folded is not None and not folded.is_skeleton:
        plain, folded = folded, None  # the skeleton changed nothing more
    if plain is None:
        plain = level.get("base")
    if plain is not None:
        plain = _unmarked(plain)
        yield plain
    is_new = folded is not None and (plain is None or folded.text != plain.text)
    if folded is not None and is_new and not signals.isdisjoint(_NEEDS_SKELETON):
        yield folded
    if "spaced" in level:
        yield level["spaced"]


def _unmarked(view: TextView) -> TextView:
    """The reading without marks where it is covered with them: its letters would be those of no language."""
    text, offsets = unmarked(view.text)
    name = f"{view.name}+{_UNMARKED}" if ":" in view.name else f"folded:{_UNMARKED}"
    return view if offsets is None else TextView(name, text, view, offsets)


def text_allowance(size: int) -> float:
    """The allowance of this model, in logits, for a reading of `size` characters.

    Chosen on long technical texts that taught nothing, against attacks of the calibration half put into them.
    """
    return allowance(size, doubling=DOUBLING, largest=LARGEST_ALLOWANCE)


def highest_logit(model: LinearModel, view_set: TextViewSet) -> float:
    """The logit of the worst window of a text, before any threshold; minus infinity for one without words."""
    lowest = _LOWEST
    logits = [
        suspect.logit
        for view in readings(view_set)
        for suspect in _suspects(model, view, lowest, memo=view_set.memo)
    ]
    return max(logits, default=lowest)


def _suspects(
    model: LinearModel, view: TextView, limit: float, *, memo: dict[str, Any]
) -> Iterator[_Suspect]:
    """The worst windows of at least `limit` that do not overlap, at most `MAX_FINDINGS` of each block.

    Where a block has more of them, its last suspect stands for all the others.
    """
    allowed = text_allowance(len(view.text))
    for offset in range(0, max(len(view.text), 1), BLOCK):
        text = view.text[offset : offset + BLOCK + LONG_WINDOW] if len(view.text) > BLOCK else view.text
        grams = shared_n_grams(memo, f"{view.name}:{offset}", text)
        if grams.letters.size == 0:
            continue
        windows = windows_of(text)
        logits = model.logits(grams, windows) - allowed
        chosen, others = worst_apart(logits, windows, limit, most=MAX_FINDINGS)
        spans = [(int(windows.starts[index]), int(windows.ends[index]), index, 0) for index in chosen]
        if others.size:
            worst = int(others[logits[others].argmax()])
            starts, ends = windows.starts[others], windows.ends[others]
            spans.append((int(starts.min()), int(ends.max()), worst, int(others.size)))
        for first, last, index, count in spans:
            start, end = _trimmed(text, first, last)
            found = view.to_original(offset + start, offset + end)
            kind = model.is_other_kind(grams, int(windows.starts[index]), int(windows.ends[index]))
            yield _Suspect(float(logits[index]), view.name, *found, is_jailbreak=kind, windows=count)


def _capped(suspects: Sequence[_Suspect]) -> list[_Suspect]:
    """The worst suspects of all readings that do not overlap in the original, one that covers the rest."""
    single = [suspect for suspect in suspects if not suspect.windows]
    kept, left = worst_apart_of(single, lambda suspect: suspect.logit, most=MAX_FINDINGS)
    left += [suspect for suspect in suspects if suspect.windows]
    if left:
        start, end = covering(left)
        count = sum(max(suspect.windows, 1) for suspect in left)
        worst = max(left, key=lambda suspect: suspect.logit)
        kept.append(worst._replace(start=start, end=end, windows=count))
    return kept


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The window without white space at its ends."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return (start, end) if left == len(piece) else (start + left, start + len(piece.rstrip()))


def create(*, scanner: Scanner, minimum: float = 0.5) -> LinearDetector:
    """The detector; it needs no patterns. `minimum` is the lowest score that is reported.

    Raises:
        UsageError: when `minimum` is not in [0, 1].
    """
    return LinearDetector(minimum=minimum)
