"""Where the costs of a forecast are from: probe rows, earlier runs of the program, else its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspynb.events import PredictorCalled
from dspynb.forecasting.cost_model import TOKENS_PER_BYTE, CallCost, CostModel, Rate, Sample
from dspynb.forecasting.earlier_runs import read_earlier_runs
from dspynb.forecasting.rates import model_of, rates_of
from dspynb.running.run import Run

__all__ = ["KnownCosts", "Sources", "known_costs"]

_REPLY_TOKENS = 150
"""Tokens of a reply of which nothing is known."""
_FORMAT_BYTES = 600
"""Bytes of a prompt that describe the format of the reply, about."""
_SECONDS = 2.0
"""Seconds of a call of which nothing is known."""
_FEWEST = 3
"""Probe rows from which on earlier runs are not read: those rows show what the present ones cost."""


@dataclass(frozen=True)
class Sources:
    """What the costs are looked up by. ``fingerprint``: of the program. ``metric``: its name; None where rows are not
    scored. ``inputs``: those of some rows. ``predictors``: further ones whose prices are needed."""

    program: Any
    fingerprint: str
    models: Sequence[str]
    metric: str | None
    inputs: Sequence[Mapping[str, Any]]
    predictors: Sequence[Any] = ()
    start: str = ""


@dataclass(frozen=True)
class KnownCosts:
    """The model of the costs, with what it rests on. ``replies``: tokens of the replies of earlier proposals."""

    model: CostModel
    sources: Sequence[str]
    notes: Sequence[str]
    replies: Sequence[float] = ()


def known_costs(samples: Sequence[Sample], sources: Sources, run: Run | None) -> KnownCosts:
    """What rollouts cost. ``samples``: the probe rows that were run. ``run``: theirs."""
    predictors = [predictor for _, predictor in sources.program.named_predictors()]
    rates = rates_of([*predictors, *sources.predictors])
    without = () if run is None else (run.path,)
    earlier = read_earlier_runs(sources.fingerprint, sources.models, sources.metric, sources.start, without)
    used = list(samples)
    if len(samples) < _FEWEST:
        used += earlier.samples
    texts = []
    if samples:
        texts.append("1 probe row" if len(samples) == 1 else f"{len(samples)} probe rows")
    if len(used) > len(samples):
        texts.append(f"{len(used) - len(samples)} rollouts of {earlier.runs} earlier runs")
    if used:
        model = CostModel(used, rates)
        return KnownCosts(model, texts, _notes(model), earlier.replies)
    model = CostModel([_guess(sources, predictors, rates)], rates, is_guess=True)
    note = "no row of this program was run: its prompts and replies are guessed, so the interval is wide; probe rows "
    return KnownCosts(model, ["the plan of the run"], [f"{note}narrow it", *_notes(model)], earlier.replies)


def _notes(model: CostModel) -> list[str]:
    notes = []
    if not model.has_prices:
        notes.append("USD are unknown, since the price of a model is: give LM(price={'input': …, 'output': …})")
    if model.is_estimated and not model.is_guess:
        notes.append("a provider reports no tokens: one for four characters is counted")
    if model.was_cached:
        notes.append("some replies came from a cache: they are counted as if they had been sent")
    return notes


def _guess(sources: Sources, predictors: Sequence[Any], rates: Mapping[str, Rate]) -> Sample:
    """A rollout as it may be: each predictor is called, the whole program up to as often as it says."""
    sizes = [sum(len(str(value)) for value in row.values()) for row in sources.inputs]
    row_bytes = sum(sizes) / len(sizes) if sizes else 0
    most = max(1, int(sources.program.most_calls()))
    calls = max(len(predictors), round((max(1, len(predictors)) * most) ** 0.5))
    events = []
    for number in range(calls):
        predictor = predictors[number % len(predictors)] if predictors else None
        lm = model_of(predictor)
        name = str(getattr(lm, "name", type(lm).__name__))
        instruction = "" if predictor is None else predictor.instruction_under()
        prompt = (len(instruction) + _FORMAT_BYTES + row_bytes) * TOKENS_PER_BYTE
        cost = CallCost(prompt, min(_REPLY_TOKENS, _limit_of(lm, predictor)), None)
        rate = rates.get(name)
        if rate is not None:
            cost = CallCost(cost.prompt, cost.reply, rate.call + cost.prompt * rate.prompt + cost.reply * rate.reply)
        path = "" if predictor is None else sources.program.named_predictors()[number % len(predictors)][0]
        events.append(
            PredictorCalled(
                span=0,
                predictor=path,
                uid="",
                inputs={},
                messages=({"role": "user", "content": "x" * round(prompt / TOKENS_PER_BYTE)},),
                usage=cost.usage(),
                model=name,
                seconds=_SECONDS,
            )
        )
    return Sample(events)


def _limit_of(lm: Any, predictor: Any) -> float:
    """Half of the limit of a reply, where there is one."""
    settings = {**(getattr(lm, "settings", None) or {}), **(getattr(predictor, "settings", None) or {})}
    limit = settings.get("max_tokens") or settings.get("max_completion_tokens")
    return limit / 2 if isinstance(limit, int | float) else float("inf")
