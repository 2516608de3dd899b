"""`content`: what policies of use speak of (hate, self-harm, weapons, ...), by patterns and a linear model.

The two complement each other: patterns know forms of high severity exactly (a threat, a request for
instructions), the model generalises from examples. Both read wording only. A text may have several
categories; each finding says how bad it is by category and intensity, see `content_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from stanchion.core.codec import digest, short
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.taxonomy import matches
from stanchion.detectors import hashing
from stanchion.detectors.capping import covering, rest_reason, worst_apart_of
from stanchion.detectors.classifier import LONG_WINDOW, Windows, allowance, windows_of, worst_apart
from stanchion.detectors.content_model import (
    ANY,
    ContentModel,
    load_content,
    margin_of_score,
    read_content_manifest,
    score_of_margin,
)
from stanchion.detectors.content_rules import Intensity, content_rules
from stanchion.detectors.hashing import shared_n_grams
from stanchion.detectors.linear import readings
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.scan import Scanner
from stanchion.detectors.views import TextView, TextViewSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stanchion.detectors.hashing import Indices

ID = "content"
CODE_VERSION = 3
BLOCK = 1 << 16  # characters read at once; blocks overlap by the longest window
MAX_FINDINGS = 4  # of the model, for each category
NAMED = 0.0  # the margin from which a category names a text, whatever `minimum` is: the frozen threshold

QUOTED_REACH = 300  # characters around a span in which the ends of its quotation are looked for
WORDS_AROUND = 3
_QUOTATION = re.compile(
    r"\"[^\"\n]{1,300}\"|\u201c[^\u201d\n]{1,300}\u201d|\u201e[^\u201c\n]{1,300}\u201c"
    r"|\u00ab[^\u00bb\n]{1,300}\u00bb|(?<!\w)['\u2018](?:[^'\u2019\n]|['\u2019](?=\w)){1,300}['\u2019](?!\w)"
)

Minima = Mapping[str, Mapping[str, float]]


class _Suspect(NamedTuple):
    margin: float
    category: str
    view: str
    start: int  # offsets in the original
    end: int
    intensity: Intensity
    is_any: bool  # found as "something", and given the nearest category
    windows: int = 0  # of the rest, which is not told apart: how many there are; 0 for a window of its own


class ContentDetector:
    """Reports patterns and windows of a text by category.

    Args:
        scanner: holds the `content.` patterns.
        minimum: the lowest score that is reported; 0.5 is the operating point at which the model was frozen.
        categories: what is reported: ids or `content.*`.
        locales: lowest scores by locale (`de-AT`, `de`) and category, where a rule of a country asks for more
            or less than `minimum`.
    """

    id = ID
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS
    is_pure = True

    def __init__(
        self,
        scanner: Scanner,
        *,
        minimum: float = 0.5,
        categories: Sequence[str] = ("content.*",),
        locales: Minima | None = None,
    ) -> None:
        self._scanner = scanner
        self._rules = content_rules()
        known = self._rules.categories
        self._minimum = _checked_score(minimum, "minimum")
        self._locales = {
            locale.lower(): {
                _one_of(name, known): _checked_score(v, f"{locale}: {name}") for name, v in m.items()
            }
            for locale, m in (locales or {}).items()
        }
        for selector in categories:
            if not any(matches(selector, name) for name in known):
                raise UnknownNameError(
                    "category", selector, known, where=f"detector {ID!r}, option 'categories'"
                )
        self.categories = tuple(c for c in known if any(matches(s, c) for s in categories))
        manifest = read_content_manifest()
        data = digest([scanner.digest_for(ID), msgspec.to_builtins(manifest), self._rules.digest])
        self.version = f"{CODE_VERSION}.{manifest.version}+{short(data)}"

    def prepare(self) -> None:
        """Load the weights and build the automaton, so that no text has to wait for them.

        Raises:
            IntegrityError: when the weights are not those the manifest names.
        """
        load_content()
        hashing.prepare()
        self._scanner.prepare(ID)

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position: those of patterns, of the model at most `MAX_FINDINGS` a category.

        One more covers the windows beyond them; see `capping`.
        """
        minima = self._minima(detector_input.locale)
        found = [*self._of_patterns(detector_input), *self._of_model(detector_input.view_set, minima)]
        kept = [f for f in found if f.category in minima and f.score >= minima[f.category]]
        return sorted(kept, key=lambda f: (f.location.start, f.location.end, f.category, f.rule))

    def _minima(self, locale: str) -> dict[str, float]:
        """The lowest score of each category: the tag's own, then its language's, then `minimum`."""
        tag = locale.replace("_", "-").lower()
        of_tag, of_language = self._locales.get(tag, {}), self._locales.get(tag.partition("-")[0], {})
        return {c: of_tag.get(c, of_language.get(c, self._minimum)) for c in self.categories}

    def _of_patterns(self, detector_input: DetectorInput) -> Sequence[Finding]:
        view_set = detector_input.view_set
        hits = self._scanner.hits_for(view_set, ID)
        if not hits:
            return ()
        spoken: dict[str, frozenset[str]] = {}
        believed = []
        for hit in hits:
            if hit.view.name not in spoken:
                spoken[hit.view.name] = self._rules.languages_of(hit.view.text, detector_input.locale)
            if pattern_language(hit.pattern.id) not in spoken[hit.view.name]:
                continue
            if hit.pattern.category == "content.hate" and is_quoted(hit.view.text, hit.start, hit.end):
                continue
            believed.append(hit)
        return findings_from_hits(ID, self.version, believed, view_set)

    def _of_model(self, view_set: TextViewSet, minima: Mapping[str, float]) -> Iterator[Finding]:
        model = load_content()
        limits = {c: margin_of_score(minimum) for c, minimum in minima.items()}
        suspects = [
            suspect
            for view in readings(view_set)
            for suspect in self._suspects(model, view, limits, memo=view_set.memo)
        ]
        for name in self.categories:
            for suspect in _capped([s for s in suspects if s.category == name]):
                yield self._finding(suspect)

    def _suspects(
        self, model: ContentModel, view: TextView, limits: Mapping[str, float], *, memo: dict[str, Any]
    ) -> Iterator[_Suspect]:
        allowed = allowance(len(view.text))
        for offset in range(0, max(len(view.text), 1), BLOCK):
            text = view.text[offset : offset + BLOCK + LONG_WINDOW] if len(view.text) > BLOCK else view.text
            grams = shared_n_grams(memo, f"{view.name}:{offset}", text)
            if grams.letters.size == 0:
                continue
            windows = windows_of(text)
            margins = model.margins(model.logits(grams, windows), allowed)
            for margin, name, found, is_any in _worst(model, margins, windows, limits):
                start, end = _trimmed(text, int(windows.starts[found].min()), int(windows.ends[found].max()))
                intensity = self._rules.intensity(text[start:end])
                place = view.to_original(offset + start, offset + end)
                count = found.size if found.size > 1 else 0
                yield _Suspect(margin, name, view.name, *place, intensity, is_any, count)

    def _finding(self, suspect: _Suspect) -> Finding:
        reason = (
            "wording of harmful content, nearest category" if suspect.is_any else "wording of such content"
        )
        return Finding(
            detector=ID,
            version=self.version,
            category=suspect.category,
            score=round(score_of_margin(suspect.margin), 6),
            location=Location(start=suspect.start, end=suspect.end),
            severity=self._rules.severity(suspect.category, suspect.intensity),
            rule=f"{suspect.category}.{suspect.intensity.value}",
            view=suspect.view,
            reason=rest_reason(reason, suspect.windows) if suspect.windows else reason,
        )


