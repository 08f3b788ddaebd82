"""Which plot a run gets, and the numbers in it, read from its record: of a live run and of a file alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dspynb.data import Usage
from dspynb.errors import InputError, nearest
from dspynb.events import RolloutEnded
from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow
from dspynb.running.tables.candidates import full_scores, scores_of, winner_of
from dspynb.running.tables.hints import hint_rows, hint_uses
from dspynb.running.tables.scores import chosen_attempts, failure_score, metric_of, outer_searches, scores_by_program
from dspynb.running.tables.statistics import mean_interval
from dspynb.views.plots import draw
from dspynb.views.plots.draw import Bar, Curve, Ends, Point
from dspynb.views.texts import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KINDS", "plot_run"]

X_LABELS = {
    "calls": "model calls",
    "metric_calls": "rollouts scored",
    "tokens": "tokens",
    "usd": "cost (USD)",
    "seconds": "time (s)",
}
_MOST_THIN, _MOST_HINTS, _WORST_HINTS = 50, 15, 3


def plot_run(record: RunRecord, kind: str | None, x: str | None, ax: Axes | None, search: int = 0) -> Axes:
    """Draw the run. ``kind``: one of KINDS, or None for the first that the run has something for; ``search``: the
    span whose attempts are meant. Raises InputError for a kind that is unknown or that the run has nothing for."""
    with record.lock:
        return _plot(record, kind, x, ax, search)


def _plot(record: RunRecord, kind: str | None, x: str | None, ax: Axes | None, search: int) -> Axes:
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no plot {kind!r}.{nearest(str(kind), KINDS)} Plots: {', '.join(KINDS)}")
    if x is not None and x not in X_LABELS:
        raise InputError(f"x must be one of {', '.join(X_LABELS)}, got {x!r}.{nearest(str(x), X_LABELS)}")
    if x is not None and kind not in (None, "best", "pareto"):
        raise InputError(f"x is of the plots 'best' and 'pareto'; {kind!r} has none")
    there = [name for name, (_, has) in KINDS.items() if has(record, search)]
    kind = _default(record, there) if kind is None else kind
    if kind is None:
        raise InputError(f"there is nothing to plot: the run ({record.status}) has no scores")
    if kind not in there:
        others = f"it can be plotted as {', '.join(map(repr, there))}" if there else "it has no scores at all"
        raise InputError(f"the run has nothing for the plot {kind!r}, which needs {_NEEDS[kind]}; {others}")
    return KINDS[kind][0](record, search, x, ax)


def _default(record: RunRecord, there: Sequence[str]) -> str | None:
    """The first kind that the run has; where no rows were scored, its attempts."""
    return "attempts" if "attempts" in there and not record.rollouts else next(iter(there), None)


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _best(record: RunRecord, _: int, x: str | None, ax: Axes | None) -> Axes:
    """The best so far against what it had cost."""
    told = [m for m in record.milestones if m.scored.full and m.scored.split == "val"]
    spent = {
        name: [_spent(m.usage, m.metric_calls, m.scored.at - record.began, name) for m in told] for name in X_LABELS
    }
    x = x or next((name for name in ("calls", "metric_calls") if max(spent[name]) > 0), "seconds")
    _check_spent(spent[x], x)
    start, winner = next(iter(record.candidates), None), winner_of(record)
    scores: dict[str | None, float] = {}
    points, line = [], []
    for milestone, at in zip(told, spent[x], strict=True):
        candidate, score = milestone.scored.candidate, milestone.scored.score
        kind = "best" if candidate == winner else "start" if candidate == start else "candidate"
        points += [] if candidate in scores else [Point(at, score, kind)]
        scores[candidate] = score
        line.append((at, scores.get(milestone.scored.best, math.nan)))
    ended = record.ended.at if record.ended else record.milestones[-1].scored.at
    line.append((max(line[-1][0], _spent(record.usage, len(record.rollouts), ended - record.began, x)), line[-1][1]))
    return draw.scatter(points, line, ("best so far", X_LABELS[x], _val_score(record)), ax)


def _spent(usage: Usage, rollouts: int, seconds: float, x: str) -> float:
    found = {"calls": usage.calls, "metric_calls": rollouts, "tokens": usage.tokens, "usd": usage.usd}
    value = {**found, "seconds": seconds}[x]
    return math.nan if value is None else float(value)


def _check_spent(values: Sequence[float], x: str) -> None:
    if any(map(math.isnan, values)):
        what, others = ("price", "'tokens' or 'seconds'") if x == "usd" else ("number of tokens", "'usd' or 'seconds'")
        raise InputError(f"the {what} of some of the run's calls is unknown; x may be 'calls', {others}")
    if not any(values):
        others = "'tokens' or 'seconds'" if x != "tokens" else "'calls' or 'seconds'"
        raise InputError(f"the run cost nothing in {X_LABELS[x]} (was all of it cached?); x may be {others}")


def _val_score(record: RunRecord) -> str:
    return f"{one_line(metric_of(record), 20)} on validation rows"


def _pareto(record: RunRecord, _: int, x: str | None, ax: Axes | None) -> Axes:
    """What each candidate scores against what a row costs with it, and those that none beats in both."""
    x = x or "tokens"
    if x == "metric_calls":
        raise InputError("a row is one rollout with every candidate; x may be calls, tokens, usd or seconds")
    full = full_scores(record)
    costs = {candidate: _cost(record.rollouts_of(candidate), x) for candidate in full}
    _check_spent(list(costs.values()), x)
    start, winner = next(iter(record.candidates), None), winner_of(record)
    kinds = {start: "start", winner: "best"}
    points = [Point(costs[c], score, kinds.get(c, "candidate")) for c, score in full.items()]
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1][1]:
            front.append((point.x, point.y))
    return draw.scatter(points, front, ("Pareto front", f"{X_LABELS[x]} a row", _val_score(record)), ax)


def _cost(rollouts: Mapping[int, RolloutEnded], x: str) -> float:
    """The mean over rows, of what the program's calls took."""
    total = math.fsum(_spent(rollout.usage, 1, rollout.seconds, x) for rollout in rollouts.values())
    return total / len(rollouts)


