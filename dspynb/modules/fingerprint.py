"""What identifies a program and its models in run files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from dspynb.errors import StateError
from dspynb.events import plain
from dspynb.scope.settings import setting

if TYPE_CHECKING:
    from dspynb.modules.module import Module

__all__ = ["models_of", "program_fingerprint"]


def program_fingerprint(program: Module) -> str:
    """A hash, as 16 hex digits, of the program's settings, predictor paths, signatures, instructions and demos."""
    try:
        predictors: Any = program.dump_state()["predictors"]
    except StateError:  # demos that cannot be saved
        predictors = {path: [repr(p), p.instruction, plain(p.demos)] for path, p in program.named_predictors()}
    state = [program._title(), plain(program._run_settings()), predictors]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def models_of(program: Module) -> list[str]:
    """The names of the models that the program's predictors use, sorted and without duplicates."""
    names = set()
    for _, predictor in program.named_predictors():
        lm = getattr(predictor, "lm", None) or setting("lm")
        if lm:
            names.add(lm if isinstance(lm, str) else getattr(lm, "name", type(lm).__name__))
    return sorted(names)
