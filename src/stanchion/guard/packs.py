"""The detectors of content packs in a policy."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.decision import Mode
from stanchion.guard.policy_model import DetectorSettings, Policy


def with_packs(policy: Policy, registry: Any) -> Policy:
    """The policy with the detectors of the packs that the registry knows.

    What the policy itself says of such a detector holds, but one that is shadowed stays so.
    """
    active = getattr(registry, "active_packs", ())
    if not active:
        return policy
    detectors = dict(policy.detectors)
    for one in active:
        settings = detectors.get(one.id, DetectorSettings())
        detectors[one.id] = msgspec.structs.replace(settings, mode=Mode.SHADOW) if one.shadowed else settings
    return msgspec.structs.replace(policy, detectors=detectors)
