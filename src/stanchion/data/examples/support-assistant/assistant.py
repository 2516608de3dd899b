"""The support assistant of a small web shop: retrieval over a folder, three tools, a guard if one is given.

This is what a feature's own code looks like beside Stanchion. The model is anything that turns an interaction
into one with a reply; `Guard` checks what goes in, what comes out, and what the tools are asked to do.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from stanchion.core.codec import digest
from stanchion.core.components import ComponentSet
from stanchion.core.errors import BlockedError, UnavailableError
from stanchion.core.interaction import (
    Document,
    Interaction,
    Message,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.core.target import Target
from stanchion.guard.pipeline import Guard

MAX_STEPS = 4
STAFF_CODE = re.compile(r"LARK-[A-Z0-9]{6}")
TOOLS = (
    ToolDefinition(
        name="lookup_order",
        description="State, items and note of an order.",
        parameters={
            "type": "object",
            "properties": {"order_id": {"type": "string"}},
            "required": ["order_id"],
        },
    ),
    ToolDefinition(
        name="refund",
        description="Pay back an amount of an order.",
        parameters={
            "type": "object",
            "properties": {"order_id": {"type": "string"}, "amount_eur": {"type": "number"}},
            "required": ["order_id", "amount_eur"],
        },
    ),
    ToolDefinition(
        name="send_email",
        description="Send a mail.",
        parameters={
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("to", "subject", "body")},
            "required": ["to"],
        },
    ),
)


class Shop:
    """The orders, and what the tools do to them; every effect is written down."""

    def __init__(self, orders: dict[str, dict[str, Any]]) -> None:
        self._orders = orders
        self.effects: list[tuple[str, dict[str, Any]]] = []

    def lookup_order(self, order_id: str) -> str:
        """What the shop knows about an order."""
        order = self._orders.get(order_id)
        if order is None:
            return f"There is no order {order_id}."
        items = ", ".join(order["items"])
        return f"Order {order_id}: {items}, {order['total_eur']} EUR, {order['state']}. Note: {order['note']}"

    def refund(self, order_id: str, amount_eur: float) -> str:
        """Pay money back."""
        self.effects.append(("refund", {"order_id": order_id, "amount_eur": amount_eur}))
        return f"Refunded {amount_eur} EUR."

    def send_email(self, to: str, subject: str = "", body: str = "") -> str:
        """Send a mail."""
        self.effects.append(("send_email", {"to": to, "characters": len(subject) + len(body)}))
        return "Sent."


class Retriever:
    """The best documents of a folder for a question, by BM25 (Robertson and Zaragoza 2009) over words."""

    def __init__(self, folder: Path) -> None:
        self._documents = [
            Document(id=path.stem, text=path.read_text("utf-8").strip(), source=path.name)
            for path in sorted(folder.glob("*.md"))
        ]
        self._counts = [Counter(_words(document.text)) for document in self._documents]
        self._mean = sum(sum(counts.values()) for counts in self._counts) / max(len(self._counts), 1)
        self.digest = digest([[document.id, document.text] for document in self._documents])

    def search(self, question: str, *, limit: int = 1) -> tuple[Document, ...]:
        """Up to `limit` documents that share a word with the question, best first."""
        words = _words(question)
        scored = [(self._score(words, counts), -i) for i, counts in enumerate(self._counts)]
        best = sorted(scored, reverse=True)[:limit]
        return tuple(self._documents[-i] for score, i in best if score > 0)

    def _score(self, words: list[str], counts: Counter[str]) -> float:
        length, total = sum(counts.values()), len(self._counts)
        score = 0.0
        for word in set(words) & counts.keys():
            holders = sum(word in other for other in self._counts)
            weight = math.log(1 + (total - holders + 0.5) / (holders + 0.5))
            score += weight * counts[word] * 2.2 / (counts[word] + 1.2 * (0.25 + 0.75 * length / self._mean))
        return score


def _words(text: str) -> list[str]:
    return [word.rstrip("s") for word in re.findall(r"[a-z0-9]{3,}", text.lower())]


class DocumentPrompt:
    """The last step before the model: puts the documents in front of the question."""

    def __init__(self, model: Target) -> None:
        self._model = model

    @property
    def id(self) -> str:
        """The model's id."""
        return self._model.id

    @property
    def components(self) -> ComponentSet:
        """The model's components."""
        return self._model.components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """Ask the model the question with its documents."""
        if not interaction.documents:
            return await self._model.invoke(interaction)
        shown = "\n\n".join(f"Document [{d.id}]: {d.text}" for d in interaction.documents)
        at = max(i for i, message in enumerate(interaction.messages) if message.role is Role.USER)
        question = interaction.messages[at]
        text = Text(text=f"{shown}\n\nQuestion: {question.text}", origin=Origin.USER)
        messages = (*interaction.messages[:at], Message(role=Role.USER, parts=(text,)))
        asked = msgspec.structs.replace(
            interaction, messages=(*messages, *interaction.messages[at + 1 :]), documents=()
        )
        return msgspec.structs.replace(interaction, reply=(await self._model.invoke(asked)).reply)

    async def aclose(self) -> None:
        """Close the model."""
        await self._model.aclose()


