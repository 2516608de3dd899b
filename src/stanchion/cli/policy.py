"""`stanchion policy`: what a policy does, whether it does what is expected, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, note, out_console, print_json
from stanchion.core.decision import Surface
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.core.decision import Decision
    from stanchion.detectors.registry import Registry
    from stanchion.guard.describe import PolicyDescription
    from stanchion.guard.pipeline import Guard
    from stanchion.guard.policy import LoadedPolicy
    from stanchion.guard.policy_cases import CaseOutcome
    from stanchion.guard.preview import Message

app = typer.Typer(help="Show, test and compare guard policies.", rich_markup_mode=None, add_completion=False)
_CLOSING_S = 5.0
PolicyArgument = Annotated[str, typer.Argument(help="A policy file (.yaml), or a packaged policy's name.")]


@app.callback()
def policy() -> None:
    """Show, test and compare guard policies.

    Example:
        stanchion policy show default
    """


@app.command("list")
def list_policies(output_format: FormatOption = OutputFormat.TEXT) -> None:
    """Print the packaged policies, their mode and digest.

    Example:
        stanchion policy list
    """
    from stanchion.guard.policy import packaged_policies, packaged_policy

    rows = [packaged_policy(name) for name in packaged_policies()]
    if output_format is OutputFormat.JSON:
        print_json([{"name": row.name, "mode": row.mode, "digest": row.digest} for row in rows])
        return
    for row in rows:
        typer.echo(f"{row.name:<10} {row.mode.value:<8} {row.digest}")


@app.command()
def show(
    ctx: typer.Context,
    name: PolicyArgument,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the effective policy: checks per surface in their order, rules, settings, digest.

    Example:
        stanchion policy show strict
    """
    from stanchion.guard.describe import describe

    loaded = _loaded(ctx, name)
    description = describe(_guard(ctx, name, prepare=False), loaded.policy)
    for warning in loaded.warnings:
        note(f"warning: {warning.render()}")
    if output_format is OutputFormat.JSON:
        print_json(description)
    else:
        _print_description(description)


