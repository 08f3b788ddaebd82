"""Instructions as optimizers read and write them."""

from __future__ import annotations

from dspynb.adapters.resolve import resolve_adapter
from dspynb.errors import DspynbError
from dspynb.lm.resolve import resolve_lm
from dspynb.modules.predict import Predict
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.core.engine import Engine
from dspynb.scope.settings import setting

__all__ = ["adapter_begins_turn", "instruction_of", "strip_quotes"]


def instruction_of(engine: Engine, candidate: Candidate, path: str) -> str:
    """The instruction of a predictor under a candidate."""
    predictor: Predict = dict(engine.program.named_predictors())[path]
    return predictor.instruction_under(candidate.part(path))


def strip_quotes(text: str) -> str:
    """The text of a proposal without white space, quotes or a code fence around it."""
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```") and len(bare) > len("``````"):
        bare = bare[3:-3]
        first_line, _, rest = bare.partition("\n")
        is_language = " " not in first_line.strip()
        if rest and is_language:
            bare = rest
        bare = bare.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1].strip()
    return bare


def adapter_begins_turn(predictor: Predict) -> bool:
    """Whether the predictor's adapter begins the model's turn, so that a prefix has an effect."""
    try:
        lm = predictor.lm
        if lm is None:
            lm = setting("lm")
        lm = resolve_lm(lm)
        adapter = resolve_adapter(predictor.adapter or setting("adapter") or getattr(lm, "adapter", None))
        return bool(adapter.opening(predictor.signature))
    except (DspynbError, AttributeError):
        return False
