"""Code: synthetic pairs, the standard library as real code, and texts that are no code."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Row, Skipped, generated, read_source
from made.snippets import snippets

from stanchion.core.codec import digest, short
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views

THRESHOLD = 0.5
NOT_CODE = ("agents/cyberseceval_interpreter.dev.jsonl", "agents/asb.train.jsonl", "benign/mtbench.dev.jsonl")
LIBRARY_FILES = 150  # of the standard library, spread over the alphabet


def figures(data: Path) -> Iterator[Figure | Skipped]:
    measured = Measured(detector="code", threshold=THRESHOLD)
    made = generated("answers with code, seed 20", snippets())
    yield from measured.by_label(made, note="synthetic, half of each")
    for family in sorted({row["category"].partition(".")[0] for row in made.rows}):

        def of_family(row: Row, family: str = family) -> bool:
            return str(row["category"]).startswith(f"{family}.")

        yield from measured.by_label(made.where(of_family), note=f"synthetic, {family}")
    for path in NOT_CODE:
        source = read_source(data, path)
        yield from measured.figure(
            source, "texts that fire", map(measured.fires, source.rows), note="no code expected"
        )
    yield library()


def library() -> Figure:
    """How many lines of the standard library hold a finding; which rules is in the note."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))
    chosen = files[:: max(1, len(files) // LIBRARY_FILES)]
    detector = Registry().create("code", language="python")
    lines, rules, marked = 0, Counter[str](), set[tuple[str, int]]()
    for file in chosen:
        text = file.read_text(encoding="utf-8", errors="replace")
        lines += text.count("\n")
        given = DetectorInput(view_set=build_views(text), origin=Origin.MODEL)
        for finding in detector.detect(given):
            if finding.score >= THRESHOLD:
                rules[finding.rule] += 1
                marked.add((file.name, text.count("\n", 0, finding.location.start)))
    top = ", ".join(f"{rule} {count}" for rule, count in rules.most_common(8))
    return Figure(
        detector="code",
        version=detector.version,
        threshold=THRESHOLD,
        source="standard library of this Python",
        digest=short(digest([file.name for file in chosen])),
        measure="lines that fire",
        k=len(marked),
        n=lines,
        note=f"{len(chosen)} files; {top}",
    )
