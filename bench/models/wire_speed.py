"""CPU of one streamed chunk: bytes of an upstream -> events -> bytes for a client, for every API.

Each figure is process CPU time for a chunk, the median of several runs, and the ratio to `json.loads` and
`json.dumps` of the same chunk. Run: python bench/models/wire_speed.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

from stanchion.core.interaction import Interaction, user
from stanchion.models.surfaces import SURFACES
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import Request

CHUNKS = 400
RUNS = 15
WORDS = ["The ", "order ", 'with the "number" ', "7 ", "left: ", "Zürich ", "at 10:30 ", "today. \n"]
ASKED = Request(interaction=Interaction(messages=(user("Hi"),), model="gpt-x"), include_usage=True)


def chat(word: str, number: int, *, obfuscated: bool = False) -> bytes:
    choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "chatcmpl-Abc123", "object": "chat.completion.chunk", "created": 1760000000}
    chunk |= {"model": "gpt-x-2026", "service_tier": "default", "system_fingerprint": "fp_1"}
    chunk |= {"choices": [choice], "usage": None}
    if obfuscated:
        chunk["obfuscation"] = f"{number:x}" * 3
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()


def message(word: str, number: int) -> bytes:
    delta = {"type": "text_delta", "text": word}
    event = {"type": "content_block_delta", "index": 0, "delta": delta}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def response(word: str, number: int) -> bytes:
    event = {"type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_1"}
    event |= {"output_index": 0, "content_index": 0, "delta": word, "logprobs": [], "obfuscation": "x" * 9}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


CASES: list[tuple[str, str, str, Callable[[str, int], bytes]]] = [
    ("openai.chat", "openai.chat", "", chat),
    ("openai.chat", "openai.chat", " (random field)", lambda w, n: chat(w, n, obfuscated=True)),
    ("anthropic.messages", "anthropic.messages", "", message),
    ("openai.responses", "openai.responses", "", response),
    ("anthropic.messages", "openai.chat", "", message),
    ("openai.chat", "anthropic.messages", "", chat),
]


def framed(data: bytes, api: str) -> bytes:
    if api == "openai.chat":
        return b"data: " + data + b"\n\n"
    return b"event: " + json.loads(data)["type"].encode() + b"\ndata: " + data + b"\n\n"


def through(frames: list[bytes], upstream: str, surface: str) -> int:
    reader = UPSTREAMS[upstream].reader()
    encoder = SURFACES[surface].stream_encoder(asked=ASKED, response_id="r1", created=1)
    size = 0
    for frame in frames:
        for event in reader.feed(frame):
            for out in encoder.feed(event):
                size += len(out)
    return size


def plain(chunks: list[bytes]) -> int:
    return sum(len(json.dumps(json.loads(chunk))) for chunk in chunks)


def cpu_us(work: Callable[[], int]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - began) / 1e3 / CHUNKS)
    return statistics.median(times)


def main() -> None:
    print(f"{CHUNKS} chunks of text, median of {RUNS} runs, process CPU time")
    print(f"{'upstream -> client':50}{'us/chunk':>10}{'loads+dumps':>13}{'ratio':>8}")
    for upstream, surface, note, make in CASES:
        chunks = [make(WORDS[n % len(WORDS)], n) for n in range(CHUNKS)]
        frames = [framed(chunk, upstream) for chunk in chunks]
        ours = cpu_us(lambda f=frames, u=upstream, s=surface: through(f, u, s))  # type: ignore[misc]
        theirs = cpu_us(lambda c=chunks: plain(c))  # type: ignore[misc]
        print(f"{upstream + ' -> ' + surface + note:50}{ours:10.2f}{theirs:13.2f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
