"""Limits in memory: what is set aside, what is refused, and when it fits again."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.errors import FilesError, UsageError
from stanchion.core.interaction import Usage
from stanchion.files.schema import load_text
from stanchion.gateway.ledger import Charge, MemoryLedger, Refusal
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection
from stanchion.gateway.ports import ApiSurface, Refused, RequestFacts


def facts(**changes) -> RequestFacts:
    given = {"id": "r", "surface": ApiSurface.OPENAI_CHAT, "key_id": "k1", "feature": "support", "model": "m"}
    return RequestFacts(**{**given, **changes})


def section(text: str) -> LimitsSection:
    return load_text(text, LimitsSection, file="gateway.yaml").value


def limiter(text: str, clock: ManualClock | None = None):
    return make_limits(section(text), clock=clock or ManualClock(), ids=CountingIds())


async def ask(limits, who=None, *, tokens=(1, 1)):
    return await limits.reserve(who or facts(), input_tokens=tokens[0], max_output_tokens=tokens[1])


async def refused(limits, who=None, *, tokens=(1, 1)) -> Refused:
    with pytest.raises(Refused) as caught:
        await ask(limits, who, tokens=tokens)
    return caught.value


async def test_requests_are_limited_and_retry_after_is_exact():
    clock = ManualClock()
    limits = limiter("rules: [{id: few, per: [key], requests: 3, every: 10s}]", clock)
    clock.advance(2)
    for _ in range(3):
        await ask(limits)
    no = await refused(limits)
    assert (no.status, no.code, no.outcome.value) == (429, "rate_limit_exceeded", "limited")
    assert "'few'" in no.message
    await ask(limits, facts(key_id="k2"))
    clock.advance(no.retry_after_s - 0.001)
    again = await refused(limits)
    assert again.retry_after_s == pytest.approx(0.001, abs=1e-5)
    clock.advance(0.0011)
    await ask(limits)


@pytest.mark.parametrize("start", [0, 1, 30, 53, 59.9])
async def test_no_wait_is_longer_than_the_window(start):
    clock = ManualClock()
    clock.advance(start)
    limits = limiter("rules: [{id: one, requests: 1, every: 1m}]", clock)
    await ask(limits)
    clock.advance(0.05)
    no = await refused(limits)
    assert no.retry_after_s <= 60
    clock.advance(no.retry_after_s + 0.001)
    await ask(limits)


async def test_rules_hold_together_and_a_refusal_takes_nothing():
    limits = limiter(
        "rules: [{id: all, requests: 100, every: 1m}, {id: small, per: [user], tokens: 10, every: 1m}]"
    )
    for _ in range(5):
        assert "'small'" in (await refused(limits, tokens=(6, 5))).message
    assert limits._local.used("all|", 60) == 0


async def test_what_was_not_used_goes_back_and_a_surplus_is_charged():
    limits = limiter("rules: [{id: t, tokens: 100, every: 1m}]")
    first = await ask(limits, tokens=(10, 80))
    await refused(limits, tokens=(10, 10))
    await first.settle(Usage(input_tokens=10, output_tokens=5))
    assert limits._local.used("t|", 60) == 15
    await first.settle(Usage(input_tokens=0, output_tokens=0))  # a second time does nothing
    assert limits._local.used("t|", 60) == 15
    unknown = await ask(limits, tokens=(10, 10))
    await unknown.settle(Usage())
    assert limits._local.used("t|", 60) == 35
    more = await ask(limits, tokens=(10, 10))
    await more.settle(Usage(input_tokens=10, output_tokens=90))
    assert limits._local.used("t|", 60) == 135
    assert (await refused(limits)).retry_after_s > 0


async def test_released_requests_do_not_count():
    limits = limiter("rules: [{id: r, requests: 1, every: 1m}, {id: c, concurrency: 1}]")
    for _ in range(3):
        await (await ask(limits)).release()
    assert limits._local.used("r|", 60) == 0


async def test_a_request_that_can_never_fit_says_so():
    no = await refused(limiter("rules: [{id: t, tokens: 100, every: 1m}]"), tokens=(90, 50))
    assert no.retry_after_s is None
    assert "by itself" in no.hint or "alone" in no.hint


async def test_concurrency_counts_what_is_under_way_and_forgets_the_lost():
    clock = ManualClock()
    limits = limiter("max_request_s: 60\nrules: [{id: c, per: [key], concurrency: 2}]", clock)
    one = await ask(limits)
    await ask(limits)
    assert (await refused(limits)).retry_after_s == 1.0
    await one.settle(Usage())
    await ask(limits)
    clock.advance(60)  # both others were never settled
    await ask(limits)
    assert limits._local.used("c|2:k1", 0) == 1


async def test_money_is_reserved_by_price_and_settled_by_cost():
    text = """
