"""The prefilter names one detector too many at times, never one too few, whatever part of a text is read."""

from __future__ import annotations

import random
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.finding import DetectorInput, Severity
from stanchion.core.origin import Origin
from stanchion.detectors.bytefilter import byte_filter
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.prefilter import NOTHING, Prefilter
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import ON_DEMAND, Scanner, packaged_scanner
from stanchion.detectors.transforms.triggers import Trigger, trigger_finder
from stanchion.detectors.views import build_views

RULED_OUT = ("secrets", "pii", "injection.patterns", "obfuscation")
ORDINARY = (
    "When will my parcel arrive? The page still says that it is being packed.",
    "Please write a short note to my landlord about the heating, polite but firm.",
    "It has 3 rooms and 2 doors; the rent was paid on time.",
    "A well-known and far-reaching idea, he said.",
)
WORDS = " ".join(ORDINARY).split()


@cache
def samples() -> tuple[str, ...]:
    own = [p for p in packaged_scanner().patterns if p.detector not in ON_DEMAND]
    return tuple(dict.fromkeys(text for p in own for text in (*p.examples, *p.counter_examples)))


pieces = st.one_of(
    st.sampled_from(ORDINARY),
    st.deferred(lambda: st.sampled_from(samples())),
    st.text(st.sampled_from("aA1 @./:=%+-\\$\n\u00e9\uff14"), max_size=12),
)
texts = st.lists(pieces, min_size=1, max_size=4).map(" ".join)


def pattern(expression: str, *flags: str, detector: str = "custom") -> Pattern:
    return Pattern(
        id=f"{detector}.p",
        pattern=expression,
        category="custom.pattern",
        severity=Severity.LOW,
        score=0.5,
        flags=flags,  # type: ignore[arg-type]
    )


def looked_for(*patterns: Pattern, text: str) -> frozenset[str]:
    return Prefilter(patterns, DiskCache(None)).look(text.encode(), is_ascii=text.isascii()).detectors


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_is_in_a_part_is_foreseen_of_the_whole(text: str, start: int, end: int) -> None:
    scanner = packaged_scanner()
    foreseen = scanner.prospect(build_views(text).raw)
    if text.isascii():
        assert scanner._prefilter.finds_nothing(text.encode()) is (foreseen is NOTHING)
    start, end = sorted((start % (len(text) + 1), end % (len(text) + 1)))
    for part in (text, text[start:end], text[:end], text[start:]):
        raw = build_views(part).raw
        found = {hit.pattern.detector for hit in scanner.hits(build_views(part)) if hit.view.name == "raw"}
        assert found <= foreseen.detectors
        if part in (text, text[:end], text[start:]) and raw.triggers & ~Trigger.REVERSED:
            assert foreseen.is_triggered
    if trigger_finder().find(text.encode("utf-8", "replace")).triggers & Trigger.REVERSED:
        assert foreseen.is_backwards


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from(Origin))
def test_a_text_that_is_ruled_out_holds_nothing(text: str, origin: Origin) -> None:
    scanner, registry = packaged_scanner(), Registry()
    view_set = build_views(text)
    if not scanner.rules_out(view_set):
        return
    looked_at = build_views(text)
    assert scanner._main.hits(looked_at) == ()  # without the short cut
    assert looked_at.raw.triggers == Trigger.NONE
    assert [view.name for view in view_set.readings] == ["raw"]
    assert not view_set.signals
    for name in RULED_OUT:
        given_ = DetectorInput(view_set=looked_at, origin=origin)
        assert list(registry.create(name).detect(given_)) == []


def test_ordinary_texts_are_ruled_out_and_examples_are_not() -> None:
    scanner = packaged_scanner()
    assert all(scanner.rules_out(build_views(text)) for text in ORDINARY)
    own = [p for p in scanner.patterns if p.detector not in ON_DEMAND]
    assert len(own) > 400
    for each in own:
        for text in each.examples:
            if scanner.hits(build_views(text)):
                assert not scanner.rules_out(build_views(text)), each.id


