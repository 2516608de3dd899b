"""What every match of an expression holds: a text without it needs no look with the expression."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from stanchion.detectors.bytefilter import UNREADABLE, CharacterSet, Writer, as_tree


def needs_high(pattern: str, flags: Sequence[str]) -> bool:
    """Whether every match holds a character beyond ASCII; False when that cannot be told."""
    return _needs(pattern, flags, lambda members: not members.ascii)


def needs_one_of(pattern: str, flags: Sequence[str], characters: str) -> bool:
    """Whether every match holds one of these ASCII characters; False when that cannot be told."""
    codes = frozenset(map(ord, characters))
    return _needs(pattern, flags, lambda members: _is_within(members, codes))


def needed_run(pattern: str, flags: Sequence[str], characters: str) -> int:
    """The longest run of these ASCII characters that every match holds; 0 when that cannot be told."""
    try:
        nodes = as_tree(pattern, flags)[0]
        return _Runs(Writer(ucp="ucp" in flags), frozenset(map(ord, characters))).of_all(nodes).inside
    except UNREADABLE:
        return 0


def _is_within(members: CharacterSet, codes: frozenset[int]) -> bool:
    is_ascii = not members.is_high and not members.others
    return is_ascii and bool(members.ascii) and members.ascii <= codes


def _needs(pattern: str, flags: Sequence[str], is_one: Callable[[CharacterSet], bool]) -> bool:
    """Whether every match holds a character of a class that `is_one` accepts."""
    try:
        return _holds(as_tree(pattern, flags)[0], Writer(ucp="ucp" in flags), is_one)
    except UNREADABLE:
        return False


def _holds(nodes: list[Any], writer: Writer, is_one: Callable[[CharacterSet], bool]) -> bool:
    for op, argument in nodes:
        match str(op):
            case "LITERAL" | "IN":
                found = is_one(writer.members(str(op), argument, 0))
            case "SUBPATTERN":
                found = _holds(list(argument[3]), writer, is_one)
            case "BRANCH":
                found = all(_holds(list(branch), writer, is_one) for branch in argument[1])
            case "MAX_REPEAT" | "MIN_REPEAT":
                found = argument[0] > 0 and _holds(list(argument[2]), writer, is_one)
            case _:
                found = False
        if found:
            return True
    return False


class _Run(NamedTuple):
    """Runs that are in every match of a piece: at its start, at its end, anywhere; `is_whole`: it is one."""

    first: int = 0
    last: int = 0
    inside: int = 0
    is_whole: bool = True

    def then(self, other: _Run) -> _Run:
        """The runs of this piece with another one behind it."""
        return _Run(
            self.first + other.first if self.is_whole else self.first,
            other.last + self.last if other.is_whole else other.last,
            max(self.inside, other.inside, self.last + other.first),
            self.is_whole and other.is_whole,
        )


_NO_RUN = _Run(is_whole=False)


class _Runs:
    """Reads runs of certain ASCII characters off the tree of an expression."""

    def __init__(self, writer: Writer, codes: frozenset[int]) -> None:
        self._writer = writer
        self._codes = codes

    def of_all(self, nodes: Iterable[Any]) -> _Run:
        """The runs of nodes that stand one behind the other."""
        found = _Run()
        for op, argument in nodes:
            found = found.then(self._of(str(op), argument))
        return found

    def _of(self, op: str, argument: Any) -> _Run:
        match op:
            case "LITERAL" | "IN":
                is_one = _is_within(self._writer.members(op, argument, 0), self._codes)
                return _Run(1, 1, 1) if is_one else _NO_RUN
            case "AT":
                return _Run()
            case "SUBPATTERN":
                return self.of_all(argument[3])
            case "BRANCH":
                ways = [self.of_all(branch) for branch in argument[1]]
                first, last, inside, _ = (min(sizes) for sizes in zip(*ways, strict=True))
                return _Run(first, last, inside, all(way.is_whole for way in ways))
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeated(int(argument[0]), self.of_all(argument[2]))
            case _:
                return _NO_RUN

    def _repeated(self, least: int, body: _Run) -> _Run:
        if body.is_whole:
            return _Run(least * body.first, least * body.last, least * body.inside)
        return body if least == 1 else body.then(body) if least else _NO_RUN
