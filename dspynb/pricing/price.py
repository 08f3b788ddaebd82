"""The record of a model's prices, in US dollars for a million tokens."""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from numbers import Real
from types import MappingProxyType
from typing import Any, SupportsIndex, TypeVar

from dspynb.errors import ConfigurationError, shorten
from dspynb.name_advice import refuse_unknown
from dspynb.redact import redact

__all__ = [
    "AMOUNTS",
    "PRICE_FIELDS",
    "PROMPT_AMOUNTS",
    "REPLY_AMOUNTS",
    "Price",
    "amount_of",
    "combined",
    "price_from_fields",
    "shown",
]

PROMPT_AMOUNTS = (
    "input",
    "cached_input",
    "cache_write",
    "cache_write_1h",
    "cache_write_12h",
    "audio_input",
    "cached_audio_input",
    "image_input",
    "cached_image_input",
    "video_input",
)
"""The prices of tokens of a prompt. Those after the first replace it for some of the tokens."""
REPLY_AMOUNTS = ("output", "reasoning", "audio_output", "image_output")
"""The prices of tokens of a reply. Those after the first replace it for some of the tokens."""
AMOUNTS = (*PROMPT_AMOUNTS, *REPLY_AMOUNTS, "request")
_FORM = "US dollars for a million tokens: a number of at least 0, such as 2.5"
_THRESHOLD = re.compile(r"(?P<number>\d{1,12})(?P<thousands>k?)")
_LARGEST_THRESHOLD = 10**15
_MOST = 1e100
"""A larger number is no price, so that every cost is finite."""
_EMPTY: Mapping[Any, Any] = MappingProxyType({})
K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in US dollars for a million tokens. None where a price is unknown, 0 for what is free.

    Args:
        input: A token of the prompt.
        cached_input: A token of the prompt that the provider read from its cache. None for the price of ``input``.
        cache_write: A token of the prompt that the provider added to its cache. None for the price of ``input``.
        cache_write_1h: The same for an hour. None for ``cache_write``.
        cache_write_12h: The same for twelve hours. None for ``cache_write``.
        audio_input, image_input, video_input: A token of sound, of an image, of a film. None for ``input``.
        cached_audio_input, cached_image_input: The same from the cache. None for ``cached_input``.
        output: A token of the reply.
        reasoning: A token of the model's reasoning. None for ``output``.
        audio_output, image_output: A token of sound, of an image. None for ``output``.
        request: US dollars for a request, in addition to its tokens.
        above: Prices of long prompts: a dict from a number of tokens to the prices of a prompt that has more.
        service_tiers: Prices of the provider's service tiers, by name: ``batch``, ``flex``, ``priority`` ….

    A price in ``above`` or ``service_tiers`` replaces those of its fields that are not None. For long prompts a service
    tier has the prices in its own ``above``, or else those in the model's, times the tier's share of the plain price.
    Raises ConfigurationError for a price that is negative, infinite or no number.

    >>> price = dn.Price(input=2.5, output=10, cached_input=1.25, above={200_000: {"input": 5, "output": 15}})
    >>> price.output, price.above[200_000].output
    (10.0, 15.0)
    """

    input: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    cache_write_12h: float | None = None
    audio_input: float | None = None
    cached_audio_input: float | None = None
    image_input: float | None = None
    cached_image_input: float | None = None
    video_input: float | None = None
    output: float | None = None
    reasoning: float | None = None
    audio_output: float | None = None
    image_output: float | None = None
    request: float | None = None
    above: Mapping[int, Price] = field(default_factory=dict)
    service_tiers: Mapping[str, Price] = field(default_factory=dict)
    _hash: int = field(init=False, repr=False, compare=False)
    _usual: Any = field(init=False, repr=False, compare=False)
    """The prices of usual calls, which ``dspynb.pricing.rates`` computes when they are first needed."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        for name in AMOUNTS:
            value = getattr(self, name)
            if value is None:
                continue
            amount = amount_of(value)
            if amount is None:
                problems.append(f"{name} is {shown(value)}")
            else:
                object.__setattr__(self, name, amount)
        if problems:
            raise ConfigurationError(f"price: {', '.join(problems)}; it must be {_FORM}")
        object.__setattr__(self, "above", _nested("above", self.above, _threshold))
        object.__setattr__(self, "service_tiers", _nested("service_tiers", self.service_tiers, _tier_name))
        amounts = [getattr(self, name) for name in AMOUNTS]
        object.__setattr__(self, "_usual", None)
        object.__setattr__(self, "_hash", hash((*amounts, *self.above.items(), *self.service_tiers.items())))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return price_from_fields, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """The prices that are known, as JSON values. ``dn.Price(**values)`` has the same prices."""
        values: dict[str, Any] = {}
        for name in AMOUNTS:
            amount = getattr(self, name)
            if amount is not None:
                values[name] = amount
        if self.above:
            values["above"] = {str(threshold): price.to_dict() for threshold, price in self.above.items()}
        if self.service_tiers:
            values["service_tiers"] = {tier: price.to_dict() for tier, price in self.service_tiers.items()}
        return values

    def fingerprint(self) -> str:
        """A short hash of the prices."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:8]

    def __repr__(self) -> str:
        values = self.to_dict()
        if self.above:
            values["above"] = dict(self.above)
        if self.service_tiers:
            values["service_tiers"] = dict(self.service_tiers)
        parts = [f"{name}={value!r}" for name, value in values.items()]
        return f"Price({', '.join(parts)})"


PRICE_FIELDS = tuple(declared.name for declared in fields(Price) if declared.init)
_OTHERWISE = "The prices are those of dn.Price, or of an entry of litellm's map: see docs/models.md."


def amount_of(value: object) -> float | None:
    """A price as a number; None for anything else than a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError, TypeError):  # too large, or a NaN of Decimal that signals
        return None
    return number if 0 <= number <= _MOST else None


