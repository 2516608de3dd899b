"""References in files people write, and the type that keeps secrets.

`${env:NAME}` and `${file:relative/path}` are resolved inside text values, never in keys and never inside
the text they brought in. `$${env:NAME}` stands for the characters `${env:NAME}` themselves. `${file:...}`
alone in a value brings in the value of a `.yaml`, `.yml` or `.json` file, and the text of any other file;
paths start at the file they stand in and cannot leave the root folder.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from stanchion.core.codec import Digest, digest_bytes
from stanchion.core.errors import FilesError, Problem, UsageError, did_you_mean, near_matches
from stanchion.files.document import Step, YamlDocument, attempt_document, read_limited

MASK: Final = "**********"
MAX_REFERENCED_BYTES = 4 * 1024 * 1024
MAX_REFERENCED_FILES = 500
MAX_REFERENCED_TOTAL_BYTES = 64 * 1024 * 1024
_REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z]+):([^{}]*)\}")
_KINDS = ("env", "file")
_ROOT_MARKS = ("stanchion.yaml", ".git", "safety/org.yaml")


class Secret:
    """A value that must not be seen: masked wherever it could be written; `reveal()` is the only way out.

    A pickled secret comes back without its value, because pickles are written to disk and to queues.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value: str | None = value

    def reveal(self) -> str:
        """The value itself.

        Raises:
            UsageError: for a secret that went through a pickle.
        """
        if self.__value is None:
            raise UsageError("this secret was pickled, so its value is gone.", hint="Read it again.")
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return format(MASK, format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = self.__value, other.__value
        if mine is None or theirs is None:
            return self is other  # a secret without its value is equal to no other
        return hmac.compare_digest(
            mine.encode("utf-8", "surrogatepass"), theirs.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash((Secret, self.__value))

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_emptied, ())

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Accept text or a Secret; dump a mask. Errors never carry the value."""
        return core_schema.no_info_plain_validator_function(
            cls._accept, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def _accept(cls, value: Any) -> Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(value)
        raise PydanticCustomError("secret_type", "expected a secret as text, such as ${{env:NAME}}")


def _emptied() -> Secret:
    secret = Secret("")
    secret._Secret__value = None  # type: ignore[attr-defined]  # the name-mangled slot of this very class
    return secret


@dataclass(frozen=True, slots=True)
class Trail:
    """The files that were opened one through another; refuses to enter one twice.

    Used for `${file:...}` and for `extends:` alike.
    """

    paths: tuple[Path, ...] = ()

    def enter(self, path: Path) -> Trail:
        """The trail with `path` at its end.

        Raises:
            CycleError: when `path` is already on the trail; its message prints the whole cycle.
        """
        real = path.resolve()
        if real in self.paths:
            raise CycleError([*self.paths[self.paths.index(real) :], real])
        return Trail((*self.paths, real))


class CycleError(UsageError):
    """Files that include or extend each other in a circle."""

    def __init__(self, paths: list[Path]) -> None:
        names = [path.name for path in paths]
        if len(set(names)) != len(set(paths)):
            names = [str(path) for path in paths]
        self.cycle = " -> ".join(names)
        super().__init__(f"a cycle of references: {self.cycle}.", hint="Remove one of them.")


def project_root(path: Path) -> Path:
    """The folder that references of this file may not leave.

    The nearest folder above with `stanchion.yaml`, `.git` or a safety folder in it; else the file's own.
    """
    folder = path.resolve().parent
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _ROOT_MARKS):
            return candidate
        if (candidate / "org.yaml").is_file() and (candidate / "features").is_dir():
            return candidate.parent  # a safety folder by another name
    return folder


def resolve_inside(reference: str, *, folder: Path, root: Path) -> Path:
    """The real path of a relative reference that stands in a file of `folder`.

    Raises:
        UsageError: when it is absolute, or leaves `root` (symbolic links are followed first).
    """
    if not reference.strip():
        raise UsageError("the path is empty.")
    if Path(reference).is_absolute():
        raise UsageError(f"path {reference!r} is absolute.", hint="Write it relative to this file.")
    real = (folder / reference).resolve()
    if not real.is_relative_to(root.resolve()):
        raise UsageError(
            f"path {reference!r} leaves the root folder.",
            hint=f"References stay below {root.name or root}/.",
        )
    return real


@dataclass(slots=True)
class Resolution:
    """A document's value with its references replaced, and what is needed to speak of it."""

    value: Any
    problems: list[Problem] = field(default_factory=list)
    included: dict[str, Digest] = field(default_factory=dict)  # path below the root -> digest of its bytes
    brought_in: set[tuple[Step, ...]] = field(default_factory=set)  # values a message must not show
    failed: set[tuple[Step, ...]] = field(default_factory=set)  # values that could not be brought in
    opened: int = 0
    opened_bytes: int = 0


def resolve_references(
    document: YamlDocument, *, path: Path, root: Path, env: Mapping[str, str] | None
) -> Resolution:
    """Replace every reference of a document.

    `env` is the mapping that `${env:NAME}` reads; `None` means that the file may not read the environment.
    """
    resolution = Resolution(value=None)
    resolver = _Resolver(document, path, root, env, resolution, Trail().enter(path))
    resolution.value = resolver.walk(document.value, ())
    return resolution


@dataclass(slots=True)
class _Resolver:
    document: YamlDocument
    path: Path
    root: Path
    env: Mapping[str, str] | None
    result: Resolution
    trail: Trail
    prefix: tuple[Step, ...] = ()

    def walk(self, value: Any, at: tuple[Step, ...]) -> Any:
        if isinstance(value, dict):
            return {key: self.walk(item, (*at, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.walk(item, (*at, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(value, at)
        return value

    def _text(self, text: str, at: tuple[Step, ...]) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole is not None and whole[1] == "" and whole[2] == "file":
            return self._file(whole[3], at, is_whole=True)
        return _REFERENCE.sub(lambda match: self._part(match, at), text)

    def _part(self, match: re.Match[str], at: tuple[Step, ...]) -> str:
        escaped, kind, name = match.groups()
        whole: str = match[0]
        if escaped:
            return whole[1:] if kind in _KINDS else whole
        if kind == "env":
            return self._environment(name, at)
        if kind == "file":
            return str(self._file(name, at, is_whole=False))
        if near_matches(kind.lower(), _KINDS):
            self._report(
                at,
                "reference-kind",
                f"unknown kind of reference {kind!r}.",
                f"{did_you_mean(kind.lower(), _KINDS)} For the characters themselves write '$' twice.",
            )
        return whole

    def _environment(self, name: str, at: tuple[Step, ...]) -> str:
        self.result.brought_in.add((*self.prefix, *at))
        if self.env is None:
            self._report(
                at, "reference-env", "this file may not read the environment.", "Write the value here."
            )
            return ""
        found = self.env.get(name)
        if found is None:
            self._report(
                at,
                "reference-env",
                f"environment variable {name!r} is not set.",
                f"Set it: export {name}=...",
            )
            return ""
        return found

    def _file(self, reference: str, at: tuple[Step, ...], *, is_whole: bool) -> Any:
        self.result.brought_in.add((*self.prefix, *at))
        self.result.opened += 1
        if self.result.opened > MAX_REFERENCED_FILES:
            self._report(at, "reference-limit", f"more than {MAX_REFERENCED_FILES} files are referenced.")
            return ""
        if self.result.opened_bytes > MAX_REFERENCED_TOTAL_BYTES:
            limit = f"{MAX_REFERENCED_TOTAL_BYTES:,} bytes"
            self._report(at, "reference-limit", f"references bring in more than {limit}.")
            return ""
        try:
            target = resolve_inside(reference, folder=self.path.parent, root=self.root)
            trail = self.trail.enter(target)
            data = read_limited(target, max_bytes=MAX_REFERENCED_BYTES)
        except FilesError as error:
            reason = error.problems[0].message
            self._report(
                at, "reference-file", f"file {reference!r}: {reason}", "Paths start at this file's folder."
            )
            return ""
        except CycleError as error:
            self._report(at, "reference-cycle", error.message, error.hint)
            return ""
        except UsageError as error:
            self._report(at, "reference-file", error.message, error.hint)
            return ""
        self.result.opened_bytes += len(data)
        self.result.included[target.relative_to(self.root.resolve()).as_posix()] = digest_bytes(data)
        if is_whole and target.suffix in (".yaml", ".yml", ".json"):
            return self._document(target, trail, at)
        try:
            return data.decode("utf-8-sig").removesuffix("\n")
        except UnicodeDecodeError as error:
            self._report(at, "reference-file", f"file {reference!r} is not UTF-8 (offset {error.start}).")
            return ""

    def _document(self, target: Path, trail: Trail, at: tuple[Step, ...]) -> Any:
        document, problems = attempt_document(target, max_bytes=MAX_REFERENCED_BYTES)
        self.result.problems.extend(problems)
        if document is None:
            self.result.failed.add((*self.prefix, *at))
            return None
        nested = _Resolver(document, target, self.root, self.env, self.result, trail, (*self.prefix, *at))
        return nested.walk(document.value, ())

    def _report(self, at: tuple[Step, ...], rule: str, message: str, hint: str | None = None) -> None:
        self.result.failed.add((*self.prefix, *at))
        self.result.problems.append(self.document.problem(at, rule=rule, message=message, hint=hint))
