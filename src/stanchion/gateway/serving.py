"""The server around the application: one socket, graceful ends, reloads that drop nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import msgspec
import uvicorn

from stanchion.core.errors import StanchionError, UsageError
from stanchion.gateway.app import Gateway
from stanchion.gateway.gateway_file import is_loopback, split_address
from stanchion.gateway.http_protocol import bounded_protocol
from stanchion.gateway.live import Live
from stanchion.store.times import to_us

_log = logging.getLogger(__name__)
_CLOSING_S = 2.0


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the server runs.

    `drain_s` is how long streams may go on after a stop was asked for; `unready_s` how long new requests are
    still answered while readiness already says no, so that balancers hear of it.
    """

    drain_s: float = 30.0
    unready_s: float = 0.0
    backlog: int = 2048
    keep_alive_s: int = 75


def listening_socket(address: str, *, backlog: int = 2048) -> socket.socket:
    """A bound socket for `host:port`; port 0 takes a free one.

    Raises:
        UsageError: when the address is taken or cannot be had.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {address}: {error.strerror or type(error).__name__}.",
            hint="Choose another address with --listen, or end what holds this one.",
        ) from error
    bound.set_inheritable(True)
    return bound


def shown_address(bound: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def check_reach(address: str, *, needs_keys: bool) -> None:
    """Refuse to serve others without keys.

    Raises:
        UsageError: for an address that others can reach while nobody needs a key.
    """
    host, _ = split_address(address)
    if not needs_keys and not is_loopback(host):
        raise UsageError(
            f"{address} can be reached by others, and no keys are asked for.",
            hint="Listen on 127.0.0.1, or make keys first: stanchion access-keys new --help",
        )


class GatewayServer(uvicorn.Server):
    """uvicorn, told to say it is not ready before it stops, and to end what does not finish in time."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, options: ServeOptions) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; remembers the loop for signals."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def stop(self) -> None:
        """Get ready to stop: readiness says no at once, the end comes after `unready_s`."""
        if self._gateway.is_draining or self._loop is None:
            self.should_exit = True
            return
        self._gateway.drain()
        self._loop.call_later(self._options.unready_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains, a second interrupt ends at once."""
        if self._gateway.is_draining:
            self.force_exit = sig == signal.SIGINT
            self.should_exit = True
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let streams finish, and end the rest with an error of its API."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._options.drain_s, self._gateway.end_all)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()


class QuietServer(uvicorn.Server):
    """A second server in the same loop, which leaves the signals to the first one."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield


def make_server(
    gateway: Gateway, options: ServeOptions, *, head_timeout_s: float = 15.0, ssl: Any = None
) -> GatewayServer:
    """A server for the application; nothing listens yet."""
    config = uvicorn.Config(
        gateway,
        http=bounded_protocol(timeout_s=head_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=options.backlog,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=int(options.drain_s + _CLOSING_S + 1),
    )
    return GatewayServer(config, gateway, options)


class Reloader:
    """Makes a configuration anew, off the event loop, and swaps it in; a broken one changes nothing."""

    def __init__(
        self,
        gateway: Gateway,
        build: Callable[[], Live],
        *,
        told: Callable[[Live, int, str], None] = lambda live, tried_at_us, trouble: None,
    ) -> None:
        """`told` hears after each try what is served, when the try began (us), and why it changed nothing."""
        self._gateway = gateway
        self._build = build
        self._told = told
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.trouble = ""

    def start(self) -> None:
        """Reload in the background, as SIGHUP does."""
        task = asyncio.get_running_loop().create_task(self._quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> Live:
        """Read everything again and use it for new requests; what holds now.

        Raises:
            StanchionError: when the new configuration has problems; the old one goes on.
        """
        async with self._lock:
            began_us = to_us(self._gateway.live.clock.now())
            try:
                live = await asyncio.to_thread(self._build)
            except Exception as error:
                self.trouble = "the configuration could not be made"
                if isinstance(error, StanchionError):
                    self.trouble = error.message
                self._told(self._gateway.live, began_us, self.trouble)
                raise
            before = self._gateway.swap(live)
            spare_the_collector()
            self.trouble = ""
            task = asyncio.get_running_loop().create_task(self._retire(before))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._told(live, began_us, "")
            return live

    async def _quietly(self) -> None:
        try:
            live = await self.reload()
        except StanchionError as error:
            _log.error("the configuration was not reloaded: %s", error.message)
        except Exception:
            _log.exception("the configuration was not reloaded")
        else:
            _log.warning("the configuration was reloaded: %s", live.digest)
            if live.needs_restart:
                _log.warning("changed, and read at the start only: %s", ", ".join(live.needs_restart))

    async def _retire(self, live: Live) -> None:
        """Close an old configuration's connections when its last request is over."""
        await self._gateway.unused(live)
        await live.models.aclose()


def spare_the_collector() -> None:
    """Keep the garbage collector off what stays for ever: policies, patterns, modules.

    A full collection walks every object; with the detectors loaded that is a pause for every request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def run_server(
    server: GatewayServer,
    sockets: Sequence[socket.socket],
    *,
    reloader: Reloader | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until it is told to stop."""
    loop = asyncio.get_running_loop()
    spare_the_collector()
    for feature in server._gateway.live.features.values():
        feature.guard.prepare_answers()
    if reloader is not None:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
            loop.add_signal_handler(signal.SIGHUP, reloader.start)
    if started is not None:
        loop.call_soon(started)
    await server.serve(sockets=list(sockets))
    await server._gateway.live.models.aclose()
