"""The cost of a rollout, as far as it is known: from rollouts that were run, else from a guess."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.data import Usage
from dspynb.events import PredictorCalled, RolloutEnded
from dspynb.forecasting.forecast import Totals
from dspynb.media.describe import content_text
from dspynb.scope.budget import estimated_tokens

__all__ = ["CallCost", "CostModel", "Rate", "Sample", "call_cost", "prompt_bytes"]

TOKENS_PER_BYTE = 0.25
"""Tokens of a byte of English text, about."""
_PRIOR_ROLLOUTS = 2
"""A prior of the spread counts as much as so many rollouts."""
_PRIOR_SPREAD = {"calls": 0.12, "tokens": 0.4, "usd": 0.45, "seconds": 0.5}
"""The standard deviation of the cost of a rollout, as a share of its mean, before any was run."""
_PRIOR_CALLS = 12
"""Before any call was made, half a repair in so many calls is expected."""
_GUESS_SPREAD = 0.9
"""The standard deviation of the logarithm of a guessed cost."""


@dataclass(frozen=True, slots=True)
class Rate:
    """USD for a token of the prompt and of the reply, and for the call itself."""

    prompt: float
    reply: float
    call: float = 0.0


@dataclass(frozen=True, slots=True)
class CallCost:
    """What a call costs. ``usd``: None without a price. ``is_estimated``: whether the provider reported no tokens."""

    prompt: float
    reply: float
    usd: float | None
    calls: float = 1.0
    is_estimated: bool = False

    @property
    def tokens(self) -> float:
        """The tokens of prompt and reply."""
        return self.prompt + self.reply

    def usage(self) -> Usage:
        """The cost as the usage of a call."""
        return Usage(1, round(self.prompt), round(self.reply), usd=self.usd)


@dataclass(frozen=True, slots=True)
class Sample:
    """A rollout that was run. ``calls``: all of its calls, with those of metrics. ``ended``: its result; None for a row
    of a batch."""

    calls: Sequence[PredictorCalled]
    ended: RolloutEnded | None = None

    @property
    def seconds(self) -> float:
        """The seconds of work."""
        if self.ended is not None:
            return self.ended.seconds
        return sum(call.seconds for call in self.calls)


def prompt_bytes(messages: Sequence[Mapping[str, Any]]) -> int:
    """The bytes of the texts of a prompt."""
    texts = [content_text(message.get("content") or "") for message in messages]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def call_cost(call: PredictorCalled, rates: Mapping[str, Rate]) -> CallCost:
    """What a recorded call costs when it is sent. A reply from a cache is counted as if it had been sent."""
    usage = call.usage
    is_estimated = usage.prompt_tokens is None or usage.completion_tokens is None
    if is_estimated:
        tokens = estimated_tokens(call) or usage.tokens or 0
        reply = min(tokens, math.ceil(len(call.reply or "") / 4))
        prompt = tokens - reply
    else:
        prompt = usage.prompt_tokens or 0
        reply = usage.completion_tokens or 0
    calls = max(1, usage.calls) if call.cached or is_estimated else usage.calls
    usd = usage.usd
    if call.cached or usd is None:
        rate = rates.get(call.model)
        usd = None if rate is None else rate.call + prompt * rate.prompt + reply * rate.reply
    return CallCost(prompt, reply, usd, calls, is_estimated=is_estimated)


class CostModel:
    """What rollouts of a program cost.

    ``samples``: rollouts that were run, or one guess (``is_guess``). ``rates``: the name of a model → its prices.
    """

    def __init__(self, samples: Sequence[Sample], rates: Mapping[str, Rate], *, is_guess: bool = False) -> None:
        self.samples = samples
        self.rates = rates
        self.is_guess = is_guess
        self.costs = [[call_cost(call, rates) for call in sample.calls] for sample in samples]
        self.totals = [_totals(sample, costs) for sample, costs in zip(samples, self.costs, strict=True)]
        self.has_prices = all(total.usd is not None for total in self.totals)
        self.mean = _mean(self.totals)
        self._spread = {name: self._spread_of(name) for name in _PRIOR_SPREAD}

    @property
    def is_estimated(self) -> bool:
        """Whether a provider reported no tokens."""
        return any(cost.is_estimated for costs in self.costs for cost in costs)

    @property
    def was_cached(self) -> bool:
        """Whether a reply came from a cache."""
        return any(call.cached for sample in self.samples for call in sample.calls)

    def tokens_per_byte(self) -> float:
        """Tokens of a byte of a prompt."""
        tokens = size = 0.0
        for sample, costs in zip(self.samples, self.costs, strict=True):
            for call, cost in zip(sample.calls, costs, strict=True):
                tokens += cost.prompt
                size += prompt_bytes(call.messages)
        # The prior weighs as much as the prompts of a few rows, since other texts have another ratio.
        weight = max(size / max(1, len(self.samples)) * _PRIOR_ROLLOUTS, 1.0)
        return (tokens + weight * TOKENS_PER_BYTE) / (size + weight)

    def _spread_of(self, name: str) -> float:
        """The standard deviation of the cost of a rollout as a share of its mean, with the prior's share."""
        prior = _PRIOR_SPREAD[name]
        mean = getattr(self.mean, name)
        if not mean or self.is_guess:
            return prior
        values = [getattr(total, name) for total in self.totals]
        squares = sum((value / mean - 1) ** 2 for value in values)
        return math.sqrt((squares + _PRIOR_ROLLOUTS * prior**2) / (len(values) - 1 + _PRIOR_ROLLOUTS))

    def draw_factors(self, rng: random.Random) -> Totals:
        """How much the true mean cost of a rollout may differ from that of the samples, as factors."""
        calls, common, seconds = _student(rng, self), _student(rng, self), _student(rng, self)
        factors: dict[str, float] = {}
        for name, draw in (("calls", calls), ("tokens", common), ("usd", common), ("seconds", seconds)):
            if self.is_guess:
                factors[name] = math.exp(draw * _GUESS_SPREAD)
            else:
                factors[name] = math.exp(draw * self._spread[name] / math.sqrt(len(self.samples)))
        # A few rows seldom have a reply that has to be repaired.
        repairs = rng.gammavariate(0.5, 1) / (_PRIOR_CALLS + len(self.samples))
        for name in ("calls", "tokens", "usd"):
            factors[name] *= 1 + repairs
        return Totals(1, factors["calls"], factors["tokens"], factors["usd"], factors["seconds"], 1)

    def draw_rest(self, count: int, rng: random.Random, factors: Totals) -> Totals:
        """What ``count`` further rollouts may cost."""
        noise = rng.gauss(0, 1)
        amounts: dict[str, float | None] = {}
        for name in _PRIOR_SPREAD:
            mean = getattr(self.mean, name)
            if mean is None:
                amounts[name] = None
                continue
            share = max(0.0, count + math.sqrt(count) * self._spread[name] * noise)
            amounts[name] = mean * share * getattr(factors, name)
        calls = amounts["calls"] or 0.0
        return Totals(count, calls, amounts["tokens"] or 0.0, amounts["usd"], amounts["seconds"] or 0.0, count)

    def draw_sample(self, rng: random.Random) -> int:
        """The number of a sample."""
        return rng.randrange(len(self.samples))


def _totals(sample: Sample, costs: Sequence[CallCost]) -> Totals:
    usd: float | None = 0.0
    for cost in costs:
        usd = None if usd is None or cost.usd is None else usd + cost.usd
    calls = sum(cost.calls for cost in costs)
    return Totals(1, calls, sum(cost.tokens for cost in costs), usd, sample.seconds, 1)


def _mean(totals: Sequence[Totals]) -> Totals:
    count = max(1, len(totals))
    usd: float | None = None
    if all(total.usd is not None for total in totals):
        usd = sum(total.usd or 0.0 for total in totals) / count
    calls = sum(total.calls for total in totals) / count
    tokens = sum(total.tokens for total in totals) / count
    seconds = sum(total.seconds for total in totals) / count
    return Totals(1, calls, tokens, usd, seconds, 1)


def _student(rng: random.Random, model: CostModel) -> float:
    """A draw of Student's distribution, with the degrees of freedom of the samples and the prior."""
    degrees = len(model.samples) - 1 + _PRIOR_ROLLOUTS
    return rng.gauss(0, 1) / math.sqrt(rng.gammavariate(degrees / 2, 2) / degrees)
