"""What a quality figure is, and how rows are read, split and counted; `measures/` yields, `quality.py` shows.

A measures module has `figures(data: Path) -> Iterator[Figure | Skipped]`. A figure is a count out of a number
of cases, with the detector's version, its threshold, and the digest of the rows. Data that is absent is
skipped with a reason, never passed over.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from stanchion.core.codec import digest, digest_bytes, short
from stanchion.core.finding import Detector, DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views
from stanchion.stats.intervals import wilson

Row = dict[str, Any]
Status = Literal["met", "missed", "not gated"]
_GOAL = re.compile(r"(>=|<=) ([0-9]+(?:\.[0-9]+)?) %")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`k` of `n` cases; `goal` is empty or such as `>= 95 %`; `note` says how the rows were used."""

    detector: str
    version: str
    threshold: float
    source: str
    digest: str
    measure: str
    k: int
    n: int
    note: str = ""
    goal: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n or self.n == 0:
            raise ValueError(f"{self.source}: {self.measure}: {self.k} of {self.n} is no rate.")
        if self.goal and not _GOAL.fullmatch(self.goal):
            raise ValueError(f"{self.goal!r} is no goal; write one such as '>= 95 %'.")

    @property
    def rate(self) -> float:
        return self.k / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The two-sided 95 % Wilson interval."""
        found = wilson(self.k, self.n)
        return found.low, found.high

    @property
    def status(self) -> Status:
        """Whether the point estimate reaches the goal."""
        match = _GOAL.fullmatch(self.goal)
        if match is None:
            return "not gated"
        bound = float(match[2]) / 100
        is_met = self.rate >= bound if match[1] == ">=" else self.rate <= bound
        return "met" if is_met else "missed"


@dataclass(frozen=True)
class Skipped:
    """A source that could not be measured, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Source:
    """Rows with their identity; `absent` says why there are none."""

    name: str
    digest: str
    rows: Sequence[Row] = field(repr=False)
    absent: str = ""

    def where(self, keep: Callable[[Row], bool]) -> Source:
        """The rows that are kept; name and digest stay those of the whole."""
        return Source(self.name, self.digest, [row for row in self.rows if keep(row)], self.absent)

    def half(self, name: Literal["A", "B"]) -> Source:
        """A half by hash of the row's id: A calibrates, B reports."""
        return self.where(lambda row: half_of(str(row["id"])) == name)


def read_source(data: Path, path: str) -> Source:
    """The rows of a JSON Lines file, gzip or not; an absent file gives a source that says so."""
    file = data / path
    if not file.is_file():
        return Source(path, "", (), f"{path} is not in the data folder")
    raw = file.read_bytes()
    text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode("utf-8")
    return Source(path, short(digest_bytes(raw)), [json.loads(line) for line in text.split("\n") if line])


def generated(name: str, rows: Iterable[Row]) -> Source:
    """Rows that a seeded generator made; the digest is of the rows."""
    made = list(rows)
    return Source(f"generated: {name}", short(digest(made)), made)


def half_of(row_id: str) -> Literal["A", "B"]:
    return "B" if int(hashlib.sha256(row_id.encode()).hexdigest(), 16) % 2 else "A"


@lru_cache(maxsize=1)
def _registry() -> Registry:
    return Registry()


@lru_cache(maxsize=32)
def detector(name: str) -> Detector:
    """The packaged detector, made once."""
    return _registry().create(name)


def findings(
    name: str, text: str, *, threshold: float, context: Mapping[str, Sequence[str]] | None = None
) -> list[Finding]:
    """What a detector reports at a threshold or above."""
    return [f for f in all_findings(name, text, context=context) if f.score >= threshold]


def all_findings(
    name: str, text: str, *, context: Mapping[str, Sequence[str]] | None = None
) -> Sequence[Finding]:
    """What a detector reports, whatever the score."""
    given = {key: tuple(values) for key, values in (context or {}).items()}
    return detector(name).detect(
        DetectorInput(view_set=build_views(text), origin=Origin.UNKNOWN, context=given)
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One detector at one threshold, counted over sources."""

    detector: str
    threshold: float

    def figure(
        self, source: Source, measure: str, outcomes: Iterable[bool], *, note: str = "", goal: str = ""
    ) -> Iterator[Figure | Skipped]:
        """One figure from outcomes; what is absent or empty is skipped with a reason."""
        if source.absent:
            yield Skipped(source.name, source.absent)
            return
        counted = list(outcomes)
        if not counted:
            yield Skipped(source.name, f"no row for {measure}")
            return
        yield Figure(
            detector=self.detector, version=detector(self.detector).version, threshold=self.threshold,
            source=source.name, digest=source.digest, measure=measure, k=sum(counted), n=len(counted),
            note=note, goal=goal,
        )  # fmt: skip

    def fires(self, row: Row) -> bool:
        """Whether the detector reports anything in a row."""
        return bool(findings(self.detector, row["text"], threshold=self.threshold))

    def by_label(
        self,
        source: Source,
        fires: Callable[[Row], bool] | None = None,
        *,
        note: str = "",
        goals: tuple[str, str] = ("", ""),
    ) -> Iterator[Figure | Skipped]:
        """Recall over the rows labelled 1 and false alarms over the rows labelled 0."""
        if source.absent:
            yield Skipped(source.name, source.absent)
            return
        judge = fires or self.fires
        fired = [(row["label"], judge(row)) for row in source.rows]
        for label, measure, goal in ((1, "recall", goals[0]), (0, "false alarms", goals[1])):
            outcomes = [outcome for given, outcome in fired if given == label]
            if outcomes:
                yield from self.figure(source, measure, outcomes, note=note, goal=goal)