@app.command("test")
def try_texts(
    ctx: typer.Context,
    name: PolicyArgument,
    text: Annotated[str | None, typer.Option("--text", help="One text to try.")] = None,
    cases: Annotated[Path | None, typer.Option("--cases", help="A file of cases to try.")] = None,
    surface: Annotated[Surface, typer.Option("--surface", help="Where --text stands.")] = Surface.INPUT,
    expect: Annotated[
        str | None, typer.Option("--expect", help="The effect --text should have; exit 1 if it has another.")
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Try texts on a policy. Exits 1 when a text does not have the effect that was expected.

    Example:
        stanchion policy test default --text "What is your return policy?" --expect allow
    """
    if (text is None) == (cases is None):
        raise UsageError("give either --text or --cases.", hint="See `stanchion policy test --help`.")
    guard = _guard(ctx, name)
    try:
        if text is not None:
            decision = guard.check(text, surface=surface).decision
            _print_decision(decision, output_format)
            is_wrong = expect is not None and _effect(expect) != decision.effect.value
            if is_wrong:
                note(f"expected {expect}, got {decision.effect.value}")
        else:
            is_wrong = _try_cases(guard, cases, output_format)
    finally:
        _let_go(guard)
    if is_wrong:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def diff(
    ctx: typer.Context,
    old: PolicyArgument,
    new: PolicyArgument,
    fail_on_looser: Annotated[
        bool, typer.Option("--fail-on-looser", help="Exit 1 when a setting became looser.")
    ] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print every setting that became looser or tighter, by comparing settings; it does not prove effects.

    Example:
        stanchion policy diff default strict
    """
    from stanchion.guard.describe import changes

    before, after = _loaded(ctx, old).policy, _loaded(ctx, new).policy
    found = changes(before, after)
    if output_format is OutputFormat.JSON:
        print_json({"before": before.digest, "after": after.digest, "changes": found})
    else:
        for change in found:
            typer.echo(f"{change.direction:<8} {change.setting}: {change.before} became {change.after}")
        looser = sum(change.direction == "looser" for change in found)
        typer.echo(f"{looser} looser, {len(found) - looser} tighter")
    if fail_on_looser and any(change.direction == "looser" for change in found):
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def preview(
    ctx: typer.Context,
    name: PolicyArgument = "default",
    language: Annotated[
        str, typer.Option("--language", help="Two letters; default: every language there is.")
    ] = "",
    every_style: Annotated[
        bool, typer.Option("--every-style", help="Also the styles that this policy does not use.")
    ] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print every message that users can read under a policy, filled in, for a review of the words.

    Example:
        stanchion policy preview default --language de
    """
    from stanchion.guard.preview import preview as every_message

    found = [*every_message(_loaded(ctx, name).policy, language=language), *_errors(language)]
    shown = [one for one in found if one.is_used or every_style]
    if output_format is OutputFormat.JSON:
        print_json(shown)
        return
    heading = ""
    for one in shown:
        if (now := f"{one.language}: {one.kind}, read by the {one.reader}") != heading:
            heading = now
            typer.echo(f"\n{heading}")
        style = f" ({one.style})" if every_style and one.style else ""
        typer.echo(f"  {one.name + style:<28} {one.text}")


def _errors(language: str) -> list[Message]:
    """Errors of the gateway's API. They are for developers, and in English only."""
    from stanchion.gateway.limits import limit_reached
    from stanchion.gateway.limits_file import LimitRule
    from stanchion.gateway.permits import switched_off
    from stanchion.gateway.ports import Engaged
    from stanchion.guard.preview import Message

    if language not in ("", "en"):
        return []
    rule = LimitRule(id="burst", requests=60, every="1m")
    refusals = [
        limit_reached(rule, 30.0),
        switched_off(Engaged(switch_id="sw", level="feature", name="shop", version=1)),
    ]
    return [
        Message(
            language="en",
            kind="error",
            name=refused.code,
            reader="developer",
            text=f"{refused.message} {refused.hint}",
        )
        for refused in refusals
    ]


def _loaded(ctx: typer.Context, name: str) -> LoadedPolicy:
    from stanchion.config import process_environment
    from stanchion.guard.policy import LoadedPolicy, packaged_policy, read_policy

    registry, source = _registry(ctx), _source(name)
    if isinstance(source, Path):
        return read_policy(source, env=process_environment(), detectors=registry.ids(), registry=registry)
    return LoadedPolicy(policy=packaged_policy(source, detectors=registry.ids()))


def _guard(ctx: typer.Context, name: str, *, prepare: bool = True) -> Guard:
    from stanchion.config import process_environment
    from stanchion.guard.pipeline import Guard

    return Guard.load(_source(name), env=process_environment(), registry=_registry(ctx), prepare=prepare)


def _let_go(guard: Guard) -> None:
    """Close the connections of detectors that ask somebody, on the loop that opened them."""
    from stanchion.guard.workers import start_on_background_loop

    detectors = {id(check.detector): check.detector for surface in Surface for check in guard.checks(surface)}
    for detector in detectors.values():
        if hasattr(detector, "aclose"):
            start_on_background_loop(detector.aclose()).result(timeout=_CLOSING_S)


def _registry(ctx: typer.Context) -> Registry:
    from stanchion.bootstrap import make_registry
    from stanchion.config import load_settings

    return make_registry(load_settings(file=ctx.obj))


def _source(name: str) -> Path | str:
    """A file when it looks like one or is one, else the name of a packaged policy."""
    is_file = name.endswith((".yaml", ".yml")) or Path(name).is_file()
    return Path(name) if is_file else name


def _effect(name: str) -> str:
    from stanchion.core.decision import Effect
    from stanchion.core.errors import UnknownNameError

    if name not in set(Effect):
        raise UnknownNameError("effect", name, [effect.value for effect in Effect])
    return name


def _try_cases(guard: Any, path: Path | None, output_format: OutputFormat) -> bool:
    from stanchion.guard.policy_cases import load_cases, run_case

    outcomes = [run_case(guard, case) for case in load_cases(Path(path or ""))]
    wrong = [outcome for outcome in outcomes if not outcome.passed]
    if output_format is OutputFormat.JSON:
        print_json({"passed": len(outcomes) - len(wrong), "failed": len(wrong), "cases": outcomes})
    else:
        for outcome in outcomes:
            typer.echo(f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.id}{_reason(outcome)}")
        typer.echo(f"{counted(len(outcomes), 'case')}, {len(wrong)} failed")
    return bool(wrong)


def _reason(outcome: CaseOutcome) -> str:
    if outcome.passed:
        return f": {outcome.effect}"
    parts = [f": expected {outcome.expected}, got {outcome.effect}"]
    if outcome.rule_ids:
        parts.append(f"by {', '.join(outcome.rule_ids)}")
    if outcome.missing_rules:
        parts.append(f"without {', '.join(outcome.missing_rules)}")
    if outcome.failed_checks:
        parts.append(f"and {', '.join(outcome.failed_checks)} did not run")
    return " ".join(parts)


def _print_decision(decision: Decision, output_format: OutputFormat) -> None:
    if output_format is OutputFormat.JSON:
        print_json(decision)
        return
    rules = f" by {', '.join(decision.rule_ids)}" if decision.rule_ids else ""
    shadow = " (shadow: nothing is enforced)" if decision.enforced_effect is not decision.effect else ""
    typer.echo(f"{decision.effect.value}{rules}{shadow}")
    for finding in decision.findings:
        place = f"{finding.location.line}:{finding.location.column}"
        typer.echo(f"  {place:<8} {finding.category:<24} {finding.score:.2f}  {finding.detector}")
    for record in decision.checks:
        if record.status.value != "ran":
            typer.echo(f"  {record.detector} {record.status.value}: {record.reason}")


def _print_description(description: PolicyDescription) -> None:
    from rich.table import Table

    console = out_console()
    typer.echo(f"policy {description.name}  mode {description.mode}  {description.digest}")
    typer.echo(f"from {', '.join(description.sources)}\n")
    checks = Table("surface", "checks, in order", box=None, pad_edge=False)
    for surface, lines in description.surfaces.items():
        shown = "\n".join(f"{line.detector:<20}>= {line.threshold:<7g}fail {line.fail}" for line in lines)
        checks.add_row(surface, shown or "UNSCANNED: no check runs here")
    console.print(checks)
    for said in _calibrated(description):
        typer.echo(said)
    for name in description.idle_detectors:
        typer.echo(f"detector {name} runs nowhere: no rule speaks of what it reports")
    rules = Table("rule", "when", "unless", "effect", box=None, pad_edge=False)
    rules.columns[0].overflow = "fold"
    for rule in description.rules:
        notes = ("" if rule.mode == "enforce" else " [shadow]") + (
            "" if rule.can_apply else " [never applies]"
        )
        rules.add_row(rule.id, rule.when, rule.unless, f"{rule.effect}{notes}".replace("[", "\\["))
    console.print()
    console.print(rules)
    console.print()
    for name, value in description.settings.items():
        typer.echo(f"{name}: {_plain(value)}")
    for line in description.waived:
        typer.echo(f"looser by waiver: {line}")


def _calibrated(description: PolicyDescription) -> list[str]:
    """A line for each detector whose threshold comes from a calibration."""
    from stanchion.core.codec import short

    found: dict[str, str] = {}
    for line in (line for lines in description.surfaces.values() for line in lines):
        if line.calibrations:
            own = [
                f"; {selector if selector != '*' else 'any category'} from {origin.value} >= {threshold:g}"
                for selector, by_origin in line.origin_thresholds.items()
                for origin, threshold in by_origin.items()
            ]
            which = ", ".join(map(short, line.calibrations))
            found[line.detector] = f"detector {line.detector} is calibrated ({which}){''.join(own)}"
    return list(found.values())


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(_plain(item) for item in value) or "none"
    return "none" if value in ("", None) else str(value)
