"""The one-file HTML report of calibrations: no script, no outside resource, no text of any row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.core.resources import read_data_text
from stanchion.detectors.calibration_report import CalibrationReport
from stanchion.evals.report import calibration_charts as charts
from stanchion.evals.report.charts import render_svg
from stanchion.stats.wording import at_least, at_most, between, confidence_level, percent


def render_calibrations(reports: Sequence[CalibrationReport]) -> str:
    """The page; every value is escaped, and charts are drawn where the extra `report` is installed."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(read_data_text("report", "calibration.html.j2"))
    css = read_data_text("report", "report.css") + read_data_text("report", "calibration.css")
    return template.render(
        reports=reports,
        css=_trusted(css),
        svgs=[_svgs(report) for report in reports],
        percent=percent,
        between=between,
        at_most=at_most,
        at_least=at_least,
        level=confidence_level,
    )


def _svgs(report: CalibrationReport) -> dict[str, str]:
    """Each chart's SVG by name; empty where there is nothing to draw, or no renderer."""
    specs: dict[str, dict[str, Any] | None] = {
        "curve": charts.curve_chart(report),
        "scores": charts.score_chart(report),
        "reliability": charts.reliability_chart(report),
        "slices": charts.slice_chart(report),
    }
    return {name: render_svg(spec) if spec else "" for name, spec in specs.items()}


def _trusted(text: str) -> Any:
    """Packaged text that needs no escaping."""
    import markupsafe

    return markupsafe.Markup(text)  # noqa: S704 - our own packaged style sheets, no input in them
