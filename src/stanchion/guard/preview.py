"""Every message that a policy can show, per language, filled in as users see it: for a reviewer of words."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stanchion.core.decision import Effect, Surface
from stanchion.core.errors import UsageError, did_you_mean
from stanchion.guard.fallback import STYLES, Fallback, catalogue, languages
from stanchion.guard.policy_model import Policy

REFERENCE = "req_EXAMPLE"
TICKET = "ticket_EXAMPLE"
SOURCES = "handbook.pdf, returns.md"
_MODEL_READS = (
    Surface.RETRIEVED,
    Surface.TOOL_RESULT,
    Surface.TOOL_DEFINITION,
    Surface.REASONING,
)
_FILLED = {"reference": REFERENCE, "ticket": TICKET, "sources": SOURCES}


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message. `reader` is who sees it: `user`, or `model` for what stands in a prompt.

    `kind` is safe_completion, approval, state, notice or transparency; `name` the category, state or rule.
    `is_used` says that this policy shows it, rather than another style or a rule's own words.
    """

    language: str
    kind: str
    name: str
    style: str = ""
    reader: str = "user"
    is_used: bool = True
    text: str


def preview(policy: Policy, *, language: str = "") -> tuple[Message, ...]:
    """Every message in one language, or in all there are.

    Raises:
        UsageError: for a language without texts.
    """
    if language and language not in languages():
        raise UsageError(f"no messages in {language!r}.", hint=did_you_mean(language, languages()))
    wanted = (language,) if language else languages()
    return tuple(message for one in wanted for message in _in_language(policy, one))


def _in_language(policy: Policy, language: str) -> Iterator[Message]:
    texts, settings = catalogue(language), policy.safe_completions
    words = Fallback(settings)
    for category, by_style in texts.completions.items():
        kind = "approval" if category == "approval" else "safe_completion"
        for style in by_style:
            shown = words.completion(category, reference=REFERENCE, language=language, style=style)
            is_used = style == settings.style or style not in STYLES
            yield Message(
                language=language, kind=kind, name=category, style=style, is_used=is_used, text=shown
            )
    if language == settings.language:  # the operator's own words are in the policy's language
        yield from _own(policy, words, language)
    for surface in _MODEL_READS:
        shown = words.notice(surface, reference=REFERENCE, language=language)
        yield Message(language=language, kind="notice", name=surface.value, reader="model", text=shown)
    for name in texts.states:
        shown = words.state(name, language=language, **_FILLED)
        yield Message(language=language, kind="state", name=name, text=shown)
    for name in texts.transparency:
        shown = words.transparency(name, language=language, **_FILLED)
        yield Message(language=language, kind="transparency", name=name, text=shown)


def _own(policy: Policy, words: Fallback, language: str) -> Iterator[Message]:
    for rule in policy.rules:
        if rule.message and rule.effect.rank >= Effect.REPLACE.rank:
            shown = words.completion("default", reference=REFERENCE, message=rule.message, language=language)
            yield Message(language=language, kind="rule", name=rule.id, text=shown)
    for tool, named in policy.tools.named.items():
        if named.message:
            shown = words.completion("agent", reference=REFERENCE, message=named.message, language=language)
            yield Message(language=language, kind="rule", name=f"tools.{tool}", text=shown)
