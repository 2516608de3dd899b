"""A gateway of several features with a safety folder beside it, and how tests of its sections ask it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import openai
from running_gateway import SCRIPT, STANCHION, Running, until

GATEWAY = """
listen: 127.0.0.1:0
admin_listen: 127.0.0.1:ADMIN
records: {every_s: 0.1}
providers: {script: {api: scripted, script: script.yaml}}
models: {demo: {provider: script}, other: {provider: script}}
features: {default: {policy: default}, shop: {policy: default}, chat: {policy: default}}
"""
ORG = """
version: 1
organisation: Acme
people: {ann: {name: Ann}, ben: {name: Ben}}
roles: {engineer: {title: Engineer, people: [ann]}, lead: {title: Lead, people: [ben]}}
tiers:
  "0": {ungated: SHOP}
  "1": {ungated: warn}
"""
CASE = """
version: 1
feature: NAME
title: A feature
owner: engineer
tier: TIER
intended_use: For tests.
claims: [{id: held, text: It is held., supported_by: [something]}]
"""


def safety(folder: Path, *, shop: str = "block") -> dict[str, str]:
    """Files of a safety folder: `shop` is of tier 0, `chat` of tier 1; `default` is not known there."""
    for name in ("shop", "chat"):
        (folder / "safety" / "features" / name).mkdir(parents=True, exist_ok=True)
    return {
        "safety/org.yaml": ORG.replace("SHOP", shop),
        "safety/features/shop/case.yaml": CASE.replace("NAME", "shop").replace("TIER", "0"),
        "safety/features/chat/case.yaml": CASE.replace("NAME", "chat").replace("TIER", "1"),
    }


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def made(folder: Path, *options: str, more: str = "", files: dict[str, str] | None = None) -> Running:
    text = GATEWAY.replace("ADMIN", str(free_port())) + more
    given = {"gateway.yaml": text, "script.yaml": SCRIPT, **(files or {})}
    return Running(folder, *options, files=given)


def ask(
    run: Running, feature: str = "default", *, key: str = "none", words: str = "Hello", **more: Any
) -> Any:
    base = run.url + ("" if feature == "default" else f"/features/{feature}") + "/v1"
    with openai.OpenAI(base_url=base, api_key=key, max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(
            model="demo", messages=[{"role": "user", "content": words}], **more
        )


def said(answer: Any) -> str:
    return str(answer.parse().choices[0].message.content)


# A record leaves out what is as always.
UNSAID: dict[str, Any] = {"flags": "", "is_gated": None, "tries": [], "ungated": "", "variants": {}}


def detail(run: Running, reference: str) -> dict[str, Any]:
    """The record of a request, once it is written."""
    [row] = until(lambda: run.rows(f"id = '{reference}'"))
    said = {**UNSAID, **json.loads(row["detail"])}
    return {**said, **{k: row[k] for k in ("outcome", "stage", "status", "switch_id")}}


def admin(run: Running, path: str, body: dict[str, Any]) -> dict[str, Any]:
    import urllib.request

    port = re.search(r"admin_listen: 127.0.0.1:(\d+)", (run.folder / "gateway.yaml").read_text())
    token = (run.folder / "state" / "stanchion" / "admin" / "token").read_text().strip()
    assert port is not None
    request = urllib.request.Request(
        f"http://127.0.0.1:{port[1]}/admin/v1{path}",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.loads(answer.read()))


def checked(run: Running) -> tuple[int, str]:
    command = [STANCHION, "serve", "--check", "--config", "gateway.yaml"]
    done = subprocess.run(command, cwd=run.folder, env=run._environment, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def reload(run: Running, text: str = "the configuration was reloaded") -> None:
    before = run.said().count(text)
    assert run.process is not None
    os.kill(run.process.pid, signal.SIGHUP)
    until(lambda: run.said().count(text) > before)
