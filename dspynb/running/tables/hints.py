"""How useful hints were: which attempts had them, and how these scored compared with attempts without a hint."""

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
    """One attempt that had a hint.

    ``target``: the name of the attempt's search, and the path in its program of the predictor that the hint was for
    (None: for all predictors). ``predictors``: the paths, in the run, of the predictors that were called with the hint.
    ``passed``: whether the attempt met the threshold. ``gain``: its score minus the mean score of the attempts without
    a hint in earlier waves.
    """

    hint: str
    target: tuple[str, str | None]
    predictors: frozenset[str]
    passed: bool
    gain: float


@dataclass(frozen=True, slots=True)
class HintRow:
    """All uses of a hint, with the columns of ``hints_frame`` and the paths of its predictors."""

    hint: str
    predictors: tuple[str, ...]
    predictor: str
    used: int
    passed: int
    gain: float


PathOf = Callable[[PredictorCalled], str | None]
"""Returns the path of a call's predictor, or None for a call to leave out."""
_recorded_path: PathOf = attrgetter("predictor")


def hint_uses(record: RunRecord, within: int = 0, failed: float | None = None) -> Iterator[HintUse]:
    """Yield each attempt that had a hint and ended without being cancelled.

    ``within``: a span; only searches inside it are read (default: all searches). ``failed``: the score of an attempt
    that failed (default: the run's ``failure_score``, or 0).
    """
    if failed is None:
        failed = failure_score(record)
    searches = record.searches_in(within) if within else record.searches()
    for search in searches:
        if record.lost.isdisjoint(record.ancestors(search)):
            yield from hint_uses_of_search(record, search, failed)


def hint_uses_of_search(
    record: RunRecord, search: int, failed: float, path_of: PathOf = _recorded_path
) -> Iterator[HintUse]:
    """Yield the attempts of one search that had a hint. ``path_of``: returns the path of a call's predictor (default:
    the recorded one)."""
    rows = [row for row in record.children(search) if row.state not in ("running", "cancelled")]
    search_name = record.spans[search].name if search in record.spans else ""
    for row in rows:
        unhinted_scores = [_score(other, failed) for other in rows if other.hint is None and other.wave < row.wave]
        if row.hint is None or not unhinted_scores:
            continue
        gain = _score(row, failed) - math.fsum(unhinted_scores) / len(unhinted_scores)
        for path, text, predictors in _hint_texts(row, path_of):
            yield HintUse(text, (search_name, path), predictors, row.state == "passed", gain)


def _score(row: AttemptRow, failed: float) -> float:
    if row.score is None:
        return failed
    return float(row.score)


def _hint_texts(row: AttemptRow, path_of: PathOf) -> Iterator[tuple[str | None, str, frozenset[str]]]:
    """Yield each text of an attempt's hint: the path it was for (None: for all), the text, and the paths of the
    predictors that were called with it."""
    if isinstance(row.hint, str):
        yield None, row.hint, frozenset(_predictors_called_with(row, row.hint, path_of))
        return
    for path, text in (row.hint or {}).items():
        if text:
            predictors = _predictors_called_with(row, text, path_of)
            if path != "self":
                predictors = [predictor for predictor in predictors if _ends_with(predictor, path)]
            yield path, text, frozenset(predictors)


def _predictors_called_with(row: AttemptRow, text: str, path_of: PathOf) -> list[str]:
    """The paths of the predictors that were called with a hint in which ``text`` stands as lines of its own. A call's
    hint may be composed of several."""
    predictors = []
    for call in row.calls:
        path = path_of(call)
        if path is not None and call.hint and f"\n{text}\n" in f"\n{call.hint}\n":
            predictors.append(path)
    return predictors


def _ends_with(path: str, inner: str) -> bool:
    """Whether a predictor's path in the run can be the path ``inner`` of a program inside it."""
    suffix = inner if inner.startswith("[") else f".{inner}"
    return path == inner or path.endswith(suffix)


