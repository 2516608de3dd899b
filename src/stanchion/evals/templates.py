"""`{{ name }}` in the texts of a suite: substitution and nothing else.

A name is looked up by dots (`row.goal`); what is put in is never read again: data cannot become a template.
`{{ "..." }}` stands for the quoted characters themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stanchion.core.errors import UsageError, did_you_mean

_PLACE = re.compile(r'\{\{\s*(?:([A-Za-z_][A-Za-z0-9_.-]*)|"([^"]*)")\s*\}\}')
_OPEN = "{{"


class TemplateError(UsageError):
    """A template that cannot be filled."""


def render(text: str, values: Mapping[str, Any]) -> str:
    """The text with every place filled.

    Raises:
        TemplateError: for a name that has no value, and for `{{` that begins no place.
    """
    if _OPEN not in text:
        return text
    filled: list[str] = []
    end = 0
    for match in _PLACE.finditer(text):
        filled.append(_plain(text[end : match.start()]))
        filled.append(match[2] if match[1] is None else as_text(look_up(match[1], values)))
        end = match.end()
    filled.append(_plain(text[end:]))
    return "".join(filled)


def render_all(value: Any, values: Mapping[str, Any]) -> Any:
    """The same for every text inside lists and mappings; keys are left alone.

    A text that is exactly one place keeps the type of its value (`"{{ messages }}"` becomes a list).
    """
    if isinstance(value, str):
        match = _PLACE.fullmatch(value) if _OPEN in value else None
        return look_up(match[1], values) if match is not None and match[1] else render(value, values)
    if isinstance(value, dict):
        return {key: render_all(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render_all(item, values) for item in value]
    return value


def look_up(name: str, values: Mapping[str, Any]) -> Any:
    """The value of a dotted name.

    Raises:
        TemplateError: when a step of it does not exist.
    """
    here: Any = values
    for step in name.split("."):
        if not isinstance(here, Mapping) or step not in here:
            known = [str(key) for key in here] if isinstance(here, Mapping) else []
            raise TemplateError(f"template: {name!r} has no value.", hint=did_you_mean(step, known))
        here = here[step]
    return here


def as_text(value: Any) -> str:
    """How a value stands in a text: texts as they are, nothing for null, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    if _OPEN in text:
        at = text.index(_OPEN)
        shown = text[at : at + 20].splitlines()[0]
        raise TemplateError(
            f"template: {shown!r} is no place for a value.",
            hint='Write {{ name }}; for the braces themselves write {{ "{{" }}.',
        )
    return text
