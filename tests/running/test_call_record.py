"""What the record of a call holds: its times, its request, and its end."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web

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


def broken(*bodies, headers=None):
    """A stream that breaks off after these chunks."""

    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        await response.prepare(request)
        for body in bodies:
            await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        request.transport.close()
        return response

    return answer


def delta(**fields):
    return {"id": "chatcmpl-7", "model": "m-2026", "choices": [{"index": 0, "delta": fields}]}


async def parts_of(program):
    return [part async for part in program.stream(question="?")]


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("piece", [{"reasoning_content": "I think."}, {"tool_calls": [CALL]}, {"refusal": "No."}])
def test_the_first_token_of_a_stream_may_be_no_text(piece):
    with Server(streamed=[broken(delta(role="assistant", content=""), delta(**piece))]) as server:
        with pytest.raises(dn.errors.ModelError):
            asyncio.run(parts_of(dn.Predict("question -> answer", lm=lm(server, retries=0))))
    (call,) = dn.last_run().record.calls
    assert 0 < call.first_token <= call.seconds


def test_a_stream_that_breaks_off_without_a_piece_has_no_first_token_and_the_id_of_its_request():
    with Server(streamed=[broken(delta(role="assistant", content=""), headers={"request-id": "req-9"})]) as server:
        with pytest.raises(dn.errors.ModelError) as caught:
            asyncio.run(parts_of(dn.Predict("question -> answer", lm=lm(server, retries=0))))
    (call,) = dn.last_run().record.calls
    assert (call.first_token, call.request_id, caught.value.request_id) == (None, "req-9", "req-9")


def test_a_stream_is_retried_after_reasoning_and_its_first_token_is_that_of_the_last_try():
    held = []

    async def late(request):
        began = time.perf_counter()
        await asyncio.sleep(0.1)
        held.append(time.perf_counter() - began)
        return await sse(list(chat(answer="Paris")))(request)

    first = broken(delta(reasoning_content="I think."), headers={"x-request-id": "req-1"})
    with Server(streamed=[first, late]) as server:
        assert asyncio.run(parts_of(dn.Predict("question -> answer", lm=lm(server))))[-1].answer == "Paris"
    (call,) = dn.last_run().record.calls
    assert (call.usage.retries, call.request_id) == (1, None)
    assert held[0] <= call.first_token <= call.usage.seconds


@pytest.mark.parametrize("cached", [True, False])
def test_a_cancelled_call_has_its_waiting_apart_from_its_work(cached):
    async def main(model):
        ask = dn.Predict("question -> answer", lm=model)
        began = time.perf_counter()
        sent = ask.start(question="?")
        while not server.bodies:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        waiting = ask.start(question="another")
        while not model.limits.slots._waiters:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        both_at = time.perf_counter()
        await asyncio.sleep(0.05)
        both = time.perf_counter() - both_at
        for run in (waiting, sent):
            run.task.cancel()
            await asyncio.wait([run.task])
        return sent.record.calls[0], waiting.record.calls[0], both, time.perf_counter() - began

    async def answer(body, number):
        await asyncio.Event().wait()

    with Server(answer) as server:
        model = dn.LM("openai/m", api_base=server.base, api_key="none", concurrency=1, cache=cached)
        sent, waiting, both, whole = asyncio.run(main(model))
    assert sent.seconds >= both
    assert waiting.waited >= both
    for call in (sent, waiting):
        assert call.seconds + call.waited <= whole
        assert call.error.startswith("CancelledError")


def test_the_id_of_a_request_that_the_server_refuses_is_recorded():
    refusal = server_error(400, "no", **{"apim-request-id": "azure-1"})
    with Server(lambda *_: refusal) as server, pytest.raises(dn.errors.BadRequestError, match="request azure-1"):
        dn.Predict("question -> answer", lm=lm(server)).run_sync(question="?")
    assert dn.last_run().calls.request_id.item() == "azure-1"


def test_a_replayed_call_has_the_finish_reason_of_its_record():
    with Server(lambda body, number: chat(answer="4")) as server:
        ask = dn.Predict("question -> answer", lm=lm(server))
        run = ask.run_sync(question="?").run
    replay = asyncio.run(dn.replay(run, ask))
    (call,) = replay.prediction.calls
    assert (call.finish, call.cached, call.server) == ("stop", True, None)


def test_a_key_that_a_server_repeats_in_its_ids_is_redacted():
    key = "sk-proj-0123456789abcdefghij"
    body = {**reply(chat(answer="4")), "id": f"id-{key}", "model": f"m-{key}"}
    with Server(lambda *_: body) as server:
        model = dn.LM("openai/m", api_base=server.base, api_key=key, cache=False)
        (call,) = dn.Predict("question -> answer", lm=model).run_sync(question="?").calls
    assert key not in repr(call)
    assert (call.response_id, call.response_model) == ("id-***", "m-***")
