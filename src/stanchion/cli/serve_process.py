"""One serving process: made, run until it is told to stop, closed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from stanchion.cli.output import note
from stanchion.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from stanchion.bootstrap_gateway import GatewayProcess, GatewaySources
    from stanchion.gateway.reloading import WorkersReload
    from stanchion.gateway.serving import GatewayServer, Reloader, ServeOptions

_LOOK_S = 2.0


def make_process(
    sources: GatewaySources, console: Console, *, is_quiet: bool, worker: int = 0
) -> GatewayProcess:
    """A gateway whose requests are told of on the console."""
    from stanchion.bootstrap_gateway import make_gateway
    from stanchion.cli.serve_view import TerminalView

    return make_gateway(sources, observers=(TerminalView(console, is_quiet=is_quiet),), worker=worker)


def run_process(process: GatewayProcess, options: ServeOptions, bound: Any, *, parent: int = 0) -> None:
    """Serve until it is told to stop, or `parent` is gone; then write what is left of the records."""
    from stanchion.gateway.serving import Reloader, make_server, run_server

    server = make_server(process.gateway, options)
    reloader = Reloader(process.gateway, process.build, told=process.tell)

    async def main() -> None:
        watch = asyncio.create_task(_stop_without(parent, server)) if parent else None
        try:
            async with _admin(process, reloader, parent), _upkeep(process):
                await run_server(server, [bound], reloader=reloader)
        finally:
            if watch is not None:
                watch.cancel()

    try:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(main())
    finally:
        process.close()


@asynccontextmanager
async def _admin(process: GatewayProcess, reloader: Reloader, parent: int) -> AsyncIterator[None]:
    """The admin API on its own address in the same process, where this one has it."""
    from stanchion.gateway.serving import QuietServer, listening_socket

    if not process.admin_address:
        yield
        return
    try:
        bound = listening_socket(process.admin_address)
    except UsageError as error:
        if process.sources.file is not None:
            raise UsageError(
                f"the admin API: {error.message}",
                hint="Set admin_listen in the gateway file to another address; empty: no admin API.",
            ) from error
        note(f"no admin API here: {error.message} The gateway serves without it.")
        yield
        return
    server = QuietServer(process.admin_app(_reload(process, reloader, parent)))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _reload(process: GatewayProcess, reloader: Reloader, parent: int) -> WorkersReload:
    """What the admin API's reload does: this process first, then all of its gateway by its parent."""
    from stanchion.gateway.reloading import RELOAD_S, WorkersReload
    from stanchion.gateway.replicas import Replicas

    loop = asyncio.get_running_loop()
    clock = process.gateway.live.clock

    def here() -> tuple[str, tuple[str, ...]]:
        live = asyncio.run_coroutine_threadsafe(reloader.reload(), loop).result(RELOAD_S)
        return live.digest, live.needs_restart

    def tell() -> None:
        if os.getppid() == parent:  # without it this process ends within seconds
            os.kill(parent, signal.SIGHUP)

    return WorkersReload(
        Replicas(process.database, clock=clock),
        reload=here,
        tell=tell,
        group=process.group,
        workers=process.sources.workers,
        clock=clock,
    )


@asynccontextmanager
async def _upkeep(process: GatewayProcess) -> AsyncIterator[None]:
    """What the parts do beside requests; at the end they give back what they hold."""
    from stanchion.core.clock import SystemClock
    from stanchion.gateway.approval_notices import FleetNotices
    from stanchion.gateway.upkeep import Upkeep

    settings = process.sources.settings
    store, redis = settings.store_url.reveal(), settings.redis_url
    notices = FleetNotices(
        postgres_url=store if store.startswith("postgres") else "",
        redis_url="" if redis is None else redis.reveal(),
    )
    upkeep = Upkeep(lambda: process.gateway.live.parts, clock=SystemClock(), notices=notices)
    upkeep.failures = process.gauges.upkeep_failures
    await upkeep.begin()
    tasks = [
        asyncio.create_task(upkeep.run()),
        asyncio.create_task(notices.run()),
        asyncio.create_task(process.gauges.run(process.metrics.metrics)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await upkeep.close()


async def _stop_without(parent: int, server: GatewayServer) -> None:
    """A worker whose supervisor is gone would hold the address for ever."""
    while os.getppid() == parent:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_LOOK_S)
    server.stop()
