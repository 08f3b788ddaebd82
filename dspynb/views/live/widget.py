"""The widget of the live view. This module imports anywidget, so it is imported only when a widget is shown."""

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
    """Sends a snapshot to each page that opens it, then the messages of a `LiveView`.

    ``snapshot`` is computed when it is sent, so that a page that is opened later gets the present state.
    """

    # Texts, not paths: for a path, anywidget watches the file, and its watcher keeps every instance alive.
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
    """The part of a run that the transport uses. ``path`` is None until the run's file is open."""

    path: str | None


class WidgetTransport:
    """Sends messages to a widget in a notebook output, and replaces the widget with static HTML at the end."""

    def __init__(self, widget: LiveWidget, cell: Cell, run: HasPath) -> None:
        self._widget = widget
        self._cell = cell
        self._run = run

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to all views of the widget."""
        self._widget.send(message)

    def snapshot(self) -> None:
        """Send the present state to all views of the widget."""
        self._widget.send_state("snapshot")

    def finish(self, state: ViewModel) -> None:
        """Replace the output with static HTML, since a saved notebook has no widget, and close the widget."""
        try:
            self._cell.replace(pages(state, self._run.path))
        finally:
            self._widget.close()
