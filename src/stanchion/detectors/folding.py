"""Many findings of one rule, made few without losing a place."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stanchion.core.finding import Finding

MOST_OF_A_RULE = 1000


def folded(findings: Sequence[Finding], most: int = MOST_OF_A_RULE) -> tuple[Finding, ...]:
    """At most `most` findings of each rule; the last one covers the places of all that follow.

    Args:
        findings: in order of position.
        most: how many of a rule are kept, at least 1.
    """
    if len(findings) <= most:
        return tuple(findings)
    kept: list[Finding] = []
    counts: dict[str, int] = {}
    last: dict[str, int] = {}
    for finding in findings:
        rule = finding.rule
        counts[rule] = counts.get(rule, 0) + 1
        if counts[rule] <= most:
            last[rule] = len(kept)
            kept.append(finding)
            continue
        before = kept[last[rule]]
        end = max(before.location.end, finding.location.end)
        kept[last[rule]] = msgspec.structs.replace(
            before,
            score=max(before.score, finding.score),
            location=msgspec.structs.replace(before.location, end=end),
        )
    return tuple(kept)
