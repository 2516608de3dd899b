"""Switches: what is stopped, who may lift it, and what happens when the switches are not known."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from control_plane import ANN, BEN, EVE, Plane, facts

from stanchion.core.clock import ManualClock
from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import new_key
from stanchion.gateway.control_document import ControlKind, sealed
from stanchion.gateway.control_keys import load_signing_key, new_signing_key, signing_key_path
from stanchion.gateway.control_reader import Trust
from stanchion.gateway.switch_acts import LiftRule
from stanchion.gateway.switch_state import SwitchLevel, SwitchState, SwitchTarget
from stanchion.store.audit_log import AuditLog

KIND = ControlKind.SWITCHES
CHECKOUT = SwitchTarget.parse("feature:checkout")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def plane(tmp_path, clock):
    plane = Plane(tmp_path, clock=clock)
    yield plane
    plane.close()


def offer_newest(plane, reader) -> bool:
    return reader.offer(KIND, plane.store.envelope(KIND), source="database", is_authority=True)


STOPPED_BY = {
    "global": {},
    "tenant:tenant_1": {"tenant": "tenant_1"},
    "feature:checkout": {"feature": "checkout"},
    "model:gpt-x": {"model": "gpt-x"},
    "provider:acme": {"provider": "acme"},
    "guard_version:sha256:ab": {"guard_version": "sha256:ab"},
    "prompt_version:support@3": {"prompt": "support@3"},
    "prompt_version:support": {"prompt": "support@4"},
}


@pytest.mark.parametrize("target", STOPPED_BY)
def test_every_level_stops_what_it_names_and_nothing_else(plane, target) -> None:
    reader, board = plane.board()
    reader.absent(KIND, source="database")
    assert board.find(facts(**STOPPED_BY[target])) is None
    plane.acts.engage(SwitchTarget.parse(target), reason="leaks", actor=ANN)
    assert offer_newest(plane, reader)
    hit = board.find(facts(**STOPPED_BY[target]))
    assert hit is not None
    assert (hit.level, hit.reason, hit.version) == (target.partition(":")[0], "leaks", 1)
    other = board.find(facts(feature="other", tenant="t2", model="m", prompt="supporters@3"))
    assert (other is not None) == (target == "global")


def test_a_tool_is_stopped_and_the_request_goes_on(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(SwitchTarget.parse("tool:refund"), reason="double refunds", actor=ANN)
    offer_newest(plane, reader)
    asked = facts(tools=("refund", "search"))
    assert board.find(asked) is None
    assert board.find_tool(asked, "refund").name == "refund"
    assert board.find_tool(asked, "search") is None


def test_the_broadest_level_is_told(plane) -> None:
    reader, board = plane.board()
    for target in ("tool:refund", "model:m", "tenant:t", "global"):
        plane.acts.engage(SwitchTarget.parse(target), reason="drill", actor=ANN)
    offer_newest(plane, reader)
    assert board.find(facts(model="m", tenant="t")).level == "global"


@pytest.mark.parametrize("text", ["everything", "feature", "feature:", "global:all", "tool:a\nb", "model: x"])
def test_a_target_that_means_nothing_is_refused(text) -> None:
    with pytest.raises(UsageError):
        SwitchTarget.parse(text)


# --- lifting ---------------------------------------------------------------------------------------------


def test_lifting_takes_two_people_by_default(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    lifting = plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN).answer
    assert (lifting.is_lifted, lifting.still_needed) == (False, 1)
    with pytest.raises(UsageError, match="'ann' wants this lift already"):
        plane.acts.confirm(CHECKOUT, actor=ANN)
    assert plane.acts.state()[1].find(CHECKOUT) is not None
    assert plane.acts.confirm(CHECKOUT, actor=BEN).answer.is_lifted
    assert plane.acts.state()[1] == SwitchState()


def test_three_people_are_three_different_people(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN, rule=LiftRule(people=3))
    plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN)
    assert plane.acts.confirm(CHECKOUT, actor=BEN).answer.still_needed == 1
    with pytest.raises(UsageError, match="'ben' wants this lift already"):
        plane.acts.confirm(CHECKOUT, actor=BEN)
    assert plane.acts.confirm(CHECKOUT, actor=EVE).answer.is_lifted


def test_where_one_is_enough_a_wait_stands_in(plane, clock) -> None:
    alone = LiftRule(people=1, wait_s=600)
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN, rule=alone)
    assert not plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN, rule=alone).answer.is_lifted
    with pytest.raises(UsageError, match="waits until"):
        plane.acts.confirm(CHECKOUT, actor=ANN)
    clock.advance(600)
    assert plane.acts.confirm(CHECKOUT, actor=ANN).answer.is_lifted


def test_a_softer_tier_does_not_help_once_it_is_engaged(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN, rule=LiftRule(people=3))
    plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN, rule=LiftRule(people=1, wait_s=0))
    assert not plane.acts.confirm(CHECKOUT, actor=BEN).answer.is_lifted


def test_engaging_again_drops_a_lift_that_waits(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN)
    plane.acts.engage(CHECKOUT, reason="not fixed", actor=EVE)
    with pytest.raises(UsageError, match="no lift of feature:checkout waits"):
        plane.acts.confirm(CHECKOUT, actor=BEN)


def test_a_lift_does_not_wait_for_ever(plane, clock) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    plane.acts.lift(CHECKOUT, reason="fixed", actor=ANN)
    clock.advance(24 * 3600)
    with pytest.raises(UsageError, match="no lift"):
        plane.acts.confirm(CHECKOUT, actor=BEN)


def test_a_dry_run_changes_nothing(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN, dry_run=True)
    assert plane.acts.state() == (0, SwitchState())
    assert AuditLog(plane.database, clock=plane.clock).head().sequence == 0


def test_every_act_is_in_the_audit_log_with_its_person(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    plane.acts.lift(CHECKOUT, reason="fixed", actor=BEN)
    plane.acts.confirm(CHECKOUT, actor=EVE)
    log = AuditLog(plane.database, clock=plane.clock)
    told = [(entry.kind, entry.actor, entry.payload["version"]) for entry in log.entries()]
    assert told == [
        ("switch.engaged", "ann", 1),
        ("switch.lift_asked", "ben", 2),
        ("switch.lifted", "eve", 3),
    ]
    assert log.verify().is_intact


# --- not known, not verified -----------------------------------------------------------------------------


def test_switches_that_nobody_has_told_yet_stop_everything(plane) -> None:
    reader, board = plane.board()
    assert board.version == -1
    assert board.find(facts()).switch_id == "fail-closed"
    reader.absent(KIND, source="database")
    assert (board.version, board.find(facts())) == (0, None)


def test_an_engaged_switch_stays_engaged_over_a_restart_without_a_database(plane) -> None:
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    _, board = plane.board()
    assert board.find(facts(feature="checkout")).name == "checkout"
    assert board.find(facts(feature="search")) is None


@pytest.mark.parametrize("damage", ["document", "mark", "both", "document gone", "mark garbled"])
def test_a_damaged_or_missing_state_on_disk_fails_closed_until_the_authority_answers(plane, damage) -> None:
    plane.acts.engage(SwitchTarget.parse("tool:refund"), reason="x", actor=ANN)
    document, mark = plane.disk.path(KIND), plane.disk.mark_path(KIND)
    if damage in ("document", "both"):
        document.write_bytes(document.read_bytes()[:-40] + b"x" * 40)
    if damage in ("mark", "both"):
        mark.write_bytes(b'{"version": -4}')
    if damage == "document gone":
        document.unlink()
    if damage == "mark garbled":
        mark.write_bytes(b"\xff\xfe")
    reader, board = plane.board()
    assert board.find(facts()).switch_id == "fail-closed"
    assert reader.standing(KIND).trust is Trust.FAILED
    assert reader.standing(KIND).reason
    assert offer_newest(plane, reader)
    assert board.find(facts()) is None
    _, restarted = plane.board()
    assert restarted.find(facts()) is None


def test_an_older_signed_document_cannot_be_put_back(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(SwitchTarget.parse("model:m"), reason="x", actor=ANN)
    older = plane.store.envelope(KIND)
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    for source in ("redis", "file", "database"):
        assert not reader.offer(KIND, older, source=source, is_authority=source == "database")
    assert board.find(facts(feature="checkout")) is not None
    assert "older than 2" in reader.standing(KIND).last_rejected
    plane.disk.path(KIND).write_bytes(older)
    _, restarted = plane.board()
    assert restarted.find(facts()).switch_id == "fail-closed"


def forged(plane, *, version: int, key=None, kind=KIND) -> bytes:
    return sealed(kind, SwitchState(), version=version, made_at_us=0, made_by="eve", key=key or new_key())


def test_a_forged_document_is_not_obeyed_and_from_redis_changes_nothing(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    assert not reader.offer(KIND, forged(plane, version=99), source="redis")
    assert board.find(facts(feature="checkout")) is not None
    assert board.find(facts(feature="search")) is None
    assert reader.standing(KIND).rejected == 1


def test_a_forged_document_in_the_database_fails_closed_until_a_good_one_comes(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    assert not reader.offer(KIND, forged(plane, version=99), source="database", is_authority=True)
    assert board.find(facts(feature="search")).switch_id == "fail-closed"
    assert offer_newest(plane, reader)
    assert board.find(facts(feature="search")) is None
    assert board.find(facts(feature="checkout")) is not None


def test_a_document_of_another_kind_does_not_pass_for_the_switches(plane) -> None:
    reader, _ = plane.board()
    key = load_signing_key(plane.state_dir)
    keys = sealed(ControlKind.KEYS, SwitchState(), version=7, made_at_us=0, made_by="ann", key=key)
    assert not reader.offer(KIND, keys, source="redis")
    assert "not 'application/vnd.stanchion.switches" in reader.standing(KIND).last_rejected


def test_two_documents_with_one_version_fail_closed(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    fork = forged(plane, version=1, key=load_signing_key(plane.state_dir))
    assert not reader.offer(KIND, fork, source="database", is_authority=True)
    assert board.find(facts(feature="search")).switch_id == "fail-closed"


def test_a_signed_body_that_is_not_understood_fails_closed(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    newer = sealed(
        KIND,
        {"engaged": [], "zones": ["eu"]},
        version=2,
        made_at_us=0,
        made_by="ann",
        key=load_signing_key(plane.state_dir),
    )
    assert not reader.offer(KIND, newer, source="database", is_authority=True)
    assert board.find(facts(feature="search")).switch_id == "fail-closed"


def test_the_writer_builds_on_nothing_that_does_not_verify(plane) -> None:
    import sqlalchemy as sa

    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    with plane.database.write() as connection:
        row = {"k": KIND.value, "e": forged(plane, version=2).decode()}
        connection.execute(
            sa.text("INSERT INTO control_documents (kind, version, at_us, envelope) VALUES (:k, 2, 0, :e)"),
            row,
        )
    with pytest.raises(IntegrityError, match="none of these keys is known here"):
        plane.acts.engage(SwitchTarget.parse("model:m"), reason="x", actor=ANN)


def test_what_a_restored_backup_forgot_is_not_forgotten(plane, tmp_path) -> None:
    """The database went back; this host knows better, and the next version is above what was obeyed."""
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    plane.acts.engage(SwitchTarget.parse("model:m"), reason="x", actor=ANN)
    restored = Plane(tmp_path, clock=plane.clock, url=f"sqlite:///{tmp_path / 'backup.db'}")
    published = restored.acts.engage(SwitchTarget.parse("tool:t"), reason="y", actor=BEN)
    assert published.version == 3
    assert restored.acts.state()[1].find(CHECKOUT) is not None
    restored.close()


def test_a_new_signing_key_is_trusted_beside_the_old_one(plane) -> None:
    reader, _ = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    new_signing_key(plane.state_dir)
    plane.acts.engage(SwitchTarget.parse("model:m"), reason="x", actor=ANN)
    assert offer_newest(plane, reader)


def test_a_signing_key_that_others_can_read_is_not_used(plane) -> None:
    load_signing_key(plane.state_dir)
    signing_key_path(plane.state_dir).chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)


# --- leases ----------------------------------------------------------------------------------------------

REFUND = SwitchTarget.parse("tool:refund")


def leased(plane, *, ttl_s: int = 60):
    reader, board = plane.board()
    plane.acts.lease(REFUND, ttl_s=ttl_s, reason="trial", actor=ANN)
    offer_newest(plane, reader)
    return reader, board


def test_a_lease_ends_unless_it_is_renewed(plane, clock) -> None:
    reader, board = leased(plane)
    clock.advance(59)
    assert board.find_tool(facts(), "refund") is None
    plane.acts.renew(REFUND, actor=ANN)
    offer_newest(plane, reader)
    clock.advance(59)
    assert board.find_tool(facts(), "refund") is None
    clock.advance(1)
    assert board.find_tool(facts(), "refund").switch_id == "lease:tool:refund"
    with pytest.raises(UsageError, match="the lease on tool:refund ended"):
        plane.acts.renew(REFUND, actor=ANN)


def test_an_ended_lease_comes_back_as_any_switch_and_still_has_an_end(plane, clock) -> None:
    reader, board = leased(plane)
    clock.advance(61)
    plane.acts.lift(REFUND, reason="still needed", actor=ANN)
    plane.acts.confirm(REFUND, actor=BEN)
    offer_newest(plane, reader)
    assert board.find_tool(facts(), "refund") is None
    clock.advance(61)
    assert board.find_tool(facts(), "refund") is not None


def test_a_wall_clock_that_goes_back_does_not_lengthen_a_lease(plane, clock) -> None:
    _, board = leased(plane)
    clock._now -= timedelta(days=1)
    clock._monotonic_ns += 60_000_000_000
    assert board.find_tool(facts(), "refund") is not None


def test_a_wall_clock_that_jumps_ahead_ends_a_lease_and_going_back_does_not_revive_it(plane, clock) -> None:
    _, board = leased(plane)
    clock._now += timedelta(hours=1)
    assert board.find_tool(facts(), "refund") is not None
    clock._now -= timedelta(hours=1)
    assert board.find_tool(facts(), "refund") is not None


def test_a_clock_behind_the_admin_planes_grants_no_more_than_was_granted(plane, clock) -> None:
    plane.acts.lease(REFUND, ttl_s=60, reason="trial", actor=ANN)
    clock._now -= timedelta(hours=5)
    plane.disk.mark_path(KIND).write_text('{"version": 1}')
    _, board = plane.board()
    assert board.find_tool(facts(), "refund") is None
    clock.advance(60)
    assert board.find_tool(facts(), "refund") is not None


def test_a_clock_set_back_over_a_restart_ends_leases(plane, clock) -> None:
    leased(plane)
    clock._now -= timedelta(seconds=30)
    _, restarted = plane.board()
    assert restarted.find_tool(facts(), "refund") is not None


# --- following -------------------------------------------------------------------------------------------


async def test_requests_under_way_are_told_in_batches_and_others_are_not(plane) -> None:
    reader, board = plane.board()
    reader.absent(KIND, source="database")
    told: list[str] = []
    for n in range(600):
        feature = "checkout" if n % 2 else "search"
        board.follow(facts(feature=feature), lambda hit, f=feature: told.append(f"{f} {hit.reason}"))
    closed = board.follow(facts(feature="checkout"), lambda hit: told.append("closed"))
    closed.close()
    closed.close()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    await asyncio.sleep(0.05)
    assert told == ["checkout leaks"] * 300
    assert board.following == 300


async def test_one_who_follows_too_late_is_told_at_once_and_one_that_fails_stops_nobody(plane) -> None:
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    told: list[str] = []

    def broken(hit) -> None:
        raise RuntimeError("a client that went away")

    board.follow(facts(feature="checkout"), broken)
    board.follow(facts(feature="checkout"), lambda hit: told.append(hit.name))
    await asyncio.sleep(0.02)
    assert told == ["checkout"]
    assert len(failures) == 1


async def test_a_watch_that_moves_hears_of_what_stands_and_of_what_comes_and_not_of_what_it_left(
    plane,
) -> None:
    reader, board = plane.board()
    reader.absent(KIND, source="database")
    told: list[str] = []
    left = board.follow(facts(feature="checkout"), lambda hit: told.append("left"))
    comes = board.follow(facts(feature=""), lambda hit: told.append("comes"))
    late = board.follow(facts(feature=""), lambda hit: told.append("late"))
    left.move(facts(feature="search"))
    comes.move(facts(feature="checkout"))
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    offer_newest(plane, reader)
    await asyncio.sleep(0.02)
    assert told == ["comes"]
    late.move(facts(feature="checkout"))
    late.move(facts(feature="checkout"))
    await asyncio.sleep(0.02)
    assert told == ["comes", "late"]
    assert board.following == 1


async def test_requests_under_way_are_told_when_a_lease_ends(plane, clock) -> None:
    reader, board = plane.board()
    plane.acts.lease(CHECKOUT, ttl_s=10, reason="trial", actor=ANN)
    offer_newest(plane, reader)
    told: list[str] = []
    board.follow(facts(feature="checkout"), lambda hit: told.append(hit.switch_id))
    clock.advance(11)
    board.expire()
    await asyncio.sleep(0.02)
    assert told == ["lease:feature:checkout"]


def test_all_levels_are_looked_up_somewhere() -> None:
    assert {target.partition(":")[0] for target in STOPPED_BY} | {"tool"} == {
        each.value for each in SwitchLevel
    }
