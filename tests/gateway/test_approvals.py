"""The queue of what waits for a person, on SQLite and PostgreSQL, and its webhook."""

import asyncio
import threading

import pytest
from aiohttp import web
from flow_fixtures import facts

from stanchion.core.clock import CountingIds, ManualClock, SystemClock
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.core.errors import (
    BlockedError,
    FilesError,
    IntegrityError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from stanchion.files.references import Secret
from stanchion.files.schema import load_text
from stanchion.gateway.actor import Actor
from stanchion.gateway.approval_notices import LocalNotices, listen_postgres, tell_people
from stanchion.gateway.approvals import ASKED, ApprovalQueue, ApprovalsSection
from stanchion.gateway.ports import Refused
from stanchion.gateway.webhook import Webhook, WebhookTarget, is_signed
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database
from stanchion.store.identity import IdKeys

SUBJECT = {"tool": "refund", "arguments": {"order": "1182", "amount": 900}}
DECISION = Decision(
    effect=Effect.REQUIRE_APPROVAL, surface=Surface.TOOL_CALL, rule_ids=("refunds",), reason="money moves"
)
ANN = Actor(person="ann", proof="key:admin_1", roles=("approver",))
KEY = bytes(range(32))
SECRET = "a-shared-secret-of-32-characters"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    made = server.new_database()
    yield made
    server.drop_database(made)


@pytest.fixture
def database(url):
    with open_database(url) as opened:
        yield opened


def queue(database, clock=None, *, key=KEY, notices=None, **fields) -> ApprovalQueue:
    return ApprovalQueue(
        ApprovalsSection(**fields),
        database,
        clock=clock or ManualClock(),
        ids=CountingIds(),
        key=key,
        id_keys=IdKeys(b"k" * 16),
        notices=notices,
    )


async def park(made: ApprovalQueue, who=None):
    return await made.park(who or facts(), kind="tool_call", subject=SUBJECT, decision=DECISION)


async def test_a_tool_call_waits_is_approved_and_comes_back_as_it_was(database):
    made = queue(database)
    parked = await park(made)
    assert parked.status == "pending"
    assert (await made.redeem(facts(), parked.ticket)).subject is None
    done = made.decide(parked.ticket, approve=True, by=ANN, note="checked with the shop")
    assert (done.status, done.decided_by) == ("approved", "ann")
    assert (await made.redeem(facts(id="r2"), parked.ticket)).subject == SUBJECT
    kinds = [entry.kind for entry in AuditLog(database, clock=ManualClock()).entries()]
    assert kinds == ["approval.parked", "approval.decided", "approval.redeemed"]


async def test_of_many_who_redeem_at_once_one_gets_it(database):
    workers = [queue(database) for _ in range(4)]
    parked = await park(workers[0])
    workers[0].decide(parked.ticket, approve=True, by=ANN)
    told = await asyncio.gather(
        *(one.redeem(facts(), parked.ticket) for one in workers * 2), return_exceptions=True
    )
    assert [one.subject for one in told if not isinstance(one, Exception)] == [SUBJECT]
    refused = [(one.status, one.code) for one in told if isinstance(one, Refused)]
    assert refused == [(409, "ticket_redeemed")] * 7


async def test_a_ticket_is_for_the_request_it_was_given_for(database):
    made = queue(database)
    subject = {**SUBJECT, ASKED: "digest-1"}
    parked = await made.park(facts(), kind="tool_call", subject=subject, decision=DECISION)
    made.decide(parked.ticket, approve=True, by=ANN)
    with pytest.raises(Refused) as raised:
        await made.redeem(facts(), parked.ticket, asked="digest-2")
    assert (raised.value.status, raised.value.code) == (409, "ticket_of_another_request")
    assert (await made.redeem(facts(), parked.ticket, asked="digest-1")).subject == SUBJECT


async def test_nobody_decides_in_time_means_denied(database):
    clock = ManualClock()
    made = queue(database, clock, timeout_s=60.0)
    parked = await park(made)
    clock.advance(60)
    with pytest.raises(UsageError, match="expired already"):
        made.decide(parked.ticket, approve=True, by=ANN)
    late = await made.redeem(facts(), parked.ticket)
    assert (late.parked.status, late.subject) == ("expired", None)


async def test_a_ticket_is_decided_once_by_however_many(database):
    made = queue(database)
    parked = await park(made)
    results: list[str] = []

    def press(number: int) -> None:
        try:
            made.decide(parked.ticket, approve=bool(number % 2), by=ANN)
            results.append("done")
        except UsageError:
            results.append("late")

    threads = [threading.Thread(target=press, args=(n,)) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(results) == ["done"] + ["late"] * 7
    entries = [e for e in AuditLog(database, clock=ManualClock()).entries() if e.kind == "approval.decided"]
    assert len(entries) == 1


async def test_who_asked_may_not_decide_and_neither_may_anybody_without_the_role(database):
    made = queue(database)
    mine = await park(made, facts(key_id="admin_1"))
    as_user = await park(made, facts(user_key=IdKeys(b"k" * 16).key("subject", "ann")))
    for ticket in (mine.ticket, as_user.ticket):
        with pytest.raises(BlockedError, match="somebody else"):
            made.decide(ticket, approve=True, by=ANN)
    for roles in ((), ("viewer",), ("responder",), ("operator",)):
        with pytest.raises(BlockedError, match="may not"):
            made.decide(mine.ticket, approve=True, by=Actor(person="bob", roles=roles))
    assert made.get(mine.ticket).status == "pending"


async def test_somebody_elses_ticket_looks_like_none(database):
    made = queue(database)
    parked = await park(made)
    made.decide(parked.ticket, approve=True, by=ANN)
    answers = []
    for who, ticket in ((facts(key_id="other"), parked.ticket), (facts(), "ticket_none")):
        with pytest.raises(Refused) as caught:
            await made.redeem(who, ticket)
        answers.append((caught.value.status, caught.value.code, caught.value.message, caught.value.hint))
    assert answers[0] == answers[1]


async def test_an_approved_ticket_does_not_last_for_ever(database):
    clock = ManualClock()
    made = queue(database, clock, redeem_s=100.0)
    parked = await park(made)
    made.decide(parked.ticket, approve=True, by=ANN)
    clock.advance(101)
    with pytest.raises(Refused):
        await made.redeem(facts(), parked.ticket)


async def test_what_is_stored_is_sealed_and_bound_to_its_ticket(database):
    import sqlalchemy as sa

    from stanchion.store.tables import approvals

    made = queue(database)
    one, two = await park(made), await park(made)
    with database.read() as connection:
        stored = dict(connection.execute(sa.select(approvals.c.ticket, approvals.c.subject)).all())
    assert "1182" not in str(stored)
    with database.write() as connection:  # put one ticket's subject under the other
        connection.execute(
            approvals.update().where(approvals.c.ticket == two.ticket).values(subject=stored[one.ticket])
        )
    assert made.subject(one.ticket) == SUBJECT
    with pytest.raises(IntegrityError):
        made.subject(two.ticket)
    with pytest.raises(UsageError, match="no key"):
        queue(database, key=None).subject(one.ticket)
    with pytest.raises(IntegrityError):
        queue(database, key=bytes(32)).subject(one.ticket)


async def test_a_full_queue_and_what_cannot_be_parked_are_refused(database):
    made = queue(database, most_pending=1)
    await park(made)
    with pytest.raises(UsageError, match="full"):
        await park(made)
    with pytest.raises(UsageError, match="larger"):
        await made.park(facts(), kind="answer", subject={"text": "x" * 300_000}, decision=DECISION)
    with pytest.raises(UsageError, match="cannot be parked"):
        await made.park(facts(), kind="wish", subject={}, decision=DECISION)
    with pytest.raises(UnknownNameError):
        made.get("ticket_none")


async def test_who_waits_hears_of_a_decision_in_the_same_process_at_once(database):
    made = queue(database, SystemClock(), notices=LocalNotices(), poll_s=30.0)
    parked = await park(made)
    waiting = asyncio.create_task(made.wait(parked.ticket, seconds=25))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(made.decide, parked.ticket, approve=True, by=ANN)
    async with asyncio.timeout(10):
        assert (await waiting).status == "approved"


async def test_who_waits_without_notices_sees_it_by_looking_and_gives_up_in_time(database):
    made, other = queue(database, SystemClock(), poll_s=0.05), queue(database, SystemClock())
    parked = await park(made)
    assert (await made.wait(parked.ticket, seconds=0.1)).status == "pending"
    waiting = asyncio.create_task(made.wait(parked.ticket, seconds=20))
    await asyncio.to_thread(other.decide, parked.ticket, approve=False, by=ANN)
    assert (await waiting).status == "denied"


@pytest.mark.postgres
async def test_postgresql_tells_other_processes(postgres_server):
    url = postgres_server.new_database()
    with open_database(url) as opened:
        notices = LocalNotices()
        made = queue(opened, SystemClock(), notices=notices, poll_s=30.0)
        other = queue(opened, SystemClock())  # as another process: it shares only the database
        listening = asyncio.create_task(listen_postgres(url, notices))
        parked = await park(made)
        waiting = asyncio.create_task(made.wait(parked.ticket, seconds=25))
        await asyncio.sleep(1.0)
        await asyncio.to_thread(other.decide, parked.ticket, approve=True, by=ANN)
        async with asyncio.timeout(10):
            assert (await waiting).status == "approved"
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    postgres_server.drop_database(url)


# --- webhook ---


class Receiver:
    """A server that answers with the given statuses, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def __aenter__(self) -> "Receiver":
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(
            status=status, headers={"location": "http://169.254.169.254/"} if status == 302 else {}
        )


def hook(url: str, pauses: list[float] | None = None, **fields) -> Webhook:
    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    target = WebhookTarget(url=url, secret=Secret(SECRET), allow_private=True, **fields)
    return Webhook(target, clock=SystemClock(), sleep=sleep)


async def test_a_webhook_is_signed_tried_again_with_growing_pauses_and_keeps_its_id():
    pauses: list[float] = []
    async with Receiver(500, 503, 429) as receiver:
        sender = hook(receiver.url, pauses, pause_s=1.0)
        sent = await sender.send("ticket_1", {"ticket": "ticket_1"})
        await sender.close()
    assert (sent.status, sent.tries) == (200, 4)
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {"ticket_1"}
    assert all(0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses))
    now = SystemClock().now().timestamp()
    headers, body = receiver.got[-1]
    assert is_signed(SECRET.encode(), headers, body, now_s=now)
    assert not is_signed(SECRET.encode(), headers, body + b" ", now_s=now)
    assert not is_signed(b"another secret of enough bytes", headers, body, now_s=now)
    assert not is_signed(SECRET.encode(), headers, body, now_s=now + 600)
    assert not is_signed(SECRET.encode(), {**headers, "webhook-timestamp": "now"}, body, now_s=now)


def test_the_signature_is_that_of_the_standard():
    """The worked example of the Standard Webhooks specification, recomputed here by hand."""
    import base64
    import hashlib
    import hmac

    from stanchion.gateway.webhook import sign

    body = b'{"event_type":"ping"}'
    mac = hmac.new(b"key", b"msg_1.1674087231." + body, hashlib.sha256).digest()
    assert (
        sign(b"key", message_id="msg_1", timestamp=1674087231, body=body)
        == "v1," + base64.b64encode(mac).decode()
    )


@pytest.mark.parametrize("status", [302, 400, 401, 404])
async def test_a_refusal_or_a_redirect_ends_it(status):
    async with Receiver(status) as receiver:
        sender = hook(receiver.url)
        with pytest.raises(UnavailableError, match=str(status)):
            await sender.send("t", {})
        await sender.close()
    assert len(receiver.got) == 1


async def test_a_name_that_leads_into_a_private_network_is_not_connected_to():
    target = WebhookTarget(url="https://localhost:9/hook", secret=Secret(SECRET), tries=1)
    sender = Webhook(target, clock=SystemClock())
    with pytest.raises(UnavailableError, match="not delivered"):
        await sender.send("t", {})
    with pytest.raises(OSError, match="not public"):
        sender._checked_socket((2, 1, 6, "", ("10.0.0.8", 443)))
    for address in ("127.0.0.1", "169.254.169.254", "192.168.1.1", "::1", "::ffff:10.0.0.1", "fd00::1"):
        with pytest.raises(OSError, match="not public"):
            sender._checked_socket((10 if ":" in address else 2, 1, 6, "", (address, 443)))
    await sender.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://user:pw@example.org/",
        "https:///x",
        "file:///etc/x",
    ],
)
def test_addresses_that_are_not_safe_are_refused_in_the_file(url):
    with pytest.raises(FilesError):
        load_text(f"url: {url}\nsecret: {SECRET}", WebhookTarget, file="g.yaml")


def test_a_short_secret_is_refused():
    with pytest.raises(FilesError, match="16 bytes"):
        load_text("url: https://example.org/\nsecret: short", WebhookTarget, file="g.yaml")


async def test_people_are_told_of_each_ticket_once_and_a_failed_delivery_is_tried_by_the_next(database):
    clock = ManualClock()
    made = queue(database, clock)
    parked = await park(made)
    async with Receiver(400) as receiver:
        sender = hook(receiver.url)
        assert await tell_people(made, sender) == 0
        assert await tell_people(made, sender) == 0  # claimed: not again at once
        clock.advance(121)
        assert await tell_people(made, sender) == 1
        clock.advance(500)
        assert await tell_people(made, sender) == 0
        await sender.close()
    assert parked.ticket.encode() in receiver.got[-1][1]
    assert b"1182" not in receiver.got[-1][1]
