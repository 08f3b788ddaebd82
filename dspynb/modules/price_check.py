"""Refuses a budget of USD when a run starts, if the price of one of its models is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from inspect import unwrap
from typing import Any

from dspynb.lm.cost_bounds import has_unknown_price
from dspynb.lm.resolve import resolve_lm
from dspynb.modules.discovery import all_modules, named_predictors
from dspynb.modules.scorer import Scorer
from dspynb.scope.call_context import Place
from dspynb.scope.core import current_scope
from dspynb.scope.ledger import unknown_price
from dspynb.scope.settings import setting

__all__ = ["check_prices"]


def check_prices(*users: object, usd: float | None = None, models: Iterable[Any] = ()) -> None:
    """Raise BudgetExhausted if a budget limits USD and a model has no price and does not report what replies cost.

    ``users``: what calls models: programs, predictors, scorers, collections of them. ``usd``: the limit of a budget
    that is not in force yet. ``models``: other models that will be called. Models that code finds otherwise are checked
    when they are first called.
    """
    scope = current_scope()
    limits = [] if usd is None else [usd]
    if scope.funded:
        limits += [ledger.limit.usd for ledger in scope.spending_limits().ledgers]
    limit = min(limits, default=math.inf)
    if limit == math.inf or scope.context.interceptor(Place.REPLAY) is not None:
        return
    for choice in [*models, *_models_of(users)]:
        if choice is not None:
            lm = resolve_lm(choice)
            if has_unknown_price(lm):
                raise unknown_price(str(getattr(lm, "name", type(lm).__name__)), limit)


def _models_of(users: Iterable[object]) -> Iterator[Any]:
    """The models that programs and metrics will call, as they are chosen now."""
    chosen = current_scope().context.lm
    for user in users:
        for module in all_modules(_root(user)):
            reward = getattr(getattr(module, "plan", None), "reward", None)
            if isinstance(reward, Scorer):
                yield from _models_of([reward])
        for _, predictor in named_predictors(_root(user)):
            yield chosen or predictor.lm or setting("lm")


def _root(user: object) -> object:
    """What ``named_predictors`` can search: of a metric, what its code refers to."""
    if not isinstance(user, Scorer):
        return user
    fn = user.fn
    if hasattr(type(fn), "named_predictors"):
        return fn
    return [*vars(fn).values(), *_values_in(fn)] if hasattr(fn, "__dict__") else [fn]


def _values_in(fn: Callable[..., Any]) -> Iterator[object]:
    """The values of the variables outside of a function that its code names, and the object of a method."""
    owner = getattr(fn, "__self__", None)
    if owner is not None:
        yield owner
        yield from vars(owner).values() if hasattr(owner, "__dict__") else ()
    function = unwrap(getattr(fn, "__func__", fn))
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    for name in code.co_names:
        value = function.__globals__.get(name)
        if hasattr(type(value), "named_predictors"):
            yield value
