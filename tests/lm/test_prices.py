"""What a reply costs: prices of models, of price files and of litellm's map, and costs that are reported."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import math
import os
import pickle
from dataclasses import asdict
from decimal import Decimal, Inexact, localcontext
from fractions import Fraction

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

import dspynb as dn
from dspynb import errors
from dspynb.events import from_json, to_json
from dspynb.lm.providers.billing import Billing, read_bill, read_usage
from dspynb.lm.providers.prices import PRICES_VARIABLE, highest_prices, map_entry, price_of, read_environment
from dspynb.pricing.litellm_format import price_of_entry
from dspynb.pricing.price_list import as_price, as_price_list
from dspynb.pricing.rates import TokenCounts, cost_of, highest
from dspynb.running.journal import flush_journals
from tests.helpers import Caption, chat
from tests.lm.server import Server, reply, sse

needs_the_map = pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the price map is litellm's")
OWN = {"input": 2, "output": 8, "cached_input": 0.5}
USED = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
OWN_COST = (600 * 2 + 400 * 0.5 + 100 * 8) / 1e6
TIERED = {
    **OWN,
    "above": {200_000: {"input": 4, "output": 12}},
    "service_tiers": {"flex": {"input": 1, "output": 4}, "priority": {"input": 3, "output": 16}},
}


def billed(used, **fields):
    return {**reply(chat(sentence="blue")), "usage": used, **fields}


def called(body, name="openai/my-model", headers=None, **settings_of_model):
    """The bodies that a server receives, and the prediction of a predictor that calls it once."""

    def answer(request, number):
        return web.json_response(body, headers=headers or {})

    with Server(answer) as server:
        lm = dn.LM(name, api_base=server.base, api_key="k", **settings_of_model)
        prediction = dn.Predict(Caption, lm=lm).run_sync(subject="x")
    return server.bodies, prediction


def usd_of(body, name="openai/my-model", headers=None, **settings_of_model):
    prediction = called(body, name, headers, **settings_of_model)[1]
    assert prediction.run.calls["usd"].tolist() == [prediction.usage.usd] or prediction.usage.usd is None
    return prediction.usage.usd


# ── the price of a model ──────────────────────────────────────────────────────────────────────────────────────────────
def test_a_price_of_a_model_is_in_usd_for_a_million_tokens():
    assert usd_of(billed(USED), price=OWN) == OWN_COST
    assert dn.LM("openai/my-model", price=OWN).price == dn.Price(**OWN)
    assert usd_of(billed(USED), price=dn.Price(**OWN)) == OWN_COST


def test_a_price_may_have_the_names_and_the_unit_of_litellm():
    entry = {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, "cache_read_input_token_cost": 5e-7}
    assert usd_of(billed(USED), price=entry) == OWN_COST
    assert dn.LM("openai/my-model", price=entry).price == dn.Price(**OWN)


def test_an_unknown_price_is_none_and_a_price_of_zero_is_zero():
    assert usd_of(billed(USED)) is None
    assert usd_of(billed(USED), price={"input": 1}) is None
    assert usd_of(billed(USED), price={"input_cost_per_token": 1e-6}) is None
    assert usd_of(billed(USED), price={"input": 0, "output": 0}) == 0.0


@needs_the_map
def test_a_price_replaces_the_one_of_the_map_by_prompt_and_reply():
    assert usd_of(billed(USED), "openai/gpt-4o-mini", price={"output": 0}) == (600 * 0.15 + 400 * 0.075) / 1e6
    assert usd_of(billed(USED), "openai/gpt-4o-mini", price={"input": 1, "output": 0}) == 1000 / 1e6
    assert usd_of(billed(USED), "openai/gpt-4o-mini", price={"cached_input": 0}) == (600 * 0.15 + 100 * 0.6) / 1e6
    own = dn.LM("gemini/gemini-2.5-pro", price={"input": 1}).price
    assert (own.cached_input, own.above[200_000].input, own.above[200_000].output) == (None, None, 15.0)


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        ({"input": -1, "output": 2}, r"input is -1; it must be US dollars for a million tokens"),
        ({"input": math.nan, "output": "3"}, r"input is nan, output is '3'; it must be"),
        ({"input": math.inf}, "input is inf"),
        ({"input": True}, "input is True"),
        ({"output": [1]}, r"output is \[1\]"),
        ({"inptu": 1}, "no setting 'inptu'. Did you mean 'input'?"),
        ({}, "it is empty"),
        ("cheap", "'cheap' is no price; give a dict of US dollars for a million tokens"),
        (2.5, "2.5 is no price"),
        ({1: 2}, "must be texts"),
        ({"input": 1, "above": {"many": {}}}, "above has the key 'many'; each key must be a number of tokens"),
        ({"input": 1, "above": {"200k": 3}}, "above 200k is 3; it must be a dict"),
        ({"input": 1, "above": {"200k": {"input": -3}}}, "above 200k: input is -3"),
        ({"input": 1, "service_tiers": {"flex": {"output": "x"}}}, "service_tiers flex: output is 'x'"),
        ({"input_cost_per_token": "1e-6"}, "input_cost_per_token is '1e-6'; it must be US dollars for one token"),
        ({"output_cost_per_token": -1e-6, "input_cost_per_token": 0}, "output_cost_per_token is -1e-06"),
        ({"input_cost_per_token": 1e-6, "output": 3}, "use one format"),
    ],
)
def test_a_price_that_is_not_valid_is_one_clear_error(price, problem):
    with pytest.raises(errors.ConfigurationError, match=problem) as caught:
        dn.LM("openai/my-model", price=price)
    assert str(caught.value).startswith("LM: price: ")
    assert "\n" not in str(caught.value)


def kind(value):
    return type(value).__name__


NUMBERS = [np.float64(2e-6), Decimal("2e-6"), Fraction(2, 10**6), 2e-6]


@pytest.mark.parametrize("number", NUMBERS, ids=kind)
def test_a_price_may_be_any_real_number(number):
    assert as_price({"input_cost_per_token": number, "output_cost_per_token": np.int64(0)}) == dn.Price(
        input=2, output=0
    )
    assert dn.LM("openai/my-model", profile={"input_price": float(number)}).price == dn.Price(input=2)
    assert dn.Price(input=number).input == 2e-6
    assert as_price({"input_cost_per_token": np.float32(2e-6)}).input == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize(
    "number", [10**400, 10**5000, 1e308, Decimal("sNaN"), Decimal("Infinity"), np.float64("nan"), 1j, -1], ids=kind
)
@pytest.mark.parametrize("field", ["input", "input_cost_per_token", "input_cost_per_request"])
def test_a_number_that_is_no_price_is_one_clear_error(number, field):
    fields = {"input": number} if field == "input" else {"input_cost_per_token": 1e-6, field: number}
    with pytest.raises(
        errors.ConfigurationError, match="^price: (input|input_cost_per_token|request) is .*; it must be"
    ):
        as_price(fields)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"input": 1, "above": {200_000: {"input": 2}, "200k": {"input": 2}}}, "has the key '200k'.* and once"),
        ({"input": 1, "above": {10**5000: {"input": 2}}}, "has the key a value of the type int; each key must be"),
        ({"input": 1, "above": {"9" * 5000: {"input": 2}}}, "above has the key '999"),
        ({"input": 1, "above": {("a", 1): {"input": 2}}}, r"above has the key \('a', 1\)"),
        ({"input": 1, "service_tiers": {None: {"input": 2}}}, "service_tiers has the key None"),
        ({"input": 1, "above": {5: {3: 2, "input": 2}}}, "above 5: the names of prices must be texts"),
        ({"tiered_pricing": [{"range": [math.inf, 1], "input_cost_per_token": 1e-6}]}, "tiered_pricing has the range"),
        (
            {"tiered_pricing": [{"range": [-1, 1], "input_cost_per_token": 1e-6}]},
            "it must begin with a number of tokens",
        ),
    ],
)
def test_nested_prices_that_are_not_valid_are_one_clear_error(fields, problem):
    with pytest.raises(errors.ConfigurationError, match=problem):
        as_price(fields)


def test_thresholds_may_be_numbers_and_texts():
    price = dn.Price(above={"300k": {"input": 3}, 200_000: {"input": 2}, np.int64(100): {"input": 1}})
    assert list(price.above) == [100, 200_000, 300_000]


def test_costs_do_not_depend_on_the_users_decimal_context():
    with localcontext() as context:
        context.prec = 2
        context.traps[Inexact] = True
        entry = {"input_cost_per_token": 1.234567e-6, "output_cost_per_token": Decimal("2.345678e-6")}
        price = as_price(entry)
        assert price == dn.Price(input=1.234567, output=2.345678)
        assert cost_of(price, TokenCounts(1_000_000, 1_000_000)) == 3.580245
        assert dn.LM("openai/my-model", profile={"input_price": 1.234567e-6}).profile.input_price == 1.234567e-6


def test_prices_in_the_profile_and_beside_it_are_refused():
    with pytest.raises(errors.ConfigurationError, match="give them in one place"):
        dn.LM("openai/my-model", price=OWN, profile={"input_price": 1e-6})


def test_the_profile_of_a_model_shows_its_own_price():
    profile = dn.LM("openai/my-model", price=OWN).profile
    assert (profile.input_price, profile.cached_input_price, profile.output_price) == (2e-6, 5e-7, 8e-6)
    assert dn.LM("openai/my-model", profile={"input_price": 2e-7}).price == dn.Price(input=0.2)


def test_a_price_is_a_value():
    price = as_price(TIERED)
    assert pickle.loads(pickle.dumps(price)) == price == dn.Price(**price.to_dict())
    assert hash(price) == hash(as_price(TIERED))
    assert repr(price).startswith("Price(input=2.0, cached_input=0.5, output=8.0, above={200000: Price(input=4.0")
    with pytest.raises(AttributeError):
        price.input = 3
    with pytest.raises(TypeError):
        price.above[1] = price
    assert dn.Price(input=1).fingerprint() != dn.Price(input=2).fingerprint()


# ── long prompts and service tiers ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("prompt", "input_price", "output_price"), [(200_000, 2, 8), (200_001, 4, 12)])
def test_a_price_of_long_prompts_holds_above_its_number_of_tokens(prompt, input_price, output_price):
    used = {"prompt_tokens": prompt, "completion_tokens": 100}
    assert usd_of(billed(used), price=TIERED) == (prompt * input_price + 100 * output_price) / 1e6


@pytest.mark.parametrize(
    ("requested", "reported", "tier"),
    [
        ("flex", None, "flex"),
        ("flex", "default", None),
        ("flex", "priority", "priority"),
        ("auto", "flex", "flex"),
        ("auto", None, None),
        (None, "priority", "priority"),
        (None, "fast", "priority"),
        (None, "scale", None),
        ("FLEX", None, "flex"),
        ("priority", "auto", "priority"),
        ("priority", 3, "priority"),
    ],
)
def test_the_service_tier_is_the_one_that_the_reply_reports_else_the_requested_one(requested, reported, tier):
    settings_of_model = {} if requested is None else {"service_tier": requested}
    body = billed(USED) if reported is None else billed(USED, service_tier=reported)
    bodies, prediction = called(body, price=TIERED, **settings_of_model)
    assert bodies[0].get("service_tier") == requested
    price = {None: (2, 8), "flex": (1, 4), "priority": (3, 16)}[tier]
    assert prediction.usage.usd == (600 * price[0] + 400 * 0.5 + 100 * price[1]) / 1e6


def test_a_service_tier_in_extra_body_and_in_the_usage_counts_too():
    flex = (600 * 1 + 400 * 0.5 + 100 * 4) / 1e6
    assert usd_of(billed(USED), price=TIERED, extra_body={"service_tier": "flex"}) == flex
    assert usd_of(billed({**USED, "service_tier": "flex"}), price=TIERED) == flex


def test_a_streamed_reply_has_the_price_of_its_service_tier():
    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        text = {"index": 0, "delta": {"content": chat(sentence="x")}, "finish_reason": "stop"}
        for body in ({"choices": [text], "service_tier": "flex"}, {"choices": [], "usage": USED}):
            await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def main(lm):
        return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")][-1]

    with Server(streamed=[answer]) as server:
        last = asyncio.run(main(dn.LM("openai/my-model", api_base=server.base, price=TIERED)))
    assert last.usage.usd == (600 * 1 + 400 * 0.5 + 100 * 4) / 1e6


@needs_the_map
@pytest.mark.parametrize("tier", [None, "flex", "priority"])
@pytest.mark.parametrize("prompt", [1000, 272_000, 272_001, 300_000])
def test_the_map_has_prices_of_service_tiers_for_long_prompts(tier, prompt):
    entry = map_entry("openai/gpt-5.6")
    if entry is None or "input_cost_per_token_above_272k_tokens_priority" not in entry:
        pytest.skip("the installed price map has no prices of service tiers of this model")
    suffix = "_above_272k_tokens" if prompt > 272_000 else ""
    suffix += "" if tier is None else f"_{tier}"
    used = read_usage(
        {"prompt_tokens": prompt, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 600}},
        "openai/gpt-5.6",
        Billing(service_tier=tier),
    )
    expected = (prompt - 600) * entry[f"input_cost_per_token{suffix}"]
    expected += 600 * entry[f"cache_read_input_token_cost{suffix}"] + 50 * entry[f"output_cost_per_token{suffix}"]
    assert used.usd == pytest.approx(expected, rel=1e-12)


IN_BOTH_FORMATS = [
    {
        "input": 2,
        "output": 8,
        "above": {200_000: {"input": 4, "output": 12}},
        "service_tiers": {"batch": {"input": 1, "output": 4}, "flex": {"input": 1, "above": {"200k": {"input": 3}}}},
    },
    {
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 8e-6,
        "input_cost_per_token_above_200k_tokens": 4e-6,
        "output_cost_per_token_above_200k_tokens": 12e-6,
        "input_cost_per_token_batches": 1e-6,
        "output_cost_per_token_batches": 4e-6,
        "input_cost_per_token_flex": 1e-6,
        "input_cost_per_token_above_200k_tokens_flex": 3e-6,
    },
]


@pytest.mark.parametrize("fields", IN_BOTH_FORMATS)
@pytest.mark.parametrize(
    ("tier", "usd"),
    [
        (None, 300_000 * 4 + 1000 * 12),
        ("batch", 300_000 * 2 + 1000 * 6),  # half of the price of a long prompt
        ("flex", 300_000 * 3 + 1000 * 12),  # a price of its own for the prompt, and none for the reply
        ("priority", 300_000 * 4 + 1000 * 12),
    ],
)
def test_a_long_prompt_in_a_service_tier_has_the_tiers_own_price_else_its_share_of_the_plain_one(fields, tier, usd):
    assert cost_of(as_price(fields), TokenCounts(300_000, 1000), tier) == usd / 1e6


def test_a_share_of_a_price_that_is_no_finite_decimal_is_exact():
    price = as_price({"input": 3, "output": 3, "above": {10: {"input": 3}}, "service_tiers": {"flex": {"input": 1}}})
    assert cost_of(price, TokenCounts(1_000_000, 0), "flex") == 1.0
    free = as_price({"input": 0, "output": 0, "above": {10: {"input": 3}}, "service_tiers": {"flex": {"input": 1}}})
    assert cost_of(free, TokenCounts(1_000_000, 0), "flex") == 3.0


def test_all_ways_of_writing_a_long_prompt_in_the_map_are_read():
    plain = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}
    for name in ("input_cost_per_token_above_128k_tokens", "input_cost_per_token_above_128000_tokens"):
        price = price_of_entry({**plain, name: 3e-6})
        assert [cost_of(price, TokenCounts(n, 0)) for n in (128_000, 128_001)] == [0.128, 0.384003]
    for name in ("input_cost_per_token_above_128k_tokens_flex", "input_cost_per_token_flex_above_128k_tokens"):
        price = price_of_entry({**plain, name: 3e-6})
        assert cost_of(price, TokenCounts(128_001, 0), "flex") == 0.384003
        assert cost_of(price, TokenCounts(128_001, 0)) == 0.128001
    at_xai = price_of_entry({**plain, "input_cost_per_token_above_128k_tokens": 3e-6, "litellm_provider": "xai"})
    assert [cost_of(at_xai, TokenCounts(n, 0)) for n in (127_999, 128_000)] == [0.127999, 0.384]


# ── parts of the prompt and of the reply ──────────────────────────────────────────────────────────────────────────────
PARTS = {
    "input": 1,
    "cached_input": 0.1,
    "cache_write": 2,
    "cache_write_1h": 3,
    "audio_input": 10,
    "cached_audio_input": 5,
    "image_input": 4,
    "output": 20,
    "reasoning": 30,
    "audio_output": 40,
}


@pytest.mark.parametrize(
    ("used", "millionths"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 400}}, 600 + 40 + 2000),
        ({"prompt_cache_hit_tokens": 400, "prompt_cache_miss_tokens": 600}, 600 + 40 + 2000),
        ({"cached_tokens": 400}, 600 + 40 + 2000),
        ({"prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 100}}, 500 + 40 + 200 + 2000),
        ({"cache_read_input_tokens": 400, "cache_creation_input_tokens": 100}, 500 + 40 + 200 + 2000),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 50}}, 850 + 350 + 2000),
        (
            {
                "prompt_tokens_details": {
                    "cache_creation_tokens": 150,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 50},
                }
            },
            850 + 350 + 2000,
        ),
        ({"prompt_tokens_details": {"audio_tokens": 100, "image_tokens": 50}}, 850 + 1000 + 200 + 2000),
        (
            {
                "prompt_tokens_details": {
                    "cached_tokens": 400,
                    "audio_tokens": 100,
                    "cached_tokens_details": {"audio_tokens": 60},
                }
            },
            560 + 400 + 34 + 300 + 2000,
        ),
        ({"completion_tokens_details": {"reasoning_tokens": 60}}, 1000 + 800 + 1800),
        ({"completion_tokens_details": {"reasoning_tokens": 60, "audio_tokens": 10}}, 1000 + 600 + 1800 + 400),
        ({"completion_tokens_details": {"reasoning_tokens": 50}, "total_tokens": 1150}, 1000 + 2000 + 1500),
        ({"prompt_tokens_details": {"cached_tokens": 4000}}, 100 + 2000),
        ({"prompt_tokens_details": {"audio_tokens": 4000}}, 10_000 + 2000),
    ],
)
def test_each_part_of_a_call_has_its_price(used, millionths):
    used = {"prompt_tokens": 1000, "completion_tokens": 100, **used}
    assert usd_of(billed(used), price=PARTS) == millionths / 1e6


def test_reasoning_that_the_provider_counts_beside_the_reply_is_a_part_of_it():
    used = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 45,
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    usage = read_usage(used, "openai/unknown")
    assert (usage.completion_tokens, usage.reasoning_tokens, usage.tokens) == (35, 30, 45)


@pytest.mark.parametrize("value", ["12", math.nan, -1, [1]])
@pytest.mark.parametrize("name", ["cached_tokens", "cache_write_tokens", "audio_tokens"])
def test_a_part_that_is_no_number_makes_the_cost_unknown(name, value):
    used = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {name: value}}
    assert read_usage(used, "openai/m", Billing(as_price(PARTS))).usd is None


def test_the_responses_format_has_the_same_prices():
    body = {
        "id": "r",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": chat(sentence="x")}]}],
        "service_tier": "flex",
        "usage": {
            "input_tokens": 1000,
            "output_tokens": 100,
            "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    from dspynb.lm.providers.responses_reply import read_response

    lm_reply = read_response(body, "openai/m", {}, Billing(as_price(TIERED)))
    assert lm_reply.usage.usd == (600 * 1 + 400 * 0.5 + 100 * 4) / 1e6


# ── costs that are reported ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("report", "usd"),
    [
        ({"cost": 0.0123}, 0.0123),
        ({"cost": 0}, 0.0),
        ({"cost": "0.5"}, 0.5),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 0.021),
        ({"cost": 0.02, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, 0.02),
        ({"cost": {"input_tokens_cost": 0.1, "request_cost": 0.005, "total_cost": 0.105}}, 0.105),
        ({"estimated_cost": 3.4e-05}, 3.4e-05),
        ({"total_cost": 0.25}, 0.25),
        ({"cost_in_usd_ticks": 12_345_000}, 0.0012345),
        ({"usd": 0.75}, 0.75),
    ],
)
@pytest.mark.parametrize("price", [None, OWN])
def test_a_cost_that_the_reply_reports_settles(report, usd, price):
    prediction = called(billed({**USED, **report}), price=price)[1]
    assert prediction.usage.usd == usd
    assert (prediction.usage.prompt_tokens, prediction.usage.cached_tokens) == (1000, 400)
    assert prediction.calls[0].price_source == "reported with the reply"


@pytest.mark.parametrize("report", [{"cost": -1}, {"cost": math.nan}, {"cost": None}, {"cost": True}, {"cost": "free"}])
def test_a_reported_cost_that_is_not_valid_is_left_out(report):
    assert read_usage({**USED, **report}, "openai/m", Billing(as_price(OWN))).usd == OWN_COST
    assert read_usage({**USED, **report}, "openai/m").usd is None


@pytest.mark.parametrize(("value", "usd"), [("0.0042", 0.0042), ("0.0", 0.0), ("", OWN_COST), ("None", OWN_COST)])
def test_the_cost_in_the_header_of_litellms_proxy_settles(value, usd):
    assert usd_of(billed(USED), headers={"x-litellm-response-cost": value}, price=OWN) == usd


def test_the_header_of_a_stream_which_is_sent_before_the_cost_is_known_does_not_count():
    async def main(lm):
        return [part async for part in dn.Predict(Caption, lm=lm).stream(subject="x")][-1]

    headers = {"x-litellm-response-cost": "0.0"}
    pieces = [chat(sentence="x")]
    streamed = [sse(pieces, usage=used, headers=headers) for used in (USED, {**USED, "cost": 0.5})]
    with Server(streamed=streamed) as server:
        lm = dn.LM("openai/my-model", api_base=server.base, price=OWN, cache=False)
        assert [asyncio.run(main(lm)).usage.usd for _ in range(2)] == [OWN_COST, 0.5]


# ── models of one's own ───────────────────────────────────────────────────────────────────────────────────────────────
class Own:
    name = "mine"

    def __init__(self, usage, price=None):
        self.usage = usage
        if price is not None:
            self.price = price

    async def complete(self, request):
        return dn.LMReply(chat(sentence="x"), usage=self.usage)


def own_usage(usage, price=None):
    return dn.Predict(Caption, lm=Own(usage, price)).run_sync(subject="x").usage


def test_a_model_of_ones_own_may_have_a_price():
    usage = dn.Usage(calls=1, prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    assert own_usage(usage).usd == 0.0
    assert own_usage(usage, OWN).usd == OWN_COST
    assert own_usage(usage, dn.Price(**OWN)).usd == OWN_COST
    assert own_usage(dn.Usage(calls=1, prompt_tokens=1000, completion_tokens=100, usd=0.5), OWN).usd == 0.5
    assert own_usage(dn.Usage(calls=1, prompt_tokens=None, completion_tokens=100), OWN).usd is None
    with dn.Budget(usd=1) as meter:
        own_usage(usage, OWN)
    assert meter.spent["usd"] == OWN_COST


def test_a_model_of_ones_own_may_report_its_usage_as_a_dict():
    assert own_usage({"prompt_tokens": 1000, "completion_tokens": 100, "usd": 0.25}) == dn.Usage(1, 1000, 100, usd=0.25)
    assert own_usage(USED, OWN).usd == OWN_COST
    assert own_usage(USED).usd is None
    assert own_usage({**USED, "cost": 0}, OWN).usd == 0.0
    assert own_usage({"prompt_tokens": 10, "completion_tokens": 5, "reasoning_tokens": 3}).reasoning_tokens == 3


def test_a_usd_of_zero_counts_as_not_reported_where_the_model_has_a_price():
    used = asdict(dn.Usage(calls=1, prompt_tokens=1000, completion_tokens=100, cached_tokens=400))
    assert own_usage(used, OWN).usd == OWN_COST
    assert own_usage(used).usd == 0.0
    assert own_usage({**used, "usd": 0.5}, OWN).usd == 0.5
    assert usd_of(billed({**USED, "usd": 0.0}), price=OWN) == OWN_COST
    assert usd_of(billed({**USED, "usd": 0.0})) == 0.0


def test_the_calls_in_a_usage_that_is_a_dict_count():
    used = asdict(dn.Usage(calls=3, prompt_tokens=1000, completion_tokens=100, cached_tokens=400))
    assert (own_usage(used, OWN).calls, own_usage(used, OWN).usd) == (3, OWN_COST)
    assert (own_usage({**used, "calls": 0}, OWN).calls, own_usage({**used, "calls": 0}, OWN).usd) == (0, 0.0)
    assert own_usage({**used, "calls": "many"}, OWN).calls == 1


def failing_price(error):
    class Priced(Own):
        calls = 0

        @property
        def price(self):
            raise error

        async def complete(self, request):
            self.calls += 1
            return await super().complete(request)

    return Priced(USED)


@pytest.mark.parametrize("error", [ValueError("no network"), AttributeError("no network")])
def test_a_property_price_that_fails_is_one_error_before_the_model_is_called(error):
    lm = failing_price(error)
    with pytest.raises(errors.ConfigurationError, match="the price of the model mine cannot be read: .*no network"):
        dn.Predict(Caption, lm=lm).run_sync(subject="x")
    assert lm.calls == 0


def test_a_price_that_is_not_valid_is_an_error_before_the_model_is_called(tmp_path):
    requests = []
    lm = dn.FunctionLM(lambda request: requests.append(request) or chat(sentence="x"))
    lm.price = {"input": -1}
    for model in (lm, dn.recorded(tmp_path / "replies.jsonl", lm=lm)):
        with pytest.raises(errors.ConfigurationError, match="input is -1"):
            dn.Predict(Caption, lm=model).run_sync(subject="x")
    assert requests == []


def test_a_price_of_ones_own_that_is_not_valid_is_an_error_that_names_the_model():
    with pytest.raises(errors.ConfigurationError, match="the price of the model mine: input is -1"):
        own_usage(dn.Usage(calls=1, prompt_tokens=1, completion_tokens=1), {"input": -1})


def test_the_doubles_take_a_price_too():
    lm = dn.FunctionLM(lambda request: dn.LMReply(chat(sentence="x"), usage=dn.Usage(1, 1000, 100, 400)))
    lm.price = OWN
    assert dn.Predict(Caption, lm=lm).run_sync(subject="x").usage.usd == OWN_COST


def test_a_recorded_model_has_the_price_of_its_model(tmp_path):
    lm = dn.recorded(tmp_path / "replies.jsonl", lm=Own(USED, OWN))
    assert dn.Predict(Caption, lm=lm).run_sync(subject="x").usage.usd == OWN_COST
    assert dn.Predict(Caption, lm=lm).run_sync(subject="x").usage.usd == 0.0


def test_a_method_named_price_is_no_price():
    class Priced(Own):
        def price(self):
            raise AssertionError

    assert dn.Predict(Caption, lm=Priced(dn.Usage(1, 10, 5))).run_sync(subject="x").usage.usd == 0.0


def test_an_incomplete_reply_of_a_model_of_ones_own_costs_its_price():
    class Cut(Own):
        async def complete(self, request):
            return dn.LMReply("x", usage=self.usage, finish="length")

    with dn.Budget(usd=1) as meter, pytest.raises(errors.ReplyTruncated):
        dn.Predict(Caption, lm=Cut(dn.Usage(1, 1000, 100, 400), OWN)).run_sync(subject="x")
    assert meter.spent["usd"] == OWN_COST


# ── price files ───────────────────────────────────────────────────────────────────────────────────────────────────────
FILE = {
    "openai/my-model": OWN,
    "other": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat", "litellm_provider": "x"},
    "image-maker": {"mode": "image_generation", "litellm_provider": "openai", "output_cost_per_image": 0.04},
}


@pytest.fixture
def price_file(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(FILE))
    return path


def test_a_price_file_has_prices_in_both_formats(price_file):
    with dn.context(prices=price_file):
        assert usd_of(billed(USED)) == OWN_COST
        assert usd_of(billed(USED), "openai/other") == (1000 * 1 + 100 * 2) / 1e6
        assert usd_of(billed(USED), "openai/image-maker") is None
        assert usd_of(billed(USED), price={"input": 1, "output": 1}) == 1100 / 1e6
    assert usd_of(billed(USED)) is None
    with dn.context(prices={"my-model": OWN}):
        assert usd_of(billed(USED)) == OWN_COST


def test_configure_sets_the_price_file_of_the_process(price_file):
    try:
        dn.configure(prices=str(price_file))
        assert dn.LM("openai/my-model").price == dn.Price(**OWN)
        with dn.context(prices=None):
            assert dn.LM("openai/my-model").price is None
    finally:
        dn.configure(prices=None)


@needs_the_map
def test_models_that_a_price_file_does_not_name_have_the_price_of_the_map(price_file):
    with dn.context(prices=price_file):
        assert dn.LM("openai/gpt-4.1-mini").price == price_of("openai/gpt-4.1-mini").price is not None
    with dn.context(prices={"openai/gpt-4.1-mini": OWN}):
        assert dn.LM("openai/gpt-4.1-mini").price == dn.Price(**OWN)


def test_the_environment_may_name_the_price_file(price_file, monkeypatch, tmp_path):
    try:
        monkeypatch.setenv(PRICES_VARIABLE, str(price_file))
        assert dn.LM("openai/my-model").price == dn.Price(**OWN)
        with dn.context(prices={"my-model": {"input": 1, "output": 1}}):
            assert dn.LM("openai/my-model").price.input == 1
        monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "none.json"))
        with pytest.raises(errors.ConfigurationError, match="cannot be read.*the value of DSPYNB_PRICES"):
            dn.LM("openai/my-model")
    finally:
        monkeypatch.delenv(PRICES_VARIABLE)
        read_environment()
    assert dn.LM("openai/my-model").price is None


def test_no_prices_are_those_of_the_environment_and_an_empty_dict_is_the_map_alone(price_file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv(PRICES_VARIABLE, str(price_file))
        lm = dn.LM("openai/my-model")
        with dn.context(prices={}):
            assert lm.price is None
            with dn.context(prices=None):
                assert lm.price == dn.Price(**OWN)
    read_environment()
    assert lm.price is None


def test_a_price_file_of_the_environment_that_was_edited_is_read_again_for_the_next_model(price_file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv(PRICES_VARIABLE, str(price_file))
        assert dn.LM("openai/my-model").price.input == 2
        price_file.write_text(json.dumps({"my-model": {"input": 31, "output": 8}}))
        lm = dn.LM("openai/my-model")
        assert lm.price.input == 31
        changed = price_file.stat().st_mtime_ns + 10**9
        price_file.write_text(json.dumps({"my-model": {"input": 32, "output": 8}}))  # of the same size
        os.utime(price_file, ns=(changed, changed))
        assert dn.LM("openai/my-model").price.input == lm.price.input == 32
        price_file.unlink()
        with pytest.raises(errors.ConfigurationError, match="cannot be read"):
            dn.LM("openai/my-model")
    read_environment()


@needs_the_map
def test_an_entry_of_a_price_file_with_one_price_is_completed_from_the_map(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"openai/gpt-4o-mini": {"output": 1}, "gpt-4.1-mini": {"input_cost_per_token": 1e-6}}))
    with dn.context(prices=path):
        assert usd_of(billed(USED), "openai/gpt-4o-mini") == (600 * 0.15 + 400 * 0.075 + 100 * 1) / 1e6
        listed = price_of("openai/gpt-4o-mini")
        assert listed.source.startswith("prices.json (")
        assert ", and litellm " in listed.source
        assert dn.LM("openai/gpt-4.1-mini").price.output > 0
        own = dn.LM("openai/gpt-4o-mini", price={"input": 3}).price
        assert (own.input, own.cached_input, own.output) == (3, None, 1)


@pytest.mark.parametrize(
    ("prices", "problem"),
    [
        ({("a", "b"): OWN}, r"prices: the name of a model is \('a', 'b'\); it must be a text"),
        ({"a": OWN, 3: OWN}, "prices: the name of a model is 3"),
        ({"a": {"input": 10**5000}}, "prices: a: input is a value of the type int"),
        ({"a": {"mode": "chat", 1: 2, "input_cost_per_token": math.inf}}, "prices: a: input_cost_per_token is inf"),
    ],
)
def test_prices_in_a_dict_that_are_not_valid_are_one_clear_error(prices, problem):
    with pytest.raises(errors.ConfigurationError, match=problem):
        dn.configure(prices=prices)


def test_the_source_of_a_dict_of_prices_has_a_hash_of_them():
    mixed = {"a": {**OWN, "above": {200_000: {"input": 4}, "300k": {"input": np.float64(5)}}}}
    same = {"a": {**OWN, "above": {"200k": {"input": 4}, 300_000: {"input": 5.0}}}}
    assert as_price_list(mixed).source == as_price_list(same).source != as_price_list({"a": OWN}).source


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is no JSON file"),
        ("[]", "a JSON object of prices by the names of models"),
        ('{"m": {"input": -1}}', "prices.json: m: input is -1"),
        ('{"m": {"input": NaN}}', "m: input is nan"),
        ('{"m": {"input": "2"}}', "m: input is '2'"),
        ('{"m": 2}', "m: 2 is no price"),
        ('{"m": {"input_cost_per_token": "1e-6", "mode": "chat"}}', "m: input_cost_per_token is '1e-6'"),
        ('{"m": {"input_cost_per_token": -1, "mode": "chat"}}', "m: input_cost_per_token is -1"),
    ],
)
def test_a_price_file_that_is_not_valid_is_one_clear_error(tmp_path, content, problem):
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(errors.ConfigurationError, match=problem):
        dn.configure(prices=path)
    assert dn.LM("openai/m").price is None


@pytest.mark.parametrize("value", ["missing.json", 3, ["a"]])
def test_a_price_file_that_does_not_exist_is_an_error_when_it_is_set(value):
    with pytest.raises(errors.ConfigurationError, match="prices"):
        dn.configure(prices=value)


@needs_the_map
def test_the_whole_map_of_litellm_is_a_price_file():
    path = next(iter(importlib.util.find_spec("litellm").submodule_search_locations))
    prices = as_price_list(f"{path}/model_prices_and_context_window_backup.json")
    assert len(prices) > 1000
    assert prices.get("openai/gpt-4.1-mini") == price_of("openai/gpt-4.1-mini").price
    assert pickle.loads(pickle.dumps(prices)).get("gpt-4.1-mini") == prices.get("gpt-4.1-mini")


@needs_the_map
def test_the_setting_base_model_names_the_model_whose_listed_price_holds():
    lm = dn.LM("azure/my-deployment", base_model="openai/gpt-4.1-mini", api_key="k")
    assert lm.price == price_of("openai/gpt-4.1-mini").price is not None
    billing = lm._engine.billing({"service_tier": "default"})
    assert read_usage(USED, lm.name, billing).usd == read_usage(USED, "openai/gpt-4.1-mini").usd > 0
    assert read_usage(USED, lm.name).usd is None


def test_prices_go_to_other_processes():
    lm = pickle.loads(pickle.dumps(dn.LM("openai/my-model", price=TIERED)))
    assert lm.price == as_price(TIERED)
    assert lm._engine.endpoint.price == as_price(TIERED)
    with dn.context(prices=FILE):
        sent = pickle.dumps(dn.snapshot())
    with pickle.loads(sent).enter():
        assert dn.LM("openai/my-model").price == dn.Price(**OWN)


# ── the run file ──────────────────────────────────────────────────────────────────────────────────────────────────────
def source_in_file(lm):
    """The source of the price of a call, in the file of its run."""
    dn.run_sync(lambda: dn.Predict(Caption, lm=lm).batch([{"subject": "x"}]))
    flush_journals()
    reopened = dn.open_run(dn.last_run().path)
    sources = [event.price_source for event in reopened.record.events if hasattr(event, "price_source")]
    assert len(sources) == 1
    return sources[0]


@pytest.fixture
def served():
    """Makes models that a server answers."""
    with Server(lambda body, number: billed(USED)) as server:
        yield lambda name, **settings_of_model: dn.LM(
            name, api_base=server.base, api_key="k", cache=False, **settings_of_model
        )


@needs_the_map
def test_the_run_file_has_the_version_of_the_map(served):
    version = importlib.metadata.version("litellm")
    source = source_in_file(served("openai/gpt-4.1-mini"))
    assert source.startswith(f"litellm {version}, entry ")
    assert len(source.rpartition(" ")[2]) == 8


def test_the_run_file_has_the_source_of_any_other_price(price_file, served):
    assert source_in_file(served("openai/my-model")) is None
    own = source_in_file(served("openai/my-model", price=OWN))
    assert own == f"the model's own price {dn.Price(**OWN).fingerprint()}"
    with dn.context(prices=price_file):
        assert source_in_file(served("openai/my-model")) == as_price_list(price_file).source
    assert source_in_file(Own(USED, OWN)) == own


def test_files_without_the_source_of_prices_open():
    call = called(billed(USED), price=OWN)[1].calls[0]
    body = to_json(call)
    del body["price_source"]
    older = from_json(body)
    assert older.price_source is None
    assert older.usage == call.usage


# ── the highest price ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_highest_price_of_a_call_is_for_one_token():
    price = as_price({**TIERED, "cache_write": 2.5, "cache_write_1h": 4, "audio_input": 30, "request": 0.01})
    assert highest(price, 1000) == (2.5e-6, 8e-6, 0.01)
    assert highest(price, 200_001) == highest(price) == (4e-6, 12e-6, 0.01)
    assert highest(price, 1000, "priority") == (3e-6, 16e-6, 0.01)
    assert highest(price, 1000, "flex") == (2.5e-6, 8e-6, 0.01)  # it may be served in the plain tier
    assert highest(price, 1000, "auto") == (3e-6, 16e-6, 0.01)
    assert highest(price, 1000, lasting_cache=True) == (4e-6, 8e-6, 0.01)
    assert highest(price, 1000, has_media=True) == (30e-6, 8e-6, 0.01)


def test_the_highest_price_is_unknown_where_the_price_is():
    assert highest(None) is None
    assert highest(dn.Price(input=1)) is None
    assert highest_prices("openai/my-model") is None
    assert highest(dn.Price(input=0, output=0)) == (0.0, 0.0, 0.0)


# ── any price and any usage ───────────────────────────────────────────────────────────────────────────────────────────
AMOUNT = st.integers(0, 10**8).map(lambda number: number / 10**4)
COUNT = st.integers(0, 2_000_000)
PROMPT_PARTS = ("cached_input", "cache_write", "cache_write_1h", "audio_input", "cached_audio_input", "image_input")
RATES = st.fixed_dictionaries(
    {"input": AMOUNT, "output": AMOUNT},
    optional=dict.fromkeys((*PROMPT_PARTS, "reasoning", "audio_output"), AMOUNT),
)
PRICES = st.builds(
    lambda base, above, tiers: as_price({**base, "above": above, "service_tiers": tiers}),
    RATES,
    st.dictionaries(st.integers(1, 1_500_000), RATES, max_size=2),
    st.dictionaries(st.sampled_from(["flex", "priority", "batch"]), RATES, max_size=2),
)
COUNTS = st.builds(TokenCounts, *[COUNT] * len(TokenCounts._fields))


@settings(max_examples=150)
@given(PRICES, COUNTS, st.sampled_from([None, "flex", "priority", "auto", "default"]))
def test_no_call_costs_more_than_its_highest_price(price, counts, tier):
    top = highest(price, counts.prompt, tier, has_media=True, lasting_cache=True)
    bound = counts.prompt * top.prompt_token + counts.completion * top.reply_token + top.call
    cost = cost_of(price, counts, tier)
    assert 0 <= cost <= bound * (1 + 1e-12)


@settings(max_examples=150)
@given(RATES, COUNTS, st.integers(1, 1000))
def test_the_cost_never_falls_when_a_call_has_more_tokens(rates, counts, more):
    price = as_price(rates)
    for name in ("prompt", "completion"):
        longer = counts._replace(**{name: getattr(counts, name) + more})
        assert cost_of(price, longer) >= cost_of(price, counts)


@settings(max_examples=150)
@given(RATES, RATES, st.integers(1, 10**6), COUNT)
def test_a_long_prompt_begins_one_token_above_its_border(base, long, border, completion):
    price = as_price({**base, "above": {border: long}})
    plain = as_price(base)
    above = as_price({**base, **long} if "reasoning" in long else {**base, **long, "reasoning": long["output"]})
    assert cost_of(price, TokenCounts(border, completion, 7, 5)) == cost_of(
        plain, TokenCounts(border, completion, 7, 5)
    )
    beyond = TokenCounts(border + 1, completion, 7, 5)
    assert cost_of(price, beyond) == cost_of(above, beyond)


@settings(max_examples=150)
@given(AMOUNT, AMOUNT, AMOUNT, COUNT, COUNT, COUNT)
def test_costs_are_exact_decimals_that_are_rounded_once(input_price, output, cached_input, prompt, completion, cached):
    cached = min(cached, prompt)
    used = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    own = dn.Price(input=input_price, output=output, cached_input=cached_input)
    usage, source = read_bill(used, "openai/m", Billing(own))
    exact = (prompt - cached) * Fraction(repr(input_price)) + cached * Fraction(repr(cached_input))
    exact += completion * Fraction(repr(output))
    assert usage.usd == float(exact / 10**6)
    assert source == f"the model's own price {own.fingerprint()}"
    longer = {**used, "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0}, "service_tier": None}
    assert read_usage(longer, "openai/m", Billing(own)).usd == usage.usd  # also where the usage has more fields
