"""The settings of an evaluation: their types, and what other libraries call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, TypedDict

from dspynb.errors import ConfigurationError
from dspynb.options import NOT_RECORDED, Check, Concurrency, Float, NonNegativeInt, PositiveInt
from dspynb.running.executor import ExecutorOption
from dspynb.scope.budget import BudgetOption

__all__ = ["OF_THE_CALL", "SETTINGS_OF_EVALUATE", "ColumnNames", "ErrorLimit", "EvaluateSettings"]

_ROWS = "the rows are an argument of the call: await Evaluate(metric)(program, rows)"
_VIEW = "a run shows itself, and what it shows is a setting: dn.configure(view=…)"
_TABLE = "the result is a table: evaluation.table.to_csv(…) or evaluation.table.to_json(…)"
SETTINGS_OF_EVALUATE: Mapping[str, str] = {
    **dict.fromkeys(("devset", "dataset", "rows", "testset"), _ROWS),
    **dict.fromkeys(("display_progress", "display_table"), _VIEW),
    **dict.fromkeys(("save_as_csv", "save_as_json"), _TABLE),
    **dict.fromkeys(("return_outputs", "return_all_scores"), "the result has both: evaluation.predictions and .table"),
    "metrics": "metric",
    "num_threads": "concurrency",
    "max_workers": "concurrency",
    "provide_traceback": "the error of a row that failed is in evaluation.table",
    "callback_metadata": "runs record every call: see run.calls",
    "callbacks": "runs record every call: see run.calls",
    "lm": "the program has its model: dn.Predict(…, lm=…), or `with dn.context(lm=…)`",
}
"""What the names of DSPy are called at Evaluate, or what to do in place of them."""
OF_THE_CALL = {
    "devset": "rows",
    "dataset": "rows",
    **{
        name: f"it is a setting of Evaluate: await dn.Evaluate(metric, {ours}=…)(program, rows)"
        for name, ours in (
            ("metric", "metric"),
            ("num_threads", "concurrency"),
            ("concurrency", "concurrency"),
            ("budget", "budget"),
            ("repeats", "repeats"),
            ("max_errors", "max_errors"),
        )
    },
    **{name: SETTINGS_OF_EVALUATE[name] for name in ("display_progress", "display_table", "save_as_csv")},
}


def _column_names(value: Any) -> Any:
    if isinstance(value, str):
        raise ConfigurationError(f"inputs must be a list of column names, as in [{value!r}]; got text")
    return value


ColumnNames: TypeAlias = Annotated[Sequence[str] | None, Check(_column_names, "a list of column names, or None")]
ErrorLimit: TypeAlias = Annotated[NonNegativeInt | None, NOT_RECORDED]


class EvaluateSettings(TypedDict, total=False):
    """The settings of Evaluate, for type checkers where they are passed on; see Evaluate."""

    inputs: ColumnNames
    concurrency: Concurrency
    repeats: PositiveInt
    failure_score: Float
    max_errors: ErrorLimit
    budget: BudgetOption | None
    executor: ExecutorOption
