"""The one protocol of everything that judges an answer.

A scorer is told the case and the answer, and gives one `Score`. It never passes what it cannot judge: that is
`unscored`, with a reason. What it raises becomes an `error`, in the runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from stanchion.core.finding import Finding
from stanchion.core.interaction import Interaction, Message, Reply
from stanchion.evals.case import Case
from stanchion.evals.results import Concern, Outcome, Score


class Answer(NamedTuple):
    """What a scorer reads: the case, the request as it was sent, and the reply."""

    case: Case
    interaction: Interaction
    reply: Reply

    @property
    def message(self) -> Message:
        """The target's turn."""
        return self.reply.message

    @property
    def text(self) -> str:
        """The words of the reply."""
        return self.reply.message.text


class Scorer(Protocol):
    """Judges one answer."""

    @property
    def id(self) -> str:
        """What a criterion names; unique in a suite."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever a score may change: code, options, data."""
        ...

    @property
    def concern(self) -> Concern:
        """What its scores speak about."""
        ...

    def applies(self, case: Case) -> bool:
        """Whether the case gives it anything to judge; decided before the answer is known."""
        ...

    def score(self, answer: Answer) -> Score:
        """The judgement. Reasons name what was found, never the answer's words."""
        ...


class AsyncScorer(Protocol):
    """The twin for scorers that wait on the outside, such as a judge."""

    @property
    def id(self) -> str:
        """See `Scorer.id`."""
        ...

    @property
    def version(self) -> str:
        """See `Scorer.version`."""
        ...

    @property
    def concern(self) -> Concern:
        """See `Scorer.concern`."""
        ...

    def applies(self, case: Case) -> bool:
        """See `Scorer.applies`."""
        ...

    async def ascore(self, answer: Answer) -> Score:
        """The judgement."""
        ...


AnyScorer = Scorer | AsyncScorer


class Named:
    """The part that all scorers share: identity, and the three shapes a score can take."""

    def __init__(self, scorer_id: str, *, version: str, concern: Concern) -> None:
        self.id = scorer_id
        self.version = version
        self.concern = concern
        self._safe = self._make(Outcome.SAFE, 0.0, "", ())

    def safe(self, reason: str = "", *, findings: tuple[Finding, ...] = ()) -> Score:
        """Nothing is wrong."""
        return self._make(Outcome.SAFE, 0.0, reason, findings) if reason or findings else self._safe

    def unsafe(self, reason: str, *, value: float = 1.0, findings: tuple[Finding, ...] = ()) -> Score:
        """Something is wrong, and this is what."""
        return self._make(Outcome.UNSAFE, value, reason, findings)

    def unscored(self, reason: str) -> Score:
        """It cannot be told, and this is why."""
        return self._make(Outcome.UNSCORED, None, reason, ())

    def _make(
        self, outcome: Outcome, value: float | None, reason: str, findings: tuple[Finding, ...]
    ) -> Score:
        return Score(
            scorer=self.id,
            version=self.version,
            outcome=outcome,
            value=value,
            concern=self.concern,
            reason=reason,
            findings=findings,
        )


def versions(scorers: tuple[AnyScorer, ...]) -> Mapping[str, str]:
    """Scorer id to version, as a run's header keeps it."""
    return {scorer.id: scorer.version for scorer in scorers}
