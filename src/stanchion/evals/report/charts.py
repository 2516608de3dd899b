"""Charts for reports: Vega-Lite specifications, rendered to SVG without a browser.

Colours are CSS variables and `currentColor`, so that one SVG inside the page serves screen, dark mode and
paper. The renderer is the extra `report`; without it `available()` is False and a report shows tables only.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from typing import Any

from stanchion.evals.report.model import Comparison, Rate
from stanchion.evals.report.wording import metric_title, paired_title, told_rows
from stanchion.evals.verdict import CriterionVerdict

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_TEXT = "currentColor"
_VERDICT_COLOUR = {
    "pass": "var(--pass)",
    "fail": "var(--fail)",
    "inconclusive": "var(--open)",
    "invalid": "var(--open)",
}


def available() -> bool:
    """Whether the renderer is installed."""
    return importlib.util.find_spec("vl_convert") is not None


def render_svg(spec: dict[str, Any]) -> str:
    """The SVG of a Vega-Lite specification, or an empty string without the renderer."""
    if not available():
        return ""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return svg[svg.index("<svg") :]


def warm_up() -> None:
    """Start the renderer on a thread, so that the first chart does not wait for its engine."""
    if available():
        mark = {"mark": "point", "data": {"values": [{"x": 0}]}, "encoding": {"x": {"field": "x"}}}
        spec = {"$schema": _SCHEMA, **mark}
        threading.Thread(target=render_svg, args=(spec,), name="charts", daemon=True).start()


def criteria_chart(criteria: Sequence[CriterionVerdict], *, label: str = "") -> dict[str, Any] | None:
    """A row per criterion: the two-sided interval, the estimate, and the limit as a tick."""
    rows = [
        {
            "criterion": verdict.id,
            "metric": metric_title(verdict.metric),
            "estimate": verdict.estimate,
            "low": verdict.shown.low,
            "high": verdict.shown.high,
            "limit": verdict.limit,
            "colour": _VERDICT_COLOUR[verdict.outcome.value],
        }
        for verdict in criteria
        if verdict.shown is not None and verdict.estimate is not None
    ]
    if not rows:
        return None
    y = {"field": "criterion", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    spec = _base(rows, height=34 * len(rows), description=f"Criteria and their intervals {label}".strip())
    spec["layer"] = [
        {
            "mark": {"type": "rule", "strokeWidth": 6, "strokeCap": "round", "opacity": 0.45},
            "encoding": {"x": _share_axis("low"), "x2": {"field": "high"}, "y": y, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": _share_axis("estimate"), "y": y, "color": colour},
        },
        {
            "mark": {"type": "tick", "thickness": 2, "size": 24, "color": _TEXT},
            "encoding": {"x": _share_axis("limit"), "y": y},
        },
    ]
    return spec


def comparison_chart(comparison: Comparison) -> dict[str, Any] | None:
    """Two marks per category, before and after, each with its interval; failures are to the right."""
    rows: list[dict[str, Any]] = []
    for row in told_rows(comparison):
        name = paired_title(row)
        rows += _arm_rows(name, comparison.before, row.before, "var(--before)")
        rows += _arm_rows(name, comparison.after, row.after, "var(--after)")
    if not rows:
        return None
    names = len({row["category"] for row in rows})
    y = {"field": "category", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 320}}
    offset = {"field": "arm", "type": "nominal", "sort": [comparison.before, comparison.after]}
    colour = {
        "field": "arm",
        "type": "nominal",
        "title": None,
        "scale": {
            "domain": [comparison.before, comparison.after],
            "range": ["var(--before)", "var(--after)"],
        },
        "legend": {"orient": "top", "symbolType": "circle", "symbolOpacity": 1},
    }
    spec = _base(rows, height=44 * names, description="Failure rates of the two arms, case by case the same")
    spec["layer"] = [
        {
            "mark": {"type": "rule", "strokeWidth": 5, "strokeCap": "round", "opacity": 0.4},
            "encoding": {
                "x": _share_axis("low"),
                "x2": {"field": "high"},
                "y": y,
                "yOffset": offset,
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"x": _share_axis("estimate"), "y": y, "yOffset": offset, "color": colour},
        },
    ]
    return spec


def _arm_rows(name: str, arm: str, value: Rate, colour: str) -> list[dict[str, Any]]:
    if value.interval is None:
        return []
    low, high = value.interval.low, value.interval.high
    row = {"category": name, "arm": arm, "estimate": value.estimate, "low": low, "high": high}
    return [{**row, "colour": colour}]


def _share_axis(field: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "tickCount": 6},
    }


def _base(rows: list[dict[str, Any]], *, height: int, description: str) -> dict[str, Any]:
    return {
        "$schema": _SCHEMA,
        "description": description,
        "width": 460,
        "height": max(height, 40),
        "background": None,
        "padding": {"left": 36, "right": 12, "top": 4, "bottom": 4},
        "data": {"values": rows},
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "labelColor": _TEXT,
                "titleColor": _TEXT,
                "domainColor": _TEXT,
                "tickColor": _TEXT,
                "gridColor": _TEXT,
                "gridOpacity": 0.12,
                "domainOpacity": 0.4,
                "tickOpacity": 0.4,
                "labelFontSize": 12,
            },
            "legend": {"labelColor": _TEXT, "titleColor": _TEXT, "labelFontSize": 12},
        },
    }
