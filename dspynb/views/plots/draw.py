"""Plots, with matplotlib, which is loaded when one is drawn. Each draws into given axes or a new figure's.

What is drawn comes as plain numbers (``figures.py`` reads them from a run). Colours are Okabe and Ito's, which the
colour-blind can tell apart; lines and texts that are no data have the colour that the style in force gives to text, so
that they show on a dark ground too. No text is read as a formula, and long ones are cut.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspynb.errors import ConfigurationError
from dspynb.views.texts import number, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes  # noqa: PLC0414  # passed on to whoever has a plot()

__all__ = ["Bar", "Curve", "Ends", "Point", "curves", "gains", "heatmap", "histogram", "intervals", "scatter", "steps"]

BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
_MARKS = {"passed": ("*", GREEN, 130), "scored": ("o", BLUE, 45), "failed": ("X", RED, 55)}
_MOST_NAMED = 30
"""Rows of a heat map that are named; of more, only numbers stand at the axis."""

Ends = tuple[float, float | None, float | None]
"""A mean, and the ends of its interval where it has one."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A name, its value, and what is said at the other side."""

    name: str
    value: float
    note: str


@dataclass(frozen=True, slots=True)
class Point:
    """``kind``: candidate, start or best."""

    x: float
    y: float
    kind: str = "candidate"


@dataclass(frozen=True, slots=True)
class Curve:
    """The attempts of a search by their number; NaN where one has no score, ``state`` as in tables."""

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


