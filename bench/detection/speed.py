"""Speed of views and scan, beside a loop of Python's `re` over the same patterns, in one run.

    python bench/detection/speed.py [--format json] [--repeat 200] [--rows 5000]

Latencies are p50 and p90 in microseconds of one call, throughput is MB per CPU second of this process.
`views + scan` makes the views of a text and finds all hits of the packaged patterns that read inputs. `re
loop` searches the same texts once with every such pattern that Python's `re` can compile, without views,
validators or decoding. `base check` is views, patterns, secrets, personal data and the linear model on one
input, asked directly, and through `Guard` with the default policy: CPU time. `scan rows` is what `stanchion
scan --tier deterministic` does with JSONL rows of 2 KB; its floor is reading and decoding the same rows.
Texts are made from a fixed seed: prose that fires nothing, prose with numbers in it, prose that fires
triggers, and prose in which every third word is one that the patterns look for.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import ON_DEMAND, Scanner, packaged_scanner
from stanchion.detectors.views import build_views
from stanchion.guard.bulk import BulkScanner, Tier, bulk_policy
from stanchion.guard.bulk_files import json_records
from stanchion.guard.pipeline import Guard
from stanchion.guard.seen_texts import SeenTexts

STORY = """
the report of last year shows that sales of garden tools rose in spring and fell in autumn while customers
asked for a better guide and the team wrote a new chapter on watering for every shop in the region before
summer came and with it longer evenings on which neighbours met under the trees to talk about the harvest
"""
SUSPECT = """
password secret token key api ignore previous instructions system prompt account number card birth address
phone license bearer authorization private session access client street passport database connection
"""
PLAIN = STORY.split()
KEYWORDS = SUSPECT.split()
TRIGGERS = ["caf%C3%A9", "&amp;", "1gn0re", "a\\u0062c", "ZXZlcnl0aGluZyBpcyBmaW5l", "t r e e s", "x=3D4=3D"]
NUMBERS = ["12", "2024", "3.5", "no. 7", "10:30", "100 %", "1,250", "4th"]
BASE = ("secrets", "pii", "injection.patterns", "injection.linear")
KINDS = ("prose", "numbers", "triggers", "keywords")
LATENCY_SIZES = (100, 500, 2_000, 50_000)


def prose(size: int, *, extra: list[str], every: int, seed: int = 7) -> str:
    """Sentences of a fixed seed; every so many words one of `extra`."""
    rng = random.Random(seed + size)
    words: list[str] = []
    length = 0
    while length < size:
        word = rng.choice(extra) if every and len(words) % every == every - 1 else rng.choice(PLAIN)
        word += ". " if rng.random() < 0.08 else " "
        words.append(word)
        length += len(word)
    return "".join(words)[:size]


def texts(kind: str, size: int, count: int) -> list[str]:
    """Different texts of one kind."""
    kinds = {
        "prose": ([], 0), "numbers": (NUMBERS, 12), "triggers": (TRIGGERS, 9), "keywords": (KEYWORDS, 3),
    }  # fmt: skip
    extra, every = kinds[kind]
    return [prose(size, extra=extra, every=every, seed=seed * 1000) for seed in range(count)]


def latency(
    call: Callable[[str], Any],
    samples: list[str],
    repeat: int,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[float, float]:
    """p50 and p90 in microseconds over all samples."""
    for sample in samples:
        call(sample)
    taken = []
    for turn in range(repeat):
        sample = samples[turn % len(samples)]
        started = clock()
        call(sample)
        taken.append((clock() - started) / 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=10)[8]


def throughput(call: Callable[[str], Any], samples: list[str], seconds: float) -> float:
    """MB per CPU second."""
    for sample in samples[:20]:
        call(sample)
    done = 0
    started = time.process_time()
    while time.process_time() - started < seconds:
        for sample in samples:
            call(sample)
        done += sum(len(sample.encode()) for sample in samples)
    return done / (time.process_time() - started) / 1e6


def re_loop(scanner: Scanner) -> tuple[Callable[[str], Any], int]:
    """A search with every pattern that `re` compiles, and how many these are."""
    made = []
    for pattern in scanner.patterns:
        if pattern.detector in ON_DEMAND:
            continue
        flags = re.ASCII if "ucp" not in pattern.flags else 0
        flags |= re.IGNORECASE if "caseless" in pattern.flags else 0
        flags |= re.DOTALL if "dotall" in pattern.flags else 0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                made.append(re.compile(pattern.pattern, flags).search)
        except (re.error, Warning):
            continue

    def search(text: str) -> list[Any]:
        return [found for one in made if (found := one(text)) is not None]

    return search, len(made)


def rows_table(count: int) -> list[dict[str, Any]]:
    """Bulk scan of rows of 2 KB without findings, and the floor: reading and decoding them."""
    registry = Registry(packaged_scanner())
    bulk = BulkScanner(bulk_policy("default", registry, tier=Tier.DETERMINISTIC), registry)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number, text in enumerate(texts("prose", 2_000, count)):
                file.write(json.dumps({"id": number, "text": text}) + "\n")
        size = path.stat().st_size / 1e6
        started = time.process_time()
        found = sum(r.decision != "allow" for r in json_records(bulk, path, names=("text", "id")))
        scan_s = time.process_time() - started
        decode = msgspec.json.decode
        started = time.process_time()
        with path.open("rb") as file:
            for line in file:
                decode(line)
        floor_s = time.process_time() - started
    return [
        {
            "what": "scan rows, deterministic tier",
            "mb_per_s": size / scan_s,
            "rows": count,
            "not_allowed": found,
        },
        {
            "what": "floor: read and decode the rows",
            "mb_per_s": size / floor_s,
            "rows": count,
            "not_allowed": 0,
        },
    ]


def base_table(repeat: int) -> list[dict[str, Any]]:
    """CPU time of the whole check of one input, without and with the guard around it."""
    registry = Registry(packaged_scanner())
    detectors = [registry.create(name) for name in BASE]
    guard = Guard.load(
        "default", seen_texts=SeenTexts(most_bytes=0)
    )  # the same text is checked anew each time

    def plain(text: str) -> None:
        given = DetectorInput(view_set=build_views(text), origin=Origin.USER)
        for detector in detectors:
            detector.detect(given)

    rows = []
    for kind in KINDS:
        for size in (500, 50_000):
            samples = texts(kind, size, 8)
            turns = repeat if size == 500 else max(16, repeat // 10)
            row: dict[str, Any] = {"text": kind, "bytes": size}
            for name, call in (("detectors", plain), ("guard", guard.check)):
                row[f"{name}_p50_us"], row[f"{name}_p90_us"] = latency(
                    call, samples, turns, clock=time.process_time_ns
                )
            rows.append(row)
    return rows


def measure(repeat: int, rows: int) -> dict[str, Any]:
    """All tables."""
    scanner = packaged_scanner()
    search, searchable = re_loop(scanner)

    def scan(text: str) -> Any:
        return scanner.hits(build_views(text))

    latencies = []
    for kind in KINDS:
        for size in LATENCY_SIZES:
            samples = texts(kind, size, 8)
            turns = repeat if size < 50_000 else max(16, repeat // 10)
            p50, p90 = latency(scan, samples, turns)
            peer, _ = latency(search, samples, max(8, turns // 10))
            latencies.append(
                {
                    "text": kind,
                    "bytes": size,
                    "p50_us": p50,
                    "p90_us": p90,
                    "re_p50_us": peer,
                    "ratio": peer / p50,
                }
            )
    through = []
    for kind in ("prose", "numbers", "keywords"):
        samples = texts(kind, 2_000, 400)
        ours, peer = throughput(scan, samples, 2.0), throughput(search, samples[:20], 1.0)
        through.append({"text": kind, "mb_per_s": ours, "re_mb_per_s": peer, "ratio": ours / peer})
    inputs = [pattern for pattern in scanner.patterns if pattern.detector not in ON_DEMAND]
    return {
        "patterns": len(inputs),
        "patterns_of_re_loop": searchable,
        "latency": latencies,
        "throughput": through,
        "base": base_table(repeat),
        "rows": rows_table(rows),
    }


def show(result: dict[str, Any]) -> None:
    """The tables as text."""
    print(f"{result['patterns']} patterns, {result['patterns_of_re_loop']} of them in the loop of re\n")
    print(f"{'text':<10}{'bytes':>7}{'p50 us':>10}{'p90 us':>10}{'re p50 us':>12}{'re / ours':>11}")
    for row in result["latency"]:
        print(
            f"{row['text']:<10}{row['bytes']:>7}{row['p50_us']:>10.1f}{row['p90_us']:>10.1f}"
            f"{row['re_p50_us']:>12.0f}{row['ratio']:>11.0f}"
        )
    print(f"\n{'2 KB texts':<12}{'MB/CPU s':>10}{'re':>10}{'ours / re':>11}")
    for row in result["throughput"]:
        print(f"{row['text']:<12}{row['mb_per_s']:>10.1f}{row['re_mb_per_s']:>10.2f}{row['ratio']:>11.0f}")
    print(f"\n{'base check':<12}{'bytes':>7}{'detectors p50 us':>18}{'p90':>9}{'guard p50 us':>15}{'p90':>9}")
    for row in result["base"]:
        print(
            f"{row['text']:<12}{row['bytes']:>7}{row['detectors_p50_us']:>18.0f}{row['detectors_p90_us']:>9.0f}"
            f"{row['guard_p50_us']:>15.0f}{row['guard_p90_us']:>9.0f}"
        )
    scan, floor = result["rows"]
    print(f"\n{scan['what']:<34}{scan['mb_per_s']:>8.1f} MB/CPU s, {scan['rows']} rows")
    print(f"{floor['what']:<34}{floor['mb_per_s']:>8.1f} MB/CPU s")
    print(f"{'scan / floor':<34}{scan['mb_per_s'] / floor['mb_per_s']:>8.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--rows", type=int, default=5_000)
    options = parser.parse_args()
    result = measure(options.repeat, options.rows)
    if options.format == "json":
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        show(result)


if __name__ == "__main__":
    main()
