"""What `--target` may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stanchion.core.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from stanchion.evals.suite import Suite
    from stanchion.evals.target_file import AnyTargetModel

_FORMS = {
    "local": "local",
    "callable": "callable:app.py:answer",
    "detector": "detector:pii",
    "guard": "guard:POLICY",
    "recording": "recording:answers.jsonl",
    "http": "http:http://localhost:8000/chat",
    "endpoint": "endpoint:http://localhost:8000/v1#model",
}


def target_model(given: str | None, suite: Suite) -> AnyTargetModel:
    """The target of the command line, else the suite's own.

    Raises:
        UsageError: when there is none, or it cannot be understood.
    """
    own = suite.file.target
    if given is not None:
        return parse_target(given, own)
    if own is None:
        raise UsageError(
            f"suite {suite.id!r} names no target.", hint="Add `target:` to the suite, or give --target."
        )
    return own


def parse_target(given: str, own: AnyTargetModel | None = None) -> AnyTargetModel:
    """A target from its short form; `own` is what a guard would be put around.

    Raises:
        UsageError: when it cannot be understood.
    """
    import pydantic

    from stanchion.evals.target_file import AnyTargetModel

    kind, _, value = given.partition(":")
    if kind not in _FORMS:
        raise UsageError(
            f"target {given!r} is of no known kind.",
            hint=f"{did_you_mean(kind, _FORMS)} Forms: {', '.join(_FORMS.values())}.",
        )
    try:
        fields = _fields(kind, value, own)
        return pydantic.TypeAdapter[AnyTargetModel](AnyTargetModel).validate_python(fields)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise UsageError(f"target {given!r}: {first['msg']}.", hint=f"Write it as {_FORMS[kind]}.") from error


def _fields(kind: str, value: str, own: Any) -> dict[str, Any]:
    """The fields of a target from its short form; a guard is put around the suite's own target."""
    match kind:
        case "callable":
            return {"kind": kind, "function": value}
        case "detector":
            return {"kind": kind, "detector": value}
        case "recording":
            return {"kind": kind, "path": value}
        case "http":
            return {"kind": kind, "url": value}
        case "endpoint":
            url, _, model = value.partition("#")
            return {"kind": kind, "base_url": url, "model": model or None}
        case "guard":
            return {"kind": kind, "policy": value or "default", "around": _unguarded(own)}
        case _:
            return {"kind": kind, "model": value}


def _unguarded(own: Any) -> Any:
    around = getattr(own, "around", own)
    return (
        around
        if getattr(around, "kind", "") in ("endpoint", "http", "callable", "local", "scripted")
        else None
    )
