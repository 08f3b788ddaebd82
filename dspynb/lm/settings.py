"""The settings of a request: which names are known, how those of an LM and of a predictor merge, what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.lm.request_settings import LiteLLMSettings, RequestSettings
from dspynb.name_advice import refuse_unknown
from dspynb.redact import is_secret_name

__all__ = [
    "LITELLM_ALONE",
    "OTHERWISE",
    "REQUEST_SETTINGS",
    "SETTINGS_OF_LM",
    "SETTINGS_OF_REQUESTS",
    "RequestSettings",
    "check_call",
    "check_settings",
    "key_settings",
    "merged",
    "refuse_litellm_settings",
]

_EXTRA = ("extra_body", "extra_headers")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a header's name: RFC 9110
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

LITELLM_ALONE = frozenset(LiteLLMSettings.__annotations__)
"""The names of settings that litellm reads and that are no fields of a request."""
REQUEST_SETTINGS = frozenset(RequestSettings.__annotations__)
"""The names that a request's settings may have, whether they come from an LM, a predictor or an LMRequest."""

OTHERWISE = (
    "The settings are those of OpenAI's chat completions and of litellm.completion; a field that only this provider or "
    "server knows goes into extra_body={{{name!r}: …}}."
)
_OWN_FIELDS = ("model", "messages", "stream", "stream_options")  # a request's own, which no setting may replace
_OF_REQUEST = {
    "model": "it is the model's name, the first argument of dn.LM",
    "messages": "the adapter writes the messages; see demos= and instruction=, or send a dn.LMRequest yourself",
    "stream": "what calls the model says whether a reply is streamed: predictor.stream(…)",
    "stream_options": "what calls the model says whether a reply is streamed: predictor.stream(…)",
}
_ROLLOUT = (
    "a further sample of an equal request is a rollout here. dn.BestOfN, dn.Refine and dn.Evaluate(repeats=…) count "
    "them; in a request of your own it is dn.LMRequest(…, rollout=1)"
)
_NO_TRAINING = "there is no finetuning here, so leave it out"
_OF_ALL = {
    **_OF_REQUEST,
    "headers": "extra_headers",
    "default_headers": "extra_headers",
    "extra_query": "write it into the address: api_base='https://…?name=value'",
    "rollout": _ROLLOUT,
    "rollout_id": _ROLLOUT,
    "model_type": "dspynb speaks chat APIs only, without a choice. Leave out model_type='chat'; 'responses' and 'text' "
    "have no counterpart yet",
    "callbacks": "runs record every call: see run.calls, dn.trace() and run.listen(…)",
    "provider": "name it in the model, as in 'openai/gpt-4.1-mini'. OpenRouter's field of that name goes into "
    "extra_body={'provider': …}",
    "custom_llm_provider": "name it in the model, as in 'openai/gpt-4.1-mini'",
    "mock_response": "for replies without a provider use dn.ScriptedLM or dn.FunctionLM",
    "finetuning_model": _NO_TRAINING,
    "launch_kwargs": _NO_TRAINING,
    "train_kwargs": _NO_TRAINING,
    "use_developer_role": "messages have the role 'system', so leave it out",
    "prompt_cache": "leave it out. A provider's own cache of prompts is said with prompt_cache_key= or, for Anthropic, "
    "cache_control_injection_points=",
    "async_engine": "there is one engine for all calls: dn.LM(…, engine=…)",
    "fallbacks": "a call asks one model, so leave it out",
}
SETTINGS_OF_LM: Mapping[str, str] = {
    **_OF_ALL,
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
"""What the names of DSPy, litellm and OpenAI are called at LM, or what to do in place of them."""

_AT_LM = {
    **dict.fromkeys(("num_retries", "max_retries", "retries"), "retries"),
    **dict.fromkeys(("cache", "cache_in_memory", "cache_on_disk"), "cache"),
    **dict.fromkeys(("api_base", "base_url"), "api_base"),
    **dict.fromkeys(("timeout", "request_timeout"), "timeout"),
    **{name: name for name in ("api_key", "engine", "deadline", "concurrency", "rpm", "tpm", "native_tools")},
}
SETTINGS_OF_REQUESTS: Mapping[str, str] = {
    **_OF_ALL,
    **{
        theirs: f"it is a setting of the model: lm=dn.LM('provider/model', {ours}=…)" for theirs, ours in _AT_LM.items()
    },
    "config": "its settings are keywords of their own, as in dn.Predict(…, temperature=1)",
    "instructions": "instruction",
    "rationale_field": "reasoning",
    "rationale_field_type": "reasoning",
    "M": "m",
    "max_iters": "max_iterations",
    "model_lm": "lm",
    "num_threads": "concurrency is the call's: await program.batch(rows, concurrency=8)",
}
"""The same at predictors, and at what hands its settings on to one."""


def check_call(model: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for settings of one request that are not known, or not JSON."""
    if not REQUEST_SETTINGS.issuperset(settings):
        refuse_unknown(f"a request to {model}", settings, REQUEST_SETTINGS, SETTINGS_OF_REQUESTS, OTHERWISE)
    check_settings(model, settings)


def check_settings(owner: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for values that cannot be sent: no JSON; extra_body and extra_headers that are none."""
    for name, value in settings.items():
        if value is None:
            continue
        if name == "extra_body":
            _check_extra_body(owner, value)
        elif name == "extra_headers":
            _check_extra_headers(owner, value)
        elif type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value)):
            continue
        if name != "azure_ad_token_provider" or not callable(value):  # litellm calls it, and nothing sends it
            _check_json(owner, name, value)


