"""Whether the gateway's memory stays flat: many requests, then many streams at once, in one process.

    python bench/gateway/soak.py [--requests 50000] [--policy default] [--crowd 2000]

`wrk` asks in slices; after each the resident memory of the gateway's process tree is read. The first fifth of
`wrk` asks in slices; after each the resident memory of the gateway's processes is read. The first fifth of
between the medians of its first and its last quarter are told. Memory is flat when the growth is at most
`MOST_GROWTH_KB`, whatever the number of requests; the exit status says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import overhead

import servers

WARM_UP = 0.2
MOST_GROWTH_KB = 16 * 1024  # what pools and batches may add; 50,000 kept records would be some 200 MiB


@dataclass
class Soaked:
    """What was seen: (requests so far, KiB) after each slice, and the streams at once."""

    seen: list[tuple[int, int]] = field(default_factory=list)
    requests: int = 0
    bad: int = 0
    crowd_good: int = 0
    crowd_bad: int = 0
    after_crowd_kb: int = 0

    @property
    def steady(self) -> list[tuple[int, int]]:
        """The slices behind the warm-up."""
        return [one for one in self.seen if one[0] > WARM_UP * self.requests]

    @property
    def bytes_each(self) -> float:
        """The slope: bytes of memory for each request."""
        at, kb = zip(*self.steady, strict=True)
        return 1024 * statistics.linear_regression(at, kb).slope

    @property
    def growth_kb(self) -> float:
        """From the median of the first quarter behind the warm-up to that of the last."""
        kb = [one[1] for one in self.steady]
        quarter = max(1, len(kb) // 4)
        return statistics.median(kb[-quarter:]) - statistics.median(kb[:quarter])

    @property
    def is_flat(self) -> bool:
        """Whether nothing grows with the requests."""
        return self.growth_kb <= MOST_GROWTH_KB


def soak(*, requests: int, policy: str = "default", crowd: int = 2000, slices: int = 25) -> Soaked:
    """So many requests, then so many streams at once."""
    found = Soaked()
    with tempfile.TemporaryDirectory(prefix="stanchion-soak-") as name, ExitStack() as stack:
        folder = Path(name)
        model = stack.enter_context(servers.upstream(folder / "upstream"))
        gateway = stack.enter_context(servers.gateway(folder / "gateway", model, policy=policy))
        rate = overhead.load(gateway, seconds=3)["per_s"]
        seconds = min(60, max(1, round(requests / slices / max(rate, 1))))
        while found.requests < requests:
            got = overhead.load(gateway, seconds=seconds)
            found.requests += int(got["requests"])
            found.bad += int(got["bad"])
            found.seen.append((found.requests, gateway.rss_kb()))
        if crowd:
            streamed = overhead.stream(gateway, count=crowd, concurrency=crowd)
            found.crowd_good, found.crowd_bad = int(streamed["good"]), int(streamed["bad"])
        found.after_crowd_kb = gateway.rss_kb()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--crowd", type=int, default=2000)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    if not shutil.which("wrk"):
        print("wrk is not installed; nothing was measured", file=sys.stderr)
        return
    found = soak(requests=asked.requests, policy=asked.policy, crowd=asked.crowd)
    if asked.format == "json":
        told = {"bytes_each": found.bytes_each, "growth_kb": found.growth_kb, "is_flat": found.is_flat}
        print(json.dumps(asdict(found) | told))
    else:
        for at, kb in found.seen:
            print(f"{at:>10} requests {kb / 1024:>8.1f} MiB")
        print(f"{found.requests} requests, policy {asked.policy}, {found.bad} bad")
        print(f"slope {found.bytes_each:.1f} bytes for each request, growth {found.growth_kb / 1024:.1f} MiB")
        print(f"{asked.crowd} streams at once: {found.crowd_good} good, {found.crowd_bad} bad", end="; ")
        print(f"{found.after_crowd_kb / 1024:.1f} MiB afterwards")
        print("flat" if found.is_flat else "NOT FLAT")
    sys.exit(not (found.is_flat and not found.bad and not found.crowd_bad))


if __name__ == "__main__":
    main()
