"""What differs from attempt to attempt: settings, hints, candidates, spans. Scoped, never stored."""

from dspynb.scope.allowances import Allowance, Allowances, Free
from dspynb.scope.budget import Budget, Meter, about_tokens, missing_tokens
from dspynb.scope.call_context import CallContext, RolloutId, Sampling, Settings
from dspynb.scope.candidates import Part, candidate, resolve
from dspynb.scope.carry import carry
from dspynb.scope.core import (
    Attempt,
    Block,
    Funds,
    HintAs,
    HintLayer,
    Layer,
    Reading,
    RunPort,
    Scope,
    current_attempt,
    current_scope,
    warn_of,
    warn_user,
)
from dspynb.scope.gate import GATE
from dspynb.scope.hints import address, current_hint, hints, mask
from dspynb.scope.settings import configure, context, model_name, setting
from dspynb.scope.snapshot import Snapshot, snapshot, unchecked_snapshot

__all__ = [
    "GATE",
    "Allowance",
    "Allowances",
    "Attempt",
    "Block",
    "Budget",
    "CallContext",
    "Free",
    "Funds",
    "HintAs",
    "HintLayer",
    "Layer",
    "Meter",
    "Part",
    "Reading",
    "RolloutId",
    "RunPort",
    "Sampling",
    "Scope",
    "Settings",
    "Snapshot",
    "about_tokens",
    "address",
    "candidate",
    "carry",
    "configure",
    "context",
    "current_attempt",
    "current_hint",
    "current_scope",
    "hints",
    "mask",
    "missing_tokens",
    "model_name",
    "resolve",
    "setting",
    "snapshot",
    "unchecked_snapshot",
    "warn_of",
    "warn_user",
]
