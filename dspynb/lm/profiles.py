"""What a model accepts: the settings and formats that it takes, its limits, and its prices.

A profile is built from litellm's model map (read as a file), from the rules for OpenAI's models below, and from
``LM(profile={…})``, in this order; the last one wins. A refusal of the server changes the profile of that ``LM``
(``dspynb.lm.adaptation``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from dspynb.errors import ConfigurationError
from dspynb.lm.providers.addresses import hosts_of, needs_key, provider_of_host
from dspynb.lm.providers.model_names import parse_name
from dspynb.lm.providers.prices import map_entry
from dspynb.lm.providers.responses_request import REFUSED_SETTINGS
from dspynb.lm.providers.wire_formats import (
    OPENAI_RESPONSES,
    WIRE_FORMATS,
    WireFormat,
    format_of,
    is_at_openai,
    is_direct,
)
from dspynb.lm.returned_reasoning import RETURNS_REASONING, ReturnsReasoning, returned_reasoning
from dspynb.name_advice import refuse_unknown

__all__ = [
    "EFFORT_LEVELS",
    "LIMIT_NAMES",
    "MEDIA",
    "ModelProfile",
    "checked_changes",
    "in_responses_format",
    "overridden",
    "profile_at",
    "profile_of",
]

EFFORT_LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The levels of ``effort``, from the lowest to the highest."""
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
"""The names that servers have for the largest number of tokens in a reply."""
RESPONSE_FORMATS = ("json_schema", "json_object")
"""The kinds of structured output, the strictest first. Where a model has none, the prompt alone asks for JSON."""
MEDIA = ("image", "audio", "pdf")
"""The kinds of input beside text."""

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
"""A host name with a dot. A single label, such as ``com``, would also stand for all hosts below it."""
_SAMPLING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs"})
_O_SERIES = re.compile(r"o\d(?=-|$)")
"""OpenAI's reasoning models o1, o3-mini …. They take temperature=1 only, and no other sampling setting."""
_GPT_REASONING = re.compile(r"gpt-[5-9](?!-chat)(?=[-.]|$)")
"""OpenAI's reasoning models gpt-5, gpt-5.1-codex …, but not gpt-5-chat. Sampling settings need the effort none."""
_NOT_OF_GPT_REASONING = frozenset({"presence_penalty", "frequency_penalty", "stop", "logit_bias"})
_SEARCH_MODEL = re.compile(r"gpt-[5-9][-\w.]*-search(?:-|$)")
"""OpenAI's models that search the web, such as gpt-5-search-api. They take no sampling settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What a model takes, and its limits and prices. None where that is unknown.

    Args:
        wire_format: The format of requests and replies, which chooses the client: ``openai_chat`` (OpenAI's chat
            completions, called directly), ``openai_responses`` (OpenAI's Responses API, called directly) or ``litellm``
            (the provider's own format, through litellm).
        hosts: The provider's own hosts. A key from the environment is sent to these only, with ``https``, and to the
            host in the provider's ``*_BASE_URL`` or ``*_API_BASE`` variable.
        needs_key: Whether a call without a key fails before it is sent.
        refused: Names of settings that the model does not take. They are left out.
        ranges: The smallest and largest value of a setting, by name. Other values are moved into the range; if it has
            one value only, which is the default of the model, the setting is left out.
        limit_name: The name of the limit of a reply's tokens, ``max_tokens`` or ``max_completion_tokens``.
        efforts: The levels of ``effort`` that the model takes. Any other level becomes the nearest one; an empty tuple
            means that the model takes none.
        sampling_without_effort: Whether sampling settings are taken only with the effort ``none``.
        default_effort: The effort of a request that names none.
        response_formats: The kinds of structured output, the strictest first.
        returns_reasoning: When the text of the model's reasoning is in its replies: ``always``, ``with_effort`` (if the
            request has an ``effort`` other than ``none``), or ``never``.
        native_tools: Whether the model takes descriptions of tools and replies with tool calls.
        media: The kinds of input beside text, such as ``image``, ``audio`` and ``pdf``.
        context_window: The largest number of tokens of a prompt.
        output_limit: The largest number of tokens of a reply.
        input_price: US dollars for a token of the prompt.
        cached_input_price: US dollars for a token of the prompt that the provider read from its cache. None for the
            price of any other token.
        output_price: US dollars for a token of the reply.
    """

    wire_format: WireFormat | None = None
    hosts: tuple[str, ...] = ()
    needs_key: bool | None = None
    refused: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limit_name: str | None = None
    efforts: tuple[str, ...] | None = None
    sampling_without_effort: bool = False
    default_effort: str | None = None
    response_formats: tuple[str, ...] = RESPONSE_FORMATS
    returns_reasoning: ReturnsReasoning | None = None
    native_tools: bool | None = None
    media: tuple[str, ...] | None = None
    context_window: int | None = None
    output_limit: int | None = None
    input_price: float | None = None
    cached_input_price: float | None = None
    output_price: float | None = None

    def refuses(self, name: str, value: object, settings: Mapping[str, Any]) -> bool:
        """Whether the model refuses a setting in a request with these settings."""
        if name in self.refused:
            return True
        if not self.sampling_without_effort or name not in _SAMPLING:
            return False
        if name == "temperature" and value == 1:  # the default of these models
            return False
        effort = settings.get("effort") or settings.get("reasoning_effort") or self.default_effort
        return effort != "none"

    def has_reasoning(self, settings: Mapping[str, Any]) -> bool:
        """Whether a reply to a request with these settings has the text of the model's reasoning. An effort that the
        model does not take counts as it is sent: at another level, or not at all."""
        if self.returns_reasoning != "with_effort":
            return self.returns_reasoning == "always"
        effort = settings.get("effort") or settings.get("reasoning_effort")
        if "reasoning_effort" in self.refused:
            effort = None
        elif isinstance(effort, str):
            effort = self.nearest_effort(effort)
        return (effort or self.default_effort) not in (None, "none")

    def facts(self) -> dict[str, Any]:
        """The fields that are known or not the default, as JSON values."""
        facts: dict[str, Any] = {}
        for declared in fields(self):
            value = getattr(self, declared.name)
            if value is None or value == _UNKNOWN[declared.name]:
                continue
            facts[declared.name] = sorted(value) if isinstance(value, frozenset) else value
        return facts

    def describe(self) -> str:
        """The profile on one line, for people."""
        facts = self.facts()
        texts = [f"{name.replace('_', ' ')} {_in_words(value)}" for name, value in facts.items()]
        if facts.keys() <= _OF_THE_PROVIDER:
            texts.append("nothing is known of this model")
        return "; ".join(texts)

    def nearest_effort(self, effort: str) -> str | None:
        """The level that the model takes instead of ``effort``; None if it takes no level. An unknown level stays."""
        if self.efforts is None or effort in self.efforts or effort not in EFFORT_LEVELS:
            return effort
        levels = [level for level in self.efforts if level in EFFORT_LEVELS]
        if not levels:
            return None
        position = EFFORT_LEVELS.index(effort)
        return min(levels, key=lambda level: abs(EFFORT_LEVELS.index(level) - position))


