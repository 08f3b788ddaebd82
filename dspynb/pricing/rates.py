"""What a call costs by its tokens, and the highest prices that it can have.

Prices are decimal numbers of at most 15 digits, as providers publish them. Costs are computed with whole numbers, and
rounded once, to the nearest float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import NamedTuple

from dspynb.pricing.price import AMOUNTS, Price

__all__ = [
    "BATCH",
    "HighestPrices",
    "Rates",
    "TokenCounts",
    "cost_of",
    "highest",
    "plain_cost",
    "rates_of",
    "served_tier",
    "tier_of",
]

_MILLION = 1_000_000
BATCH = "batch"
_OTHER_NAMES: Mapping[str, str] = {
    "batches": BATCH,
    "fast": "priority",
    "on_demand_priority": "priority",
    "on_demand_flex": "flex",
}
"""Names that providers and litellm have for service tiers, beside those of ``Price.service_tiers``."""
_PLAIN_TIERS = frozenset({"default", "standard", "on_demand"})
"""Names of the tier that costs the plain price."""


class TokenCounts(NamedTuple):
    """The tokens of a call by price. Those of the prompt after ``prompt`` are parts of it, likewise those of the reply.

    ``written``: tokens that the provider added to its cache, ``written_1h`` and ``written_12h`` of which for an hour
    and for twelve hours. ``cached_audio`` and ``cached_image`` are parts of ``cached``; ``audio``, ``image`` and
    ``video`` are not.
    """

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0
    written: int = 0
    written_1h: int = 0
    written_12h: int = 0
    audio: int = 0
    image: int = 0
    video: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    audio_output: int = 0
    image_output: int = 0


class Rates(NamedTuple):
    """The prices of one call, as whole numbers: US dollars for a token, times ``denominator``."""

    input: int
    cached_input: int
    cache_write: int
    cache_write_1h: int
    cache_write_12h: int
    audio_input: int
    cached_audio_input: int
    image_input: int
    cached_image_input: int
    video_input: int
    output: int
    reasoning: int
    audio_output: int
    image_output: int
    request: int
    denominator: int

    def cost(self, counts: TokenCounts) -> float:
        """What a call with these tokens costs, in US dollars."""
        total = self._prompt_cost(counts) + self._reply_cost(counts) + self.request
        return total / self.denominator  # Python rounds the quotient of whole numbers correctly

    def _prompt_cost(self, counts: TokenCounts) -> int:
        """The parts of a prompt may overlap, as providers report them: what the cache has is not counted again."""
        cached = min(counts.cached, counts.prompt)
        written = min(counts.written, counts.prompt - cached)
        rest = counts.prompt - cached - written
        cached_audio = min(counts.cached_audio, cached)
        cached_image = min(counts.cached_image, cached - cached_audio)
        audio = min(counts.audio, rest)
        image = min(counts.image, rest - audio)
        video = min(counts.video, rest - audio - image)
        written_1h = min(counts.written_1h, written)
        written_12h = min(counts.written_12h, written - written_1h)
        return (
            (rest - audio - image - video) * self.input
            + audio * self.audio_input
            + image * self.image_input
            + video * self.video_input
            + (cached - cached_audio - cached_image) * self.cached_input
            + cached_audio * self.cached_audio_input
            + cached_image * self.cached_image_input
            + (written - written_1h - written_12h) * self.cache_write
            + written_1h * self.cache_write_1h
            + written_12h * self.cache_write_12h
        )

    def _reply_cost(self, counts: TokenCounts) -> int:
        reasoning = min(counts.reasoning, counts.completion)
        audio = min(counts.audio_output, counts.completion - reasoning)
        image = min(counts.image_output, counts.completion - reasoning - audio)
        return (
            (counts.completion - reasoning - audio - image) * self.output
            + reasoning * self.reasoning
            + audio * self.audio_output
            + image * self.image_output
        )


_FALLBACKS = (
    ("cached_input", "input"),
    ("cache_write", "input"),
    ("cache_write_1h", "cache_write"),
    ("cache_write_12h", "cache_write"),
    ("audio_input", "input"),
    ("cached_audio_input", "cached_input"),
    ("image_input", "input"),
    ("cached_image_input", "cached_input"),
    ("video_input", "input"),
    ("reasoning", "output"),
    ("audio_output", "output"),
    ("image_output", "output"),
)
"""Prices, and the ones that apply where they are unknown."""


def cost_of(price: Price, counts: TokenCounts, service_tier: str | None = None) -> float | None:
    """What a call with these tokens costs, in US dollars; None if the price of the prompt or the reply is unknown."""
    rates = _rates_for(price, counts.prompt, service_tier)
    return None if rates is None else rates.cost(counts)


def plain_cost(price: Price, tokens: tuple[int, int, int, int], service_tier: str | None = None) -> float | None:
    """The same for a call of which only these tokens have a price: those of the prompt, of the reply, cached ones and
    reasoning. Takes a third of the time."""
    prompt, completion, cached, reasoning = tokens
    usual = price._usual
    if usual is None or service_tier is not None or prompt > usual[0]:
        rates = _rates_for(price, prompt, service_tier)
        if rates is None:
            return None
        usual = _Usual.of(rates)
    _, input_price, cached_price, output_price, reasoning_price, request, denominator = usual
    if cached > prompt:  # noqa: PLR1730  # min takes twice as long
        cached = prompt
    if reasoning > completion:  # noqa: PLR1730
        reasoning = completion
    total = (prompt - cached) * input_price + cached * cached_price + request
    total += (completion - reasoning) * output_price + reasoning * reasoning_price
    usd: float = total / denominator
    return usd


def _rates_for(price: Price, prompt: int, service_tier: str | None) -> Rates | None:
    """The prices of a call; None if the price of the prompt or the reply is unknown."""
    if price._usual is None:
        rates = rates_of(price, None, 0)
        if rates is not None:
            thresholds = _thresholds(price)
            object.__setattr__(price, "_usual", _Usual.of(rates, thresholds[0] if thresholds else _NEVER))
    return rates_of(price, tier_of(price, service_tier), _crossed(price, prompt))


class _Usual(NamedTuple):
    """The prices of a usual call, which has no service tier, in a form that is fast to read: the largest number of
    tokens of its prompt, and fields of its Rates."""

    longest: float
    input: int
    cached_input: int
    output: int
    reasoning: int
    request: int
    denominator: int

    @classmethod
    def of(cls, rates: Rates, longest: float = 0) -> _Usual:
        return cls(
            longest,
            rates.input,
            rates.cached_input,
            rates.output,
            rates.reasoning,
            rates.request,
            rates.denominator,
        )


_NEVER = float("inf")


def tier_of(price: Price, name: object) -> str | None:
    """The service tier with prices of its own that a request or reply names; None for the plain price."""
    if not isinstance(name, str) or not price.service_tiers:
        return None
    tier = name.strip().lower()
    if tier not in price.service_tiers:
        tier = _OTHER_NAMES.get(tier, tier)
    return tier if tier in price.service_tiers else None


def served_tier(served: object, requested: object) -> str | None:
    """The service tier of a call: the one that the reply reports if it is a known one, else the requested one."""
    if isinstance(served, str):
        tier = served.strip().lower()
        if tier in _PLAIN_TIERS:
            return None
        if tier and tier != "auto":
            return tier
    return requested if isinstance(requested, str) else None


@lru_cache(maxsize=256)
def _thresholds(price: Price) -> tuple[int, ...]:
    thresholds = set(price.above)
    for tier in price.service_tiers.values():
        thresholds.update(tier.above)
    return tuple(sorted(thresholds))


def _crossed(price: Price, prompt: int) -> int:
    """How many thresholds of long prompts a prompt exceeds."""
    usual = price._usual
    if usual is not None and prompt <= usual.longest:  # as nearly always
        return 0
    count = 0
    for threshold in _thresholds(price):
        if prompt <= threshold:
            break
        count += 1
    return count


@lru_cache(maxsize=1024)
def rates_of(price: Price, tier: str | None, crossed: int) -> Rates | None:
    """The prices of calls of a service tier whose prompts exceed the first ``crossed`` thresholds. None if the price of
    the prompt or the reply is unknown."""
    values = _complete(_layers(price, tier, crossed))
    if values is None:
        return None
    unit = lcm(*[value.denominator for value in values.values()])
    scaled = {name: int(value * unit) for name, value in values.items()}
    scaled["request"] *= _MILLION
    return Rates(**scaled, denominator=_MILLION * unit)


_Amounts = Mapping[str, Fraction]
"""Prices by the names of the fields of Price, without those that are None."""


def _complete(layers: Iterable[_Amounts]) -> dict[str, Fraction] | None:
    """All prices of a call, from layers each of which replaces those before it. None if the price of the prompt or the
    reply is unknown."""
    values: dict[str, Fraction] = {}
    for layer in layers:
        values.update(layer)
        if "output" in layer and "reasoning" not in layer:
            values.pop("reasoning", None)  # a new price of replies is that of the reasoning in them too
    if "input" not in values or "output" not in values:
        return None
    for name, fallback in _FALLBACKS:
        values.setdefault(name, values[fallback])
    values.setdefault("request", Fraction(0))
    return values


def _amounts(price: Price) -> _Amounts:
    amounts = {name: getattr(price, name) for name in AMOUNTS}
    return {name: Fraction(repr(amount)) for name, amount in amounts.items() if amount is not None}


def _layers(price: Price, tier: str | None, crossed: int) -> Iterator[_Amounts]:
    """The prices that apply, each of which replaces those before it: the plain ones, those of the tier, and for each
    threshold the plain ones and those of the tier. A tier keeps its share of the plain price for long prompts."""
    plain = _amounts(price)
    thresholds = _thresholds(price)[:crossed]
    yield plain
    if tier is None:
        for threshold in thresholds:
            if threshold in price.above:
                yield _amounts(price.above[threshold])
        return
    in_tier = price.service_tiers[tier]
    yield _amounts(in_tier)
    shares = _shares(plain, _amounts(in_tier))
    for threshold in thresholds:
        if threshold in price.above:
            yield {name: amount * shares.get(name, 1) for name, amount in _amounts(price.above[threshold]).items()}
        if threshold in in_tier.above:
            yield _amounts(in_tier.above[threshold])


def _shares(plain: _Amounts, in_tier: _Amounts) -> _Amounts:
    """The prices of a tier as shares of the plain ones; empty where some are unknown."""
    usual, other = _complete([plain]), _complete([plain, in_tier])
    if usual is None or other is None:
        return {}
    return {name: other[name] / usual[name] for name in usual if usual[name]}


class HighestPrices(NamedTuple):
    """The highest prices of a call in USD: for a token of the prompt, a token of the reply, and the call itself."""

    prompt_token: float
    reply_token: float
    call: float = 0.0


_USUAL_PROMPT = ("input", "cached_input", "cache_write")
_LASTING_CACHE = ("cache_write_1h", "cache_write_12h")
_MEDIA_INPUT = ("audio_input", "cached_audio_input", "image_input", "cached_image_input", "video_input")
_USUAL_REPLY = ("output", "reasoning")
_MEDIA_OUTPUT = ("audio_output", "image_output")


def highest(
    price: Price | None,
    prompt: int | None = None,
    service_tier: str | None = None,
    *,
    has_media: bool = False,
    lasting_cache: bool = False,
) -> HighestPrices | None:
    """The highest prices in USD that may apply to a call, for one token; None if they are unknown.

    ``prompt``: the largest number of tokens that the prompt may have; None for any. ``service_tier``: the one that the
    request names. The provider may serve the request in the plain tier instead, and for ``auto`` in any tier but batch.
    ``has_media``: whether the prompt or the reply may have images, sound or films. ``lasting_cache``: whether the
    request asks for a cache that lasts an hour or longer.
    """
    if price is None:
        return None
    crossed = len(_thresholds(price)) if prompt is None else _crossed(price, prompt)
    return _highest(price, crossed, service_tier, has_media, lasting_cache)


@lru_cache(maxsize=1024)
def _highest(
    price: Price, crossed: int, service_tier: str | None, has_media: bool, lasting_cache: bool
) -> HighestPrices | None:
    """The same for a prompt that may exceed the first ``crossed`` thresholds of long prompts."""
    prompt_names = [*_USUAL_PROMPT]
    reply_names = [*_USUAL_REPLY]
    if lasting_cache:
        prompt_names += _LASTING_CACHE
    if has_media:
        prompt_names += _MEDIA_INPUT
        reply_names += _MEDIA_OUTPUT
    prompt_price = 0.0
    reply_price = 0.0
    call_price = 0.0
    for tier in _possible_tiers(price, service_tier):
        for count in range(crossed + 1):
            rates = rates_of(price, tier, count)
            if rates is None:
                return None
            unit = rates.denominator
            prompt_price = max(prompt_price, max(getattr(rates, name) for name in prompt_names) / unit)
            reply_price = max(reply_price, max(getattr(rates, name) for name in reply_names) / unit)
            call_price = max(call_price, rates.request / unit)
    return HighestPrices(prompt_price, reply_price, call_price)


def _possible_tiers(price: Price, service_tier: str | None) -> list[str | None]:
    if service_tier is not None and service_tier.strip().lower() == "auto":
        return [None, *[tier for tier in price.service_tiers if tier != BATCH]]
    tier = tier_of(price, service_tier)
    return [None] if tier is None else [None, tier]
