"""Time grows with the length of a text and not with its square, whatever the text: four times as long, less
than six times as slow. Small times are let through, since they measure the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import pytest
from hostile_texts import HOSTILE

from stanchion.core.finding import Detector, DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors import custom
from stanchion.detectors.patterns import Catalogue, Pattern
from stanchion.detectors.places import PlaceFinder
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import Scanner, packaged_scanner
from stanchion.detectors.views import build_views

DETECTORS = ("secrets", "pii", "injection.patterns", "injection.linear", "leakage", "refusal", "obfuscation")
RATIO, SMALL_S = 6.0, 0.06
READ_AT_MOST = 9  # times the characters of a text, in all its readings: the text and eight times as much
REGISTRY = Registry(packaged_scanner())


def took(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def assert_linear(name: str, work: Callable[[int], object], size: int, *, grows: float = 4.0) -> None:
    """The smaller of two tries counts: what is quadratic is slow every time. `grows` is the work."""
    ratios = []
    for _ in range(2):
        short, long = took(lambda: work(size)), took(lambda: work(4 * size))
        if long < SMALL_S * max(1.0, size / 60_000) or long < RATIO * grows / 4.0 * short:
            return
        ratios.append(f"{short:.3f} s, {long:.3f} s")
    pytest.fail(f"{name}: {'; '.join(ratios)}")


def read(text: str) -> int:
    """The characters of all readings of a text: a level of decoding may begin only in a longer text."""
    view_set = build_views(text)
    packaged_scanner().hits(view_set)
    return sum(len(view.text) for view in view_set.readings)


def look(text: str) -> None:
    """Everything that is done with a text: all views, all patterns, all detectors."""
    view_set = build_views(text)
    assert view_set.segments is not None
    for name in DETECTORS:
        detector = REGISTRY.create(name)
        context = {"documents": (text[:2000],), "system_prompt": ("You are kind. " + text[:200],)}
        detector.detect(DetectorInput(view_set=view_set, origin=Origin.UNKNOWN, context=context))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_no_text_makes_the_detectors_hang(name: str) -> None:
    assert_linear(name, lambda size: look(HOSTILE[name](size)), 16_000)


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_no_text_of_a_megabyte_makes_the_detectors_hang(name: str) -> None:
    short, long = (read(HOSTILE[name](size)) for size in (250_000, 1_000_000))
    grows = max(4.0, long / short)
    assert long <= READ_AT_MOST * 1_000_000 + 65_536
    assert_linear(name, lambda size: look(HOSTILE[name](size)), 250_000, grows=grows)


CONTEXT = {"languages": ("en",), "topics": {"garden": ("How do I water roses?", "When are tulips planted?")}}
OWN = (
    (r"\b(?:\w+\s+){3,9}secret plan\b", ()),
    (r"(?:a|aa|a+)+[^a]?b+c?[0-9]", ("caseless",)),
    (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", ("ucp",)),
    (r"\{[^{}]*\{[^{}]*\}[^{}]*\}", ("dotall",)),
    (r"(?:[A-Z][a-z]+ ){2,}ordered", ("multiline",)),
)


@lru_cache
def own_patterns() -> Detector:
    """The detector of a user's patterns, which want to be slow."""
    made = [
        Pattern(id=f"custom.p{number}", pattern=expression, category="custom.match", severity="low",  # type: ignore[arg-type]
                score=0.5, flags=flags)  # type: ignore[arg-type]
        for number, (expression, flags) in enumerate(OWN)
    ]  # fmt: skip
    return custom.create(
        scanner=Scanner([Catalogue(id="own", version=1, source="own", patterns=tuple(made))])
    )


@lru_cache
def detector(name: str) -> Detector:
    if name == "custom":
        return own_patterns()
    return REGISTRY.create(name, **(CONTEXT if name == "context" else {}))


def ask(name: str, text: str, documents: Sequence[str] = ()) -> None:
    """One detector, with its own views of the text."""
    context = {"documents": tuple(documents), "question": ("What does it say?",)}
    given = DetectorInput(view_set=build_views(text), origin=Origin.MODEL, context=context)
    detector(name).detect(given)


FACTS = "The tower was built in 1889 by Gustave Eiffel. It is 330 metres high [1]. "


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_no_megabyte_makes_content_grounding_context_or_own_patterns_hang(name: str) -> None:
    """An answer is checked against documents up to 200,000 characters; documents may be longer."""
    short, long = (read(HOSTILE[name](size)) for size in (250_000, 1_000_000))
    grows = max(4.0, long / short)
    for detector_id in ("content", "context", "custom"):
        assert_linear(
            detector_id, lambda size, id=detector_id: ask(id, HOSTILE[name](size)), 250_000, grows=grows
        )
    assert_linear("answer", lambda size: ask("grounding", HOSTILE[name](size), [FACTS]), 50_000)
    assert_linear("both", lambda size: ask("grounding", HOSTILE[name](size), [HOSTILE[name](size)]), 50_000)
    assert_linear("documents", lambda size: ask("grounding", FACTS * 9, [HOSTILE[name](size)]), 240_000)


def worst_for(pattern: Pattern, size: int) -> list[str]:
    """The pattern's example again and again: whole, without its end, and joined."""
    example = pattern.examples[0]
    pieces = (f"{example} ", f"{example[:-1]} ", example, example[: max(1, len(example) // 2)])
    return [(piece * (size // len(piece) + 1))[:size] for piece in pieces]


def find_all(pattern: Pattern, size: int) -> None:
    finder = PlaceFinder(pattern)
    for text in worst_for(pattern, size):
        finder.find(text.encode())


@pytest.mark.slow
def test_every_packaged_pattern_is_found_in_time_proportional_to_the_text() -> None:
    for pattern in packaged_scanner().patterns:
        if pattern.examples:
            find_all(pattern, 100)
            assert_linear(pattern.id, lambda size, pattern=pattern: find_all(pattern, size), 8_000)


@pytest.mark.soak
def test_every_packaged_pattern_is_found_in_a_megabyte() -> None:
    for pattern in packaged_scanner().patterns:
        if pattern.examples:
            assert_linear(pattern.id, lambda size, pattern=pattern: find_all(pattern, size), 250_000)


@pytest.mark.parametrize(
    "expression", ["(?:a+)+b", "a*a*a*a*b", "(?:a|aa)+b", "[a-z]*[a-z]*[0-9]", "(?:.*,){9}x"]
)
@pytest.mark.parametrize("piece", ["a", "ab,", "ab", "a1"])
def test_patterns_of_users_cannot_hang(expression: str, piece: str) -> None:
    made = Pattern(id="custom.x", pattern=expression, category="custom.match", severity="low", score=0.5)  # type: ignore[arg-type]
    scanner = Scanner([Catalogue(id="own", version=1, source="own", patterns=(made,))])
    assert_linear(expression, lambda size: scanner.hits(build_views(piece * (size // len(piece)))), 60_000)


def test_matches_that_are_always_refused_end_and_say_so() -> None:
    class Refusing(PlaceFinder):
        __slots__ = ()

        def _prepare(self) -> None:
            super()._prepare()
            self._validate = lambda _text: False

    made = Pattern(id="custom.x", pattern="[a-z]{8,}", category="custom.match", severity="low", score=0.5)  # type: ignore[arg-type]
    assert_linear("refused", lambda size: Refusing(made).find(b"a" * size), 60_000)
    assert Refusing(made).find(b"a" * 60_000) == ([], False)
