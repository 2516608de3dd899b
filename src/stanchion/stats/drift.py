"""Whether scores still come from the distribution that a calibration saw.

A calibration keeps a *sketch* of its scores: counts in fixed bins, never the rows. Fresh scores are put into
the same bins. `drift` compares the two at once, with a stated chance of a false alarm; `SequentialDrift`
watches a stream and may be looked at after every score.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import UsageError
from stanchion.stats.multiple import holm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

SKETCH_BINS = 32
SIMULATIONS = 4_000
_AT_ONCE = 500


class ScoreSketch(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of scores: bin i holds those from `edges[i]` up to, not including, `edges[i + 1]`.

    The first edge is 0; the last bin ends at 1 and includes it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def n(self) -> int:
        """How many scores it stands on."""
        return sum(self.counts)

    def bin_of(self, score: float) -> int:
        """The number of the bin that a score falls into."""
        return max(bisect.bisect_right(self.edges, score) - 1, 0)

    def counted(self, scores: Sequence[float]) -> tuple[int, ...]:
        """Other scores in the same bins.

        Raises:
            UsageError: for a score outside [0, 1].
        """
        counts = [0] * len(self.edges)
        for score in scores:
            if not 0.0 <= score <= 1.0:
                raise UsageError(f"a score must lie between 0 and 1, not {score!r}.")
            counts[self.bin_of(score)] += 1
        return tuple(counts)


class DriftTest(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: its statistic, the value that equal distributions exceed once in 1 / level, p-value."""

    name: str
    statistic: float
    critical: float
    p_value: float
    adjusted_p_value: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Whether fresh scores differ from the sketch. `level` is the chance to say so when they do not."""

    is_stale: bool
    level: float
    before: int
    fresh: int
    tests: tuple[DriftTest, ...]
    alarm_share_before: float | None = None
    alarm_share_fresh: float | None = None


def sketch(scores: Sequence[float], *, bins: int = SKETCH_BINS, cuts: Sequence[float] = ()) -> ScoreSketch:
    """The sketch of scores: bins of about equal counts, one edge more at each of `cuts` (the thresholds).

    Raises:
        UsageError: without scores, or for one outside [0, 1].
    """
    import numpy as np

    if not scores:
        raise UsageError("there are no scores to sketch.")
    inner = np.quantile(np.asarray(scores), np.arange(1, bins) / bins, method="inverted_cdf")
    edges = tuple(sorted({0.0, *(float(edge) for edge in inner), *(float(cut) for cut in cuts)}))
    empty = ScoreSketch(edges=edges, counts=(0,) * len(edges))
    return ScoreSketch(edges=edges, counts=empty.counted(scores))


def population_stability(before: Sequence[int], fresh: Sequence[int]) -> float:
    """The population stability index of two sets of counts, with half a count added to every bin.

    The symmetric Kullback-Leibler divergence: `sum (q - p) log(q / p)`. Its customary limits (0.1, 0.25) know
    nothing of sample size: under no change its mean is about (bins - 1)(1/n + 1/m). Sources: S. Kullback,
    *Information Theory and Statistics* (1959); B. Yurdakul and J. Naranjo, Journal of Risk Model Validation
    14 (2020).
    """
    import numpy as np

    return float(_stability(np.asarray([before]), np.asarray([fresh]))[0])


def drift(
    before: ScoreSketch,
    scores: Sequence[float],
    *,
    level: float = 0.01,
    threshold: float | None = None,
    seed: int = 0,
    simulations: int = SIMULATIONS,
) -> Drift:
    """Compare fresh scores with a sketch by several tests at once.

    Population stability, Kolmogorov-Smirnov over the bins, and, with a `threshold` that is one of the edges,
    the share of alarms. Each null distribution is that of dealing the pooled counts out to two samples of
    these sizes at random (a permutation test, right for any sizes and ties; p = (1 + exceeding) /
    (1 + simulations)). Holm's method over the tests keeps the whole at `level`.

    Raises:
        UsageError: without fresh scores, for scores outside [0, 1], or a level that cannot be resolved.
    """
    import numpy as np

    if not 0.0 < level < 1.0 or simulations * level < 10:
        raise UsageError(f"level {level!r} cannot be tested with {simulations} simulations.")
    fresh = before.counted(scores)
    if not scores or not before.n:
        raise UsageError("a comparison needs scores on both sides.", hint="Nothing compared is no evidence.")
    pooled = np.asarray(before.counts) + np.asarray(fresh)
    cut = bisect.bisect_left(before.edges, threshold) if threshold is not None else None
    generator = np.random.default_rng(seed)
    size = len(scores)
    dealt = np.concatenate(
        [
            generator.multivariate_hypergeometric(pooled, size, size=min(_AT_ONCE, simulations - done))
            for done in range(0, simulations, _AT_ONCE)
        ]
    )
    null = _statistics(pooled - dealt, dealt, cut)
    seen = _statistics(np.asarray([before.counts]), np.asarray([fresh]), cut)
    p_values = [(1 + int((null[name] >= seen[name][0] - 1e-12).sum())) / (1 + simulations) for name in seen]
    adjusted = holm(p_values)
    tests = tuple(
        DriftTest(
            name=name,
            statistic=float(seen[name][0]),
            critical=float(np.quantile(null[name], 1.0 - level)),
            p_value=p,
            adjusted_p_value=a,
        )
        for name, p, a in zip(seen, p_values, adjusted.p_values, strict=True)
    )
    return Drift(
        is_stale=any(adjusted.rejected(level)),
        level=level,
        before=before.n,
        fresh=size,
        tests=tests,
        alarm_share_before=None if cut is None else sum(before.counts[cut:]) / before.n,
        alarm_share_fresh=None if cut is None else sum(fresh[cut:]) / size,
    )


class SequentialDrift:
    """A martingale that grows when scores stop being exchangeable with those of the sketch.

    Under no change it exceeds `1 / level` at any time with probability at most `level` (Ville), however often
    it is looked at, and whatever the size of the sketch. Each score's rank among all scores before it, ties
    and bins broken at random, is uniform then; the Simple Jumper bets against that. Source: V. Vovk et al.,
    "Retrain or not retrain: conformal test martingales for change-point detection", COPA 2021.

    Args:
        before: the sketch; its scores count as seen.
        level: the chance of ever flagging when nothing changed.
        jump: the share of the capital that changes its bet at each step.
        seed: of the tie-breaking.
    """

    _BETS = (-1.0, 0.0, 1.0)

    def __init__(
        self, before: ScoreSketch, *, level: float = 0.01, jump: float = 0.01, seed: int = 0
    ) -> None:
        import numpy as np

        if not 0.0 < level < 1.0 or not 0.0 < jump < 1.0:
            raise UsageError("the level and the jump rate must lie between 0 and 1.")
        self._sketch = before
        self._counts = list(before.counts)
        self._capital = [1.0 / len(self._BETS)] * len(self._BETS)
        self._log_scale = 0.0
        self._log_limit = -math.log(level)
        self._jump = jump
        self._random = np.random.default_rng(seed)
        self.highest = 0.0
        self.seen = 0

    @property
    def is_stale(self) -> bool:
        """Whether the martingale ever passed `1 / level`."""
        return self.highest >= self._log_limit

    @property
    def log_value(self) -> float:
        """The natural logarithm of the martingale now."""
        return self._log_scale + math.log(sum(self._capital))

    def update(self, score: float) -> float:
        """Take one fresh score; gives `log_value`.

        Raises:
            UsageError: for a score outside [0, 1].
        """
        if not 0.0 <= score <= 1.0:
            raise UsageError(f"a score must lie between 0 and 1, not {score!r}.")
        place = self._sketch.bin_of(score)
        above, ties, total = sum(self._counts[place + 1 :]), self._counts[place], sum(self._counts)
        rank = (above + float(self._random.random()) * (ties + 1)) / (total + 1)
        self._counts[place] += 1
        whole = sum(self._capital)
        share = self._jump * whole / len(self._BETS)
        self._capital = [
            ((1.0 - self._jump) * each + share) * (1.0 + bet * (rank - 0.5))
            for each, bet in zip(self._capital, self._BETS, strict=True)
        ]
        whole = sum(self._capital)
        self._capital = [each / whole for each in self._capital]
        self._log_scale += math.log(whole)
        self.seen += 1
        self.highest = max(self.highest, self.log_value)
        return self.log_value


def _statistics(first: Ints, second: Ints, cut: int | None) -> dict[str, NDArray[np.float64]]:
    """Each statistic for every pair of rows; greater means further apart."""
    import numpy as np

    one = first / first.sum(axis=1, keepdims=True)
    two = second / second.sum(axis=1, keepdims=True)
    found = {
        "population stability": _stability(first, second),
        "Kolmogorov-Smirnov": np.abs(np.cumsum(one - two, axis=1)).max(axis=1),
    }
    if cut is not None:
        found["share of alarms"] = np.abs(one[:, cut:].sum(axis=1) - two[:, cut:].sum(axis=1))
    return found


def _stability(first: Ints, second: Ints) -> NDArray[np.float64]:
    import numpy as np

    bins = first.shape[1]
    p = (first + 0.5) / (first.sum(axis=1, keepdims=True) + 0.5 * bins)
    q = (second + 0.5) / (second.sum(axis=1, keepdims=True) + 0.5 * bins)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=1))
