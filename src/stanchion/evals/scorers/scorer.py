"""The one protocol of everything that judges an answer.

A scorer is told the case and the answer, and gives one `Score`. It never passes what it cannot judge: that is
`unscored`, with a reason. What it raises becomes an `error`, in the runner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from stanchion.core.finding import Finding
from stanchion.core.interaction import Interaction, Message, Reply, ToolCall
from stanchion.core.taxonomy import matches
from stanchion.evals.case import Case
from stanchion.evals.results import Concern, Outcome, Score


class Answer(NamedTuple):
    """What a scorer reads: the case, the exchange as it ended, and the reply."""

    case: Case
    interaction: Interaction
    reply: Reply

    @property
    def message(self) -> Message:
        """The target's last turn."""
        return self.reply.message

    @property
    def text(self) -> str:
        """The words of the reply."""
        return self.reply.message.text

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Every tool call that was made: in turns that the target added, then in the reply."""
        added = self.interaction.messages[len(self.case.messages) :]
        return (*(call for message in added for call in message.tool_calls), *self.reply.message.tool_calls)


def call_text(call: ToolCall) -> str:
    """A call's arguments as a text to search in."""
    if call.arguments is None:
        return call.raw_arguments or ""
    return json.dumps(call.arguments, ensure_ascii=False)


def said(answer: Answer) -> str:
    """Everything the target said or did: its words, then its tool calls' arguments."""
    calls = answer.calls
    return "\n".join([answer.text, *map(call_text, calls)]) if calls else answer.text


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

    def concern_for(self, case: Case) -> Concern:
        """What its score of this case will speak about."""
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

    def concern_for(self, case: Case) -> Concern:
        """See `Scorer.concern_for`."""
        ...

    def applies(self, case: Case) -> bool:
        """See `Scorer.applies`."""
        ...

    async def ascore(self, answer: Answer) -> Score:
        """The judgement."""
        ...


AnyScorer = Scorer | AsyncScorer


class Selection(NamedTuple):
    """Which cases a scorer is used for; every given field must hold, each by any of its values."""

    category: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()

    def covers(self, case: Case) -> bool:
        """Whether the case is one of them."""
        if self.category and not any(matches(selector, case.category) for selector in self.category):
            return False
        if self.tags and not set(self.tags) & set(case.tags):
            return False
        return not set(self.without_tags) & set(case.tags)


EVERYTHING = Selection()


class Named:
    """The part that all scorers share: identity, selection, and the three shapes a score can take."""

    def __init__(
        self, scorer_id: str, *, version: str, concern: Concern, selection: Selection = EVERYTHING
    ) -> None:
        self.id = scorer_id
        self.version = version
        self.concern = concern
        self._selection = selection
        self._safe = self._make(Outcome.SAFE, 0.0, "", ())

    def concern_for(self, case: Case) -> Concern:
        """The same for every case."""
        return self.concern

    def applies(self, case: Case) -> bool:
        """Whether the case is selected and says what this scorer reads."""
        return (self._selection is EVERYTHING or self._selection.covers(case)) and self.can_judge(case)

    def can_judge(self, case: Case) -> bool:
        """Whether the case says what this scorer reads."""
        return True

    def select(self, selection: Selection) -> None:
        """Use the scorer for these cases only; before the run."""
        self._selection = selection

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
