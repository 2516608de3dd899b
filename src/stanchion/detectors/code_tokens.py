"""Comments and strings of a dozen languages, blanked so that offsets stay: small linear tokenisers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Stripped(NamedTuple):
    """Code of the same length: `plain` without comments, `masked` also without what strings hold."""

    plain: str
    masked: str


_DOUBLE = r'"(?:\\[\s\S]|[^"\\\n])*(?:"|$)'
_SINGLE = r"'(?:\\[\s\S]|[^'\\\n])*(?:'|$)"
_SQL_SINGLE = r"'(?:[^']|'')*(?:'|\Z)"
_TEMPLATE = r"`(?:\\[\s\S]|[^`\\])*(?:`|\Z)"
_SLASH = r"//[^\n]*"
_BLOCK = r"/\*[\s\S]*?(?:\*/|\Z)"
_HASH = r"(?<![^\s;&|(])#[^\n]*"
_ANY_HASH = r"#[^\n]*"
_DASHES = r"--[^\n]*"
_TRIPLE = r'"""[\s\S]*?(?:"""|\Z)|' + r"'''[\s\S]*?(?:'''|\Z)"


def _grammar(comments: str, strings: str) -> re.Pattern[str]:
    return re.compile(f"(?P<comment>{comments})|(?P<string>{strings})", re.MULTILINE)


_C_LIKE = _grammar(f"{_SLASH}|{_BLOCK}", f"{_DOUBLE}|{_SINGLE}")
_GRAMMARS: Mapping[str, re.Pattern[str]] = {
    "python": _grammar(_ANY_HASH, f"{_TRIPLE}|{_DOUBLE}|{_SINGLE}"),
    "js": _grammar(f"{_SLASH}|{_BLOCK}", f"{_DOUBLE}|{_SINGLE}|{_TEMPLATE}"),
    "shell": _grammar(_HASH, rf"{_DOUBLE.replace(chr(92) + 'n', '')}|'[^']*(?:'|\Z)"),
    "sql": _grammar(f"{_DASHES}|{_BLOCK}", _SQL_SINGLE),
    "powershell": _grammar(rf"<#[\s\S]*?(?:#>|\Z)|{_HASH}", rf'"(?:`[\s\S]|[^"`])*(?:"|\Z)|{_SQL_SINGLE}'),
    "docker": _grammar(r"^[ \t]*#[^\n]*", f"{_DOUBLE}|{_SINGLE}"),
    "yaml": _grammar(_HASH, f"{_DOUBLE}|'(?:[^'\\n]|'')*(?:'|$)"),
    "php": _grammar(f"{_SLASH}|{_BLOCK}|{_HASH}", f"{_DOUBLE}|{_SINGLE}"),
    "ruby": _grammar(_HASH, f"{_DOUBLE}|{_SINGLE}"),
    "java": _C_LIKE,
    "go": _grammar(f"{_SLASH}|{_BLOCK}", rf"{_DOUBLE}|{_SINGLE}|`[^`]*(?:`|\Z)"),
    "c": _C_LIKE,
}
LANGUAGES = frozenset(_GRAMMARS)
_SAYING = re.compile(
    r"(?:^|[;&|({]|\bthen|\bdo)[ \t]*(?:echo|printf|print|Write-Host|Write-Output)\b([^\n;&|>]*)"
    r"(?=$|[;&\n]|\|\|)",
    re.MULTILINE,
)


def strip(code: str, language: str) -> Stripped:
    """The code without its comments, and without the contents of its strings.

    In shells, what `echo` and `printf` say is blanked too, unless it goes into a pipe or a file.
    """
    plain, masked, at = [], [], 0
    for match in _GRAMMARS[language].finditer(code):
        between = code[at : match.start()]
        text = match.group()
        if match.lastgroup == "comment":
            inside = _blank(text)
            plain += [between, inside]
            masked += [between, inside]
        else:
            quotes = text[:1], text[-1:] if len(text) > 1 else ""
            plain += [between, text]
            masked += [between, quotes[0], _blank(text[1:-1]), quotes[1]]
        at = match.end()
    rest = code[at:]
    stripped = Stripped("".join([*plain, rest]), "".join([*masked, rest]))
    if language in ("shell", "powershell"):
        stripped = _without_sayings(stripped)
    return stripped


def _without_sayings(stripped: Stripped) -> Stripped:
    spans = [match.span(1) for match in _SAYING.finditer(stripped.masked)]
    plain = stripped.plain
    parts, at = [], 0
    for start, end in spans:
        if "$(" in plain[start:end] or "`" in plain[start:end]:
            continue  # what it says is run first
        parts += [plain[at:start], _blank(plain[start:end])]
        at = end
    return stripped._replace(plain="".join([*parts, plain[at:]]))


_CLOSING = {"(": ")", "[": "]", "{": "}"}


def missing_end(code: str) -> str:
    """The brackets that close what a piece of Python leaves open, as an answer does that was cut."""
    open_ones: list[str] = []
    for bracket in re.findall(r"[()\[\]{}]", strip(code, "python").masked):
        if bracket in _CLOSING:
            open_ones.append(_CLOSING[bracket])
        elif open_ones and open_ones[-1] == bracket:
            open_ones.pop()
    return "".join(reversed(open_ones))


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)
