"""The parts as the gateway file names them, together, through their sections."""

from pathlib import Path

import pytest

from stanchion.gateway.gateway_file import read_gateway_file

FILE = """
providers: {s: {api: scripted, script: script.yaml}}
models: {m: {provider: s}}
limits:
  rules: [{id: few, requests: 3, every: 1h}, {id: month, tokens: 1000, every: month}]
  penalties: {slow_after: 5, block_after: 15}
breaker: {by_name: {s: {error_share: 0.2}}}
prompts: {}
approvals: {timeout_s: 60, webhook: {url: "https://hooks.example.org/x", secret: "${env:HOOK}"}}
feedback: {per_minute: 5}
rollout:
  experiments:
  - {id: kinder, variants: [{id: canary, weight: 0.5, prompt: support@prod}]}
"""


def test_every_section_is_read_and_keeps_its_secret(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    path.write_text(FILE)
    secret = "a-shared-secret-of-32-characters"
    model = read_gateway_file(path, env={"HOOK": secret}).value
    assert model.limits is not None
    assert [rule.id for rule in model.limits.rules] == ["few", "month"]
    assert model.breaker is not None
    assert model.breaker.by_name["s"].error_share == 0.2
    assert model.approvals is not None
    assert model.approvals.webhook is not None
    assert secret not in repr(model)


def test_a_problem_in_a_section_has_its_line(tmp_path: Path):
    from stanchion.core.errors import FilesError

    path = tmp_path / "gateway.yaml"
    path.write_text(FILE.replace("weight: 0.5", "weight: 1.5"))
    with pytest.raises(FilesError, match=r"gateway\.yaml:13"):
        read_gateway_file(path, env={"HOOK": "a-shared-secret-of-32-characters"})