def _in_words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


_OF_THE_PROVIDER = frozenset({"wire_format", "hosts", "needs_key"})
"""The fields that are known from the name and the address of a model."""
_UNKNOWN: Mapping[str, Any] = {
    declared.name: getattr(ModelProfile(), declared.name) for declared in fields(ModelProfile)
}
"""The fields of a model of which nothing is known."""


def _without_rules(profile: ModelProfile) -> ModelProfile:
    """The profile without its rules for settings, for a client that has rules of its own, as litellm has."""
    return replace(
        profile, refused=frozenset(), ranges={}, limit_name=None, efforts=None, sampling_without_effort=False
    )


def profile_at(model: str, api_base: str | None, changes: Mapping[str, Any]) -> ModelProfile:
    """The profile of ``provider/model`` at an address, with its wire format and the provider's hosts.

    ``changes``: the fields of ``LM(profile={…})``. Rules for settings hold for the direct client only, since litellm
    has rules of its own.
    """
    provider = parse_name(model, has_address=api_base is not None).provider
    wire_format = format_of(model, api_base)
    if is_at_openai(model, api_base) and _has_responses_only(map_entry(model) or {}):
        wire_format = OPENAI_RESPONSES
    key_needed = needs_key(provider)
    if api_base is not None and provider_of_host(api_base) is None:
        key_needed = None
    known = profile_of(model)
    if not is_direct(changes.get("wire_format") or wire_format):
        known = _without_rules(known)
    known = replace(known, wire_format=wire_format, hosts=hosts_of(provider), needs_key=key_needed)
    profile = overridden(known, changes)
    return in_responses_format(profile) if profile.wire_format == OPENAI_RESPONSES else profile


