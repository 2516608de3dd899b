"""Grafana's dashboard of the gateway, made from a short list of panels over the table of metrics.

The result is packaged as `data/dashboards/gateway.json`; `python -m stanchion.telemetry.dashboards FILE`
writes it anew. The first row answers the question at 3 a.m.: is everything guarded, is something off, what
fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_RANGE = "[$__rate_interval]"
_WIDTH = 24


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel: what it asks and how it shows it. `bad_from` colours a single number from there on."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    bad_from: float | None = None
    help: str = ""


def _rate(metric: str, *by: str, where: str = "") -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({metric}{where}{_RANGE}))"


def _quantile(metric: str, share: float) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{_RANGE})))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is everything guarded?",
        (
            Panel(
                title="Checks that did not run",
                queries=((_rate("stanchion_checks_total", where='{status!="ran"}'), "per second"),),
                kind="stat",
                width=4,
                height=5,
                bad_from=0.0001,
                help="Expected checks of the guard that timed out, broke or were skipped.",
            ),
            Panel(
                title="Failed open",
                queries=((_rate("stanchion_fail_open_total"), "per second"),),
                kind="stat",
                width=4,
                height=5,
                bad_from=0.0001,
            ),
            Panel(
                title="Unprotected",
                queries=((_rate("stanchion_unprotected_total"), "per second"),),
                kind="stat",
                width=4,
                height=5,
                bad_from=0.0001,
            ),
            Panel(
                title="Switches engaged",
                queries=(("max(stanchion_switches_engaged)", "switches"),),
                kind="stat",
                width=4,
                height=5,
                bad_from=1,
            ),
            Panel(
                title="Age of the switches",
                queries=(("max(stanchion_switch_age_seconds)", "oldest replica"),),
                unit="s",
                kind="stat",
                width=4,
                height=5,
                bad_from=30,
            ),
            Panel(
                title="Records lost",
                queries=(("sum(increase(stanchion_records_lost_total[1h]))", "last hour"),),
                kind="stat",
                width=4,
                height=5,
                bad_from=1,
            ),
        ),
    ),
    (
        "Traffic",
        (
            Panel(
                title="Requests by outcome",
                queries=((_rate("stanchion_requests_total", "outcome"), "{{outcome}}"),),
                unit="reqps",
            ),
            Panel(
                title="Requests by surface",
                queries=((_rate("stanchion_requests_total", "surface", "stream"), "{{surface}} {{stream}}"),),
                unit="reqps",
            ),
            Panel(
                title="In progress",
                queries=(("sum(stanchion_in_flight_requests)", "requests"),),
            ),
        ),
    ),
    (
        "Decisions",
        (
            Panel(
                title="Effects",
                queries=((_rate("stanchion_decisions_total", "effect", "mode"), "{{effect}} {{mode}}"),),
            ),
            Panel(
                title="Findings", queries=((_rate("stanchion_findings_total", "category"), "{{category}}"),)
            ),
            Panel(
                title="Share of ungated traffic",
                queries=(
                    (
                        f"{_rate('stanchion_ungated_total')} / {_rate('stanchion_requests_total')}",
                        "ungated",
                    ),
                ),
                unit="percentunit",
            ),
        ),
    ),
    (
        "Time",
        (
            Panel(
                title="Whole request",
                queries=(
                    (_quantile("stanchion_request_seconds", 0.5), "p50"),
                    (_quantile("stanchion_request_seconds", 0.99), "p99"),
                ),
                unit="s",
            ),
            Panel(
                title="Guard",
                queries=(
                    (_quantile("stanchion_guard_seconds", 0.5), "p50"),
                    (_quantile("stanchion_guard_seconds", 0.99), "p99"),
                ),
                unit="s",
            ),
            Panel(
                title="First byte of streams",
                queries=(
                    (_quantile("stanchion_first_byte_seconds", 0.5), "p50"),
                    (_quantile("stanchion_first_byte_seconds", 0.99), "p99"),
                ),
                unit="s",
            ),
        ),
    ),
    (
        "Providers and cost",
        (
            Panel(
                title="Tries by provider and result",
                queries=(
                    (
                        _rate("stanchion_upstream_tries_total", "provider", "status"),
                        "{{provider}} {{status}}",
                    ),
                ),
                unit="reqps",
            ),
            Panel(title="Breakers", queries=(("max by (name) (stanchion_breaker_open)", "{{name}}"),)),
            Panel(
                title="Cost per hour",
                queries=(("sum by (model) (increase(stanchion_cost_usd_total[1h]))", "{{model}}"),),
                unit="currencyUSD",
            ),
        ),
    ),
)


def gateway_dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        at = {"h": 1, "w": _WIDTH, "x": 0, "y": y}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": at, "panels": []})
        x, y = 0, y + 1
        for panel in row:
            at = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, at))
            x += panel.width
        y += max(panel.height for panel in row)
    return {
        "uid": "stanchion-gateway",
        "title": "Stanchion gateway",
        "tags": ["stanchion"],
        "timezone": "utc",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad_from is not None:
        steps.append({"color": "red", "value": panel.bad_from})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "stat":
        defaults["noValue"] = "0"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": at,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"colorMode": "background"} if panel.kind == "stat" else {"legend": {"showLegend": True}},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "datasource": _SOURCE}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }


def main() -> None:
    """Write the dashboard to the file that is named."""
    Path(sys.argv[1]).write_text(json.dumps(gateway_dashboard(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
