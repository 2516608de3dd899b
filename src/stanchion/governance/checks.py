"""Checks a safety folder as a whole: every file, and every link between files, all problems at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import digest_stream
from stanchion.core.components import ComponentKind
from stanchion.core.errors import DatasetError, FilesError, Problem, StanchionError, UsageError, did_you_mean
from stanchion.core.taxonomy import matches, taxonomy
from stanchion.detectors.registry import Registry
from stanchion.files.document import attempt_document
from stanchion.files.references import project_root, resolve_inside
from stanchion.governance.folder import Feature, SafetyFolder, find_safety_folder, read_folder
from stanchion.governance.links import feature_problems, organisation_problems
from stanchion.guard.hold_back import Route, buffers, routes
from stanchion.guard.made_detectors import make_detectors
from stanchion.guard.policy import LoadedPolicy, read_policy


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read and what is wrong with it, in order of file and line."""

    folders: tuple[str, ...]
    features: tuple[str, ...]
    files: int
    problems: tuple[Problem, ...]
    routes: tuple[Route, ...] = ()

    @property
    def errors(self) -> int:
        """How many problems are not mere warnings."""
        return sum(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> int:
        """How many are."""
        return len(self.problems) - self.errors


class AnyVariable(Mapping[str, str]):
    """Stands in for the environment: a check must pass where the secrets are not set."""

    def __getitem__(self, name: str) -> str:
        """Every name is set."""
        return "set-when-it-runs"

    def __iter__(self) -> Iterator[str]:
        """No name can be listed."""
        return iter(())

    def __len__(self) -> int:
        """No name can be counted."""
        return 0


def check_paths(
    paths: Sequence[Path], *, clock: Clock, detectors: Collection[str], registry: Registry | None = None
) -> CheckReport:
    """Check the safety folders of some paths; a path inside one narrows the report to what lies below it.

    A policy or a suite that lies in no safety folder is checked by itself. With a `registry` the report tells
    what each policy holds back of a streamed answer.

    Raises:
        UsageError: for a path that is missing, or belongs to no safety folder and is no policy or suite.
    """
    folders: dict[Path, list[Path]] = {}
    checker = _Checker(clock, frozenset(detectors), registry)
    for path in paths:
        if path.is_file() and checker.check_loose(path):
            continue
        folders.setdefault(find_safety_folder(path), []).append(path)
    for folder, wanted in folders.items():
        checker.check_folder(folder, wanted)
    return checker.report()


class _Checker:
    def __init__(self, clock: Clock, detectors: frozenset[str], registry: Registry | None) -> None:
        self._clock = clock
        self._registry = registry
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._detectors = detectors
        self._problems: list[Problem] = []
        self._files: set[Path] = set()
        self._folders: list[str] = []
        self._features: list[str] = []

    def report(self) -> CheckReport:
        unique = sorted(set(self._problems), key=lambda p: (p.file, p.line, p.column, p.rule, p.message))
        return CheckReport(
            folders=tuple(self._folders),
            features=tuple(self._features),
            files=len(self._files),
            problems=tuple(unique),
            routes=tuple(route for file in sorted(self._routes) for route in self._routes[file]),
        )

    def check_loose(self, path: Path) -> bool:
        """Check a policy or suite that is in no safety folder; False when the path is in one."""
        try:
            find_safety_folder(path)
        except UsageError:
            pass
        else:
            return False
        document, problems = attempt_document(path)
        keys = set(document.value) if document is not None and isinstance(document.value, dict) else set()
        if document is None:
            self._problems.extend(problems)
        elif keys & {"suite", "cases", "datasets"}:
            self._suite(path, {})
        elif keys & {"rules", "detectors", "extends"}:
            self._policy(path)
        else:
            raise UsageError(
                f"{str(path)!r} is in no safety folder, and is no policy and no suite.",
                hint="Make a safety folder: stanchion init",
            )
        self._files.add(path)
        return True

    def check_folder(self, path: Path, wanted: Sequence[Path]) -> None:
        """Check one safety folder; problems outside the wanted paths are not reported."""
        found = _Checker(self._clock, self._detectors, self._registry)
        folder = read_folder(path, env=AnyVariable())
        found._files.update(folder.files)
        found._problems.extend(folder.problems)
        if folder.organisation is not None:
            found._problems.extend(organisation_problems(folder.organisation))
        if folder.baseline_path.is_file():
            found._policy(folder.baseline_path)
        for feature in folder.features:
            found._feature(folder, feature)
        roots = [p.resolve() for p in wanted]
        is_all = any(path.resolve().is_relative_to(root) for root in roots)
        self._problems.extend(
            problem
            for problem in found._problems
            if is_all or any(Path(problem.file).resolve().is_relative_to(root) for root in roots)
        )
        self._routes.update(
            (file, of_policy)
            for file, of_policy in found._routes.items()
            if is_all or any(Path(file).resolve().is_relative_to(root) for root in roots)
        )
        self._files |= found._files
        self._folders.append(str(path))
        self._features.extend(feature.name for feature in folder.features)

    def _feature(self, folder: SafetyFolder, feature: Feature) -> None:
        today = self._clock.now().date()
        self._problems.extend(feature_problems(feature, folder.organisation, today=today))
        self._problems.extend(_pin_problems(feature))
        policies: dict[Path, LoadedPolicy | None] = {}
        if feature.policy_path.is_file():
            policies[feature.policy_path.resolve()] = self._policy(feature.policy_path)
            self._problems.extend(_baseline_problems(folder, feature, policies))
        self._problems.extend(self._enforcement_problems(feature, policies))
        self._suites(feature)

    def _policy(self, path: Path) -> LoadedPolicy | None:
        self._files.add(path)
        try:
            loaded = read_policy(path, env=AnyVariable(), detectors=self._detectors, clock=self._clock)
        except FilesError as error:
            self._problems.extend(error.problems)
            return None
        except StanchionError as error:
            self._problems.append(_whole(path, "policy", error))
            return None
        self._problems.extend(loaded.warnings)
        if self._registry is not None:
            self._stream(path, loaded, self._registry)
        return loaded

    def _stream(self, path: Path, loaded: LoadedPolicy, registry: Registry) -> None:
        """What the policy holds back of a streamed answer, and which options its detectors refuse."""
        try:
            detectors = make_detectors(loaded.policy, registry, folder=path.parent)
        except FilesError as error:
            self._problems.extend(error.problems)
            return
        except StanchionError:  # a part that is not installed here says nothing about the file
            return
        found = self._routes[str(path)] = routes(loaded.policy, detectors)
        self._problems.extend(
            Problem(
                file=str(path),
                rule="buffered-answer",
                message=buffers(route),
                hint="Leave 'stream' out if its verdict may come after the words.",
                severity="warning",
            )
            for route in found
            if buffers(route)
        )

    def _enforcement_problems(
        self, feature: Feature, policies: dict[Path, LoadedPolicy | None]
    ) -> Iterator[Problem]:
        """Controls whose policy, rule or pinned digest does not hold."""
        loaded = feature.controls
        for i, control in enumerate(loaded.value.controls if loaded is not None else ()):
            enforced = control.enforced_by
            if loaded is None or not enforced.policy:
                continue
            at = ("controls", i, "enforced_by")
            path = _linked(feature, enforced.policy)
            if path is None:
                yield loaded.document.problem(
                    (*at, "policy"),
                    rule="missing-policy",
                    message=f"there is no policy {enforced.policy!r}.",
                    hint="Paths start at the feature's folder.",
                )
                continue
            if path not in policies:
                policies[path] = self._policy(path)
            policy = policies[path]
            if policy is None:
                continue
            rules = {rule.id for rule in policy.policy.rules}
            if enforced.rule and enforced.rule not in rules:
                yield loaded.document.problem(
                    (*at, "rule"),
                    rule="unknown-rule",
                    message=f"policy {enforced.policy!r} has no rule {enforced.rule!r}.",
                    hint=did_you_mean(enforced.rule, rules),
                )
            if enforced.digest and enforced.digest != policy.policy.digest:
                yield _suspect(loaded, (*at, "digest"), f"policy {enforced.policy!r}")

    def _suites(self, feature: Feature) -> None:
        digests: dict[Path, str] = {}
        linked: set[Path] = set()
        evals = feature.evals
        for i, item in enumerate(evals.value.evals if evals is not None else ()):
            if evals is None:
                break
            path = _linked(feature, item.suite)
            if path is None:
                problem = evals.document.problem(
                    ("evals", i, "suite"),
                    rule="missing-suite",
                    message=f"there is no suite {item.suite!r}.",
                    hint=_near_suites(feature, item.suite),
                )
                self._problems.append(problem)
                continue
            linked.add(path)
            has_criteria = self._suite(feature.folder / item.suite, digests)
            if not item.criteria and has_criteria is False:
                message = f"neither eval {item.id!r} nor its suite has criteria, so nothing could be judged."
                self._problems.append(
                    evals.document.problem(
                        ("evals", i, "id"), rule="no-criteria", message=message, hint="Add 'criteria'."
                    )
                )
            if item.suite_digest and digests.get(path, item.suite_digest) != item.suite_digest:
                self._problems.append(_suspect(evals, ("evals", i, "suite_digest"), f"suite {item.suite!r}"))
        for path in sorted((feature.folder / "suites").glob("*.y*ml")):
            if path.resolve() not in linked:
                self._orphan(path, digests)

    def _orphan(self, path: Path, digests: dict[Path, str]) -> None:
        """A suite that no eval uses is still checked; a file of cases is checked where it is included."""
        document, _ = attempt_document(path)
        if document is None or not isinstance(document.value, dict) or "suite" in document.value:
            self._suite(path, digests)
            problem = Problem(
                file=str(path),
                line=1,
                column=1,
                rule="unused-suite",
                message="no eval uses this suite.",
                hint="Name it in evals.yaml, or remove it.",
                severity="warning",
            )
            self._problems.append(problem)

    def _suite(self, path: Path, digests: dict[Path, str]) -> bool | None:
        """Whether a suite has criteria; `None` when it has problems."""
        from stanchion.evals.suite import load_suite

        self._files.add(path)
        try:
            suite = load_suite(path, env=AnyVariable())
        except FilesError as error:
            self._problems.extend(error.problems)
            return None
        except DatasetError as error:
            self._problems.append(
                Problem(
                    file=error.file, line=error.line, rule="dataset", message=error.reason, hint=error.hint
                )
            )
            return None
        except StanchionError as error:
            self._problems.append(_whole(path, "suite", error))
            return None
        digests[path.resolve()] = suite.digest
        self._problems.extend(_suite_name_problems(path, self._detectors))
        return bool(suite.file.criteria)


def _baseline_problems(
    folder: SafetyFolder, feature: Feature, policies: dict[Path, LoadedPolicy | None]
) -> Iterator[Problem]:
    loaded = policies[feature.policy_path.resolve()]
    if loaded is None or not folder.baseline_path.is_file():
        return
    baseline = folder.baseline_path.resolve()
    if not any(Path(source.file).resolve() == baseline for source in loaded.policy.sources):
        yield Problem(
            file=str(feature.policy_path),
            line=1,
            column=1,
            rule="not-baseline",
            message="the policy does not extend the organisation's baseline.",
            hint=f"Write: extends: [../../{folder.baseline_path.name}]",
        )


def _suite_name_problems(path: Path, detectors: Collection[str]) -> Iterator[Problem]:
    """Detectors and categories that a suite names and nobody knows."""
    document, _ = attempt_document(path)
    content = document.value if document is not None else None
    if document is None or not isinstance(content, dict):
        return
    places: list[tuple[tuple[str | int, ...], str, Collection[str]]] = []
    for i, scorer in enumerate(content.get("scorers") or ()):
        places.extend(_named(("scorers", i, "detector"), scorer, detectors))
        places.extend(_named(("scorers", i, "categories"), scorer, taxonomy()))
    for i, criterion in enumerate(content.get("criteria") or ()):
        places.extend(_named(("criteria", i, "slice", "category"), criterion.get("slice"), taxonomy()))
    places.extend(_named(("defaults", "category"), content.get("defaults"), taxonomy()))
    for i, case in enumerate(content.get("cases") or ()):
        places.extend(_named(("cases", i, "category"), case, taxonomy()))
    for at, name, known in places:
        noun = "detector" if "detector" in at else "category"
        is_known = name in known or (noun == "category" and any(matches(name, each) for each in known))
        if not is_known:
            yield document.problem(
                at,
                rule=f"unknown-{noun}",
                message=f"unknown {noun} {name!r}.",
                hint=did_you_mean(name, known),
            )


def _named(
    at: tuple[str | int, ...], holder: Any, known: Collection[str]
) -> Iterator[tuple[tuple[str | int, ...], str, Collection[str]]]:
    """The names that one key holds, each with its place; an empty one names nothing."""
    value = holder.get(at[-1]) if isinstance(holder, dict) else None
    if isinstance(value, str) and value:
        yield at, value, known
    elif isinstance(value, list):
        yield from (((*at, i), name, known) for i, name in enumerate(value) if isinstance(name, str))


def _pin_problems(feature: Feature) -> Iterator[Problem]:
    """Components that are files of the feature, and are not what their digest says."""
    loaded = feature.components
    for i, component in enumerate(loaded.value.components if loaded is not None else ()):
        path = _linked(feature, component.locator) if component.digest else None
        if loaded is not None and path is not None and component.kind is not ComponentKind.POLICY:
            with path.open("rb") as stream:
                if digest_stream(stream) != component.digest:
                    yield _suspect(loaded, ("components", i, "digest"), f"component {component.id!r}")


def _linked(feature: Feature, reference: str) -> Path | None:
    """The real path of a link that starts at the feature's folder; `None` when there is no such file."""
    try:
        path = resolve_inside(
            reference, folder=feature.folder, root=project_root(feature.folder / "case.yaml")
        )
    except UsageError:
        return None
    return path if path.is_file() else None


def _near_suites(feature: Feature, reference: str) -> str:
    known = [f"suites/{path.name}" for path in (feature.folder / "suites").glob("*.y*ml")]
    return did_you_mean(reference, known) if known else "Suites are files of the feature's folder suites/."


def _suspect(loaded: Any, at: tuple[str | int, ...], what: str) -> Problem:
    problem: Problem = loaded.document.problem(
        at,
        rule="suspect",
        message=f"{what} is not what it was when this digest was written.",
        hint="Review it, then write the new digest.",
    )
    return msgspec.structs.replace(problem, severity="warning")


def _whole(path: Path, rule: str, error: StanchionError) -> Problem:
    return Problem(file=str(path), line=1, column=1, rule=rule, message=error.message, hint=error.hint)
