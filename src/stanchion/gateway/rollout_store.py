"""What all workers share of a rollout: how far each experiment is, and the counts. Every act is audited.

An act is one conditional update on the revision that its verdict was taken at, with its audit entry in the
same transaction: of several workers with the same verdict, one acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.gateway.rollout_file import ExperimentModel
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

CountKey = tuple[str, str, int, str, str]  # experiment, digest, step, variant, metric


class VariantState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a variant is: `running`, `promoted` or `rolled_back`, and its weight now."""

    status: str = "running"
    weight: float = 0.0


class ExperimentState(msgspec.Struct, frozen=True, kw_only=True):
    """How far an experiment is. `step` counts the promotions; counts are kept by step."""

    experiment: str
    digest: str
    definition: dict[str, Any]
    variants: dict[str, VariantState]
    step: int = 0
    revision: int = 1
    at_us: int = 0
    set_by: str = ""
    reason: str = ""

    @property
    def model(self) -> ExperimentModel:
        """The definition as it was when it was first seen."""
        return ExperimentModel.model_validate_json(msgspec.json.encode(self.definition), strict=True)


class _Saved(msgspec.Struct):
    step: int
    variants: dict[str, VariantState]


class RolloutStore:
    """The states and counts of one database."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._log = AuditLog(database, clock=clock)

    def register(self, experiment: ExperimentModel) -> ExperimentState:
        """The state of an experiment; made when it is new, begun anew when its definition is another."""
        import sqlalchemy as sa

        from stanchion.store.tables import insert_if_new
        from stanchion.store.tables import rollouts as t

        mine = sa.select(t).where(t.c.experiment == experiment.id).with_for_update()
        with self._database.write() as connection:
            row = connection.execute(mine).first()
            if row is None:
                values = self._values(_fresh(experiment, revision=1), by="system", reason="started")
                made = insert_if_new(connection, t).values(values).returning(t.c.experiment)
                if connection.execute(made).first() is not None:  # a driver need not count what it inserts
                    fresh = _fresh(experiment, revision=1)
                    self._audit(connection, "rollout.started", fresh, by="system", reason="started")
                row = connection.execute(mine).one()  # another worker may have been first
            if row.digest == experiment.digest:
                return _state(row)
            fresh = _fresh(experiment, revision=row.revision + 1)
            values = self._values(fresh, by="system", reason="started")
            connection.execute(t.update().where(t.c.experiment == experiment.id).values(values))
            self._audit(connection, "rollout.started", fresh, by="system", reason="started")
        return self.get(experiment.id)

    def get(self, experiment: str) -> ExperimentState:
        """How far an experiment is.

        Raises:
            UnknownNameError: when no worker has seen it yet.
        """
        states = {state.experiment: state for state in self.states()}
        if experiment not in states:
            raise UnknownNameError("experiment", experiment, states)
        return states[experiment]

    def states(self) -> list[ExperimentState]:
        """All experiments by name."""
        import sqlalchemy as sa

        from stanchion.store.tables import rollouts as t

        with self._database.read() as connection:
            return [_state(row) for row in connection.execute(sa.select(t).order_by(t.c.experiment))]

    def add(self, counts: Mapping[CountKey, tuple[int, int]]) -> None:
        """Add (hits, cases) of this worker to everybody's."""
        from stanchion.store.tables import insert_if_new
        from stanchion.store.tables import rollout_counts as t

        if not counts:
            return
        with self._database.write() as connection:
            for key, (hits, cases) in sorted(counts.items()):  # one order for all: no deadlock
                names = dict(zip(("experiment", "digest", "step", "variant", "metric"), key, strict=True))
                connection.execute(insert_if_new(connection, t).values(hits=0, cases=0, **names))
                connection.execute(
                    t.update()
                    .where(*(t.c[name] == value for name, value in names.items()))
                    .values(hits=t.c.hits + hits, cases=t.c.cases + cases)
                )

    def counts(self, state: ExperimentState) -> dict[tuple[str, str], tuple[int, int]]:
        """(hits, cases) by variant and metric, of the present step."""
        import sqlalchemy as sa

        from stanchion.store.tables import rollout_counts as t

        statement = sa.select(t).where(
            t.c.experiment == state.experiment, t.c.digest == state.digest, t.c.step == state.step
        )
        with self._database.read() as connection:
            return {(r.variant, r.metric): (r.hits, r.cases) for r in connection.execute(statement)}

    def promote(self, state: ExperimentState, variant: str, *, by: str, reason: str) -> bool:
        """Give a variant its next weight, at the last step for good; False when another act came first."""
        model = state.model
        _known(model, variant)
        steps = model.steps or (1.0,)
        weight = steps[min(state.step, len(steps) - 1)]
        is_last = state.step >= len(steps) - 1
        others = {} if not is_last else {name: VariantState(status="rolled_back") for name in state.variants}
        mine = VariantState(status="promoted" if is_last else "running", weight=weight)
        variants = {**state.variants, **others, variant: mine}
        kind = "rollout.promoted" if is_last else "rollout.stepped"
        after = msgspec.structs.replace(state, variants=variants, step=state.step + 1)
        return self._act(state, after, kind=kind, by=by, reason=reason)

    def roll_back(self, state: ExperimentState, variant: str, *, by: str, reason: str) -> bool:
        """Take a variant out; False when another act came first."""
        _known(state.model, variant)
        variants = {**state.variants, variant: VariantState(status="rolled_back")}
        after = msgspec.structs.replace(state, variants=variants)
        return self._act(state, after, kind="rollout.rolled_back", by=by, reason=reason)

    def _act(
        self, before: ExperimentState, after: ExperimentState, *, kind: str, by: str, reason: str
    ) -> bool:
        from stanchion.store.tables import rollouts as t

        after = msgspec.structs.replace(after, revision=before.revision + 1)
        with self._database.write() as connection:
            changed = connection.execute(
                t.update()
                .where(t.c.experiment == before.experiment, t.c.revision == before.revision)
                .values(self._values(after, by=by, reason=reason))
            ).rowcount
            if changed:
                self._audit(connection, kind, after, by=by, reason=reason)
        return bool(changed)

    def _values(self, state: ExperimentState, *, by: str, reason: str) -> dict[str, Any]:
        return {
            "experiment": state.experiment,
            "digest": state.digest,
            "definition": msgspec.json.encode(state.definition, order="sorted").decode(),
            "state": msgspec.json.encode(_Saved(state.step, state.variants), order="sorted").decode(),
            "revision": state.revision,
            "at_us": to_us(self._clock.now()),
            "set_by": by,
            "reason": reason[:500],
        }

    def _audit(
        self, connection: sa.Connection, kind: str, state: ExperimentState, *, by: str, reason: str
    ) -> None:
        payload = {
            "experiment": state.experiment,
            "digest": state.digest,
            "revision": state.revision,
            "step": state.step,
            "weights": {name: f"{one.weight:g}" for name, one in state.variants.items()},
            "statuses": {name: one.status for name, one in state.variants.items()},
            "reason": reason[:500],
        }
        self._log.append_within(connection, [NewEntry(kind=kind, payload=payload, actor=by)])


def _fresh(experiment: ExperimentModel, *, revision: int) -> ExperimentState:
    return ExperimentState(
        experiment=experiment.id,
        digest=experiment.digest,
        definition=experiment.model_dump(mode="json"),
        variants={variant.id: VariantState(weight=variant.weight) for variant in experiment.variants},
        revision=revision,
    )


def _known(model: ExperimentModel, variant: str) -> None:
    ids = [one.id for one in model.variants]
    if variant not in ids:
        raise UnknownNameError("variant", variant, ids)
    if model.mode == "shadow":
        raise UsageError("a shadow is never shown, so it can be neither promoted nor rolled back.")


def _state(row: Any) -> ExperimentState:
    saved = msgspec.json.decode(row.state, type=_Saved)
    return ExperimentState(
        experiment=row.experiment,
        digest=row.digest,
        definition=msgspec.json.decode(row.definition),
        variants=saved.variants,
        step=saved.step,
        revision=row.revision,
        at_us=row.at_us,
        set_by=row.set_by,
        reason=row.reason,
    )
