"""A stream of every door passes on the thinking that the whole reply has."""

from __future__ import annotations

import asyncio
import warnings

import pytest

import dspynb as dn
from dspynb.running.streamed_calls import StreamedCall
from tests.doors.registry import all_doors

FAST = [pytest.param(door, id=door.name) for door in all_doors() if not door.slow]
SILENT = ("Mistral, mistral-small-latest", "Ollama at /v1, gemma3:4b")
"""Doors whose models return no thinking, beside OpenAI's, which return a summary only where it is requested."""


async def _ask(lm, adapter):
    with warnings.catch_warnings(), dn.context(adapter=adapter):
        warnings.simplefilter("ignore")
        return await dn.Predict("question -> answer: int", lm=lm, effort="low")(question="What is 20 + 22?")


@pytest.mark.parametrize("door", FAST)
def test_the_pieces_of_the_thinking_make_the_reasoning_of_the_reply(door, monkeypatch):
    calls = []
    begin = StreamedCall.__init__

    def noted(call, *arguments, **options):
        begin(call, *arguments, **options)
        calls.append(call)

    monkeypatch.setattr(StreamedCall, "__init__", noted)
    with door.server() as server:
        lm = door.lm(server)
        lm._streaming = True
        prediction = asyncio.run(_ask(lm, door.adapter))
    [streamed] = calls
    [call] = prediction.run.record.calls
    assert streamed.read().thinking.strip() == (call.reasoning or "").strip()
    assert (call.reasoning is None) == (door.name in SILENT or door.name.startswith("OpenAI"))
