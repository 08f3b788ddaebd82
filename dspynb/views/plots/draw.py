"""Draw plots with matplotlib. Each function draws into the axes it is passed, or into those of a new figure.

The functions take plain numbers; ``figures.py`` reads these from a run. matplotlib is imported when the first plot is
drawn. The colours are Okabe and Ito's palette, which colour-blind people can tell apart. Lines and texts that are not
data use the text colour of the current matplotlib style, so that they are visible on a dark background too. No text is
read as a formula, and long texts are cut.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError
from dspynb.views.texts import number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes  # noqa: PLC0414  # re-exported for classes with a plot()
    from matplotlib.axis import Axis

__all__ = [
    "Bar",
    "Curve",
    "MeanInterval",
    "Point",
    "curves",
    "gains",
    "heatmap",
    "histogram",
    "intervals",
    "scatter",
    "steps",
]

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
SKY = "#56B4E9"
PINK = "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
_ATTEMPT_MARKERS = {"passed": ("*", GREEN, 130), "scored": ("o", BLUE, 45), "failed": ("X", RED, 55)}
"""Marker, colour and size for each state of an attempt."""
_CANDIDATE_MARKERS = {"candidate": ("o", BLUE, 28), "start": ("s", ORANGE, 60), "best": ("*", GREEN, 150)}
"""Marker, colour and size for each kind of `Point`."""
_MOST_NAMED = 30
"""Axis positions that are labelled with names. A heat map with more rows than this has numbers at its axis."""

MeanInterval = tuple[float, float | None, float | None]
"""A mean, and the low and high end of its interval; None where one value has no interval."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar: its name on the left, its value, and a note on the right."""

    name: str
    value: float
    note: str


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate in a scatter plot. ``kind``: ``candidate``, ``start`` (the initial program) or ``best``."""

    x: float
    y: float
    kind: str = "candidate"


@dataclass(frozen=True, slots=True)
class Curve:
    """The attempts of one search in order. A score is NaN for an attempt without one; states are those of tables."""

    scores: Sequence[float]
    states: Sequence[str]


def _axes(ax: Axes | None, height: float) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ConfigurationError('plots need matplotlib: pip install "dspynb[plots]"') from error
    _, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    return axes


def _text_colour() -> str:
    """The text colour of the current matplotlib style."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


def _literal(text: str, most: int = 40) -> str:
    """The text on one line of at most ``most`` characters, escaped so that matplotlib reads no formula in it."""
    return one_line(text, most).replace("$", r"\$")


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins="auto"))


def _thousands(axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter

    def label(value: float, _: object) -> str:
        return f"{value:,.0f}" if value == int(value) else f"{value:g}"

    axis.set_major_formatter(FuncFormatter(label))


def _legend_above(axes: Axes, columns: int) -> None:
    """Put the legend above the axes, where it covers no data."""
    settings: dict[str, Any] = {"columnspacing": 1.2, "handletextpad": 0.5, "borderaxespad": 0.2}
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, **settings)


# ── scores of rows ────────────────────────────────────────────────────────────────────────────────────────────────────
def histogram(
    groups: Mapping[str, tuple[Sequence[float], MeanInterval]], label: str, unit: str, ax: Axes | None = None
) -> Axes:
    """Draw how many rows have which score, and the mean with its interval.

    Args:
        groups: for each group, its scores and their mean; one colour a group, and the first ``len(COLOURS)`` are drawn.
        label: the label of the x axis.
        unit: what is counted; the label of the y axis.
        ax: the axes to draw into; default: those of a new figure.
    """
    axes = _axes(ax, 3.2)
    drawn = dict(list(groups.items())[: len(COLOURS)])
    all_scores: list[float] = []
    for scores, _ in groups.values():
        all_scores.extend(scores)
    if len(drawn) == 1:
        edges, _ = _edges(all_scores, 0.1)
        _draw_single_histogram(axes, edges, *next(iter(drawn.items())))
    else:
        edges, few_edges = _edges(all_scores, 0.35)
        _draw_histograms(axes, edges, few_edges, drawn)
    axes.set_xlabel(_literal(label))
    if len(drawn) < len(groups):
        unit = f"{unit} ({len(drawn)} of {len(groups)} shown)"
    axes.set_ylabel(unit)
    _whole_numbers(axes.yaxis)
    _thousands(axes.yaxis)
    _legend_above(axes, 2 if len(drawn) < 3 else 1)
    return axes


