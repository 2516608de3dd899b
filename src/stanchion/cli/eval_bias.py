"""`stanchion eval bias`: ask a target about twins and compare."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.cli.output import OutputFormat, note, out_console, print_json

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.evals.bias import BiasReport
    from stanchion.evals.bias_plan import BiasPlan

_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow", "invalid": "yellow"}


def run_bias(plan: BiasPlan, target: str, settings: Settings, *, concurrency: int) -> BiasReport:
    """Ask and judge.

    Raises:
        UsageError: for a target that cannot be made.
    """
    from stanchion.bootstrap import make_answer_cache, make_registry, make_target
    from stanchion.cli.eval_target import parse_target
    from stanchion.evals.bias import compare
    from stanchion.evals.bias_outcomes import readers

    registry = make_registry(settings)
    cache = make_answer_cache(settings, fresh=False)

    async def work() -> BiasReport:
        made = make_target(parse_target(target), settings, folder=Path(), registry=registry, answers=cache)
        try:
            refusal = registry.create("refusal")
            return await compare(plan, made, readers(refusal), concurrency=concurrency)  # type: ignore[arg-type]
        finally:
            await made.aclose()

    try:
        return asyncio.run(work())
    finally:
        cache.close()


def show_bias(report: BiasReport, output: list[Path], output_format: OutputFormat) -> None:
    """Print the report, and write it where asked: `.html` or `.json`.

    Raises:
        UsageError: for another ending.
    """
    import msgspec

    from stanchion.core.codec import to_builtins
    from stanchion.evals.bias_report import bias_page

    for path in output:
        page = bias_page(report).encode() if path.suffix == ".html" else msgspec.json.encode(report)
        path.write_bytes(page)
    if output_format is not OutputFormat.TEXT:
        print_json(to_builtins(report))
        return
    _print_table(report)
    for path in output:
        note(f"Wrote {path}")


def _print_table(report: BiasReport) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in (
        "axis",
        "outcome",
        "verdict",
        "worst group",
        "difference",
        "interval",
        "adjusted p",
        "finds",
    ):
        table.add_column(heading, overflow="fold")
    for each in report.axes:
        worst = next((effect for effect in each.effects if effect.group == each.worst), None)
        verdict = each.verdict.value
        table.add_row(
            each.axis,
            each.outcome,
            f"[{_COLOURS[verdict]}]{verdict.upper()}[/]",
            each.worst,
            f"{worst.difference:+.1%}" if worst else "",
            f"{worst.low:+.1%} to {worst.high:+.1%}" if worst else "",
            f"{each.adjusted_p:.3g}",
            f"{each.detectable:.1%}",
        )
    console = out_console()
    console.print(table)
    console.print(
        f"[{_COLOURS[report.outcome.value]}]{report.outcome.value.upper()}[/]: {report.asked} requests, "
        f"{report.errors} errors; limit {report.limit:.1%}, level {report.alpha:.1%} over all rows (Holm). "
        "'finds': the smallest difference found four times in five."
    )
    for each in report.axes:
        if each.verdict.value != "pass":
            console.print(f"  {each.axis}, {each.outcome}: {each.reason}", markup=False)
