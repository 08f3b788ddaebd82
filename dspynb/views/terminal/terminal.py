"""Show runs in a terminal: a status line while they work, and a short table when one has ended.

The process has a single status line. It shows the first of the runs that are active, and how many others there are. It
is redrawn when a run's record changes and by a timer on the run's event loop, never by a thread of its own: a prompt of
a debugger stops the event loop, so nothing is drawn over it. Whatever the program prints meanwhile is written unchanged
above the status line. Only carriage return and erase-to-end-of-line are used, and the cursor stays visible, so the
terminal stays usable even if the process is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from dspynb.processes import after_fork_in_child
from dspynb.running.record_changes import Changes
from dspynb.views.html.static import GLYPHS
from dspynb.views.terminal.progress import Fact, Progress, clock
from dspynb.views.terminal.summaries import STYLES, closing_parts
from dspynb.views.texts import one_line
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from dspynb.running.run import Run

__all__ = ["TerminalView", "can_redraw", "show_ended"]

INTERVAL = 0.1
"""Seconds between two drawings, at least."""
_CLOCK_INTERVAL = 0.5
"""Seconds after which the line is drawn even without an event, to update its clock."""
_PAUSE_FACTOR = 50
"""A drawing that took t seconds is followed by a pause of 50 t, so that drawing costs at most 2 % of the time."""
_MAX_PAUSE = 1.0
"""The longest pause, in seconds: a drawing is also slow when a garbage collection or another process comes between."""
_BAR_CELLS = 12
_RIGHT_MARGIN = 3
"""Cells that stay free at the end of the line, for the ^C that a terminal writes there."""


def can_redraw(stream: TextIO) -> bool:
    """Whether this terminal can overwrite a line. It cannot if TERM is unset or ``dumb``."""
    return not _console(stream).is_dumb_terminal


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False, force_jupyter=False)


class TerminalView:
    """Shows one run in the status line. ``run.watch(view.changed)`` connects it.

    Args:
        run: the run to show.
        loop: the event loop on which the clock is updated; None: it is updated by events only.
    """

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop | None) -> None:
        self._run = run
        self._loop = loop
        self.progress = Progress(ViewModel(run.record))
        self._note = self.progress.state.note
        self._open = False

    def open(self) -> None:
        """Begin to show the run."""
        self._open = True
        _status_line.add(self)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._tick)

    def changed(self, changes: Changes) -> None:
        """Take note of what an event changed; from any thread."""
        self._note(changes)
        if not self._open:
            return
        try:
            if changes.run and self._run.record.ended is not None:
                self._open = False
                _status_line.close(self, self._run)
            else:
                _status_line.draw()
        except BaseException:
            self._open = False
            _status_line.remove(self)
            raise

    def _tick(self) -> None:
        if self._open and self._loop is not None:
            _status_line.draw()
            self._loop.call_later(_CLOCK_INTERVAL, self._tick)

    def line(self, width: int, other_runs: int) -> Text | None:
        """The text of the status line, at most ``width`` cells wide.

        None while another thread holds the record's lock. That thread may be waiting for the status line, so waiting
        for it here could be a deadlock; and it will draw the line itself.
        """
        lock = self._run.record.lock
        if not lock.acquire(blocking=False):
            return None
        try:
            self.progress.update()
            return self._text(width, other_runs)
        finally:
            lock.release()

    def _text(self, width: int, other_runs: int) -> Text:
        from rich.cells import cell_len
        from rich.text import Text

        state = self._state()
        head = GLYPHS["running"]
        if state != "running":
            head = f"{head} {state}"
        facts = list(self._facts())
        if other_runs:
            facts.append(Fact(f"+{other_runs} more", 8))
        while True:
            text = Text(head, style=STYLES.get(state, "cyan"), end="", no_wrap=True, overflow="crop")
            text.append(" " + " · ".join(fact.text for fact in facts), style="default")
            if cell_len(text.plain) <= width or len(facts) <= 1:
                return text
            facts.remove(min(facts, key=lambda fact: fact.priority))

    def _state(self) -> str:
        if self._run.stopped:
            return "stopping"
        return "paused" if self._run.paused else "running"

    def _facts(self) -> Iterator[Fact]:
        progress = self.progress
        yield Fact(one_line(self._run.name, 30), 3)
        if progress.share is not None:
            filled = int(_BAR_CELLS * progress.share)
            yield Fact("━" * filled + "─" * (_BAR_CELLS - filled), 4)
        done = progress.done_text()
        if done:
            yield Fact(done, 10)
        score = progress.score_text()
        if score:
            yield Fact(score, 9)
        yield from progress.costs()
        yield Fact(clock(progress.seconds), 8)
        seconds_left = progress.seconds_left()
        if seconds_left is not None:
            yield Fact(f"{clock(seconds_left)} left", 7)


class _StatusLine:
    """The status line of the process. While it is shown, texts for stdout and stderr are written above it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._views: list[TerminalView] = []
        self._stream: TextIO = sys.stderr
        self._proxies: list[tuple[str, _StreamProxy]] = []
        self._console: Any = None
        self._line = ""
        self._visible = False
        self._output_unfinished = False  # the program's last output had no line break at its end
        self._parallel_runs = False
        self._next_draw = 0.0  # monotonic time before which nothing is drawn

    def add(self, view: TerminalView) -> None:
        """Show a run; if others are shown already, only count it."""
        with self._lock:
            self._views.append(view)
            self._parallel_runs = len(self._views) > 1
            if not self._parallel_runs:
                self._wrap_streams()
            self.draw()

    def _wrap_streams(self) -> None:
        """Begin with a new console, and put proxies before ``sys.stdout`` and ``sys.stderr`` if they are terminals."""
        self._stream = _unwrapped(sys.stderr)
        self._console = _console(self._stream)
        self._output_unfinished = False
        self._next_draw = 0.0
        for name in ("stdout", "stderr"):
            stream = _unwrapped(getattr(sys, name))
            if stream is not None and stream.isatty():
                proxy = _StreamProxy(stream, self)
                self._proxies.append((name, proxy))
                setattr(sys, name, proxy)

    def restore_streams(self) -> None:
        """Undo the replacement of ``sys.stdout`` and ``sys.stderr``."""
        for name, proxy in self._proxies:
            if getattr(sys, name) is proxy:  # otherwise the program has replaced the stream since
                setattr(sys, name, proxy.stream)
        self._proxies.clear()

    def close(self, view: TerminalView, run: Run) -> None:
        """Show how a run ended: with a table, or in a single line if other runs were shown at the same time."""
        with self._lock:
            try:
                self._erase()
                if self._output_unfinished:
                    self._stream.write("\n")
                    self._output_unfinished = False
                self._stream.write(_closing_text(self._console, run, view.progress, table=not self._parallel_runs))
                self._stream.flush()
            finally:
                self.remove(view)

    def remove(self, view: TerminalView) -> None:
        """Stop showing a run."""
        with self._lock:
            if view in self._views:
                self._views.remove(view)
                self._next_draw = 0.0
                if not self._views:
                    self.release()

    def release(self) -> None:
        """Erase the line and restore the streams."""
        try:
            self._erase()
        finally:
            self.restore_streams()

    def draw(self) -> None:
        """Redraw the line, unless it was drawn a moment ago."""
        began = time.monotonic()
        if began < self._next_draw or not self._views:
            return
        with self._lock:
            if not self._views:
                return
            width = max(10, self._console.width - _RIGHT_MARGIN)
            line = self._views[0].line(width, other_runs=len(self._views) - 1)
            if line is None:
                return
            with self._console.capture() as captured:
                self._console.print(line, width=width, crop=True, no_wrap=True, overflow="crop", end="")
            is_first = not self._line
            self._line = _encodable(self._console, captured.get())
            self._write_line()
            ended = time.monotonic()
            pause = INTERVAL
            if not is_first:  # the first drawing is slow because it imports rich
                pause = min(_MAX_PAUSE, max(INTERVAL, _PAUSE_FACTOR * (ended - began)))
            self._next_draw = ended + pause

    def _write_line(self) -> None:
        if not self._output_unfinished:
            self._stream.write(f"\r{self._line}\x1b[K")
            self._stream.flush()
            self._visible = True

    def _erase(self) -> None:
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._visible = False

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write a text of the program in place of the status line, and the status line below it.

        After a text without a line break at its end, the status line stays hidden until the break is written.
        """
        with self._lock:
            self._erase()
            written = stream.write(text)
            stream.flush()
            if text:
                self._output_unfinished = not text.endswith("\n")
            if self._views:
                self._write_line()
            return written


_SYMBOLS = "✓○✕⊘■●★·…━─–"
_ASCII_SYMBOLS = str.maketrans(_SYMBOLS, "+oxo#**|~#--")


def _encodable(console: Console, text: str) -> str:
    """The text without characters that the terminal's encoding lacks."""
    try:
        _SYMBOLS.encode(console.encoding)
    except (UnicodeError, LookupError):
        text = text.translate(_ASCII_SYMBOLS)
    return text.encode(console.encoding, "replace").decode(console.encoding)


