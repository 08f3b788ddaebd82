"""The usage that a provider reports, and its cost in US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dspynb.data import Usage, token_count
from dspynb.lm.providers.prices import price_of
from dspynb.pricing.price import Price
from dspynb.pricing.rates import TokenCounts, cost_of, plain_cost, served_tier

__all__ = ["FROM_LISTS", "Bill", "Billing", "read_bill", "read_usage", "usage_at_price"]

REPORTED = "reported with the reply"
"""The source of costs that the provider, or the model itself, reports."""
_XAI_UNIT = 1e10
"""xAI reports costs in units of which a dollar has so many."""
_MOST_USD = 1e6
"""A larger cost of one call is no valid report."""


class Billing(NamedTuple):
    """What decides the cost of a reply beside its tokens.

    ``own``: the model's own price, in place of the listed ones. ``service_tier``: the one that the request names.
    ``usd``: the cost in the headers of the response; None if they have none. ``listed_as``: the name under which the
    model is listed, in place of its own.
    """

    own: Price | None = None
    service_tier: object = None
    usd: float | None = None
    listed_as: str | None = None


FROM_LISTS = Billing()
"""The listed price, for a request without a service tier."""


Bill = tuple[Usage, str | None]
"""The usage of a call, and where its price comes from; None if the cost is unknown."""
_NO_REPORT: Bill = (Usage(1, None, None, None, None, None), None)


def read_usage(body: object, model: str, billing: Billing = FROM_LISTS) -> Usage:
    """The usage in a response body, with its cost. Every count that is not reported as a number is unknown."""
    return read_bill(body, model, billing)[0]


def read_bill(body: object, model: str, billing: Billing = FROM_LISTS, served: object = None) -> Bill:
    """The usage in a response body, with its cost and the source of its price.

    ``served``: the service tier that the reply reports beside the usage. A cost that is reported in US dollars is
    taken as it is, that in the headers first.
    """
    own, requested, reported, listed_as = billing
    if type(body) is dict and reported is None:
        usual = _usual_tokens(body)
        if usual is not None:
            price, source = price_of(listed_as or model, own)
            tier = None
            if served != "default" and (served is not None or requested is not None):
                tier = served_tier(served, requested)
            usd = None if price is None else plain_cost(price, usual, tier)
            return Usage(1, *usual, usd), None if usd is None else source
    if not isinstance(body, Mapping):
        if reported is None:
            return _NO_REPORT
        return Usage(1, None, None, None, None, reported), REPORTED
    tokens = _count_tokens(body)
    price, source = price_of(listed_as or model, own)
    if reported is None:
        reported = reported_usd(body, has_price=price is not None)
    if reported is not None:
        return tokens.usage(reported), REPORTED
    usd = tokens.cost(price, served_tier(served or body.get("service_tier"), requested))
    return tokens.usage(usd), None if usd is None else source


def _usual_tokens(body: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """The tokens of a usage in OpenAI's format: of the prompt, the reply, cached ones and reasoning.

    None if the usage has other fields, tokens with a price of their own, or anything unusual. The general functions
    below do all of this too. This one takes a third of their time.
    """
    if not body.keys() <= _USUAL_FIELDS:
        return None
    prompt = token_count(body.get("prompt_tokens"))
    completion = token_count(body.get("completion_tokens"))
    cached = _usual_part(body.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _usual_part(body.get("completion_tokens_details"), "reasoning_tokens")
    if prompt is None or completion is None or cached is None or reasoning is None:
        return None
    if reasoning and (reasoning > completion or body.get("total_tokens") != prompt + completion):
        return None
    return prompt, completion, cached, reasoning


def _usual_part(details: object, name: str) -> int | None:
    """A count in a section that has nothing else with a price of its own; None for any other section."""
    if details is None:
        return 0
    if type(details) is not dict:
        return None
    for field, value in details.items():
        if value and field != name and field not in _WITHOUT_PRICE:
            return None
    value = details.get(name)
    return 0 if value is None else token_count(value)


_USUAL_FIELDS = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_WITHOUT_PRICE = frozenset({"text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"})
"""Counts in sections of a usage that have no price of their own."""


class _Tokens(NamedTuple):
    """The tokens that a usage reports; None where a number is unknown. ``counts``: the tokens by price; None if one of
    their numbers is unknown."""

    prompt: int | None
    completion: int | None
    cached: int | None
    reasoning: int | None
    counts: TokenCounts | None

    def usage(self, usd: float | None) -> Usage:
        return Usage(1, self.prompt, self.completion, self.cached, self.reasoning, usd)

    def cost(self, price: Price | None, service_tier: str | None) -> float | None:
        """The cost in US dollars; None if it is unknown."""
        if price is None or self.counts is None:
            return None
        return cost_of(price, self.counts, service_tier)


def reported_usd(usage: Mapping[str, Any], *, has_price: bool = False) -> float | None:
    """The cost in US dollars that a usage reports; None if it reports none.

    ``has_price``: whether the model has a price, so that a ``usd`` of 0, the default of ``Usage``, is no report.

    OpenRouter and other gateways have ``cost``, Perplexity has it in parts with a total, DeepInfra an estimate, xAI its
    own unit. Where a gateway uses the user's own key of the provider, ``cost`` is its fee, and the provider's part is
    reported beside it.
    """
    for name in ("usd", "cost", "total_cost", "estimated_cost"):
        value = usage.get(name)
        if isinstance(value, Mapping):
            value = value.get("total_cost")
        usd = dollars(value)
        if usd == 0 and name == "usd" and has_price:
            continue
        if usd is not None:
            return usd + _upstream_usd(usage) if name == "cost" else usd
    ticks = token_count(usage.get("cost_in_usd_ticks"))
    return None if ticks is None else ticks / _XAI_UNIT


def _upstream_usd(usage: Mapping[str, Any]) -> float:
    details = usage.get("cost_details")
    if not usage.get("is_byok") or not isinstance(details, Mapping):
        return 0.0
    return dollars(details.get("upstream_inference_cost")) or 0.0


def dollars(value: object) -> float | None:
    """A reported number of US dollars; None for anything that is not a valid one."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST_USD else None


