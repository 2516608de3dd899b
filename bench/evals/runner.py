"""The runner against a target that does nothing, beside the least any runner must do, in one run.

    python bench/evals/runner.py [CASES]

Floor: one coroutine call and one JSON line per case. Each arm runs in its own process, so peaks do not mix.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def floor(count: int, folder: Path) -> None:
    async def answer(question: str) -> str:
        return "no " + question[:2]

    async def run() -> None:
        with (folder / "floor.jsonl").open("wb", buffering=0) as file:
            for number in range(count):
                reply = await answer(f"question {number}")
                record = {"id": number, "reply": reply, "outcome": "safe", "score": 0.0}
                file.write(json.dumps(record).encode() + b"\n")

    asyncio.run(run())


def stanchion(count: int, folder: Path) -> None:
    from stanchion.core.clock import SortableIds, SystemClock
    from stanchion.core.components import ComponentSet
    from stanchion.core.interaction import Interaction, Reply, assistant, user
    from stanchion.evals.case import Case, Expectation, case_id, content_digest
    from stanchion.evals.conditions import RunSettings, make_header
    from stanchion.evals.runlog import RunWriter
    from stanchion.evals.runner import EvalRun
    from stanchion.evals.scorers.text import ExcludesScorer

    class Source:
        id = "bench"
        digest = "sha256:" + "0" * 64
        planned = count

        def cases(self) -> Iterator[Case]:
            for number in range(count):
                question = user(f"question {number}")
                own = content_digest({"messages": [question], "expect": {"excludes": ["secret"]}})
                yield Case(
                    id=case_id(own),
                    digest=own,
                    messages=(question,),
                    expect=Expectation(excludes=("secret",)),
                    category="bench",
                )

    class NoOp:
        id = "no-op"
        components = ComponentSet()

        async def invoke(self, interaction: Interaction) -> Interaction:
            reply = Reply(message=assistant("no " + interaction.messages[-1].text[:2]))
            return Interaction(messages=interaction.messages, reply=reply)

        async def aclose(self) -> None:
            return None

    clock = SystemClock()
    scorers = (ExcludesScorer(),)
    settings = RunSettings()
    header = make_header(
        Source(), NoOp(), scorers=scorers, settings=settings, clock=clock, ids=SortableIds(clock)
    )
    with RunWriter.create(folder / header.run_id, header) as writer:
        run = EvalRun(
            Source(), NoOp(), scorers=scorers, header=header, sink=writer, clock=clock, settings=settings
        )
        summary = asyncio.run(run.run())
        writer.finish(summary)
    assert summary.counts.safe == count


ARMS = {"floor": floor, "stanchion": stanchion}


def measure(arm: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin, cpu = time.perf_counter(), time.process_time()
        ARMS[arm](count, Path(folder))
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"arm": arm, "wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "stored_mb": stored / 1e6}))


def main() -> None:
    if len(sys.argv) == 3:
        return measure(sys.argv[1], int(sys.argv[2]))
    count = int(sys.argv[1]) if len(sys.argv) == 2 else 100_000
    rows = {}
    for arm in ARMS:
        done = subprocess.run([sys.executable, __file__, arm, str(count)], check=True, capture_output=True)
        rows[arm] = json.loads(done.stdout)
    print(f"{count:,} cases, a target that does nothing")
    print(f"{'':12}{'cases/s':>10}{'CPU us/case':>13}{'peak MB':>9}{'stored MB':>11}")
    for arm, row in rows.items():
        speed, micros = count / row["wall_s"], row["cpu_s"] / count * 1e6
        print(f"{arm:12}{speed:>10,.0f}{micros:>13.1f}{row['peak_mb']:>9.0f}{row['stored_mb']:>11.1f}")
    print(f"CPU per case, stanchion to floor: {rows['stanchion']['cpu_s'] / rows['floor']['cpu_s']:.1f} to 1")


if __name__ == "__main__":
    main()
