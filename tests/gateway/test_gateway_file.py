"""The gateway file: every problem with its line, nothing looser than the policy, every key documented."""

from pathlib import Path

import pytest

from stanchion.core.clock import SystemClock
from stanchion.core.errors import FilesError, UsageError
from stanchion.gateway import gateway_file
from stanchion.gateway.building import make_models, tightened
from stanchion.gateway.flags_file import FlagModel, FlagProviderModel
from stanchion.gateway.gateway_file import FeatureModel, is_loopback, read_gateway_file
from stanchion.gateway.serving import check_reach
from stanchion.guard.policy import packaged_policy
from stanchion.guard.policy_model import Guarantee

GOOD = """
providers:
  a: {api: openai, base_url: "https://a.example/v1", key: "${env:KEY}"}
models:
  m: {provider: a, fallback: [{answer: later}]}
"""


def written(tmp_path, text):
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_and_its_keys_stay_secret(tmp_path):
    loaded = read_gateway_file(written(tmp_path, GOOD), env={"KEY": "sk-hidden"})
    assert "sk-hidden" not in repr(loaded.value)
    models = make_models(loaded.value, folder=tmp_path, clock=SystemClock())
    assert models.names() == ("m",)
    assert models.find("m", vendor="openai").fallback[0].answer == "later"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("providers:\n  a: {api: opnai, base_url: x}\n", 2, "api"),
        ("providers:\n  a: {api: openai}\n", 2, "base_url"),
        ("providers: {}\nmodels:\n  m: {provider: b}\n", 0, "'b'"),
        ("providers: {}\nlisten: here\n", 2, "here"),
        ("providers: {}\nfeatures:\n  default: {polcy: x}\n", 3, "polcy"),
        ("providers: {}\nmodels: {}\nfeatures:\n  A B: {}\n", 0, "A B"),
        ("providers:\n  a: {api: scripted}\n", 2, "script"),
    ],
)
def test_problems_name_their_place(tmp_path, text, line, words):
    with pytest.raises(FilesError) as raised:
        read_gateway_file(written(tmp_path, text))
    problem = raised.value.problems[0]
    assert words in problem.message
    if line:
        assert problem.line == line


def test_the_file_may_tighten_a_policy_and_never_loosen_it():
    policy = packaged_policy("default")
    assert policy.streaming.guarantee is Guarantee.NO_LEAK
    with pytest.raises(UsageError, match="looser"):
        tightened(policy, FeatureModel(guarantee="audit-only"), "f")
    same = tightened(policy, FeatureModel(guarantee="no-leak"), "f")
    assert same.digest == policy.digest


def test_nobody_else_is_served_without_keys():
    check_reach("127.0.0.1:8700", needs_keys=False)
    check_reach("0.0.0.0:8700", needs_keys=True)
    for address in ("0.0.0.0:8700", "[::]:8700", "10.0.0.1:80", "gateway.example:80"):
        with pytest.raises(UsageError, match="reached by others"):
            check_reach(address, needs_keys=False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("a", False)],
)
def test_loopback_is_told(host, expected):
    assert is_loopback(host) is expected


def test_every_key_is_in_the_reference():
    page = (Path(__file__).parents[2] / "docs/reference/gateway.md").read_text()
    for name in (
        "GatewayModel",
        "ProviderModel",
        "ModelModel",
        "FallbackModel",
        "FeatureModel",
        "NoticesModel",
        "RecordsModel",
        "TelemetrySection",
        "AccessSection",
        "AdmissionSection",
        "FlagsSection",
    ):
        for key in getattr(gateway_file, name).model_fields:
            assert f"| `{key}` |" in page, f"{name}.{key}"
    for model in (FlagModel, FlagProviderModel):
        for key in model.model_fields:
            assert f"| `{key}` |" in page, f"{model.__name__}.{key}"


def test_a_key_that_is_empty_is_not_replaced_by_those_of_clients(tmp_path):
    text = """
providers:
  none: {api: openai, base_url: "https://a.example/v1"}
  empty: {api: openai, base_url: "https://a.example/v1", key: ""}
  unset: {api: openai, base_url: "https://a.example/v1", key: "${env:KEY}"}
"""
    loaded = read_gateway_file(written(tmp_path, text), env={"KEY": ""})
    providers = make_models(loaded.value, folder=tmp_path, clock=SystemClock()).providers
    assert {name: one.takes_keys for name, one in providers.items()} == {
        "none": True,
        "empty": False,
        "unset": False,
    }
