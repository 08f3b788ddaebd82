"""Plots, with matplotlib, which is loaded when one is drawn. Each draws into given axes or a new figure's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dspynb.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["histogram", "intervals"]

Ends = tuple[float, float | None, float | None]
"""A mean, and the ends of its interval where it has one."""


def _axes(ax: Axes | None, height: float) -> Axes:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ConfigurationError('plots need matplotlib: pip install "dspynb[plots]"') from error
    _, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
    return axes


def histogram(scores: Sequence[float], mean: Ends, name: str, ax: Axes | None = None) -> Axes:
    """How many rows have which score, with the mean and its interval."""
    axes = _axes(ax, 3.2)
    axes.hist(scores, bins=min(20, max(5, len(set(scores)))), color="tab:blue", alpha=0.75)
    axes.axvline(mean[0], color="black", linewidth=1.5)
    if mean[1] is not None and mean[2] is not None:
        axes.axvspan(mean[1], mean[2], color="black", alpha=0.12)
    axes.set_xlabel(_plain(name))
    axes.set_ylabel("rows")
    return axes


def intervals(means: Mapping[str, Ends], ax: Axes | None = None) -> Axes:
    """Means with their intervals, a line each, the first on top."""
    axes = _axes(ax, 1.2 + 0.4 * len(means))
    places = list(range(len(means)))[::-1]
    for place, (mean, low, high) in zip(places, means.values(), strict=True):
        ends = [[mean - (mean if low is None else low)], [(mean if high is None else high) - mean]]
        axes.errorbar([mean], [place], xerr=ends, fmt="o", color="tab:blue", capsize=4)
    axes.set_yticks(places, [_plain(name) for name in means])
    axes.set_xlabel("score")
    axes.margins(y=0.3 / max(1, len(means)))
    return axes


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
