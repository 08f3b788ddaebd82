"""The models of a program's predictors as information in a saved file. They are not loaded."""

from __future__ import annotations

from typing import Any

from dspynb.redact import redact
from dspynb.scope.settings import setting

__all__ = ["models_in"]


def models_in(program: Any) -> dict[str, dict[str, Any]]:
    """For each predictor, by path: ``model``, the name of its model or of the one in force, and ``temperature``, if the
    predictor or its model sets one. A predictor without either is left out."""
    models = {}
    for path, predictor in program.named_predictors():
        facts = _facts(predictor)
        if facts:
            models[path] = facts
    return models


def _facts(predictor: Any) -> dict[str, Any]:
    lm = predictor.lm or setting("lm")
    facts: dict[str, Any] = {}
    name = lm if isinstance(lm, str) else getattr(lm, "name", type(lm).__name__)
    if lm is not None:
        facts["model"] = redact(str(name))
    temperature = predictor.settings.get("temperature", getattr(lm, "settings", {}).get("temperature"))
    if isinstance(temperature, int | float):
        facts["temperature"] = temperature
    return facts
