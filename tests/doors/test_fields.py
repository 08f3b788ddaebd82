"""What the record of a call has at each door, for seven kinds of calls: see fields.py."""

from __future__ import annotations

import functools

import pytest

from tests.doors import fields, table
from tests.doors.registry import all_doors
from tests.doors.test_doors import DOORS, FAKE_DOORS

calls_of = functools.cache(fields.make_calls)


@pytest.mark.parametrize("kind", list(fields.KINDS))
@pytest.mark.parametrize("door", FAKE_DOORS)
def test_the_record_of_a_call_has_what_the_provider_reports(door, kind):
    done = calls_of(door)
    assert fields.observed(done.calls[kind]) == fields.expected(door, kind, done)


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_requests_and_replies_of_all_kinds_of_calls_are_in_the_format_of_the_official_sdk(door):
    assert calls_of(door).problems == []


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_the_server_sends_the_id_of_a_request_in_the_header_that_the_door_names(door):
    assert (door.server.request_id_header or "") == door.reports.request_id


@pytest.mark.parametrize("door", FAKE_DOORS)
def test_the_record_has_the_settings_as_the_server_received_them(door):
    for kind, call in calls_of(door).calls.items():
        sent = {name: value for name, value in call.row["sent"].items() if name != "response_format"}
        if call.settings is not None:
            assert sent == call.settings, kind
        else:  # the provider has other names for them
            names = {"effort": "reasoning_effort"}
            assert sent == {names.get(name, name): value for name, value in call.row["requested"].items()}, kind


@pytest.mark.parametrize("door", DOORS)
def test_work_and_waiting_are_apart_and_the_first_token_is_within_the_work(door):
    for kind, call in calls_of(door).calls.items():
        event = call.event
        assert event.seconds > 0, kind
        assert event.waited >= 0, kind
        assert event.first_token is None or 0 < event.first_token <= event.seconds, kind
        assert event.usage.seconds <= event.seconds, kind


@pytest.mark.parametrize("door", DOORS)
def test_the_table_of_calls_and_the_history_have_the_fields_of_the_record(door):
    for kind, call in calls_of(door).calls.items():
        event = call.event
        for name in ("error", "finish", "seconds", "waited", "cached", "truncated", "request_id", "response_format"):
            assert call.row[name] == getattr(event, name), (kind, name)
        for name in ("messages", "tools", "tool_calls"):
            assert call.row[name] == list(getattr(event, name)), (kind, name)
        assert call.row["requested"] == event.requested, kind
        assert call.row["sent"] == (event.requested if event.sent is None else event.sent), kind
        assert call.row["reasoning_tokens"] == event.usage.reasoning_tokens, kind
        assert call.remembered is event, kind
        texts = [event.error, event.reasoning, event.reply, *(c["function"]["name"] for c in event.tool_calls)]
        assert all(text in call.shown for text in texts if text), kind


@pytest.mark.parametrize("door", DOORS)
def test_each_field_that_a_door_does_not_report_has_a_reason(door):
    reports = door.reports
    is_missing = {
        "request_id": not reports.request_id,
        "response_id": not reports.response_id,
        "reasoning": reports.reasoning == "never",
        "reasoning_tokens": reports.reasoning != "never" and reports.reasoning_tokens in ("never", "in streams"),
        "tool_calls": reports.tools == "text",
    }
    assert set(reports.missing) == {name for name, missing in is_missing.items() if missing}


@pytest.mark.parametrize("door", DOORS)
def test_the_table_of_the_record_in_the_docs_has_what_the_calls_show(door):
    assert table.line(fields.row(door, calls_of(door))) in table.FIELDS.rows(), "run python -m tests.doors.table"


def test_the_table_of_the_record_in_the_docs_has_one_row_for_each_door():
    lines = table.FIELDS.rows()
    assert lines[:2] == table.header(fields.titles())
    assert [table.name_of(line) for line in lines[2:]] == [door.name for door in all_doors()]
