"""Strikes of several workers are counted together in Redis."""

import json

import pytest
from flow_fixtures import facts

from stanchion.core.clock import CountingIds, SystemClock
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.ports import Outcome, Refused
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
