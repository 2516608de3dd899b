"""Limits that several workers share: real Redis, real databases, workers and servers that die."""

import asyncio
import itertools
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from flow_fixtures import facts, process_of_limits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stanchion.core.clock import CountingIds, ManualClock, SystemClock
from stanchion.core.interaction import Usage
from stanchion.files.references import Secret
from stanchion.gateway.budgets import BudgetKey, Budgets
from stanchion.gateway.ledger import Charge, MemoryLedger, Refusal
from stanchion.gateway.ledger_redis import RedisLedger, connect
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection, PenaltySection
from stanchion.gateway.penalties import BlockList, Penalties
from stanchion.gateway.ports import Outcome, Refused
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database

NUMBER = itertools.count()
KEY = BudgetKey("month", "1:t", "2026-01")


def section(text: str) -> LimitsSection:
    from stanchion.files.schema import load_text

    return load_text(text, LimitsSection, file="gateway.yaml").value


async def refused(limits, who=None) -> Refused:
    with pytest.raises(Refused) as caught:
        await limits.reserve(who or facts(), input_tokens=1, max_output_tokens=1)
    return caught.value


operations = st.lists(
    st.tuples(
        st.floats(0, 8).map(lambda pause: round(pause, 3)),
        st.integers(1, 9),
        st.booleans(),
        st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.redis
@given(operations)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_and_memory_count_alike(redis_url, steps):
    """The same charges at the same times: the same answers, the same Retry-After."""

    async def play() -> None:
        prefix, clock = f"p{next(NUMBER)}", ManualClock()
        client = connect(Secret(redis_url), timeout_s=5)
        memory, redis = MemoryLedger(clock), RedisLedger(client, timeout_s=5)
        for number, (pause, amount, has_place, share) in enumerate(steps):
            clock.advance(pause)
            redis.now_s = memory.now_s()
            wanted = [Charge(f"{prefix}w", 12, amount, 10)] + [Charge(f"{prefix}c", 2, 1)] * has_place
            answers = [await one.hold(wanted, hold_id=str(number), lease_s=15) for one in (memory, redis)]
            if isinstance(answers[0], Refusal):
                assert isinstance(answers[1], Refusal)
                assert answers[0].index == answers[1].index
                assert answers[0].retry_after_s == pytest.approx(answers[1].retry_after_s, abs=1e-4)
            else:
                assert answers[0] == answers[1]
                if share != 1.5:
                    used = [round(c.amount * share) for c in wanted]
                    for one in (memory, redis):
                        await one.settle(wanted, answers[0], used, hold_id=str(number))
        await redis.close()

    asyncio.run(play())


@pytest.mark.redis
def test_two_processes_share_one_limit(redis_url):
    import redis

    redis.Redis.from_url(redis_url).flushall()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=process_of_limits, args=(redis_url, results, n)) for n in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    assert sum(taken for taken, _ in found) == 100
    assert sum(no for _, no in found) == 60


class OwnRedis:
    """A Redis that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "r.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--dir",
            str(self.socket.parent),
        ]
        self.process = subprocess.Popen(
            [shutil.which("redis-server") or "redis-server", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while not self.socket.exists() and time.monotonic() < end:
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis():
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed here")
    folder = Path(tempfile.mkdtemp(prefix="stanchion-r-", dir="/tmp"))
    server = OwnRedis(folder)
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.redis
@pytest.mark.parametrize("outcome", ["closed", "open", "degrade"])
async def test_redis_killed_halfway_has_the_declared_outcome_and_comes_back(own_redis, outcome):
    clock = ManualClock()
    limits = make_limits(
        section(
            f"storage: redis\nredis_url: {own_redis.url}\non_failure: {outcome}\ndegrade_share: 0.5\n"
            "rules: [{id: r, per: [key], requests: 8, every: 1h}, {id: c, concurrency: 50}]"
        ),
        clock=clock,
        ids=CountingIds(),
    )
    held = await limits.reserve(facts(), input_tokens=1, max_output_tokens=1)
    assert limits.health.state == "ok"
    own_redis.kill()
    await held.settle(Usage())  # cannot be told: counted, never raised
    assert limits.health.lost_reports == 1
    if outcome == "closed":
        no = await refused(limits)
        assert (no.status, no.code) == (503, "limits_unavailable")
    else:
        most = 4 if outcome == "degrade" else 20  # half of the limit, by this worker alone
        for _ in range(most):
            await limits.reserve(facts(), input_tokens=1, max_output_tokens=1)
        if outcome == "degrade":
            assert (await refused(limits)).status == 429
    assert limits.health.state == {"degrade": "degraded"}.get(outcome, outcome)
    assert "redis" in limits.health.reason.lower()
    assert str(own_redis.socket) not in limits.health.reason
    own_redis.start()
    clock.advance(1.5)
    await limits.reserve(facts(key_id="k2"), input_tokens=1, max_output_tokens=1)
    assert limits.health.state == "ok"
    await limits.close()


@pytest.mark.redis
async def test_places_of_a_killed_worker_come_free_and_those_of_a_living_one_are_renewed(redis_url):
    text = f"storage: redis\nredis_url: {redis_url}\nlease_s: 2\nrules: [{{id: lease, concurrency: 2}}]"
    living, dead, third = (
        make_limits(section(text), clock=SystemClock(), ids=Named(name)) for name in ("a", "b", "c")
    )
    await living.reserve(facts(), input_tokens=1, max_output_tokens=1)
    await dead.reserve(facts(), input_tokens=1, max_output_tokens=1)
    await refused(third)
    for _ in range(5):
        await asyncio.sleep(0.5)
        await living.tick()  # the dead one does not
    await third.reserve(facts(), input_tokens=1, max_output_tokens=1)
    await refused(third)
    for one in (living, dead, third):
        await one.close()


class Named(CountingIds):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def new(self, kind: str) -> str:
        return f"{self.name}_{super().new(kind)}"


# --- budgets of a month ---


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request, tmp_path):
    if request.param == "sqlite":
        with open_database(tmp_path / "records.db") as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    with open_database(url) as opened:
        yield opened
    server.drop_database(url)


async def test_workers_together_never_set_aside_more_than_the_budget(database):
    clock = ManualClock()
    workers = [Budgets(database, clock=clock, ids=Named(str(n)), slice_share=0.1) for n in range(3)]
    taken = 0

    async def spend(worker: Budgets) -> int:
        count = 0
        while await worker.take(KEY, amount=7, most=1000):
            count += 7
            await asyncio.sleep(0)
        return count

    taken = sum(await asyncio.gather(*(spend(worker) for worker in workers)))
    assert 1000 - 3 * 100 <= taken <= 1000
    for worker in workers:
        await worker.report(is_last=True)
    use = workers[0].use(KEY)
    assert (use.spent, use.granted) == (taken, 0)


async def test_a_dead_workers_slice_comes_back_but_for_what_it_reported(database):
    clock = ManualClock()
    dead = Budgets(database, clock=clock, ids=Named("dead"), slice_share=0.5, lease_s=60)
    heir = Budgets(database, clock=clock, ids=Named("heir"), slice_share=0.5, lease_s=60)
    assert await dead.take(KEY, amount=10, most=1000)
    await dead.report()
    assert await dead.take(KEY, amount=30, most=1000)  # never told: the stated bound of loss
    slice_amount = heir.use(KEY).granted
    assert not await heir.take(KEY, amount=1001 - slice_amount, most=1000)
    clock.advance(121)
    assert await heir.take(KEY, amount=990, most=1000)
    await heir.report(is_last=True)
    assert heir.use(KEY).spent == 1000
    assert heir.use(KEY).granted == 0


async def test_what_is_given_back_can_be_spent_and_a_surplus_is_taken_from_the_next_slice(database):
    budgets = Budgets(database, clock=ManualClock(), ids=CountingIds(), slice_share=1.0)
    assert await budgets.take(KEY, amount=100, most=100)
    assert not await budgets.take(KEY, amount=1, most=100)
    budgets.give(KEY, 60)
    await budgets.report()
    fresh = Budgets(database, clock=ManualClock(), ids=Named("x"), slice_share=1.0)
    assert not await fresh.take(KEY, amount=70, most=100)
    budgets.give(KEY, -20)  # it took more than was set aside
    await budgets.report(is_last=True)
    assert budgets.use(KEY).spent == 60


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30), st.floats(0, 1)), max_size=25))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_budgets_are_conserved(tmp_path_factory, steps):
    """Whatever is taken, given back or reported: spent is what was used, never above the budget.

    Every worker that lives reports within its lease; one that does not counts as dead, and what it used since
    is the stated bound of a crash.
    """

    async def play() -> None:
        clock, most = ManualClock(), 100
        with open_database(tmp_path_factory.mktemp("b") / "b.db") as opened:
            workers = [Budgets(opened, clock=clock, ids=Named(str(n)), slice_share=0.2) for n in range(3)]
            used, reported = 0, [0, 0, 0]
            for turn, (number, amount, share) in enumerate(steps):
                clock.advance(20)
                for late in (n for n in range(3) if turn - reported[n] >= 3):
                    await workers[late].report()
                    reported[late] = turn
                if await workers[number].take(KEY, amount=amount, most=most):
                    kept = round(amount * share)
                    workers[number].give(KEY, amount - kept)
                    used += kept
                if amount % 3 == 0:
                    await workers[number].report()
                    reported[number] = turn
                use = workers[0].use(KEY)
                assert use.spent >= 0
                assert use.spent + use.granted <= most
                assert used <= most
            for worker in workers:
                await worker.report(is_last=True)
            assert workers[0].use(KEY).spent == used

    asyncio.run(play())


async def test_a_month_is_limited_until_its_end_and_begins_anew(database):
    clock = ManualClock()
    clock.advance(10 * 86_400)
    budgets = Budgets(database, clock=clock, ids=CountingIds(), slice_share=1.0)
    limits = make_limits(
        section("rules: [{id: m, per: [tenant], requests: 2, every: month}]"),
        clock=clock,
        ids=CountingIds(),
        budgets=budgets,
    )
    await limits.reserve(facts(tenant="t"), input_tokens=1, max_output_tokens=1)
    await limits.reserve(facts(tenant="t"), input_tokens=1, max_output_tokens=1)
    assert (await refused(limits, facts(tenant="t"))).retry_after_s == 21 * 86_400
    clock.advance(21 * 86_400)
    await limits.reserve(facts(tenant="t"), input_tokens=1, max_output_tokens=1)
    await limits.close()


# --- penalties ---


async def test_stopped_again_and_again_is_slowed_then_blocked_and_comes_free(database):
    clock = ManualClock()
    blocks = BlockList(database, clock=clock)
    rules = PenaltySection(slow_after=2, block_after=4, slow_interval_s=5.0, block_s=60, block_most_s=100)
    penalties = Penalties(rules, blocks, clock=clock)
    who = facts(user_key="user_1")
    for _ in range(2):
        await penalties.check(who)
        await penalties.observe(who, Outcome.BLOCKED)
    with pytest.raises(Refused) as slowed:
        await penalties.check(who)
    assert (slowed.value.status, slowed.value.code, slowed.value.retry_after_s) == (429, "caller_slowed", 5.0)
    await penalties.check(facts(user_key="user_2"))
    clock.advance(5)
    await penalties.check(who)
    for _ in range(2):
        await penalties.observe(who, Outcome.BLOCKED)
    with pytest.raises(Refused) as blocked:
        await penalties.check(who)
    assert (blocked.value.status, blocked.value.outcome) == (403, Outcome.DENIED)
    assert blocked.value.retry_after_s == 60
    clock.advance(61)
    other = BlockList(database, clock=clock)
    other.load()
    assert other.find("user:user_1") is None
    again = blocks.block("user:user_1", seconds=60, reason="again", by="system", most_s=100)
    assert (again.until_us - again.at_us) / 1e6 == 100  # twice as long, up to the most
    other.load()
    assert other.find("user:user_1") is not None
    assert other.unblock("user:user_1", by="ann", reason="a mistake")
    assert not other.unblock("user:user_1", by="ann", reason="a mistake")
    kinds = [(e.kind, e.actor) for e in AuditLog(database, clock=clock).entries()]
    assert kinds.count(("limits.caller_blocked", "system")) == 2
    assert ("limits.caller_unblocked", "ann") in kinds


async def test_harmless_requests_are_never_punished(database):
    penalties = Penalties(
        PenaltySection(slow_after=1, block_after=2),
        BlockList(database, clock=ManualClock()),
        clock=ManualClock(),
    )
    for outcome in (Outcome.ALLOWED, Outcome.LIMITED, Outcome.UPSTREAM_ERROR, Outcome.INVALID):
        for _ in range(5):
            await penalties.observe(facts(), outcome)
    await penalties.check(facts())
