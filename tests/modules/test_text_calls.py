"""Tool calls in the text of a reply, from servers without a parser for tool calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspynb.agents.text_calls import calls_in_text

LOOK = [{"name": "look", "args": {"word": "France"}}]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "look", "arguments": {"word": "France"}}\n</tool_call>',
        'I look it up.\n<tool_call>{"name": "look", "arguments": {"word": "France"}}</tool_call>',
        '<tool_call>{"name": "look", "arguments": {"word": "France"}}',
        '[TOOL_CALLS][{"name": "look", "arguments": {"word": "France"}}]',
        '<|python_tag|>{"name": "look", "parameters": {"word": "France"}}',
        '{"name": "look", "parameters": {"word": "France"}}',
        '{"type": "function", "function": {"name": "look", "arguments": {"word": "France"}}}',
        '<function=look>{"word": "France"}</function>',
        "<tool_call>{'name': 'look', 'arguments': {'word': 'France'}}</tool_call>",
    ],
)
def test_a_call_in_the_form_of_a_chat_template_is_read(text):
    assert calls_in_text(text, {"look"}) == LOOK


def test_several_calls_are_read_in_their_order():
    call = '<tool_call>{{"name": "look", "arguments": {{"word": "{}"}}}}</tool_call>'
    calls = calls_in_text(call.format("Oslo") + call.format("Rome"), {"look"})
    assert [c["args"]["word"] for c in calls] == ["Oslo", "Rome"]


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 4.",
        '{"answer": 4}',
        '{"name": "Ada", "arguments": {}}',
        'The JSON would be {"name": "look", "arguments": {"word": "France"}}',
        '<tool_call>{"name": "look", "argum',
        "<tool_call></tool_call>",
    ],
)
def test_another_text_holds_no_call(text):
    assert calls_in_text(text, {"look"}) == []


@given(st.text(st.sampled_from("<>{}[]\"':,tool_cal look=/"), max_size=60))
def test_no_text_raises(text):
    calls_in_text(f"<tool_call>{text}", {"look"})
