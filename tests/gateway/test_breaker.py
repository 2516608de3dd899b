import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stanchion.core.clock import ManualClock
from stanchion.core.errors import UsageError
from stanchion.gateway.breaker import BreakerRule, BreakerSection, SlidingBreaker

RULE = BreakerRule(
    window_s=10,
    minimum_calls=4,
    error_share=0.5,
    slow_ms=100,
    slow_share=0.75,
    open_s=5,
    open_most_s=20,
    probes=2,
)


def make(rule: BreakerRule = RULE) -> tuple[SlidingBreaker, ManualClock]:
    clock = ManualClock()
    return SlidingBreaker(BreakerSection(default=rule), clock=clock), clock


def test_it_opens_at_the_share_of_failures_and_not_before_the_minimum():
    breaker, _ = make()
    for _ in range(3):
        breaker.failed("a")
    assert breaker.state("a") == "closed"
    breaker.succeeded("a", latency_ms=1)
    assert breaker.state("a") == "open"
    assert not breaker.allows("a")
    assert breaker.retry_after_s("a") == pytest.approx(5)
    assert breaker.allows("another")


def test_slow_calls_trip_it_and_a_slow_probe_keeps_it_open():
    breaker, clock = make()
    for latency in (101, 500, 101, 20):
        breaker.succeeded("a", latency_ms=latency)
    assert breaker.state("a") == "open"
    clock.advance(5)
    assert breaker.state("a") == "half_open"
    assert breaker.allows("a")
    breaker.succeeded("a", latency_ms=101)
    assert breaker.state("a") == "open"
    assert breaker.retry_after_s("a") == pytest.approx(10)  # twice as long as the first time


def test_old_calls_are_forgotten():
    breaker, clock = make()
    for _ in range(3):
        breaker.failed("a")
    clock.advance(10)
    breaker.failed("a")
    assert breaker.state("a") == "closed"
    assert breaker.health()[0].calls == 1


def test_a_probe_that_nobody_reports_on_does_not_wedge_it():
    breaker, clock = make(BreakerRule(minimum_calls=1, probes=1, open_s=1, open_most_s=1, probe_s=3))
    breaker.failed("a")
    clock.advance(1)
    assert breaker.allows("a")
    assert not breaker.allows("a")
    clock.advance(3)
    assert not breaker.allows("a")  # the lost probe counts as a failed one
    clock.advance(1)
    assert breaker.allows("a")
    breaker.succeeded("a", latency_ms=1)
    assert breaker.state("a") == "closed"


def test_a_probe_that_is_given_back_is_the_next_calls():
    breaker, clock = make()
    for _ in range(4):
        breaker.failed("a")
    breaker.released("a")  # a call from before it opened holds no probe
    clock.advance(5)
    breaker.released("a")
    assert [breaker.allows("a") for _ in range(3)] == [True, True, False]
    breaker.released("a")
    assert breaker.state("a") == "half_open"
    assert [breaker.allows("a") for _ in range(2)] == [True, False]
    breaker.succeeded("a", latency_ms=1)
    breaker.succeeded("a", latency_ms=1)
    assert breaker.state("a") == "closed"


def test_calls_from_before_it_opened_say_nothing_new():
    breaker, clock = make()
    for _ in range(4):
        breaker.failed("a")
    breaker.succeeded("a", latency_ms=1)
    breaker.succeeded("a", latency_ms=1)
    assert breaker.state("a") == "open"
    clock.advance(5)
    breaker.succeeded("a", latency_ms=1)  # no probe was taken
    assert breaker.state("a") == "half_open"


def test_names_are_bounded_because_they_must_not_come_from_clients():
    breaker = SlidingBreaker(clock=ManualClock(), most_names=2)
    breaker.failed("a")
    breaker.failed("b")
    assert breaker.allows("c")
    with pytest.raises(UsageError, match="names must come from the configuration"):
        breaker.failed("c")


class BreakerMachine(RuleBasedStateMachine):
    """Against a model that keeps every call with its time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.clock = make()
        self.calls: list[tuple[float, bool, bool]] = []  # time, failed, slow
        self.closed = True
        self.under_way = 0
        self.good = 0
        self.until = 0.0
        self.opens = 0

    def now(self) -> float:
        return self.clock.monotonic_ns() / 1e9

    def model_open(self) -> None:
        self.closed, self.calls, self.under_way, self.good = False, [], 0, 0
        self.until = self.now() + min(5 * 2**self.opens, 20)
        self.opens += 1

    def model_count(self, failed: bool, slow: bool) -> None:
        self.calls.append((self.now(), failed, slow))
        first = int(self.now()) - 9  # parts of one second each
        self.calls = [c for c in self.calls if int(c[0]) >= first]
        n = len(self.calls)
        if n >= 4 and (sum(c[1] for c in self.calls) >= 0.5 * n or sum(c[2] for c in self.calls) >= 0.75 * n):
            self.model_open()

    def model_probe(self, is_good: bool) -> None:
        if self.now() < self.until or not self.under_way:
            return
        self.under_way -= 1
        if not is_good:
            self.model_open()
            return
        self.good += 1
        if self.good >= 2:
            self.closed, self.opens = True, 0

    @rule(seconds=st.sampled_from([0.25, 1, 3, 5, 11]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def fail(self) -> None:
        self.breaker.failed("x")
        self.model_count(True, False) if self.closed else self.model_probe(False)

    @rule(latency=st.sampled_from([1.0, 100.0, 101.0]))
    def succeed(self, latency: float) -> None:
        self.breaker.succeeded("x", latency_ms=latency)
        slow = latency > 100
        self.model_count(False, slow) if self.closed else self.model_probe(not slow)

    @rule()
    def release(self) -> None:
        self.breaker.released("x")
        if not self.closed and self.now() >= self.until and self.under_way:
            self.under_way -= 1

    @rule()
    @precondition(lambda self: self.under_way == 0 or self.closed)
    def ask(self) -> None:
        allowed = self.breaker.allows("x")
        if self.closed:
            assert allowed
        elif self.now() < self.until:
            assert not allowed
        else:
            assert allowed == (self.under_way + self.good < 2)
            self.under_way += allowed

    @invariant()
    def states_agree(self) -> None:
        wanted = "closed" if self.closed else "open" if self.now() < self.until else "half_open"
        assert self.breaker.state("x") == wanted


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
