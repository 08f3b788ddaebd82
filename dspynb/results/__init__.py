"""Events folded into what people read: attempts, spans, tables, prompt diffs."""

from dspynb.results.candidates import (
    candidates_frame,
    history_frame,
    matrix_frame,
    proposals_frame,
    summary_of,
    winner_of,
)
from dspynb.results.diffs import PromptDiff, diff_messages
from dspynb.results.fold import AttemptRow, Fold
from dspynb.results.hints import HintRow, HintUse, hint_rows, hint_uses, hints_frame, hints_text
from dspynb.results.spans import Span, spans_frame, spans_of
from dspynb.results.tables import attempts_frame, calls_frame, mapped, rollouts_frame, rollouts_of
from dspynb.results.trees import tree_html, tree_text

__all__ = [
    "AttemptRow",
    "Fold",
    "HintRow",
    "HintUse",
    "PromptDiff",
    "Span",
    "attempts_frame",
    "calls_frame",
    "candidates_frame",
    "diff_messages",
    "hint_rows",
    "hint_uses",
    "hints_frame",
    "hints_text",
    "history_frame",
    "mapped",
    "matrix_frame",
    "proposals_frame",
    "rollouts_frame",
    "rollouts_of",
    "spans_frame",
    "spans_of",
    "summary_of",
    "tree_html",
    "tree_text",
    "winner_of",
]
