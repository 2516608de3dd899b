"""Reading policies: a file, what it extends, and everything that can be wrong with them, at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import FilesError, Problem, UsageError, did_you_mean
from stanchion.core.resources import data_path, read_data_text
from stanchion.detectors.registry import Registry
from stanchion.files.document import Step, YamlDocument, attempt_document
from stanchion.files.references import Secret, Trail, project_root, resolve_inside
from stanchion.files.schema import Loaded, attempt_file, load_text
from stanchion.guard.calibrations import problems_with, resolve
from stanchion.guard.fallback import languages, template_fault
from stanchion.guard.inheritance import merge
from stanchion.guard.policy_file import PolicyFile
from stanchion.guard.policy_model import Loosening, Policy, Source, Waiver
from stanchion.guard.tightening import loosenings

__all__ = [
    "LoadedPolicy",
    "Policy",
    "load_policy",
    "packaged_policies",
    "packaged_policy",
    "read_policy",
    "read_uncalibrated",
]

_Layer = Loaded[PolicyFile]


class LoadedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """An effective policy, the redaction key its files name, and what is odd but not wrong."""

    policy: Policy
    key: Secret | None = None
    warnings: tuple[Problem, ...] = ()


def load_policy(
    path: Path | str,
    *,
    env: Mapping[str, str] | None = None,
    detectors: Collection[str] | None = None,
    clock: Clock | None = None,
) -> Policy:
    """The effective policy of a file; see `read_policy`."""
    return read_policy(path, env=env, detectors=detectors, clock=clock).policy


def read_policy(
    path: Path | str,
    *,
    env: Mapping[str, str] | None = None,
    detectors: Collection[str] | None = None,
    clock: Clock | None = None,
    registry: Any = None,
) -> LoadedPolicy:
    """Read a policy file with everything it extends.

    `detectors` are the ids that exist (None: not checked); `clock` says which waivers have expired;
    `registry` makes the detectors whose calibrations are to be checked (default: the installed ones).

    Raises:
        FilesError: with every problem of every file: what cannot be read, what is unknown, and every setting
            that is looser than in an extended policy without a waiver.
    """
    today = (clock or SystemClock()).now().date().isoformat()
    reader = _Reader(env=env, known=detectors, today=today, registry=registry)
    return reader.finish(reader.file(Path(path), Trail()))


def read_uncalibrated(
    path: Path | str, *, env: Mapping[str, str] | None = None, detectors: Collection[str] | None = None
) -> LoadedPolicy:
    """The policy as if it named no calibrations: for making them, never for a guard.

    Raises:
        FilesError: as `read_policy` does.
    """
    today = SystemClock().now().date().isoformat()
    reader = _Reader(env=env, known=detectors, today=today, is_calibrated=False)
    return reader.finish(reader.file(Path(path), Trail()))


def packaged_policies() -> tuple[str, ...]:
    """The names of the policies that come with the package."""
    return tuple(
        sorted(
            entry.name.removesuffix(".yaml")
            for entry in data_path("policies").iterdir()
            if entry.name.endswith(".yaml")
        )
    )


def packaged_policy(
    name: str, *, detectors: Collection[str] | None = None, clock: Clock | None = None
) -> Policy:
    """One of the policies that come with the package.

    Raises:
        UsageError: when there is none of this name.
    """
    if name not in packaged_policies():
        raise UsageError(f"unknown packaged policy {name!r}.", hint=did_you_mean(name, packaged_policies()))
    reader = _Reader(env=None, known=detectors, today=(clock or SystemClock()).now().date().isoformat())
    return reader.finish(reader.packaged(name, Trail())).policy


class _Read(msgspec.Struct, frozen=True):
    """A policy read so far, and the key of the file nearest to the top that names one."""

    policy: Policy
    key: Secret | None = None


class _Reader:
    def __init__(
        self,
        *,
        env: Mapping[str, str] | None,
        known: Collection[str] | None,
        today: str,
        registry: Any = None,
        is_calibrated: bool = True,
    ) -> None:
        self._env = env
        self._is_calibrated = is_calibrated
        self._registry = registry
        self._known = known
        self._today = today
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def finish(self, read: _Read | None) -> LoadedPolicy:
        if self._problems or read is None:
            raise FilesError(sorted(set(self._problems), key=lambda p: (p.file, p.line, p.column)))
        return LoadedPolicy(policy=read.policy, key=read.key, warnings=tuple(self._warnings))

    def file(self, path: Path, trail: Trail) -> _Read | None:
        loaded, problems = attempt_file(path, PolicyFile, env=self._env)
        self._problems.extend(problems)
        if loaded is None:
            self._problems.extend(_unknown_in_broken_file(path, self._known))
            return None
        return self._layer(loaded, path.stem, trail.enter(path))

    def packaged(self, name: str, trail: Trail) -> _Read | None:
        file = f"{name}.yaml"
        loaded = load_text(read_data_text("policies", file), PolicyFile, file=f"stanchion:policies/{file}")
        return self._layer(loaded, name, trail)

    def _layer(self, loaded: _Layer, name: str, trail: Trail) -> _Read:
        parents: list[tuple[int, Policy]] = []
        base, key = Policy(), None
        for index, reference in enumerate(loaded.value.extends):
            parent = self._parent(loaded, index, reference, trail)
            if parent is not None:
                parents.append((index, parent.policy))
                base = parent.policy if index == 0 else _joined(base, parent.policy)
                key = parent.key or key
        calibrated, problems = resolve(loaded) if self._is_calibrated else ({}, [])
        self._problems.extend(problems)
        merged = merge(base, loaded.value, calibrated={name: one.said for name, one in calibrated.items()})
        merged = msgspec.structs.replace(
            merged,
            name=loaded.value.name or name,
            sources=(
                *base.sources,
                Source(file=loaded.document.file, digest=loaded.digest),
                *(source for one in calibrated.values() for source in one.sources),
            ),
        )
        if calibrated:
            self._registry = self._registry or Registry()
            in_use = {name: one for name, one in calibrated.items() if merged.detectors[name].enabled}
            self._problems.extend(
                problems_with(loaded, in_use, merged.detectors, self._registry, env=self._env)
            )
        self._problems.extend(_problems(loaded, merged, self._known))
        merged = self._check_looser(loaded, merged, parents)
        own = loaded.value.redaction.key if loaded.value.redaction is not None else None
        return _Read(merged, own or key)

    def _parent(self, loaded: _Layer, index: int, reference: str, trail: Trail) -> _Read | None:
        at: tuple[Step, ...] = ("extends", index)
        if not reference.endswith((".yaml", ".yml")):
            if reference in packaged_policies():
                return self.packaged(reference, trail)
            names = packaged_policies()
            hint = f"{did_you_mean(reference, names)} A file's name ends in .yaml."
            message = f"unknown packaged policy {reference!r}."
            self._problems.append(
                loaded.document.problem(at, rule="unknown-policy", message=message, hint=hint)
            )
            return None
        try:
            path = resolve_inside(reference, folder=loaded.path.parent, root=project_root(loaded.path))
            trail.enter(path)
        except UsageError as error:
            self._problems.append(
                loaded.document.problem(at, rule="extends", message=error.message, hint=error.hint)
            )
            return None
        return self.file(path, trail)

    def _check_looser(self, loaded: _Layer, merged: Policy, parents: Sequence[tuple[int, Policy]]) -> Policy:
        found: list[Loosening] = []
        used: set[str] = set()
        for index, parent in parents:
            for looser in loosenings(parent, merged):
                waiver = _waiver_for(looser, merged.waivers, self._today)
                if waiver is None:
                    self._problems.append(_looser_problem(loaded, index, looser, merged.waivers))
                else:
                    used.add(waiver.id)
                    found.append(msgspec.structs.replace(looser, waiver=waiver.id))
        for number, entry in enumerate(loaded.value.waivers):
            if entry.id not in used:
                problem = loaded.document.problem(
                    ("waivers", number),
                    rule="unused-waiver",
                    message=f"waiver {entry.id!r} covers nothing that is looser.",
                    hint="Remove it.",
                )
                self._warnings.append(msgspec.structs.replace(problem, severity="warning"))
        return msgspec.structs.replace(merged, loosenings=(*merged.loosenings, *dict.fromkeys(found)))


def _joined(first: Policy, second: Policy) -> Policy:
    """Two extended policies as one ground to build on; what the second says holds where both speak."""
    rules = {rule.id: rule for rule in (*first.rules, *second.rules)}
    return msgspec.structs.replace(
        second,
        detectors={**first.detectors, **second.detectors},
        rules=tuple(rules.values()),
        waivers=(*first.waivers, *second.waivers),
        loosenings=(*first.loosenings, *second.loosenings),
        sources=(*first.sources, *second.sources),
        tools=msgspec.structs.replace(second.tools, named={**first.tools.named, **second.tools.named}),
    )


def _waiver_for(looser: Loosening, waivers: Sequence[Waiver], today: str) -> Waiver | None:
    for waiver in waivers:
        covers = any(looser.name == path or looser.name.startswith(f"{path}.") for path in waiver.covers)
        if covers and waiver.expires >= today:
            return waiver
    return None


def _looser_problem(loaded: _Layer, parent: int, looser: Loosening, waivers: Sequence[Waiver]) -> Problem:
    expired = [
        w for w in waivers if any(looser.name == c or looser.name.startswith(f"{c}.") for c in w.covers)
    ]
    extends = loaded.value.extends[parent]
    hint = f"Tighten it, or name a waiver that covers {looser.name!r}."
    if expired:
        hint = f"Waiver {expired[0].id!r} expired on {expired[0].expires}."
    return loaded.document.problem(
        _place(loaded, looser.path) or ("extends", parent),
        rule="looser-than-extended",
        message=f"{looser.name} is looser than in {extends!r}: {looser.before} became {looser.after}.",
        hint=hint,
    )


def _place(loaded: _Layer, path: Sequence[str]) -> tuple[Step, ...]:
    """Where a setting stands in this file; empty when the file does not speak of it."""
    steps: list[Step] = list(path)
    if path[0] == "rules":
        numbers = [i for i, rule in enumerate(loaded.value.rules) if rule.id == path[1]]
        if not numbers:
            return ()
        steps = ["rules", numbers[-1], *path[2:]]
    node = loaded.document.value
    if isinstance(node, dict) and steps[0] in node:
        return tuple(steps)
    return ()


def _problems(loaded: _Layer, merged: Policy, known: Collection[str] | None) -> Iterator[Problem]:
    """What the model of the file cannot see: names that must exist, and pairs that must fit."""
    document, file = loaded.document, loaded.value
    yield from _detector_problems(loaded, merged, known)
    yield from _wording_problems(loaded, merged)
    seen: dict[str, int] = {}
    for index, rule in enumerate(file.rules):
        if rule.id in seen:
            yield document.problem(
                ("rules", index, "id"),
                rule="duplicate-rule",
                message=f"rule id {rule.id!r} is used twice.",
                hint=f"Rule number {seen[rule.id] + 1} has it already: give one of them another id.",
            )
        seen.setdefault(rule.id, index)
        for key, selector in (("when", rule.when), ("unless", rule.unless)):
            for number, name in enumerate(selector.detector if selector is not None else ()):
                if name not in merged.detectors and not name.startswith("guard."):
                    yield document.problem(
                        ("rules", index, key, "detector", number),
                        rule="unknown-detector",
                        message=f"detector {name!r} is not part of this policy.",
                        hint=did_you_mean(name, merged.detectors),
                    )


def _wording_problems(loaded: _Layer, merged: Policy) -> Iterator[Problem]:
    """Words for users: a language that exists, and templates that can be filled."""
    document, completions = loaded.document, loaded.value.safe_completions
    templates: list[tuple[tuple[Step, ...], str]] = [
        (("rules", index, "message"), rule.message) for index, rule in enumerate(loaded.value.rules)
    ]
    if completions is not None:
        templates += [
            (("safe_completions", "messages", key), words) for key, words in completions.messages.items()
        ]
        if completions.language not in languages():
            yield document.problem(
                ("safe_completions", "language"),
                rule="unknown-language",
                message=f"there are no safe completions in {completions.language!r}.",
                hint=did_you_mean(completions.language, languages()),
            )
    for at, template in templates:
        fault = template_fault(template, merged.safe_completions)
        if fault:
            yield document.problem(at, rule="template", message=fault[0], hint=fault[1])


def _detector_problems(loaded: _Layer, merged: Policy, known: Collection[str] | None) -> Iterator[Problem]:
    document = loaded.document
    for name in loaded.value.detectors:
        if known is not None and name not in known:
            yield _unknown_detector(document, name, known)
        if "base" in loaded.value.detectors[name].options:  # or 'files' could be taken from anywhere
            yield document.problem(
                ("detectors", name, "options", "base"),
                rule="option",
                message="option 'base' is not for policies: it is always this file's folder.",
                hint="Remove it.",
            )
        settings = merged.detectors[name]
        if settings.fail.value == "degrade" and (
            settings.stand_in == name or settings.stand_in not in merged.enabled_detectors
        ):
            yield document.problem(
                ("detectors", name, "stand_in" if settings.stand_in else "fail"),
                rule="stand-in",
                message=f"detector {name!r} fails with 'degrade', but {settings.stand_in!r} is not another "
                "enabled detector of this policy that could stand in.",
                hint="Name one in 'stand_in', or fail closed.",
            )
    if not merged.enabled_detectors:
        yield document.problem(
            ("detectors",) if loaded.value.detectors else (),
            rule="no-detectors",
            message="no detector is enabled, so nothing would be checked.",
            hint="Enable one under 'detectors', or extend a packaged policy: 'extends: [default]'.",
        )


def _unknown_in_broken_file(path: Path, known: Collection[str] | None) -> Iterator[Problem]:
    """The unknown detectors of a file that has other problems, so that all are told at once."""
    document, _ = attempt_document(path)
    value = document.value if document is not None else None
    detectors = value.get("detectors") if isinstance(value, dict) else None
    if document is None or known is None or not isinstance(detectors, dict):
        return
    for name in detectors:
        if isinstance(name, str) and name not in known:
            yield _unknown_detector(document, name, known)


def _unknown_detector(document: YamlDocument, name: str, known: Collection[str]) -> Problem:
    line, column = document.key_position(("detectors", name))
    return Problem(
        file=document.file,
        line=line,
        column=column,
        rule="unknown-detector",
        message=f"unknown detector {name!r}.",
        hint=did_you_mean(name, known),
    )
