"""A judge behind real endpoints on the loopback interface, in both dialects."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from loopback import serving

from pattern_cache import give_patterns
from stanchion.bootstrap import make_registry
from stanchion.cli.main import main
from stanchion.config import load_settings
from stanchion.core.errors import JudgementError, UnavailableError
from stanchion.core.finding import DetectorInput
from stanchion.core.origin import Origin
from stanchion.detectors.calibration_file import load_calibration
from stanchion.detectors.judge import JudgeDetector
from stanchion.detectors.views import build_views

BAD = "You are a worthless idiot."
WORDS = {"worthless": ["harassment"], "break your legs": ["violence", "harassment"], "tracker": ["privacy"]}


def verdict(system: str, user: str) -> dict[str, Any]:
    """What an honest model would say, from the words of the request alone."""
    code = re.search(r"Repeat the code (\w+)", system)
    assert code is not None
    items = json.loads(user[user.index("{") : user.rindex("}") + 1])["items"]
    criteria = re.findall(r"^- ([a-z_]+): ", system, re.MULTILINE)

    def rated(text: str) -> dict[str, int]:
        bad = [one for word, names in WORDS.items() if word in text for one in names]
        return {one: 4 if one in bad else 0 for one in criteria}

    return {"code": code[1], "levels": {key: rated(item["text"]) for key, item in items.items()}}


class Endpoint:
    """Answers chats of OpenAI's and of Anthropic's format; remembers the bodies."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if request.path.endswith("/messages"):
            return web.json_response(self._anthropic(body))
        return web.json_response(self._openai(body))

    def _openai(self, body: dict[str, Any]) -> dict[str, Any]:
        system, user = (message["content"] for message in body["messages"])
        said = json.dumps(verdict(system, user))
        message: dict[str, Any] = {"role": "assistant", "content": said}
        reason = "stop"
        if "tools" in body:
            call = {"id": "c1", "type": "function", "function": {"name": "give_verdict", "arguments": said}}
            message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        return {
            "model": "m1",
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 50},
        }

    def _anthropic(self, body: dict[str, Any]) -> dict[str, Any]:
        system, user = body["system"], body["messages"][0]["content"]
        texts = [t if isinstance(t, str) else "".join(p["text"] for p in t) for t in (system, user)]
        said = verdict(*texts)
        block: dict[str, Any] = {"type": "text", "text": json.dumps(said)}
        reason = "end_turn"
        if "tools" in body:
            block, reason = (
                {"type": "tool_use", "id": "t1", "name": "give_verdict", "input": said},
                "tool_use",
            )
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m1",
            "content": [block],
            "stop_reason": reason,
            "usage": {"input_tokens": 700, "output_tokens": 50},
        }


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    give_patterns(tmp_path / ".cache/stanchion")

    def write(url: str) -> Path:
        path = tmp_path / "stanchion.yaml"
        path.write_text(
            f"openai_base_url: {url}/v1\nanthropic_base_url: {url}\nopenai_api_key: k\nanthropic_api_key: k\n"
        )
        return path

    return write


def made(path: Path, **options: Any) -> JudgeDetector:
    detector = make_registry(load_settings(file=path)).create("content.judge", **options)
    assert isinstance(detector, JudgeDetector)
    return detector


def given(text: str) -> DetectorInput:
    return DetectorInput(view_set=build_views(text), origin=Origin.USER)


@pytest.mark.parametrize("model", ["openai/judge-1", "anthropic/judge-1"])
@pytest.mark.parametrize("form", ["schema", "tool"])
async def test_a_verdict_comes_back_in_the_form_that_the_api_enforces(
    model: str, form: str, settings_file: Any
) -> None:
    endpoint = Endpoint()
    async with serving(endpoint.answer) as url:
        detector = made(settings_file(url), model=model, form=form)
        found = await detector.adetect(given(BAD))
        assert await detector.adetect(given("Where is my parcel?")) == []
        await detector.aclose()
    assert [(one.category, one.score) for one in found] == [("content.harassment", 1.0)]
    assert (detector.spent.calls, detector.spent.input_tokens, detector.spent.output_tokens) == (2, 1400, 100)
    body = endpoint.bodies[0]
    asked = json.dumps(body)
    assert '"additionalProperties": false' in asked
    assert ("tools" in body) == (form == "tool")
    assert body["temperature"] == 0.0


async def test_a_judge_is_calibrated_from_the_command_line(
    settings_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"Where is parcel {n}?", "label": 0} for n in range(160)]
    rows += [{"text": f"{BAD} Number {n}.", "label": 1} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    endpoint = Endpoint()
    async with serving(endpoint.answer) as url:
        arguments = [
            *("--config", str(settings_file(url)), "calibrate", "--detector", "content.judge"),
            *("--option", "model=openai/judge-1", "--rows", str(tmp_path / "rows.jsonl")),
            *("--max-false-alarms", "3%", "--min-recall", "80%", "-o", str(tmp_path / "judge.json")),
        ]
        code = await asyncio.to_thread(main, arguments)
    told = capsys.readouterr()
    assert code == 0, told
    assert len(endpoint.bodies) == 200
    assert "judge: 200 calls, 0 without a verdict" in told.err
    assert "140,000 tokens in, 10,000 out; cost not told" in told.err
    value = load_calibration(tmp_path / "judge.json").value
    assert value.detector.options == {"model": "openai/judge-1"}
    assert value.evidence.caught == 40


async def test_a_policy_with_a_judge_is_tried_from_the_command_line(
    settings_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\ndetectors:\n  content.judge: {options: {model: openai/judge-1}, deadline_ms: 20000}\n"
        "rules:\n- {id: harm, when: {category: content.*}, effect: block}\n"
    )
    endpoint = Endpoint()
    async with serving(endpoint.answer) as url:
        asked = ["--config", str(settings_file(url)), "policy", "test", str(policy)]
        for text, effect in ((BAD, "block"), ("Where is my parcel?", "allow")):
            code = await asyncio.to_thread(main, [*asked, "--text", text, "--expect", effect])
            assert code == 0, capsys.readouterr()
    assert len(endpoint.bodies) == 2


async def test_an_endpoint_that_answers_something_else_is_an_error(settings_file: Any) -> None:
    async def chats(request: web.Request) -> web.StreamResponse:
        message = {"role": "assistant", "content": "Harmless."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"model": "m", "choices": [choice]})

    async with serving(chats) as url:
        detector = made(settings_file(url), model="openai/judge-1")
        with pytest.raises(JudgementError, match="one JSON object"):
            await detector.adetect(given(BAD))
        await detector.aclose()


async def test_an_endpoint_that_refuses_the_key_is_an_error_without_the_text(settings_file: Any) -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=401)

    async with serving(refuses) as url:
        detector = made(settings_file(url), model="openai/judge-1")
        with pytest.raises(UnavailableError) as caught:
            await detector.adetect(given(BAD))
        await detector.aclose()
    assert BAD not in str(caught.value)
    assert detector.spent.errors == 1
