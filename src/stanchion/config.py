"""Settings: defaults < `stanchion.yaml` < environment < flags; the only reader of the process environment.

Every value remembers where it came from. An unknown key of the file and an unknown `STANCHION_*` variable are
errors, and all problems of all sources come at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pydantic

from stanchion.core.errors import FilesError, Problem, UnknownNameError, did_you_mean
from stanchion.files.document import plain_value
from stanchion.files.references import MASK, Secret
from stanchion.files.schema import FileModel, Loaded, attempt_file, load_text

SETTINGS_FILE = "stanchion.yaml"
ENVIRONMENT_PREFIX = "STANCHION_"
FILE_VARIABLE = "STANCHION_CONFIG"
OTHER_VARIABLES = frozenset(
    {FILE_VARIABLE, "STANCHION_REQUIRE_INTEGRATIONS", "STANCHION_REQUIRE_SERVERS"}
)  # the others are of the project's tests
# Variables of other tools that are read when the STANCHION_ one is not set.
FOREIGN_VARIABLES = MappingProxyType(
    {
        "openai_api_key": "OPENAI_API_KEY",
        "openai_base_url": "OPENAI_BASE_URL",
        "anthropic_api_key": "ANTHROPIC_API_KEY",
        "anthropic_base_url": "ANTHROPIC_BASE_URL",
        "vault_addr": "VAULT_ADDR",
        "vault_token": "VAULT_TOKEN",
        "vault_namespace": "VAULT_NAMESPACE",
        "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
        "semconv_opt_in": "OTEL_SEMCONV_STABILITY_OPT_IN",
    }
)


class SourceKind(StrEnum):
    """Where a value came from; later ones win."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Source:
    """The origin of one value; `detail` is `stanchion.yaml:3`, a variable's name, or a flag."""

    kind: SourceKind
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".rstrip()


_DEFAULT = Source(SourceKind.DEFAULT)


