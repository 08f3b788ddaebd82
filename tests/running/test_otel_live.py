"""``track="otel"``: spans are sent over OTLP while runs run, and keep to the semantic conventions for generative AI.

A real exporter sends to a receiver on loopback. ``export_otel`` sends the same spans afterwards.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import subprocess
import sys
import threading

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

import dspynb as dn
from dspynb.errors import ConfigurationError, RateLimited, TrackingWarning
from dspynb.lm.recorded_call import RecordedCall
from dspynb.redact import keep_secret
from dspynb.running.otel import exporter_logs, live
from tests.helpers import Caption, chat, scores
from tests.lm.server import Server, reply, sse
from tests.running.genai_conventions import TABLE, problems_of
from tests.running.otlp_receiver import OTLPReceiver

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ROWS = [{"subject": "sea", "sentence": "x"}, {"subject": "sky", "sentence": "x"}]


class Program(dn.Module):
    def __init__(self, lm):
        self.predict = dn.Predict(Caption, lm=lm)

    async def forward(self, subject):
        return await self.predict(subject=subject)


@pytest.fixture
def receiver():
    with OTLPReceiver() as receiver:
        yield receiver


@pytest.fixture
def provider(receiver, monkeypatch):
    """The process-wide tracer provider, which sends each span to the receiver when it ends."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(receiver.url)))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.delenv(CAPTURE, raising=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def tracked(provider):
    dn.configure(track="otel")


@pytest.fixture
def captured(monkeypatch, tracked):
    monkeypatch.setenv(CAPTURE, "true")


def answer(**more):
    return reply(chat(sentence="SECRET-REPLY"), **more)


SETTINGS = {
    "temperature": 1,
    "top_p": 0.5,
    "max_tokens": 50,
    "seed": 7,
    "stop": "END",
    "frequency_penalty": 0.25,
    "presence_penalty": 0.5,
    "n": 2,
}


def call_with_settings():
    def two(body, number):
        body = answer()
        body["choices"].append({**body["choices"][0], "index": 1})
        return body

    with Server(two) as server:
        lm = dn.LM("openai/gpt-4.1-mini", api_base=server.base, top_k=None, **SETTINGS)
        return Program(lm).run_sync(subject="SECRET-INPUT").run


def call_with_effort():
    with Server(lambda body, number: answer(reasoning_content="SECRET-THINKING")) as server:
        lm = dn.LM("openai/m", api_base=server.base, effort="low", top_k=40)
        return Program(lm).run_sync(subject="SECRET-INPUT").run


def stream():
    with Server(None, streamed=[sse([chat(sentence="SECRET"), "-REPLY"])]) as server:
        predict = dn.Predict(Caption, lm=dn.LM("openai/m", api_base=server.base))

        async def main():
            async for _ in predict.stream(subject="SECRET-INPUT"):
                pass

        dn.run_sync(main)
    return dn.last_run()


def add(a: int, b: int) -> int:
    """SECRET-DESCRIPTION: add two numbers."""
    return a + b


def tools():
    def turn(body, number):
        if number > 1:
            return reply("SECRET-REPLY: 5") if body.get("tools") else reply(chat(reasoning="r", answer="5"))
        function = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
        body = reply("", tool_calls=[{"id": "call_7", "type": "function", "function": function}])
        body["choices"][0]["finish_reason"] = "tool_calls"
        return body

    with Server(turn) as server:
        lm = dn.LM("openai/m", api_base=server.base, native_tools=True)
        with dn.context(lm=lm):
            return dn.ReAct("question -> answer", tools=[add]).run_sync(question="SECRET-INPUT").run


def failing_tool():
    def broken(a: int) -> int:
        raise ValueError("SECRET-ERROR")

    calls = [
        chat(next_thought="t", next_tool_name="broken", next_tool_args='{"a": 1}'),
        chat(next_thought="t", next_tool_name="finish", next_tool_args="{}"),
        chat(reasoning="r", answer="5"),
    ]
    with dn.context(lm=dn.ScriptedLM(calls)):
        return dn.ReAct("question -> answer", tools=[broken]).run_sync(question="SECRET-INPUT").run


def repair():
    lm = dn.ScriptedLM(["SECRET-REPLY", chat(sentence="SECRET-REPLY")])
    return Program(lm).run_sync(subject="SECRET-INPUT").run


def failure():
    lm = dn.ScriptedLM([RateLimited("SECRET-ERROR")])
    with pytest.raises(RateLimited):
        Program(lm).run_sync(subject="SECRET-INPUT")
    return dn.last_run()


