"""A provider that answers every request with what a test told it to say, and a gateway in front of it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


def chat_answer(message: Json, finish_reason: str | None = "stop") -> Json:
    """A chat completion with this message."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]} | {
        "usage": usage
    }


def chat_chunks(*deltas: Json, finish_reason: str | None = "stop") -> list[Json]:
    """The chunks of one streamed chat answer."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = [{**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    return [*said, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}]


def message_answer(*content: Json, stop_reason: str | None = "end_turn") -> Json:
    """A message of Anthropic's API."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return {**head, "content": list(content), "stop_reason": stop_reason, "usage": usage}


def message_events(*blocks: tuple[Json, list[Json]], stop_reason: str = "end_turn") -> list[Json]:
    """The events of one streamed message; a block is its start and its deltas."""
    begun = {**message_answer(stop_reason=None), "content": []}
    events: list[Json] = [{"type": "message_start", "message": begun}]
    for index, (start, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": stop_reason, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}})
    return [*events, {"type": "message_stop"}]


def _frame(event: Json) -> str:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n"


class ToldProvider:
    """The server; a context manager. `answer` is said to whole requests, `events` to streamed ones."""

    def __init__(self) -> None:
        self.answer: Json = {}
        self.events: list[Json] = []
        self.asked: list[Json] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                told.asked.append(body)
                if body.get("stream"):
                    named = [_frame(event) for event in told.events]
                    kind, data = "text/event-stream", "".join([*named, "data: [DONE]\n\n"]).encode()
                else:
                    kind, data = "application/json", json.dumps(told.answer).encode()
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ToldProvider:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