def is_quoted(text: str, start: int, end: int) -> bool:
    """Whether a span stands in a quotation, and enough words around it to speak about what is quoted.

    What is quoted may be condemned or meant; patterns cannot tell, so the model alone decides then.
    """
    left, right = max(0, start - QUOTED_REACH), end + QUOTED_REACH
    for match in _QUOTATION.finditer(text, left, right):
        if match.start() < start and end < match.end():
            around = text[left : match.start()] + " " + text[match.end() : right]
            return len(around.split()) >= WORDS_AROUND
    return False


def pattern_language(pattern_id: str) -> str:
    """`en` of `content.hate.insult.en.slur`; `en` for ids of another form."""
    parts = pattern_id.split(".")
    return parts[3] if len(parts) > 4 else "en"


def highest_margins(model: ContentModel, view_set: TextViewSet) -> dict[str, float]:
    """For each output of the model, the margin of the worst window of a text; what training measures."""
    best = dict.fromkeys(model.categories, float("-inf"))
    for view in readings(view_set):
        allowed = allowance(len(view.text))
        for offset in range(0, max(len(view.text), 1), BLOCK):
            text = view.text[offset : offset + BLOCK + LONG_WINDOW] if len(view.text) > BLOCK else view.text
            grams = shared_n_grams(view_set.memo, f"{view.name}:{offset}", text)
            if grams.letters.size:
                highest = model.margins(model.logits(grams, windows_of(text)), allowed).max(axis=0)
                for name, value in zip(model.categories, highest.tolist(), strict=True):
                    best[name] = max(best[name], value)
    return best


