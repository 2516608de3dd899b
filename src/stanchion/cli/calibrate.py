"""`stanchion calibrate`: a threshold with a promise, from a few hundred rows; and whether one still holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stanchion.cli.output import FormatOption, OutputFormat, err_console, note, print_json
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.detectors.calibration import Goals
    from stanchion.detectors.calibration_report import CalibrationReport
    from stanchion.detectors.calibration_rows import RowFields, RowSet
    from stanchion.detectors.registry import Registry
    from stanchion.stats.thresholds import Costs

_Files = list[Path] | None
_Words = list[str] | None
DetectorOption = Annotated[_Words, typer.Option("--detector", help="A detector's id; may be repeated.")]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", help="Take detectors and their options from this policy (file or packaged name)."
    ),
]
RowsOption = Annotated[_Files, typer.Option("--rows", help="Labelled rows: JSONL, CSV or Parquet.")]
BenignOption = Annotated[_Files, typer.Option("--benign", help="Rows that are all benign; need no label.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write the calibration: a .json file, or a folder for several."),
]
HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write the report as one HTML file.")]
OptionOption = Annotated[
    _Words, typer.Option("--option", help="An option of the detector, KEY=VALUE (YAML); may be repeated.")
]
CategoryOption = Annotated[
    _Words, typer.Option("--category", help="Only findings of this category count (pii.*); may be repeated.")
]
AlarmsOption = Annotated[
    str, typer.Option("--max-false-alarms", help="The share of benign rows that may alarm, such as 1%.")
]
ConfidenceOption = Annotated[str, typer.Option("--confidence", help="With which confidence.")]
RecallOption = Annotated[
    str | None, typer.Option("--min-recall", help="Promise this share of unsafe rows, too, such as 60%.")
]
ByOriginOption = Annotated[
    bool, typer.Option("--by-origin", help="A threshold for each origin that has enough rows.")
]
MapOption = Annotated[
    str | None, typer.Option("--score-map", help="Also fit score to probability: platt, isotonic or beta.")
]
MissOption = Annotated[float, typer.Option("--cost-miss", min=0.0, help="What one miss costs.")]
AlarmCostOption = Annotated[
    float, typer.Option("--cost-false-alarm", min=0.0, help="What one false alarm costs.")
]
DailyOption = Annotated[float, typer.Option("--daily", min=0.0, help="Texts a day.")]
PrevalenceOption = Annotated[
    str | None, typer.Option("--prevalence", help="The share of unsafe texts in production, such as 0.1%.")
]
OriginOption = Annotated[
    str, typer.Option("--origin", help="Who wrote the texts, where a row does not say: user, retrieved, ...")
]
FieldOption = Annotated[
    _Words,
    typer.Option(
        "--field", help="Another name of a field: text=prompt, label=y, group=user_id, language=lang."
    ),
]
ContextOption = Annotated[
    str,
    typer.Option("--context-as", help="What the field `context` is to the detector: documents, question."),
]
ErrorsOption = Annotated[
    int, typer.Option("--allow-errors", min=0, help="Rows that may fail; they count against the detector.")
]
CheckOption = Annotated[
    Path | None, typer.Option("--check", help="Compare rows with this calibration: exit 1 when it is stale.")
]
LevelOption = Annotated[
    str, typer.Option("--level", help="With --check: how often to call it stale when nothing changed.")
]


def calibrate(
    ctx: typer.Context,
    detector: DetectorOption = None,
    rows: RowsOption = None,
    benign: BenignOption = None,
    policy: PolicyOption = None,
    out: OutOption = None,
    html: HtmlOption = None,
    max_false_alarms: AlarmsOption = "1%",
    confidence: ConfidenceOption = "95%",
    min_recall: RecallOption = None,
    by_origin: ByOriginOption = False,
    option: OptionOption = None,
    category: CategoryOption = None,
    score_map: MapOption = None,
    cost_miss: MissOption = 0.0,
    cost_false_alarm: AlarmCostOption = 0.0,
    daily: DailyOption = 0.0,
    prevalence: PrevalenceOption = None,
    origin: OriginOption = "user",
    field: FieldOption = None,
    context_as: ContextOption = "",
    allow_errors: ErrorsOption = 0,
    check: CheckOption = None,
    level: LevelOption = "1%",
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Find a detector's threshold that keeps false alarms below a limit, with a stated confidence.

    A few hundred benign rows are enough; labelled ones tell what is caught. Exits 1 when the goal cannot be
    promised, and says why and how many more rows would do. No text is stored.

    Example:
        stanchion calibrate --detector refusal --benign answers.jsonl --max-false-alarms 2%
    """
    fields = _fields(field, origin=origin, context_as=context_as)
    if check is not None:
        _check(
            ctx,
            check,
            (rows, benign),
            fields=fields,
            level=_share(level, "--level"),
            out_format=output_format,
        )
        return
    goals = _goals(max_false_alarms, confidence, min_recall, by_origin=by_origin, score_map=score_map)
    costs = _costs(cost_miss, cost_false_alarm, daily=daily, prevalence=prevalence)
    work = _Work(ctx, fields=fields, goals=goals, costs=costs, allow_errors=allow_errors)
    work.read(rows, benign)
    wanted = work.detectors(detector, policy, option)
    reports = [work.run(name, options, tuple(category or ())) for name, options in wanted]
    _keep(work, reports, out=out, html=html)
    _print(work, output_format)
    if any(not report.is_calibrated for report in work.reports):
        raise typer.Exit(ExitCode.FOUND)


