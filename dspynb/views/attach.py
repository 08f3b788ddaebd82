"""Opening a view of a run: which one, and that it never hurts the run."""

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

_OLD_KERNEL = "on this kernel Stop works for start(); use the kernel's stop button here"


def attach(run: Run, mode: str) -> None:
    """Show the run: ``widget`` live, ``html`` at its end, both with static HTML as what remains; else as text.

    Where there is no notebook, as text: in a terminal a line that is written anew and a table at the end, elsewhere
    plain lines. A view that cannot be opened is logged; the run goes on.
    """
    try:
        _open(run, mode if in_ipython() else "text")
    except Exception:
        _log.exception("the view of run %s could not be opened; the run goes on without it", run.id)


def _open(run: Run, mode: str) -> None:
    if mode not in ("widget", "html"):
        _open_text(run)
    elif run.done:
        Cell(pages(run.record, run.path))
    elif mode == "widget" and (loop := _loop(run)) is not None:
        _open_widget(run, loop)
    else:
        run.watch(_AtTheEnd(run).changed)


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
    """Whether stderr is a terminal; rich is loaded only then."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    from dspynb.views.terminal.terminal import fits

    return fits(sys.stderr)


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

    view = LiveView(run, loop, _note(run))
    run.watch(view.changed)
    try:
        widget = LiveWidget(view.snapshot, view.message)
        view.open(WidgetTransport(widget, Cell(widget), run))
    except BaseException:
        run.unwatch(view.changed)
        raise


def _loop(run: Run) -> asyncio.AbstractEventLoop | None:
    """The run's event loop; before it began, the one it is about to begin in."""
    if run.loop is not None:
        return run.loop
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _note(run: Run) -> str:
    """What to say about Stop where a click waits for the cell: an awaited run on an old kernel."""
    kernel = sys.modules.get("ipykernel")
    old = kernel is not None and tuple(kernel.version_info[:2]) < (7, 4)
    return _OLD_KERNEL if old and not run.is_handle else ""


class _AtTheEnd:
    """Holds a place in the output and fills it when the run ends."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._cell = Cell({"text/plain": f"{run.name}: running"})

    def changed(self, changes: Changes) -> None:
        """Wait for the end."""
        if changes.run and self._run.record.ended is not None:
            self._cell.replace(pages(self._run.record, self._run.path))