def _check_json(owner: str, name: str, value: Any) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{owner}: a setting that is not JSON: {name}= of type {type(value).__name__} ({error}). "
            "Give numbers, texts, True, False, None, and lists and dicts of them"
        ) from None


def _check_extra_body(owner: str, body: Any) -> None:
    if not isinstance(body, dict) or not all(isinstance(name, str) for name in body):
        raise ConfigurationError(f"{owner}: extra_body must be a dict of fields, got {type(body).__name__}")
    own = [name for name in _OWN_FIELDS if name in body]
    if own:
        raise ConfigurationError(f"{owner}: extra_body may not replace {own[0]!r}: {_OF_REQUEST[own[0]]}")


def _check_extra_headers(owner: str, headers: Any) -> None:
    if not isinstance(headers, dict):
        raise ConfigurationError(f"{owner}: extra_headers must be a dict of texts, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(
                f"{owner}: extra_headers must be a dict of texts, and the value of {name!r} is {type(value).__name__}"
            )
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise ConfigurationError(
                f"{owner}: the header {name!r} is empty, or has a line break or another character in its name or value "
                "that no header may have"
            )
        if name.lower() in ("content-length", "transfer-encoding"):
            raise ConfigurationError(f"{owner}: the header {name!r} is that of the request itself; leave it out")


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an LM and of a request; the request's win. ``extra_body`` and ``extra_headers`` merge field by
    field."""
    settings = {**outer, **inner}
    for name in _EXTRA:
        if outer.get(name) and name in inner:
            settings[name] = _joined(name, outer[name], inner[name] or {})
    return settings


def _joined(name: str, outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    if name == "extra_body":
        return {**outer, **inner}
    replaced = {header.lower() for header in inner}
    return {**{header: value for header, value in outer.items() if header.lower() not in replaced}, **inner}


def refuse_litellm_settings(model: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for settings that only litellm understands: a server would get them in the body of a
    request, and some are secrets."""
    if not LITELLM_ALONE.isdisjoint(settings):
        name = min(LITELLM_ALONE.intersection(settings))
        raise ConfigurationError(
            f"{name} is a setting of litellm, and {model} is asked directly: leave it out, or use "
            f"dn.LM({model!r}, engine='litellm', {name}=…)"
        )


def key_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings as the cache knows them: of a header that may hold a secret only the name counts, so that a new token
    does not make the cache miss, and a function not at all."""
    headers = settings.get("extra_headers")
    if not headers and "azure_ad_token_provider" not in settings:
        return settings
    counted = {name: value for name, value in settings.items() if not callable(value)}
    if headers:
        counted["extra_headers"] = {
            name.lower(): "" if is_secret_name(name) or "token" in name.lower() or "cookie" in name.lower() else value
            for name, value in headers.items()
        }
    return counted
