"""The cost of ``track="otel"``: plain calls and evaluated rows with stub models, with and without it.

    python benchmarks/tracking.py

The spans go to a BatchSpanProcessor whose exporter discards them. Writes tracking.csv: the microseconds of CPU time of
the process for each call or row, which are the smallest of several runs, and the number of spans that one of them
sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from report import today, write_results

import dspynb as dn

COUNT = 1000
RUNS = 9


class Discard(SpanExporter):
    """Discards the spans, and counts them."""

    spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count the spans."""
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


def measure(work: Callable[[], object], track: str | None) -> float:
    """Microseconds of CPU time for one call or row."""
    times = []
    with dn.context(track=track):
        for _ in range(RUNS):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return min(times) / COUNT * 1e6


def main() -> None:
    """Measure calls and rows, and write the table."""
    discard = Discard()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(discard, max_queue_size=100_000))
    trace.set_tracer_provider(provider)
    dn.configure(view="off", runs_dir=None, cache=False)
    ask = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda _: "answer: 4"))
    rows = [{"question": str(number), "answer": "4"} for number in range(COUNT)]

    async def calls() -> None:
        for _ in range(COUNT):
            await ask(question="2+2?")

    work = {
        "plain call": lambda: dn.run_sync(calls),
        "evaluated row": lambda: dn.run_sync(lambda: dn.evaluate(ask, rows, lambda *_: 1.0)),
    }
    results = []
    for name, run in work.items():
        run()
        without = measure(run, None)
        before = discard.spans
        tracked = measure(run, "otel")
        provider.force_flush()
        spans = (discard.spans - before) / COUNT / RUNS
        results.append([name, f"{without:.0f}", f"{tracked:.0f}", f"{tracked - without:.0f}", f"{spans:.0f}", today()])
        print(*results[-1], flush=True)
    header = ["with a stub model", "not tracked, µs", 'track="otel", µs', "difference, µs", "spans", "date"]
    write_results("tracking", header, results)


if __name__ == "__main__":
    main()