def _heatmap(record: RunRecord, _: int, __: str | None, ax: Axes | None) -> Axes:
    """Candidates × validation rows."""
    scores, winner = scores_of(record), winner_of(record)
    known = [candidate for candidate in record.candidates if candidate in scores]
    rows = range(max(row for own in scores.values() for row in own) + 1)
    cells = [[scores[candidate].get(row, math.nan) for row in rows] for candidate in known]
    best = known.index(winner) if winner in known else None
    return draw.heatmap(cells, known, best, metric_of(record), ax)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _compare(record: RunRecord, _: int, __: str | None, ax: Axes | None) -> Axes:
    """The mean of each program that was compared, with its interval."""
    means = {name: _interval(_row_means(rows)) for name, rows in scores_by_program(record).items()}
    return draw.intervals(means, metric_of(record), ax)


def _row_means(rows: Mapping[int, Sequence[float]]) -> list[float]:
    return [math.fsum(values) / len(values) for values in rows.values()]


def _interval(values: Sequence[float]) -> Ends:
    found = mean_interval(values)
    return found.mean, found.low, found.high


def _scores(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """How many rows have which score; of an optimizer's run, with the best candidate and with the start."""
    programs = scores_by_program(record)
    if record.candidates:
        scores, start, winner = scores_of(record), next(iter(record.candidates)), winner_of(record)
        named = {candidate: name for candidate, name in ((start, "start"), (winner, "best")) if candidate in scores}
        groups = {name: _group(list(scores[candidate].values())) for candidate, name in named.items() if candidate}
        return draw.histogram(groups, metric_of(record), "validation rows", ax)
    if programs and not search:
        some = {
            name: ([s for own in rows.values() for s in own], _interval(_row_means(rows)))
            for name, rows in programs.items()
        }
        repeated = any(len(own) > 1 for rows in programs.values() for own in rows.values())
        return draw.histogram(some, metric_of(record), "rollouts" if repeated else "rows", ax)
    searches = _searches(record, search)
    if len(searches) > 1:
        chosen = [float(row.score or 0) for row in chosen_attempts(record)]
        return draw.histogram({"": _group(chosen)}, "score of the attempt that was chosen", "searches", ax)
    found = [float(row.score) for row in searches[0] if row.score is not None and row.state != "cancelled"]
    return draw.histogram({"": _group(found)}, "score", "attempts", ax)


def _group(scores: list[float]) -> tuple[list[float], Ends]:
    return scores, _interval(scores)


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _searches(record: RunRecord, search: int) -> list[list[AttemptRow]]:
    """The attempts of the search that is meant, or of all outermost ones, as far as they ended and count."""
    spans = [search] if search in record.searches() else outer_searches(record)
    found = [[row for row in record.children(s) if row.state not in ("running", "cancelled")] for s in spans]
    return [rows for rows in found if rows]


def _attempts(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """The scores of attempts and the best so far; of many searches, their mean."""
    searches = _searches(record, search)
    if len(searches) == 1:
        threshold = record.started.settings.get("threshold") if record.started else None
        shown = threshold if is_real(threshold) else None
        scores = [math.nan if row.score is None else float(row.score) for row in searches[0]]
        return draw.steps(Curve(scores, [row.state for row in searches[0]]), shown, ax)
    most = max(len(rows) for rows in searches)
    lines = [_best_so_far(rows, most, failure_score(record)) for rows in searches]
    means = [_interval(column) for column in zip(*lines, strict=True)]
    passed = [sum(any(r.state == "passed" for r in rows[:n]) for rows in searches) / len(searches) for n in _upto(most)]
    return draw.curves(means, passed, len(searches), lines if len(lines) <= _MOST_THIN else [], ax)


def _upto(most: int) -> range:
    return range(1, most + 1)


def _best_so_far(rows: Sequence[AttemptRow], most: int, failed: float) -> list[float]:
    """By attempt; a search that ended earlier keeps its best. Without a score so far, the failure score."""
    best, line = -math.inf, []
    for number in range(most):
        score = rows[number].score if number < len(rows) else None
        best = best if score is None else max(best, float(score))
        line.append(failed if best == -math.inf else best)
    return line


def _hints(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """What each hint added, the most useful first; of many, the first ones and the last."""
    rows = hint_rows(hint_uses(record, search))
    shown = rows if len(rows) <= _MOST_HINTS else rows[: _MOST_HINTS - _WORST_HINTS] + rows[-_WORST_HINTS:]
    bars = [Bar(row.hint, row.gain, f"used {row.used:,}, passed {row.passed:,}") for row in shown]
    told = "hint" if len(shown) == len(rows) else f"hint ({len(shown)} of {len(rows):,}: the most, the least useful)"
    return draw.gains(bars, told, ax)


# ── what a run has ────────────────────────────────────────────────────────────────────────────────────────────────────
def _has_attempts(record: RunRecord, search: int) -> bool:
    return any(row.score is not None for rows in _searches(record, search) for row in rows)


def _has_scores(record: RunRecord, search: int) -> bool:
    if record.candidates:
        return bool(scores_of(record))
    return bool(record.rollouts and not search) or _has_attempts(record, search)


def _compared(record: RunRecord, search: int) -> bool:
    return not search and len(scores_by_program(record)) > 1


Draw = Callable[[RunRecord, int, str | None, "Axes | None"], "Axes"]
KINDS: Mapping[str, tuple[Draw, Callable[[RunRecord, int], bool]]] = {
    "best": (_best, lambda record, search: not search and bool(full_scores(record))),
    "pareto": (_pareto, lambda record, search: not search and bool(full_scores(record))),
    "heatmap": (_heatmap, lambda record, search: not search and bool(scores_of(record))),
    "compare": (_compare, _compared),
    "scores": (_scores, _has_scores),
    "attempts": (_attempts, _has_attempts),
    "hints": (
        _hints,
        lambda record, search: _has_attempts(record, search) and any(True for _ in hint_uses(record, search)),
    ),
}
"""Kind of plot → how it is drawn, and whether a run has something for it; the first that it has is drawn unasked."""
_NEEDS = {
    "best": "a candidate scored on all validation rows",
    "pareto": "a candidate scored on all validation rows",
    "heatmap": "candidates with scores",
    "compare": "rows of several programs (dn.compare, dn.grid)",
    "scores": "scored rows or attempts",
    "attempts": "a scored attempt (dn.Refine, dn.BestOfN)",
    "hints": "a hint after a first attempt without one",
}
