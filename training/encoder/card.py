"""The model card, written by the training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pipeline.evaluate import Rate, mean_rate

from encoder.calibrate import OUTSIDE_TARGET, TARGET
from encoder.folds import GROUPS
from encoder.report import PATTERN_SCORE, Report
from stanchion.core.codec import short
from stanchion.detectors.encoder import MOST_WINDOWS, version_of
from stanchion.detectors.encoder_model import STRIDE, WINDOW, OperatingPoint
from stanchion.stats.intervals import wilson

_INTRODUCTION = """# Model card: `injection.encoder`

Written by `python training/train_encoder.py`; do not edit by hand.

A small transformer that gives each window of a text a score for being a prompt injection or a jailbreak.
It is the second tier: its logit is joined with the one of [`injection.linear`](linear-injection.md), because
the two err on different texts. How to install and use it:
[Use the encoder](../how-to/use-the-encoder.md).

**Use**: one signal among others for text that goes into a language model, with tool policy and origin beside
it. **Not for**: deciding alone; judging people; finding harmful requests that contain no attack on the rules
of the model; harmless-sounding instructions in the wrong place (`bipia_email_test` below shows how little
wording tells there: what a text may make a tool do is for origin and tool policy to settle).
"""


def card(report: Report) -> str:
    """The page in Markdown."""
    parts = [_INTRODUCTION, _identity(report), _data(report), _choice(report), _results(report)]
    parts.append(_left_out(report))
    return "\n".join(parts)


def _identity(report: Report) -> str:
    manifest = report.manifest
    size = (manifest.model.size + manifest.tokenizer.size) / 1e6
    joined, alone = (version_of(manifest, point) for point in (manifest.with_linear, manifest.alone))
    return f"""## Identity

| | |
|---|---|
| version | {joined} (without linear: {alone}) |
| starts from | {manifest.base}, its lowest {report.taught.settings["layers"]} layers, Apache-2.0 |
| network | {manifest.model.size} bytes, {manifest.model.digest} |
| tokeniser | {manifest.tokenizer.size} bytes, {manifest.tokenizer.digest}; together {size:.2f} MB |
| training rows | {manifest.data_digest} |
| linear weights | {manifest.with_linear.linear_digest} |
| settings | {", ".join(f"{name} {value}" for name, value in report.taught.settings.items())} |
| windows | {WINDOW} tokens, every {STRIDE}; more than {MOST_WINDOWS} windows are an error |
| operating point with linear | {_point(manifest.with_linear)} |
| operating point without | {_point(manifest.alone)} |