def refine_in_an_evaluation():
    refine = dn.Refine(
        Program(dn.FunctionLM(lambda request: chat(sentence="SECRET-REPLY"))),
        scores(0.1, 1.0, 0.2, 1.0, feedback="SECRET-FEEDBACK"),
        n=2,
        hints=lambda *_: "SECRET-HINT",
    )

    def judge(row, prediction):
        return dn.Score(0.75, feedback="SECRET-FEEDBACK")

    async def main():
        return await dn.evaluate(refine, ROWS, judge, concurrency=1)

    return dn.run_sync(main).run


def several_metrics():
    def close(row, prediction):
        return 0.5

    def exact(row, prediction):
        return 1.0

    async def main():
        program = Program(dn.FunctionLM(lambda request: chat(sentence="SECRET-REPLY")))
        return await dn.evaluate(program, ROWS, [close, exact])

    return dn.run_sync(main).run


def optimizer():
    program = dn.Predict(Caption, lm=dn.FunctionLM(lambda request: chat(sentence="SECRET-REPLY")))
    optimizer = dn.BootstrapRandomSearch(lambda row, prediction: 1.0, num_candidates=1)
    optimizer.compile_sync(program, ROWS, val=[{"subject": "v", "sentence": "x"}])
    return dn.last_run()


def batch():
    program = Program(dn.FunctionLM(lambda request: chat(sentence="SECRET-REPLY")))
    dn.run_sync(lambda: program.batch([{"subject": "SECRET-INPUT"}, {"subject": "b"}]))
    return dn.last_run()


class Finish(enum.Enum):
    STOP = "STOP"


def hostile_values():
    """A model whose replies and settings have values of other types than they should have."""

    class Odd:
        name = "odd/\ud800"
        settings = {"temperature": float("nan"), "seed": 10**30, "stop": [1], "top_p": "0.5", "n": True, "effort": 3}  # noqa: RUF012

        async def complete(self, request):
            calls = ({"function": {"name": None, "arguments": "{"}}, {"function": "x"}, {"id": 3})
            usage = dn.Usage(calls=1, prompt_tokens=10**30, completion_tokens=3)
            return dn.LMReply("SECRET-REPLY", calls, usage, finish=Finish.STOP, response_id="", reasoning="\ud800")

    messages = [
        {"role": "user", "content": ["SECRET-INPUT", {"type": "image_url", "image_url": {"url": "http://x/y"}}, {}]},
        {"role": "tool", "content": None},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
    ]

    class Direct(dn.Module):
        async def forward(self, subject):
            lm = Odd()
            request = dn.LMRequest(tuple(messages), tools=({"name": "t"}, {"function": {"name": "f"}}))
            call = RecordedCall(lm=lm, request=request, scope=dn.current_scope(), path="odd")
            reply = await call.ask()
            call.report(outputs={"text": reply.text, 3: {1, 2}, "x": float("nan")})
            return dn.Prediction(sentence=reply.text)

    return Direct().run_sync(subject="SECRET-INPUT").run


WORK = [
    hostile_values,
    call_with_settings,
    call_with_effort,
    stream,
    tools,
    failing_tool,
    repair,
    failure,
    refine_in_an_evaluation,
    several_metrics,
    optimizer,
    batch,
]


@pytest.mark.parametrize("content", [False, True], ids=["metadata", "content"])
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_every_span_keeps_to_the_conventions_live_and_afterwards(work, content, provider, receiver, monkeypatch):
    if content:
        monkeypatch.setenv(CAPTURE, "true")
    with dn.context(track="otel"):
        run = work()
    live_spans = list(receiver.spans)
    receiver.spans.clear()
    count = dn.export_otel(run, provider, capture_content=content)
    exported = list(receiver.spans)
    assert len(exported) == count
    for spans in (live_spans, exported):
        assert [problem for span in spans for problem in problems_of(span)] == []
        assert any(span.name.startswith("chat ") for span in spans)
        assert len({span.trace_id for span in spans}) == 1
    assert sorted(map(_facts, live_spans)) == sorted(map(_facts, exported))
    if not content:
        assert b"SECRET" not in receiver.raw
    else:
        assert b"SECRET" in receiver.raw


def _facts(span):
    return span.name, span.kind, span.start, span.end, json.dumps(span.attributes, sort_keys=True, default=repr)


def test_the_table_names_its_repository_and_commit():
    assert TABLE["source"]["repository"] == "open-telemetry/semantic-conventions-genai"
    assert len(TABLE["source"]["commit"]) == 40


