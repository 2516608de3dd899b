r"""What a begun match looks like: expressions for the beginnings of what a pattern matches.

Two expressions are made from a pattern's tree, both for RE2 and both a little wider than exact, so that a
live match is never taken for a dead one. `begun` matches every beginning of every match, the whole included:
a match that starts at `s` can still come true where `text[s:]` is such a beginning. `opening` matches
a beginning that has just left its first word; a text in which no pattern has an opening has no live match
that is older than its last word, which settles most texts without looking further.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from stanchion.detectors.bytefilter import ANY_HIGH, as_python, readable_body

_LAST = 0x10FFFF
_WORD_SIGNS = ((0x21, 0x7E),)  # what a first word is made of: ASCII that can be seen
_HIGH = (0x80, _LAST)
_SINGLE = ("LITERAL", "NOT_LITERAL", "IN", "ANY")
_CATEGORIES: dict[str, tuple[tuple[int, int], ...]] = {
    "DIGIT": ((0x30, 0x39),),
    "SPACE": ((0x09, 0x0D), (0x20, 0x20)),
    "WORD": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
}
_LONGEST_COUNT = 64  # repeats of one character that are counted; beyond it, a live match stays live
_LONGEST_GROUP_COUNT = 8
_FOLDS_BEYOND_ASCII = {ord("k"): 0x212A, ord("s"): 0x17F}
_FLAGS = (("caseless", re.IGNORECASE), ("dotall", re.DOTALL), ("multiline", re.MULTILINE))

Ranges = tuple[tuple[int, int], ...]
UNREADABLE = (re.error, Warning, ValueError, OverflowError, RecursionError)


def begun(pattern: str, flags: Sequence[str]) -> str:
    """The expression of every beginning of a match, the empty one and the whole included.

    Raises:
        one of `UNREADABLE`: for syntax that cannot be read as a tree.
    """
    nodes, value = _tree(pattern, flags)
    return _Writer(ucp="ucp" in flags).begun(nodes, value)


def opening(pattern: str, flags: Sequence[str]) -> str | None:
    """The expression of a beginning up to the character behind its first word; None where there is none.

    Raises:
        one of `UNREADABLE`: for syntax that cannot be read as a tree.
    """
    nodes, value = _tree(pattern, flags)
    return _Writer(ucp="ucp" in flags).leaving(nodes, value)


def longest(pattern: str, flags: Sequence[str]) -> int | None:
    """How many characters a match has at most; None when its repetitions have no bound.

    Raises:
        one of `UNREADABLE`: for syntax that cannot be read as a tree.
    """
    nodes, _ = _tree(pattern, flags)
    return _most(nodes)


def _most(nodes: Iterable[Any]) -> int | None:
    total = 0
    for op, argument in nodes:
        match str(op):
            case "AT":
                most: int | None = 0
            case "BRANCH":
                most = _widest(_most(branch) for branch in argument[1])
            case "SUBPATTERN":
                most = _most(argument[3])
            case "MAX_REPEAT" | "MIN_REPEAT":
                inner, count = _most(argument[2]), int(argument[1])
                most = None if inner is None or count >= 1 << 31 else inner * count
            case _:
                most = 1
        if most is None:
            return None
        total += most
    return total


def _widest(lengths: Iterable[int | None]) -> int | None:
    found = list(lengths)
    return None if None in found else max((length for length in found if length is not None), default=0)


def _tree(pattern: str, flags: Sequence[str]) -> tuple[list[Any], int]:
    from re import _parser  # type: ignore[attr-defined]  # the tree is not public

    value = 0
    for name, flag in _FLAGS:
        value |= flag if name in flags else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = _parser.parse(as_python(readable_body(pattern, flags), _property), value)
    return list(tree), int(tree.state.flags)


def _property(found: re.Match[str]) -> str:
    return r"\s\S" if found[1] == "P" or found[2] else rf"\x21-\x7e{ANY_HIGH}"


class _Writer:
    """Writes the tree of Python's own parser as expressions for RE2."""

    def __init__(self, *, ucp: bool) -> None:
        self._ucp = ucp

    def begun(self, nodes: Sequence[Any], flags: int, then: str = "") -> str:
        """Every beginning of the nodes; `then` are the beginnings of what follows them."""
        if not nodes:
            return then
        op, argument = str(nodes[0][0]), nodes[0][1]
        rest = self.begun(nodes[1:], flags, then)
        if op in _SINGLE:
            return f"(?:{_class(self._members(op, argument, flags))}{rest})?"
        if op == "AT":
            place = self._place(str(argument), flags)
            return f"(?:{place}{rest})?" if place else rest
        if op == "BRANCH":
            begun = [self.begun(list(branch), flags) for branch in argument[1]]
            return f"(?:{'|'.join(begun)}|{self._whole(nodes[:1], flags)}{rest})"
        if op == "SUBPATTERN":
            inner = (flags | argument[1]) & ~argument[2]
            if inner == flags:
                return self.begun([*argument[3], *nodes[1:]], flags, then)
            return f"(?:{self.begun(list(argument[3]), inner)}|{self._whole(nodes[:1], flags)}{rest})"
        return self._begun_repeat(_bounds(op, argument), list(argument[2]), flags, rest)

    def _begun_repeat(self, bounds: tuple[int, int], body: list[Any], flags: int, rest: str) -> str:
        least, most = bounds
        one, is_single = self._whole(body, flags), _is_single(body)
        if is_single and least == 0:
            return _repeated(one, 0, most, is_single=True) + rest
        if is_single:
            few = "" if least == 1 else _repeated(one, 0, least - 1, is_single=True) + "|"
            return f"(?:{few}(?:{_repeated(one, least, most, is_single=True)}{rest})?)"
        begun = self.begun(body, flags)
        if most == 1:
            return f"(?:{begun}|{_repeated(one, least, 1, is_single=False)}{rest})"
        if least == 0:
            return f"{_repeated(one, 0, most, is_single=False)}(?:{begun}|{rest})"
        few = _repeated(one, 0, least - 1, is_single=False) if least > 1 else ""
        return f"(?:{few}{begun}|{_repeated(one, least, most, is_single=False)}(?:{begun}|{rest}))"

    def leaving(self, nodes: Sequence[Any], flags: int) -> str | None:
        """What stays inside a word and then leaves it, as far as the nodes reach; None when they cannot."""
        found: list[str] = []
        inside = ""
        for op, argument in nodes:
            left = self._leaving_one(str(op), argument, flags)
            if left is not None:
                found.append(inside + left)
            kept = self._inside(str(op), argument, flags)
            if kept is None:
                break
            inside += kept
        return None if not found else found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"

    def _leaving_one(self, op: str, argument: Any, flags: int) -> str | None:
        if op in _SINGLE:
            members = _without(self._members(op, argument, flags), _WORD_SIGNS)
            return _class(members) if members else None
        if op == "AT":
            return None
        if op == "BRANCH":
            left = [self.leaving(list(branch), flags) for branch in argument[1]]
            some = [one for one in left if one is not None]
            return f"(?:{'|'.join(some)})" if some else None
        if op == "SUBPATTERN":
            return self.leaving(list(argument[3]), (flags | argument[1]) & ~argument[2])
        body = list(argument[2])
        left_once = self.leaving(body, flags)
        inside = self._inside_all(body, flags)
        if left_once is None or inside is None:
            return left_once
        return _repeated(inside, 0, _bounds(op, argument)[1], is_single=_is_single(body)) + left_once

    def _inside_all(self, nodes: Iterable[Any], flags: int) -> str | None:
        parts = [self._inside(str(op), argument, flags) for op, argument in nodes]
        return None if None in parts else "".join(part for part in parts if part is not None)

    def _inside(self, op: str, argument: Any, flags: int) -> str | None:
        """The node where all it matches is part of one word; None when it cannot be."""
        if op in _SINGLE:
            members = _within(self._members(op, argument, flags), _WORD_SIGNS)
            return _class(members) if members else None
        if op == "AT":
            return None if str(argument).startswith("AT_END") else self._place(str(argument), flags)
        if op == "BRANCH":
            parts = [self._inside_all(branch, flags) for branch in argument[1]]
            some = [part for part in parts if part is not None]
            return f"(?:{'|'.join(some)})" if some else None
        if op == "SUBPATTERN":
            inner = self._inside_all(argument[3], (flags | argument[1]) & ~argument[2])
            return None if inner is None else f"(?:{inner})"
        body, (least, most) = list(argument[2]), _bounds(op, argument)
        one = self._inside_all(body, flags)
        if one is None:
            return "" if least == 0 else None
        return _repeated(one, least, most, is_single=_is_single(body))

    def _whole(self, nodes: Iterable[Any], flags: int) -> str:
        return "".join(self._whole_one(str(op), argument, flags) for op, argument in nodes)

    def _whole_one(self, op: str, argument: Any, flags: int) -> str:
        if op in _SINGLE:
            return _class(self._members(op, argument, flags))
        if op == "AT":
            return self._place(str(argument), flags)
        if op == "BRANCH":
            return f"(?:{'|'.join(self._whole(branch, flags) for branch in argument[1])})"
        if op == "SUBPATTERN":
            return f"(?:{self._whole(argument[3], (flags | argument[1]) & ~argument[2])})"
        body = list(argument[2])
        bounds = _bounds(op, argument)
        return _repeated(self._whole(body, flags), *bounds, is_single=_is_single(body))

    def _place(self, place: str, flags: int) -> str:
        """An assertion; one that RE2 cannot decide (word ends of Unicode) is left out, which is wider."""
        if place == "AT_BOUNDARY":
            return "" if self._ucp else r"\b"
        if place.startswith("AT_BEGINNING"):
            return "(?m:^)" if flags & re.MULTILINE and place == "AT_BEGINNING" else r"\A"
        if place.startswith("AT_END"):
            return "(?m:$)" if flags & re.MULTILINE and place == "AT_END" else r"\z"
        return ""

    def _members(self, op: str, argument: Any, flags: int) -> Ranges:
        if op == "LITERAL":
            found: Ranges = ((argument, argument),)
        elif op == "NOT_LITERAL":
            return _negated(_cased(((argument, argument),), flags))
        elif op == "ANY":
            return ((0, _LAST),) if flags & re.DOTALL else _negated(((10, 10),))
        else:
            is_negated, found = self._listed(argument)
            if is_negated:
                return _negated(_cased(found, flags))
        return _cased(found, flags)

    def _listed(self, items: Any) -> tuple[bool, Ranges]:
        is_negated = any(str(kind) == "NEGATE" for kind, _ in items)
        found: list[tuple[int, int]] = []
        for kind, value in items:
            match str(kind):
                case "LITERAL":
                    found.append(_HIGH if value == ord(ANY_HIGH) else (value, value))
                case "RANGE":
                    found.append((int(value[0]), int(value[1])))
                case "CATEGORY":
                    name = str(value).removeprefix("CATEGORY_")
                    own = _CATEGORIES[name.removeprefix("NOT_")]
                    if name.startswith("NOT_"):
                        found.extend(_negated(own))
                    else:
                        found.extend((*own, _HIGH) if self._ucp and not is_negated else own)
                case "NEGATE":
                    pass
                case other:
                    raise ValueError(other)
        return is_negated, _merged(found)