def _ink() -> str:
    """The colour of text in the style in force."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


def _plain(text: str, most: int = 40) -> str:
    """Text on one line, cut, in which matplotlib sees no formula."""
    return one_line(text, most).replace("$", r"\$")


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins="auto"))


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:g}"))


def _above(axes: Axes, columns: int) -> None:
    """The legend above the axes, where it hides nothing."""
    settings: dict[str, Any] = {"columnspacing": 1.2, "handletextpad": 0.5, "borderaxespad": 0.2}
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, **settings)


# ── scores of rows ────────────────────────────────────────────────────────────────────────────────────────────────────
def histogram(
    groups: Mapping[str, tuple[Sequence[float], Ends]], label: str, unit: str, ax: Axes | None = None
) -> Axes:
    """How many rows (``unit``) have which score, with the mean and its interval; several groups in their colours."""
    import numpy as np

    axes = _axes(ax, 3.2)
    shown = list(groups.items())[: len(COLOURS)]
    edges, few = _edges([score for scores, _ in groups.values() for score in scores], 0.1 if len(shown) == 1 else 0.35)
    for place, (name, (scores, mean)) in enumerate(shown):
        counts, colour = np.histogram(scores, edges)[0], COLOURS[place]
        told = " ".join(filter(None, [f"{_plain(name, 24)}:" if name else "", _told(mean)]))
        if len(shown) == 1:
            axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour, alpha=0.75, edgecolor=colour)
            _mark_mean(axes, mean, told)
        elif few:  # side by side
            width = np.diff(edges) / len(shown)
            axes.bar(edges[:-1] + place * width, counts, width, align="edge", color=colour, alpha=0.85, label=told)
        else:
            axes.stairs(counts, edges, color=colour, linewidth=1.8, label=told)
            axes.axvline(mean[0], color=colour, linewidth=1.2, linestyle="--")
    axes.set_xlabel(_plain(label))
    axes.set_ylabel(unit if len(shown) == len(groups) else f"{unit} ({len(shown)} of {len(groups)} shown)")
    _whole_numbers(axes.yaxis)
    _thousands(axes.yaxis)
    _above(axes, 2 if len(shown) < 3 else 1)
    return axes


def _told(mean: Ends) -> str:
    value, low, high = mean
    interval = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    return f"mean {number(value)}{interval}"


def _mark_mean(axes: Axes, mean: Ends, told: str) -> None:
    value, low, high = mean
    axes.axvline(value, color=_ink(), linewidth=1.5, label=told)
    if low is not None and high is not None:
        axes.axvspan(low, high, color=_ink(), alpha=0.12)


def _edges(scores: Sequence[float], widest: float) -> tuple[Any, bool]:
    """Edges of bars, and whether there are few: a bar for each score where these are evenly apart (0 and 1, say), at
    most ``widest`` of all wide; else 20 of one width."""
    import numpy as np

    low, high = min(0.0, *scores), max(1.0, *scores)
    found = np.unique(np.round(np.array(scores, dtype=float), 9))
    gap = float(np.diff(found).min()) if len(found) > 1 else (high - low) / 10
    places = (found - low) / gap
    if (high - low) / gap > 10.5 or np.abs(places - np.round(places)).max() > 1e-6:
        return np.linspace(low, high, 21), False
    half = min(0.8 * gap, widest * (high - low)) / 2
    return np.sort(np.concatenate([found - half, found + half])), True


def intervals(means: Mapping[str, Ends], label: str = "score", ax: Axes | None = None) -> Axes:
    """Means with their intervals, a line each, the first on top."""
    axes = _axes(ax, min(12, 1.2 + 0.4 * len(means)))
    places = list(range(len(means)))[::-1]
    for place, (mean, low, high) in zip(places, means.values(), strict=True):
        ends = [[mean - (mean if low is None else low)], [(mean if high is None else high) - mean]]
        axes.errorbar([mean], [place], xerr=ends, fmt="o", color=BLUE, capsize=4)
    first = next(iter(means.values()))[0]
    if len(means) > 1:
        axes.axvline(first, color=_ink(), linewidth=0.8, linestyle=":", alpha=0.6, zorder=0)
    _named_places(axes, places, list(means))
    axes.set_xlabel(f"{_plain(label)} (mean, 95 % interval)")
    axes.set_ylabel("program")
    axes.margins(y=0.3 / max(1, len(means)))
    return axes


def _named_places(axes: Axes, places: Sequence[int], names: Sequence[str]) -> None:
    """Names at the places of the vertical axis; of more than fit, every so many."""
    step = -(-len(names) // _MOST_NAMED)
    axes.set_yticks(places[::step], [_plain(name, 32) for name in names[::step]])


# ── attempts and hints ────────────────────────────────────────────────────────────────────────────────────────────────
def steps(curve: Curve, threshold: float | None = None, ax: Axes | None = None) -> Axes:
    """One search: the score of each attempt and the best so far. A failed one stands at the bottom."""
    import numpy as np

    axes = _axes(ax, 3.2)
    scores, states = np.array(curve.scores, dtype=float), list(curve.states)
    places = np.arange(1, len(scores) + 1)
    bottom = min(0.0, np.nanmin(scores))
    best = np.fmax.accumulate(scores)
    axes.step(places, best, where="post", color=_ink(), linewidth=1.2, alpha=0.7, label="best so far")
    for state, (mark, colour, size) in _MARKS.items():
        at = [i for i, s in enumerate(states) if s == state]
        heights = [bottom if np.isnan(scores[i]) else scores[i] for i in at]
        if at:
            axes.scatter(places[at], heights, marker=mark, color=colour, s=size, label=state, zorder=3, clip_on=False)
    if threshold is not None:
        axes.axhline(threshold, color=_ink(), linewidth=0.8, linestyle=":", label="threshold")
    axes.set_xlabel("attempt")
    axes.set_ylabel("score")
    _whole_numbers(axes.xaxis)
    axes.set_xlim(0.7, max(2, len(scores)) + 0.3)
    axes.set_ylim(*_scale(scores))
    _above(axes, 5)
    return axes


def _scale(scores: Any) -> tuple[float, float]:
    """Ends of an axis of scores: from 0 to 1, further where there are others."""
    import numpy as np

    low, high = min(0.0, np.nanmin(scores)), max(1.0, np.nanmax(scores))
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def curves(
    means: Sequence[Ends],
    passed: Sequence[float],
    searches: int,
    thin: Sequence[Sequence[float]],
    ax: Axes | None = None,
) -> Axes:
    """Many searches: the mean of the best so far by attempt with its interval, and how many had passed."""
    axes = _axes(ax, 3.2)
    places = list(range(1, len(means) + 1))
    for line in thin:
        axes.plot(places, line, color=BLUE, linewidth=0.7, alpha=0.15)
    low = [mean if low is None else low for mean, low, _ in means]
    high = [mean if high is None else high for mean, _, high in means]
    axes.fill_between(places, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(places, [mean for mean, _, _ in means], "o-", color=BLUE, label="best so far, mean with 95 % interval")
    if any(passed):
        axes.plot(places, list(passed), "*--", color=GREEN, markersize=9, label="share that passed")
    axes.set_xlabel("attempt")
    axes.set_ylabel(f"score ({searches:,} searches)")
    _whole_numbers(axes.xaxis)
    axes.set_xlim(0.7, max(2, len(means)) + 0.3)
    axes.set_ylim(*_scale([*low, *high, *passed, *(score for line in thin for score in line)]))
    _above(axes, 2)
    return axes


def gains(bars: Sequence[Bar], told: str, ax: Axes | None = None) -> Axes:
    """What each hint added to scores, the first on top."""
    axes = _axes(ax, 1.2 + 0.42 * len(bars))
    places = list(range(len(bars)))[::-1]
    colours = [RED if bar.value < 0 else GREEN for bar in bars]
    axes.barh(places, [bar.value for bar in bars], color=colours, alpha=0.85, height=0.65)
    axes.axvline(0, color=_ink(), linewidth=0.8)
    axes.set_yticks(places, [_two_lines(bar.name) for bar in bars])
    notes = axes.secondary_yaxis("right")
    notes.set_yticks(places, [_plain(bar.note, 24) for bar in bars], fontsize="small")
    notes.tick_params(length=0)
    axes.set_xlabel("gain in score, mean")
    axes.set_ylabel(told)
    axes.margins(y=0.3 / max(1, len(bars)))
    return axes


def _two_lines(text: str, width: int = 30) -> str:
    lines = textwrap.wrap(one_line(text, 2 * width - 8), width)
    return "\n".join(_plain(line, width) for line in lines)


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def scatter(
    points: Sequence[Point], line: Sequence[tuple[float, float]], labels: tuple[str, str, str], ax: Axes | None = None
) -> Axes:
    """Candidates as points, the start and the best marked, and a line of steps through what was best.
    ``labels``: of the line and of both axes."""
    axes = _axes(ax, 3.6)
    alpha = 0.8 if len(points) < 100 else 0.35
    axes.step(
        [at for at, _ in line], [at for _, at in line], where="post", color=_ink(), linewidth=1.4, label=labels[0]
    )
    for kind, mark, colour, size in (
        ("candidate", "o", BLUE, 28),
        ("start", "s", ORANGE, 60),
        ("best", "*", GREEN, 150),
    ):
        some = [point for point in points if point.kind == kind]
        if some:
            axes.scatter(
                [p.x for p in some], [p.y for p in some], marker=mark, color=colour, s=size, label=kind, zorder=3,
                alpha=alpha if kind == "candidate" else 1,
            )  # fmt: skip
    axes.set_xlabel(_plain(labels[1]))
    axes.set_ylabel(_plain(labels[2]))
    if all(point.x == int(point.x) for point in points):
        _whole_numbers(axes.xaxis)
    _thousands(axes.xaxis)
    axes.margins(0.06)
    _above(axes, 4)
    return axes


def heatmap(
    cells: Sequence[Sequence[float]], names: Sequence[str], best: int | None, label: str, ax: Axes | None = None
) -> Axes:
    """Candidates × rows, the scores as colours; cells without a score are grey."""
    import matplotlib as mpl
    import numpy as np

    values = np.ma.masked_invalid(np.array(cells, dtype=float))
    axes = _axes(ax, min(6.5, 1.8 + 0.25 * len(names)))
    axes.set_facecolor("#B0B0B0")
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    colours = mpl.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
    image = axes.imshow(values, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label=_plain(label))
    if len(names) <= _MOST_NAMED:
        axes.set_yticks(range(len(names)), [_plain(f"★ {n}" if i == best else n, 24) for i, n in enumerate(names)])
    else:
        _whole_numbers(axes.yaxis)
        if best is not None:
            axes.annotate("★", (1.0, best), xycoords=("axes fraction", "data"), ha="left", va="center", color=GREEN)
    _whole_numbers(axes.xaxis)
    axes.set_xlabel("validation row" + (" (grey: not run)" if np.ma.is_masked(values) else ""))
    axes.set_ylabel("candidate")
    return axes
