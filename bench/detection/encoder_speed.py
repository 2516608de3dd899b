"""Speed of `injection.encoder` on one thread, beside `injection.linear`; the size of its wheel; its start.

    python bench/detection/encoder_speed.py [--format json] [--repeat 60]

p50 and p90 of a call, in milliseconds of the processor (other work on the machine counts less that way) and
of the clock, on English prose of 32 to 2,048 tokens. A text beyond 126 tokens is read
in overlapping windows, so its cost grows by whole windows. `encoder` is the detector with views made before;
`linear` is the other tier on the same text, whose n-grams were computed before. Needs the extra `ml` and
stanchion-ml-weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stanchion.core.errors import StanchionError
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.encoder import EncoderDetector
from stanchion.detectors.encoder_model import check_installed, load_encoder, window_starts
from stanchion.detectors.linear import LinearDetector
from stanchion.detectors.views import build_views

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENS = (32, 128, 256, 512, 2048)
PROSE = (
    "The shop in Lyon moved to a larger house near the river in May {n}. ",
    "Sales of garden tools rose by {n} percent and fell again in autumn. ",
    "Maria wrote report {n} and thanks everyone who sent her numbers. ",
    "The weather was dry, so that {n} people bought fewer seeds than before. ",
)


def sample(tokens: int) -> str:
    """English prose of exactly so many tokens; no sentence occurs twice."""
    model, text, number = load_encoder(), "", 0
    while len(model.tokens(text).ids) < tokens:
        text += PROSE[number % len(PROSE)].format(n=number + 3)
        number += 1
    return text[: model.tokens(text).spans[tokens - 1][1]]


def timed(call: Callable[[], Any], repeat: int) -> dict[str, float]:
    """p50 and p90 in milliseconds, of the processor and of the clock."""
    for _ in range(3):
        call()
    taken = []
    for _ in range(repeat):
        started = time.process_time(), time.perf_counter()
        call()
        taken.append((time.process_time() - started[0], time.perf_counter() - started[1]))
    found = {}
    for name, values in zip(("cpu", "clock"), zip(*taken, strict=True), strict=True):
        ordered = sorted(1000 * value for value in values)
        found |= {f"{name}_p50_ms": statistics.median(ordered), f"{name}_p90_ms": ordered[int(repeat * 0.9)]}
    return found


def measure(repeat: int) -> list[dict[str, Any]]:
    """One record per length and reader."""
    records = []
    for tokens in TOKENS:
        text = sample(tokens)
        made = DetectorInput(view_set=build_views(text), origin=Origin.USER)
        for name, detector in (("encoder", EncoderDetector()), ("linear", LinearDetector())):
            times = timed(lambda detector=detector, made=made: detector.detect(made), repeat)
            windows = len(window_starts(tokens)) if name == "encoder" else 0
            records.append(
                {"tokens": tokens, "characters": len(text), "windows": windows, "reader": name} | times
            )
    return records


def start_ms() -> float:
    """Milliseconds of the processor to the first answer of a new process: import, verify, open, run."""
    code = (
        "import time; from stanchion.detectors.encoder_model import load_encoder; s = time.process_time();"
        "m = load_encoder(); m.logits(m.tokens('hello').ids); print(1000 * (time.process_time() - s))"
    )
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def wheel_bytes() -> int:
    """The size of the wheel of the weights, built here without asking any index."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder,
             str(REPOSITORY / "packages/stanchion-ml-weights")],
            check=True,
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.stat().st_size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--repeat", type=int, default=60)
    arguments = parser.parse_args()
    try:
        check_installed()
    except StanchionError as error:
        print(f"not measured: {error}")
        return
    records, start, size = measure(arguments.repeat), start_ms(), wheel_bytes()
    if arguments.format == "json":
        json.dump({"times": records, "start_cpu_ms": start, "wheel_bytes": size}, sys.stdout, indent=2)
        return
    print(f"{'tokens':>6} {'windows':>7} {'reader':8} {'cpu p50 ms':>11} {'cpu p90 ms':>11} {'p50 ms':>9}")
    for r in records:
        line = f"{r['tokens']:>6} {r['windows'] or '':>7} {r['reader']:8} {r['cpu_p50_ms']:>11.2f}"
        print(f"{line} {r['cpu_p90_ms']:>11.2f} {r['clock_p50_ms']:>9.2f}")
    print(f"start: {start:.0f} ms of the processor; wheel of the weights: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
