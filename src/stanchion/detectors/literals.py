"""Required literals: words of which every match of an expression holds at least one.

A text without any of them needs no look with the expression at all. The words are read off the tree of the
expression, as RE2's prefilter and Hyperscan's own literal search do: https://swtch.com/~rsc/regexp/regexp4.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stanchion.detectors.bytefilter import UNREADABLE, as_tree

MOST = 80  # words for one expression; more would be found too often and cost as much as the expression
_SHORTEST = 4  # characters of a word
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


def required_literals(pattern: str, flags: Sequence[str]) -> frozenset[str] | None:
    """Lower-case ASCII words; every match holds one of them, in some case. None without good ones."""
    try:
        words = _required(list(as_tree(pattern, flags)[0]))
    except UNREADABLE:
        return None
    return words if words is not None and len(words) <= MOST else None


def shortest(words: Iterable[str]) -> list[str]:
    """The words without those that hold another one, in order."""
    alone = frozenset(words)
    return sorted(word for word in alone if not any(other != word and other in word for other in alone))


def as_expression(word: str) -> bytes:
    """The word for Hyperscan."""
    return "".join(sign if sign.isalnum() else f"\\x{ord(sign):02x}" for sign in word).encode()


def _required(nodes: list[Any]) -> _Exact | None:
    """The best words of a sequence: of all pieces of it the one that is found the least often."""
    return min(_candidates(nodes), key=_cost, default=None)


def _candidates(nodes: list[Any]) -> Iterable[_Exact]:
    run: _Exact = frozenset(("",))
    for node in _flat(nodes):
        exact = _exact(node)
        crossed = None if exact is None else frozenset(a + b for a in run for b in exact)
        if crossed is not None and len(crossed) <= _CROSSED:
            run = crossed
            continue
        yield from _useful(run)
        run = frozenset(("",)) if exact is None else exact
        inner = _inner(node)
        if inner is not None:
            yield inner
    yield from _useful(run)


def _flat(nodes: list[Any]) -> Iterable[Any]:
    """The nodes, with those of groups in place of the groups."""
    for op, argument in nodes:
        if str(op) == "SUBPATTERN":
            yield from _flat(list(argument[3]))
        else:
            yield op, argument


def _useful(words: _Exact) -> Iterable[_Exact]:
    """The words, cut to a fair length, where all of them are long enough and none is everywhere."""
    cut = frozenset(word[:_LONGEST] for word in words)
    if cut and all(len(word) >= _SHORTEST and word.strip() not in _COMMON for word in cut):
        yield frozenset(shortest(cut))


def _cost(words: _Exact) -> float:
    return sum(12.0 ** -len(word.strip()) for word in words)


def _exact(node: Any) -> _Exact | None:
    """Every text that the node can match, in lower case; None where they are many or not ASCII."""
    op, argument = str(node[0]), node[1]
    match op:
        case "AT":
            return frozenset(("",))
        case "LITERAL":
            return frozenset((chr(argument).lower(),)) if argument < 128 else None
        case "IN":
            return _members(argument)
        case "BRANCH":
            return _union(_exact_sequence(list(branch)) for branch in argument[1])
        case "MAX_REPEAT" | "MIN_REPEAT" if argument[1] == 1:
            body = _exact_sequence(list(argument[2]))
            return body if body is None or argument[0] else body | {""}
        case _:
            return None


def _exact_sequence(nodes: list[Any]) -> _Exact | None:
    run: _Exact = frozenset(("",))
    for node in _flat(nodes):
        exact = _exact(node)
        if exact is None:
            return None
        run = frozenset(a + b for a in run for b in exact)
        if len(run) > _CROSSED:
            return None
    return run


def _members(items: Any) -> _Exact | None:
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
    return frozenset(chr(code).lower() for code in codes)


def _inner(node: Any) -> _Exact | None:
    """The words that a node which is no plain text still needs."""
    op, argument = str(node[0]), node[1]
    if op in ("MAX_REPEAT", "MIN_REPEAT"):
        return _required(list(argument[2])) if argument[0] > 0 else None
    if op == "BRANCH":
        return _union((_required(list(branch)) for branch in argument[1]), most=MOST)
    return None


def _union(parts: Iterable[_Exact | None], most: int = _CROSSED) -> _Exact | None:
    found: frozenset[str] = frozenset()
    for part in parts:
        if part is None or len(found) > most:
            return None
        found |= part
    return found if len(found) <= most else None
