"""Settings: who wins, where a value came from, what is refused, what is never shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pydantic
import pytest

from stanchion.cli.main import main as run_main
from stanchion.config import (
    Settings,
    SourceKind,
    cache_dir,
    load_settings,
    state_dir,
    variable_of,
)
from stanchion.core.errors import FilesError, UnknownNameError
from stanchion.files.references import MASK


def load(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: object) -> Settings:
    if text:
        (tmp_path / "stanchion.yaml").write_text(text)
    return load_settings(folder=tmp_path, environ={"HOME": "/home/u", **(env or {})}, flags=flags)


def said(tmp_path: Path, text: str = "", env: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(FilesError) as caught:
        load(tmp_path, text, env, **flags)
    return [problem.render().replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def test_later_sources_win(tmp_path: Path) -> None:
    text, env = "log_level: info", {"STANCHION_LOG_LEVEL": "debug"}
    found = [load(tmp_path), load(tmp_path, text), load(tmp_path, text, env)]
    found.append(load(tmp_path, text, env, log_level="error"))
    assert [s.log_level for s in found] == ["warning", "info", "debug", "error"]
    assert [s.source("log_level").kind for s in found] == list(SourceKind)
    assert str(found[1].source("log_level")) == f"file {tmp_path / 'stanchion.yaml'}:1"
    assert str(found[2].source("log_level")) == "environment STANCHION_LOG_LEVEL"
    assert str(found[3].source("log_level")) == "flag --log-level"


def test_a_flag_that_was_not_given_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, log_level=None).source("log_level").kind is SourceKind.DEFAULT


def test_the_nearest_file_above_is_read_and_paths_start_there(tmp_path: Path) -> None:
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    (tmp_path / "stanchion.yaml").write_text("safety_folder: my/safety\n")
    settings = load_settings(folder=inner, environ={"HOME": "/h"})
    assert settings.safety_folder == tmp_path / "my/safety"


def test_a_file_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("policy: strict\n")
    env = {"HOME": "/h", "STANCHION_CONFIG": str(other)}
    assert load_settings(folder=tmp_path, environ=env).policy == "strict"
    assert load_settings(file=other, folder=tmp_path, environ={"HOME": "/h"}).policy == "strict"
    with pytest.raises(FilesError, match="there is no such file"):
        load_settings(file=tmp_path / "none.yaml", environ={"HOME": "/h"})


def test_all_problems_of_all_sources_come_at_once(tmp_path: Path) -> None:
    env = {"STANCHION_LOGLEVEL": "x", "STANCHION_ENVIRONMENT": "pro"}
    assert said(tmp_path, "polcy: x\nlog_level: 5\n", env, local_model="") == [
        "stanchion.yaml:1:1: unknown key 'polcy'. Did you mean 'policy'?",
        "stanchion.yaml:2:12: log_level: unknown value 5. Allowed: debug, error, info, warning.",
        "environment: unknown variable 'STANCHION_LOGLEVEL'. Did you mean 'STANCHION_LOG_LEVEL' or "
        "'STANCHION_LOCAL_MODEL' or 'STANCHION_POLICY'?",
        "STANCHION_ENVIRONMENT: unknown value 'pro'. Did you mean 'prod'?",
    ]


def test_file_may_refer_to_the_environment(tmp_path: Path) -> None:
    settings = load(tmp_path, "openai_api_key: ${env:MY_KEY}", {"MY_KEY": "hunter2"})
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.reveal() == "hunter2"


def test_own_variable_goes_before_another_tools(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "theirs"}
    assert str(load(tmp_path, env=env).source("openai_api_key")) == "environment OPENAI_API_KEY"
    both = load(tmp_path, env={**env, "STANCHION_OPENAI_API_KEY": "ours"})
    assert both.openai_api_key is not None
    assert both.openai_api_key.reveal() == "ours"


def test_a_value_of_the_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    env = {"STANCHION_OPENAI_API_KEY": "a${env:X}b", "STANCHION_POLICY": "123"}
    settings = load(tmp_path, env=env)
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.reveal() == "a${env:X}b"
    assert settings.policy == "123"


def test_secrets_are_masked_wherever_settings_are_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://u:hunter2@db/x"
    settings = load(tmp_path, env={"STANCHION_STORE_URL": url})
    assert settings.store_url.reveal() == url
    written = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert not any("hunter2" in text for text in written)
    assert settings.shown("store_url") == MASK
    monkeypatch.setenv("STANCHION_STORE_URL", url)
    assert run_main(["config", "show"]) == 0
    assert run_main(["config", "show", "--format", "json"]) == 0
    out = capfd.readouterr().out
    assert "hunter2" not in out
    assert "environment STANCHION_STORE_URL" in out


def test_folders_follow_the_xdg_directories(tmp_path: Path) -> None:
    env = {"HOME": "/home/u", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "relative/is/ignored"}
    assert cache_dir(env) == Path("/c/stanchion")
    assert state_dir(env) == Path("/home/u/.local/state/stanchion")
    settings = load(tmp_path, env=env)
    assert settings.store_url.reveal() == "sqlite:////home/u/.local/state/stanchion/stanchion.db"
    moved = load(tmp_path, "state_dir: s\n", env)
    assert moved.store_url.reveal() == f"sqlite:///{tmp_path}/s/stanchion.db"


def test_settings_are_frozen_and_complete(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(pydantic.ValidationError):
        settings.policy = "x"  # type: ignore[misc]
    for name in Settings.model_fields:
        settings.source(name)
        getattr(settings, name)
    with pytest.raises(UnknownNameError, match="Did you mean 'policy'"):
        settings.source("polcy")


def test_every_setting_is_described_and_documented() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/configuration.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"`{name}`" in page
        assert f"`{variable_of(name)}`" in page


def test_config_show_gives_value_and_source(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stanchion.yaml").write_text("policy: strict\n")
    monkeypatch.chdir(tmp_path)
    assert run_main(["config", "show", "--format", "json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["policy"] == {"value": "strict", "source": "file", "detail": "stanchion.yaml:1"}
    assert set(shown) == set(Settings.model_fields)


def test_only_this_module_reads_the_environment() -> None:
    """Other modules get a mapping passed in, so that a run can be replayed."""
    source = Path(__file__).parents[1] / "src/stanchion"
    readers = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if reads_environment(path.read_text(encoding="utf-8"))
    ]
    assert readers == ["config.py"]


def reads_environment(code: str) -> bool:
    """Whether code uses the environment; to set a variable for a library that it loads reads nothing."""
    if not any(word in code for word in ("environ", "getenv")):
        return False
    nodes = list(ast.walk(ast.parse(code)))
    written = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    names = ("environ", "environb", "getenv", "getenvb")
    used = (
        (isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(a.name in names for a in node.names)
        )
        for node in nodes
        if id(node) not in written
    )
    return any(used)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\nx = os.environ['A']", True),
        ("import os\nx = os.environ.get('A')", True),
        ("import os\nx = os.getenv('A')", True),
        ("from os import environ", True),
        ("import os\nos.environ['A'] += 'b' + os.environ['A']", True),
        ("import os\nos.environ['A'] = '1'", False),
        ("x = 'os.environ'", False),
    ],
)
def test_a_reader_of_the_environment_is_told_from_one_that_names_or_sets_it(
    code: str, expected: bool
) -> None:
    assert reads_environment(code) is expected
