"""Kept-alive connections to one origin: scheme, host and port."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from stanchion.gateway.upstream_connection import Connection, Incoming
from stanchion.gateway.upstream_faults import LinkBroken, UnknownHost, Unreachable, Untrusted

KEEP_S = 15.0
NAMES_S = 60.0
STAGGER_S = 0.25
STALE_S = 1.0  # how soon a connection that the other side had closed says so
Address = tuple[int, tuple[Any, ...]]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider listens."""

    scheme: str
    host: str
    port: int


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What connections may cost; `keep_s` is how long one is kept without a request."""

    connect_s: float = 10.0
    idle_s: float = 60.0
    keep_s: float = KEEP_S
    max_connections: int = 1000


def trusted() -> ssl.SSLContext:
    """Certificates are checked against the system's authorities, and names against certificates."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """The connections to one origin, for one event loop. The last that became free is used first.

    `tls` makes the context of https; it is called once, when the first connection is made.
    """

    def __init__(
        self, origin: Origin, limits: PoolLimits, *, tls: Callable[[], ssl.SSLContext] = trusted
    ) -> None:
        self._origin = origin
        self._limits = limits
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[Connection, None] = {}
        self._all: set[Connection] = set()
        self._slots = limits.max_connections
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._names = _Names(origin)
        self._is_closed = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """How many of them wait for a request."""
        return len(self._idle)

    async def ask(self, request: bytes, body: bytes, *, collect: int = 0) -> Incoming:
        """Ask, and wait for the head of the answer; see `Connection.ask`.

        A connection that had served before, and that closed within a moment and before a byte of an answer
        came, had been closed by the other side when we wrote: then, and once, we ask on a new one.
        One that closes later may have been at work on the request, which is not asked for twice.

        Raises:
            LinkFault: when there is no sound answer.
        """
        connection = self._idle_one() or await self._take()
        try:
            return await connection.ask(request, body, collect=collect)
        except LinkBroken as fault:
            if connection.is_fresh or fault.had_bytes or connection.quiet_s > STALE_S:
                raise
        connection = await self._take(is_new=True)
        return await connection.ask(request, body, collect=collect)

    def close(self) -> None:
        """Close every connection; safe to call twice, and when the loop is gone."""
        self._is_closed = True
        for connection in tuple(self._all):
            with suppress(RuntimeError):
                connection.abort()

    def _idle_one(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_idle:
                return connection
        return None

    async def _take(self, *, is_new: bool = False) -> Connection:
        """A connection that none of the idle ones is; with `is_new` one that never served."""
        if is_new and not self._slots and self._idle:
            self._idle.popitem()[0].abort()  # makes room when its end is noticed
        if not self._slots:
            given = await self._turn()
            if given is not None:
                return given
        else:
            self._slots -= 1
        try:
            return await self._connected()
        except BaseException:
            self._free_slot()
            raise

    async def _turn(self) -> Connection | None:
        """Wait for a connection, or for the right to make one: None."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came just as we were told to stop
                given = turn.result()
                if given is None:
                    self._free_slot()
                elif given.is_idle:
                    self._idled(given)
            raise

    def _free_slot(self) -> None:
        """The right to make a connection goes to whoever waits longest."""
        turn = self._next_turn()
        if turn is None:
            self._slots += 1
        else:
            turn.set_result(None)

    def _next_turn(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn
        return None

    def _idled(self, connection: Connection) -> None:
        if self._is_closed:
            connection.abort()
        elif self._waiting and (turn := self._next_turn()) is not None:
            turn.set_result(connection)
        else:
            self._idle[connection] = None

    def _lost(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        if connection in self._all:
            self._all.discard(connection)
            self._free_slot()

    async def _connected(self) -> Connection:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                return await self._connect()
        except TimeoutError:
            raise Unreachable(f"no connection within {self._limits.connect_s:g} s") from None
        except ssl.SSLError as error:
            raise Untrusted(type(error).__name__) from None
        except OSError as error:
            raise Unreachable(type(error).__name__) from None

    async def _connect(self) -> Connection:
        addresses = await self._names.addresses()
        made = await _first_connected(addresses)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._context()
            connection = Connection(
                on_idle=self._idled,
                on_closed=self._lost,
                idle_s=self._limits.idle_s,
                keep_s=self._limits.keep_s,
            )
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                sock=made,
                ssl=tls,
                server_hostname=None if tls is None else self._origin.host,
            )
        except BaseException:
            made.close()
            raise
        if connection.is_closed:
            raise LinkBroken("it closed", had_bytes=False)
        self._all.add(connection)
        return connection

    def _context(self) -> ssl.SSLContext | None:
        if self._origin.scheme != "https":
            return None
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


class _Names:
    """The addresses behind an origin's name, looked up at most once a minute and once at a time."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._found: tuple[Address, ...] = ()
        self._until = 0.0
        self._lookup: asyncio.Task[None] | None = None
        self._turn = 0

    async def addresses(self) -> Sequence[Address]:
        """Both families in turns, beginning with another address each time."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            if self._lookup is None:
                self._lookup = loop.create_task(self._look_up())
                self._lookup.add_done_callback(self._looked_up)
            await asyncio.shield(self._lookup)
        self._turn = (self._turn + 1) % len(self._found)
        return self._found[self._turn :] + self._found[: self._turn]

    def _looked_up(self, task: asyncio.Task[None]) -> None:
        self._lookup = None
        if not task.cancelled():
            task.exception()  # those who wait were told

    async def _look_up(self) -> None:
        """Look it up, and keep what was found before anybody who waits goes on."""
        host, port = self._origin.host, self._origin.port
        flags = 0 if _is_address(host) else socket.AI_ADDRCONFIG
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=flags
            )
        except (socket.gaierror, UnicodeError) as error:
            raise UnknownHost(type(error).__name__) from None
        listed = [(family, address) for family, _, _, _, address in found]
        first = [one for one in listed if one[0] == listed[0][0]]
        others = [one for one in listed if one[0] != listed[0][0]]
        mixed = [one for pair in zip(first, others, strict=False) for one in pair]
        self._found = tuple(mixed + first[len(others) :] + others[len(first) :])
        self._until = asyncio.get_running_loop().time() + NAMES_S


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _first_connected(addresses: Sequence[Address]) -> socket.socket:
    """A socket of the first address that answers; the next is tried after a moment, or at once on a refusal.

    Raises:
        OSError: the last one, when none answers.
    """
    if len(addresses) == 1:
        return await _socket_to(addresses[0])
    waiting = list(reversed(addresses))
    tries: set[asyncio.Task[socket.socket]] = set()
    last: BaseException = OSError("no address")
    try:
        while waiting or tries:
            if waiting:
                tries.add(asyncio.create_task(_socket_to(waiting.pop())))
            done, tries = await asyncio.wait(
                tries, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            made = [task.result() for task in done if task.exception() is None]
            for extra in made[1:]:
                extra.close()
            if made:
                return made[0]
            last = next((error for task in done if (error := task.exception()) is not None), last)
    finally:
        for task in tries:
            task.add_done_callback(_close_late)
            task.cancel()
    raise last


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _socket_to(address: Address) -> socket.socket:
    family, where = address
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException:
        made.close()
        raise
    return made
