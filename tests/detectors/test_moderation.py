"""Moderation services on the loopback interface: what they are sent, how they are read, what never passes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
from loopback import answering, serving

from stanchion.core.errors import DeadlineError, JudgementError, UnavailableError, UsageError
from stanchion.core.finding import DetectorInput, Finding, Severity
from stanchion.core.origin import Origin
from stanchion.detectors.moderation import AZURE, OPENAI, ModerationDetector, Service
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views
from stanchion.files.references import Secret

KEY = "sk-moderation-key"
NAMES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip


def openai_answer(scores: dict[str, float], flags: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    names = {*NAMES, *scores}
    result = {
        "flagged": bool(flags),
        "categories": {name: name in flags for name in names},
        "category_scores": {name: scores.get(name, 0.001) for name in names},
        "category_applied_input_types": {name: ["text"] for name in names},
    }
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": [{**result, **more}]}


def azure_answer(**levels: int) -> dict[str, Any]:
    names = ("Hate", "SelfHarm", "Sexual", "Violence")
    rows = [{"category": name, "severity": levels.get(name, 0)} for name in names]
    return {"blocklistsMatch": [], "categoriesAnalysis": rows}


def made(detector_id: str, base: str, **options: Any) -> ModerationDetector:
    registry = Registry(services=lambda _: Service(base, Secret(KEY)))
    detector = registry.create(detector_id, **options)
    assert isinstance(detector, ModerationDetector)
    return detector


async def asked(detector_id: str, body: Any, text: str = "some words", **options: Any) -> list[Finding]:
    async with serving(answering(body=body)) as base:
        detector = made(detector_id, base, **options)
        try:
            found = await detector.adetect(DetectorInput(view_set=build_views(text), origin=Origin.USER))
        finally:
            await detector.aclose()
        return list(found)


async def test_openai_is_sent_the_text_and_the_key_and_nothing_else() -> None:
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.path, request.headers["Authorization"], await request.json()))
        return web.json_response(openai_answer({}))

    async with serving(handle) as base:
        detector = made(OPENAI, f"{base}/v1")
        await detector.adetect(DetectorInput(view_set=build_views("hello"), origin=Origin.USER))
        await detector.aclose()
    body = {"model": "omni-moderation-latest", "input": "hello"}
    assert seen == [("/v1/moderations", f"Bearer {KEY}", body)]


async def test_azure_is_sent_the_documented_request() -> None:
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append((request.path_qs, request.headers["Ocp-Apim-Subscription-Key"], await request.json()))
        return web.json_response(azure_answer())

    async with serving(handle) as base:
        detector = made(AZURE, base)
        await detector.adetect(DetectorInput(view_set=build_views("hello"), origin=Origin.USER))
        await detector.aclose()
    ((path, key, body),) = seen
    assert path == "/contentsafety/text:analyze?api-version=2024-09-01"
    assert (key, body["text"], body["outputType"]) == (KEY, "hello", "FourSeverityLevels")


async def test_what_openai_flags_is_at_least_one_half_and_what_it_does_not_is_below() -> None:
    answer = openai_answer({"hate": 0.31, "violence": 0.8}, flags=("hate",))
    findings = {f.category: f.score for f in await asked(OPENAI, answer, minimum=0.0) if f.score > 0.01}
    assert findings == {"content.hate": 0.5, "content.violence": 0.499}
    assert [f.category for f in await asked(OPENAI, answer)] == ["content.hate"]


async def test_a_flag_of_an_unknown_name_is_reported_too() -> None:
    answer = openai_answer({"new/kind": 0.9}, flags=("new/kind",))
    assert [(f.category, f.score) for f in await asked(OPENAI, answer)] == [("content.policy", 0.9)]
    assert [f.category for f in await asked(OPENAI, openai_answer({}, flagged=True))] == ["content.policy"]


async def test_azures_medium_is_the_operating_point_and_levels_are_severities() -> None:
    findings = await asked(AZURE, azure_answer(Hate=4, Violence=6, Sexual=2))
    assert [(f.category, f.severity) for f in findings] == [
        ("content.hate", Severity.HIGH), ("content.violence", Severity.CRITICAL),
    ]  # fmt: skip
    assert findings[0].score >= 0.5


async def test_a_match_of_a_block_list_is_reported() -> None:
    answer = {**azure_answer(), "blocklistsMatch": [{"blocklistName": "own"}]}
    assert [f.category for f in await asked(AZURE, answer)] == ["content.policy"]


def without(answer: dict[str, Any], name: str) -> dict[str, Any]:
    del answer["results"][0][name]
    return answer


@pytest.mark.parametrize(
    ("detector_id", "body"),
    [
        (OPENAI, {}),
        (OPENAI, {"results": []}),
        (OPENAI, []),
        (OPENAI, {"error": {"message": "no"}}),
        (OPENAI, without(openai_answer({}), "categories")),
        (OPENAI, without(openai_answer({}), "category_scores")),
        (OPENAI, openai_answer({"hate": 7.0})),
        (OPENAI, openai_answer({}, categories={"hate": False})),
        (OPENAI, openai_answer({}, categories=dict.fromkeys(NAMES, "no"))),
        (OPENAI, {"results": [openai_answer({})["results"][0]] * 2}),
        (AZURE, {}),
        (AZURE, {"categoriesAnalysis": []}),
        (AZURE, {"categoriesAnalysis": azure_answer()["categoriesAnalysis"][:3]}),
        (AZURE, {"categoriesAnalysis": [{"category": "Hate", "severity": 3}]}),
        (AZURE, {"categoriesAnalysis": [{"category": "Hate"}]}),
        (AZURE, {"categoriesAnalysis": [{"category": "Hate", "severity": True}]}),
        (AZURE, "<html>log in</html>"),
    ],
)
async def test_an_answer_of_another_form_is_an_error(detector_id: str, body: Any) -> None:
    with pytest.raises(UnavailableError):
        await asked(detector_id, body)


@pytest.mark.parametrize("detector_id", [OPENAI, AZURE])
async def test_errors_name_neither_key_nor_text(detector_id: str) -> None:
    async with serving(answering(401, {"error": {"message": f"bad key {KEY}", "code": "401"}})) as base:
        detector = made(detector_id, base)
        with pytest.raises(UnavailableError) as caught:
            await detector.adetect(DetectorInput(view_set=build_views("private words"), origin=Origin.USER))
        await detector.aclose()
    assert KEY not in str(caught.value)
    assert "private words" not in str(caught.value)


async def test_a_slow_service_runs_into_the_deadline() -> None:
    import asyncio

    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.json_response({})

    async with serving(handle) as base:
        detector = made(OPENAI, base, deadline_s=0.1)
        with pytest.raises(DeadlineError):
            await detector.adetect(DetectorInput(view_set=build_views("x"), origin=Origin.USER))
        await detector.aclose()


async def test_a_text_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(JudgementError, match="the limit is 4"):
        await asked(OPENAI, openai_answer({}), text="12345", max_characters=4)


@pytest.mark.parametrize("key", [None, Secret(""), Secret("with\nnewline")])
async def test_a_missing_or_broken_key_is_told(key: Secret | None) -> None:
    detector = Registry(services=lambda _: Service("http://127.0.0.1:9", key)).create(OPENAI)
    assert isinstance(detector, ModerationDetector)
    with pytest.raises(UsageError):
        await detector.adetect(DetectorInput(view_set=build_views("x"), origin=Origin.USER))


async def test_the_settings_bring_address_and_key() -> None:
    from stanchion.bootstrap import service_factory
    from stanchion.config import load_settings

    environment = {
        "STANCHION_AZURE_CONTENT_SAFETY_ENDPOINT": "https://own.example",
        "STANCHION_AZURE_CONTENT_SAFETY_KEY": KEY,
        "OPENAI_API_KEY": "sk-other",
    }
    services = service_factory(load_settings(environ=environment))
    assert services(AZURE).base_url == "https://own.example"
    assert services(AZURE).key.reveal() == KEY
    assert services(OPENAI).key.reveal() == "sk-other"
    assert KEY not in repr(services(AZURE))
