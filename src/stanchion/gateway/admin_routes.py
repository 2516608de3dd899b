"""The table of the admin API: every route with its permission, its types and the statuses it may answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from stanchion.core.version import package_version
from stanchion.gateway import admin_acts as acts
from stanchion.gateway import admin_flow as flow
from stanchion.gateway import admin_messages as m
from stanchion.gateway.actor import Permission, roles_with

PREFIX = "/admin/v1"
SMALL_BODY = 64 * 1024
LARGE_BODY = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route; `permission` None means that anybody may ask."""

    method: str
    path: str
    act: Callable[..., Any]
    permission: Permission | None
    answer: type
    body: type | None = None
    max_body: int = SMALL_BODY

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the path."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status it may answer besides 200."""
        found = [401, 403, 409, 503]
        found += [400, 408, 413, 415, 422] if self.body is not None else []
        found += [404] if self.parameters or self.act in _OPTIONAL else []
        found += [422] if self.parameters and self.body is None else []
        return tuple(sorted(set(found)))


_OPTIONAL = (acts.blocked, acts.block, acts.unblock, acts.reload, *flow.OPTIONAL)


def _get(path: str, act: Callable[..., Any], answer: type, permission: Permission = Permission.READ) -> Route:
    return Route(method="GET", path=PREFIX + path, act=act, permission=permission, answer=answer)


def _post(
    path: str, act: Callable[..., Any], types: tuple[type | None, type], permission: Permission
) -> Route:
    body, answer = types
    return Route(
        method="POST",
        path=PREFIX + path,
        act=act,
        permission=permission,
        body=body,
        answer=answer,
        max_body=LARGE_BODY if body is m.AdmissionBody else SMALL_BODY,
    )


ROUTES = (
    _get("/status", acts.status, m.StatusAnswer),
    _get("/replicas", acts.replicas, m.ReplicasAnswer),
    _get("/history", acts.history, m.HistoryAnswer, Permission.READ_AUDIT),
    _get("/switches", acts.switches, m.SwitchesAnswer),
    _post("/switches/engage", acts.engage, (m.EngageBody, m.ActAnswer), Permission.CONTAIN),
    _post("/switches/lift", acts.lift, (m.LiftBody, m.ActAnswer), Permission.OPERATE),
    _post("/switches/confirm", acts.confirm, (m.ConfirmBody, m.ActAnswer), Permission.APPROVE),
    _post("/switches/lease", acts.lease, (m.LeaseBody, m.ActAnswer), Permission.CONTAIN),
    _post("/switches/renew", acts.renew, (m.RenewBody, m.ActAnswer), Permission.OPERATE),
    _get("/keys", acts.keys, m.KeysAnswer, Permission.ADMINISTER),
    _post("/keys", acts.new_key, (m.NewKeyBody, m.MadeKeyAnswer), Permission.ADMINISTER),
    _post("/keys/{key}/rotate", acts.rotate_key, (m.RotateBody, m.MadeKeyAnswer), Permission.ADMINISTER),
    _post("/keys/{key}/revoke", acts.revoke_key, (m.RevokeBody, m.RevokedAnswer), Permission.ADMINISTER),
    _get("/admission", acts.admission, m.AdmissionListAnswer),
    _post("/admission", acts.change_admission, (m.AdmissionBody, m.AdmissionWritten), Permission.ADMINISTER),
    _get("/blocked", acts.blocked, m.BlockedAnswer),
    _post("/blocked/block", acts.block, (m.BlockBody, m.BlockedAnswer), Permission.CONTAIN),
    _post("/blocked/unblock", acts.unblock, (m.UnblockBody, m.UnblockedAnswer), Permission.OPERATE),
    _get("/approvals", flow.approvals, m.TicketsAnswer),
    _get("/approvals/{ticket}", flow.approval, m.TicketAnswer, Permission.APPROVE),
    _post("/approvals/{ticket}/reveal", flow.reveal, (m.RevealBody, m.TicketAnswer), Permission.REVEAL),
    _post("/approvals/{ticket}/decide", flow.decide, (m.DecideBody, m.DecidedAnswer), Permission.APPROVE),
    _get("/rollouts", flow.rollouts, m.RolloutsAnswer),
    _post(
        "/rollouts/{experiment}/promote",
        flow.promote,
        (m.VariantBody, m.RolloutAnswer),
        Permission.ADMINISTER,
    ),
    _post(
        "/rollouts/{experiment}/roll-back",
        flow.roll_back,
        (m.VariantBody, m.RolloutAnswer),
        Permission.CONTAIN,
    ),
    _get("/prompts", flow.prompts, m.PromptsAnswer),
    _post("/prompts/label", flow.label_prompt, (m.LabelBody, m.LabelAnswer), Permission.ADMINISTER),
    _post("/prompts/roll-back", flow.roll_back_prompt, (m.LabelBackBody, m.LabelAnswer), Permission.CONTAIN),
    _post("/reload", acts.reload, (None, m.ReloadAnswer), Permission.OPERATE),
)

_SAID = {
    400: "The body is no JSON.",
    401: "No valid key.",
    403: "The key has no role that allows this.",
    404: "There is no such thing, or this gateway has no such part.",
    408: "The body took too long.",
    409: "What is stored does not verify; nothing was changed.",
    413: "The body is too large.",
    415: "The body is not `application/json`.",
    422: "The request cannot be done as it is: the message says why.",
    503: "A store does not answer, or the keys are not known yet.",
}


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document, from the same types that decode and encode."""
    types: list[Any] = [m.ErrorAnswer, m.Health]
    for route in ROUTES:
        types += [route.answer] + ([route.body] if route.body is not None else [])
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {
        "/health": {"get": {**_operation("health", "The process answers.", m.Health), "security": []}}
    }
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _described(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stanchion gateway, admin API",
            "version": package_version(),
            "description": "Switches, keys, admission, block list, approvals, rollouts and prompts.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A virtual key with a role."}
            },
        },
    }


def role_table() -> str:
    """The routes and the roles that may ask them, as a table in Markdown."""
    rows = ["| route | permission | roles |", "|---|---|---|"]
    for route in ROUTES:
        assert route.permission is not None  # noqa: S101 - the table above gives each one
        roles = ", ".join(roles_with(route.permission))
        rows.append(f"| `{route.method} {route.path}` | {route.permission.value} | {roles} |")
    return "\n".join(rows) + "\n"


def _described(route: Route) -> dict[str, Any]:
    summary = (route.act.__doc__ or "").partition("\n")[0]
    permission = route.permission.value if route.permission is not None else "nothing"
    operation = _operation(route.act.__name__, summary, route.answer)
    operation["description"] = f"Needs the permission `{permission}`."
    for status in route.statuses:
        operation["responses"][str(status)] = {
            "description": _SAID[status],
            "content": {"application/json": {"schema": _reference(m.ErrorAnswer)}},
        }
    if route.parameters:
        schema = {"type": "string", "minLength": 1, "maxLength": 100}
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema} for name in route.parameters
        ]
    if route.body is not None:
        content = {"application/json": {"schema": _reference(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation(name: str, summary: str, answer: type) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(answer)}}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": content}},
    }


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
