"""The direct engine against a real server on loopback: requests, replies, errors, limits, retries, faults."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import pickle
import threading
import time
import warnings

import pytest
from aiohttp import web

import dspynb as dn
from dspynb import errors
from dspynb.errors import ConfigurationError
from dspynb.lm.limits import AdaptiveLimit, Pace, backoff
from dspynb.lm.providers.prices import cost
from tests.lm.server import Server, chance, error, reply

KEY = "sk-a-very-secret-key-0123456789"


def lm(server, **kwargs):
    return dn.LM("openai/some-model", api_base=server.base, api_key=KEY, **kwargs)


def ask(model, text="hi", **kwargs):
    return asyncio.run(model.complete(dn.LMRequest(({"role": "user", "content": text},), **kwargs)))


def test_a_request_carries_settings_schema_and_tools_and_never_the_rollout():
    with Server(lambda body, n: "hello") as server:
        model = lm(server, max_tokens=50, temperature=0.1)
        tools = ({"type": "function", "function": {"name": "f"}},)
        lm_reply = ask(model, settings={"temperature": 0.7}, response_format={"type": "object"}, tools=tools, rollout=3)
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("some-model", 0.7, 50)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert body["tools"] == list(tools)
    assert "rollout" not in body
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert lm_reply.text == "hello"
    assert (lm_reply.usage.prompt_tokens, lm_reply.usage.cached_tokens, lm_reply.usage.reasoning_tokens) == (7, 2, 1)
    assert lm_reply.usage.usd is None  # no price is known for some-model


def test_tool_calls_and_reasoning_are_read():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with Server(lambda b, n: reply(None, tool_calls=[call], reasoning_content="because")) as server:
        lm_reply = ask(lm(server))
    assert (lm_reply.text, lm_reply.tool_calls, lm_reply.reasoning) == ("", (call,), "because")


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (lambda: error(401, f"Incorrect API key provided: {KEY}"), errors.AuthenticationError, 401),
        (lambda: error(400, "unknown setting"), errors.BadRequestError, 400),
        (lambda: error(404, "no such model"), errors.ModelNotFound, 404),
        (lambda: error(404, "Not Found"), errors.BadRequestError, 404),
        (lambda: error(400, "too long", "context_length_exceeded"), errors.ContextTooLong, 400),
        (lambda: error(400, "This model's maximum context length is 8192 tokens"), errors.ContextTooLong, 400),
        (lambda: error(400, "filtered", "content_filter"), errors.ContentFiltered, 400),
        (lambda: error(429, "slow down", **{"Retry-After": "7"}), errors.RateLimited, 429),
        (lambda: error(429, "pay", "insufficient_quota"), errors.QuotaExceeded, 429),
        (lambda: error(500), errors.ServerError, 500),
        (lambda: error(504), errors.ModelTimeout, 504),
        (lambda: web.Response(text="<html>bad gateway</html>", status=502), errors.ServerError, 502),
        (lambda: web.Response(text="not json"), errors.MalformedReply, 200),
        (lambda: web.json_response({"choices": []}), errors.MalformedReply, 200),
        (lambda: reply(""), errors.MalformedReply, 200),
    ],
)
def test_every_failure_has_its_own_error_which_never_shows_the_key(answer, kind, status):
    with Server(lambda body, n: answer()) as server, pytest.raises(errors.ModelError) as caught:
        ask(lm(server, retries=0))
    problem = caught.value
    assert type(problem) is kind
    assert (problem.status, problem.model) == (status, "openai/some-model")
    assert KEY not in f"{problem}{problem.__dict__}"
    assert str(pickle.loads(pickle.dumps(problem))) == str(problem)
    if kind is errors.RateLimited:
        assert problem.retry_after == 7


def test_a_server_that_is_unreachable_hangs_or_breaks_off_is_an_error():
    with pytest.raises(errors.ConnectionFailed):
        ask(dn.LM("openai/x", api_base="http://127.0.0.1:9/v1", retries=0))

    async def hang(body, n):
        await asyncio.sleep(5)

    with Server(hang) as server, pytest.raises(errors.ModelTimeout, match=r"within 0\.1 s"):
        ask(lm(server, timeout=0.1, retries=0))

    with Server(lambda body, n: web.Response(text="x", headers={"Content-Length": "100"})) as server:
        with pytest.raises((errors.ConnectionFailed, errors.ModelTimeout)):
            ask(lm(server, timeout=2, retries=0))


def test_temporary_errors_are_retried_and_counted_and_others_are_not(monkeypatch):
    monkeypatch.setattr("dspynb.lm.limits._FIRST_WAIT", 0.001)
    with Server(lambda body, n: error(500) if n < 3 else "fine") as server:
        lm_reply = ask(lm(server))
    assert (lm_reply.text, lm_reply.usage.retries, len(server.bodies)) == ("fine", 2, 3)
    with Server(lambda body, n: error(400)) as server, pytest.raises(errors.BadRequestError):
        ask(lm(server))
    assert len(server.bodies) == 1
    with Server(lambda body, n: error(500)) as server, pytest.raises(errors.ServerError):
        ask(lm(server, retries=2))
    assert len(server.bodies) == 3


def test_a_deadline_ends_the_retries():
    with Server(lambda body, n: error(429, **{"Retry-After": "60"})) as server, pytest.raises(errors.RateLimited):
        ask(lm(server, deadline=1))
    assert len(server.bodies) == 1


def test_backoff_honours_what_the_provider_asks_for():
    assert 7 <= backoff(0, 7.0) <= 7.7
    assert all(0 <= backoff(n, None) <= min(30, 0.5 * 2**n) for n in range(12))


def test_concurrency_is_bounded_and_cancelling_releases_every_slot():
    async def answer(body, n):
        await asyncio.sleep(0.02)
        return "ok"

    def start(model, count):
        request = dn.LMRequest(({"role": "user", "content": "x"},))
        return [asyncio.create_task(model.complete(request)) for _ in range(count)]

    async def main(model, server):
        await asyncio.gather(*start(model, 30))
        peak = server.peak  # before cancelling: the server notices a disconnected client late
        calls = start(model, 30)
        await asyncio.sleep(0.03)
        for call in calls[::2]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        return peak, done, model.limits.slots.running

    with Server(answer) as server:
        peak, done, running = asyncio.run(main(lm(server, concurrency=4), server))
    assert peak == 4
    assert running == 0
    assert sum(isinstance(d, dn.LMReply) for d in done) >= 15


def test_a_rate_limit_halves_the_limit_and_success_lets_it_grow_back():
    async def main():
        limit = AdaptiveLimit(64)
        with pytest.raises(errors.RateLimited):
            async with limit:
                raise errors.RateLimited("slow down")
        assert limit.limit == 32
        for _ in range(5000):
            async with limit:
                pass
        assert limit.limit == 64

    asyncio.run(main())


def test_a_pace_limits_the_units_per_minute():
    now = [0.0]
    pace = Pace(60, clock=lambda: now[0])
    assert [round(pace.take(1), 3) for _ in range(3)] == [0, 1, 2]
    now[0] = 10.0
    assert pace.take(1) == 0


def test_one_model_serves_several_loops_and_threads_at_once_and_closes_without_warnings():
    async def many(model):
        request = dn.LMRequest(({"role": "user", "content": "x"},))
        return await asyncio.gather(*(model.complete(request) for _ in range(20)))

    replies = []
    with Server(lambda body, n: "ok") as server:
        model = lm(server)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            threads = [threading.Thread(target=lambda: replies.extend(asyncio.run(many(model)))) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            gc.collect()
    assert [reply.text for reply in replies] == ["ok"] * 60


def test_the_engine_is_chosen_by_name_and_address():
    def chosen(name, **kwargs):
        return type(dn.LM(name, **kwargs)._engine).__name__

    assert chosen("openai/x") == "DirectEngine"
    assert chosen("anthropic/x") == "LiteLLMEngine"
    assert chosen("anything/x", api_base="http://127.0.0.1:1/v1") == "DirectEngine"
    assert chosen("openai/x", engine="litellm") == "LiteLLMEngine"
    with pytest.raises(ConfigurationError, match="engine must be one of"):
        dn.LM("openai/x", engine="fast")
    with pytest.raises(ConfigurationError, match="at least 1"):
        dn.LM("openai/x", concurrency=0)


def test_a_model_is_pickled_without_its_key():
    model = dn.LM("openai/x", api_key=KEY, max_tokens=5)
    data = pickle.dumps(model)
    assert KEY.encode() not in data
    assert pickle.loads(data).settings == {"max_tokens": 5}


def test_the_price_of_a_known_model_is_counted_and_an_unknown_one_stays_unknown():
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("the price map comes with litellm")
    used = {"prompt": 1_000_000, "completion": 1_000_000, "cached": 500_000}
    assert cost("openai/gpt-4o-mini", **used) == pytest.approx(0.5 * 0.15 + 0.5 * 0.075 + 0.6)
    assert cost("openai/nobody-knows", **used) is None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_under_faults_every_row_is_answered_or_carries_its_error_and_no_slot_is_lost():
    async def faulty(body, n):
        text = str(body["messages"])
        roll = chance(text, n)
        await asyncio.sleep(0.02 + 0.1 * chance(text, n, "latency") ** 4)
        bounds = [
            (0.10, lambda: error(429, **{"Retry-After": "0.05"})),
            (0.15, lambda: error(500)),
            (0.17, lambda: asyncio.sleep(3600)),
            (0.19, lambda: web.Response(text='{"choices": [{"mess', headers={"Content-Length": "500"})),
            (0.20, lambda: web.Response(text="{half", content_type="application/json")),
            (0.21, lambda: reply("")),
            (0.22, lambda: web.Response(text="<html>", content_type="text/html")),
        ]
        for bound, fault in bounds:
            if roll < bound:
                answer = fault()
                return await answer if asyncio.iscoroutine(answer) else answer
        return "[[ ## answer ## ]]\nfine\n[[ ## completed ## ]]"

    async def main(model):
        program = dn.Predict("question -> answer", lm=model)
        rows = [{"question": f"q{i}"} for i in range(5000)]
        results = await program.batch(rows, concurrency=256)
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        return results, model.limits.slots.running, tasks

    with Server(faulty) as server:
        results, running, tasks = asyncio.run(main(lm(server, timeout=2, retries=6, concurrency=256)))
    answered = sum(isinstance(r, dn.Prediction) for r in results)
    assert len(results) == 5000
    assert all(isinstance(r, dn.Prediction | errors.ModelError) for r in results)
    assert answered > 4950
    assert running == 0
    assert tasks == []


def test_a_key_in_a_long_error_is_hidden_wherever_the_text_is_cut():
    for before in range(165, 205, 4):
        text = "x" * before + KEY + "y" * 600
        with (
            Server(lambda body, n, text=text: error(400, text)) as server,
            pytest.raises(errors.BadRequestError) as caught,
        ):
            ask(lm(server, retries=0))
        assert KEY[:12] not in str(caught.value)
        assert KEY[-12:] not in str(caught.value)


def test_a_deadline_ends_a_try_and_the_wait_for_a_slot():
    async def main():
        async def hang(body, n):
            await asyncio.sleep(20)

        with Server(hang) as server:
            model, began = lm(server, deadline=0.2, concurrency=1), time.monotonic()
            request = dn.LMRequest(({"role": "user", "content": "hi"},))
            with dn.context(cache=False):
                results = await asyncio.gather(*(model.complete(request) for _ in range(3)), return_exceptions=True)
            assert time.monotonic() - began < 15  # less than the server takes
            assert [type(result) for result in results] == [errors.ModelTimeout] * 3
            assert "deadline of 0.2 s" in str(results[0])
            assert model.limits.slots.running == 0

    asyncio.run(main())
