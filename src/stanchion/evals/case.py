"""One test item: what is asked, what is expected of the answer, and how it is counted."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.codec import Digest, canonical_json, digest_bytes
from stanchion.core.interaction import Document, Interaction, Message, Sampling, ToolDefinition

ID_PREFIX = "c_"
_ID_DIGITS = 20


class ArgumentRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one argument of a tool call must be; all that is given must hold.

    `equals` and `one_of` compare JSON values; `contains` and `regex` (RE2, searched) read the value as text;
    `at_least` and `at_most` read it as a number; `absent` asks that it is not there.
    """

    equals: Any = msgspec.UNSET
    one_of: tuple[Any, ...] = ()
    contains: str = ""
    regex: str = ""
    at_least: float | None = None
    at_most: float | None = None
    absent: bool = False


class CallRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tool call by its name (`*` for any tool) and, if given, its arguments; dots reach into objects."""

    tool: str
    arguments: dict[str, ArgumentRule] = msgspec.field(default_factory=dict)


class Expectation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the scorers of a case check; each scorer reads its own fields and leaves the others alone.

    `label`: what the item is in truth, `safe` or `unsafe` (detection). `refusal`: whether the answer should
    refuse. `exact`: the answer is one of these. `contains`: all of these are in it, `contains_any`: at
    least one, `excludes`: none. `regex`, `excludes_regex`: RE2 patterns, searched. `json_schema`: the answer
    is JSON that fits. `calls`: each was made; `no_calls`: none was made. `citations`: documents that must be
    cited. `reference`: a good answer, for a judge. `human`: what people said, `safe` or `unsafe`, by rater.
    """

    label: str = ""
    refusal: bool | None = None
    exact: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    contains_any: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    excludes_regex: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    calls: tuple[CallRule, ...] = ()
    no_calls: tuple[CallRule, ...] = ()
    citations: tuple[str, ...] = ()
    reference: str = ""
    human: dict[str, str] = msgspec.field(default_factory=dict)


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One test item, ready to be asked.

    `digest` covers what is asked and expected, not the suite's own system prompt, tools and documents: a case
    keeps its identity when the feature changes. `pairing_key` finds the case again in another run.
    `twin_of` names the harmful case that this harmless one resembles. `canaries` maps a canary's name to the
    value that stands for it in this case. `where` is the file and line it came from.
    """

    id: str
    messages: tuple[Message, ...]
    digest: Digest = ""
    documents: tuple[Document, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = Sampling()
    expect: Expectation = Expectation()
    category: str = ""
    tags: tuple[str, ...] = ()
    cluster: str = ""
    language: str = ""
    source: str = ""
    split: str = ""
    twin_of: str = ""
    pairing_key: str = ""
    canaries: dict[str, str] = msgspec.field(default_factory=dict)
    where: str = ""

    @property
    def key(self) -> str:
        """What pairs the case between runs."""
        return self.pairing_key or self.id

    def interaction(self, *, environment: str = "dev", feature: str = "") -> Interaction:
        """The case as a request."""
        return Interaction(
            messages=self.messages,
            documents=self.documents,
            tools=self.tools,
            sampling=self.sampling,
            environment=environment,
            feature=feature,
        )


def content_digest(content: Any) -> Digest:
    """The identity of a case's own content."""
    return digest_bytes(canonical_json(content))


def case_id(content: Digest) -> str:
    """The name of a case that was given none: `c_` and the first twenty hex digits of its digest."""
    return ID_PREFIX + content.removeprefix("sha256:")[:_ID_DIGITS]
