"""Under which conditions a suite is run: the settings, and the header that records them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.codec import Digest, digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.core.target import Target
from stanchion.evals.case import Case
from stanchion.evals.pace import PaceSettings
from stanchion.evals.results import RunHeader, TargetKind
from stanchion.evals.scorers.scorer import AnyScorer


class CaseSource(Protocol):
    """What the runner needs of a suite."""

    @property
    def id(self) -> str:
        """The suite's name."""
        ...

    @property
    def digest(self) -> Digest:
        """The suite's identity."""
        ...

    @property
    def planned(self) -> int | None:
        """How many cases there are; None when that is not known beforehand."""
        ...

    def cases(self) -> Iterator[Case]:
        """The cases in their order, streaming; the same each time."""
        ...


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a suite is run. None means no cap.

    `timeout_s` is per attempt. `give_up_after` cases in a row without an answer the run ends: the target is
    taken to be down. `transcript_share` of the cases without a failure keep their words too.
    """

    repeats: int = 1
    seed: int = 0
    pace: PaceSettings = PaceSettings()
    timeout_s: float = 120.0
    deadline_s: float | None = None
    max_cost_usd: float | None = None
    max_attempts: int = 4
    give_up_after: int = 20
    first_wait_s: float = 0.5
    transcript_share: float = 0.01
    environment: str = "dev"


def make_header(
    source: CaseSource,
    target: Target,
    *,
    scorers: Iterable[AnyScorer],
    settings: RunSettings,
    clock: Clock,
    ids: Ids,
    kind: TargetKind = TargetKind.REAL,
    components: ComponentSet | None = None,
    version: str = "",
    notes: tuple[str, ...] = (),
) -> RunHeader:
    """What is known before the first case. `components` are the suite's own parts (prompt, tools, index)."""
    named = {scorer.id: scorer.version for scorer in scorers}
    made_of = target.components.merged(components or ComponentSet())
    return RunHeader(
        run_id=ids.new("run"),
        suite_id=source.id,
        suite_digest=source.digest,
        target_id=target.id,
        components=made_of.merged(ComponentSet(suite=source.digest, detectors=digest(named))),
        started_at=clock.now(),
        seed=settings.seed,
        environment=settings.environment,
        planned=None if source.planned is None else source.planned * settings.repeats,
        settings_digest=digest({"repeats": settings.repeats, "seed": settings.seed, "scorers": named}),
        target_kind=kind,
        scorers=named,
        repeats=settings.repeats,
        stanchion_version=version,
        notes=notes,
    )


def check_resumable(old: RunHeader, new: RunHeader) -> None:
    """Refuse to go on with a run under other conditions.

    Raises:
        UsageError: naming every part that is not as it was.
    """
    parts = {
        "suite": (old.suite_digest, new.suite_digest),
        "target": (old.target_id, new.target_id),
        "settings or scorers": (old.settings_digest, new.settings_digest),
        "kind of target": (old.target_kind, new.target_kind),
    }
    changed = [name for name, (before, now) in parts.items() if before != now]
    changed += [kind.value for kind in new.components.changed_from(old.components) if kind != "suite"]
    if changed:
        raise UsageError(
            f"run {old.run_id} cannot go on: {', '.join(changed)} changed since it began.",
            hint="Start a new run; answers that are still valid come from the cache.",
        )
