"""A variant that lowers the protection of a feature: refused, or said wherever somebody looks."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from running_gateway import SCRIPT, STANCHION, Running, running

GATEWAY = """
listen: 127.0.0.1:0
admin_listen: ""
providers: {script: {api: scripted, script: script.yaml}}
models: {demo: {provider: script}}
features: {default: {policy: default}, shop: {policy: default}}
default_feature: default
rollout:
  experiments:
  - id: arms
    mode: MODE
    may_loosen: LOOSEN
    features: [shop]
    variants: [{id: new, weight: 1, policy: POLICY}]
"""
POLICIES = {
    "tighter.yaml": "version: 1\nname: tighter\nextends: [default]\ntools: {default: block}\n",
}


def made(folder: Path, policy: str, *, mode: str = "ab", loosen: str = "false") -> Running:
    text = GATEWAY.replace("POLICY", policy).replace("MODE", mode).replace("LOOSEN", loosen)
    return Running(folder, files={"gateway.yaml": text, "script.yaml": SCRIPT, **POLICIES})


def checked(process: Running) -> tuple[int, str]:
    command = [STANCHION, "serve", "--check", "--config", "gateway.yaml"]
    done = subprocess.run(
        command, cwd=process.folder, env=process._environment, capture_output=True, text=True
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("policy", ["observe", "none"])
def test_a_weaker_variant_is_refused_before_anything_is_served(tmp_path, policy) -> None:
    code, said = checked(made(tmp_path, policy))
    assert code != 0, said
    assert "experiment arms, variant new" in said
    assert "weaker than that of feature 'shop'" in said
    assert "may_loosen" in said
    done = subprocess.run(
        [STANCHION, "serve", "--config", "gateway.yaml"],
        cwd=tmp_path,
        env=made(tmp_path, policy)._environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code
    assert "serves at" not in done.stdout + done.stderr


@pytest.mark.parametrize(("policy", "mode"), [("tighter.yaml", "ab"), ("observe", "shadow")])
def test_a_tighter_variant_and_a_shadow_lower_nothing(tmp_path, policy, mode) -> None:
    code, said = checked(made(tmp_path, policy, mode=mode))
    assert code == 0, said
    assert "WEAKER" not in said


@pytest.mark.parametrize(("policy", "state"), [("observe", "observing"), ("none", "UNPROTECTED")])
def test_a_weaker_variant_that_is_allowed_is_shown_wherever_one_looks(tmp_path, policy, state) -> None:
    process = made(tmp_path, policy, loosen="true")
    code, said = checked(process)
    assert code == 0, said
    assert f"WEAKER feature shop under variant policy {policy}: {state}" in said
    with running(process):
        log = " ".join(process.said().split())
        assert "WEAKER" in log
        assert f"feature shop under variant policy {policy}: {state}" in log
        with urllib.request.urlopen(f"{process.url}/readyz", timeout=30) as answer:
            assert json.load(answer)["weaker_variants"] == [f"shop/{policy}"]
        body = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
        request = urllib.request.Request(
            f"{process.url}/features/shop/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["x-stanchion-guard"] == state
