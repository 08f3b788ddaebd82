"""The cost of watching a run: the kernel's time and bytes, applying many events, and the browser with 10,000 rows.

    python benchmarks/view.py

The kernel's part passes the events of attempts through the live view, 500 attempts a second, with a front end that
serializes messages as JSON, as the widget does. It counts the CPU time of the view's own functions only. The browser's
part needs Chromium and JupyterLab: 10,000 attempts of a stub are shown live; the page is scrolled, and rows are
selected, while the run is still working. Writes benchmarks/view.csv: medians of several runs, and the slowest value
where the row says so.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from report import today, write_results

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from dspynb.data import Usage  # noqa: E402
from dspynb.events import (  # noqa: E402
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    Event,
    PredictorCalled,
    RunEnded,
    RunStarted,
    SpanStarted,
)
from dspynb.running.record import RunRecord  # noqa: E402
from dspynb.views.live import live_view  # noqa: E402
from dspynb.views.view_model import ViewModel  # noqa: E402
from tests.browser.jupyter import Lab, chromium  # noqa: E402

ROUNDS = 5
HINT = "Use fewer than 10 words; you used 14. Use the word 'blue'."
SENTENCE = "The blue ocean never rests, and nor do the tides that pull at it."
PROMPT = "Write one sentence about the subject. " * 20


def attempts(n: int) -> Iterator[Event]:
    """The events of a Refine of ``n`` attempts."""
    yield RunStarted(span=1, kind="refine", name="Refine", settings={"n": n})
    yield SpanStarted(span=2, parent=1, kind="search", name="Refine")
    for i in range(1, n + 1):
        span = 10 * i
        yield AttemptStarted(span=span, parent=2, attempt=i, wave=i, hint=HINT if i > 1 else None)
        yield PredictorCalled(
            span=span + 1, parent=span, predictor="self", uid="u", inputs={"subject": "the ocean"},
            messages=({"role": "system", "content": PROMPT}, {"role": "user", "content": "the ocean"}), reply=SENTENCE,
            outputs={"sentence": SENTENCE}, usage=Usage(calls=1, prompt_tokens=200, completion_tokens=15), model="stub",
        )  # fmt: skip
        yield AttemptEnded(
            span=span, parent=2, state="scored", outputs={"sentence": SENTENCE}, score=(i % 10) / 10, feedback=HINT,
            seconds=0.5,
        )  # fmt: skip
    yield AttemptChosen(span=2, parent=1, attempt=9)
    yield RunEnded(span=1, status="finished")


class StubRun:
    """The part of a run that a view needs."""

    id = "a-run"
    done = False
    stopped = False
    paused = False
    steerable = frozenset({"hint", "pause"})

    def __init__(self) -> None:
        self.record = RunRecord()

    def stop(self) -> None:
        """Do nothing: there is nothing to stop."""


class Comm:
    """A front end that counts messages and their bytes as JSON."""

    def __init__(self, view: live_view.LiveView) -> None:
        self.view = view
        self.bytes = 0
        self.messages = 0

    def send(self, message: dict[str, Any]) -> None:
        """Count a message."""
        self.bytes += len(json.dumps(message))
        self.messages += 1

    def snapshot(self) -> None:
        """Count a message with the whole state."""
        self.send(self.view.snapshot())

    def finish(self, state: ViewModel) -> None:
        """Do nothing: the saved page is not measured here."""


def count_cpu_time(cls: type, names: list[str], seconds: list[float]) -> Callable[[], None]:
    """Replace methods by ones that add their CPU time to ``seconds[0]``, and return a function that restores them."""
    originals = {name: getattr(cls, name) for name in names}

    def timed(method: Any) -> Any:
        def wrapper(self: Any, *arguments: Any) -> Any:
            start = time.process_time()
            try:
                return method(self, *arguments)
            finally:
                seconds[0] += time.process_time() - start

        return wrapper

    def restore() -> None:
        for name, method in originals.items():
            setattr(cls, name, method)

    for name, method in originals.items():
        setattr(cls, name, timed(method))
    return restore


def watch(n: int, attempts_per_second: int) -> dict[str, float]:
    """Pass ``n`` attempts through the live view."""
    cpu_seconds = [0.0]
    restore = count_cpu_time(live_view.LiveView, ["changed", "_flush", "message"], cpu_seconds)

    async def main() -> Comm:
        run = StubRun()
        view = live_view.LiveView(run, asyncio.get_running_loop())
        comm = Comm(view)
        view.open(comm)
        start = time.monotonic()
        for i, event in enumerate(attempts(n)):
            view.changed(run.record.apply(event))
            if i % 30 == 0:
                await asyncio.sleep(max(0.0, start + i / 3 / attempts_per_second - time.monotonic()))
        return comm

    try:
        comm = asyncio.run(main())
    finally:
        restore()
    return {"MB": comm.bytes / 1e6, "messages": comm.messages, "s": cpu_seconds[0]}


def apply_events(n: int) -> dict[str, float]:
    """Seconds to apply ``n`` events to a record, and to convert them to the rows of a view."""
    events = list(attempts(n // 3))
    start = time.process_time()
    RunRecord(events)
    middle = time.process_time()
    state = ViewModel(RunRecord())
    for event in events:
        state.note(state.record.apply(event))
    state.take_changes()
    return {"record": middle - start, "view": time.process_time() - middle, "events": len(events)}


CELL = """
import asyncio, dspynb as dn
async def answer(request):
    await asyncio.sleep(0.001 if request.rollout < {n} - 2 else 600)
    return "[[ ## sentence ## ]]\\n{sentence}\\n\\n[[ ## completed ## ]]"