def test_a_span_that_breaks_a_rule_is_reported(tracked, receiver):
    call_with_settings()
    (span,) = receiver.named("chat gpt-4.1-mini")
    assert problems_of(span) == []
    span.attributes["gen_ai.request.temperature"] = 1
    span.types["gen_ai.request.temperature"] = "int"
    span.attributes["gen_ai.unknown"] = 1
    del span.attributes["gen_ai.provider.name"]
    span.kind = "SERVER"
    assert len(problems_of(span)) == 4


def test_the_settings_of_a_request_are_attributes_with_the_types_of_the_conventions(tracked, receiver):
    call_with_settings()
    facts = receiver.named("chat gpt-4.1-mini")[0].attributes
    request = {name.removeprefix("gen_ai.request."): value for name, value in facts.items() if ".request." in name}
    assert request == {
        "model": "gpt-4.1-mini",
        "temperature": 1.0,
        "top_p": 0.5,
        "max_tokens": 50,
        "seed": 7,
        "stop_sequences": ["END"],
        "frequency_penalty": 0.25,
        "presence_penalty": 0.5,
        "choice.count": 2,
    }
    assert facts["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts["gen_ai.response.id"] == "x"
    assert facts["gen_ai.response.model"] == "m"
    assert facts["server.address"] == "127.0.0.1"
    assert facts["server.port"] > 0
    assert facts["gen_ai.usage.input_tokens"] == 7
    assert facts["gen_ai.usage.cache_read.input_tokens"] == 2
    assert facts["gen_ai.usage.reasoning.output_tokens"] == 1


def test_the_level_of_reasoning_is_sent_and_the_thinking_is_content(captured, receiver):
    call_with_effort()
    facts = receiver.named("chat m")[0].attributes
    assert facts["gen_ai.request.reasoning.level"] == "low"
    assert facts["gen_ai.request.top_k"] == 40
    (message,) = json.loads(facts["gen_ai.output.messages"])
    assert message["parts"][0] == {"type": "reasoning", "content": "SECRET-THINKING"}
    assert message["parts"][1]["type"] == "text"


def test_a_stream_has_the_time_to_its_first_piece(tracked, receiver):
    stream()
    facts = receiver.named("chat m")[0].attributes
    assert facts["gen_ai.request.stream"] is True
    assert facts["gen_ai.response.time_to_first_chunk"] > 0


CALL = {"type": "tool_call", "id": "call_7", "name": "add", "arguments": {"a": 2, "b": 3}}


def test_tool_calls_are_parts_of_replies_and_spans_with_the_id_of_the_call(captured, receiver):
    tools()
    facts = receiver.named("chat m")[0].attributes
    assert facts["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert json.loads(facts["gen_ai.output.messages"])[0]["parts"] == [CALL]
    definition = json.loads(facts["gen_ai.tool.definitions"])[0]
    assert (definition["type"], definition["name"]) == ("function", "add")
    assert set(definition["parameters"]["properties"]) == {"a", "b"}
    tool = receiver.named("execute_tool add")[0].attributes
    assert tool["gen_ai.tool.call.id"] == "call_7"
    assert tool["gen_ai.tool.description"].startswith("SECRET-DESCRIPTION")
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 2, "b": 3}
    assert json.loads(tool["gen_ai.tool.call.result"]) == {"observation": "5"}


def test_tool_calls_and_their_results_are_parts_of_input_messages(captured, receiver):
    function = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "2+3?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_7", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_7", "content": "5"},
    ]
    dn.ScriptedLM(["5"]).run_sync(messages)
    (span,) = receiver.spans
    assert problems_of(span) == []
    assert json.loads(span.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "2+3?"}]},
        {"role": "assistant", "parts": [CALL]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_7", "response": "5"}]},
    ]


def test_a_schema_in_a_request_is_the_output_type_json(tracked, receiver):
    with Server(lambda body, number: reply('{"sentence": "x"}')) as server:
        lm = dn.LM("openai/gpt-4.1-mini", api_base=server.base)
        dn.Predict(Caption, lm=lm, adapter="json").run_sync(subject="sea")
    assert receiver.named("chat gpt-4.1-mini")[0].attributes["gen_ai.output.type"] == "json"


