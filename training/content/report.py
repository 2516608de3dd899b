"""Thresholds, slopes, rates with intervals, and the model card of the content model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from content.corpus import CATEGORIES, HEADS, ContentRow, SourceFile, mapping
from stanchion.detectors.content_model import ANY, ContentManifest
from stanchion.stats.intervals import wilson

# Of ordinary harmless rows above the threshold of `any`; a source weighs as the root of its size, so that
# neither one large source nor one row of a small one decides alone.
ORDINARY_RATE = 0.004
HARD_RATE = 0.02  # the same of rows that look harmful
HEAD_RATES = {
    **dict.fromkeys(CATEGORIES, (0.0003, 0.003)),
    "hate": (0.001, 0.02),  # rows that look like it are harmless sentences about groups: at most 5 % of them
    "harassment": (0.0005, 0.015),
}
IDENTITY = ("ident_", "counter_", "negate_")  # functions of HateCheck
LEAST_SLOPE, MOST_SLOPE = 0.3, 2.0


@dataclass(frozen=True)
class Rate:
    """How many of `n` rows are reported; two-sided 95 % Wilson interval."""

    name: str
    k: int
    n: int

    @property
    def text(self) -> str:
        """In percent."""
        if self.n == 0:
            return "-"
        interval = wilson(self.k, self.n)
        bounds = f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
        return f"{100 * self.k / self.n:.1f} % ({bounds}; {self.k}/{self.n})"


def is_calibration(row: ContentRow) -> bool:
    """Whether a row belongs to the half that thresholds are chosen on: by the hash of its text."""
    return hashlib.sha256(row.text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0


def thresholds(logits: np.ndarray, rows: Sequence[ContentRow]) -> np.ndarray:
    """For each head the lowest logit at which both rates of harmless rows are kept, each source alike."""
    kinds = {
        kind: [
            name.partition("/")[2].removesuffix(".dev")
            for name, is_kind in mapping()["reporting_harmless"].items()
            if is_kind == kind
        ]
        for kind in ("ordinary", "hard")
    }
    found = []
    for column, head in enumerate(HEADS):
        rates = (ORDINARY_RATE, HARD_RATE) if head == ANY else HEAD_RATES[head]
        limits = [
            _threshold(logits[:, column], rows, kinds[kind], rate)
            for kind, rate in zip(("ordinary", "hard"), rates, strict=True)
        ]
        found.append(round(max(limits) + 1e-4, 4))
    return np.array(found)


def _threshold(logits: np.ndarray, rows: Sequence[ContentRow], sources: Sequence[str], rate: float) -> float:
    values, weights = [], []
    for source in sources:
        chosen = np.array([row.source == source and not row.label for row in rows])
        if chosen.any():
            values.append(logits[chosen])
            weights.append(np.full(int(chosen.sum()), chosen.sum() ** -0.5))
    flat = np.concatenate(values)
    order = np.argsort(-flat)
    share = np.cumsum(np.concatenate(weights)[order])
    share /= share[-1]
    return float(flat[order][min(np.searchsorted(share, rate), flat.size - 1)])


def slopes(logits: np.ndarray, rows: Sequence[ContentRow]) -> np.ndarray:
    """Platt's slope of each head, sources balanced; that of `any` where a head has under 40 examples."""
    names = np.array([f"{row.source}:{row.label}" for row in rows])
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    found = []
    for column, head in enumerate(HEADS):
        known = np.array([head not in row.unknown for row in rows])
        y = np.array([head in row.positive for row in rows])
        if y[known].sum() < 40:
            found.append(np.nan)
            continue
        weights = 1.0 / counts[numbers[known]]
        for label in (False, True):
            weights[y[known] == label] /= weights[y[known] == label].sum()
        model = LogisticRegression(C=1e6)
        model.fit(np.clip(logits[known, column], -30, 30)[:, None], y[known], sample_weight=weights)
        found.append(float(np.clip(model.coef_[0, 0], LEAST_SLOPE, MOST_SLOPE)))
    slope = np.array(found)
    return np.round(np.where(np.isnan(slope), slope[-1], slope), 6)


