"""Required literals: words of which every match of an expression holds at least one.

A text without any of them needs no look with the expression at all. The words are read off the tree of the
expression, as RE2's prefilter and Hyperscan's own literal search do: https://swtch.com/~rsc/regexp/regexp4.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from stanchion.detectors.bytefilter import UNREADABLE, as_tree

MOST = 80  # words for one expression; more would be found too often and cost as much as the expression
_SHORTEST = 4  # characters of a word
_SHORTEST_CAPITALS = 3  # of one with at least two capitals, in an expression that minds the case
_CROSSED = 48  # words that one piece of an expression may stand for while it is read
_FEW = 6  # members of a class that are spelled out
_LONGEST = 12  # characters kept of a word

# Parts of words that most English texts hold: a look for them would say nothing.
_COMMON_TEXT = """
    able about after also been before being could does each even every first from have here into just
    like made make many more most much need only other over same should some such than that their them
    then there these they this time very want well were what when where which while will with word work
    would year your tion ment ness ould ight ough ever thin ther ting ring ning ally ence ance
"""
_COMMON = frozenset(_COMMON_TEXT.split())

_Exact = frozenset[str]


class Words(NamedTuple):
    """ASCII words of which every match holds one, as they stand or in any case (then in lower case)."""

    words: frozenset[str]
    caseless: bool


def required_literals(pattern: str, flags: Sequence[str]) -> Words | None:
    """The words of an expression; None without good ones.

    Those of an expression that minds the case are good only when each has capitals: such expressions are
    cheap to look for, unless words of prose are a part of them.
    """
    try:
        nodes, final = as_tree(pattern, flags)
    except UNREADABLE:
        return None
    caseless = bool(final & re.IGNORECASE)
    words = _Reader(caseless=caseless).required(nodes)
    if words is None or len(words) > MOST:
        return None
    return Words(words, caseless)


def shortest(words: Iterable[str]) -> list[str]:
    """The words without those that hold another one, in order."""
    alone = frozenset(words)
    return sorted(word for word in alone if not any(other != word and other in word for other in alone))


def as_expression(word: str) -> bytes:
    """The word for Hyperscan."""
    return "".join(sign if sign.isalnum() else f"\\x{ord(sign):02x}" for sign in word).encode()


class _Reader:
    """Reads words off the tree of an expression; `caseless` ones come in lower case."""

    def __init__(self, *, caseless: bool) -> None:
        self._caseless = caseless

    def required(self, nodes: list[Any]) -> _Exact | None:
        """The best words of a sequence: of all pieces of it the one that is found the least often."""
        return min(self._candidates(nodes), key=_cost, default=None)

    def _candidates(self, nodes: list[Any]) -> Iterable[_Exact]:
        run: _Exact = frozenset(("",))
        for node in self._flat(nodes):
            exact = self._exact(node)
            crossed = None if exact is None else frozenset(a + b for a in run for b in exact)
            if crossed is not None and len(crossed) <= _CROSSED:
                run = crossed
                continue
            yield from self._useful(run)
            run = frozenset(("",)) if exact is None else exact
            inner = self._inner(node)
            if inner is not None:
                yield inner
        yield from self._useful(run)

    def _flat(self, nodes: list[Any]) -> Iterable[Any]:
        """The nodes, with those of groups in place of the groups; one that minds no case stays a group."""
        for op, argument in nodes:
            if str(op) == "SUBPATTERN" and (self._caseless or not argument[1] & re.IGNORECASE):
                yield from self._flat(list(argument[3]))
            else:
                yield op, argument

    def _useful(self, words: _Exact) -> Iterable[_Exact]:
        """The words, cut to a fair length, where all of them are long enough and none is everywhere."""
        cut = frozenset(word[:_LONGEST] for word in words)
        if cut and all(self._is_rare(word) for word in cut):
            yield frozenset(shortest(cut))

    def _is_rare(self, word: str) -> bool:
        if self._caseless:
            return len(word) >= _SHORTEST and word.strip() not in _COMMON
        return len(word) >= _SHORTEST_CAPITALS and sum(map(str.isupper, word)) >= 2

    def _exact(self, node: Any) -> _Exact | None:
        """Every text that the node can match; None where they are many or not ASCII."""
        op, argument = str(node[0]), node[1]
        match op:
            case "AT":
                return frozenset(("",))
            case "LITERAL":
                return frozenset((self._letter(argument),)) if argument < 128 else None
            case "IN":
                return self._members(argument)
            case "BRANCH":
                return _union(self._exact_sequence(list(branch)) for branch in argument[1])
            case "MAX_REPEAT" | "MIN_REPEAT" if argument[1] == 1:
                body = self._exact_sequence(list(argument[2]))
                return body if body is None or argument[0] else body | {""}
            case _:
                return None

    def _letter(self, code: int) -> str:
        return chr(code).lower() if self._caseless else chr(code)

    def _exact_sequence(self, nodes: list[Any]) -> _Exact | None:
        run: _Exact = frozenset(("",))
        for node in self._flat(nodes):
            exact = self._exact(node)
            if exact is None:
                return None
            run = frozenset(a + b for a in run for b in exact)
            if len(run) > _CROSSED:
                return None
        return run

    def _members(self, items: Any) -> _Exact | None:
        codes: set[int] = set()
        for kind, value in items:
            if str(kind) == "LITERAL":
                codes.add(value)
            elif str(kind) == "RANGE" and value[1] - value[0] < _FEW:
                codes.update(range(value[0], value[1] + 1))
            else:
                return None
        if len(codes) > _FEW or any(code > 127 for code in codes):
            return None
        return frozenset(map(self._letter, codes))

    def _inner(self, node: Any) -> _Exact | None:
        """The words that a node which is no plain text still needs."""
        op, argument = str(node[0]), node[1]
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            return self.required(list(argument[2])) if argument[0] > 0 else None
        if op == "BRANCH":
            return _union((self.required(list(branch)) for branch in argument[1]), most=MOST)
        return None


def _cost(words: _Exact) -> float:
    return sum(12.0 ** -len(word.strip()) for word in words)


def _union(parts: Iterable[_Exact | None], most: int = _CROSSED) -> _Exact | None:
    found: frozenset[str] = frozenset()
    for part in parts:
        if part is None or len(found) > most:
            return None
        found |= part
    return found if len(found) <= most else None
