"""A real uvicorn server on loopback in a thread, in front of models made for a test."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.gateway.app import Gateway
from stanchion.gateway.building import make_feature
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.live import Live, Parts
from stanchion.gateway.paths import served_paths
from stanchion.gateway.ports import ExchangeRecord, RequestFacts
from stanchion.gateway.upstream import ClientUpstream, Models, Provider, make_route
from stanchion.guard.pipeline import Guard
from stanchion.models.script import read_script
from stanchion.models.scripted import ScriptedModel
from stanchion.models.surfaces import SURFACES
from stanchion.store.identity import IdKeys


@dataclass
class Records:
    """An observer that keeps everything."""

    begun: list[RequestFacts] = field(default_factory=list)
    gateway: Any = None
    all: list[ExchangeRecord] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def started(self, facts: RequestFacts) -> None:
        self.begun.append(facts)

    def finished(self, record: ExchangeRecord) -> None:
        with self._changed:
            self.all.append(record)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget everything, once no request is on its way any more."""
        end = time.monotonic() + 5
        while self.gateway is not None and self.gateway.in_flight and time.monotonic() < end:
            time.sleep(0.002)
        self.begun.clear()
        self.all.clear()

    def only(self, seconds: float = 5.0) -> ExchangeRecord:
        """The one record since the last `clear`."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.all, seconds), "no record was made"
        assert len(self.all) == 1, [(r.outcome, r.stage) for r in self.all]
        return self.all[0]


def scripted_models(script: dict[str, Any], **more: Any) -> Models:
    """One scripted provider behind the names `scripted` and `other`."""
    client = ScriptedModel(read_script({"name": "test", **script}))
    provider = Provider(name="script", vendor="scripted", upstream=ClientUpstream(client), prices={}, **more)
    routes = {name: make_route(name, provider, name) for name in ("scripted", "other")}
    return Models(routes, providers={"script": provider})


def live(
    models: Models, guards: dict[str, Guard], records: Records, *, parts: Parts | None = None, **more: Any
) -> Live:
    """A configuration for tests; each guard is a feature, the first one the default."""
    clock = SystemClock()
    model = more.pop("feature_model", FeatureModel())
    return Live(
        environment="dev",
        features={name: make_feature(name, model, guard) for name, guard in guards.items()},
        default_feature=next(iter(guards)),
        models=models,
        clock=clock,
        ids=SortableIds(clock),
        id_keys=IdKeys(b"0123456789abcdef"),
        parts=parts or Parts(),
        observers=(records,),
        **more,
    )


class Served:
    """A server that runs."""

    def __init__(
        self, gateway: Any, url: str, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]
    ) -> None:
        self.gateway = gateway
        self.url = url
        self.loop = loop
        self.stop = stop

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something on the server's loop."""

        async def work() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(5)


@contextmanager
def serve(app: Any, *, send_buffer: int = 0, loop_factory: Any = None, **options: Any):
    """Serve an ASGI application until the block ends."""
    listener = socket.socket()
    if send_buffer:  # a small one makes a client that does not read felt at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    options = {"lifespan": "on", **options}
    config = uvicorn.Config(app, log_level="critical", access_log=False, **options)
    server = uvicorn.Server(config)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        loops[0].call_soon(ready.set)
        await server.serve(sockets=[listener])

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    def stop() -> None:
        server.should_exit = True

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    while not server.started:
        pass
    try:
        yield Served(app, f"http://127.0.0.1:{port}", loops[0], stop)
    finally:
        stop()
        thread.join(10)
        listener.close()


def gateway(live: Live, **more: Any) -> Gateway:
    made = Gateway(live, served_paths(SURFACES), **more)
    for observer in live.observers:
        if isinstance(observer, Records):
            observer.gateway = made
    return made


def default_guard() -> Guard:
    """The packaged default policy, as the gateway makes it."""
    from stanchion.detectors.registry import Registry
    from stanchion.gateway.building import GuardMaker

    clock = SystemClock()
    return GuardMaker(Registry(), clock=clock, ids=SortableIds(clock)).make(
        "default", FeatureModel(), folder=Path()
    )
