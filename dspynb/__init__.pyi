# The public names for type checkers and editors, written from the table in __init__.py: python -m tests.stub
from dspynb.adapters.chat import ChatAdapter as ChatAdapter
from dspynb.adapters.json import JSONAdapter as JSONAdapter
from dspynb.adapters.prefill import PrefillAdapter as PrefillAdapter
from dspynb.agents.program_of_thought import ProgramOfThought as ProgramOfThought
from dspynb.agents.react import ReAct as ReAct
from dspynb.agents.tools.mcp import mcp_tools as mcp_tools
from dspynb.agents.tools.tool import Tool as Tool
from dspynb.contrib.dask.executor import DaskExecutor as DaskExecutor
from dspynb.contrib.migration.translate import from_dspy as from_dspy
from dspynb.conversation import History as History
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
from dspynb.errors import ModelAdaptedWarning as ModelAdaptedWarning
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
from dspynb.errors import TruncatedReplyWarning as TruncatedReplyWarning
from dspynb.errors import UsageUnknownWarning as UsageUnknownWarning
from dspynb.evaluation import metrics as metrics
from dspynb.evaluation.comparison import Comparison as Comparison
from dspynb.evaluation.comparison import Grid as Grid
from dspynb.evaluation.comparison import compare as compare
from dspynb.evaluation.comparison import grid as grid
from dspynb.evaluation.data_io.datasets import load_dataset as load_dataset
from dspynb.evaluation.data_io.reading import read_examples as read_examples
from dspynb.evaluation.data_io.splitting import fingerprint as fingerprint
from dspynb.evaluation.data_io.splitting import split as split
from dspynb.evaluation.evaluator import Evaluate as Evaluate
from dspynb.evaluation.evaluator import evaluate as evaluate
from dspynb.evaluation.metrics import feedback as feedback
from dspynb.evaluation.result import Evaluation as Evaluation
from dspynb.evaluation.tables import score_table as score_table
from dspynb.forecasting.forecast import Forecast as Forecast
from dspynb.lm.client import LM as LM
from dspynb.lm.local import LocalLM as LocalLM
from dspynb.lm.protocol import LMReply as LMReply
from dspynb.lm.protocol import LMRequest as LMRequest
from dspynb.lm.recorded import recorded as recorded
from dspynb.lm.testing import FunctionLM as FunctionLM
from dspynb.lm.testing import ScriptedLM as ScriptedLM
from dspynb.media.values import File as File
from dspynb.media.values import Image as Image
from dspynb.modules.chain_of_thought import ChainOfThought as ChainOfThought
from dspynb.modules.ensemble import Ensemble as Ensemble
from dspynb.modules.function_program import as_program as as_program
from dspynb.modules.majority import majority as majority
from dspynb.modules.module import Module as Module
from dspynb.modules.multi_chain_comparison import MultiChainComparison as MultiChainComparison
from dspynb.modules.predict import Predict as Predict
from dspynb.optimizers.bootstrap import BootstrapFewShot as BootstrapFewShot
from dspynb.optimizers.bootstrap import BootstrapRandomSearch as BootstrapRandomSearch
from dspynb.optimizers.copro import COPRO as COPRO
from dspynb.optimizers.core.optimizer import Optimizer as Optimizer
from dspynb.optimizers.distill.distill import DistillHints as DistillHints
from dspynb.optimizers.gepa.gepa import GEPA as GEPA
from dspynb.optimizers.mipro.mipro import MIPROv2 as MIPROv2
from dspynb.optimizers.simba.simba import SIMBA as SIMBA
from dspynb.pricing.price import Price as Price
from dspynb.refine.best_of_n import BestOfN as BestOfN
from dspynb.refine.refine import Refine as Refine
from dspynb.replaying.replayer import Replay as Replay
from dspynb.replaying.replayer import replay as replay
from dspynb.running.aio.sync import run_sync as run_sync
from dspynb.running.call_history import history as history
from dspynb.running.otel import export_otel as export_otel
from dspynb.running.run import Run as Run
from dspynb.running.run import last_run as last_run
from dspynb.running.store import open_run as open_run
from dspynb.running.store import runs as runs
from dspynb.running.tracing import Trace as Trace
from dspynb.running.tracing import trace as trace
from dspynb.scope.budget import Budget as Budget
from dspynb.scope.candidates import candidate as candidate
from dspynb.scope.carry import carry as carry
from dspynb.scope.core import current_attempt as current_attempt
from dspynb.scope.core import current_scope as current_scope
from dspynb.scope.hints import current_hint as current_hint
from dspynb.scope.hints import hints as hints
from dspynb.scope.saved_settings import settings as settings
from dspynb.scope.settings import configure as configure
from dspynb.scope.settings import context as context
from dspynb.scope.snapshot import snapshot as snapshot
from dspynb.signatures.augment import Augmentation as Augmentation
from dspynb.signatures.augment import Confidence as Confidence
from dspynb.signatures.augment import Reasoning as Reasoning
from dspynb.signatures.augment import augment as augment
from dspynb.signatures.fields import Input as Input
from dspynb.signatures.fields import Output as Output
from dspynb.signatures.signature import Signature as Signature

__version__: str
__all__ = [  # noqa: RUF022
    "AdvisorFailedWarning",
    "AllAttemptsFailed",
    "Augmentation",
    "BestOfN",
    "BootstrapFewShot",
    "BootstrapRandomSearch",
    "Budget",
    "BudgetExhausted",
    "COPRO",
    "ChainOfThought",
    "ChatAdapter",
    "Comparison",
    "Confidence",
    "DaskExecutor",
    "DataOverlapWarning",
    "DistillHints",
    "DspynbError",
    "Ensemble",
    "Evaluate",
    "Evaluation",
    "Example",
    "ExecutorError",
    "File",
    "Forecast",
    "FunctionLM",
    "GEPA",
    "Grid",
    "HiddenPredictorWarning",
    "History",
    "Image",
    "Input",
    "JSONAdapter",
    "LM",
    "LMReply",
    "LMRequest",
    "LocalLM",
    "MIPROv2",
    "ModelAdaptedWarning",
    "Module",
    "MultiChainComparison",
    "NoFeedbackWarning",
    "Optimizer",
    "OptimizerError",
    "Output",
    "Predict",
    "Prediction",
    "PrefillAdapter",
    "Price",
    "ProgramOfThought",
    "ReAct",
    "Reasoning",
    "Refine",
    "Refused",
    "Replay",
    "ReplayDiverged",
    "ReplyTruncated",
    "Run",
    "RunInterrupted",
    "RunStopped",
    "SIMBA",
    "ScopeClosedWarning",
    "Score",
    "ScoreRangeWarning",
    "ScriptedLM",
    "Signature",
    "StateError",
    "Tool",
    "Trace",
    "TruncatedReplyWarning",
    "Usage",
    "UsageUnknownWarning",
    "as_program",
    "augment",
    "candidate",
    "carry",
    "compare",
    "configure",
    "context",
    "current_attempt",
    "current_hint",
    "current_scope",
    "evaluate",
    "export_otel",
    "feedback",
    "fingerprint",
    "from_dspy",
    "grid",
    "hints",
    "history",
    "last_run",
    "load_dataset",
    "majority",
    "mcp_tools",
    "metrics",
    "open_run",
    "read_examples",
    "recorded",
    "replay",
    "run_sync",
    "runs",
    "score_table",
    "settings",
    "snapshot",
    "split",
    "trace",
    "__version__",
]
