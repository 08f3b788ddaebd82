"""Open the view of a run that suits the environment. A view that fails never stops the run."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from dspynb.running.record_changes import Changes
from dspynb.views.live.notebook import Cell, in_ipython, pages
from dspynb.views.terminal.text import TextView, summary, write_line

if TYPE_CHECKING:
    from dspynb.running.run import Run

__all__ = ["attach"]

_log = logging.getLogger("dspynb")

_OLD_KERNEL = "with ipykernel before 7.4, Stop works only for start(); interrupt the kernel instead"


def attach(run: Run, mode: str) -> None:
    """Show a run. A view that cannot be opened is logged, and the run continues without it.

    Args:
        run: the run to show.
        mode: ``widget``: a live widget, which static HTML replaces at the end; ``html``: static HTML at the end; any
            other value: text. Outside IPython the view is always text: in a terminal a status line and a table at the
            end, elsewhere plain lines.
    """
    try:
        if not in_ipython():
            mode = "text"
        _open(run, mode)
    except Exception:
        _log.exception("the view of run %s could not be opened; the run continues without it", run.id)


def _open(run: Run, mode: str) -> None:
    if mode not in ("widget", "html"):
        _open_text(run)
        return
    if run.done:
        Cell(pages(run.record, run.path))
        return
    loop = _loop(run)
    if mode == "widget" and loop is not None:
        _open_widget(run, loop)
    else:
        run.watch(_StaticView(run).changed)


def _open_text(run: Run) -> None:
    if _is_terminal():
        _open_terminal(run)
    elif run.done:
        write_line(summary(run.record))
    else:
        view = TextView(run)
        run.watch(view.changed)
        view.open()


def _is_terminal() -> bool:
    """Whether stderr is a terminal with lines that can be overwritten. rich is imported only for a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    from dspynb.views.terminal.terminal import can_redraw

    return can_redraw(sys.stderr)


def _open_terminal(run: Run) -> None:
    from dspynb.views.terminal.terminal import TerminalView, show_ended

    if run.done:
        show_ended(run)
        return
    view = TerminalView(run, _loop(run))
    run.watch(view.changed)
    view.open()


def _open_widget(run: Run, loop: asyncio.AbstractEventLoop) -> None:
    from dspynb.views.live.live_view import LiveView
    from dspynb.views.live.widget import LiveWidget, WidgetTransport

    view = LiveView(run, loop, _kernel_note(run))
    run.watch(view.changed)
    try:
        widget = LiveWidget(view.snapshot, view.message)
        view.open(WidgetTransport(widget, Cell(widget), run))
    except BaseException:
        run.unwatch(view.changed)
        raise


def _loop(run: Run) -> asyncio.AbstractEventLoop | None:
    """The run's event loop; for a run that has not begun, the running loop, in which it is about to begin."""
    if run.loop is not None:
        return run.loop
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _kernel_note(run: Run) -> str:
    """A note for awaited runs on an ipykernel before 7.4, which handles a click on Stop after the cell has ended."""
    kernel = sys.modules.get("ipykernel")
    is_old = kernel is not None and tuple(kernel.version_info[:2]) < (7, 4)
    return _OLD_KERNEL if is_old and not run.is_handle else ""


class _StaticView:
    """A placeholder in the output, which static HTML replaces when the run ends."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._cell = Cell({"text/plain": f"{run.name}: running"})

    def changed(self, changes: Changes) -> None:
        """Replace the placeholder if the run has ended."""
        if changes.run and self._run.record.ended is not None:
            self._cell.replace(pages(self._run.record, self._run.path))