class _Work:
    """One call of the command."""

    def __init__(
        self, ctx: typer.Context, *, fields: RowFields, goals: Goals, costs: Costs, allow_errors: int
    ) -> None:
        from stanchion.config import load_settings

        self.settings = load_settings(file=ctx.obj)
        self.goals, self.costs = goals, costs
        self.reports: list[CalibrationReport] = []
        self._fields = fields
        self._allow_errors = allow_errors
        self._registry = _registry(self.settings)
        self._rows: RowSet | None = None
        self._scored: list[Any] = []

    def read(self, rows: _Files, benign: _Files) -> None:
        from stanchion.detectors.calibration_rows import read_rows

        self._rows = read_rows(rows or (), benign or (), fields=self._fields)

    def detectors(
        self, names: _Words, policy: str | None, options: _Words
    ) -> list[tuple[str, dict[str, Any]]]:
        """The detectors to calibrate with their options; those of a policy when one is named.

        Variables of the environment stay names until the detector is made, so that none is written down.
        """
        own = _options(options)
        if policy is None:
            if not names:
                raise UsageError("name what to calibrate.", hint="Give --detector ID, or --policy FILE.")
            return [(name, own) for name in names]
        found = _policy_options(policy, self._registry)
        missing = [name for name in names or () if name not in found]
        if missing:
            hint = f"It enables {', '.join(found)}."
            raise UsageError(f"policy {policy!r} does not enable {missing[0]!r}.", hint=hint)
        return [(name, {**found[name], **own}) for name in names or found]

    def run(self, name: str, options: dict[str, Any], categories: tuple[str, ...]) -> CalibrationReport:
        """Score the rows with one detector, choose, report."""
        from stanchion.cli.progress import progress_bar
        from stanchion.config import process_environment
        from stanchion.core.clock import SystemClock
        from stanchion.detectors.calibration import Subject, choose
        from stanchion.detectors.calibration_file import with_environment
        from stanchion.detectors.calibration_report import make_report
        from stanchion.detectors.scoring import make_for_scoring, makes_minimum, score_rows

        assert self._rows is not None  # noqa: S101 - `read` came first
        detector = make_for_scoring(self._registry, name, with_environment(options, process_environment()))
        _check_categories(categories, detector)
        with progress_bar(name, err_console()) as bar:
            task = bar.add_task(name, total=len(self._rows.rows), note="")
            scored = score_rows(
                detector,
                self._rows.rows,
                categories=categories,
                allowed_errors=self._allow_errors,
                progress=lambda done: bar.update(task, completed=done),
            )
        subject = Subject(
            id=name,
            version=str(detector.version),
            options={key: value for key, value in options.items() if key not in ("minimum", "base")},
            categories=categories,
            takes_minimum=makes_minimum(self._registry, name),
        )
        chosen = choose(scored, self.goals)
        report = make_report(
            scored,
            chosen,
            subject=subject,
            goals=self.goals,
            sources=self._rows.sources,
            costs=self.costs,
            made_at=SystemClock().now(),
        )
        self._scored.append(scored)
        _tell_spent(detector)
        return report

    def file_of(self, number: int, report: CalibrationReport) -> Any:
        """The calibration that a report tells of."""
        from stanchion.detectors.calibration import calibrated

        return calibrated(
            report.chosen,
            self._scored[number],
            subject=report.subject,
            sources=report.sources,
            goals=self.goals,
            made_at=report.made_at,
        )