A logit is the encoder's for the worst window, less an allowance for the number of windows, plus the linear
weight times the linear model's. A score is the
logistic function of slope x (logit - threshold of the origin), so 0.5 is the frozen operating point of every
origin. int8 weights, int8 activations quantised as it runs; everything here was measured on the int8 network,
one window per run.
"""


def _point(point: OperatingPoint) -> str:
    limits = ", ".join(f"{origin} {value:.2f}" for origin, value in sorted(point.thresholds.items()))
    return f"linear weight {point.linear_weight}, slope {point.slope}, thresholds {limits}"


def _data(report: Report) -> str:
    taught = report.taught
    files = [f"| {name} | {rows} | {digest[:16]} |" for name, digest, rows in taught.files]
    files += [f"| {file.name} | {file.rows} | {file.digest[:16]} |" for file in report.files]
    rows = [f"| {source} | {label} | {count} |" for source, label, count in taught.sources]
    return "\n".join(
        [
            "## Data",
            "",
            f"{taught.rows} rows, {taught.attacks} attacks among them, {taught.made} of them made by",
            f"`training/pipeline`; {taught.windows} windows. Each epoch draws {taught.settings['rows']}",
            "rows, classes balanced, a source by the root of its size, and makes",
            f"{taught.settings['documents']} documents with a text inside. They are read as the detector",
            "reads them: views first, so that disguises are undone.",
            "The development rows (`.dev`) taught nothing: half of them, by the hash of the text, set the",
            "operating points, the other half is reported here. That half was seen while the target rates,",
            "the allowance for long texts and the limit of windows were settled, so it is not untouched.",
            "The templates of the made rows were written",
            "after a look at a few dozen development rows and at what early linear models got wrong, so",
            "the reported rates are a little better than those on sources that nobody looked at; the sources",
            "left out (below) are the stricter guide.",
            "",
            "| file | rows | sha256 (first 16) |",
            "|---|---:|---|",
            *files,
            "",
            "<details><summary>Rows by source and label</summary>",
            "",
            "| source | label | rows |",
            "|---|---:|---:|",
            *rows,
            "",
            "</details>",
            "",
        ]
    )


def _choice(report: Report) -> str:
    lines = [
        "## What was chosen, and on what",
        "",
        "Mean recall over the attack sources of the calibration half, at the threshold that lets 1 % or 2 %",
        "of harmless rows pass (mean over sources):",
        "",
        "| | at 1 % | at 2 % |",
        "|---|---:|---:|",
    ]
    for name, (strict, loose) in report.chosen.items():
        lines.append(f"| {name} | {100 * strict:.1f} % | {100 * loose:.1f} % |")
    lines += [
        "",
        f"The frozen thresholds let {100 * TARGET:.0f} % pass, those of documents",
        f"{100 * OUTSIDE_TARGET:.0f} %: the encoder is used beside the linear model, and alarms add up.",
        "Fewer of the harmless rows of sources left out of training pass (below): the calibration sources",
        "are harder than most.",
    ]
    return "\n".join([*lines, ""])


def _results(report: Report) -> str:
    names = list(report.columns)
    lines = [
        "## Results on the reporting half of the development data",
        "",
        "Share found at the frozen threshold, with its two-sided 95 % Wilson interval; origin user unless",
        "a column says otherwise. `patterns` is a finding of `injection.patterns` of at least",
        f"{PATTERN_SCORE}, `linear` is version {_linear_version(report)} at its own threshold.",
        f"{report.long_rows} development rows are longer than what the encoder reads; they count as found,",
        "because the check then fails.",
        "",
        f"| source | rows | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for rates in zip(*report.columns.values(), strict=True):
        kind = "attacks" if rates[0].label else "harmless"
        lines.append(f"| {rates[0].source} | {kind} | {' | '.join(map(share, rates))} |")
    lines += _summary(list(report.columns.values()))
    return "\n".join([*lines, ""])


def _differences(own: dict[str, float], published: dict[str, float]) -> str:
    """What a training was set to otherwise than the published one."""
    found = [f"{name} {value}" for name, value in own.items() if published.get(name) != value]
    return f"set differently: {', '.join(found)}" if found else "the same settings"


def _linear_version(report: Report) -> str:
    return f"{report.linear.manifest.version}+{short(report.linear.manifest.digest)}"


def _summary(columns: Sequence[Sequence[Rate]]) -> Iterator[str]:
    for label, kind in ((1, "attacks"), (0, "harmless")):
        yield f"| **mean over sources** | {kind} | {_means(columns, label)} |"
        yield f"| **all rows together** | {kind} | {' | '.join(share(_pooled(c, label)) for c in columns)} |"
    hard = ("bipia_email_test", "cyberseceval_ml")
    yield f"| mean without {' and '.join(hard)} | attacks | {_means(columns, 1, hard)} |"


def _means(columns: Sequence[Sequence[Rate]], label: int, without: Sequence[str] = ()) -> str:
    return " | ".join(f"{100 * mean_rate(found, label, without):.1f} %" for found in columns)


def _pooled(found: Sequence[Rate], label: int) -> Rate:
    chosen = [rate for rate in found if rate.label == label]
    return Rate("", label, int(np.sum([r.k for r in chosen])), int(np.sum([r.n for r in chosen])))


def share(rate: Rate) -> str:
    """The share and its interval, in percent."""
    interval = wilson(rate.k, rate.n)
    bounds = f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
    return f"{100 * rate.k / rate.n:.1f} % ({bounds}; {rate.k}/{rate.n})"


def _left_out(report: Report) -> str:
    lines = [
        "## Leaving sources out",
        "",
        "Trained again without a group of public sources and without everything made from them; the",
        f"threshold lets {100 * TARGET:.0f} % of the harmless rows of the calibration half pass, as the",
        "published one does. The encoder alone, before it is made int8. A training costs a third of an hour,",
        "so there is one for each group, not one for each source: each model learnt from less than the",
        "published one, and the rates are lower for it. At most 1,000 rows of a source are scored.",
        "",
    ]
    kinds = {1: "attacks", 0: "harmless"}
    for fold in report.left_out:
        name = fold["rates"][0]["fold"]
        lines += [
            f"**Without** {', '.join(f'`{source}`' for source in GROUPS[name])}",
            f"(rows {fold['data'][:23]}; {_differences(fold['settings'], report.taught.settings)}):",
            "",
            "| source | rows | above the threshold |",
            "|---|---|---|",
        ]
        for entry in fold["rates"]:
            if entry["kind"] == "left out":
                rate = Rate(entry["source"], entry["label"], entry["k"], entry["n"])
                lines.append(f"| {rate.source} | {kinds[rate.label]} | {share(rate)} |")
        lines.append("")
    computed = {fold["rates"][0]["fold"] for fold in report.left_out}
    for name, sources in GROUPS.items():
        if name not in computed:
            lines += [f"Without {', '.join(f'`{source}`' for source in sources)}: not computed.", ""]
    return "\n".join(lines)
