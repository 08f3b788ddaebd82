"""dspynb: a Jupyter-first research toolkit for language-model programs."""

from __future__ import annotations

import importlib
from typing import Any

from dspynb._moved import install

__version__ = "0.1.0"

# The public names by module. Each is loaded from its module when it is first used. Type checkers and editors read the
# names in __init__.pyi, which `python -m tests.stub` writes from this table.
_HOMES = {
    "dspynb.adapters.chat": ("ChatAdapter",),
    "dspynb.adapters.json": ("JSONAdapter",),
    "dspynb.adapters.prefill": ("PrefillAdapter",),
    "dspynb.agents.program_of_thought": ("ProgramOfThought",),
    "dspynb.agents.react": ("ReAct",),
    "dspynb.agents.tools.mcp": ("mcp_tools",),
    "dspynb.agents.tools.tool": ("Tool",),
    "dspynb.contrib.dask.executor": ("DaskExecutor",),
    "dspynb.contrib.migration.translate": ("from_dspy",),
    "dspynb.conversation": ("History",),
    "dspynb.data": (
        "Example",
        "Prediction",
        "Score",
        "Usage",
    ),
    "dspynb.errors": (
        "AdvisorFailedWarning",
        "AllAttemptsFailed",
        "BudgetExhausted",
        "DataOverlapWarning",
        "DspynbError",
        "ExecutorError",
        "HiddenPredictorWarning",
        "ModelAdaptedWarning",
        "NoFeedbackWarning",
        "OptimizerError",
        "Refused",
        "ReplayDiverged",
        "ReplyTruncated",
        "RunInterrupted",
        "RunStopped",
        "ScopeClosedWarning",
        "ScoreRangeWarning",
        "StateError",
        "TruncatedReplyWarning",
        "UsageUnknownWarning",
    ),
    "dspynb.evaluation": ("metrics",),
    "dspynb.evaluation.comparison": (
        "Comparison",
        "Grid",
        "compare",
        "grid",
    ),
    "dspynb.evaluation.data_io.datasets": ("load_dataset",),
    "dspynb.evaluation.data_io.reading": ("read_examples",),
    "dspynb.evaluation.data_io.splitting": (
        "fingerprint",
        "split",
    ),
    "dspynb.evaluation.evaluator": (
        "Evaluate",
        "evaluate",
    ),
    "dspynb.evaluation.metrics": ("feedback",),
    "dspynb.evaluation.result": ("Evaluation",),
    "dspynb.evaluation.tables": ("score_table",),
    "dspynb.forecasting.forecast": ("Forecast",),
    "dspynb.lm.client": ("LM",),
    "dspynb.lm.local": ("LocalLM",),
    "dspynb.lm.protocol": (
        "LMReply",
        "LMRequest",
    ),
    "dspynb.lm.recorded": ("recorded",),
    "dspynb.lm.testing": (
        "FunctionLM",
        "ScriptedLM",
    ),
    "dspynb.media.values": (
        "File",
        "Image",
    ),
    "dspynb.modules.chain_of_thought": ("ChainOfThought",),
    "dspynb.modules.ensemble": ("Ensemble",),
    "dspynb.modules.function_program": ("as_program",),
    "dspynb.modules.majority": ("majority",),
    "dspynb.modules.module": ("Module",),
    "dspynb.modules.multi_chain_comparison": ("MultiChainComparison",),
    "dspynb.modules.predict": ("Predict",),
    "dspynb.optimizers.bootstrap": (
        "BootstrapFewShot",
        "BootstrapRandomSearch",
    ),
    "dspynb.optimizers.copro": ("COPRO",),
    "dspynb.optimizers.core.optimizer": ("Optimizer",),
    "dspynb.optimizers.distill.distill": ("DistillHints",),
    "dspynb.optimizers.gepa.gepa": ("GEPA",),
    "dspynb.optimizers.mipro.mipro": ("MIPROv2",),
    "dspynb.optimizers.simba.simba": ("SIMBA",),
    "dspynb.pricing.price": ("Price",),
    "dspynb.refine.best_of_n": ("BestOfN",),
    "dspynb.refine.refine": ("Refine",),
    "dspynb.replaying.replayer": (
        "Replay",
        "replay",
    ),
    "dspynb.running.aio.sync": ("run_sync",),
    "dspynb.running.call_history": ("history",),
    "dspynb.running.otel": ("export_otel",),
    "dspynb.running.run": (
        "Run",
        "last_run",
    ),
    "dspynb.running.store": (
        "open_run",
        "runs",
    ),
    "dspynb.running.tracing": (
        "Trace",
        "trace",
    ),
    "dspynb.scope.budget": ("Budget",),
    "dspynb.scope.candidates": ("candidate",),
    "dspynb.scope.carry": ("carry",),
    "dspynb.scope.core": (
        "current_attempt",
        "current_scope",
    ),
    "dspynb.scope.hints": (
        "current_hint",
        "hints",
    ),
    "dspynb.scope.saved_settings": ("settings",),
    "dspynb.scope.settings": (
        "configure",
        "context",
    ),
    "dspynb.scope.snapshot": ("snapshot",),
    "dspynb.signatures.augment": (
        "Augmentation",
        "Confidence",
        "Reasoning",
        "augment",
    ),
    "dspynb.signatures.fields": (
        "Input",
        "Output",
    ),
    "dspynb.signatures.signature": ("Signature",),
}


def _advice_on(name: str) -> str:
    from dspynb.contrib.migration.dspy_names import advice_on

    return advice_on(name)


install(_advice_on)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        from dspynb.errors import nearest

        advice = f" {_advice_on(name)}".rstrip() or nearest(name, _HOME_OF)
        # With a name, Python adds a suggestion of its own, from the attributes of ``obj``; None has no similar ones.
        raise AttributeError(f"module 'dspynb' has no attribute {name!r}.{advice}", name=name, obj=None)
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
