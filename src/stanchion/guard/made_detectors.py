"""The detectors of a policy, made with its options; what they refuse is told where it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stanchion.core.errors import FilesError, MissingExtraError, Problem, UsageError
from stanchion.detectors.options import OptionError
from stanchion.detectors.registry import with_base
from stanchion.files.document import Step, YamlDocument, attempt_document
from stanchion.guard.policy_model import Policy


def make_detectors(policy: Policy, registry: Any, *, folder: Path | None) -> dict[str, Any]:
    """A detector for every id that the policy enables; paths in options start at `folder`.

    Raises:
        FilesError: with every option that is refused, at its place in the policy's files.
        UsageError: when an option is refused that stands in no file, or a part is not installed.
    """
    made: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, settings in policy.enabled_detectors.items():
        try:
            made[name] = registry.create(name, **with_base(settings.creation_options, folder))
        except FilesError as error:
            problems.extend(error.problems)
        except MissingExtraError:
            raise
        except UsageError as error:
            problem = _placed(policy, name, error)
            if problem is None:
                raise
            problems.append(problem)
    if problems:
        raise FilesError(problems)
    return made


def _placed(policy: Policy, name: str, error: UsageError) -> Problem | None:
    """The error at the option it speaks of, in the file that is nearest to the policy."""
    for source in reversed(policy.sources):
        document, _ = attempt_document(Path(source.file)) if Path(source.file).is_file() else (None, [])
        options = _options(document, name)
        if document is not None and options:
            at: list[Step] = ["detectors", name, "options"]
            at += list(_spoken_of(options, error)[:1])
            return document.problem(at, rule="option", message=error.message, hint=error.hint)
    return None


def _options(document: YamlDocument | None, name: str) -> Any:
    value: Any = document.value if document is not None else None
    for step in ("detectors", name, "options"):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else None


def _spoken_of(options: dict[str, Any], error: UsageError) -> Sequence[str]:
    if isinstance(error, OptionError):
        return [error.option] if error.option in options else []
    words = f"{error.message} {error.hint or ''}"
    named = [name for name in options if name in words]
    return named or [
        name for name, value in options.items() if isinstance(value, str) and repr(value) in words
    ]
