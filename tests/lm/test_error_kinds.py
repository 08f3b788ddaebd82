"""Error responses of providers are understood: their kind, the refused parameter, and the values that it may have."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm.providers.error_kinds import KINDS as RULES
from dspynb.lm.providers.error_kinds import error_kind
from dspynb.lm.providers.error_report import read_report
from dspynb.lm.providers.parameter_wordings import CLEAR_FEATURES, FEATURES, PARAMETERS
from dspynb.lm.providers.refused_parameters import refused_parameter
from tests.cases.providers import model, plain, refused
from tests.cases.refusals import NO_SCHEMA, NO_TOOLS
from tests.lm.server import Server


def lines_of(name):
    """The JSON lines of a file beside this one."""
    return [json.loads(line) for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()]


MESSAGES = lines_of("refused_parameters.jsonl")


def in_openai_form(message):
    """The body of an error response in OpenAI's form."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def error_of(answer, **settings):
    """The error of a call to which a server responds in this way."""
    with Server(lambda body, number: answer()) as server, pytest.raises(errors.ModelError) as caught:
        dn.Predict("question -> answer", lm=model(server, retries=0, **settings)).run_sync(question="2+2?")
    return caught.value


@pytest.mark.parametrize("response", lines_of("error_kinds.jsonl"))
def test_an_error_response_is_of_the_kind_that_its_provider_means(response):
    assert error_kind(read_report(response["status"], response["body"])).__name__ == response["kind"]


@pytest.mark.parametrize("case", [case for case in MESSAGES if case["parameter"]])
def test_a_refused_parameter_is_found_with_the_values_that_the_message_allows(case):
    refusal = refused_parameter(read_report(400, in_openai_form(case["message"])))
    assert refusal.name == case["parameter"]
    allowed = case["allowed"]
    if allowed is not None:
        low = -math.inf if allowed[0] is None else allowed[0]
        high = math.inf if allowed[1] is None else allowed[1]
        allowed = pytest.approx((low, high))
    assert refusal.allowed == allowed


@pytest.mark.parametrize("case", [case for case in MESSAGES if not case["parameter"]])
def test_a_message_about_something_else_refuses_no_parameter(case):
    assert refused_parameter(read_report(400, in_openai_form(case["message"]))) is None


@pytest.mark.parametrize("words", NO_TOOLS)
def test_a_server_without_tools_refuses_the_parameter_tools(words):
    problem = error_of(NO_TOOLS[words])
    assert isinstance(problem, errors.UnsupportedParameter)
    assert problem.parameter == "tools"


@pytest.mark.parametrize("words", NO_SCHEMA)
def test_a_server_without_json_schema_refuses_the_parameter_response_format(words):
    problem = error_of(NO_SCHEMA[words])
    assert isinstance(problem, errors.UnsupportedParameter)
    assert problem.parameter == "response_format"


def test_the_name_in_the_field_param_is_used_where_the_message_has_none():
    problem = error_of(lambda: refused("This is not possible.", param="logit_bias"))
    assert isinstance(problem, errors.UnsupportedParameter)
    assert problem.parameter == "logit_bias"


def test_the_error_of_a_refused_parameter_survives_pickling():
    problem = error_of(lambda: refused("invalid temperature: only 1 is allowed for this model"))
    copy = pickle.loads(pickle.dumps(problem))
    assert (copy.parameter, copy.allowed, str(copy)) == ("temperature", (1.0, 1.0), str(problem))


def test_the_error_of_a_gateway_shows_the_text_of_the_provider_behind_it():
    quoted = json.dumps({"error": {"message": "prompt is too long: 205437 tokens > 200000 maximum"}})
    body = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": quoted}}}
    problem = error_of(lambda: plain(body))
    assert isinstance(problem, errors.ContextTooLong)
    assert "205437 tokens" in str(problem)


def test_an_error_in_a_body_with_status_200_is_of_its_kind():
    body = {"error": {"message": "prompt is too long: 205437 tokens > 200000 maximum", "code": 400}}
    assert isinstance(error_of(lambda: plain(body, 200)), errors.ContextTooLong)


def test_the_prompt_that_a_server_repeats_is_not_searched_for_words():
    detail = {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": "the context length"}
    assert type(error_of(lambda: plain({"detail": [detail]}, 422))) is errors.BadRequestError


@pytest.mark.parametrize(
    "body",
    [None, 3, "", [], {}, {"error": None}, {"error": {"message": None}}, {"error": [[[[[[[[{"message": "x"}]]]]]]]]}],
)
def test_a_body_without_a_message_is_of_the_kind_of_its_status(body):
    report = read_report(400, body)
    assert (error_kind(report), report.message) == (errors.BadRequestError, "")


@pytest.mark.parametrize(
    "text",
    ["`" * 20_000, "x" * 20_000, "a." * 10_000, "a-" * 10_000, "1" * 20_000, "max_tokens " * 2_000, '{"x": "' * 3_000],
)
def test_a_text_that_is_made_to_be_searched_slowly_is_searched_fast(text):
    """With a search that takes quadratic time, this test takes minutes."""
    report = read_report(400, in_openai_form(text))
    assert error_kind(report) is errors.BadRequestError


def test_every_wording_names_its_source():
    for rule in (*RULES, *PARAMETERS, *CLEAR_FEATURES, *FEATURES):
        assert len(rule.source) > 5


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (503, "The model is not available right now, please try again later"),
        (503, "Model not found on this replica, it is still loading"),
        (500, "Internal error: json_schema grammar worker failed"),
        (500, "CUDA error: unknown error, seed must be set"),
    ],
)
def test_a_failure_of_the_server_is_retried_whatever_its_text_mentions(status, message):
    assert error_kind(read_report(status, {"error": {"message": message}})) is errors.ServerError
