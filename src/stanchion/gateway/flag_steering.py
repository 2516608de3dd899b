"""What flags of another system change of a request: they stop, hold back, and choose what the file allows.

A switch goes before every flag. A flag gives nobody a variant that the rollout did not, and chooses no policy
that is weaker than the feature's.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from stanchion.gateway.admission import Ungated
from stanchion.gateway.assignment import point
from stanchion.gateway.flags_file import AS_ASKED, UNGATED_FLAG
from stanchion.gateway.ports import Assignment, RequestFacts

FLAG = "flag:"  # before the name of a flag, among the variants of a record


class Flags(Protocol):
    """The flags in memory; see `integrations.flag_readings.SafeFlags`. No method waits or raises."""

    @property
    def version(self) -> str:
        """A digest of every value that holds now, the safe ones among them."""
        ...

    def declared(self, key: str) -> bool:
        """Whether the file names it."""
        ...

    def share(self, key: str) -> float:
        """A share in [0, 1]."""
        ...

    def text(self, key: str) -> str:
        """One of the values that the file names."""
        ...

    def unsafe(self) -> dict[str, str]:
        """The flags whose safe value holds now, and why."""
        ...

    def stop(self) -> None:
        """Read no more."""
        ...


class FlagSteering:
    """Applies the flags to requests."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags

    @property
    def version(self) -> str:
        """What the record keeps, to know later which values held."""
        return self.flags.version

    @property
    def ungated_is_steered(self) -> bool:
        """Whether a flag says what becomes of ungated component sets."""
        return self.flags.declared(UNGATED_FLAG)

    def ungated(self) -> Ungated:
        """What the flag says of ungated component sets."""
        return Ungated(self.flags.text(UNGATED_FLAG))

    def steer(self, facts: RequestFacts, chosen: Assignment | None) -> Assignment | None:
        """The assignment with what flags change of it.

        A request that a flag holds back from one of its experiments, or for which a flag chooses what a
        variant would change, takes part in none: it is no fair member of either arm, and is not counted.
        """
        model, policy = self._choice(facts, "model"), self._choice(facts, "policy")
        if model == AS_ASKED:
            model = ""
        if chosen is not None:
            is_taken = (model and chosen.model) or (policy and chosen.policy)
            if is_taken or any(self._is_held_back(name, facts) for name in _experiments(chosen)):
                chosen = Assignment()
        told: dict[str, str] = {}
        if model:
            told[f"{FLAG}feature.{facts.feature}.model"] = model
        if policy:
            told[f"{FLAG}feature.{facts.feature}.policy"] = policy
        if not told:
            return chosen
        before = chosen or Assignment()
        return msgspec.structs.replace(
            before,
            variants={**before.variants, **told},
            model=model or before.model,
            policy=policy or before.policy,
        )

    def _choice(self, facts: RequestFacts, what: str) -> str:
        key = f"feature.{facts.feature}.{what}"
        return self.flags.text(key) if self.flags.declared(key) else ""

    def _is_held_back(self, experiment: str, facts: RequestFacts) -> bool:
        key = f"rollout.{experiment}.share"
        return self.flags.declared(key) and point(key, _sticky(facts)) >= self.flags.share(key)

    def said(self) -> dict[str, Any]:
        """How the flags stand, for readiness: the version, and how many are at their safe value."""
        return {"version": self.version, "at_safe_value": sorted(self.flags.unsafe())}


def _experiments(chosen: Assignment) -> set[str]:
    return {*chosen.variants, *(shadow.experiment for shadow in chosen.shadows)}


def _sticky(facts: RequestFacts) -> str:
    known = (facts.user_key, facts.session_id, facts.tenant, facts.key_id, facts.id)
    return next((each for each in known if each), "")
