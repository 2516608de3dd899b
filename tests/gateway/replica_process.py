"""A replica in a process of its own, without a server: it obeys, and answers questions on its standard input.

Lines in: `find FEATURE`, `tool NAME`, `status`, `follow FEATURE`, `key SECRET`. One JSON line out for each,
and one with `told` whenever a followed request is told of a switch; times are CLOCK_MONOTONIC, which all
processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from stanchion.bootstrap_control import ReplicaPlane, make_replica_plane
from stanchion.config import load_settings
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.ports import ApiSurface, Engaged, Refused, RequestFacts


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def asked_by(feature: str) -> RequestFacts:
    return RequestFacts(id="req_1", surface=ApiSurface.OPENAI_CHAT, feature=feature)


def shown(hit: Engaged | None) -> str:
    return "" if hit is None else hit.switch_id


def status(plane: ReplicaPlane) -> dict[str, object]:
    standing = plane.reader.standing(ControlKind.SWITCHES)
    return {
        "version": plane.switches.version,
        "trust": standing.trust.value,
        "source": standing.source,
        "reason": standing.reason,
        "is_on_disk": standing.is_on_disk,
        "troubles": sorted(plane.watch.troubles),
    }


async def answer(plane: ReplicaPlane, line: str) -> None:
    word, _, rest = line.strip().partition(" ")
    if word == "find":
        say(hit=shown(plane.switches.find(asked_by(rest))))
    elif word == "tool":
        say(hit=shown(plane.switches.find_tool(asked_by(""), rest)))
    elif word == "status":
        say(**status(plane))
    elif word == "key":
        try:
            caller = await plane.access.authenticate(
                {b"authorization": f"Bearer {rest}".encode()}, surface=ApiSurface.OPENAI_CHAT
            )
            say(key=caller.key_id)
        except Refused as refused:
            say(key="", status=refused.status)
    elif word == "follow":
        plane.switches.follow(asked_by(rest), lambda hit: say(told=hit.version, at_ns=time.monotonic_ns()))
        say(following=rest)


async def serve(plane: ReplicaPlane) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(ready=plane.watch.replica.id)
    while line := await reader.readline():
        await answer(plane, line.decode())


def main() -> None:
    plane = make_replica_plane(load_settings(folder=Path.cwd()), is_loopback=True)
    plane.watch.start()
    try:
        asyncio.run(serve(plane))
    finally:
        plane.watch.stop()


if __name__ == "__main__":
    main()
