"""Whether anybody knows what a switch names: a switch with a wrong name is engaged, and stops nothing.

Every gateway's process says which names it knows. Names of tools come with requests, and names of models do
where a provider takes them all; of those nobody can say that they do not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import near_matches
from stanchion.gateway.replicas import About, Replica
from stanchion.gateway.switch_state import SwitchLevel, SwitchTarget

if TYPE_CHECKING:
    from stanchion.gateway.live import Live

_MOST_NAMES = 500  # of a level; with more of them nothing is said about what is missing
_LISTED = 12


class Unreached(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a target. `is_nothing`: no replica knows it, so that nothing is stopped by it."""

    message: str
    is_nothing: bool


def about(live: Live, *, group: str, tried_at_us: int, trouble: str = "") -> About:
    """What a process says of the configuration that it serves."""
    features = (*live.features.values(), *live.variants.values())
    tools = {
        name for one in features if one.guard.policy is not None for name in one.guard.policy.tools.named
    }
    names: dict[SwitchLevel, Iterable[str]] = {
        SwitchLevel.FEATURE: live.features,
        SwitchLevel.MODEL: live.models.routes,
        SwitchLevel.PROVIDER: live.models.providers,
        SwitchLevel.GUARD_VERSION: {one.guard_version for one in features},
        SwitchLevel.TOOL: tools,
    }
    known = {level.value: tuple(sorted(found)) for level, found in names.items()}
    is_open = {
        SwitchLevel.TOOL.value,
        *((SwitchLevel.MODEL.value,) if live.models.pass_through else ()),
        *(level for level, found in known.items() if len(found) > _MOST_NAMES),
    }
    upstream: dict[str, tuple[str, ...]] = {}
    for name, route in list(live.models.routes.items())[:_MOST_NAMES]:
        if route.model != name:
            upstream[route.model] = (*upstream.get(route.model, ()), name)
    return About(
        group=group,
        configuration=live.digest,
        tried_at_us=tried_at_us,
        trouble=trouble,
        known={level: found[:_MOST_NAMES] for level, found in known.items()},
        open_levels=tuple(sorted(is_open)),
        upstream=upstream,
    )


def unreached(target: SwitchTarget, replicas: Sequence[Replica]) -> Unreached | None:
    """What to say where a target's name reaches nothing, or less than it seems; None: nothing.

    Nothing is said for tenants and prompts, whose names no configuration has, and while no replica is live or
    one of them did not say what it knows.
    """
    said = [each.about for each in replicas if each.about is not None and each.about.configuration]
    level, name = target.level.value, target.name
    if not said or len(said) < len(replicas) or any(level not in each.known for each in said):
        return None
    known = sorted({each for one in said for each in one.known[level]})
    if name in known:
        return None
    hint = _upstream_hint(target, said) or _near_hint(level, name, known)
    if any(level in each.open_levels for each in said):
        message = f"No file of a replica names {target}. {hint}"
        return Unreached(message=message, is_nothing=False) if hint else None
    hint = hint or f"They know: {_listed(level, known)}."
    return Unreached(message=f"NO REPLICA KNOWS {target}: NOTHING IS STOPPED BY IT. {hint}", is_nothing=True)


def _upstream_hint(target: SwitchTarget, said: Sequence[About]) -> str:
    if target.level is not SwitchLevel.MODEL:
        return ""
    names = sorted({name for each in said for name in each.upstream.get(target.name, ())})
    if not names:
        return ""
    clients = _listed(target.level.value, names)
    return (
        f"{target.name!r} is the provider's name of what clients call {', '.join(names)}. Engage {clients}."
    )


def _near_hint(level: str, name: str, known: Sequence[str]) -> str:
    near = near_matches(name, known)
    return f"Did you mean {' or '.join(f'{level}:{each}' for each in near)}?" if near else ""


def _listed(level: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"{level}:{each}" for each in names[:_LISTED]) + more
