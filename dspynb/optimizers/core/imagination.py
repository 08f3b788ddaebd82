"""Made-up results of rollouts and proposals, with what they would cost, from what is known of the program's costs."""

from __future__ import annotations

import math
import random
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Union, get_args, get_origin

from dspynb.events import PredictorCalled, RolloutEnded
from dspynb.forecasting.cost_model import CallCost, CostModel, call_cost
from dspynb.forecasting.forecast import Totals
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.resume_log import LoggedResult, RolloutKey

__all__ = ["Course", "Imagination", "Spent"]

_TEXT_SPREAD = 0.2
"""How much the tokens of a byte differ between two texts: the standard deviation of the logarithm."""
_CANDIDATE_SPREAD = 0.12
"""How much a candidate's own texts change the tokens of its prompts, likewise."""
_PROPOSAL_REPLY = 200.0
"""Tokens of the reply of a proposal of which nothing is known."""
_REPLY_SPREAD = 0.5
_PSEUDO_SCORES = (0.0, 1.0)
"""Scores that count as if half a rollout had had each of them: a few rows show no sure share of successes."""


@dataclass(slots=True)
class Spent:
    """A sum of costs."""

    rollouts: int = 0
    calls: float = 0.0
    tokens: float = 0.0
    usd: float | None = 0.0

    def add(self, costs: Sequence[CallCost]) -> None:
        """Add calls."""
        for cost in costs:
            self.calls += cost.calls
            self.tokens += cost.tokens
            self.usd = None if self.usd is None or cost.usd is None else self.usd + cost.usd


@dataclass(slots=True)
class Course:
    """One possible course of a run: what the rows that were run have cost, what further rollouts and proposals would
    cost on average, and how long it takes. ``count``: how many mutations, trials or candidates it finishes."""

    known: Spent = field(default_factory=Spent)
    rollouts: Spent = field(default_factory=Spent)
    proposals: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    count: float = 0.0

    def totals(self, factors: Totals, reply_factor: float) -> Totals:
        """The costs, where the true mean costs differ from the known ones by these factors."""
        usd = None
        parts = [self.known.usd, self.rollouts.usd, self.proposals.usd]
        if None not in parts:
            known, rollouts, proposals = (part or 0.0 for part in parts)
            usd = known + rollouts * (factors.usd or 1.0) + proposals * reply_factor
        calls = self.known.calls + self.rollouts.calls * factors.calls + self.proposals.calls
        tokens = self.known.tokens + self.rollouts.tokens * factors.tokens + self.proposals.tokens * reply_factor
        count = self.known.rollouts + self.rollouts.rollouts
        return Totals(count, calls, tokens, usd, self.seconds * factors.seconds, self.count)


