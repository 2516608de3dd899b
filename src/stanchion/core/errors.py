"""The error tree, drawn here once.

```
StanchionError                 exit code, hint
├── UsageError            (2)  the request cannot be understood; fix the command or the file
│   ├── FilesError        (2)  one or more problems in files a person wrote, each with its position
│   ├── DatasetError      (2)  rows that cannot be read: where, why
│   ├── UnknownNameError  (2)  a name that is not registered, with the nearest ones
│   └── MissingExtraError (2)  an optional part is not installed
├── JudgementError        (3)  the work was done but no verdict can stand on it
│   ├── UnavailableError  (3)  an endpoint, store or model did not answer as it must
│   └── DeadlineError     (3)  time ran out
├── BlockedError          (1)  a guard did not allow this to go on
└── IntegrityError        (1)  a digest, chain or signature does not match
```

Exit codes are the same everywhere: 0 fine, 1 found something, 2 usage, 3 could not judge,
4 done and it reaches nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum

import msgspec


class ExitCode(IntEnum):
    """What a process says when it ends; the same for every command."""

    OK = 0
    FOUND = 1
    USAGE = 2
    NOT_JUDGED = 3
    REACHES_NOTHING = 4


class StanchionError(Exception):
    """Root of the tree; `str()` gives what failed and why, `hint` what to do next."""

    exit_code: ExitCode = ExitCode.NOT_JUDGED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class UsageError(StanchionError):
    """The request cannot be understood."""

    exit_code = ExitCode.USAGE


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong in a file: where, what, and what would be right.

    `line` and `column` are 1-based; 0 when the position is not known (the file could not be read).
    """

    file: str
    line: int = 0
    column: int = 0
    rule: str
    message: str
    hint: str | None = None
    severity: str = "error"

    def render(self) -> str:
        """The line a person reads: `file:line:column: message hint`."""
        where = self.file if self.line == 0 else f"{self.file}:{self.line}:{max(self.column, 1)}"
        return f"{where}: {self.message}" + ("" if self.hint is None else f" {self.hint}")


class FilesError(UsageError):
    """All problems found in the files of one load, never only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = f"{count} problem{'s' if count != 1 else ''} found"
        super().__init__("\n".join([title, *(f"  {p.render()}" for p in self.problems)]))


class DatasetError(UsageError):
    """Rows cannot be read; names file and line (1-based, 0 for the whole file)."""

    def __init__(self, file: str, line: int, reason: str, *, hint: str | None = None) -> None:
        where = file if line == 0 else f"{file}:{line}"
        super().__init__(f"{where}: {reason}", hint=hint)
        self.file = file
        self.line = line
        self.reason = reason


class UnknownNameError(UsageError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> None:
        self.name = name
        names = tuple(known)
        hint = did_you_mean(name, names) if names else "There is none."
        super().__init__(f"{f'{where}: ' if where else ''}unknown {kind} {name!r}.", hint=hint)


class MissingExtraError(UsageError):
    """An optional part is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra {extra!r}, which is not installed.",
            hint=f"Install it: pip install 'stanchion[{extra}]'",
        )
        self.extra = extra


class JudgementError(StanchionError):
    """The work was done, or was cut short, and no verdict can stand on it."""

    exit_code = ExitCode.NOT_JUDGED


class UnavailableError(JudgementError):
    """Something outside did not answer as it must: an endpoint, a store, a model.

    `status` is the HTTP status where there was one, `retry_after_s` what the other side asked for.
    `is_retryable` is False when asking again cannot help (a wrong key, a request that is refused).
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_retryable: bool = True,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_retryable = is_retryable


class DeadlineError(JudgementError):
    """Time ran out before an answer came."""


class BlockedError(StanchionError):
    """A guard did not allow this to go on; `reference` finds the decision in the record."""

    exit_code = ExitCode.FOUND

    def __init__(self, message: str, *, reference: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reference = reference


class IntegrityError(StanchionError):
    """A digest, a chain or a signature does not match what it stands for."""

    exit_code = ExitCode.FOUND


def near_matches(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names nearest to `name`, best first (Ratcliff-Obershelp, as in `difflib`)."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str], *, listed: int = 12) -> str:
    """What to say after an unknown name: the nearest ones, or the whole short list."""
    names = sorted(set(known))
    near = near_matches(name, names)
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    if not names:
        return "Nothing is allowed here."
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return f"Allowed: {', '.join(names[:listed])}{more}."
