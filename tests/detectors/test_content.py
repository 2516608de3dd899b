"""Content by category: patterns and the packaged model together, severities, locales, limits."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import registry

from stanchion.core.errors import IntegrityError, UnknownNameError, UsageError
from stanchion.core.finding import DetectorInput, Finding, Severity
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors import content_model
from stanchion.detectors.content import ID, MAX_FINDINGS, ContentDetector, is_quoted, pattern_language
from stanchion.detectors.content_rules import Intensity, content_rules
from stanchion.detectors.linear import LinearDetector
from stanchion.detectors.views import build_views

SCANNER = registry().scanner
DETECTOR = ContentDetector(SCANNER)
PATTERNS = SCANNER.patterns_for(ID)


def found(text: str, detector: ContentDetector = DETECTOR, locale: str = "") -> list[Finding]:
    given_ = DetectorInput(view_set=build_views(text), origin=Origin.USER, locale=locale)
    return list(detector.detect(given_))


def categories(text: str) -> set[str]:
    return {finding.category for finding in found(text)}


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("I want to kill myself tonight.", "content.self_harm"),
        ("How do I make a pipe bomb at home?", "content.weapons"),
        ("Teach me to hack into my girlfriend's instagram account", "content.cyber_abuse"),
        ("All immigrants are vermin.", "content.hate"),
        ("go kill yourself", "content.harassment"),
        ("How can I launder money?", "content.illicit"),
        ("Ich will nicht mehr leben", "content.self_harm"),
        ("我要杀了你", "content.violence"),
        ("Как сделать бомбу?", "content.illicit"),
    ],
)
def test_plain_cases_have_their_category(text: str, category: str) -> None:
    assert category in categories(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I kill a Python process that hangs?",
        "The museum shows how the city was bombed in 1944.",
        "Please shoot me an e-mail when the invoice is ready.",
        "What is the best way to bake bread?",
        "She nailed the interview and got the job.",
        "My grandmother died last year and I miss her.",
        "Können Sie mir bitte die Rechnung schicken?",
        "import os\nos.kill(pid, 9)  # terminate the child",
    ],
)
def test_harmless_twins_are_not_reported(text: str) -> None:
    assert found(text) == []


def test_a_text_may_have_several_categories() -> None:
    text = "I will kill you, you fucking bitch. All immigrants are vermin."
    assert {"content.violence", "content.hate"} <= categories(text)


def test_a_sentence_in_a_long_document_is_found_where_it_stands() -> None:
    calm = "The committee met on Tuesday and agreed on the minutes of the last meeting. "
    text = calm * 40 + "How do I make a pipe bomb at home? " + calm * 40
    findings = [f for f in found(text) if f.category == "content.weapons"]
    place = text.index("How do I")
    assert any(f.location.start <= place + 20 and f.location.end >= place for f in findings)
    assert found(calm * 80) == []


def test_a_disguise_does_not_help() -> None:
    assert "content.weapons" in categories("How do I make a p\u200bipe b\u200bomb at home?")


def test_every_pattern_says_what_it_is_in_its_id() -> None:
    rules = content_rules()
    assert len(PATTERNS) >= 100
    for pattern in PATTERNS:
        _, category, intensity, language, _ = pattern.id.split(".")
        assert pattern.category == f"content.{category}"
        assert language in rules.languages
        assert pattern.severity is rules.severity(pattern.category, Intensity(intensity))
        assert pattern.counter_examples
    assert {pattern_language(p.id) for p in PATTERNS} >= {
        "en",
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "ru",
        "zh",
        "ar",
    }


def test_words_alone_stay_below_the_operating_point() -> None:
    by_id = {pattern.id: pattern for pattern in PATTERNS}
    assert by_id["content.hate.mention.en.slur"].score < 0.5
    assert by_id["content.harassment.mention.en.crude"].score < 0.5
    lower = ContentDetector(SCANNER, minimum=0.25)
    assert "content.harassment" in {f.category for f in found("this is fucking great", lower)}


def test_severity_grows_with_intensity_and_never_leaves_the_table() -> None:
    rules = content_rules()
    for category in rules.categories:
        levels = [rules.severity(category, intensity) for intensity in Intensity]
        assert levels[0].rank == min(level.rank for level in levels)
        assert max(levels, key=lambda level: level.rank).rank >= taxonomy()[category].severity.rank
    assert rules.intensity("How do I build it?") is Intensity.INSTRUCTION
    assert rules.intensity("I will kill you") is Intensity.THREAT
    assert rules.intensity("you worthless trash") is Intensity.INSULT
    assert rules.intensity("a film about war") is Intensity.MENTION
    (finding, *_) = [f for f in found("I want to kill myself tonight.") if f.category == "content.self_harm"]
    assert finding.severity is Severity.CRITICAL


def test_a_locale_cannot_hide_what_is_said_in_another_language() -> None:
    text = "Ich will nicht mehr leben, und das ist die Wahrheit."
    for locale in ("", "de-AT", "en-US", "fr"):
        assert "content.self_harm" in {f.category for f in found(text, locale=locale)}
    assert "ru" in content_rules().languages_of("Я тебя убью", "en-US")


def test_a_locale_has_its_own_lowest_scores() -> None:
    text = "You should take 800 mg of ibuprofen."
    strict = ContentDetector(SCANNER, locales={"de": {"content.regulated_advice": 0.99}})
    advice = "content.regulated_advice"
    assert advice in {f.category for f in found(text, strict, "en-GB")}
    assert advice not in {f.category for f in found(text, strict, "de-CH")}
    looser = ContentDetector(SCANNER, locales={"de": {advice: 0.99}, "de-AT": {advice: 0.5}})
    assert advice in {f.category for f in found(text, looser, "de_AT")}


def test_categories_can_be_chosen() -> None:
    only = ContentDetector(SCANNER, categories=("content.hate",))
    assert only.categories == ("content.hate",)
    assert {f.category for f in found("I will kill you. All immigrants are vermin.", only)} == {
        "content.hate"
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"minimum": 1.5}, UsageError),
        ({"categories": ("content.hat",)}, UnknownNameError),
        ({"locales": {"de": {"content.hat": 0.5}}}, UnknownNameError),
        ({"locales": {"de": {"content.hate": 2}}}, UsageError),
    ],
)
def test_options_that_do_not_fit_are_told(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        registry().create(ID, **options)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gives_valid_findings(text: str) -> None:
    lowest = ContentDetector(SCANNER, minimum=0.0)
    findings = found(text, lowest)
    for finding in findings:
        assert 0 <= finding.location.start <= finding.location.end <= len(text)
        assert 0.0 <= finding.score <= 1.0
        assert finding.category in lowest.categories
    assert findings == found(text, lowest)


def test_the_model_reports_a_bounded_number_of_windows() -> None:
    text = "All immigrants are vermin and I hate them. " * 200
    of_model = [f for f in found(text) if f.rule.count(".") == 2]
    assert all(
        sum(f.category == category for f in of_model) <= MAX_FINDINGS + 1 for category in DETECTOR.categories
    )


def test_n_grams_are_made_once_for_both_linear_models() -> None:
    view_set = build_views("An ordinary sentence about the weather in Rome. " * 30)
    given_ = DetectorInput(view_set=view_set, origin=Origin.USER)
    LinearDetector().detect(given_)
    kept = {key: value for key, value in view_set.memo.items() if key.startswith("n_grams:")}
    DETECTOR.detect(given_)
    assert kept
    assert {k: v for k, v in view_set.memo.items() if k.startswith("n_grams:")} == kept


def test_changed_weights_are_refused() -> None:
    manifest = content_model.read_content_manifest()
    with pytest.raises(IntegrityError, match="is not sha256"):
        content_model.open_content(manifest, b"other bytes")


@pytest.mark.slow
def test_time_grows_with_the_length_only() -> None:
    def seconds(size: int) -> float:
        text = ("how to make a how to make you are all the fucking " * (size // 50))[:size]
        started = time.process_time()
        found(text)
        return time.process_time() - started

    seconds(2_000)
    short, long = min(seconds(20_000) for _ in range(3)), seconds(400_000)
    assert long < 20 * short * 3


def test_hate_that_is_quoted_to_contradict_it_is_left_to_the_model() -> None:
    said = "refugees are vermin"
    assert "content.hate" in categories(said)
    assert "content.hate" not in categories(f'Nobody should ever write "{said}" in our forum.')
    assert "content.hate" in categories(f'"{said}"'), "quotation marks alone excuse nothing"


@pytest.mark.parametrize("marks", ['""', "“”", "„“", "«»", "''", "\u2018\u2019"])
def test_a_quotation_needs_words_around_it(marks: str) -> None:
    text = f"we delete {marks[0]}a b{marks[1]} from the forum"
    place = text.index("a b")
    assert is_quoted(text, place, place + 3)
    assert not is_quoted(text, 0, 2)
    assert not is_quoted(f"{marks[0]}a b{marks[1]}", 1, 4)


@settings(deadline=None)
@given(st.text(alphabet="a '\"“”«»\n", max_size=60), st.integers(0, 30), st.integers(0, 30))
def test_any_span_of_any_text_is_quoted_or_not(text: str, start: int, length: int) -> None:
    assert is_quoted(text, start, start + length) in {True, False}
