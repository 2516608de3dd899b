r"""A wider expression over bytes for Hyperscan, made from the expression that RE2 decides with.

Hyperscan only has to say which patterns may occur in a text. In UTF-8 mode it unrolls every character
class into its byte sequences, so that one `[^.\n]{0,80}` can take minutes to compile. Here a character beyond
ASCII is any run of high bytes, and a long bounded repeat has no upper bound: every text that the pattern
matches is let through, a few more are, and those RE2 refuses. One exception: caseless ASCII letters do not
stand for their two look-alikes beyond ASCII (the Kelvin sign, the long s), which the folded view resolves.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_FIRST_OF_HIGH = frozenset(range(0xC2, 0xF5))  # bytes that begin a character beyond ASCII
ANY_HIGH = "\ue000"  # stands for "any character beyond ASCII" while an expression is read
_PROPERTY = re.compile(r"\\([pP])(?:\{(\^?)(\w+)\}|([A-Z]))")
_TURNED_OFF = re.compile(r"\(\?-[a-zA-Z]+\)")
_CODE_POINT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_FEW = 4  # repeats of a group that are kept as they are
_SPREAD = 16  # how far the bounds of a repeated ASCII class may lie apart
_LONGEST = 64  # a longer minimum is not needed to tell texts apart
_ASCII = frozenset(range(128))
_CATEGORIES = {
    "DIGIT": frozenset(map(ord, "0123456789")),
    "SPACE": frozenset(map(ord, " \t\n\r\f\v")),
    "WORD": frozenset(c for c in range(128) if chr(c).isalnum() or c == ord("_")),
}
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
_PLACES = {
    "AT_BEGINNING": "^",
    "AT_BEGINNING_STRING": r"\A",
    "AT_END": "$",
    "AT_END_STRING": r"\z",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
}


_SIGMAS = frozenset("\u03a3\u03c3\u03c2")  # the one letter with three forms


def byte_filter(pattern: str, flags: Sequence[str], *, in_parts: bool = False) -> str | None:
    """The wider expression; None when this one uses a syntax that only RE2 knows.

    With `in_parts` its assertions (a word's end, a line's beginning) are left out: where it finds nothing, no
    part of the text holds a match, wherever it is cut. None also when without them it matches the empty text.
    """
    try:
        nodes, final = as_tree(pattern, flags)
        if in_parts:
            nodes = _without_places(nodes)
            if _may_be_empty(nodes):
                return None
        body = Writer(ucp="ucp" in flags).sequence(_core(nodes), final)
    except UNREADABLE:
        return None
    inline = "".join(
        letter
        for letter, name, flag in (
            ("i", "caseless", re.IGNORECASE),
            ("m", "multiline", re.MULTILINE),
            ("s", "dotall", re.DOTALL),
        )
        if final & flag and name not in flags
    )
    return f"(?{inline}:{body})" if inline else body


def readable_body(pattern: str, flags: Sequence[str]) -> str:
    """A wider expression that Python's parser reads.

    What turns case back on is left out, and the word ends of Unicode, which are checked after a match.
    """
    body = _TURNED_OFF.sub("", pattern)
    if "ucp" in flags:
        body = body.removeprefix("\\b")
        body = body.removesuffix("\\b") if not body.endswith("\\\\b") else body
    return body


def as_tree(pattern: str, flags: Sequence[str]) -> tuple[list[Any], int]:
    """The nodes of an expression, and the flags that hold in it."""
    value = 0
    for name, flag in (("caseless", re.IGNORECASE), ("dotall", re.DOTALL), ("multiline", re.MULTILINE)):
        value |= flag if name in flags else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = _parse(as_python(pattern, _property), value)
    return list(tree), int(tree.state.flags)


def _parse(pattern: str, flags: int) -> Any:
    from re import _parser  # type: ignore[attr-defined]  # the tree is not public

    return _parser.parse(pattern, flags)


def _without_places(nodes: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for op, argument in nodes:
        match str(op):
            case "AT":
                continue
            case "BRANCH":
                inner: Any = (argument[0], [_without_places(branch) for branch in argument[1]])
            case "SUBPATTERN":
                inner = (*argument[:3], _without_places(argument[3]))
            case "MAX_REPEAT" | "MIN_REPEAT":
                inner = (*argument[:2], _without_places(argument[2]))
            case _:
                inner = argument
        found.append((op, inner))
    return found


def _may_be_empty(nodes: Iterable[Any]) -> bool:
    for op, argument in nodes:
        match str(op):
            case "BRANCH":
                is_empty = any(map(_may_be_empty, argument[1]))
            case "SUBPATTERN":
                is_empty = _may_be_empty(argument[3])
            case "MAX_REPEAT" | "MIN_REPEAT":
                is_empty = argument[0] == 0 or _may_be_empty(argument[2])
            case _:
                is_empty = False
        if not is_empty:
            return False
    return True


def _core(nodes: list[Any]) -> list[Any]:
    """The nodes without what may be missing at either end: a text holds the whole where it holds the core.

    `[a-z]*@[a-z]{2,9}` occurs exactly where `@[a-z]{2}` does. A word end is given up with what it bounds.
    """
    core = _without_weak_start(_without_weak_end(_trimmed(_trimmed(nodes, 0), -1)))
    return core if core else nodes


def _without_weak_start(nodes: list[Any]) -> list[Any]:
    r"""The nodes with one character of a class in place of a long run of it, where enough follows.

    `\b[a-z0-9]{6}\.[a-z0-9]{6}:` costs Hyperscan a step for each byte of a text, without the first run only
    where the point stands.
    """
    first = 1 if nodes and str(nodes[0][0]) == "AT" and str(nodes[0][1]) == "AT_BOUNDARY" else 0
    if len(nodes) <= first + 1 or str(nodes[first + 1][0]) != "LITERAL":
        return nodes
    op, argument = nodes[first]
    if str(op) not in _REPEATS or argument[0] < 2 or [str(kind) for kind, _ in argument[2]] != ["IN"]:
        return nodes
    return [*argument[2], *nodes[first + 1 :]]


def _without_weak_end(nodes: list[Any]) -> list[Any]:
    """The nodes with one class of characters at the end, where several stand there one behind the other.

    What stands before them tells texts apart; for a second class Hyperscan is no longer a search for words.
    """
    while len(nodes) > 2 and [str(op) for op, _ in nodes[-3:]] == ["LITERAL", "IN", "IN"]:
        nodes = nodes[:-1]
    return nodes


def _trimmed(nodes: list[Any], side: int) -> list[Any]:
    nodes = list(nodes)
    while nodes:
        op, argument = str(nodes[side][0]), nodes[side][1]
        if (
            op == "AT"
            and str(argument) == "AT_BOUNDARY"
            and _is_variable(nodes[:-1] if side else nodes[1:], side)
        ) or (op in _REPEATS and argument[0] == 0):
            nodes.pop(side)
        elif op in _REPEATS and argument[0] == 1 and argument[1] > 1:
            nodes[side : side + 1 or None] = list(argument[2])
        elif op in _REPEATS and argument[1] > argument[0]:
            nodes[side] = (nodes[side][0], (argument[0], argument[0], argument[2]))
        elif op == "SUBPATTERN" and not argument[1] and not argument[2]:
            nodes[side : side + 1 or None] = list(argument[3])
        elif op == "BRANCH":
            branches = [_trimmed(list(branch), side) for branch in argument[1]]
            if all(branches):
                nodes[side] = (nodes[side][0], (argument[0], branches))
                break
            nodes.pop(side)
        else:
            break
    return nodes


def _is_variable(nodes: list[Any], side: int) -> bool:
    """Whether what stands at this end can be longer or shorter, so that it would be cut."""
    if not nodes:
        return False
    op, argument = str(nodes[side][0]), nodes[side][1]
    if op == "SUBPATTERN":
        return _is_variable(list(argument[3]), side)
    if op == "BRANCH":
        return any(_is_variable(list(branch), side) for branch in argument[1])
    return op in _REPEATS and argument[0] != argument[1]


class _Unsupported(Exception):
    """A node that has no wider form over bytes."""


UNREADABLE = (re.error, Warning, _Unsupported, OverflowError, RecursionError)


def as_python(pattern: str, wider: Callable[[re.Match[str]], str]) -> str:
    r"""The expression with `\p{L}` and its kind as the members of wider classes, `\x{e9}` as `\U000000e9`."""
    parts: list[str] = []
    in_class = False
    position = 0
    while position < len(pattern):
        found = _PROPERTY.match(pattern, position)
        if found is not None:
            wide = wider(found)
            parts.append(wide if in_class else f"[{wide}]")
            position = found.end()
            continue
        found = _CODE_POINT.match(pattern, position)
        if found is not None:
            parts.append(f"\\U{int(found[1], 16):08x}")
            position = found.end()
            continue
        step = 2 if pattern[position] == "\\" else 1
        if pattern[position] == "[":
            in_class = True
        elif pattern[position] == "]":
            in_class = False
        parts.append(pattern[position : position + step])
        position += step
    return "".join(parts)


def _property(found: re.Match[str]) -> str:
    name = found[3] or found[4]
    is_negated = (found[1] == "P") != bool(found[2])
    is_letters = name[0] in "LN" if len(name) <= 2 else name not in ("Common", "Inherited")
    return r"\s\S" if is_negated or not is_letters else rf"\w{ANY_HIGH}"


class CharacterSet:
    """A character class: which ASCII characters, and whether any or which others."""

    def __init__(self, ascii_part: Iterable[int], *, is_high: bool, others: Iterable[int] = ()) -> None:
        self.ascii = frozenset(ascii_part)
        self.is_high = is_high
        self.others = frozenset(others)

    def one(self, *, caseless: bool) -> str:
        """Exactly one character of it."""
        if self.is_high:  # the first byte of a character, then the rest of one beyond ASCII
            return _class(self.ascii | _FIRST_OF_HIGH) + r"[\x80-\xbf]{0,3}"
        options = [_class(self.ascii)] if self.ascii else []
        options.extend(_literal(code, caseless=caseless) for code in sorted(self.others))
        if not options:
            raise _Unsupported
        return options[0] if len(options) == 1 and self.ascii else f"(?:{'|'.join(options)})"

    def some(self) -> str | None:
        """One byte of a character of it, for repeats; None when its others must stay apart."""
        if self.others and not self.is_high:
            return None
        return _class(self.ascii | (frozenset(range(0x80, 0x100)) if self.is_high else frozenset()))


class Writer:
    """Writes the tree of Python's own parser as an expression over bytes."""

    def __init__(self, *, ucp: bool) -> None:
        self._ucp = ucp

    def sequence(self, nodes: Any, flags: int) -> str:
        """All nodes, one after the other."""
        return "".join(self._node(str(op), argument, flags) for op, argument in nodes)

    def _node(self, op: str, argument: Any, flags: int) -> str:
        caseless = bool(flags & re.IGNORECASE)
        match op:
            case "LITERAL":
                return _literal(argument, caseless=caseless)
            case "NOT_LITERAL" | "IN" | "ANY":
                return self.members(op, argument, flags).one(caseless=caseless)
            case "AT":
                return _PLACES[str(argument)]
            case "BRANCH":
                return f"(?:{'|'.join(self.sequence(branch, flags) for branch in argument[1])})"
            case "SUBPATTERN":
                _, added, removed, body = argument
                return self._group(body, flags, added, removed)
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat((int(argument[0]), int(argument[1])), argument[2], flags)
            case _:
                raise _Unsupported(op)

    def _group(self, body: Any, flags: int, added: int, removed: int) -> str:
        on = "".join(letter for letter, flag in (("i", 2), ("m", 8), ("s", 16)) if added & flag)
        off = "".join(letter for letter, flag in (("i", 2), ("m", 8), ("s", 16)) if removed & flag)
        head = on + (f"-{off}" if off else "")
        return f"(?{head}:{self.sequence(body, (flags | added) & ~removed)})"

    def _repeat(self, bounds: tuple[int, int], body: Any, flags: int) -> str:
        least, most = bounds
        if len(body) == 1 and str(body[0][0]) in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            members = self.members(str(body[0][0]), body[0][1], flags)
            run = members.some()
            if run is not None:
                # a character beyond ASCII is several bytes, so even one at most has no upper bound here
                is_open = members.is_high or most - least > _SPREAD or most > _LONGEST
                return run + _bounds(min(least, _LONGEST), None if is_open else most)
            return members.one(caseless=bool(flags & re.IGNORECASE)) + _bounds(
                least, most if most <= _FEW else None
            )
        least = min(least, _LONGEST)
        return f"(?:{self.sequence(body, flags)})" + _bounds(least, most if most <= _FEW else None)

    def members(self, op: str, argument: Any, flags: int) -> CharacterSet:
        """The class that a node for one character stands for."""
        if op == "LITERAL":
            return (
                CharacterSet([argument], is_high=False)
                if argument < 128
                else CharacterSet((), is_high=False, others=[argument])
            )
        if op == "NOT_LITERAL":
            return CharacterSet(_ASCII - _both_cases({argument}, flags), is_high=True)
        if op == "ANY":
            return CharacterSet(_ASCII if flags & re.DOTALL else _ASCII - {10}, is_high=True)
        return self._listed(argument, flags)

    def _listed(self, items: Any, flags: int) -> CharacterSet:
        members: set[int] = set()
        others: set[int] = set()
        is_negated = is_high = False
        for kind, value in items:
            match str(kind):
                case "NEGATE":
                    is_negated = True
                case "LITERAL":
                    (members if value < 128 else others).add(value)
                case "RANGE":
                    members.update(range(value[0], min(value[1], 127) + 1))
                    is_high |= value[1] > 127
                case "CATEGORY":
                    name = str(value).removeprefix("CATEGORY_")
                    part = _CATEGORIES[name.removeprefix("NOT_")]
                    members |= _ASCII - part if name.startswith("NOT_") else part
                    is_high |= self._ucp or name.startswith("NOT_")
                case _:
                    raise _Unsupported
        if is_negated:
            return CharacterSet(_ASCII - _both_cases(members, flags), is_high=True)
        return CharacterSet(members, is_high=is_high or ord(ANY_HIGH) in others, others=others)