def _keep(work: _Work, reports: list[CalibrationReport], *, out: Path | None, html: Path | None) -> None:
    """Write what was asked for; reports then know their file."""
    from stanchion.detectors.calibration_file import write_calibration

    if out is not None and out.suffix == ".json" and len(reports) > 1:
        raise UsageError("several detectors are calibrated.", hint="Let --out name a folder.")
    if out is not None and out.suffix not in ("", ".json") and not out.is_dir():
        raise UsageError(f"{out}: a calibration is a .json file.", hint=f"Write {out.stem}.json.")
    for number, report in enumerate(reports):
        told = report
        if report.is_calibrated:
            made = work.file_of(number, report)
            told = msgspec.structs.replace(report, digest=made.digest)
            if out is not None:
                path = out if out.suffix == ".json" else out / f"{report.subject.id}.json"
                write_calibration(path, made)
                told = msgspec.structs.replace(told, file=str(path))
        work.reports.append(told)
    if html is not None:
        from stanchion.evals.report.calibration_page import render_calibrations

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_calibrations(work.reports), encoding="utf-8")
        note(f"report: {html}")


def _print(work: _Work, output_format: OutputFormat) -> None:
    from stanchion.cli.calibrate_show import show_calibration

    if output_format is OutputFormat.JSON:
        plain = [_plain(report) for report in work.reports]
        print_json(plain[0] if len(plain) == 1 else plain)
        return
    for report in work.reports:
        show_calibration(report)
        if report.file:
            note(f"written: {report.file} ({report.digest})")
        elif report.is_calibrated:
            note("not written: name a file with --out.")


def _plain(report: CalibrationReport) -> dict[str, Any]:
    """A report as JSON has it, the verdict first."""
    told = msgspec.to_builtins(report, enc_hook=lambda model: model.model_dump(mode="json"))
    return {"is_calibrated": report.is_calibrated, **told}


def _check(
    ctx: typer.Context,
    path: Path,
    files: tuple[_Files, _Files],
    *,
    fields: RowFields,
    level: float,
    out_format: OutputFormat,
) -> None:
    from stanchion.cli.calibrate_show import show_check
    from stanchion.config import load_settings, process_environment
    from stanchion.detectors.calibration_check import check_calibration
    from stanchion.detectors.calibration_file import load_calibration
    from stanchion.detectors.calibration_rows import read_rows

    loaded = load_calibration(path)
    found = read_rows(files[0] or (), files[1] or (), fields=fields, needs_label=False)
    registry, env = _registry(load_settings(file=ctx.obj)), process_environment()
    checked = check_calibration(loaded, found, registry=registry, level=level, env=env)
    if out_format is OutputFormat.JSON:
        print_json({"is_stale": checked.is_stale, **msgspec.structs.asdict(checked)})
    else:
        show_check(checked)
    if checked.is_stale:
        raise typer.Exit(ExitCode.FOUND)


def _registry(settings: Any) -> Registry:
    from stanchion.bootstrap import make_registry

    return make_registry(settings)


def _goals(
    alarms: str, confidence: str, recall: str | None, *, by_origin: bool, score_map: str | None
) -> Goals:
    from stanchion.detectors.calibration import Goals
    from stanchion.stats.score_maps import MAP_KINDS

    kinds = {kind: kind for kind in MAP_KINDS}
    if score_map is not None and score_map not in kinds:
        raise UsageError(f"unknown score map {score_map!r}.", hint=f"Allowed: {', '.join(MAP_KINDS)}.")
    return Goals(
        max_false_alarms=_share(alarms, "--max-false-alarms"),
        confidence=_share(confidence, "--confidence"),
        min_recall=None if recall is None else _share(recall, "--min-recall"),
        by_origin=by_origin,
        score_map=None if score_map is None else kinds[score_map],
    )


