"""`access`, `admission` and `flags` of the gateway file, through `stanchion serve` and real clients."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from running_gateway import Running, running, until
from section_files import GATEWAY, ORG, admin, ask, checked, detail, made, reload, safety, said

from stanchion.store.database import open_database
from stanchion.store.interactions import InteractionStore

pytestmark = pytest.mark.xdist_group("gateway-sections")

# --- admission ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gated")
    with running(made(folder, files=safety(folder))) as run:
        yield run


def components_of(run: Running, reference: str) -> str:
    with open_database(run.folder / "state" / "stanchion" / "stanchion.db") as database:
        found: Any = until(lambda: InteractionStore(database).get(reference))
    return str(found.components.digest)


@pytest.mark.parametrize("stream", [False, True])
def test_ungated_sets_are_blocked_warned_of_or_allowed_as_the_tier_says(gated: Running, stream: bool) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(gated, "shop", stream=stream)
    assert refused.value.code == "not_admitted"
    record = detail(gated, refused.value.response.headers["x-request-id"])
    assert (record["outcome"], record["stage"], record["status"]) == ("not_admitted", "admission", 403)
    assert (record["is_gated"], record["ungated"], record["tries"]) == (False, "block", [])
    for feature, action in (("chat", "warn"), ("default", "allow")):
        answer = ask(gated, feature, stream=stream)
        assert answer.status_code == 200
        record = detail(gated, answer.headers["x-request-id"])
        assert (record["outcome"], record["is_gated"], record["ungated"]) == ("allowed", False, action)
    assert re.search(r"chat.*|demo.*allowed.*ungated", gated.said())
    assert "was not admitted" in gated.said()


def test_a_signed_list_admits_a_set_for_its_feature_and_takes_it_back(gated: Running) -> None:
    reference = ask(gated, "chat").headers["x-request-id"]
    gated_set = {"components": components_of(gated, reference), "feature": "shop"}
    written = admin(gated, "/admission", {"add": [gated_set]})
    assert (written["count"], written["is_changed"]) == (1, True)
    answer = until(lambda: _allowed(gated, "shop"))
    record = detail(gated, answer.headers["x-request-id"])
    assert (record["is_gated"], record["ungated"]) == (True, "")
    assert detail(gated, ask(gated, "chat").headers["x-request-id"])["ungated"] == "warn", (
        "gated for shop only"
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with pytest.raises(openai.PermissionDeniedError):  # other tools are another set
        ask(gated, "shop", tools=[tool])
    admin(gated, "/admission", {"remove": [gated_set]})
    until(lambda: not _allowed(gated, "shop"))


def _allowed(run: Running, feature: str) -> Any:
    try:
        return ask(run, feature)
    except openai.PermissionDeniedError:
        return None


def test_a_changed_org_file_holds_after_a_reload_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    with running(made(tmp_path, files=safety(tmp_path, shop="warn"))) as run:
        assert said(ask(run, "shop"))
        (tmp_path / "safety/org.yaml").write_text(ORG.replace("SHOP", "block"))
        reload(run)
        assert not _allowed(run, "shop")
        (tmp_path / "safety/org.yaml").write_text("version: 1\norganisation: [\n")
        reload(run, "the configuration was not reloaded")
        assert not _allowed(run, "shop")
        assert said(ask(run, "chat"))
    code, told = checked(run)
    assert code != 0, "what becomes of ungated sets is not known, so nothing is served"
    assert "org.yaml cannot be read" in told


def test_the_gateway_file_makes_admission_stricter_and_never_looser(tmp_path: Path) -> None:
    run = made(tmp_path, more="admission: {at_least: warn}\n", files=safety(tmp_path))
    code, told = checked(run)
    assert code == 0, told
    assert "feature shop, ungated sets: block (org.yaml says block, admission.at_least says warn)" in told
    assert "feature default, ungated sets: warn (the safety folder does not know it" in told
    (tmp_path / "gateway.yaml").write_text(GATEWAY.replace("ADMIN", "0") + "admission: {ungated: allow}\n")
    code, told = checked(run)
    assert code != 0
    assert "ungated" in told


# --- access -------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_from_the_start_where_the_file_says_so(tmp_path: Path) -> None:
    with running(made(tmp_path, more="access: {keys: required}\n")) as run:
        with pytest.raises(openai.AuthenticationError):
            ask(run)
        with (
            pytest.raises(openai.AuthenticationError),
            openai.OpenAI(base_url=f"{run.url}/v1", api_key="x") as no,
        ):
            no.models.list()
        key = run.cli("access-keys", "new", "shop", "--feature", "shop").split()[-1]
        assert said(until(lambda: _with(run, "shop", key)))
        with pytest.raises(openai.PermissionDeniedError):
            ask(run, "chat", key=key)
    assert "access: everybody needs a key" in checked(run)[1]


def _with(run: Running, feature: str, key: str) -> Any:
    try:
        return ask(run, feature, key=key)
    except openai.AuthenticationError:
        return None


# --- flags --------------------------------------------------------------------------------------------------

FLAGS = """
flags:
  provider: {flagd_file: flags.json}
  refresh_s: 0.1
  max_age_s: 5
  read:
    feature.chat.enabled: {safe: false}
    tool.refund.enabled: {safe: false, flag: payments-on}
    feature.shop.model: {safe: asked, values: [asked, other]}
    feature.shop.policy: {safe: strict.yaml, values: [default, strict.yaml]}
    rollout.arms.share: {safe: 0}
    admission.ungated: {safe: block}
