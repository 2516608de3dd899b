"""A client for streams: time to the first byte, the whole stream, and many streams at once.

    python bench/gateway/streams.py URL --streams 2000 --concurrency 2000 [--api chat|messages] [--key KEY]

Prints one line of JSON. A stream is good when the status is 200 and its last event came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ENDS = {"chat": b"data: [DONE]", "messages": b"event: message_stop"}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}
MODELS = {"chat": "bench", "messages": "bench-messages"}


@dataclass
class Measured:
    """What the streams did; times in milliseconds."""

    good: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    first_ms: list[float] = field(default_factory=list)
    whole_ms: list[float] = field(default_factory=list)


def request(url: str, api: str, key: str) -> bytes:
    """The bytes of one request for a stream."""
    host = urlsplit(url).netloc
    asked = {
        "model": MODELS[api], "stream": True, "max_tokens": 200,
        "messages": [{"role": "user", "content": "When will my parcel arrive? I ordered it last week."}],
    }  # fmt: skip
    body = json.dumps(asked, separators=(",", ":")).encode()
    head = f"POST {PATHS[api]} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\nx-api-key: {key}\r\nanthropic-version: 2023-06-01\r\n"
    return (head + f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


async def one(url: str, api: str, sent: bytes, into: Measured) -> None:
    """One stream over a connection of its own."""
    address = urlsplit(url)
    began = time.perf_counter()
    first = 0.0
    tail = b""
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(sent)
        status = (await reader.readline()).split()
        if len(status) < 2 or status[1] != b"200":
            raise ValueError(f"status {status[1].decode() if len(status) > 1 else 'none'}")
        while (await reader.readline()).strip():
            pass
        while piece := await reader.read(65536):
            if not first and b"data:" in piece:
                first = time.perf_counter()
            tail = (tail + piece)[-4096:]
            if tail.endswith(b"0\r\n\r\n"):
                break
        writer.close()
        if ENDS[api] not in tail:
            raise ValueError("no end")
    except (OSError, ValueError) as error:
        name = str(error) or type(error).__name__
        into.bad[name] = into.bad.get(name, 0) + 1
        return
    into.good += 1
    into.first_ms.append(1000 * (first - began))
    into.whole_ms.append(1000 * (time.perf_counter() - began))


async def measure(url: str, *, streams: int, concurrency: int, api: str, key: str = "bench") -> Measured:
    """So many streams, so many of them at a time."""
    into = Measured()
    sent = request(url, api, key)
    left = iter(range(streams))

    async def worker() -> None:
        for _ in left:
            await one(url, api, sent, into)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return into


def quantile(values: list[float], share: float) -> float:
    """A quantile of the values, 0 for none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--api", choices=tuple(PATHS), default="chat")
    parser.add_argument("--key", default="bench")
    asked = parser.parse_args()
    got = asyncio.run(
        measure(asked.url, streams=asked.streams, concurrency=asked.concurrency, api=asked.api, key=asked.key)
    )
    print(
        json.dumps(
            {
                "good": got.good,
                "bad": got.bad,
                "first_ms": {
                    "p50": round(statistics.median(got.first_ms), 3) if got.first_ms else None,
                    "p99": round(quantile(got.first_ms, 0.99), 3),
                },
                "whole_ms": {"p50": round(statistics.median(got.whole_ms), 3) if got.whole_ms else None},
            }
        )
    )


if __name__ == "__main__":
    main()
