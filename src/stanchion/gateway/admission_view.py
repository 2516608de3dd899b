"""What a gateway would decide by the signed list of gated sets, for people who look at it from outside.

The answers come from `AdmissionList` and `AdmissionRules` themselves, given the newest document of the
database, so what is shown is what a gateway does: a list that does not verify admits nothing here either.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import IntegrityError
from stanchion.core.signatures import Envelope
from stanchion.gateway.admission import (
    AdmissionList,
    AdmissionRules,
    AdmissionState,
    GatedSet,
    Ungated,
    admitted_digest,
)
from stanchion.gateway.control_document import ControlDocument, ControlKind, body_of
from stanchion.gateway.control_reader import Listener, Standing, Trust, Update
from stanchion.gateway.control_store import ControlStore
from stanchion.store.interactions import InteractionQuery, InteractionStore
from stanchion.store.times import to_us

EMPTY = ComponentSet()


class SignedList(msgspec.Struct, frozen=True, kw_only=True):
    """The list with what is known of it. `trust` is verified, none or failed; `why` says what failed."""

    trust: Trust
    version: int = 0
    made_by: str = ""
    made_at_us: int = 0
    signed_by: tuple[str, ...] = ()
    why: str = ""
    sets: tuple[GatedSet, ...] = ()


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway would do with one component set of one feature.

    `action` is allow, warn or block; `entry` is its line of the list, also one that has expired.
    """

    feature: str
    digest: Digest
    is_gated: bool
    action: str
    reason: str
    components: ComponentSet | None = None
    entry: GatedSet | None = None
    requests: int | None = None


class UngatedShare(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a feature had a set that the list does not hold now, of how many."""

    feature: str
    requests: int
    ungated: int
    in_force: str

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.ungated / self.requests if self.requests else 0.0


def read_list(store: ControlStore) -> tuple[SignedList, Update]:
    """The newest list of the database, and the same as a gateway's reader would tell of it."""
    kind = ControlKind.ADMISSION
    data = store.envelope(kind)
    if data is None:
        return SignedList(trust=Trust.NONE), Update(standing=Standing(kind=kind, trust=Trust.NONE))
    try:
        document = store.latest(kind)
        assert document is not None  # noqa: S101 - it was there
        found = _signed(document, data)
    except IntegrityError as error:
        failed = Standing(kind=kind, trust=Trust.FAILED, reason=error.message)
        return SignedList(trust=Trust.FAILED, why=error.message), Update(standing=failed)
    verified = Standing(kind=kind, trust=Trust.VERIFIED, version=document.version, reason="")
    return found, Update(standing=verified, document=document)


class AdmissionView:
    """Rulings by one list and one configuration."""

    def __init__(
        self,
        found: tuple[SignedList, Update],
        *,
        clock: Clock,
        tiers: Mapping[str, Ungated],
        at_least: Ungated = Ungated.ALLOW,
        flag: Ungated | None = None,
    ) -> None:
        """`found` is what `read_list` gave; `flag` what a feature flag says now, where one is asked."""
        self.list, update = found
        self._gated = AdmissionList(_Told(update), clock=clock)
        ask = None if flag is None else lambda: flag
        self._rules = AdmissionRules(self._gated, tiers=tiers, at_least=at_least, flag=ask)
        self._now_us = to_us(clock.now())

    def is_expired(self, entry: GatedSet) -> bool:
        """Whether a line of the list no longer admits anything."""
        return entry.expires_at_us is not None and self._now_us >= entry.expires_at_us

    def ruling(self, feature: str, components: ComponentSet) -> Ruling:
        """What a gateway would do with a component set."""
        return msgspec.structs.replace(
            self.ruling_of(feature, admitted_digest(components)), components=components
        )

    def ruling_of(self, feature: str, digest: Digest) -> Ruling:
        """The same where only the digest of a set is known."""
        said = self._gated.answer_of(feature, digest, self._rules.ungated(feature))
        entry = self._gated.entry(feature, digest)
        reason = said.reason
        if entry is not None and not said.is_gated:
            reason = "its gate's verdict has expired"
        return Ruling(
            feature=feature,
            digest=digest,
            is_gated=said.is_gated,
            action=said.action,
            reason=reason,
            entry=entry,
        )

    def seen(self, store: InteractionStore, *, since: datetime, feature: str | None = None) -> list[Ruling]:
        """A ruling on every component set of the records, those most asked for first."""
        query = InteractionQuery(start=since, feature=feature)
        found: list[Ruling] = []
        for (name, text), count in store.counts(query, by=("feature", "components")).items():
            components = msgspec.json.decode(text, type=ComponentSet)
            if components != EMPTY:  # a request that was stopped before anybody knew its set
                found.append(msgspec.structs.replace(self.ruling(name, components), requests=count))
        return sorted(found, key=lambda one: (one.feature, -(one.requests or 0), one.digest))

    def shares(self, store: InteractionStore, *, since: datetime) -> list[UngatedShare]:
        """By feature: how many requests had a set that is not on the list."""
        requests: dict[str, int] = {}
        ungated: dict[str, int] = {}
        for one in self.seen(store, since=since):
            requests[one.feature] = requests.get(one.feature, 0) + (one.requests or 0)
            if not one.is_gated:
                ungated[one.feature] = ungated.get(one.feature, 0) + (one.requests or 0)
        return [
            UngatedShare(
                feature=name, requests=count, ungated=ungated.get(name, 0), in_force=self._rules.said(name)
            )
            for name, count in requests.items()
        ]

    def in_force(self, feature: str) -> str:
        """What becomes of ungated sets of a feature, and who says so, in words."""
        return self._rules.said(feature)


class _Told:
    """A reader that was told once."""

    def __init__(self, update: Update) -> None:
        self._update = update

    def subscribe(self, kind: ControlKind, listener: Listener) -> None:
        listener(self._update)


def _signed(document: ControlDocument, data: bytes) -> SignedList:
    envelope = msgspec.json.decode(data, type=Envelope)
    return SignedList(
        trust=Trust.VERIFIED,
        version=document.version,
        made_by=document.made_by,
        made_at_us=document.made_at_us,
        signed_by=tuple(one.keyid for one in envelope.signatures),
        sets=body_of(document, AdmissionState).sets,
    )
