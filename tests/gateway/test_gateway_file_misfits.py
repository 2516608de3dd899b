"""What in a gateway file names nothing, or can never be: all of it at once, each with its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stanchion.core.errors import FilesError
from stanchion.gateway.gateway_file import read_gateway_file

HEAD = """\
providers:
  a: {api: openai, base_url: "https://a.example/v1"}
models:
  big: {provider: a, model: gpt-x}
  small: {provider: a}
"""


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    path = folder / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(FilesError) as raised:
        read_gateway_file(path, env={})
    return [(one.line, f"{one.message} {one.hint or ''}") for one in raised.value.problems]


def test_limits_for_what_nobody_can_ask_for_are_told_of_with_their_lines(tmp_path: Path) -> None:
    rules = """\
limits:
  rules:
  - {id: a, features: [defualt], requests: 1, every: 1m}
  - {id: b, features: [default], models: [big, gpt-x], requests: 1, every: 1m}
  - {id: c, models: [smal], requests: 1, every: 1m}
"""
    found = problems(tmp_path, HEAD + rules)
    assert [line for line, _ in found] == [8, 9, 10]
    for (_, said), words in zip(found, ("'defualt'", "'gpt-x'", "'smal'"), strict=True):
        assert words in said
    assert "Did you mean 'default'?" in found[0][1]
    assert "Did you mean 'small'?" in found[2][1]
    path = tmp_path / "gateway.yaml"
    passing = (HEAD + rules).replace("defualt", "default") + "pass_through: {openai: a}\n"
    path.write_text(passing)  # any name of a model may come
    assert read_gateway_file(path, env={}).value.limits is not None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("models: {big: {provider: a, fallback: [{human: false}]}}", 3, "human: false is no step"),
        ("models: {big: {provider: a, fallback: [{model: big}]}}", 3, "the model itself"),
        ("models: {big: {provider: a, fallback: [{answer: no}, {model: big}]}}", 3, "ends the fallbacks"),
        ("models: {}\nlisten: 127.0.0.1:8700\nadmin_listen: 127.0.0.1:8700", 5, "address of the data plane"),
    ],
)
def test_what_can_never_be_is_refused(tmp_path: Path, text: str, line: int, words: str) -> None:
    found = problems(tmp_path, HEAD.partition("models:")[0] + text + "\n")
    assert any(words in said for _, said in found)
    assert line in [where for where, _ in found]


def test_faults_of_all_providers_come_at_once(tmp_path: Path) -> None:
    text = """\
providers:
  a: {api: openai, base_url: "ftp://a.example"}
  b: {api: openai, base_url: "https://ann:secret@b.example/v1"}
  c: {api: openai, base_url: "https://c.example/v1", script: s.yaml}
  d: {api: openai, base_url: "https://d.example/v1", weights: w.gguf}
"""
    found = problems(tmp_path, text)
    assert [line for line, _ in found] == [2, 3, 4, 5]
    for (_, said), words in zip(found, ("http(s) URL", "user name", "script", "weights"), strict=True):
        assert words in said
    assert "ann:" not in str(found)


def test_several_names_that_nothing_has_come_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, HEAD.replace("provider: a", "provider: b") + "default_feature: shop\n")
    assert [line for line, _ in found] == [4, 5, 6]


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stanchion", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "stanchion" in done.stdout.lower()