def _bounds(op: str, argument: Any) -> tuple[int, int]:
    if op not in ("MAX_REPEAT", "MIN_REPEAT"):
        raise ValueError(op)
    return int(argument[0]), int(argument[1])


def _is_single(body: Sequence[Any]) -> bool:
    return len(body) == 1 and str(body[0][0]) in _SINGLE


def _repeated(one: str, least: int, most: int, *, is_single: bool) -> str:
    """The repetition; counts that would make the automaton large have no upper bound, which is wider."""
    limit = _LONGEST_COUNT if is_single else _LONGEST_GROUP_COUNT
    least = min(least, limit)
    body = one if is_single and _is_one_class(one) else f"(?:{one})"
    if most > limit:
        return body + {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    if (least, most) == (1, 1):
        return body
    return body + ("?" if (least, most) == (0, 1) else f"{{{least},{most}}}")


def _is_one_class(expression: str) -> bool:
    return expression.startswith("[") and expression.endswith("]") and "]" not in expression[:-1]


def _class(members: Ranges) -> str:
    if not members:
        return r"[^\x{0}-\x{10ffff}]"
    return "[" + "".join(_span(first, last) for first, last in members) + "]"


def _span(first: int, last: int) -> str:
    return f"\\x{{{first:x}}}" if first == last else f"\\x{{{first:x}}}-\\x{{{last:x}}}"


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def _negated(ranges: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    at = 0
    for first, last in ranges:
        if first > at:
            found.append((at, first - 1))
        at = last + 1
    if at <= _LAST:
        found.append((at, _LAST))
    return tuple(found)


def _within(ranges: Ranges, others: Ranges) -> Ranges:
    return _merged((max(a, c), min(b, d)) for a, b in ranges for c, d in others if max(a, c) <= min(b, d))


def _without(ranges: Ranges, others: Ranges) -> Ranges:
    return _within(ranges, _negated(others))


def _cased(ranges: Ranges, flags: int) -> Ranges:
    """The ranges with both cases where case plays no part."""
    if not flags & re.IGNORECASE:
        return ranges
    added: list[tuple[int, int]] = []
    for first, last in ranges:
        if last - first > 0x1000:
            continue
        for code in range(first, last + 1):
            forms = (chr(code).lower(), chr(code).upper(), chr(code).title())
            added.extend((ord(form), ord(form)) for form in forms if len(form) == 1)
            if code | 0x20 in _FOLDS_BEYOND_ASCII:
                other = _FOLDS_BEYOND_ASCII[code | 0x20]
                added.append((other, other))
    return _merged([*ranges, *added])
