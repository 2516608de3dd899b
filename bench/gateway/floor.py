"""The floor under the gateway: what a bare ASGI application costs that only forwards, by client.

    python bench/gateway/floor.py [--seconds 3] [--rounds 3]

In front of the upstream of `overhead.py`, in one run and in turns: nginx; uvicorn that answers by itself;
uvicorn that asks the upstream with aiohttp; uvicorn that asks it with the gateway's own client; and, as
`here_...`, the first and the last of these behind the gateway's own protocol class. CPU per request is that
of the process tree over the requests answered, the median of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
Message = MutableMapping[str, Any]
Ask = Callable[[str, bytes], Awaitable[bytes]]


class Forwarder:
    """An ASGI application without anything; `ask` gets path and body and gives the answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        said = await self._ask(scope["path"], body)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


class _Here:
    """Answers by itself."""

    async def __call__(self, path: str, body: bytes) -> bytes:
        return b"x" * 620


class _Aiohttp:
    """Asks with aiohttp."""

    session: Any = None

    async def __call__(self, path: str, body: bytes) -> bytes:
        import aiohttp

        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        url, headers = os.environ["FLOOR_UPSTREAM"] + path, {"content-type": "application/json"}
        async with self.session.post(url, data=body, headers=headers) as response:
            return bytes(await response.read())


class _Own:
    """Asks with the gateway's own client."""

    pool: Any = None

    async def __call__(self, path: str, body: bytes) -> bytes:
        from stanchion.gateway.upstream_pool import Origin, Pool, PoolLimits

        if self.pool is None:
            there = urlsplit(os.environ["FLOOR_UPSTREAM"])
            origin = Origin(scheme="http", host=str(there.hostname), port=there.port or 80)
            self.pool = Pool(origin, PoolLimits())
        head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" % path.encode()
        incoming = await self.pool.ask(
            b"%scontent-length: %d\r\n\r\n" % (head, len(body)), body, collect=1 << 24
        )
        try:
            return bytes(await incoming.some())
        finally:
            incoming.close()


alone, with_aiohttp, with_own = Forwarder(_Here()), Forwarder(_Aiohttp()), Forwarder(_Own())


def serve(name: str, port: int) -> None:
    """One of the applications above on uvicorn, behind its protocol class or, for `here_...`, behind ours."""
    import uvicorn

    app = {"alone": alone, "with_aiohttp": with_aiohttp, "with_own": with_own}[name.removeprefix("here_")]
    protocol: Any = "httptools"
    if name.startswith("here_"):
        from stanchion.gateway.http_protocol import bounded_protocol

        protocol = bounded_protocol()
    uvicorn.run(
        app, port=port, loop="uvloop", http=protocol, lifespan="off", access_log=False, log_level="warning"
    )


@contextmanager
def bare(name: str, folder: Path, upstream: Any) -> Iterator[Any]:
    """One of the applications above, in a process of its own."""
    import servers

    port = servers.free_port()
    command = [sys.executable, str(HERE / "floor.py"), "--serve", name, "--port", str(port)]
    env = {"FLOOR_UPSTREAM": upstream.url}
    with servers.started(name, command, port=port, folder=folder, env=env) as server:
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.port)
        return
    import overhead

    import servers

    folder = Path(tempfile.mkdtemp(prefix="stanchion-floor-"))
    with ExitStack() as stack:
        model = stack.enter_context(servers.upstream(folder / "upstream"))
        run = {"nginx": stack.enter_context(servers.nginx(folder / "nginx", model))}
        for name in ("alone", "with_aiohttp", "with_own", "here_alone", "here_with_own"):
            run[name] = stack.enter_context(bare(name, folder / name, model))
        costs: dict[str, list[float]] = {name: [] for name in run}
        for server in run.values():
            overhead.load(server, seconds=2)
        for _ in range(asked.rounds):
            for name, server in run.items():
                got = overhead.load(server, seconds=asked.seconds)
                if got["bad"]:
                    raise SystemExit(f"{name}: {got['bad']:.0f} answers were not good")
                costs[name].append(got["cpu_us"])
    base = statistics.median(costs["nginx"])
    for name, each in costs.items():
        cost = statistics.median(each)
        rounds = ", ".join(f"{one:.1f}" for one in each)
        print(f"{name:14} {cost:7.1f} us a request  {cost / base:6.2f} times nginx  ({rounds})")


if __name__ == "__main__":
    main()
