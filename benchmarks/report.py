"""What benchmarks found, as files: NAME.csv, NAME.md (the table), NAME.png; and the README's tables, which quote them.

    python benchmarks/report.py

makes tables and plots of every CSV that is there, and the README's tables, anew; nothing is measured.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
Row = dict[str, str]


def today() -> str:
    """The date, as it stands in every table."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def written(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write NAME.csv, and what is made of it; print the table."""
    with (HERE / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    told(name)
    print(HERE.joinpath(f"{name}.md").read_text(encoding="utf-8"))


def told(name: str) -> None:
    """NAME.md and NAME.png, from NAME.csv."""
    rows = read(name)
    HERE.joinpath(f"{name}.md").write_text(markdown(name, rows), encoding="utf-8")
    if name in CHARTS:
        drawn(name, rows)


def read(name: str) -> list[Row]:
    """The lines of NAME.csv."""
    with (HERE / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────
COLUMNS = {
    "optimizers": [
        "simulated world", "predictors", "seeds", "ours", "rival", "held-out, ours", "held-out, rival",
        "median paired difference", "low", "high", "seconds, ours", "seconds, rival",
    ],
}  # fmt: skip
"""Of wide tables, the columns that are shown."""


def markdown(name: str, rows: Sequence[Row]) -> str:
    """The table, the dates below it."""
    columns = COLUMNS.get(name) or [column for column in rows[0] if column != "date"]
    dates = sorted({row["date"] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{table([columns, *([row[c] for c in columns] for row in rows)])}\nMeasured {when} by `{name}.py`.\n"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines as a Markdown table, the first its head; columns of numbers stand to the right."""
    columns = list(zip(*lines, strict=True))
    numbers = [all(not cell or re.fullmatch(r"[-+]?[\d.,]+%?", cell) for cell in column[1:]) for column in columns]
    rule = ["--:" if number else "---" for number in numbers]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in [lines[0], rule, *lines[1:]]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


# ── plots ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def drawn(name: str, rows: Sequence[Row]) -> None:
    """NAME.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 1.2 + 0.34 * len(rows)), layout="constrained")
    CHARTS[name](axes, rows)
    figure.savefig(HERE / f"{name}.png", dpi=110)
    plt.close(figure)


def bars(column: str, label: str, *, limit: str = "", mark: float | None = None, log: bool = False) -> Any:
    """Bars of a column, or of its share of another one (``limit``), for the lines that have it; a line at ``mark``."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        having = [row for row in rows if row[column] and (not limit or row[limit])][::-1]
        values = [number(row[column]) / (number(row[limit]) if limit else 1.0) for row in having]
        drawn = axes.barh([named(row) for row in having], values, color="#4477aa")
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
        axes.set_xscale("log" if log else "linear")
        axes.margins(x=0.15)
        if mark is not None:
            axes.axvline(mark, color="#bb5566", linewidth=1)
        axes.set_xlabel(label)
        axes.tick_params(labelsize=8)

    return draw


def named(row: Row) -> str:
    """What a line is of: its first columns that are no numbers."""
    words = itertools.takewhile(lambda item: not re.fullmatch(r"[\d.]+", item[1]), row.items())
    found = [text for column, text in words if column != "date"]
    return ", ".join(found[:1] or [f"{row['predictors']} predictor(s), {row['settings']}"])


def number(text: str) -> float:
    """A cell as a number; percent as it stands."""
    return float(text.rstrip("%"))


def lines(axes: Axes, rows: Sequence[Row]) -> None:
    """Microseconds for each one against the size, for each thing that grows."""
    for what, group in itertools.groupby(rows, key=lambda row: row["what grows"]):
        points = [(number(row["size"]), number(row["µs each"])) for row in group]
        axes.plot(*zip(*points, strict=True), marker="o", label=what)
    axes.set(xscale="log", yscale="log", xlabel="size", ylabel="microseconds for each one")
    axes.legend(fontsize=7)
    axes.figure.set_size_inches(8, 5)


def by_size(label: str, size: str, figure: str, *, log: bool = False) -> Any:
    """A line for each group of rows (their first column): ``figure`` against ``size``."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        for name, group in itertools.groupby(rows, key=lambda row: next(iter(row.values()))):
            points = [(number(row[size]), number(row[figure])) for row in group]
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        scale = "log" if log else "linear"
        axes.set(xscale=scale, yscale=scale, xlabel=size, ylabel=label)
        axes.legend(fontsize=7)
        axes.figure.set_size_inches(8, 5)

    return draw


CHARTS: dict[str, Callable[[Axes, Sequence[Row]], None]] = {
    "accepted": bars("share", "accepted children that are no better than their parent, %", mark=2.0),
    "basics": bars("ratio", "share of DSPy's time or memory (1: the same)", mark=1.0, log=True),
    "dask": bars("speed-up", "times as fast as one process", mark=1.0),
    "diffs": by_size("seconds of run.diff", "lines", "run.diff, s", log=True),
    "evaluate": bars("ratio", "share of what it is beside (1: the same)", mark=1.0),
    "growth": lines,
    "record": by_size("microseconds", "rows", "µs", log=True),
    "shapes": bars("ratio", "share of DSPy's time a call (1: the same)", mark=1.0, log=True),
    "sizes": bars("held-out, median", "held-out accuracy, median of the seeds"),
    "small_budgets": by_size("mean score on validation rows", "budget, calls", "validation mean"),
    "sync_metrics": bars("ratio", "times as long as a bare pool of threads (1: the same)", mark=1.0),
    "throughput": bars("rows/s", "rows a second"),
    "traces": bars("dspynb", "share of the limit", limit="limit", mark=1.0),
    "view": bars("figure", "share of what is wanted at most", limit="wanted at most", mark=1.0),
}


# ── the README ────────────────────────────────────────────────────────────────────────────────────────────────────────
BLOCK = re.compile(r"(<!-- benchmarks: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def quoted(text: str) -> str:
    """The README's text with its tables made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{QUOTES[found['name']]()}{found[3]}", text)


def main() -> None:
    """Make all anew."""
    for path in sorted(HERE.glob("*.csv")):
        if not path.stem.startswith("optimizers_"):
            told(path.stem)
    README.write_text(quoted(README.read_text(encoding="utf-8")), encoding="utf-8")


def picked(name: str, what: str) -> Row:
    """The line of a table that is of this."""
    return next(row for row in read(name) if what in row.values())


def beside_dspy() -> str:
    """What users wait for, beside DSPy."""
    lines = [("", "dspynb", "DSPy 3.4.1", "measured")]
    for what, name, found in (
        ("`import`, s (names are loaded when they are first used)", "basics", "import, s"),
        ("the same, with what a first program uses, s", "basics", "import and first use of names, s"),
        ("one `Predict` call, model answers at once, ms", "basics", "one Predict with an instant stub, ms"),
        (
            "Refine, 8 attempts of 0.1 s, `width=4` (DSPy: one at a time), s",
            "basics",
            "8 attempts of 100 ms, width 4, s",
        ),
        ("a call with 16 demos, ms", "shapes", "16 demos"),
    ):
        row = picked(name, found)
        lines.append((what, short(row["dspynb"]), short(row["dspy 3.4.1"]), measured(name, row)))
    row = picked("evaluate", "500 rows of 50 ms, s")
    figures = short(row["dspynb"]), short(row["beside"]), measured("evaluate", row)
    lines.append(("evaluate 500 rows of 50 ms, 256 at a time, s", *figures))
    ours, theirs = picked("throughput", "dspynb, journal on"), picked("throughput", "dspy 3.4.1 Evaluate, cache off")
    floor = picked("throughput", "bare aiohttp")["rows/s"]
    what = f"rows a second through a server that takes 50 ms (bare aiohttp: {floor})"
    lines.append((what, ours["rows/s"], theirs["rows/s"], measured("throughput", ours)))
    return table(lines)


def optimizers() -> str:
    """Held-out accuracy in simulated worlds, beside the optimizers of the same name, each rival's best variant."""
    lines = [("simulated world", "optimizer", "seeds", "dspynb", "rival", "paired difference [95 %]")]
    for row in read("optimizers"):
        world = f"{row['simulated world']}, {row['predictors']} predictor{'s' if row['predictors'] != '1' else ''}"
        paired = f"{row['median paired difference']} [{row['low']}, {row['high']}]"
        rival = f"{short(row['held-out, rival'])} ({row['rival'].split()[0]})"
        name = row["ours"].removeprefix("dspynb ")
        lines.append((world, name, row["seeds"], short(row["held-out, ours"]), rival, paired))
    when = max(row["date"] for row in read("optimizers"))
    return f"{table(lines)}\nMedians; 400 rollouts each; [measured](benchmarks/optimizers.csv) {when}.\n"


def short(text: str) -> str:
    """A figure in three digits."""
    return f"{float(text):.3g}" if float(text) < 100 else f"{float(text):.0f}"


def growth() -> str:
    """The largest size of each thing that grows."""
    lines = [("what grows", "from", "to", "s", "µs each", "MB", "file, MB")]
    for what, group in itertools.groupby(read("growth"), key=lambda row: row["what grows"]):
        rows = list(group)
        first, last = rows[0], rows[-1]
        sizes = f"{int(first['size']):,}", f"{int(last['size']):,}"
        lines.append((what, *sizes, short(last["seconds"]), last["µs each"], short(last["MB"]), last["file, MB"]))
    dates = sorted({row["date"] for row in read("growth")})
    return f"{table(lines)}\n[Measured](benchmarks/growth.csv) {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}.\n"


def measured(name: str, row: Row) -> str:
    """When, and where it stands."""
    return f"[{row['date']}](benchmarks/{name}.csv)"


QUOTES: dict[str, Callable[[], str]] = {"dspy": beside_dspy, "optimizers": optimizers, "growth": growth}

if __name__ == "__main__":
    main()
