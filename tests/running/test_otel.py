"""Traces as OpenTelemetry spans, read back from the real SDK."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import dspynb as dn
from dspynb import events
from dspynb.errors import ConfigurationError, InputError, RateLimited
from tests.helpers import Caption, chat, scores

REPLY = dn.LMReply(
    chat(sentence="SECRET-REPLY"),
    usage=dn.Usage(calls=1, prompt_tokens=7, completion_tokens=3, cached_tokens=2),
)


class Program(dn.Module):
    def __init__(self, lm):
        self.predict = dn.Predict(Caption, lm=lm)

    async def forward(self, subject):
        return await self.predict(subject=subject)


def exported(recorded, **how):
    """The exported spans by name; they are closed inner ones first."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    count = dn.export_otel(recorded, provider, **how)
    spans = exporter.get_finished_spans()
    assert len(spans) == count
    return {span.name: span for span in spans}


def traced(program, subject="SECRET-INPUT"):
    async def main():
        with dn.trace() as t:
            try:
                await program(subject=subject)
            except dn.DspynbError:
                return t
        return t

    return asyncio.run(main())


def test_a_call_is_a_chat_span_with_model_provider_and_tokens():
    span = exported(traced(Program(dn.ScriptedLM([REPLY], name="openai/gpt-x"))))["chat gpt-x"]
    facts = dict(span.attributes)
    assert span.kind is SpanKind.CLIENT
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.provider.name"] == "openai"
    assert facts["gen_ai.request.model"] == "gpt-x"
    assert facts["gen_ai.usage.input_tokens"] == 7
    assert facts["gen_ai.usage.output_tokens"] == 3
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 2
    assert facts["dspynb.predictor"] == "predict"
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("bedrock/anthropic/claude", "aws.bedrock", "chat anthropic/claude"),
        ("gemini/flash", "gcp.gemini", "chat flash"),
        ("scripted", "scripted", "chat scripted"),
    ],
)
def test_providers_have_the_names_of_the_conventions(model, provider, name):
    span = exported(traced(Program(dn.ScriptedLM([REPLY], name=model))))[name]
    assert span.attributes["gen_ai.provider.name"] == provider


def test_parents_and_times_are_those_of_the_trace():
    refine = dn.Refine(Program(dn.FunctionLM(lambda r: REPLY)), scores(0.1, 1.0), n=2, hints=lambda a, p, i: "again")
    t = traced(refine)
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    dn.export_otel(t, provider)
    by_id = {s.context.span_id: s for s in exporter.get_finished_spans()}
    spans = sorted((s.start_time, s.name, by_id[s.parent.span_id].name if s.parent else None) for s in by_id.values())
    assert [names for _, *names in spans] == [
        ["invoke_agent Refine(Program)", None],
        ["attempt 1", "invoke_agent Refine(Program)"],
        ["invoke_agent Program", "attempt 1"],
        ["chat function", "invoke_agent Program"],
        ["attempt 2", "invoke_agent Refine(Program)"],
        ["invoke_agent Program", "attempt 2"],
        ["chat function", "invoke_agent Program"],
    ]
    assert len({s.context.trace_id for s in by_id.values()}) == 1
    started = sorted(int(s.started * 1e9) for s in t.spans)
    assert sorted(s.start_time for s in by_id.values()) == started
    for span in by_id.values():
        assert span.end_time >= span.start_time
    assert by_id[next(iter(by_id))].instrumentation_scope.name == "dspynb"


def test_without_capture_content_no_prompt_reply_hint_or_error_text_is_sent():
    unreadable = dn.LMReply("SECRET-REPLY")
    for lm in (dn.ScriptedLM([REPLY]), dn.ScriptedLM([unreadable]), dn.ScriptedLM([RateLimited("SECRET-ERROR")])):
        with dn.hints("SECRET-HINT"):
            t = traced(Program(lm))
        assert "SECRET" in repr(t.spans)
        spans = exported(t)
        assert "SECRET" not in "".join(span.to_json() for span in spans.values())


def test_captured_messages_are_sent_in_the_form_of_the_conventions():
    with dn.hints("SECRET-HINT"):
        spans = exported(traced(Program(dn.ScriptedLM([REPLY]))), capture_content=True)
    chat_span, agent = spans["chat scripted"].attributes, spans["invoke_agent Program"].attributes
    system, user = json.loads(chat_span["gen_ai.input.messages"])
    assert (system["role"], user["role"]) == ("system", "user")
    assert "SECRET-INPUT" in user["parts"][0]["content"]
    assert user["parts"][0]["type"] == "text"
    (reply,) = json.loads(chat_span["gen_ai.output.messages"])
    assert reply["parts"] == [{"type": "text", "content": REPLY.text}]
    assert chat_span["dspynb.hint"] == "SECRET-HINT"
    assert json.loads(agent["dspynb.inputs"]) == {"subject": "SECRET-INPUT"}
    assert json.loads(agent["dspynb.outputs"]) == {"sentence": "SECRET-REPLY"}


