"""A reload by the admin API reaches every worker, or says whom it missed; and what replicas say they know."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests_raw
from running_gateway import Running, running, until
from section_files import admin, free_port

from stanchion.core.clock import ManualClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.gateway.known_targets import unreached
from stanchion.gateway.reloading import WorkersReload
from stanchion.gateway.replicas import About, Replica, Replicas
from stanchion.gateway.switch_state import SwitchTarget
from stanchion.store.database import open_database
from stanchion.store.times import to_us

FILE = """
listen: 127.0.0.1:0
admin_listen: 127.0.0.1:ADMIN
providers:
  script: {api: scripted, script: script.yaml}
models:
  demo: {provider: script, model: gpt-x}
  small: {provider: script}
features:
  default: {policy: agent.yaml}
  strict: {policy: none}
"""
AGENT = (
    "version: 1\nname: agent\nextends: [default]\ntools: {default: allow, named: {refund: {effect: allow}}}\n"
)
SCRIPT = "name: quick\ndefault: {text: 'You can return anything within thirty days.'}\n"
ROUNDS = 24  # fresh connections: one that never meets one of two workers has the chance 2^-24


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("two")
    text = FILE.replace("ADMIN", str(free_port()))
    files = {"gateway.yaml": text, "script.yaml": SCRIPT, "agent.yaml": AGENT}
    with running(Running(folder, "--workers", "2", files=files)) as run:
        until(lambda: len(_live(run)) == 2, seconds=60)
        yield run


def _live(run: Running) -> list[dict[str, Any]]:
    return [dict(each) for each in json.loads(run.cli("switch", "list", "--format", "json"))["replicas"]]


def configurations(run: Running) -> set[str]:
    return {_ready(run)["configuration"] for _ in range(ROUNDS)}


def _ready(run: Running) -> dict[str, Any]:
    return dict(json.loads(requests_raw.request("GET", run.url, "/readyz")[2]))


def change(run: Running, before: str, after: str) -> None:
    path = run.folder / "gateway.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_reload_by_the_admin_api_reaches_every_worker(two: Running) -> None:
    [before] = configurations(two)
    change(two, "strict: {policy: none}", "strict: {policy: strict}")
    done = admin(two, "/reload", {})
    assert done["said"] == f"2 of 2 at {done['configuration']}"
    assert (done["workers"], done["taken"], done["needs_restart"]) == (2, 2, [])
    assert configurations(two) == {done["configuration"]} != {before}
    assert all(_ready(two)["unprotected_features"] == [] for _ in range(ROUNDS))


def test_a_broken_file_reaches_no_worker(two: Running) -> None:
    before = configurations(two)
    change(two, "policy: agent.yaml", "policy: [")
    with pytest.raises(urllib.error.HTTPError) as refused:
        admin(two, "/reload", {})
    assert refused.value.code == 422
    assert "gateway.yaml" in json.loads(refused.value.read())["error"]["message"]
    change(two, "policy: [", "policy: agent.yaml")
    assert configurations(two) == before


def test_a_reload_says_which_changes_it_does_not_make(two: Running) -> None:
    change(two, "listen: 127.0.0.1:0\n", "listen: 127.0.0.1:8799\nrecords: {every_s: 0.2}\n")
    change(two, "providers:", "telemetry: {service: shop}\nproviders:")
    done = admin(two, "/reload", {})
    wanted = ["listen", "records", "telemetry.service"]
    assert done["needs_restart"] == wanted
    assert f"changed, and read at the start only: {', '.join(wanted)}" in done["said"]
    assert all(_ready(two)["needs_restart"] == wanted for _ in range(ROUNDS))
    assert f"changed, and read at the start only: {', '.join(wanted)}" in two.said()


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("feature:stric", 4, "NOTHING IS STOPPED BY IT. Did you mean feature:strict?"),
        ("model:doesnotexist", 4, "They know: model:demo, model:small."),
        ("model:gpt-x", 4, "is the provider's name of what clients call demo. Engage model:demo."),
        ("provider:scrpt", 4, "Did you mean provider:script?"),
        ("guard_version:none", 4, "NO REPLICA KNOWS"),
        ("tool:refnud", 0, "No file of a replica names tool:refnud. Did you mean tool:refund?"),
        ("tool:refund", 0, ""),
        ("model:demo", 0, ""),
        ("tenant:acme", 0, ""),
    ],
)  # fmt: skip
def test_engaging_what_nobody_knows_is_said_loudly(two: Running, target: str, code: int, words: str) -> None:
    engaged = two.cli("switch", "engage", target, "--reason", "leaks", "--as", "ann", code=code)
    said = " ".join(engaged.split())
    assert f"ENGAGED {target} " in said  # it holds for replicas that come to know it
    assert "2 of 2" in said
    assert words in said
    assert ("replica knows" in said.lower()) == (code == 4)
    as_json = two.cli(
        "switch", "engage", target, "--reason", "leaks", "--as", "ann", "--format", "json", code=code
    )
    assert (json.loads(as_json)["unreached"] is None) == (not words)
    answer = admin(two, "/switches/engage", {"target": target, "reason": "leaks"})
    assert words in answer["unreached"]
    assert bool(answer["unreached"]) == bool(words)


# --- without processes --------------------------------------------------------------------------------------


class Table:
    """The replicas of two gateways on one database: the workers 0 and 1 of `ours`, and one of another."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.replicas = Replicas(open_database(f"sqlite:///{folder / 'records.db'}"), clock=self.clock)

    def say(self, number: int, **about: Any) -> None:
        now_us = to_us(self.clock.now())
        said = About(**{"group": "ours", "configuration": "sha256:old", **about})
        self.replicas.write(
            Replica(
                id=f"r{number}", host="h", pid=100 + number, started_at_us=1, seen_at_us=now_us, about=said
            )
        )

    def reload(self, *, tell: Any, workers: int = 2) -> Any:
        def here() -> tuple[str, tuple[str, ...]]:
            return "sha256:new", ()

        return WorkersReload(
            self.replicas,
            reload=here,
            tell=tell,
            group="ours",
            workers=workers,
            clock=self.clock,
            most_s=3,
            sleep=self.clock.advance,
        )()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table(tmp_path)
    made.say(0)
    made.say(1)
    made.say(2, group="another")
    return made