def _has_responses_only(entry: Mapping[str, Any]) -> bool:
    """Whether a map's entry is that of a model which has the Responses API only."""
    endpoints = entry.get("supported_endpoints") or ()
    if "/v1/responses" in endpoints and "/v1/chat/completions" not in endpoints:
        return True
    return entry.get("mode") == "responses"


def in_responses_format(profile: ModelProfile) -> ModelProfile:
    """The profile of a model that is called in the Responses format, which lacks some settings and has one name for the
    limit of a reply. Encrypted reasoning is not requested from a model that is known to have no reasoning."""
    refused = profile.refused | REFUSED_SETTINGS
    if profile.efforts == ():
        refused |= {"include"}
    return replace(profile, wire_format=OPENAI_RESPONSES, limit_name=None, refused=refused)


@lru_cache(maxsize=256)
def profile_of(model: str) -> ModelProfile:
    """The profile of ``provider/model``, from litellm's map and the rules for OpenAI's models."""
    entry = map_entry(model) or {}
    provider, slash, full_name = model.partition("/")
    if not slash:  # the name of a model at an address
        full_name = model
    alias = entry.get("alias_of")
    if isinstance(alias, str):
        entry = {**(map_entry(alias) or {}), **entry}
        full_name = alias
    name = full_name.rpartition("/")[2]
    profile = replace(_from_map(entry), returns_reasoning=returned_reasoning(provider, name, entry))
    if _SEARCH_MODEL.match(name):
        refused = _SAMPLING | _NOT_OF_GPT_REASONING | {"seed", "n", "effort", "reasoning_effort"}
        return replace(profile, limit_name="max_completion_tokens", refused=refused)
    if _O_SERIES.match(name):
        refused = _SAMPLING - {"temperature"}
        return replace(profile, limit_name="max_completion_tokens", sampling_without_effort=True, refused=refused)
    if _GPT_REASONING.match(name):
        refused = _NOT_OF_GPT_REASONING
        return replace(profile, limit_name="max_completion_tokens", sampling_without_effort=True, refused=refused)
    is_of_openai = provider == "openai" and name == full_name and profile.input_price is not None
    if is_of_openai and not name.startswith("ft:"):
        return replace(profile, efforts=())  # OpenAI's other models have no reasoning
    return profile


def _from_map(entry: Mapping[str, Any]) -> ModelProfile:
    if not entry:
        return ModelProfile()
    return ModelProfile(
        efforts=_efforts(entry),
        default_effort=entry.get("default_reasoning_effort"),
        native_tools=bool(entry.get("supports_function_calling")),
        media=_media(entry),
        context_window=_count(entry.get("max_input_tokens")),
        output_limit=_count(entry.get("max_output_tokens")),
        input_price=entry.get("input_cost_per_token"),
        cached_input_price=entry.get("cache_read_input_token_cost"),
        output_price=entry.get("output_cost_per_token"),
    )


