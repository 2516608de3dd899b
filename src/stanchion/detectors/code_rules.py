"""The rules of `data/code_rules.yaml`: which calls and which lines of code are dangerous, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.finding import Severity
from stanchion.core.resources import read_data_bytes
from stanchion.core.taxonomy import category
from stanchion.detectors.code_tokens import Stripped

_FILE = "code_rules.yaml"
_MOST_HITS = 1000  # of one rule in one piece of code; the last one goes on to the end


class CodeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule; `calls` and `when` for Python's syntax tree, `pattern` and `languages` for tokens."""

    id: str
    category: str
    severity: Severity
    score: float
    cwe: str
    reason: str
    calls: tuple[str, ...] = ()
    when: str = "always"
    languages: tuple[str, ...] = ()
    pattern: str = ""
    view: str = "plain"
    needs: str = ""
    unless: str = ""
    only_unparsed: bool = False
    example: str = ""
    counter: str = ""


class Danger(NamedTuple):
    """A rule that holds in a piece of code: half-open span, score, and what else to say."""

    rule: CodeRule
    start: int
    end: int
    score: float
    note: str = ""


class CodeRules(NamedTuple):
    """The file: Python's calls by name, token rules by language, and its digest."""

    calls: Mapping[str, tuple[CodeRule, ...]]
    tokens: Mapping[str, tuple[CodeRule, ...]]
    all: tuple[CodeRule, ...]
    digest: str


@lru_cache(maxsize=1)
def code_rules() -> CodeRules:
    """The packaged rules."""
    import yaml

    raw = read_data_bytes(_FILE)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    file: dict[str, Any] = yaml.load(raw, Loader=loader)  # noqa: S506 - a safe loader, in C
    python = msgspec.convert(file["python"], tuple[CodeRule, ...])
    tokens = msgspec.convert(file["tokens"], tuple[CodeRule, ...])
    calls: dict[str, tuple[CodeRule, ...]] = {}
    for rule in python:
        category(rule.category, where=rule.id)
        for name in rule.calls:
            calls[name] = (*calls.get(name, ()), rule)
    by_language: dict[str, tuple[CodeRule, ...]] = {}
    for rule in tokens:
        category(rule.category, where=rule.id)
        for language in rule.languages:
            by_language[language] = (*by_language.get(language, ()), rule)
    return CodeRules(calls, by_language, (*python, *tokens), digest_bytes(raw))


def token_dangers(stripped: Stripped, language: str, *, is_parsed: bool = False) -> Iterator[Danger]:
    """What the token rules of a language find, in order of the rules."""
    for rule in code_rules().tokens.get(language, ()):
        if rule.only_unparsed and is_parsed:
            continue
        text = stripped.masked if rule.view == "masked" else stripped.plain
        if rule.needs and not compiled(rule.needs).search(stripped.plain):
            continue
        for number, match in enumerate(compiled(rule.pattern).finditer(text)):
            if number >= _MOST_HITS:
                yield Danger(rule, match.start(), len(text), rule.score)
                break
            if not (rule.unless and compiled(rule.unless).search(match.group())):
                yield Danger(rule, match.start(), max(match.end(), match.start() + 1), rule.score)


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """A pattern of RE2, whose time is linear in the text; `^` and `$` mean lines."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    return re2.compile(f"(?m){pattern}", options)
