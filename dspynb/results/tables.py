"""Folded runs as pandas tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dspynb.results.fold import AttemptRow, Fold

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attempts_frame", "calls_frame"]

_BEFORE = ("attempt", "wave", "hint")
_AFTER = ("score", "feedback", "error", "seconds", "tokens", "usd", "cached", "best")


def attempts_frame(attempts: Iterable[AttemptRow], outputs: Iterable[str] = ()) -> pd.DataFrame:
    """One row an attempt: attempt, wave, hint, one column per output, score, feedback, error, seconds, tokens, usd,
    cached, best. An output named like one of these columns gets the prefix ``predicted_``."""
    import pandas as pd

    rows = list(attempts)
    names = list(dict.fromkeys([*outputs, *(name for row in rows for name in row.outputs or ())]))
    columns = {name: f"predicted_{name}" if name in _BEFORE + _AFTER else name for name in names}
    return pd.DataFrame(
        [_cells(row, columns) for row in rows], columns=[*_BEFORE, *columns.values(), *_AFTER], dtype=object
    ).astype({"attempt": int, "wave": int, "cached": bool, "best": bool, "score": float, "seconds": float})


def _cells(row: AttemptRow, columns: dict[str, str]) -> dict[str, Any]:
    values = row.outputs or {}
    return {
        "attempt": row.attempt,
        "wave": row.wave,
        "hint": row.hint,
        **{column: values.get(name) for name, column in columns.items()},
        "score": row.score,
        "feedback": row.feedback,
        "error": "cancelled" if row.state == "cancelled" else row.error,
        "seconds": row.seconds,
        "tokens": row.usage.tokens,
        "usd": row.usage.usd,
        "cached": row.cached,
        "best": row.best,
    }


def calls_frame(fold: Fold) -> pd.DataFrame:
    """One row a model call: predictor, attempt, hint, messages, reply, error, seconds, tokens, usd, cached, model."""
    import pandas as pd

    attempt_of = {id(call): row.attempt for row in fold.attempts.values() for call in row.calls}
    return pd.DataFrame(
        [
            {
                "predictor": call.predictor,
                "attempt": attempt_of.get(id(call)),
                "hint": call.hint,
                "messages": list(call.messages),
                "reply": call.reply,
                "error": call.error,
                "seconds": call.seconds,
                "tokens": call.usage.tokens,
                "usd": call.usage.usd,
                "cached": call.cached,
                "rollout": call.rollout,
                "repair": call.repair,
                "model": call.model,
            }
            for call in fold.calls
        ],
        columns=[
            "predictor",
            "attempt",
            "hint",
            "messages",
            "reply",
            "error",
            "seconds",
            "tokens",
            "usd",
            "cached",
            "rollout",
            "repair",
            "model",
        ],
    )
