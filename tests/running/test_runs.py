"""Runs: stopping, files, reopening, listeners."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.data import Usage
from dspynb.errors import DamagedFileWarning, InputError, JournalError, RunStopped, ScopeError
from dspynb.events import AttemptEnded, NotRecorded, PredictorCalled, RolloutEnded, RunEnded
from dspynb.running import read_journal
from dspynb.running.journal import flush_journals, write_journal
from dspynb.running.journal_reader import _lines_from_end
from tests.helpers import Caption, chat, echo_hint, scores


def slow(seconds=0.05, sentence="red"):
    calls = []

    async def answer(request):
        calls.append(request)
        await asyncio.sleep(seconds)
        return chat(sentence=sentence)

    lm = dn.FunctionLM(answer)
    lm.calls = calls
    return lm


def slow_after(quick):
    """A model that answers ``quick`` calls at once, and further ones after ten minutes."""
    calls, slow = [], asyncio.Event()

    async def answer(request):
        calls.append(request)
        if len(calls) > quick:
            slow.set()
            await asyncio.sleep(600)
        return chat(sentence="red")

    lm = dn.FunctionLM(answer)
    lm.calls, lm.slow = calls, slow
    return lm


def refine(lm, n=50, **kwargs):
    return dn.Refine(dn.Predict(Caption, lm=lm), lambda r, p: 0.5, n=n, hints=lambda a, p, i: "try again", **kwargs)


def test_start_returns_at_once_and_the_handle_is_awaited():
    async def main():
        run = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 1, feedback="f"), n=2).start(subject="x")
        assert run.status == "pending"
        assert (await run).sentence == "f"
        assert (await run).sentence == "f"
        return run

    run = asyncio.run(main())
    assert (run.status, run.done, run.best.sentence) == ("finished", True, "f")


@pytest.mark.parametrize("how", ["run_sync", "asyncio.run"])
def test_where_sigint_is_ignored_a_run_ignores_it_too(how):
    def answer(request):
        signal.raise_signal(signal.SIGINT)
        return chat(sentence="red")

    program = refine(dn.FunctionLM(answer), n=2)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        prediction = program.run_sync(subject="x") if how == "run_sync" else asyncio.run(program(subject="x"))
        assert (prediction.sentence, dn.last_run().status) == ("red", "finished")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("width", [1, 4])
def test_stop_gives_the_best_so_far_and_no_call_starts_afterwards(width):
    async def main():
        lm = slow_after(width)
        run = refine(lm, width=width).start(subject="x")
        await lm.slow.wait()
        run.stop()
        prediction = await run
        calls_before = len(lm.calls)
        await asyncio.sleep(0.1)
        assert len(lm.calls) == calls_before
        return run, prediction

    run, prediction = asyncio.run(main())
    assert prediction.sentence == "red"
    assert run.status == "stopped"
    assert run.attempts.best.sum() == 1
    assert prediction.run.attempts.equals(run.attempts)
    assert "cancelled" in run.attempts.error.tolist()


def test_stop_before_anything_finished_raises_run_stopped_with_the_run():
    async def main():
        run = refine(slow(5)).start(subject="x")
        await asyncio.sleep(0.02)
        run.stop()
        with pytest.raises(RunStopped) as caught:
            await run
        assert caught.value.run is run

    asyncio.run(main())


def test_stop_ends_a_run_that_a_caller_awaits_and_the_caller_continues():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(0.12, lambda: dn.last_run().stop())
        prediction = await refine(slow())(subject="x")
        await asyncio.sleep(0)
        return prediction

    assert asyncio.run(main()).sentence == "red"


def test_stop_at_once_makes_no_call():
    async def main():
        lm = slow()
        run = refine(lm).start(subject="x")
        run.stop()
        with pytest.raises(RunStopped):
            await run
        assert lm.calls == []

    asyncio.run(main())


def test_cancellation_from_outside_is_raised_unchanged_and_the_handle_has_the_attempts():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.12):
                await refine(slow())(subject="x")
        assert dn.last_run().status == "cancelled"
        assert len(dn.last_run().attempts) >= 2
        task = asyncio.create_task(refine(slow())(subject="x"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not isinstance(caught.value, dn.RunInterrupted)

    asyncio.run(main())


def test_start_without_a_loop_says_what_to_do():
    with pytest.raises(ScopeError, match="run_sync"):
        refine(slow()).start(subject="x")


def test_a_run_is_a_file_that_reopens_with_the_same_tables(tmp_path):
    prediction = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 1, feedback="f"), n=2).run_sync(subject="x")
    run = dn.last_run()
    reopened = dn.open_run(run.id)
    assert reopened.status == "finished"
    assert reopened.attempts.to_dict() == prediction.run.attempts.to_dict()
    assert repr(reopened.diff(1, 2)) == repr(run.diff(1, 2))
    assert reopened.calls.messages.tolist() == [[dict(m) for m in ms] for ms in run.calls.messages]
    listed = dn.runs()
    assert listed.id.tolist() == [run.id]
    assert listed.status.tolist() == ["finished"]


def test_run_files_are_for_their_owner_only():
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).run_sync(subject="x")
    path = dn.runs().path[0]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_a_run_file_is_in_the_working_directory_in_which_its_run_began(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    dn.configure(runs_dir="runs")

    async def model(request):
        os.chdir(tmp_path / "elsewhere")
        return chat(sentence="s")

    dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(model)), scores(1), n=1).run_sync(subject="x")
    flush_journals()
    assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "runs"]


def test_a_resumed_run_is_written_to_its_file_whatever_the_working_directory_is(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    dn.configure(runs_dir="runs")
    evaluate, rows = dn.Evaluate(lambda row, p: 1.0), [{"subject": "x"}, {"subject": "y"}]
    evaluate.run_sync(dn.Predict(Caption, lm=echo_hint()), rows)
    flush_journals()
    (path,) = Path("runs").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: next(i for i, line in enumerate(lines) if b"RolloutEnded" in line)]))

    async def model(request):
        os.chdir(tmp_path / "elsewhere")
        return chat(sentence="s")

    program = dn.Predict(Caption, lm=dn.FunctionLM(model))
    dn.run_sync(lambda: evaluate.resume(path, program, rows))
    flush_journals()
    assert list(tmp_path.rglob("*.jsonl")) == [tmp_path / path]
    assert dn.open_run(tmp_path / path).status == "finished"


def test_no_run_files_are_written_without_a_runs_dir(tmp_path):
    dn.configure(runs_dir=None)
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).run_sync(subject="x")
    assert dn.last_run().path is None
    assert len(dn.last_run().attempts) == 1


def test_a_run_succeeds_even_if_its_folder_cannot_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    dn.configure(runs_dir=str(tmp_path / "file" / "runs"))
    assert dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).run_sync(subject="x")
    with pytest.raises(JournalError):
        dn.open_run(dn.last_run().id)
    assert "could not be written" in caplog.text


def test_an_incomplete_last_line_is_dropped_and_the_rest_is_read():
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 1), n=2, hints="feedback").run_sync(subject="x")
    path = Path(dn.runs().path[0])
    whole = path.read_bytes()
    starts = [i + 1 for i, byte in enumerate(whole[:-1]) if byte == 10]
    for cut in range(starts[0], len(whole), 7):
        path.write_bytes(whole[:cut])
        run = dn.open_run(path)
        assert len(run.attempts) <= 2
        assert run.status in ("unfinished", "pending", "finished")
        assert dn.runs().status.tolist() == [run.status]


def test_the_list_of_runs_reads_the_end_of_each_file_and_not_the_lines_between():
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(0, 1), n=2, hints="feedback").run_sync(subject="x")
    path = Path(dn.runs().path[0])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = b"what cannot be read\n"
    path.write_bytes(b"".join(lines))
    with pytest.warns(DamagedFileWarning, match=f"1 damaged line: {len(lines) // 2 + 1} "):
        dn.open_run(path)
    assert dn.runs()[["kind", "status"]].to_dict("records") == [{"kind": "refine", "status": "finished"}]
    assert dn.runs().started.notna().all()


def test_the_list_agrees_with_the_whole_file_wherever_a_write_was_cut_and_however_long_lines_are(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    path = tmp_path / "x.jsonl"
    long = {
        "type": "SpanStarted",
        "span": 2,
        "kind": "row",
        "name": '\n{"type":"RunEnded"' + "x" * 300_000,
        "inputs": {},
    }
    began = {"type": "RunStarted", "span": 1, "kind": "evaluate", "name": "e"}
    ended = {"type": "RunEnded", "span": 1, "status": "stopped"}
    events = [began, long, ended, began, {**long, "span": 4}, {**ended, "error": "y" * 200_000}, {**long, "span": 3}]
    lines = [json.dumps(line, separators=(",", ":")) for line in ({"dspynb": 1, "id": "x"}, *events)]
    for count in range(1, len(lines) + 1):
        for cut in (0, 1, 2, 100_000):
            path.write_text(("\n".join(lines[:count]) + "\n")[: -cut or None])
            if path.stat().st_size > len(lines[0]):
                assert dn.runs().status.tolist() == [dn.open_run(path).status], (count, cut)


def test_a_file_that_is_truncated_while_its_end_is_read_does_not_crash_the_process(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"dspynb":1}\n' + (b"x" * 999 + b"\n") * 1_000)
    with path.open("rb") as stream:
        lines = _lines_from_end(stream)
        assert next(lines) == b""
        os.truncate(path, 20)
        assert b"".join(lines).startswith(b"x")


def test_a_file_that_is_no_run_file_is_listed_as_unreadable(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.jsonl").write_text("not json\n")
    assert dn.runs()[["id", "status"]].to_numpy().tolist() == [["empty", "unreadable"], ["other", "unreadable"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no header"),
        ("not json\n", "no header"),
        ('{"dspynb": 999}\n', "format 999.*upgrade"),
        ('{"dspynb": true}\n', "no header"),
        ('["dspynb"]\n', "no header"),
    ],
)
def test_opening_a_file_that_is_no_run_file_is_an_error(tmp_path, content, says):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(JournalError, match=says):
        dn.open_run(path)


def test_an_event_of_a_newer_version_is_skipped(tmp_path):
    path = tmp_path / "x.jsonl"
    lines = [
        {"dspynb": 1, "id": "x"},
        {"type": "Teleported", "span": 3},
        {"type": "RunEnded", "span": 1, "status": "stopped"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    header, events = read_journal(path)
    assert header["id"] == "x"
    assert [type(e) for e in events] == [RunEnded]


def test_fields_with_their_default_value_are_left_out_of_a_run_file_and_read_back(tmp_path):
    common = {"predictor": "p", "uid": "u", "inputs": {}, "messages": ()}
    plain = PredictorCalled(span=2, requested={}, **common)
    full = PredictorCalled(
        span=3,
        requested={"seed": None},
        reply="",
        hint="",
        outputs={},
        rollout=1,
        cached=True,
        usage=Usage(1),
        **common,
    )
    ended = RolloutEnded(span=4, row=0, score=0.0, metrics={"exact": 0.0}, metric_usage=Usage(usd=None))
    path = tmp_path / "x.jsonl"
    write_journal(path, {"id": "x"}, [plain, full, ended])
    assert read_journal(path)[1] == [plain, full, ended]
    first_line = json.loads(path.read_text().splitlines()[1])
    assert first_line.keys() == {"type", "span", "at", "predictor", "uid", "inputs", "messages", "requested"}


def test_the_settings_of_a_call_without_settings_differ_from_those_of_an_old_file(tmp_path):
    call = PredictorCalled(span=2, predictor="p", uid="u", inputs={}, messages=(), requested={})
    path = tmp_path / "x.jsonl"
    write_journal(path, {"id": "x"}, [call])
    assert not isinstance(read_journal(path)[1][0].requested, NotRecorded)
    path.write_text(path.read_text().replace(',"requested":{}', ""))
    assert isinstance(read_journal(path)[1][0].requested, NotRecorded)


def test_a_listener_that_fails_is_removed_and_the_run_continues(caplog):
    class Broken:
        def emit(self, event):
            raise RuntimeError("broken view")

    async def main():
        run = dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).start(subject="x")
        run.listen(Broken())
        return await run

    assert asyncio.run(main()).score.value == 1.0
    assert "was dropped" in caplog.text


def test_events_can_be_followed_while_the_run_continues():
    async def main():
        run = dn.Refine(dn.Predict(Caption, lm=slow(0.01)), scores(0, 0, 1, feedback="f"), n=3).start(subject="x")
        return [event async for event in run.events()]

    events = asyncio.run(main())
    assert sum(isinstance(e, AttemptEnded) for e in events) == 3
    assert isinstance(events[-1], RunEnded)


def test_a_diff_of_an_unknown_attempt_lists_the_known_ones():
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).run_sync(subject="x")
    with pytest.raises(InputError, match="no attempt 7; there are 1"):
        dn.last_run().diff(1, 7)


def test_a_diff_shows_the_words_that_changed_and_escapes_the_rest():
    reward = lambda r, p: dn.Score(0, "<script>x</script>")  # noqa: E731
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2).run_sync(subject="x")
    diff = dn.last_run().diff(1, 2)
    assert "{+\n\nHint: <script>x</script>+}" in repr(diff)
    assert "<script>" not in diff._repr_html_()
    assert "&lt;script&gt;" in diff._repr_html_()


def test_batch_keeps_order_and_gives_each_row_its_result_or_its_error():
    def answer(request):
        if "bad" in str(request.messages):
            raise RuntimeError("no")
        return chat(sentence="ok")

    predict = dn.Predict(Caption, lm=dn.FunctionLM(answer))
    rows = [{"subject": "a"}, {"subject": "bad"}, {"wrong": 1}, {"subject": "b"}]
    results = asyncio.run(predict.batch(rows, concurrency=2))
    assert [type(r).__name__ for r in results] == ["Prediction", "RuntimeError", "InputError", "Prediction"]
    assert dn.last_run().status == "finished"


def test_a_stopped_batch_keeps_the_rows_that_finished():
    async def main():
        predict = dn.Predict(Caption, lm=slow(0.03))
        earlier_run = dn.last_run()
        batch = asyncio.ensure_future(predict.batch([{"subject": str(i)} for i in range(20)], concurrency=2))
        while dn.last_run() is earlier_run or len(dn.last_run().record.calls) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        dn.last_run().stop()
        return await batch

    results = asyncio.run(main())
    assert len(results) == 20
    kinds = [type(r).__name__ for r in results]
    assert kinds[:2] == ["Prediction"] * 2
    assert set(kinds[10:]) == {"RunStopped"}


def test_stop_reaches_a_run_on_another_threads_loop():
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: asyncio.run(refine(slow())(subject="x")))
        while dn.last_run() is None or len(dn.last_run().record.calls) < 2 or dn.last_run().done:
            time.sleep(0.01)
        dn.last_run().stop()
        assert future.result(5).sentence == "red"
    assert dn.last_run().status == "stopped"


def test_writing_a_run_file_consumes_no_iterator_and_records_values_as_they_were():
    class Program(dn.Module):
        async def forward(self, items, box):
            box.append(9)
            return {"answer": list(items)}

    box = [1]
    search = dn.BestOfN(Program(), lambda r, p: 1.0, n=1)
    prediction = asyncio.run(search(items=(i for i in range(3)), box=box))
    assert prediction.answer == [0, 1, 2]
    search_span = next(s for s in dn.open_run(dn.last_run().id).record.spans.values() if s.kind == "search")
    assert search_span.inputs["box"] == [1]


def test_a_value_that_cannot_be_written_does_not_affect_other_values():
    class Unshowable:
        def __repr__(self):
            raise RuntimeError("no")

    circular = []
    circular.append(circular)
    deep = []
    for _ in range(2000):
        deep = [deep]

    class Program(dn.Module):
        async def forward(self, subject):
            return {"odd": circular, "deep": deep, "bad": Unshowable(), "good": "intact"}

    asyncio.run(dn.BestOfN(Program(), lambda r, p: 1.0, n=1)(subject="x"))
    assert dn.open_run(dn.last_run().id).attempts.good.tolist() == ["intact"]


def test_stop_cancels_calls_in_tasks_that_the_program_created():
    lm = slow(5)

    class Program(dn.Module):
        def __init__(self):
            self.predict = dn.Predict(Caption, lm=lm)
            self.ended = []

        async def call(self):
            try:
                await self.predict(subject="x")
            finally:
                self.ended.append(time.perf_counter())

        async def forward(self, subject):
            await asyncio.wait([asyncio.create_task(self.call()) for _ in range(2)])

    async def main():
        program = Program()
        run = program.start(subject="x")
        await asyncio.sleep(0.05)
        run.stop()
        with pytest.raises(RunStopped):
            await run
        await asyncio.sleep(0.05)
        assert len(program.ended) == 2

    asyncio.run(main())


def test_a_row_whose_program_was_cancelled_from_inside_does_not_stop_the_others():
    class Program(dn.Module):
        async def forward(self, subject):
            if subject == "bad":
                task = asyncio.create_task(asyncio.sleep(5))
                task.cancel()
                await task
            return {"sentence": subject}

    results = asyncio.run(Program().batch([{"subject": s} for s in ("a", "bad", "b")]))
    assert [type(r).__name__ for r in results] == ["Prediction", "UserCodeExit", "Prediction"]


def test_a_run_file_is_opened_by_its_path_after_the_working_directory_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dn.configure(runs_dir="runs")
    dn.Refine(dn.Predict(Caption, lm=echo_hint()), scores(1), n=1).run_sync(subject="x")
    monkeypatch.chdir("/")
    assert dn.open_run(dn.last_run().path).status == "finished"


def test_a_function_can_be_removed_as_a_listener_and_other_objects_are_refused():
    received = []

    async def main():
        run = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4")).start(question="2+2?")
        run.listen(received.append)
        run.unlisten(received.append)
        with pytest.raises(dn.errors.InputError, match="listen takes a function of an event, .* got int"):
            run.listen(5)
        await run

    asyncio.run(main())
    assert received == []
