"""What the gateway costs: CPU per request and added latency beside nginx and LiteLLM's proxy, in one run.

    python bench/gateway/overhead.py [--seconds 8] [--rounds 3] [--litellm FOLDER] [--install]

All proxies stand in front of the same upstream (`upstream.py`: 620 bytes of reply, streams of 34 events) with
one worker each. `wrk` asks with 64 connections; CPU per request is the user and system time of a proxy's
whole process tree over the requests that it answered, the median of the rounds; the proxies take turns.
Every user's text and every answer differ from all others in eight words, so that of what a guard remembers of
texts that it saw before only the system prompt is found again, as in an application that has one.
`pass-through` decodes, encodes and records, and runs no detector; `default` is the default policy on input
and output. LiteLLM lives in an environment of its own (`peers.txt`); without it, nginx or wrk the run says
so and leaves the row out. Goals are ratios, so that a slow machine changes little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import streams

import servers
from servers import HERE, Server

CONNECTIONS = 64
STREAM_CONCURRENCY = 16
PAUSE_MS = 5.0
GOALS = (
    # what, over which, at most or at least, bound
    ("pass-through over nginx", "pass-through", "nginx", "<=", 12.0),
    ("default policy over nginx", "default", "nginx", "<=", 30.0),
    ("LiteLLM over pass-through", "litellm", "pass-through", ">=", 30.0),
    ("LiteLLM over default policy", "litellm", "default", ">=", 12.0),
)


def litellm_program(folder: Path | None, *, install: bool) -> Path | None:
    """LiteLLM's command in its environment; made first when asked for."""
    if folder is None:
        return None
    program = folder / "bin" / "litellm"
    if not program.exists() and install:
        venv.create(folder, with_pip=True)
        lock = ["-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(HERE / "peers.txt")]
        subprocess.run([str(folder / "bin" / "python"), *lock], check=True)
    return program if program.exists() else None


def load(server: Server, *, seconds: float) -> dict[str, float]:
    """One round of wrk: CPU per request in microseconds, latency in milliseconds, errors."""
    before = server.cpu_s()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(seconds)}s", "--timeout", "20s"]
    out = subprocess.run(
        [*command, "-s", str(HERE / "requests.lua"), server.url], check=True, capture_output=True, text=True
    ).stdout
    got = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    return {
        "cpu_us": 1e6 * (server.cpu_s() - before) / max(1, got["requests"]),
        "p50_ms": got["p50_us"] / 1000,
        "p99_ms": got["p99_us"] / 1000,
        "per_s": 1e6 * got["requests"] / got["duration_us"],
        "requests": got["requests"],
        "bad": got["bad"],
    }


def stream(server: Server, *, count: int, concurrency: int) -> dict[str, float]:
    """Some streams: CPU per stream in milliseconds, time to the first byte in milliseconds."""
    before = server.cpu_s()
    got = asyncio.run(streams.measure(server.url, streams=count, concurrency=concurrency, api="chat"))
    return {
        "cpu_ms": 1e3 * (server.cpu_s() - before) / max(1, got.good),
        "first_p50_ms": statistics.median(got.first_ms) if got.first_ms else float("nan"),
        "good": got.good,
        "bad": sum(got.bad.values()),
    }


Start = Callable[[Path, Server], AbstractContextManager[Server]]


def started(asked: argparse.Namespace) -> dict[str, Start]:
    """What can be measured here, by name."""
    found: dict[str, Start] = {}
    if shutil.which("nginx"):
        found["nginx"] = servers.nginx
    else:
        print("nginx: not installed, its ratios are left out", file=sys.stderr)
    found["pass-through"] = lambda folder, model: servers.gateway(folder, model, policy="none")
    found["default"] = lambda folder, model: servers.gateway(folder, model, policy="default")
    program = litellm_program(asked.litellm, install=asked.install)
    if program is not None:
        found["litellm"] = lambda folder, model: servers.litellm(folder, model, program)
    else:
        print("LiteLLM: no environment (--litellm FOLDER --install), ratios left out", file=sys.stderr)
    return found


