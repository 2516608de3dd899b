"""What becomes of each event of each API: one rule for every type that the vendors' clients know.

* `understood`: decoded into our own events.
* `carried`: says nothing of its own; what it says comes with another event, which is decoded.
* `unknown`: handed on as `UnknownEvent`, for the policy to pass or to block.

A type that is in none of the tables is handed on as unknown too. The tables exist so that nobody has to
guess: a test compares them with the event types of the installed clients and fails when one has no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Rule(StrEnum):
    """What becomes of an event."""

    UNDERSTOOD = "understood"
    CARRIED = "carried"
    UNKNOWN = "unknown"


def _table(*, understood: str, carried: str = "", unknown: str = "") -> Mapping[str, Rule]:
    rules = dict.fromkeys(understood.split(), Rule.UNDERSTOOD)
    rules |= dict.fromkeys(carried.split(), Rule.CARRIED)
    return rules | dict.fromkeys(unknown.split(), Rule.UNKNOWN)


# Event types of a streamed response. Events about the progress of built-in tools are carried by the item that
# `response.output_item.done` holds, which is handed on as unknown.
RESPONSES_EVENTS = _table(
    understood="""
        error
        response.completed response.created response.failed response.incomplete
        response.custom_tool_call_input.delta response.custom_tool_call_input.done
        response.function_call_arguments.delta response.function_call_arguments.done
        response.output_item.added response.output_item.done
        response.output_text.annotation.added response.output_text.delta response.output_text.done
        response.reasoning_summary_text.delta response.reasoning_summary_text.done
        response.reasoning_text.delta response.reasoning_text.done
        response.refusal.delta response.refusal.done
    """,
    carried="""
        response.code_interpreter_call.completed response.code_interpreter_call.in_progress
        response.code_interpreter_call.interpreting
        response.code_interpreter_call_code.delta response.code_interpreter_call_code.done
        response.compaction.compacting
        response.content_part.added response.content_part.done
        response.file_search_call.completed response.file_search_call.in_progress
        response.file_search_call.searching
        response.image_generation_call.completed response.image_generation_call.generating
        response.image_generation_call.in_progress
        response.in_progress
        response.mcp_call.completed response.mcp_call.failed response.mcp_call.in_progress
        response.mcp_call_arguments.delta response.mcp_call_arguments.done
        response.mcp_list_tools.completed response.mcp_list_tools.failed response.mcp_list_tools.in_progress
        response.queued
        response.reasoning_summary_part.added response.reasoning_summary_part.done
        response.shell_call_command.added response.shell_call_command.delta response.shell_call_command.done
        response.shell_call_output_content.delta response.shell_call_output_content.done
        response.web_search_call.completed response.web_search_call.in_progress
        response.web_search_call.searching
    """,
    unknown="""
        response.audio.delta response.audio.done
        response.audio.transcript.delta response.audio.transcript.done
        response.image_generation_call.partial_image
    """,
)

# Types of the items in a response.
RESPONSES_ITEMS = _table(
    understood="custom_tool_call function_call message reasoning",
    unknown="""
        additional_tools apply_patch_call apply_patch_call_output code_interpreter_call compaction
        computer_call computer_call_output custom_tool_call_output file_search_call function_call_output
        image_generation_call local_shell_call local_shell_call_output mcp_approval_request
        mcp_approval_response mcp_call mcp_list_tools program program_output shell_call shell_call_output
        tool_search_call tool_search_output web_search_call
    """,
)

# Fields of a chat completion chunk, of a choice in it and of its delta. Log probabilities repeat the words.
CHAT_CHUNK = _table(
    understood="choices model usage",
    carried="created id object obfuscation service_tier system_fingerprint",
    unknown="moderation",
)
CHAT_CHOICE = _table(understood="delta finish_reason index", carried="logprobs")
CHAT_DELTA = _table(
    understood="annotations content function_call reasoning reasoning_content refusal role tool_calls",
    unknown="audio",
)

# Types of the events, deltas and content blocks of a streamed message.
MESSAGES_EVENTS = _table(
    understood="""
        content_block_delta content_block_start content_block_stop
        error message_delta message_start message_stop
    """,
    carried="ping",
)
MESSAGES_DELTAS = _table(
    understood="citations_delta input_json_delta signature_delta text_delta thinking_delta"
)
MESSAGES_BLOCKS = _table(
    understood="redacted_thinking text thinking tool_use",
    unknown="""
        bash_code_execution_tool_result code_execution_tool_result container_upload server_tool_use
        text_editor_code_execution_tool_result tool_search_tool_result web_fetch_tool_result
        web_search_tool_result
    """,
)
