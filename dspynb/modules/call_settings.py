"""Settings at the call of a predictor: ``predict(question=…, call={"temperature": 0})``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError

if TYPE_CHECKING:
    from dspynb.modules.predict import Predict

__all__ = ["NAMES", "for_this_call"]

NAMES = frozenset({"call", "config", "lm", "demos"})
"""Keywords of a call that are settings, where no input of the signature has their name."""


def for_this_call(
    predictor: Predict, checking: type[Predict], inputs: Mapping[str, Any]
) -> tuple[Predict, Mapping[str, Any]]:
    """Split the settings off the inputs of a call. Returns the predictor as it is for this call, and the inputs.

    ``checking``: the class whose constructor checks the settings, since that of a subclass may have other arguments.
    The predictor of the call has the uid of the other, so hints, candidates and paths apply to it. Raises
    ConfigurationError for unknown settings, and for ``call`` or ``config`` that is no mapping.
    """
    fields = predictor.signature.input_fields.values()
    input_names = {name for field in fields for name in (field.name, field.alias)}
    settings: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in inputs.items():
        if name in input_names or name not in NAMES:
            values[name] = value
        elif value is None:
            continue
        elif name in ("call", "config"):
            settings |= _mapping(predictor, name, value)
        else:
            settings[name] = value
    if not settings:
        return predictor, values
    return _changed(predictor, checking, settings), values


def _mapping(predictor: Predict, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{predictor._title()}: {name}= takes a dict of settings for this call, such as {name}="
            f"{{'temperature': 0}}, got {type(value).__name__}"
        )
    return {str(key): setting for key, setting in value.items()}


def _changed(predictor: Predict, checking: type[Predict], settings: Mapping[str, Any]) -> Predict:
    checked = checking(predictor.signature, **settings)
    new = type(predictor).__new__(type(predictor))
    vars(new).update(vars(predictor))
    for name in ("instruction", "demos", "prefix", "lm", "adapter"):
        if name in settings:
            setattr(new, name, getattr(checked, name))
    new.settings = {**predictor.settings, **checked.settings}
    return new