prices:
  "*": {input_usd_per_million: 10, output_usd_per_million: 30}
  cheap: {input_usd_per_million: 1, output_usd_per_million: 1}
rules: [{id: usd, usd: 0.01, every: 1h}]
"""
    limits = limiter(text)
    await refused(limits, tokens=(100, 400))
    cheap = await ask(limits, facts(model="cheap"), tokens=(100, 400))
    await cheap.settle(Usage(cost_usd=0.0004))
    assert limits._local.used("usd|", 3600) == 400


async def test_who_is_not_known_shares_one_count():
    limits = limiter("rules: [{id: u, per: [user], requests: 1, every: 1m}]")
    await ask(limits, facts(key_id="a"))
    await refused(limits, facts(key_id="b"))
    await ask(limits, facts(user_key="user_1"))


async def test_scopes_cannot_be_forged_by_a_separator():
    limits = limiter("rules: [{id: u, per: [tenant, feature], requests: 1, every: 1m}]")
    await ask(limits, facts(tenant="a|1:b", feature="c"))
    await ask(limits, facts(tenant="a", feature="1:b|c"))


async def test_a_flood_of_ids_shares_a_count_and_not_the_memory():
    clock = ManualClock()
    ledger = MemoryLedger(clock, max_keys=100)
    for number in range(1000):
        await ledger.hold([Charge(f"r|{number}", 10**6, 1, 60)], hold_id="h", lease_s=1)
    assert len(ledger._windows) <= 101
    assert ledger.used("~r", 60) == 900
    clock.advance(200)
    await ledger.hold([Charge("r|new", 10, 1, 60)], hold_id="h", lease_s=1)
    assert ledger.used("r|new", 60) == 1


charges = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 40)),
    min_size=1,
    max_size=2,
    unique_by=lambda c: c[0],
)


class Conservation(RuleBasedStateMachine):
    """Never negative; never above the limit but by what was used beyond reservations."""

    MOST = 100

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock)
        self.open: list[tuple[list[Charge], tuple[int, ...], str]] = []
        self.surplus = 0
        self.number = 0

    @rule(asked=charges)
    def reserve(self, asked) -> None:
        self.number += 1
        wanted = [Charge(name, self.MOST, amount, 10) for name, amount in asked]
        before = {name: self.ledger.used(name, 10) for name in "ab"}
        answer = asyncio.run(self.ledger.hold(wanted, hold_id=str(self.number), lease_s=60))
        if isinstance(answer, Refusal):
            assert {name: self.ledger.used(name, 10) for name in "ab"} == before
            one = wanted[answer.index]
            assert before[one.key] + one.amount > self.MOST - 1e-6
        else:
            assert all(self.ledger.used(c.key, 10) <= self.MOST + 1e-6 for c in wanted)
            self.open.append((wanted, answer, str(self.number)))

    @rule(share=st.floats(0, 2), data=st.data())
    def settle(self, share, data) -> None:
        if self.open:
            wanted, slots, hold_id = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            actual = [round(c.amount * share) for c in wanted]
            self.surplus += sum(max(0, a - c.amount) for a, c in zip(actual, wanted, strict=True))
            asyncio.run(self.ledger.settle(wanted, slots, actual, hold_id=hold_id))

    @rule(seconds=st.sampled_from([0.5, 3, 9.75, 25]))
    def wait(self, seconds) -> None:
        self.clock.advance(seconds)

    @invariant()
    def bounded(self) -> None:
        for name in "ab":
            assert 0 <= self.ledger.used(name, 10) <= self.MOST + self.surplus + 1e-6


Conservation.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestConservation = Conservation.TestCase


@given(
    st.lists(st.tuples(st.floats(0, 12), st.integers(1, 9)), max_size=25),
    st.floats(0, 9.9),
    st.integers(1, 12),
)
@settings(max_examples=200, deadline=None)
def test_retry_after_is_the_first_moment_that_fits(history, start, amount):
    """For whole counts; a hair before it the charge is still refused, at it it fits."""

    async def play() -> None:
        clock = ManualClock()
        clock.advance(start)
        ledger = MemoryLedger(clock)
        for pause, past in history:
            clock.advance(pause)
            await ledger.hold([Charge("k", 12, past, 10)], hold_id="h", lease_s=1)
        answer = await ledger.hold([Charge("k", 12, amount, 10)], hold_id="h", lease_s=1)
        if isinstance(answer, Refusal):
            wait = answer.retry_after_s
            assert wait <= 10
            if wait > 0.002:
                clock.advance(wait - 0.001)
                early = await ledger.hold([Charge("k", 12, amount, 10)], hold_id="h", lease_s=1)
                assert isinstance(early, Refusal)
                clock.advance(0.001)
            clock.advance(0.0001 if wait > 0.002 else wait + 0.0001)
            assert not isinstance(
                await ledger.hold([Charge("k", 12, amount, 10)], hold_id="h", lease_s=1), Refusal
            )

    asyncio.run(play())


async def test_counts_agree_with_the_limits_library_on_whole_windows():
    """Within one window, both count alike."""
    from limits import parse
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import FixedWindowRateLimiter

    peer, item = FixedWindowRateLimiter(MemoryStorage()), parse("7/hour")
    limits = limiter("rules: [{id: r, requests: 7, every: 1h}]")
    ours, theirs = [], []
    for _ in range(10):
        theirs.append(await peer.hit(item, "x"))
        try:
            await ask(limits)
            ours.append(True)
        except Refused:
            ours.append(False)
    assert ours == theirs == [True] * 7 + [False] * 3


async def test_reserving_in_memory_takes_microseconds():
    """Four limits at once; a generous ceiling for busy machines, of process time."""
    limits = limiter(
        "rules: [{id: a, per: [key], requests: 1000000, every: 1m}, {id: c, per: [key], concurrency: 100},"
        " {id: b, per: [tenant], requests: 1000000, every: 1h},"
        " {id: d, per: [user], tokens: 100000000, every: 1m}]"
    )
    who = facts()
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        for _ in range(500):
            await (await limits.reserve(who, input_tokens=10, max_output_tokens=10)).settle(Usage())
        best = min(best, (time.process_time() - begin) / 500)
    assert best < 200e-6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{id: a, requests: 1}]", "every"),
        ("rules: [{id: a, requests: 1, tokens: 1, every: 1m}]", "exactly one"),
        ("rules: [{id: a, concurrency: 1, every: 1m}]", "every"),
        ("rules: [{id: a, requests: 1, every: 90x}]", "10s, 1m, 6h"),
        ("rules: [{id: a, requests: 1, every: 48h}]", "day or month"),
        ("rules: [{id: a, usd: 1, every: 1h}]", "price"),
        ("rules: [{id: a, requests: 1, every: 1m}, {id: a, requests: 2, every: 1h}]", "two limits"),
        ("storage: redis", "redis_url"),
        ("rulez: []", "rules"),
        ("penalties: {slow_after: 9, block_after: 3}", "above slow_after"),
    ],
)
def test_files_that_mean_nothing_are_refused(text, said):
    with pytest.raises(FilesError, match=said):
        section(text)


def test_budgets_need_a_database():
    with pytest.raises(UsageError, match="database"):
        limiter("rules: [{id: a, tokens: 5, every: month}]")