def _count_tokens(body: Mapping[str, Any]) -> _Tokens:
    """The tokens that a usage reports."""
    prompt = token_count(body.get("prompt_tokens"))
    completion = token_count(body.get("completion_tokens"))
    prompt_details = _section(body, "prompt_tokens_details")
    reply_details = _section(body, "completion_tokens_details")
    cached = _count(prompt_details, "cached_tokens")
    if cached == 0:
        cached = _cached_beside(body)
    reasoning = _count(reply_details, "reasoning_tokens")
    if prompt is None or completion is None or cached is None or reasoning is None:
        return _Tokens(prompt, completion, cached, reasoning, None)
    if reasoning and _is_beside(reasoning, prompt, completion, body.get("total_tokens")):
        completion += reasoning
    totals = (prompt, completion, cached, reasoning)
    return _Tokens(*totals, _detailed(body, totals, prompt_details, reply_details))


_NO_DETAILS: Mapping[str, Any] = {}


def _section(body: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A section of a usage; None if it is no object."""
    details = body.get(name)
    if details is None:
        return _NO_DETAILS
    return details if isinstance(details, Mapping) else None


def _count(details: Mapping[str, Any] | None, name: str) -> int | None:
    """A count in a section: 0 if it is not reported, None if it is no number."""
    if details is None:
        return None
    value = details.get(name)
    return 0 if value is None else token_count(value)


def _cached_beside(body: Mapping[str, Any]) -> int | None:
    """The tokens that the provider read from its cache, where it reports them beside the section of the prompt."""
    for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"):  # DeepSeek, Moonshot, Claude
        if body.get(name):
            return token_count(body[name])
    return 0


def _is_beside(reasoning: int, prompt: int, completion: int, total: object) -> bool:
    """Whether the reasoning is not among the tokens of the reply, as xAI reports it."""
    return reasoning > completion or token_count(total) == prompt + completion + reasoning


def _detailed(
    body: Mapping[str, Any],
    totals: tuple[int, int, int, int],
    prompt: Mapping[str, Any] | None,
    reply: Mapping[str, Any] | None,
) -> TokenCounts | None:
    """The tokens by price of a usage with tokens of media, or tokens that the provider added to its cache."""
    in_cache = _section(prompt or _NO_DETAILS, "cached_tokens_details")
    written = _written(body, prompt)
    by_time = _times_of_cache(body, prompt)
    written_1h = _count(by_time, "ephemeral_1h_input_tokens")
    written_12h = _count(by_time, "ephemeral_12h_input_tokens")
    numbers = (
        *totals,
        written,
        written_1h,
        written_12h,
        _less(_count(prompt, "audio_tokens"), _count(in_cache, "audio_tokens")),
        _less(_count(prompt, "image_tokens"), _count(in_cache, "image_tokens")),
        _count(prompt, "video_tokens"),
        _count(in_cache, "audio_tokens"),
        _count(in_cache, "image_tokens"),
        _count(reply, "audio_tokens"),
        _count(reply, "image_tokens"),
    )
    known = [number for number in numbers if number is not None]
    return TokenCounts(*known) if len(known) == len(numbers) else None


def _less(count: int | None, cached: int | None) -> int | None:
    if count is None or cached is None:
        return None
    return max(0, count - cached)


def _written(body: Mapping[str, Any], prompt: Mapping[str, Any] | None) -> int | None:
    """The tokens that the provider added to its cache, by the names of OpenRouter, litellm and Claude."""
    for section, name in (
        (prompt, "cache_write_tokens"),
        (prompt, "cache_creation_tokens"),
        (body, "cache_creation_input_tokens"),
    ):
        count = _count(section, name)
        if count != 0:
            return count
    by_time = _times_of_cache(body, prompt)
    counts = [_count(by_time, name) for name in _TIMES]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


_TIMES = (
    "ephemeral_5m_input_tokens",
    "ephemeral_30m_input_tokens",
    "ephemeral_1h_input_tokens",
    "ephemeral_12h_input_tokens",
)


def _times_of_cache(body: Mapping[str, Any], prompt: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The section that says for which time tokens were added to the cache."""
    details = _section(prompt or _NO_DETAILS, "cache_creation_token_details")
    return details or _section(body, "cache_creation")


def usage_at_price(usage: object, price: Price | None, source: str) -> Bill:
    """The usage that a model of the user's own reports, with its cost.

    ``usage``: a Usage, or a dict in the format of OpenAI or of Usage. ``price``: the model's own price; None if it has
    none. A cost above 0 that the usage reports is taken as it is, and one of 0 if the usage is that of no call.
    """
    if isinstance(usage, Mapping):
        return _bill_of_dict(usage, price, source)
    if not isinstance(usage, Usage):
        return _NO_REPORT
    if price is None:
        return usage, None
    if usage.usd or not usage.calls:
        return usage, REPORTED
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    known = [token_count(count) for count in counts]
    numbers = [count for count in known if count is not None]
    usd = cost_of(price, TokenCounts(*numbers)) if len(numbers) == len(counts) else None
    return replace(usage, usd=usd), None if usd is None else source


def _bill_of_dict(values: Mapping[str, Any], price: Price | None, source: str) -> Bill:
    tokens = _count_tokens(_in_openai_format(values))
    calls = token_count(values.get("calls"))
    usd = reported_usd(values, has_price=price is not None and calls != 0)
    origin: str | None = REPORTED
    if usd is None:
        usd = tokens.cost(price, served_tier(values.get("service_tier"), None))
        origin = None if usd is None else source
    usage = tokens.usage(usd)
    return usage if calls is None else replace(usage, calls=calls), origin


def _in_openai_format(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A usage in OpenAI's format, from one that may have the fields of ``Usage``."""
    if values.get("reasoning_tokens") is None or "completion_tokens_details" in values:
        return values
    return {**values, "completion_tokens_details": {"reasoning_tokens": values["reasoning_tokens"]}}
