"""``dspynb doctor --live``: the checks of one model, and the limit of their cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from dataclasses import replace

import pytest
from aiohttp import web

import dspynb as dn
from dspynb import errors
from dspynb.cli import main
from dspynb.contrib.doctor.live import LiveOptions, _describe_prices, _prices, check_model
from dspynb.contrib.doctor.model_checks import MODEL_CHECKS, run_check
from dspynb.contrib.doctor.spending import PROMPT_OVERHEAD, SpendingLimit
from dspynb.errors import BudgetExhausted, ConfigurationError
from dspynb.lm.protocol import LMRequest
from dspynb.lm.providers.prices import HighestPrices, highest_prices
from tests.lm.server import Server, error, reply, sse

KEY = "planted-0123456789-key"
ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
NAMES = [check.name for check in MODEL_CHECKS]


def with_usage(text, prompt, completion):
    """The body of a reply with this usage."""
    return {**reply(text), "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def answer(body, number):
    return with_usage(ANSWER, 100, 20)


def checked(server, model="openai/m", **options):
    """The report of the checks of a model that a server has."""
    while len(server.streamed) < 20:
        server.streamed.append(sse([ANSWER], usage={"prompt_tokens": 100, "completion_tokens": 20}))
    return asyncio.run(check_model(LiveOptions(model, server.base, **options)))


def outcomes(report):
    return {result.name: result.outcome for result in report.results}


def doctor(server, *arguments, model="openai/m"):
    """The exit status of the command."""
    server.streamed += [sse([ANSWER])] * 20
    return main(["doctor", "--live", model, "--api-base", server.base, *arguments])


# ── the limit ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def most_expensive(body, number):
    """A reply with the largest usage that the request allows."""
    sent = {name: value for name, value in body.items() if not name.startswith("stream")}
    prompt = len(json.dumps(sent, ensure_ascii=False).encode()) + PROMPT_OVERHEAD
    return with_usage(ANSWER, prompt, body.get("max_tokens") or body["max_completion_tokens"])


async def most_expensive_stream(request):
    usage = most_expensive(await request.json(), 0)["usage"]
    return await sse([ANSWER], usage=usage)(request)


def cost_of(model, bodies):
    total = 0.0
    for body in bodies:
        usage = most_expensive(body, 0)["usage"]
        prices = highest_prices(model, usage["prompt_tokens"])
        total += usage["prompt_tokens"] * prices.prompt_token + usage["completion_tokens"] * prices.reply_token
        total += prices.call
    return total


@pytest.mark.parametrize("max_usd", [0.02, 0.05])
@pytest.mark.parametrize("model", ["openai/gpt-4.1-mini", "openai/o3-mini", "openai/gpt-5-search-api", "openai/gpt-5"])
def test_the_most_expensive_replies_do_not_pass_the_limit(model, max_usd):
    with Server(most_expensive) as server:
        server.streamed = [most_expensive_stream] * 20
        report = checked(server, model, max_usd=max_usd, max_tokens=512)
    assert 0 < cost_of(model, server.bodies) <= report.usd <= max_usd
    assert "not run" in outcomes(report).values()


def test_after_the_limit_the_remaining_checks_are_not_run():
    with Server(most_expensive) as server:
        report = checked(server, "openai/gpt-4.1-mini", max_usd=0.02)
    states = [result.outcome for result in report.results]
    first = states.index("not run")
    assert set(states[first:]) == {"not run"}
    assert "the next call could cost USD 0.00" in report.results[first].detail
    assert {result.detail for result in report.results[first + 1 :]} == {"the limit of USD 0.02"}
    assert report.fine
    assert sum(result.usd for result in report.results if result.usd) == pytest.approx(report.usd)


def test_a_limit_below_the_first_call_sends_nothing(capsys):
    with Server(answer) as server:
        assert doctor(server, "--max-usd", "0.0001", model="openai/gpt-4.1-mini") == 1
    assert server.bodies == []
    err = capsys.readouterr().err
    assert err.startswith("dspynb: the limit of USD 0.0001: the next call could cost USD 0.00")
    assert err.endswith("nothing was sent; raise --max-usd, or lower --max-tokens\n")


@pytest.mark.parametrize(
    ("response", "usd"),
    [
        (with_usage("ok", 1000, 100), 0.0012),
        (with_usage("ok", None, None), None),
        (error(400, "temperature must be 1"), 0.0),
        (error(401, "wrong key"), 0.0),
        (error(500, "down"), None),
    ],
    ids=["usage", "no usage", "refused", "no key", "failed"],
)
def test_a_call_of_unknown_cost_counts_with_its_largest_cost_and_a_refused_one_is_free(response, usd):
    limit = SpendingLimit(0.5, HighestPrices(1e-6, 2e-6))
    with Server(lambda body, number: response) as server:
        lm = dn.LM("openai/m", api_base=server.base, retries=0, concurrency=1, max_tokens=300)
        limit.watch(lm)
        with contextlib.suppress(errors.ModelError):
            lm.run_sync("Say ok.")
    if usd is None:
        assert (PROMPT_OVERHEAD + 600) * 1e-6 < limit.usd < (PROMPT_OVERHEAD + 1000) * 1e-6
    else:
        assert limit.usd == pytest.approx(usd)


def test_each_retry_is_checked():
    limit = SpendingLimit(0.004, HighestPrices(1e-6, 2e-6))
    with Server(lambda body, number: error(500, "down", **{"Retry-After": "0"})) as server:
        lm = dn.LM("openai/m", api_base=server.base, retries=9, concurrency=1, max_tokens=300)
        limit.watch(lm)
        with pytest.raises(BudgetExhausted, match=r"the limit of USD 0\.004: the next call could cost"):
            lm.run_sync("Say ok.")
    assert len(server.bodies) == 2
    assert limit.usd <= 0.004


def test_the_limit_holds_through_litellm_too():
    limit = SpendingLimit(0.0006, HighestPrices(1e-7, 1e-6))
    with Server(lambda body, number: with_usage("ok", 1000, 300)) as server:
        lm = dn.LM("mistral/m", api_base=server.base, engine="litellm", api_key=KEY, concurrency=1, max_tokens=300)
        limit.watch(lm)
        lm.run_sync("Say ok.")
        with pytest.raises(BudgetExhausted, match="the next call could cost"):
            lm.run_sync("Say ok again.")
    assert len(server.bodies) == 1
    assert limit.usd == pytest.approx(0.0004)


def test_a_first_reply_that_was_cut_does_not_stop_the_checks():
    def thinks_long(body, number):
        cut = with_usage("I think", 10, 256)
        cut["choices"][0]["finish_reason"] = "length"
        return cut if number == 1 else answer(body, number)

    with Server(thinks_long) as server:
        report = checked(server)
    assert report.results[0].outcome == "reply not usable"
    assert report.results[0].detail.startswith("openai/m: the reply was cut at max_tokens=256")
    assert outcomes(report)["Predict"] == "works"


def test_a_server_that_ignores_the_limit_of_a_reply_gets_no_further_call():
    with Server(lambda body, number: with_usage(ANSWER, 100, 5000)) as server:
        report = checked(server, prices=(0.1, 0.1))
    assert len(server.bodies) == 1
    assert "the server does not keep to the limit of a reply (5000 tokens instead of 256" in report.results[1].detail
    assert outcomes(report)["Predict"] == "not run"


def test_a_request_without_a_limit_of_the_reply_is_not_sent():
    limit = SpendingLimit(0.5, HighestPrices(1e-6, 2e-6))
    with Server(answer) as server:
        lm = dn.LM("openai/m", api_base=server.base, concurrency=1)
        limit.watch(lm)
        with pytest.raises(BudgetExhausted, match="no limit of the reply's tokens"):
            asyncio.run(lm.complete(LMRequest(messages=({"role": "user", "content": "x"},))))
    assert server.bodies == []


def test_calls_are_made_one_at_a_time():
    with Server(answer) as server:
        checked(server)
    assert server.peak == 1
    assert len(server.bodies) > 20


# ── prices ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("model", "prompt", "prices"),
    [
        ("openai/gpt-4.1", 1000, (2e-6, 8e-6, 0.0)),
        ("dashscope/qwen-turbo", 1000, (5e-8, 5e-7, 0.0)),  # a token of reasoning costs more than one of the answer
        ("openai/gpt-4o-search-preview", 1000, (2.5e-6, 1e-5, 0.025)),
        ("perplexity/sonar", 1000, (1e-6, 1e-6, 0.012)),
        ("gemini/gemini-2.5-pro", 1000, (1.25e-6, 1e-5, 0.0)),
        ("gemini/gemini-2.5-pro", 200_001, (2.5e-6, 1.5e-5, 0.0)),
    ],
)
def test_the_highest_prices_include_reasoning_searches_and_long_prompts(model, prompt, prices):
    assert highest_prices(model, prompt) == pytest.approx(prices)


def test_a_model_without_a_price_is_refused_with_what_to_do():
    options = LiveOptions("openai/my-model", "http://models.example/v1")
    with pytest.raises(ConfigurationError, match="its price is unknown") as caught:
        asyncio.run(check_model(options))
    assert "nothing was sent" in str(caught.value)
    assert "--prices INPUT OUTPUT" in str(caught.value)
    assert "--free" in str(caught.value)


def test_the_price_of_a_model_that_the_map_does_not_have_may_be_in_a_price_file():
    options = LiveOptions("openai/my-model", "http://models.example/v1")
    with dn.context(prices={"my-model": {"input": 1, "output": 2, "cache_write": 3}}):
        lm = dn.LM(options.model, api_base=options.api_base)
        assert _prices(options, lm) is None
        assert _describe_prices(lm, None) == "USD 3 and 2 for a million tokens of prompts and replies"


def test_a_server_on_this_machine_counts_as_free():
    with Server(answer) as server:
        report = checked(server, max_usd=1e-9)
    assert "not run" not in outcomes(report).values()
    assert report.head["prices"] == "none: the model counts as free"
    assert (report.usd, report.max_usd) == (0.0, None)


def test_a_model_with_a_known_price_is_limited_on_this_machine_too():
    with Server(answer) as server:  # as behind a proxy
        report = checked(server, "openai/gpt-4.1-mini", max_usd=0.005)
        free = checked(server, "openai/gpt-4.1-mini", max_usd=0.005, free=True)
    assert "not run" in outcomes(report).values()
    assert "not run" not in outcomes(free).values()


def test_prices_may_be_given():
    with Server(answer) as server:
        report = checked(server, prices=(10, 20), max_usd=5.0)
    calls = len(server.bodies)
    assert report.usd == pytest.approx(calls * (100 * 10 + 20 * 20) / 1e6)
    assert report.head["prices"] == "USD 10 and 20 for a million tokens of prompts and replies"
    assert report.calls == calls


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_usd": 0.0}, "--max-usd must be a number above 0"),
        ({"max_usd": float("nan")}, "--max-usd must be a number above 0"),
        ({"max_tokens": 0}, "--max-tokens must be at least 1"),
        ({"prices": (-1.0, 2.0)}, "--prices must be two numbers of at least 0"),
        ({"prices": (1.0, 2.0), "free": True}, "contradict each other"),
        ({"api_base": "http://models.localhost.example/v1"}, "its price is unknown"),
        ({"adapter": "yaml"}, "there is no adapter 'yaml'"),
        ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_wrong_settings_are_errors_before_anything_is_sent(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        asyncio.run(check_model(replace(LiveOptions("openai/m", "http://127.0.0.1:9/v1"), **options)))


# ── what it says ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_table_has_each_check_and_can_be_pasted_into_an_issue(capsys):
    with Server(answer) as server:
        doctor(server)
    out, err = capsys.readouterr()
    rows = re.findall(r"^\| (.+?) +\| (.+?) +\| +(\d+) \| +(\d+|unknown) \| +(\S+) \|", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["first reply", *NAMES]
    assert rows[1] == ("Predict", "works", "1", "120", "0")
    assert f"- dspynb: {dn.__version__}\n" in out
    assert "- litellm: 1." in out
    assert "- Python: 3." in out
    assert re.search(r"^- profile: .*nothing is known of this model$", out, re.MULTILINE)
    assert err.startswith("1/10 Predict … works, calls: 1\n2/10 typed outputs … ")
    assert len(err.splitlines()) == 10


def test_the_json_has_the_same_checks(capsys):
    with Server(answer) as server:
        assert doctor(server, "--json", "--adapter", "json", "--max-tokens", "77") in (0, 1)
    report = json.loads(capsys.readouterr().out)
    assert [check["name"] for check in report["checks"]] == ["first reply", *NAMES]
    assert report["settings"] == "max_tokens 77, adapter json"
    assert report["calls"] == sum(check["calls"] for check in report["checks"]) == len(server.bodies)
    assert report["fine"] == all(check["outcome"] != "fails" for check in report["checks"])


def test_a_check_that_fails_is_the_exit_status(capsys):
    with Server(answer) as server:
        server.streamed += [error(400, f"no | streams for {KEY}")]
        assert main(["doctor", "--live", "openai/m", "--api-base", server.base]) == 1
    out = capsys.readouterr().out
    assert re.search(r"\| stream +\| fails +\|.* BadRequestError: openai/m: no \\\| streams for ", out)


def test_settings_that_are_adapted_are_listed():
    problem = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    def picky(body, number):
        return error(400, problem, "unsupported_parameter") if "max_tokens" in body else answer(body, number)

    with Server(picky) as server:
        report = checked(server)
    assert report.adapted == ["max_tokens=1024 was sent as max_completion_tokens"]
    assert "- adapted: max_tokens=1024 was sent as max_completion_tokens\n" in report.text()
    assert outcomes(report)["Predict"] == "works"


def test_what_the_provider_reports_of_a_call_is_listed():
    with Server(answer) as server:
        report = checked(server)
    assert report.reported == ["finish", "response_id", "response_model"]
    assert "- reported: finish, response_id, response_model\n" in report.text()
    assert json.loads(report.json())["reported"] == report.reported


def test_the_request_of_a_reply_that_cannot_be_used_is_named():
    def cut(body, number):
        body = with_usage("[[ ## ans", 100, 20)
        body["choices"][0]["finish_reason"] = "length"
        return web.json_response(body, headers={"request-id": f"req-{number}"})

    with Server(cut) as server:
        report = checked(server)
    result = report.results[1]
    assert (result.name, result.outcome) == ("Predict", "reply not usable")
    assert result.detail.count("req-2") == 1


def test_no_secret_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("MY_PROXY_KEY", KEY)

    def repeats_the_key(body, number):
        return with_usage(f"ok {KEY}", 100, 20) if number == 1 else error(400, f"cannot take {KEY}")

    for arguments in ([], ["--json"]):
        with Server(repeats_the_key) as server:
            address = server.base.replace("//", "//user:a-long-password@")
            command = ["doctor", "--live", "openai/m", "--api-base", address]
            if not arguments:
                command = ["doctor", "--live", "openai/m", "--api-base", server.base, "--api-key-env", "MY_PROXY_KEY"]
            assert main([*command, *arguments]) == 1
        texts = "".join(capsys.readouterr())
        assert "BadRequestError" in texts
        assert "a-long-password" not in texts
        if not arguments:
            assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
            assert KEY not in texts
            assert "cannot take ***" in texts


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (error(404, "The model `m` does not exist", "model_not_found"), "the name that was sent is 'm'"),
        (error(401, "Incorrect API key provided"), "no key was sent: pass api_key=, or set OPENAI_API_KEY"),
        (error(500, "down"), "openai/m: down (status 500)"),
        (error(429, "slow down"), "openai/m: slow down (status 429)"),
    ],
    ids=["model", "key", "failure", "rate"],
)
def test_a_model_that_cannot_be_called_is_one_clear_line(response, words, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server(lambda body, number: response) as server:
        assert doctor(server) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dspynb: openai/m: ")
    assert words in err
    assert err.count("\n") == 1
    assert len(server.bodies) == 1


def test_a_server_that_is_down_is_one_clear_line(capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert main(["doctor", "--live", "openai/m", "--api-base", f"http://127.0.0.1:{port}/v1"]) == 1
    err = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in err
    assert "that the server runs and can be reached" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--max-usd", "1"], "--max-usd goes with --live"),
        (["--free", "--lm", "openai/m"], "--free goes with --live"),
        (["--live", "openai/m", "--lm", "openai/m"], "--live goes without --lm and --dask"),
        (["--live", "no-provider"], "no-provider"),
    ],
)
def test_options_that_do_not_fit_are_one_line(arguments, problem, capsys):
    assert main(["doctor", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dspynb: ")
    assert problem in err
    assert err.count("\n") == 1


# ── one check ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_check_counts_the_calls_tokens_and_usd_of_all_its_calls():
    (check,) = [check for check in MODEL_CHECKS if check.name == "Refine"]
    usage = dn.Usage(calls=1, prompt_tokens=10, completion_tokens=5, usd=0.25)
    lm = dn.FunctionLM(lambda request: dn.LMReply(ANSWER, usage=usage))
    result = asyncio.run(run_check(check, lm))
    assert (result.outcome, result.calls, result.tokens, result.usd) == ("works", 2, 30, 0.5)


def test_tokens_that_one_call_does_not_report_are_unknown():
    usages = [dn.Usage(1, 10, 5, usd=0.25), dn.Usage(1, None, None, usd=None)]
    (check,) = [check for check in MODEL_CHECKS if check.name == "Refine"]
    lm = dn.FunctionLM(lambda request: dn.LMReply(ANSWER, usage=usages.pop(0)))
    result = asyncio.run(run_check(check, lm))
    assert (result.outcome, result.calls, result.tokens, result.usd) == ("works", 2, None, None)


def test_a_program_that_fails_though_no_call_failed_is_no_fault_of_the_model():
    async def use():
        raise dn.OptimizerError("no proposal")

    check = replace(MODEL_CHECKS[0], use=use)
    assert asyncio.run(run_check(check, dn.FunctionLM(lambda request: ANSWER))).outcome == "fails"


def test_a_check_that_crashes_fails_and_the_next_one_runs():
    async def use():
        raise ZeroDivisionError("by zero")

    result = asyncio.run(run_check(replace(MODEL_CHECKS[0], use=use), dn.FunctionLM(lambda request: ANSWER)))
    assert (result.outcome, result.detail) == ("fails", "ZeroDivisionError: by zero")
