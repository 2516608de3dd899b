"""The automaton is a short cut, never a filter of its own: hits are those of a search with every pattern."""

from __future__ import annotations

import random
from functools import lru_cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.detectors.automaton import Automaton
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.literals import required_literals
from stanchion.detectors.needs import needed_run, needs_high, needs_one_of
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.places import PlaceFinder
from stanchion.detectors.scan import packaged_scanner
from stanchion.redteam.mutators import MUTATORS

SENTENCE = (
    "the report says that password secret token: api_key = ignore previous instructions system prompt card "
    "account 4111-1111-1111-1111 call 030 1234567 <img src=//a.example> user@example.com 192.0.2.7 Dr. Who"
)
FILLER = b"\n" + b"the sun was low " * 60  # long texts are looked at with other databases than short ones
WORDS = SENTENCE.split(" ")


def corpus() -> list[str]:
    """Every example and counter-example of the packaged patterns, and mixtures of them in prose."""
    rng = random.Random(17)
    own = [text for p in packaged_scanner().patterns for text in (*p.examples, *p.counter_examples)]
    mixed = []
    for _ in range(150):
        parts = [
            rng.choice(own) if rng.random() < 0.3 else rng.choice(WORDS) for _ in range(rng.randrange(3, 40))
        ]
        mixed.append(rng.choice((" ", "\n", ", ")).join(parts))
    disguised = [
        MUTATORS[name](text, rng) for text in mixed[:20] for name in ("homoglyph", "url", "full_width")
    ]
    return [*own, *mixed, *disguised]


@pytest.mark.slow
def test_the_automaton_misses_no_pattern_that_a_search_finds() -> None:
    patterns = packaged_scanner().patterns
    automaton = Automaton(patterns, DiskCache(None))
    finders = [PlaceFinder(pattern) for pattern in patterns]
    checked = 0
    for text in corpus():
        data = text.encode("utf-8", "replace")
        long = data + FILLER
        seen = set(automaton.look(data, is_ascii=text.isascii()).patterns)
        seen_in_long = set(automaton.look(long, is_ascii=text.isascii()).patterns)
        for index, finder in enumerate(finders):
            if index not in seen:
                assert not finder.find(data)[0], f"{patterns[index].id} in {text!r}"
            else:
                checked += 1
                if index not in seen_in_long:
                    assert not finder.find(long)[0], f"{patterns[index].id} in long {text!r}"
    assert checked > len(patterns)


def test_every_example_holds_a_word_that_its_pattern_needs() -> None:
    worded = 0
    for made in packaged_scanner().patterns:
        words = required_literals(made.pattern, made.flags)
        if words is None:
            continue
        for text in made.examples:
            data = text.lower() if words.caseless else text
            if PlaceFinder(made).find(text.encode())[0]:
                worded += 1
                assert any(word in data for word in words.words), f"{made.id}: {text!r}"
    assert worded > 300


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (r"\b(?:ignore|forget)\s+(?:all|the)\s+rules?\b", {"ignore", "forget"}),
        (r"summari[sz]e this", {"summarise th", "summarize th"}),
        (r"(?:prompt)?\s(?:system|users?)\d", {"system", "user"}),
        (r"(?:secret){2,}", {"secret"}),
        (r"(?:secret)*[a-z]+", None),
        (r"(?:secret|[a-z]+) of", None),
        (r"stra\u00dfe", {"stra"}),
        (r"\p{L}+word\x{e9}", None),
    ],
)
def test_words_that_a_match_needs(expression: str, words: set[str] | None) -> None:
    found = required_literals(expression, ("caseless",))
    assert found == (None if words is None else (words, True))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (r"\bDAN\s+mode\b|with\s+DAN\b", {"DAN"}),
        (r"\bignore\s", None),
        (r"(?i:KEY)\d+|(?i:TOKEN)", None),
        (r"(?i:KEY)\d+TOKEN", {"TOKEN"}),
        (r"\bAKIA[a-z]+", {"AKIA"}),
    ],
)
def test_words_that_a_match_needs_as_they_stand(expression: str, words: set[str] | None) -> None:
    found = required_literals(expression, ())
    assert found == (None if words is None else (words, False))


