"""Predictors that a program calls but does not hold: told once, since nothing can be addressed to them."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakKeyDictionary

from dspynb.errors import HiddenPredictorWarning
from dspynb.scope import Scope, users_line

__all__ = ["warn_of_hidden"]

_told: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def warn_of_hidden(scope: Scope, run: Any, predictor: Any) -> None:
    """Warn that the run's program called a predictor that discovery cannot find; once a type of program.

    Calls under a mask are a reward's, a metric's or an advisor's own, and no part of the program.
    """
    program = getattr(run, "program_type", None)
    if program is None or run.name in (told := _told.setdefault(program, set())):
        return
    if not any(layer.port is run for layer in scope.visible()):
        return
    told.add(run.name)
    warnings.warn_explicit(
        f"{run.name} called {predictor._title()}, which is not among its parts: it is made per call, global, or "
        "held in a closure. Hints to paths, candidates and saved states cannot reach it. Make it in "
        "__init__ and assign it to an attribute: self.name = dn.Predict(...)",
        HiddenPredictorWarning,
        *users_line(),
    )