rollout:
  experiments:
  - id: arms
    features: [default]
    variants: [{id: new, weight: 1, model: other}]
    metrics: [{name: blocked, max_increase: 0.5}]
"""
STRICT = """
version: 1
name: strict
extends: [default]
rules:
- {id: no-addresses, when: {category: pii.email, surface: input}, effect: block}
"""
GOOD: dict[str, Any] = {
    "feature.chat.enabled": True,
    "payments-on": True,
    "feature.shop.model": "asked",
    "feature.shop.policy": "default",
    "rollout.arms.share": 1.0,
    "admission.ungated": "allow",
}
MAIL = "My address is jane.doe@acme-shop.com, write to it."


def flagd(**values: Any) -> str:
    """A definition in flagd's format; a dot in a name is written as two underscores here."""
    given = {**GOOD, **{name.replace("__", "."): value for name, value in values.items()}}
    flags = {
        name: {"state": "ENABLED", "variants": {"now": value}, "defaultVariant": "now"}
        for name, value in given.items()
    }
    return json.dumps({"flags": flags})


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("flagged")
    run = made(folder, more=FLAGS, files={"flags.json": flagd(), "strict.yaml": STRICT})
    run._environment["FLAGD_OFFLINE_POLL_MS"] = "20"
    with running(run):
        yield run


@pytest.fixture
def flags(flagged: Running) -> Iterator[Running]:
    """The gateway with every flag at its good value, before and after."""
    set_flags(flagged)
    yield flagged
    set_flags(flagged)


def set_flags(run: Running, **values: Any) -> None:
    """Write the definitions, and wait until the gateway has another version of them or has these."""
    new = run.folder / "flags.new"
    new.write_text(flagd(**values))
    os.replace(new, run.folder / "flags.json")
    wanted = {**GOOD, **{name.replace("__", "."): value for name, value in values.items()}}
    until(lambda: _readings(run) == wanted)


def _readings(run: Running) -> dict[str, Any]:
    """What the flags do, seen from outside."""
    found = dict(GOOD)
    record = lambda answer: detail(run, answer.headers["x-request-id"])  # noqa: E731
    shop = record(ask(run, "shop"))
    found["feature.shop.model"] = shop["variants"].get("flag:feature.shop.model", "asked")
    found["feature.shop.policy"] = shop["variants"]["flag:feature.shop.policy"]
    try:
        ask(run, "chat")
        found["feature.chat.enabled"] = True
    except openai.InternalServerError:
        found["feature.chat.enabled"] = False
    default = record(ask(run))
    found["rollout.arms.share"] = 1.0 if default["variants"] == {"arms": "new"} else 0.0
    found["admission.ungated"] = default["ungated"]
    found["payments-on"] = record(refund(run))["switch_id"] == ""
    return found


def refund(run: Running) -> Any:
    tool = {"type": "function", "function": {"name": "refund", "parameters": {"type": "object"}}}
    return ask(run, words="refund, please", tools=[tool])


def test_a_flag_chooses_among_the_models_and_policies_of_the_file(flags: Running) -> None:
    before = detail(flags, ask(flags, "shop").headers["x-request-id"])
    assert said(ask(flags, "shop", words=MAIL)) == "You can return anything within thirty days."
    set_flags(flags, feature__shop__model="other", feature__shop__policy="strict.yaml")
    answer = ask(flags, "shop")
    assert said(answer) == "The other model says hello."
    assert "flag:feature.shop.policy=strict.yaml" in answer.headers["x-stanchion-variant"]
    record = detail(flags, answer.headers["x-request-id"])
    assert record["guard_version"] != before["guard_version"]
    assert record["flags"] != before["flags"]
    assert re.fullmatch(r"[0-9a-f]{16}", record["flags"])
    stopped = detail(flags, ask(flags, "shop", words=MAIL).headers["x-request-id"])
    assert stopped["outcome"] == "blocked"


