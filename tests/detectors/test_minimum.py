"""`minimum` leaves findings out and changes nothing else, so that policies keep what calibrations promise.

A calibration looks at all scores, with `minimum` 0; the policy that names it reports from its threshold on.
Were a score or a version another one there, the promise would be void.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_models import Asked, JudgingModel
from reading import registry as packaged

from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.detectors.calibration import Goals, Subject, calibrated, choose
from stanchion.detectors.calibration_file import MARGIN, write_calibration
from stanchion.detectors.calibration_rows import LabelledText
from stanchion.detectors.moderation import Service
from stanchion.detectors.registry import BUILTIN, Registry, with_base
from stanchion.detectors.scoring import Scored, make_for_scoring, makes_minimum, score_rows
from stanchion.detectors.views import build_views
from stanchion.files.references import Secret
from stanchion.guard.pipeline import Guard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from loopback import serving

JUDGES = ("judge", "content.judge", "grounding.judge", "refusal.judge")
TAKE_MINIMUM = (
    "injection.linear", "injection.encoder", "content", "model.sequence_classifier", "moderation.azure",
    "moderation.openai", *JUDGES,
)  # fmt: skip
NEED_ONNX = ("injection.encoder", "model.sequence_classifier")
WORDS = {"apple": 0.0, "pear": 0.3, "seize": 1.5, "unbound": 3.0, "perhaps": -0.5, "rather": -1.5}


class Kept(Registry):
    """Remembers what it made, so that a test can let go of connections."""

    def __init__(self, **given: Any) -> None:
        super().__init__(packaged().scanner, **given)
        self.made: list[Any] = []

    def create(self, detector_id: str, **options: Any) -> Any:
        self.made.append(super().create(detector_id, **options))
        return self.made[-1]


class Setting:
    """What a detector needs to be made: a registry, its options, and the folder of its files."""

    def __init__(self, root: Path, registry: Kept, **options: Any) -> None:
        self.root, self.registry, self.options = root, registry, options

    def make(self, detector_id: str, minimum: float) -> Any:
        options = with_base({**self.options, "minimum": minimum}, self.root)
        return self.registry.create(detector_id, **options)


@pytest.fixture(scope="module")
def moderation() -> Iterator[str]:
    """A server that answers as either service does, by the number in the text."""
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if "text:analyze" in request.path:
            share = round(3 * mark_of(body["text"])) * 2
            names = ("Hate", "SelfHarm", "Sexual", "Violence")
            rows = [{"category": name, "severity": share if name == "Hate" else 0} for name in names]
            return web.json_response({"blocklistsMatch": [], "categoriesAnalysis": rows})
        share = mark_of(body["input"])
        names = ("hate", "self-harm", "sexual", "sexual/minors", "violence")
        scores = {name: share if name == "hate" else 0.001 for name in names}
        flags = {name: value > 0.7 for name, value in scores.items()}
        result = {"flagged": share > 0.7, "categories": flags, "category_scores": scores}
        return web.json_response({"results": [result]})

    async def run() -> None:
        async with serving(answer) as base:
            state.update(base=base, loop=asyncio.get_running_loop(), stop=asyncio.Event())
            ready.set()
            await state["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(10)
    yield state["base"]
    state["loop"].call_soon_threadsafe(state["stop"].set)
    thread.join(10)


@pytest.fixture
def setting(
    request: pytest.FixtureRequest, tmp_path: Path, moderation: str, monkeypatch: pytest.MonkeyPatch
) -> Setting:
    """The setting of one id: a tiny model made here, a server on the loopback interface, or nothing."""
    detector_id = request.param
    (tmp_path / "stanchion.yaml").write_text("{}\n")
    if detector_id in JUDGES:
        registry = Kept(models=lambda _: JudgingModel(_by_length))
        return Setting(tmp_path, registry, model="test", control=False)
    if detector_id.startswith("moderation."):
        services = {"services": lambda _: Service(f"{moderation}/v1", Secret("key"))}
        return Setting(tmp_path, Kept(**services))
    if detector_id in NEED_ONNX:
        if any(find_spec(module) is None for module in ("onnxruntime", "tokenizers", "onnx")):
            pytest.skip("the extra 'ml' or onnx is not installed")
        return _with_network(detector_id, tmp_path, monkeypatch)
    return Setting(tmp_path, Kept())


def _with_network(detector_id: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    if detector_id == "model.sequence_classifier":
        from tiny_classifier import write_folder

        write_folder(folder / "tiny", {w: (0.0, v) for w, v in WORDS.items()}, ("LABEL_0", "LABEL_1"))
        return Setting(folder, Kept(), folder="tiny")
    from tiny_encoder import network, package, tokenizer

    from stanchion.detectors import encoder_model

    monkeypatch.syspath_prepend(str(folder))
    encoder_model._loaded.cache_clear()
    name = f"tiny_{folder.name}"
    words = {word: (value, -1.0) for word, value in WORDS.items()}
    manifest = package(folder, name, tokenizer(list(words), longest=16), network(words))
    monkeypatch.setattr(encoder_model, "PACKAGE", name)
    monkeypatch.setattr("stanchion.detectors.encoder.read_manifest", lambda: manifest)
    monkeypatch.setattr(encoder_model, "read_manifest", lambda: manifest)
    return Setting(folder, Kept(), with_linear=False)


def _by_length(asked: Asked) -> dict[str, Any]:
    """Levels that have nothing to do with what is asked, for every rubric."""
    return asked.verdict(
        lambda text: {
            name: asked.scale[len(text + name) % len(asked.scale)] if len(text) % 5 == 0 else 0
            for name in asked.criteria
        }
    )


def mark_of(text: str) -> float:
    """The number after the last `#` of a text; 0 without one."""
    number = text.rpartition("#")[2]
    return float(number) if number.replace(".", "", 1).isdigit() else 0.0


@cache
def texts() -> tuple[str, ...]:
    """Pieces of many kinds: the examples of the packaged patterns, plain words, marks, verdicts of judges."""
    scanner = packaged().scanner
    found = [
        "",
        "apple",
        "What is the best way to bake bread?",
        "You are worthless.",
        "break your legs, tracker",
    ]
    found += [" ".join([word, "apple"] * 9) for word in WORDS]
    found += [f"text #{number / 37:.4f}" for number in range(38)]
    for name in ("content", "injection.patterns"):
        for pattern in scanner.patterns_for(name):
            found += [*pattern.examples, *pattern.counter_examples]
    return tuple(dict.fromkeys(found))


def found_by(detector: Any, text: str) -> list[Finding]:
    asked = DetectorInput(view_set=build_views(text), origin=Origin.USER)
    if not hasattr(detector, "adetect"):
        return list(detector.detect(asked))

    async def ask() -> list[Finding]:
        try:
            return list(await detector.adetect(asked))
        finally:
            await detector.aclose()

    return asyncio.run(ask())


def reported(findings: list[Finding], least: float) -> list[tuple[Any, ...]]:
    return sorted(
        (f.category, f.rule, f.location.start, f.location.end, f.score) for f in findings if f.score > least
    )


def test_every_detector_that_takes_a_minimum_is_tested_here() -> None:
    taking = {name for name in BUILTIN if "minimum" in inspect.signature(packaged().factory(name)).parameters}
    assert taking == set(TAKE_MINIMUM)


@pytest.mark.parametrize(("setting", "name"), [(one, one) for one in TAKE_MINIMUM], indirect=["setting"])
def test_the_version_is_the_same_whatever_is_left_out(setting: Setting, name: str) -> None:
    assert len({setting.make(name, minimum).version for minimum in (0.0, 0.2999, 0.5, 1.0)}) == 1


@pytest.mark.parametrize(("setting", "name"), [(one, one) for one in TAKE_MINIMUM], indirect=["setting"])
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_minimum_only_leaves_findings_out(setting: Setting, name: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(texts()), min_size=1, max_size=4))
    text = data.draw(st.sampled_from([" ", ". ", "\n\n"])).join(pieces)
    everything = found_by(setting.make(name, 0.0), text)
    minima = {data.draw(st.floats(0.0, 1.0)), 0.5, *(max(0.0, f.score - MARGIN) for f in everything)}
    for minimum in sorted(minima):
        least = minimum + 2e-6  # scores are rounded
        assert reported(found_by(setting.make(name, minimum), text), least) == reported(everything, least)


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.4, 0.5, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("name", ["content", "injection.linear"])
def test_no_example_of_a_packaged_pattern_has_another_score_at_another_minimum(
    name: str, minimum: float
) -> None:
    all_of_it, some = packaged().create(name, minimum=0.0), packaged().create(name, minimum=minimum)
    least = minimum + 2e-6
    for text in texts():
        assert reported(found_by(some, text), least) == reported(found_by(all_of_it, text), least), text


@pytest.mark.parametrize(("setting", "name"), [(one, one) for one in TAKE_MINIMUM], indirect=["setting"])
def test_a_policy_alarms_on_the_rows_that_its_calibration_counted(setting: Setting, name: str) -> None:
    """Calibrate, write, load the policy, check every row: the same rows are stopped, none more, none less."""
    registry = setting.registry
    detector = make_for_scoring(registry, name, with_base(setting.options, setting.root))
    rows = [
        LabelledText(text=text, label=0, place=f"rows:{n}") for n, text in enumerate(texts()[:150]) if text
    ]
    scored = score_rows(detector, rows)
    goals = Goals(max_false_alarms=0.4, confidence=0.9)
    assert max(scored.scores) > 0.0
    chosen = choose(scored, goals)
    assert chosen.threshold is not None
    written = calibrated(
        chosen,
        scored,
        subject=Subject(
            id=name,
            version=detector.version,
            options=setting.options,
            takes_minimum=makes_minimum(registry, name),
        ),
        sources=(),
        goals=goals,
        made_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    write_calibration(setting.root / "c.json", written)
    policy = setting.root / "policy.yaml"
    # A busy machine must not make a late answer, which would stop the text, out of a low score.
    entry = json.dumps({"calibration": "c.json", "options": setting.options, "deadline_ms": 20000})
    rule = json.dumps({"id": "stop", "when": {"category": "*"}, "effect": "block"})
    policy.write_text(f'version: 1\ndetectors: {{"{name}": {entry}}}\nrules: [{rule}]\n')
    assert stopped(policy, registry, scored) == [score >= chosen.threshold for score in scored.scores]


def stopped(policy: Path, registry: Kept, scored: Scored) -> list[bool]:
    """Which rows a guard stops."""

    async def ask() -> list[bool]:
        guard = Guard.load(policy, registry=registry)
        try:
            return [not (await guard.acheck(row.text, origin=row.origin)).allowed for row in scored.rows]
        finally:
            for detector in registry.made:
                if hasattr(detector, "aclose"):
                    await detector.aclose()

    return asyncio.run(ask())
