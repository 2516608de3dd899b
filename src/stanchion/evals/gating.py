"""From a run in its folder to its verdict: finds the baselines that criteria ask for, then asks the gate."""

from __future__ import annotations

from collections.abc import Sequence

from stanchion.core.clock import Clock
from stanchion.core.errors import IntegrityError, StanchionError
from stanchion.evals.comparison import paired_for
from stanchion.evals.criteria import CriterionModel
from stanchion.evals.gate import GateContext, Missing, Paired, gate
from stanchion.evals.run_suite import open_run
from stanchion.evals.rundata import RunData
from stanchion.evals.runlog import RunFolder
from stanchion.evals.verdict import Verdict


def judge_run(run: RunData, criteria: Sequence[CriterionModel], *, runs: RunFolder, clock: Clock) -> Verdict:
    """The verdict on a run; a baseline that cannot be had makes its criterion INVALID, never a pass.

    Raises:
        IntegrityError: when the log of the run, or of a baseline, was changed.
    """
    paired = {
        criterion.name: _paired(criterion, run, runs)
        for criterion in criteria
        if criterion.baseline is not None
    }
    context = GateContext(
        header=run.header, summary=run.summary, now=clock.now(), paired=paired, notes=run.header.notes
    )
    return gate(run.results(), criteria, context)


def _paired(criterion: CriterionModel, run: RunData, runs: RunFolder) -> Paired:
    name = criterion.baseline.run if criterion.baseline is not None else ""
    try:
        before = open_run(runs.find(name))
    except IntegrityError:
        raise
    except StanchionError as error:
        return Missing(reason=f"the baseline cannot be had: {error.message}")
    return paired_for(criterion, before, run)
