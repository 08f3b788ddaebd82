"""Requests that fit their model: settings are renamed, moved into the range that it takes, or left out."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb import errors
from dspynb.lm.adaptation import Adaptation, adapt
from dspynb.lm.profiles import ModelProfile, profile_of
from tests.cases.providers import model, no_max_tokens, no_temperature, only_temperature_one, refused, strict
from tests.helpers import chat
from tests.lm.server import Server

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
        ("openai/gpt-5.1", {"temperature": 0.7, "effort": "none"}, {"temperature": 0.7, "reasoning_effort": "none"}),
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


# ── the campaign, reduced ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_what_is_sent_to_models_of_litellms_map_passes_its_checks_and_nothing_is_left_out_needlessly():
    command = [sys.executable, "-m", "tests.campaigns.litellm_models", "--every", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed 0" in done.stdout