def _worst(
    model: ContentModel, margins: NDArray[np.float64], windows: Windows, limits: Mapping[str, float]
) -> Iterator[tuple[float, str, Indices, bool]]:
    """(margin, category, windows, is_any) of the worst windows of each category that do not overlap.

    The windows are one, but for the last of a category that has more than `MAX_FINDINGS`: all the others.

    Where no category reaches its frozen threshold, the category nearest to it in the worst window of the
    output "any" is reported with the margin of "any". Limits only leave out what is below them: a score is
    the same for every `minimum`, so that a threshold that was calibrated on all scores holds under any.
    """
    import numpy as np

    columns = {name: index for index, name in enumerate(model.categories)}
    known = [name for name in limits if name in columns]
    for name in known:
        own = margins[:, columns[name]]
        chosen, others = worst_apart(own, windows, limits[name], most=MAX_FINDINGS)
        for window in chosen:
            yield float(own[window]), name, np.array([window]), False
        if others.size:
            yield float(own[others].max()), name, others, False
    if not known or max(margins[:, columns[name]].max() for name in known) >= NAMED:
        return
    window = int(margins[:, columns[ANY]].argmax())
    margin = float(margins[window, columns[ANY]])
    nearest = max(known, key=lambda name: margins[window, columns[name]])
    if margin >= limits[nearest]:
        yield margin, nearest, np.array([window]), True


def _capped(suspects: Sequence[_Suspect]) -> list[_Suspect]:
    """The worst suspects of all readings that do not overlap in the original, one that covers the rest."""
    single = [suspect for suspect in suspects if not suspect.windows]
    kept, left = worst_apart_of(single, lambda suspect: suspect.margin, most=MAX_FINDINGS)
    left += [suspect for suspect in suspects if suspect.windows]
    if left:
        start, end = covering(left)
        count = sum(max(suspect.windows, 1) for suspect in left)
        worst = max(left, key=lambda suspect: suspect.margin)
        intensity = max((suspect.intensity for suspect in left), key=list(Intensity).index)
        kept.append(worst._replace(start=start, end=end, intensity=intensity, windows=count))
    return kept


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return (start, end) if left == len(piece) else (start + left, start + len(piece.rstrip()))


def _one_of(name: str, known: Sequence[str]) -> str:
    if name not in known:
        raise UnknownNameError("category", name, known, where=f"detector {ID!r}, option 'locales'")
    return name


def _checked_score(value: float, what: str) -> float:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"detector {ID!r}: {what} {value} is not a score.", hint="Give 0 to 1.")
    return value


def create(
    *,
    scanner: Scanner,
    minimum: float = 0.5,
    categories: Sequence[str] = ("content.*",),
    locales: Minima | None = None,
) -> ContentDetector:
    """The detector over the scanner's `content.` patterns and the packaged model.

    Raises:
        UsageError: when a score is not in [0, 1].
        UnknownNameError: for a category that the detector does not report.
    """
    return ContentDetector(scanner, minimum=minimum, categories=categories, locales=locales)