def _costs(miss: float, false_alarm: float, *, daily: float, prevalence: str | None) -> Costs:
    from stanchion.stats.thresholds import Costs

    share = 0.0 if prevalence is None else _share(prevalence, "--prevalence")
    if (miss or false_alarm) and not daily:
        raise UsageError("costs are told per day.", hint="Say how many texts come a day: --daily 10000.")
    return Costs(miss=miss, false_alarm=false_alarm, daily=daily, prevalence=share)


def _share(words: str, name: str) -> float:
    """A share between 0 and 1, written as 1% or 0.01."""
    number = words.strip()
    try:
        value = float(number.removesuffix("%")) / (100.0 if number.endswith("%") else 1.0)
    except ValueError as error:
        raise UsageError(f"{name}: {words!r} is no share.", hint="Write 1% or 0.01.") from error
    if not 0.0 < value < 1.0:
        is_plain = 1.0 <= value < 100.0 and not number.endswith("%")
        hint = f"Did you mean {number}%?" if is_plain else "It lies between 0% and 100%, without the ends."
        raise UsageError(f"{name}: {words!r} is no share between 0 and 1.", hint=hint)
    return value


def _fields(words: _Words, *, origin: str, context_as: str) -> RowFields:
    from stanchion.core.errors import UnknownNameError
    from stanchion.core.origin import Origin
    from stanchion.detectors.calibration_rows import CONTEXT_TEXTS, RowFields

    if origin not in set(Origin):
        raise UnknownNameError("origin", origin, [one.value for one in Origin], where="--origin")
    if context_as and context_as not in CONTEXT_TEXTS:
        raise UnknownNameError("context", context_as, CONTEXT_TEXTS, where="--context-as")
    made = RowFields(origin=Origin(origin), context_as=context_as)
    for word in words or ():
        name, _, value = word.partition("=")
        if name not in ("text", "label", "group", "language") or not value:
            hint = "Write text=NAME, label=NAME, group=NAME or language=NAME."
            raise UsageError(f"--field: {word!r} names no field.", hint=hint)
        said: Any = (value,) if name == "language" else value
        made = msgspec.structs.replace(made, **{name: said})
    return made


def _options(words: _Words) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = {}
    for word in words or ():
        name, mark, value = word.partition("=")
        if not name or not mark:
            raise UsageError(f"--option: {word!r} is no option.", hint="Write KEY=VALUE.")
        if name == "minimum":
            raise UsageError(
                "--option: 'minimum' is not yours to set: a calibration looks at all scores.",
                hint="Leave it out; a policy that names the calibration reports from its threshold on.",
            )
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--option: the value of {name!r} is no YAML.") from error
    return found


def _policy_options(policy: str, registry: Registry) -> dict[str, dict[str, Any]]:
    """The enabled detectors of a policy, with the options they are made with."""
    from stanchion.detectors.registry import with_base
    from stanchion.guard.policy import packaged_policy, read_uncalibrated

    if not policy.endswith((".yaml", ".yml")):
        enabled = packaged_policy(policy, detectors=registry.ids()).enabled_detectors
        return {name: dict(one.options) for name, one in enabled.items()}
    read = read_uncalibrated(policy, env=_NamesOnly(), detectors=registry.ids())
    folder = Path(policy).parent
    enabled = read.policy.enabled_detectors
    return {name: with_base(one.options, folder) for name, one in enabled.items()}


class _NamesOnly(Mapping[str, str]):
    """An environment in which every variable holds its own name, so that no value is read."""

    def __getitem__(self, name: str) -> str:
        return f"${{env:{name}}}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _check_categories(categories: tuple[str, ...], detector: Any) -> None:
    from stanchion.core.taxonomy import check_selector, matches

    for selector in categories:
        check_selector(selector, where="--category")
        if not any(matches(selector, one) for one in detector.categories):
            raise UsageError(
                f"detector {detector.id!r} reports nothing of category {selector!r}.",
                hint=f"It reports {', '.join(detector.categories)}.",
            )


def _tell_spent(detector: Any) -> None:
    spent = getattr(detector, "spent", None)
    if spent is not None:
        note(spent.words())
