"""What the data plane answers to GET: health, readiness, metrics and the list of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stanchion.gateway.access import FORWARDED, presented
from stanchion.gateway.app import Gateway, Page
from stanchion.gateway.check_openapi import check_openapi
from stanchion.gateway.gateway_file import is_loopback
from stanchion.gateway.http_io import Scope
from stanchion.gateway.limits import Limiter
from stanchion.gateway.live import Live
from stanchion.gateway.model_pages import PATH, list_models, one_model
from stanchion.gateway.ports import Refused
from stanchion.gateway.record import Recorder
from stanchion.gateway.rollout import WeightedRollout

MetricsText = Callable[[], bytes]


def make_pages(
    gateway: Gateway,
    recorder: Recorder | None = None,
    *,
    metrics: MetricsText | None = None,
    troubles: Mapping[str, str] | None = None,
) -> dict[str, Page]:
    """The pages by path; each is asked with the configuration and the ASGI scope.

    `troubles` is what does not work for now of the ways to hear of decisions, as ControlWatch keeps it.
    """

    def health(live: Live, scope: Scope) -> tuple[int, Any]:
        return 200, {"status": "alive"}

    def ready(live: Live, scope: Scope) -> tuple[int, Any]:
        unprotected = sorted(
            name for name, feature in live.features.items() if feature.guard_state != "protecting"
        )
        away = (troubles or {}).get("database", "")
        status, why = readiness(live, is_draining=gateway.is_draining, recorder=recorder, away=away)
        code = 503 if status in ("draining", "unready") else 200
        if not (is_from_here(scope) or is_known_caller(live, scope)):
            return code, {"status": status}
        said: dict[str, Any] = {
            "status": status,
            "why": why,
            "configuration": live.digest,
            "in_flight": gateway.in_flight,
            "needs_restart": live.needs_restart,
            "unprotected_features": unprotected,
            "weaker_variants": sorted(live.weaker_variants),
            "switches": None if live.parts.switches is None else live.parts.switches.version,
            "swallowed_errors": gateway.swallowed_errors,
        }
        said.update(_parts(live, gateway))
        if recorder is not None:
            said["records"] = recorder.health()
        return code, said

    pages: dict[str, Page] = {
        "/healthz": health,
        "/readyz": ready,
        "/metrics": _metrics(metrics),
        PATH: list_models,
        f"{PATH}/": one_model,
        f"/anthropic{PATH}": list_models,
        f"/anthropic{PATH}/": one_model,
        "/openapi.json": lambda live, scope: (200, check_openapi()),
    }
    return pages


def _parts(live: Live, gateway: Gateway) -> dict[str, Any]:
    """How the parts that count do: states and numbers, no reasons, which may name places."""
    said: dict[str, Any] = {}
    limits, rollout, prompts = live.parts.limits, live.parts.rollout, live.parts.prompts
    if isinstance(limits, Limiter):
        health = limits.health
        said["limits"] = {"state": health.state, "failures": health.failures}
    if isinstance(rollout, WeightedRollout):
        said["rollout"] = {"failures": rollout.health.failures, "waiting": rollout.health.waiting}
        said["shadows"] = {"running": gateway.shadows.running, "dropped": gateway.shadows.dropped}
    if live.parts.flags is not None:
        said["flags"] = live.parts.flags.said()
    if prompts is not None:
        said["prompts_refused"] = sorted(prompts.refused)
        if prompts.is_from_disk:
            said["prompts_from_disk"] = True
    return said


def _metrics(text: MetricsText | None) -> Page:
    def page(live: Live, scope: Scope) -> tuple[int, Any]:
        if text is None or live.metrics == "off":
            return 404, _error("metrics_off", "metrics are switched off here.")
        if live.metrics == "loopback" and not (is_from_here(scope) or is_known_caller(live, scope)):
            return 403, _error(
                "metrics_not_open",
                "metrics can be read from this machine or with a key; `telemetry: {metrics: open}` "
                "lets others.",
            )
        return 200, text()

    return page


def readiness(
    live: Live, *, is_draining: bool, recorder: Recorder | None, away: str = ""
) -> tuple[str, list[str]]:
    """What a probe is told, and why: `ready`, `degraded`, `unready` or `draining`.

    Records that wait beside the store make it `degraded`, unless every feature answers only once its record
    is written (`records: first`): then nothing could be answered, and it is `unready`.
    """
    if is_draining:
        return "draining", []
    troubles: list[str] = []
    status = "ready"
    trouble = away or ("" if recorder is None else recorder.health().trouble)
    if trouble:
        is_unready = all(feature.records_first for feature in live.features.values())
        status = "unready" if is_unready else "degraded"
        troubles.append(f"the store is away, and records wait beside it: {trouble}")
    switches = live.parts.switches
    if switches is not None and switches.version < 0:
        status = "unready"
        troubles.append("the switches are not known, so everything is stopped")
    return status, troubles


def is_known_caller(live: Live, scope: Scope) -> bool:
    """Whether a valid key was sent; nobody is known where no keys are asked for."""
    access = live.parts.access
    if access is None:
        return False
    headers = _headers(scope)
    if not presented(headers):
        return False
    try:
        return bool(access.identify(headers).key_id)
    except Refused:
        return False


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return dict(reversed(scope["headers"]))


def is_from_here(scope: Scope) -> bool:
    """Whether this machine asks, and not for somebody else as a proxy does."""
    client = scope.get("client")
    if client is None or not is_loopback(client[0]):
        return False
    return not any(name in FORWARDED for name, _ in scope["headers"])


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
