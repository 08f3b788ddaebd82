"""Several metrics as one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dspynb.data import Example, Prediction, Score, as_score
from dspynb.errors import ConfigurationError
from dspynb.evaluation.metrics.feedback import multi_objective, weights_of
from dspynb.modules.scorer import Scorer

__all__ = ["Weighted"]


class Weighted:
    """Metrics by name, and their weights. Made by ``dn.metrics.weighted``."""

    __name__ = "weighted"

    def __init__(self, metrics: Mapping[str, Callable[..., Any]], weights: Mapping[str, float] | None = None) -> None:
        if not isinstance(metrics, Mapping) or not metrics:
            raise ConfigurationError("weighted: give metrics as a mapping of name to metric")
        self.scorers = {name: Scorer(metric, f"metric {name!r}") for name, metric in metrics.items()}
        self.weights = weights_of(metrics, weights)
        told = (f"{name} (weight {self.weights[name]:g}): {s.describe()}" for name, s in self.scorers.items())
        self.__doc__ = "The weighted mean of: " + "; ".join(told)

    def __call__(
        self, row: Example, prediction: Prediction, trace: Any = (), predictor: str | None = None
    ) -> Score | Awaitable[Score]:
        """The combined Score, or an awaitable of it where a metric is async."""
        offered = {"trace": trace, "predictor": predictor}
        values = {
            name: scorer.fn(row, prediction, **{extra: offered[extra] for extra in scorer.extras})
            for name, scorer in self.scorers.items()
        }
        if any(map(inspect.isawaitable, values.values())):
            return self._awaited(values)
        return self._combined(values)

    async def _awaited(self, values: Mapping[str, Any]) -> Score:
        return self._combined({n: await v if inspect.isawaitable(v) else v for n, v in values.items()})

    def _combined(self, values: Mapping[str, Any]) -> Score:
        return multi_objective({name: as_score(value) for name, value in values.items()}, self.weights)

    def __repr__(self) -> str:
        return f"weighted({', '.join(f'{name}={weight:g}' for name, weight in self.weights.items())})"
