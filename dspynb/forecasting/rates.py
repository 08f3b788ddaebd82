"""The prices of the models that a run calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dspynb.errors import DspynbError
from dspynb.forecasting.cost_model import Rate
from dspynb.lm.own_price import read_own_price
from dspynb.lm.providers.prices import highest_prices
from dspynb.lm.resolve import resolve_lm
from dspynb.scope.settings import setting

__all__ = ["model_from", "model_of", "rates_of"]


def model_of(predictor: Any) -> Any:
    """The model of a predictor, or of the setting; None where there is none."""
    return model_from(getattr(predictor, "lm", None))


def model_from(choice: Any) -> Any:
    """The model that was chosen, or that of the setting for None; None where there is none."""
    if choice is None:
        choice = setting("lm")
    if choice is None:
        return None
    try:
        return resolve_lm(choice)
    except DspynbError:
        return None


def rates_of(predictors: Iterable[Any]) -> Mapping[str, Rate]:
    """The name of each model of some predictors → its prices; without those whose price is unknown."""
    rates = {}
    for predictor in predictors:
        lm = model_of(predictor)
        name = str(getattr(lm, "name", type(lm).__name__))
        if lm is None or name in rates:
            continue
        try:
            prices = highest_prices(name, 1000, read_own_price(lm, name))
        except DspynbError:  # reported when the run starts
            continue
        if prices is not None:
            rates[name] = Rate(prices.prompt_token, prices.reply_token, prices.call)
    return rates
