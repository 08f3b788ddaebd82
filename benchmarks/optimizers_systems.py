"""The systems that `optimizers.py` compares, each with variants for the cap of 400 runs.

A variant is a set of options for the runner of its system. Rivals have several variants, from their defaults to sizes
that fit the cap; the report uses the best one in each world. ``train`` and ``val`` are numbers of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CAP = 400
Variants = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class System:
    """An optimizer of a library. ``rivals`` are the names of the systems that one of dspynb is compared with."""

    name: str
    runner_name: str
    """The name of the optimizer in its runner."""
    runner: str
    """The script that runs it."""
    variants: Callable[[int], Variants]
    rivals: tuple[str, ...] = ()

    @property
    def peer(self) -> bool:
        return self.runner != "worlds_dspynb.py"


def _copro(predictors: int) -> Variants:
    """With several predictors, there are fewer rows: DSPy scores all candidates of a predictor again at each depth."""
    rows = {1: (13, 40, 60), 3: (4, 11, 25)}[predictors]
    return {
        "b10d3, the default": {"breadth": 10, "depth": 3, "train": rows[0]},
        "b5d2": {"breadth": 5, "depth": 2, "train": rows[1]},
        "b6d1": {"breadth": 6, "depth": 1, "train": rows[2]},
    }


def _mipro(predictors: int) -> Variants:
    """A repeated trial comes from the cache. With one predictor this is frequent, so there are more trials."""
    trials = {1: (14, 18), 3: (9, 11)}[predictors]
    return {
        "auto light": {"auto": "light", "demos": 4},
        "auto light, zero-shot": {"auto": "light", "demos": 0},
        "matched": {"demos": 4, "candidates": 6, "trials": 8, "minibatch": 20, "steps": 4},
        "matched, zero-shot": {"demos": 0, "candidates": 10, "trials": trials[0], "minibatch": 20, "steps": 5},
        "matched, 30 rows": {"demos": 4, "candidates": 6, "trials": 8, "val": 30},
        "matched, 30 rows, zero-shot": {"demos": 0, "candidates": 12, "trials": trials[1], "val": 30},
    }


def _random_search(_predictors: int) -> Variants:
    """DSPy evaluates three programs before the candidates: without demos, with labels only, and unshuffled."""
    return {
        "2 candidates": {"bootstrapped": 4, "labeled": 16, "candidates": 2},
        "8 candidates, 25 rows": {"bootstrapped": 4, "labeled": 16, "candidates": 8, "val": 25},
        "8 candidates, 25 rows, 8 demos": {"bootstrapped": 4, "labeled": 8, "candidates": 8, "val": 25},
        "16 candidates, 12 rows": {"bootstrapped": 4, "labeled": 16, "candidates": 16, "val": 12},
    }


def _simba(_predictors: int) -> Variants:
    """A step costs bsize x (2 candidates + 1) runs; the end costs at most (candidates + 1) x the training rows.

    dspynb chooses the sizes of minibatches and steps from the budget.
    """
    return {
        "6 candidates": {"bsize": 12, "candidates": 6, "steps": 2, "demos": 4, "train": 30},
        "3 candidates": {"bsize": 8, "candidates": 3, "steps": 5, "demos": 4, "train": 30},
        "3 candidates, no demos": {"bsize": 8, "candidates": 3, "steps": 5, "demos": 0, "train": 30},
        "4 candidates, 8 demos": {"bsize": 4, "candidates": 4, "steps": 8, "demos": 8, "train": 20},
    }


_SMALL = {"minibatch": 16, "val": 12}
_SMALLER = {"minibatch": 14, "val": 8}
_SIZES = {
    "": {"minibatch": 3},
    "30 rows, minibatch 6": {"minibatch": 6, "val": 30},
    "12 rows, minibatch 16": _SMALL,
    "8 rows, minibatch 14": _SMALLER,
    "8 rows, minibatch 24": {**_SMALLER, "minibatch": 24},
    "12 rows, minibatch 16, all components": {**_SMALL, "components": "all"},
}


def _sizes(predictors: int) -> Variants:
    return {name: sizes for name, sizes in _SIZES.items() if predictors > 1 or "components" not in sizes}


def _gepa(predictors: int) -> Variants:
    return {name or "default": sizes for name, sizes in _sizes(predictors).items()}


def _dspynb_gepa(predictors: int) -> Variants:
    """With one call per run, two concurrent mutations leave slots idle; with three calls they do not.

    This was measured with seeds 0 to 9 and 30 to 69.
    """
    quicker = {
        "8 rows, minibatch 14, 4 in flight": {**_SMALLER, "in_flight": 4, "recall": 60},
        "8 rows, minibatch 24, 4 in flight": {**_SMALLER, "minibatch": 24, "in_flight": 4},
    }
    variants = _gepa(predictors)
    if predictors == 1:
        variants |= quicker
    return variants


def _gepa_library(predictors: int) -> Variants:
    sampling = {"single": (1, 1), "2x4": (2, 4), "8x1": (8, 1)}
    variants: Variants = {}
    for size_name, sizes in _sizes(predictors).items():
        for sampling_name, (parents, each) in sampling.items():
            name = f"{sampling_name}, {size_name}" if size_name else sampling_name
            variants[name] = {"parents": parents, "each": each, **sizes}
    return variants


def _dspynb_copro(_predictors: int) -> Variants:
    return {
        "b10d3, the default": {"breadth": 10, "depth": 3},
        "b10d3, 30 rows": {"breadth": 10, "depth": 3, "val": 30},
        "b10d3, 20 rows": {"breadth": 10, "depth": 3, "val": 20},
        "b10d3, 13 rows": {"breadth": 10, "depth": 3, "val": 13},
    }


def _dspynb_mipro(_predictors: int) -> Variants:
    return {
        "auto light": {"auto": "light", "demos": 4},
        "auto light, zero-shot": {"auto": "light", "demos": 0},
        "matched": {"demos": 4, "candidates": 6, "trials": 8, "minibatch": 20, "steps": 4},
        "matched, zero-shot": {"demos": 0, "candidates": 10, "trials": 14, "minibatch": 20, "steps": 5},
        "matched, 30 rows, zero-shot": {"demos": 0, "candidates": 12, "trials": 11, "val": 30, "shown_rows": 10},
        "small batches, zero-shot": {
            "demos": 0,
            "candidates": 20,
            "trials": 19,
            "minibatch": 10,
            "steps": 7,
            "shown_rows": 10,
        },
        "small batches, 30 rows": {
            "demos": 0,
            "candidates": 20,
            "trials": 19,
            "minibatch": 10,
            "steps": 6,
            "val": 30,
            "shown_rows": 10,
        },
    }


def _dspynb_random(_predictors: int) -> Variants:
    return {
        "16 candidates": {"candidates": 16},
        "16 candidates, 8 demos": {"bootstrapped": 4, "labeled": 8, "candidates": 16},
    }


def _dspynb_simba(_predictors: int) -> Variants:
    return {
        "default": {},
        "20 rows": {"val": 20},
        "20 rows, 8 demos": {"val": 20, "demos": 8},
    }


SYSTEMS = (
    System("dspynb COPRO", "COPRO", "worlds_dspynb.py", _dspynb_copro, ("dspy COPRO",)),
    System("dspynb MIPROv2", "MIPROv2", "worlds_dspynb.py", _dspynb_mipro, ("dspy MIPROv2",)),
    System("dspynb random search", "random search", "worlds_dspynb.py", _dspynb_random, ("dspy random search",)),
    System("dspynb GEPA", "GEPA", "worlds_dspynb.py", _dspynb_gepa, ("dspy GEPA", "gepa GEPA")),
    System("dspynb SIMBA", "SIMBA", "worlds_dspynb.py", _dspynb_simba, ("dspy SIMBA",)),
    System("dspy COPRO", "COPRO", "worlds_dspy.py", _copro),
    System("dspy MIPROv2", "MIPROv2", "worlds_dspy.py", _mipro),
    System("dspy random search", "random search", "worlds_dspy.py", _random_search),
    System("dspy GEPA", "GEPA", "worlds_dspy.py", _gepa),
    System("dspy SIMBA", "SIMBA", "worlds_dspy.py", _simba),
    System("gepa GEPA", "GEPA", "worlds_gepa.py", _gepa_library),
)
