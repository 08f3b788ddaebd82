"""Costs by litellm's map are those that litellm computes, for models of all providers and all kinds of usage."""

from __future__ import annotations

import os

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.lm.providers.billing import Billing, read_usage
from dspynb.lm.providers.prices import map_entry
from dspynb.pricing.litellm_format import price_of_entry
from dspynb.pricing.rates import TokenCounts, cost_of
from tests.lm.server import Server, reply

pytestmark = pytest.mark.slow  # importing litellm takes up to a quarter of a minute
KINDS = ("chat", "completion", "responses")
TIERS = (None, "flex", "priority", "balanced", "fast", "default")
PROMPTS = (1000, 32_000, 32_001, 128_000, 128_001, 200_000, 200_001, 272_000, 272_001, 600_000)
DETAILS = (
    ({"cached_tokens": 700}, {}),
    ({"cached_tokens": 300, "cache_creation_tokens": 200}, {}),
    (
        {
            "cached_tokens": 300,
            "cache_creation_tokens": 200,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
        },
        {},
    ),
    ({"cached_tokens": 300}, {"reasoning_tokens": 400}),
    ({"audio_tokens": 100, "image_tokens": 200}, {}),
    ({"cached_tokens": 300, "audio_tokens": 100, "image_tokens": 50}, {"audio_tokens": 100}),
)


def usages():
    """Usages in OpenAI's format, and the service tiers of their requests."""
    for prompt in PROMPTS:
        yield usage(prompt, {}, {}), None
    for prompt in (1000, 300_000):
        for prompt_details, reply_details in DETAILS:
            for tier in TIERS:
                yield usage(prompt, prompt_details, reply_details), tier


def usage(prompt, prompt_details, reply_details):
    return {
        "prompt_tokens": prompt,
        "completion_tokens": 1000,
        "total_tokens": prompt + 1000,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": reply_details,
    }


@pytest.fixture(scope="module")
def litellm():
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return pytest.importorskip("litellm")


def cost_by_litellm(litellm, model, body, tier):
    from litellm.types.utils import (
        CacheCreationTokenDetails,
        CompletionTokensDetailsWrapper,
        PromptTokensDetailsWrapper,
        Usage,
    )

    details = dict(body["prompt_tokens_details"])
    by_time = details.pop("cache_creation_token_details", None)
    if by_time:
        details["cache_creation_token_details"] = CacheCreationTokenDetails(**by_time)
    reply_details = body["completion_tokens_details"]
    used = Usage(
        prompt_tokens=body["prompt_tokens"],
        completion_tokens=body["completion_tokens"],
        total_tokens=body["total_tokens"],
        prompt_tokens_details=PromptTokensDetailsWrapper(**details),
        completion_tokens_details=CompletionTokensDetailsWrapper(**reply_details) if reply_details else None,
    )
    provider = litellm.model_cost[model]["litellm_provider"]
    named_tier = None if tier == "default" else tier  # which litellm resolves before
    return sum(
        litellm.cost_per_token(model=model, custom_llm_provider=provider, usage_object=used, service_tier=named_tier)
    )


def reason_for_a_difference(litellm, model, body, tier):
    """Why litellm's cost is another one on purpose; None if it must be the same."""
    entry = litellm.model_cost[model]
    provider = entry["litellm_provider"]
    if f"{provider}/{model}" in litellm.model_cost or model.startswith(f"{provider}/{provider}/"):
        return "litellm takes the price of another model, whose name is the same after the provider"
    if provider == "fireworks_ai" and tier is not None:
        return "litellm leaves out the prices of service tiers, which the map has for this provider"
    if provider == "perplexity":
        return "litellm computes the costs of this provider itself, and leaves out the prices of long prompts and tiers"
    is_long = body["prompt_tokens"] > 100_000
    if is_long and tier is not None and not has_long_prices_of_a_tier(entry, {"fast": "priority"}.get(tier, tier)):
        return "litellm takes the plain price of long prompts where the map has none for the service tier"
    if is_long and tier is not None and "cache_creation_token_details" in body["prompt_tokens_details"]:
        return "litellm takes the price of short prompts for what is added to the cache for an hour in a service tier"
    at_some_hours = "litellm takes lower prices at some hours of the day, which are left out here"
    return at_some_hours if "off_peak_pricing" in entry else None


def has_long_prices_of_a_tier(entry, tier):
    """Whether an entry with prices of a service tier has those of long prompts in it, for all its long prices."""
    if not any(name.endswith(f"_{tier}") for name in entry):
        return True
    long = [name for name in entry if name.endswith("k_tokens") and "_above_" in name]
    return all(f"{name}_{tier}" in entry for name in long)


