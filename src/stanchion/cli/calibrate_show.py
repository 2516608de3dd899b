"""A calibration on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stanchion.cli.output import counted, out_console
from stanchion.stats.wording import at_least, at_most, between, confidence_level, percent

if TYPE_CHECKING:
    from rich.table import Table

    from stanchion.detectors.calibration_check import CheckedCalibration
    from stanchion.detectors.calibration_report import CalibrationReport
    from stanchion.stats.intervals import Interval


def show_calibration(report: CalibrationReport) -> None:
    """The verdict first, then what it stands on."""
    console = out_console()
    subject = report.subject
    typer.secho(f"{subject.id} {subject.version}", bold=True)
    typer.echo(
        f"{counted(report.benign, 'benign row')}, {report.unsafe:,} unsafe, from "
        f"{', '.join(source.name for source in report.sources)}"
    )
    _verdict(report)
    for line in report.notes:
        typer.echo(f"note: {line}")
    console.print()
    console.print(_points(report))
    if report.costs.daily:
        console.print()
        console.print(_days(report))
    console.print()
    console.print(_budgets(report))
    if report.slices:
        console.print()
        console.print(_slices(report))
    if report.reliability is not None:
        typer.echo(_reliability(report))


def show_check(checked: CheckedCalibration) -> None:
    """Whether a calibration is stale, and every test."""
    word = "STALE" if checked.is_stale else "NO CHANGE SEEN"
    typer.secho(f"{word}  {checked.file}", bold=True, fg="red" if checked.is_stale else "green")
    for reason in checked.reasons:
        typer.echo(f"  {reason}")
    share = checked.alarms / checked.rows
    typer.echo(
        f"alarms at {checked.threshold:g}: {checked.alarms} of {checked.rows:,} rows ({percent(share)}, "
        f"{at_least(checked.at_least)}); promised {at_most(checked.limit)} of benign ones"
    )
    if checked.drift is None:
        return
    for test in checked.drift.tests:
        typer.echo(
            f"  {test.name:<22} {test.statistic:.4f}  (usual up to {test.critical:.4f})  "
            f"p {test.p_value:.4f}, adjusted {test.adjusted_p_value:.4f}"
        )
    typer.echo(
        f"{checked.drift.before:,} rows then, {checked.drift.fresh:,} now; rows that did not change are "
        f"called stale in {percent(checked.drift.level)} of the cases"
    )
    if checked.is_stale:
        typer.echo("Calibrate again on fresh rows, and look at what changed.")


def _verdict(report: CalibrationReport) -> None:
    chosen = report.chosen
    if chosen.threshold is not None:
        typer.secho(f"CALIBRATED  threshold {chosen.threshold:g}", bold=True, fg="green")
        for guarantee in chosen.guarantees:
            typer.echo(f"  {guarantee.statement}")
        for origin, threshold in chosen.origins.items():
            typer.echo(f"  origin {origin.value}: threshold {threshold:g}")
        _caught(report)
        return
    typer.secho("NOT CALIBRATED", bold=True, fg="red")
    for reason in chosen.reasons:
        typer.echo(f"  {reason}")


def _caught(report: CalibrationReport) -> None:
    """What the threshold is worth: a detector that never alarms keeps every limit on false alarms."""
    point = report.points[0].point
    if not point.unsafe:
        return
    said = f"catches {point.caught:,} of {point.unsafe:,} unsafe rows"
    if point.caught and point.recall_at_least is not None:
        promise = "" if report.goals.min_recall is not None else "; no recall is promised"
        typer.echo(
            f"  {said} ({percent(point.caught / point.unsafe)}, {at_least(point.recall_at_least)}{promise})"
        )
        return
    typer.secho(
        f"  BUT IT {said.upper()}: at this threshold the detector is of no use here.", bold=True, fg="red"
    )
    typer.echo("  Allow more false alarms, or give --min-recall, which refuses such a threshold.")


def _points(report: CalibrationReport) -> Table:
    from rich.table import Table

    has_precision = any(row.point.precision is not None for row in report.points)
    level = confidence_level(report.goals.confidence)
    table = Table(f"at ({level})", "threshold", "false alarms", "recall", box=None, pad_edge=False)
    if has_precision:
        table.add_column("precision")
    for row in report.points:
        point = row.point
        cells = [
            row.name,
            f"{point.threshold:g}",
            _share(point.false_alarms, point.benign, point.false_alarm_rate),
            _share(point.caught, point.unsafe, point.recall),
        ]
        if has_precision:
            cells.append("-" if point.precision is None else percent(point.precision))
        table.add_row(*cells)
    return table


def _days(report: CalibrationReport) -> Table:
    from rich.table import Table

    costs = report.costs
    title = f"a day of {costs.daily:,.0f} texts"
    table = Table(title, "false alarms", "misses", "cost", "between", box=None, pad_edge=False)
    for row in report.points:
        day = row.day
        if day is None:
            continue
        has_cost = day.cost is not None and day.cost_low is not None and day.cost_high is not None
        table.add_row(
            row.name,
            f"{day.false_alarms:,.1f}",
            "-" if day.misses is None else f"{day.misses:,.1f}",
            f"{day.cost:,.0f}" if has_cost else "-",
            f"{day.cost_low:,.0f} and {day.cost_high:,.0f}" if has_cost else "-",
        )
    return table


def _budgets(report: CalibrationReport) -> Table:
    from rich.table import Table

    table = Table("false alarms at most", "rows needed", "with these rows", box=None, pad_edge=False)
    for budget in report.budgets:
        if budget.point is not None:
            said = f"threshold {budget.point.threshold:g}"
            if budget.point.unsafe:
                said += f", recall {percent(budget.point.caught / budget.point.unsafe)}"
        elif budget.more is None:
            said = "not at any threshold"
        else:
            said = f"{budget.more:,} more rows without an alarm"
        table.add_row(percent(budget.limit), f"{budget.rows_needed:,}", said)
    return table


def _slices(report: CalibrationReport) -> Table:
    from rich.table import Table

    table = Table("slice", "", "false alarms", "recall", "", box=None, pad_edge=False)
    for one in report.slices:
        table.add_row(
            one.by,
            one.value.replace("[", "\\["),
            _share(one.false_alarms, one.benign, one.false_alarm_rate),
            _share(one.caught, one.unsafe, one.recall),
            one.warning,
        )
    return table


def _reliability(report: CalibrationReport) -> str:
    found = report.reliability
    if found is None:
        return ""
    interval = found.calibration_error_interval
    said = (
        f"as a probability (at {percent(found.unsafe / found.n)} unsafe): calibration error "
        f"{found.calibration_error:.3f} ({interval.low:.3f} to {interval.high:.3f}), debiased "
        f"{found.debiased_rms:.3f}, Brier {found.brier.score:.3f}"
    )
    if report.mapped is not None:
        said += (
            f"; mapped by {report.goals.score_map}, cross-fitted: {report.mapped.calibration_error:.3f}, "
            f"Brier {report.mapped.brier.score:.3f}"
        )
    return said


def _share(k: int, n: int, interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{k} of {n:,}: {percent(k / n)}\n({between(interval.low, interval.high)})"