def _both_cases(codes: Iterable[int], flags: int) -> frozenset[int]:
    """Codes with their other case: a negated caseless class refuses both."""
    codes = frozenset(codes)
    if not flags & re.IGNORECASE:
        return codes
    return codes | {ord(chr(code).swapcase()) for code in codes if code < 128}


def _bounds(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "" if least == most == 1 else "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _literal(code: int, *, caseless: bool) -> str:
    if code < 128:
        character = chr(code)
        return character if character.isalnum() else f"\\x{code:02x}"
    forms = {chr(code)}
    if caseless:
        character = chr(code)
        forms |= {
            form for form in (character.lower(), character.upper(), character.title()) if len(form) == 1
        }
        forms |= _SIGMAS if forms & _SIGMAS else set()
    encoded = [
        "".join(f"\\x{byte:02x}" for byte in form.encode("utf-8", "replace")) for form in sorted(forms)
    ]
    return encoded[0] if len(encoded) == 1 else f"(?:{'|'.join(encoded)})"


def _class(codes: frozenset[int]) -> str:
    """The class of these bytes, as ranges."""
    ordered = sorted(codes)
    ranges: list[tuple[int, int]] = []
    for code in ordered:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return "[" + "".join(f"\\x{a:02x}" if a == b else f"\\x{a:02x}-\\x{b:02x}" for a, b in ranges) + "]"
