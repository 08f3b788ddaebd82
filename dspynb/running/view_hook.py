"""The only import upwards: a run loads the views when it is displayed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from dspynb.scope.settings import setting

if TYPE_CHECKING:
    from dspynb.running.reader import RunReader
    from dspynb.running.run import Run
    from dspynb.views.plots.draw import Axes as Axes  # noqa: PLC0414  # re-exported

__all__ = ["attach_view", "page_html", "plot", "plots", "show", "static_html"]

_QUIET_KINDS = frozenset({"call"})
_SHORT_KINDS = frozenset({"refine", "best_of_n"})
"""Runs that are not logged by default, since a service makes many of them."""
_UNATTENDED = ("CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST")
"""Environment variables that are set where nobody is watching."""


def _views() -> Any:
    from dspynb import views

    return views


def _attach(run: Run, mode: str) -> None:
    from dspynb.views.attach import attach

    attach(run, mode)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process. Does not import IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def attach_view(run: Run) -> None:
    """Open the live view of a run that a cell or a script awaits."""
    mode = setting("view")
    if mode == "off" or run.kind in _QUIET_KINDS:
        return
    if mode == "auto":
        mode = _automatic_mode(run.kind)
    if mode != "off":
        _attach(run, mode)


def _automatic_mode(kind: str) -> str:
    """The view for this environment: the widget in a notebook, off under tests, text in a terminal. In a log: text,
    but off for short runs."""
    if in_notebook():
        return "widget"
    if sys.stderr is None or any(os.environ.get(name) for name in _UNATTENDED):
        return "off"
    if kind in _SHORT_KINDS and not sys.stderr.isatty():
        return "off"
    return "text"


def show(run: Run) -> None:
    """Display the handle of a run: live while it runs, static afterwards."""
    mode = setting("view")
    if mode in ("auto", "off") and in_notebook():
        mode = "widget"
    _attach(run, mode)


def plots() -> Any:
    """The module of drawing functions."""
    from dspynb.views.plots import draw as plots

    return plots


def plot(run: RunReader, kind: str | None, x: str | None, ax: Axes | None) -> Axes:
    """Draw the current state of a run; see ``RunReader.plot``."""
    from dspynb.views.plots.figures import plot_run

    return plot_run(run.record, kind, x, ax, run._search)


def static_html(run: RunReader) -> str:
    """The run as self-contained HTML, for a notebook cell."""
    return str(_views().static_html(run.record, search=run._search, path=run.path))


def page_html(run: RunReader) -> str:
    """The run as a complete HTML page."""
    return str(_views().page_html(run.record, search=run._search, path=run.path))
