"""How much of a streamed answer a policy holds back, detector by detector: what `stanchion check` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from stanchion.core.decision import Surface
from stanchion.core.finding import ReachKind
from stanchion.guard.checks import Check
from stanchion.guard.frames import LONGEST, STEP, parts_of, settles
from stanchion.guard.framing import FRAMED
from stanchion.guard.plan import make_plan
from stanchion.guard.policy_model import Guarantee, Policy, WholeMessage


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What one detector, or one part of it, holds back.

    `characters` is the longest stretch it may hold; None when there is no bound but that of the guard, or
    when it holds nothing or everything. `handling` is `passing`, `at_end` or `buffer`.
    """

    detector: str
    reach: str
    handling: str
    characters: int | None = None
    unbounded: int = 0
    categories: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One line for a person."""
        if self.handling == "buffer":
            return f"{self.detector}: {self.reach}, the whole answer waits for {self._what}"
        if self.handling == "at_end":
            return f"{self.detector}: {self.reach}, decides at the end about {self._what}"
        if self.characters is None:
            return f"{self.detector}: {self.reach}, up to where the last one ended"
        more = f"; {self.unbounded} patterns up to {LONGEST:,}" if self.unbounded else ""
        return f"{self.detector}: {self.reach}, a live match up to {self.characters:,} characters{more}"

    @property
    def _what(self) -> str:
        return ", ".join(self.categories)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What streams on one surface under a policy, and what is promised about it."""

    policy: str
    surface: Surface
    guarantee: Guarantee
    held: tuple[Held, ...]

    @property
    def buffered_for(self) -> tuple[str, ...]:
        """The detectors that make the whole answer wait."""
        is_audit = self.guarantee is Guarantee.AUDIT_ONLY
        return () if is_audit else tuple(one.detector for one in self.held if one.handling == "buffer")

    @property
    def words(self) -> str:
        """One line for a person."""
        if self.buffered_for:
            held = f"the whole answer, for {', '.join(dict.fromkeys(self.buffered_for))}"
        elif self.guarantee is Guarantee.AUDIT_ONLY or not any(h.handling == "passing" for h in self.held):
            held = "nothing"
        else:
            held = f"a live match, or at most about {2 * STEP} characters around what was found"
        return f"{self.guarantee.value}, holds back {held}"


def routes(policy: Policy, detectors: Mapping[str, Any]) -> tuple[Route, ...]:
    """The surfaces that stream, with what is held on each; `detectors` as for `make_plan`."""
    plan = make_plan(policy, detectors)
    return tuple(
        Route(
            policy=policy.name,
            surface=surface,
            guarantee=policy.streaming.guarantee,
            held=tuple(held for check in plan.on(surface) for held in _held(check)),
        )
        for surface in Surface
        if surface in FRAMED
    )


def _held(check: Check) -> Iterator[Held]:
    parts = parts_of(check)
    for part in (*parts.passing, *parts.whole):
        detector = part.detector
        kind = ReachKind(detector.reach.kind)
        if not settles(detector):
            handling = check.settings.stream
            yield Held(
                detector=check.id, reach="message", handling=handling.value, categories=detector.categories
            )
        elif kind is ReachKind.BOUNDED:
            characters = int(detector.reach.characters)
            yield Held(detector=check.id, reach=kind.value, handling="passing", characters=characters)
        elif kind is ReachKind.AUTOMATON:
            longest, unbounded = detector.extent() if hasattr(detector, "extent") else (LONGEST, 0)
            yield Held(
                detector=check.id,
                reach=kind.value,
                handling="passing",
                characters=longest + int(getattr(detector, "after", 0)),
                unbounded=unbounded,
            )
        else:
            yield Held(detector=check.id, reach=kind.value, handling="passing")


def route_lines(found: Iterable[Route]) -> list[str]:
    """Lines for a person; surfaces of a policy on which the same is held are told together."""
    together: dict[tuple[str, str, tuple[Held, ...]], list[str]] = {}
    for route in found:
        together.setdefault((route.policy, route.words, route.held), []).append(route.surface.value)
    lines = []
    for (policy, words, held), surfaces in together.items():
        lines.append(f"policy {policy}, streamed {' and '.join(sorted(surfaces))}: {words}")
        lines.extend(f"  {one.words}" for one in held)
    return lines


def buffers(route: Route) -> str:
    """What to say when a policy makes an answer wait as a whole; empty when it does not."""
    if not route.buffered_for:
        return ""
    named = ", ".join(dict.fromkeys(route.buffered_for))
    return (
        f"on {route.surface.value} a streamed answer waits as a whole for {named} "
        f"('stream: {WholeMessage.BUFFER.value}')."
    )
