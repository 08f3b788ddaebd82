"""The words in which providers and servers refuse a parameter: a table with the source of each wording.

``litellm`` is a file of the package litellm, ``issue`` a public report on GitHub. ``vllm/…`` is a file of
vllm-project/vllm, ``tools/server/…`` of ggml-org/llama.cpp, ``server/…`` of ollama/ollama, and ``router/…`` of
huggingface/text-generation-inference.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["CLEAR_FEATURES", "FEATURES", "PARAMETERS", "FeatureWording", "ParameterWording"]


class ParameterWording(NamedTuple):
    """A wording that contains the name of the refused parameter, as the group ``name``, ``setting`` or ``bare``."""

    source: str
    pattern: re.Pattern[str]


class FeatureWording(NamedTuple):
    """A wording that refuses a feature of the request, without the name of the parameter ``parameter``."""

    parameter: str
    source: str
    pattern: re.Pattern[str]


# A name in quotes may be any word. Without quotes it must be the name of a setting.
_QUOTED = r"[`'\"“\\]{1,3}(?P<name>[A-Za-z_][\w.\[\]-]{0,80})[`'\"”\\]{1,3}"
_SETTING_NAMES = (
    r"(?:[\w-]{1,40}\.){0,4}(?:temperature|top_?p|top_?k|min_p|max_?tokens|max_(?:completion|new|output)_tokens|maxOutputTokens"
    r"|n|best_of|stop|stop_?sequences|seed|top_?logprobs|logprobs|logit_?bias|presence_?penalty|frequency_?penalty"
    r"|repetition_?penalty|reasoning_?effort|effort|reasoning|thinking|thinking_?(?:budget|level|config)"
    r"|budget_tokens|enable_thinking|verbosity|response_?format|response_?schema|response_?mime_?type|guided_json"
    r"|json_schema|tool_?choice|tools|parallel_tool_calls|functions?|stream_options|service_tier|modalities|user"
    r"|metadata|store|prediction)"
)
_SETTING = rf"(?P<setting>{_SETTING_NAMES})"
_ANY = rf"(?<!\w)(?:{_QUOTED}|{_SETTING})(?![\w.])(?:[ =:(]*-?\d[\d.]{{0,12}}\)?)?"  # also with its value


def _wording(source: str, *parts: str) -> ParameterWording:
    return ParameterWording(source, re.compile("".join(parts), re.IGNORECASE | re.MULTILINE))


def _feature(parameter: str, source: str, *parts: str) -> FeatureWording:
    return FeatureWording(parameter, source, re.compile("|".join(parts), re.IGNORECASE))


PARAMETERS = (
    _wording(
        "OpenAI: Unsupported parameter: 'max_tokens' is not supported with this model. Invalid parameter: "
        "'response_format' of type … Unknown parameter: 'x'. Unrecognized request argument supplied: x (litellm: "
        "litellm_core_utils/exception_mapping_utils.py; issue: openai/openai-python#2072)",
        r"(?:unsupported|unknown|unrecognized|invalid|unexpected|disallowed) (?:request )?",
        r"(?:parameter|param|field|argument|name|key|property)(?:s|\(s\))?(?: supplied)?",
        rf"(?::? *\(?(?:parameter )?{_QUOTED}|: *(?P<bare>[a-z]\w{{0,60}}))",
    ),
    _wording(
        "OpenAI: Unsupported value: 'temperature' does not support 0.7 with this model. Invalid value for 'x' "
        "(issue: BerriAI/litellm#13781)",
        rf"(?:unsupported value:|invalid value for:?) *(?:parameter )?{_QUOTED}",
    ),
    _wording(
        "OpenAI: Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 200 instead. "
        "(litellm: litellm_core_utils/exception_mapping_utils.py, get_error_message)",
        rf"invalid {_QUOTED}:",
    ),
    _wording(
        "Moonshot: invalid temperature: only 1 is allowed for this model (issue: countbot-ai/CountBot#61); DeepSeek: "
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192] (issue: Aider-AI/aider#4125)",
        rf"invalid {_SETTING}\b(?:: | value|,)",
    ),
    _wording(
        "vLLM: Requested sample logprobs of 30, which is greater than max allowed: 20 (vllm/v1/engine/processor.py)",
        r"requested (?:sample |prompt )?(?P<name>logprobs) of",
    ),
    _wording("vLLM: (parameter=max_tokens, value=5000) (vllm/exceptions.py)", r"\(parameter=(?P<name>\w{1,60})"),
    _wording(
        "vLLM: 'max_tokens' or 'max_completion_tokens' is too large: 5000. (vllm/entrypoints/openai/serving_engine.py)",
        rf"{_QUOTED} or '\w{{1,60}}' is too (?:large|small)",
    ),
    _wording(
        "vLLM: max_tokens=5000 cannot be greater than max_model_len=4096 (vllm/entrypoints/utils.py)",
        r"\b(?P<name>max_\w{0,20}tokens)=\d+ ?cannot be",
    ),
    _wording(
        "vLLM, NVIDIA: {'type': 'extra_forbidden', 'loc': ('body', 'x'), …} (pydantic's errors as text)",
        r"'loc': [(\[]'body', '(?P<name>\w{1,60})'",
    ),
    _wording(
        "Fireworks: Extra inputs are not permitted, field: 'stream_options' (issue: FlowiseAI/Flowise#2866)",
        rf"not permitted, field: {_QUOTED}",
    ),
    _wording(
        "DashScope: Range of max_tokens should be [1, 8192] (issue: open-webui/open-webui#10507)",
        rf"(?:range|value|maximum|limit) (?:of|for) {_ANY} (?:should|must|is|has)",
    ),
    _wording(
        "Anthropic: temperature: range: 0..1. max_tokens: 100000 > 64000, which is the maximum … top_k: Extra inputs "
        "are not permitted. temperature: Input should be less than or equal to 1 (tests/cases/refusals.py)",
        r"(?:^|[\s\"(;.])(?P<name>[a-z_][\w.]{0,80}): (?:range|extra inputs|input should be|value error|",
        r"\d{1,12} [<>]=? \d|must\b|should\b|unknown field|this (?:field|parameter)|property|\w{1,60} may not)",
    ),
    _wording(
        "Anthropic: `temperature` and `top_p` cannot both be specified for this model. The request is accepted "
        "without the second one (issue: aws-samples/bedrock-access-gateway#191)",
        r"\b\w{1,60}[`'\"]? and [`'\"]?(?P<name>\w{1,60})[`'\"]? cannot both",
    ),
    _wording(
        'Gemini: Invalid JSON payload received. Unknown name "seed": Cannot find field. (issue: '
        "n4ze3m/page-assist#418); DeepSeek: unknown field `x`",
        rf"unknown (?:name|field):? {_QUOTED}",
    ),
    _wording(
        "Vertex AI: it has a maxOutputTokens value of 655360 but the supported range is … (issue: "
        "stackblitz-labs/bolt.diy#955)",
        r"has an? (?P<name>\w{1,60}) value of",
    ),
    _wording(
        "Gemini: * GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0]. "
        "(answers of generateContent, v1beta, 2026)",
        r"generation_?config\.(?P<name>\w{1,60})",
    ),
    _wording(
        "xAI: Model grok-4 does not support parameter presencePenalty. (issue: open-webui/open-webui#21266)",
        r"not support(?:ed)? (?:the )?(?:parameter|argument|field)s?:? [`'\"]?(?P<name>[a-z]\w{0,60})",
    ),
    _wording(
        "xAI: Argument not supported on this model: frequencyPenalty (issue: BerriAI/litellm#14056)",
        r"argument not supported(?: on this model)?: (?P<name>\w{1,60})",
    ),
    _wording(
        "litellm: openai does not support parameters: ['temperature'], for model=o3-mini; also with a dict (utils.py)",
        r"not support parameters: [\[{]'(?P<name>\w{1,60})'",
    ),
    _wording(
        "litellm: gpt-5 models don't support temperature=0.7 (llms/openai/chat/gpt_5_transformation.py)",
        r"(?:n't|not) support (?P<name>\w{1,60})=",
    ),
    _wording(
        "Bedrock: This model doesn't support the stopSequences field. Remove stopSequences and try again. (issue: "
        "langgenius/dify-official-plugins#1767)",
        r"(?:n't|not) support the [`'\"]?(?P<name>\w{1,60})[`'\"]? (?:field|parameter|option|setting)",
    ),
    _wording(
        "Bedrock: Malformed input request: … #: extraneous key [response_mime_type] is not permitted, please reformat "
        "your input and try again. (issue: pingcap/autoflow#574)",
        r"extraneous key \[(?P<name>\w{1,60})\]",
    ),
    _wording(
        "Bedrock: Malformed input request: #/temperature: 1.4 is not less or equal to 1.0 (Bedrock's JSON schemas)",
        r"#/(?P<name>\w{1,60}): ",
    ),
    _wording(
        "Bedrock: Value '1.4' at 'inferenceConfig.temperature' failed to satisfy constraint (AWS' API errors)",
        r"at '(?P<name>[\w.]{1,80})' failed to satisfy",
    ),
    _wording(
        "DeepSeek: Failed to deserialize the JSON body into the target type: response_format: … "
        "(tests/cases/refusals.py)",
        rf"into the target type: {_SETTING}",
    ),
    _wording(
        "Groq: property 'reasoning_effort' is unsupported, did you mean 'reasoning_format'? (issue: "
        "CherryHQ/cherry-studio#1099); 'reasoning_effort' : value is not one of the allowed values ['none', …] (issue: "
        "earendil-works/pi#3764); Anthropic: `temperature` is deprecated for this model. (issue: "
        "NousResearch/hermes-agent#111438); Gemini: Logprobs is not enabled for …",
        rf"{_ANY} ?:? (?:parameter |field |option |argument |value )?(?:(?:(?:is|are) )?not (?:a )?",
        r"(?:supported|allowed|permitted|valid|enabled|available|accepted|compatible)|(?:is|are) ",
        r"(?:unsupported|deprecated|unavailable|unknown|only |too (?:large|high|low|small|big|long)|",
        r"incompatible|out of range|greater than|less than|disabled)|is not one of the allowed)",
    ),
    _wording(
        "Groq: `max_tokens` must be less than or equal to `16384` (issue: RooCodeInc/Roo-Code#5729); TGI: "
        "`temperature` must be strictly positive (router/src/validation.rs); vLLM: top_p must be in (0, 1] "
        "(vllm/sampling_params.py); DashScope: Temperature should be in [0.0, 2.0); Anthropic: `temperature` may only "
        "be set to 1 when thinking is enabled. (issue: MartialBE/one-hub#529)",
        rf"{_ANY} ?:? (?:number |value |array |string )?(?:(?:must|should|can ?not|can't)\b(?! (?:be (?:followed|",
        r"preceded)|contain|alternate|use|have|start|end|include|match)\b)|may only|can only|supports up|exceeds?|",
        r"(?:does not|doesn't) (?:support|allow|accept))\b",
    ),
    _wording(
        "Groq and others: This model does not support `reasoning_effort` (no report found; xAI's words are above)",
        rf"(?:n't|not) support (?:the )?(?:use of )?(?:{_QUOTED}|{_SETTING})(?!\w)",
    ),
)
"""Wordings with the name of the parameter. The first one that matches, and whose name is a setting, counts."""

CLEAR_FEATURES = (
    _feature(
        "tools",
        'vLLM: "auto" tool choice requires --enable-auto-tool-choice (vllm/entrypoints/openai/serving_chat.py); '
        "llama.cpp: tools param requires --jinja flag (tools/server/utils.hpp)",
        r"tool choice requires",
        r"tools? param(?:eter)? requires",
    ),
    _feature(
        "tools",
        "Ollama: … does not support tools (server/routes.go); OpenRouter: No endpoints found that support tool use; "
        "DeepSeek: … does not support Function Calling; Bedrock: This model doesn't support tool use.",
        r"supports? (?:for )?(?:tools?|tool use|tool[ _-]calls?|tool[ _-]calling|functions?|function[ _-]calls?)\b",
        r"supports? (?:for )?function[ _-]calling",
    ),
    _feature(
        "tools",
        "Groq: tool calling is not supported with this model (tests/cases/refusals.py); Gemini: Function calling is "
        "not enabled for …; GitHub: model_no_support_for_function (litellm: exception_mapping_utils.py)",
        r"(?:tool use|tool[ _-]calls?|tool calling|function calling|function calls|tools) (?:is|are) not "
        r"(?:supported|enabled|available|allowed)",
        r"model_no_support_for_function",
    ),
    _feature(
        "thinking",
        'Ollama: "m" does not support thinking; think value "low" is not supported for this model (server/routes.go); '
        "Gemini: The thinking budget 100 is invalid. Budget 0 is invalid. This model only works in thinking mode.",
        r"not support thinking",
        r"think value",
        r"thinking is not (?:supported|enabled)",
        r"thinking (?:level|budget) ",
        r"only works in thinking mode",
    ),
)
"""Wordings that say enough by themselves."""

FEATURES = (
    _feature(
        "response_format",
        "OpenAI, Groq, DeepSeek: This response_format type is unavailable now (tests/cases/refusals.py); Gemini: Json "
        "mode is not enabled for models/gemini-pro (issue: google-gemini/deprecated-generative-ai-python#137)",
        r"response[_ ]format",
        r"response schema",
        r"json_schema",
        r"json[ _](?:mode|object|schema) (?:is|are) not",
        r"not support (?:structured output|json[ _])",
        r"structured outputs? (?:is|are) not",
    ),
    _feature(
        "response_format",
        "llama.cpp: Failed to initialize samplers: failed to parse grammar (issue: lidge-jun/opencodex#2135); vLLM, "
        "SGLang, TGI: other errors of the grammar that is made from a schema",
        r"failed to (?:parse|compile|initialize) (?:the )?(?:grammar|schema)",
        r"invalid schema",
        r"guided decoding",
        r"grammar (?:is )?(?:not supported|error)",
    ),
    _feature(
        "n",
        "llama.cpp: Only one completion choice is allowed (tools/server/utils.hpp)",
        r"only one completion choice",
        r"multiple (?:completions|candidates) (?:is|are) not",
        r"\bn ?> ?1\b",
    ),
    _feature(
        "penalty",
        "Gemini: Penalty is not enabled for models/gemini-1.5-pro (issue: SillyTavern/SillyTavern#3015)",
        r"penalty is not enabled",
    ),
    _feature(
        "max_tokens",
        "Bedrock: The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens "
        "value that is lower than 4096. (issue: vercel/ai#2772); Cohere: max tokens must be less than or equal to "
        "4096, the maximum output for this model",
        r"maximum tokens you requested",
        r"max tokens must be",
        r"output tokens? (?:limit|must)",
        r"number of output tokens",
    ),
)
"""Wordings that are refusals only together with a word such as ``not supported``."""
