"""From a case as it is written to a case that can be asked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core.codec import digest_text
from stanchion.core.interaction import (
    Document,
    Message,
    Part,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.evals import canaries as canary_values
from stanchion.evals.case import Case, Expectation, case_id, content_digest
from stanchion.evals.suite_file import (
    CaseModel,
    DefaultsModel,
    DocumentModel,
    SamplingModel,
    SplitsModel,
    SuiteFile,
    ToolModel,
)
from stanchion.evals.templates import render, render_all

_ORIGIN = {"system": Origin.SYSTEM, "user": Origin.USER, "assistant": Origin.MODEL}
_NOTHING = Expectation()


class CaseMaker:
    """Renders, identifies and plants canaries in the cases of one suite.

    Args:
        suite: the suite's file.
        values: what templates of this file see (`vars`, the suite's and the included file's).
        defaults: what a case is when it does not say.
    """

    def __init__(
        self, suite: SuiteFile, *, values: Mapping[str, Any], defaults: DefaultsModel | None = None
    ) -> None:
        self._suite = suite
        self._values = {**values, "canary": canary_values.marks(suite.canaries)}
        self._defaults = defaults or DefaultsModel()
        self._default_expect = _expectation(self._defaults.expect, self._values)
        self._tools = tuple(_tool(tool) for tool in suite.tools)
        self._sampling = _sampling(suite.sampling)
        self._frame = self._put_before(self._values)

    def make(self, model: CaseModel, *, where: str, is_template: bool = True) -> Case:
        """The case.

        `is_template` False takes the case's own texts as data: nothing in them is looked up.

        Raises:
            TemplateError: for a name without a value.
        """
        values = {**self._values, **model.vars} if model.vars else self._values
        own = _own_content(model)
        if is_template:
            own = render_all(own, values)
        expect = self._expect(own.get("expect"))
        digest = content_digest({**own, "expect": expect})
        name = model.id or case_id(digest)
        planted = canary_values.mint(self._suite.canaries, seed=self._suite.seed, case_id=name)
        frame = self._put_before(values) if model.vars else self._frame
        defaults = self._defaults
        case = Case(
            id=name,
            digest=digest,
            expect=_planted(expect, planted),
            canaries=planted,
            **_put_together(own, frame, planted, documents_in=self._suite.documents_in),
            tools=tuple(_tool(tool) for tool in model.tools) if model.tools is not None else self._tools,
            sampling=_sampling(model.sampling, self._sampling),
            category=model.category or defaults.category,
            tags=tuple(dict.fromkeys((*defaults.tags, *model.tags))),
            cluster=model.cluster or defaults.cluster,
            language=model.language or defaults.language,
            source=model.source or defaults.source,
            twin_of=model.twin_of,
            pairing_key=model.pairing_key,
            where=where,
        )
        return _with_split(case, model.split, self._suite.splits, self._suite.seed)

    def with_defaults(self, defaults: DefaultsModel) -> CaseMaker:
        """The same maker, with a dataset's defaults over the file's own."""
        own = self._defaults
        if not defaults.model_fields_set:
            return self
        merged = {**own.model_dump(exclude_unset=True), **defaults.model_dump(exclude_unset=True)}
        merged["tags"] = (*own.tags, *defaults.tags)
        return CaseMaker(self._suite, values=self._values, defaults=DefaultsModel.model_validate(merged))

    def _put_before(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The suite's own system prompt and documents, rendered."""
        return {
            "system": render(self._suite.system, values),
            "documents": [_document(d, values) for d in self._suite.documents],
        }

    def _expect(self, own: Any) -> Expectation:
        if not own:
            return self._default_expect
        given = msgspec.convert(own, Expectation, strict=False)
        if self._default_expect == _NOTHING:
            return given
        merged = {**msgspec.to_builtins(self._default_expect), **msgspec.to_builtins(given)}
        return msgspec.convert(merged, Expectation, strict=False)


