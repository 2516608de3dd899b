"""The model card, written by the training run."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluate import Rate, mean_rate
from pipeline.fit import Settings
from pipeline.recipe import SEED, Corpus
from pipeline.rows import SourceFile
from stanchion.core.codec import short
from stanchion.detectors.classifier import LinearManifest

_INTRODUCTION = """# Model card: `injection.linear`

Written by `python training/train_linear.py`; do not edit by hand.

A linear classifier over hashed n-grams that gives each window of a text a score for being a prompt injection
or a jailbreak. How it works and what it cannot do:
[the injection detectors](../explanation/injection-detector.md).

**Use**: one signal among others for text that goes into a language model, with tool policy and origin beside
it. **Not for**: deciding alone; judging people; finding harmful requests that contain no attack on the rules
of the model; harmless-sounding instructions in the wrong place (`bipia_email_test` below shows how little
wording tells there).
"""


@dataclass(frozen=True)
class Report:
    """Everything a card says."""

    manifest: LinearManifest
    size: int
    settings: Settings
    corpus: Corpus
    reporting: Sequence[SourceFile]
    user: Sequence[Rate]
    outside: Sequence[Rate]
    combined: Sequence[Rate]
    calibration: Sequence[Rate]
    left_out: Sequence[Rate] = ()
    made_only: Sequence[Rate] = ()
    public_only: Sequence[Rate] = ()


def card(report: Report) -> str:
    """The page in Markdown."""
    parts = [_INTRODUCTION, _identity(report), _data(report), _results(report), _left_out(report)]
    return "\n".join(parts)


def _identity(report: Report) -> str:
    manifest = report.manifest
    limits = ", ".join(f"{origin} {value:.2f}" for origin, value in sorted(manifest.thresholds.items()))
    return f"""## Identity

| | |
|---|---|
| version | {manifest.version}+{short(manifest.digest)} |
| weights | `data/weights/{manifest.file}`, {report.size / 1e6:.2f} MB, {manifest.digest} |
| data | {manifest.data_digest} |
| settings | {report.settings}, seed {SEED} |
| slope | {manifest.slope} |
| thresholds (logits) | {limits} |

A score is the logistic function of slope x (logit - threshold of the origin), so 0.5 is the frozen operating
point of every origin.
"""


def _data(report: Report) -> str:
    corpus = report.corpus
    sizes = Counter((row.source, row.label) for row in corpus.rows)
    lines = [f"| {name} | {label} | {count} |" for (name, label), count in sorted(sizes.items()) if count]
    files = [f"| {f.name} | {f.rows} | {f.digest[:16]} |" for f in [*corpus.files, *report.reporting]]
    attacks = sum(row.label for row in corpus.rows)
    return "\n".join(
        [
            "## Data",
            "",
            f"{len(corpus.rows)} rows taught the model, {attacks} attacks among them; {corpus.made} were",
            "made by `training/pipeline` from templates, harmless rows and the documentation and sources of",
            f"Python {platform.python_version()} (another version gives other rows, and other weights);",
            f"{corpus.dropped} copies and near copies were left out before any split.",
            "The development rows (`.dev`) were never trained on: half of them, by the hash of the text, set",
            "thresholds and slope, the other half is reported here. Templates were written after a look at",
            "what early models got wrong on the calibration half, so the reported rates, which share its",
            "sources, are a little better than those on sources that nobody looked at; leaving one source",
            "out (below) is the stricter guide, and so is the column of a model that no public row taught.",
            "Some families were written after reading what models without a training source had missed of",
            "it: they know the kinds of those sources, if not their sentences, which flatters the table.",
            "",
            "| file | rows | sha256 (first 16) |",
            "|---|---:|---|",
            *files,
            "",
            "<details><summary>Rows by source and label</summary>",
            "",
            "| source | label | rows |",
            "|---|---:|---:|",
            *lines,
            "",
            "</details>",
            "",
        ]
    )


def _results(report: Report) -> str:
    lines = ["## Results on the reporting half of the development data", ""]
    lines += [
        "Share above the frozen threshold with its two-sided 95 % Clopper-Pearson interval. `patterns or",
        "linear` is what the base install has: a finding of `injection.patterns` with a score of at least",
        "0.6, or one of `injection.linear` of at least 0.5, both for origin user.",
        "",
        "| source | rows | linear, origin user | linear, origin retrieved | patterns or linear |",
        "|---|---|---|---|---|",
    ]
    for user, outside, combined in zip(report.user, report.outside, report.combined, strict=True):
        kind = "attacks" if user.label else "harmless"
        lines.append(f"| {user.source} | {kind} | {user.text} | {outside.text} | {combined.text} |")
    columns = (report.user, report.outside, report.combined)
    for label, name in ((1, "attacks"), (0, "harmless")):
        lines.append(f"| mean over sources | {name} | {_means(columns, label)} |")
    hard = ("bipia_email_test", "cyberseceval_ml")
    lines.append(f"| mean without {' and '.join(hard)} | attacks | {_means(columns, 1, hard)} |")
    return "\n".join([*lines, ""])


def _means(columns: Sequence[Sequence[Rate]], label: int, without: Sequence[str] = ()) -> str:
    return " | ".join(f"{100 * mean_rate(found, label, without):.1f} %" for found in columns)


def _left_out(report: Report) -> str:
    kinds = {1: "attacks", 0: "harmless"}
    made = {(rate.source, rate.label): rate for rate in report.made_only}
    lines = [
        "## Leaving one source out",
        "",
        "Each row: the model trained again without the source and without everything made from it; the",
        "threshold is set on the calibration half of the development data in the same way. The last column",
        "is one model for all rows that no public row taught, neither itself nor as a part of another row.",
        "To save time these models learn from every third row, and are asked about every third row.",
        "",
        "| source | rows | without the source | made rows only |",
        "|---|---|---|---|",
    ]
    for rate in report.left_out:
        other = made.get((rate.source, rate.label))
        lines.append(f"| {rate.source} | {kinds[rate.label]} | {rate.text} | {other.text if other else ''} |")
    if not report.left_out:
        return "\n".join([*lines, "| not computed in this run | | | |", ""])
    for label, name in kinds.items():
        means = [mean_rate(found, label) for found in (report.left_out, report.made_only)]
        lines.append(f"| mean over sources | {name} | {100 * means[0]:.1f} % | {100 * means[1]:.1f} % |")
    lines += [
        "",
        "What the made rows bring: the mean over sources of attacks (of harmless rows) found in the",
        "calibration half, every model at its own threshold there, is",
        f"{_both(report.public_only)} for a model of the public rows alone, and",
        f"{_both(report.calibration)} for the one that ships.",
        "",
    ]
    return "\n".join(lines)


def _both(found: Sequence[Rate]) -> str:
    return f"{100 * mean_rate(found, 1):.1f} % ({100 * mean_rate(found, 0):.1f} %)"
