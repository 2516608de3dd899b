"""Admission: whether the component set of a request is on the signed list of gated sets.

Governance writes the list after a release's gate has passed; the gateway reads it like the switches. What is
not known to be gated counts as ungated, an unreadable list included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec
import pydantic

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest, is_digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.files.schema import FileModel
from stanchion.gateway.actor import Actor
from stanchion.gateway.control_document import ControlKind, body_of
from stanchion.gateway.control_reader import Listener, Trust, Update
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


def strictest(*actions: Ungated) -> Ungated:
    """The strictest of several: block, then warn, then allow."""
    return max(actions, key=_STRICTNESS.__getitem__)


_STRICTNESS = {action: place for place, action in enumerate(Ungated)}


class AdmissionSection(FileModel):
    """The section `admission`. What a tier asks for is in `org.yaml`; here it can only be made stricter."""

    at_least: Ungated = pydantic.Field(
        default=Ungated.ALLOW,
        description="What becomes at least of component sets that passed no gate, whatever their feature's "
        "tier says; also of features that the safety folder does not know.",
    )


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


class Tells(Protocol):
    """What tells of the list: a `ControlReader`."""

    def subscribe(self, kind: ControlKind, listener: Listener) -> None:
        """Tell of the state now and of every later one."""
        ...


class AdmissionList:
    """Implements `ports.Admission`. `actions` says by feature what happens to ungated sets."""

    def __init__(
        self,
        reader: Tells,
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
        return self.answer(facts, components, self._actions.get(facts.feature, self._default))

    def answer(self, facts: RequestFacts, components: ComponentSet, ungated: Ungated) -> AdmissionAnswer:
        """The same, where something else says what becomes of what is not on the list."""
        digest = self._digest(components) if self._sets else ""  # not looked for where nothing is listed
        return self.answer_of(facts.feature, digest, ungated)

    def answer_of(self, feature: str, digest: Digest, ungated: Ungated) -> AdmissionAnswer:
        """The same for the digest of a set."""
        if self._is_gated(feature, digest):
            return AdmissionAnswer(action=Ungated.ALLOW.value, is_gated=True)
        reason = self._why_unknown or "this component set has not passed a gate"
        return AdmissionAnswer(action=ungated.value, is_gated=False, reason=reason)

    def entry(self, feature: str, digest: Digest) -> GatedSet | None:
        """The line of the list for a set, the feature's own first; also one that has expired."""
        return self._sets.get((feature, digest)) or self._sets.get(("", digest))

    def _is_gated(self, feature: str, digest: Digest) -> bool:
        found = self.entry(feature, digest)
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


class AdmissionRules:
    """The list with what one configuration says of ungated sets; implements `ports.Admission`.

    `tiers` is what each feature's tier says in `org.yaml`, `at_least` the gateway file's word, `flag` that of
    a feature flag. The strictest holds.
    """

    def __init__(
        self,
        gated: AdmissionList,
        *,
        tiers: Mapping[str, Ungated],
        at_least: Ungated = Ungated.ALLOW,
        flag: Callable[[], Ungated] | None = None,
    ) -> None:
        self._gated, self._tiers, self._at_least, self._flag = gated, dict(tiers), at_least, flag
        self._ungated = {feature: strictest(tier, at_least) for feature, tier in tiers.items()}

    def check(self, facts: RequestFacts, components: ComponentSet) -> AdmissionAnswer:
        """Looked up in the signed list; never raises."""
        return self._gated.answer(facts, components, self.ungated(facts.feature))

    def ungated(self, feature: str) -> Ungated:
        """What becomes of an ungated set of a feature now."""
        action = self._ungated.get(feature, self._at_least)
        return action if self._flag is None else strictest(action, self._flag())

    def said(self, feature: str) -> str:
        """What is in force for a feature, and who says so, in words."""
        tier = self._tiers.get(feature)
        source = f"org.yaml says {tier.value}" if tier is not None else "the safety folder does not know it"
        if self._at_least is not Ungated.ALLOW:
            source += f", admission.at_least says {self._at_least.value}"
        if self._flag is not None:
            source += f", the flag admission.ungated says {self._flag().value}"
        return f"ungated sets: {self.ungated(feature).value} ({source})"


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