def by_source(flags: np.ndarray, rows: Sequence[ContentRow], label: int) -> list[Rate]:
    """The share of reported rows of every source with this label."""
    found = []
    for source in sorted({row.source for row in rows if row.label == label}):
        chosen = np.array([row.source == source and row.label == label for row in rows])
        found.append(Rate(source, int(flags[chosen].sum()), int(chosen.sum())))
    return found


def by_detail(flags: np.ndarray, rows: Sequence[ContentRow], source: str, label: int) -> list[Rate]:
    """The same for every category of one source."""
    chosen = [i for i, row in enumerate(rows) if row.source == source and row.label == label]
    found = []
    for detail in sorted({rows[i].detail for i in chosen}):
        own = [i for i in chosen if rows[i].detail == detail]
        found.append(Rate(detail, int(flags[own].sum()), len(own)))
    return found


def by_language(flags: np.ndarray, rows: Sequence[ContentRow], source: str) -> list[Rate]:
    """The same for every language of one source."""
    chosen = [i for i, row in enumerate(rows) if row.source == source]
    found = []
    for language in sorted({rows[i].language for i in chosen}):
        own = [i for i in chosen if rows[i].language == language]
        found.append(Rate(language, int(flags[own].sum()), len(own)))
    return found


@dataclass(frozen=True)
class Measured:
    """What the packaged detector says of the reporting half."""

    rows: Sequence[ContentRow]
    flags: np.ndarray  # whether anything is reported
    of_model: np.ndarray  # whether the model reports anything
    severe: np.ndarray  # whether anything of severity high or critical is reported
    categories: Sequence[frozenset[str]]  # what is reported of each row


@dataclass(frozen=True)
class Report:
    """Everything that the card tells."""

    manifest: ContentManifest
    version: str
    size: int
    files: Sequence[SourceFile]
    dev_files: Sequence[SourceFile]
    counts: dict[str, int]
    measured: Measured
    left_out: Sequence[tuple[str, Rate, Rate]]


def card(report: Report) -> str:
    """The model card as Markdown."""
    m = report.measured
    lines = [
        "# Model card: `content` (linear tier)",
        "",
        "Written by `python training/train_content.py`; do not edit.",
        "",
        f"* Detector version `{report.version}`, weights `{report.manifest.file}`, "
        f"{report.size:,} bytes, int8,",
        f"  digest `{report.manifest.digest}`.",
        f"* {len(report.manifest.heads)} outputs over hashed n-grams (character 4- and 5-grams, words, "
        "pairs of",
        "  words): one for each category, and `any`, for requests and acts that some policy forbids.",
        "* Reads wording only. It does not understand irony, quotation, or who speaks to whom.",
        "* **Dialect bias.** The labels of one training source (davidson) are known to call African American",
        "  English offensive more often. Its class `offensive` is left out, its class `hate` is not. Slurs",
        "  and reclaimed words look alike to a linear model. Do not act on `content.hate` or",
        "  `content.harassment` alone against people.",
        "* Most training rows are written here (`training/content/templates`): harmful texts and harmless",
        "  twins of the same words, in eight languages, and fewer in ten more.",
        "",
        "## Thresholds",
        "",
        "Frozen on the calibration half of the development rows (hash of the text is even): of "
        "ordinary harmless",
        f"rows at most {100 * ORDINARY_RATE:.1f} % are above the one of `any`, of look-alikes at most",
        f"{100 * HARD_RATE:.0f} % (sources weighed by the root of their size); "
        "the other outputs have smaller shares",
        "(hate: 0.1 % and 2 %, harassment: 0.05 % and 1.5 %, others: 0.03 % and 0.3 %). A score of 0.5 is",
        "the threshold. Since version 3 the one of hate is looser; the weights are those of version 2.",
        "",
        "## Reporting half: patterns and model together, score >= 0.5",
        "",
        "Share of harmful rows that are reported in any category (95 % Wilson). **Prompt sets**: the rows of",
        "ailuminate_demo and multijail are prompts that touch a hazard; by far not all are unsafe, so that a",
        "share of 100 % is not the aim there.",
        "",
        "| source | reported | of it by the model |",
        "|---|---|---|",
    ]
    lines += _side_by_side(by_source(m.flags, m.rows, 1), by_source(m.of_model, m.rows, 1))
    lines += [
        "",
        "Harmless rows (false alarms):",
        "",
        "| source | reported | of severity high or critical |",
        "|---|---|---|",
    ]
    lines += _side_by_side(by_source(m.flags, m.rows, 0), by_source(m.severe, m.rows, 0))
    lines += _identity(m)
    return "\n".join([*lines, *_tables(report)]) + "\n"


