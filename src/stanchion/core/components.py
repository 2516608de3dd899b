"""The digests of everything that made an interaction or an eval result what it is."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stanchion.core.codec import Digest, digest


class ComponentKind(StrEnum):
    """What a component is."""

    MODEL = "model"
    PROMPT = "prompt"
    POLICY = "policy"
    TOOLS = "tools"
    INDEX = "index"
    SUITE = "suite"
    DETECTORS = "detectors"
    CODE = "code"


class ComponentSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One digest per kind of component; empty when the feature has no such part.

    A missing digest is not equal to any other missing digest that matters: two sets are the same component
    set only when every field agrees.
    """

    model: Digest = ""
    prompt: Digest = ""
    policy: Digest = ""
    tools: Digest = ""
    index: Digest = ""
    suite: Digest = ""
    detectors: Digest = ""
    code: Digest = ""

    @property
    def digest(self) -> Digest:
        """The identity of the whole set."""
        return digest(self)

    def changed_from(self, other: ComponentSet) -> tuple[ComponentKind, ...]:
        """The kinds in which the two sets differ, in the order of `ComponentKind`."""
        return tuple(kind for kind in ComponentKind if getattr(self, kind) != getattr(other, kind))

    def merged(self, other: ComponentSet) -> ComponentSet:
        """This set, with every field that `other` fills taken from `other`."""
        filled = {k.value: getattr(other, k) or getattr(self, k) for k in ComponentKind}
        return ComponentSet(**filled)
