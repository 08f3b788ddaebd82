"""Rewards and metrics: calling what users write, and reading what it returns."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from dspynb.data import Example, Prediction, Score, as_score
from dspynb.errors import ConfigurationError, Halted, RewardError
from dspynb.json_checks import is_real
from dspynb.running.user_code import reraise_as
from dspynb.scope.hints import mask

__all__ = ["Scorer", "source_of"]

_SCORES = (int, float, Score)


class Scorer:
    """A user's reward or metric: ``fn(row, prediction) -> float | bool | Score``, sync or async.

    It gets ``trace=`` (the calls that made the prediction) and ``predictor=`` if it has parameters of those names.
    Raises ConfigurationError for what cannot be called so.
    """

    def __init__(self, fn: Callable[..., Any], what: str = "reward") -> None:
        if not callable(fn):
            raise ConfigurationError(f"{what} must be a function of (row, prediction), got {type(fn).__name__}")
        self.fn, self.what = fn, what
        self.extras = _named_extras(fn)
        self._check_parameters()

    async def __call__(
        self, row: Example, prediction: Prediction, *, trace: Sequence[Any] = (), predictor: str | None = None
    ) -> Score:
        """The score, computed with hints and candidates masked.

        Raises RewardError for what is not a score, and for what the function raised; but a ConfigurationError, a
        mistake that another attempt would meet too, as it is.
        """
        extras: dict[str, Any] = {}
        if self.extras:
            offered = {"trace": trace, "predictor": predictor}
            extras = {name: offered[name] for name in self.extras}
        with mask():
            try:
                value = self.fn(row, prediction, **extras)
                if not isinstance(value, _SCORES) and inspect.isawaitable(value):
                    value = await value
            except (Halted, ConfigurationError, RewardError):
                raise
            except BaseException as error:
                reraise_as(RewardError, error, f"the {self.what} {self.name}")
        score = as_score(value)
        if not is_real(score.value):
            raise RewardError(f"the {self.what} {self.name} returned {score.value:g}; a score lies within ±1e100")
        return score

    def _check_parameters(self) -> None:
        """Raise ConfigurationError for a function that cannot be called so: now, not after a call was paid for."""
        try:
            parameters = inspect.signature(self.fn)
        except (TypeError, ValueError):  # some builtins have no signature
            return
        try:
            parameters.bind(None, None, **dict.fromkeys(self.extras))
        except TypeError as error:
            raise ConfigurationError(
                f"a {self.what} is called with (row, prediction), and {self.name}{parameters} is not for that: {error}"
            ) from None

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    def describe(self) -> str:
        """What is known of it: its source where that can be had, else its docstring or name."""
        return source_of(self.fn) or inspect.getdoc(self.fn) or self.name


def _named_extras(fn: Callable[..., Any]) -> frozenset[str]:
    """Which of trace and predictor the function names; by name, never by counting, a lambda's ``e=e`` is no trace."""
    try:
        names = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return frozenset()
    return frozenset({"trace", "predictor"} & set(names))


def source_of(thing: Any, limit: int = 4000) -> str | None:
    """Source code where it can be had (not for builtins or exec-made functions), else None."""
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        return None
    return textwrap.dedent(source).strip()[:limit]