def test_scores_are_evaluation_results_and_the_spans_of_a_nested_refine_have_their_parents(tracked, receiver):
    refine_in_an_evaluation()
    rows = [span for span in receiver.spans if span.name in ("row 0", "row 1")]
    assert [row.results() for row in rows] == [{"judge": 0.75}] * 2
    attempts = [span.results() for span in receiver.spans if span.name.startswith("attempt ")]
    assert attempts == [{"reward": 0.1}, {"reward": 1.0}, {"reward": 0.2}, {"reward": 1.0}]
    assert [
        event.attributes.get("gen_ai.evaluation.score.label")
        for span in receiver.spans
        for event in span.events
        if span.name.startswith("attempt ")
    ] == ["fail", "pass", "fail", "pass"]
    calls = receiver.named("chat function")
    assert len(calls) == 4
    for number, call in enumerate(calls):
        path = receiver.path(call)
        assert path[0].startswith("invoke_workflow ")
        assert path[-5:] == [
            f"row {number // 2}",
            "invoke_agent Refine(Program)",
            f"attempt {number % 2 + 1}",
            "invoke_agent Program",
            "chat function",
        ]


def test_each_metric_is_an_evaluation_result_with_its_name(tracked, receiver):
    several_metrics()
    assert receiver.named("row 0")[0].results() == {"close": 0.5, "exact": 1.0}


def test_a_repair_is_inside_the_call_that_it_repairs(tracked, receiver):
    repair()
    first, second = receiver.named("chat scripted")
    assert second.parent_id == first.span_id
    assert first.attributes["error.type"] == "ParseError"
    assert first.events[0].attributes == {"exception.type": "ParseError"}


def test_spans_arrive_while_the_run_goes_on(tracked, receiver):
    first_call_ended = asyncio.Event()
    answered = []

    async def respond(request):
        if answered:
            await first_call_ended.wait()
        answered.append(request)
        return chat(sentence="x")

    async def main():
        evaluation = asyncio.ensure_future(
            dn.evaluate(Program(dn.FunctionLM(respond)), ROWS, lambda row, prediction: 1.0, concurrency=1)
        )
        await asyncio.to_thread(receiver.wait_for, "row 0")
        assert not evaluation.done()
        assert not [span for span in receiver.spans if span.name.startswith("invoke_workflow")]
        first_call_ended.set()
        await evaluation

    asyncio.run(main())
    assert [span for span in receiver.spans if span.name.startswith("invoke_workflow")]


def test_a_stopped_run_ends_its_spans(tracked, receiver):
    async def main():
        called = asyncio.Event()

        async def forever(request):
            called.set()
            await asyncio.Event().wait()

        run = Program(dn.FunctionLM(forever)).start(subject="sea")
        await called.wait()
        run.stop()
        with pytest.raises(dn.RunStopped):
            await run

    asyncio.run(main())
    assert [problem for span in receiver.spans for problem in problems_of(span)] == []
    (workflow,) = receiver.named("invoke_workflow Program")
    assert workflow.attributes["dspynb.run.status"] == "stopped"
    (call,) = receiver.named("chat function")
    assert call.attributes["error.type"] == "CancelledError"
    assert receiver.path(call)[0] == "invoke_workflow Program"


def test_spans_are_inside_the_span_that_is_current_where_the_run_begins(tracked, provider, receiver):
    with provider.get_tracer("app").start_as_current_span("request of a user"):
        repair()
        dn.ScriptedLM(["x"]).run_sync("Say x.")
    outer = receiver.named("request of a user")[0]
    assert receiver.named("invoke_workflow Program")[0].parent_id == outer.span_id
    assert [span.parent_id for span in receiver.named("chat scripted")][-1] == outer.span_id


def test_a_direct_call_outside_of_runs_is_sent(tracked, receiver):
    dn.ScriptedLM(["Hello!"]).run_sync("Say hello.")
    (span,) = receiver.spans
    assert (span.name, span.attributes["dspynb.predictor"]) == ("chat scripted", "lm()")


def test_a_run_inside_a_run_is_inside_its_span_and_sent_once(tracked, receiver):
    class Outer(dn.Module):
        def __init__(self, lm):
            self.program = Program(lm)

        async def forward(self, subject):
            first = self.program.start(subject=subject)
            second = self.program.start(subject=subject)
            await first
            return await second

    Outer(dn.FunctionLM(lambda request: chat(sentence="x"))).run_sync(subject="sea")
    assert [problem for span in receiver.spans for problem in problems_of(span)] == []
    calls = receiver.named("chat function")
    assert len(calls) == 2
    for call in calls:
        path = receiver.path(call)
        assert path[:2] == ["invoke_workflow Outer", "invoke_agent Outer"]
        assert path[2:] == ["invoke_workflow Program", "invoke_agent Program", "chat function"]


