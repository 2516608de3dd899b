"""The scanner: what matches is found, at the right place, in bounded time, with or without a cache."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stanchion.core.finding import Severity
from stanchion.detectors import places
from stanchion.detectors.automaton import Automaton
from stanchion.detectors.bytefilter import byte_filter
from stanchion.detectors.cache import DiskCache
from stanchion.detectors.expressions import compile_re2, faults, translate
from stanchion.detectors.matching import findings_from_hits, score_of
from stanchion.detectors.patterns import Catalogue, ContextRule, Pattern
from stanchion.detectors.scan import MATCH_LIMIT, Scanner
from stanchion.detectors.views import build_views


def pattern(expression: str, *, name: str = "p", **options: object) -> Pattern:
    values: dict[str, object] = {
        "id": f"custom.{name}",
        "pattern": expression,
        "category": "custom.pattern",
        "severity": Severity.LOW,
        "score": 0.5,
    }
    return Pattern(**{**values, **options})  # type: ignore[arg-type]


def scanner(*patterns: Pattern, cache_dir: Path | None = None) -> Scanner:
    catalogue = Catalogue(id="test", version=1, source="", patterns=patterns)
    return Scanner([catalogue], cache_dir=cache_dir)


def spans(made: Scanner, text: str) -> list[tuple[int, int]]:
    return [hit.original for hit in made.hits(build_views(text))]


def test_every_match_of_every_pattern_is_found_with_its_span() -> None:
    made = scanner(pattern(r"ab+", name="one"), pattern(r"b+c", name="two"))
    assert spans(made, "abbc abc") == [(0, 3), (1, 4), (5, 7), (6, 8)]


def test_offsets_are_code_points_after_any_text() -> None:
    made = scanner(pattern(r"key[0-9]+"))
    text = "\U0001f600\u00e9\ud800 " + "\u4e2d" * 3000 + " key42"
    start = text.index("key42")
    assert spans(made, text)[0] == (start, start + 5)


def test_a_group_is_the_span_and_a_missing_one_the_whole_match() -> None:
    made = scanner(pattern(r"id(?:=([0-9]+)|!)", group=1))
    assert spans(made, "id=42 id!") == [(3, 5), (6, 9)]


def test_a_pattern_is_looked_for_in_its_views_only() -> None:
    text = "%69gnore me and ignore"
    assert spans(scanner(pattern("ignore", views=("raw",))), text) == [(16, 22)]
    assert spans(scanner(pattern("ignore", views=("decoded",))), text) == [(0, 8), (16, 22)]
    assert spans(scanner(pattern("ignore", views=("segment",))), text) == []
    assert spans(scanner(pattern("ignore", views=("segment",))), "a <!-- ignore -->") == [(7, 13)]


def test_a_false_start_does_not_hide_a_valid_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from stanchion.detectors import validators

    checks = {"sums_to_ten": lambda text: sum(map(int, text)) == 10}
    monkeypatch.setattr(validators, "VALIDATORS", checks)
    made = scanner(pattern("[0-9]{4}", validator="sums_to_ten"))
    assert spans(made, "9912349") == [(2, 6)]


def test_unicode_words_have_unicode_ends() -> None:
    made = scanner(pattern(r"\bключ\b", flags=("ucp", "caseless")))
    assert spans(made, "выключить, ключ! КЛЮЧ ключи") == [(11, 15), (17, 21)]


def test_matches_are_bounded_and_the_bound_is_a_notice() -> None:
    made = scanner(pattern("ab"))
    view_set = build_views("ab " * (places.MAX_MATCHES + 100))
    assert len(made.hits(view_set)) == places.MAX_MATCHES
    assert MATCH_LIMIT in view_set.signals
    length = len(view_set.original)
    assert [(n.signal, n.start, n.end) for n in view_set.notices] == [(MATCH_LIMIT, 0, length)]
    assert MATCH_LIMIT not in build_views("ab " * 10).signals


def test_hits_are_made_once_for_a_text() -> None:
    made = scanner(pattern("ab"))
    view_set = build_views("ab")
    assert made.hits(view_set) is made.hits(view_set)
    other = scanner(pattern("b"))
    assert [hit.original for hit in other.hits(view_set)] == [(1, 2)]


def test_detectors_on_demand_do_not_slow_the_others() -> None:
    made = scanner(pattern("ab"), pattern("ab", id="refusal.x"))
    view_set = build_views("ab")
    assert [hit.pattern.id for hit in made.hits(view_set)] == ["custom.p"]
    assert [hit.pattern.id for hit in made.hits_for(view_set, "refusal")] == ["refusal.x"]
    assert made.hits_for(view_set, "pii") == ()


def test_what_is_on_demand_can_be_built_before_the_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made = scanner(pattern("ab"), pattern("ab", id="content.x"))
    made.prepare("content")
    made.prepare("pii")
    monkeypatch.setattr("stanchion.detectors.automaton._build", lambda *_: pytest.fail("built too late"))
    assert [hit.pattern.id for hit in made.hits_for(build_views("ab"), "content")] == ["content.x"]


def test_threads_share_a_scanner() -> None:
    made = scanner(*(pattern(rf"word{i}\b", name=f"n{i}") for i in range(50)))
    failures: list[int] = []

    def work(seed: int) -> None:
        for step in range(200):
            number = (seed * 7 + step) % 50
            if [hit.pattern.id for hit in made.hits(build_views(f"a word{number} b"))] != [
                f"custom.n{number}"
            ]:
                failures.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- the cache ----------------------------------------------------------------------------------------------


def test_the_automaton_is_kept_on_disk_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spans(scanner(pattern("ab+"), cache_dir=tmp_path), "xab") == [(1, 3)]
    (stored,) = tmp_path.glob("automaton-*")
    monkeypatch.setattr("stanchion.detectors.automaton._build", lambda *_: pytest.fail("built again"))
    assert spans(scanner(pattern("ab+"), cache_dir=tmp_path), "xab") == [(1, 3)]
    assert list(tmp_path.glob("automaton-*")) == [stored]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str) -> None:
    scanner(pattern("ab+"), cache_dir=tmp_path)
    (stored,) = tmp_path.glob("automaton-*")
    data = stored.read_bytes()
    broken = {
        "cut": data[: len(data) // 2],
        "flipped": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "empty": b"",
        "foreign": b"something else",
    }[damage]
    stored.write_bytes(broken)
    assert spans(scanner(pattern("ab+"), cache_dir=tmp_path), "xab") == [(1, 3)]
    assert stored.read_bytes() == data


def test_a_well_formed_entry_that_is_no_database_is_built_again(tmp_path: Path) -> None:
    scanner(pattern("ab+"), cache_dir=tmp_path)
    (stored,) = tmp_path.glob("automaton-*")
    DiskCache(tmp_path).write(stored.name, b"no database at all")
    assert spans(scanner(pattern("ab+"), cache_dir=tmp_path), "xab") == [(1, 3)]


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert spans(scanner(pattern("ab+"), cache_dir=shared), "xab") == [(1, 3)]
    assert list(shared.iterdir()) == []


def test_a_folder_that_cannot_be_made_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert spans(scanner(pattern("ab+"), cache_dir=file / "cache"), "xab") == [(1, 3)]


# --- the byte filter: what RE2 matches, Hyperscan lets through ----------------------------------------------

EXPRESSIONS = [
    (r"[^.\n]{0,80}?(?:api|key)s?\b", ()),
    (r"\b(?:\w+\s+){0,3}é+t[éè]\b", ("caseless",)),
    ("[\u0430-\u044f\u0451]{2,}\u043e", ("caseless",)),
    (r"(?:ß|Σ|ä)x", ("caseless",)),
    (r"\bkey\W{1,3}\p{L}+", ()),
    (r"\p{Han}{2}.", ("dotall",)),
    (r"a[^b]c.?d", ()),
    (r"(?i:AB)c|(?s:x.y)", ()),
    (r"^b|c$", ("multiline",)),
    (r"\x{e9}[\x{400}-\x{4ff}]?1", ()),
    (r"[^\x00-\x7f]b\B", ()),
    (r"a{3}|b{2,}c?|(?:ab){2,9}d", ()),
    (r"\w+@\w+\.[a-z]{2,9}\b", ("ucp",)),
    (r"\bslova?\b", ("ucp", "caseless")),
]
ALPHABET = (
    "abckdxyst @.\n1AB\u00e9\u00e8\u00df\u00e4\u03a3\u03c3\u03c2\u043e\u0430\u0451\u0416\u0401"
    "中文 key\u0301\ud800"
)


@given(st.text(st.sampled_from(ALPHABET), max_size=14), st.sampled_from(EXPRESSIONS))
@example("\u00e9\u04011", EXPRESSIONS[9])
@settings(deadline=None, max_examples=1500)
def test_the_automaton_lets_through_whatever_matches(text: str, case: tuple[str, tuple[str, ...]]) -> None:
    expression, flags = case
    automaton = AUTOMATA[case]
    data = build_views(text).raw.data
    regex = compile_re2(translate(expression, flags), flags)
    if regex.search(data) is not None:
        assert automaton.look(data).patterns == (0,)


AUTOMATA = {
    case: Automaton([pattern(case[0], flags=case[1])], DiskCache(None)) for case in EXPRESSIONS
}  # fmt: skip


def test_the_byte_filter_knows_what_it_cannot_read() -> None:
    assert byte_filter(r"\Qa.b\E", ()) is None
    assert byte_filter(r"[[:alpha:]]x", ()) is None
    assert byte_filter(r"\babc{2,3}\b", ()) is not None


def test_a_long_bounded_repeat_compiles_in_no_time() -> None:
    started = time.process_time()
    expression = r"\b(?:send|forward)\b[^.\n]{0,200}?\b(?:api[\s_-]?keys?|пароль|\w+\s){1,3}?[^<>]{3,400}end"
    assert faults(expression, flags=("caseless", "dotall")) == []
    assert time.process_time() - started < 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"a[^b]{0,400}b", "a" * 1_000_000),
        (r"(?:a+)+b|ac", "a" * 1_000_000 + "c"),
        (r"(?:[a-z]+\s?)+!", "abc " * 250_000),
        (r"[0-9]{13,19}", "1" * 1_000_000),
    ],
)
def test_no_pattern_hangs_on_a_long_text(expression: str, text: str) -> None:
    made = scanner(pattern(expression, validator="luhn" if "19" in expression else ""))
    started = time.process_time()
    made.hits(build_views(text))
    assert time.process_time() - started < 5.0


# --- from hits to findings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("card 4111", 0.8),
        ("4111 is my CARD", 0.8),
        ("card_number=4111", 0.8),
        ("discarded 4111", 0.5),
        ("4111", 0.5),
        ("card" + " " * 30 + "4111", 0.5),
        ("卡号4111", 0.8),
        ("我的卡号码4111", 0.8),
    ],
)
def test_a_word_nearby_raises_the_score(text: str, score: float) -> None:
    rule = ContextRule(words=("card", "卡号"), window=20, raise_by=0.3)
    (hit,) = scanner(pattern("[0-9]{4}", context=rule)).hits(build_views(text))
    assert score_of(hit) == pytest.approx(score)


def test_a_required_word_that_is_missing_is_no_finding() -> None:
    made = scanner(pattern("[0-9]{4}", context=ContextRule(words=("pin",), required=True)))
    for text, count in (("pin 1234", 1), ("year 1234", 0)):
        view_set = build_views(text)
        assert len(findings_from_hits("custom", "1", made.hits(view_set), view_set)) == count


def test_one_place_seen_through_several_views_is_one_finding() -> None:
    text = "ig\u200bnore and %69gnore and ignore"
    made = scanner(pattern("ignore"))
    view_set = build_views(text)
    found = findings_from_hits("custom", "v", made.hits(view_set), view_set)
    assert [(f.location.start, f.location.end) for f in found] == [(0, 7), (12, 20), (25, 31)]
    assert found[2].view == "raw"


@given(st.text(st.characters(codec="ascii"), max_size=40), st.integers(0, 5))
@settings(deadline=None, max_examples=300)
def test_hits_agree_with_a_slow_search(text: str, seed: int) -> None:
    expressions = ["[a-f]+", "[0-9]{2}", r"\b[A-Z]\w*", "x.y", "(?:ab|b)c?", "[!-/]{2,3}"]
    expression = expressions[seed]
    made = SLOW_SEARCH[seed]
    expected = [m.span() for m in re.finditer(expression, text, re.ASCII)]
    assert spans(made, text) == expected


SLOW_SEARCH = [
    scanner(pattern(e, views=("raw",)))
    for e in ("[a-f]+", "[0-9]{2}", r"\b[A-Z]\w*", "x.y", "(?:ab|b)c?", "[!-/]{2,3}")
]
