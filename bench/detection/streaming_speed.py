"""Streamed answers under the default policy: cost of each piece, characters held back, and work by length.

    python bench/detection/streaming_speed.py

Prints for several kinds of text, cut into pieces of 20 characters: processor time of one `feed` (median,
p99), characters held back after a piece (mean, median, p99, most), and characters looked at for each
character of the answer at two lengths, which is the same where the work is linear. The last line of a kind is
the time of the same answer checked whole.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from pathlib import Path

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
from stanchion.guard.pipeline import Guard

ROOT = Path(__file__).parents[2]
PIECE = 20
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
        prepared = guard.prepare(ASKED)
        started = time.process_time()
        guard.finish(prepared, Reply(message=assistant(long)))
        print(f"  checked whole: {1e3 * (time.process_time() - started):.1f} ms")


if __name__ == "__main__":
    main()
