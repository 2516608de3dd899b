"""Canary, A/B and shadow: which variant a request gets, and what its outcome says about the variant.

Choosing and observing are in memory. Every few seconds counts go to the database, everybody's counts come
back, and the verdict is taken; with `act: true` it is acted on. While the database is away, the last known
state holds and counts wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.errors import StanchionError
from stanchion.gateway.assignment import Line, point
from stanchion.gateway.ports import Assignment, Outcome, RequestFacts, Shadow
from stanchion.gateway.rollout_file import CONTROL, ExperimentModel, RolloutSection, VariantModel
from stanchion.gateway.rollout_store import CountKey, ExperimentState, RolloutStore
from stanchion.gateway.rollout_verdict import Verdict, judge

BLOCKED = frozenset({Outcome.BLOCKED, Outcome.REPLACED, Outcome.PENDING_APPROVAL})
ERRORS = frozenset({Outcome.UPSTREAM_ERROR, Outcome.DEADLINE, Outcome.INTERNAL_ERROR})
# How the others ended was not the variant's doing: refused before it was asked, or the client left.
COUNTED = BLOCKED | ERRORS | {Outcome.ALLOWED, Outcome.REDACTED}
_STICKY = ("tenant", "key", "user", "session", "request")


class _Experiment(msgspec.Struct):
    """An experiment as requests meet it: made anew when its state changes, swapped whole."""

    model: ExperimentModel
    state: ExperimentState | None
    line: Line
    variants: dict[str, VariantModel]


class RolloutHealth(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting` counts have not reached the database yet."""

    failures: int
    waiting: int
    reason: str = ""


class WeightedRollout:
    """See `ports.Rollout`. Without a store the weights of the file hold and nothing is judged."""

    def __init__(self, section: RolloutSection, *, store: RolloutStore | None = None) -> None:
        self.section = section
        self._store = store
        self._experiments = {one.id: _running(one, None) for one in section.experiments}
        self._layers = _layer_lines(section)
        self._counts: dict[CountKey, list[int]] = {}
        self._failures = 0
        self._reason = ""
        self.verdicts: tuple[Verdict, ...] = ()

    @property
    def health(self) -> RolloutHealth:
        """What is shown in readiness and metrics."""
        return RolloutHealth(failures=self._failures, waiting=len(self._counts), reason=self._reason)

    def choose(self, facts: RequestFacts) -> Assignment:
        """See `ports.Rollout.choose`."""
        if not self._experiments:
            return _NOTHING
        names: dict[str, str] = {}
        changes: dict[str, str] = {}
        shadows: list[Shadow] = []
        for one in self._experiments.values():
            model = one.model
            if model.features and facts.feature not in model.features:
                continue
            key = sticky_key(facts, model.sticky)
            if model.layer and self._layers[model.layer].find(point(f"layer:{model.layer}", key)) != model.id:
                continue
            if model.mode == "shadow":
                shadows.extend(_shadows(one, key))
                continue
            chosen = one.line.find(point(f"experiment:{model.id}", key))
            names[model.id] = chosen or CONTROL
            if chosen:
                _take(one.variants[chosen], changes)
        if not names and not shadows:
            return _NOTHING
        return Assignment(variants=names, shadows=tuple(shadows), **changes)

    def observe(
        self, facts: RequestFacts, assignment: Assignment, outcome: Outcome, *, latency_ms: float
    ) -> None:
        """See `ports.Rollout.observe`; counts in memory."""
        if outcome not in COUNTED:
            return
        for name, variant in assignment.variants.items():
            one = self._experiments.get(name)
            if one is None:
                continue
            for metric in one.model.metrics:
                match metric.name:
                    case "blocked":
                        hit = outcome in BLOCKED
                    case "error":
                        hit = outcome in ERRORS
                    case "slow":
                        hit = metric.slow_ms is not None and latency_ms > metric.slow_ms
                    case "feedback_bad":
                        hit = False  # its hits come with the feedback
                self._add(one, variant, metric.name, (int(hit), 1))

    def observe_feedback(self, variants: Mapping[str, str]) -> None:
        """Somebody said that an answer was bad; `variants` are those of its request.

        Feedback that comes after a promotion counts for the new step, where its request does not.
        """
        for name, variant in variants.items():
            one = self._experiments.get(name)
            if one is not None and any(metric.name == "feedback_bad" for metric in one.model.metrics):
                self._add(one, variant, "feedback_bad", (1, 0))

    async def tick(self) -> None:
        """Share counts, take verdicts, act where the file says so."""
        if self._store is None:
            return
        taken, self._counts = self._counts, {}
        try:
            await asyncio.to_thread(self._store.add, {key: (row[0], row[1]) for key, row in taken.items()})
        except StanchionError as error:
            self._put_back(taken)
            self._note(error)
            return
        try:
            found = await asyncio.to_thread(self._judge_all, self._store)
        except StanchionError as error:
            self._note(error)
            return
        self._experiments = {one.model.id: one for one, _ in found}
        self.verdicts = tuple(verdict for _, verdicts in found for verdict in verdicts)

    async def run(self) -> None:
        """`tick` until cancelled; the gateway runs it beside its requests."""
        while True:
            await self.tick()
            await asyncio.sleep(self.section.every_s)

    async def close(self) -> None:
        """Send the last counts."""
        with contextlib.suppress(StanchionError):
            await self.tick()

    def _add(self, one: _Experiment, variant: str, metric: str, more: tuple[int, int]) -> None:
        step = 0 if one.state is None else one.state.step
        row = self._counts.setdefault((one.model.id, one.model.digest, step, variant, metric), [0, 0])
        row[0] += more[0]
        row[1] += more[1]

    def _put_back(self, counts: Mapping[CountKey, list[int]]) -> None:
        for key, (hits, cases) in counts.items():
            row = self._counts.setdefault(key, [0, 0])
            row[0] += hits
            row[1] += cases

    def _note(self, error: StanchionError) -> None:
        self._failures += 1
        self._reason = error.message

    def _judge_all(self, store: RolloutStore) -> list[tuple[_Experiment, tuple[Verdict, ...]]]:
        found: list[tuple[_Experiment, tuple[Verdict, ...]]] = []
        for one in list(self._experiments.values()):
            state = store.register(one.model)
            verdicts = judge(one.model, _capped(store.counts(state)))
            if one.model.act:
                state = self._act(store, state, verdicts)
            found.append((_running(one.model, state), verdicts))
        return found

    def _act(
        self, store: RolloutStore, state: ExperimentState, found: tuple[Verdict, ...]
    ) -> ExperimentState:
        """Harm first; then at most one promotion, because it changes what the others are compared with."""
        running = [one for one in found if state.variants[one.variant].status == "running"]
        for verdict in sorted(running, key=lambda one: one.action != "rollback"):
            if verdict.action == "rollback":
                store.roll_back(state, verdict.variant, by="system", reason=verdict.reason)
            elif verdict.action == "promote":
                store.promote(state, verdict.variant, by="system", reason=verdict.reason)
            else:
                continue
            return store.get(state.experiment)
        return state


