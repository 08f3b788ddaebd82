"""Outputs of a notebook that can be replaced later."""

from __future__ import annotations

import sys
from typing import Any

from dspynb.running.record import RunRecord
from dspynb.views.html.static import state_html
from dspynb.views.terminal.text import summary
from dspynb.views.view_model import ViewModel

__all__ = ["Cell", "in_ipython", "pages"]


def in_ipython() -> bool:
    """Whether there is an IPython that displays; does not import it to find out."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def pages(seen: RunRecord | ViewModel, path: str | None = None) -> dict[str, str]:
    """The run as a notebook keeps it: static HTML, and text that is the same at every execution."""
    state = seen if isinstance(seen, ViewModel) else ViewModel(seen)
    return {"text/html": state_html(state, path), "text/plain": summary(state)}


class Cell:
    """One output, shown at once, replaced when the run has ended, in whatever cell it was shown."""

    def __init__(self, first: Any) -> None:
        from IPython.display import display

        self._handle = display(first, raw=isinstance(first, dict), display_id=True)

    def replace(self, data: dict[str, str]) -> None:
        """Show this instead, given as text per mime type."""
        self._handle.update(data, raw=True)
