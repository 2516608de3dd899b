"""A model's endpoint on the loopback interface that behaves as badly as a test asks it to."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HTML = b"<!doctype html><html><title>Sign in</title><p>private prose of a login page</html>"


class ModelServer:
    """Answers in OpenAI's format in the mode `fine`; `mode` says what it does after `good` first answers.

    Modes: fine, html, 500, json (valid, and no answer), slow (silent until the server is closed), down.
    """

    def __init__(self) -> None:
        self.mode = "fine"
        self.good = 0
        self.answered: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]

    @property
    def url(self) -> str:
        """The base URL; nobody listens there before `open`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def open(self) -> None:
        """Listen."""
        self._reserved.close()
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        server.daemon_threads = True
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening, and let go of who waits."""
        self._closing.set()
        self._reserved.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, body: dict[str, Any]) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        prompt = body["messages"][-1]["content"]
        with self._lock:
            mode = "fine" if self.good > 0 else self.mode
            self.good -= 1
            if mode == "fine":
                self.answered[prompt] += 1
        match mode:
            case "fine":
                return 200, "application/json", json.dumps(_completion()).encode()
            case "html":
                return 200, "text/html", HTML
            case "500":
                error = {"error": {"code": "boom", "message": f"private prose about {prompt}"}}
                return 500, "application/json", json.dumps(error).encode()
            case "json":
                return 200, "application/json", b'{"hello": "world"}'
            case _:
                self._closing.wait(30)
                return 503, "text/plain", b""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status, kind, body = owner.answer(json.loads(raw))
                try:
                    self.send_response(status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # the client gave up waiting

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _completion() -> dict[str, Any]:
    message = {"role": "assistant", "content": "How can I help?"}
    return {
        "id": "a",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
