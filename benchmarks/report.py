"""Write the results of benchmarks: NAME.csv, NAME.md (a table), NAME.png (a plot), and the tables of the README.

    python benchmarks/report.py

rebuilds the tables and plots of all CSV files, and the tables in the README. It measures nothing.
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
    """The current date in UTC, as the column ``date`` has it."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def write_results(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write NAME.csv, its table and its plot, and print the table."""
    with (HERE / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    write_report(name)
    print(HERE.joinpath(f"{name}.md").read_text(encoding="utf-8"))


def write_report(name: str) -> None:
    """Write NAME.md and NAME.png from NAME.csv."""
    rows = read(name)
    HERE.joinpath(f"{name}.md").write_text(markdown(name, rows), encoding="utf-8")
    if name in CHARTS:
        write_chart(name, rows)


def read(name: str) -> list[Row]:
    """The rows of NAME.csv."""
    with (HERE / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────
COLUMNS = {
    "optimizers": [
        "simulated world", "predictors", "seeds", "ours", "rival", "held-out, ours", "held-out, rival",
        "median paired difference", "low", "high", "seconds, ours", "seconds, rival",
    ],
}  # fmt: skip
"""The columns to show, for CSV files with too many of them."""


def markdown(name: str, rows: Sequence[Row]) -> str:
    """The text of NAME.md: the table, and below it the dates of the measurements."""
    columns = COLUMNS.get(name) or [column for column in rows[0] if column != "date"]
    dates = sorted({row["date"] for row in rows})
    when = dates[0]
    if len(dates) > 1:
        when = f"{dates[0]} to {dates[-1]}"
    lines = [[row[column] for column in columns] for row in rows]
    return f"{table([columns, *lines])}\nMeasured {when} by `{name}.py`.\n"


def table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table. The first line is its header; columns of numbers are aligned to the right."""
    rule = ["--:" if _is_numeric(column[1:]) else "---" for column in zip(*lines, strict=True)]
    text = ""
    for line in [lines[0], rule, *lines[1:]]:
        cells = [cell.replace("|", "\\|") for cell in line]
        text += f"| {' | '.join(cells)} |\n"
    return text


def _is_numeric(cells: Iterable[str]) -> bool:
    return all(not cell or re.fullmatch(r"[-+]?[\d.,]+%?", cell) for cell in cells)


# ── plots ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def write_chart(name: str, rows: Sequence[Row]) -> None:
    """Write NAME.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 1.2 + 0.34 * len(rows)), layout="constrained")
    CHARTS[name](axes, rows)
    figure.savefig(HERE / f"{name}.png", dpi=110)
    plt.close(figure)


