"""What the data plane answers to GET: health, readiness, metrics and the list of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stanchion.gateway.app import Gateway, Page
from stanchion.gateway.live import Live
from stanchion.gateway.record import Recorder
from stanchion.models.openai_vectors import openai_models

MetricsText = Callable[[], bytes]


def make_pages(
    gateway: Gateway, recorder: Recorder | None = None, *, metrics: MetricsText | None = None
) -> dict[str, Page]:
    """The pages by path."""

    def health(live: Live) -> tuple[int, Any]:
        return 200, {"status": "alive"}

    def ready(live: Live) -> tuple[int, Any]:
        unprotected = sorted(
            name for name, feature in live.features.items() if feature.guard_state != "protecting"
        )
        said: dict[str, Any] = {
            "status": "draining" if gateway.is_draining else "ready",
            "configuration": live.digest,
            "in_flight": gateway.in_flight,
            "unprotected_features": unprotected,
            "switches": None if live.parts.switches is None else live.parts.switches.version,
            "swallowed_errors": gateway.swallowed_errors,
        }
        if recorder is not None:
            said["records"] = recorder.health()
        return (503 if gateway.is_draining else 200), said

    def models(live: Live) -> tuple[int, Any]:
        created = int(live.clock.now().timestamp())
        return 200, openai_models(live.models.names(), created=created)

    pages: dict[str, Page] = {
        "/healthz": health,
        "/readyz": ready,
        "/metrics": _metrics(metrics),
        "/v1/models": models,
    }
    return pages


def _metrics(text: MetricsText | None) -> Page:
    def page(live: Live) -> tuple[int, Any]:
        if text is not None:
            return 200, text()
        from prometheus_client import REGISTRY, generate_latest

        return 200, generate_latest(REGISTRY)

    return page