class Settings(FileModel):
    """Everything that can be set; the descriptions are the reference's text."""

    environment: Literal["dev", "staging", "prod"] = pydantic.Field(
        "dev", description="Which environment records are marked with."
    )
    policy: str = pydantic.Field(
        "default", description="The policy when a command names none: a packaged name, or a file's path."
    )
    safety_folder: Path = pydantic.Field(
        Path("safety"), description="The folder with the safety files; `stanchion check` reads it."
    )
    state_dir: Path = pydantic.Field(
        Path(),
        description="Where records are kept. Default: `$XDG_STATE_HOME/stanchion`, "
        "or `~/.local/state/stanchion`.",
    )
    cache_dir: Path = pydantic.Field(
        Path(),
        description="What can be made again: answers, compiled patterns. "
        "Default: `$XDG_CACHE_HOME/stanchion`, or `~/.cache/stanchion`.",
    )
    store_url: Secret = pydantic.Field(
        Secret(""),
        description="The database of records: `sqlite:///path` or `postgresql://...`. Default: SQLite in "
        "`state_dir`. Masked in every output, because it may hold a password.",
    )
    redis_url: Secret | None = pydantic.Field(
        None,
        description="A Redis that the replicas of a gateway share: `redis://host:6379/0`. Switches reach "
        "other hosts through it at once. Masked in every output, because it may hold a password.",
    )
    fleet_dir: Path | None = pydantic.Field(
        None,
        description="The read-only folder that the replicas of a fleet share: public keys, the pepper of "
        "virtual keys, the secret of ids. `stanchion switch keys --export` makes it. Only its keys are "
        "trusted then.",
    )
    admin_key: Secret | None = pydantic.Field(
        None,
        description="The virtual key with a role by which the commands of the control plane know you. "
        "Masked in every output.",
    )
    packs_dir: Path = pydantic.Field(
        Path(), description="Where content packs are installed. Default: `packs` in `state_dir`."
    )
    packs_keys: Path | None = pydantic.Field(
        None,
        description="The public key, or the folder of public keys (`.pub`, `.pem`), whose packs are used. "
        "Without it no pack is.",
    )
    vault_addr: str = pydantic.Field(
        "",
        description="Address of a HashiCorp Vault for `${vault:MOUNT/PATH#FIELD}` in a gateway file; "
        "also read from `VAULT_ADDR`.",
    )
    vault_token: Secret | None = pydantic.Field(
        None, description="Token for it; also read from `VAULT_TOKEN`. Masked in every output."
    )
    vault_token_file: Path | None = pydantic.Field(
        None, description="A file with the token, read anew for each renewal, as Vault's agent writes it."
    )
    vault_namespace: str = pydantic.Field("", description="Namespace in it, where there are any.")
    otlp_endpoint: str = pydantic.Field(
        "",
        description="Where the gateway sends spans by OTLP/HTTP, such as `http://127.0.0.1:4318`; also read "
        "from `OTEL_EXPORTER_OTLP_ENDPOINT`. Empty: none are made.",
    )
    semconv_opt_in: str = pydantic.Field(
        "",
        description="Which edition of OpenTelemetry's conventions spans follow; also read from "
        "`OTEL_SEMCONV_STABILITY_OPT_IN`. `gen_ai_latest_experimental`: the newest names.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = pydantic.Field(
        "warning", description="The least severe line of the log that is written to stderr."
    )
    openai_api_key: Secret | None = pydantic.Field(
        None, description="Key for endpoints that speak OpenAI's format; also read from `OPENAI_API_KEY`."
    )
    openai_base_url: str = pydantic.Field(
        "https://api.openai.com/v1",
        description="Address of the endpoint in OpenAI's format; also read from `OPENAI_BASE_URL`.",
    )
    anthropic_api_key: Secret | None = pydantic.Field(
        None,
        description="Key for endpoints that speak Anthropic's format; also read from `ANTHROPIC_API_KEY`.",
    )
    anthropic_base_url: str = pydantic.Field(
        "https://api.anthropic.com",
        description="Address of the endpoint in Anthropic's format; also read from `ANTHROPIC_BASE_URL`.",
    )
    azure_content_safety_endpoint: str = pydantic.Field(
        "", description="Address of an Azure AI Content Safety resource; `moderation.azure` asks it."
    )
    azure_content_safety_key: Secret | None = pydantic.Field(
        None, description="Key for that resource. Masked in every output."
    )
    local_model: Path | None = pydantic.Field(
        None, description="A GGUF file for the local model; default: the packaged one, when it is installed."
    )

    _sources: Mapping[str, Source] = pydantic.PrivateAttr(default_factory=dict)

    def source(self, name: str) -> Source:
        """Where the value of a setting came from."""
        if name not in type(self).model_fields:
            raise UnknownNameError("setting", name, type(self).model_fields)
        return self._sources.get(name, _DEFAULT)

    def shown(self, name: str) -> str | None:
        """The value as it may be printed: secrets masked, `None` when there is none."""
        value = getattr(self, name)
        return None if value is None else MASK if isinstance(value, Secret) else str(value)


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The default folder for what can be made again (XDG base directories)."""
    return _xdg("XDG_CACHE_HOME", ".cache", environ)


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The default folder for records (XDG base directories)."""
    return _xdg("XDG_STATE_HOME", ".local/state", environ)


def load_settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Merge all sources into one frozen object.

    `file` is the settings file; without it `$STANCHION_CONFIG` names it, else the nearest `stanchion.yaml`
    in or above `folder` (default: the current folder) is read. `environ` stands in for the process's
    environment. `flags` are values of command-line flags by setting name; `None` means that a flag was not
    given.

    Raises:
        FilesError: with every problem of every source.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    path = _settings_file(file, env, folder or Path.cwd())
    if path is not None:
        loaded, found = attempt_file(path, Settings, env=env)
        problems.extend(found)
        if loaded is not None:
            _take_file(loaded, values, sources)
    _take_environment(env, values, sources, problems)
    for name, value in (flags or {}).items():
        if value is not None:
            _take_text(name, str(value), Source(SourceKind.FLAG, _flag(name)), (values, sources, problems))
    if problems:
        raise FilesError(problems)
    return _finished(values, sources, env)


