"""The guardrail in LiteLLM's own proxy: a real process, a vendor on loopback, real clients.

It needs `litellm[proxy]`, which `make test-integrations` installs; elsewhere the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from frameworks import ATTACK, MINE, REDACTED

PARTS = ("litellm", "fastapi", "backoff", "orjson", "apscheduler")  # `litellm[proxy]` brings the last four
MISSING = [name for name in PARTS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("STANCHION_REQUIRE_INTEGRATIONS"),
        reason=f"LiteLLM's proxy lacks {', '.join(MISSING)}: make test-integrations runs this",
    ),
    pytest.mark.filterwarnings("ignore"),  # the warnings of other people's packages
]
openai = pytest.importorskip("openai")
START_S = 240.0
RAIL = """
from stanchion.guard.pipeline import Guard
from stanchion.integrations.litellm_guardrail import make_guardrail

rail = make_guardrail(Guard.load())
"""
CONFIG = """
model_list:
- model_name: m
  litellm_params: {model: openai/m, api_base: URL/v1, api_key: k}
litellm_settings: {callbacks: rail_module.rail, num_retries: 0, telemetry: false}
general_settings: {master_key: sk-test}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(_vendor: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a proxy with the guardrail, and the vendor behind it."""
    folder: Path = tmp_path_factory.mktemp("proxy")
    (folder / "rail_module.py").write_text(RAIL)
    (folder / "config.yaml").write_text(CONFIG.replace("URL", _vendor.url))
    port, log = free_port(), folder / "log.txt"
    start = "from litellm.proxy.proxy_cli import run_server; run_server()"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "STANCHION"))},
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the list of prices that it carries, and no look outside
        "LITELLM_MODE": "PRODUCTION",
        "XDG_CACHE_HOME": str(folder),
    }
    options = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", start, *options], cwd=folder, env=environment, stdout=out, stderr=out
        )
    try:
        end = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{port}/health/liveliness"):
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def client(proxy: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key="sk-test", max_retries=0, timeout=60) as made:
        yield made


def ask(client: Any, text: str, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more)


def streamed(client: Any, text: str) -> str:
    pieces = ask(client, text, stream=True)
    return "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def test_a_harmless_request_passes_as_it_is(client: Any, vendor: Any) -> None:
    assert ask(client, "[echo] Good morning.").choices[0].message.content == "Good morning."
    assert len(vendor.bodies) == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_attack_is_stopped_before_the_vendor_is_asked(client: Any, vendor: Any, is_stream: bool) -> None:
    shown = streamed(client, ATTACK) if is_stream else str(ask(client, ATTACK).choices[0].message.content)
    assert "req_" in shown or "reference" in shown.lower(), shown
    assert vendor.bodies == []


def test_a_number_is_kept_from_the_vendor_and_comes_back_to_its_user(client: Any, vendor: Any) -> None:
    assert ask(client, f"[echo] {MINE}").choices[0].message.content == MINE
    assert "5555" not in vendor.asked


def test_a_leak_in_an_answer_is_redacted(client: Any, vendor: Any) -> None:
    assert ask(client, "[card]").choices[0].message.content == REDACTED


def test_a_leak_in_a_stream_is_redacted_and_nothing_leaves_before(client: Any, vendor: Any) -> None:
    shown = streamed(client, "[card]")
    assert shown == REDACTED
    assert "4111" not in shown


def test_a_stream_brings_a_users_own_number_back(client: Any, vendor: Any) -> None:
    assert streamed(client, f"[echo] {MINE}") == MINE
    assert "5555" not in vendor.asked
