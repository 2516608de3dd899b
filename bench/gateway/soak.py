"""Whether the gateway's memory stays flat: many requests, then many streams at once, in one process.

    python bench/gateway/soak.py [--requests 50000] [--policy default] [--crowd 2000]

`wrk` asks in slices; after each the resident memory of the gateway's process tree is read and told. The first
fifth of the slices is warm-up; of the rest, the slope over requests and the growth between the medians of the
first and the last quarter are told. Memory is flat when the growth is at most `MOST_GROWTH_KB`, whatever the
number of requests.

Exit status: 0 flat and every request answered, 1 not, 2 nothing was measured (no wrk, no room for the
records: a million requests are some 2 GB with policy none and 5 GB with default, in the temporary folder).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import overhead

import servers

WARM_UP = 0.2
RECORD_BYTES = 6000  # what a record may take on the disk, its indexes and the write-ahead log among it
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


def soak(
    *,
    requests: int,
    policy: str = "default",
    crowd: int = 2000,
    slices: int = 25,
    tell: Callable[[str], None] = lambda line: None,
) -> Soaked:
    """So many requests, then so many streams at once; `tell` gets a line after each slice."""
    found = Soaked()
    with tempfile.TemporaryDirectory(prefix="stanchion-soak-") as name, ExitStack() as stack:
        folder = Path(name)
        model = stack.enter_context(servers.upstream(folder / "upstream"))
        gateway = stack.enter_context(servers.gateway(folder / "gateway", model, policy=policy))
        rate = overhead.load(gateway, seconds=3)["per_s"]
        seconds = min(60, max(1, round(requests / slices / max(rate, 1))))
        tell(f"{rate:.0f} requests a second: some {requests / max(rate, 1) / 60:.1f} minutes")
        while found.requests < requests:
            got = overhead.load(gateway, seconds=seconds)
            found.requests += int(got["requests"])
            found.bad += int(got["bad"])
            found.seen.append((found.requests, gateway.rss_kb()))
            tell(f"{found.requests:>10} requests {found.seen[-1][1] / 1024:>8.1f} MiB {found.bad:>6} bad")
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
        sys.exit(_unmeasured("wrk is not installed"))
    if shutil.disk_usage(tempfile.gettempdir()).free < asked.requests * RECORD_BYTES:
        needed = asked.requests * RECORD_BYTES / 1e9
        sys.exit(_unmeasured(f"{tempfile.gettempdir()} has no room for {needed:.1f} GB of records"))
    found = soak(requests=asked.requests, policy=asked.policy, crowd=asked.crowd, tell=_told)
    if asked.format == "json":
        told = {"bytes_each": found.bytes_each, "growth_kb": found.growth_kb, "is_flat": found.is_flat}
        print(json.dumps(asdict(found) | told))
    else:
        print(f"{found.requests} requests, policy {asked.policy}, {found.bad} bad")
        print(f"slope {found.bytes_each:.1f} bytes for each request, growth {found.growth_kb / 1024:.1f} MiB")
        print(f"{asked.crowd} streams at once: {found.crowd_good} good, {found.crowd_bad} bad", end="; ")
        print(f"{found.after_crowd_kb / 1024:.1f} MiB afterwards")
        print("flat" if found.is_flat else "NOT FLAT")
    is_good = found.is_flat and not found.bad and not found.crowd_bad
    print("PASSED" if is_good else "FAILED", file=sys.stderr)
    sys.exit(0 if is_good else 1)


def _told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _unmeasured(why: str) -> int:
    print(f"{why}; nothing was measured", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
