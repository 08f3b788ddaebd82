"""dspynb: a Jupyter-first research toolkit for language-model programs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspynb.adapters import ChatAdapter as ChatAdapter
    from dspynb.adapters import JSONAdapter as JSONAdapter
    from dspynb.adapters import PrefillAdapter as PrefillAdapter
    from dspynb.data import Example as Example
    from dspynb.data import Prediction as Prediction
    from dspynb.data import Score as Score
    from dspynb.data import Usage as Usage
    from dspynb.errors import AdvisorFailedWarning as AdvisorFailedWarning
    from dspynb.errors import AllAttemptsFailed as AllAttemptsFailed
    from dspynb.errors import BudgetExhausted as BudgetExhausted
    from dspynb.errors import DataOverlapWarning as DataOverlapWarning
    from dspynb.errors import DspynbError as DspynbError
    from dspynb.errors import ExecutorError as ExecutorError
    from dspynb.errors import HiddenPredictorWarning as HiddenPredictorWarning
    from dspynb.errors import NoFeedbackWarning as NoFeedbackWarning
    from dspynb.errors import OptimizerError as OptimizerError
    from dspynb.errors import Refused as Refused
    from dspynb.errors import ReplayDiverged as ReplayDiverged
    from dspynb.errors import ReplyTruncated as ReplyTruncated
    from dspynb.errors import RunInterrupted as RunInterrupted
    from dspynb.errors import RunStopped as RunStopped
    from dspynb.errors import ScopeClosedWarning as ScopeClosedWarning
    from dspynb.errors import ScoreRangeWarning as ScoreRangeWarning
    from dspynb.errors import StateError as StateError
    from dspynb.errors import UsageUnknownWarning as UsageUnknownWarning
    from dspynb.evaluation import Comparison as Comparison
    from dspynb.evaluation import Evaluate as Evaluate
    from dspynb.evaluation import Evaluation as Evaluation
    from dspynb.evaluation import Grid as Grid
    from dspynb.evaluation import compare as compare
    from dspynb.evaluation import evaluate as evaluate
    from dspynb.evaluation import feedback as feedback
    from dspynb.evaluation import fingerprint as fingerprint
    from dspynb.evaluation import grid as grid
    from dspynb.evaluation import load_dataset as load_dataset
    from dspynb.evaluation import metrics as metrics
    from dspynb.evaluation import read_examples as read_examples
    from dspynb.evaluation import score_table as score_table
    from dspynb.evaluation import split as split
    from dspynb.executors.dask_executor import DaskExecutor as DaskExecutor
    from dspynb.lm import LM as LM
    from dspynb.lm import FunctionLM as FunctionLM
    from dspynb.lm import LMReply as LMReply
    from dspynb.lm import LMRequest as LMRequest
    from dspynb.lm import LocalLM as LocalLM
    from dspynb.lm import ScriptedLM as ScriptedLM
    from dspynb.lm import recorded as recorded
    from dspynb.media import File as File
    from dspynb.media import Image as Image
    from dspynb.modules import BestOfN as BestOfN
    from dspynb.modules import ChainOfThought as ChainOfThought
    from dspynb.modules import Module as Module
    from dspynb.modules import MultiChainComparison as MultiChainComparison
    from dspynb.modules import Predict as Predict
    from dspynb.modules import ProgramOfThought as ProgramOfThought
    from dspynb.modules import ReAct as ReAct
    from dspynb.modules import Refine as Refine
    from dspynb.modules import Replay as Replay
    from dspynb.modules import Tool as Tool
    from dspynb.modules import from_dspy as from_dspy
    from dspynb.modules import majority as majority
    from dspynb.modules import mcp_tools as mcp_tools
    from dspynb.modules import replay as replay
    from dspynb.optimizers import COPRO as COPRO
    from dspynb.optimizers import GEPA as GEPA
    from dspynb.optimizers import SIMBA as SIMBA
    from dspynb.optimizers import BootstrapFewShot as BootstrapFewShot
    from dspynb.optimizers import BootstrapRandomSearch as BootstrapRandomSearch
    from dspynb.optimizers import DistillHints as DistillHints
    from dspynb.optimizers import MIPROv2 as MIPROv2
    from dspynb.optimizers import Optimizer as Optimizer
    from dspynb.running import Run as Run
    from dspynb.running import Trace as Trace
    from dspynb.running import export_otel as export_otel
    from dspynb.running import history as history
    from dspynb.running import last_run as last_run
    from dspynb.running import open_run as open_run
    from dspynb.running import run_sync as run_sync
    from dspynb.running import runs as runs
    from dspynb.running import trace as trace
    from dspynb.scope import Budget as Budget
    from dspynb.scope import candidate as candidate
    from dspynb.scope import carry as carry
    from dspynb.scope import configure as configure
    from dspynb.scope import context as context
    from dspynb.scope import current_attempt as current_attempt
    from dspynb.scope import current_hint as current_hint
    from dspynb.scope import current_scope as current_scope
    from dspynb.scope import hints as hints
    from dspynb.scope import snapshot as snapshot
    from dspynb.signatures import Augmentation as Augmentation
    from dspynb.signatures import Confidence as Confidence
    from dspynb.signatures import Input as Input
    from dspynb.signatures import Output as Output
    from dspynb.signatures import Reasoning as Reasoning
    from dspynb.signatures import Signature as Signature
    from dspynb.signatures import augment as augment
    from dspynb.turns import History as History

__version__ = "0.1.0"

_HOMES = {
    "dspynb.adapters": (
        "ChatAdapter",
        "JSONAdapter",
        "PrefillAdapter",
    ),
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
        "NoFeedbackWarning",
        "DspynbError",
        "ExecutorError",
        "HiddenPredictorWarning",
        "OptimizerError",
        "Refused",
        "ReplayDiverged",
        "ReplyTruncated",
        "RunInterrupted",
        "RunStopped",
        "ScopeClosedWarning",
        "ScoreRangeWarning",
        "StateError",
        "UsageUnknownWarning",
    ),
    "dspynb.evaluation": (
        "Comparison",
        "Evaluate",
        "Evaluation",
        "Grid",
        "compare",
        "evaluate",
        "feedback",
        "fingerprint",
        "grid",
        "load_dataset",
        "metrics",
        "read_examples",
        "score_table",
        "split",
    ),
    "dspynb.executors.dask_executor": ("DaskExecutor",),
    "dspynb.lm": (
        "LM",
        "FunctionLM",
        "LMReply",
        "LMRequest",
        "LocalLM",
        "ScriptedLM",
        "recorded",
    ),
    "dspynb.media": (
        "File",
        "Image",
    ),
    "dspynb.modules": (
        "BestOfN",
        "ChainOfThought",
        "Module",
        "MultiChainComparison",
        "Predict",
        "ProgramOfThought",
        "ReAct",
        "Refine",
        "Replay",
        "Tool",
        "from_dspy",
        "majority",
        "mcp_tools",
        "replay",
    ),
    "dspynb.optimizers": (
        "COPRO",
        "GEPA",
        "SIMBA",
        "BootstrapFewShot",
        "BootstrapRandomSearch",
        "DistillHints",
        "MIPROv2",
        "Optimizer",
    ),
    "dspynb.running": (
        "Run",
        "Trace",
        "export_otel",
        "history",
        "last_run",
        "open_run",
        "run_sync",
        "runs",
        "trace",
    ),
    "dspynb.scope": (
        "Budget",
        "candidate",
        "carry",
        "configure",
        "context",
        "current_attempt",
        "current_hint",
        "current_scope",
        "hints",
        "snapshot",
    ),
    "dspynb.signatures": (
        "Augmentation",
        "Confidence",
        "Input",
        "Output",
        "Reasoning",
        "Signature",
        "augment",
    ),
    "dspynb.turns": ("History",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        from dspynb.errors import nearest

        raise AttributeError(f"module 'dspynb' has no attribute {name!r}.{nearest(name, _HOME_OF)}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
