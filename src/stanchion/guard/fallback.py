"""Safe completions: what a user reads in place of an answer, and what they can do next.

Templates are data (`data/safe_completions/<language>.yaml`): per category or family, per style, with
`{variables}`. A feature's own words (`safe_completions.messages` of its policy) go before the packaged ones.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from stanchion.core.decision import Surface
from stanchion.core.errors import UsageError, did_you_mean
from stanchion.core.resources import data_path, read_data_text
from stanchion.core.taxonomy import matches
from stanchion.guard.policy_model import SafeCompletions

STYLES = ("short", "offer_help", "hand_over")
BUILTIN_VARIABLES = ("reference", "contact", "product")
_OF_ANSWERS = {"input.limit": "answer.limit", "input.media": "answer.media"}
_SENTENCE_BEGINS = re.compile(r"(?:\A|[.!?]\s+)\Z")
_PLAIN_WORD = re.compile(r"(?=[^\W\d_])(?:(?![A-Z])[^\W\d_]|['\u2019-])+(?=[\s,]|\Z)")


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of one language. `completions` maps `default`, a family or a category to texts by style.

    `states` are said in an answer's place by the gateway, `transparency` is added to answers by it.
    """

    language: str
    version: int
    variables: dict[str, str]
    completions: dict[str, dict[str, str]]
    notices: dict[str, str]
    states: dict[str, str]
    transparency: dict[str, str]
    reference: str


@lru_cache(maxsize=16)
def catalogue(language: str) -> Catalogue:
    """The texts of a language.

    Raises:
        UsageError: when the package has none for it.
    """
    import yaml

    if language not in languages():
        raise UsageError(f"no safe completions in {language!r}.", hint=did_you_mean(language, languages()))
    rows = yaml.safe_load(read_data_text("safe_completions", f"{language}.yaml"))
    return msgspec.convert(rows, Catalogue, strict=True)


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """The languages that have texts, as two-letter codes."""
    names = (entry.name for entry in data_path("safe_completions").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


class Fallback:
    """Chooses and fills texts for one policy."""

    def __init__(self, settings: SafeCompletions) -> None:
        self._settings = settings

    def completion(
        self,
        category: str,
        *,
        reference: str,
        message: str = "",
        language: str = "",
        style: str = "",
        is_of_answer: bool = False,
    ) -> str:
        """The words for the user. `message` is a rule's own text and goes before everything.

        `is_of_answer`: it was found in what the model said, so the words ask for no other question or file.
        Crisis texts (self-harm) keep their style whatever is asked. A language without texts falls back to
        the policy's.
        """
        texts = catalogue(language if language in languages() else self._settings.language)
        named = _OF_ANSWERS.get(category, category) if is_of_answer else category
        template = message or self._own(category) or _packaged(texts, named, style or self._settings.style)
        words = fill(template, self._variables(texts, reference))
        if "{reference}" in template or not reference:
            return words
        return f"{words} {fill(texts.reference, {'reference': reference})}"

    def notice(self, surface: Surface, *, reference: str, language: str = "") -> str:
        """What stands in the prompt where a document, a tool's answer or its description was taken out."""
        texts = catalogue(language if language in languages() else self._settings.language)
        template = texts.notices.get(surface.value, texts.notices["default"])
        return fill(template, self._variables(texts, reference))

    def state(self, name: str, *, language: str = "", **variables: str) -> str:
        """How something stands that waits, was handed over, or was switched off; see `Catalogue.states`."""
        texts = catalogue(language if language in languages() else self._settings.language)
        return fill(texts.states[name], {**self._variables(texts, ""), **variables})

    def transparency(self, name: str, *, language: str = "", **variables: str) -> str:
        """A notice that is added to answers; see `Catalogue.transparency`."""
        texts = catalogue(language if language in languages() else self._settings.language)
        return fill(texts.transparency[name], {**self._variables(texts, ""), **variables})

    def _own(self, category: str) -> str:
        fitting = [selector for selector in self._settings.messages if matches(selector, category)]
        name = max(fitting, key=len) if fitting else "default"
        return self._settings.messages.get(name, "")

    def _variables(self, texts: Catalogue, reference: str) -> Mapping[str, str]:
        return {**texts.variables, **self._settings.variables, "reference": reference}


def _packaged(texts: Catalogue, category: str, style: str) -> str:
    family = category.partition(".")[0]
    for name in (category, family, "default"):
        found = texts.completions.get(name)
        if found is not None:
            return found.get("crisis") or found.get(style) or found.get("offer_help") or found["short"]
    raise UsageError(f"the safe completions in {texts.language!r} have no default.")


def fill(template: str, variables: Mapping[str, str]) -> str:
    """A template with its `{variables}` filled; unknown ones stay, and nothing else is evaluated.

    A variable that begins a sentence gets a capital letter when its first word is a plain one: no address, no
    name with capitals of its own.
    """
    words = ""
    for literal, name, _, _ in string.Formatter().parse(template):
        words += literal
        if name is not None:
            value = variables.get(name, "{" + name + "}")
            words += _capital(value) if _SENTENCE_BEGINS.search(words) else value
    return words


def _capital(value: str) -> str:
    return value[:1].upper() + value[1:] if _PLAIN_WORD.match(value) else value


def template_fault(template: str, settings: SafeCompletions) -> tuple[str, str] | None:
    """What is wrong with a template and what to do; None when every variable can be filled."""
    known = {*BUILTIN_VARIABLES, *settings.variables}
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"the braces do not fit: {error}.", "Write '{{' for a brace itself."
    unknown = next((name for name in names if name not in known), None)
    if unknown is None:
        return None
    return f"nothing fills the variable {unknown!r}.", did_you_mean(unknown, known)
