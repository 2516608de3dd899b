"""A detector whose scores a test writes into its texts: `... #0.83` scores 0.83."""

from __future__ import annotations

from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind


class MarkingDetector:
    """Leaves out what is below its option `minimum`, and breaks where a text says so."""

    id = "marks"
    version = "1+test"
    categories = ("content.policy",)
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS

    def __init__(self, minimum: float) -> None:
        self._minimum = minimum

    def detect(self, detector_input: DetectorInput) -> list[Finding]:
        text = detector_input.text
        if "#breaks" in text:
            raise ValueError(text)
        score = float(text.rpartition("#")[2])
        if score < self._minimum:
            return []
        place = Location(start=0, end=len(text))
        return [
            Finding(
                detector="marks", version=self.version, category="content.policy", score=score, location=place
            )
        ]


def create(*, scanner: object, minimum: float = 0.5, key: str = "") -> MarkingDetector:
    if "$" in key:
        raise ValueError("the key is a name")
    return MarkingDetector(minimum)