def test_those_of_other_gateways_are_not_counted_but_named(table: Table) -> None:
    def tell() -> None:
        for number in (0, 1):
            table.say(number, configuration="sha256:new", tried_at_us=to_us(table.clock.now()))

    done = table.reload(tell=tell)
    assert str(done) == ("2 of 2 at sha256:new; live replicas of other gateways, which were not asked: 1")


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({}, "1 of 2 at sha256:new: pid 101 is at sha256:old."),
        ({"tried_at_us": 0, "configuration": "sha256:new"}, "pid 101 is at sha256:new"),  # not of this reload
        ({"trouble": "the policy is gone."}, "pid 101 is at sha256:old (the policy is gone.)"),
        (None, "1 of 2 at sha256:new: 1 did not say anything."),
    ],
)
def test_who_did_not_take_it_is_named(table: Table, second: dict[str, Any] | None, words: str) -> None:
    def tell() -> None:
        table.clock.advance(11)  # whoever does not speak again is not live any more
        now_us = to_us(table.clock.now())
        table.say(0, configuration="sha256:new", tried_at_us=now_us)
        if second is not None:
            trouble = {"tried_at_us": now_us} if "trouble" in second else {}
            table.say(1, **{**trouble, **second})

    with pytest.raises(UnavailableError) as missed:
        table.reload(tell=tell)
    assert words in missed.value.message


def test_nobody_is_told_of_files_that_cannot_be_used(table: Table) -> None:
    def broken() -> tuple[str, tuple[str, ...]]:
        raise UsageError("gateway.yaml: no.")

    reload = WorkersReload(
        table.replicas, reload=broken, tell=pytest.fail, group="ours", workers=2, clock=table.clock
    )
    with pytest.raises(UsageError, match=r"gateway\.yaml"):
        reload()


def test_nothing_is_said_of_names_while_somebody_does_not_tell_what_it_knows(table: Table) -> None:
    target = SwitchTarget.parse("feature:x")
    known = {"feature": ("default",)}
    for number in (0, 1):
        table.say(number, known=known)
    live = table.replicas.live(with_about=True)
    assert unreached(target, live) is None  # the third is of an older release, or still starts
    assert unreached(target, []) is None
    table.say(2, known={"feature": ("x",)})
    assert unreached(target, table.replicas.live(with_about=True)) is None
    table.say(2, known=known)
    found = unreached(target, table.replicas.live(with_about=True))
    assert found is not None
    assert found.is_nothing


def test_models_that_pass_through_may_have_any_name_and_still_have_a_name_at_their_provider(
    table: Table,
) -> None:
    for number in range(3):
        table.say(
            number, known={"model": ("m",)}, open_levels=("model",), upstream={"gpt-x": ("m",)}
        )  # fmt: skip
    live = table.replicas.live(with_about=True)
    assert unreached(SwitchTarget.parse("model:another"), live) is None
    found = unreached(SwitchTarget.parse("model:gpt-x"), live)
    assert found is not None
    assert not found.is_nothing
    assert "Engage model:m." in found.message
