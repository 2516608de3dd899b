"""What `stanchion eval run` says when cases have no answer: what, why, how to go on; one message a run."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.errors import JudgementError

if TYPE_CHECKING:
    from stanchion.evals.results import Outcome
    from stanchion.evals.rundata import RunData

DEFAULT_RUNS = Path(".stanchion") / "runs"


def trouble(run: RunData, *, resume: str) -> JudgementError | None:
    """The one message about results that are missing; None when every case has an answer.

    Args:
        run: as it ended.
        resume: the command that goes on with it.
    """
    from stanchion.evals.results import Outcome, StopReason

    summary, counts = run.summary, run.summary.counts
    missing = counts.error + counts.skipped
    if counts.total == 0:
        return JudgementError("nothing was asked: the suite has no cases.", hint="Add cases, or a dataset.")
    if not missing and summary.is_complete:
        return _unjudged(run)
    match summary.stopped:
        case StopReason.DEADLINE:
            why = "the deadline came first"
        case StopReason.FINISHED:
            why = _most_common_reason(run, Outcome.ERROR)
        case _:
            why = summary.stop_detail or summary.stopped.value
    return JudgementError(
        f"{missing:,} of {counts.total:,} results are missing: {_as_sentence(why)}",
        hint=f"What was judged is kept. Go on: {resume}",
    )


def _unjudged(run: RunData) -> JudgementError | None:
    """Answers that no scorer could judge, where there is no gate that counts them."""
    from stanchion.evals.results import Outcome

    counts = run.summary.counts
    if not counts.unscored or run.verdict is not None:
        return None
    why = _most_common_reason(run, Outcome.UNSCORED)
    return JudgementError(
        f"{counts.unscored:,} of {counts.total:,} answers could not be judged: {_as_sentence(why)}",
        hint="Give the suite scorers that apply to every case, or the cases what they expect.",
    )


def resume_command(suite: Path, run_id: str, *, target: str | None = None, runs: Path = DEFAULT_RUNS) -> str:
    """The command that goes on with a run, with the options that it was begun with."""
    words = ["stanchion", "eval", "run", str(suite)]
    words += ["--target", target] if target else []
    words += ["--runs", str(runs)] if runs != DEFAULT_RUNS else []
    return shlex.join([*words, "--resume", run_id])


def _most_common_reason(run: RunData, outcome: Outcome) -> str:
    reasons: Counter[str] = Counter()
    for result in run.results():
        if result.outcome is outcome:
            told = next((s.reason for s in result.scores if s.outcome is outcome), "")
            reasons[result.reason or told or result.error or "no reason is known"] += 1
    if len(reasons) < 2:
        return next(iter(reasons), "")
    reason, count = reasons.most_common(1)[0]
    others = len(reasons) - 1
    return f"{reason.removesuffix('.')} ({count:,} of them; {others} other reason{'s' if others > 1 else ''})"


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."
