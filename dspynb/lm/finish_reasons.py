"""The finish reasons of providers: why a model stopped."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FILTERED", "INCOMPLETE", "REFUSED", "TRUNCATED", "finish_reason", "normalized_finish"]

# Finish reasons of OpenAI, Anthropic, Gemini, Bedrock, Cohere, DeepSeek, Mistral, watsonx, Zhipu, vLLM and SGLang.
TRUNCATED = frozenset(
    {"length", "max_length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_reached", "token_limit"}
    | {"model_length", "model_context_window_exceeded", "context_length_exceeded"}
)
FILTERED = frozenset(
    {"content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
    | {"guardrail_intervened", "sensitive", "language", "model_armor", "error_toxic"}
    | {"image_safety", "image_recitation", "image_prohibited_content"}
)
REFUSED = frozenset({"refusal"})
_BROKEN = frozenset(
    {"error", "abort", "aborted", "cancel", "cancelled", "canceled", "user_cancel", "timeout", "time_limit"}
    | {"incomplete", "insufficient_system_resource", "network_error", "error_limit", "malformed_response"}
    | {"malformed_function_call", "malformed_tool_use", "malformed_model_output", "unexpected_tool_call"}
)
INCOMPLETE = TRUNCATED | FILTERED | REFUSED | _BROKEN
_FINISHED = frozenset(
    {"stop", "stop_sequence", "stop_token", "eos", "eos_token", "end_turn", "complete", "completed", "finished"}
)
_CALLED_TOOLS = frozenset({"tool_calls", "tool_call", "tool_use", "function_call"})
_FINISH_REASONS: Mapping[str, str] = {
    **dict.fromkeys(_FINISHED, "stop"),
    **dict.fromkeys(_CALLED_TOOLS, "tool_calls"),
    **dict.fromkeys(TRUNCATED, "length"),
    **dict.fromkeys(FILTERED, "content_filter"),
}


def normalized_finish(finish: object) -> str:
    """A finish reason in one spelling: ``FinishReason.MAX_TOKENS`` and ``max-tokens`` become ``max_tokens``."""
    spelling = getattr(finish, "value", finish)
    if not isinstance(spelling, str):  # an enumeration of numbers: take the name
        spelling = getattr(finish, "name", spelling)
    word = str(spelling).strip(" \t\r\n.").lower().replace("-", "_").replace(" ", "_").rpartition(".")[2]
    return word.removeprefix("finish_reason_")


def finish_reason(finish: object) -> str | None:
    """A finish reason in OpenAI's words: ``stop``, ``length``, ``tool_calls`` or ``content_filter``. Any other reason
    of a provider is returned in one spelling, such as ``malformed_function_call``; None for no reason."""
    if finish is None:
        return None
    if isinstance(finish, str) and finish in _FINISH_REASONS:  # as nearly always
        return _FINISH_REASONS[finish]
    word = normalized_finish(finish)
    return _FINISH_REASONS.get(word, word) or None
