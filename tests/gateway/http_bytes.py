"""A connection of our server without a socket: what is fed to it, and what it writes."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

from stanchion.gateway.http_protocol import bounded_protocol


class Kept:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.is_closed = self.is_aborted = self.is_paused = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        assert data, "nothing was written"
        assert not self.is_closed, "written behind the end"
        self.written += data
        self.writes += 1

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        assert not self.is_closed
        self.is_paused = False

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("10.1.2.3", 4567), "sockname": ("10.1.2.4", 80)}.get(name)


class Talk:
    """A client in front of one connection; made on a running loop."""

    def __init__(
        self, app: Any, *, settings: dict[str, Any] | None = None, app_state: Any = None, **limits: Any
    ) -> None:
        self.state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[], total_requests=0)
        config = SimpleNamespace(
            **{
                "loaded_app": app,
                "root_path": "",
                "asgi_version": "3.0",
                "limit_concurrency": None,
                "timeout_keep_alive": 5,
                **(settings or {}),
            }
        )
        made = bounded_protocol(**limits)
        self.connection = made(config, self.state, app_state or {}, asyncio.get_running_loop())
        self.transport = Kept()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    @property
    def said(self) -> bytes:
        return self.transport.written

    async def say(self, *pieces: bytes) -> bytes:
        """Send pieces, each read by itself; everything answered so far."""
        for piece in pieces:
            if not self.transport.is_closed:
                self.connection.data_received(piece)
            await self.settle()
        return self.transport.written

    async def settle(self) -> None:
        """Let the loop do what is ready."""
        for _ in range(12):
            await asyncio.sleep(0)

    async def leave(self) -> None:
        """The client closes."""
        self.transport.close()
        await self.settle()


async def read_all(receive: Any) -> bytes:
    """The whole body, as ASGI gives it."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            return body
    raise ConnectionResetError("the client went")


async def reply(send: Any, body: bytes, *, status: int = 200, headers: Any = ()) -> None:
    """A whole answer, as ASGI sends it."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def answers(data: bytes) -> list[object]:
    """The bodies of answers that follow each other, read strictly."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length:
            body, data = data[: int(length[1])], data[int(length[1]) :]
        else:
            assert b"\r\ntransfer-encoding: chunked" in head
            body = b""
            while True:
                size, _, data = data.partition(b"\r\n")
                piece, end, data = data[: int(size, 16)], *_split(data, int(size, 16))
                assert end == b"\r\n"
                body += piece
                if not piece:
                    break
        found.append(json.loads(body))
    return found


def _split(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[at : at + 2], data[at + 2 :]
