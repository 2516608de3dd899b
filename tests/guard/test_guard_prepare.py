"""What a detector loads is loaded when a guard is made: not within the deadline of the first check."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stanchion.core.decision import CheckStatus
from stanchion.core.errors import UsageError
from stanchion.detectors import generative_guard, judge, ner_spacy, pii_presidio, sequence_classifier
from stanchion.detectors.custom import CustomDetector
from stanchion.detectors.model_start import start
from stanchion.detectors.moderation import AZURE, OPENAI, Service
from stanchion.detectors.pii_presidio import PresidioDetector
from stanchion.detectors.registry import Registry
from stanchion.guard.pipeline import Guard

LOADING_S = 0.4  # more than the 250 ms that a check has by default


class Slow(CustomDetector):
    """Loads for longer than a check may take."""

    is_loaded = False

    def prepare(self) -> None:
        if not self.is_loaded:
            time.sleep(LOADING_S)
            self.is_loaded = True

    def detect(self, detector_input: Any) -> Any:
        self.prepare()
        return []


class SlowRegistry(Registry):
    """Makes the slow detector for `custom`."""

    made: Slow

    def create(self, detector_id: str, **options: Any) -> Any:
        if detector_id != "custom":
            return super().create(detector_id, **options)
        self.made = Slow(self.scanner)
        self.made.categories = ("custom.pattern",)  # or no rule speaks of it, and it runs nowhere
        return self.made


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "version: 1\ndetectors:\n  custom: {threshold: 0.5, fail: closed}\n"
        "rules:\n- {id: own, when: {detector: [custom]}, effect: block}\n"
    )
    return file


def test_the_first_check_does_not_wait_for_loading(policy: Path) -> None:
    registry = SlowRegistry()
    checked = Guard.load(policy, registry=registry).check("hello")
    assert registry.made.is_loaded
    assert [one.status for one in checked.decision.checks] == [CheckStatus.RAN]


def test_without_preparing_the_first_check_runs_out_of_time(policy: Path) -> None:
    """What the switch is not for: a guard that checks."""
    registry = SlowRegistry()
    guard = Guard.load(policy, registry=registry, prepare=False)
    assert not registry.made.is_loaded
    checked = guard.check("hello")
    assert [one.status for one in checked.decision.checks] == [CheckStatus.TIMED_OUT]


def test_what_cannot_be_loaded_is_told_when_the_guard_is_made(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\nextends: [default]\ndetectors:\n  content.judge: {fail: closed}\n"
        "rules:\n- {id: own, when: {detector: [content.judge]}, effect: block}\n")  # fmt: skip
    with pytest.raises(UsageError, match=r"'content.judge' has no model. Give it the option `model`"):
        Guard.load(file)
    assert Guard.load(file, prepare=False).policy is not None


@pytest.mark.parametrize(
    "detector",
    [
        generative_guard.GenerativeGuard, judge.JudgeDetector, ner_spacy.SpacyDetector,
        pii_presidio.PresidioDetector, sequence_classifier.SequenceClassifier,
    ],
)  # fmt: skip
def test_every_detector_that_loads_something_can_be_prepared(detector: Any) -> None:
    assert callable(detector.prepare)


def test_preparing_opens_what_a_text_would_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def get_supported_entities(self, language: str) -> list[str]:
            return ["PERSON"]

    monkeypatch.setattr(pii_presidio, "make_engine", lambda model, language: Engine())
    detector = PresidioDetector()
    detector.prepare()
    monkeypatch.setattr(pii_presidio, "make_engine", lambda *_: pytest.fail("loaded twice"))
    detector.prepare()


async def test_a_model_is_started_inside_a_running_loop_too() -> None:
    class Model:
        started = 0

        async def start(self) -> None:
            await asyncio.sleep(0)
            self.started += 1

    model: Any = Model()
    start(model)
    assert model.started == 1


OPENED = """
import sys
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.core.taxonomy import category
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views

text = "On 4 May 2023 Anna Berg sold 12 boats, and nobody was told about it [1]."
category("grounding.unsupported")  # a policy has read the categories before
detector = Registry().create(sys.argv[1])
detector.prepare()
read = DetectorInput(
    view_set=build_views(text), origin=Origin.USER, context={"documents": ("Anna Berg sold boats.",)}
)
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event in {"open", "import"} else None)
detector.detect(read)
print(*opened)
"""


@pytest.mark.parametrize("detector", ["injection.linear", "refusal", "grounding", "content"])
def test_after_preparing_the_first_text_opens_no_file_and_imports_nothing(detector: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENED, detector], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("detector", [OPENAI, AZURE])
def test_a_service_without_a_key_is_told_when_the_guard_is_made(detector: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        f"version: 1\ndetectors:\n  {detector}: {{fail: closed}}\n"
        f"rules:\n- {{id: own, when: {{detector: [{detector}]}}, effect: block}}\n"
    )
    registry = Registry(services=lambda _: Service("http://127.0.0.1:9", None))
    with pytest.raises(UsageError, match="has no key"):
        Guard.load(file, registry=registry)
    assert Guard.load(file, registry=registry, prepare=False).policy is not None


ANSWERS = """
import time
from stanchion import Guard
from stanchion.core.interaction import FinishReason, Interaction, Reply, assistant, user

guard = Guard.load()
guard.prepare_answers()
spent = -1.0
while time.process_time() > spent + 0.01:  # until the background rests
    spent = time.process_time()
    time.sleep(0.5)
asked = guard.prepare(Interaction(messages=(user("hello there"),)))
guard.finish(asked, Reply(message=assistant("All is well. " * 9), finish_reason=FinishReason.STOP))
began = time.process_time()
said = "Your parcel of 12 May with number 4417 123 411 arrives at 10:30. " * 3
guard.finish(asked, Reply(message=assistant(said), finish_reason=FinishReason.STOP))
print(time.process_time() - began)
"""


def test_the_first_answer_waits_for_nothing_that_was_compiled_before_it() -> None:
    """It took half a second; what is left is the answer itself, a few milliseconds."""
    done = subprocess.run([sys.executable, "-c", ANSWERS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1


def test_a_guard_without_a_policy_has_nothing_to_compile() -> None:
    Guard.unprotected().prepare_answers()
