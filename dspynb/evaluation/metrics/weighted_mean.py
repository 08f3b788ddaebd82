"""The weighted mean of several metrics, as one metric."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dspynb.data import Example, Prediction, Score, as_score
from dspynb.errors import ConfigurationError
from dspynb.evaluation.metrics.feedback import multi_objective, weights_of
from dspynb.modules.scorer import Scorer

__all__ = ["Weighted"]


class Weighted:
    """The metric that ``dn.metrics.weighted`` makes."""

    __name__ = "weighted"

    def __init__(self, metrics: Mapping[str, Callable[..., Any]], weights: Mapping[str, float] | None = None) -> None:
        if not isinstance(metrics, Mapping) or not metrics:
            raise ConfigurationError("weighted: give metrics as a mapping of name to metric")
        self.scorers = {name: Scorer(metric, f"metric {name!r}") for name, metric in metrics.items()}
        self.weights = weights_of(metrics, weights)
        descriptions = []
        for name, scorer in self.scorers.items():
            descriptions.append(f"{name} (weight {self.weights[name]:g}): {scorer.describe()}")
        self.__doc__ = f"The weighted mean of: {'; '.join(descriptions)}"

    def __call__(
        self, row: Example, prediction: Prediction, trace: Sequence[object] = (), predictor: str | None = None
    ) -> Score | Awaitable[Score]:
        """Score a prediction with all metrics. Returns the combined Score; an awaitable of it if a metric is async."""
        extras = {"trace": trace, "predictor": predictor}
        values = {}
        for name, scorer in self.scorers.items():
            arguments = {extra: extras[extra] for extra in scorer.extras}
            values[name] = scorer.fn(row, prediction, **arguments)
        if any(map(inspect.isawaitable, values.values())):
            return self._await_and_combine(values)
        return self._combine(values)

    async def _await_and_combine(self, values: Mapping[str, Any]) -> Score:
        results = {}
        for name, value in values.items():
            results[name] = await value if inspect.isawaitable(value) else value
        return self._combine(results)

    def _combine(self, values: Mapping[str, Any]) -> Score:
        return multi_objective({name: as_score(value) for name, value in values.items()}, self.weights)

    def __repr__(self) -> str:
        weights = [f"{name}={weight:g}" for name, weight in self.weights.items()]
        return f"weighted({', '.join(weights)})"
