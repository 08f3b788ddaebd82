"""Each door: the ten checks of ``dspynb doctor --live`` with all defaults, and a request with many settings.

The servers validate each request against the official SDK of the provider, and so each reply.
"""

from __future__ import annotations

import functools
import json
import warnings

import pytest

import dspynb as dn
from dspynb.errors import ModelAdaptedWarning
from tests.doors import table
from tests.doors.fake_server import FakeServer
from tests.doors.registry import MANY_SETTINGS, all_doors
from tests.doors.suite import adapted_settings, try_door

QUESTION = {"question": "What is the capital of France?"}


def parameters(doors):
    """Doors as parameters of a test."""
    return [
        pytest.param(door, id=door.name, marks=[pytest.mark.slow, pytest.mark.timeout(600)] if door.slow else [])
        for door in doors
    ]


DOORS = parameters(all_doors())
FAKE_DOORS = parameters(
    door for door in all_doors() if isinstance(door.server, type) and issubclass(door.server, FakeServer)
)
report_of = functools.cache(try_door)


@pytest.mark.parametrize("door", DOORS)
def test_all_checks_have_the_expected_outcome(door):
    unexpected = [result for result in report_of(door).results if result.outcome not in door.outcomes]
    assert unexpected == []


@pytest.mark.parametrize("door", DOORS)
def test_requests_and_replies_are_in_the_format_of_the_official_sdk(door):
    assert report_of(door).problems == []


@pytest.mark.parametrize("door", DOORS)
def test_each_adapted_setting_is_named_once(door):
    assert sorted(report_of(door).adapted) == sorted(door.adapted)


@pytest.mark.parametrize("door", DOORS)
def test_calls_show_which_settings_were_adapted(door):
    calls = report_of(door).calls
    adapted = set()
    for requested, sent in zip(calls.requested, calls.sent, strict=True):
        adapted |= {name for name in requested if sent.get(name) != requested[name]}
    assert adapted == set(door.adapted) - {"response_format", "tools"}


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_a_request_with_many_settings_is_adapted_and_recorded(door):
    with door.server() as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask = dn.Predict("question -> answer", lm=door.lm(server), **MANY_SETTINGS)
        predictions = [ask.run_sync(**QUESTION) for _ in range(2)]
    texts = [str(warning.message) for warning in caught if warning.category is ModelAdaptedWarning]
    assert server.problems == []
    assert [prediction.answer for prediction in predictions] == ["Paris", "Paris"]
    assert sorted(adapted_settings("\n".join(texts))) == sorted(door.many_adapted)
    for prediction in predictions:
        (call,) = prediction.run.calls.to_dict("records")
        assert call["requested"] == MANY_SETTINGS
        received = server.settings(server.bodies[-1])
        assert received is None or call["sent"] == received
    assert len(server.refusals) <= len(door.many_adapted)
    assert len(server.bodies) == 2


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_calls_show_the_settings_that_the_server_received(door):
    report = report_of(door)
    if report.sent is None:
        pytest.skip("the provider has other names for the settings")
    received = [json.dumps(settings, sort_keys=True) for settings in report.sent]
    for sent in report.calls.sent[report.calls.error.isna()]:
        settings = {name: value for name, value in sent.items() if name != "response_format"}
        received.remove(json.dumps(settings, sort_keys=True))
    assert len(received) == 1  # the check of budgets has two runs, and the report has the calls of the last one


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_the_checks_list_what_the_provider_reports(door):
    reported = set()
    for result in report_of(door).results:
        reported |= set(result.reported)
    reports = door.reports
    fills = {
        "finish": True,
        "request_id": bool(reports.request_id),
        "response_id": reports.response_id,
        "response_model": True,
        "reasoning": reports.reasoning in ("always", "without a schema"),
        "reasoning_tokens": reports.reasoning_tokens in ("always", "in streams"),
        "tool_calls": reports.tools == "native",
    }
    assert reported == {name for name, is_filled in fills.items() if is_filled}


@pytest.mark.parametrize("door", DOORS)
def test_the_table_in_the_docs_has_what_the_checks_show(door):
    assert table.row(door, report_of(door)) in table.CHECKS.rows(), "run python -m tests.doors.table"


def test_the_table_in_the_docs_has_one_row_for_each_door():
    lines = table.CHECKS.rows()
    assert lines[:2] == table.header(table.titles())
    assert [table.name_of(line) for line in lines[2:]] == [door.name for door in all_doors()]