def sticky_key(facts: RequestFacts, sticky: str) -> str:
    """What keeps a variant: the wanted id, or the next narrower one that is known."""
    known = {
        "tenant": facts.tenant,
        "key": facts.key_id,
        "user": facts.user_key,
        "session": facts.session_id,
        "request": facts.id,
    }
    for name in _STICKY[_STICKY.index(sticky) :]:
        if known[name]:
            return f"{name}:{known[name]}"
    return ""


_NOTHING = Assignment()


def make_rollout(section: RolloutSection, *, store: RolloutStore | None = None) -> WeightedRollout:
    """The rollout of a section."""
    return WeightedRollout(section, store=store)


def _capped(totals: Mapping[tuple[str, str], tuple[int, int]]) -> dict[tuple[str, str], tuple[int, int]]:
    """Counts with no more hits than cases: feedback may come twice, or before its request is counted."""
    return {key: (min(hits, cases), cases) for key, (hits, cases) in totals.items()}


def _running(model: ExperimentModel, state: ExperimentState | None) -> _Experiment:
    variants = {variant.id: variant for variant in model.variants}
    weights = [
        (name, variant.weight if state is None else state.variants[name].weight)
        for name, variant in variants.items()
    ]
    return _Experiment(model, state, Line(weights), variants)


def _layer_lines(section: RolloutSection) -> dict[str, Line]:
    layers: dict[str, list[tuple[str, float]]] = {}
    for one in section.experiments:
        if one.layer:
            layers.setdefault(one.layer, []).append((one.id, one.share))
    return {name: Line(weights) for name, weights in layers.items()}


def _shadows(one: _Experiment, key: str) -> list[Shadow]:
    return [
        Shadow(experiment=one.model.id, variant=v.id, model=v.model, prompt=v.prompt, policy=v.policy)
        for v in one.model.variants
        if point(f"shadow:{one.model.id}:{v.id}", key) < v.weight
    ]


def _take(variant: VariantModel, changes: dict[str, Any]) -> None:
    """What a variant changes; of two experiments that change the same thing, the first of the file holds."""
    for name in ("model", "prompt", "policy"):
        value = getattr(variant, name)
        if value and name not in changes:
            changes[name] = value
