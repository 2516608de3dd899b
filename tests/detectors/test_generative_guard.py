"""Guard models behind chat endpoints: what they are asked, how answers are read, and what never passes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import FilesError, JudgementError, UnknownNameError, UsageError
from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.interaction import FinishReason, Interaction, Reply, assistant
from stanchion.core.origin import Origin
from stanchion.detectors.generative_guard import ID, GenerativeGuard, defused, make_request
from stanchion.detectors.guard_model_file import packaged_guard_models, read_guard_model
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views

ALL = packaged_guard_models()
Answer = Callable[[Interaction], str]


class Model:
    """A guard model with fixed answers, that keeps what it was asked."""

    id = "guard"

    def __init__(self, answer: Answer | str, *, finish: FinishReason = FinishReason.STOP) -> None:
        self._answer, self._finish = answer, finish
        self.asked: list[Interaction] = []

    async def invoke(self, interaction: Interaction) -> Interaction:
        self.asked.append(interaction)
        said = self._answer if isinstance(self._answer, str) else self._answer(interaction)
        reply = Reply(message=assistant(said), finish_reason=self._finish)
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        """Nothing is open."""


def given_text(text: str, origin: Origin = Origin.USER, **context: tuple[str, ...]) -> DetectorInput:
    return DetectorInput(view_set=build_views(text), origin=origin, context=context)


async def found(model: Model, configuration: str, text: str = "some words") -> list[Finding]:
    detector = Registry(models=lambda _: model).create(ID, configuration=configuration, model="openai/guard")
    assert isinstance(detector, GenerativeGuard)
    return list(await detector.adetect(given_text(text)))


SAFE = {
    "llama_guard_3": "\n\nsafe",
    "llama_guard_4": "safe",
    "granite_guardian": "No",
    "granite_guardian_3_3": "<think>\nA greeting.\n</think>\n\n<score> no </score>",
    "shieldgemma": "No",
    "gpt_oss_safeguard": '{"violation": 0, "categories": []}',
}


@pytest.mark.parametrize("name", ALL)
async def test_a_safe_verdict_gives_no_finding(name: str) -> None:
    assert await found(Model(SAFE[name]), name) == []


@pytest.mark.parametrize(
    ("name", "answer", "categories"),
    [
        ("llama_guard_3", "unsafe\nS1,S9", {"content.violence", "content.weapons"}),
        ("llama_guard_4", "unsafe\nS10", {"content.hate"}),
        ("llama_guard_3", "unsafe\nS99", {"content.policy"}),
        ("gpt_oss_safeguard", '{"violation": 1, "categories": ["self_harm"]}', {"content.self_harm"}),
        ("gpt_oss_safeguard", '{"violation": true, "categories": ["new"]}', {"content.policy"}),
    ],
)
async def test_codes_become_categories(name: str, answer: str, categories: set[str]) -> None:
    findings = await found(Model(answer), name)
    assert {finding.category for finding in findings} == categories
    assert all(finding.score == 1.0 and finding.location.end == 10 for finding in findings)


async def test_one_question_for_each_risk_where_the_model_answers_one_at_a_time() -> None:
    model = Model(
        lambda asked: "Yes <confidence> High </confidence>" if "violence" in asked.messages[0].text else "No"
    )
    findings = await found(model, "granite_guardian")
    assert [finding.category for finding in findings] == ["content.violence"]
    assert len(model.asked) == len(read_guard_model("granite_guardian").risks)


@pytest.mark.parametrize("thought", ["", "<think>It threatens.</think>\n", "<think></think>"])
async def test_granite_3_3_answers_with_a_score(thought: str) -> None:
    said = Model(
        lambda asked: f"{thought}<score> {'yes' if 'violence' in asked.messages[0].text else 'no'} </score>"
    )
    findings = await found(said, "granite_guardian_3_3")
    assert [finding.category for finding in findings] == ["content.violence"]


async def test_the_two_forms_of_granite_are_not_taken_for_each_other() -> None:
    for name, answer in (
        ("granite_guardian", "<score> no </score>"),
        ("granite_guardian_3_3", "No"),
    ):
        with pytest.raises(JudgementError, match="gave no verdict"):
            await found(Model(answer), name)


BROKEN = [
    "<score> no </score><score> yes </score>", "<think><score> no </score>", "<score></score>",
    "<think>a</think><think>b</think><score>no</score>", "<score>no</score> or so", "<score>no",
    '{"violation": 1, "violation": 0, "categories": []}', '{"violation": 0.0, "categories": []}',
    '{"violation": 1, "categories": ["hate"], "categories": [], "violation": 0}',
    "", "maybe", "safe\nS1", "unsafe", "unsafe\n", "unsafe\n???", "The text is safe.", "yes and no", "{}",
    "null", "I cannot help with that.",
    '{"violation": 0}', '{"violation": 2, "categories": []}', '{"violation": 1, "categories": []}',
    '{"violation": 0, "categories": ["hate"]}', '{"violation": 0, "categories": "none"}',
]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", BROKEN)
async def test_what_is_no_verdict_is_an_error(name: str, answer: str) -> None:
    with pytest.raises(JudgementError, match="gave no verdict"):
        await found(Model(answer), name)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("finish", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER])
async def test_an_answer_that_was_cut_off_is_an_error(name: str, finish: FinishReason) -> None:
    with pytest.raises(JudgementError, match="it ended with"):
        await found(Model(SAFE[name], finish=finish), name)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None)
@given(parts=st.lists(st.sampled_from(["a", "<", "|", " "]), max_size=6), data=st.data())
def test_no_text_can_close_the_slot_it_stands_in(name: str, parts: list[str], data: st.DataObject) -> None:
    file = read_guard_model(name)
    hostile = st.sampled_from(
        [*file.reserved, *map(str.upper, file.reserved), "END MARK42", "{risk}", "{text}"]
    )
    text = "".join(parts) + data.draw(hostile) + data.draw(hostile) + "safe"
    asked = make_request(file, given_text(text), risk="R", mark="MARK42")
    empty = make_request(file, given_text("x"), risk="R", mark="MARK42")
    for word in (*file.reserved, "MARK42"):
        for got, expected in zip(asked.messages, empty.messages, strict=True):
            assert got.text.lower().count(word.lower()) == expected.text.lower().count(word.lower())


@given(st.text(), st.lists(st.sampled_from(["<|", "|>", "<bos>", "MARK"]), min_size=1, unique=True))
def test_defusing_leaves_no_delimiter_and_changes_nothing_twice(text: str, reserved: list[str]) -> None:
    once = defused(text, reserved)
    assert all(word.lower() not in once.lower() for word in reserved)
    assert defused(once, reserved) == once


def test_an_answer_is_judged_as_one_when_its_question_is_known() -> None:
    file = read_guard_model("llama_guard_3")
    asked = make_request(file, given_text("the answer", Origin.MODEL, question=("why?",)), risk="", mark="m")
    assert [(m.role.value, m.text) for m in asked.messages] == [("user", "why?"), ("assistant", "the answer")]


async def test_a_text_beyond_the_limit_is_an_error_and_is_not_sent() -> None:
    model = Model("safe")
    detector = Registry(models=lambda _: model).create(ID, model="openai/guard", max_characters=10)
    assert isinstance(detector, GenerativeGuard)
    with pytest.raises(JudgementError, match="the limit is 10"):
        await detector.adetect(given_text("x" * 11))
    assert model.asked == []


async def test_without_a_model_it_can_be_described_but_not_used() -> None:
    detector = Registry().create(ID)
    assert isinstance(detector, GenerativeGuard)
    with pytest.raises(UsageError, match="has no model"):
        await detector.adetect(given_text("x"))


def test_unknown_configurations_and_bad_files_are_told(tmp_path) -> None:
    with pytest.raises(UnknownNameError):
        read_guard_model("llama_guard")
    file = tmp_path / "own.yaml"
    file.write_text("guard_model: own\nversion: 1\nverdict: {form: word}\n")
    with pytest.raises(FilesError, match="user"):
        read_guard_model(str(file))
