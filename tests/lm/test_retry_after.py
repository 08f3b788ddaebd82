"""How long a call waits when a provider asks it to wait."""

from __future__ import annotations

import pytest

import dspynb as dn
from dspynb import errors
from dspynb.lm.limits import LONGEST_RETRY_AFTER
from dspynb.lm.providers.openai_format import retry_after
from tests.cases.providers import model, plain, without_waiting
from tests.lm.server import Server, error, reply

NOW = "Mon, 30 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "1e400"}, float("inf")),
        ({"retry-after": "Mon, 30 Nov 2026 12:00:30 GMT", "date": NOW}, 30),
        ({"retry-after": "Mon, 30 Nov 2026 11:59:00 GMT", "date": NOW}, 0),
        ({"retry-after": "Tue, 01 Dec 2026 12:00:00 GMT", "date": NOW}, 86400),
        ({"retry-after": "Monday, 30-Nov-26 12:00:05 GMT", "date": NOW}, 5),
        ({"retry-after": "Fri, 01 Jan 1999 00:00:00 GMT", "date": "damaged"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Mon, 99 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Mon, 30 Nov 99999 12:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_as_seconds_or_as_a_time_and_a_damaged_one_is_ignored(headers, seconds):
    assert retry_after(headers) == seconds


def slow_server(*headers):
    """A server that reports a rate limit with each of these headers in turn, and then answers."""

    def serve(body, number):
        if number > len(headers):
            return reply("[[ ## answer ## ]]\nParis")
        return error(429, "slow down", **headers[number - 1])

    return Server(serve)


def answer(server, **settings):
    ask = dn.Predict("question -> answer", lm=model(server, **settings))
    return ask.run_sync(question="The capital of France?").answer


def test_a_wait_up_to_the_limit_is_waited(monkeypatch):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": str(int(LONGEST_RETRY_AFTER))}) as server:
        assert answer(server) == "Paris"
    assert LONGEST_RETRY_AFTER <= sum(slept) <= 1.1 * LONGEST_RETRY_AFTER


def test_a_longer_wait_ends_the_call_at_once_and_the_error_says_what_to_do(monkeypatch):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": "61"}) as server, pytest.raises(errors.RateLimited) as caught:
        answer(server)
    assert slept == []
    assert "asks to wait for 61 s" in str(caught.value)
    assert "deadline=" in str(caught.value)
    assert (caught.value.retry_after, caught.value.retries) == (61, 0)


def test_a_deadline_allows_a_longer_wait(monkeypatch):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": "600"}) as server:
        assert answer(server, deadline=3600) == "Paris"
    assert sum(slept) >= 600


def test_a_wait_beyond_the_deadline_ends_the_call_at_once(monkeypatch):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": "600"}) as server, pytest.raises(errors.RateLimited, match="after the deadline"):
        answer(server, deadline=30)
    assert slept == []


@pytest.mark.parametrize("value", ["nan", "soon", "-5", ""])
def test_after_a_damaged_header_the_call_waits_as_without_one(monkeypatch, value):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": value}) as server:
        assert answer(server) == "Paris"
    assert sum(slept) <= 1


def test_a_provider_that_never_allows_another_try_ends_the_call(monkeypatch):
    slept = without_waiting(monkeypatch)
    with slow_server({"Retry-After": "1e400"}) as server, pytest.raises(errors.RateLimited, match="inf s"):
        answer(server)
    assert slept == []


def test_the_wait_that_gemini_names_in_the_body_is_waited(monkeypatch):
    slept = without_waiting(monkeypatch)
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    body = [{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": details}}]
    answers = [plain(body, 429), reply("[[ ## answer ## ]]\nParis")]
    with Server(lambda body, number: answers[number - 1]) as server:
        assert answer(server) == "Paris"
    assert 34.5 <= sum(slept) <= 1.1 * 34.5
