"""Notebook outputs that can be replaced later."""

from __future__ import annotations

import sys

from dspynb.running.record import RunRecord
from dspynb.views.html.static import state_html
from dspynb.views.terminal.text import summary
from dspynb.views.view_model import ViewModel

__all__ = ["Cell", "in_ipython", "pages"]


def in_ipython() -> bool:
    """Whether the code runs in IPython. Does not import it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def pages(source: RunRecord | ViewModel, path: str | None = None) -> dict[str, str]:
    """The static output of a run, by MIME type: HTML, and text that is the same for every execution.

    Args:
        source: the run's record, or the view model of a view that has read it.
        path: the path of the run's file.
    """
    state = source if isinstance(source, ViewModel) else ViewModel(source)
    return {"text/html": state_html(state, path), "text/plain": summary(state)}


class Cell:
    """A notebook output that is displayed at once and can be replaced later, even from another cell.

    Args:
        content: an object with a display of its own, or texts by MIME type.
    """

    def __init__(self, content: object) -> None:
        from IPython.display import display

        self._handle = display(content, raw=isinstance(content, dict), display_id=True)

    def replace(self, data: dict[str, str]) -> None:
        """Replace the output with texts by MIME type."""
        self._handle.update(data, raw=True)
