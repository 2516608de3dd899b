"""Switches set by the command line and obeyed by three processes, killed stores included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from control_plane import ANN, Plane, facts
from replica_fleet import (
    KillablePostgres,
    KillableRedis,
    ReplicaProcess,
    environment,
    replicas,
    switch,
)

from stanchion.core.clock import CountingIds
from stanchion.gateway.control_announce import RedisWay, announcer, nudge_folder
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.switch_acts import SwitchActs
from stanchion.gateway.switch_state import SwitchTarget

KIND = ControlKind.SWITCHES
CHECKOUT = SwitchTarget.parse("feature:checkout")


def engage(environ, folder, *more: str, target: str = "feature:checkout") -> dict:
    return switch(environ, folder, "engage", target, "--reason", "leaks", "--as", "ann", *more)


def test_the_command_line_stops_three_replicas_and_their_requests_under_way(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    with replicas(environ, tmp_path) as fleet:
        for each in fleet:
            each.ask("follow checkout")
            each.ask("follow search")
        done = engage(environ, tmp_path)
        assert done["exit"] == 0, done
        heard = done["acknowledged"]
        assert (heard["obeying"], heard["live"], heard["version"]) == (3, 3, 1)
        for each in fleet:
            assert each.told.get(timeout=10)["told"] == 1
            assert each.told.empty()
            assert each.ask("find checkout")["hit"].startswith("switch_")
            assert each.ask("find search")["hit"] == ""
        assert switch(environ, tmp_path, "list")["version"] == 1
        assert len(switch(environ, tmp_path, "list")["replicas"]) == 3
        assert fleet[0].stop() == 0
        heard = engage(environ, tmp_path, target="tool:refund")["acknowledged"]
        assert (heard["obeying"], heard["live"]) == (2, 2)  # one that ended says so


def test_a_replica_that_does_not_obey_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    with replicas(environ, tmp_path, count=2) as fleet:
        fleet[0].kill()  # without a word: it counts as live until its heartbeat is old
        done = engage(environ, tmp_path, "--wait", "0.5")
        assert done["exit"] == 1
        heard = done["acknowledged"]
        assert (heard["obeying"], heard["live"], heard["is_complete"]) == (1, 2, False)
        assert len(heard["missing"]) == 1
        fleet[1].until("find checkout", hit=done["answer"]["id"])


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.redis
def test_it_stays_engaged_when_both_stores_are_killed_and_over_a_restart(tmp_path: Path) -> None:
    postgres, redis = KillablePostgres(), KillableRedis()
    environ = environment(tmp_path, store_url=postgres.url, redis_url=redis.url)
    try:
        with replicas(environ, tmp_path) as fleet:
            done = engage(environ, tmp_path)
            assert done["acknowledged"]["obeying"] == 3, done
            switch_id = done["answer"]["id"]
            postgres.kill()
            redis.kill()
            for each in fleet:
                assert each.ask("find checkout")["hit"] == switch_id
                each.until("status", version=1, trust="verified", is_on_disk=True)
            fleet[0].kill()
            again = ReplicaProcess(environ, tmp_path)  # both stores are still away
            try:
                assert again.ask("find checkout")["hit"] == switch_id
                assert again.ask("find search")["hit"] == ""
                assert "database" in again.ask("status")["troubles"]
                failed = engage(environ, tmp_path, target="tool:refund")
                assert failed["exit"] == 3, failed  # nothing half done: it says that the database is away
                postgres.start()
                redis.start()
                assert engage(environ, tmp_path, target="tool:refund")["exit"] in (0, 1)
                for each in (*fleet[1:], again):
                    each.until("status", version=2, troubles=[])
                lifted_by_two(environ, tmp_path)
                for each in (*fleet[1:], again):
                    each.until("find checkout", hit="")
            finally:
                again.kill()
    finally:
        postgres.close()
        redis.close()


def lifted_by_two(environ, folder) -> None:
    eve = {**environ, "STANCHION_ADMIN_KEY": admin_key(environ, folder, "eve")}  # who makes a key may know it
    ann = {**environ, "STANCHION_ADMIN_KEY": admin_key(eve, folder, "ann")}
    ben = {**environ, "STANCHION_ADMIN_KEY": admin_key(eve, folder, "ben")}
    switch(ann, folder, "lift", "feature:checkout", "--reason", "fixed")
    alone = switch(ann, folder, "confirm", "feature:checkout")
    assert alone["exit"] == 2
    assert switch(ben, folder, "confirm", "feature:checkout")["answer"]["is_lifted"]


def admin_key(environ, folder, person: str) -> str:
    code = "from stanchion.cli.main import run; run()"
    words = ("access-keys", "new", person, "--role", "admin", "--person", person)
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True).stdout.strip()


@pytest.mark.redis
@pytest.mark.postgres
def test_each_way_alone_reaches_a_replica_on_another_host(tmp_path, postgres_server, redis_url) -> None:
    """Two state directories stand for two hosts: neither files nor datagrams pass between them."""
    url = postgres_server.new_database()
    here = Plane(tmp_path / "here", url=url)
    there = Plane(tmp_path / "there", url=url)
    there.trusted = here.trusted  # its operator copied the public key
    for name, announce, sources in (
        ("redis", announcer([RedisWay(redis_url)]), {"connect": None, "redis_url": redis_url}),
        ("postgresql", announcer([]), {"postgres_url": url}),
        ("database", announcer([]), {}),
    ):
        acts = SwitchActs(here.store, clock=here.clock, ids=CountingIds(), announce=announce)
        acts.engage(SwitchTarget.parse(f"tool:before_{name}"), reason="x", actor=ANN)
        with there.replica(**sources) as (board, watch):
            acts.engage(SwitchTarget.parse(f"tool:{name}"), reason="x", actor=ANN)
            wait_for(lambda n=name, b=board: b.find_tool(facts(), n) is not None)
            assert board.find_tool(facts(), f"before_{name}") is not None
            assert not watch.troubles
    here.close()
    there.close()
    postgres_server.drop_database(url)


def wait_for(is_so) -> None:
    import time

    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_host_without_a_database_obeys_its_file(tmp_path) -> None:
    plane = Plane(tmp_path)
    reader = plane.reader(has_database=False)
    reader.load()
    assert reader.standing(KIND).trust == "none"
    with plane.replica(connect=None) as (board, _):
        plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
        wait_for(lambda: board.find(facts(feature="checkout")) is not None)
    plane.close()


def test_a_file_that_is_tampered_with_while_a_replica_runs_is_put_right(tmp_path) -> None:
    plane = Plane(tmp_path)
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    good = plane.disk.path(KIND).read_bytes()
    with plane.replica() as (board, _):
        for bad in (b"{}", good[:-30], b""):
            plane.disk.path(KIND).write_bytes(bad)
            wait_for(lambda: plane.disk.path(KIND).read_bytes() == good)
        plane.disk.path(KIND).unlink()
        wait_for(lambda: plane.disk.path(KIND).exists() and plane.disk.path(KIND).read_bytes() == good)
        assert board.find(facts(feature="checkout")) is not None
    assert list(nudge_folder(plane.disk).glob("*.sock")) == []
    plane.close()


def test_a_full_disk_is_told_and_the_switch_is_obeyed(tmp_path, monkeypatch) -> None:
    plane = Plane(tmp_path)
    reader, board = plane.board()
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)

    def full(*args, **kwargs) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(plane.disk, "store", full)
        plane.acts.engage(SwitchTarget.parse("model:m"), reason="x", actor=ANN)
        assert plane.acts.troubles == ["this host: [Errno 28] No space left on device"]
        reader.offer(KIND, plane.store.envelope(KIND), source="database", is_authority=True)
        assert board.find(facts(model="m")) is not None
        assert "No space left" in reader.standing(KIND).reason
        assert not reader.standing(KIND).is_on_disk
    reader.heard(KIND, source="database")
    assert reader.standing(KIND).is_on_disk
    plane.close()


def test_many_writers_at_once_give_one_history_without_a_gap(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[3:]\n"
        "from control_plane import *; from stanchion.gateway.switch_state import SwitchTarget\n"
        "plane = Plane(Path(sys.argv[1]))\n"
        "for n in range(10):\n"
        "    plane.acts.engage(SwitchTarget.parse(f'tool:{sys.argv[2]}_{n}'), reason='x', actor=ANN)\n"
    )
    plane = Plane(tmp_path)
    plane.acts.engage(CHECKOUT, reason="leaks", actor=ANN)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n), *paths]) for n in range(3)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    version, state = plane.acts.state()
    assert (version, len(state.engaged)) == (31, 31)
    assert sorted(each.version for each in state.engaged) == list(range(1, 32))
    plane.close()
