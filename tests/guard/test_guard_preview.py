"""What a reviewer of words is shown: every message, in every language, filled in."""

from __future__ import annotations

import msgspec
import pytest

from stanchion.core.errors import UsageError
from stanchion.guard.fallback import catalogue, languages
from stanchion.guard.policy import packaged_policy
from stanchion.guard.preview import REFERENCE, TICKET, preview


@pytest.fixture(scope="module")
def policy():
    return packaged_policy("default")


@pytest.mark.parametrize("language", languages())
def test_every_language_says_the_same_things_and_leaves_nothing_unfilled(policy, language):
    english, texts = catalogue("en"), catalogue(language)
    for name in ("completions", "notices", "states", "transparency"):
        assert getattr(texts, name).keys() == getattr(english, name).keys()
    found = preview(policy, language=language)
    assert {message.language for message in found} == {language}
    assert not [message for message in found if "{" in message.text or "}" in message.text]
    states = {message.name: message.text for message in found if message.kind == "state"}
    assert all(TICKET in text for name, text in states.items() if name != "switched_off")
    assert REFERENCE in states["switched_off"]


def test_what_the_policy_shows_is_told_from_what_it_could(policy):
    used = {message.style for message in preview(policy, language="en") if message.is_used and message.style}
    assert used == {policy.safe_completions.style, "crisis"}
    short = msgspec.structs.replace(
        policy, safe_completions=msgspec.structs.replace(policy.safe_completions, style="short")
    )
    found = [message for message in preview(short, language="en") if message.is_used]
    assert "I can't share that." in " ".join(message.text for message in found)


def test_a_rules_own_words_are_shown(policy):
    rule = msgspec.structs.replace(policy.rules[0], message="Ask {contact}.", effect="block")
    own = msgspec.structs.replace(policy, rules=(msgspec.convert(msgspec.to_builtins(rule), type(rule)),))
    (found,) = [message for message in preview(own, language="en") if message.kind == "rule"]
    assert found.text.startswith("Ask the support team.")


def test_a_language_without_texts_is_named(policy):
    with pytest.raises(UsageError, match="'xx'"):
        preview(policy, language="xx")
