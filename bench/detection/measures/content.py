"""Content: harmful requests and abuse, their look-alikes, identity terms, and ordinary texts.

Thresholds were frozen on rows whose text has an even hash (`training/content/report.py`); these are others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Measured, Row, Skipped, Source, detector, read_source

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.views import build_views

CONTENT = Measured(detector="content", threshold=0.5)
PROMPTS = "dev, report half; prompts that touch a hazard, by far not all unsafe"
REPORT = "dev, report half"
ORDINARY = (
    "benign/clinc150.dev.jsonl.gz",
    "benign/llmail_emails.dev.jsonl",
    "benign/mtbench.dev.jsonl",
    "grounding/q2_wow.dev.jsonl",
    "overrefusal/cyberseceval_frr_ml.dev.jsonl",
)
MOST = 4000  # rows of a harmless source


def figures(data: Path) -> Iterator[Figure | Skipped]:
    for path in ("overrefusal/xstest.dev.jsonl", "toxicity/openai_moderation.dev.jsonl"):
        yield from CONTENT.by_label(_reported(read_source(data, path)), note=REPORT)
    hatecheck = _reported(read_source(data, "toxicity/hatecheck.dev.jsonl"))
    yield from CONTENT.by_label(hatecheck, note=REPORT)
    yield from CONTENT.by_label(
        hatecheck,
        _is_hate,
        note=f"{REPORT}; as content.hate: abuse of one person is not hateful there",
        goals=("", "<= 5 %"),
    )
    identity = hatecheck.where(lambda row: str(row["category"]).startswith("ident_"))
    yield from CONTENT.by_label(identity, note=f"{REPORT}; harmless mentions of a group")
    for language in ("en", "fr"):
        rows = _reported(read_source(data, "toxicity/ailuminate_demo.dev.jsonl")).where(_is(language))
        yield from CONTENT.by_label(rows, note=f"{PROMPTS}; {language}")
    prompts = _reported(read_source(data, "toxicity/multijail.dev.jsonl"))
    for language in sorted({str(row["lang"]) for row in prompts.rows}):
        yield from CONTENT.by_label(prompts.where(_is(language)), note=f"{PROMPTS}; {language}")
    for path in ORDINARY:
        source = _reported(read_source(data, path))
        harmless = Source(
            source.name, source.digest, [{**row, "label": 0} for row in source.rows[:MOST]], source.absent
        )
        yield from CONTENT.by_label(harmless, note=f"{REPORT}; ordinary texts", goals=("", "<= 0.5 %"))


def _is_hate(row: Row) -> bool:
    read = DetectorInput(view_set=build_views(row["text"]), origin=Origin.USER)
    found = detector("content").detect(read)
    return any(f.category == "content.hate" and f.score >= CONTENT.threshold for f in found)


def _is(language: str):
    return lambda row: row["lang"] == language


def _reported(source: Source) -> Source:
    return source.where(_is_reported)


def _is_reported(row: Row) -> bool:
    return hashlib.sha256(row["text"].encode("utf-8", "surrogatepass")).digest()[0] % 2 == 1
