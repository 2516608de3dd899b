r"""One regular expression in two engines: Hyperscan says whether, RE2 says where; and what both refuse.

Both are automata, so time grows with the length of the text only. Where they read a sign differently, RE2 is
right, since it gives the span. The flag `ucp` (Unicode letters and digits for `\w`, `\d`, `\b`) is translated
for RE2, which knows them in ASCII only, and its word ends, which neither engine knows, are checked by us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from stanchion.detectors.bytefilter import byte_filter, readable_body

_ORDINARY = (
    "Please send me the report before Friday.",
    "The weather in Rome was fine, and we walked for 3 hours.",
    "def total(rows): return sum(row.price for row in rows)",
    '{"name": "lamp", "price": 12.5, "in_stock": true}',
    "Kannst du mir bitte sagen, wann der Zug ankommt?",
    "## Notes\n\n- first point\n- second point\n",
)
_WIDE = 3  # of the ordinary texts; a pattern that fires on so many of them says nothing


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Why an expression cannot be used, and the field of the catalogue entry that says it."""

    rule: str
    field: str
    message: str
    hint: str


class Expression(msgspec.Struct, frozen=True):
    """What both engines get. Where a `ucp` match must start or end a word, that is checked afterwards.

    `is_utf8` says that Hyperscan gets the expression as it is, because no wider one over bytes could be made.
    """

    hyperscan: bytes
    re2: bytes
    is_utf8: bool = False
    starts_word: bool = False
    ends_word: bool = False


def translate(pattern: str, flags: Sequence[str]) -> Expression:
    r"""The expression for both engines.

    Raises:
        ValueError: for `\b` inside a `ucp` pattern: only its ends can be checked.
    """
    body = pattern
    starts_word = ends_word = False
    if "ucp" in flags:
        starts_word = body.startswith("\\b")
        body = body[2:] if starts_word else body
        ends_word = body.endswith("\\b") and not body.endswith("\\\\b")
        body = body[:-2] if ends_word else body
    wider = byte_filter(body, flags)
    exact = "".join(_unicode_classes(body)) if "ucp" in flags else body
    prefix = "(?m)" if "multiline" in flags else ""
    return Expression(
        hyperscan=(body if wider is None else wider).encode("utf-8", "replace"),
        re2=(prefix + exact).encode("utf-8", "replace"),
        is_utf8=wider is None,
        starts_word=starts_word,
        ends_word=ends_word,
    )


def expression_in_parts(pattern: str, flags: Sequence[str]) -> bytes | None:
    """What Hyperscan looks for to tell that no part of a text holds a match; None if that cannot be told."""
    wider = byte_filter(readable_body(pattern, flags), flags, in_parts=True)
    return None if wider is None else wider.encode("utf-8", "replace")


_CLASSES = {"w": r"\p{L}\p{N}_", "d": r"\p{Nd}", "s": r"\s\p{Z}"}
_NEGATED = {"W": r"[^\p{L}\p{N}_]", "D": r"\P{Nd}", "S": r"[^\s\p{Z}]"}


def _unicode_classes(body: str) -> Iterator[str]:
    in_class = False
    position = 0
    while position < len(body):
        sign = body[position]
        if sign == "\\" and position + 1 < len(body):
            yield _unicode_escape(body[position + 1], in_class=in_class)
            position += 2
            continue
        if sign == "[" and not in_class:
            in_class = True
        elif sign == "]":
            in_class = False
        yield sign
        position += 1


def _unicode_escape(letter: str, *, in_class: bool) -> str:
    if letter in _CLASSES:
        return _CLASSES[letter] if in_class else f"[{_CLASSES[letter]}]"
    if letter in _NEGATED and not in_class:
        return _NEGATED[letter]
    if letter in "bBWDS":
        raise ValueError(f"\\{letter} here cannot be said for Unicode")
    return f"\\{letter}"


def hyperscan_flags(expression: Expression, flags: Sequence[str]) -> int:
    """The engine's flags for a pattern: at most one report per text, and what the pattern asks."""
    import hyperscan

    value = hyperscan.HS_FLAG_SINGLEMATCH
    for name, flag in (
        ("caseless", hyperscan.HS_FLAG_CASELESS),
        ("dotall", hyperscan.HS_FLAG_DOTALL),
        ("multiline", hyperscan.HS_FLAG_MULTILINE),
    ):
        if name in flags:
            value |= flag
    if expression.is_utf8:
        value |= hyperscan.HS_FLAG_UTF8 | (hyperscan.HS_FLAG_UCP if "ucp" in flags else 0)
    return int(value)


def compile_re2(expression: Expression, flags: Sequence[str]) -> Any:
    """The RE2 object over UTF-8 bytes.

    Raises:
        re2.error: when RE2 refuses it.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = "caseless" not in flags
    options.dot_nl = "dotall" in flags
    return re2.compile(expression.re2, options)


def faults(pattern: str, *, flags: Sequence[str], group: int = 0) -> list[Fault]:
    """Everything that keeps an expression from being used."""
    import hyperscan
    import re2

    try:
        expression = translate(pattern, flags)
    except ValueError as error:
        hint = "With the flag ucp, \\b may stand at the start and the end of the pattern only."
        return [Fault(rule="ucp", field="pattern", message=f"{error}.", hint=hint)]
    try:
        regex = compile_re2(expression, flags)
    except re2.error as error:
        found = [_refused("RE2", _text(error))]
    else:
        found = list(_shape_faults(regex, group))
    if any(fault.rule == "empty" for fault in found):
        return found
    try:
        _compile_alone(expression.hyperscan, hyperscan_flags(expression, flags))
    except hyperscan.error as error:
        found.append(_refused("Hyperscan", _text(error)))
    return found


def _compile_alone(pattern: bytes, flags: int) -> None:
    import hyperscan

    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(expressions=[pattern], ids=[0], elements=1, flags=[flags])


def _shape_faults(regex: Any, group: int) -> Iterator[Fault]:
    if group > regex.groups:
        yield Fault(
            rule="group", field="group", message=f"group {group} does not exist; it has {regex.groups}.",
            hint="Groups count from 1; 0 is the whole match.",
        )  # fmt: skip
    if regex.fullmatch(b"") is not None:
        yield Fault(
            rule="empty", field="pattern", message="it matches the empty text.",
            hint="Make at least one character necessary.",
        )  # fmt: skip
        return
    fired = sum(regex.search(text) is not None for text in _ordinary_bytes())
    if fired >= _WIDE:
        yield Fault(
            rule="wide", field="pattern",
            message=f"it is too wide: it matches {fired} of {len(_ORDINARY)} ordinary texts.",
            hint="Name what stands before or after the value, or its length.",
        )  # fmt: skip


def _refused(engine: str, why: str) -> Fault:
    hint = "Look-around and back-references do not exist in either engine; put what is reported in a group."
    return Fault(rule="compile", field="pattern", message=f"{engine} does not take it: {why}.", hint=hint)


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    return (first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)).rstrip(".")


@cache
def _ordinary_bytes() -> tuple[bytes, ...]:
    return tuple(text.encode() for text in _ORDINARY)