def _closing_text(console: Console, run: Run, progress: Progress, *, table: bool) -> str:
    """What is shown of a run that has ended, with the terminal's codes for colours."""
    progress.update()
    with console.capture() as captured:
        for part in closing_parts(run, progress, table=table):
            console.print(part, crop=False)
    return _encodable(console, captured.get())


def _unwrapped(stream: object) -> Any:
    """The stream behind a proxy; the program may have stored a proxy and put it back into ``sys``."""
    while isinstance(stream, _StreamProxy):
        stream = stream.stream
    return stream


class _StreamProxy:
    """Replaces ``sys.stdout`` or ``sys.stderr`` while the status line is shown, and writes above the line.

    Code that has stored the proxy can go on using it: it then writes to the stream itself.
    """

    def __init__(self, stream: TextIO, status_line: _StatusLine) -> None:
        self.stream = stream
        self._status_line = status_line

    def write(self, text: str) -> int:
        """Write above the status line."""
        return self._status_line.write_above(self.stream, text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write above the status line."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_status_line = _StatusLine()


def _reset_in_child() -> None:
    """A forked child process shows no runs: give it a status line without any."""
    global _status_line  # noqa: PLW0603
    _status_line.restore_streams()
    _status_line = _StatusLine()


after_fork_in_child(_reset_in_child)


@atexit.register
def _release_at_exit() -> None:
    """Erase the status line of a run that is still active when the process exits."""
    with contextlib.suppress(OSError, ValueError):  # the terminal was closed
        _status_line.release()


def show_ended(run: Run) -> None:
    """Show a run that has already ended."""
    progress = Progress(ViewModel(run.record))
    console = _console(_unwrapped(sys.stderr))
    sys.stderr.write(_closing_text(console, run, progress, table=True))
    sys.stderr.flush()
