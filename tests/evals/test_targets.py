"""Targets: real functions, a real HTTP server, detectors and recordings."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from eval_doubles import make_case
from pydantic import TypeAdapter

from stanchion.core.errors import DatasetError, DeadlineError, UnavailableError, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.interaction import Interaction, Message, Reply, Role, Text, assistant, user
from stanchion.core.origin import Origin
from stanchion.evals.results import Outcome, TargetKind
from stanchion.evals.scorers.labels import DetectionScorer
from stanchion.evals.scorers.scorer import Answer
from stanchion.evals.target import (
    CallableTarget,
    DetectorTarget,
    NoAnswer,
    build_target,
    http_target,
    load_function,
    target_kind,
)
from stanchion.evals.target_file import AnyTargetModel, HttpTargetModel
from stanchion.models.client import request_digest

QUESTION = Interaction(messages=(user("How long?"),))


def model(**fields: Any) -> AnyTargetModel:
    return TypeAdapter[AnyTargetModel](AnyTargetModel).validate_python(fields)


def build(folder: Path, **fields: Any) -> Any:
    return build_target(model(**fields), folder=folder, detectors=lambda *_, **__: Shouting())


async def said(target: Any, interaction: Interaction = QUESTION) -> str:
    reply = (await target.invoke(interaction)).reply
    assert reply is not None
    return str(reply.message.text)


# --- functions ---


async def test_functions_of_every_kind_are_targets() -> None:
    def plain(text: str) -> str:
        return f"{text} {threading.current_thread() is threading.main_thread()}"

    async def waiting(text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    class Bot:
        async def __call__(self, text: str) -> Message:
            return assistant(text)

    def whole(interaction: Interaction) -> Reply:
        return Reply(message=assistant(str(len(interaction.messages))), model="m")

    assert await said(CallableTarget(plain)) == "How long? False"
    assert await said(CallableTarget(waiting)) == "HOW LONG?"
    assert await said(CallableTarget(Bot())) == "How long?"
    assert await said(CallableTarget(whole, takes="interaction")) == "1"


async def test_what_is_no_answer_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="returned int"):
        await CallableTarget(lambda _: 3).invoke(QUESTION)
    with pytest.raises(UnavailableError, match="returned Interaction"):
        await CallableTarget(lambda i: i, takes="interaction").invoke(QUESTION)


async def test_a_function_that_ends_the_process_is_an_error() -> None:
    def plain(_: str) -> str:
        sys.exit(0)

    async def waiting(_: str) -> str:
        sys.exit(0)

    for function in (plain, waiting):
        with pytest.raises(UnavailableError, match="SystemExit") as caught:
            await CallableTarget(function).invoke(QUESTION)
        assert not caught.value.is_retryable


async def test_a_function_of_a_file_beside_the_suite_is_found_and_digested(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def answer(text):\n    return 'v1 ' + text\n")
    first = build(tmp_path, kind="callable", function="app.py:answer")
    assert await said(first) == "v1 How long?"
    (tmp_path / "app.py").write_text("def answer(text):\n    return 'v2 ' + text\n")
    second = build(tmp_path, kind="callable", function="app.py:answer")
    assert await said(second) == "v2 How long?"
    assert first.components.code != second.components.code


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("answer", "names no function"),
        ("none.py:answer", "no such file"),
        ("app.py:anser", "It has: answer"),
        ("broken.py:answer", "cannot be loaded: ZeroDivisionError"),
        ("no_such_module_here:answer", "cannot be imported"),
        ("leaves.py:answer", "leaves.py cannot be loaded: it ends the process"),
        ("leaving_module:answer", "module 'leaving_module' cannot be loaded: it ends the process"),
    ],
)
def test_a_function_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, words: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("leaves", "leaving_module"):
        (tmp_path / f"{name}.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "app.py").write_text("def answer(text):\n    return text\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError) as caught:
        load_function(reference, folder=tmp_path)
    assert words in str(caught.value)


# --- HTTP ---


async def serve(request: web.Request) -> web.StreamResponse:
    kind = request.match_info["kind"]
    match kind:
        case "echo":
            body = await request.json()
            return web.json_response(
                {"choices": [{"message": {"content": json.dumps(body, sort_keys=True)}}]}
            )
        case "text":
            return web.Response(text="Within 30 days.")
        case "html":
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        case "busy":
            return web.Response(status=429, headers={"Retry-After": "7"}, text="jane@example.org")
        case "refused":
            return web.Response(status=400, text="bad")
        case "moved":
            return web.Response(status=302, headers={"Location": "http://localhost:1/"})
        case "slow":
            await asyncio.sleep(3)
        case "large":
            return web.Response(text="x" * 5000)
        case "calls":
            call = {"id": "c1", "function": {"name": "refund", "arguments": '{"n": 3}'}}
            broken = {"name": "mail", "arguments": '{"to": '}
            return web.json_response(
                {"text": None, "calls": [call, broken], "odd": [call, "odd"], "none": None}
            )
    return web.json_response({"auth": request.headers.get("Authorization", "")})


@pytest_asyncio.fixture
async def address() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{kind}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def ask(url: str, *, timeout_s: float = 5.0, **fields: Any) -> Interaction:
    given = HttpTargetModel.model_validate({"kind": "http", "url": url, **fields})
    target = http_target(given, deadline_s=timeout_s)
    try:
        return await target.invoke(
            Interaction(
                messages=(
                    Message(role=Role.SYSTEM, parts=(Text(text="Be brief.", origin=Origin.SYSTEM),)),
                    *QUESTION.messages,
                )
            )
        )
    finally:
        await target.aclose()


async def test_the_body_is_made_from_the_template(address: str) -> None:
    done = await ask(
        f"{address}/echo",
        body={"q": "{{ prompt }}", "s": "[{{ system }}]", "m": "{{ messages }}", "n": 1},
        answer="choices.0.message.content",
    )
    assert done.reply is not None
    assert json.loads(done.reply.message.text) == {
        "q": "How long?",
        "s": "[Be brief.]",
        "m": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long?"}],
        "n": 1,
    }


async def test_a_plain_text_body_is_the_answer(address: str) -> None:
    done = await ask(f"{address}/text")
    assert done.reply is not None
    assert done.reply.message.text == "Within 30 days."


async def test_headers_are_sent_and_secrets_are_not_shown(address: str) -> None:
    fields = {"headers": {"Authorization": "Bearer sesame"}, "answer": "auth", "method": "GET"}
    done = await ask(f"{address}/auth", **fields)
    assert done.reply is not None
    assert done.reply.message.text == "Bearer sesame"
    shown = HttpTargetModel.model_validate({"kind": "http", "url": "x", **fields})
    assert "sesame" not in repr(shown)


async def test_tool_calls_are_read(address: str) -> None:
    done = await ask(f"{address}/calls", answer="text", calls="calls")
    assert done.reply is not None
    refund, mail = done.reply.message.tool_calls
    assert (refund.id, refund.name, refund.arguments) == ("c1", "refund", {"n": 3})
    assert (mail.arguments, mail.raw_arguments) == (None, '{"to": ')
    for absent in ("none", "no_such_key"):
        done = await ask(f"{address}/calls", calls=absent)
        assert done.reply is not None
        assert done.reply.message.tool_calls == ()


@pytest.mark.parametrize(
    ("kind", "fields", "words", "retryable"),
    [
        ("html", {}, "a web page", False),
        ("html", {"answer": "a.b"}, "is not JSON but an HTML page", False),
        ("text", {"answer": "a.b"}, "is not JSON", False),
        ("auth", {"answer": "a.b"}, "the path 'a.b' leads nowhere", False),
        ("calls", {"answer": "text"}, "no text at 'text'", False),
        ("calls", {"calls": "odd"}, "tool call 1 of the answer has no name", False),
        ("calls", {"calls": "a.b"}, "the path 'a' leads nowhere", False),
        ("refused", {}, "(HTTP 400)", False),
        ("busy", {}, "(HTTP 429)", True),
        ("moved", {}, "redirects (HTTP 302)", False),
        ("large", {"max_bytes": 1000}, "larger than the limit of 1000 bytes", False),
    ],
)
async def test_what_cannot_be_used_is_told(
    address: str, kind: str, fields: dict[str, Any], words: str, retryable: bool
) -> None:
    with pytest.raises(UnavailableError) as caught:
        await ask(f"{address}/{kind}", **fields)
    assert words in str(caught.value)
    assert caught.value.is_retryable is retryable
    assert "jane@example.org" not in str(caught.value)
    if kind == "busy":
        assert (caught.value.status, caught.value.retry_after_s) == (429, 7.0)


async def test_a_busy_application_is_asked_once_because_the_run_asks_again(address: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        await ask(f"{address}/busy")
    assert "asked" not in str(caught.value)


def test_a_url_or_template_that_cannot_work_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="not an http"):
        http_target(HttpTargetModel(kind="http", url="localhost"))
    with pytest.raises(UsageError, match="promt"):
        http_target(HttpTargetModel(kind="http", url="http://x", body="{{ promt }}"))


async def test_a_server_that_is_slow_or_not_there_is_told(address: str) -> None:
    with pytest.raises(DeadlineError, match=r"no whole answer came within 0\.1 s"):
        await ask(f"{address}/slow", timeout_s=0.1)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await ask("http://127.0.0.1:9/none")


# --- detectors, recordings, nobody ---


class Shouting:
    """Finds capital letters; the score is their share."""

    id = "shouting"
    version = "1"
    categories = ("custom.pattern",)
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        text = detector_input.text
        share = sum(c.isupper() for c in text) / max(len(text), 1)
        where = Location(start=0, end=len(text))
        finding = Finding(
            detector=self.id, version="1", category="custom.pattern", score=share, location=where
        )
        return [finding] if share else []


@pytest.mark.parametrize(
    ("text", "label", "outcome"),
    [
        ("STOP IT", "unsafe", Outcome.SAFE),
        ("please stop", "unsafe", Outcome.UNSAFE),
        ("please stop", "safe", Outcome.SAFE),
        ("STOP IT", "safe", Outcome.UNSAFE),
    ],
)
async def test_a_detector_is_judged_by_labels(text: str, label: str, outcome: Outcome) -> None:
    import msgspec

    case = msgspec.structs.replace(make_case(1), messages=(user(text),))
    case = msgspec.structs.replace(case, expect=msgspec.structs.replace(case.expect, label=label))
    done = await DetectorTarget(Shouting(), threshold=0.5).invoke(case.interaction())
    assert done.reply is not None
    assert DetectionScorer().score(Answer(case, done, done.reply)).outcome is outcome


def test_a_detector_s_identity_covers_its_threshold() -> None:
    one, two = DetectorTarget(Shouting(), threshold=0.5), DetectorTarget(Shouting(), threshold=0.6)
    assert one.components != two.components


async def test_nobody_answers_with_nothing() -> None:
    done = await NoAnswer().invoke(QUESTION)
    assert done.reply is not None
    assert done.reply.message.parts == ()


async def test_a_recording_answers_what_it_knows(tmp_path: Path) -> None:
    import msgspec

    line = {
        "request": request_digest(QUESTION),
        "reply": msgspec.to_builtins(Reply(message=assistant("30 days"))),
    }
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    target = build(tmp_path, kind="recording", path="answers.jsonl")
    assert await said(target) == "30 days"
    with pytest.raises(UnavailableError):
        await target.invoke(Interaction(messages=(user("Something else"),)))
    with pytest.raises(DatasetError):
        build(tmp_path, kind="recording", path="missing.jsonl")


async def test_a_script_is_built_from_the_suite(tmp_path: Path) -> None:
    target = build(
        tmp_path,
        kind="scripted",
        script={"rules": [{"when": {"user_contains": "long"}, "reply": {"text": "30"}}]},
    )
    assert await said(target) == "30"


def test_scripts_and_recordings_are_never_counted_as_real() -> None:
    scripted = {"kind": "scripted", "script": {}}
    assert target_kind(model(**scripted)) is TargetKind.SCRIPTED
    assert target_kind(model(kind="recording", path="x")) is TargetKind.SCRIPTED
    assert target_kind(model(kind="guard", around=scripted)) is TargetKind.SCRIPTED
    assert target_kind(model(kind="local")) is TargetKind.REAL
    assert target_kind(model(kind="guard", policy="default")) is TargetKind.REAL


def test_kinds_that_are_plugged_in_above_need_their_factory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be made here"):
        build(tmp_path, kind="local")
