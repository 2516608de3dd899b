"""Admission: whether the component set of a request is on the signed list of gated sets.

Governance writes the list after a release's gate has passed; the gateway reads it like the switches. What is
not known to be gated counts as ungated, an unreadable list included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest, is_digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.gateway.actor import Actor
from stanchion.gateway.control_document import ControlKind, body_of
from stanchion.gateway.control_reader import ControlReader, Trust, Update
from stanchion.gateway.control_store import Change, ControlStore, Published
from stanchion.gateway.ports import AdmissionAnswer, RequestFacts
from stanchion.store.times import to_us

MAX_SETS = 50_000
_CACHE = 4096
_replace = msgspec.structs.replace


class Ungated(StrEnum):
    """What happens to a request whose component set was not gated."""

    ALLOW = "allow"
    WARN = "warn"
    BLOCK = "block"


class GatedSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One component set that passed its gate. `feature` empty: for any; `verdict` is the gate's digest."""

    components: Digest
    feature: str = ""
    verdict: Digest = ""
    gated_at_us: int = 0
    gated_by: str = ""
    expires_at_us: int | None = None


class AdmissionState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole list."""

    sets: tuple[GatedSet, ...] = ()


def admitted_digest(components: ComponentSet) -> Digest:
    """What is looked up: the set without its suite, which is what it was tested with and not what it is."""
    return _replace(components, suite="").digest


class AdmissionList:
    """Implements `ports.Admission`. `actions` says by feature what happens to ungated sets."""

    def __init__(
        self,
        reader: ControlReader,
        *,
        clock: Clock,
        actions: Mapping[str, Ungated] | None = None,
        default: Ungated = Ungated.ALLOW,
    ) -> None:
        self._clock = clock
        self._actions = dict(actions or {})
        self._default = default
        self._sets: dict[tuple[str, Digest], GatedSet] = {}
        self._why_unknown = ""
        self._digests: dict[ComponentSet, Digest] = {}
        reader.subscribe(ControlKind.ADMISSION, self._take)

    def check(self, facts: RequestFacts, components: ComponentSet) -> AdmissionAnswer:
        """Looked up in the signed list; never raises."""
        if self._is_gated(facts.feature, self._digest(components)):
            return AdmissionAnswer(action=Ungated.ALLOW.value, is_gated=True)
        reason = self._why_unknown or "this component set has not passed a gate"
        action = self._actions.get(facts.feature, self._default)
        return AdmissionAnswer(action=action.value, is_gated=False, reason=reason)

    def _is_gated(self, feature: str, digest: Digest) -> bool:
        found = self._sets.get((feature, digest)) or self._sets.get(("", digest))
        if found is None:
            return False
        return found.expires_at_us is None or to_us(self._clock.now()) < found.expires_at_us

    def _digest(self, components: ComponentSet) -> Digest:
        known = self._digests.get(components)
        if known is None:
            if len(self._digests) >= _CACHE:
                self._digests.clear()
            known = self._digests[components] = admitted_digest(components)
        return known

    def _take(self, update: Update) -> None:
        if update.standing.trust is Trust.VERIFIED and update.document is not None:
            state = body_of(update.document, AdmissionState)
            self._sets = {(each.feature, each.components): each for each in state.sets}
            self._why_unknown = ""
        elif update.standing.trust is Trust.NONE:
            self._sets, self._why_unknown = {}, ""
        else:
            self._sets = {}
            self._why_unknown = f"the list of gated sets cannot be verified: {update.standing.reason}"


def write_admission(
    store: ControlStore,
    *,
    add: Iterable[GatedSet] = (),
    remove: Iterable[tuple[str, Digest]] = (),
    actor: Actor,
    announce: Callable[[Published], list[str]],
    dry_run: bool = False,
) -> Published:
    """Put gated sets on the list, or take them off by (feature, digest); the answer is how many are on it.

    Raises:
        UsageError: for what is no digest, or too many sets.
    """
    added, removed = list(add), set(remove)
    for each in added:
        if not is_digest(each.components) or (each.verdict and not is_digest(each.verdict)):
            raise UsageError("a gated set and its verdict are named by sha256 digests.")

    def act(state: AdmissionState, version: int) -> Change[AdmissionState]:
        sets = {(each.feature, each.components): each for each in state.sets}
        sets.update({(each.feature, each.components): each for each in added})
        for name in removed:
            sets.pop(name, None)
        if len(sets) > MAX_SETS:
            raise UsageError(f"the list would hold {len(sets):,} sets; {MAX_SETS:,} is the most.")
        body = AdmissionState(sets=tuple(sets.values()))
        payload = {
            "added": [each.components for each in added][:1000],
            "removed": [digest for _, digest in removed][:1000],
            **actor.told(),
        }
        is_same = body == state
        return Change(
            body=None if is_same else body, audit_kind="admission.written", payload=payload, answer=len(sets)
        )

    published = store.publish(ControlKind.ADMISSION, AdmissionState, act, actor=actor.person, dry_run=dry_run)
    announce(published)
    return published
