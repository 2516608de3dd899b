"""What a guard is asked wrongly, and what it says then; sentences begin with a capital letter."""

from __future__ import annotations

from typing import Any

import pytest
from guard_fakes import Words, guard, policy, rule

from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.guard.fallback import catalogue, fill, languages
from stanchion.guard.pipeline import Guard


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, "Give a str"),
        (3, "Give a str"),
        (b"hunter2", "Decode the bytes"),
        (["hunter2"], "Check each text"),
        ({"a": "hunter2"}, "Check each text"),
    ],
)
async def test_what_is_no_text_is_an_error_and_no_block(value: Any, hint: str) -> None:
    words = Words()
    made = guard(policy(rule("redact")), words)
    for unsure in (made, Guard.unprotected()):
        with pytest.raises(
            UsageError, match=f"a text is needed to check, got {type(value).__name__}"
        ) as caught:
            unsure.check(value)
        assert hint in str(caught.value)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match="a text is needed"):
        await made.acheck(value)
    assert words.seen == []


def test_an_unknown_surface_or_origin_names_the_near_one() -> None:
    made = guard(policy(rule("redact")), Words())

    with pytest.raises(UnknownNameError, match=r"unknown surface 'outptu'.*Did you mean 'output'"):
        made.check("x", surface="outptu")
    with pytest.raises(UnknownNameError, match=r"unknown surface 'outptu'.*Did you mean 'output'"):
        made.checks("outptu")
    with pytest.raises(UnknownNameError, match=r"unknown origin 'usr'.*Did you mean 'user'"):
        made.check("x", origin="usr")


@pytest.mark.parametrize("given", [(), ("default",), ("default", {}), (policy(rule("redact")),)])
def test_a_guard_without_its_parts_names_the_way_to_make_one(given: Any) -> None:
    with pytest.raises(UsageError, match=r"Use Guard\.load\(\)"):
        Guard(*given)


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        ("the support team", "The support team can. Ask the support team! The support team."),
        ("l'équipe", "L'équipe can. Ask l'équipe! L'équipe."),
        ("élan", "Élan can. Ask élan! Élan."),
        ("help@shop.example", "help@shop.example can. Ask help@shop.example! help@shop.example."),
        ("iHelp desk", "iHelp desk can. Ask iHelp desk! iHelp desk."),
        ("Ann", "Ann can. Ask Ann! Ann."),
    ],
)
def test_a_variable_that_begins_a_sentence_gets_a_capital(contact: str, expected: str) -> None:
    assert fill("{contact} can. Ask {contact}! {contact}.", {"contact": contact}) == expected


@pytest.mark.parametrize("language", languages())
def test_every_packaged_sentence_begins_with_a_capital(language: str) -> None:
    texts = catalogue(language)
    templates = [words for styles in texts.completions.values() for words in styles.values()]
    for template in [*templates, *texts.notices.values()]:
        words = fill(template, texts.variables)
        for sentence in words.replace("! ", ". ").replace("? ", ". ").split(". "):
            first = sentence.lstrip("[¿¡ ")[:1]
            assert first == "" or not first.islower(), words
