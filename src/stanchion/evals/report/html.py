"""The one-file HTML report: no script, no outside resource, readable on a screen and on paper."""

from __future__ import annotations

from typing import Any

from stanchion.core.resources import read_data_text
from stanchion.evals.report import charts, wording
from stanchion.evals.report.model import Report
from stanchion.stats.wording import between, percent, points_between

_CLIP_CHARACTERS = 1200
_PRINTED = 10  # failures of each arm whose words are on paper too


def render_html(report: Report) -> str:
    """The page; every value is escaped, and charts are drawn where the extra `report` is installed."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(read_data_text("report", "report.html.j2"))
    return template.render(
        report=report,
        css=_trusted(read_data_text("report", "report.css")),
        svgs=[_criteria_svg(report, index) for index in range(len(report.arms))],
        comparison_svg=_comparison_svg(report),
        meaning=wording.VERDICT_MEANING,
        concern=wording.CONCERN_TITLE,
        percent=percent,
        between=between,
        kind=wording.kind_words,
        same=wording.duplicates_words,
        told_rows=wording.told_rows,
        points=points_between,
        pvalue=p_value_words,
        evidence=wording.evidence_words,
        bound=wording.bound_words,
        limit=wording.limit_words,
        durations=wording.durations_words,
        seconds=wording.seconds,
        clip=clip,
        printed=_PRINTED,
    )


def p_value_words(value: float) -> str:
    """A p-value with two significant digits, never as zero."""
    if value < 0.0001:
        return "< 0.0001"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def clip(text: str) -> str:
    """A text short enough for a page, with what was left out said."""
    if len(text) <= _CLIP_CHARACTERS:
        return text
    return f"{text[:_CLIP_CHARACTERS]} ... ({len(text) - _CLIP_CHARACTERS:,} more characters)"


def _trusted(text: str) -> Any:
    """Packaged text that needs no escaping."""
    import markupsafe

    return markupsafe.Markup(text)  # noqa: S704 - our own packaged style sheet, no input in it


def _criteria_svg(report: Report, index: int) -> str:
    verdict = report.arms[index].verdict
    spec = charts.criteria_chart(verdict.criteria, label=report.arms[index].name) if verdict else None
    return charts.render_svg(spec) if spec else ""


def _comparison_svg(report: Report) -> str:
    spec = charts.comparison_chart(report.comparison) if report.comparison else None
    return charts.render_svg(spec) if spec else ""