def test_a_known_secret_appears_in_no_span(captured, receiver):
    key = "sk-plantedsecret0123456789abcdef"
    keep_secret(key)
    lm = dn.FunctionLM(lambda request: chat(sentence=f"the key is {key}"))
    Program(lm).run_sync(subject=f"my key is {key}")
    with Server(lambda body, number: {**reply(chat(sentence=key)), "id": key, "model": key}) as server:
        address = server.base.replace("http://", "http://user:pass-word-of-the-server@")
        lm = dn.LM("openai/m", api_base=address, extra_headers={"x-api-key": key}, stop=[key], user=key)
        Program(lm).run_sync(subject=key)
    assert len(receiver.spans) == 6
    assert key.encode() not in receiver.raw
    assert b"pass-word" not in receiver.raw


@pytest.mark.parametrize("value", ["", "false", "NO_CONTENT", "EVENT_ONLY"])
def test_contents_are_sent_only_where_the_environment_asks_for_them_in_spans(value, tracked, receiver, monkeypatch):
    monkeypatch.setenv(CAPTURE, value)
    repair()
    assert b"SECRET" not in receiver.raw
    monkeypatch.setenv(CAPTURE, "SPAN_AND_EVENT")
    repair()
    assert b"SECRET" in receiver.raw


def test_without_the_setting_nothing_is_sent(provider, receiver):
    repair()
    dn.ScriptedLM(["x"]).run_sync("Say x.")
    with dn.context(track="otel"), dn.context(track=None):
        repair()
    assert receiver.spans == []


def test_a_receiver_that_is_down_is_reported_once_and_the_runs_go_on(monkeypatch, caplog):
    with OTLPReceiver() as receiver:
        address = receiver.url  # of a server that is gone
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address, timeout=0.2)))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(exporter_logs, "_filtered", set())
    monkeypatch.setattr(exporter_logs, "_seen", 0)
    filtered = [logger for name, logger in logging.root.manager.loggerDict.items() if name.startswith("opentelemetry.")]
    for logger in filtered:
        if isinstance(logger, logging.Logger):
            monkeypatch.setattr(logger, "filters", [])
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    with dn.context(track="otel"), caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert program.run_sync(question="2+2?").answer == "4"
            provider.force_flush(5000)
    provider.shutdown()
    (record,) = [record for record in caplog.records if record.name.startswith("opentelemetry.")]
    assert "The runs continue" in record.getMessage()


def test_a_tracker_that_fails_is_dropped_and_the_run_goes_on(tracked, monkeypatch, caplog, receiver):
    monkeypatch.setattr(live.SpanWriter, "emit", lambda self, event: 1 / 0)
    assert repair().status == "finished"
    assert "a listener of run" in caplog.text
    monkeypatch.setattr(live, "tracer_of", lambda provider: 1 / 0)
    assert repair().status == "finished"
    assert "could not begin" in caplog.text


def test_without_a_tracer_provider_one_warning_says_what_to_do(monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    monkeypatch.setattr(live, "_warned", threading.Event())
    with dn.context(track="otel"), pytest.warns(TrackingWarning, match="set_tracer_provider") as warned:
        statuses = [repair().status, repair().status]
    assert statuses == ["finished", "finished"]
    assert len(warned) == 1


def test_an_unknown_tracker_and_a_missing_extra_are_errors_of_the_setting(monkeypatch):
    with pytest.raises(ConfigurationError, match="track must be 'otel'"):
        dn.configure(track="otle")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    with pytest.raises(ConfigurationError, match=r"dspynb\[otel\]"):
        dn.configure(track="otel")


def test_without_the_setting_opentelemetry_is_not_imported():
    code = (
        "import sys, dspynb as dn\n"
        "dn.Predict('question -> answer', lm=dn.ScriptedLM(['answer: 4'])).run_sync(question='2+2?')\n"
        "print('opentelemetry.trace' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_a_call_has_its_role_its_schema_and_where_its_price_is_from(captured, receiver):
    price = {"input": 1.0, "output": 2.0}
    with Server(lambda body, number: reply('{"sentence": "s"}')) as server:
        lm = dn.LM("openai/m", api_base=server.base, price=price)
        dn.Predict(Caption, lm=lm, adapter=dn.JSONAdapter()).run_sync(subject="s")
    facts = receiver.named("chat m")[0].attributes
    assert facts["dspynb.role"] == "task"
    assert facts["dspynb.price_source"] == dn.last_run().record.calls[0].price_source != ""
    assert json.loads(facts["dspynb.response_format"]) == dn.last_run().record.calls[0].response_format


def test_the_schema_of_a_reply_is_content(tracked, receiver):
    with Server(lambda body, number: reply('{"sentence": "s"}')) as server:
        lm = dn.LM("openai/m", api_base=server.base)
        dn.Predict(Caption, lm=lm, adapter=dn.JSONAdapter()).run_sync(subject="s")
    assert "dspynb.response_format" not in receiver.named("chat m")[0].attributes
