"""Requests that fit their model: settings are renamed, moved into the range that it takes, or left out."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import pickle
import subprocess
import sys
import warnings

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb import errors
from dspynb.lm.adaptation import Adaptation
from dspynb.lm.adapted_request import adapt
from dspynb.lm.profiles import ModelProfile, profile_of
from tests.cases.providers import model, no_max_tokens, no_temperature, only_temperature_one, refused, strict
from tests.helpers import chat
from tests.lm.server import Server, reply, sse
from tests.lm.server import error as server_error

REQUEST = dn.LMRequest(({"role": "user", "content": "hi"},))


def sent(profile, **settings):
    return dict(adapt(profile, REQUEST, settings).settings)


def ask(lm, **settings):
    return dn.Predict("question -> answer", lm=lm, **settings)


# ── profiles ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("openai/o3-mini", {"temperature": 0.7, "max_tokens": 10}, {"max_completion_tokens": 10}),
        ("openai/o1", {"temperature": 1}, {"temperature": 1}),
        ("openai/gpt-5-mini", {"temperature": 0.7, "top_p": 0.5, "seed": 1}, {"seed": 1}),
        ("openai/gpt-5-search-api", {"temperature": 0.7, "max_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai/gpt-4.1", {"effort": "low"}, {}),
        ("openai/gpt-5-chat-latest", {"temperature": 0.7}, {"temperature": 0.7}),
        ("openai/gpt-4.1-mini", {"temperature": 0.7, "max_tokens": 5}, {"temperature": 0.7, "max_tokens": 5}),
        ("azure/gpt-35-turbo", {"temperature": 0.7, "max_tokens": 5}, {"temperature": 0.7, "max_tokens": 5}),
        ("openai/olmo-2", {"temperature": 0.7}, {"temperature": 0.7}),
        ("openai/o3", {"effort": "none"}, {"reasoning_effort": "low"}),
        ("openai/my-model", {"effort": "none"}, {"reasoning_effort": "none"}),
    ],
)
def test_the_settings_of_known_models_are_sent_as_they_take_them(name, settings, expected):
    assert sent(profile_of(name), **settings) == expected


@given(
    low=st.floats(-5, 5),
    width=st.floats(0.01, 5),
    value=st.floats(-20, 20),
)
def test_a_value_is_moved_into_the_range_and_a_value_inside_stays(low, width, value):
    number = sent(ModelProfile(ranges={"top_p": (low, low + width)}), top_p=value)["top_p"]
    assert low <= number <= low + width
    assert number == value or not low <= value <= low + width


def test_the_profile_of_an_lm_shows_what_is_known_of_its_model():
    profile = dn.LM("openai/gpt-4.1-mini").profile
    assert profile.context_window > 1_000_000
    assert profile.native_tools
    assert "image" in profile.media
    assert 0 < profile.input_price < profile.output_price


def test_a_profile_that_is_passed_wins():
    lm = dn.LM("openai/gpt-5", profile={"sampling_without_effort": False, "limit_name": "max_tokens"})
    assert sent(lm.profile, temperature=0.7, max_tokens=5) == {"temperature": 0.7, "max_tokens": 5}


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        ({"refuse": ["temperature"]}, "profile has no setting 'refuse'. Did you mean 'refused'"),
        ({"refused": "temperature"}, "refused is 'temperature'; it must be a list of names"),
        ({"ranges": {"temperature": 1}}, "ranges is .*; it must be a dict of bounds"),
        ({"ranges": {"temperature": (1, 0)}}, "ranges is .*; it must be a dict of bounds"),
        ({"limit_name": "tokens"}, "limit_name is 'tokens'; it must be 'max_tokens'"),
        ({"efforts": 3}, "efforts is 3; it must be a list of levels"),
        ({"native_tools": "no"}, "native_tools is 'no'; it must be True or False"),
        ({"default_effort": "much"}, "default_effort is 'much'; it must be one of none, minimal"),
        ({"price": 1e-6}, "profile has no setting 'price'.*see docs/models.md"),
        ({"wire_format": "openai"}, "wire_format is 'openai'; it must be one of openai_chat, openai_resp"),
        ({"hosts": "llm.example.com"}, "hosts is 'llm.example.com'; it must be a list of names of hosts"),
        ({"hosts": ["com"]}, "hosts is .*; it must be a list of names of hosts"),
        ({"hosts": ["https://llm.example.com"]}, "hosts is .*; it must be a list of names of hosts"),
        ({"needs_key": "yes"}, "needs_key is 'yes'; it must be True or False"),
        ({"media": ["video"]}, "media is .*; it must be a list of kinds, of image, audio, pdf"),
        ({"context_window": 0}, "context_window is 0; it must be a whole number of tokens"),
        ({"output_limit": 1.5}, "output_limit is 1.5; it must be a whole number of tokens"),
        ({"input_price": -1}, "input_price is -1; it must be US dollars for one token"),
        ({"output_price": float("nan")}, "output_price is nan; it must be US dollars for one token"),
        ({"cached_input_price": True}, "cached_input_price is True; it must be US dollars for one token"),
        (["temperature"], "profile must be a dict of fields, got list"),
    ],
)
def test_a_wrong_profile_is_one_error_when_the_model_is_created(profile, problem):
    with pytest.raises(errors.ConfigurationError, match=problem):
        dn.LM("openai/m", profile=profile)


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_refusal_of_a_server_wins_over_a_wrong_profile_and_is_named_once():
    with Server(strict(no_temperature)) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = model(server, "openai/gpt-4.1", temperature=0.7, profile={"ranges": {"temperature": (0, 2)}})
        assert [ask(lm).run_sync(question=f"{i}?").answer for i in range(3)] == ["Paris"] * 3
    (message,) = [str(warning.message) for warning in caught]
    assert "openai/gpt-4.1 does not take these settings as requested: temperature=0.7 was left out" in message


def test_sixty_four_first_calls_at_once_cause_one_refusal():
    serve = strict(no_temperature)
    with Server(serve) as server:
        program = ask(model(server, "openai/m", temperature=0.7))
        rows = [{"question": f"{i}?"} for i in range(64)]
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            done = asyncio.run(program.batch(rows, concurrency=64))
    assert [prediction.answer for prediction in done] == ["Paris"] * 64
    assert len(serve.refusals) == 1


def test_a_server_names_one_parameter_at_a_time_and_each_is_refused_once():
    def no_seed(body):
        if "seed" not in body:
            return None
        return refused("Unsupported parameter: 'seed'.", code="unsupported_parameter", param="seed")

    serve = strict(no_temperature, no_max_tokens, no_seed)
    with Server(serve) as server:
        program = ask(model(server, "openai/m", temperature=0.7, max_tokens=50, seed=1))
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            done = asyncio.run(program.batch([{"question": f"{i}?"} for i in range(16)], concurrency=16))
    assert [prediction.answer for prediction in done] == ["Paris"] * 16
    assert len(serve.refusals) == 3
    assert "temperature" not in server.bodies[-1]
    assert server.bodies[-1]["max_completion_tokens"] == 50


def test_a_refused_request_is_not_a_call_of_a_budget():
    with Server(strict(no_temperature)) as server, dn.Budget(calls=3) as meter:
        program = ask(model(server, "openai/m", temperature=0.7, cache=False))
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            answers = [program.run_sync(question=f"{i}?").answer for i in range(3)]
        assert answers == ["Paris"] * 3
    assert meter.spent["calls"] == 3


def test_a_server_that_refuses_whatever_is_sent_is_an_error_and_no_endless_loop():
    def never(body):
        return refused("Unsupported parameter: 'temperature'.", code="unsupported_parameter", param="temperature")

    serve = strict(never)
    with Server(serve) as server:
        program = ask(model(server, "openai/m", temperature=0.7, seed=1))
        with pytest.warns(dn.errors.ModelAdaptedWarning), pytest.raises(errors.UnsupportedParameter):
            program.run_sync(question="?")
    assert len(serve.refusals) == 2


def test_a_server_that_changes_its_mind_is_followed():
    refusing = []
    serve = strict(lambda body: no_temperature(body) if refusing else None)
    with Server(serve) as server:
        program = ask(model(server, "openai/m", temperature=0.7))
        program.run_sync(question="1?")
        refusing.append(True)
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            program.run_sync(question="2?")
        assert program.run_sync(question="3?").answer == "Paris"
    assert len(serve.refusals) <= 2


def test_strict_raises_where_a_setting_would_be_changed_and_where_it_is_refused():
    with Server(strict(only_temperature_one)) as server:
        known = ask(model(server, "openai/gpt-5", temperature=0.7, strict=True))
        unknown = ask(model(server, "openai/m", temperature=0.7, strict=True))
        for program in (known, unknown):
            with pytest.raises(errors.UnsupportedParameter, match="temperature"):
                program.run_sync(question="?")
        assert len(server.bodies) == 1  # what is known is not sent


def test_what_a_refusal_taught_is_pickled_with_the_model():
    serve = strict(no_temperature)
    with Server(serve) as server:
        lm = model(server, "openai/m", temperature=0.7)
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            ask(lm).run_sync(question="1?")
        copy = pickle.loads(pickle.dumps(lm))
        assert ask(copy).run_sync(question="2?").answer == "Paris"
    assert len(serve.refusals) == 1


def test_the_table_of_calls_has_settings_as_requested_and_as_sent():
    with Server(strict(no_temperature)) as server, pytest.warns(dn.errors.ModelAdaptedWarning):
        run = ask(model(server, "openai/m", temperature=0.7, max_tokens=9)).run_sync(question="?").run
    assert run.calls.requested.tolist() == [{"temperature": 0.7, "max_tokens": 9}]
    assert run.calls.sent.tolist() == [{"max_tokens": 9}]


@pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")
def test_the_table_of_calls_has_what_was_sent_for_a_call_that_fails():
    cut = json.loads(json.dumps(reply("Par")).replace('"stop"', '"length"'))
    for answer, kind in [(cut, errors.ReplyTruncated), (server_error(400), errors.BadRequestError)]:
        with Server(strict(no_temperature, answer=answer)) as server:
            lm = model(server, "openai/m", temperature=0.7, max_tokens=9)
            with pytest.raises(kind):
                ask(lm).run_sync(question="?")
        call = dn.history(1)[0]
        assert call.requested == {"temperature": 0.7, "max_tokens": 9}
        assert call.sent == {"max_tokens": 9}


@pytest.mark.filterwarnings("ignore::dspynb.ModelAdaptedWarning")
def test_a_replayed_call_and_one_of_a_recording_show_what_was_sent_then(tmp_path):
    with Server(strict(no_temperature)) as server:
        lm = model(server, "openai/m", temperature=0.7, max_tokens=9)
        program = ask(dn.recorded(tmp_path / "replies.jsonl", lm), temperature=0.5)
        with dn.trace() as trace:
            first = program.run_sync(question="?")
        again = dn.run_sync(lambda: dn.replay(trace, program))
        plain = ask(model(server, "openai/m", max_tokens=9))
        with dn.trace() as plain_trace:
            plain.run_sync(question="?")
        plain_again = dn.run_sync(lambda: dn.replay(plain_trace, plain))
    recorded = ask(dn.recorded(tmp_path / "replies.jsonl"), temperature=0.5).run_sync(question="?")
    for run in (first.run, again.run, recorded.run, plain_again.run):
        assert run.calls.sent.tolist() == [{"max_tokens": 9}]


def test_no_header_and_no_secret_is_in_the_table_of_calls():
    with Server(lambda body, number: chat(answer="Paris")) as server:
        headers = {"X-Api-Key": "a-long-header-secret"}
        lm = model(server, extra_headers=headers, extra_body={"api_key": "another-long-secret", "top_k": 5})
        run = ask(lm).run_sync(question="?").run
    assert run.calls.requested.tolist() == [{"extra_body": {"top_k": 5}}]
    assert "secret" not in json.dumps(run.calls.sent.tolist())


def test_a_reply_of_the_cache_is_found_under_the_requested_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(strict(no_temperature)) as server, dn.context(cache=True):
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            first = ask(model(server, "openai/m", temperature=0.7)).run_sync(question="?")
        second = ask(model(server, "openai/m", temperature=0.7)).run_sync(question="?")
    assert (first.answer, second.answer) == ("Paris", "Paris")
    assert second.run.calls.cached.tolist() == [True]
    assert second.run.calls.requested.tolist() == [{"temperature": 0.7}]
    assert first.run.calls.sent.tolist() == second.run.calls.sent.tolist() == [{}]
    assert len(server.bodies) == 2  # the refused one and its repetition


def test_a_first_call_that_fails_holds_no_other_call_back():
    async def main():
        adaptation = Adaptation("openai/m", ModelProfile())
        order = []

        async def send(request, settings):
            order.append(settings["temperature"])
            if settings["temperature"] == 0:
                await asyncio.sleep(0.01)
                raise errors.ServerError("down")
            return dn.LMReply("ok")

        first = asyncio.create_task(adaptation.send(REQUEST, {"temperature": 0}, send))
        await asyncio.sleep(0)
        others = [adaptation.send(REQUEST, {"temperature": n}, send) for n in (1, 2)]
        results = await asyncio.gather(first, *others, return_exceptions=True)
        return order, [type(result).__name__ for result in results]

    order, results = asyncio.run(main())
    assert order == [0, 1, 2]
    assert results == ["ServerError", "LMReply", "LMReply"]


def test_calls_that_were_under_way_when_another_was_refused_are_adapted_too():
    async def main():
        adaptation = Adaptation("openai/m", ModelProfile())
        released = asyncio.Event()

        async def send(request, settings):
            if "temperature" not in settings:
                return dn.LMReply("ok")
            if settings["seed"]:
                await released.wait()  # sent before the refusal of the others, and refused after it
            raise errors.UnsupportedParameter("temperature is not supported", parameter="temperature")

        late = asyncio.create_task(adaptation.send(REQUEST, {"temperature": 0.7, "seed": 1}, send))
        await asyncio.sleep(0)
        adaptation._first_calls.clear()  # as after the longest time that other calls wait
        with pytest.warns(dn.errors.ModelAdaptedWarning):
            first = await adaptation.send(REQUEST, {"temperature": 0.7, "seed": 0}, send)
        released.set()
        return first.text, (await late).text

    assert asyncio.run(main()) == ("ok", "ok")


@pytest.mark.parametrize(
    ("outer", "inner", "sent_effort"),
    [
        ({"effort": "low"}, {"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "low"}, {"effort": "high"}, "high"),
    ],
)
def test_the_effort_of_a_predictor_wins_under_either_name(outer, inner, sent_effort):
    with Server(lambda body, number: chat(answer="Paris")) as server:
        ask(model(server, "openai/m", **outer), **inner).run_sync(question="?")
    assert server.bodies[0]["reasoning_effort"] == sent_effort
    assert "effort" not in server.bodies[0]


def test_a_first_call_that_is_cancelled_holds_no_other_call_back():
    async def main():
        adaptation = Adaptation("openai/m", ModelProfile())

        async def send(request, settings):
            await asyncio.sleep(settings["seed"])
            return dn.LMReply("ok")

        first = asyncio.create_task(adaptation.send(REQUEST, {"seed": 600}, send))
        await asyncio.sleep(0)
        second = asyncio.create_task(adaptation.send(REQUEST, {"seed": 0}, send))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).text

    assert asyncio.run(main()) == "ok"


# ── refusals of other kinds ───────────────────────────────────────────────────────────────────────────────────────────


def sent_until_taken(settings, *refusals, profile=None, adaptation=None, **request):
    """The settings of each request that is sent, to a server that refuses with these errors, one after the other."""
    adaptation = adaptation or Adaptation("openai/m", profile or ModelProfile())
    remaining, requests = list(refusals), []

    async def send(request, settings):
        requests.append(dict(settings))
        if remaining:
            raise remaining.pop(0)
        return dn.LMReply("ok")

    async def main():
        await adaptation.send(dn.LMRequest(REQUEST.messages, **request), settings, send)

    with warnings.catch_warnings(action="ignore", category=dn.ModelAdaptedWarning):
        asyncio.run(main())
    return requests


def refusal_of(parameter, allowed=None, text="it is not supported"):
    return errors.UnsupportedParameter(text, parameter=parameter, allowed=allowed)


@pytest.mark.parametrize(
    ("settings", "allowed", "expected"),
    [
        ({"temperature": 0}, (0.01, math.inf), {"temperature": 0.01}),
        ({"temperature": 2}, (0.0, 1.5), {"temperature": 1.5}),
        ({"top_p": 0}, (0.001, 1.0), {"top_p": 0.001}),
        ({"max_tokens": 9000}, (1.0, 4096.0), {"max_tokens": 4096}),
        ({"n": 5}, (1.0, 1.0), {}),
        ({"max_tokens": 5}, (5.2, 5.8), {}),
    ],
)
def test_a_value_outside_of_the_range_that_a_refusal_names_is_moved_into_it(settings, allowed, expected):
    (name,) = settings
    assert sent_until_taken(settings, refusal_of(name, allowed)) == [settings, expected]


def test_ranges_that_contradict_each_other_leave_the_setting_out():
    refusals = [refusal_of("temperature", (1.6, 2.0)), refusal_of("temperature", (0.0, 0.8))]
    assert sent_until_taken({"temperature": 1}, *refusals)[-1] == {}


def test_no_request_is_sent_twice_whatever_is_refused():
    refusals = [refusal_of("temperature", (0.5, 1.0)) for _ in range(50)]
    with pytest.raises(errors.UnsupportedParameter):
        sent_until_taken({"temperature": 0, "seed": 1}, *refusals)
    assert 46 <= len(refusals) <= 50


TOO_LITTLE_ROOM = "max_tokens is too large: this model's context is 4096 tokens and your request has {} input tokens"


def test_a_limit_that_depends_on_the_prompt_holds_for_this_request_only():
    adaptation = Adaptation("openai/m", ModelProfile())
    refusal = refusal_of("max_tokens", (1.0, 1096.0), TOO_LITTLE_ROOM.format(3000))
    assert sent_until_taken({"max_tokens": 2000}, refusal, adaptation=adaptation)[-1] == {"max_tokens": 1096}
    assert sent_until_taken({"max_tokens": 2000}, adaptation=adaptation) == [{"max_tokens": 2000}]


@pytest.mark.parametrize("settings", [{}, {"seed": 1}])
def test_a_refusal_of_a_limit_that_was_not_sent_is_raised(settings):
    with pytest.raises(errors.UnsupportedParameter, match="is too large"):
        sent_until_taken(settings, refusal_of("max_tokens", (1.0, 10.0), TOO_LITTLE_ROOM.format(4086)))


def test_a_prompt_that_leaves_hardly_any_room_is_too_long():
    refusal = refusal_of("max_tokens", (1.0, 10.0), TOO_LITTLE_ROOM.format(4086))
    with pytest.raises(errors.ContextTooLong):
        sent_until_taken({"max_tokens": 2000}, refusal)


@pytest.mark.parametrize("name", ["effort", "reasoning_effort"])
def test_an_effort_that_a_server_refuses_is_left_out_under_either_name(name):
    requests = sent_until_taken({name: "low"}, refusal_of("reasoning_effort"))
    assert requests == [{"reasoning_effort": "low"}, {}]
    assert sent(ModelProfile(refused=frozenset({"reasoning_effort"})), **{name: "low"}) == {}


def test_sampling_settings_depend_on_the_effort_that_is_sent():
    profile = ModelProfile(sampling_without_effort=True, efforts=("minimal", "low"))
    assert sent(profile, effort="none", temperature=0.7) == {"reasoning_effort": "minimal"}
    profile = ModelProfile(sampling_without_effort=True, efforts=("none", "low"))
    assert sent(profile, effort="none", temperature=0.7) == {"reasoning_effort": "none", "temperature": 0.7}
    assert sent(profile, effort="low", temperature=0.7) == {"reasoning_effort": "low"}


@pytest.mark.parametrize("parameter", ["min_tokens", "stop_token_ids", "skip_special_tokens"])
def test_a_refused_field_of_the_body_leaves_the_limit_of_the_reply_alone(parameter):
    settings = {"max_tokens": 50, "extra_body": {parameter: 5}}
    adaptation = Adaptation("openai/m", ModelProfile())
    with pytest.raises(errors.UnsupportedParameter):
        sent_until_taken(settings, refusal_of(parameter), adaptation=adaptation)
    assert sent_until_taken({"max_tokens": 50}, adaptation=adaptation) == [{"max_tokens": 50}]


def test_the_limit_of_a_reply_is_tried_under_its_other_name_before_it_is_left_out():
    refusals = [refusal_of("max_tokens"), refusal_of("max_completion_tokens")]
    assert sent_until_taken({"max_tokens": 50}, *refusals) == [{"max_tokens": 50}, {"max_completion_tokens": 50}, {}]


TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}


def test_a_refused_setting_of_tools_is_left_out_and_the_tools_stay():
    adaptation = Adaptation("openai/m", ModelProfile())
    settings = {"parallel_tool_calls": False}
    requests = sent_until_taken(settings, refusal_of("parallel_tool_calls"), adaptation=adaptation, tools=(TOOL,))
    assert requests == [settings, {}]
    assert not adaptation.refuses_tools


def test_a_refused_tool_is_not_sent_again_not_even_to_a_model_that_is_said_to_take_tools():
    def rule(body):
        return refused("tools are not supported", param="tools") if "tools" in body else None

    serve = strict(rule)
    with Server(serve) as server:
        lm = model(server, native_tools=True)
        for _ in range(2):
            with pytest.raises(errors.UnsupportedParameter):
                lm.run_sync("hi", tools=[TOOL])
        assert not lm.native_tools
    assert len(serve.refusals) == 1


def test_an_effort_has_the_name_of_the_server_in_each_request_and_in_the_column_sent():
    with Server(lambda body, number: chat(answer="4")) as server:
        predictor = ask(model(server), effort="low")
        predictions = [predictor.run_sync(question="2+2?") for _ in range(3)]
    assert [body.get("reasoning_effort") for body in server.bodies] == ["low"] * 3
    assert not any("effort" in body for body in server.bodies)
    for prediction in predictions:
        assert prediction.run.calls.requested.tolist() == [{"effort": "low"}]
        assert prediction.run.calls.sent.tolist() == [{"reasoning_effort": "low"}]


@pytest.mark.parametrize(
    "message",
    ['"gemma3:4b" does not support thinking', "This model does not support the effort parameter."],
)
def test_an_effort_is_left_out_if_the_server_refuses_thinking_in_its_own_words(message):
    serve = strict(lambda body: refused(message, param=None) if "reasoning_effort" in body else None)
    with Server(serve) as server:
        predictor = ask(model(server), effort="low")
        with pytest.warns(errors.ModelAdaptedWarning, match="reasoning_effort='low' was left out"):
            predictor.run_sync(question="2+2?")
        predictor.run_sync(question="2+2?")
    assert len(serve.refusals) == 1


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_react_whose_tools_are_refused_says_once_that_they_are_text(is_recorded, tmp_path):
    def rule(body):
        return refused("tools are not supported", param="tools") if "tools" in body else None

    def text(body):
        if "next_tool_name" in json.dumps(body):
            return chat(next_thought="done", next_tool_name="finish", next_tool_args="{}")
        return chat(answer="4")

    def add(a: int, b: int) -> int:
        return a + b

    serve = strict(rule, answer=text)
    with Server(serve) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lm = model(server)
        if is_recorded:
            lm = dn.recorded(tmp_path / "replies.jsonl", lm)
        with dn.context(lm=lm):
            answers = [dn.ReAct("question -> answer", [add]).run_sync(question="2+2?").answer for _ in range(2)]
    assert answers == ["4", "4"]
    (warning,) = caught
    assert "tools were refused, and are described in the prompt" in str(warning.message)


def first_calls(count, first, settings=lambda i: {"temperature": 0.7}):
    """The settings of all requests of ``count`` calls at once, to a server without temperature and response format.

    ``first``: what the first request does before it is answered.
    """

    async def main():
        adaptation = Adaptation("openai/m", ModelProfile())
        requests = []

        async def send(request, sent_settings):
            requests.append(dict(sent_settings))
            if len(requests) == 1:
                await first()
            await asyncio.sleep(0.001)
            for name in ("temperature", "seed"):
                if name in sent_settings:
                    raise refusal_of(name)
            return dn.LMReply("ok")

        calls = [asyncio.create_task(adaptation.send(REQUEST, settings(i), send)) for i in range(count)]
        await asyncio.sleep(0.001)
        if first is wait_for_ever:
            calls[0].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return requests

    with warnings.catch_warnings(action="ignore", category=dn.ModelAdaptedWarning):
        return asyncio.run(main())


async def wait_for_ever():
    await asyncio.sleep(600)


async def fail():
    await asyncio.sleep(0.002)
    raise errors.ServerError("down")


@pytest.mark.parametrize("first", [wait_for_ever, fail])
def test_after_a_first_call_that_told_nothing_the_next_one_goes_ahead(first):
    requests = first_calls(32, first)
    assert len([request for request in requests[1:] if "temperature" in request]) == 1


def test_each_group_of_settings_is_refused_once():
    requests = first_calls(32, lambda: asyncio.sleep(0), lambda i: {"temperature": 0.7} if i % 2 else {"seed": 1})
    assert len([request for request in requests if request]) == 2


def test_calls_with_new_values_of_a_setting_that_the_server_takes_do_not_wait_for_each_other():
    async def main():
        adaptation = Adaptation("openai/m", ModelProfile())
        under_way, most = 0, 0

        async def send(request, settings):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return dn.LMReply("ok")

        await adaptation.send(REQUEST, {"seed": 0, "temperature": 0.5}, send)
        await asyncio.gather(*(adaptation.send(REQUEST, {"seed": i, "temperature": 0.5}, send) for i in range(1, 9)))
        return most

    assert asyncio.run(main()) == 8


def test_no_secret_is_in_the_repr_of_an_adapted_reply_or_in_a_pickled_model():
    secret = "a-very-long-secret-value"  # noqa: S105
    with Server(strict(no_temperature)) as server:
        lm = model(server, temperature=0.7, extra_headers={"Authorization": f"Bearer {secret}"}, cache=False)
        with pytest.warns(dn.ModelAdaptedWarning):
            reply = lm.run_sync("hi")
        lm.run_sync("hi", temperature=None)
    assert secret not in repr(reply)
    assert secret not in str(reply.sent)
    assert secret.encode() not in pickle.dumps(lm)


def test_a_stream_is_not_sent_again_once_a_piece_of_it_has_arrived():
    error = {"error": {"message": "Unsupported parameter: 'temperature'.", "param": "temperature"}}
    body = {"choices": [{"index": 0, "delta": {"content": "Hello "}}]}
    events = "".join(f"data: {json.dumps(event)}\n\n" for event in (body, error))
    with Server(streamed=[web.Response(text=events, content_type="text/event-stream")]) as server:
        program = ask(model(server, temperature=0.7, retries=0))

        async def main():
            return [part async for part in program.stream(question="?")]

        with pytest.raises(errors.BadRequestError, match="temperature"):
            asyncio.run(main())
    assert len(server.bodies) == 1


def test_a_server_that_refuses_to_give_the_usage_of_a_stream_can_be_streamed():
    def answer(server):
        if "stream_options" in server.bodies[-1]:
            return refused("stream_options: Extra inputs are not permitted", param="stream_options")
        return sse(["[[ ## answer ## ]]\nParis"])

    class Answers:
        def __init__(self, server):
            self.server = server

        def pop(self, _):
            return answer(self.server)

    with Server() as server:
        server.streamed = Answers(server)
        program = ask(model(server))

        async def main():
            return [part async for part in program.stream(question="?")][-1].answer

        assert asyncio.run(main()) == "Paris"
        assert asyncio.run(main()) == "Paris"
    assert ["stream_options" in body for body in server.bodies] == [True, False, False]


# ── the campaign, reduced ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_what_is_sent_to_models_of_litellms_map_passes_its_checks_and_nothing_is_left_out_needlessly():
    command = [sys.executable, "-m", "tests.campaigns.litellm_models", "--every", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed 0" in done.stdout


def test_effort_is_renamed_in_each_request_that_a_server_takes():
    with Server(lambda body, number: "hello") as server:
        lm = model(server, "openai/my-model", effort="low")
        for _ in range(3):
            lm.run_sync("Say hello.")
    assert [body.get("reasoning_effort") for body in server.bodies] == ["low"] * 3
    assert all("effort" not in body for body in server.bodies)


def test_the_warning_is_at_the_line_of_the_users_call_also_in_concurrent_attempts():
    line = None

    async def main(program):
        nonlocal line
        line = inspect.currentframe().f_lineno + 1
        await program(question="?")

    with Server(strict(no_temperature)) as server:
        program = dn.BestOfN(ask(model(server)), lambda row, prediction: 1.0, n=4, width=4, temperature=0.7)
        with pytest.warns(dn.errors.ModelAdaptedWarning) as caught:
            asyncio.run(main(program))
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]