def _draw_single_histogram(axes: Axes, edges: Any, name: str, group: tuple[Sequence[float], MeanInterval]) -> None:
    import numpy as np

    scores, mean = group
    counts, _ = np.histogram(scores, edges)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=COLOURS[0], alpha=0.75, edgecolor=COLOURS[0])
    value, low, high = mean
    axes.axvline(value, color=_text_colour(), linewidth=1.5, label=_legend_text(name, mean))
    if low is not None and high is not None:
        axes.axvspan(low, high, color=_text_colour(), alpha=0.12)


def _draw_histograms(
    axes: Axes, edges: Any, few_edges: bool, groups: Mapping[str, tuple[Sequence[float], MeanInterval]]
) -> None:
    """Bars side by side where there are few edges, else outlines."""
    import numpy as np

    width = np.diff(edges) / len(groups)
    for i, (name, (scores, mean)) in enumerate(groups.items()):
        counts, _ = np.histogram(scores, edges)
        colour = COLOURS[i]
        label = _legend_text(name, mean)
        if few_edges:
            axes.bar(edges[:-1] + i * width, counts, width, align="edge", color=colour, alpha=0.85, label=label)
        else:
            axes.stairs(counts, edges, color=colour, linewidth=1.8, label=label)
            axes.axvline(mean[0], color=colour, linewidth=1.2, linestyle="--")


def _legend_text(name: str, mean: MeanInterval) -> str:
    value, low, high = mean
    text = f"mean {number(value)}"
    if low is not None and high is not None:
        text += f" [{number(low)}, {number(high)}]"
    return f"{_literal(name, 24)}: {text}" if name else text


def _edges(scores: Sequence[float], widest: float) -> tuple[Any, bool]:
    """The edges of a histogram's bars, and whether these are few.

    Where the scores are a few evenly spaced values (0 and 1, for example), each value has a bar of its own, which is at
    most the fraction ``widest`` of the axis wide. Otherwise there are 20 bars of equal width.
    """
    import numpy as np

    low = min(0.0, *scores)
    high = max(1.0, *scores)
    distinct = np.unique(np.round(np.array(scores, dtype=float), 9))
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else (high - low) / 10
    positions = (distinct - low) / gap
    evenly_spaced = np.abs(positions - np.round(positions)).max() <= 1e-6
    if (high - low) / gap > 10.5 or not evenly_spaced:
        return np.linspace(low, high, 21), False
    half = min(0.8 * gap, widest * (high - low)) / 2
    return np.sort(np.concatenate([distinct - half, distinct + half])), True


def intervals(means: Mapping[str, MeanInterval], label: str = "score", ax: Axes | None = None) -> Axes:
    """Draw means with their intervals, one line each, the first at the top."""
    axes = _axes(ax, min(12, 1.2 + 0.4 * len(means)))
    positions = _from_the_top(len(means))
    for position, interval in zip(positions, means.values(), strict=True):
        mean, _, _ = interval
        below = mean - _low_end(interval)
        above = _high_end(interval) - mean
        axes.errorbar([mean], [position], xerr=[[below], [above]], fmt="o", color=BLUE, capsize=4)
    if len(means) > 1:
        first, _, _ = next(iter(means.values()))
        axes.axvline(first, color=_text_colour(), linewidth=0.8, linestyle=":", alpha=0.6, zorder=0)
    _label_positions(axes, positions, list(means))
    axes.set_xlabel(f"{_literal(label)} (mean, 95 % interval)")
    axes.set_ylabel("program")
    axes.margins(y=0.3 / max(1, len(means)))
    return axes


def _low_end(interval: MeanInterval) -> float:
    """The low end of the interval; the mean if it has none."""
    mean, low, _ = interval
    return mean if low is None else low


