"""Names of OpenTelemetry's conventions for generative AI, pinned here and nowhere else.

Sources, both still "development": the spans and metrics of open-telemetry/semantic-conventions-genai
(`docs/gen-ai/gen-ai-spans.md`, `client-inference.md`, read 2026-11) and, for guardrails, its open proposal
#427 (`docs/gen-ai/gen-ai-security.md`), which keeps the verdict of a guard apart from the action of its
caller. Names of the proposal may change; then this file changes, and nothing else.

A `Profile` is which edition is emitted. As the conventions ask, the variable `OTEL_SEMCONV_STABILITY_OPT_IN`
chooses it: with `gen_ai_latest_experimental` the newest names, without it those of release 1.37.
"""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """Which edition of the conventions is emitted."""

    V1_37 = "1.37"
    LATEST = "latest"


LATEST_TOKEN = "gen_ai_latest_experimental"  # noqa: S105 a word of the conventions, no secret

# --- inference ----------------------------------------------------------------------------------------------
OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
CONVERSATION_ID = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
PROMPT_NAME = "gen_ai.prompt.name"
PROMPT_VERSION = "gen_ai.prompt.version"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 the name of an attribute
ERROR_TYPE = "error.type"

# --- guardrails (proposal #427) -----------------------------------------------------------------------------
GUARDRAIL_NAME = "gen_ai.guardrail.component.name"
TARGET_TYPE = "gen_ai.guardrail.target.type"
TARGET_SUBTYPE = "gen_ai.guardrail.target.subtype"
VERDICT_TYPE = "gen_ai.guardrail.verdict.type"
VERDICT_CODE = "gen_ai.guardrail.verdict.code"
ACTION_TYPE = "gen_ai.guardrail.action.type"
INPUT_HASH = "gen_ai.guardrail.security.content.input.hash"
OUTPUT_HASH = "gen_ai.guardrail.security.content.output.hash"
CONTENT_MODIFIED = "gen_ai.guardrail.security.content.modified"
POLICY_ID = "gen_ai.guardrail.security.policy.id"
RULE_ID = "gen_ai.guardrail.security.policy.rule.id"
RISK_CATEGORY = "gen_ai.guardrail.security.risk.category"
RISK_SCORE = "gen_ai.guardrail.security.risk.score"
FINDING_ID = "gen_ai.guardrail.security.external_finding_id"

# --- events -------------------------------------------------------------------------------------------------
EVALUATION_EVENT = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_SCORE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"

# --- our own, where the conventions have no word ------------------------------------------------------------
REFERENCE = "stanchion.reference"
OUTCOME = "stanchion.outcome"
STAGE = "stanchion.stage"
FEATURE = "stanchion.feature"
GUARANTEE = "stanchion.stream.guarantee"
COMPONENTS = "stanchion.components.digest"
IS_GATED = "stanchion.components.is_gated"
SWITCH_VERSION = "stanchion.switch.version"
SWITCH_ID = "stanchion.switch.id"
CHECKS_EXPECTED = "stanchion.checks.expected"
CHECKS_RAN = "stanchion.checks.ran"
CHECKS_DID_NOT_RUN = "stanchion.checks.did_not_run"
GUARD_SECONDS = "stanchion.guard.duration"
COST_USD = "stanchion.usage.cost_usd"

# --- operations ---------------------------------------------------------------------------------------------
CHAT = "chat"
EMBEDDINGS = "embeddings"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
RUN_GUARDRAIL = "run_guardrail"

# --- metrics ------------------------------------------------------------------------------------------------
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 the name of a metric
OPERATION_DURATION = {
    Profile.V1_37: "gen_ai.client.operation.duration",
    Profile.LATEST: "gen_ai.client.inference.duration",
}
# The boundaries that the conventions advise, in seconds and tokens.
DURATION_BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip


def profile_of(opt_in: str) -> Profile:
    """The edition that a value of `OTEL_SEMCONV_STABILITY_OPT_IN` asks for."""
    asked = {word.strip() for word in opt_in.split(",")}
    return Profile.LATEST if LATEST_TOKEN in asked else Profile.V1_37