def _efforts(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The levels of effort of a map's entry; None if the entry does not say."""
    levels = entry.get("reasoning_effort_levels")
    if isinstance(levels, list):
        return tuple(str(level) for level in levels)
    if not entry.get("supports_reasoning"):
        return None
    unusual = [level for level in EFFORT_LEVELS if entry.get(f"supports_{level}_reasoning_effort")]
    usual = [
        level for level in ("low", "medium", "high") if entry.get(f"supports_{level}_reasoning_effort") is not False
    ]
    return tuple(level for level in EFFORT_LEVELS if level in (*unusual, *usual))


def _media(entry: Mapping[str, Any]) -> tuple[str, ...]:
    flags = {"image": "supports_vision", "audio": "supports_audio_input", "pdf": "supports_pdf_input"}
    return tuple(kind for kind, flag in flags.items() if entry.get(flag))


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def overridden(profile: ModelProfile, changes: Mapping[str, Any]) -> ModelProfile:
    """A profile with the fields of ``LM(profile={…})``. A limit of the reply's tokens becomes a range of the settings
    that limit them. Raises ConfigurationError for an unknown field or a value of a wrong form."""
    values = checked_changes(changes)
    if "output_limit" in values:
        ranges = dict.fromkeys(LIMIT_NAMES, (1.0, float(values["output_limit"])))
        values["ranges"] = {**profile.ranges, **ranges, **values.get("ranges", {})}
    return replace(profile, **values)


def checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``LM(profile={…})``, with values of the types that a ModelProfile has. Raises ConfigurationError
    for an unknown field or a value of a wrong form."""
    if not isinstance(changes, Mapping):
        raise ConfigurationError(f"profile must be a dict of fields, got {type(changes).__name__}")
    if not changes:
        return {}
    refuse_unknown("profile", changes, _FIELDS, {}, _OTHERWISE)
    values: dict[str, Any] = {}
    for name, value in changes.items():
        convert, form = _FIELDS[name]
        try:
            values[name] = convert(value)
        except (TypeError, ValueError, AttributeError):
            raise ConfigurationError(f"profile: {name} is {value!r}; it must be {form}") from None
    return values


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise TypeError
    return tuple(value)


def _ranges(value: Any) -> dict[str, tuple[float, float]]:
    ranges = {}
    for name, bounds in value.items():
        low, high = bounds
        ranges[name] = (float(low), float(high))
        if not low <= high:
            raise ValueError
    return ranges


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return check


def _hosts(value: Any) -> tuple[str, ...]:
    names = tuple(name.strip().lower().rstrip(".") for name in _names(value))
    if not all(_HOST_NAME.fullmatch(name) for name in names):
        raise ValueError
    return names


def _media_kinds(value: Any) -> tuple[str, ...]:
    kinds = _names(value)
    if not set(kinds) <= set(MEDIA):
        raise ValueError
    return kinds


def _positive_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def _price(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


_PRICE_FORM = "US dollars for one token, such as 2.5e-06"
_FIELDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "wire_format": (_one_of(*WIRE_FORMATS), f"one of {', '.join(WIRE_FORMATS)}"),
    "hosts": (_hosts, "a list of names of hosts, such as ['llm.example.com']"),
    "needs_key": (_flag, "True or False"),
    "refused": (lambda value: frozenset(_names(value)), "a list of names of settings, such as ['temperature']"),
    "ranges": (_ranges, "a dict of bounds, such as {'temperature': (0, 1)}"),
    "limit_name": (_one_of(*LIMIT_NAMES), "'max_tokens' or 'max_completion_tokens'"),
    "efforts": (_names, "a list of levels, such as ['low', 'high']"),
    "sampling_without_effort": (_flag, "True or False"),
    "default_effort": (_one_of(*EFFORT_LEVELS), f"one of {', '.join(EFFORT_LEVELS)}"),
    "response_formats": (_names, "a list of 'json_schema' and 'json_object'"),
    "returns_reasoning": (_one_of(*RETURNS_REASONING), f"one of {', '.join(RETURNS_REASONING)}"),
    "native_tools": (_flag, "True or False"),
    "media": (_media_kinds, f"a list of kinds, of {', '.join(MEDIA)}"),
    "context_window": (_positive_count, "a whole number of tokens"),
    "output_limit": (_positive_count, "a whole number of tokens"),
    "input_price": (_price, _PRICE_FORM),
    "cached_input_price": (_price, _PRICE_FORM),
    "output_price": (_price, _PRICE_FORM),
}
"""The fields that ``LM(profile={…})`` may set: a check of the value, and what it must be."""
_OTHERWISE = "The fields are those of lm.profile: see docs/models.md."
