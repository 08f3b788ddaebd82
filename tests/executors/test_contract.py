"""What every executor must do: a function that runs on it has the same result, errors, events and charges."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.events import PredictorCalled, SpanEnded, SpanStarted, new_span
from dspynb.running.executor import Executor, elsewhere
from dspynb.scope import Allowance, CallContext, Layer, Meter, RolloutId, Sampling, current_scope, setting
from tests.executors.programs import doubled
from tests.helpers import Caption, chat

run = asyncio.run


class LocalExecutor:
    """The smallest executor: it runs everything on the event loop that awaits it."""

    def carry(self, fn, once=()):
        return fn


@pytest.fixture(params=["local", "dask"])
def executor(request):
    return LocalExecutor() if request.param == "local" else request.getfixturevalue("dask")


def test_it_has_the_protocol_of_an_executor(executor):
    assert isinstance(executor, Executor)


async def added(a, b=1, *, c=0):
    return a + b + c


def test_arguments_and_results_are_those_of_the_function(executor):
    carried = elsewhere(executor, added, once=("a",))

    async def main():
        return await asyncio.gather(*(carried([i], b=[2], c=[3]) for i in range(20)))

    assert run(main()) == [[i, 2, 3] for i in range(20)]
    assert carried.__name__ == "added"


async def failing():
    raise ValueError("what was wrong")


async def running_out():
    current_scope().emit(SpanStarted(span=new_span(), kind="tool", name="before"))
    raise dn.BudgetExhausted("it is spent")


class EventRecorder:
    def __init__(self):
        self.events = []

    def emit(self, event):
        self.events.append(event)


def test_errors_and_control_flow_are_raised_after_the_events_before_them(executor):
    async def main():
        with pytest.raises(ValueError, match="what was wrong"):
            await elsewhere(executor, failing)()
        recorder = EventRecorder()
        with pytest.raises(dn.BudgetExhausted, match="it is spent"), Layer("a run", trace=recorder):
            await elsewhere(executor, running_out)()
        return [event.name for event in recorder.events]

    assert run(main()) == ["before"]


async def nested():
    scope, outer, inner = current_scope(), new_span(), new_span()
    scope.emit(SpanStarted(span=outer, parent=scope.open_span, kind="module", name="outer"))
    scope.emit(SpanStarted(span=inner, parent=outer, kind="module", name="inner"))
    scope.emit(SpanEnded(span=inner, parent=outer, outputs={"x": 1}))
    return "done"


def test_events_reach_the_awaiting_scope_with_span_numbers_of_this_process(executor):
    async def main():
        recorder, own_span = EventRecorder(), new_span()
        with Layer("a run", span=own_span, trace=recorder):
            for _ in range(2):
                await elsewhere(executor, nested)()
        return own_span, recorder.events

    own_span, events = run(main())
    spans = [event.span for event in events]
    assert [event.parent for event in events] == [own_span, spans[0], spans[0], own_span, spans[3], spans[3]]
    assert len({own_span, *spans}) == 5
    assert new_span() > max(spans)


async def read_scope(predict):
    scope = current_scope()
    return (
        dn.current_hint(),
        dn.current_hint(predict),
        scope.context.sampling.rollout.number,
        scope.context.sampling.settings,
        setting("concurrency"),
        dn.current_attempt() and dn.current_attempt().number,
        (await predict(subject="x")).sentence,
    )


def test_hints_candidate_and_settings_are_in_force(executor):
    predict = dn.Predict(Caption, lm=dn.FunctionLM(lambda request: chat(sentence=str("Say it" in str(request)))))

    async def main():
        with (
            dn.hints("h"),
            dn.hints({predict: "own"}),
            dn.candidate({"self": "Say it"}, of=predict),
            dn.context(concurrency=3),
            Layer("an attempt", context=CallContext(sampling=Sampling(RolloutId(7), {"temperature": 0.5}))),
        ):
            return await elsewhere(executor, read_scope, once=("predict",))(predict)

    assert run(main()) == ("h", "h\nown", 7, {"temperature": 0.5}, 3, None, "True")


async def asking(times, funds=None):
    with Layer(None, funds=funds):
        predict = dn.Predict("question -> answer", lm=dn.FunctionLM(doubled))
        return [(await predict(question=str(i))).answer for i in range(times)]


@pytest.mark.parametrize(("granted", "times", "remaining"), [(2, 1, 9), (2, 2, 8), (2, 5, 5), (0, 3, 7), (10, 10, 0)])
def test_calls_are_charged_once_and_unused_calls_are_given_back(executor, granted, times, remaining):
    async def main():
        meter = Meter(dn.Budget(calls=10))
        with Layer(None, funds=meter):
            funds = None
            if granted:
                current_scope().take(granted)
                funds = Allowance(current_scope(), granted)
            answers = await elsewhere(executor, asking)(times, funds=funds)
            if funds is not None:
                funds.close()
        return answers, meter.left["calls"]

    assert run(main()) == ([str(2 * i) for i in range(times)], remaining)


def test_no_call_is_made_beyond_the_budget(executor):
    async def main():
        recorder, meter = EventRecorder(), Meter(dn.Budget(calls=3))
        with pytest.raises(dn.BudgetExhausted, match="the budget of 3 calls is spent"):
            with Layer("a run", funds=meter, trace=recorder):
                await elsewhere(executor, asking)(5)
        return meter.spent["calls"], sum(isinstance(event, PredictorCalled) for event in recorder.events)

    assert run(main()) == (3, 3)


async def sleeping():
    await asyncio.sleep(30)


def test_a_cancelled_caller_returns_at_once(executor):
    async def main():
        loop = asyncio.get_running_loop()
        task = loop.create_task(elsewhere(executor, sleeping)())
        await asyncio.sleep(0.3)
        began = loop.time()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), loop.time() - began

    cancelled, seconds = run(main())
    assert cancelled
    assert seconds < 10  # it sleeps for 30 s
