"""Small real targets and sources that several tests of evals share."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.core.interaction import Interaction, Reply, assistant, user
from stanchion.core.target import Target
from stanchion.evals.case import Case, Expectation, case_id, content_digest
from stanchion.evals.conditions import RunSettings, make_header
from stanchion.evals.results import CaseResult, Outcome, RunHeader, Score
from stanchion.evals.scorers.scorer import AnyScorer
from stanchion.evals.scorers.text import ExcludesScorer

BAD = "forbidden"


def make_case(number: int, *, category: str = "probe", **more: object) -> Case:
    question = user(f"question {number}")
    own = content_digest({"messages": [question]})
    return Case(
        id=f"case-{number:05}",
        digest=own,
        messages=(question,),
        expect=Expectation(excludes=(BAD,)),
        category=category,
        **more,  # type: ignore[arg-type]
    )


@dataclass
class ListSource:
    """Cases in memory."""

    items: list[Case]
    id: str = "listed"

    @property
    def digest(self) -> str:
        return digest([case.id for case in self.items])

    @property
    def planned(self) -> int | None:
        return len(self.items)

    def cases(self) -> Iterator[Case]:
        return iter(self.items)


def numbered(count: int) -> ListSource:
    return ListSource([make_case(number) for number in range(count)])


@dataclass
class FunctionTarget:
    """A target from an async function; remembers what it was asked."""

    answer: Callable[[str], Awaitable[str]]
    id: str = "function"
    components: ComponentSet = field(default_factory=ComponentSet)
    asked: list[str] = field(default_factory=list)

    async def invoke(self, interaction: Interaction) -> Interaction:
        text = interaction.messages[-1].text
        self.asked.append(text)
        return msgspec.structs.replace(interaction, reply=Reply(message=assistant(await self.answer(text))))

    async def aclose(self) -> None:
        return None


async def harmless(_: str) -> str:
    return "fine"


def header_for(
    source: ListSource,
    target: Target,
    scorers: tuple[AnyScorer, ...] = (),
    settings: RunSettings | None = None,
) -> RunHeader:
    return make_header(
        source,
        target,
        scorers=scorers or (ExcludesScorer(),),
        settings=settings or RunSettings(),
        clock=ManualClock(datetime(2026, 3, 1, tzinfo=UTC)),
        ids=CountingIds(),
    )


def result(
    number: int, outcome: Outcome = Outcome.SAFE, *, category: str = "probe", **more: object
) -> CaseResult:
    value = float(outcome is Outcome.UNSAFE) if outcome.is_judged else None
    score = Score(scorer="excludes", version="1", outcome=outcome, value=value)
    return CaseResult(
        case_id=f"case-{number:05}",
        case_digest=digest(number),
        outcome=outcome,
        category=category,
        scores=(score,),
        **more,  # type: ignore[arg-type]
    )


__all__ = [
    "BAD",
    "FunctionTarget",
    "ListSource",
    "case_id",
    "harmless",
    "header_for",
    "make_case",
    "numbered",
    "result",
]
