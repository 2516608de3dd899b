"""The file of a calibration: a threshold, what it promises, and what that stands on. It holds no text.

The file's digest covers everything else in it, so that a hand on the threshold is seen; a policy that must
not follow a new file names the digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from stanchion.core.codec import digest, short
from stanchion.core.errors import FilesError, UsageError
from stanchion.core.origin import Origin
from stanchion.files.document import YamlDocument
from stanchion.files.schema import FieldError, FileModel, Loaded, load_file
from stanchion.stats.drift import ScoreSketch
from stanchion.stats.judges import JudgeError
from stanchion.stats.score_maps import MapKind, ScoreMap

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
_VARIABLE = re.compile(r"\$\{env:([^{}]*)\}")
_REFERENCE = re.compile(r"\$\{[A-Za-z]+:[^{}]*\}")
MARGIN = 1e-4  # how far below its threshold a detector reports, so that rounding cannot hide an alarm


class CalibratedDetector(FileModel):
    """Which detector: id, version, the options that change its scores, and the categories that counted."""

    id: str
    version: str
    options: dict[str, Any] = Field(default_factory=dict)
    categories: tuple[str, ...] = ()
    takes_minimum: bool = False


class Guarantee(FileModel):
    """One promise: the risk is at most `limit`, with this confidence; and how it was tested."""

    risk: Literal["false alarms", "misses"]
    limit: Fraction
    confidence: Fraction
    units: Count
    method: str
    applies_to: str = "all rows"
    statement: str


class Evidence(FileModel):
    """What was counted at the threshold."""

    benign: Count
    false_alarms: Count
    false_alarms_at_most: Fraction
    unsafe: Count = 0
    caught: Count = 0
    recall_at_least: Fraction | None = None
    errors: Count = 0

    def judge_error(self) -> JudgeError:
        """How often the detector was right on each kind of row, to correct a rate that it measures.

        The threshold was chosen on these benign rows, which flatters the specificity a little; other labelled
        rows are better where there are some.

        Raises:
            UsageError: when no row is labelled unsafe.
        """
        if not self.unsafe:
            raise UsageError("no row is labelled unsafe, so the sensitivity is not known.")
        passed = self.benign - self.false_alarms
        return JudgeError(caught=self.caught, unsafe=self.unsafe, passed=passed, safe=self.benign)


class DataSource(FileModel):
    """A file of rows: its name and the digest of its bytes."""

    name: str
    digest: str
    benign: Count
    unsafe: Count


class SketchModel(FileModel):
    """Scores in bins; see `stats.drift.ScoreSketch`."""

    edges: tuple[Fraction, ...]
    counts: tuple[Count, ...]

    @model_validator(mode="after")
    def _edges_fit(self) -> Self:
        if len(self.edges) != len(self.counts) or list(self.edges) != sorted(set(self.edges)):
            raise FieldError("a sketch has one count for each of its ascending edges")
        return self

    def sketch(self) -> ScoreSketch:
        """As the statistics read it."""
        return ScoreSketch(edges=self.edges, counts=self.counts)


class MapModel(FileModel):
    """A map from score to probability, at the share of unsafe rows of this data."""

    kind: MapKind
    coefficients: tuple[float, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()

    def score_map(self) -> ScoreMap:
        """As the statistics read it."""
        return ScoreMap(kind=self.kind, coefficients=self.coefficients, knots=self.knots)


class SliceModel(FileModel):
    """Counts at the threshold for some of the rows."""

    by: str
    value: str
    benign: Count
    false_alarms: Count
    unsafe: Count
    caught: Count
    warning: str = ""


class CalibrationFile(FileModel):
    """A calibration, as it is written to a file."""

    calibration: Literal[1]
    made_at: datetime
    stanchion: str
    detector: CalibratedDetector
    threshold: Fraction
    origins: dict[Origin, Fraction] = Field(default_factory=dict)
    guarantees: Annotated[tuple[Guarantee, ...], Field(min_length=1)]
    evidence: Evidence
    data: tuple[DataSource, ...]
    sketch: SketchModel
    map: MapModel | None = None
    slices: tuple[SliceModel, ...] = ()
    digest: str

    @property
    def lowest(self) -> float:
        """The lowest of its thresholds."""
        return min([self.threshold, *self.origins.values()])

    @property
    def minimum(self) -> float | None:
        """The option `minimum` that the detector needs so that every alarm is reported; None without one."""
        return max(0.0, round(self.lowest - MARGIN, 6)) if self.detector.takes_minimum else None

    def content_digest(self) -> str:
        """The digest that the file must carry."""
        return digest(self.model_dump(mode="json", exclude={"digest"}))

    def threshold_at(self, origin: Origin) -> float:
        """The threshold for texts of one origin."""
        return self.origins.get(origin, self.threshold)


def with_environment(options: Any, env: Mapping[str, str] | None) -> Any:
    """Options with `${env:NAME}` replaced where `env` has the name; a calibration keeps only the name."""
    match options:
        case str():
            return _VARIABLE.sub(lambda found: (env or {}).get(found[1]) or found[0], options)
        case dict():
            return {key: with_environment(value, env) for key, value in options.items()}
        case list() | tuple():
            return [with_environment(value, env) for value in options]
        case _:
            return options


class LoadedCalibration:
    """A calibration that was read and found whole."""

    def __init__(self, loaded: Loaded[CalibrationFile]) -> None:
        self.value = loaded.value
        self.path = loaded.path
        self.document: YamlDocument = loaded.document

    def mismatch(self, detector_id: str, version: str) -> str:
        """Why the calibration does not hold for this detector; empty when it does."""
        made_for = self.value.detector
        if made_for.id != detector_id:
            return f"it was made for detector {made_for.id!r}, not for {detector_id!r}."
        if made_for.version != version:
            return f"it was made for version {made_for.version} of {made_for.id!r}; installed is {version}."
        return ""


def sealed(**fields: Any) -> CalibrationFile:
    """A calibration with the digest of its content."""
    unsealed = CalibrationFile(calibration=1, digest="", **fields)
    return unsealed.model_copy(update={"digest": unsealed.content_digest()})


def load_calibration(path: Path) -> LoadedCalibration:
    """Read a calibration.

    Raises:
        FilesError: when it cannot be read, does not fit, or was changed after it was made.
    """
    loaded = load_file(path, CalibrationFile)
    held, computed = loaded.value.digest, loaded.value.content_digest()
    if held != computed:
        raise FilesError(
            [
                loaded.document.problem(
                    ("digest",),
                    rule="calibration-digest",
                    message=f"the file says {short(held)}, its content is {short(computed)}: it was changed "
                    "after it was made.",
                    hint="Make it again with `stanchion calibrate`; a threshold of your own is `threshold:`.",
                )
            ]
        )
    return LoadedCalibration(loaded)


def write_calibration(path: Path, calibration: CalibrationFile) -> None:
    """Write the file: JSON, short lists on one line, so that a change is readable in a review.

    Raises:
        UsageError: for a name that does not end in `.json`.
    """
    if path.suffix != ".json":
        raise UsageError(f"{path}: a calibration is a .json file.", hint=f"Write {path.stem}.json.")
    path.parent.mkdir(parents=True, exist_ok=True)
    value = _escaped(calibration.model_dump(mode="json"))
    path.write_text(_readable(value) + "\n", encoding="utf-8")


def _escaped(value: Any) -> Any:
    """The value as a file says it: a text that looks like a reference is not one."""
    match value:
        case str():
            return _REFERENCE.sub(lambda found: f"${found[0]}", value)
        case dict():
            return {key: _escaped(item) for key, item in value.items()}
        case list():
            return [_escaped(item) for item in value]
        case _:
            return value


def _readable(value: Any, indent: int = 0) -> str:
    pad = "  " * (indent + 1)
    if isinstance(value, dict) and value:
        flat = json.dumps(value, ensure_ascii=False)
        if len(flat) <= 100 and not any(isinstance(item, dict | list) and item for item in value.values()):
            return flat
        items = [f"{pad}{json.dumps(key)}: {_readable(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + "\n" + "  " * indent + "}"
    if isinstance(value, list) and value and any(isinstance(item, dict) for item in value):
        return (
            "[\n"
            + ",\n".join(pad + _readable(item, indent + 1) for item in value)
            + "\n"
            + "  " * indent
            + "]"
        )
    return json.dumps(value, ensure_ascii=False)
