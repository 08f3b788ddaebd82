"""What a terminal shows of a run that has ended: a line, and a short table of its most important rows."""

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
from dspynb.views.texts import one_line, one_line_or_empty, score_text
from dspynb.views.view_model import ViewModel

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from dspynb.running.reader import RunReader

__all__ = ["STYLES", "closing_parts"]

Programs = Mapping[str, Mapping[int, Sequence[float]]]
"""Program → row → scores of its repeats."""
STYLES = {
    "finished": "green", "passed": "green", "done": "green", "failed": "red", "running": "cyan", "stopping": "yellow",
    "paused": "yellow",
    "stopped": "yellow", "exhausted": "yellow", "max_errors": "yellow", "interrupted": "yellow", "cancelled": "yellow",
    "unfinished": "yellow",
}  # fmt: skip
"""State → a named colour. The terminal's theme chooses a shade that is readable on its background."""
_MOST_ROWS = 10
"""Rows of a batch that are listed; with more, only the errors of failed rows are."""
_MOST_ATTEMPTS = 30
_MOST_ERRORS = 5
_MOST_CANDIDATES = 6


def closing_parts(run: RunReader, progress: Progress, *, table: bool) -> Iterator[Text | Table]:
    """The line that says how a run ended and its error; with ``table`` also a table and how to open the run again."""
    programs = progress.scores() if progress.counts_rows else {}
    yield _closing_line(progress, programs)
    if progress.ended is not None and progress.ended.error:
        yield _indented(one_line(progress.ended.error, 1000), "red")
    if not table:
        return
    record = run.record
    main_table = _main_table(record, progress, programs)
    if main_table is not None:
        yield main_table
    summary = summary_of(record) if winner_of(record) else ""
    if summary:
        yield _indented(one_line(summary, 1000), "default")
    if run.path and main_table is not None:
        yield _unwrapped_line(f"  dn.open_run({run.id!r})", "dim")


def _main_table(record: RunRecord, progress: Progress, programs: Programs) -> Table | None:
    """Programs, errors of rows, candidates, rows or attempts; None for a run without any of them."""
    if len(programs) > 1:
        return _programs(programs)
    done, _, _ = progress.row_counts
    if progress.counts_rows and done > _MOST_ROWS:
        return _errors(progress.errors())
    if record.candidates:
        return _candidates(record)
    return _rows_or_attempts(progress.state)


def _closing_line(progress: Progress, programs: Programs) -> Text:
    from rich.text import Text

    status = progress.ended.status if progress.ended else "running"
    facts = [progress.done_text(), _score(progress, programs)]
    facts += [fact.text for fact in progress.costs()]
    facts.append(_duration(progress.seconds))
    text = Text(f"{GLYPHS.get(status, '')} {status}", style=STYLES.get(status, "default"))
    name = one_line(progress.started.name, 80) if progress.started else ""
    text.append(f" {name}", style="bold")
    return text.append(" " + " · ".join(filter(None, facts)), style="default")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else clock(seconds)


def _score(progress: Progress, programs: Programs) -> str:
    """The score; with its interval for an evaluation of one program, empty for several programs."""
    if not programs:
        return progress.score_text()
    if len(programs) > 1:
        return ""
    rows = next(iter(programs.values()))
    return f"mean {_mean_interval(rows)}"


def _mean_interval(rows: Mapping[int, Sequence[float]]) -> str:
    row_means = [sum(repeats) / len(repeats) for repeats in rows.values()]
    return str(mean_interval(row_means))


def _indented(text: str, style: str) -> Text:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(text, style=style), (0, 0, 0, 2))  # type: ignore[return-value]  # a renderable, as that is