def bars(column: str, label: str, *, limit: str = "", mark: float | None = None, log: bool = False) -> Any:
    """A chart with one bar for each row that has a value in a column.

    With ``limit``, the bars show the value as a share of the value in that column. ``mark`` draws a vertical line.
    """

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        rows = [row for row in reversed(rows) if row[column] and (not limit or row[limit])]
        values = []
        for row in rows:
            scale = number(row[limit]) if limit else 1.0
            values.append(number(row[column]) / scale)
        container = axes.barh([row_label(row) for row in rows], values, color="#4477aa")
        axes.bar_label(container, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
        axes.set_xscale("log" if log else "linear")
        axes.margins(x=0.15)
        if mark is not None:
            axes.axvline(mark, color="#bb5566", linewidth=1)
        axes.set_xlabel(label)
        axes.tick_params(labelsize=8)

    return draw


def row_label(row: Row) -> str:
    """The label of a row in a chart: its first column, if that is not a number."""
    texts = [text for column, text in row.items() if column != "date"]
    if re.fullmatch(r"[\d.]+", texts[0]):
        return f"{row['predictors']} predictor(s), {row['settings']}"
    return texts[0]


def number(text: str) -> float:
    """The number in a cell; of "2.5%" it is 2.5."""
    return float(text.rstrip("%"))


def growth_chart(axes: Axes, rows: Sequence[Row]) -> None:
    """Microseconds per item against the number of items, one line for each thing that grows."""
    for what, group in itertools.groupby(rows, key=lambda row: row["what grows"]):
        points = [(number(row["size"]), number(row["µs each"])) for row in group]
        axes.plot(*zip(*points, strict=True), marker="o", label=what)
    axes.set(xscale="log", yscale="log", xlabel="size", ylabel="microseconds for each one")
    axes.legend(fontsize=7)
    axes.figure.set_size_inches(8, 5)


def by_size(label: str, size: str, figure: str, *, log: bool = False) -> Any:
    """A chart of the column ``figure`` against the column ``size``, with one line per value of the first column."""

    def draw(axes: Axes, rows: Sequence[Row]) -> None:
        for name, group in itertools.groupby(rows, key=lambda row: next(iter(row.values()))):
            points = [(number(row[size]), number(row[figure])) for row in group]
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        scale = "log" if log else "linear"
        axes.set(xscale=scale, yscale=scale, xlabel=size, ylabel=label)
        axes.legend(fontsize=7)
        axes.figure.set_size_inches(8, 5)

    return draw


def by_tree(axes: Axes, rows: Sequence[Row]) -> None:
    """Bars of the counts per 1,000 lines of code: one group for each measure, one bar for each source tree."""
    measures = [row for row in rows if row["measure"].endswith("per 1,000 lines of code")]
    trees = [column for column in rows[0] if column not in {"measure", "date"}]
    height = 0.8 / len(trees)
    for place, tree in enumerate(trees):
        places = [group + place * height for group in range(len(measures))]
        axes.barh(places, [number(row[tree]) for row in measures], height=height, label=tree)
    names = [row["measure"].removesuffix(" per 1,000 lines of code") for row in measures]
    axes.set_yticks([group + 0.4 - height / 2 for group in range(len(measures))], names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("per 1,000 lines of code")
    axes.legend(fontsize=7)


CHARTS: dict[str, Callable[[Axes, Sequence[Row]], None]] = {
    "accepted": bars("share", "accepted children that are no better than their parent, %", mark=2.0),
    "basics": bars("ratio", "time or memory relative to DSPy (1: the same)", mark=1.0, log=True),
    "dask": bars("speed-up", "speed relative to one process", mark=1.0),
    "diffs": by_size("seconds of run.diff", "lines", "run.diff, s", log=True),
    "evaluate": bars("ratio", "relative to the reference (1: the same)", mark=1.0),
    "growth": growth_chart,
    "readability": by_tree,
    "record": by_size("microseconds", "rows", "µs", log=True),
    "shapes": bars("ratio", "time per call relative to DSPy (1: the same)", mark=1.0, log=True),
    "sizes": bars("held-out, median", "held-out accuracy, median of the seeds"),
    "small_budgets": by_size("mean score on validation rows", "budget, calls", "validation mean"),
    "spending": bars("ratio of CPU time", "CPU time of a row relative to no budget (1: the same)", mark=1.03),
    "sync_metrics": bars("ratio", "time relative to a plain thread pool (1: the same)", mark=1.0),
    "throughput": bars("rows/s", "rows per second"),
    "traces": bars("dspynb", "share of the limit", limit="limit", mark=1.0),
    "view": bars("figure", "share of the limit", limit="limit", mark=1.0),
    "tracking": bars("difference, µs", 'microseconds that track="otel" adds'),
}


# ── the README ────────────────────────────────────────────────────────────────────────────────────────────────────────
BLOCK = re.compile(r"(<!-- benchmarks: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text of the README with its benchmark tables rebuilt."""
    return BLOCK.sub(lambda match: f"{match[1]}{QUOTES[match['name']]()}{match[3]}", text)


def main() -> None:
    """Rebuild all tables and plots, and the tables of the README."""
    for path in sorted(HERE.glob("*.csv")):
        if not path.stem.startswith("optimizers_"):
            write_report(path.stem)
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


def find_row(name: str, value: str) -> Row:
    """The first row of NAME.csv that has this value in a column."""
    for row in read(name):
        if value in row.values():
            return row
    raise LookupError(f"{name}.csv has no row with {value!r}")


def dspy_table() -> str:
    """The README's table of waiting times, compared with DSPy."""
    lines = [("", "dspynb", "DSPy 3.4.1", "measured")]
    for label, name, what in (
        ("import (dspynb loads names on first use), s", "basics", "import, s"),
        (
            "import and first use of `Predict`, `Refine` and `LM`, s",
            "basics",
            "import and first use of names, s",
        ),
        ("one `Predict` call, model answers at once, ms", "basics", "one Predict with an instant stub, ms"),
        (
            "Refine, 8 attempts of 0.1 s, `width=4` (DSPy: one at a time), s",
            "basics",
            "8 attempts of 100 ms, width 4, s",
        ),
        ("one call with 16 demos, ms", "shapes", "16 demos"),
    ):
        row = find_row(name, what)
        lines.append((label, three_digits(row["dspynb"]), three_digits(row["dspy 3.4.1"]), date_link(name, row)))
    row = find_row("evaluate", "500 rows of 50 ms, s")
    label = "evaluating 500 rows of 50 ms, 256 at a time, s"
    lines.append((label, three_digits(row["dspynb"]), three_digits(row["reference"]), date_link("evaluate", row)))
    dspynb = find_row("throughput", "dspynb, journal on")
    dspy = find_row("throughput", "dspy 3.4.1 Evaluate, cache off")
    plain = find_row("throughput", "plain aiohttp")
    label = f"rows per second with a server that takes 50 ms (plain aiohttp: {plain['rows/s']})"
    lines.append((label, dspynb["rows/s"], dspy["rows/s"], date_link("throughput", dspynb)))
    return table(lines)


def optimizers_table() -> str:
    """The README's table of optimizers: held-out accuracies in simulated worlds, with each rival's best variant."""
    lines = [("simulated world", "optimizer", "seeds", "dspynb", "rival", "paired difference [95 %]")]
    for row in read("optimizers"):
        plural = "" if row["predictors"] == "1" else "s"
        world = f"{row['simulated world']}, {row['predictors']} predictor{plural}"
        paired = f"{row['median paired difference']} [{row['low']}, {row['high']}]"
        rival = f"{three_digits(row['held-out, rival'])} ({row['rival'].split()[0]})"
        name = row["ours"].removeprefix("dspynb ")
        lines.append((world, name, row["seeds"], three_digits(row["held-out, ours"]), rival, paired))
    when = max(row["date"] for row in read("optimizers"))
    return f"{table(lines)}\nMedians; 400 rollouts each; [measured](benchmarks/optimizers.csv) {when}.\n"


def three_digits(text: str) -> str:
    """A figure with three significant digits, or without decimals from 100 on."""
    value = float(text)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def growth_table() -> str:
    """The README's table of growth: the largest size of each thing that grows."""
    lines = [("what grows", "from", "to", "s", "µs each", "MB", "file, MB")]
    for what, group in itertools.groupby(read("growth"), key=lambda row: row["what grows"]):
        rows = list(group)
        first = rows[0]
        last = rows[-1]
        sizes = f"{int(first['size']):,}", f"{int(last['size']):,}"
        seconds = three_digits(last["seconds"])
        lines.append((what, *sizes, seconds, last["µs each"], three_digits(last["MB"]), last["file, MB"]))
    dates = sorted({row["date"] for row in read("growth")})
    when = dates[0]
    if len(dates) > 1:
        when = f"{dates[0]} to {dates[-1]}"
    return f"{table(lines)}\n[Measured](benchmarks/growth.csv) {when}.\n"


def date_link(name: str, row: Row) -> str:
    """The date of a measurement, as a link to NAME.csv."""
    return f"[{row['date']}](benchmarks/{name}.csv)"


QUOTES: dict[str, Callable[[], str]] = {"dspy": dspy_table, "optimizers": optimizers_table, "growth": growth_table}

if __name__ == "__main__":
    main()
