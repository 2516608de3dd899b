"""How waiting clients hear at once that their ticket was decided, and how people hear of new tickets.

Every way is a hint only: who waits also looks into the database, so a lost notice costs a moment, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Protocol

from stanchion.core.errors import MissingExtraError, StanchionError
from stanchion.gateway.approvals import ApprovalQueue, Ticket
from stanchion.gateway.redis_driver import redis_driver
from stanchion.gateway.webhook import Webhook

CHANNEL = "stanchion_approvals"
_AGAIN_S = 1.0


class Tells(Protocol):
    """Takes what a listener heard."""

    def tell(self, ticket: str) -> None:
        """The ticket was decided."""
        ...


class LocalNotices:
    """Waiters of this process; the base of the others. Made on the loop that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def tell(self, ticket: str) -> None:
        """See `approvals.Notices.tell`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake, ticket)

    async def wait(self, ticket: str, *, seconds: float) -> None:
        """See `approvals.Notices.wait`."""
        event = asyncio.Event()
        self._waiting.setdefault(ticket, set()).add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        finally:
            others = self._waiting.get(ticket, set())
            others.discard(event)
            if not others:
                self._waiting.pop(ticket, None)

    def _wake(self, ticket: str) -> None:
        for event in self._waiting.get(ticket, ()):
            event.set()


class FleetNotices(LocalNotices):
    """Waiters of this process, told by every process of the fleet; `run` listens until cancelled."""

    def __init__(self, *, postgres_url: str = "", redis_url: str = "") -> None:
        super().__init__()
        self._postgres_url, self._redis_url = postgres_url, redis_url

    def tell(self, ticket: str) -> None:
        """See `approvals.Notices.tell`; PostgreSQL tells the others by itself, with the commit."""
        super().tell(ticket)
        if self._redis_url:
            tell_redis(self._redis_url, ticket)

    async def run(self) -> None:
        """Listen everywhere."""
        listening: list[Awaitable[None]] = []
        if self._postgres_url:
            listening.append(listen_postgres(self._postgres_url, self))
        if self._redis_url:
            listening.append(self._listen_redis())
        await asyncio.gather(*listening)

    async def _listen_redis(self) -> None:
        async with redis_driver().asyncio.Redis.from_url(self._redis_url) as client:
            await listen_redis(client, _Heard(self))


class _Heard:
    """Passes on what was heard, and does not tell it again."""

    def __init__(self, notices: LocalNotices) -> None:
        self._notices = notices

    def tell(self, ticket: str) -> None:
        LocalNotices.tell(self._notices, ticket)


class RedisNotices:
    """For a process that decides and has no waiters, such as the command line."""

    def __init__(self, url: str) -> None:
        self._url = url

    def tell(self, ticket: str) -> None:
        """See `approvals.Notices.tell`."""
        tell_redis(self._url, ticket)

    async def wait(self, ticket: str, *, seconds: float) -> None:
        """Nobody waits here."""
        await asyncio.sleep(seconds)


def tell_redis(url: str, ticket: str) -> None:
    """Tell the listeners in Redis; its failure harms nobody, because waiters also look by themselves."""
    from stanchion.gateway.control_announce import redis_client

    try:
        redis = redis_driver()
    except MissingExtraError:
        return
    with contextlib.suppress(redis.RedisError, OSError), redis_client(url) as client:
        client.publish(CHANNEL, ticket)


async def listen_postgres(url: str, notices: LocalNotices) -> None:
    """Pass on what other processes commit to PostgreSQL, until cancelled; connects again when cut off."""
    import psycopg

    while True:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                async for notice in connection.notifies():
                    notices.tell(notice.payload)
        await asyncio.sleep(_AGAIN_S)


async def listen_redis(client: Any, notices: Tells) -> None:
    """Pass on what other processes publish in Redis, until cancelled."""
    redis_error = redis_driver().RedisError
    while True:
        with contextlib.suppress(redis_error, OSError):
            async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(CHANNEL)
                async for message in pubsub.listen():
                    data = message["data"]
                    notices.tell(data if isinstance(data, str) else data.decode("utf-8", "replace"))
        await asyncio.sleep(_AGAIN_S)


async def publish_redis(client: Any, ticket: str) -> None:
    """Tell the listeners in Redis; its failure harms nobody who polls."""
    with contextlib.suppress(redis_driver().RedisError, OSError):
        await client.publish(CHANNEL, ticket)


async def tell_people(queue: ApprovalQueue, webhook: Webhook) -> int:
    """Send the webhook of every ticket that nobody was told of; how many got through."""
    count = 0
    for ticket in await asyncio.to_thread(queue.claim_untold):
        with contextlib.suppress(StanchionError):  # it is claimed again later
            await webhook.send(ticket.ticket, webhook_payload(ticket))
            await asyncio.to_thread(queue.told, ticket.ticket)
            count += 1
    return count


def webhook_payload(ticket: Ticket) -> dict[str, Any]:
    """Ids only: what it is about stays in the database."""
    return {
        "type": "approval.parked",
        "ticket": ticket.ticket,
        "kind": ticket.kind,
        "feature": ticket.feature,
        "request_id": ticket.request_id,
        "rule_ids": list(ticket.rule_ids),
        "subject_digest": ticket.subject_digest,
        "expires_at": ticket.parked.expires_at,
    }
