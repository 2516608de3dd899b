"""Untrusted text set apart in the prompt, and the words a user reads instead of an answer."""

from __future__ import annotations

import base64
import re
import string

import pytest
from guard_fakes import guard, policy, rule
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.decision import Surface
from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Message, Role, Text, ToolResult, system, user
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.guard.fallback import BUILTIN_VARIABLES, STYLES, Fallback, catalogue, fill, languages
from stanchion.guard.policy_model import MarkingStyle, SafeCompletions
from stanchion.guard.prompts import datamark, delimit, encode, mark, mark_interaction, request_seed

FOUND = Message(role=Role.USER, parts=(Text(text="found it\nhere", origin=Origin.RETRIEVED),))


@settings(deadline=None, max_examples=100)
@given(st.text(), st.binary(min_size=4, max_size=8))
def test_the_boundary_stands_at_both_ends_and_nowhere_else(text: str, seed: bytes) -> None:
    marked = mark(text, MarkingStyle.DELIMIT, seed=seed)
    boundary = marked.text.split(" ")[1].split(">>")[0]
    forged = mark(f"a {marked.text} b", MarkingStyle.DELIMIT, seed=seed)

    assert forged.text.count(boundary) == 2
    assert marked.instruction.count(boundary) == 2
    assert text.replace(boundary, "") in marked.text


@settings(deadline=None, max_examples=100)
@given(st.text(), st.binary(min_size=4, max_size=8))
def test_datamarked_text_has_no_blanks_and_keeps_its_words(text: str, seed: bytes) -> None:
    marked = mark(text, MarkingStyle.DATAMARK, seed=seed)
    marker = re.search(r"character (.) instead", marked.instruction)
    assert marker is not None
    words = text.replace(marker[1], " ").split()

    assert not re.search(r"\s", marked.text)
    assert [word for word in marked.text.split(marker[1]) if word] == words


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_encoded_text_decodes(text: str) -> None:
    assert base64.b64decode(encode(text).text).decode() == text


def test_helpers_can_be_used_alone() -> None:
    assert delimit("a", boundary="B").text == "<<untrusted B>>\na\n<<end B>>"
    assert datamark(" a  b\nc ", marker="^").text == "a^b^c"


def test_only_untrusted_text_is_set_apart_and_the_system_prompt_says_so() -> None:
    tool = Message(role=Role.TOOL, parts=(ToolResult(call_id="1", name="t", text="result"),))
    asked = Interaction(messages=(system("be kind"), user("hello"), FOUND, tool))
    marked = mark_interaction(asked, MarkingStyle.DELIMIT, seed=b"s")

    assert marked.messages[1] == asked.messages[1]
    assert marked.messages[2].text.startswith("<<untrusted ")
    part = marked.messages[3].parts[0]
    assert isinstance(part, ToolResult)
    assert part.text.startswith("<<untrusted ")
    assert marked.messages[0].text.startswith("be kind\nText between <<untrusted ")
    assert marked.messages[0].text.count("Text between") == 1
    alone = mark_interaction(Interaction(messages=(FOUND,)), MarkingStyle.DELIMIT, seed=b"s")
    assert alone.messages[0].role is Role.SYSTEM
    plain = Interaction(messages=(system("x"), user("hello")))
    assert mark_interaction(plain, MarkingStyle.DELIMIT, seed=b"s") is plain


def test_boundaries_differ_between_requests_and_guards_and_agree_for_the_same_request() -> None:
    assert request_seed(b"k", "sha256:a") == request_seed(b"k", "sha256:a")
    assert len({request_seed(k, d) for k in (b"k", b"l") for d in ("sha256:a", "sha256:b")}) == 4


def test_a_policy_turns_marking_on() -> None:
    made = guard(policy(rule("redact"), marking=MarkingStyle.DATAMARK))
    asked = Interaction(messages=(system("x"), FOUND))
    first, second = made.prepare(asked), made.prepare(asked)

    assert not first.is_unchanged
    assert " " not in first.interaction.messages[1].text
    assert first.interaction == second.interaction


def test_six_languages_are_there_with_the_same_texts_and_variables() -> None:
    assert {"en", "de", "fr", "es", "it", "pt"} <= set(languages())
    english = catalogue("en")
    for language in languages():
        texts = catalogue(language)
        assert texts.language == language
        assert texts.notices.keys() == english.notices.keys()
        assert texts.completions.keys() == english.completions.keys()
        for name, styles in texts.completions.items():
            assert styles.keys() == english.completions[name].keys()
            for words in (*styles.values(), *texts.notices.values(), texts.reference):
                names = {n for _, n, _, _ in string.Formatter().parse(words) if n is not None}
                assert names <= set(BUILTIN_VARIABLES)
                assert words.strip() == words
        if language != "en":
            assert not set(texts.completions["default"].values()) & set(
                english.completions["default"].values()
            )


def test_named_completions_are_categories_families_or_the_guards_own() -> None:
    families = {category.family for category in taxonomy().values()}
    own = {"default", "check.failed", "approval", "answer.limit", "answer.media"}
    for name in catalogue("en").completions:
        assert name in taxonomy() or name in families or name in own


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "pt"])
@pytest.mark.parametrize("style", STYLES)
def test_every_category_has_words_with_the_reference_and_no_open_variable(language: str, style: str) -> None:
    fallback = Fallback(SafeCompletions(language=language, style=style))
    for category in (*taxonomy(), "check.failed", "approval", "unknown"):
        words = fallback.completion(category, reference="dec_7")
        assert "dec_7" in words
        assert "{" not in words
    for surface in Surface:
        assert fallback.notice(surface, reference="dec_7")


def test_a_crisis_text_keeps_its_style_and_points_to_help() -> None:
    for style in STYLES:
        words = Fallback(SafeCompletions(style=style)).completion("content.self_harm", reference="")
        assert "findahelpline.com" in words
        assert "emergency" in words


def test_own_words_go_first_and_the_most_precise_ones_hold() -> None:
    settings_ = SafeCompletions(
        messages={"pii": "pii words", "pii.card": "card {reference} at {shop}", "*": "any"},
        variables={"shop": "Hook & Line"},
    )
    fallback = Fallback(settings_)

    assert fallback.completion("pii.card", reference="r") == "card r at Hook & Line"
    assert fallback.completion("pii.email", reference="") == "pii words"
    assert fallback.completion("secret.jwt", reference="") == "any"
    rest = Fallback(SafeCompletions(messages={"default": "d", "approval": "a", "check.failed": "c"}))
    said = [rest.completion(name, reference="") for name in ("pii.card", "approval", "check.failed")]
    assert said == ["d", "a", "c"]
    assert fallback.completion("pii.card", reference="r", message="rule's {shop}") == (
        "rule's Hook & Line (Reference: r)"
    )


def test_a_language_without_texts_falls_back_to_the_policys() -> None:
    fallback = Fallback(SafeCompletions(language="de"))

    assert fallback.completion("pii.card", reference="", language="xx") == fallback.completion(
        "pii.card", reference=""
    )
    assert "données" in fallback.completion("pii.card", reference="", language="fr")
    with pytest.raises(UsageError, match="no safe completions in 'xx'"):
        catalogue("xx")


def test_filling_evaluates_nothing() -> None:
    assert fill("{a} {b.__class__} {{c}}", {"a": "{b}"}) == "{b} {b.__class__} {c}"