def test_a_flag_stops_a_feature_and_a_tool_as_a_switch_does(flags: Running) -> None:
    set_flags(flags, feature__chat__enabled=False)
    with pytest.raises(openai.InternalServerError) as stopped:
        ask(flags, "chat")
    assert stopped.value.code == "switched_off"
    record = detail(flags, stopped.value.response.headers["x-request-id"])
    assert (record["outcome"], record["switch_id"]) == ("switched_off", "flag:feature.chat.enabled")
    set_flags(flags, **{"payments-on": False})
    record = detail(flags, refund(flags).headers["x-request-id"])
    assert (record["outcome"], record["switch_id"]) == ("switched_off", "flag:tool.refund.enabled")


def test_a_flag_holds_an_experiment_back_and_makes_admission_stricter(flags: Running) -> None:
    assert said(ask(flags)) == "The other model says hello."
    set_flags(flags, rollout__arms__share=0.0, admission__ungated="warn")
    answer = ask(flags)
    assert said(answer) == "You can return anything within thirty days."
    record = detail(flags, answer.headers["x-request-id"])
    assert (record["variants"], record["ungated"]) == ({}, "warn")


def test_a_switch_goes_before_every_flag(tmp_path: Path) -> None:
    with running(made(tmp_path, more=FLAGS, files={"flags.json": flagd(), "strict.yaml": STRICT})) as run:
        assert said(ask(run, "chat"))
        run.cli("switch", "engage", "feature:chat", "--as", "ann", "--reason", "test")
        with pytest.raises(openai.InternalServerError) as stopped:
            ask(run, "chat")
        record = detail(run, stopped.value.response.headers["x-request-id"])
        assert record["switch_id"].startswith("switch_")


@pytest.mark.parametrize("broken", ["not json", '{"flags": {}}', None], ids=["damaged", "emptied", "removed"])
def test_a_provider_that_fails_leaves_the_safe_values(tmp_path: Path, broken: str | None) -> None:
    """At a start without usable flags, and in a run that had them."""
    run = made(tmp_path, more=FLAGS, files={"flags.json": broken or flagd(), "strict.yaml": STRICT})
    run._environment["FLAGD_OFFLINE_POLL_MS"] = "20"
    with running(run):
        if broken is None:
            assert said(ask(run, "chat"))
            (tmp_path / "flags.json").unlink()
            until(lambda: not _answers(run, "chat"), seconds=30)
        with pytest.raises(openai.InternalServerError):
            ask(run, "chat")
        with pytest.raises(openai.PermissionDeniedError):  # admission.ungated is block
            ask(run, "shop")
        import urllib.request

        with urllib.request.urlopen(f"{run.url}/readyz", timeout=10) as answer:
            unsafe = json.loads(answer.read())["flags"]["at_safe_value"]
        assert sorted(unsafe) == sorted(
            name for name in (*GOOD, "tool.refund.enabled") if name != "payments-on"
        )
        if broken is not None:
            assert "safe value holds for" in " ".join(run.said().split())


def _answers(run: Running, feature: str) -> bool:
    try:
        return bool(ask(run, feature))
    except (openai.InternalServerError, openai.PermissionDeniedError):
        return False


def test_a_reload_reads_other_flags_and_forgets_the_old_ones(tmp_path: Path) -> None:
    run = made(
        tmp_path, more=FLAGS, files={"flags.json": flagd(feature__chat__enabled=False), "strict.yaml": STRICT}
    )
    with running(run):
        assert not _answers(run, "chat")
        text = (tmp_path / "gateway.yaml").read_text()
        (tmp_path / "gateway.yaml").write_text(text.partition("flags:")[0])
        reload(run)
        answer = ask(run, "chat")
        record = detail(run, answer.headers["x-request-id"])
        assert (record["flags"], record["variants"]) == ("", {})


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("feature.default.enable: {safe: true}", "steers nothing"),
        ("feature.shp.enabled: {safe: true}", "Did you mean 'shop'"),
        ("feature.shop.enabled: {safe: 1}", "true or false"),
        ("rollout.arms.share: {safe: 1.5}", "a share from 0 to 1"),
        ("rollout.legs.share: {safe: 1}", "Allowed: arms"),
        ("feature.shop.policy: {safe: default, values: [strict.yaml]}", "one of its `values`"),
        ("feature.shop.policy: {safe: default, values: [default, observe]}", "weaker than the feature's"),
        ("feature.shop.model: {safe: asked, values: [asked, othr]}", "Did you mean 'other'"),
        ("admission.ungated: {safe: never}", "allow, warn or block"),
    ],
)
def test_flags_that_mean_nothing_or_loosen_are_refused(tmp_path: Path, section: str, told: str) -> None:
    head, _, tail = FLAGS.partition("    feature.chat.enabled")
    more = f"{head}    {section}\n{tail[tail.index('rollout:') :]}".replace(
        "rollout.arms.share: {safe: 0}\n", ""
    )
    more = re.sub(r"\n    admission\.ungated: \{safe: block\}", "", more)
    run = made(tmp_path, more=more, files={"flags.json": flagd(), "strict.yaml": STRICT})
    code, printed = checked(run)
    assert code != 0, printed
    assert told in printed