def process_environment() -> Mapping[str, str]:
    """What `${env:NAME}` reads in files that may read the environment."""
    return os.environ


def pass_on(variables: Mapping[str, str]) -> None:
    """Set variables for the processes that are started or forked from here."""
    os.environ.update(variables)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _settings_file(file: Path | None, env: Mapping[str, str], folder: Path) -> Path | None:
    named = file or (Path(env[FILE_VARIABLE]) if env.get(FILE_VARIABLE) else None)
    if named is not None:
        return named
    for candidate in (folder, *folder.parents):
        if (candidate / SETTINGS_FILE).is_file():
            path = candidate / SETTINGS_FILE
            return path.relative_to(Path.cwd()) if candidate == Path.cwd() else path
    return None


def _take_file(loaded: Loaded[Settings], values: dict[str, Any], sources: dict[str, Source]) -> None:
    for name in loaded.value.model_fields_set:
        value = getattr(loaded.value, name)
        if isinstance(value, Path) and not value.is_absolute():
            value = loaded.path.parent / value
        line, _ = loaded.document.key_position((name,))
        values[name] = value
        sources[name] = Source(SourceKind.FILE, f"{loaded.path}:{line}")


def _take_environment(
    env: Mapping[str, str], values: dict[str, Any], sources: dict[str, Source], problems: list[Problem]
) -> None:
    known = {variable_of(name): name for name in Settings.model_fields}
    for variable in sorted(env):
        is_ours = variable.startswith(ENVIRONMENT_PREFIX)
        if is_ours and variable not in known and variable not in OTHER_VARIABLES:
            message = f"unknown variable {variable!r}."
            hint = did_you_mean(variable, known)
            problems.append(Problem(file="environment", rule="unknown-key", message=message, hint=hint))
    for name in Settings.model_fields:
        for variable in (variable_of(name), FOREIGN_VARIABLES.get(name, "")):
            if env.get(variable):
                source = Source(SourceKind.ENVIRONMENT, variable)
                _take_text(name, env[variable], source, (values, sources, problems))
                break


def _take_text(
    name: str, text: str, source: Source, into: tuple[dict[str, Any], dict[str, Source], list[Problem]]
) -> None:
    """Read a value that came as text; it is tried as text first, then as the number or boolean it spells."""
    values, sources, problems = into
    failed: FilesError | None = None
    for candidate in (text, plain_value(text)):
        escaped = candidate.replace("${", "$${") if isinstance(candidate, str) else candidate
        try:
            loaded = load_text(json.dumps({name: escaped}), Settings, file=source.detail)
        except FilesError as error:
            failed = failed or error
            continue
        values[name], sources[name] = getattr(loaded.value, name), source
        return
    for problem in failed.problems if failed is not None else ():
        message = problem.message.removeprefix(f"{name}: ")
        problems.append(Problem(file=source.detail, rule=problem.rule, message=message, hint=problem.hint))


def _finished(values: dict[str, Any], sources: dict[str, Source], env: Mapping[str, str]) -> Settings:
    values.setdefault("state_dir", state_dir(env))
    values.setdefault("cache_dir", cache_dir(env))
    values.setdefault("packs_dir", values["state_dir"] / "packs")
    values.setdefault("store_url", Secret(f"sqlite:///{values['state_dir'] / 'stanchion.db'}"))
    settings = Settings.model_construct(**values)
    settings._sources = MappingProxyType(dict(sources))
    return settings


def _xdg(variable: str, below_home: str, environ: Mapping[str, str] | None) -> Path:
    env = os.environ if environ is None else environ
    named = env.get(variable, "")
    if named.startswith("/"):  # the specification says to ignore a relative one
        return Path(named) / "stanchion"
    home = env.get("HOME")
    return (Path(home) if home else Path.home()) / below_home / "stanchion"
