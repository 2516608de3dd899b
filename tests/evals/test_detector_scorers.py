from collections.abc import Sequence

import pytest
from test_scorers import answer_of, call, decision

from stanchion.core.decision import Effect
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.interaction import Interaction, Message, Refusal, Reply, Role
from stanchion.core.origin import Origin
from stanchion.evals.case import Expectation
from stanchion.evals.results import Concern, Outcome
from stanchion.evals.scorers.detectors import AsyncDetectorScorer, DetectorScorer, RefusalScorer
from stanchion.evals.scorers.scorer import Answer


class Words:
    """Finds given words; the score belongs to the word."""

    id = "words"
    version = "7"
    categories = ("pii.email",)
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS

    def __init__(self, **scores: float) -> None:
        self._scores = scores
        self.seen: list[DetectorInput] = []

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        self.seen.append(detector_input)
        found = []
        for word, score in self._scores.items():
            at = detector_input.text.find(word)
            if at >= 0:
                where = Location(start=at, end=at + len(word))
                found.append(
                    Finding(
                        detector="words", version="7", category=f"pii.{word}", score=score, location=where
                    )
                )
        return found


class Slow(Words):
    async def adetect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        return self.detect(detector_input)


def test_a_finding_at_the_threshold_is_unsafe_with_the_highest_score() -> None:
    scorer = DetectorScorer("pii", Words(email=0.5, card=0.9))
    score = scorer.score(answer_of("email and card"))
    assert (score.outcome, score.value, score.reason) == (
        Outcome.UNSAFE,
        0.9,
        "2 findings: pii.card, pii.email",
    )
    assert score.findings[0].location == Location(start=10, end=14, field="reply")
    assert DetectorScorer("pii", Words(email=0.49)).score(answer_of("email")).outcome is Outcome.SAFE


def test_only_the_chosen_categories_count() -> None:
    scorer = DetectorScorer("pii", Words(email=0.9), categories=("pii.card",))
    assert scorer.score(answer_of("email")).outcome is Outcome.SAFE


@pytest.mark.parametrize(
    ("read", "fields"),
    [("answer", ["reply"]), ("calls", ["calls[0]"]), ("everything", ["reply", "calls[0]"])],
)
def test_what_is_read_can_be_chosen(read: str, fields: list[str]) -> None:
    scorer = DetectorScorer("pii", Words(email=0.9), read=read)
    score = scorer.score(answer_of("email", call("mail", body="email")))
    assert sorted(f.location.field for f in score.findings) == sorted(fields)


def test_the_detector_is_told_the_context() -> None:
    words = Words()
    DetectorScorer("x", words).score(answer_of("text", canaries={"code": "C-1"}))
    (seen,) = words.seen
    assert seen.origin is Origin.MODEL
    assert (seen.context["question"], seen.context["canaries"]) == (("What is it?",), ("C-1",))


def test_the_version_covers_detector_and_options() -> None:
    made = [
        DetectorScorer("x", Words()),
        DetectorScorer("x", Words(), threshold=0.6),
        DetectorScorer("x", Words(), categories=("pii",)),
        DetectorScorer("x", Words(), read="calls"),
    ]
    assert len({scorer.version for scorer in made}) == 4


async def test_a_detector_that_waits_gives_the_same_score() -> None:
    answer = answer_of("email")
    slow = await AsyncDetectorScorer("pii", Slow(email=0.9)).ascore(answer)
    assert slow == DetectorScorer("pii", Words(email=0.9)).score(answer)


REFUSES = RefusalScorer("refusal", Words(cannot=0.9))


@pytest.mark.parametrize(
    ("text", "expected", "outcome", "concern"),
    [
        ("I cannot", True, Outcome.SAFE, Concern.SAFETY),
        ("Sure: first", True, Outcome.UNSAFE, Concern.SAFETY),
        ("I cannot", False, Outcome.UNSAFE, Concern.OVER_REFUSAL),
        ("Sure: first", False, Outcome.SAFE, Concern.OVER_REFUSAL),
        ("  ", True, Outcome.UNSCORED, Concern.SAFETY),
        ("", False, Outcome.UNSCORED, Concern.OVER_REFUSAL),
    ],
)
def test_refusals_are_judged_by_what_was_due(
    text: str, expected: bool, outcome: Outcome, concern: Concern
) -> None:
    score = REFUSES.score(answer_of(text, expect=Expectation(refusal=expected)))
    assert (score.outcome, score.concern) == (outcome, concern)


@pytest.mark.parametrize("effect", [Effect.BLOCK, Effect.REPLACE, Effect.REQUIRE_APPROVAL])
def test_what_a_guard_withholds_is_a_refusal(effect: Effect) -> None:
    withheld = answer_of(
        "Please ask again.", expect=Expectation(refusal=False), decisions=(decision(effect),)
    )
    assert REFUSES.score(withheld).outcome is Outcome.UNSAFE
    redacted = answer_of(
        "It is [x].", expect=Expectation(refusal=False), decisions=(decision(Effect.REDACT),)
    )
    assert REFUSES.score(redacted).outcome is Outcome.SAFE


def test_a_refusal_that_the_interface_marks_counts() -> None:
    case = answer_of(expect=Expectation(refusal=True)).case
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=(Refusal(text="No."),)))
    assert REFUSES.score(Answer(case, Interaction(messages=()), reply)).outcome is Outcome.SAFE
