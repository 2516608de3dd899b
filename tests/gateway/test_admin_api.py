"""The admin API: who may do what, what is refused and how, its description, and a fuzzer that believes it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from control_plane import Plane, facts
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import checks as schemathesis_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.testclient import TestClient

from stanchion.core.clock import SortableIds
from stanchion.core.decision import Decision, Effect
from stanchion.gateway.access import KeyAccess
from stanchion.gateway.actor import GRANTS, ActorRole, Permission
from stanchion.gateway.admin_acts import AdminParts
from stanchion.gateway.admin_app import load_token, make_admin_app, token_path
from stanchion.gateway.admin_routes import PREFIX, ROUTES, openapi, role_table
from stanchion.gateway.approval_views import TicketViews
from stanchion.gateway.approvals import ApprovalQueue, ApprovalsSection
from stanchion.gateway.control_announce import InProcess, ThisHost, announcer
from stanchion.gateway.control_document import ControlKind
from stanchion.gateway.key_acts import KeyActs
from stanchion.gateway.key_state import load_pepper
from stanchion.gateway.penalties import BlockList
from stanchion.gateway.prompts_registry import PromptStore
from stanchion.gateway.replicas import Replicas
from stanchion.gateway.rollout_store import RolloutStore
from stanchion.gateway.switch_acts import SwitchActs
from stanchion.guard.masked_view import Masker
from stanchion.guard.pipeline import Guard
from stanchion.store.audit_log import AuditLog


class Admin:
    """An admin API on a plane of its own, with the replica of the same process."""

    def __init__(self, folder) -> None:
        self.plane = plane = Plane(folder)
        ids = SortableIds(plane.clock)
        reader = plane.reader()
        for kind in ControlKind:
            reader.absent(kind, source="database")
        announce = announcer([InProcess(reader), ThisHost(plane.disk, clock=plane.clock)])
        shared: dict[str, Any] = {"clock": plane.clock, "ids": ids, "announce": announce}
        access = KeyAccess(
            reader,
            pepper=lambda: load_pepper(plane.state_dir, create=False),
            clock=plane.clock,
            is_loopback=True,
        )
        self.parts = AdminParts(
            store=plane.store,
            switches=SwitchActs(plane.store, **shared),
            keys=KeyActs(plane.store, pepper=lambda: load_pepper(plane.state_dir, create=True), **shared),
            replicas=Replicas(plane.database, clock=plane.clock),
            reader=reader,
            access=access,
            clock=plane.clock,
            announce=announce,
            blocks=BlockList(plane.database, clock=plane.clock),
            approvals=ApprovalQueue(
                ApprovalsSection(), plane.database, clock=plane.clock, ids=ids, key=bytes(32)
            ),
            rollouts=RolloutStore(plane.database, clock=plane.clock),
            prompts=PromptStore(plane.database, clock=plane.clock),
        )
        self.parts = replace(
            self.parts,
            views=TicketViews(
                self.parts.approvals,
                plane.database,
                clock=plane.clock,
                masker=lambda: Masker(Guard.load("scrub")),
            ),
        )
        self.token = load_token(plane.state_dir)
        self.app = make_admin_app(self.parts, token=self.token)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def ask(self, method: str, path: str, *, key: str | None = None, person: str = "", **more: Any):
        headers = {"authorization": f"Bearer {self.token if key is None else key}"}
        if person:
            headers["stanchion-person"] = person
        return self.client.request(method, PREFIX + path, headers=headers, **more)

    def new_key(self, person: str, *roles: str, key: str | None = None) -> str:
        body = {"name": f"{person}-{'-'.join(roles)}", "person": person, "roles": list(roles)}
        answer = self.ask("POST", "/keys", key=key, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["secret"]


@pytest.fixture
def admin(tmp_path):
    admin = Admin(tmp_path)
    with admin.client:
        yield admin
    admin.plane.close()


def test_a_switch_is_engaged_and_lifted_by_two_with_their_keys(admin) -> None:
    eve = admin.new_key("eve", "admin")
    ann, ben = admin.new_key("ann", "admin", key=eve), admin.new_key("ben", "approver", key=eve)
    zed = admin.new_key("zed", "approver", key=ann)
    body = {"target": "feature:checkout", "reason": "leaks"}
    done = admin.ask("POST", "/switches/engage", key=ann, json=body).json()
    assert (done["version"], done["is_changed"], done["by"]) == (1, True, "ann")
    assert admin.ask("POST", "/switches/lift", key=ann, json={**body, "reason": "fixed"}).status_code == 200
    alone = admin.ask("POST", "/switches/confirm", key=ann, json={"target": "feature:checkout"})
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "invalid")
    with_her_own = admin.ask("POST", "/switches/confirm", key=zed, json={"target": "feature:checkout"})
    assert with_her_own.status_code == 422, "ann made this key"
    lifted = admin.ask("POST", "/switches/confirm", key=ben, json={"target": "feature:checkout"}).json()
    assert lifted["answer"]["is_lifted"]
    assert admin.ask("GET", "/switches", key=ben).json()["state"]["engaged"] == []
    told = admin.ask("GET", "/history", key=ann).json()["entries"]
    assert [each["actor"] for each in told if each["kind"].startswith("switch.")] == ["ben", "ann", "ann"]


def test_the_token_opens_nothing_once_there_is_a_key_with_a_role(admin) -> None:
    assert oct(token_path(admin.plane.state_dir).stat().st_mode)[-3:] == "600"
    body = {"target": "global", "reason": "drill"}
    assert admin.ask("POST", "/switches/engage", person="zoe", json=body).json()["by"] == "zoe"
    admin.new_key("ann", "viewer")
    assert admin.ask("GET", "/switches").status_code == 401


@pytest.mark.parametrize("role", list(ActorRole))
def test_every_route_asks_for_its_permission(admin, role) -> None:
    root = admin.new_key("root", "admin")
    key = root if role is ActorRole.ADMIN else admin.new_key("ann", role.value, key=root)
    for route in ROUTES:
        path = route.path.removeprefix(PREFIX).replace("{key}", "none")
        for wrong in ("", "stn_wrong", admin.token):
            assert admin.ask(route.method, path, key=wrong).status_code == 401, route.path
        status = admin.ask(route.method, path, key=key, json={} if route.body else None).status_code
        assert (status == 403) == (route.permission not in GRANTS[role]), (route.path, status)
        assert status < 500


def test_a_key_without_a_role_is_for_the_data_plane_only(admin) -> None:
    root = admin.new_key("root", "admin")
    plain = admin.ask("POST", "/keys", key=root, json={"name": "shop"}).json()["secret"]
    assert admin.ask("GET", "/switches", key=plain).status_code == 403


def test_keys_are_made_rotated_and_revoked_and_stop_working_at_once(admin) -> None:
    root = admin.new_key("root", "admin")
    old = admin.new_key("ann", "viewer", key=root)
    new = admin.ask("POST", "/keys/ann-viewer/rotate", key=root, json={"grace_s": 3600}).json()["secret"]
    assert [admin.ask("GET", "/switches", key=each).status_code for each in (old, new)] == [200, 200]
    assert admin.ask("POST", "/keys/ann-viewer/revoke", key=root, json={"reason": "left"}).status_code == 200
    assert [admin.ask("GET", "/switches", key=each).status_code for each in (old, new)] == [401, 401]
    listed = admin.ask("GET", "/keys", key=root).text
    assert "hash" not in listed
    assert root not in listed
    assert admin.ask("POST", "/keys/nobody/revoke", key=root, json={"reason": "x"}).status_code == 404


def test_callers_are_blocked_and_let_in_again(admin) -> None:
    body = {"subject": "key_1", "seconds": 60, "reason": "abuse"}
    assert admin.ask("POST", "/blocked/block", json=body).json()["entries"][0]["subject"] == "key_1"
    assert len(admin.ask("GET", "/blocked").json()["entries"]) == 1
    undo = {"subject": "key_1", "reason": "a mistake"}
    assert admin.ask("POST", "/blocked/unblock", json=undo).json() == {"was_blocked": True}


async def test_a_parked_tool_call_is_decided_once_by_somebody_who_may(admin) -> None:
    decision = Decision(effect=Effect.REQUIRE_APPROVAL, surface="tool_call")
    parked = await admin.parts.approvals.park(
        facts(feature="shop"), kind="tool_call", subject={"tool": "refund"}, decision=decision
    )
    root = admin.new_key("root", "admin")
    viewer = admin.new_key("eve", "viewer", key=root)
    [waiting] = admin.ask("GET", "/approvals", key=viewer).json()["tickets"]
    assert waiting["ticket"] == parked.ticket
    assert admin.ask("GET", f"/approvals/{parked.ticket}", key=viewer).status_code == 403
    assert admin.ask("GET", f"/approvals/{parked.ticket}", key=root).json()["subject"] == {"tool": "refund"}
    path, body = f"/approvals/{parked.ticket}/decide", {"approve": True, "note": "checked"}
    assert admin.ask("POST", path, key=root, json=body).json()["ticket"]["decided_by"] == "root"
    assert admin.ask("POST", path, key=root, json=body).status_code == 422
    assert admin.ask("GET", "/approvals/none", key=root).status_code == 404


async def test_who_decides_sees_kinds_and_who_reads_the_words_is_written_down(admin) -> None:
    card, key = "4111 1111 1111 1111", "AKIA" + "QYLPMN5HHHFPZAM2"
    subject = {"calls": [{"name": "pay", "arguments": {"card": card, "note": f"with {key}"}}]}
    decision = Decision(effect=Effect.REQUIRE_APPROVAL, surface="tool_call")
    parked = await admin.parts.approvals.park(
        facts(feature="shop"), kind="tool_call", subject=subject, decision=decision
    )
    root = admin.new_key("root", "admin")
    ben = admin.new_key("ben", "approver", key=root)
    eve = admin.new_key("eve", "revealer", key=root)
    path = f"/approvals/{parked.ticket}"
    shown = admin.ask("GET", path, key=ben)
    assert card not in shown.text
    assert key not in shown.text
    arguments = shown.json()["subject"]["calls"][0]["arguments"]
    assert arguments == {"card": "[CARD, 19 characters]", "note": "with [CLOUD, 20 characters]"}
    assert shown.json()["masked"] == 2
    body = {"reason": "the shop called"}
    assert admin.ask("POST", f"{path}/reveal", key=ben, json=body).status_code == 403
    assert admin.ask("POST", f"{path}/reveal", key=eve, json={}).status_code == 422
    assert admin.ask("GET", path, key=eve).status_code == 403
    revealed = lambda: AuditLog(admin.plane.database, clock=admin.plane.clock).newest(  # noqa: E731
        kinds=("approval.revealed",), limit=10
    )
    assert revealed() == []
    assert admin.ask("POST", f"{path}/reveal", key=eve, json=body).json()["subject"] == subject
    [entry] = revealed()
    assert (entry.actor, entry.payload["reason"], entry.payload["ticket"]) == (
        "eve",
        body["reason"],
        parked.ticket,
    )
    assert entry.payload["proof"].startswith("key:")
    assert card not in str(entry.payload)
    newest = admin.ask("GET", "/history", key=root).json()["entries"][0]
    assert newest["kind"] == entry.kind


def test_a_prompts_label_is_moved_and_goes_back(admin) -> None:
    for text in ("Be kind.", "Be brief."):
        admin.parts.prompts.add("support", text, by="ann", label="prod")
    back = {"name": "support", "label": "prod"}
    assert admin.ask("POST", "/prompts/roll-back", json=back).json()["label"]["version"] == 1
    assert admin.ask("POST", "/prompts/label", json={**back, "version": 2}).json()["label"]["version"] == 2
    assert admin.ask("POST", "/prompts/label", json={**back, "version": 9}).status_code == 422
    assert [each["version"] for each in admin.ask("GET", "/prompts").json()["versions"]] == [1, 2]


def test_the_list_of_gated_sets_is_written(admin) -> None:
    entry = {"components": "sha256:" + "a" * 64, "feature": "checkout"}
    said = admin.ask("POST", "/admission", json={"add": [entry]}).json()
    assert (said["version"], said["count"]) == (1, 1)
    assert admin.ask("GET", "/admission").json()["sets"][0]["feature"] == "checkout"
    bad = admin.ask("POST", "/admission", json={"add": [{"components": "x"}]})
    assert bad.status_code == 422


def test_what_is_not_there_says_so(admin) -> None:
    assert admin.ask("POST", "/reload").json()["error"]["code"] == "not_configured"
    assert admin.client.get("/nowhere").status_code == 404
    refused = admin.client.delete(PREFIX + "/keys")
    assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "POST"})
    assert admin.client.get("/health").json() == {"status": "ok"}
    assert {each["trust"] for each in admin.ask("GET", "/status").json()["kinds"]} == {"none"}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"target": "global", "reason": "x", "more": 1}', {}, 422),
        (b'{"target": 1, "reason": "x"}', {}, 422),
        (b"[" * 60_000, {}, 422),
        (b" " * 70_000, {}, 413),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b'{"target": "fature:x", "reason": "x"}', {}, 422),
        (b"\xff", {}, 400),
    ],
)
def test_bodies_that_are_wrong_are_refused_and_change_nothing(admin, content, headers, status) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {admin.token}", **headers}
    answer = admin.client.post(PREFIX + "/switches/engage", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert admin.ask("GET", "/switches").json()["version"] == 0


def test_answers_carry_headers_that_keep_browsers_out(admin) -> None:
    answer = admin.client.options(PREFIX + "/switches", headers={"origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)
    answer = admin.client.get(PREFIX + "/switches")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_store_that_is_away_is_told_without_its_address(admin, monkeypatch) -> None:
    from stanchion.core.errors import UnavailableError

    def away(*args: object, **kwargs: object):
        raise UnavailableError("the PostgreSQL database 'x' at db did not answer.")

    monkeypatch.setattr(admin.parts.store, "publish", away)
    body = {"target": "global", "reason": "x"}
    assert admin.ask("POST", "/switches/engage", json=body).status_code == 503


def test_an_error_of_ours_shows_nothing(admin, monkeypatch, caplog) -> None:
    def broken(*args: object, **kwargs: object):
        raise RuntimeError("stn_secret")

    monkeypatch.setattr(admin.parts.store, "state", broken)
    ann = "stn_x"
    answer = admin.ask("GET", "/admission")
    assert answer.status_code == 500
    assert "stn_secret" not in answer.text + caplog.text + ann


# --- the description -------------------------------------------------------------------------------------


def test_the_description_is_valid_openapi_and_says_every_route() -> None:
    document = json.loads(json.dumps(openapi()))
    validate(document)
    assert document["openapi"].startswith("3.1")
    operations = {(m.upper(), path) for path, found in document["paths"].items() for m in found}
    assert operations == {(route.method, route.path) for route in ROUTES} | {("GET", "/health")}


def test_no_route_is_open_and_no_permission_is_without_a_route() -> None:
    assert all(route.permission is not None for route in ROUTES)
    assert {route.permission for route in ROUTES} == set(Permission)


def test_the_table_of_roles_in_the_documentation_is_the_one_of_the_code() -> None:
    from pathlib import Path

    page = Path(__file__).parents[2] / "docs/how-to/keys-and-roles.md"
    assert role_table() in page.read_text(encoding="utf-8")


CHECKS = [
    schemathesis_checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    admin = Admin(tmp_path_factory.mktemp("fuzzed"))
    yield admin
    admin.plane.close()


def fuzz_cases(app, method: str, path: str, mode: GenerationMode):
    """Requests that the description allows, or that it forbids, for one route of an app."""
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    return described[path][method].as_strategy(generation_mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), [(route.method, route.path) for route in ROUTES])
def test_no_request_breaks_what_the_description_says(fuzzed, method, path, mode) -> None:
    if mode is GenerationMode.NEGATIVE and not any(
        route.body or route.parameters for route in ROUTES if (route.method, route.path) == (method, path)
    ):
        pytest.skip("a route without body and parameters has nothing to be wrong")

    @given(case=fuzz_cases(fuzzed.app, method, path, mode))
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def hold(case) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("wait_s"), int | float):
            case.body["wait_s"] = min(case.body["wait_s"], 0.01)
        case.call_and_validate(headers={"authorization": f"Bearer {fuzzed.token}"}, checks=CHECKS)

    hold()
