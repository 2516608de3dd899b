"""The configuration that requests live under: made whole, swapped whole, never changed.

A request keeps the one it began under, so that a reload drops no stream and mixes no two policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stanchion.core.clock import Clock, Ids
from stanchion.core.components import ComponentSet
from stanchion.gateway.ports import (
    Access,
    Admission,
    Approvals,
    Breaker,
    Limits,
    Observer,
    Rollout,
    Switches,
)

if TYPE_CHECKING:
    from stanchion.gateway.feedback import FeedbackDesk
    from stanchion.gateway.flag_steering import FlagSteering
    from stanchion.gateway.notices_file import NoticesModel
    from stanchion.gateway.penalties import BlockList
    from stanchion.gateway.prompts_registry import PromptRegistry
    from stanchion.gateway.record import Recorder
    from stanchion.gateway.session_calls import SessionCalls
    from stanchion.gateway.upstream import Fallback, Models
    from stanchion.guard.pipeline import Guard
    from stanchion.store.identity import IdKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What one feature's requests are held to.

    `on_route` is what the rules' effect `route` does. `approval_wait_s` is how long a client is kept waiting
    for a person before it gets the pending state.
    `records_first` says that the record is on disk before the last byte of the answer leaves. `weaker` is,
    for a feature under the policy of a variant that is shown, every setting in which that is weaker.
    """

    name: str
    guard: Guard
    guarantee: str
    guard_state: str
    guard_version: str
    components: ComponentSet
    deadline_s: float = 120.0
    max_body_bytes: int = 4 * 1024 * 1024
    approval_wait_s: float = 0.0
    on_route: Fallback | None = None
    notices: NoticesModel | None = None
    records_first: bool = False
    weaker: tuple[str, ...] = ()


def variant_name(feature: str, policy: str) -> str:
    """The key of `Live.variants`: a feature under another policy."""
    return f"{feature}/{policy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of the gateway that were configured; None: not configured, and therefore not asked."""

    access: Access | None = None
    switches: Switches | None = None
    limits: Limits | None = None
    blocks: BlockList | None = None
    breaker: Breaker | None = None
    rollout: Rollout | None = None
    admission: Admission | None = None
    approvals: Approvals | None = None
    prompts: PromptRegistry | None = None
    feedback: FeedbackDesk | None = None
    flags: FlagSteering | None = None
    calls: SessionCalls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One configuration. `is_local`: only this machine can reach the gateway.

    `metrics` says who may read `/metrics` (`loopback`, `open`, `off`). `trace_share` is the share of new
    traces that is sampled; None: no spans are made. `variants` are features under the policies of
    experiments, by `variant_name`. `needs_restart` names settings that the file has otherwise by
    now, and that are read at the start only.
    """

    environment: str
    features: Mapping[str, Feature]
    default_feature: str
    models: Models
    clock: Clock
    ids: Ids
    id_keys: IdKeys
    parts: Parts = Parts()
    observers: tuple[Observer, ...] = ()
    recorder: Recorder | None = None
    is_local: bool = True
    body_timeout_s: float = 15.0
    max_header_bytes: int = 32 * 1024
    digest: str = ""
    trace_share: float | None = None
    metrics: str = "loopback"
    variants: Mapping[str, Feature] = field(default_factory=dict)
    needs_restart: tuple[str, ...] = ()

    @property
    def weaker_variants(self) -> dict[str, Feature]:
        """The variants that lower a feature's protection, by `variant_name`."""
        return {name: one for name, one in self.variants.items() if one.weaker}