def _unwrapped_line(text: str, style: str) -> Text:
    """A line without line breaks of its own, so that it can be copied even if the terminal wraps it."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def _rows_or_attempts(state: ViewModel) -> Table | None:
    """The rows of a batch, or the attempts of a single search; None for anything else."""
    header, rows = state.snapshot()
    if header["mode"] == "rows" and rows:
        return _rows(header["columns"], rows[:_MOST_ATTEMPTS])
    searches = {row["order"][0] for row in rows}
    if header["mode"] == "attempts" and len(searches) == 1:
        return _rows(header["columns"], rows[:_MOST_ATTEMPTS])
    return None


def _grid(*names: str) -> Table:
    """An empty table with these columns, after a narrow one for the star of the best row."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", width=1)
    for name in names:
        is_number = name in ("#", "score", "rows", "tokens")
        is_narrow = is_number or name in ("state", "origin")
        table.add_column(
            one_line(name, 20),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None if is_narrow else 1,
            min_width=3 if is_narrow else 6,
        )
        if not is_narrow:
            table.expand = True
    return table


def _cell(text: str, style: str = "default") -> Text:
    from rich.text import Text

    return Text(text, style=style)


def _rows(columns: list[str], rows: Sequence[Row]) -> Table:
    """Attempts, or rows of a batch. Columns without any text are left out."""
    cells: dict[str, list[Text]] = {
        "#": [_cell(one_line(row["label"], 20)) for row in rows],
        "state": [_state_cell(row["state"]) for row in rows],
        "score": [_cell(score_text(row["score"])) for row in rows],
        columns[0]: [_named_cell(row["about"]) for row in rows],
        columns[1]: [_named_cell(row["outputs"]) for row in rows],
        "error": [_error_cell(row["error"]) for row in rows],
    }
    names = [name for name, column in cells.items() if _has_text(column)]
    table = _grid(*names)
    for i, row in enumerate(rows):
        table.add_row(_star_cell(row["best"]), *(cells[name][i] for name in names))
    return table


def _has_text(column: Sequence[Text]) -> bool:
    return any(cell.plain for cell in column)


def _state_cell(state: str) -> Text:
    return _cell(f"{GLYPHS.get(state, '')} {state}", STYLES.get(state, "default"))


def _named_cell(pairs: list[list[str]]) -> Text:
    return _cell(one_line_or_empty(pairs, 200))


def _error_cell(error: str) -> Text:
    return _cell(one_line_or_empty(error, 200), "red")


def _star_cell(is_best: bool) -> Text:
    return _cell("★" if is_best else "", "green")


def _errors(errors: Sequence[str]) -> Table | None:
    """The most frequent errors, and how many rows have each."""
    if not errors:
        return None
    table = _grid("rows", "error")
    counter = Counter(one_line(error, 200) for error in errors)
    for error, rows in counter.most_common(_MOST_ERRORS):
        table.add_row("", _cell(f"{rows:,}"), _cell(error, "red"))
    return table


def _programs(programs: Programs) -> Table:
    table = _grid("program", "rows", "mean score")
    for name, rows in programs.items():
        table.add_row("", _cell(one_line(name, 200)), _cell(f"{len(rows):,}"), _cell(_mean_interval(rows)))
    return table


def _candidates(record: RunRecord) -> Table:
    """The best of the candidates that were evaluated on the most validation rows, and the initial program."""
    scores = scores_of(record)
    winner = winner_of(record)
    start = next(iter(record.candidates))
    best = _rank(scores, winner)[:_MOST_CANDIDATES]
    listed = [candidate for candidate in best if candidate != start]
    if start in scores:
        listed.append(start)
    table = _grid("candidate", "origin", "mean score")
    names = record.candidate_names
    for candidate in listed:
        interval = mean_interval(list(scores[candidate].values()))
        origin = record.candidates[candidate].origin
        table.add_row(
            _star_cell(candidate == winner),
            _cell(names[candidate]),
            _cell(one_line(origin)),
            _cell(str(interval)),
        )
    return table


def _rank(scores: Mapping[str, Mapping[int, float]], winner: str | None) -> list[str]:
    """The candidates with the most scored rows: the winner first, then by their total score."""
    most_rows = max((len(scores_by_row) for scores_by_row in scores.values()), default=0)
    candidates = [candidate for candidate, scores_by_row in scores.items() if len(scores_by_row) == most_rows]

    def rank(candidate: str) -> tuple[bool, float]:
        return candidate != winner, -sum(scores[candidate].values())

    return sorted(candidates, key=rank)