def test_errors_are_sent_as_their_class():
    spans = exported(traced(Program(dn.ScriptedLM([RateLimited("too many")]))), capture_content=True)
    for span in spans.values():
        assert span.attributes["error.type"] == "RateLimited"
        assert span.status.status_code is StatusCode.ERROR
        assert "too many" in span.status.description


def test_a_tool_is_an_execute_tool_span():
    t = dn.Trace(
        [
            events.SpanStarted(span=1, kind="tool", name="search", inputs={"q": "x"}, at=1.0),
            events.SpanEnded(span=1, outputs={"result": "y"}, at=3.0),
        ]
    )
    span = exported(t, capture_content=True)["execute_tool search"]
    assert span.attributes["gen_ai.tool.name"] == "search"
    assert json.loads(span.attributes["gen_ai.tool.call.arguments"]) == {"q": "x"}
    assert json.loads(span.attributes["gen_ai.tool.call.result"]) == {"result": "y"}
    assert (span.start_time, span.end_time) == (1_000_000_000, 3_000_000_000)


def test_a_span_that_never_ended_ends_with_the_last_span_inside_it():
    t = dn.Trace(
        [
            events.SpanStarted(span=1, kind="module", name="m", at=1.0),
            events.SpanStarted(span=2, parent=1, kind="module", name="inner", at=2.0),
            events.SpanEnded(span=2, parent=1, outputs={}, at=5.0),
        ]
    )
    spans = exported(t)
    assert spans["invoke_agent m"].end_time == 5_000_000_000
    assert spans["invoke_agent m"].attributes["dspynb.unfinished"] is True
    assert "dspynb.unfinished" not in spans["invoke_agent inner"].attributes


def test_a_run_that_was_killed_and_resumed_is_one_trace_for_each_time_that_it_ran():
    t = dn.Trace(
        [
            events.RunStarted(span=1, kind="evaluate", name="program", at=1.0),
            events.SpanStarted(span=2, parent=1, kind="row", name="row 0", at=2.0),
            events.RunStarted(span=1, kind="evaluate", name="program", at=10.0),
            events.SpanStarted(span=3, parent=1, kind="row", name="row 0", at=11.0),
            events.RolloutEnded(span=3, parent=1, row=0, score=1, at=12.0),
            events.RunEnded(span=1, status="finished", at=13.0),
        ]
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert dn.export_otel(t, provider) == 4
    killed_row, killed_run, row, run = exporter.get_finished_spans()
    assert (killed_row.parent.span_id, row.parent.span_id) == (killed_run.context.span_id, run.context.span_id)
    assert killed_run.context.trace_id != run.context.trace_id
    assert killed_row.attributes["dspynb.unfinished"] is True
    assert killed_run.end_time == 2_000_000_000
    assert (run.start_time, run.end_time) == (10_000_000_000, 13_000_000_000)
    assert run.attributes["gen_ai.workflow.name"] == "program"


def test_a_damaged_file_is_sent_as_far_as_it_goes():
    t = dn.Trace(
        [
            events.SpanEnded(span=9, outputs={}, at=1.0),
            events.SpanStarted(span=1, parent=1, kind="module", name="m", at=1.0),
            events.SpanStarted(span=1, parent=7, kind="module", name="m", at=2.0),
            events.AttemptEnded(span=4, state="scored", score=0.5, at=3.0),
            events.RunEnded(span=8, status="failed", at=4.0),
        ]
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert dn.export_otel(t, provider) == 2
    assert [span.name for span in exporter.get_finished_spans()] == ["invoke_agent m", "invoke_agent m"]


def test_a_run_and_its_file_are_sent_with_the_run_as_a_workflow():
    prediction = asyncio.run(dn.Refine(Program(dn.FunctionLM(lambda r: REPLY)), scores(1.0))(subject="sea"))
    for recorded in (prediction.run, prediction.run.path):
        spans = exported(recorded)
        assert "invoke_workflow Refine(Program)" in spans
        assert spans["attempt 1"].attributes["dspynb.score"] == 1.0


def test_hostile_text_is_sent_as_text():
    lm = dn.ScriptedLM([dn.LMReply(chat(sentence="\ud800 <b>"))], name="a/\ud800")
    for span in exported(traced(Program(lm), "\udfff"), capture_content=True).values():
        span.to_json().encode()
        json.dumps(dict(span.attributes), ensure_ascii=False).encode()


def test_without_a_provider_or_a_trace_the_error_says_what_to_do():
    code = (
        "import dspynb as dn\n"
        "try: dn.export_otel(dn.Trace())\n"
        "except dn.errors.ConfigurationError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pass tracer_provider=" in done.stdout
    with pytest.raises(InputError, match="give a Trace"):
        exported(42)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r"dspynb\[otel\]"):
        dn.export_otel(dn.Trace())
