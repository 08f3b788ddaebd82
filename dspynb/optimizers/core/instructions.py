"""Instructions as optimizers read and write them."""

from __future__ import annotations

from dspynb.adapters.resolve import resolve_adapter
from dspynb.errors import DspynbError
from dspynb.lm.resolve import resolve_lm
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.scope.settings import setting

__all__ = ["begins_turn", "cleaned", "instruction_of"]


def instruction_of(engine: Engine, candidate: Candidate, path: str) -> str:
    """The instruction that a predictor has under a candidate."""
    predictor: Predict = dict(engine.program.named_predictors())[path]
    return predictor.instruction_under(candidate.part(path))


def cleaned(text: str) -> str:
    """A proposal without white space, quotes or a code fence around it."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```") and len(bare) > len("``````"):
        head, _, body = bare[3:-3].partition("\n")
        bare = body.strip() if body and " " not in head.strip() else bare[3:-3].strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1].strip()
    return bare


def begins_turn(predictor: Predict) -> bool:
    """Whether the predictor's adapter begins the model's turn, so that a prefix has an effect."""
    try:
        lm = resolve_lm(predictor.lm if predictor.lm is not None else setting("lm"))
        adapter = resolve_adapter(predictor.adapter or setting("adapter") or getattr(lm, "adapter", None))
        return bool(adapter.opening(predictor.signature))
    except (DspynbError, AttributeError):
        return False
