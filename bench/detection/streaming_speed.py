"""Streamed answers under the default policy: cost of each piece, characters held back, and work by length.

    python bench/detection/streaming_speed.py

Prints for several kinds of text, cut into pieces of 20 characters: processor time of one `feed` (median,
p99), characters held back after a piece (mean, median, p99, most), and characters looked at for each
character of the answer at two lengths, which is the same where the work is linear. The last lines of
a kind are for the same answer checked whole: all of it, one look by the detectors that stream, and what they
check as it is and by frames alone.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stanchion.core.interaction import (
    End,
    FinishReason,
    Interaction,
    Reply,
    TextDelta,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.detectors.incremental import WindowViews
from stanchion.detectors.registry import Registry
from stanchion.guard.checks import Check, CheckInput, CheckRunner
from stanchion.guard.frames import FieldScan, settles
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.workers import AsyncDoor

ROOT = Path(__file__).parents[2]
PIECE = 20
WHOLE = (500, 2_000, 16_000)
RUNNER, DOOR = CheckRunner(WindowViews), AsyncDoor()
ASKED = Interaction(
    messages=(
        system("You help customers of a shop for lamps. Discount codes are for staff only."),
        user("Can you tell me something about it?"),
    ),
    session_id="bench",
)


def texts() -> dict[str, str]:
    """Ordinary texts by kind; the packaged documentation is the prose, so that nothing is downloaded."""
    policy = (ROOT / "docs" / "explanation" / "policy.md").read_text()
    words = re.sub(r"\s+", " ", re.sub(r"[^A-Za-z ,.;\n]", " ", policy))
    german = "Das Wetter in München war schön, und wir gingen über die Brücke; „herrlich“, sagte Käthe. "
    chinese = "今天天气很好，我们一起去公园散步。然后我们吃了午饭，聊了很多有趣的事情。"  # noqa: RUF001 - Chinese
    numbers = "Order 4711 of 12 March 2025 holds 3 lamps at 19.90 each; call 555 0142 33 or see page 12. "
    return {
        "prose": words,
        "markdown": policy,
        "code": (ROOT / "src" / "stanchion" / "guard" / "frames.py").read_text(),
        "German": german,
        "Chinese": chinese,
        "numbers": numbers,
    }


class Run:
    """One answer streamed: seconds of each feed, characters held after it, characters looked at."""

    def __init__(self) -> None:
        self.feeds: list[float] = []
        self.held: list[int] = []
        self.work = 0


async def stream(guard: Guard, text: str) -> Run:
    """Stream one text."""
    run = Run()
    stream = guard.stream(await guard.aprepare(ASKED))
    fed = shown = 0
    for start in range(0, len(text), PIECE):
        piece = text[start : start + PIECE]
        started = time.process_time()
        events = await stream.feed(TextDelta(text=piece))
        run.feeds.append(time.process_time() - started)
        fed += len(piece)
        shown += sum(len(event.text) for event in events if isinstance(event, TextDelta))
        run.held.append(fed - shown)
    await stream.feed(End(finish_reason=FinishReason.STOP))
    run.work = stream.report.work
    return run


def percentile(values: list[float] | list[int], share: float) -> float:
    """The value below which this share lies."""
    return float(sorted(values)[min(len(values) - 1, int(len(values) * share))])


def fastest(work: Callable[[], object]) -> float:
    """Milliseconds of processor time, the least of nine."""
    taken = []
    for _ in range(9):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return 1e3 * min(taken)


def whole_cost(guard: Guard, text: str) -> str:
    """What an answer costs that is checked whole, and what one look by the detectors that stream costs."""
    prepared = guard.prepare(ASKED)
    registry = Registry()
    whole: list[Any] = [registry.create(name) for name in ("secrets", "pii", "leakage", "injection.patterns")]
    parts = [part for one in whole for part in (getattr(one, "parts", None) or (one,)) if settles(part)]

    checks = [Check(detector=part, settings=DetectorSettings()) for part in parts]
    like = CheckInput(field="text", text=text, origin=Origin.MODEL)

    async def look() -> None:
        await RUNNER.run(DOOR, checks, [like])

    async def frames(*, is_at_once: bool) -> None:
        scan = FieldScan(RUNNER, checks, like, views=WindowViews, given_up=set())
        scan.add(text)
        while not (is_at_once and await scan.at_once(DOOR)) and await scan.step(DOOR) is not None:
            pass
        await scan.finish(DOOR)

    guard.finish(prepared, Reply(message=assistant(text)))
    all_of_it = fastest(lambda: guard.finish(prepared, Reply(message=assistant(text))))
    one = fastest(lambda: asyncio.run(look()))
    slow = fastest(lambda: asyncio.run(frames(is_at_once=False)))
    quick = fastest(lambda: asyncio.run(frames(is_at_once=True)))
    return (
        f"{len(text):,} characters {all_of_it:.2f} ms in all; one look {one:.2f} ms, "
        f"what streams checked {quick:.2f} ms (x{quick / one:.1f}), by frames alone {slow:.2f} ms"
    )


def main() -> None:
    """Print the table."""
    guard = Guard.load()
    asyncio.run(stream(guard, "Once, so that everything is built. " * 20))
    for kind, text in texts().items():
        long = (text * (1 + 16_000 // len(text)))[:16_000]
        asyncio.run(stream(guard, long[:2_000]))
        short, whole = asyncio.run(stream(guard, long[:4_000])), asyncio.run(stream(guard, long))
        micros = [1e6 * seconds for seconds in whole.feeds]
        print(f"{kind}: {len(long):,} characters in pieces of {PIECE}")
        print(f"  feed: median {statistics.median(micros):.0f} us, p99 {percentile(micros, 0.99):.0f} us")
        mean, median = statistics.mean(whole.held), statistics.median(whole.held)
        worst = percentile(whole.held, 0.99)
        most = max(whole.held)
        print(f"  characters held back: mean {mean:.1f}, median {median:.0f}, p99 {worst:.0f}, most {most}")
        first, last = short.work / 4_000, whole.work / len(long)
        print(f"  looked at per character: {first:.2f} in 4,000, {last:.2f} in {len(long):,}")
        for length in WHOLE:
            print(f"  checked whole: {whole_cost(guard, long[:length])}")


if __name__ == "__main__":
    main()
