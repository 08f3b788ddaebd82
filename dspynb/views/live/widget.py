"""The anywidget behind the live view. Imported only when a widget is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anywidget
import traitlets

from dspynb.views.live.notebook import Cell, pages
from dspynb.views.view_model import ViewModel

__all__ = ["LiveWidget", "WidgetTransport"]

_HERE = Path(__file__).parent


class LiveWidget(anywidget.AnyWidget):  # type: ignore[misc]  # untyped base
    """``snapshot`` is made when it is sent, so that a page opened later gets the present state, not a stale one."""

    # Text, not paths: for a path anywidget keeps every instance alive as a listener for changes of the file.
    _esm = (_HERE / "live.js").read_text(encoding="utf-8")
    _css = (_HERE / "live.css").read_text(encoding="utf-8")
    snapshot = traitlets.Dict().tag(sync=True, to_json=lambda _, widget: widget.read_snapshot())

    def __init__(
        self, read_snapshot: Callable[[], dict[str, Any]], on_message: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self.read_snapshot = read_snapshot
        super().__init__()
        self.on_msg(lambda _, content, __: on_message(content))

    def __repr__(self) -> str:
        return "a dspynb run (live view)"


class HasPath(Protocol):
    """A run, as far as it is needed here: ``path`` is known once its file is open."""

    path: str | None


class WidgetTransport:
    """Sends to a widget shown in an output, and in the end puts static HTML in its place."""

    def __init__(self, widget: LiveWidget, cell: Cell, run: HasPath) -> None:
        self._widget, self._cell, self._run = widget, cell, run

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self._widget.send(message)

    def snapshot(self) -> None:
        """Send the present state to all views of the widget."""
        self._widget.send_state("snapshot")

    def finish(self, state: ViewModel) -> None:
        """Replace the output and close the widget: a saved notebook must not need it."""
        try:
            self._cell.replace(pages(state, self._run.path))
        finally:
            self._widget.close()
