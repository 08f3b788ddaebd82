"""What a terminal shows of a run that has ended: a line, and a short table of what is worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dspynb.running.record import RunRecord
from dspynb.running.tables.candidates import scores_of, summary_of, winner_of
from dspynb.running.tables.statistics import mean_interval
from dspynb.views.html.static import GLYPHS
from dspynb.views.rows import Row
from dspynb.views.terminal.progress import Progress, clock
from dspynb.views.texts import number, one_line
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from dspynb.running.reader import RunReader

__all__ = ["STYLES", "closing"]

Programs = Mapping[str, Mapping[int, Sequence[float]]]
"""Program → row → scores of its repeats."""
STYLES = {
    "finished": "green", "passed": "green", "done": "green", "failed": "red", "running": "cyan", "stopping": "yellow",
    "paused": "yellow",
    "stopped": "yellow", "exhausted": "yellow", "interrupted": "yellow", "cancelled": "yellow",
}  # fmt: skip
"""Colours by name, which every terminal's theme sets to what is readable on its ground."""
_MOST_ROWS, _MOST_ATTEMPTS, _MOST_ERRORS, _MOST_CANDIDATES = 10, 30, 5, 6


def closing(run: RunReader, progress: Progress, *, table: bool) -> Iterator[Text | Table]:
    """The line of a run's end, and with ``table`` what it made, what went wrong and its id."""
    programs = progress.scores() if progress.of_rows else {}
    yield _line(progress, programs)
    if progress.ended is not None and progress.ended.error:
        yield _indented(one_line(progress.ended.error, 1000), "red")
    if not table:
        return
    note = ""
    if len(programs) > 1:
        made: Table | None = _programs(programs)
    elif progress.of_rows and progress.rows[0] > _MOST_ROWS:
        made = _errors(progress.errors())
    else:
        record = run.record
        made = _candidates(record) if record.candidates else _shown(progress.state)
        note = summary_of(record) if record.candidates and winner_of(record) else ""
    if made is not None:
        yield made
    if note:
        yield _indented(one_line(note, 1000), "default")
    if run.path and made is not None:
        yield _whole(f"  dn.open_run({run.id!r})", "dim")


def _line(progress: Progress, programs: Programs) -> Text:
    from rich.text import Text

    status = progress.ended.status if progress.ended else "running"
    facts = [
        progress.counted(),
        _score(progress, programs),
        *(fact.text for fact in progress.costs()),
        _time(progress.seconds),
    ]
    text = Text(f"{GLYPHS.get(status, '')} {status}", style=STYLES.get(status, "default"))
    text.append(f" {one_line(progress.started.name, 80) if progress.started else ''}", style="bold")
    return text.append(" " + " · ".join(filter(None, facts)), style="default")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else clock(seconds)


def _score(progress: Progress, programs: Programs) -> str:
    """The score; of an evaluation with its interval, of several programs none."""
    if len(programs) == 1:
        return f"mean {_interval(next(iter(programs.values())))}"
    return "" if len(programs) > 1 else progress.score()


def _interval(rows: Mapping[int, Sequence[float]]) -> str:
    return str(mean_interval([sum(values) / len(values) for values in rows.values()]))


def _indented(text: str, style: str) -> Text:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(text, style=style), (0, 0, 0, 2))  # type: ignore[return-value]  # a renderable, as that is


def _whole(text: str, style: str) -> Text:
    """A line to be copied: where it is too long, the terminal breaks it."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def _shown(state: ViewModel) -> Table | None:
    """Few rows, or the attempts of one search; None for anything else."""
    header, rows = state.snapshot()
    alone = header["mode"] == "attempts" and len({row["order"][0] for row in rows}) == 1
    return _rows(header["columns"], rows[:_MOST_ATTEMPTS]) if alone or (header["mode"] == "rows" and rows) else None


def _grid(*names: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", width=1)
    for name in names:
        numbers = name in ("#", "score", "rows", "tokens")
        ratio = None if numbers or name in ("state", "made in") else 1
        table.add_column(
            one_line(name, 20), justify="right" if numbers else "left", no_wrap=True, overflow="ellipsis", ratio=ratio,
            min_width=3 if ratio is None else 6,
        )  # fmt: skip
    table.expand = any(column.ratio for column in table.columns)
    return table


def _plain(text: str, style: str = "default") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _rows(columns: list[str], rows: Sequence[Row]) -> Table:
    """Attempts, or rows of a batch: those columns that have something in them."""
    shown: dict[str, list[Text]] = {
        "#": [_plain(one_line(row["label"], 20)) for row in rows],
        "state": [
            _plain(f"{GLYPHS.get(row['state'], '')} {row['state']}", STYLES.get(row["state"], "default"))
            for row in rows
        ],
        "score": [_plain("" if row["score"] is None else number(row["score"])) for row in rows],
        columns[0]: [_told(row["about"]) for row in rows],
        columns[1]: [_told(row["outputs"]) for row in rows],
        "error": [_plain(one_line(row["error"], 200) if row["error"] else "", "red") for row in rows],
    }
    kept = {name: cells for name, cells in shown.items() if any(cell.plain for cell in cells)}
    table = _grid(*kept)
    for i, row in enumerate(rows):
        table.add_row(_plain("★" if row["best"] else "", "green"), *(cells[i] for cells in kept.values()))
    return table


def _told(parts: list[list[str]]) -> Text:
    return _plain(one_line(parts, 200) if parts else "")


def _errors(errors: Sequence[str]) -> Table | None:
    """Of many rows those that failed, by their error."""
    if not errors:
        return None
    table = _grid("rows", "error")
    for error, times in Counter(one_line(error, 200) for error in errors).most_common(_MOST_ERRORS):
        table.add_row("", _plain(f"{times:,}"), _plain(error, "red"))
    return table


def _programs(programs: Programs) -> Table:
    table = _grid("program", "rows", "mean score")
    for name, rows in programs.items():
        table.add_row("", _plain(one_line(name, 200)), _plain(f"{len(rows):,}"), _plain(_interval(rows)))
    return table


def _candidates(record: RunRecord) -> Table:
    """The best candidates on all validation rows, and the start."""
    scores, winner = scores_of(record), winner_of(record)
    full = max((len(own) for own in scores.values()), default=0)
    ranked = sorted(
        (c for c, own in scores.items() if len(own) == full), key=lambda c: (c != winner, -sum(scores[c].values()))
    )
    start = next(iter(record.candidates))
    shown = [c for c in ranked[:_MOST_CANDIDATES] if c != start] + ([start] if start in scores else [])
    table = _grid("candidate", "made in", "mean score")
    for candidate in shown:
        made, told = record.candidates[candidate], _interval({row: [s] for row, s in scores[candidate].items()})
        best = "★" if candidate == winner else ""
        table.add_row(
            _plain(best, "green"), _plain(one_line(candidate, 40)), _plain(one_line(made.origin)), _plain(told)
        )
    return table