def measure(asked: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of every measure by proxy."""
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        model = stack.enter_context(servers.upstream(folder / "upstream"))
        running = {"direct": model}
        for label, start in started(asked).items():
            running[label] = stack.enter_context(start(folder / label, model))
        if "nginx" in running:
            running["nginx, unbuffered"] = stack.enter_context(
                servers.nginx(folder / "nginx-stream", model, is_stream=True)
            )
        for server in running.values():
            load(server, seconds=2)
            stream(server, count=20, concurrency=4)
        for _ in range(asked.rounds):
            for label, server in running.items():
                row = rows.setdefault(label, {})
                for key, value in load(server, seconds=asked.seconds).items():
                    row.setdefault(key, []).append(value)
                for key, value in stream(server, count=asked.streams, concurrency=STREAM_CONCURRENCY).items():
                    row.setdefault(f"stream {key}", []).append(value)
                alone = stream(server, count=60, concurrency=1)["first_p50_ms"]
                row.setdefault("first byte alone ms", []).append(alone)
        _measure_paced(stack, folder, asked, rows)
        for label in ("default",):
            crowd = stream(running[label], count=asked.crowd, concurrency=asked.crowd)
            rows[label]["crowd good"], rows[label]["crowd bad"] = [crowd["good"]], [crowd["bad"]]
    return {label: {key: statistics.median(v) for key, v in row.items()} for label, row in rows.items()}


def _measure_paced(
    stack: ExitStack, folder: Path, asked: argparse.Namespace, rows: dict[str, dict[str, list[float]]]
) -> None:
    """Streams whose events come one by one, `PAUSE_MS` apart."""
    slow = stack.enter_context(servers.upstream(folder / "paced-upstream", pause_ms=PAUSE_MS))
    running = {
        f"{policy}, paced": stack.enter_context(
            servers.gateway(folder / f"{policy}-paced", slow, policy=policy)
        )
        for policy in ("none", "default")
    }
    for server in running.values():
        stream(server, count=60, concurrency=STREAM_CONCURRENCY)
    for _ in range(asked.rounds):
        for label, server in running.items():
            for key, value in stream(server, count=asked.streams, concurrency=STREAM_CONCURRENCY).items():
                rows.setdefault(label, {}).setdefault(f"stream {key}", []).append(value)


def judged(rows: dict[str, dict[str, float]], crowd: int) -> list[tuple[str, float, str, bool]]:
    """Every goal with what was measured and whether it was met."""
    out: list[tuple[str, float, str, bool]] = []
    for what, above, below, relation, bound in GOALS:
        if above in rows and below in rows:
            ratio = rows[above]["cpu_us"] / rows[below]["cpu_us"]
            is_met = ratio <= bound if relation == "<=" else ratio >= bound
            out.append((what, ratio, f"{relation} {bound:g}x", is_met))
    default = rows["default"]
    added = default["first byte alone ms"] - rows["direct"]["first byte alone ms"]
    cpu_ms = default["stream cpu_ms"]
    out.append(("CPU per stream of 34 events, ms", cpu_ms, "<= 2", cpu_ms <= 2))
    cpu_ms = rows["default, paced"]["stream cpu_ms"]
    out.append((f"the same, an event every {PAUSE_MS:g} ms", cpu_ms, "<= 2", cpu_ms <= 2))
    out.append(("time to first byte, added, ms", added, "<= 3", added <= 3))
    out.append((f"{crowd} streams at once, failed", default["crowd bad"], "0", default["crowd bad"] == 0))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--crowd", type=int, default=2000)
    parser.add_argument("--litellm", type=Path, default=None)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    asked = parser.parse_args()
    if not shutil.which("wrk"):
        print("wrk is not installed; nothing was measured", file=sys.stderr)
        return
    began = time.monotonic()
    rows = measure(asked)
    goals = judged(rows, asked.crowd)
    if asked.format == "json":
        print(json.dumps({"rows": rows, "goals": goals}))
        return
    print(f"{CONNECTIONS} connections, {asked.rounds} rounds of {asked.seconds:g} s, medians")
    heads = f"{'p50 ms':>9}{'p99 ms':>9}{'req/s':>9}{'bad':>6}{'CPU ms/stream':>15}{'first ms':>10}"
    print(f"{'':<20}{'CPU us/request':>15}{heads}")
    for label, row in rows.items():
        if "cpu_us" not in row:
            print(f"{label:<68}{row['stream cpu_ms']:>15.2f}")
            continue
        print(
            f"{label:<20}{row['cpu_us']:>15.1f}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['per_s']:>9.0f}"
            f"{row['bad']:>6.0f}{row['stream cpu_ms']:>15.2f}{row['first byte alone ms']:>10.2f}"
        )
    print()
    for what, value, goal, is_met in goals:
        print(f"{what:<38}{value:>9.2f}  goal {goal:<8} {'met' if is_met else 'MISSED'}")
    print(f"({time.monotonic() - began:.0f} s in all)")


if __name__ == "__main__":
    main()
