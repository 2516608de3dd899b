"""The grounding detector on written-out answers and documents, and with an entailment model made on the
spot.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import ask, read, registry, span

from stanchion.core.errors import JudgementError, MissingExtraError, UsageError
from stanchion.detectors.grounding import Examiner, GroundingDetector, Material, Options
from stanchion.detectors.grounding_claims import claims_in, facts_of
from stanchion.detectors.grounding_nli import OnnxEntailment
from stanchion.detectors.grounding_text import is_claim, sentences_of, stem

POLICY = (
    "Unused items can be returned within 30 days of delivery. The refund is paid to the original card within "
    "five working days. Return shipping costs 4.90 EUR and is free for members of the Alder Club. "
    "Anna Bergström leads the service team in Oslo. Gift cards cannot be returned."
)
HOURS = "The shop in Oslo is open from 10:00 to 18:00 on weekdays. It is closed on 17 May and on 25 December."
DOCUMENTS = (POLICY, HOURS)


def found(answer: str, *documents: str, least: float = 0.5, **context: list[str]) -> list[tuple[str, str]]:
    given = {"documents": list(documents or DOCUMENTS), **context}
    return [(f.rule, span(answer, f)) for f in read("grounding", answer, least=least, **given)]


@pytest.mark.parametrize(
    "answer",
    [
        "You can return unused items within 30 days.",
        "You can return unused items within thirty days of delivery.",
        "Return shipping costs €4.90, and it is free for Alder Club members.",
        "The refund is paid within 5 working days to the original card.",
        "The Oslo shop opens at 10 am on weekdays and is closed on December 25.",
        "Hello! Thanks for your question. I hope this helps. Is there anything else?",
        "I do not know whether we deliver to Mars; the documents do not mention it.",
        "I love this shop.",
        "",
    ],
)
def test_what_the_documents_carry_and_what_is_no_claim_is_left_alone(answer: str) -> None:
    assert found(answer) == []


@pytest.mark.parametrize(
    ("answer", "rule", "words"),
    [
        ("You can return unused items within 60 days of delivery.", "number", "60"),
        ("You can return unused items within 30 hours of delivery.", "number", "30"),
        ("Return shipping costs 4.90 USD.", "number", "4.90"),
        ("It is closed on 18 May.", "date", "18 May"),
        ("The shop in Oslo opens at 9:00 on weekdays.", "time", "9:00"),
        ("Every purchase comes with a lifetime warranty against theft.", "sentence", "Every purchase"),
    ],
)
def test_what_they_do_not_carry_is_found_with_its_place(answer: str, rule: str, words: str) -> None:
    findings = found(answer)
    assert any(kind == rule and text.startswith(words) for kind, text in findings), findings


def test_only_the_sentence_without_support_is_marked() -> None:
    answer = "You can return unused items within 30 days. We also repair bicycles of every brand overnight."
    assert found(answer) == [("sentence", "We also repair bicycles of every brand overnight.")]


def test_a_name_that_nobody_gave_is_reported_below_the_line_and_lifted_by_its_sentence() -> None:
    answer = "Anna Bergström leads the service team in Oslo, with Piotr Nowak."
    weak = dict.fromkeys(found(answer, least=0.4))
    assert ("name", "Piotr Nowak") in weak
    assert ("name", "Anna Bergström") not in weak


def test_citations_are_checked_by_name_and_number() -> None:
    ids = ["returns", "hours"]
    answer = "Unused items can be returned within 30 days [returns]."
    assert found(answer, document_ids=ids) == []
    assert ("not_said_there", "[hours]") in found(answer.replace("returns]", "hours]"), document_ids=ids)
    assert ("unknown_document", "[9]") in found(answer.replace("returns]", "9]"), document_ids=ids)
    assert ("unknown_document", "[source: warranty]") in found(
        answer.replace("returns]", "source: warranty]"), document_ids=ids
    )
    assert found(answer.replace("returns]", "1]")) == []


def test_what_the_user_said_may_be_repeated() -> None:
    answer = "Order 4711 of Piotr Nowak can be returned within 30 days."
    assert found(answer)
    told = "I am Piotr Nowak. Can I return order 4711?"
    assert "number" not in dict(found(answer, question=[told]))


def test_without_documents_nothing_is_said_unless_they_are_required() -> None:
    claim = "Delivery takes six days. Thank you!"
    assert read("grounding", claim) == []
    strict = registry().create("grounding", require_documents=True)
    assert [(f.rule, span(claim, f), f.score) for f in ask(strict, claim)] == [
        ("no_documents", "Delivery takes six days.", 1.0)
    ]


def test_findings_never_carry_the_text() -> None:
    answer = "Every purchase comes with a lifetime warranty against theft for 99 years."
    for finding in read("grounding", answer, documents=DOCUMENTS):
        assert "warranty" not in finding.reason
        assert "99" not in finding.reason


@pytest.mark.parametrize(
    ("claim", "source", "is_said"),
    [
        ("twelve hundred people", "1,200 people", True),
        ("zwölfhundert Leute sind es", "1.200 Leute", True),
        ("nach einundzwanzig Tagen ist es da", "21 Tage", True),
        ("quatre-vingt-dix jours après la commande", "90 jours", True),
        ("doscientos cincuenta euros para el envío", "250 €", True),
        ("duecentocinquanta euro per la spedizione", "250 EUR", True),
        ("two weeks", "14 days", True),
        ("two weeks", "2 days", False),
        ("$5 million", "5,000,000 dollars", True),
        ("$5 million", "5,000,000 euros", False),
        ("about 1,200", "1,214 visitors", True),
        ("1,200", "1,214 visitors", False),
        ("nineteen ninety-seven", "in 1997", True),
        ("the 1980s", "founded in 1987", True),
        ("the 1970s", "founded in 1987", False),
        ("half of it, 50 %", "one half", True),
        ("12 de marzo de 2026", "2026-03-12", True),
        ("12. März 2026", "March 12, 2026", True),
        ("2026年3月12日", "12/03/2026", True),
        ("he met J. K. Rowling", "Joanne Rowling", True),
        ("he met J. K. Rowling", "Robert Rowling", False),
        ("joined the World Health Organization", "the WHO said", True),
        ("asked the WHO", "the World Health Organization said", True),
        ("an Italian dish", "from Italy", True),
        ("an Australian dish", "from Austria", False),
        ("it came 3rd", "the third place", True),
    ],
)
def test_facts_are_compared_in_their_usual_writings(claim: str, source: str, is_said: bool) -> None:
    facts = facts_of(source)
    kinds = ("number", "date", "name")
    assert all(facts.support(c) for c in claims_in(claim) if c.kind in kinds) is is_said


def test_sentences_end_where_they_should() -> None:
    text = (
        "Dr. Lee of Acme Inc. paid 3.5 EUR. Really? Yes!\n- one\n- two\n```\ncode. code.\n```\nAt 1 p.m. it"
    )
    assert [text[s.start : s.end] for s in sentences_of(text)] == [
        "Dr. Lee of Acme Inc. paid 3.5 EUR.", "Really?", "Yes!", "- one", "- two", "At 1 p.m.", "it",
    ]  # fmt: skip
    assert [is_claim(text, s) for s in sentences_of(text)][:3] == [True, False, False]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("returned", "return"),
        ("studies", "study"),
        ("stopped", "stop"),
        ("wrote", "write"),
        ("cities", "city"),
    ],
)
def test_stems_meet(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_is_read_and_spans_lie_inside(answer: str, document: str) -> None:
    examined = Examiner().examine(answer, Material((document,)))
    for doubt in examined.doubts:
        assert 0 <= doubt.start <= doubt.end <= len(answer)
        assert 0.0 <= doubt.score <= 1.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([s + "." for s in POLICY.split(". ")]), min_size=1, max_size=4))
def test_sentences_of_the_document_itself_are_supported(chosen: list[str]) -> None:
    assert found(" ".join(chosen)) == []


@pytest.mark.parametrize("unit", ["a ", "1,", "[1]", "A. ", "\n", "'s ", "\u3042", "twenty ", "(", "Ab "])
def test_time_grows_with_the_length(unit: str) -> None:
    detector = registry().create("grounding")

    def cost(size: int) -> float:
        text = unit * (size // len(unit))
        times = []
        for i in range(3):
            started = time.process_time()
            ask(detector, text, documents=[f"{i} {text}"])
            times.append(time.process_time() - started)
        return min(times)

    cost(500)
    assert cost(24_000) <= 14 * cost(6_000) + 0.05


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="checks"):
        registry().create("grounding", checks=["vibes"])
    with pytest.raises(UsageError, match="tolerance"):
        registry().create("grounding", tolerance=2)
    with pytest.raises(UsageError, match="entailment model needs"):
        registry().create("grounding", nli="/nonexistent")
    only = registry().create("grounding", checks=["numbers"])
    answer = "Bicycles are repaired overnight in 3 shops."
    assert {f.rule for f in ask(only, answer, documents=DOCUMENTS)} == {"number"}


class Always:
    """An entailment model that says yes to everything, or to nothing."""

    def __init__(self, probability: float) -> None:
        self.version = f"always {probability}"
        self.probability = probability
        self.asked: list[tuple[str, str]] = []

    def entails(self, premise: str, hypothesis: str) -> float:
        self.asked.append((premise, hypothesis))
        return self.probability


def test_an_entailment_model_takes_the_place_of_the_weighing() -> None:
    yes, no = Always(0.9), Always(0.1)
    answer = "Bicycles are repaired overnight by the service team."
    for model, expected in ((yes, []), (no, ["sentence"])):
        detector = GroundingDetector(Examiner(Options(), entailment=model))
        assert [f.rule for f in ask(detector, answer, documents=DOCUMENTS)] == expected
        assert model.asked[0][1] == answer
        assert "service team" in model.asked[0][0]
    versions = {GroundingDetector(Examiner(Options(), entailment=model)).version for model in (yes, no)}
    assert len(versions | {registry().create("grounding").version}) == 3


def test_a_real_model_file_is_read_and_asked(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra ml is not installed")
    pytest.importorskip("tokenizers", reason="the extra ml is not installed")
    pytest.importorskip("onnx", reason="the tests' own onnx is not installed")
    from tiny_encoder import network, tokenizer

    words = {"shut": (5.0, -5.0), "bicycles": (0.0, 0.0)}
    (tmp_path / "model.onnx").write_bytes(network(words))
    (tmp_path / "tokenizer.json").write_bytes(tokenizer(list(words)))
    (tmp_path / "config.json").write_text('{"id2label": {"0": "entailment", "1": "contradiction"}}')
    model = OnnxEntailment.load(tmp_path)
    assert model.entails("shut", "bicycles") > 0.9
    assert model.entails("open", "bicycles") == pytest.approx(0.5)
    detector = registry().create("grounding", nli=str(tmp_path))
    answer = "Bicycles are shut."
    assert ask(detector, answer, documents=DOCUMENTS) == []
    assert ask(registry().create("grounding"), answer, documents=DOCUMENTS) != []
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot be read"):
        OnnxEntailment.load(tmp_path)


def test_a_folder_without_an_entailment_label_is_refused(tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"id2label": {"0": "YES", "1": "NO"}}')
    with pytest.raises(UsageError, match="0 labels say entailment"):
        OnnxEntailment.load(tmp_path)
    (tmp_path / "config.json").write_text('{"id2label": {"0": "ENTAILMENT", "1": "NOT_ENTAILMENT"}}')
    with pytest.raises((UsageError, MissingExtraError)):
        OnnxEntailment.load(tmp_path)


def test_what_stands_behind_many_sentences_facts_and_citations_is_checked() -> None:
    filler = "It was cold. " * 5000 + "The flat has 3 rooms [1]. " * 2500
    found = read(
        "grounding", f"{filler}It costs 4711 euros [1].", documents=["It was cold. The flat has 3 rooms."]
    )
    assert {"number", "not_said_there"} <= {f.rule for f in found}
    assert all(f.location.start >= len(filler) for f in found)


def test_an_answer_or_sources_too_long_to_be_compared_are_a_failed_check() -> None:
    with pytest.raises(JudgementError, match="200,000"):
        read("grounding", "a" * 200_001, documents=["a"])
    with pytest.raises(JudgementError, match="1,000,000"):
        read("grounding", "It was cold.", documents=["a " * 250_000, "b " * 250_001])


def test_thousands_of_doubts_cover_the_whole_answer() -> None:
    text = "The fee is 12345 euros. " * 3000
    found = read("grounding", text, documents=["It was cold."])
    assert len(found) <= 2000
    assert max(f.location.end for f in found if f.rule == "number") >= len(text) - 12


@pytest.mark.parametrize(
    "piece",
    ["12 34. ", "Mr. Smith Went ", "He said so [1]. ", "[1]", "12 euros ", "in the 1990s ", "2 May 1999 "],
)
def test_hostile_answers_are_compared_in_time_proportional_to_their_length(piece: str) -> None:
    def took(size: int) -> float:
        text = (piece * size)[:size]
        started = time.process_time()
        read("grounding", text, documents=[text[: size // 2], "It was 20 degrees cold."])
        return time.process_time() - started

    took(1000)
    long = took(60_000)
    assert long < 0.5 or long < 8 * took(15_000)