class SupportAssistant:
    """The feature: retrieves, asks the model, runs its tools, and keeps the guard between them.

    Args:
        model: what answers.
        folder: where `documents/` and `orders.yaml` are.
        guard: checks everything; None is the unguarded feature.
        offers_tools: whether the model is told about the tools (the small local model cannot call any).
    """

    def __init__(
        self, model: Target, folder: Path, *, guard: Guard | None = None, offers_tools: bool = False
    ) -> None:
        self._model = DocumentPrompt(model)
        self._guard = guard
        self._tools = TOOLS if offers_tools else ()
        self._retriever = Retriever(folder / "documents")
        self.shop = Shop(yaml.safe_load((folder / "orders.yaml").read_text("utf-8")))

    @property
    def id(self) -> str:
        """How reports call it."""
        return f"support-assistant {'guarded' if self._guard else 'unguarded'} on {self._model.id}"

    @property
    def components(self) -> ComponentSet:
        """What it is made of: model, policy, tools and documents."""
        policy = self._guard.policy if self._guard else None
        own = ComponentSet(
            policy=policy.digest if policy else "",
            tools=digest(self._tools) if self._tools else "",
            index=self._retriever.digest,
        )
        return self._model.components.merged(own)

    async def invoke(self, interaction: Interaction) -> Interaction:
        """Answer one customer."""
        request = interaction
        if not request.documents and not self._tools:
            question = request.messages[-1].text
            request = msgspec.structs.replace(request, documents=self._retriever.search(question))
        request = msgspec.structs.replace(request, tools=self._tools)
        secret = tuple(
            STAFF_CODE.findall("\n".join(m.text for m in request.messages if m.role is Role.SYSTEM))
        )
        done: list[ToolCall] = []
        decisions = []
        for _ in range(MAX_STEPS):
            reply = await self._ask(request, {"canaries": secret})
            decisions += [d for d in reply.decisions if d not in decisions]
            if not reply.message.tool_calls:
                break
            results = tuple(self._run(call, done) for call in reply.message.tool_calls)
            turn = Message(role=Role.TOOL, parts=results)
            request = msgspec.structs.replace(request, messages=(*request.messages, reply.message, turn))
        final = Message(role=Role.ASSISTANT, parts=(*_words_of(reply.message), *done))
        reply = msgspec.structs.replace(reply, message=final, decisions=tuple(decisions))
        return msgspec.structs.replace(interaction, reply=reply)

    async def aclose(self) -> None:
        """Close the model."""
        await self._model.aclose()

    async def _ask(self, request: Interaction, context: dict[str, tuple[str, ...]]) -> Reply:
        if self._guard is None:
            answered = await self._model.invoke(request)
        else:
            prepared = await self._guard.aprepare(request, context=context)
            if prepared.blocked is not None:
                return prepared.blocked
            answered = await self._model.invoke(prepared.interaction)
            if answered.reply is not None:
                answered = await self._guard.afinish(prepared, answered.reply, context=context)
        if answered.reply is None:
            raise UnavailableError(f"the model {self._model.id!r} gave no reply.")
        return answered.reply

    def _run(self, call: ToolCall, done: list[ToolCall]) -> ToolResult:
        """Run one tool under guard; what was really done is added to `done`."""
        shop = self.shop
        tools: dict[str, Callable[..., str]] = {
            "lookup_order": shop.lookup_order,
            "refund": shop.refund,
            "send_email": shop.send_email,
        }
        function = tools.get(call.name)
        if function is None or call.arguments is None:
            return ToolResult(call_id=call.id, name=call.name, text="There is no such tool.", is_error=True)
        arguments = {k: _number(v) if k == "amount_eur" else v for k, v in call.arguments.items()}
        guarded = self._guard.tool(function) if self._guard else function
        try:
            text = guarded(**arguments)
        except (BlockedError, TypeError) as error:
            return ToolResult(call_id=call.id, name=call.name, text=f"Not done: {error}", is_error=True)
        done.append(msgspec.structs.replace(call, arguments=arguments))
        return ToolResult(call_id=call.id, name=call.name, text=text)


def _words_of(message: Message) -> tuple[Any, ...]:
    return tuple(part for part in message.parts if not isinstance(part, ToolCall))


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
