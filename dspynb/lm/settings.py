"""The settings of a request: their names and checks, and how those of an LM and of a predictor merge."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.lm.request_settings import LiteLLMSettings, RequestSettings
from dspynb.name_advice import refuse_unknown
from dspynb.redact import is_secret_name, redact_values, without_secrets

__all__ = [
    "LITELLM_SETTINGS",
    "LM_ADVICE",
    "OTHERWISE",
    "REQUEST_ADVICE",
    "REQUEST_SETTINGS",
    "RequestSettings",
    "check_call",
    "check_json",
    "check_settings",
    "key_settings",
    "merge_settings",
    "recorded_settings",
    "refuse_litellm_settings",
]

_MERGED_SETTINGS = ("extra_body", "extra_headers")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

LITELLM_SETTINGS = frozenset(LiteLLMSettings.__annotations__)
"""The names of settings that litellm reads itself. They are no fields of a request."""
REQUEST_SETTINGS = frozenset(RequestSettings.__annotations__)
"""The names of all settings of a request, from an LM, a predictor or an LMRequest."""

OTHERWISE = (
    "The settings are those of OpenAI's chat completions and of litellm.completion; a field that only this provider or "
    "server knows goes into extra_body={{{name!r}: …}}."
)
_RESERVED_FIELDS = {
    "model": "it is the model's name, the first argument of dn.LM",
    "messages": "the adapter writes the messages; see demos= and instruction=, or send a dn.LMRequest yourself",
    "stream": "predictor.stream(…) streams a reply, and a plain call does not",
    "stream_options": "predictor.stream(…) streams a reply, and a plain call does not",
}
"""Fields of a request that no setting may replace, with the reason or what to do."""
_ROLLOUT = (
    "a further sample of an equal request is a rollout here. dn.BestOfN, dn.Refine and dn.Evaluate(repeats=…) count "
    "them; in a request of your own it is dn.LMRequest(…, rollout=1)"
)
_NO_TRAINING = "there is no finetuning here, so leave it out"
_ADVICE = {
    **_RESERVED_FIELDS,
    "headers": "extra_headers",
    "default_headers": "extra_headers",
    "extra_query": "write it into the address: api_base='https://…?name=value'",
    "rollout": _ROLLOUT,
    "rollout_id": _ROLLOUT,
    "model_type": "dspynb uses chat APIs only. Leave out model_type='chat'; in place of 'responses' pass "
    "profile={'wire_format': 'openai_responses'}; 'text' is not supported",
    "callbacks": "runs record every call: see run.calls, dn.trace() and run.listen(…)",
    "provider": "name it in the model, as in 'openai/gpt-4.1-mini'. OpenRouter's field of that name goes into "
    "extra_body={'provider': …}",
    "custom_llm_provider": "name it in the model, as in 'openai/gpt-4.1-mini'",
    "mock_response": "for replies without a provider use dn.ScriptedLM or dn.FunctionLM",
    "finetuning_model": _NO_TRAINING,
    "launch_kwargs": _NO_TRAINING,
    "train_kwargs": _NO_TRAINING,
    "use_developer_role": "messages have the role 'system', so leave it out",
    "prompt_cache": "leave it out. A provider's own prompt cache is set with prompt_cache_key= or, for Anthropic, "
    "cache_control_injection_points=",
    "async_engine": "there is one engine for all calls: dn.LM(…, engine=…)",
    "fallbacks": "a call uses one model, so leave it out",
}
LM_ADVICE: Mapping[str, str] = {
    **_ADVICE,
    "num_retries": "retries",
    "max_retries": "retries",
    "cache_in_memory": "cache",
    "cache_on_disk": "cache",
    "caching": "cache",
    "request_timeout": "timeout",
    "num_threads": "concurrency",
    "max_concurrency": "concurrency",
    "max_parallel_requests": "concurrency",
    "api_url": "api_base",
    "endpoint": "api_base",
    "token": "api_key",
    "model_name": "model",
}
"""For names that DSPy, litellm or OpenAI use: the name of the setting of LM, or what to do instead."""

_LM_NAMES = {
    **dict.fromkeys(("num_retries", "max_retries", "retries"), "retries"),
    **dict.fromkeys(("cache", "cache_in_memory", "cache_on_disk"), "cache"),
    **dict.fromkeys(("api_base", "base_url"), "api_base"),
    **dict.fromkeys(("timeout", "request_timeout"), "timeout"),
    **{name: name for name in ("api_key", "engine", "deadline", "concurrency", "rpm", "tpm", "native_tools")},
}
REQUEST_ADVICE: Mapping[str, str] = {
    **_ADVICE,
    **{
        alias: f"it is a setting of the model: lm=dn.LM('provider/model', {name}=…)"
        for alias, name in _LM_NAMES.items()
    },
    "config": "pass its settings as keyword arguments, as in dn.Predict(…, temperature=1)",
    "instructions": "instruction",
    "rationale_field": "reasoning",
    "rationale_field_type": "reasoning",
    "M": "m",
    "max_iters": "max_iterations",
    "model_lm": "lm",
    "num_threads": "pass concurrency to the call: await program.batch(rows, concurrency=8)",
}
"""For names that DSPy, litellm or OpenAI use: the name of the setting of a predictor, or what to do instead."""


def check_call(model: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for an unknown setting of a request, or a value that cannot be sent."""
    if not REQUEST_SETTINGS.issuperset(settings):
        refuse_unknown(f"a request to {model}", settings, REQUEST_SETTINGS, REQUEST_ADVICE, OTHERWISE)
    check_settings(model, settings)


