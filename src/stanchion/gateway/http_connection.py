"""One connection of a client: HTTP/1.1 as a server, parsed by llhttp, its requests answered in turn.

uvicorn keeps the sockets, the signals and the end of the process, and takes this class as `Config(http=...)`.
llhttp (through `httptools`, with every leniency off) decides what a request is. Here is what comes after it:
the order of answers, and how long and how much a client may keep us waiting. A client that sends a header a
minute, headers or trailers without end, or that asks for a stream and never reads it, would hold a
connection, memory and a provider for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from stanchion.gateway.http_head import Headers, Heads
from stanchion.gateway.http_request import BODY, HIGH_WATER_BYTES, WHEN_GONE, WHOLE, HttpRequest, Scope

FRAMING_BYTES_A_PIECE = 64
MOST_WAITING = 16  # requests that came before the one ahead of them was answered
IGNORED_BYTES = 1024 * 1024
REMEMBERED_TARGET_BYTES = 200
_log = logging.getLogger("uvicorn.error")


def refusal(status: bytes, said: bytes = b"") -> bytes:
    """An answer from below any application; the connection ends with it."""
    kind = b"content-type: text/plain; charset=utf-8\r\n" if said else b""
    return b"HTTP/1.1 %b\r\n%bconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        kind,
        len(said),
        said,
    )


_MALFORMED = refusal(b"400 Bad Request", b"Invalid HTTP request received.")
_TOO_SLOW = refusal(b"408 Request Timeout")
_TOO_MUCH = refusal(b"431 Request Header Fields Too Large")
_NO_UPGRADE = refusal(
    b"400 Bad Request", b"This server upgrades to nothing: send a request with a body without Upgrade."
)


def _read_target(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, query.

    Raises:
        HttpParserInvalidURLError, ValueError: for what is none.
    """
    parsed = parse_url(url)
    if parsed.path is None:
        raise ValueError("no path")
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_remembered_target = lru_cache(maxsize=256)(_read_target)


