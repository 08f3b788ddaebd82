"""The warning about demos that cannot be shown to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from dspynb.adapters.example_turns import has_outputs
from dspynb.scope.core import warn_user

if TYPE_CHECKING:
    from dspynb.modules.predict import Predict

__all__ = ["warn_of_demos_without_outputs"]

_warned: WeakSet[Any] = WeakSet()


def warn_of_demos_without_outputs(predictor: Predict, demos: Sequence[Mapping[str, Any]], path: str) -> None:
    """Warn once for each predictor that adapters leave out demos, since these have no outputs to learn from."""
    signature = predictor.signature
    names = signature.output_fields
    for demo in demos:  # plain loops, since they run in every call
        for name in names:
            if name in demo and demo[name] is not None:
                break
        else:
            _warn(predictor, demos, path)
            return


def _warn(predictor: Predict, demos: Sequence[Mapping[str, Any]], path: str) -> None:
    signature = predictor.signature
    numbers = [number for number, demo in enumerate(demos) if not has_outputs(signature, demo)]
    if not numbers or predictor in _warned:
        return
    _warned.add(predictor)
    listed = ", ".join(map(str, numbers[:5]))
    warn_user(
        f"{path}: {len(numbers)} of {len(demos)} demos are left out (number {listed}), since they have no output; "
        f"the outputs are {', '.join(signature.output_fields)}",
        UserWarning,
    )
