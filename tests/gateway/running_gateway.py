"""`stanchion serve` as a process with every part switched on, and an upstream that remembers who asked it."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STANCHION = str(Path(sys.executable).with_name("stanchion"))
SCRIPT = """
name: shop
rules:
- when: {user_contains: refund}
  reply: {text: 'Of course.', tool_calls: [{name: refund, arguments: {amount: 3}}]}
- when: {user_contains: whom}
  reply: {text: 'Gladly. Please write to jane.doe@acme-shop.com about that, and to nobody else.'}
- when: {model: other}
  reply: {text: 'The other model says hello.'}
- when: {system_contains: pirate}
  reply: {text: 'Arr, you can return it.'}
- when: {user_contains: slowly}
  reply: {text: 'One word and then another word and then another word and then the end of all words.'}
  delivery: {chunk_chars: 4, chunk_delay_ms: 300}
default: {text: You can return anything within thirty days.}
"""
BROKEN = "name: broken\nrules: [{when: {}, failure: {kind: unavailable}}]\n"
AGENT = """
version: 1
name: agent
extends: [default]
rules:
- {id: addresses-out, when: {category: pii.email, surface: output}, effect: require_approval}
- {id: numbers-in, when: {category: pii.phone, surface: input}, effect: route}
tools:
  default: block
  named:
    refund: {effect: require_approval}
"""
GATEWAY = """
listen: 127.0.0.1:0
admin_listen: ""
records: {every_s: 0.1}
secrets_renew_s: 0.2
providers:
  script: {api: scripted, script: script.yaml}
  broken: {api: scripted, script: broken.yaml}
  vault: {api: openai, base_url: UPSTREAM, key: "${vault:secret/llm#key}"}
  mounted: {api: openai, base_url: UPSTREAM, key: "$${file:KEYFILE}"}
models:
  demo: {provider: script}
  other: {provider: script}
  lost: {provider: broken, fallback: [{human: true}]}
  vault: {provider: vault}
  mounted: {provider: mounted}
features:
  default: {policy: default}
  agent: {policy: agent.yaml, route: {model: other}}
  canned: {policy: agent.yaml, route: {answer: Call us.}}
  patient: {policy: agent.yaml, approval_wait_s: 20, route: {human: true}}
  canary: {policy: default}
  shadowed: {policy: default}
  limited: {policy: default}
  open: {policy: default, notices: {disclosure: first}}
approvals: {poll_s: 0.2}
prompts: {}
limits:
  rules: [{id: few, features: [limited], requests: 1, every: 6h}]
rollout:
  every_s: 0.2
  experiments:
  - id: arms
    features: [canary]
    sticky: user
    variants:
    - {id: new-model, weight: 0.34, model: other}
    - {id: new-prompt, weight: 0.33, prompt: sea@prod}
    - {id: new-policy, weight: 0.33, policy: agent.yaml}
    metrics: [{name: blocked, max_increase: 0.5}, {name: feedback_bad, max_increase: 0.5}]
  - id: beside
    mode: shadow
    features: [shadowed]
    variants:
    - {id: other-model, weight: 1, model: other}
    - {id: stricter, weight: 1, policy: agent.yaml}
    metrics: [{name: blocked, max_increase: 0.5}]
"""


class Upstream:
    """An OpenAI-compatible endpoint; `keys` are the bearer tokens it saw, in order."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                upstream.keys.append(self.headers.get("authorization", "").removeprefix("Bearer "))
                message = {"role": "assistant", "content": "Hello there."}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
                data = json.dumps({**body, "choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Running:
    """A serving process in a folder, and the command line beside it."""

    def __init__(self, folder: Path, *options: str, files: dict[str, str], **variables: str) -> None:
        self.folder = folder
        for name, text in files.items():
            (folder / name).write_text(text)
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("STANCHION_", "OPENAI", "ANTHROPIC"))
        }
        self._environment = {
            **inherited,
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "100",
            **variables,
        }
        self.log = folder / "log.txt"
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> Running:
        """Serve; what is written before (prompts, keys) is there."""
        command = [STANCHION, "serve", "--config", "gateway.yaml", *self._options]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=out, stderr=out
            )
        end = time.monotonic() + 90
        while not (found := re.search(r"serves at (http://[0-9.:]+)", self.said())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)
        self.url = found[1]
        return self

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def cli(self, *words: str, code: int = 0) -> str:
        """What a command prints; its exit code must be this one."""
        done = subprocess.run(
            [STANCHION, *words], cwd=self.folder, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def rows(self, where: str = "1 = 1") -> list[dict[str, Any]]:
        """The exchanges on disk."""
        with sqlite3.connect(self.folder / "state" / "stanchion" / "stanchion.db") as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"select * from exchanges where {where}").fetchall()
        connection.close()
        return [dict(row) for row in found]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


@contextmanager
def running(made: Running) -> Iterator[Running]:
    try:
        yield made.start()
    finally:
        made.stop()


def until(check: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What `check` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return found
