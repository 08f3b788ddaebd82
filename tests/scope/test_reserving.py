"""What requests may cost is reserved: retries, models that call models, stopped requests, and prices."""

from __future__ import annotations

import asyncio

import pandas as pd
import pytest

import dspynb as dn
from dspynb import errors
from tests.cases.providers import model, without_waiting
from tests.helpers import chat
from tests.lm.server import Server, reply


def billed(prompt, completion, text=None):
    body = reply(chat(answer="4") if text is None else text)
    return {**body, "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def question(lm, **settings):
    return dn.Predict("question -> answer", lm=lm, **settings)


class Peak:
    """A model that counts how many of its calls run at the same time."""

    def __init__(self, reply_tokens):
        self.now = self.peak = 0
        self.usage = dn.Usage(calls=1, prompt_tokens=90, completion_tokens=reply_tokens)

    async def complete(self, request):
        self.now += 1
        self.peak = max(self.peak, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        return dn.LMReply(chat(answer="4"), usage=self.usage)


async def until(condition):
    """Wait until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # a server in another thread
            await asyncio.sleep(0.01)


def answers(program, count=1):
    async def main():
        calls = (program(question=f"{number}?") for number in range(count))
        return await asyncio.gather(*calls, return_exceptions=True)

    return dn.run_sync(main)


# ── retries ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("tokens", [2_000, 10_000, 40_000])
def test_tries_that_are_billed_do_not_wait_for_each_other(monkeypatch, count, tokens):
    without_waiting(monkeypatch)
    with Server(lambda body, number: billed(300, 100, "")) as server, dn.Budget(tokens=tokens) as meter:
        answers(question(model(server, retries=4, max_tokens=100)), count)
    assert meter.spent["tokens"] == 400 * len(server.bodies) <= tokens
    assert len(server.bodies) == min(5 * count, len(server.bodies))


def test_a_try_that_timed_out_counts_what_it_may_have_cost():
    async def answer(body, number):
        if number == 1:
            await asyncio.sleep(5)
        return billed(300, 100)

    with Server(answer) as server, dn.Budget(tokens=100_000) as meter:
        lm = model(server, retries=1, timeout=0.5, max_tokens=1_000)
        answers(question(lm))
    assert len(server.bodies) == 2
    assert 400 + 1_000 < meter.spent["tokens"] == 400 + meter.estimated


def test_a_stopped_request_counts_what_it_may_have_cost_and_its_billed_tries():
    async def answer(body, number):
        if number == 1:
            return billed(300, 100, "")
        await asyncio.sleep(5)
        return billed(300, 100)

    async def main(server):
        with dn.Budget(tokens=100_000) as meter:
            call = asyncio.ensure_future(question(model(server, retries=1, max_tokens=1_000))(question="2+2?"))
            await until(lambda: len(server.bodies) == 2)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        return meter

    with Server(answer) as server:
        meter = dn.run_sync(lambda: main(server))
    assert meter.spent["tokens"] == 400 + meter.estimated
    assert meter.estimated > 1_000
    assert meter.ledger.reserved.tokens == 0


def test_a_request_that_was_stopped_before_it_was_sent_counts_nothing():
    async def main(server):
        with dn.Budget(tokens=100_000) as meter:
            lm = model(server, concurrency=1, max_tokens=1_000)
            calls = [asyncio.ensure_future(question(lm)(question=f"{number}?")) for number in range(2)]
            await until(lambda: server.bodies)
            calls[1].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        return meter

    async def answer(body, number):
        await asyncio.sleep(0.2)
        return billed(300, 100)

    with Server(answer) as server:
        meter = dn.run_sync(lambda: main(server))
    assert len(server.bodies) == 1
    assert (meter.spent["tokens"], meter.estimated) == (400, 0)


# ── models that call models ───────────────────────────────────────────────────────────────────────────────────────────
class Router:
    """A model of one's own whose replies are those of another predictor."""

    def __init__(self, inner):
        self.inner = inner
        self.calls = 0

    async def complete(self, request):
        self.calls += 1
        prediction = await self.inner(question=f"{self.calls}+2?")
        return dn.LMReply(chat(answer=prediction.answer), usage=dn.Usage(calls=1))


@pytest.mark.filterwarnings("ignore::dspynb.errors.HiddenPredictorWarning")
@pytest.mark.parametrize("tokens", [1_500, 5_000, 100_000])
def test_a_request_inside_a_request_does_not_wait_for_it(tokens):
    with Server(lambda body, number: billed(300, 100)) as server, dn.Budget(tokens=tokens) as meter:
        results = answers(question(Router(question(model(server, max_tokens=100)))), 4)
    done = [result for result in results if not isinstance(result, Exception)]
    assert meter.spent["tokens"] == 400 * len(server.bodies) <= tokens
    assert done or tokens < 5_000
    assert all(isinstance(result, dn.BudgetExhausted) for result in results if isinstance(result, Exception))


@pytest.mark.filterwarnings("ignore::dspynb.errors.HiddenPredictorWarning")
@pytest.mark.parametrize(("settings", "most"), [({}, 1), ({"max_tokens": 1_000}, 4)])
def test_requests_inside_a_request_keep_the_limit_together(settings, most):
    class Many:
        async def complete(self, request):
            self.results = await asyncio.gather(
                *(predict(question=f"{number}") for number in range(20)), return_exceptions=True
            )
            return dn.LMReply(chat(answer="4"), usage=dn.Usage(calls=1))

    inner, many = Peak(reply_tokens=910), Many()
    predict = question(inner, **settings)
    with dn.Budget(tokens=6_000) as meter:
        answers(question(many, **settings))
    assert inner.peak <= most
    assert 4_000 <= meter.spent["tokens"] <= 6_000
    assert (
        len([result for result in many.results if not isinstance(result, Exception)]) == meter.spent["tokens"] / 1_000
    )


# ── steps that wait for each other ────────────────────────────────────────────────────────────────────────────────────
def test_a_row_that_waits_for_a_lock_of_a_later_row_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("dspynb.scope.reserving._PATIENCE", 0.3)

    class Locked(dn.Module):
        def __init__(self):
            self.ask = question(stub(), max_tokens=200)
            self.lock = asyncio.Lock()

        async def forward(self, question):
            await asyncio.sleep(0.05 if question == "0" else 0)
            async with self.lock:
                await asyncio.sleep(0.1)
                return await self.ask(question=question)

    with dn.Budget(tokens=1_200) as meter:
        dn.run_sync(lambda: Locked().batch([{"question": "0"}, {"question": "1"}], concurrency=2))
    assert 100 <= meter.spent["tokens"] <= 1_200


def stub(tokens=100):
    """A model whose replies cost so many tokens."""

    def answer(request):
        return dn.LMReply(chat(answer="4"), usage=dn.Usage(calls=1, prompt_tokens=tokens - 10, completion_tokens=10))

    return dn.FunctionLM(answer)


# ── equal requests ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_equal_requests_that_are_sent_once_reserve_once(monkeypatch, tmp_path, is_cancelled):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    dn.configure(cache=True)
    monkeypatch.setattr("dspynb.lm.limits.backoff", lambda *_: 0.0)

    async def answer(body, number):
        await asyncio.sleep(0.1)
        return billed(900, 100, "" if number == 1 else None)

    async def main(server):
        program = question(model(server, retries=2, max_tokens=1_000, cache=True))
        with dn.Budget(tokens=3_500) as meter:
            calls = [asyncio.ensure_future(program(question="same?")) for _ in range(2)]
            await until(lambda: server.bodies)
            if is_cancelled:
                calls[0].cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert meter.ledger.reserved.tokens == 0
        return meter, results

    with Server(answer) as server:
        meter, results = dn.run_sync(lambda: main(server))
    assert results[1].answer == "4"
    assert len(server.bodies) == 2
    assert meter.spent["tokens"] <= 3_500
    assert is_cancelled or meter.spent["tokens"] == 2_000


# ── far from the limit, and after a refusal ───────────────────────────────────────────────────────────────────────────
def test_far_from_its_limit_a_budget_leaves_all_requests_at_the_same_time():
    own = Peak(reply_tokens=10)
    with dn.Budget(tokens=10_000_000):
        dn.run_sync(lambda: question(own).batch([{"question": f"{number}?"} for number in range(64)], concurrency=16))
    assert own.peak == 16


def test_a_refused_request_leaves_the_rest_of_the_budget_to_a_smaller_one():
    large, small = (question(stub(), max_tokens=most) for most in (50_000, 200))
    with dn.Budget(tokens=20_000) as meter:
        with pytest.raises(dn.BudgetExhausted, match="may need 50"):
            large.run_sync(question="2+2?")
        assert small.run_sync(question="2+2?").answer == "4"
    assert meter.spent["tokens"] == 100


def test_a_retry_that_is_refused_takes_no_call(monkeypatch):
    monkeypatch.setattr("dspynb.lm.limits.backoff", lambda *_: 0.0)
    with Server(lambda body, number: billed(300, 1_000, "")) as server, dn.Budget(tokens=2_000, calls=100) as meter:
        answers(question(model(server, retries=2, max_tokens=1_000)))
    assert (len(server.bodies), meter.spent["calls"], meter.spent["tokens"]) == (1, 1, 1_300)


def test_billed_tries_count_although_the_last_reply_has_no_usage(monkeypatch):
    monkeypatch.setattr("dspynb.lm.limits.backoff", lambda *_: 0.0)

    def answer(body, number):
        if number == 1:
            return billed(300, 1_000, "")
        whole = reply(chat(answer="4"))
        del whole["usage"]
        return whole

    with Server(answer) as server, dn.Budget(tokens=100_000, usd=1) as meter:
        answers(question(model(server, max_tokens=1_000, retries=2, price={"input": 1.0, "output": 10.0})))
    assert meter.spent["tokens"] == 1_300 + meter.estimated
    assert meter.spent["usd"] == meter.ledger.spent.usd > 0.0103


def test_a_call_whose_deadline_passes_before_it_is_sent_counts_nothing():
    async def answer(body, number):
        await asyncio.sleep(1)
        return billed(300, 100)

    with Server(answer) as server, dn.Budget(tokens=1_000_000) as meter:
        answers(question(model(server, concurrency=1, max_tokens=5_000, deadline=0.3, retries=0)), 20)
    assert meter.estimated < 5 * 6_000


def test_a_replay_is_free_under_a_budget_whose_time_is_over():
    program = dn.BestOfN(question(stub()), lambda row, prediction: False, n=4)
    with dn.trace() as trace:
        program.run_sync(question="2+2?")

    async def main():
        with dn.Budget(seconds=0.01):
            await asyncio.sleep(0.05)
            return await dn.replay(trace, program)

    assert dn.run_sync(main) is not None


# ── prices ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_nothing_is_sent_to_a_model_without_a_price_and_the_error_says_what_to_give():
    with Server(lambda body, number: billed(300, 100)) as server, dn.Budget(usd=1):
        with pytest.raises(dn.BudgetExhausted) as caught:
            question(model(server)).run_sync(question="2+2?")
        priced = model(server, price={"input": 1.0, "output": 2.0}, max_tokens=100)
        assert question(priced).run_sync(question="2+2?").answer == "4"
    assert 'needs the price of openai/m, which is unknown: give the model price={"input"' in str(caught.value)
    assert len(server.bodies) == 1


def test_the_rows_of_a_batch_say_that_the_price_is_unknown():
    with Server(lambda body, number: billed(300, 100)) as server, dn.Budget(usd=1):
        results = dn.run_sync(lambda: question(model(server)).batch([{"question": "1?"}, {"question": "2?"}]))
    assert server.bodies == []
    assert all("the price of openai/m" in str(result) for result in results)


def test_a_model_of_ones_own_with_a_price_does_not_exceed_a_budget_in_usd():
    class Own:
        name = "own"

        def __init__(self):
            self.price = {"input": 0.0, "output": 1_000.0}  # a tenth of a cent for each token of the reply
            self.calls = 0

        async def complete(self, request):
            self.calls += 1
            await asyncio.sleep(0.01)
            return dn.LMReply(chat(answer="4"), usage=dn.Usage(calls=1, prompt_tokens=90, completion_tokens=100))

    own = Own()
    with dn.Budget(usd=0.55) as meter:
        answers(question(own, max_tokens=100), 64)
    assert own.calls == 5
    assert meter.spent["usd"] == pytest.approx(0.5)


def test_a_price_of_zero_costs_nothing():
    with Server(lambda body, number: billed(300, 100)) as server, dn.Budget(usd=1e-6) as meter:
        results = answers(question(model(server, price={"input": 0, "output": 0})), 20)
    assert meter.spent["usd"] == 0
    assert not [result for result in results if isinstance(result, Exception)]


def test_a_server_without_usage_counts_the_reserved_usd_and_estimated_tokens():
    body = reply(chat(answer="4"))
    del body["usage"]
    with Server(lambda request, number: body) as server, dn.Budget(usd=0.01) as meter:
        answers(question(model(server, price={"input": 1.0, "output": 10.0}, max_tokens=100)), 20)
    assert meter.ledger.spent.usd <= 0.01
    assert 1 <= len(server.bodies) < 20


# ── budgets that change ───────────────────────────────────────────────────────────────────────────────────────────────
def test_requests_that_wait_go_on_under_a_larger_limit():
    async def answer(body, number):
        await asyncio.sleep(0.05)
        return billed(300, 100)

    async def main(server):
        program = question(model(server, max_tokens=100))
        with dn.Budget(tokens=1_500) as meter:
            calls = [asyncio.ensure_future(program(question=f"{number}?")) for number in range(6)]
            await until(lambda: server.bodies)
            meter.limit({"tokens": 100_000})
            return await asyncio.gather(*calls)

    with Server(answer) as server:
        predictions = dn.run_sync(lambda: main(server))
    assert len(predictions) == len(server.bodies) == 6


@pytest.mark.parametrize("limits", [{"tokens": -1}, {"tokens": float("nan")}, {"usd": 0}, {"usd": float("nan")}])
def test_limits_that_are_no_amount_are_refused(limits):
    with pytest.raises(errors.ConfigurationError):
        dn.Budget(**limits)


def test_a_budget_that_is_too_small_for_one_call_says_what_the_call_may_need():
    with Server(lambda body, number: billed(300, 100)) as server, dn.Budget(tokens=50):
        with pytest.raises(dn.BudgetExhausted, match=r"0 are used, and the next call may need \d\d\d+"):
            asyncio.run(question(model(server, max_tokens=100))(question="2+2?"))
    assert server.bodies == []


# ── tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_table_of_calls_marks_what_is_estimated():
    async def answer(body, number):
        if number == 1:
            await asyncio.sleep(5)
        return billed(300, 100)

    with Server(answer) as server, dn.Budget(tokens=100_000) as meter:
        lm = model(server, retries=0, timeout=0.5, max_tokens=1_000, concurrency=1)
        results = dn.run_sync(lambda: question(lm).batch([{"question": "1?"}, {"question": "2?"}], concurrency=1))
    assert isinstance(results[0], errors.ModelTimeout)
    calls = dn.last_run().calls
    assert calls["estimated"].tolist() == [meter.estimated, 0]
    assert calls["tokens"].tolist() == [meter.estimated, 400]
    assert dn.last_run().usage.tokens == meter.spent["tokens"]


def test_the_table_of_calls_has_estimates_where_a_server_reports_no_usage():
    body = reply(chat(answer="4"))
    del body["usage"]
    with Server(lambda request, number: body) as server:
        question(model(server)).run_sync(question="2+2?")
    (call,) = dn.last_run().calls.itertuples()
    assert call.estimated > 50
    assert pd.isna(call.tokens)


@pytest.mark.parametrize("tokens", [1_500, 100_000])
def test_equal_requests_are_sent_once_also_near_the_limit(monkeypatch, tmp_path, tokens):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    dn.configure(cache=True)

    async def answer(body, number):
        await asyncio.sleep(0.1)
        return billed(300, 100)

    async def main(server):
        program = question(model(server, cache=True))
        calls = (program(question=f"{number % 2}") for number in range(6))
        with dn.Budget(tokens=tokens) as meter:
            return await asyncio.gather(*calls), meter

    with Server(answer) as server:
        predictions, meter = dn.run_sync(lambda: main(server))
    assert len(predictions) == 6
    assert len(server.bodies) == meter.spent["calls"] == 2
    assert meter.ledger.reserved.tokens == 0
