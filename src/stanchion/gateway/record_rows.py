"""The rows that a record of a request becomes: what many requests share, and what each has for itself.

What was looked at once is not looked at again: names, people and endings are few, and in every record.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.interaction import FinishReason
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, Stage, UpstreamTry
from stanchion.store.identity import check_plain, is_plain
from stanchion.store.interactions import Ending, row_values
from stanchion.store.kept_decisions import kept
from stanchion.store.records import Traffic, check_names, check_people
from stanchion.store.times import to_us

if TYPE_CHECKING:
    from stanchion.store.bulk import Row

_encode = msgspec.json.Encoder(order="sorted").encode


class _Detail(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What has no column of its own; the fields stand in the order of JSON with sorted keys."""

    flags: str = ""
    guard_ms: float = 0.0
    guard_version: str = ""
    is_gated: bool | None = None
    manifest: dict[str, int] = msgspec.field(default_factory=dict)
    prompt: str = ""
    reference: str = ""
    switch_version: int = 0
    trace_id: str = ""
    tries: tuple[UpstreamTry, ...] = ()
    ungated: str = ""
    unknown_events: dict[str, int] = msgspec.field(default_factory=dict)
    variants: dict[str, str] = msgspec.field(default_factory=dict)


def rows_of(record: ExchangeRecord) -> tuple[Row | None, Row]:
    """The rows of interaction and exchange; no interaction where nothing was decided and nobody was asked.

    A set that passed no gate and is blocked for it has one, for its component set.

    Raises:
        UsageError: for what does not have the form of an id where there is an interaction.
    """
    facts = record.facts
    key = (facts.id, to_us(datetime.fromisoformat(record.at)))
    surface, outcome, stage, labels = _ends(facts.surface, record.outcome, record.stage)
    is_interaction = record.decisions or record.tries or record.ungated == "block"
    interaction = _interaction(record, key, labels) if is_interaction else None
    detail = _Detail(
        record.flags,
        round(record.guard_ms, 3),
        facts.guard_version,
        record.is_gated,
        record.manifest,
        facts.prompt,
        record.reference,
        record.switch_version,
        facts.trace_id,
        record.tries,
        record.ungated,
        record.unknown_events,
        record.variants,
    )
    exchange = (
        (
            surface,
            outcome,
            stage,
            facts.feature,
            facts.environment,
            _recorded_model(facts.model),
            facts.provider,
            record.status,
            1 if facts.is_stream else 0,
            record.manifest.get("did_not_run", 0),
            record.guard_state,
            record.guarantee,
            record.switch_id,
            record.error,
        ),
        (
            *key,
            facts.key_id,
            record.total_ms,
            record.upstream_ms,
            record.first_byte_ms,
            _encode(detail).decode(),
        ),
    )
    return interaction, exchange


def _interaction(record: ExchangeRecord, key: tuple[str, int], labels: str) -> Row:
    facts = record.facts
    people = (facts.session_id, facts.tenant, facts.user_key)
    check_plain("id", facts.id)
    check_people(*people)
    return row_values(
        _names(facts.environment, facts.feature, facts.traffic, facts.model),
        people,
        key=key,
        components=record.components,
        decided=kept(record.decisions, policy=record.components.policy),
        ending=_ending(record.finish_reason, labels),
        usage=record.usage,
        latency_ms=record.total_ms,
    )


@lru_cache(maxsize=1024)
def _names(environment: str, feature: str, traffic: str, asked: str) -> tuple[str, str, str, str]:
    """What a record says of where a request belongs."""
    model = _recorded_model(asked)
    check_names(environment, feature, model)
    return environment, feature, str(Traffic(traffic)), model


@lru_cache(maxsize=1024)
def _recorded_model(model: str) -> str:
    """The name of a model, where it has the form of a name."""
    return model if is_plain(model) else ""


@lru_cache(maxsize=1024)
def _ends(surface: ApiSurface, outcome: Outcome, stage: Stage) -> tuple[str, str, str, str]:
    """Where a request came in, how and where it ended, and the labels of its interaction."""
    labels = {"surface": str(surface), "outcome": str(outcome)}
    return str(surface), str(outcome), str(stage), _encode(labels).decode()


@lru_cache(maxsize=1024)
def _ending(finish_reason: FinishReason, labels: str) -> Ending:
    return Ending(str(finish_reason), labels)