def _high_end(interval: MeanInterval) -> float:
    """The high end of the interval; the mean if it has none."""
    mean, _, high = interval
    return mean if high is None else high


def _from_the_top(count: int) -> list[int]:
    """Positions on the y axis, the highest first."""
    return list(reversed(range(count)))


def _label_positions(axes: Axes, positions: Sequence[int], names: Sequence[str]) -> None:
    """Write names at the y axis; only every n-th, where there is no room for all."""
    step = -(-len(names) // _MOST_NAMED)
    axes.set_yticks(positions[::step], [_literal(name, 32) for name in names[::step]])


# ── attempts and hints ────────────────────────────────────────────────────────────────────────────────────────────────
def steps(curve: Curve, threshold: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw one search: the score of each attempt, and the best score so far. A failed attempt is at the bottom."""
    import numpy as np

    axes = _axes(ax, 3.2)
    scores = np.array(curve.scores, dtype=float)
    attempts = np.arange(1, len(scores) + 1)
    best = np.fmax.accumulate(scores)
    axes.step(attempts, best, where="post", color=_text_colour(), linewidth=1.2, alpha=0.7, label="best so far")
    heights = np.where(np.isnan(scores), min(0.0, np.nanmin(scores)), scores)
    states = np.array(curve.states)
    for state, (marker, colour, size) in _ATTEMPT_MARKERS.items():
        x = attempts[states == state]
        y = heights[states == state]
        if len(x):
            axes.scatter(x, y, marker=marker, color=colour, s=size, label=state, zorder=3, clip_on=False)
    if threshold is not None:
        axes.axhline(threshold, color=_text_colour(), linewidth=0.8, linestyle=":", label="threshold")
    axes.set_xlabel("attempt")
    axes.set_ylabel("score")
    _whole_numbers(axes.xaxis)
    axes.set_xlim(0.7, max(2, len(scores)) + 0.3)
    axes.set_ylim(*_score_limits(scores))
    _legend_above(axes, 5)
    return axes


def _score_limits(scores: Any) -> tuple[float, float]:
    """The ends of an axis of scores: from 0 to 1, extended to include all scores, with a margin."""
    import numpy as np

    low = min(0.0, np.nanmin(scores))
    high = max(1.0, np.nanmax(scores))
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def curves(
    means: Sequence[MeanInterval],
    passed: Sequence[float],
    searches: int,
    lines: Sequence[Sequence[float]],
    ax: Axes | None = None,
) -> Axes:
    """Draw many searches by the number of attempts.

    Args:
        means: after each attempt, the mean over searches of the best score so far, with its interval.
        passed: after each attempt, the share of searches that had an attempt that passed.
        searches: how many searches there are.
        lines: the best score so far of single searches, drawn as thin lines.
        ax: the axes to draw into; default: those of a new figure.
    """
    axes = _axes(ax, 3.2)
    attempts = list(range(1, len(means) + 1))
    scores = [*passed]
    for line in lines:
        axes.plot(attempts, line, color=BLUE, linewidth=0.7, alpha=0.15)
        scores.extend(line)
    lows = [_low_end(interval) for interval in means]
    highs = [_high_end(interval) for interval in means]
    axes.fill_between(attempts, lows, highs, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(attempts, [mean for mean, _, _ in means], "o-", color=BLUE, label="best so far, mean with 95 % interval")
    if any(passed):
        axes.plot(attempts, list(passed), "*--", color=GREEN, markersize=9, label="share that passed")
    axes.set_xlabel("attempt")
    axes.set_ylabel(f"score ({searches:,} searches)")
    _whole_numbers(axes.xaxis)
    axes.set_xlim(0.7, max(2, len(means)) + 0.3)
    axes.set_ylim(*_score_limits([*lows, *highs, *scores]))
    _legend_above(axes, 2)
    return axes


def gains(bars: Sequence[Bar], label: str, ax: Axes | None = None) -> Axes:
    """Draw how much each hint added to scores, the first at the top. ``label``: the label of the y axis."""
    axes = _axes(ax, 1.2 + 0.42 * len(bars))
    positions = _from_the_top(len(bars))
    colours = [RED if bar.value < 0 else GREEN for bar in bars]
    axes.barh(positions, [bar.value for bar in bars], color=colours, alpha=0.85, height=0.65)
    axes.axvline(0, color=_text_colour(), linewidth=0.8)
    axes.set_yticks(positions, [_two_lines(bar.name) for bar in bars])
    notes = axes.secondary_yaxis("right")
    notes.set_yticks(positions, [_literal(bar.note, 24) for bar in bars], fontsize="small")
    notes.tick_params(length=0)
    axes.set_xlabel("gain in score, mean")
    axes.set_ylabel(label)
    axes.margins(y=0.3 / max(1, len(bars)))
    return axes


def _two_lines(text: str, width: int = 30) -> str:
    lines = textwrap.wrap(one_line(text, 2 * width - 8), width)
    return "\n".join(_literal(line, width) for line in lines)


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def scatter(
    points: Sequence[Point], line: Sequence[tuple[float, float]], labels: tuple[str, str, str], ax: Axes | None = None
) -> Axes:
    """Draw candidates as points, and a step line through the best ones.

    Args:
        points: the candidates; those of the kinds ``start`` and ``best`` have markers of their own.
        line: the corners of the step line, from left to right.
        labels: the label of the line, of the x axis and of the y axis.
        ax: the axes to draw into; default: those of a new figure.
    """
    axes = _axes(ax, 3.6)
    line_label, x_label, y_label = labels
    line_x = [x for x, _ in line]
    line_y = [y for _, y in line]
    axes.step(line_x, line_y, where="post", color=_text_colour(), linewidth=1.4, label=line_label)
    for kind, (marker, colour, size) in _CANDIDATE_MARKERS.items():
        x = [point.x for point in points if point.kind == kind]
        y = [point.y for point in points if point.kind == kind]
        alpha = 1.0
        if kind == "candidate":
            alpha = 0.8 if len(points) < 100 else 0.35
        if x:
            axes.scatter(x, y, marker=marker, color=colour, s=size, label=kind, zorder=3, alpha=alpha)
    axes.set_xlabel(_literal(x_label))
    axes.set_ylabel(_literal(y_label))
    if all(point.x == int(point.x) for point in points):
        _whole_numbers(axes.xaxis)
    _thousands(axes.xaxis)
    axes.margins(0.06)
    _legend_above(axes, 4)
    return axes


def heatmap(
    cells: Sequence[Sequence[float]], names: Sequence[str], best: int | None, label: str, ax: Axes | None = None
) -> Axes:
    """Draw scores as colours, candidates × rows. Cells without a score are grey.

    Args:
        cells: the scores of each candidate by row; NaN where a row was not run.
        names: the names of the candidates.
        best: the position of the best candidate, which is marked with a star.
        label: the label of the colour bar.
        ax: the axes to draw into; default: those of a new figure.
    """
    import matplotlib as mpl
    import numpy as np

    values = np.ma.masked_invalid(np.array(cells, dtype=float))
    axes = _axes(ax, min(6.5, 1.8 + 0.25 * len(names)))
    axes.set_facecolor("#B0B0B0")
    low = min(0.0, float(values.min()))
    high = max(1.0, float(values.max()))
    colours = mpl.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
    image = axes.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label=_literal(label))
    if len(names) <= _MOST_NAMED:
        labels = [_literal(name, 24) for name in names]
        if best is not None:
            labels[best] = _literal(f"★ {names[best]}", 24)
        axes.set_yticks(range(len(names)), labels)
    else:
        _whole_numbers(axes.yaxis)
        if best is not None:
            axes.annotate("★", (1.0, best), xycoords=("axes fraction", "data"), ha="left", va="center", color=GREEN)
    _whole_numbers(axes.xaxis)
    x_label = "validation row"
    if np.ma.is_masked(values):
        x_label += " (grey: not run)"
    axes.set_xlabel(x_label)
    axes.set_ylabel("candidate")
    return axes
