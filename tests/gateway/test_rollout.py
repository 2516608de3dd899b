"""Who gets which variant, what the counts say, and what is done about it."""

import asyncio
import random

import pytest
from flow_fixtures import facts
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import ManualClock
from stanchion.core.errors import FilesError, UnavailableError, UnknownNameError
from stanchion.files.schema import load_text
from stanchion.gateway.assignment import Line, point
from stanchion.gateway.ports import Outcome
from stanchion.gateway.rollout import make_rollout
from stanchion.gateway.rollout_file import RolloutSection
from stanchion.gateway.rollout_store import RolloutStore
from stanchion.gateway.rollout_verdict import judge
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database

GRID = [(i + 0.5) / 4000 for i in range(4000)]
CANARY = """
experiments:
- id: new-prompt
  steps: [0.5, 1.0]
  variants: [{id: canary, weight: 0.2, prompt: support@canary}]
  metrics: [{name: blocked, max_increase: 0.05}, {name: slow, max_increase: 0.1, slow_ms: 1000}]
  min_cases: 100
  act: true
"""


def section(text: str) -> RolloutSection:
    return load_text(text, RolloutSection, file="gateway.yaml").value


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


# --- assignment ---


@given(st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_a_changed_weight_moves_exactly_its_share_of_keys_and_none_between_variants(count, data):
    weights = [data.draw(st.integers(0, 1000 // count)) / 1000 for _ in range(count)]
    changed = data.draw(st.integers(0, count - 1))
    after = list(weights)
    after[changed] = data.draw(st.integers(0, 1000 // count)) / 1000
    names = [f"v{n}" for n in range(count)]
    one, two = (Line(list(zip(names, each, strict=True))) for each in (weights, after))
    moved = [(one.find(u), two.find(u)) for u in GRID if one.find(u) != two.find(u)]
    assert abs(len(moved) / len(GRID) - abs(after[changed] - weights[changed])) <= 2 / len(GRID)
    assert all("" in pair for pair in moved)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_every_variant_has_its_weight_whatever_the_weights(parts):
    total = max(1000, sum(parts))
    weights = [(f"v{n}", part / total) for n, part in enumerate(parts)]
    line = Line(weights)
    for name, weight in weights:
        assert line.share(name) == pytest.approx(weight, abs=1e-9)
        assert sum(line.find(u) == name for u in GRID) / len(GRID) == pytest.approx(weight, abs=0.005)


def test_points_are_even_and_experiments_do_not_hang_together():
    one = [point("a", f"user:{n}") for n in range(20_000)]
    two = [point("b", f"user:{n}") for n in range(20_000)]
    assert abs(sum(u < 0.1 for u in one) / 20_000 - 0.1) < 0.01
    both = sum(u < 0.5 and v < 0.5 for u, v in zip(one, two, strict=True)) / 20_000
    assert abs(both - 0.25) < 0.02
    assert point("a", "user:1") == 0.26248779372692344  # as long as this holds, nobody is moved by an upgrade


def test_a_key_keeps_its_variant_and_gets_what_it_changes():
    rollout = make_rollout(section(CANARY))
    seen = [rollout.choose(facts(user_key=f"u{n}", id=f"r{n}")) for n in range(2000)]
    again = [rollout.choose(facts(user_key=f"u{n}", id=f"s{n}")) for n in range(2000)]
    assert seen == again
    canary = [one for one in seen if one.variants == {"new-prompt": "canary"}]
    assert 0.17 < len(canary) / 2000 < 0.23
    assert {one.prompt for one in canary} == {"support@canary"}
    assert {one.prompt for one in seen if one.variants["new-prompt"] == "control"} == {""}


def test_experiments_of_one_layer_never_meet_and_features_are_kept():
    rollout = make_rollout(
        section("""
experiments:
- {id: a, layer: prompts, share: 0.5, features: [support], variants: [{id: x, weight: 0.5, prompt: p@x}]}
- {id: b, layer: prompts, share: 0.3, variants: [{id: y, weight: 0.5, prompt: p@y}]}
""")
    )
    seen = [rollout.choose(facts(user_key=f"u{n}")) for n in range(4000)]
    assert all(len(one.variants) <= 1 for one in seen)
    shares = {name: sum(name in one.variants for one in seen) / 4000 for name in "ab"}
    assert shares["a"] == pytest.approx(0.5, abs=0.03)
    assert shares["b"] == pytest.approx(0.3, abs=0.03)
    assert all(
        "a" not in rollout.choose(facts(user_key=f"u{n}", feature="other")).variants for n in range(200)
    )


def test_shadows_run_beside_and_change_nothing():
    rollout = make_rollout(
        section("""
experiments:
- {id: s, mode: shadow, sticky: request, variants: [{id: strict, weight: 0.25, policy: strict}]}
""")
    )
    seen = [rollout.choose(facts(id=f"r{n}")) for n in range(4000)]
    assert all((one.variants, one.policy) == ({}, "") for one in seen)
    shown = [one for one in seen if one.shadows]
    assert 0.22 < len(shown) / 4000 < 0.28
    assert shown[0].shadows[0].policy == "strict"


# --- verdicts ---


def test_harm_is_rolled_back_no_worse_is_promoted_and_the_rest_holds():
    model = section(CANARY).experiments[0]

    def verdict(variant: tuple[int, int], control: tuple[int, int]):
        slow = (0, variant[1]), (0, control[1])
        counts = {("canary", "blocked"): variant, ("control", "blocked"): control}
        counts |= {("canary", "slow"): slow[0], ("control", "slow"): slow[1]}
        return judge(model, counts)[0]

    assert verdict((90, 300), (10, 1200)).action == "rollback"
    assert verdict((20, 2000), (80, 8000)).action == "promote"
    assert verdict((5, 200), (10, 400)).action == "hold"
    assert "not yet decided: blocked" in verdict((5, 200), (10, 400)).reason
    assert "at least 100" in verdict((0, 20), (0, 5000)).reason
    assert "blocked is more than 5.00% above control" in verdict((90, 300), (10, 1200)).reason


def test_an_experiment_without_difference_is_rarely_rolled_back_however_often_one_looks():
    """Equal arms, a look every 50 cases: harm (more than the margin) is never true, and hardly ever said."""
    model = section(CANARY).experiments[0]
    rng = random.Random(8)
    wrong = 0
    for _ in range(60):
        counts = {}
        for _ in range(20):
            for arm in ("canary", "control"):
                for metric in ("blocked", "slow"):
                    k, n = counts.get((arm, metric), (0, 0))
                    counts[arm, metric] = (k + sum(rng.random() < 0.1 for _ in range(50)), n + 50)
            wrong += judge(model, counts)[0].action == "rollback"
    assert wrong <= 1


async def play(rollout, *, rate: float, cases: int, start: int = 0) -> None:
    rng = random.Random(start)
    for number in range(start, start + cases):
        who = facts(user_key=f"u{number}", id=f"r{number}")
        given = rollout.choose(who)
        is_canary = given.variants["new-prompt"] == "canary"
        blocked = rng.random() < (rate if is_canary else 0.02)
        outcome = Outcome.BLOCKED if blocked else Outcome.ALLOWED
        rollout.observe(who, given, outcome, latency_ms=100)
        rollout.observe(who, given, Outcome.SWITCHED_OFF, latency_ms=100)  # not the variant's doing


async def test_a_bad_canary_is_rolled_back_by_one_worker_and_obeyed_by_all(database):
    store = RolloutStore(database, clock=ManualClock())
    workers = [make_rollout(section(CANARY), store=store) for _ in range(2)]
    for number, worker in enumerate(workers):
        await play(worker, rate=0.5, cases=1500, start=number * 10_000)
    await asyncio.gather(*(worker.tick() for worker in workers))
    await asyncio.gather(*(worker.tick() for worker in workers))
    for worker in workers:
        await worker.tick()
        names = {worker.choose(facts(user_key=f"u{n}")).variants["new-prompt"] for n in range(500)}
        assert names == {"control"}
    kinds = [e.kind for e in AuditLog(database, clock=ManualClock()).entries()]
    assert kinds.count("rollout.rolled_back") == 1
    assert kinds.count("rollout.started") == 1


async def test_a_good_canary_goes_step_by_step_to_everybody_each_with_counts_of_its_own(database):
    store = RolloutStore(database, clock=ManualClock())
    rollout = make_rollout(section(CANARY), store=store)
    weights = []
    for step in range(2):
        await play(rollout, rate=0.02, cases=9000, start=step * 10_000)
        await rollout.tick()
        await rollout.tick()
        state = store.get("new-prompt")
        weights.append((state.step, state.variants["canary"].weight, state.variants["canary"].status))
        assert store.counts(state) == {}
    assert weights == [(1, 0.5, "running"), (2, 1.0, "promoted")]
    assert {rollout.choose(facts(user_key=f"u{n}")).prompt for n in range(300)} == {"support@canary"}


async def test_counts_of_workers_add_up_and_another_definition_begins_anew(database):
    store = RolloutStore(database, clock=ManualClock())
    for number in range(3):
        worker = make_rollout(section(CANARY.replace("act: true", "act: false")), store=store)
        await play(worker, rate=0.02, cases=100, start=number * 1000)
        await worker.tick()
    counts = store.counts(store.get("new-prompt"))
    assert counts["canary", "blocked"][1] + counts["control", "blocked"][1] == 300
    changed = make_rollout(section(CANARY.replace("max_increase: 0.1", "max_increase: 0.2")), store=store)
    await changed.tick()
    assert store.counts(store.get("new-prompt")) == {}
    assert store.get("new-prompt").revision == 2


async def test_feedback_counts_against_the_variant_that_answered(database):
    text = CANARY.replace("{name: blocked, max_increase: 0.05}", "{name: feedback_bad, max_increase: 0.05}")
    store = RolloutStore(database, clock=ManualClock())
    rollout = make_rollout(section(text), store=store)
    await rollout.tick()
    await play(rollout, rate=0.0, cases=50)
    rollout.observe_feedback({"new-prompt": "canary", "another": "x"})
    await rollout.tick()
    assert store.counts(store.get("new-prompt"))["canary", "feedback_bad"][0] == 1


async def test_while_the_database_is_away_the_last_state_holds_and_counts_wait(database):
    class Away(RolloutStore):
        is_away = False

        def add(self, counts):
            if self.is_away:
                raise UnavailableError("the database did not answer.")
            super().add(counts)

    store = Away(database, clock=ManualClock())
    rollout = make_rollout(section(CANARY.replace("act: true", "act: false")), store=store)
    await rollout.tick()
    store.is_away = True
    await play(rollout, rate=0.02, cases=40)
    await rollout.tick()
    await play(rollout, rate=0.02, cases=40, start=100)
    assert rollout.health.failures == 1
    assert rollout.health.waiting > 0
    store.is_away = False
    await rollout.tick()
    counts = store.counts(store.get("new-prompt"))
    assert counts["canary", "blocked"][1] + counts["control", "blocked"][1] == 80
    assert rollout.health.waiting == 0


def test_people_act_too_and_an_act_on_an_old_look_changes_nothing(database):
    store = RolloutStore(database, clock=ManualClock())
    before = store.register(section(CANARY).experiments[0])
    assert store.promote(before, "canary", by="ann", reason="looks good")
    assert not store.roll_back(before, "canary", by="bob", reason="did not see that")
    assert store.get("new-prompt").variants["canary"].weight == 0.5
    assert store.roll_back(store.get("new-prompt"), "canary", by="bob", reason="saw it")
    with pytest.raises(UnknownNameError, match="variant"):
        store.promote(store.get("new-prompt"), "canari", by="ann", reason="")
    with pytest.raises(UnknownNameError, match="experiment"):
        store.get("none")
    actors = [(e.kind, e.actor) for e in AuditLog(database, clock=ManualClock()).entries()]
    assert actors[1:] == [("rollout.stepped", "ann"), ("rollout.rolled_back", "bob")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("variants: [{id: x, weight: 0.6, model: m}, {id: y, weight: 0.6, model: n}]", "more than 1"),
        ("variants: [{id: control, weight: 0.6, model: m}]", "another name"),
        ("variants: [{id: x, weight: 0.6}]", "changes nothing"),
        ("act: true, variants: [{id: x, weight: 0.6, model: m}]", "needs metrics"),
        ("steps: [0.1], variants: [{id: x, weight: 0.6, model: m}]", "rise"),
        ("variants: [{id: x, weight: 0.6, model: m}], metrics: [{name: slow, max_increase: 0.1}]", "slow_ms"),
    ],
)
def test_files_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(FilesError, match=said):
        section(f"experiments: [{{id: a, {fields}}}]")
