"""Error responses of real providers, from public bug reports, issues of their clients, and litellm's code.

Each is a function that creates a response, because a response can be sent only once.
"""

from __future__ import annotations

from functools import partial

from tests.cases.providers import plain, refused


def anthropic(message):
    """An error response in Anthropic's form."""
    return plain({"type": "error", "error": {"type": "invalid_request_error", "message": message}})


def gemini(message):
    """An error response in the form of Gemini's server in OpenAI's format, which is a list."""
    return plain([{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}])


def vllm(message):
    """An error response in vLLM's form."""
    return plain({"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400})


def tgi(message):
    """An error response in the form of text-generation-inference."""
    return plain({"error": f"Input validation error: {message}", "error_type": "validation"}, 422)


def xai(message):
    """An error response in xAI's form."""
    return plain({"code": "Client specified an invalid argument", "error": message})


def bare(message):
    """An error response in the form of Bedrock and Cohere."""
    return plain({"message": message})


def proxy(message):
    """An error response in the form of litellm's proxy."""
    return refused(message, code="400", kind=None)


def invalid_body(detail):
    """An error response in the form of servers that check requests with pydantic."""
    return plain({"detail": [detail]}, 422)


NO_SCHEMA = {
    "openai": partial(
        refused,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more about "
        "supported models at the Structured Outputs guide: https://platform.openai.com/docs/guides/structured-outputs",
        param="response_format",
    ),
    "deepseek": partial(refused, "This response_format type is unavailable now", code="invalid_request_error"),
    "deepseek, 422": partial(
        refused,
        "Failed to deserialize the JSON body into the target type: response_format: response_format.type `json_schema` "
        "is unavailable now at line 1 column 1193",
        code="invalid_request_error",
        status=422,
    ),
    "groq": partial(
        refused,
        "This model does not support response format `json_schema`. See supported models at "
        "https://console.groq.com/docs/structured-outputs#supported-models",
        param="response_format",
    ),
    "groq, value": partial(
        refused, "'response_format.type' : value is not one of the allowed values ['text','json_object']"
    ),
    "pydantic": partial(
        invalid_body,
        {
            "type": "literal_error",
            "loc": ["body", "response_format", "type"],
            "msg": "Input should be 'text' or 'json_object'",
            "input": "json_schema",
        },
    ),
}
"""Responses of servers that do not support `response_format` of type `json_schema`."""

TOO_LONG = {
    "anthropic": partial(anthropic, "prompt is too long: 205437 tokens > 200000 maximum"),
    "anthropic, with the reply": partial(
        anthropic,
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or "
        "`max_tokens` and try again",
    ),
    "gemini": partial(
        gemini, "The input token count (1058176) exceeds the maximum number of tokens allowed (1048576)."
    ),
    "vllm, decoder": partial(
        vllm,
        "The decoder prompt (length 5021) is longer than the maximum model length of 4096. Make sure that "
        "`max_model_len` is no smaller than the number of text tokens.",
    ),
    "tgi": partial(
        tgi, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5021 `inputs` tokens and 100 `max_new_tokens`"
    ),
    "tgi, inputs": partial(tgi, "`inputs` must have less than 4096 tokens. Given: 5021"),
    "xai": partial(xai, "This model's maximum prompt length is 131072 but the request contains 136973 tokens."),
    "groq, without a code": partial(
        refused,
        "Please reduce the length of the messages or completion. Current length is 140000 while limit is 131072",
    ),
    "bedrock": partial(bare, "Input is too long for requested model."),
    "bedrock, in a stream": partial(
        bare, "The model returned the following errors: Input is too long for requested model."
    ),
    "bedrock, titan": partial(bare, "Too many input tokens. Max input tokens: 8192, request input token count: 11234 "),
    "cohere": partial(
        bare, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."
    ),
    "litellm's proxy": partial(
        proxy,
        "litellm.BadRequestError: litellm.ContextWindowExceededError: AnthropicError - "
        '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 209303 tokens > 200000 '
        'maximum"}}\nReceived Model Group=anthropic/claude-3-5-sonnet-20241022\nAvailable Model Group Fallbacks=None',
    ),
    "litellm's proxy, openai": partial(
        proxy,
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - "
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
}
"""Responses to a request that exceeds the context of the model."""

TOO_LONG_UNDERSTOOD = {
    "openai": partial(refused, "Your input exceeds the context window of this model.", code="context_length_exceeded"),
    "vllm": partial(
        vllm,
        "This model's maximum context length is 4096 tokens. However, you requested 5021 tokens in the messages, "
        "Please reduce the length of the messages.",
    ),
    "groq": partial(refused, "Please reduce the length of the messages or completion.", code="context_length_exceeded"),
    "mistral": partial(
        vllm, "Prompt contains 40021 tokens and 0 draft tokens, too large for model with 32768 maximum context length"
    ),
    "llama.cpp": partial(
        refused,
        "request (5021 tokens) exceeds the available context size (4096 tokens), try increasing it",
        kind="exceed_context_size_error",
    ),
    "anthropic, bytes": partial(
        plain,
        {"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}},
        413,
    ),
}
"""Further responses to a request that exceeds the context of the model."""

NOT_TOO_LONG = {
    "anthropic, max_tokens": partial(
        anthropic, "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-4"
    ),
    "groq, max_tokens": partial(refused, "`max_tokens` must be less than or equal to `16384`", param="max_tokens"),
    "openai, user": partial(
        refused,
        "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 70 "
        "instead.",
        code="string_above_max_length",
        param="user",
    ),
    "openai, stop": partial(refused, "Invalid 'stop': array too long. Expected an array with maximum length 4."),
}
"""Responses to a setting that is too large or a field that is too long; the request fits into the context."""

NO_TOOLS = {
    "vllm": partial(vllm, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    "ollama": partial(refused, "registry.ollama.ai/library/gemma3:1b does not support tools", kind="api_error"),
    "openrouter": partial(
        refused,
        "No endpoints found that support tool use. To learn more about provider routing, visit: "
        "https://openrouter.ai/docs/provider-routing",
        code=404,
        status=404,
    ),
    "openai": partial(
        refused,
        "Unsupported parameter: 'tools' is not supported with this model.",
        code="unsupported_parameter",
        param="tools",
    ),
    "groq": partial(refused, "tool calling is not supported with this model", param="tool calling"),
}
"""Responses of servers that do not support `tools`, or were started without a parser for tool calls."""