def check_settings(owner: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a value that cannot be sent: not JSON, or an invalid extra_body or extra_headers."""
    for name, value in settings.items():
        if value is None:
            continue
        if name == "extra_body":
            _check_extra_body(owner, value)
        elif name == "extra_headers":
            _check_extra_headers(owner, value)
        elif type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value)):
            continue
        if name != "azure_ad_token_provider" or not callable(value):  # litellm calls this function and never sends it
            check_json(owner, name, value)


def check_json(owner: str, name: str, value: object) -> None:
    """Raise ConfigurationError for a value that is not JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{owner}: a setting that is not JSON: {name}= of type {type(value).__name__} ({error}). "
            "Give numbers, texts, True, False, None, and lists and dicts of these"
        ) from None


def _check_extra_body(owner: str, body: object) -> None:
    if not isinstance(body, dict) or not all(isinstance(name, str) for name in body):
        raise ConfigurationError(f"{owner}: extra_body must be a dict of fields, got {type(body).__name__}")
    for name, reason in _RESERVED_FIELDS.items():
        if name in body:
            raise ConfigurationError(f"{owner}: extra_body may not replace {name!r}: {reason}")


def _check_extra_headers(owner: str, headers: object) -> None:
    if not isinstance(headers, dict):
        raise ConfigurationError(f"{owner}: extra_headers must be a dict of texts, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(
                f"{owner}: extra_headers must be a dict of texts, and the value of {name!r} is {type(value).__name__}"
            )
        if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value):
            raise ConfigurationError(
                f"{owner}: the header {name!r} is empty, or its name or value contains a line break or another "
                "character that headers may not have"
            )
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ConfigurationError(f"{owner}: the header {name!r} is set by the client itself; leave it out")


def merge_settings(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an LM (``outer``) merged with those of a request (``inner``), which win.

    ``extra_body`` and ``extra_headers`` are merged field by field.
    """
    settings = {**outer, **inner}
    if "effort" in settings and "reasoning_effort" in settings:  # two names of one setting
        outer_name = "reasoning_effort" if "effort" in inner else "effort"
        del settings[outer_name]
    for name in _MERGED_SETTINGS:
        if outer.get(name) and name in inner:
            settings[name] = _merge_fields(name, outer[name], inner[name] or {})
    return settings


def _merge_fields(name: str, outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    if name == "extra_body":
        return {**outer, **inner}
    replaced = {header.lower() for header in inner}  # the names of headers are case-insensitive
    fields = {header: value for header, value in outer.items() if header.lower() not in replaced}
    fields.update(inner)
    return fields


def refuse_litellm_settings(model: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for settings of litellm itself. A direct client would send them to the server in the
    request's body, and some are secrets."""
    if not LITELLM_SETTINGS.isdisjoint(settings):
        name = min(LITELLM_SETTINGS.intersection(settings))
        raise ConfigurationError(
            f"{name} is a setting of litellm, and {model} is called directly: leave it out, or use "
            f"dn.LM({model!r}, engine='litellm', {name}=…)"
        )


def key_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that are part of a cache key.

    A header that may hold a secret counts by its name only, so that a new token does not make the cache miss. Functions
    do not count.
    """
    headers = settings.get("extra_headers")
    if not headers and "azure_ad_token_provider" not in settings:
        return settings
    counted = {name: value for name, value in settings.items() if not callable(value)}
    if headers:
        counted["extra_headers"] = {
            name.lower(): "" if _may_be_secret(name) else value for name, value in headers.items()
        }
    return counted


def _may_be_secret(header: str) -> bool:
    return is_secret_name(header) or "token" in header.lower() or "cookie" in header.lower()


def recorded_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings as events have them: without headers, which may hold secrets, and without secrets."""
    if not settings:
        return _NO_SETTINGS
    for value in settings.values():
        if type(value) not in _NUMBERS:
            break
    else:  # nearly always; no number is a secret
        return settings
    recorded = {name: value for name, value in settings.items() if name != "extra_headers"}
    result: Mapping[str, Any] = redact_values(without_secrets(recorded))
    return result


_NO_SETTINGS: Mapping[str, Any] = {}
_NUMBERS = (int, float, bool, type(None))
