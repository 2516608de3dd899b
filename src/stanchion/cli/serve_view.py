"""What `stanchion serve` writes on the terminal: a line per request, a block for one that was stopped.

Never a word of the text: rules, detectors, categories and offsets explain a decision, the reference finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stanchion.core.decision import Decision, Effect
from stanchion.gateway.ports import ExchangeRecord, Outcome, RequestFacts

if TYPE_CHECKING:
    from rich.console import Console

    from stanchion.bootstrap_gateway import GatewayProcess
    from stanchion.core.finding import Finding

_EXPLAINED = {
    Outcome.BLOCKED: "was blocked",
    Outcome.REPLACED: "was answered with a safe completion",
    Outcome.PENDING_APPROVAL: "waits for a person",
    Outcome.SWITCHED_OFF: "was stopped by a switch",
    Outcome.NOT_ADMITTED: "was not admitted",
}
_COLOURS = {
    Outcome.ALLOWED: "green",
    Outcome.REDACTED: "cyan",
    Outcome.CLIENT_GONE: "dim",
    Outcome.UPSTREAM_ERROR: "red",
    Outcome.INTERNAL_ERROR: "red",
    Outcome.DEADLINE: "red",
}
_MOST_FINDINGS = 6
_ASKED = {
    "input": "what the user wrote",
    "system": "the system prompt",
    "retrieved": "a retrieved document",
    "tool_definition": "the definition of a tool",
    "tool_result": "what a tool answered",
    "tool_call": "a tool call of the model",
    "reasoning": "what the model thought",
    "output": "what the model answered",
}


class TerminalView:
    """An observer that prints. `explains` False leaves the blocks out, `is_quiet` the ordinary lines too."""

    def __init__(self, console: Console, *, is_quiet: bool = False) -> None:
        self._console = console
        self._is_quiet = is_quiet
        self._has_warned: set[str] = set()
        self._has_hinted = False

    def started(self, facts: RequestFacts) -> None:
        """Nothing: a request is told of when it is over."""

    def finished(self, record: ExchangeRecord) -> None:
        """Print what became of a request."""
        if record.guard_state == "UNPROTECTED" and record.facts.feature not in self._has_warned:
            self._has_warned.add(record.facts.feature)
            self._console.print(
                f"[bold white on red] UNPROTECTED [/] [red]feature {record.facts.feature!r} has no policy: "
                "nothing of it is checked.[/]"
            )
        if record.outcome in _EXPLAINED:
            self._explain(record, stopping_decision(record))
        elif not self._is_quiet:
            self._console.print(line_of(record), soft_wrap=True)

    def _explain(self, record: ExchangeRecord, decision: Decision | None) -> None:
        from rich.panel import Panel
        from rich.table import Table

        rows = Table.grid(padding=(0, 2))
        rows.add_column(justify="right", style="bold", no_wrap=True)
        rows.add_column(overflow="fold")
        for name, value in explanation(record, decision):
            rows.add_row(name, value)
        if not self._has_hinted:
            self._has_hinted = True
            rows.add_row("", "[dim]The words themselves are not kept; offsets tell where they stood.[/]")
        title = f"{_plain(record.facts.model) or 'a request'} {_EXPLAINED[record.outcome]}"
        self._console.print(Panel(rows, title=title, title_align="left", border_style="yellow", expand=False))


def stopping_decision(record: ExchangeRecord) -> Decision | None:
    """The decision that ended the request: the strictest that was acted on."""
    strictest = max(record.decisions, key=lambda one: one.enforced_effect.rank, default=None)
    if strictest is None or strictest.enforced_effect is Effect.ALLOW:
        return None
    return strictest


def line_of(record: ExchangeRecord) -> str:
    """One line with Rich markup: time, API, model, outcome, milliseconds, tokens."""
    colour = _COLOURS.get(record.outcome, "yellow")
    facts, usage = record.facts, record.usage
    parts = [
        f"[dim]{record.at[11:19]}[/]",
        f"{facts.surface.value:<18}",
        f"{_plain(facts.model):<24}",
        f"[{colour}]{record.outcome.value:<9}[/]",
        f"{record.total_ms:7.0f} ms",
        f"[dim]guard {record.guard_ms:.1f}[/]",
    ]
    if usage.output_tokens is not None:
        parts.append(f"[dim]{usage.input_tokens or 0}+{usage.output_tokens} tokens[/]")
    if facts.is_stream:
        parts.append(f"[dim]stream {record.guarantee}[/]")
    if record.outcome not in (Outcome.ALLOWED, Outcome.REDACTED):
        parts.append(f"[dim]{record.stage.value} {record.error} {record.reference}[/]")
    if record.guard_state != "protecting" and record.guard_state:
        parts.append(f"[bold red]{record.guard_state}[/]")
    return " ".join(parts)


def explanation(record: ExchangeRecord, decision: Decision | None) -> list[tuple[str, str]]:
    """The rows of the block for a request that was stopped: what, and how it was."""
    facts = record.facts
    rows = [("asked", f"{facts.surface.value}, feature {facts.feature}{', streamed' * facts.is_stream}")]
    if decision is not None:
        rows.append(("stopped at", _ASKED.get(decision.surface.value, decision.surface.value)))
        rows.append(("by rule", ", ".join(decision.rule_ids) or decision.reason))
        rows += _found(decision)
        if decision.outcome is not None:
            rows.append(("a check failed", f"and its policy says fail {decision.outcome.value}"))
    if record.switch_id:
        rows.append(("by switch", record.switch_id))
    if not record.tries:
        rows.append(("sent on", "nothing: the model was not asked"))
    rows.append(("reference", record.reference))
    advice = _advice(record, decision)
    return [*rows, ("what now", advice)] if advice else rows


def _found(decision: Decision) -> list[tuple[str, str]]:
    rows = [("found", _finding(finding)) for finding in decision.findings[:_MOST_FINDINGS]]
    more = len(decision.findings) - _MOST_FINDINGS
    return [*rows, ("", f"and {more} more")] if more > 0 else rows


def _finding(finding: Finding) -> str:
    place = finding.location
    where = f"{_plain(place.field)} characters {place.start}-{place.end}"
    return f"{finding.category} by {finding.detector}, score {finding.score:.2f}, {where}"


def _advice(record: ExchangeRecord, decision: Decision | None) -> str:
    if record.outcome is Outcome.SWITCHED_OFF:
        return "See who switched it off, and why: stanchion switch list"
    if record.outcome is Outcome.PENDING_APPROVAL:
        return "A person decides; the client was told to come back."
    if decision is None:
        return ""
    return "Wrongly stopped? POST /v1/feedback with the reference. The rule: stanchion policy show"


def _plain(text: str) -> str:
    """A name of the outside as it may be printed: no control characters, no markup, not endless."""
    return "".join(c if c.isprintable() else "?" for c in text[:60]).replace("[", "\\[")


def greet(console: Console, process: GatewayProcess, url: str) -> None:
    """Say where it listens, what to change in a client, and how well it guards."""
    live = process.gateway.live
    console.print(f"[bold]stanchion[/] serves at [bold]{url}[/]")
    console.print(f"  OpenAI clients     base_url = [cyan]{url}/v1[/]")
    console.print(f"  Anthropic clients  base_url = [cyan]{url}[/]")
    for name, feature in live.features.items():
        if feature.guard_state == "UNPROTECTED":
            console.print(
                f"  [bold white on red] UNPROTECTED [/] [red]feature {name}: no policy, nothing is checked[/]"
            )
            continue
        colour = "green" if feature.guard_state == "protecting" else "yellow"
        policy = feature.guard.policy
        console.print(
            f"  feature {name}: [{colour}]{feature.guard_state}[/] by policy "
            f"{'' if policy is None else policy.name}, streams {feature.guarantee}"
        )
    console.print(f"  records            {process.database.where}")
    if process.admin_address:
        console.print(f"  admin API          http://{process.admin_address}")
    console.print("  [dim]Ctrl-C ends it when the streams in progress are over.[/]")