class HttpConnection(asyncio.Protocol):
    """A connection. Of uvicorn's settings it heeds `root_path`, `limit_concurrency` and `timeout_keep_alive`.

    It writes no access log, and upgrades to nothing.
    """

    head_timeout_s: float
    max_head_bytes: int
    unread_timeout_s: float

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes it, for each connection."""
        self._config, self._state, self._app_state = config, server_state, app_state
        self._app = config.loaded_app
        self._root_path: str = config.root_path
        self._raw_root_path = self._root_path.encode("ascii")
        self._asgi = {"version": config.asgi_version, "spec_version": "2.3"}
        self._loop = _loop or asyncio.get_running_loop()
        self.heads = Heads(server_state)
        self._parser: Any = HttpRequestParser(self)
        self._transport: Any = None
        self._server: Any = None
        self._client: Any = None
        self._scheme = "http"
        # of the request that is read
        self._url = b""
        self._headers: Headers = []
        self._is_in_head = False
        self._surplus = 0  # bytes that came and are no body that anybody wants
        self._read_bytes = 0  # of the read that is parsed
        self._ignored_bytes = 0
        self._complaint = _MALFORMED
        self._newest: HttpRequest | None = None
        # of those that are answered
        self._current: HttpRequest | None = None
        self._waiting: deque[tuple[HttpRequest, Scope]] = deque()
        self._is_deaf = False
        self._last_words = b""
        # of what is written
        self._pieces: list[bytes] = []
        self._is_read_paused = False
        self.is_write_paused = False
        self._writable: asyncio.Event | None = None
        # how long it may take
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # --- the side of the server and the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport
        self._state.connections.add(self)
        self._server = get_local_addr(transport)  # type: ignore[arg-type]
        self._client = get_remote_addr(transport)  # type: ignore[arg-type]
        self._scheme = "https" if is_ssl(transport) else "http"  # type: ignore[arg-type]
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._state.connections.discard(self)
        for timer in (self._idle_timer, self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._is_deaf, self._parser, self._newest = True, None, None
        self._pieces.clear()
        self._waiting.clear()
        self.is_write_paused = False
        if self._writable is not None:
            self._writable.set()
        current, self._current = self._current, None
        if current is not None:
            current.leave()

    def eof_received(self) -> None:
        """A client that ends its side has gone: there is nobody to answer."""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._is_deaf:
            self._ignore(len(data))
            return
        self._idle_since = None
        self._read_bytes = len(data)
        before = self._newest
        was_whole = before is None or before.is_whole
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._is_deaf = True  # what follows is not HTTP/1.1 to whoever meant it
        except HttpParserError:
            _log.warning("Invalid HTTP request received.")
            self._refuse(self._complaint)
        else:
            if self._newest is before and not self._is_deaf:
                self._goes_on(len(data), was_whole=was_whole)

    def pause_writing(self) -> None:
        """The buffer is full: from now on the client has so long to take some of it."""
        self.is_write_paused = True
        if self._writable is not None:
            self._writable.clear()
        if self._unread_timer is None:
            self._unread_timer = self._loop.call_later(self.unread_timeout_s, self._abort)

    def resume_writing(self) -> None:
        """The client reads."""
        self.is_write_paused = False
        if self._writable is not None:
            self._writable.set()
        if self._unread_timer is not None and not self._transport.is_closing():
            self._unread_timer.cancel()
            self._unread_timer = None

    def shutdown(self) -> None:
        """The server stops: what was asked is answered, nothing more is read."""
        if self._current is None or self._newest is None:
            self.close()
        else:
            self._newest.keeps = False

    # --- the side of the parser ---

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._is_deaf:
            return
        self._is_in_head = True
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """The target of the request, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody needs."""
        if self._is_in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: the request can begin before its body is here."""
        if self._is_deaf:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._hear_no_more()
            return
        parser, url, headers = self._parser, self._url, self._headers
        read = _remembered_target if len(url) <= REMEMBERED_TARGET_BYTES else _read_target
        path, raw_path, query = read(url)
        if self._surplus + self._read_bytes > self.max_head_bytes:
            self._check_head()
        version: str = parser.get_http_version()
        method: str = parser.get_method().decode("ascii")
        is_upgrade = parser.should_upgrade()
        if is_upgrade and any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            self._complaint = _NO_UPGRADE
            raise ValueError("a body behind an upgrade: llhttp would not read it as one")
        keeps = version != "1.0" and not is_upgrade and parser.should_keep_alive()
        request = HttpRequest(self, headers, is_head=method == "HEAD", keeps=keeps)
        request.is_old = version == "1.0"
        scope: Scope = {
            "type": "http",
            "asgi": self._asgi,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self._scheme,
            "root_path": self._root_path,
            "headers": headers,
            "method": method,
            "path": self._root_path + path,
            "raw_path": self._raw_root_path + raw_path,
            "query_string": query,
            WHEN_GONE: request.when_gone,
            WHOLE: request.whole,
            BODY: request.body_here,
        }
        if self._app_state:
            scope["state"] = self._app_state.copy()
        self._is_in_head, self._surplus = False, 0
        self._end_head_timer()
        self._newest = request
        if self._current is None:
            self._begin(request, scope)
        else:
            self._waiting.append((request, scope))  # read on: the end of a connection is news, too

    def on_body(self, data: bytes) -> None:
        """Bytes of the body."""
        request = self._newest
        if request is None or request.is_over or request.is_gone or self._is_deaf:
            return
        self._surplus -= len(data) + FRAMING_BYTES_A_PIECE
        request.take(data)
        if len(request.body) > HIGH_WATER_BYTES:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The end of a request."""
        if self._is_deaf:
            return
        self._surplus = 0
        self._end_head_timer()
        if self._newest is not None:
            self._newest.end()

    # --- the side of the requests ---

    @property
    def is_closing(self) -> bool:
        """See `Line`."""
        return bool(self._transport.is_closing())

    def write(self, data: bytes) -> None:
        """See `Line`.

        Head and first event leave in one call to the system; and when the answers of one turn leave behind
        each other, whoever reads them all is woken once.
        """
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """See `Line`."""
        self._is_deaf = True
        self._flush()
        self._transport.close()  # waits until the client has read what is left, and that long
        if self._unread_timer is None and self._transport.get_write_buffer_size():
            self._unread_timer = self._loop.call_later(self.unread_timeout_s, self._abort)

    def resume_reading(self) -> None:
        """See `Line`."""
        if self._is_read_paused and not self._is_deaf and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    async def drained(self) -> None:
        """See `Line`."""
        if self._writable is None:
            self._writable = asyncio.Event()
        if self.is_write_paused:
            await self._writable.wait()

    def answered(self, request: HttpRequest) -> None:
        """See `Line`: the next of those that came together begins, or the wait for one."""
        self._state.total_requests += 1
        self._current = None
        if self._transport.is_closing():
            return
        if not request.keeps:
            self.close()
            return
        self.resume_reading()
        if self._waiting:
            self._begin(*self._waiting.popleft())
        elif self._last_words:
            self._say_and_close(self._last_words)
        else:
            self._wait()

    def ended(self, task: asyncio.Task[None] | None) -> None:
        """See `Line`."""
        self._state.tasks.discard(task)

    # --- inside ---

    def _begin(self, request: HttpRequest, scope: Scope) -> None:
        self._current = request
        limit = self._config.limit_concurrency
        state = self._state
        app = self._app
        if limit is not None and (len(state.connections) >= limit or len(state.tasks) >= limit):
            _log.warning("Exceeded concurrency limit.")
            app = service_unavailable
        request.task = task = self._loop.create_task(request.run(app, scope))
        state.tasks.add(task)

    def _goes_on(self, size: int, *, was_whole: bool) -> None:
        """No request began in these bytes: they end one, belong to one, or are the beginning of a head."""
        if was_whole or (self._newest is not None and not self._newest.is_whole):
            self._surplus = max(0, self._surplus) + size if was_whole else max(0, self._surplus + size)
            if self._surplus > self.max_head_bytes:
                self._refuse(_TOO_MUCH)
                return
        if self._current is None:
            self._wait()

    def _wait(self) -> None:
        """Nobody is answered: wait for the rest of what has begun, or for the next request."""
        if self._is_in_head or self._surplus > 0 or self._newest is None or not self._newest.is_whole:
            if self._head_timer is None:
                self._await_head()
            return
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._config.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """The one timer of all its requests: close it when it was idle for so long, else look again."""
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self._config.timeout_keep_alive - self._loop.time()
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._look)
        else:
            self.close()

    def _hear_no_more(self) -> None:
        """More requests at once than are kept: those before are answered, and then it ends."""
        self._is_deaf, self._is_in_head = True, False
        if self._newest is not None:
            self._newest.keeps = False

    def _ignore(self, size: int) -> None:
        """What nobody reads is taken for a while, so that the end of the connection is heard."""
        self._ignored_bytes += size
        if self._ignored_bytes > IGNORED_BYTES:
            self._pause_reading()

    def _check_head(self) -> None:
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > self.max_head_bytes:
            self._complaint = _TOO_MUCH
            raise ValueError("a head that is too large")

    def _refuse(self, words: bytes) -> None:
        """Read no more. What came whole before is answered first, then this is said, and it closes."""
        newest = self._newest
        self._is_deaf = True
        if newest is not None and not newest.is_whole:  # it is the body that is not sound
            if newest.is_over:
                words = b""
            elif newest is self._current:
                words = b"" if newest.has_begun else words
                self._current = None
                newest.leave()
            else:
                self._waiting.pop()
        if self._current is None:
            self._say_and_close(words)
        else:
            self._last_words = words

    def _say_and_close(self, words: bytes) -> None:
        if words and not self.is_closing:
            self.write(words)
        self.close()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self.head_timeout_s, self._too_slow)

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        self._say_and_close(_TOO_SLOW if self._is_in_head else b"")

    def _abort(self) -> None:
        """Not an orderly end: that would wait for the client to read."""
        self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()

    def _flush(self) -> None:
        if self._pieces and self._transport is not None:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(data)