many = dn.BestOfN(dn.Predict("subject -> sentence", lm=dn.FunctionLM(answer)),
                  lambda row, p: (hash(p.sentence) % 10) / 10, n={n}, threshold=None, width=50)
run = many.start(subject="the ocean")
run
"""
SCROLL = """async () => {
    const grid = document.querySelector('.dspynb-grid');
    const milliseconds = [];
    for (let i = 0; i < 30; i++) {
        const start = performance.now();
        grid.scrollTop = ((i * 7919) % 997) / 997 * grid.scrollHeight;
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        milliseconds.push(performance.now() - start);
    }
    return milliseconds;
}"""
SELECT = """async () => {
    const grid = document.querySelector('.dspynb-grid');
    const milliseconds = [];
    grid.focus();
    for (let i = 0; i < 30; i++) {
        const start = performance.now();
        const key = ['PageDown', 'ArrowDown', 'End', 'ArrowUp', 'Home', 'PageDown'][i % 6];
        grid.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        milliseconds.push(performance.now() - start);
        await new Promise(done => setTimeout(done, 150));
    }
    return milliseconds;
}"""


def browse(n: int) -> dict[str, float]:
    """Milliseconds of scrolling and selecting on a page with ``n`` attempts, while the run is still working."""
    with Lab(Path(tempfile.mkdtemp())) as lab:
        lab.write("many.ipynb", CELL.format(n=n, sentence=SENTENCE))
        with lab.browser() as context:
            notebook = lab.open(context, "many.ipynb")
            notebook.run_all()
            notebook.page.wait_for_function(
                f"() => +document.querySelector('.dspynb-grid')?.ariaRowCount >= {n - 60}", timeout=180_000
            )
            notebook.page.wait_for_timeout(3000)
            line_count = notebook.page.evaluate("document.querySelectorAll('.dspynb-body .dspynb-line').length")
            scrolls = notebook.page.evaluate(SCROLL)
            selections = notebook.page.evaluate(SELECT)
            notebook.page.get_by_role("button", name="Stop", exact=True).click()
    return {
        "scroll": statistics.median(scrolls), "slowest scroll": max(scrolls), "select": statistics.median(selections),
        "slowest select": max(selections), "lines": line_count,
    }  # fmt: skip


def main() -> None:
    """Measure, and write the medians."""
    watches = [watch(1000, 500) for _ in range(ROUNDS)]
    records = [apply_events(100_000) for _ in range(ROUNDS)]

    def median(runs: list[dict[str, float]], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    rows = [
        ("1,000 attempts: sent, MB", median(watches, "MB"), 0.3),
        ("1,000 attempts: CPU time of the view, s", median(watches, "s"), 0.1),
        ("1,000 attempts: messages", median(watches, "messages"), ""),
        ("100,000 events applied, s", median(records, "record"), 2.0),
        ("100,000 events applied and converted to rows, s", median(records, "view"), 2.0),
    ]
    if chromium() is not None:
        page = browse(10_000)
        rows += [
            ("10,000 attempts in the browser: scrolling, ms", page["scroll"], 100),
            ("10,000 attempts in the browser: the slowest of 30 scrolls, ms", page["slowest scroll"], 100),
            ("10,000 attempts in the browser: selecting a row, ms", page["select"], 100),
            ("10,000 attempts in the browser: the slowest of 30 selections, ms", page["slowest select"], 100),
            ("10,000 attempts in the browser: lines on the page", page["lines"], ""),
        ]
    lines = [(what, f"{figure:.3g}", limit, today()) for what, figure, limit in rows]
    write_results("view", ["what", "figure", "limit", "date"], lines)


if __name__ == "__main__":
    main()
