"""The right view is opened, it is replaced at the end, and it never disturbs the run."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
import weakref

import pytest

import dspynb as dn
from dspynb.scope import settings
from dspynb.views import attach as attach_module
from dspynb.views.attach import attach
from dspynb.views.terminal import text
from tests.helpers import Caption, echo_hint, scores


def a_refine_module(*values, **more):
    return dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward=scores(*values, feedback="be brief"), n=3, **more)


@pytest.fixture
def outputs(monkeypatch):
    """The outputs of a notebook; each is the list of what it showed, as objects or texts by MIME type."""
    outputs = []

    class Cell:
        def __init__(self, first):
            self.history = [first]
            outputs.append(self.history)

        def replace(self, data):
            self.history.append(data)

    from dspynb.views.live import widget

    monkeypatch.setattr(attach_module, "Cell", Cell)
    monkeypatch.setattr(attach_module, "in_ipython", lambda: True)
    monkeypatch.setattr(widget.LiveWidget, "comm", FakeComm(), raising=False)
    return outputs


class FakeComm:
    """A comm without a front end. It stores the messages that are sent."""

    comm_id = "a-comm"
    kernel = "a kernel"

    def __init__(self):
        self.sent = []
        self.closed = False

    def open(self, *_, **__):
        pass

    def on_msg(self, _):
        pass

    def send(self, data=None, **_):
        assert not self.closed, "nothing may be sent after the end"
        self.sent.append(data)

    def close(self, *_, **__):
        self.closed = True


def test_the_text_view_writes_a_line_an_attempt_and_a_last_line(capsys):
    settings.configure(view="text")
    asyncio.run(a_refine_module(0.0, 0.5, 1.0)(subject="the sea"))
    assert capsys.readouterr().err.splitlines() == [
        "attempt 1  scored  0  feedback: be brief",
        "attempt 2  scored  0.5  hint: be brief  feedback: be brief",
        "attempt 3  passed  1  hint: be brief  feedback: be brief",
        f"{a_refine_module()._title()}: finished, 3 of 3 attempts, best 1",
    ]


def test_a_batch_as_text_ends_with_its_counts(capsys):
    settings.configure(view="text")
    asyncio.run(dn.Predict(Caption, lm=echo_hint()).batch([{"subject": "a"}, {"no": 1}]))
    assert capsys.readouterr().err.strip().endswith("finished, 2 of 2 rows, 1 failed")


def test_a_batch_as_text_says_how_many_of_its_rows_are_done(capsys, monkeypatch):
    settings.configure(view="text")
    seconds = iter(range(1000))
    monkeypatch.setattr(text.time, "monotonic", lambda: next(seconds))
    asyncio.run(
        dn.Predict(Caption, lm=echo_hint()).batch([{"subject": "a"}, {"no": 1}, {"subject": "b"}], concurrency=1)
    )
    assert capsys.readouterr().err.splitlines()[:3] == [
        "1 of 3 rows done, 0 failed",
        "2 of 3 rows done, 1 failed",
        "3 of 3 rows done, 1 failed",
    ]


def test_a_run_that_has_ended_is_written_at_once(capsys):
    run = asyncio.run(a_refine_module(1.0)(subject="the sea")) and dn.last_run()
    attach(run, "text")
    assert "finished, 1 of 3 attempts, best 1" in capsys.readouterr().err


def test_a_view_that_fails_does_not_disturb_the_run(monkeypatch, caplog, capsys):
    settings.configure(view="text")

    def fail(*_):
        raise RuntimeError("no screen")

    monkeypatch.setattr(attach_module, "TextView", fail)
    assert asyncio.run(a_refine_module(1.0)(subject="the sea")).score.value == 1
    assert "could not be opened" in caplog.text
    monkeypatch.setattr(attach_module, "TextView", lambda _: types.SimpleNamespace(changed=fail, open=list))
    assert asyncio.run(a_refine_module(1.0)(subject="the sea")).score.value == 1


def test_html_shows_a_placeholder_that_is_replaced_at_the_end(outputs):
    async def main():
        run = a_refine_module(0.0, 1.0).start(subject="the sea")
        attach(run, "html")
        await run
        attach(run, "html")

    asyncio.run(main())
    first, ended = outputs
    assert first[0]["text/plain"].endswith(": running")
    assert first[1] == ended[0]
    assert "<table" in first[1]["text/html"]
    assert "finished, 2 of 3 attempts, best 1" in first[1]["text/plain"]


def test_the_widget_is_replaced_by_html_closed_and_freed(outputs):
    freed = []

    async def main():
        run = a_refine_module(0.0, 1.0).start(subject="the sea")
        attach(run, "widget")
        widget = outputs[0][0]
        freed.append(weakref.ref(widget))
        comm = widget.comm
        assert widget.get_state("snapshot")["snapshot"]["header"]["kind"] in ("", "refine")
        await run
        assert [m["method"] for m in comm.sent if m["method"] == "custom"]
        assert comm.closed
        assert sorted(outputs[0][1]) == ["text/html", "text/plain"]

    asyncio.run(main())
    outputs[0].clear()
    gc.collect()
    assert freed[0]() is None


def test_stop_from_the_front_end_ends_the_run(outputs):
    async def slow(request):
        await asyncio.sleep(60)

    async def main():
        run = dn.Predict(Caption, lm=dn.FunctionLM(slow)).start(subject="the sea")
        attach(run, "widget")
        await asyncio.sleep(0.05)
        outputs[0][0]._handle_custom_msg({"type": "stop"}, [])
        with pytest.raises(dn.RunStopped):
            await run
        assert run.status == "stopped"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("version", "started", "has_note"), [((6, 31), False, True), ((6, 31), True, False), ((7, 4), False, False)]
)
def test_on_an_old_kernel_an_awaited_run_says_where_stop_works(monkeypatch, version, started, has_note):
    monkeypatch.setitem(sys.modules, "ipykernel", types.SimpleNamespace(version_info=(*version, 0)))
    run = types.SimpleNamespace(is_handle=started)
    assert bool(attach_module._kernel_note(run)) is has_note


def test_without_a_notebook_every_mode_is_text(capsys, monkeypatch):
    monkeypatch.setattr(attach_module, "in_ipython", lambda: False)
    settings.configure(view="widget")
    asyncio.run(a_refine_module(1.0)(subject="the sea"))
    assert "attempt 1  passed  1" in capsys.readouterr().err


def test_as_text_a_resumed_run_does_not_repeat_earlier_rows(capsys):
    requests = []

    async def stops(request):
        requests.append(request)
        if len(requests) == 3:
            dn.last_run().stop()
            await asyncio.sleep(10)
        return "[[ ## sentence ## ]]\nthe sea\n[[ ## completed ## ]]"

    plan = dn.Evaluate(lambda row, p: 1.0, concurrency=1)
    rows = [{"subject": str(i)} for i in range(5)]

    async def main():
        await plan(dn.Predict(Caption, lm=dn.FunctionLM(stops)), rows)
        stopped = dn.last_run()
        run = plan.resume(stopped.path, dn.Predict(Caption, lm=dn.FunctionLM(stops)), rows)
        attach(run, "text")
        await run
        return stopped

    assert asyncio.run(main()).status == "stopped"
    assert capsys.readouterr().err.splitlines() == [
        "Predict(subject: str -> sentence: str): finished, 5 of 5 rows, mean 1"
    ]
