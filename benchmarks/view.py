"""What watching costs: the kernel's time and bytes, the record of many events, and the browser's answer to 10,000 rows.

    python benchmarks/view.py

The kernel's part plays the events of attempts through the live view at 500 attempts a second, with a front end that
takes what is sent as the widget does, as JSON; processor time of the view's own functions only. The browser's part
needs Chromium and JupyterLab: 10,000 attempts of a stub are shown live, and the page is scrolled and rows are chosen
while the run still goes on. Writes benchmarks/view.csv: medians of several runs, and the slowest where it says so.
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

from report import today, written

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


class Watched:
    """As much of a run as a view needs."""

    id, done, stopped, paused, steerable = "a-run", False, False, False, frozenset({"hint", "pause"})

    def __init__(self) -> None:
        self.record = RunRecord()

    def stop(self) -> None:
        """Nothing to stop."""


class Comm:
    """A front end that takes messages as JSON and says now and then that it is there."""

    def __init__(self, view: live_view.LiveView) -> None:
        self.view, self.bytes, self.messages = view, 0, 0

    def send(self, message: dict[str, Any]) -> None:
        """Count it."""
        self.bytes += len(json.dumps(message))
        self.messages += 1

    def snapshot(self) -> None:
        """Count the whole state."""
        self.send(self.view.snapshot())

    def finish(self, state: ViewModel) -> None:
        """The end: what is left in the page is another matter."""


def timed(cls: type, names: list[str], spent: list[float]) -> Callable[[], None]:
    """Count the processor time of methods; give the function that undoes it."""
    before = {name: getattr(cls, name) for name in names}

    def counted(method: Any) -> Any:
        def inner(self: Any, *given: Any) -> Any:
            began = time.process_time()
            try:
                return method(self, *given)
            finally:
                spent[0] += time.process_time() - began

        return inner

    for name, method in before.items():
        setattr(cls, name, counted(method))
    return lambda: [setattr(cls, name, method) for name, method in before.items()] and None


def watched(n: int, a_second: int) -> dict[str, float]:
    """``n`` attempts through the live view."""
    spent = [0.0]
    undo = timed(live_view.LiveView, ["changed", "_flush", "message"], spent)

    async def main() -> Comm:
        run = Watched()
        view = live_view.LiveView(run, asyncio.get_running_loop())
        comm = Comm(view)
        view.open(comm)
        began = time.monotonic()
        for i, event in enumerate(attempts(n)):
            view.changed(run.record.apply(event))
            if i % 30 == 0:
                await asyncio.sleep(max(0.0, began + i / 3 / a_second - time.monotonic()))
        return comm

    try:
        comm = asyncio.run(main())
    finally:
        undo()
    return {"MB": comm.bytes / 1e6, "messages": comm.messages, "s": spent[0]}


def folded(n: int) -> dict[str, float]:
    """Seconds in which ``n`` events become what a view shows."""
    events = list(attempts(n // 3))
    began = time.process_time()
    RunRecord(events)
    middle = time.process_time()
    state = ViewModel(RunRecord())
    for event in events:
        state.note(state.record.apply(event))
    state.take_changes()
    return {"record": middle - began, "view": time.process_time() - middle, "events": len(events)}


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
    const grid = document.querySelector('.dspynb-grid'), took = [];
    for (let i = 0; i < 30; i++) {
        const began = performance.now();
        grid.scrollTop = ((i * 7919) % 997) / 997 * grid.scrollHeight;
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        took.push(performance.now() - began);
    }
    return took;
}"""
CHOOSE = """async () => {
    const grid = document.querySelector('.dspynb-grid'), took = [];
    grid.focus();
    for (let i = 0; i < 30; i++) {
        const began = performance.now();
        const key = ['PageDown', 'ArrowDown', 'End', 'ArrowUp', 'Home', 'PageDown'][i % 6];
        grid.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        took.push(performance.now() - began);
        await new Promise(done => setTimeout(done, 150));
    }
    return took;
}"""


def browsed(n: int) -> dict[str, float]:
    """Milliseconds of a page with ``n`` attempts of a run that still goes on."""
    with Lab(Path(tempfile.mkdtemp())) as lab:
        lab.write("many.ipynb", CELL.format(n=n, sentence=SENTENCE))
        with lab.browser() as context:
            opened = lab.open(context, "many.ipynb")
            opened.run_all()
            opened.page.wait_for_function(
                f"() => +document.querySelector('.dspynb-grid')?.ariaRowCount >= {n - 60}", timeout=180_000
            )
            opened.page.wait_for_timeout(3000)
            shown = opened.page.evaluate("document.querySelectorAll('.dspynb-body .dspynb-line').length")
            scrolls, choices = opened.page.evaluate(SCROLL), opened.page.evaluate(CHOOSE)
            opened.page.get_by_role("button", name="Stop", exact=True).click()
    return {
        "scroll": statistics.median(scrolls), "scroll most": max(scrolls), "choose": statistics.median(choices),
        "choose most": max(choices), "lines": shown,
    }  # fmt: skip


def main() -> None:
    """Measure, write the medians."""
    seen = [watched(1000, 500) for _ in range(ROUNDS)]
    records = [folded(100_000) for _ in range(ROUNDS)]

    def median(runs: list[dict[str, float]], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    rows = [
        ("1,000 attempts: sent, MB", median(seen, "MB"), 0.3),
        ("1,000 attempts: processor time of the view, s", median(seen, "s"), 0.1),
        ("1,000 attempts: messages", median(seen, "messages"), ""),
        ("100,000 events folded, s", median(records, "record"), 2.0),
        ("100,000 events folded and made into rows, s", median(records, "view"), 2.0),
    ]
    if chromium() is not None:
        page = browsed(10_000)
        rows += [
            ("10,000 attempts in the browser: scrolling, ms", page["scroll"], 100),
            ("10,000 attempts in the browser: the slowest of 30 scrolls, ms", page["scroll most"], 100),
            ("10,000 attempts in the browser: choosing a row, ms", page["choose"], 100),
            ("10,000 attempts in the browser: the slowest of 30 choices, ms", page["choose most"], 100),
            ("10,000 attempts in the browser: lines on the page", page["lines"], ""),
        ]
    lines = [(what, f"{figure:.3g}", most, today()) for what, figure, most in rows]
    written("view", ["what", "figure", "wanted at most", "date"], lines)


if __name__ == "__main__":
    main()
