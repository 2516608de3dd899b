"""`obfuscation`: disguises go on record, and text that was not checked is said to be so."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import packaged_scanner
from stanchion.detectors.views import ViewOptions, build_views
from stanchion.guard.pipeline import Guard
from stanchion.redteam.mutators import MUTATORS, stack

SENTENCE = "Please tell me all about the previous report and its author, who lives in Lyon"
registry = Registry(packaged_scanner())
detector = registry.create("obfuscation")


def found(text: str, **options: int | bool) -> list[Finding]:
    view_set = build_views(text, options=ViewOptions(**options))
    return list(detector.detect(DetectorInput(view_set=view_set, origin=Origin.USER)))


def rules(text: str, **options: int | bool) -> set[str]:
    return {finding.rule for finding in found(text, **options)}


def layered(text: str, count: int) -> str:
    for _ in range(count):
        text = base64.b64encode(text.encode()).decode()
    return text


def test_plain_and_lightly_encoded_text_gives_nothing() -> None:
    for text in (
        SENTENCE,
        "Voir https://example.org/?q=caf%C3%A9%20noir et &eacute;crire.",
        '{"path": "C:\\\\new\\\\table", "note": "a \\"quoted\\" word"}',
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043a\u0430\u043a \u0434\u0435\u043b\u0430?",
        "r\u00e9sum\u00e9 na\u00efve \u2764\ufe0f 1st b2 mp3",
    ):
        assert found(text) == []


@pytest.mark.parametrize(
    ("name", "rule", "least"),
    [
        ("variation_selector", "obfuscation.selector_text", 0.8),
        ("homoglyph", "obfuscation.confusables", 0.5),
        ("reversed", "obfuscation.reversed", 0.5),
        ("spacing", "obfuscation.apart", 0.5),
    ],
)
def test_a_disguise_is_recorded(name: str, rule: str, least: float) -> None:
    text = MUTATORS[name](f"{SENTENCE} with this", random.Random(4))
    findings = {finding.rule: finding for finding in found(text)}
    assert findings[rule].score >= least
    assert findings[rule].category == "injection.obfuscation"


def test_two_layers_are_recorded_and_one_is_not() -> None:
    assert "obfuscation.layers" in rules(layered(SENTENCE, 2))
    assert "obfuscation.layers" not in rules(layered(SENTENCE, 1))
    twice = stack(MUTATORS["url"], MUTATORS["base64"])(SENTENCE, random.Random(2))
    assert "obfuscation.layers" in rules(twice)


@pytest.mark.parametrize(
    ("text", "options", "rule"),
    [
        (layered(SENTENCE, 6), {}, "obfuscation.decode_depth"),
        (base64.b64encode(b"say all " * 2000).decode(), {"max_run": 4000}, "obfuscation.oversize_run"),
        (SENTENCE * 3, {"max_characters": 100}, "obfuscation.unfold_limit"),
        (layered(SENTENCE, 3), {"max_views": 2}, "obfuscation.view_limit"),
        ("AKIAIOSFODNN7EXAMPLE " * 2 + "someone@example.com " * 20_000, {}, "obfuscation.match_limit"),
    ],
)
def test_what_was_not_checked_is_a_limit_with_its_place(
    text: str, options: dict[str, int], rule: str
) -> None:
    finding = next(f for f in found(text, **options) if f.rule == rule)
    assert (finding.category, finding.score) == ("input.limit", 1.0)
    assert 0 <= finding.location.start < finding.location.end <= len(text)


def test_a_long_picture_is_recorded_and_no_limit() -> None:
    picture = base64.b64encode(random.Random(3).randbytes(60_000)).decode()
    findings = found(f"data:image/png;base64,{picture}")
    assert [(f.rule, f.category) for f in findings] == [("obfuscation.opaque_run", "injection.obfuscation")]


@given(st.text(max_size=200))
def test_findings_are_within_the_text_and_of_declared_categories(text: str) -> None:
    for finding in found(text):
        assert finding.category in detector.categories
        assert finding.category in taxonomy()
        assert 0 <= finding.location.start <= finding.location.end <= len(text)


def test_the_packaged_policy_records_a_disguise_and_blocks_what_was_not_read() -> None:
    guard = Guard.load("baseline")
    spaced = guard.check(MUTATORS["spacing"](SENTENCE, random.Random(3)))
    assert spaced.decision.effect.value == "allow"
    assert "obfuscation.apart" in {finding.rule for finding in spaced.decision.findings}
    deep = guard.check(layered(SENTENCE, 7))
    assert deep.decision.effect.value == "block"
    assert "not-read" in deep.decision.rule_ids
