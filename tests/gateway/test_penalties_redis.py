"""Strikes of several workers are counted together in Redis, and who is slowed is slowed by all of them."""

import json

import pytest
from flow_fixtures import facts

from stanchion.core.clock import CountingIds, ManualClock, SystemClock
from stanchion.core.errors import UnavailableError
from stanchion.files.references import Secret
from stanchion.gateway.ledger_redis import connect
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.ports import Outcome, Refused
from stanchion.gateway.slowed import SlowedTogether
from stanchion.store.database import open_database


@pytest.mark.redis
async def test_strikes_of_two_workers_add_up(redis_url, tmp_path):
    clock = SystemClock()
    text = {
        "storage": "redis",
        "redis_url": redis_url,
        "timeout_ms": 5000,
        "penalties": {"slow_after": 3, "block_after": 6},
    }
    section = LimitsSection.model_validate_json(json.dumps(text), strict=True)
    who = facts(user_key=f"user_{tmp_path.name}")
    with open_database(tmp_path / "r.db") as database:
        workers = [
            make_limits(section, clock=clock, ids=CountingIds(), blocks=BlockList(database, clock=clock))
            for _ in range(2)
        ]
        for number in range(6):
            await workers[number % 2].observe(who, Outcome.BLOCKED)
        for worker in workers:
            worker.penalties.blocks.load()
            await worker.tick()
            assert worker.health.failures == 0
            with pytest.raises(Refused) as caught:
                await worker.reserve(who, input_tokens=1, max_output_tokens=1)
            assert caught.value.code == "caller_blocked"
            await worker.close()


def slowed_by(url, *, interval_s=60.0, clock=None):
    client = connect(Secret(url), timeout_s=2.0)
    return client, SlowedTogether(client, timeout_s=2.0, interval_s=interval_s, clock=clock or ManualClock())


@pytest.mark.redis
async def test_all_workers_give_one_turn_together_and_later_ones_know_whom_to_slow(redis_url, tmp_path):
    who = f"user:{tmp_path.name}"
    (one, first), (two, second) = slowed_by(redis_url), slowed_by(redis_url)
    await second.load()
    await first.slow(who, for_s=600)
    assert not second.is_slowed(who)
    await second.load()
    assert second.is_slowed(who)
    assert not second.is_slowed("user:somebody-else")
    assert 0 < await first.take_turn(who) <= 60, "what was stopped was a turn"
    assert 0 < await second.take_turn(who) <= 60
    await one.delete(f"{{stanchion}}:limits:turn:{who}")  # the pause is over
    assert await second.take_turn(who) == 0
    assert 0 < await first.take_turn(who) <= 60
    three, later = slowed_by(redis_url)
    await later.load()
    assert 0 < await later.take_turn(who) <= 60
    for client in (one, two, three):
        await client.aclose()


@pytest.mark.redis
async def test_slowing_ends_by_the_servers_time(redis_url, tmp_path):
    who, clock = f"user:{tmp_path.name}", ManualClock()
    (one, first), (two, second) = slowed_by(redis_url), slowed_by(redis_url, clock=clock)
    await first.slow(who, for_s=30)
    await second.load()
    clock.advance(29)
    assert second.is_slowed(who)
    clock.advance(1.5)
    assert not second.is_slowed(who)
    for client in (one, two):
        await client.aclose()


async def test_without_redis_a_worker_slows_alone_those_it_knows(tmp_path):
    pytest.importorskip("redis")
    clock = ManualClock()
    client, slowed = slowed_by(f"unix://{tmp_path}/nobody.sock", clock=clock)
    with pytest.raises(UnavailableError):
        await slowed.slow("user:u", for_s=600)
    with pytest.raises(UnavailableError):
        await slowed.load()
    assert slowed.is_slowed("user:u")
    assert await slowed.take_turn("user:u") == 60
    clock.advance(60)
    assert await slowed.take_turn("user:u") == 0
    assert await slowed.take_turn("user:u") == 60
    await client.aclose()
