"""What became of hints: in which attempts they were, and what those scored beside the ones without."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from dspynb.events import PredictorCalled
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow
from dspynb.running.tables.scores import failure_score

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "HintRow",
    "HintUse",
    "PathOf",
    "hint_rows",
    "hint_uses",
    "hint_uses_of_search",
    "hints_frame",
    "hints_text",
]


@dataclass(frozen=True, slots=True)
class HintUse:
    """One attempt that had a hint. ``of``: the name of its search, and the path in its program where the hint was for
    one predictor (None: for all); ``predictors``: the paths, in the run, of those that were called with it."""

    hint: str
    of: tuple[str, str | None]
    predictors: frozenset[str]
    passed: bool
    gain: float


@dataclass(frozen=True, slots=True)
class HintRow:
    """All uses of a hint, told as ``hints_frame`` does."""

    hint: str
    predictors: tuple[str, ...]
    predictor: str
    used: int
    passed: int
    gain: float


PathOf = Callable[[PredictorCalled], str | None]
"""The path of the predictor of a call; None for a call that is left out."""
_recorded: PathOf = attrgetter("predictor")


def hint_uses(record: RunRecord, within: int = 0, failed: float | None = None) -> Iterator[HintUse]:
    """Each attempt that had a hint and ended by itself; of searches in the span ``within``, where one is given.
    ``failed``: what an attempt counts that failed (default: the run's ``failure_score``, or 0)."""
    if failed is None:
        failed = failure_score(record)
    for search in record.searches_in(within) if within else record.searches():
        if record.lost.isdisjoint(record.ancestors(search)):
            yield from hint_uses_of_search(record, search, failed)


def hint_uses_of_search(
    record: RunRecord, search: int, failed: float, path_of: PathOf = _recorded
) -> Iterator[HintUse]:
    """The attempts of one search that had a hint. ``path_of``: gives the paths of predictors; default: as recorded."""
    rows = [row for row in record.children(search) if row.state not in ("running", "cancelled")]
    title = record.spans[search].name if search in record.spans else ""
    for row in rows:
        before = [_score(r, failed) for r in rows if r.hint is None and r.wave < row.wave]
        if row.hint is None or not before:
            continue
        gain = _score(row, failed) - math.fsum(before) / len(before)
        for path, text, predictors in _given(row, path_of):
            yield HintUse(text, (title, path), predictors, row.state == "passed", gain)


def _score(row: AttemptRow, failed: float) -> float:
    return failed if row.score is None else float(row.score)


def _given(row: AttemptRow, path_of: PathOf) -> Iterator[tuple[str | None, str, frozenset[str]]]:
    """The texts of an attempt's hint: the path that each was for, and who was called with it."""
    if isinstance(row.hint, str):
        yield None, row.hint, frozenset(_called(row, row.hint, path_of))
        return
    for path, text in (row.hint or {}).items():
        if text:
            called = _called(row, text, path_of)
            yield path, text, frozenset(p for p in called if path == "self" or _ends_with(p, path))


def _called(row: AttemptRow, text: str, path_of: PathOf) -> Iterator[str]:
    """The predictors whose hint, composed of one or several, has the text."""
    for call in row.calls:
        path = path_of(call)
        if path is not None and call.hint and f"\n{text}\n" in f"\n{call.hint}\n":
            yield path


def _ends_with(path: str, inner: str) -> bool:
    """Whether a path in the run may be one of a program inside it."""
    return path == inner or path.endswith(inner if inner.startswith("[") else f".{inner}")


def hint_rows(uses: Iterable[HintUse]) -> list[HintRow]:
    """One row a hint, the most useful first: by what it added to scores in all, ``used × gain``. In whatever order the
    uses come, the rows are the same."""
    groups: dict[tuple[str, tuple[str, str | None]], list[HintUse]] = {}
    for use in uses:
        groups.setdefault((use.hint, use.of), []).append(use)
    rows = []
    for (hint, (_, path)), group in groups.items():
        predictors = tuple(sorted(frozenset[str]().union(*(use.predictors for use in group))))
        gain = math.fsum(use.gain for use in group) / len(group)
        passed = sum(use.passed for use in group)
        rows.append(HintRow(hint, predictors, _label(predictors, path), len(group), passed, gain))
    return sorted(rows, key=lambda row: (-row.gain * row.used, row.hint, row.predictor, row.predictors))


def _label(predictors: tuple[str, ...], path: str | None) -> str:
    """The one predictor's path; of several, what their paths begin with, and a star."""
    if len(predictors) < 2:
        return predictors[0] if predictors else path or "*"
    steps = [re.findall(r"\[[^\]]*\]|[^.\[]+", name) for name in predictors]
    common = []
    for step in zip(*steps, strict=False):
        if len(set(step)) > 1:
            break
        common.append(step[0])
    begin = "".join(step if step.startswith("[") else f".{step}" for step in common).removeprefix(".")
    return f"{begin}.*" if begin else "*"


def hints_frame(record: RunRecord, within: int = 0) -> pd.DataFrame:
    """One row a hint: hint, predictor, used, passed, gain; the most useful (``used × gain``) first.

    ``predictor``: the path of the one it was for; ``*`` for all of the program, ``answer.*`` for all in ``answer``.
    ``used``: the attempts that had it and ended. ``passed``: how many of these met the threshold, which none before
    them in their search had. ``gain``: the mean, over these, of the attempt's score minus the mean score of the
    attempts without a hint in earlier waves of the same search. An attempt that failed counts the run's
    ``failure_score``, 0 where it has none.
    """
    import pandas as pd

    names = ("hint", "predictor", "used", "passed", "gain")
    rows = [[getattr(row, name) for name in names] for row in hint_rows(hint_uses(record, within))]
    frame = pd.DataFrame(rows, columns=list(names), dtype=object)
    return frame.astype({"used": int, "passed": int, "gain": float})


def hints_text(record: RunRecord) -> str:
    """Of a run that distils hints, in a sentence or two: what there was to distil."""
    given = record.started.settings.get("hints") if record.started else None
    if given and isinstance(given, list | tuple):
        return f"It distils {_count(len(given), 'hint')} of an earlier run."
    firsts = [rows[0] for search in record.searches() if len(rows := record.children(search)) > 1]
    hints = hint_rows(hint_uses(record))
    silent = bool(firsts) and not any(row.feedback for row in record.attempts.values())
    notes = ["The reward gives no feedback; dn.Score(value, feedback=…) would help."] if silent else []
    if not firsts:
        told = "No first attempt on the training rows was tried again, so there was nothing to distil."
    elif not hints:
        failed = f" The advisor failed: {record.hint_failures[0].error}" if record.hint_failures else ""
        told = f"{_count(len(firsts), 'first attempt')} fell short, but no hint came of it.{failed}"
    else:
        helped = sum(row.gain > 0 for row in hints)
        told = f"Of {_count(len(hints), 'hint')}, {helped or 'none'} raised scores on the training rows."
    return " ".join([told, *notes])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
