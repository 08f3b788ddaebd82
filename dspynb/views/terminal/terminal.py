"""Runs in a terminal: one line that is written anew while they work, and a short table when one has ended.

The line belongs to the process, not to a run: of runs side by side it shows the first and counts the others. It is
drawn when the runs' records change and from a timer on their event loops, never from a thread of its own, so that a
debugger's prompt, for which the loop stands still, is left alone. What the program prints meanwhile goes above it, as
it is. Only carriage return and erase-to-the-end-of-line are used, and the cursor stays visible: whatever happens to the
process, the terminal is in order.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from dspynb.processes import after_fork_in_child
from dspynb.running.record_changes import Changes
from dspynb.views.html.static import GLYPHS
from dspynb.views.terminal.progress import Fact, Progress, clock
from dspynb.views.terminal.summaries import STYLES, closing
from dspynb.views.texts import one_line
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from dspynb.running.run import Run

__all__ = ["TerminalView", "fits", "show_ended"]

INTERVAL = 0.1
"""Seconds between two drawings, at least."""
_TICK = 0.5
"""Seconds after which it is drawn without an event, for its clock."""
_SHARE = 50
"""A drawing that took t seconds is followed by none for 50 t, so that it costs at most 2 % of the time."""
_BAR = 12
_ROOM = 3
"""Cells left free at the end of the line, for the ^C that a terminal writes there."""


def fits(stream: TextIO) -> bool:
    """Whether lines of this terminal can be written anew: one whose TERM says nothing, or dumb, has no such thing."""
    return not _console(stream).is_dumb_terminal


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False, force_jupyter=False)


class TerminalView:
    """Has a run shown; ``run.watch(view.changed)`` connects it. ``loop`` is where its clock ticks."""

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop | None) -> None:
        self._run, self._loop = run, loop
        self.progress = Progress(ViewModel(run.record))
        self._note = self.progress.state.note
        self._open = False

    def open(self) -> None:
        """Begin to show."""
        self._open = True
        _screen.open(self)
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
                _screen.close(self, self._run)
            else:
                _screen.draw()
        except BaseException:
            self._open = False
            _screen.drop(self)
            raise

    def _tick(self) -> None:
        if self._open and self._loop is not None:
            _screen.draw()
            self._loop.call_later(_TICK, self._tick)

    # ── the line ──────────────────────────────────────────────────────────────────────────────────────────────────
    def line(self, width: int, more: int) -> Text | None:
        """What is shown in ``width`` cells; ``more``: how many other runs there are. None while another thread has the
        record: it may wait for the screen, so the screen must not wait for it; and it has the line drawn."""
        lock = self._run.record.lock
        if not lock.acquire(blocking=False):
            return None
        try:
            self.progress.update()
            return self._text(width, more)
        finally:
            lock.release()

    def _text(self, width: int, more: int) -> Text:
        from rich.cells import cell_len
        from rich.text import Text

        state = "stopping" if self._run.stopped else "paused" if self._run.paused else "running"
        facts = [*self._facts(), *([Fact(f"+{more} more", 8)] if more else [])]
        head = f"{GLYPHS['running']} {state if state != 'running' else ''}".strip()
        while True:
            text = Text(head, style=STYLES.get(state, "cyan"), end="", no_wrap=True, overflow="crop")
            text.append(" " + " · ".join(fact.text for fact in facts), style="default")
            if cell_len(text.plain) <= width or len(facts) <= 1:
                return text
            facts.remove(min(facts, key=lambda fact: fact.matters))

    def _facts(self) -> Iterator[Fact]:
        progress = self.progress
        yield Fact(one_line(self._run.name, 30), 3)
        if progress.share is not None:
            full = int(_BAR * progress.share)
            yield Fact("━" * full + "─" * (_BAR - full), 4)
        for text, matters in ((progress.counted(), 10), (progress.score(), 9)):
            if text:
                yield Fact(text, matters)
        yield from progress.costs()
        left = progress.left()
        yield Fact(clock(progress.seconds), 8)
        if left is not None:
            yield Fact(f"{clock(left)} left", 7)


class _Screen:
    """The one line of the process, and what may be written above it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._views: list[TerminalView] = []
        self._stream: TextIO = sys.stderr
        self._wrapped: list[tuple[str, _Above]] = []
        self._console: Any = None
        self._line = ""
        self._shown = self._partial = self._together = False
        self._next = 0.0

    def open(self, view: TerminalView) -> None:
        """Show a run."""
        with self._lock:
            self._views.append(view)
            self._together = len(self._views) > 1
            if not self._together:
                self._take_over()
            self.draw()

    def _take_over(self) -> None:
        self._stream = _own(sys.stderr)
        self._console, self._partial, self._next = _console(self._stream), False, 0.0
        for name in ("stdout", "stderr"):
            stream = _own(getattr(sys, name))
            if stream is not None and stream.isatty():
                self._wrapped.append((name, above := _Above(stream, self)))
                setattr(sys, name, above)

    def _give_back(self) -> None:
        """Put the streams back."""
        for name, above in self._wrapped:
            if getattr(sys, name) is above:  # else somebody put another in its place
                setattr(sys, name, above.stream)
        self._wrapped.clear()

    def close(self, view: TerminalView, run: Run) -> None:
        """Show the end of a run: with a table, or in a line where others ran beside it."""
        with self._lock:
            try:
                self._erase()
                if self._partial:
                    self._stream.write("\n")
                    self._partial = False
                self._stream.write(_ending(self._console, run, view.progress, table=not self._together))
                self._stream.flush()
            finally:
                self.drop(view)

    def drop(self, view: TerminalView) -> None:
        """Show a run no more."""
        with self._lock:
            if view in self._views:
                self._views.remove(view)
                self._next = 0.0
                if not self._views:
                    self.leave()

    def leave(self) -> None:
        """Leave the terminal as it was found."""
        try:
            self._erase()
        finally:
            self._give_back()

    # ── drawing ───────────────────────────────────────────────────────────────────────────────────────────────────
    def draw(self) -> None:
        """Write the line anew, unless that was done a moment ago."""
        began = time.monotonic()
        if began < self._next or not self._views:
            return
        with self._lock:
            if not self._views:
                return
            width = max(10, self._console.width - _ROOM)
            line = self._views[0].line(width, more=len(self._views) - 1)
            if line is None:
                return
            with self._console.capture() as captured:
                self._console.print(line, width=width, crop=True, no_wrap=True, overflow="crop", end="")
            first, self._line = not self._line, _written(self._console, captured.get())
            self._put()
            ended = time.monotonic()  # what the first drawing takes is the import of a library
            self._next = ended + max(INTERVAL, 0.0 if first else _SHARE * (ended - began))

    def _put(self) -> None:
        if not self._partial:
            self._stream.write(f"\r{self._line}\x1b[K")
            self._stream.flush()
            self._shown = True

    def _erase(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write a program's text where the line was, and the line below it once the text has ended its own."""
        with self._lock:
            self._erase()
            written = stream.write(text)
            stream.flush()
            if text:
                self._partial = not text.endswith("\n")
            if self._views:
                self._put()
            return written


_SIGNS = "✓○✕⊘■●★·…━─–"
_ASCII = str.maketrans(_SIGNS, "+oxo#**|~#--")


def _written(console: Console, text: str) -> str:
    """The text in what the terminal's encoding has."""
    try:
        _SIGNS.encode(console.encoding)
    except (UnicodeError, LookupError):
        text = text.translate(_ASCII)
    return text.encode(console.encoding, "replace").decode(console.encoding)


def _ending(console: Console, run: Run, progress: Progress, *, table: bool) -> str:
    """What is shown of a run that has ended."""
    progress.update()
    with console.capture() as captured:
        for part in closing(run, progress, table=table):
            console.print(part, crop=False)
    return _written(console, captured.get())


def _own(stream: Any) -> Any:
    """The stream itself, where what stood in its place was kept by someone."""
    while isinstance(stream, _Above):
        stream = stream.stream
    return stream


class _Above:
    """In the place of ``sys.stdout`` or ``sys.stderr`` while the line is shown; for whoever keeps it, goes on as it."""

    def __init__(self, stream: TextIO, screen: _Screen) -> None:
        self.stream, self._screen = stream, screen

    def write(self, text: str) -> int:
        """Write above the line."""
        return self._screen.write_above(self.stream, text)

    def writelines(self, lines: Any) -> None:
        """Write above the line."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_screen = _Screen()


def _forget() -> None:
    """A forked child has no runs: it writes as if there was no line."""
    global _screen  # noqa: PLW0603
    _screen._give_back()
    _screen = _Screen()


after_fork_in_child(_forget)


@atexit.register
def _leave() -> None:
    """Of a run that the process does not wait for, leave no line."""
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone
        _screen.leave()


def show_ended(run: Run) -> None:
    """Show a run that has ended."""
    progress = Progress(ViewModel(run.record))
    sys.stderr.write(_ending(_console(_own(sys.stderr)), run, progress, table=True))
    sys.stderr.flush()
