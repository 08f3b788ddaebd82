"""The live view sends few messages, loses no change, and never disturbs the run."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

import dspynb as dn
from dspynb.events import RunEnded, RunStarted, SpanStarted
from dspynb.running.record import RunRecord
from dspynb.views.live import live_view
from dspynb.views.live.live_view import LiveView
from dspynb.views.view_model import ViewModel
from tests.evaluation.programs import frame, late, program, right
from tests.views.fakes import FrontEnd, a_batch, a_live_view, a_refine, an_attempt


def expected(events):
    """Key → row, as a front end must show them after these events."""
    return {row["key"]: row for row in ViewModel(RunRecord(events)).payloads()}


def play(events, *, pause=0.0, while_open=lambda view, front: None, note=""):
    """Send events through a live view. Returns its front end."""

    async def main():
        view, run = a_live_view(note)
        front = FrontEnd(view, time.monotonic)
        view.open(front)
        for event in events:
            run.emit(event)
            if pause:
                await asyncio.sleep(pause)
                while_open(view, front)
        while view._scheduled:  # noqa: ASYNC110  # a busy machine sends late
            await asyncio.sleep(0.02)
        return front

    return asyncio.run(main())


@pytest.mark.parametrize("events", [list(a_refine(40)), list(a_batch(300, failing={3, 250, 299}))])
def test_the_deltas_add_up_to_the_present_state(events):
    front = play(events, pause=0.002)
    assert front.rows == expected(events)
    assert len(front.messages) > 2
    assert [m["seq"] for m in front.messages] == list(range(1, len(front.messages) + 1))


def test_at_most_ten_batches_a_second_are_sent():
    front = play(list(a_refine(250))[:-1], pause=0.004)
    gaps = [b - a for a, b in zip(front.times, front.times[1:], strict=False)]
    assert len(gaps) > 3
    assert min(gaps) >= live_view.INTERVAL * 0.98


def test_a_front_end_that_missed_batches_requests_one_snapshot_and_loses_nothing():
    def miss_some(view, front):
        front.deaf = 2 <= len(front.messages) <= 4

    events = list(a_refine(60))
    front = play(events, pause=0.005, while_open=miss_some)
    assert front.snapshot_requests == 1
    assert front.rows == expected(events)


def test_a_front_end_whose_messages_wait_is_sent_snapshots_without_a_request(monkeypatch):
    monkeypatch.setattr(live_view, "_FIRST_PUSH", 0.0)

    def mute(view, front):
        front.snapshot_requests = 0
        front.deaf = len(front.messages) <= 2
        view.message = lambda _: None

    events = list(a_refine(60))
    front = play(events, pause=0.005, while_open=mute, note="on this kernel messages wait")
    assert len(front.rows) > 40


def test_a_page_opened_between_two_batches_misses_no_row():
    async def main():
        view, run = a_live_view()
        first, events = FrontEnd(view), list(a_refine(4))
        view.open(first)
        for event in events[:7]:
            run.emit(event)
        late = FrontEnd(view)  # takes a snapshot now, between two batches
        await asyncio.sleep(0.15)
        late.send(first.messages[-1])
        for event in events[7:]:
            run.emit(event)
        late.send(first.messages[-1])
        assert late.rows == first.rows == expected(events)
        assert late.snapshot_requests == 0

    asyncio.run(main())


def test_events_may_be_emitted_from_other_threads():
    async def main():
        view, run = a_live_view()
        front, events = FrontEnd(view), list(a_refine(6))
        view.open(front)
        searches = [e.parent for e in events if type(e).__name__ == "AttemptStarted"]
        await asyncio.to_thread(lambda: [run.emit(e) for e in events[:2]])

        def work(number):
            for event in an_attempt(searches[0], number):
                run.emit(event)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 21)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        run.emit(events[-1])
        assert len(front.rows) == 20
        assert {row["state"] for row in front.rows.values()} == {"scored"}

    asyncio.run(main())


def test_everything_is_sent_before_the_run_ends_and_nothing_afterwards():
    async def main():
        view, run = a_live_view()
        front, events = FrontEnd(view), list(a_refine(3))
        view.open(front)
        for event in events:
            run.emit(event)
        assert len(front.messages) == 1
        assert front.header["ended"]
        assert len(front.finished) == 1
        run.emit(events[-1])
        view.message({"type": "snapshot"})
        view.message({"type": "stop"})
        await asyncio.sleep(0.15)
        assert len(front.messages) == len(front.finished) == 1

    asyncio.run(main())


def test_a_view_opened_as_the_run_ends_shows_the_end():
    async def main():
        view, run = a_live_view()
        for event in a_refine(2):
            run.emit(event)
        front = FrontEnd(view)
        view.open(front)
        assert len(front.finished) == 1

    asyncio.run(main())


def test_stop_reaches_the_run_and_the_view_says_that_it_is_stopping():
    async def main():
        view, run = a_live_view()
        front, events = FrontEnd(view), list(a_refine(3))
        view.open(front)
        run.emit(events[0])
        await asyncio.sleep(0.15)
        assert not front.header["stopping"]
        view.message({"type": "stop"})
        assert run.stopped
        await asyncio.sleep(0.25)
        assert front.header["stopping"]
        run.emit(RunEnded(span=1, status="stopped"))
        assert not front.header["stopping"]

    asyncio.run(main())


def test_a_front_end_that_fails_is_sent_nothing_until_the_end(caplog):
    class Broken(FrontEnd):
        def send(self, message):
            super().send(message)
            raise OSError("the comm is gone")

    async def main():
        view, run = a_live_view()
        front, events = Broken(view), list(a_refine(3))
        view.open(front)
        for event in events:
            run.emit(event)
            await asyncio.sleep(0.02)
        assert len(front.messages) == 1
        assert len(front.finished) == 1

    asyncio.run(main())
    assert "the comm is gone" in caplog.text


def test_messages_are_plain_json():
    front = play(list(a_refine(3, text="lone \ud800 surrogate")))
    json.dumps(front.messages, allow_nan=False).encode()


def test_of_a_row_that_changes_only_the_changed_fields_are_sent():
    front = play(list(a_refine(12, text="words " * 30)), pause=0.06)
    patches = [row for message in front.deltas for row in message["rows"] if "label" not in row]
    assert patches
    assert all("order" not in patch and "about" not in patch for patch in patches)


def test_the_detail_of_a_row_is_sent_only_on_request():
    def request_details(view, front):
        for key in front.rows:
            view.message({"type": "detail", "key": key})
        view.message({"type": "detail", "key": "unknown"})

    words = "only in the prompt"
    events = list(a_refine(2, hint="Be brief. " * 40 + words))
    front = play(events[:-1], pause=0.12)
    assert words not in json.dumps(front.messages)
    front = play(events[:-1], pause=0.12, while_open=request_details)
    assert words in json.dumps(front.details)
    assert set(front.details) == set(front.rows)


def test_rows_inside_a_row_are_sent_while_it_is_open():
    run = [RunStarted(span=1, kind="evaluate", name="Refine", inputs={"rows": 2})]
    for row in range(2):
        run += [SpanStarted(span=10 + row, parent=1, kind="row", name=f"row {row}", row=row)]
        run += [SpanStarted(span=20 + row, parent=10 + row, kind="search", name="Refine"), *an_attempt(20 + row, 1)]
    parents = []

    def open_row(view, front):
        parents.append({row.get("up") for row in front.rows.values()})
        view.message({"type": "open", "key": "10"})

    front = play([*run, *an_attempt(20, 2)], pause=0.12, while_open=open_row)
    assert next(filter(None, parents)) == {None}
    assert [row["label"] for row in front.rows.values() if row.get("up") == "10"] == ["1", "2"]
    assert front.rows["10"]["kids"] == 2
    assert not [row for row in front.rows.values() if row.get("up") == "11"]


def test_actions_of_a_person_reach_the_run_and_refusals_reach_the_front_end():
    async def main():
        view, run = a_live_view()
        front = FrontEnd(view)
        view.open(front)
        for event in list(a_refine(2))[:-1]:
            run.emit(event)
        view.message({"type": "steer", "action": "hint", "value": "Be brief."})
        view.message({"type": "steer", "action": "hint", "value": ""})
        view.message({"type": "steer", "action": "no such thing"})
        view.message({"type": "steer", "action": "pause"})
        await asyncio.sleep(0.15)
        assert run.hints == [("Be brief.", None)]
        assert front.refused == ["a hint needs words"]
        assert front.header["paused"]
        assert front.header["steerable"] == ["hint", "pause"]

    asyncio.run(main())


def test_nothing_is_sent_to_closed_pages_and_a_page_that_reconnects_has_lost_nothing(monkeypatch):
    monkeypatch.setattr(live_view, "_SILENCE_LIMIT", 0.2)

    async def main():
        view, run = a_live_view()
        front, events = FrontEnd(view), list(a_refine(40))
        view.open(front)
        for event in events[:60]:
            run.emit(event)
            await asyncio.sleep(0.01)
        before = len(front.messages)
        await asyncio.sleep(0.25)
        for event in events[60:-1]:
            run.emit(event)
            await asyncio.sleep(0.005)
        assert len(front.messages) <= before + 1
        view.message({"type": "alive", "seq": front.seq})
        front.snapshot()
        assert front.rows == expected(events[:-1])

    asyncio.run(main())


def test_a_resumed_run_is_watched_to_its_second_end():
    async def main():
        view, run = a_live_view()
        first, resumed = list(a_refine(2, end="stopped")), list(a_refine(3))
        front = FrontEnd(view)
        for event in [*first, resumed[0]]:
            run.emit(event)
        view.open(front)
        for event in resumed[1:]:
            run.emit(event)
            assert len(front.finished) == isinstance(event, RunEnded)
        assert front.header["state"] == "finished"

    asyncio.run(main())


def test_a_view_of_a_run_that_is_about_to_be_resumed_waits_for_its_second_end():
    async def main():
        first, resumed = list(a_refine(2, end="stopped")), list(a_refine(3))
        view, run = a_live_view(events=first)
        front = FrontEnd(view)
        view.open(front)
        assert not front.finished
        for event in resumed:
            run.emit(event)
        assert len(front.finished) == 1
        assert front.header["state"] == "finished"

    asyncio.run(main())


def test_a_view_opened_late_sends_earlier_rows_a_thousand_at_a_time():
    async def main():
        events = list(a_batch(1500, failing={3}))
        view, run = a_live_view(events=events[:-3])
        front = FrontEnd(view)
        view.open(front)
        await asyncio.sleep(0.6)
        assert max(len(message["rows"]) for message in front.deltas) == 1000
        for event in events[-3:]:
            run.emit(event)
        assert front.rows == expected(events)

    asyncio.run(main())


def test_a_page_that_reads_while_threads_emit_sees_whole_events_only():
    async def main():
        view, run = a_live_view()
        run.emit(RunStarted(span=1, kind="refine", name="Refine"))
        run.emit(SpanStarted(span=2, parent=1, kind="search", name="Refine"))

        def work(first):
            for number in range(first, first + 100):
                for event in an_attempt(2, number):
                    run.emit(event)

        threads = [threading.Thread(target=work, args=(first,)) for first in (1, 101, 201, 301)]
        for thread in threads:
            thread.start()
        rows = []
        while any(thread.is_alive() for thread in threads):
            snapshot = view.snapshot()
            rows += snapshot["rows"]
            assert len(snapshot["rows"]) == int(snapshot["header"]["progress"].split()[1])
            await asyncio.sleep(0)
        assert all(("score" in row) == ("outputs" in row) == (row["state"] == "scored") for row in rows)
        assert len(view.snapshot()["rows"]) == 400

    asyncio.run(main())


def test_a_million_characters_are_sent_in_small_pieces():
    def request_details(view, front):
        for key in front.rows:
            view.message({"type": "detail", "key": key})

    front = play(list(a_refine(2, text="x" * 1_000_000))[:-1], pause=0.12, while_open=request_details)
    assert all(len(json.dumps(message)) < 5_000 for message in front.deltas)
    assert 0 < max(len(json.dumps(detail)) for detail in front.details.values()) < 100_000
    assert "[980,000 more characters]" in json.dumps(front.details)


def test_a_run_with_more_rows_than_are_sent_says_so(monkeypatch):
    monkeypatch.setattr("dspynb.views.live.live_view.MOST_SENT", 20)
    monkeypatch.setattr("dspynb.views.view_model.MOST_SENT", 20)
    front = play(list(a_batch(50))[:-1], pause=0.003)
    assert len(front.rows) == 20
    assert front.header["notes"] == ["20 of 50 rows are shown; the run's tables have all of them"]


def watched(start):
    """A front end that watched a real run to its end, and the run. ``start`` begins the run, on a loop."""

    async def main():
        run = start()
        view = LiveView(run, asyncio.get_running_loop())
        front = FrontEnd(view)
        run.watch(view.changed)
        view.open(front)
        async for _ in run.events():
            await asyncio.sleep(0.002)
        return front, run

    return asyncio.run(main())


def test_the_front_end_shows_the_rows_of_a_real_evaluation_in_their_order():
    front, run = watched(lambda: dn.Evaluate(right).start(program(late(most=0.02)), frame(40)))
    assert len(front.deltas) > 1
    assert front.rows == {row["key"]: row for row in ViewModel(run.record).payloads()}
    assert front.entries() == [[1, str(number)] for number in range(40)]
    assert [1, "7"] in front.entries(filter={"words": "14", "state": ""})  # the answer to 7
    assert [1, "8"] not in front.entries(filter={"words": "14", "state": ""})
    assert front.entries(filter={"words": "", "state": "failed"}) == []


def test_the_front_end_shows_the_candidates_of_a_real_optimizer_and_their_rollouts():
    texts = iter(["Double it.", "Double <b>it</b>.", *["Double it."] * 50])
    proposer = dn.FunctionLM(lambda request: f"[[ ## proposed_instruction ## ]]\n{next(texts)}\n[[ ## completed ## ]]")
    copro = dn.COPRO(right, breadth=3, depth=1, prompt_lm=proposer)
    front, run = watched(lambda: copro.start(program(), frame(4, wrong=[1, 3])))
    state = ViewModel(run.record)
    assert front.header["mode"] == "candidates"
    assert front.rows == {row["key"]: row for row in state.payloads()}
    assert front.leads == run.record.front.leads
    assert front.entries(sort={"by": "label", "descending": True}) == [[1, "c2"], [1, "c1"], [1, "c0"]]
