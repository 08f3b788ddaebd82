"""Settings of requests: known and unknown names, extra_body and extra_headers."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import pickle

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError
from dspynb.lm.settings import REQUEST_SETTINGS
from tests.helpers import chat
from tests.lm.server import Server

KEY = "k" * 20


def ask(lm, **settings):
    return asyncio.run(lm.complete(dn.LMRequest(({"role": "user", "content": "x"},), settings)))


def lm(server, **settings):
    return dn.LM("openai/m", api_base=server.base, api_key=KEY, **settings)


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("num_retries", "Did you mean 'retries'"),
        ("max_retries", "Did you mean 'retries'"),
        ("headers", "Did you mean 'extra_headers'"),
        ("cache_in_memory", "Did you mean 'cache'"),
        ("tempature", "Did you mean 'temperature'"),
        ("top_kk", "Did you mean 'top_k'"),
        ("top_kk", r"extra_body=\{'top_kk': …\}"),
        ("api_bas", "Did you mean 'api_base'"),
        ("guided_json", r"extra_body=\{'guided_json': …\}"),
        ("chat_template_kwargs", "extra_body="),
        ("model_type", "chat APIs only"),
        ("rollout_id", "LMRequest.*rollout="),
        ("callbacks", "run.calls"),
        ("finetuning_model", "no finetuning"),
        ("launch_kwargs", "no finetuning"),
        ("train_kwargs", "no finetuning"),
        ("use_developer_role", "leave it out"),
        ("messages", "demos="),
        ("stream", "predictor.stream"),
        ("stream_options", "predictor.stream"),
    ],
)
def test_an_unknown_setting_is_an_error_that_names_the_known_one(name, advice):
    for make in (lambda **s: dn.LM("openai/m", **s), lambda **s: dn.LM("mistral/m", **s)):
        with pytest.raises(ConfigurationError, match=rf"LM has no setting '{name}'.*{advice}"):
            make(**{name: 1})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("base_url", r"dn\.LM\('provider/model', api_base=…\)"),
        ("api_base", "setting of the model"),
        ("api_key", "setting of the model"),
        ("num_retries", "retries=…"),
        ("timeout", "timeout=…"),
        ("cache", "cache=…"),
        ("config", "keyword arguments"),
        ("tempature", "Did you mean 'temperature'"),
        ("headers", "Did you mean 'extra_headers'"),
        ("model", "first argument of dn.LM"),
        ("rollout_id", "rollout="),
        ("guided_json", r"extra_body=\{'guided_json': …\}"),
    ],
)
def test_an_unknown_setting_of_a_predictor_is_an_error_when_it_is_made(name, advice):
    for kind in (dn.Predict, dn.ChainOfThought, dn.MultiChainComparison):
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__} has no setting '{name}'.*{advice}"):
            kind("question -> answer", **{name: 1})


def test_an_unknown_setting_of_one_request_is_an_error_before_it_is_sent():
    with Server(lambda body, number: "hello") as server:
        with pytest.raises(ConfigurationError, match="openai/m has no setting 'temprature'.*'temperature'"):
            ask(lm(server), temprature=1)
        predict = dn.Predict("question -> answer", lm=lm(server))
        predict.settings["num_retries"] = 3
        with pytest.raises(ConfigurationError, match="num_retries"):
            predict.run_sync(question="x")
    assert server.bodies == []


def test_every_unknown_setting_is_named():
    with pytest.raises(ConfigurationError, match="'headers'.*'model_type'.*'num_retries'"):
        dn.LM("openai/m", num_retries=3, model_type="responses", headers={})


def test_the_fields_of_openais_chat_format_are_known():
    names = pytest.importorskip("openai.types.chat.completion_create_params").CompletionCreateParamsBase.__annotations__
    assert set(names) - REQUEST_SETTINGS <= {"model", "messages", "stream", "stream_options"}


def test_the_parameters_of_litellm_that_reach_a_provider_are_known():
    litellm = pytest.importorskip("litellm")
    parameters = set(inspect.signature(litellm.acompletion).parameters)
    own = {"model", "messages", "stream", "stream_options", "api_key", "api_base", "base_url", "timeout"}
    of_litellm = {"kwargs", "model_list", "shared_session", "enable_json_schema_validation"}  # not sent to a provider
    assert parameters - REQUEST_SETTINGS - own <= of_litellm


def test_known_settings_are_accepted_and_sent():
    with Server(lambda body, number: chat(answer="4")) as server:
        predict = dn.Predict("question -> answer", lm=lm(server, seed=1, top_p=0.5), seed=2, top_k=5, stop=["x"])
        predict.run_sync(question="2+2?")
    body = server.bodies[0]
    assert (body["seed"], body["top_p"], body["top_k"], body["stop"]) == (2, 0.5, 5, ["x"])


def test_the_signature_that_help_shows_is_that_of_the_class():
    assert "num_retries" not in inspect.signature(dn.LM).parameters
    assert list(inspect.signature(dn.Refine).parameters)[:3] == ["module", "reward", "n"]
    assert list(inspect.signature(dn.Budget).parameters) == ["calls", "metric_calls", "tokens", "usd", "seconds"]
    assert "unknown" not in str(inspect.signature(dn.Evaluate))


def test_a_setting_of_litellm_is_refused_by_the_direct_engine():
    planted = "aws-secret-0123456789"
    with Server(lambda body, number: "hello") as server:
        with pytest.raises(ConfigurationError, match="engine='litellm'") as caught:
            lm(server, aws_secret_access_key=planted)
        assert planted not in str(caught.value)
        with pytest.raises(ConfigurationError, match="drop_params is a setting of litellm"):
            ask(lm(server), drop_params=True)
    assert server.bodies == []
    dn.LM("bedrock/m", aws_region_name="eu-west-1")
    dn.LM("openai/m", engine="litellm", drop_params=True)


def test_settings_of_dspys_programs_are_checked_as_well():
    dspy = pytest.importorskip("dspy")
    assert dn.from_dspy(dspy.Predict("q -> a", temperature=1, rollout_id=3)).settings == {"temperature": 1}
    with pytest.raises(ConfigurationError, match="Did you mean 'temperature'"):
        dn.from_dspy(dspy.Predict("q -> a", tempature=1))


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "value", [object(), {1, 2}, float("nan"), float("inf"), [float("nan")], datetime.date(2026, 1, 1), b"x", print]
)
def test_a_setting_that_is_not_json_is_one_clear_error(value):
    with Server(lambda body, number: "hello") as server:
        for make in (
            lambda: dn.LM("openai/m", stop=value),
            lambda: dn.Predict("question -> answer", logit_bias=value),
            lambda: dn.LM("openai/m", extra_body={"field": value}),
            lambda: ask(lm(server), stop=value),
        ):
            with pytest.raises(ConfigurationError, match="a setting that is not JSON: (stop|logit_bias|extra_body)="):
                make()
    assert server.bodies == []


def test_a_circular_setting_is_an_error():
    body = {}
    body["self"] = body
    with pytest.raises(ConfigurationError, match="not JSON"):
        dn.LM("openai/m", extra_body=body)


# ── extra_body ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_extra_body_is_merged_into_the_body_and_the_inner_one_wins():
    outer = {"chat_template_kwargs": {"enable_thinking": False, "a": 1}, "top_kk": 1}
    with Server(lambda body, number: chat(answer="4")) as server:
        predict = dn.Predict(
            "question -> answer", lm=lm(server, extra_body=outer), extra_body={"chat_template_kwargs": {"b": 2}, "c": 3}
        )
        predict.run_sync(question="2+2?")
    body = server.bodies[0]
    assert "extra_body" not in body
    assert (body["chat_template_kwargs"], body["top_kk"], body["c"]) == ({"b": 2}, 1, 3)
    assert outer == {"chat_template_kwargs": {"enable_thinking": False, "a": 1}, "top_kk": 1}


def test_extra_body_replaces_a_setting_of_the_same_name():
    with Server(lambda body, number: "hello") as server:
        ask(lm(server, temperature=1, extra_body={"temperature": 0.25}))
        ask(lm(server, extra_body=None), extra_body=None)
    assert server.bodies[0]["temperature"] == 0.25
    assert "extra_body" not in server.bodies[1]


@pytest.mark.parametrize("name", ["model", "messages", "stream", "stream_options"])
def test_extra_body_may_not_replace_reserved_fields(name):
    with Server(lambda body, number: "hello") as server:
        for make in (
            lambda: lm(server, extra_body={name: 1}),
            lambda: dn.Predict("question -> answer", extra_body={name: 1}),
            lambda: ask(lm(server), extra_body={name: 1}),
        ):
            with pytest.raises(ConfigurationError, match=f"extra_body may not replace '{name}'"):
                make()
    assert server.bodies == []


@pytest.mark.parametrize("extra", [[("a", 1)], "text", {1: 2}])
def test_extra_body_is_a_dict(extra):
    with pytest.raises(ConfigurationError, match="extra_body must be a dict"):
        dn.LM("openai/m", extra_body=extra)


def test_extra_body_is_part_of_the_cache_key():
    keys = {
        dn.LM("openai/m", extra_body=body)._key(dn.LMRequest(()), {"extra_body": body})
        for body in ({"a": 1}, {"a": 2}, {})
    }
    assert len(keys) == 3


@pytest.mark.parametrize("settings", [{"tools": [{"type": "x"}]}, {"extra_body": {"tools": [{"type": "x"}]}}])
def test_tools_in_two_places_are_an_error(settings):
    with Server(lambda body, number: "hello") as server:
        request = dn.LMRequest(({"role": "user", "content": "x"},), settings, tools=({"type": "function"},))
        with pytest.raises(ConfigurationError, match="in one place"):
            asyncio.run(lm(server).complete(request))
        ask(lm(server), **settings)
    assert [body["tools"] for body in server.bodies] == [[{"type": "x"}]]


def test_a_response_format_in_the_settings_replaces_the_adapters():
    with Server(lambda body, number: '{"answer": "4"}') as server:
        model = lm(server, response_format={"type": "json_object"})
        dn.Predict("question -> answer", lm=model, adapter="json").run_sync(question="2+2?")
    assert server.bodies[0]["response_format"] == {"type": "json_object"}


# ── extra_headers ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_extra_headers_are_sent_as_such_and_merge_without_regard_to_case():
    with Server(lambda body, number: "hello") as server:
        model = lm(server, extra_headers={"X-One": "1", "X-Two": "2"})
        ask(model, extra_headers={"x-one": "3", "X-Three": "4"})
    sent = {name.lower(): value for name, value in server.headers[0].items()}
    assert (sent["x-one"], sent["x-two"], sent["x-three"]) == ("3", "2", "4")
    assert "extra_headers" not in server.bodies[0]
    assert "X-One" not in str(server.bodies)


def test_an_authorization_of_ones_own_is_sent_in_place_of_the_key():
    with Server(lambda body, number: "hello") as server:
        ask(lm(server, extra_headers={"authorization": "Token mine"}))
    assert [v for n, v in server.headers[0].items() if n.lower() == "authorization"] == ["Token mine"]


@pytest.mark.parametrize(
    "headers", [[("a", "b")], "a: b", {"X": 1}, {"X": None}, {1: "x"}, {"X": "a\r\nY: b"}, {"X\n": "a"}, {"": "a"}]
)
def test_headers_that_cannot_be_sent_are_an_error_when_the_model_is_made(headers):
    with pytest.raises(ConfigurationError, match="header"):
        dn.LM("openai/m", extra_headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"X y": "a"},
        {"X:": "a"},
        {"Ünï": "a"},
        {"X": "a\x01b"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_a_header_that_would_break_the_request_is_an_error_when_the_model_is_made(headers):
    with pytest.raises(ConfigurationError, match="the header"):
        dn.LM("openai/m", extra_headers=headers)
    dn.LM("openai/m", extra_headers={"X-Title": "Über\tuns", "Host": "models.example", "anthropic-beta": "a,b"})


def test_only_the_name_of_a_secret_header_is_part_of_the_cache_key():
    def key(**headers):
        model = dn.LM("openai/m", extra_headers=headers)
        return model._key(dn.LMRequest(()), model.settings)

    assert key(Authorization="Bearer one-0123456789") == key(Authorization="Bearer two-0123456789")
    assert key(Authorization="Bearer one-0123456789") != key()
    assert key(**{"anthropic-beta": "a"}) != key(**{"anthropic-beta": "b"})


def test_settings_are_pickled_with_the_model():
    model = pickle.loads(pickle.dumps(dn.LM("openai/m", extra_body={"a": 1}, seed=2)))
    assert model.settings == {"extra_body": {"a": 1}, "seed": 2}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"retries": "5"}, "retries must be a whole number of at least 0, got '5'"),
        ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1, got 0"),
        ({"concurrency": True}, "concurrency must be a whole number"),
        ({"timeout": None}, "timeout must be a number above 0, got None"),
        ({"timeout": "5"}, "timeout must be a number above 0, got '5'"),
        ({"timeout": float("nan")}, "timeout must be a number above 0, got nan"),
        ({"deadline": 0}, "deadline must be a number above 0, or None, got 0"),
        ({"rpm": -1}, "rpm must be a number above 0, or None, got -1"),
        ({"tpm": float("inf")}, "tpm must be a number above 0, or None, got inf"),
    ],
)
def test_a_limit_of_a_model_that_is_out_of_bounds_is_one_error_when_it_is_made(limit, message):
    with pytest.raises(ConfigurationError, match=message):
        dn.LM("openai/m", **limit)