def hint_rows(uses: Iterable[HintUse]) -> list[HintRow]:
    """One row per hint and target, the most useful hint first: the one with the largest total gain, ``used × gain``.
    The rows do not depend on the order of the uses."""
    groups: dict[tuple[str, tuple[str, str | None]], list[HintUse]] = {}
    for use in uses:
        groups.setdefault((use.hint, use.target), []).append(use)
    rows = [_hint_row(hint, path, group) for (hint, (_, path)), group in groups.items()]
    return sorted(rows, key=lambda row: (-row.gain * row.used, row.hint, row.predictor, row.predictors))


def _hint_row(hint: str, path: str | None, uses: list[HintUse]) -> HintRow:
    paths: set[str] = set()
    for use in uses:
        paths |= use.predictors
    predictors = tuple(sorted(paths))
    gain = math.fsum(use.gain for use in uses) / len(uses)
    passed = sum(use.passed for use in uses)
    return HintRow(hint, predictors, _label(predictors, path), len(uses), passed, gain)


def _label(predictors: tuple[str, ...], path: str | None) -> str:
    """The path of a single predictor; for several predictors, the common beginning of their paths and a star."""
    if not predictors:
        return path or "*"
    if len(predictors) == 1:
        return predictors[0]
    steps = [re.findall(r"\[[^\]]*\]|[^.\[]+", name) for name in predictors]
    prefix = ""
    for step in zip(*steps, strict=False):
        if len(set(step)) > 1:
            break
        prefix += step[0] if step[0].startswith("[") else f".{step[0]}"
    prefix = prefix.removeprefix(".")
    return f"{prefix}.*" if prefix else "*"


def hints_frame(record: RunRecord, within: int = 0) -> pd.DataFrame:
    """The hints of a run, one row each, the most useful (``used × gain``) first: hint, predictor, used, passed, gain.

    ``predictor``: the path of the predictor that the hint was for; ``*`` for all of the program, ``answer.*`` for all
    in ``answer``. ``used``: the number of attempts that had the hint and ended. ``passed``: how many of them met the
    threshold, which no earlier attempt of their search had met. ``gain``: the mean over these attempts of their score
    minus the mean score of the attempts without a hint in earlier waves of the same search. An attempt that failed
    counts as the run's ``failure_score``, or 0 where it has none.
    """
    import pandas as pd

    uses = hint_uses(record, within)
    rows = [(row.hint, row.predictor, row.used, row.passed, row.gain) for row in hint_rows(uses)]
    frame = pd.DataFrame(rows, columns=["hint", "predictor", "used", "passed", "gain"], dtype=object)
    return frame.astype({"used": int, "passed": int, "gain": float})


def hints_text(record: RunRecord) -> str:
    """One or two sentences about the hints of a run of DistillHints: how many there were and how many helped."""
    earlier_hints = record.started.settings.get("hints") if record.started else None
    if earlier_hints and isinstance(earlier_hints, list | tuple):
        return f"It distils {_count(len(earlier_hints), 'hint')} of an earlier run."
    retried = sum(len(record.children(search)) > 1 for search in record.searches())
    if not retried:
        return "No first attempt on the training rows was tried again, so there was nothing to distil."
    hints = hint_rows(hint_uses(record))
    if hints:
        helped = sum(row.gain > 0 for row in hints)
        text = f"Of {_count(len(hints), 'hint')}, {helped or 'none'} raised scores on the training rows."
    else:
        text = f"{_count(retried, 'first attempt')} fell short, but no hint was written."
        if record.hint_failures:
            text += f" The advisor failed: {record.hint_failures[0].error}"
    if not any(row.feedback for row in record.attempts.values()):
        text += " The reward gives no feedback; dn.Score(value, feedback=…) would help."
    return text


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"{number:,} {noun}"
    return f"{number:,} {noun}s"