def test_costs_are_those_of_litellm(litellm):
    models = [
        name
        for name, entry in litellm.model_cost.items()
        if entry.get("mode") in KINDS and price_of_entry(entry) is not None
    ]
    tiered = [name for name in models if "tiered_pricing" in litellm.model_cost[name]]
    sample = [*models[::12], *tiered[::4]]
    compared = 0
    differences = []
    reasons = set()
    for model in sample:
        for body, tier in usages():
            expected = cost_by_litellm(litellm, model, body, tier)
            usd = read_usage(body, model, Billing(service_tier=tier)).usd
            compared += 1
            if usd == pytest.approx(expected, rel=1e-9, abs=1e-15):
                continue
            reason = reason_for_a_difference(litellm, model, body, tier)
            if reason is None:
                differences.append((model, body, tier, usd, expected))
            reasons.add(reason)
    assert differences == []
    assert compared > 10_000
    assert len({litellm.model_cost[model]["litellm_provider"] for model in sample}) > 30


def test_the_installed_litellm_and_the_file_that_is_read_have_the_same_map(litellm):
    for name in ("gpt-4.1-mini", "gemini/gemini-2.5-pro", "dashscope/qwen3-max"):
        assert price_of_entry(map_entry(name)) == price_of_entry(litellm.model_cost[name])


def test_costs_of_batches_are_those_of_litellm(litellm):
    from litellm.cost_calculator import batch_cost_calculator
    from litellm.types.utils import Usage

    names = [
        name
        for name, entry in litellm.model_cost.items()
        if entry.get("mode") == "chat" and "input_cost_per_token_batches" in entry
    ]
    names = [name for name in names if "output_cost_per_token_batches" in litellm.model_cost[name]]
    for name in names[::6]:
        entry = litellm.model_cost[name]
        if not has_long_prices_of_a_tier(entry, "batches"):
            continue  # litellm takes the price of short prompts
        for prompt in PROMPTS:
            used = Usage(prompt_tokens=prompt, completion_tokens=1000, total_tokens=prompt + 1000)
            info = {**entry, "key": name}
            provider = entry["litellm_provider"].partition("-")[0]
            expected = sum(batch_cost_calculator(used, name, provider, info))
            usd = cost_of(price_of_entry(entry), TokenCounts(prompt, 1000), "batch")
            assert usd == pytest.approx(expected, rel=1e-9), (name, prompt)
    assert len(names) > 100


# ── replies that come through litellm ─────────────────────────────────────────────────────────────────────────────────
USED = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def usage_through_litellm(body, name, path="/v1", headers=None, **settings):
    def answer(request, number):
        return web.json_response(body, headers=headers or {})

    with AnyPath(answer) as server:
        address = f"http://127.0.0.1:{server.port}{path}"
        lm = dn.LM(name, api_base=address, api_key="k", engine="litellm", cache=False, **settings)
        return lm.run_sync("Say hello.").usage


class AnyPath(Server):
    def add_routes(self, app):
        app.router.add_post("/{path:.*}", self._handle)


def test_a_cost_that_openrouter_reports_settles_through_litellm():
    body = {**reply("hello"), "created": 0, "usage": {**USED, "cost": 0.0123}}
    assert usage_through_litellm(body, "openrouter/some/model").usd == 0.0123


def test_the_header_of_a_proxy_settles_through_litellm():
    body = {**reply("hello"), "created": 0, "usage": USED}
    headers = {"x-litellm-response-cost": "0.0042"}
    assert usage_through_litellm(body, "litellm_proxy/my-model", headers=headers).usd == 0.0042


def test_a_price_and_a_service_tier_hold_through_litellm():
    price = {"input": 2, "output": 8, "service_tiers": {"flex": {"input": 1, "output": 4}}}
    body = {**reply("hello"), "created": 0, "usage": USED}
    assert usage_through_litellm(body, "openai/my-model", price=price).usd == (2000 + 800) / 1e6
    body["service_tier"] = "flex"
    assert usage_through_litellm(body, "openai/my-model", price=price).usd == (1000 + 400) / 1e6


def test_what_claude_adds_to_its_cache_has_its_price_through_litellm():
    name = "anthropic/claude-sonnet-4-5"
    entry = map_entry(name)
    used = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 4000,
        "cache_creation_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
    }
    content = [{"type": "text", "text": "hello"}]
    body = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": content}
    usage = usage_through_litellm({**body, "stop_reason": "end_turn", "usage": used}, name, path="")
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (7010, 4000, 5)
    expected = 10 * entry["input_cost_per_token"] + 4000 * entry["cache_read_input_token_cost"]
    expected += 1000 * entry["cache_creation_input_token_cost"] + 5 * entry["output_cost_per_token"]
    expected += 2000 * entry["cache_creation_input_token_cost_above_1hr"]
    assert usage.usd == pytest.approx(expected, rel=1e-12)