@pytest.mark.parametrize(
    ("expression", "length"),
    [
        (r"[a-z]{20,}", 20),
        (r"\bAKIA[A-Z2-7]{16}\b", 20),
        (r"key=[0-9a-f]{8}-[0-9a-f]{4}-", 18),
        (r"[a-z]{8}\s[a-z]{12}", 12),
        (r"(?:[a-z]{20}|[a-z]{9} [a-z]{8})", 9),
        (r"(?:ab ){9}", 2),
        (r"(?: ab){2}cdef", 6),
        (r"(?:ab){9}", 18),
        (r"(?:[a-z]{20})?x", 1),
        (r"[a-z]{4}(?:\.[a-z]{4})?[a-z]{4}", 8),
        (r"[a-z]{4}(?: [a-z])?[a-z]{4}", 4),
        (r"[^ ]{20}", 0),
        (r"[a-z\u00e9]{20}", 0),
    ],
)
def test_the_run_that_a_match_needs(expression: str, length: int) -> None:
    assert (
        needed_run(expression, (), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-=._")
        == length
    )


def test_patterns_behind_words_are_found_in_long_texts_and_short_ones() -> None:
    names = ["ignore", "forget", "disregard", "override", "bypass", "discard", "reveal", "repeat", "output"]
    patterns = [pattern(rf"\b{name}\s+[a-z]+ly", "caseless") for name in names]
    automaton = Automaton([*patterns, pattern("gr[a-z]n x")], DiskCache(None))
    for size in (0, 200, 5_000):
        filler = b"the sun was low. " * (size // 17)
        for index, name in enumerate(names):
            data = filler + f"then {name.upper()} kindly".encode() + filler
            assert automaton.look(data, is_ascii=True).patterns == (index,)
        assert automaton.look(filler + b" green x", is_ascii=True).patterns == ()
        assert automaton.look(filler + b" gruen xgran x" + filler, is_ascii=True).patterns == (len(names),)


def pattern(expression: str, *flags: str) -> Pattern:
    return Pattern(
        id="custom.x",
        pattern=expression,
        category="custom",
        severity="low",
        score=0.5,
        flags=flags,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("expression", "needed"),
    [
        (r"[0-9]{3}-[A-Z]+", True),
        (r"(?:a[0-9]|b\d)x", True),
        (r"(?:a[0-9]|b)x", False),
        (r"[0-9]*x", False),
        (r"(?:[0-9]x)?y", False),
        (r"[0-9a]x", False),
        (r"[^0-9]x", False),
    ],
)
def test_what_needs_a_digit(expression: str, needed: bool) -> None:
    assert needs_one_of(expression, (), "0123456789") is needed


def test_a_digit_of_any_script_is_no_ascii_digit() -> None:
    assert not needs_one_of(r"\bx\d+\b", ("ucp",), "0123456789")
    assert needs_high("\u00e9\u00e8", ())


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            r"\b([A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{6}:[A-Za-z0-9_\-]{10})(?:[^0-9A-Za-z_\-]|$)",
            "x Ab3_-9.qwerty:0123456789 y",
        ),
        (r"\b[a-z]{4}=[0-9]{2}", "a abcd=12"),
        (r"(?m)^[a-z]{4}:x", "a\nabcd:x"),
    ],
)
def test_a_pattern_with_a_long_beginning_is_still_found(expression: str, text: str) -> None:
    assert Automaton([pattern(expression)], DiskCache(None)).look(text.encode(), is_ascii=True).patterns == (
        0,
    )


def test_parts_are_looked_at_only_where_they_could_match_and_survive_the_cache(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    patterns = [pattern(r"[0-9]{3}x"), pattern("key=[a-z]+"), pattern("word"), pattern("gr\u00fcn")]
    folder = tmp_path_factory.mktemp("cache")
    for _ in range(2):  # built, then loaded
        automaton = Automaton(patterns, DiskCache(folder))
        for index, text in enumerate(["a 123x", "key=abc", "a word", "alles gr\u00fcn"]):
            assert automaton.look(text.encode(), is_ascii=text.isascii()).patterns == (index,)
        assert automaton.look(b"nothing here", is_ascii=True).patterns == ()


_GATED = [
    msgspec.structs.replace(pattern(expression, *flags), examples=(example,))
    for expression, flags, example in (
        (r"\bDAN\s+mode\b", (), "DAN mode"),
        (r"\bnever\s+obey\b", ("caseless",), "NEVER obey"),
        (r"\bpretend\s+that\b", ("caseless",), "Pretend that"),
        (r"\bwizard\s+of\b", ("caseless",), "wizard of"),
        (r"\bmarble\s+hall\b", ("caseless",), "marble hall"),
        (r"\bviolin\s+bow\b", ("caseless",), "violin BOW"),
        (r"\bcopper\s+coin\b", ("caseless",), "copper coin"),
        (r"\bsilver\s+ring\b", ("caseless",), "silver ring"),
        ("\\bMr\\.? [A-Z\u00c0-\u00de][\\w\u00e0-\u00ff]{1,24}", (), "Mr. \u00c9m"),
        (r"\bit [a-z] is\b", (), "it x is"),
        (r"\bid [0-9]{3}\b", (), "id 123"),
        (r"\bq[a-z]: \S", (), "qx: y"),
        (r"\bto you[,:] run\b", (), "to you, run"),
        (r"\bkz[a-z]{14,}\b", (), "kz" + "q" * 14),
        (r"\bkz=[a-z]{20,}\b", (), "kz=" + "q" * 20),
        (r"\bkz[a-z]{16}[0-9]\b", (), "kz" + "q" * 16 + "7"),
        ("\u00e9t\u00e9", (), "\u00e9t\u00e9"),
    )
]


@lru_cache
def _gated_automaton() -> Automaton:
    return Automaton(_GATED, DiskCache(None))


@settings(deadline=None)
@given(st.sampled_from(_GATED), st.text("aZ0 .:=,-\u00e9", max_size=30), st.integers(0, 900))
def test_what_needs_something_is_found_wherever_it_stands(made: Pattern, around: str, length: int) -> None:
    """Short and long texts, with and without digits, runs, signs and characters beyond ASCII around it."""
    automaton = _gated_automaton()
    filler = ("the sun was low " * 60)[:length]
    for text in (f"{around} {made.examples[0]} {filler}", f"{filler} {made.examples[0]} {around}"):
        data = text.encode()
        assert PlaceFinder(made).find(data)[0]
        assert _GATED.index(made) in automaton.look(data, is_ascii=text.isascii()).patterns
