"""Switches as OpenFeature flags, and flags of another provider as they may bear on a gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec
import pytest
import uvicorn
from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from stanchion.bootstrap_control import make_admin_api, make_admin_plane, make_replica_plane
from stanchion.config import load_settings
from stanchion.core.clock import ManualClock, SystemClock
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.gateway.actor import Actor
from stanchion.gateway.admin_app import load_token
from stanchion.gateway.control_disk import ControlDisk
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.ports import ApiSurface, Assignment, Engaged, Outcome, RequestFacts
from stanchion.gateway.switch_state import SwitchTarget
from stanchion.integrations.admin_switches import AdminSwitches
from stanchion.integrations.flag_readings import Flag, FlaggedRollout, FlaggedSwitches, SafeFlags
from stanchion.integrations.openfeature_provider import make_provider

ANN, BEN = Actor(person="ann"), Actor(person="ben")
CHECKOUT = SwitchTarget.parse("feature:checkout")


def facts(**fields) -> RequestFacts:
    return RequestFacts(**{"id": "req_1", "surface": ApiSurface.OPENAI_CHAT, **fields})


@contextmanager
def provided(provider, domain="flags") -> Iterator:
    api.set_provider_and_wait(provider, domain)
    try:
        yield api.get_client(domain)
    finally:
        api.clear_providers()


def wait_until(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def admin(tmp_path):
    """The admin plane of a host: `admin.switches` decides, the snapshot is signed and on disk."""
    settings = load_settings(
        environ={
            "STANCHION_STATE_DIR": str(tmp_path / "state"),
            "STANCHION_STORE_URL": f"sqlite:///{tmp_path / 'records.db'}",
            "STANCHION_SAFETY_FOLDER": str(tmp_path / "none"),
        }
    )
    plane = make_admin_plane(settings)
    yield plane
    plane.close()


@pytest.fixture
def served(admin):
    """Its admin API on loopback: the address and the token."""
    replica = make_replica_plane(admin.settings, is_loopback=True)
    replica.watch.start()
    app = make_admin_api(admin.settings, admin, replica)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", load_token(admin.settings.state_dir)
    server.should_exit = True
    thread.join(10)
    replica.watch.stop()


KIND = ControlKind.SWITCHES


def engage(admin, target="feature:checkout"):
    return admin.switches.engage(SwitchTarget.parse(target), reason="it leaks", actor=ANN)


# --- a provider of ours -------------------------------------------------------------------------------------


def test_a_switch_is_a_flag_with_reason_and_variant(admin):
    engage(admin)
    engage(admin, "tool:refund")
    replica = make_replica_plane(admin.settings, is_loopback=True)
    provider = make_provider(replica.switches, start=replica.watch.start, stop=replica.watch.stop)
    with provided(provider) as flags:
        off = flags.get_boolean_details("stanchion.feature.checkout", True)
        assert (off.value, off.reason, off.variant) == (False, "TARGETING_MATCH", "off")
        assert off.flag_metadata["why"] == "it leaks"
        assert off.flag_metadata["level"] == "feature"
        on = flags.get_boolean_details("stanchion.feature.search", False)
        assert (on.value, on.variant) == (True, "on")
        assert not flags.get_boolean_value("stanchion.tool.refund", True)
        assert flags.get_boolean_value("stanchion.tool.weather", False)
        assert flags.get_boolean_value("stanchion.global", False)
        assert flags.get_string_value("stanchion.feature.checkout", "") == "off"
        here = EvaluationContext(attributes={"feature": "checkout", "tool": "weather"})
        assert not flags.get_boolean_value("stanchion.enabled", True, here)
        assert flags.get_boolean_value("stanchion.enabled", False)


async def test_a_flag_can_be_asked_for_from_async_code(admin):
    engage(admin, "global")
    replica = make_replica_plane(admin.settings, is_loopback=True)
    replica.reader.load()
    with provided(make_provider(replica.switches)) as flags:
        assert not await flags.get_boolean_value_async("stanchion.feature.search", True)


def test_what_is_not_known_is_off_whatever_the_default(tmp_path, admin):
    replica = make_replica_plane(admin.settings, is_loopback=True)  # has heard of nothing
    with provided(make_provider(replica.switches)) as flags:
        found = flags.get_boolean_details("stanchion.feature.checkout", True)
        assert (found.value, found.variant, found.flag_metadata["version"]) == (False, "not_known", -1)
        assert not flags.get_boolean_value("stanchion.featur.checkout", True)
        assert flags.get_boolean_details("other.flag", True).error_code == "FLAG_NOT_FOUND"
        assert flags.get_integer_details("stanchion.global", 3).error_code == "TYPE_MISMATCH"


def test_a_snapshot_that_does_not_verify_switches_everything_off(admin):
    engage(admin)
    path = ControlDisk(admin.settings.state_dir).path(KIND)
    path.write_bytes(path.read_bytes().replace(b'"payload":"', b'"payload":"AA'))
    replica = make_replica_plane(admin.settings, is_loopback=True, has_database=False)
    replica.reader.load()
    with provided(make_provider(replica.switches)) as flags:
        assert not flags.get_boolean_value("stanchion.feature.search", True)


def test_flags_follow_the_admin_api_over_http(admin, served):
    url, token = served
    view = AdminSwitches(url, key=token, poll_s=0.02)
    with provided(make_provider(view)) as flags:
        assert flags.get_boolean_value("stanchion.feature.checkout", False)
        engage(admin)
        engage(admin, "tool:refund")
        wait_until(lambda: view.version == 2)
        assert not flags.get_boolean_value("stanchion.feature.checkout", True)
        assert not flags.get_boolean_value("stanchion.tool.refund", True)
        assert flags.get_boolean_value("stanchion.tool.weather", False)
        assert flags.get_boolean_value("stanchion.feature.search", False)


@pytest.mark.parametrize("target", ["model:m1", "provider:acme", "prompt_version:support", "tenant:t1"])
def test_both_views_of_the_switches_agree(admin, served, target):
    url, token = served
    engage(admin, target)
    view = AdminSwitches(url, key=token)
    assert view.refresh()
    replica = make_replica_plane(admin.settings, is_loopback=True)
    replica.reader.load()
    for asked in (
        facts(model="m1", provider="acme", prompt="support@3", tenant="t1"),
        facts(model="m2", provider="x", prompt="other@1", tenant="t2"),
        facts(),
    ):
        ours, theirs = view.find(asked), replica.switches.find(asked)
        assert (ours is None) == (theirs is None)
        assert (view.find_tool(asked, "x") is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.switch_id, ours.level, ours.name) == (theirs.switch_id, theirs.level, theirs.name)


def test_over_http_nothing_is_on_before_the_first_answer_and_outages_lift_nothing(admin, served):
    url, token = served
    clock = ManualClock()
    engage(admin)
    wrong = AdminSwitches(url, key="wrong")
    assert not wrong.refresh()
    assert wrong.find(facts(feature="search")).version == -1
    assert wrong.failures == 1
    view = AdminSwitches(url, key=token, stop_after_s=60, clock=clock)
    assert view.refresh()
    view._url = urlsplit("http://127.0.0.1:1/admin/v1/switches")
    assert not view.refresh()
    assert view.find(facts(feature="checkout")).reason == "it leaks"
    assert view.find(facts(feature="search")) is None
    clock.advance(61)
    assert view.find(facts(feature="search")).reason == "the switches were not heard of lately"


def test_an_older_copy_of_the_switches_is_not_taken(admin, served, monkeypatch):
    url, token = served
    engage(admin)
    view = AdminSwitches(url, key=token)
    assert view.refresh()
    old = msgspec.structs.replace(view._known, version=0, state=type(view._known.state)())
    monkeypatch.setattr(view, "_asked", lambda: old)
    assert not view.refresh()
    assert view.find(facts(feature="checkout")) is not None
    assert "older than 1" in view.trouble


def test_a_lease_that_has_ended_is_off_over_http_too(admin, served):
    url, token = served
    admin.switches.lease(CHECKOUT, ttl_s=60, reason="trial", actor=ANN)
    clock = ManualClock(SystemClock().now())
    view = AdminSwitches(url, key=token, clock=clock)
    assert view.refresh()
    assert view.find(facts(feature="checkout")) is None
    clock.advance(61)
    assert view.find(facts(feature="checkout")).reason == "the lease has ended"


def test_an_address_that_is_none_is_refused():
    with pytest.raises(UsageError, match="admin API is not an http"):
        AdminSwitches("file:///etc/passwd", key="k")


# --- flags of others ----------------------------------------------------------------------------------------

FLAGS = [
    Flag("feature.checkout.enabled", safe=False),
    Flag("feature.search.enabled", safe=True),
    Flag("rollout.canary.share", safe=0.0),
    Flag("missing", safe=True),
]


def flagd_file(path, *, checkout=True, share=1.0):
    flags = {
        "feature.checkout.enabled": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "on" if checkout else "off",
        },
        "feature.search.enabled": {
            "state": "ENABLED",
            "variants": {"yes": "yes"},
            "defaultVariant": "yes",
        },
        "rollout.canary.share": {
            "state": "ENABLED",
            "variants": {"now": share},
            "defaultVariant": "now",
        },
    }
    path.write_text(json.dumps({"flags": flags}))


@pytest.fixture
def flagd(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAGD_OFFLINE_POLL_MS", "20")
    path = tmp_path / "flags.json"
    flagd_file(path)
    provider = FlagdProvider(
        resolver_type=ResolverType.FILE, offline_flag_source_path=str(path), retry_backoff_ms=20
    )
    with provided(provider, "flagd") as client:
        yield client, path


def test_flags_of_flagd_are_read_and_problems_give_the_safe_value_and_are_counted(flagd):
    client, _ = flagd
    flags = SafeFlags(client, FLAGS)
    flags.refresh()
    assert flags.is_on("feature.checkout.enabled")
    assert flags.share("rollout.canary.share") == 1.0
    assert flags.is_on("feature.search.enabled"), "a text is no boolean, so the safe value holds"
    assert flags.is_on("missing")
    assert flags.problems == {
        ("feature.search.enabled", "type_mismatch"): 1,
        ("missing", "flag_not_found"): 1,
    }


def test_a_flag_that_changes_is_followed(flagd):
    client, path = flagd
    flags = SafeFlags(client, FLAGS, refresh_s=0.02)
    flags.start()
    flagd_file(path, checkout=False, share=0.25)
    wait_until(lambda: flags.share("rollout.canary.share") == 0.25)
    assert not flags.is_on("feature.checkout.enabled")
    flags.stop()


@pytest.mark.parametrize("share", [1.5, -0.1])
def test_a_share_out_of_range_is_the_safe_one(flagd, share):
    client, path = flagd
    flagd_file(path, share=share)
    flags = SafeFlags(client, FLAGS)
    wait_until(lambda: flags.refresh() or flags.problems["rollout.canary.share", "out_of_range"])
    assert flags.share("rollout.canary.share") == 0.0


class Broken:
    def get_boolean_details(self, *_args):
        raise RuntimeError("gone")

    get_float_details = get_boolean_details


def test_a_provider_that_fails_and_readings_that_are_old_give_the_safe_values():
    clock = ManualClock()
    flags = SafeFlags(Broken(), FLAGS, clock=clock)
    assert flags.reading("missing").problem == "not_read"
    flags.refresh()
    assert not flags.is_on("feature.checkout.enabled")
    assert flags.problems["feature.checkout.enabled", "RuntimeError"] == 1
    with provided(InMemoryProvider({"feature.checkout.enabled": InMemoryFlag("on", {"on": True})})) as client:
        flags = SafeFlags(client, FLAGS, clock=clock, max_age_s=30)
        flags.refresh()
        assert flags.is_on("feature.checkout.enabled")
        clock.advance(31)
        assert not flags.is_on("feature.checkout.enabled")
        assert flags.problems["feature.checkout.enabled", "too_old"] == 1


def test_without_any_provider_the_safe_values_hold():
    flags = SafeFlags(api.get_client("nobody"), FLAGS)
    flags.refresh()
    assert not flags.is_on("feature.checkout.enabled")
    assert flags.problems["feature.checkout.enabled", "no_variant"] == 1


def test_a_flag_that_was_not_declared_has_no_safe_value():
    with pytest.raises(UnknownNameError, match=r"feature\.chekout\.enabled"):
        SafeFlags(Broken(), FLAGS).reading("feature.chekout.enabled")


def test_a_flag_stops_and_never_lifts(admin, flagd):
    client, _ = flagd
    engage(admin)
    replica = make_replica_plane(admin.settings, is_loopback=True)
    replica.reader.load()
    flags = SafeFlags(client, [*FLAGS, Flag("feature.help.enabled", safe=False)])
    flags.refresh()
    both = FlaggedSwitches(replica.switches, flags, make_stop=Engaged)
    assert flags.is_on("feature.checkout.enabled")
    assert both.find(facts(feature="checkout")).reason == "it leaks", (
        "the switch stands, though the flag is on"
    )
    assert both.find(facts(feature="other")) is None
    stop = both.find(facts(feature="help"))
    assert (stop.switch_id, stop.level) == ("flag:feature.help.enabled", "feature")
    assert isinstance(stop, Engaged)
    assert both.find_tool(facts(feature="help"), "x") is not None
    assert both.version == replica.switches.version


class Always:
    """A rollout in which everybody gets the new model."""

    def __init__(self):
        self.observed = []

    def choose(self, facts):
        return Assignment(variants={"canary": "new"}, model="m-new")

    def observe(self, facts, assignment, outcome, *, latency_ms):
        self.observed.append(assignment.variants)


def test_a_share_holds_variants_back_and_gives_none(flagd):
    client, path = flagd
    rollout = Always()
    flags = SafeFlags(client, FLAGS)
    held = FlaggedRollout(rollout, flags)
    asked = [facts(id=f"r{n}", user_key=f"user-{n}") for n in range(400)]
    assert {held.choose(each).model for each in asked} == {""}, "not read yet: the safe share is none"
    flags.refresh()
    assert {held.choose(each).model for each in asked} == {"m-new"}
    flagd_file(path, share=0.25)
    wait_until(lambda: flags.refresh() or flags.share("rollout.canary.share") == 0.25)
    chosen = {each.id: held.choose(each) for each in asked}
    kept = [name for name, one in chosen.items() if one.model]
    assert 60 <= len(kept) <= 140  # 25 % of 400: mean 100, standard deviation 8.7
    assert [name for name, one in chosen.items() if one.variants == {"canary": "new"}] == kept
    assert kept == [each.id for each in asked if held.choose(each).model], "sticky"
    for each in asked:
        held.observe(each, chosen[each.id], Outcome.ALLOWED, latency_ms=1.0)
    assert len(rollout.observed) == len(kept), "what a flag held back is counted for nobody"