class Imagination:
    """The results of one course.

    ``known``: rollouts that were run. ``replies``: the tokens of the replies of earlier proposals. Scores are drawn
    from those of the known rollouts; on how many rows a candidate scores as another one is drawn for each course.
    """

    def __init__(
        self,
        model: CostModel,
        known: Mapping[RolloutKey, LoggedResult],
        replies: Sequence[float],
        rng: random.Random,
    ) -> None:
        self.model = model
        self.known = known
        self.rng = rng
        self.course = Course()
        self.factors = model.draw_factors(rng)
        self.reply_factor = self.draw_reply_factor()
        self.tokens_per_byte = model.tokens_per_byte()
        self.more_tokens: dict[str, Mapping[str, float]] = {}  # candidate id → see DryEngine
        self._reply_tokens = self._draw_reply_tokens(replies)
        self._bytes_per_token = _reply_bytes_per_token(model)
        self._sameness = rng.betavariate(1, 2)
        self._scores, self._weights = self._score_distribution()
        self._seed = rng.random()

    def draw_factors(self) -> Totals:
        """How much the true mean costs of rollouts may differ from the known ones."""
        return self.model.draw_factors(self.rng)

    def draw_reply_factor(self) -> float:
        """How much the true costs of proposals may differ from the assumed ones."""
        return math.exp(self.rng.gauss(0, _TEXT_SPREAD))

    def inputs_of(self, path: str) -> Mapping[str, Any]:
        """The inputs of a call of the predictor."""
        for sample in self.model.samples:
            for call in sample.calls:
                if call.predictor == path and call.inputs:
                    return call.inputs
        return {}

    def count_known(self, known: LoggedResult) -> None:
        """Count a rollout that was run."""
        self.course.known.rollouts += 1
        self.course.known.add([call_cost(call, self.model.rates) for call in known.calls])

    # ── rollouts ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def rollout(self, key: RolloutKey, more_tokens: Mapping[str, float]) -> tuple[LoggedResult, float]:
        """The result of a rollout and its seconds. ``more_tokens``: path → how many more tokens the candidate's prompts
        have than those of the program."""
        rng = self._random(*key)  # of its own, since the order of rollouts depends on their seconds
        number = self.model.draw_sample(rng)
        sample = self.model.samples[number]
        costs = self.model.costs[number]
        ratio = self._ratio(key[0]) if more_tokens else 1.0
        imagined = [self._cost(call, cost, more_tokens, ratio) for call, cost in zip(sample.calls, costs, strict=True)]
        self.course.rollouts.rollouts += 1
        self.course.rollouts.add(imagined)
        calls = [
            replace(call, usage=cost.usage(), cached=False) for call, cost in zip(sample.calls, imagined, strict=True)
        ]
        ended = self._ended(sample.ended, key, rng)
        return LoggedResult(ended, tuple(calls)), sample.seconds

    def _cost(self, call: PredictorCalled, cost: CallCost, more_tokens: Mapping[str, float], ratio: float) -> CallCost:
        more = more_tokens.get(call.predictor)
        if more is None:
            return cost
        prompt = max(1.0, (cost.prompt + more) * ratio)
        return replace(cost, prompt=prompt, usd=self._usd(call.model, cost, prompt))

    def _usd(self, model: str, cost: CallCost, prompt: float) -> float | None:
        """The USD of a call whose prompt has another length."""
        if cost.usd is None:
            return None
        rate = self.model.rates.get(model)
        if rate is not None:
            return cost.usd + (prompt - cost.prompt) * rate.prompt
        return cost.usd * (prompt + cost.reply) / max(1.0, cost.tokens)

    def _ratio(self, name: str) -> float:
        return math.exp(self._random("texts", name).gauss(0, _CANDIDATE_SPREAD))

    def _random(self, *purpose: object) -> random.Random:
        return random.Random(repr((self._seed, *purpose)))  # noqa: S311  # keeps no secret

    def _ended(self, ended: RolloutEnded | None, key: RolloutKey, rng: random.Random) -> RolloutEnded:
        name, split, row, repeat = key
        if ended is None:
            ended = RolloutEnded(span=0, row=row, outputs={}, feedback="It could be better.")
        score = None if ended.error is not None else self._score(split, row, rng)
        return replace(ended, row=row, repeat=repeat, candidate=name, split=split, score=score)

    def _score(self, split: str, row: int, rng: random.Random) -> float:
        if rng.random() < self._sameness:
            rng = self._random("row", split, row)  # the score that most candidates have on this row
        (score,) = rng.choices(self._scores, self._weights)
        if len(set(self._scores)) > len(_PSEUDO_SCORES) + 1:  # a scale, and no success or failure
            score = min(max(self._scores), max(min(self._scores), score + rng.uniform(-0.1, 0.1)))
        return score

    def _score_distribution(self) -> tuple[list[float], list[float]]:
        """Scores with random weights, as the Bayesian bootstrap draws them."""
        scores = [*_PSEUDO_SCORES]
        weights = [self.rng.gammavariate(0.5, 1) for _ in scores]
        for sample in self.model.samples:
            if sample.ended is not None and sample.ended.score is not None:
                scores.append(sample.ended.score)
                weights.append(self.rng.gammavariate(1, 1))
        return scores, weights

    # ── proposals ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def proposal(
        self, key: str, predict: Predict, prompt: int, lm: Any, paths: Sequence[str]
    ) -> tuple[Mapping[str, Any], PredictorCalled, float]:
        """The outputs of a proposal, its call, and its seconds. ``prompt``: the bytes of its prompt."""
        rng = self._random(key)
        tokens = prompt * self.tokens_per_byte * math.exp(rng.gauss(0, _TEXT_SPREAD))
        reply = max(1.0, self._reply_tokens * math.exp(rng.gauss(0, _REPLY_SPREAD)))
        name = str(getattr(lm, "name", type(lm).__name__))
        cost = CallCost(tokens, reply, self._proposal_usd(name, tokens, reply))
        self.course.proposals.add([cost])
        call = PredictorCalled(span=0, predictor="", uid="", inputs={}, messages=(), usage=cost.usage(), model=name)
        size = max(20, round(reply * self._bytes_per_token))
        outputs = {}
        for field_name, output in predict.signature.output_fields.items():
            outputs[field_name] = _made_up(output.annotation, f"{key}: {'word ' * (size // 5)}", paths)
        seconds = self.model.mean.seconds / max(1.0, self.model.mean.calls)
        return outputs, call, seconds * max(1.0, reply / max(1.0, self._mean_reply()))

    def _proposal_usd(self, model: str, prompt: float, reply: float) -> float | None:
        rate = self.model.rates.get(model)
        if rate is not None:
            return rate.call + prompt * rate.prompt + reply * rate.reply
        mean = self.model.mean
        if mean.usd is None:
            return None
        if not mean.tokens:
            return 0.0 if not mean.usd else mean.usd / max(1.0, mean.calls)
        return mean.usd / mean.tokens * (prompt + reply)

    def _draw_reply_tokens(self, replies: Sequence[float]) -> float:
        """The mean tokens of the replies of proposals, in this course."""
        if replies:
            spread = _REPLY_SPREAD / math.sqrt(len(replies))
            return sum(replies) / len(replies) * math.exp(self.rng.gauss(0, spread))
        task = self._mean_reply() or _PROPOSAL_REPLY
        return math.sqrt(task * _PROPOSAL_REPLY) * math.exp(self.rng.gauss(0, _REPLY_SPREAD))

    def _mean_reply(self) -> float:
        replies = [cost.reply for costs in self.model.costs for cost in costs]
        return sum(replies) / max(1, len(replies))


def _reply_bytes_per_token(model: CostModel) -> float:
    size = tokens = 0.0
    for sample, costs in zip(model.samples, model.costs, strict=True):
        size += sum(len(call.reply or "") for call in sample.calls)
        tokens += sum(cost.reply for cost in costs)
    return size / tokens if size and tokens else 4.0


def _made_up(annotation: Any, text: str, paths: Sequence[str]) -> Any:
    """A value of a type, with a text in it."""
    origin = get_origin(annotation) or annotation
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType) and arguments:
        return _made_up(arguments[0], text, paths)
    if origin in (list, Sequence) or (isinstance(origin, type) and issubclass(origin, list)):
        return [_made_up(arguments[0] if arguments else str, text, paths)]
    if origin is dict or origin is Mapping:
        return {path: _made_up(arguments[1] if len(arguments) > 1 else str, text, paths) for path in paths}
    if origin in (int, float, bool):
        return origin(1)
    return text
