"""The charts of a calibration: threshold curve, scores of both classes, reliability, slices."""

from __future__ import annotations

from typing import Any

from stanchion.detectors.calibration_report import CalibrationReport
from stanchion.detectors.calibration_slices import Slice
from stanchion.stats.calibration import Reliability

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_TEXT = "currentColor"
_BENIGN, _UNSAFE, _RAW, _MAPPED = "var(--pass)", "var(--fail)", "var(--before)", "var(--after)"
_LEAST = 0.0005  # where a logarithmic axis of rates begins
_TALL = 180


def curve_chart(report: CalibrationReport) -> dict[str, Any]:
    """Recall above, false alarms below on a logarithmic scale, both over the threshold, with intervals."""
    rows: list[dict[str, Any]] = []
    for point in report.curve:
        if point.recall is not None:
            rows.append(_band("recall", point.threshold, point.caught / point.unsafe, point.recall))
        if point.false_alarm_rate is not None:
            share = point.false_alarms / point.benign
            rows.append(_band("alarms", point.threshold, share, point.false_alarm_rate))
    parts = []
    if report.unsafe:
        parts.append(_curve_part(report, "recall", "Recall", _UNSAFE, is_log=False))
    parts.append(_curve_part(report, "alarms", "False alarms", _BENIGN, is_log=True))
    return {**_frame(rows, "Recall and false-alarm rate over the threshold"), "vconcat": parts, "spacing": 18}


def score_chart(report: CalibrationReport) -> dict[str, Any]:
    """How the scores of benign and of unsafe rows are spread, each as a share of its own class."""
    rows = []
    for bar in report.histogram:
        if report.benign:
            rows.append(
                {"low": bar.low, "high": bar.high, "share": bar.benign / report.benign, "of": "benign"}
            )
        if report.unsafe:
            rows.append(
                {"low": bar.low, "high": bar.high, "share": -bar.unsafe / report.unsafe, "of": "unsafe"}
            )
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "bar", "binSpacing": 1, "opacity": 0.75},
            "encoding": {
                "x": {"field": "low", "bin": {"binned": True}, **_threshold_axis("Score")},
                "x2": {"field": "high"},
                "y": {
                    "field": "share",
                    "type": "quantitative",
                    "title": None,
                    "axis": {"labelExpr": "format(abs(datum.value), '.0%')", "tickCount": 5},
                },
                "color": _two_colours("of", {"benign": _BENIGN, "unsafe": _UNSAFE}),
            },
        }
    ]
    layers += _threshold_rule(report)
    spec = _frame(rows, "Scores of benign rows upwards, of unsafe rows downwards")
    return {**spec, "width": 430, "height": 300, "layer": layers}


def reliability_chart(report: CalibrationReport) -> dict[str, Any] | None:
    """The share of unsafe rows over the mean score of each bin; a perfect score lies on the diagonal."""
    if report.reliability is None:
        return None
    rows = _bins(report.reliability, "as scored")
    if report.mapped is not None:
        rows += _bins(report.mapped, "mapped, cross-fitted")
    x: dict[str, Any] = {"field": "score", "type": "quantitative", "title": "Mean score"}
    x["scale"] = {"domain": [0, 1]}
    colour = _two_colours("kind", {"as scored": _RAW, "mapped, cross-fitted": _MAPPED})
    spec = _frame(rows, "Share of unsafe rows over the mean score")
    spec["layer"] = [
        {
            "data": {"values": [{"score": 0, "share": 0}, {"score": 1, "share": 1}]},
            "mark": {"type": "line", "strokeDash": [4, 4], "color": _TEXT, "opacity": 0.45},
            "encoding": {"x": x, "y": _rate_axis("share", "Share unsafe")},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 3, "strokeCap": "round", "opacity": 0.4},
            "encoding": {"x": x, "y": _rate_axis("low", None), "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": x, "y": _rate_axis("share", "Share unsafe"), "color": colour},
        },
    ]
    return {**spec, "width": 360, "height": 300}


