"""A model's endpoint that costs almost nothing: answers in OpenAI's and Anthropic's format.

    python bench/gateway/upstream.py PORT [--pause-ms 0]

An answer has 620 bytes of body, a stream 34 events; eight words of each are others than in the one before. A
stream is asked for by `"stream":true` in the body;
`--pause-ms` waits before each event. It is an own small HTTP/1.1 server, so that its share of the machine
stays far below that of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Callable, Iterator

REPLY_BYTES = 620
STREAM_EVENTS = 34
SLOT = "blue warm wide tall soft dark cold fair "  # what is another in every answer, of the same length
TEXT = (
    f"{SLOT}The parcel left our warehouse on Tuesday and should reach you within three working days. You can "
    "follow it with the link in the message that we sent you. If it has not come by then, write to us again."
)
WORDS = TEXT.split(" ")


def _phrases() -> Iterator[bytes]:
    """Eight words, other ones each time."""
    words = [word.encode() for word in (SLOT + "late long neat pale rare safe slow thin").split()]
    for number in itertools.count():
        yield b"".join([words[number >> 4 * place & 15] + b" " for place in range(8)])


def _varied(answer: bytes, phrase: bytes) -> bytes:
    """The answer with another phrase; its length stays. In a stream the words come one by one."""
    if SLOT.encode() in answer:
        return answer.replace(SLOT.encode(), phrase)
    for old, new in reversed(list(zip(SLOT.split(), phrase.split(), strict=True))):
        answer = answer.replace(b'"' + old.encode() + b' "', b'"' + new + b' "', 1)
    return answer


def chat_body() -> bytes:
    """A chat completion of exactly 620 bytes."""
    return _filled(
        lambda text: {
            "id": "chatcmpl-bench", "object": "chat.completion", "created": 1700000000, "model": "bench",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": 60, "completion_tokens": 70, "total_tokens": 130},
        }
    )  # fmt: skip


def message_body() -> bytes:
    """An Anthropic message of exactly 620 bytes."""
    return _filled(
        lambda text: {
            "id": "msg_bench", "type": "message", "role": "assistant", "model": "bench",
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 60, "output_tokens": 70},
        }
    )  # fmt: skip


def _filled(make: Callable[[str], object]) -> bytes:
    sentence = TEXT + " "
    size = REPLY_BYTES - len(_json(make("")))
    body = _json(make((sentence * 4)[:size]))
    if len(body) != REPLY_BYTES:
        raise SystemExit(f"the reply has {len(body)} bytes, not {REPLY_BYTES}")
    return body


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chat_events() -> list[bytes]:
    """34 events of a chat: the role, 31 pieces of text, the end and `[DONE]`."""

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000}
        return b"data: " + _json({**head, "model": "bench", "choices": [choice]}) + b"\n\n"

    pieces = [chunk({"content": f"{word} "}) for word in WORDS[: STREAM_EVENTS - 3]]
    return [chunk({"role": "assistant", "content": ""}), *pieces, chunk({}, "stop"), b"data: [DONE]\n\n"]


def message_events() -> list[bytes]:
    """34 events of an Anthropic message."""

    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\n".encode() + b"data: " + _json({"type": kind, **fields}) + b"\n\n"

    start = {
        "id": "msg_bench", "type": "message", "role": "assistant", "model": "bench", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 60, "output_tokens": 1},
    }  # fmt: skip
    words = WORDS[: STREAM_EVENTS - 5]
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": w + " "})
            for w in words
        ),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 70},
        ),
        event("message_stop"),
    ]


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERS = {b"chat": _answer(chat_body()), b"messages": _answer(message_body())}
EVENTS = {b"chat": chat_events(), b"messages": message_events()}
PHRASES = _phrases()


def _chunked(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class Endpoint(asyncio.Protocol):
    """One connection; requests of a known length, one after the other."""

    pause_s = 0.0

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = 0 if at < 0 else int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._serve(head, body)

    def _serve(self, head: bytes, body: bytes) -> None:
        if self._transport is None:
            return
        api = b"messages" if b"/messages" in head.split(b"\r\n", 1)[0] else b"chat"
        if b'"stream":true' not in body.replace(b'"stream": true', b'"stream":true'):
            self._transport.write(_varied(ANSWERS[api], next(PHRASES)))
        elif self.pause_s:
            phrase = next(PHRASES)
            task = asyncio.ensure_future(self._paced([_varied(event, phrase) for event in EVENTS[api]]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            frames = b"".join(_chunked(event) for event in EVENTS[api])
            self._transport.write(_varied(STREAM_HEAD + frames + b"0\r\n\r\n", next(PHRASES)))
        if b"connection: close" in head and not self.pause_s:
            self._transport.close()

    async def _paced(self, events: list[bytes]) -> None:
        out = STREAM_HEAD
        for event in events:
            await asyncio.sleep(self.pause_s)
            if self._transport is None:
                return
            self._transport.write(out + _chunked(event))
            out = b""
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(
        Endpoint, "127.0.0.1", port, backlog=4096, reuse_address=True
    )
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--pause-ms", type=float, default=0.0)
    asked = parser.parse_args()
    Endpoint.pause_s = asked.pause_ms / 1000
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(asked.port))
    else:
        uvloop.run(serve(asked.port))


if __name__ == "__main__":
    main()
