"""Choose the plot of a run, and read its numbers from the run's record. Works for live runs and for run files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from dspynb.data import Usage
from dspynb.errors import InputError, nearest
from dspynb.events import RolloutEnded
from dspynb.json_checks import is_real
from dspynb.running.record import RunRecord
from dspynb.running.record_rows import AttemptRow, Milestone
from dspynb.running.tables.candidates import full_scores, scores_of, winner_of
from dspynb.running.tables.hints import hint_rows, hint_uses
from dspynb.running.tables.scores import chosen_attempts, failure_score, metric_of, outer_searches, scores_by_program
from dspynb.running.tables.statistics import mean_interval
from dspynb.views.plots import draw
from dspynb.views.plots.draw import Bar, Curve, MeanInterval, Point
from dspynb.views.run_facts import run_setting
from dspynb.views.texts import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KINDS", "plot_run"]

ScoresByProgram = Mapping[str, Mapping[int, Sequence[float]]]
"""Program → row → the score of each repeat."""

X_LABELS = {
    "calls": "model calls",
    "metric_calls": "rollouts scored",
    "tokens": "tokens",
    "usd": "cost (USD)",
    "seconds": "time (s)",
}
"""Values of ``x`` → the label of the axis."""
_MOST_LINES = 50
"""Searches whose single lines are drawn; with more, only the mean is."""
_MOST_HINTS = 15
"""Hints that are drawn; with more, the first ones and the last ``_WORST_HINTS``."""
_WORST_HINTS = 3


def plot_run(record: RunRecord, kind: str | None, x: str | None, ax: Axes | None, search: int = 0) -> Axes:
    """Draw a run.

    Args:
        record: the run's record.
        kind: one of KINDS; None: the first kind that the run has data for.
        x: one of X_LABELS, for the kinds ``best`` and ``pareto``; None: the usual one.
        ax: the axes to draw into; default: those of a new figure.
        search: the span of a search, to draw only its attempts; 0: the whole run.

    Raises:
        InputError: ``kind`` or ``x`` is unknown, or the run has no data for this kind of plot.
    """
    with record.lock:
        return _plot(record, kind, x, ax, search)


def _plot(record: RunRecord, kind: str | None, x: str | None, ax: Axes | None, search: int) -> Axes:
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no plot {kind!r}.{nearest(str(kind), KINDS)} Plots: {', '.join(KINDS)}")
    if x is not None and x not in X_LABELS:
        raise InputError(f"x must be one of {', '.join(X_LABELS)}, got {x!r}.{nearest(str(x), X_LABELS)}")
    if x is not None and kind not in (None, "best", "pareto"):
        raise InputError(f"x is an argument of the plots 'best' and 'pareto'; the plot {kind!r} takes none")
    available = [name for name, (_, has_data) in KINDS.items() if has_data(record, search)]
    if kind is None:
        if not available:
            raise InputError(f"there is nothing to plot: the run ({record.status}) has no scores")
        kind = _default_kind(record, available)
    if kind not in available:
        others = "it has no scores at all"
        if available:
            others = f"it can be plotted as {', '.join(map(repr, available))}"
        raise InputError(f"the run has no data for the plot {kind!r}, which needs {_NEEDS[kind]}; {others}")
    draw_kind, _ = KINDS[kind]
    return draw_kind(record, search, x, ax)


def _default_kind(record: RunRecord, available: Sequence[str]) -> str:
    """``attempts`` where no rows were scored, else the first kind that is available."""
    if "attempts" in available and not record.rollouts:
        return "attempts"
    return available[0]


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _best(record: RunRecord, _: int, x: str | None, ax: Axes | None) -> Axes:
    """The best score so far, by what the run had spent when it was reached."""
    milestones = [m for m in record.milestones if m.scored.full and m.scored.split == "val"]
    if x is None:
        x = _default_x(record, milestones)
    spent = [_spent_at(record, milestone, x) for milestone in milestones]
    _check_spent(spent, x)
    winner = winner_of(record)
    scores: dict[str | None, float] = {}
    points: list[Point] = []
    line: list[tuple[float, float]] = []
    for milestone, at in zip(milestones, spent, strict=True):
        candidate = milestone.scored.candidate
        score = milestone.scored.score
        if candidate not in scores:
            points.append(Point(at, score, _kind_of_point(record, candidate, winner)))
        scores[candidate] = score
        line.append((at, scores.get(milestone.scored.best, math.nan)))
    last_spent, last_score = line[-1]
    line.append((max(last_spent, _spent_in_total(record, x)), last_score))
    return draw.scatter(points, line, ("best so far", X_LABELS[x], _val_score(record)), ax)


def _default_x(record: RunRecord, milestones: Sequence[Milestone]) -> str:
    """The first of model calls and rollouts that the run has spent; seconds if it has spent none."""
    for name in ("calls", "metric_calls"):
        if any(_spent_at(record, milestone, name) > 0 for milestone in milestones):
            return name
    return "seconds"


def _kind_of_point(record: RunRecord, candidate: str, winner: str | None) -> str:
    if candidate == winner:
        return "best"
    if candidate == next(iter(record.candidates), None):
        return "start"
    return "candidate"


def _spent_at(record: RunRecord, milestone: Milestone, x: str) -> float:
    return _spent(milestone.usage, milestone.metric_calls, milestone.scored.at - record.began, x)


def _spent_in_total(record: RunRecord, x: str) -> float:
    end = record.ended.at if record.ended else record.milestones[-1].scored.at
    return _spent(record.usage, len(record.rollouts), end - record.began, x)


def _spent(usage: Usage, rollouts: int, seconds: float, x: str) -> float:
    """The amount named ``x``; NaN where it is unknown."""
    amounts = {
        "calls": usage.calls,
        "metric_calls": rollouts,
        "tokens": usage.tokens,
        "usd": usage.usd,
        "seconds": seconds,
    }
    amount = amounts[x]
    return math.nan if amount is None else float(amount)


def _check_spent(values: Sequence[float], x: str) -> None:
    """Raise InputError where some amounts are unknown, or all are 0."""
    if any(map(math.isnan, values)):
        amount = "number of tokens"
        others = "'usd' or 'seconds'"
        if x == "usd":
            amount = "price"
            others = "'tokens' or 'seconds'"
        raise InputError(f"the {amount} of some of the run's calls is unknown; x may be 'calls', {others}")
    if not any(values):
        others = "'calls' or 'seconds'" if x == "tokens" else "'tokens' or 'seconds'"
        raise InputError(f"the run cost nothing in {X_LABELS[x]} (was all of it cached?); x may be {others}")


def _val_score(record: RunRecord) -> str:
    return f"{one_line(metric_of(record), 20)} on validation rows"


def _pareto(record: RunRecord, _: int, x: str | None, ax: Axes | None) -> Axes:
    """The score of each candidate by its cost per row, and the Pareto front of the two."""
    if x is None:
        x = "tokens"
    if x == "metric_calls":
        raise InputError("a row is one rollout with every candidate; x may be calls, tokens, usd or seconds")
    full = full_scores(record)
    costs = {candidate: _cost(record.rollouts_of(candidate), x) for candidate in full}
    _check_spent(list(costs.values()), x)
    winner = winner_of(record)
    points = [
        Point(costs[candidate], score, _kind_of_point(record, candidate, winner)) for candidate, score in full.items()
    ]
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1][1]:
            front.append((point.x, point.y))
    return draw.scatter(points, front, ("Pareto front", f"{X_LABELS[x]} a row", _val_score(record)), ax)


def _cost(rollouts: Mapping[int, RolloutEnded], x: str) -> float:
    """What one row costs, as the mean over rows. Calls of metrics do not count."""
    total = math.fsum(_spent(rollout.usage, 1, rollout.seconds, x) for rollout in rollouts.values())
    return total / len(rollouts)


def _heatmap(record: RunRecord, _: int, __: str | None, ax: Axes | None) -> Axes:
    """Candidates × validation rows."""
    scores = scores_of(record)
    winner = winner_of(record)
    candidates = [candidate for candidate in record.candidates if candidate in scores]
    row_count = max(max(scores_by_row, default=-1) for scores_by_row in scores.values()) + 1
    cells = []
    for candidate in candidates:
        scores_by_row = scores[candidate]
        cells.append([scores_by_row.get(row, math.nan) for row in range(row_count)])
    best = candidates.index(winner) if winner in candidates else None
    names = record.candidate_names
    return draw.heatmap(cells, [names[candidate] for candidate in candidates], best, metric_of(record), ax)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _compare(record: RunRecord, _: int, __: str | None, ax: Axes | None) -> Axes:
    """The mean score of each compared program, with its interval."""
    means = {name: _interval(_row_means(rows)) for name, rows in scores_by_program(record).items()}
    return draw.intervals(means, metric_of(record), ax)


def _row_means(rows: Mapping[int, Sequence[float]]) -> list[float]:
    return [math.fsum(values) / len(values) for values in rows.values()]


def _interval(values: Sequence[float]) -> MeanInterval:
    interval = mean_interval(values)
    return interval.mean, interval.low, interval.high


def _scores(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """Draw a histogram of scores. What is counted depends on the run.

    In an optimizer's run: validation rows, for the initial and the best candidate. In an evaluation: rows, for each
    program. With several searches: the attempt that each search chose. With one search: its attempts. ``search``: the
    span of the search to draw; 0 for the whole run.
    """
    if record.candidates:
        return _scores_of_candidates(record, ax)
    programs = scores_by_program(record)
    if programs and not search:
        return _scores_of_programs(record, programs, ax)
    searches = _searches(record, search)
    if len(searches) > 1:
        chosen = [float(row.score or 0) for row in chosen_attempts(record)]
        return draw.histogram({"": _group(chosen)}, "score of the attempt that was chosen", "searches", ax)
    scores = [float(row.score) for row in searches[0] if row.score is not None and row.state != "cancelled"]
    return draw.histogram({"": _group(scores)}, "score", "attempts", ax)


def _scores_of_candidates(record: RunRecord, ax: Axes | None) -> Axes:
    """The scores of the initial program and of the best candidate."""
    scores = scores_of(record)
    start = next(iter(record.candidates))
    winner = winner_of(record)
    groups: dict[str, tuple[list[float], MeanInterval]] = {}
    if start in scores and start != winner:
        groups["start"] = _group(list(scores[start].values()))
    if winner and winner in scores:
        groups["best"] = _group(list(scores[winner].values()))
    return draw.histogram(groups, metric_of(record), "validation rows", ax)


def _scores_of_programs(record: RunRecord, programs: ScoresByProgram, ax: Axes | None) -> Axes:
    """The scores of each program's rows. An interval is that of the rows' means, since repeats are not independent."""
    groups: dict[str, tuple[list[float], MeanInterval]] = {}
    unit = "rows"
    for name, rows in programs.items():
        scores: list[float] = []
        for repeats in rows.values():
            scores.extend(repeats)
            if len(repeats) > 1:
                unit = "rollouts"
        groups[name] = (scores, _interval(_row_means(rows)))
    return draw.histogram(groups, metric_of(record), unit, ax)


def _group(scores: list[float]) -> tuple[list[float], MeanInterval]:
    return scores, _interval(scores)


# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _searches(record: RunRecord, search: int) -> list[list[AttemptRow]]:
    """The finished attempts of each search: of the search with this span, else of all outermost searches."""
    spans = [search] if search in record.searches() else outer_searches(record)
    searches = []
    for span in spans:
        rows = [row for row in record.children(span) if row.state not in ("running", "cancelled")]
        if rows:
            searches.append(rows)
    return searches


def _attempts(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """The scores of attempts and the best score so far; of several searches, the mean over them."""
    searches = _searches(record, search)
    if len(searches) == 1:
        return _single_search(record, searches[0], ax)
    most = max(len(rows) for rows in searches)
    failed = failure_score(record)
    lines = [_best_so_far(rows, most, failed) for rows in searches]
    means = [_interval(column) for column in zip(*lines, strict=True)]
    passed = [_share_passed(searches, attempts) for attempts in range(1, most + 1)]
    single_lines = lines if len(lines) <= _MOST_LINES else []
    return draw.curves(means, passed, len(searches), single_lines, ax)


def _single_search(record: RunRecord, rows: Sequence[AttemptRow], ax: Axes | None) -> Axes:
    threshold = run_setting(record, "threshold")
    if not is_real(threshold):
        threshold = None
    scores = [_score_or(row, math.nan) for row in rows]
    states = [row.state for row in rows]
    return draw.steps(Curve(scores, states), threshold, ax)


def _score_or(row: AttemptRow, default: float) -> float:
    return default if row.score is None else float(row.score)


def _share_passed(searches: Sequence[Sequence[AttemptRow]], attempts: int) -> float:
    """The share of searches in which one of the first ``attempts`` attempts passed."""
    passed = 0
    for rows in searches:
        if any(row.state == "passed" for row in rows[:attempts]):
            passed += 1
    return passed / len(searches)


def _best_so_far(rows: Sequence[AttemptRow], most: int, failed: float) -> list[float]:
    """The best score after each of ``most`` attempts; ``failed`` while there is none. A search that ended earlier stays
    at its best score."""
    best = -math.inf
    line = []
    for i in range(most):
        if i < len(rows):
            best = max(best, _score_or(rows[i], -math.inf))
        line.append(failed if best == -math.inf else best)
    return line


def _hints(record: RunRecord, search: int, _: str | None, ax: Axes | None) -> Axes:
    """The gain of each hint, the most useful first. Of many hints, only the most and the least useful ones."""
    rows = hint_rows(hint_uses(record, search))
    label = "hint"
    drawn = rows
    if len(rows) > _MOST_HINTS:
        drawn = rows[: _MOST_HINTS - _WORST_HINTS] + rows[-_WORST_HINTS:]
        label = f"hint ({len(drawn)} of {len(rows):,}: the most and the least useful)"
    bars = [Bar(row.hint, row.gain, f"used {row.used:,}, passed {row.passed:,}") for row in drawn]
    return draw.gains(bars, label, ax)


# ── which plots a run has data for ────────────────────────────────────────────────────────────────────────────────────
def _has_full_scores(record: RunRecord, search: int) -> bool:
    return not search and bool(full_scores(record))


def _has_candidate_scores(record: RunRecord, search: int) -> bool:
    return not search and bool(scores_of(record))


def _has_several_programs(record: RunRecord, search: int) -> bool:
    return not search and len(scores_by_program(record)) > 1


def _has_scores(record: RunRecord, search: int) -> bool:
    if record.candidates:
        return bool(scores_of(record))
    has_scored_rows = bool(record.rollouts) and not search
    return has_scored_rows or _has_attempts(record, search)


def _has_attempts(record: RunRecord, search: int) -> bool:
    attempts = chain.from_iterable(_searches(record, search))
    return any(row.score is not None for row in attempts)


def _has_hints(record: RunRecord, search: int) -> bool:
    return _has_attempts(record, search) and any(True for _ in hint_uses(record, search))


Draw = Callable[[RunRecord, int, str | None, "Axes | None"], "Axes"]
HasData = Callable[[RunRecord, int], bool]
KINDS: Mapping[str, tuple[Draw, HasData]] = {
    "best": (_best, _has_full_scores),
    "pareto": (_pareto, _has_full_scores),
    "heatmap": (_heatmap, _has_candidate_scores),
    "compare": (_compare, _has_several_programs),
    "scores": (_scores, _has_scores),
    "attempts": (_attempts, _has_attempts),
    "hints": (_hints, _has_hints),
}
"""Kind of plot → how it is drawn, and whether a run has data for it. The default is the first kind with data."""
_NEEDS = {
    "best": "a candidate scored on all validation rows",
    "pareto": "a candidate scored on all validation rows",
    "heatmap": "candidates with scores",
    "compare": "rows of several programs (dn.compare, dn.grid)",
    "scores": "scored rows or attempts",
    "attempts": "a scored attempt (dn.Refine, dn.BestOfN)",
    "hints": "a hint after a first attempt without one",
}
