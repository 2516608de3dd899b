"""What an approval releases, whose values come back, and what a check is recorded and counted as."""

from __future__ import annotations

import json
import re

import pytest
from gateway_fakes import post
from gateway_server import Records, gateway, live, scripted_models, serve

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.files.schema import load_text
from stanchion.gateway.actor import Actor
from stanchion.gateway.approvals import ApprovalQueue, ApprovalsSection
from stanchion.gateway.limits import make_limits
from stanchion.gateway.limits_file import LimitsSection
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import Caller, Outcome, Refused
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import load_policy
from stanchion.store.database import open_database

KEY = "AKIAQYLPMN5HHHFPZAM2"
CARD = "4111 1111 1111 1111"
CHAT = "/v1/chat/completions"
POLICY = """
version: 1
name: asks
extends: [default]
rules:
- {id: cards-in-calls, when: {category: pii.*, surface: tool_call}, effect: require_approval}
tools: {default: allow}
"""
PAY = {"name": "pay", "arguments": {"card": CARD, "k": KEY}}
TOOL = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}
BODY = {"model": "scripted", "messages": [{"role": "user", "content": "Please pay."}], "tools": [TOOL]}


class Keys:
    """Two keys of two tenants, told apart by their bearer."""

    async def authenticate(self, headers, *, surface):
        name = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        if name not in ("a", "b"):
            raise Refused(Outcome.DENIED, status=401, code="no_key", message="a key is needed.")
        return Caller(key_id=f"key_{name}", tenant=f"tenant_{name * 32}")

    def __getattr__(self, name):
        raise AttributeError(name)


def of(name, **more):
    return [("content-type", "application/json"), ("authorization", f"Bearer {name}"), *more.items()]


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY)
    return Guard.load(load_policy(path))


@pytest.fixture
def queue(tmp_path):
    with open_database(f"sqlite:///{tmp_path / 'records.db'}") as database:
        yield ApprovalQueue(
            ApprovalsSection(),
            database,
            clock=SystemClock(),
            ids=SortableIds(SystemClock()),
            key=bytes(32),
        )


def limited(requests):
    text = f"rules: [{{id: few, requests: {requests}, every: 6h}}]\n"
    section = load_text(text, LimitsSection, file="gateway.yaml").value
    clock = SystemClock()
    return make_limits(section, clock=clock, ids=SortableIds(clock))


@pytest.mark.parametrize("stream", [False, True])
def test_an_approval_releases_once_what_the_policy_left(asking, queue, stream):
    records = Records()
    script = scripted_models({"default": {"text": "", "tool_calls": [PAY]}})
    parts = Parts(approvals=queue, access=Keys(), limits=limited(4))
    body = {**BODY, "stream": stream}
    with serve(gateway(live(script, {"default": asking}, records, parts=parts))) as served:
        _, _, raw = post(served, CHAT, body, headers=of("a"))
        ticket = re.search(rb"ticket_\w+", raw)[0].decode()
        again = {"x-stanchion-ticket": ticket}
        [call] = queue.subject(ticket)["calls"]
        assert call["arguments"]["card"] == CARD
        assert KEY not in json.dumps(call)
        queue.decide(ticket, approve=True, by=Actor(person="ann", proof="key:x", roles=("approver",)))
        assert post(served, CHAT, body, headers=of("b", **again))[0] == 404
        other = {**body, "messages": [{"role": "user", "content": "Please pay twice."}]}
        status, _, raw = post(served, CHAT, other, headers=of("a", **again))
        assert (status, json.loads(raw)["error"]["code"]) == (409, "ticket_of_another_request")
        records.clear()
        status, _, raw = post(served, CHAT, body, headers=of("a", **again))
        assert status == 200
        assert CARD.encode() in raw
        assert KEY.encode() not in raw
        assert records.only().outcome is Outcome.ALLOWED
        status, _, raw = post(served, CHAT, body, headers=of("a", **again))
        assert (status, json.loads(raw)["error"]["code"]) == (409, "ticket_redeemed")
        assert CARD.encode() not in raw
        statuses = [post(served, CHAT, body, headers=of("a", **again))[0] for _ in range(2)]
        assert statuses[0] == 409


def test_redemption_counts_against_limits(asking, queue):
    script = scripted_models({"default": {"text": "", "tool_calls": [PAY]}})
    parts = Parts(approvals=queue, access=Keys(), limits=limited(2))
    with serve(gateway(live(script, {"default": asking}, Records(), parts=parts))) as served:
        ticket = re.search(rb"ticket_\w+", post(served, CHAT, BODY, headers=of("a"))[2])[0].decode()
        again = of("a", **{"x-stanchion-ticket": ticket})
        assert post(served, CHAT, BODY, headers=again)[0] == 200
        assert post(served, CHAT, BODY, headers=again)[0] == 429


# --- sessions -----------------------------------------------------------------------------------------------


class Echo:
    """A provider that says what it is told to, and remembers what it heard."""

    def __init__(self):
        self.heard, self.says = "", ""

    async def ask(self, question):
        from stanchion.core.interaction import Reply, assistant

        self.heard = question.request.interaction.messages[-1].text
        return Reply(message=assistant(self.says or "Noted."))

    async def aclose(self):
        pass


def test_one_keys_session_gives_no_other_key_its_values(guard):
    from gateway_fakes import models_of

    upstream = Echo()
    parts = Parts(access=Keys())

    def said(key, text, says):
        upstream.says = says
        body = {"model": "scripted", "messages": [{"role": "user", "content": text}]}
        return post(served, CHAT, body, headers=of(key, **{"x-stanchion-session": "s1"}))[2].decode()

    with serve(gateway(live(models_of(upstream), {"default": guard}, Records(), parts=parts))) as served:
        said("a", f"My card is {CARD}.", "Noted.")
        token = re.search(r"<CARD_1_\w{13}>", upstream.heard)[0]
        assert CARD not in said("b", "Hello", f"Your card is {token}.")
        assert CARD in said("a", "Hello", f"Your card is {token}.")
        checked = {"text": f"It is {token}.", "surface": "output", "session_id": "s1"}
        assert CARD not in post(served, "/v1/check", checked, headers=of("b"))[2].decode()


# --- checks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"text": "Hello", "session_id": "s7"},
        {"interaction": {"messages": [], "session_id": "s7"}},
        {"interactions": [{"messages": [], "session_id": "s7"}] * 2},
    ],
    ids=["text", "interaction", "batch"],
)
def test_the_record_of_a_check_says_what_decided_and_in_which_session(guard, body):
    records = Records()
    with serve(gateway(live(scripted_models({"default": {"text": "x"}}), {"default": guard}, records))) as on:
        assert post(on, "/v1/check", body)[0] == 200
    record = records.only()
    assert record.facts.session_id == "s7"
    assert record.components.policy == guard.components.policy != ""
    assert record.components.detectors == guard.components.detectors != ""


def test_a_batch_counts_each_of_its_interactions(guard):
    hello = {"messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi", "origin": "user"}]}]}
    parts = Parts(limits=limited(5))
    models = scripted_models({"default": {"text": "x"}})
    with serve(gateway(live(models, {"default": guard}, Records(), parts=parts))) as served:
        assert post(served, "/v1/check", {"interactions": [hello] * 6})[0] == 429
        assert post(served, "/v1/check", {"interactions": [hello] * 4})[0] == 200
        assert post(served, "/v1/check", {"interactions": [hello] * 2})[0] == 429
        assert post(served, "/v1/check", {"interaction": hello})[0] == 200
        assert post(served, "/v1/check", {"text": "Hello"})[0] == 429
