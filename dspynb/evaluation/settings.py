"""The settings of an evaluation: their types, and the names that other libraries use for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, TypedDict

from dspynb.errors import ConfigurationError
from dspynb.options import NOT_RECORDED, Check, Concurrency, Float, NonNegativeInt, PositiveInt
from dspynb.running.executor import ExecutorOption
from dspynb.scope.budget import BudgetOption

__all__ = ["RENAMED_ARGUMENTS", "RENAMED_SETTINGS", "ColumnNames", "ErrorLimit", "EvaluateSettings"]

_ROWS = "the rows are an argument of the call: await Evaluate(metric)(program, rows)"
_VIEW = "a run shows its own progress; choose the view with dn.configure(view=…)"
_TABLE = "the result is a table: evaluation.table.to_csv(…) or evaluation.table.to_json(…)"
RENAMED_SETTINGS: Mapping[str, str] = {
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
    "lm": "the model belongs to the program: dn.Predict(…, lm=…), or `with dn.context(lm=…)`",
}
"""For names that DSPy has at Evaluate: the setting of that meaning, or a sentence that says what to do."""


def _use_setting(name: str) -> str:
    return f"it is a setting of Evaluate: await dn.Evaluate(metric, {name}=…)(program, rows)"


RENAMED_ARGUMENTS: Mapping[str, str] = {
    "devset": "rows",
    "dataset": "rows",
    "metric": _use_setting("metric"),
    "num_threads": _use_setting("concurrency"),
    "concurrency": _use_setting("concurrency"),
    "budget": _use_setting("budget"),
    "repeats": _use_setting("repeats"),
    "max_errors": _use_setting("max_errors"),
    **{name: RENAMED_SETTINGS[name] for name in ("display_progress", "display_table", "save_as_csv")},
}
"""For names passed to the call of an Evaluate: its parameter of that meaning, or a sentence that says what to do."""


def _column_names(value: object) -> Any:
    if isinstance(value, str):
        raise ConfigurationError(f"inputs must be a list of column names, as in [{value!r}]; got text")
    return value


ColumnNames: TypeAlias = Annotated[Sequence[str] | None, Check(_column_names, "a list of column names, or None")]
ErrorLimit: TypeAlias = Annotated[NonNegativeInt | None, NOT_RECORDED]


class EvaluateSettings(TypedDict, total=False):
    """The settings of Evaluate, for functions that pass them on as keywords. For their meaning, see Evaluate."""

    inputs: ColumnNames
    concurrency: Concurrency
    repeats: PositiveInt
    failure_score: Float
    max_errors: ErrorLimit
    budget: BudgetOption | None
    executor: ExecutorOption
