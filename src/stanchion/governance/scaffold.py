"""Writes a working safety folder from a profile: `data/scaffold/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.resources import data_path, read_data_text
from stanchion.files.document import plain_value
from stanchion.files.schema import load_file
from stanchion.governance.folder import ORGANISATION
from stanchion.governance.organisation import OrganisationFile

_REVIEW_AFTER = timedelta(days=180)
_FEATURE_FILES = (
    "case",
    "components",
    "threats",
    "risks",
    "controls",
    "evals",
    "monitors",
    "policy",
)


class Planned(msgspec.Struct, frozen=True):
    """One file to be written, relative to the chosen folder."""

    path: str
    text: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Every file of a scaffold, in the order they are written."""

    folder: Path
    profile: str
    feature: str
    files: tuple[Planned, ...]

    def existing(self) -> tuple[Path, ...]:
        """The planned files that exist already.

        Raises:
            UsageError: when that cannot be found out.
        """
        paths = [self.folder / file.path for file in self.files]
        try:
            return tuple(path for path in paths if path.exists())
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    @property
    def suites(self) -> tuple[Path, ...]:
        """The suites among the files."""
        return tuple(self.folder / file.path for file in self.files if "/suites/" in file.path)

    @property
    def target(self) -> Path:
        """The file that the suites ask."""
        return self.folder / "safety/features" / self.feature / "target.py"

    def write(self) -> tuple[Path, ...]:
        """Write every file; never over another.

        Raises:
            UsageError: when one of them exists, or cannot be written; then no file of the plan stays behind.
        """
        existing = self.existing()
        if existing:
            listed = ", ".join(str(path) for path in existing[:3])
            more = f" and {len(existing) - 3} more" if len(existing) > 3 else ""
            raise UsageError(
                f"{listed}{more}: already there, and nothing is overwritten.",
                hint="Choose another --feature, or another folder.",
            )
        written: list[Path] = []
        try:
            for file in self.files:
                path = self.folder / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as stream:
                    written.append(path)
                    stream.write(file.text)
        except OSError as error:
            for path in written:
                path.unlink(missing_ok=True)
            raise _unwritable(self.folder, error) from error
        return tuple(written)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    reason = error.strerror or type(error).__name__
    return UsageError(
        f"cannot write a safety folder into {str(folder)!r}: {error.filename or folder}: {reason}.",
        hint="Name a folder that you may write to: stanchion init DIR",
    )


@lru_cache(maxsize=1)
def profiles() -> Mapping[str, Mapping[str, Any]]:
    """The profiles by name, in the file's order."""
    return _facts("profiles.yaml")


def plan_scaffold(folder: Path, *, profile: str, feature: str, today: date) -> Plan:
    """What a profile's safety folder would hold; nothing is written.

    With a safety folder there already, only the feature is planned, and its owners are roles of that folder's
    `org.yaml`.

    Raises:
        UsageError: for an unknown profile, a feature's name that is no identifier, or a folder that cannot
            be looked into.
    """
    facts = profiles().get(profile)
    if facts is None:
        raise UnknownNameError("profile", profile, profiles())
    _check_name(feature)
    chosen = [{"id": name, **_facts("risks.yaml")[name]} for name in facts["risks"]]
    values: dict[str, Any] = {"profile_name": profile, "profile": facts, "feature": feature, "risks": chosen}
    existing = folder / "safety" / ORGANISATION
    owner = next(iter(facts["roles"]))
    has_folder = _exists(existing)
    if has_folder:
        roles = load_file(existing, OrganisationFile).value.roles
        owner = owner if owner in roles else next(iter(roles))
        known = [role for role in facts["approvals"] if role in roles]
        values["profile"] = {**facts, "approvals": known}
    values["owner"] = owner
    values["review_by"] = (today + _REVIEW_AFTER).isoformat()
    values["has_tools"] = any("tools" in risk["threat"]["nodes"] for risk in chosen)
    files = [] if has_folder else list(_organisation_files(values))
    files.extend(_feature_files(values))
    return Plan(folder=folder, profile=profile, feature=feature, files=tuple(files))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _unwritable(path.parent.parent, error) from error


def _check_name(feature: str) -> None:
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
    if not feature or feature[0] == "-" or len(feature) > 60 or set(feature) - set(allowed):
        raise UsageError(
            f"feature {feature!r} is no name for a folder.",
            hint="Use up to 60 of: lower-case letters, digits and '-'.",
        )


def _facts(name: str) -> dict[str, Any]:
    import yaml

    facts: dict[str, Any] = yaml.safe_load(read_data_text("scaffold", name))
    return facts


def _organisation_files(values: dict[str, Any]) -> list[Planned]:
    people = values["profile"]["people"]
    role_people = {
        role: [name for name, person in people.items() if role in person["roles"]]
        for role in values["profile"]["roles"]
    }
    return [
        Planned("safety/org.yaml", _render("org.yaml.j2", {**values, "role_people": role_people})),
        Planned("safety/baseline.yaml", _render("baseline.yaml.j2", values)),
    ]


def _feature_files(values: dict[str, Any]) -> list[Planned]:
    folder = f"safety/features/{values['feature']}"
    prompt = _render("system.txt.j2", values)
    values = {**values, "prompt_digest": digest_bytes(prompt.encode())}
    files = [Planned(f"{folder}/{name}.yaml", _render(f"{name}.yaml.j2", values)) for name in _FEATURE_FILES]
    files.append(Planned(f"{folder}/prompts/system.txt", prompt))
    files.append(Planned(f"{folder}/target.py", _render("target.py.j2", values)))
    files.extend(
        Planned(f"{folder}/suites/{risk['id']}.yaml", _render(f"suites/{risk['id']}.yaml.j2", values))
        for risk in values["risks"]
    )
    runbooks = _facts("runbooks.yaml")
    for name in dict.fromkeys(risk["runbook"] for risk in values["risks"]):
        triggers = [risk["monitor"]["id"] for risk in values["risks"] if risk["runbook"] == name]
        runbook = {"id": name, "triggers": triggers, **runbooks[name]}
        text = _render("runbook.yaml.j2", {**values, "runbook": runbook})
        files.append(Planned(f"{folder}/runbooks/{name}.yaml", text))
    return files


def _render(name: str, values: Mapping[str, Any]) -> str:
    return str(_templates().get_template(name).render(values))


@lru_cache(maxsize=1)
def _templates() -> Any:
    """Templates with `[[ ]]` and `[% %]`, because suites have `{{ }}` of their own."""
    import jinja2

    def load(name: str) -> str | None:
        path = data_path("scaffold", *name.split("/"))
        return path.read_text(encoding="utf-8") if path.is_file() else None

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        autoescape=jinja2.select_autoescape(()),
        undefined=jinja2.StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _as_yaml
    return environment


def _as_yaml(value: Any) -> str:
    """A scalar as YAML: plain where that reads back as the same text, else quoted."""
    text = str(value)
    is_plain = isinstance(plain_value(text), str) and not set(text) & set("#:{}[],&*!|>'\"%@`\n\\?")
    return text if is_plain and text == text.strip() and text[:1] not in ("-", "") else json.dumps(text)
