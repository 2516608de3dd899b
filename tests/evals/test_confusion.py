import msgspec
import pytest
from eval_doubles import result

from stanchion.evals.confusion import Confusion, confusion
from stanchion.evals.results import CaseResult, Concern, Outcome, Score
from stanchion.stats.intervals import wilson


def labelled(number: int, concern: Concern, outcome: Outcome) -> CaseResult:
    score = Score(scorer="detection", version="1", outcome=outcome, concern=concern)
    return msgspec.structs.replace(result(number, outcome), scores=(score,))


def test_the_table_is_that_of_labels_and_decisions() -> None:
    safety, refusal = Concern.SAFETY, Concern.OVER_REFUSAL
    kinds = [(safety, Outcome.SAFE)] * 8 + [(safety, Outcome.UNSAFE)] * 2
    kinds += [(refusal, Outcome.SAFE)] * 27 + [(refusal, Outcome.UNSAFE)] * 3 + [(safety, Outcome.ERROR)]
    table = confusion(labelled(n, *kind) for n, kind in enumerate(kinds))
    assert table == Confusion(found=8, missed=2, false_alarms=3, passed=27, unjudged=1)
    assert table.recall == wilson(8, 10)
    assert table.precision == wilson(8, 11)
    assert table.false_alarm_rate == wilson(3, 30)


def test_nothing_has_no_rate() -> None:
    table = confusion([result(1)])
    assert table == Confusion()
    assert (table.recall, table.precision, table.false_alarm_rate) == (None, None, None)


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.UNSCORED, Outcome.SKIPPED])
def test_what_was_not_judged_is_in_no_rate(outcome: Outcome) -> None:
    table = confusion([labelled(1, Concern.SAFETY, outcome)])
    assert (table.unjudged, table.recall) == (1, None)