def shown(value: object) -> str:
    """A wrong value as error messages have it: short, and without known secrets."""
    try:
        text = repr(value)
    except Exception:  # whole numbers of more than 4300 digits, or an object of the user's
        text = f"a value of the type {type(value).__name__}"
    return redact(shorten(text, 60))


def _nested(name: str, values: object, key_of: Callable[[object], K | None]) -> Mapping[K, Price]:
    """Nested prices, sorted by their keys. Raises ConfigurationError, which names the nested price."""
    if values is None or values == {}:
        return _EMPTY
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"price: {name} is {shown(values)}; it must be a dict of prices")
    prices: dict[K, Price] = {}
    for raw_key, value in values.items():
        key = key_of(raw_key)
        shown_key = shown(raw_key).strip("'")
        if key is None or key in prices:
            raise ConfigurationError(f"price: {name} has the key {shown(raw_key)}; {_KEY_FORMS[name]}")
        if not isinstance(value, Price | Mapping):
            raise ConfigurationError(f"price: {name} {shown_key} is {shown(value)}; it must be a dict of prices")
        try:
            prices[key] = value if isinstance(value, Price) else price_from_fields(value)
        except ConfigurationError as error:
            detail = str(error).removeprefix("price: ")
            raise ConfigurationError(f"price: {name} {shown_key}: {detail}") from None
    return MappingProxyType(dict(sorted(prices.items(), key=_by_key)))


def _by_key(entry: tuple[Any, Price]) -> Any:
    return entry[0]


_KEY_FORMS = {
    "above": "each key must be a number of tokens, such as 200_000 or '200k', and once",
    "service_tiers": "each key must be the name of a service tier, such as 'flex', and once",
}


def _threshold(key: object) -> int | None:
    """A number of tokens, of which JSON writes the digits as a text."""
    if isinstance(key, SupportsIndex) and not isinstance(key, bool):
        number = operator.index(key)
        return number if 0 <= number <= _LARGEST_THRESHOLD else None
    match = _THRESHOLD.fullmatch(key.strip().lower()) if isinstance(key, str) else None
    if match is None:
        return None
    return int(match["number"]) * (1000 if match["thousands"] else 1)


def _tier_name(key: object) -> str | None:
    return key.strip().lower() or None if isinstance(key, str) else None


def price_from_fields(values: Mapping[str, Any]) -> Price:
    """A price from a dict of its fields. Raises ConfigurationError, which names an unknown field or a wrong value."""
    if not all(isinstance(name, str) for name in values):
        raise ConfigurationError("price: the names of prices must be texts, such as 'input' and 'output'")
    refuse_unknown("price", values, PRICE_FIELDS, {}, _OTHERWISE)
    return Price(**values)


def combined(own: Price, listed: Price | None) -> Price:
    """The prices of ``own``, and those of ``listed`` for the rest.

    A price of ``input`` in ``own`` replaces all prices of the prompt, and one of ``output`` all those of the reply,
    also those of long prompts and service tiers.
    """
    has_both = own.input is not None and own.output is not None
    if listed is None or has_both:
        return own
    replaced: set[str] = set()
    if own.input is not None:
        replaced.update(PROMPT_AMOUNTS)
    if own.output is not None:
        replaced.update(REPLY_AMOUNTS)
    values = {**_without(listed, replaced), **_amounts(own, AMOUNTS)}
    values["above"] = own.above or _all_without(listed.above, replaced)
    values["service_tiers"] = own.service_tiers or _all_without(listed.service_tiers, replaced)
    return Price(**values)


def _amounts(price: Price, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(price, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _without(price: Price, names: set[str]) -> dict[str, Any]:
    values = _amounts(price, [name for name in AMOUNTS if name not in names])
    return {
        **values,
        "above": _all_without(price.above, names),
        "service_tiers": _all_without(price.service_tiers, names),
    }


def _all_without(prices: Mapping[K, Price], names: set[str]) -> dict[K, Price]:
    return {key: Price(**_without(price, names)) for key, price in prices.items()}
