"""Several tests at once: adjusted p-values, in the order they came.

Holm where one false alarm blocks a release; Benjamini-Hochberg where a share of false leads is affordable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from stanchion.core.errors import UsageError


class Adjusted(msgspec.Struct, frozen=True, kw_only=True):
    """Adjusted p-values: rejecting where `p_values[i] <= alpha` keeps the rate of `controls` below alpha."""

    p_values: tuple[float, ...]
    method: Literal["Holm", "Benjamini-Hochberg"]
    controls: Literal["familywise error rate", "false discovery rate"]

    def rejected(self, alpha: float = 0.05) -> tuple[bool, ...]:
        """Which hypotheses fall at level `alpha`."""
        return tuple(p <= alpha for p in self.p_values)


def holm(p_values: Sequence[float]) -> Adjusted:
    """Step-down adjustment: the chance of even one false rejection stays below alpha.

    Holds whatever the dependence between the tests.
    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    Raises:
        UsageError: for a p-value outside [0, 1].
    """
    count = len(p_values)
    adjusted = [0.0] * count
    running = 0.0
    for rank, index in enumerate(_ascending(p_values)):
        running = max(running, min(1.0, p_values[index] * (count - rank)))
        adjusted[index] = running
    return Adjusted(p_values=tuple(adjusted), method="Holm", controls="familywise error rate")


def benjamini_hochberg(p_values: Sequence[float]) -> Adjusted:
    """Step-up adjustment: the expected share of false rejections stays below alpha.

    Holds for independent tests and for positive regression dependence.
    Source: Y. Benjamini and Y. Hochberg, JRSS B 57 (1995) 289-300.

    Raises:
        UsageError: for a p-value outside [0, 1].
    """
    count = len(p_values)
    adjusted = [0.0] * count
    running = 1.0
    for rank, index in reversed(list(enumerate(_ascending(p_values), start=1))):
        running = min(running, p_values[index] * (count / rank))  # never below the raw value
        adjusted[index] = running
    return Adjusted(p_values=tuple(adjusted), method="Benjamini-Hochberg", controls="false discovery rate")


def _ascending(p_values: Sequence[float]) -> list[int]:
    for index, p in enumerate(p_values):
        if math.isnan(p) or not 0.0 <= p <= 1.0:
            raise UsageError(f"p-value {index} must be between 0 and 1, not {p!r}.")
    return sorted(range(len(p_values)), key=lambda index: p_values[index])
