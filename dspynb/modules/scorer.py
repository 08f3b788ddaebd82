"""Rewards and metrics: calling the functions that users write, and checking the scores that they return."""

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

    A function with parameters named ``trace`` and ``predictor`` gets these as well: the calls that led to the
    prediction, and the path of a predictor. So does one with the names of DSPy's GEPA: ``pred_name`` is the path of the
    predictor, and ``pred_trace`` has its calls; both are None where the score is not for one predictor. ``what``: how
    errors call the function. Raises ConfigurationError for a value that cannot be called in this way.
    """

    def __init__(self, fn: Callable[..., Any], what: str = "reward") -> None:
        if not callable(fn):
            raise ConfigurationError(f"{what} must be a function of (row, prediction), got {type(fn).__name__}")
        self.fn = fn
        self.what = what
        self.extras = _accepted_extras(fn)
        self._check_parameters()

    async def __call__(
        self, row: Example, prediction: Prediction, *, trace: Sequence[Any] = (), predictor: str | None = None
    ) -> Score:
        """Compute the score, with hints and candidates masked.

        Raises RewardError for a value that is not a score, and for an error of the function. A ConfigurationError of
        the function is raised unchanged, since another attempt would raise it too.
        """
        extras: dict[str, Any] = {}
        if self.extras:
            available: dict[str, Any] = {"trace": trace, "predictor": predictor, "pred_name": predictor}
            if "pred_trace" in self.extras and predictor is not None:
                available["pred_trace"] = [call for call in trace if call.predictor == predictor]
            extras = {name: available.get(name) for name in self.extras}
        with mask("judge"):
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

    @property
    def by_predictor(self) -> bool:
        """Whether the function can score one predictor of the program."""
        return bool(self.extras & {"predictor", "pred_name"})

    def _check_parameters(self) -> None:
        """Raise ConfigurationError for a function with other parameters, before a model call is paid for."""
        try:
            parameters = inspect.signature(self.fn)
        except (TypeError, ValueError):  # some builtins have no signature
            return
        try:
            parameters.bind(None, None, **dict.fromkeys(self.extras))
        except TypeError as error:
            raise ConfigurationError(
                f"a {self.what} is called with (row, prediction), which does not fit {self.name}{parameters}: {error}"
            ) from None

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    def describe(self) -> str:
        """The source of the function if it is available, else its docstring, else its name."""
        return source_of(self.fn) or inspect.getdoc(self.fn) or self.name


def _accepted_extras(fn: Callable[..., Any]) -> frozenset[str]:
    """Which of the arguments ``trace``, ``predictor``, ``pred_name`` and ``pred_trace`` the function accepts.

    They are matched by name and not by position: a third parameter with another name, such as the ``e`` of
    ``lambda row, prediction, e=e: …``, does not receive the trace.
    """
    try:
        names = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return frozenset()
    return frozenset({"trace", "predictor", "pred_name", "pred_trace"} & set(names))


def source_of(code: Callable[..., Any] | type, limit: int = 4000) -> str | None:
    """The source of a function, class or module, at most ``limit`` characters; None where it is not available, as for
    builtins and functions made by ``exec``."""
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):
        return None
    return textwrap.dedent(source).strip()[:limit]
