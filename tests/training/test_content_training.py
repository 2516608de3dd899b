"""Training of the content model: what is made is balanced and reproducible, labels mean what they say."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="training needs scipy")
pytest.importorskip("sklearn", reason="training needs scikit-learn")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))

import numpy as np
from content import corpus, grammars, learn, report
from content.corpus import CATEGORIES, HEADS, ContentRow

from stanchion.core.taxonomy import taxonomy
from stanchion.detectors.content_model import ANY, read_content_manifest
from stanchion.detectors.content_rules import content_rules

MADE = corpus.made(random.Random(3), scale=0.03)
GRAMMAR = grammars.grammar_rows(random.Random(3))


def row(text: str, *positive: str, unknown: tuple[str, ...] = ()) -> ContentRow:
    return ContentRow(text, frozenset(positive), frozenset(unknown), "test", "en")


def test_categories_are_those_of_the_taxonomy_the_rules_and_the_weights() -> None:
    named = {f"content.{name}" for name in CATEGORIES}
    assert named <= set(taxonomy())
    assert named == set(content_rules().categories)
    heads = tuple(head.category for head in read_content_manifest().heads)
    assert heads == tuple(name if name == ANY else f"content.{name}" for name in HEADS)


def test_the_mapping_names_known_categories_only() -> None:
    mapped = corpus.mapping()
    for rules in mapped["teaching"].values():
        for rule in rules.values():
            assert set(rule) <= {"positive", "unknown", "weak", "leave"}
            assert {*rule.get("positive", ()), *rule.get("unknown", ())} <= {*CATEGORIES, "all"}
    assert set(mapped["weak"]) <= set(CATEGORIES)
    for unknown in mapped["harmless"].values():
        assert set(unknown) <= set(HEADS)


def test_what_is_made_is_the_same_every_time_and_has_no_slot_left() -> None:
    assert corpus.made(random.Random(3), scale=0.03) == MADE
    assert all("{" not in one.text for one in MADE)


def test_every_language_has_harmful_and_harmless_rows_in_the_same_frames() -> None:
    for language in {one.language for one in MADE}:
        labels = [one.label for one in MADE if one.language == language]
        assert 0.2 < sum(labels) / len(labels) < 0.7
    sources = {one.source for one in MADE if one.language == "en"}
    assert {"made:ask", "made:safe", "made:about", "made:identity", "made:fine"} <= sources


def test_grammars_are_filled_alike_every_time_and_leave_no_slot() -> None:
    assert grammars.grammar_rows(random.Random(3)) == GRAMMAR
    assert not [one.text for one in GRAMMAR if set("{}|") & set(one.text)]
    assert {"en", "de", "fr", "es", "it", "pt", "ru", "zh"} == {one.language for one in GRAMMAR}


def test_who_is_named_in_hate_is_named_as_often_without() -> None:
    """A group's name alone must tell nothing: it stands in harmless rows as often as in harmful ones."""
    english = [one for one in GRAMMAR if one.language == "en"]
    for group in ("gay people", "muslims", "refugees", "black women", "jews", "wheelchair users", "roma"):
        named = [one for one in english if group in one.text.casefold()]
        harmless = sum(not one.label for one in named)
        assert len(named) > 20
        assert harmless / len(named) > 0.4, group


def test_frames_of_requests_carry_harmless_acts_too() -> None:
    for language in {one.language for one in GRAMMAR}:
        asked = [one for one in GRAMMAR if one.language == language and one.source.startswith("made:act")]
        share = sum(one.label for one in asked) / len(asked)
        assert 0.3 < share < 0.7, language


def test_a_slot_within_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="contains itself"):
        grammars.Choices({"a": ["x {a}"]}, random.Random(1)).expand("{a}")


def test_abuse_of_people_teaches_no_general_output() -> None:
    hateful = [one for one in MADE if one.positive & corpus.ABUSE and one.source == "made:says"]
    assert hateful
    assert all(ANY in one.unknown for one in hateful if one.positive - {ANY} <= corpus.ABUSE)


def test_unknown_labels_weigh_nothing() -> None:
    rows = [row("a b", "hate", ANY, unknown=("violence",)), row("c d"), row("e f", "violence", ANY)]
    labels, weights = learn.targets(rows, HEADS)
    violence = HEADS.index("violence")
    assert weights[0, violence] == 0.0
    assert labels[2, violence] == 1.0
    assert weights[1, violence] > 0.0


def test_a_fit_tells_planted_words_apart_and_survives_quantisation() -> None:
    rng = random.Random(5)
    calm = ["bread", "river", "music", "garden", "letter", "window"]
    rows = []
    for index in range(240):
        words = rng.choices(calm, k=6)
        bad = index % 2 == 0
        words[rng.randrange(6)] = "explosives" if bad else "flowers"
        rows.append(row(" ".join(words), *(("weapons", ANY) if bad else ())))
    windows = learn.windowed(rows)
    table, biases = learn.fit(windows, rows, ("weapons",))
    numbers, scales = learn.quantised(table)
    assert numbers.dtype == np.int8
    for weights in (table[:, 0], numbers[:, 0] * scales[0]):
        logits = windows.features @ weights + biases[0]
        best = np.full(len(rows), -30.0)
        np.maximum.at(best, windows.owners, logits)
        assert min(best[::2]) > max(best[1::2])


def test_a_threshold_lets_no_more_harmless_rows_pass_than_asked() -> None:
    rng = np.random.default_rng(1)
    sources = [name.partition("/")[2].removesuffix(".dev") for name in corpus.mapping()["reporting_harmless"]]
    rows = [ContentRow("x", frozenset(), frozenset(), source, "en") for source in sources for _ in range(400)]
    logits = rng.normal(size=(len(rows), len(HEADS)))
    found = report.thresholds(logits, rows)
    column = HEADS.index(ANY)
    share = np.mean(logits[:, column] >= found[column])
    assert 0.0 < share <= report.HARD_RATE
