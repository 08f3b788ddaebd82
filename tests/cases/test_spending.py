"""What budgets allow to be spent, and the reported cost of calls (section 3)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import warnings
from pathlib import Path

import pytest

import dspynb as dn
from dspynb import errors
from tests.cases.providers import model, without_waiting
from tests.helpers import chat
from tests.lm.server import Server, reply

MAP = "model_prices_and_context_window_backup.json"
ROWS = [{"question": f"{i}?", "answer": "Paris"} for i in range(200)]
needs_the_map = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the price map is litellm's")


def prices(name):
    """The entry of a model in litellm's price map, read from its JSON file."""
    folder = Path(next(iter(importlib.util.find_spec("litellm").submodule_search_locations)))
    return json.loads((folder / MAP).read_text())[name]


def billed(prompt, completion, text=None, **details):
    """The body of a chat completion that reports these tokens."""
    body = reply(chat(answer="Paris") if text is None else text)
    return {**body, "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}}


def question(lm):
    return dn.Predict("question -> answer", lm=lm)


def slowly(body):
    """Respond after a moment, so that several calls are in progress at the same time."""

    async def answer(request, number):
        await asyncio.sleep(0.1)
        return body

    return answer


def evaluated(program, rows=ROWS):
    return dn.Evaluate(dn.metrics.exact_match(), concurrency=64).run_sync(program, rows)


def batched(program, rows=ROWS):
    return dn.run_sync(lambda: program.batch(rows, concurrency=64))


def gathered(program, rows=ROWS):
    async def main():
        return await asyncio.gather(*(program(question=row["question"]) for row in rows[:64]), return_exceptions=True)

    return dn.run_sync(main)


WORK = pytest.mark.parametrize("work", [evaluated, batched, gathered])


# ── limits that hold ──────────────────────────────────────────────────────────────────────────────────────────────────


@needs_the_map
@WORK
def test_a_budget_in_usd_of_half_a_dollar_pays_five_calls_of_ten_cents(work):
    entry = prices("gpt-4.1-mini")
    most = 62_000  # completion tokens, which the call may have: what it can cost at most is known before it is sent
    prompt = round((0.10 - most * entry["output_cost_per_token"]) / entry["input_cost_per_token"])
    with Server(slowly(billed(prompt, most))) as server, dn.Budget(usd=0.50) as meter:
        work(question(model(server, "openai/gpt-4.1-mini", max_tokens=most)))
    assert len(server.bodies) == 5
    assert meter.spent["usd"] == pytest.approx(0.50)


@WORK
def test_a_budget_in_usd_is_not_exceeded_where_a_model_tells_its_price_with_the_reply(work):
    async def answer(request):
        await asyncio.sleep(0.1)
        return dn.LMReply(
            chat(answer="Paris"), usage=dn.Usage(calls=1, prompt_tokens=900, completion_tokens=100, usd=0.1)
        )

    with dn.Budget(usd=0.50) as meter:
        work(question(dn.FunctionLM(answer)))
    assert 0.1 <= meter.spent["usd"] <= 0.50 + 1e-9


@WORK
def test_a_budget_of_five_thousand_tokens_is_not_exceeded(work):
    with Server(slowly(billed(200, 800))) as server, dn.Budget(tokens=5000) as meter:
        work(question(model(server, max_tokens=800)))
    assert 4000 <= meter.spent["tokens"] <= 5000


def test_the_budget_of_an_evaluation_in_tokens_is_not_exceeded():
    with Server(slowly(billed(200, 800))) as server:
        judge = dn.Evaluate(dn.metrics.exact_match(), concurrency=64, budget=dn.Budget(tokens=5000))
        done = judge.run_sync(question(model(server, max_tokens=800)), ROWS)
    assert 1 <= len(server.bodies) <= 5
    assert 1 <= len(done) <= 5


def test_concurrent_attempts_do_not_exceed_a_budget_in_tokens():
    with Server(slowly(billed(200, 800, chat(answer="Lyon")))) as server, dn.Budget(tokens=5000) as meter:
        program = question(model(server, max_tokens=800))
        best = dn.BestOfN(program, reward=lambda row, prediction: 0.5, n=32, width=32)
        with contextlib.suppress(errors.BudgetExhausted):
            best.run_sync(question="The capital of France?")
    assert 1000 <= meter.spent["tokens"] <= 5000


def test_the_budget_of_an_optimizer_in_tokens_is_not_exceeded():
    def served(body, number):
        text = json.dumps(body["messages"])
        return billed(200, 800, chat(new_instruction=f"Version {number}.") if "new_instruction" in text else None)

    def judged(row, prediction):
        return dn.Score(0.5, feedback="Better.")

    with Server(served) as server:
        lm = model(server, max_tokens=800)
        opt = dn.GEPA(judged, prompt_lm=lm, budget=dn.Budget(tokens=20_000))
        opt.compile_sync(question(lm), ROWS[:32], val=ROWS[32:64])
    assert 1 <= len(server.bodies) <= 20


@pytest.mark.parametrize("work", [evaluated, batched])
@pytest.mark.parametrize("limit", [1, 5])
def test_a_budget_of_calls_is_not_exceeded(work, limit):
    with Server(slowly(billed(200, 800))) as server, dn.Budget(calls=limit) as meter:
        work(question(model(server)))
    assert (len(server.bodies), meter.spent["calls"]) == (limit, limit)


# ── replies that are billed and cannot be used ────────────────────────────────────────────────────────────────────────


def filtered():
    body = billed(4000, 100, "")
    body["choices"][0]["finish_reason"] = "content_filter"
    return body


BILLED = {
    "empty": lambda: billed(4000, 100, ""),
    "no choices": lambda: {**billed(4000, 100), "choices": []},
    "filtered": filtered,
}


@pytest.mark.parametrize("what", ["empty", "no choices"])
def test_fifteen_billed_replies_that_cannot_be_used_are_counted(monkeypatch, what):
    without_waiting(monkeypatch)
    with Server(lambda body, number: BILLED[what]()) as server, dn.Budget(tokens=10**6, usd=100) as meter:
        batched(question(model(server, "openai/gpt-4.1-mini", retries=4)), ROWS[:3])
    assert len(server.bodies) == 15
    assert meter.spent["tokens"] == 61_500


@needs_the_map
@pytest.mark.parametrize("what", BILLED)
def test_a_billed_reply_that_cannot_be_used_costs_its_price(what):
    entry = prices("gpt-4.1-mini")
    with Server(lambda body, number: BILLED[what]()) as server, dn.Budget(usd=100) as meter:
        batched(question(model(server, "openai/gpt-4.1-mini", retries=0)), ROWS[:1])
    expected = 4000 * entry["input_cost_per_token"] + 100 * entry["output_cost_per_token"]
    assert meter.spent["usd"] == pytest.approx(expected)


@pytest.mark.parametrize("what", BILLED)
def test_the_tables_of_a_run_count_billed_replies_that_cannot_be_used(what):
    with Server(lambda body, number: BILLED[what]()) as server:
        batched(question(model(server, retries=0)), ROWS[:3])
    run = dn.last_run()
    assert run.usage.tokens == 12_300
    assert run.calls["tokens"].tolist() == [4100] * 3


def test_a_budget_in_tokens_ends_the_tries_that_bring_no_usable_reply(monkeypatch):
    without_waiting(monkeypatch)
    with Server(lambda body, number: BILLED["empty"]()) as server, dn.Budget(tokens=10_000):
        batched(question(model(server, retries=4)), ROWS[:3])
    assert 1 <= len(server.bodies) <= 3


def test_a_reply_after_unusable_ones_costs_as_much_as_all_of_them(monkeypatch):
    without_waiting(monkeypatch)
    with Server(lambda body, number: BILLED["empty"]() if number < 4 else billed(4000, 100)) as server:
        prediction = question(model(server)).run_sync(question="The capital of France?")
    assert len(server.bodies) == 4
    assert prediction.usage.tokens == 16_400


# ── prices that are not known ─────────────────────────────────────────────────────────────────────────────────────────


def evaluated_one_by_one(program):
    done = dn.Evaluate(dn.metrics.exact_match(), concurrency=1).run_sync(program, ROWS[:5])
    return [None] * len(done)


def batched_one_by_one(program):
    return dn.run_sync(lambda: program.batch(ROWS[:5], concurrency=1))


@pytest.mark.parametrize("work", [evaluated_one_by_one, batched_one_by_one])
def test_a_budget_in_usd_with_unknown_prices_is_refused_before_anything_is_sent_or_gives_a_warning(work, caplog):
    said, answered = [], 0
    with Server(slowly(billed(7, 3))) as server, dn.Budget(usd=1.0), caplog.at_level(logging.INFO):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                done = work(question(model(server)))
                answered = len([row for row in done if not isinstance(row, Exception)])
                said += [str(row) for row in done if isinstance(row, Exception)]
            except errors.DspynbError as problem:
                said.append(str(problem))
    said += [str(one.message) for one in caught] + [record.getMessage() for record in caplog.records]
    assert (answered, len(server.bodies)) in ((5, 5), (0, 0))
    assert any("price" in text for text in said)


# ── prices of long contexts ───────────────────────────────────────────────────────────────────────────────────────────

TIERED = [
    ("openai/gpt-5.6", 300_000, "272k"),
    ("gemini/gemini-2.5-pro", 300_000, "200k"),
    ("vertex_ai/claude-sonnet-4-5", 300_000, "200k"),
    ("anthropic/claude-haiku-5-5", 150_000, "100k"),
    ("xai/grok-4.3", 250_000, "200k"),
    ("kyma/qwen3.7-flash", 100_000, "32k"),  # which has two thresholds
    ("kyma/qwen3.7-flash", 300_000, "256k"),
]


def tiered(name, threshold):
    """The entry of a model that has prices above a threshold. Skips the test if the installed map has none."""
    for key in (name, name.partition("/")[2]):
        try:
            entry = prices(key)
        except KeyError:
            continue
        if f"input_cost_per_token_above_{threshold}_tokens" in entry:
            return entry
    pytest.skip(f"the installed price map has no long-context price of {name}")


def cost_of(name, body):
    with Server(lambda _, number: body) as server:
        prediction = question(model(server, name)).run_sync(question="A long one?")
    assert prediction.run.calls["usd"].tolist() == [prediction.usage.usd]
    return prediction.usage.usd


@needs_the_map
@pytest.mark.parametrize(("name", "prompt", "threshold"), TIERED)
def test_a_long_prompt_costs_the_price_of_long_contexts(name, prompt, threshold):
    entry = tiered(name, threshold)
    expected = prompt * entry[f"input_cost_per_token_above_{threshold}_tokens"]
    expected += 1000 * entry[f"output_cost_per_token_above_{threshold}_tokens"]
    if name == "openai/gpt-5.6":
        assert expected == pytest.approx(2.43)
    assert cost_of(name, billed(prompt, 1000)) == pytest.approx(expected)


@needs_the_map
@pytest.mark.parametrize(("name", "prompt", "threshold"), TIERED[:5])
def test_cached_tokens_of_a_long_prompt_have_the_cached_price_of_long_contexts(name, prompt, threshold):
    entry = tiered(name, threshold)
    expected = (prompt - 100_000) * entry[f"input_cost_per_token_above_{threshold}_tokens"]
    expected += 100_000 * entry[f"cache_read_input_token_cost_above_{threshold}_tokens"]
    expected += 1000 * entry[f"output_cost_per_token_above_{threshold}_tokens"]
    body = billed(prompt, 1000, prompt_tokens_details={"cached_tokens": 100_000})
    assert cost_of(name, body) == pytest.approx(expected)


@needs_the_map
@pytest.mark.parametrize("prompt", [1000, 100_000, 200_000])
@pytest.mark.parametrize("name", ["dashscope/qwen3-max", "dashscope/qwen3-coder-plus"])
def test_a_price_in_tiers_is_that_of_the_tier_of_the_prompt(name, prompt):
    tiers = prices(name)["tiered_pricing"]
    tier = next(tier for tier in tiers if tier["range"][0] < prompt <= tier["range"][1])
    expected = prompt * tier["input_cost_per_token"] + 1000 * tier["output_cost_per_token"]
    assert cost_of(name, billed(prompt, 1000)) == pytest.approx(expected)


@needs_the_map
@pytest.mark.parametrize(("name", "prompt", "threshold"), TIERED)
def test_a_prompt_below_the_threshold_costs_the_plain_price(name, prompt, threshold):
    entry = tiered(name, threshold)
    expected = 30_000 * entry["input_cost_per_token"] + 1000 * entry["output_cost_per_token"]
    assert cost_of(name, billed(30_000, 1000)) == pytest.approx(expected)