def _identity(m: Measured) -> list[str]:
    """Sentences that name a group and say nothing against it, or quote and contradict what is said."""
    own = [
        i
        for i, row in enumerate(m.rows)
        if row.source == "hatecheck" and not row.label and row.detail.startswith(IDENTITY)
    ]
    rate = Rate("", int(m.flags[own].sum()) if own else 0, len(own))
    hateful, others = (_as_hate(m, label) for label in (1, 0))
    return [
        "",
        "**Hate alone**: HateCheck labels what is hateful; abuse of a single person is not hateful there.",
        f"As `content.hate` are reported {hateful.text} of its hateful rows and",
        f"{others.text} of the others.",
        "",
        "**Identity terms**: of HateCheck's harmless sentences that name a group (neutral, kind, negated,",
        f"quoted to contradict) {rate.text} are reported. Its sentences against",
        "single persons and other groups count as harmless there, though many are threats.",
    ]


def _as_hate(m: Measured, label: int) -> Rate:
    """HateCheck's rows of a label that are reported as hate."""
    own = [i for i, row in enumerate(m.rows) if row.source == "hatecheck" and row.label == label]
    return Rate("", sum("content.hate" in m.categories[i] for i in own), len(own))


def _tables(report: Report) -> list[str]:
    m = report.measured
    lines = [
        "",
        "## By category",
        "",
        "Rows whose category is known: reported in that category; reported in any.",
        "",
    ]
    lines += ["| category | in the category | in any |", "|---|---|---|"]
    for category in CATEGORIES:
        own = [i for i, row in enumerate(m.rows) if category in row.positive]
        right = sum(f"content.{category}" in m.categories[i] for i in own)
        any_ = Rate("", int(m.flags[own].sum()) if own else 0, len(own))
        lines.append(f"| content.{category} | {Rate('', right, len(own)).text} | {any_.text} |")
    lines += ["", "No development rows carry `minors` in a label of their own.", ""]
    lines += ["## Identity terms: HateCheck, harmless functions", "", "| function | reported |", "|---|---|"]
    lines += [f"| {r.name} | {r.text} |" for r in by_detail(m.flags, m.rows, "hatecheck", 0)]
    lines += ["", "HateCheck, hateful functions:", "", "| function | reported |", "|---|---|"]
    lines += [f"| {r.name} | {r.text} |" for r in by_detail(m.flags, m.rows, "hatecheck", 1)]
    lines += ["", "## By language", "", "multijail:", "", "| language | reported |", "|---|---|"]
    lines += [f"| {r.name} | {r.text} |" for r in by_language(m.flags, m.rows, "multijail")]
    lines += ["", "cyberseceval_frr_ml (harmless):", "", "| language | reported |", "|---|---|"]
    lines += [f"| {r.name} | {r.text} |" for r in by_language(m.flags, m.rows, "cyberseceval_frr_ml")]
    lines += [
        "",
        "## Leave one source out",
        "",
        "`any` (hate for the two sources of abuse) refitted without the",
    ]
    lines += [
        "source; its rows at the packaged threshold of that output.",
        "",
        "| left out | harmful | harmless |",
    ]
    lines += ["|---|---|---|", *(f"| {n} | {a.text} | {b.text} |" for n, a, b in report.left_out)]
    lines += ["", "## Data", "", "Training rows by source:", "", "| source | rows |", "|---|---:|"]
    lines += [f"| {name} | {count} |" for name, count in sorted(report.counts.items())]
    lines += ["", "Files (sha256):", ""]
    lines += [f"* `{f.name}` {f.digest[:16]}, {f.rows} rows" for f in (*report.files, *report.dev_files)]
    return lines


def _side_by_side(left: Sequence[Rate], right: Sequence[Rate]) -> list[str]:
    return [f"| {a.name} | {a.text} | {b.text} |" for a, b in zip(left, right, strict=True)]
