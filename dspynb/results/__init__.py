"""Events folded into what people read: attempts, spans, tables, prompt diffs."""

from dspynb.results.diffs import PromptDiff, diff_messages
from dspynb.results.fold import AttemptRow, Fold
from dspynb.results.spans import Span, spans_frame, spans_of
from dspynb.results.tables import attempts_frame, calls_frame, mapped, rollouts_frame, rollouts_of
from dspynb.results.trees import tree_html, tree_text

__all__ = [
    "AttemptRow",
    "Fold",
    "PromptDiff",
    "Span",
    "attempts_frame",
    "calls_frame",
    "diff_messages",
    "mapped",
    "rollouts_frame",
    "rollouts_of",
    "spans_frame",
    "spans_of",
    "tree_html",
    "tree_text",
]
