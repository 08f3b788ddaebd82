"""What settings counted as before run files said them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["with_former"]

_COMMON = {"seed": 0, "failure_score": 0.0, "prompt_lm": None}
_BOOTSTRAP = {
    **_COMMON,
    "metric_threshold": None,
    "max_bootstrapped_demos": 4,
    "max_labeled_demos": 16,
    "max_rounds": 1,
    "teacher": None,
    "teacher_lm": None,
}
_FORMER: Mapping[str, Mapping[str, Any]] = {
    "evaluate": {"repeats": 1, "failure_score": 0.0},
    "optimizer": _COMMON,
    "bootstrap_few_shot": _BOOTSTRAP,
    "bootstrap_random_search": {**_BOOTSTRAP, "num_candidates": 16},
    "copro": {**_COMMON, "breadth": 10, "depth": 3, "init_temperature": 1.4},
    "mipro_v2": {
        **_COMMON,
        "auto": "light",
        "num_candidates": None,
        "num_trials": None,
        "traces": 4,
        "labeled": 4,
        "metric_threshold": None,
        "minibatch": True,
        "minibatch_size": 35,
        "full_eval_steps": 5,
        "in_flight": None,
        "init_temperature": 1.0,
        "shown_rows": 0,
    },
    "gepa": {
        **_COMMON,
        "auto": "light",
        "max_steps": None,
        "minibatch_size": 3,
        "components": "round_robin",
        "max_merges": 5,
        "perfect_score": 1.0,
        "in_flight": 2,
        "confirm": 9,
        "recall": 30,
        "racing": True,
        "temperature": 1.0,
    },
    "simba": {
        **_COMMON,
        "minibatch_size": 32,
        "num_candidates": 6,
        "max_steps": 8,
        "max_demos": 4,
        "combine": True,
        "temperature_for_sampling": 0.2,
        "temperature_for_candidates": 0.2,
    },
    "distill_hints": {**_COMMON, "max_hints": 3, "rewrite": True, "level": 0.95, "hints": None},
}
"""By kind of run, the defaults of version 0.1. One that changes later stays as it is here; a setting that is new then
is added with what that version did without it."""


def with_former(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run file; one that it lacks counts as its value of the version that wrote it."""
    return {**_FORMER.get(kind, {}), **settings}
