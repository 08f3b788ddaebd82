"""Events folded into what people read: attempts, tables, prompt diffs."""

from dspynb.results.diffs import PromptDiff, diff_messages
from dspynb.results.fold import AttemptRow, Fold
from dspynb.results.tables import attempts_frame, calls_frame

__all__ = ["AttemptRow", "Fold", "PromptDiff", "attempts_frame", "calls_frame", "diff_messages"]