def _own_content(model: CaseModel) -> dict[str, Any]:
    """What the case itself says, as plain values; what it does not say is left out."""
    if model.prompt:
        messages: list[dict[str, Any]] = [{"role": "user", "text": model.prompt}]
    else:
        messages = [m.model_dump(exclude_defaults=True) for m in model.messages]
    own: dict[str, Any] = {"messages": messages}
    if model.system is not None:
        own["system"] = model.system
    if model.documents is not None:
        own["documents"] = [d.model_dump(exclude_defaults=True) for d in model.documents]
    if model.tools is not None:
        own["tools"] = [t.model_dump(exclude_defaults=True) for t in model.tools]
    if "expect" in model.model_fields_set:
        own["expect"] = model.expect.model_dump(exclude_unset=True)
    return own


def _put_together(
    own: Mapping[str, Any], frame: Mapping[str, Any], planted: Mapping[str, str], *, documents_in: str
) -> dict[str, Any]:
    """Messages and documents, with canaries planted."""
    system = own.get("system", frame["system"])
    if "documents" in own:
        documents = [_document(DocumentModel.model_validate(d), {}) for d in own["documents"]]
    else:
        documents = frame["documents"]
    turns = own["messages"]
    if planted:
        system = canary_values.plant(system, planted)
        turns = canary_values.plant_all(turns, planted)
        documents = [msgspec.structs.replace(d, text=canary_values.plant(d.text, planted)) for d in documents]
    shown = documents if documents_in == "prompt" else []
    last_user = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
    messages = [_message(turn, shown if index == last_user else []) for index, turn in enumerate(turns)]
    if system:
        part = Text(text=system, origin=Origin.SYSTEM)
        messages.insert(0, Message(role=Role.SYSTEM, parts=(part,)))
    return {"messages": tuple(messages), "documents": tuple(documents)}


def _message(turn: Mapping[str, Any], documents: list[Document]) -> Message:
    role, text = turn["role"], turn.get("text", "")
    if role == "tool":
        result = ToolResult(call_id=turn.get("call", ""), name=turn.get("tool", ""), text=text)
        return Message(role=Role.TOOL, parts=(result,))
    parts: list[Part] = [
        Text(text=f"[document {d.id}]\n{d.text}\n[/document]", origin=Origin.RETRIEVED, source=d.id)
        for d in documents
    ]
    if text or not turn.get("calls"):
        parts.append(Text(text=text, origin=_ORIGIN[role]))
    parts.extend(
        ToolCall(id=call["id"], name=call["tool"], arguments=call.get("arguments", {}))
        for call in turn.get("calls", ())
    )
    return Message(role=Role(role), parts=tuple(parts))


def _document(model: DocumentModel, values: Mapping[str, Any]) -> Document:
    text = render(model.text, values) if values else model.text
    return Document(id=model.id, text=text, source=model.source, digest=digest_text(text))


def _tool(model: ToolModel) -> ToolDefinition:
    return ToolDefinition(name=model.name, description=model.description, parameters=model.parameters)


def _sampling(model: SamplingModel | None, otherwise: Sampling | None = None) -> Sampling:
    base = otherwise or Sampling()
    if model is None:
        return base
    return msgspec.structs.replace(base, **model.model_dump(exclude_unset=True))


def _expectation(model: Any, values: Mapping[str, Any]) -> Expectation:
    given = render_all(model.model_dump(exclude_unset=True), values)
    return msgspec.convert(given, Expectation, strict=False)


def _planted(expect: Expectation, planted: Mapping[str, str]) -> Expectation:
    """The expectation with canaries in it, where it speaks of them."""
    if not planted:
        return expect
    plain = msgspec.to_builtins(expect)
    with_canaries = canary_values.plant_all(plain, planted)
    return expect if with_canaries == plain else msgspec.convert(with_canaries, Expectation, strict=False)


def _with_split(case: Case, split: str, splits: SplitsModel | None, seed: int) -> Case:
    if split or splits is None:
        return msgspec.structs.replace(case, split=split) if split else case
    key = {"source": case.source, "cluster": case.cluster, "id": case.id}[splits.by] or case.id
    return msgspec.structs.replace(case, split=assigned_split(splits.shares, f"{seed}\0{key}"))


def assigned_split(shares: Mapping[str, float], key: str) -> str:
    """The split that a key falls into; the same key always falls into the same one."""
    point = seeded_share(key)
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if point < reached:
            return name
    return list(shares)[-1]


def seeded_share(key: str) -> float:
    """A number in [0, 1) that depends on the key alone, evenly spread over keys."""
    raw = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return int.from_bytes(raw) / 2**56
