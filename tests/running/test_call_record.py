"""What the record of a call holds: its times, its request, and its end."""

from __future__ import annotations

import asyncio
import time

import pytest

import dspynb as dn
from dspynb.running.journal import flush_journals
from dspynb.scope.gate import GATE
from tests.helpers import chat
from tests.lm.server import Server, reply, sse
from tests.lm.server import error as server_error


def lm(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key="none", cache=False, **settings)


def test_the_wait_for_a_slot_is_apart_from_the_work_of_a_call():
    held = []

    async def answer(body, number):
        if number == 1:
            began = time.perf_counter()
            await asyncio.sleep(0.2)
            held.append(time.perf_counter() - began)
        return chat(answer="4")

    async def main(ask):
        began = time.perf_counter()
        await ask.batch([{"question": str(i)} for i in range(3)])
        return time.perf_counter() - began

    with Server(answer) as server:
        ask = dn.Predict("question -> answer", lm=lm(server, concurrency=1))
        whole = asyncio.run(main(ask))
    calls = dn.last_run().calls.sort_values("waited")
    assert calls.waited.iloc[0] < calls.waited.iloc[1]
    assert (calls.waited.iloc[1:] >= held[0]).all()
    assert (calls.seconds + calls.waited <= whole).all()
    assert (calls.seconds.iloc[1:] <= whole - held[0]).all()


def test_the_wait_before_a_retry_is_apart_from_the_work_of_a_call():
    def answer(body, number):
        return server_error(429, "slow down", **{"retry-after": "0.2"}) if number == 1 else chat(answer="4")

    with Server(answer) as server:
        prediction = dn.Predict("question -> answer", lm=lm(server)).run_sync(question="?")
    (call,) = prediction.calls
    assert call.waited >= 0.2
    assert prediction.usage.seconds <= call.seconds


def test_the_wait_while_a_run_is_paused_is_apart_from_the_work_of_a_call():
    async def main(ask):
        run = ask.start(question="?")
        run.pause()
        while not GATE._waiting:  # the call has reached the gate  # noqa: ASYNC110
            await asyncio.sleep(0)
        began = time.perf_counter()
        await asyncio.sleep(0.05)
        paused = time.perf_counter() - began
        run.unpause()
        await run
        return run.calls, paused

    with Server(lambda body, number: chat(answer="4")) as server:
        calls, paused = asyncio.run(main(dn.Predict("question -> answer", lm=lm(server))))
    assert calls.waited.tolist()[0] >= paused


def test_a_streamed_call_has_the_time_to_its_first_piece():
    with Server(streamed=[sse(list(chat(answer="Paris")))]) as server:
        ask = dn.Predict("question -> answer", lm=lm(server))

        async def main():
            return [part async for part in ask.stream(question="?")][-1]

        streamed = asyncio.run(main()).calls[0]
    assert 0 < streamed.first_token <= streamed.seconds


def test_a_call_that_is_not_streamed_has_no_time_to_its_first_piece():
    with Server(lambda body, number: chat(answer="4")) as server:
        (call,) = dn.Predict("question -> answer", lm=lm(server)).run_sync(question="?").calls
    assert call.first_token is None


def test_the_providers_ids_and_its_finish_reason_are_recorded():
    from aiohttp import web

    body = {**reply(chat(answer="4")), "id": "chatcmpl-7"}
    with Server(lambda *_: web.json_response(body, headers={"x-request-id": "req-9"})) as server:
        (call,) = dn.Predict("question -> answer", lm=lm(server)).run_sync(question="?").calls
    assert (call.request_id, call.response_id, call.finish) == ("req-9", "chatcmpl-7", "stop")


def test_the_model_of_the_response_and_the_server_are_recorded_without_path_and_password():
    with Server(lambda body, number: {**reply(chat(answer="4")), "model": "m-2026"}) as server:
        address = server.base.replace("http://", "http://user:pass-word@")
        model = dn.LM("openai/m", api_base=address, cache=False, retries=0)
        (call,) = dn.Predict("question -> answer", lm=model).run_sync(question="?").calls
    assert call.response_model == "m-2026"
    assert call.server == f"127.0.0.1:{server.port}"
    with pytest.raises(dn.errors.ModelError):  # nothing listens there any more
        dn.Predict("question -> answer", lm=model).run_sync(question="?")
    assert dn.last_run().record.calls[0].server == f"127.0.0.1:{server.port}"


def test_a_reply_without_a_model_and_a_model_without_a_server_have_none():
    body = reply(chat(answer="4"))
    del body["model"]
    with Server(lambda *_: body) as server:
        (call,) = dn.Predict("question -> answer", lm=lm(server)).run_sync(question="?").calls
    assert call.response_model is None
    (call,) = dn.Predict("question -> answer", lm=dn.ScriptedLM(["answer: 4"])).run_sync(question="?").calls
    assert (call.server, call.response_model) == (None, None)


def test_the_schema_of_a_request_are_recorded_and_in_the_file(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    with Server(lambda body, number: '{"answer": "4"}') as server:
        ask = dn.Predict("question -> answer", lm=lm(server), adapter="json")
        dn.Evaluate(lambda row, prediction: 1.0).run_sync(ask, [{"question": "?"}])
    run = dn.last_run()
    flush_journals()
    for calls in (run.calls, dn.open_run(run.path).calls):
        assert list(calls.response_format[0]["properties"]) == ["answer"]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_call_that_was_stopped_or_cancelled_is_recorded_with_its_error(stopped):
    async def main(ask, begun):
        run = ask.start(question="?")
        await begun.wait()
        if stopped:
            run.stop()
        else:
            run.task.cancel()
        await asyncio.wait([run.task])
        return run

    begun = asyncio.Event()

    async def answer(request):
        begun.set()
        await asyncio.Event().wait()

    run = asyncio.run(main(dn.Predict("question -> answer", lm=dn.FunctionLM(answer)), begun))
    assert run.calls.error.tolist()[0].startswith("CancelledError")
    assert run.calls.messages[0]


def test_a_call_that_waited_for_a_stopped_run_and_was_not_sent_is_not_recorded():
    async def main(ask):
        run = ask.start(question="?")
        run.pause()
        await asyncio.sleep(0)
        run.stop()
        await asyncio.wait([run.task])
        return run

    run = asyncio.run(main(dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))))
    assert len(run.calls) == 0
