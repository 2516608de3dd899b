"""Detection quality per source: recall and false alarms with intervals, at a stated threshold.

    python bench/detection/quality.py [--only secrets,pii] [--format text|json|markdown] [--data FOLDER]

Each module of `measures/` yields figures; this runner prints them with their 95 % Wilson intervals and says
for each goal whether the rate reaches it (met, missed, not gated). Every figure names its detector version,
its data (rows and digest) and its threshold. Data that is absent is skipped with a reason.

Train sources were used to write patterns and weights. Dev sources report; where a choice was made on half A
of one (by hash of the row id), half B is the report and the note of the figure says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import measures
from figures import Figure, Skipped
from rich.console import Console
from rich.table import Table

_MARKS = {"met": "[green]met[/]", "missed": "[red]missed[/]", "not gated": "[dim]not gated[/]"}


def areas() -> list[str]:
    """The modules of `measures/`, by name."""
    return sorted(module.name for module in pkgutil.iter_modules(measures.__path__))


def measured(names: Iterable[str], data: Path) -> Iterator[tuple[str, Figure | Skipped]]:
    """Every figure of the named areas; an area that cannot be imported is skipped with the error."""
    for name in names:
        try:
            module = importlib.import_module(f"measures.{name}")
        except ImportError as error:
            yield name, Skipped(name, f"cannot be imported: {error}")
            continue
        for line in module.figures(data):
            yield name, line


def as_record(area: str, line: Figure | Skipped) -> dict[str, object]:
    if isinstance(line, Skipped):
        return {"area": area, "source": line.source, "skipped": line.reason}
    low, high = line.interval
    rate = {"rate": line.rate, "low": low, "high": high, "status": line.status}
    return {"area": area, **dataclasses.asdict(line), **rate}


def to_text(lines: Iterable[tuple[str, Figure | Skipped]], console: Console) -> None:
    """A table for each area, the versions and digests under it, and the count of goals at the end."""
    by_area: dict[str, list[Figure | Skipped]] = {}
    for area, line in lines:
        by_area.setdefault(area, []).append(line)
    statuses = {"met": 0, "missed": 0}
    for area, found in by_area.items():
        table = Table(title=area, title_justify="left", pad_edge=False, show_edge=False)
        for name in ("source", "measure", "rate", "95 % interval", "k", "n", "goal", ""):
            table.add_column(name, justify="right" if name in {"rate", "k", "n"} else "left", overflow="fold")
        figures = [line for line in found if isinstance(line, Figure)]
        for line in figures:
            low, high = line.interval
            note = f" ({line.note})" if line.note else ""
            table.add_row(
                line.source, line.measure + note, f"{line.rate:.1%}", f"{low:.1%} to {high:.1%}",
                str(line.k), str(line.n), line.goal, _MARKS[line.status],
            )  # fmt: skip
            if line.status != "not gated":
                statuses[line.status] += 1
        if figures:
            console.print(table)
        for version, threshold in sorted({(f"{f.detector} {f.version}", f.threshold) for f in figures}):
            console.print(f"  {version}, threshold {threshold}", style="dim", highlight=False)
        for source, digest in sorted({(f.source, f.digest) for f in figures}):
            console.print(f"  {digest}  {source}", style="dim", highlight=False)
        for skipped in (line for line in found if isinstance(line, Skipped)):
            console.print(f"  skipped: {skipped.source}: {skipped.reason}", highlight=False)
        console.print()
    console.print(f"Goals: {statuses['met']} met, {statuses['missed']} missed.", highlight=False)


def to_markdown(lines: Iterable[tuple[str, Figure | Skipped]]) -> Iterator[str]:
    """The lines of one table for each detector, fit for a page."""
    current = ""
    for _, line in lines:
        if isinstance(line, Skipped):
            yield f"\nSkipped: {line.source}: {line.reason}."
            current = ""
            continue
        heading = f"**`{line.detector}` `{line.version}`, threshold {line.threshold}**"
        if heading != current:
            yield f"\n{heading}\n\n| source (digest) | measure | k of n | rate | 95 % interval | goal |"
            yield "|---|---|---:|---:|---|---|"
            current = heading
        low, high = line.interval
        measure = f"{line.measure} ({line.note})" if line.note else line.measure
        goal = f"{line.goal}: {line.status}" if line.goal else "not gated"
        yield (
            f"| {line.source} ({line.digest}) | {measure} | {line.k} of {line.n} | {line.rate:.1%} | "
            f"{low:.1%} to {high:.1%} | {goal} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2].parent / "shared" / "data")
    parser.add_argument("--only", default=",".join(areas()), help="areas, separated by commas")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    unknown = sorted(set(names) - set(areas()))
    if unknown:
        parser.error(f"unknown area: {', '.join(unknown)}; there are {', '.join(areas())}")
    lines = measured(names, options.data)
    if options.format == "json":
        json.dump([as_record(area, line) for area, line in lines], sys.stdout, indent=1)
        print()
    elif options.format == "markdown":
        print("\n".join(to_markdown(lines)))
    else:
        is_terminal = sys.stdout.isatty()
        to_text(lines, Console(width=None if is_terminal else 160))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
