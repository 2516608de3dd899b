"""The switches as feature flags: their names, and what is asked of whoever knows the switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

PREFIX = "stanchion."
ENABLED = "stanchion.enabled"
LEVELS = ("tenant", "feature", "model", "provider", "guard_version", "prompt_version", "tool")


class FlagFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of whatever asks; the names are those of the gateway's facts. Empty: not known."""

    tenant: str = ""
    feature: str = ""
    model: str = ""
    provider: str = ""
    guard_version: str = ""
    prompt: str = ""


class Stop(Protocol):
    """A switch that stands in the way."""

    @property
    def switch_id(self) -> str:
        """Its id."""
        ...

    @property
    def level(self) -> str:
        """Such as `feature`."""
        ...

    @property
    def version(self) -> int:
        """Of the snapshot that says so; -1 when the switches are not known."""
        ...

    @property
    def reason(self) -> str:
        """Why, as its person wrote it."""
        ...


class SwitchView(Protocol):
    """Whoever knows the switches: the gateway's board on a signed snapshot, or `AdminSwitches` over HTTP.

    No method raises or waits; what is not known counts as switched off.
    """

    @property
    def version(self) -> int:
        """Of the snapshot that is obeyed; -1 when it is not known."""
        ...

    def find(self, facts: Any) -> Stop | None:
        """The switch that stops what these facts describe."""
        ...

    def find_tool(self, facts: Any, tool: str) -> Stop | None:
        """The switch that stops a call of this tool."""
        ...


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a flag asks: about these facts, and about a tool when one is named."""

    facts: FlagFacts
    tool: str = ""

    def ask(self, view: SwitchView) -> Stop | None:
        """The switch that stands in the way."""
        return view.find_tool(self.facts, self.tool) if self.tool else view.find(self.facts)


def question_of(key: str, attributes: Mapping[str, Any]) -> Question | None:
    """What a flag's key asks.

    `stanchion.enabled` asks about the attributes of the evaluation context (`feature`, `model`, `tool`, ...);
    `stanchion.global` about the global switch; `stanchion.feature.checkout` about one name as well. None for
    a key that names no level.
    """
    known = {name: str(attributes[name]) for name in FlagFacts.__struct_fields__ if attributes.get(name)}
    facts, tool = FlagFacts(**known), str(attributes.get("tool") or "")
    if key == ENABLED:
        return Question(facts=facts, tool=tool)
    if key == "stanchion.global":
        return Question(facts=FlagFacts())
    level, _, name = key.removeprefix(PREFIX).partition(".")
    if level not in LEVELS or not name:
        return None
    if level == "tool":
        return Question(facts=facts, tool=name)
    field = "prompt" if level == "prompt_version" else level
    return Question(facts=msgspec.structs.replace(facts, **{field: name}))