@pytest.mark.parametrize("text", ["caf\u00e9 au lait", "It was fine. " * 100])
def test_long_texts_and_those_beyond_ascii_are_not_ruled_out(text: str) -> None:
    assert not packaged_scanner().rules_out(build_views(text))
    view_set = build_views(text)
    assert packaged_scanner().prospect(view_set.raw) is NOTHING
    assert packaged_scanner().rules_out(view_set) is text.isascii()  # it was looked at anyhow


def test_detectors_that_are_on_demand_are_not_ruled_out() -> None:
    scanner = packaged_scanner()
    assert scanner.shared_look("pii") is scanner.shared_look("secrets") is not None
    assert scanner.shared_look("refusal") is None
    assert "refusal" in scanner.untold


@pytest.mark.parametrize(
    ("expression", "flags", "inside"),
    [
        (r"\bDAN\s+mode\b", (), "xDAN modex"),
        (r"(?:^|\s)root(?:$|\s)", (), "xrooty"),
        (r"(?m)^to: \w+$", (), "go to: me now"),
        (r"\bx[0-9]{3}\b", (), "9x1234"),
        (r"\bk[a-z]{17}\b", (), "ak" + "q" * 20),
        ("\\b\u00e9t\u00e9\\b", ("ucp",), "a\u00e9t\u00e9s"),
        (r"\b[\p{L}]+ street\b", ("ucp",), "a streets"),
    ],
)
def test_an_assertion_is_no_reason_not_to_look(expression: str, flags: tuple[str, ...], inside: str) -> None:
    assert looked_for(pattern(expression, *flags), text=inside) == {"custom"}
    assert looked_for(pattern(expression, *flags), text="quiet") == frozenset()


def test_what_cannot_be_read_as_a_tree_is_told_of_the_whole_only() -> None:
    odd, other = pattern(r"\bword[[:digit:]]\b", detector="odd"), pattern(r"\bgreen\b", detector="other")
    made = Prefilter([odd, other], DiskCache(None))
    assert made.untold == {"odd"}
    assert made.look(b"a word7 here", is_ascii=True).detectors == {"odd"}
    assert made.look(b"evergreens", is_ascii=True).detectors == {"other"}


@pytest.mark.parametrize("expression", [r"\bx*\b", r"^(?:a?|b*)$", r"(?:\b)+"])
def test_an_expression_that_only_assertions_keep_from_matching_nothing_is_not_cut(expression: str) -> None:
    assert byte_filter(expression, (), in_parts=True) is None


def test_it_is_kept_on_disk_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = [pattern(r"\bgreen\b"), pattern(r"\bw[[:digit:]]\b", detector="odd")]
    first = Prefilter(patterns, DiskCache(tmp_path))
    (stored,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr("stanchion.detectors.prefilter._build", lambda *_: pytest.fail("built again"))
        again = Prefilter(patterns, DiskCache(tmp_path))
    for made in (first, again):
        assert made.look(b"so green", is_ascii=True).detectors == {"custom"}
        assert made.untold == {"odd"}
    data = stored.read_bytes()
    stored.write_bytes(data[: len(data) // 2])
    assert Prefilter(patterns, DiskCache(tmp_path)).look(b"green", is_ascii=True) is not NOTHING
    assert stored.read_bytes() == data


def test_texts_that_differ_cost_no_more_than_one_text_again() -> None:
    """An automaton that builds its states as it reads took milliseconds for each answer it had not seen."""
    draw = random.Random(11)
    words = [*WORDS, *(word for text in samples() for word in text.split() if word.isalpha())]
    different = [" ".join(draw.choices(words, k=60)).encode() for _ in range(300)]
    look = packaged_scanner()._prefilter.look

    def took(some: list[bytes]) -> float:
        began = time.process_time()
        for data in some:
            look(data, is_ascii=data.isascii())
        return time.process_time() - began

    took(different[:20])
    assert min(took(different) for _ in range(3)) < 300 * 0.0005


def test_a_scanner_whose_patterns_read_segments_rules_nothing_out() -> None:
    from msgspec.structs import replace

    from stanchion.detectors.patterns import Catalogue

    of_segments = replace(pattern(r"\bgreen\b"), views=("raw", "segment"))
    scanner = Scanner([Catalogue(id="test", version=1, source="", patterns=(of_segments,))])
    assert not scanner.rules_out(build_views("nothing of it"))
