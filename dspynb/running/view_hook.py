"""The one upward link: a run that is shown loads the views, then and not before."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from dspynb.scope.settings import setting

if TYPE_CHECKING:
    from dspynb.running.reader import RunReader
    from dspynb.running.run import Run
    from dspynb.views.plots.draw import Axes as Axes  # noqa: PLC0414  # passed on: its home is the views

__all__ = ["attach_view", "page_html", "plot", "plots", "show", "static_html"]

_QUIET_KINDS = frozenset({"call"})
_SHORT_KINDS = frozenset({"refine", "best_of_n"})
"""Not told in a log unless that is asked for: a service makes many of them."""
_TESTED = ("CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST")
"""Environment variables that say that nobody is watching."""


def _views() -> Any:
    from dspynb import views

    return views


def _attach(run: Run, mode: str) -> None:
    from dspynb.views.attach import attach

    attach(run, mode)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process; does not import IPython to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def attach_view(run: Run) -> None:
    """Open the live view of a run that a cell or a script awaits."""
    wanted = setting("view")
    if wanted == "off" or run.kind in _QUIET_KINDS:
        return
    if wanted == "auto":
        wanted = _automatic(run.kind)
    if wanted != "off":
        _attach(run, wanted)


def _automatic(kind: str) -> str:
    """What suits the place: the widget in a notebook, nothing under tests, text in a terminal, and in a log for what
    takes long."""
    if in_notebook():
        return "widget"
    if sys.stderr is None or any(os.environ.get(name) for name in _TESTED):
        return "off"
    return "text" if kind not in _SHORT_KINDS or sys.stderr.isatty() else "off"


def show(run: Run) -> None:
    """Display a run's handle: live while it runs, static afterwards."""
    wanted = setting("view")
    _attach(run, "widget" if wanted in ("auto", "off") and in_notebook() else wanted)


def plots() -> Any:
    """The functions that draw."""
    from dspynb.views.plots import draw as plots

    return plots


def plot(run: RunReader, kind: str | None, x: str | None, ax: Axes | None) -> Axes:
    """Draw a run, as it is now."""
    from dspynb.views.plots.figures import plot_run

    return plot_run(run.record, kind, x, ax, run._search)


def static_html(run: RunReader) -> str:
    """The run as self-contained HTML."""
    return str(_views().static_html(run.record, search=run._search, path=run.path))


def page_html(run: RunReader) -> str:
    """The run as a page of its own."""
    return str(_views().page_html(run.record, search=run._search, path=run.path))
