"""OpenInference: the same span in the words of another convention, beside OpenTelemetry's.

Source: the semantic conventions of the project Arize-ai/openinference, `spec/semantic_conventions.md`.
Only what we know is said: kinds, names, counts and costs; never the text of a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stanchion.telemetry import names

Value = str | bool | int | float | Sequence[str]
KIND = "openinference.span.kind"
_SAID = {
    names.INPUT_TOKENS: "llm.token_count.prompt",
    names.OUTPUT_TOKENS: "llm.token_count.completion",
    names.CACHE_READ_TOKENS: "llm.token_count.prompt_details.cache_read",
    names.COST_USD: "llm.cost.total",
    names.CONVERSATION_ID: "session.id",
    names.TOOL_NAME: "tool.name",
    names.PROMPT_NAME: "llm.prompt_template.name",
    names.PROMPT_VERSION: "llm.prompt_template.version",
}
_KINDS = {
    names.RUN_GUARDRAIL: "GUARDRAIL",
    names.EXECUTE_TOOL: "TOOL",
    names.INVOKE_AGENT: "AGENT",
    names.EMBEDDINGS: "EMBEDDING",
    names.CHAT: "LLM",
}
_MODEL_NAMES = {"LLM": "llm.model_name", "EMBEDDING": "embedding.model_name"}


def openinference(attributes: Mapping[str, Value], *, is_server: bool) -> dict[str, Value]:
    """The further attributes of a span.

    Args:
        attributes: its attributes by OpenTelemetry's names.
        is_server: whether it is the gateway's own span of a request, which is a CHAIN of steps.
    """
    operation = str(attributes.get(names.OPERATION_NAME, ""))
    kind = "CHAIN" if is_server else _KINDS.get(operation, "CHAIN")
    said: dict[str, Value] = {KIND: kind}
    said |= {theirs: attributes[ours] for ours, theirs in _SAID.items() if ours in attributes}
    model = attributes.get(names.REQUEST_MODEL)
    if kind in _MODEL_NAMES and model is not None:
        said[_MODEL_NAMES[kind]] = model
        if names.PROVIDER_NAME in attributes:
            said["llm.provider"] = attributes[names.PROVIDER_NAME]
    asked, answered = attributes.get(names.INPUT_TOKENS), attributes.get(names.OUTPUT_TOKENS)
    if isinstance(asked, int) and isinstance(answered, int):
        said["llm.token_count.total"] = asked + answered
    return said