def slice_chart(report: CalibrationReport) -> dict[str, Any] | None:
    """A line per slice: the false-alarm rate with its interval against the limit."""
    rows = [
        {
            "slice": f"{one.by}: {one.value}",
            "share": one.false_alarms / one.benign,
            "low": one.false_alarm_rate.low,
            "high": one.false_alarm_rate.high,
            "limit": report.goals.max_false_alarms,
            "colour": _slice_colour(one),
        }
        for one in report.slices
        if one.false_alarm_rate is not None
    ]
    if not rows:
        return None
    y = {"field": "slice", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    spec = _frame(rows, "False-alarm rate of each slice with its interval, and the limit")
    axis = {"type": "quantitative", "title": "False alarms", "axis": {"format": ".1~%", "tickCount": 6}}
    spec["layer"] = [
        {
            "mark": {"type": "rule", "strokeWidth": 6, "strokeCap": "round", "opacity": 0.4},
            "encoding": {
                "x": {"field": "low", **axis},
                "x2": {"field": "high"},
                "y": y,
                "color": colour,
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {"x": {"field": "share", **axis}, "y": y, "color": colour},
        },
        {
            "mark": {"type": "tick", "thickness": 2, "size": 22, "color": _TEXT},
            "encoding": {"x": {"field": "limit", **axis}, "y": y},
        },
    ]
    return {**spec, "width": 560, "height": 30 * len(rows), "padding": {**spec["padding"], "left": 60}}


def _slice_colour(one: Slice) -> str:
    if one.warning.startswith("above"):
        return "var(--fail)"
    return "var(--open)" if one.warning else "var(--pass)"


def _band(kind: str, threshold: float, share: float, interval: Any) -> dict[str, Any]:
    return {"kind": kind, "threshold": threshold, "share": share, "low": interval.low, "high": interval.high}


def _curve_part(
    report: CalibrationReport, kind: str, title: str, colour: str, *, is_log: bool
) -> dict[str, Any]:
    y: dict[str, Any] = {"type": "quantitative", "title": title}
    if is_log:
        y["scale"] = {"type": "log", "domain": [_LEAST, 1], "clamp": True}
        y["axis"] = {"format": ".1~%", "values": [0.001, 0.01, 0.1, 1]}
    else:
        y["scale"] = {"domain": [0, 1]}
        y["axis"] = {"format": ".0%", "tickCount": 5}
    x = {"field": "threshold", **_threshold_axis("Threshold" if kind == "alarms" else None)}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": 0.18, "color": colour, "interpolate": "step-before"},
            "encoding": {"x": x, "y": {"field": "low", **y}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2.2, "color": colour, "interpolate": "step-before"},
            "encoding": {"x": x, "y": {"field": "share", **y}},
        },
    ]
    if kind == "alarms":
        layers.append(
            {
                "data": {"values": [{"limit": report.goals.max_false_alarms}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": _TEXT, "opacity": 0.6},
                "encoding": {"y": {"field": "limit", **y}},
            }
        )
    layers += _threshold_rule(report)
    return {
        "width": 820,
        "height": _TALL,
        "transform": [{"filter": {"field": "kind", "equal": kind}}],
        "layer": layers,
    }


def _threshold_rule(report: CalibrationReport) -> list[dict[str, Any]]:
    if report.threshold is None:
        return []
    return [
        {
            "data": {
                "values": [{"kind": kind, "threshold": report.threshold} for kind in ("recall", "alarms")]
            },
            "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--after)"},
            "encoding": {"x": {"field": "threshold", **_threshold_axis(None)}},
        }
    ]


def _threshold_axis(title: str | None) -> dict[str, Any]:
    return {"type": "quantitative", "title": title, "scale": {"domain": [0, 1]}, "axis": {"tickCount": 10}}


def _rate_axis(field: str, title: str | None) -> dict[str, Any]:
    axis = {"format": ".0%", "tickCount": 5}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [0, 1]},
        "axis": axis,
    }


def _two_colours(field: str, colours: dict[str, str]) -> dict[str, Any]:
    return {
        "field": field,
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(colours), "range": list(colours.values())},
        "legend": {"orient": "top", "symbolType": "circle", "symbolOpacity": 1},
    }


def _bins(found: Reliability, kind: str) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "score": one.mean_score,
            "share": one.share,
            "low": one.interval.low,
            "high": one.interval.high,
        }
        for one in found.bins
    ]


def _frame(rows: list[dict[str, Any]], description: str) -> dict[str, Any]:
    colours = ("labelColor", "titleColor", "domainColor", "tickColor", "gridColor")
    return {
        "$schema": _SCHEMA,
        "description": description,
        "background": None,
        "padding": {"left": 8, "right": 12, "top": 4, "bottom": 4},
        "data": {"values": rows},
        "config": {
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {
                **dict.fromkeys(colours, _TEXT),
                "gridOpacity": 0.12,
                "domainOpacity": 0.4,
                "tickOpacity": 0.4,
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": 500,
            },
            "legend": {"labelColor": _TEXT, "titleColor": _TEXT, "labelFontSize": 12},
        },
    }
