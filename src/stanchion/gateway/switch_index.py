"""The frozen look-up table of the switches: dictionaries by level, and the time when the next lease ends."""

from __future__ import annotations

from collections.abc import Iterable

from stanchion.gateway.ports import Engaged, RequestFacts
from stanchion.gateway.switch_state import Lease, Switch, SwitchLevel, SwitchState, SwitchTarget

_FIELDS = (
    (SwitchLevel.TENANT, "tenant"),
    (SwitchLevel.FEATURE, "feature"),
    (SwitchLevel.MODEL, "model"),
    (SwitchLevel.PROVIDER, "provider"),
    (SwitchLevel.GUARD_VERSION, "guard_version"),
    (SwitchLevel.PROMPT_VERSION, "prompt"),
)
FAIL_CLOSED_ID = "fail-closed"
_NEVER = 2**63


class HeldLease:
    """A lease as this replica holds it: it ends when either clock says so."""

    __slots__ = ("ends_ns", "lease")

    def __init__(self, lease: Lease, *, ends_ns: int) -> None:
        self.lease = lease
        self.ends_ns = ends_ns

    def has_ended(self, *, now_ns: int, now_us: int) -> bool:
        """Whether it has ended by the monotonic or by the wall clock."""
        return now_ns >= self.ends_ns or now_us >= self.lease.expires_at_us


class SwitchIndex:
    """All that is stopped at one version; never changed after it was made."""

    __slots__ = (
        "_everything",
        "_levels",
        "_tools",
        "count",
        "is_calm",
        "leases",
        "next_end_ns",
        "next_end_us",
        "version",
    )

    def __init__(
        self, engaged: Iterable[Engaged], *, version: int, leases: tuple[HeldLease, ...] = ()
    ) -> None:
        tables: dict[str, dict[str, Engaged]] = {}
        for each in engaged:
            tables.setdefault(each.level, {}).setdefault(each.name, each)
        self.version = version
        self.leases = leases  # those that have not ended
        self.next_end_ns = min((held.ends_ns for held in leases), default=_NEVER)
        self.next_end_us = min((held.lease.expires_at_us for held in leases), default=_NEVER)
        self.count = sum(len(names) for names in tables.values())
        self._everything = next(iter(tables.get(SwitchLevel.GLOBAL, {}).values()), None)
        self._tools = tables.get(SwitchLevel.TOOL, {})
        self._levels = tuple((field, tables[level]) for level, field in _FIELDS if level in tables)
        self.is_calm = self._everything is None and not self._levels

    def find(self, facts: RequestFacts) -> Engaged | None:
        """What stops this request, the broadest level first; tools are asked about one by one."""
        if self._everything is not None:
            return self._everything
        for field, names in self._levels:
            value: str = getattr(facts, field)
            hit = names.get(value)
            if hit is None and field == "prompt":
                hit = names.get(value.partition("@")[0])
            if hit is not None:
                return hit
        return None

    def find_tool(self, facts: RequestFacts, tool: str) -> Engaged | None:
        """What stops a call of this tool: its own switch, or whatever stops the request."""
        return self.find(facts) or self._tools.get(tool)


def fail_closed(reason: str, *, version: int = -1) -> SwitchIndex:
    """The index that stops everything because the switches are not known."""
    stop = Engaged(
        switch_id=FAIL_CLOSED_ID, level=SwitchLevel.GLOBAL.value, name="", version=version, reason=reason
    )
    return SwitchIndex([stop], version=version)


def index_of(
    state: SwitchState, *, version: int, leases: tuple[HeldLease, ...], ended: tuple[HeldLease, ...]
) -> SwitchIndex:
    """The index of a state, with every lease that has ended as a switch."""
    engaged = [_from_switch(switch) for switch in state.engaged]
    engaged += [_from_lease(held.lease) for held in ended]
    return SwitchIndex(engaged, version=version, leases=leases)


def lease_id(target: SwitchTarget) -> str:
    """How an ended lease is named where a switch's id is expected."""
    return f"lease:{target}"


def _from_switch(switch: Switch) -> Engaged:
    return Engaged(
        switch_id=switch.id,
        level=switch.target.level.value,
        name=switch.target.name,
        version=switch.version,
        reason=switch.reason,
    )


def _from_lease(lease: Lease) -> Engaged:
    return Engaged(
        switch_id=lease_id(lease.target),
        level=lease.target.level.value,
        name=lease.target.name,
        version=lease.version,
        reason="the lease has ended",
    )
