"""ReAct: thinking, calling tools and answering, with models that call tools natively and with those that do not."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
import time

import pytest

import dspynb as dn
from dspynb.errors import (
    ConfigurationError,
    ContextTooLong,
    InputError,
    ModelError,
    ParseError,
    RunStopped,
    SignatureError,
)
from tests.helpers import chat, field, prompt
from tests.lm.server import Server, reply

QA = "question -> answer"


def search(query: str, k: int = 1) -> str:
    """Search the library.

    Args:
        query: words to look for
    """
    return f"{k} page(s) on {query}"


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def step(name, thought="thinking", **args):
    return chat(next_thought=thought, next_tool_name=name, next_tool_args=json.dumps(args))


DONE = step("finish", "enough")
ANSWER = chat(answer="42")


def native(*calls, text=""):
    """A reply with tool calls: (name, args) pairs; args may be text that is no JSON."""
    tool_calls = tuple(
        {
            "id": f"c{i}",
            "type": "function",
            "function": {"name": name, "arguments": args if isinstance(args, str) else json.dumps(args)},
        }
        for i, (name, args) in enumerate(calls)
    )
    return dn.LMReply(text, tool_calls=tool_calls)


class NativeLM(dn.ScriptedLM):
    native_tools = True


def act(replies, tools=(search, add), lm=dn.ScriptedLM, signature=QA, **options):
    """(the prediction, the model) of one call with scripted replies."""
    model = lm(replies)
    with dn.context(lm=model):
        prediction = asyncio.run(dn.ReAct(signature, tools, **options)(question="q?"))
    return prediction, model


def observations(prediction):
    return [s["observation"] for s in prediction.trajectory]


# ── the text protocol ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_calls_tools_until_it_finishes_and_then_answers():
    prediction, lm = act([step("search", query="sea", k=2), step("add", a=1, b="2"), DONE, ANSWER])
    assert prediction.answer == "42"
    assert list(prediction) == ["answer", "trajectory"]
    assert [(s["tool"], s["args"]) for s in prediction.trajectory] == [
        ("search", {"query": "sea", "k": 2}),
        ("add", {"a": 1, "b": "2"}),
        ("finish", {}),
    ]
    assert observations(prediction) == ["2 page(s) on sea", "3", "Finished."]
    assert [s["thought"] for s in prediction.trajectory] == ["thinking", "thinking", "enough"]
    assert all(set(s) == {"thought", "tool", "args", "observation", "seconds"} for s in prediction.trajectory)
    assert [bool(r.tools) for r in lm.requests] == [False] * 4


def test_the_model_sees_task_tools_and_trajectory():
    _, lm = act([step("search", query="sea"), DONE, ANSWER])
    (
        first,
        second,
        _,
    ) = lm.requests
    assert "Search the library." in prompt(first)
    assert "words to look for" in prompt(first)
    assert "(nothing yet)" in first.messages[-1]["content"]
    last_message = second.messages[-1]["content"]
    assert 'Step 1\nThought: thinking\nTool: search {"query": "sea"}\nObservation: 1 page(s) on sea' in last_message
    assert first.messages[0] == second.messages[0]  # so that a provider's prefix cache hits


def test_the_form_of_the_reply_is_not_in_the_instruction_so_that_it_may_be_rewritten():
    react = dn.ReAct(QA, [search])
    assert "next_tool" not in react.react.signature.instruction
    assert "Search the library" not in react.react.signature.instruction
    assert react.react.signature.instruction.startswith("Given the fields `question`")


@pytest.mark.parametrize("adapter", ["json", "prefill"])
def test_other_adapters_serve_too(adapter):
    replies = {
        "json": [
            {"next_thought": "t", "next_tool_name": "add", "next_tool_args": {"a": 1, "b": 2}},
            {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": {}},
            {"answer": "3"},
        ],
        "prefill": [
            ' t\nNext tool name: add\nNext tool args: {"a": 1, "b": 2}',
            " t\nNext tool name: finish\nNext tool args:",
            " 3",
        ],
    }[adapter]
    lm = dn.ScriptedLM([r if isinstance(r, str) else json.dumps(r) for r in replies])
    with dn.context(lm=lm, adapter=adapter):
        prediction = asyncio.run(dn.ReAct(QA, [add])(question="q?"))
    assert (prediction.answer, observations(prediction)) == ("3", ["3", "Finished."])


def test_replies_that_make_no_sense_become_observations():
    nonsense = [
        "what?",
        step("launch"),
        chat(next_thought="t", next_tool_name="add", next_tool_args="{a: 1"),
        step("add", a="many", b=2),
    ]
    prediction, _ = act([*nonsense, DONE, ANSWER])
    texts = observations(prediction)
    assert len(texts) == 5
    assert "could not be read" in texts[0]
    assert "'search', 'add', 'finish'" in texts[1]
    assert "the JSON cannot be read" in texts[2]
    assert "'a': Input should be a valid integer" in texts[3]
    assert prediction.answer == "42"


def test_exceptions_and_unserialisable_results_are_observations():
    def broken(x: int):
        raise ZeroDivisionError("by zero")

    def strange():
        return object()

    prediction, _ = act([step("broken", x=1), step("strange"), DONE, ANSWER], tools=[broken, strange])
    assert observations(prediction)[0] == "broken failed: ZeroDivisionError: by zero"
    assert observations(prediction)[1].startswith("<object object at")


def test_after_the_last_iteration_it_answers_with_what_it_has():
    prediction, lm = act([step("add", a=i, b=i) for i in range(3)] + [ANSWER], max_iterations=3)
    assert (observations(prediction), prediction.answer, len(lm.requests)) == (["0", "2", "4"], "42", 4)


@pytest.mark.parametrize("slow", ["tool", "async tool", "model"])
def test_after_the_time_limit_it_answers_with_what_it_has(slow):
    release = threading.Event()

    def hang():
        release.wait(60)

    async def sleep():
        await asyncio.sleep(60)

    async def answer(request):
        if "next_tool_name" not in prompt(request):
            return ANSWER
        if "Step 1" in prompt(request):
            if slow == "model":
                await asyncio.sleep(60)
            return step("hang" if slow == "tool" else "sleep")
        return step("add", a=1, b=1)

    react = dn.ReAct(QA, [hang, sleep, add], timeout=0.4)
    began = time.perf_counter()
    with dn.context(lm=dn.FunctionLM(answer)):
        prediction = asyncio.run(react(question="q?"))
    release.set()
    assert time.perf_counter() - began < 10
    assert prediction.answer == "42"
    assert observations(prediction) == ["2", "(not finished when the time was up)"][: 1 if slow == "model" else 2]


def test_a_tool_has_a_time_limit_of_its_own():
    async def sleep():
        await asyncio.sleep(60)

    prediction, _ = act([step("sleep"), DONE, ANSWER], tools=[sleep], tool_timeout=0.05)
    assert observations(prediction)[0] == "sleep was given up: it took longer than 0.05 s"


def test_a_request_that_is_too_long_is_repeated_without_the_oldest_tool_call():
    def answer(request):
        text = prompt(request)
        if "page(s) on w0" in text and "page(s) on w2" in text:
            raise ContextTooLong("too long")
        if "next_tool_name" not in text:
            return ANSWER
        done = [i for i in range(4) if f"page(s) on w{i}" in text]
        return DONE if done and done[-1] == 3 else step("search", query=f"w{done[-1] + 1 if done else 0}")

    with dn.context(lm=dn.FunctionLM(answer)):
        prediction = asyncio.run(dn.ReAct(QA, [search])(question="q?"))
    assert [s["args"].get("query") for s in prediction.trajectory] == ["w0", "w1", "w2", "w3", None]
    last = prediction.run.record.calls[-1].inputs["trajectory"]
    assert last.startswith("[The first 1 steps are left out.]\n\nStep 2")


def test_a_request_that_stays_too_long_is_not_repeated_forever():
    calls = []

    def answer(request):
        calls.append(request)
        if "Step 6" in prompt(request) or "next_tool_name" not in prompt(request):
            raise ContextTooLong("too long")
        return step("add", a=1, b=1)

    react = dn.ReAct(QA, [add], max_iterations=50)
    with dn.context(lm=dn.FunctionLM(answer)), pytest.raises(ContextTooLong):
        asyncio.run(react(question="q?"))
    assert len(calls) == 6 + 4 + 3  # six turns, four tries of the seventh, three of the answer: then one step is left


def test_errors_of_the_model_and_unreadable_answers_are_raised():
    with pytest.raises(ModelError, match="down"):
        act([ModelError("down")])
    with pytest.raises(ParseError):
        act([DONE, "no marker"])
    with pytest.raises(ContextTooLong):
        act([ContextTooLong("too long")])


# ── native tool calls ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_with_native_tools_receives_them_and_its_calls_are_run():
    prediction, lm = act(
        [native(("search", {"query": "sea"}), ("add", {"a": 1, "b": 2})), dn.LMReply("It is known."), ANSWER],
        lm=NativeLM,
    )
    assert [(s["thought"], s["tool"], s["observation"]) for s in prediction.trajectory] == [
        ("", "search", "1 page(s) on sea"),
        ("", "add", "3"),
        ("It is known.", "finish", "Finished."),
    ]
    assert [t["function"]["name"] for t in lm.requests[0].tools] == ["search", "add"]
    assert lm.requests[-1].tools == ()
    assert "next_tool_name" not in prompt(lm.requests[0])
    assert "Search the library" not in prompt(lm.requests[0])


def test_the_thought_beside_native_calls_is_read_with_and_without_its_form():
    prediction, _ = act(
        [
            native(("add", {"a": 1, "b": 2}), text=chat(next_thought="first")),
            native(("add", {}), text="so"),
            chat(next_thought="end"),
            ANSWER,
        ],
        lm=NativeLM,
    )
    assert [s["thought"] for s in prediction.trajectory] == ["first", "so", "end"]


def test_native_calls_that_make_no_sense_become_observations():
    calls = [("add", "{broken"), ("serch", {"query": "x"}), ("", {}), ("add", '["list"]'), ("add", "")]
    odd = dn.LMReply("", tool_calls=({"id": "x"}, {"function": {"name": "add", "arguments": {"a": 1, "b": 1}}}))
    prediction, _ = act([native(*calls), odd, dn.LMReply("done"), ANSWER], lm=NativeLM)
    texts = observations(prediction)
    assert "not JSON" in texts[0]
    assert "There is no tool 'serch'. Did you mean 'search'? Tools: search, add" in texts[1]
    assert "There is no tool ''" in texts[2]
    assert "must be a JSON object, got list" in texts[3]
    assert "'a' is missing" in texts[4]
    assert texts[5:] == ["There is no tool ''. Tools: search, add", "2", "Finished."]


def test_native_tools_follow_the_model_unless_the_user_chooses():
    text_replies = [DONE, ANSWER]
    native_replies = [dn.LMReply("done"), ANSWER]
    for lm, replies, setting, sends_tools in [
        (dn.ScriptedLM, text_replies, "auto", False),
        (NativeLM, native_replies, "auto", True),
        (NativeLM, text_replies, False, False),
        (dn.ScriptedLM, native_replies, True, True),
    ]:
        _, model = act(replies, lm=lm, native=setting)
        assert bool(model.requests[0].tools) is sends_tools


def test_models_say_whether_they_call_tools():
    assert dn.LM("openai/gpt-5-mini").native_tools
    assert dn.LM("x/y", api_base="http://127.0.0.1:1").native_tools
    assert not dn.LM("x/y", api_base="http://127.0.0.1:1", native_tools=False).native_tools
    assert not dn.LM("nobody/unknown").native_tools
    assert not hasattr(dn.LocalLM, "native_tools")


def test_calls_of_one_reply_run_at_the_same_time_and_stay_in_order():
    gate = threading.Barrier(3, timeout=20)

    def meet(i: int):
        gate.wait()
        return i

    prediction, _ = act([native(*[("meet", {"i": i}) for i in range(3)]), dn.LMReply("d"), ANSWER], [meet], NativeLM)
    assert observations(prediction) == ["0", "1", "2", "Finished."]


def test_without_parallel_they_run_one_after_another():
    running = []
    counts = []

    async def work(i: int):
        running.append(i)
        counts.append(len(running))
        await asyncio.sleep(0.01)
        running.remove(i)

    calls = native(*[("work", {"i": i}) for i in range(3)])
    for parallel in (False, True):
        act([calls, dn.LMReply("d"), ANSWER], [work], NativeLM, parallel=parallel)
    assert counts == [1, 1, 1, 1, 2, 3]


def test_the_time_limit_ends_parallel_calls_but_keeps_finished_results():
    ended = []

    async def wait(seconds: float):
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(seconds)
        return seconds

    def answer(request):
        if request.tools:
            return native(("wait", {"seconds": 60}), ("wait", {"seconds": 0}))
        return chat(answer=str(ended))

    with dn.context(lm=dn.FunctionLM(answer)):
        prediction = asyncio.run(dn.ReAct(QA, [wait], native=True, timeout=0.3)(question="q?"))
    assert observations(prediction) == ["(not finished when the time was up)", "0.0"]
    assert prediction.answer == "[0.0, 60.0]"  # no tool was running when the answer was requested


def test_a_tool_that_will_not_be_cancelled_does_not_undo_the_time_limit():
    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "still here"

    prediction, lm = act([step("stubborn"), ANSWER], [stubborn], timeout=0.1)
    assert (observations(prediction), len(lm.requests)) == (["still here"], 2)


def test_demos_are_shown_as_tool_calls_to_a_model_that_makes_them():
    react = dn.ReAct(QA, [add])
    demo = {
        "question": "1+1?",
        "trajectory": "(nothing yet)",
        "next_thought": "sum",
        "next_tool_name": "add",
        "next_tool_args": {"a": 1, "b": 1},
    }
    last = {**demo, "next_tool_name": "finish", "next_tool_args": {}}
    react.react.demos = [demo, last]
    for adapter in ("chat", "prefill"):
        lm = NativeLM([dn.LMReply("done"), ANSWER])
        with dn.context(lm=lm, adapter=adapter):
            asyncio.run(react(question="q?"))
        roles = [m["role"] for m in lm.requests[0].messages]
        assert roles == ["system", "user", "assistant", "tool", "user", "assistant", "user"]
        (call,) = lm.requests[0].messages[2]["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": '{"a": 1, "b": 1}'}
        assert lm.requests[0].messages[3]["tool_call_id"] == call["id"]


def test_the_record_of_a_call_holds_its_tool_calls_and_survives_its_file():
    from dspynb.events import from_json, to_json

    prediction, _ = act([native(("add", {"a": 1, "b": 2})), dn.LMReply("done"), ANSWER], lm=NativeLM)
    first = prediction.run.record.calls[0]
    assert first.tool_calls[0]["function"]["name"] == "add"
    assert first.outputs["tool_calls"] == [{"name": "add", "args": {"a": 1, "b": 2}}]
    assert from_json(json.loads(json.dumps(to_json(first)))) == first


def test_recorded_replies_keep_their_tool_calls(tmp_path):
    file = tmp_path / "replies.jsonl"
    replies = [native(("add", {"a": 1, "b": 2})), dn.LMReply("done"), ANSWER]
    for live in (NativeLM(replies), None):
        with dn.context(lm=dn.recorded(file, live)):
            prediction = asyncio.run(dn.ReAct(QA, [search, add])(question="q?"))
        assert observations(prediction) == ["3", "Finished."]


# ── live, over HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────


def openai_style(body, number):
    """A server's model: one round of two calls, then the end, then the answer."""
    if "tools" not in body:
        return chat(answer="7")
    names = [t["function"]["name"] for t in body["tools"]]
    assert names == ["search", "add"]
    assert body["tools"][1]["function"]["parameters"]["required"] == ["a", "b"]
    if "Step 1" in body["messages"][-1]["content"]:
        return chat(next_thought="enough")
    calls = native(("add", {"a": 3, "b": 4}), ("search", {"query": "seven"})).tool_calls
    return reply(None, tool_calls=list(calls))


def test_it_works_with_an_openai_style_server_that_calls_tools():
    with Server(openai_style) as server:
        lm = dn.LM("openai/m", api_base=server.base)
        with dn.context(lm=lm):
            prediction = asyncio.run(dn.ReAct(QA, [search, add])(question="3+4?"))
    assert prediction.answer == "7"
    assert observations(prediction) == ["7", "1 page(s) on seven", "Finished."]
    assert prediction.usage.calls == len(server.bodies) == 3


def test_it_works_with_a_server_that_does_not():
    def answer(body, number):
        assert "tools" not in body
        return [step("add", a=3, b=4), DONE, chat(answer="7")][number - 1]

    with Server(answer) as server:
        with dn.context(lm=dn.LM("openai/m", api_base=server.base, native_tools=False)):
            prediction = asyncio.run(dn.ReAct(QA, [search, add])(question="3+4?"))
    assert (prediction.answer, observations(prediction)[0]) == ("7", "7")


def test_tool_calls_are_served_again_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path))
    with Server(openai_style) as server:
        for _ in range(2):
            with dn.context(lm=dn.LM("openai/m", api_base=server.base), cache=True):
                prediction = asyncio.run(dn.ReAct(QA, [search, add])(question="3+4?"))
            assert observations(prediction) == ["7", "1 page(s) on seven", "Finished."]
        assert len(server.bodies) == 3


# ── hints, state, concurrency ───────────────────────────────────────────────────────────────────────────────────────


def hints_of(request):
    return [line for line in prompt(request).splitlines() if line.startswith("Hint: ")]


@pytest.mark.parametrize("lm", [dn.ScriptedLM, NativeLM])
@pytest.mark.parametrize("hint_as", ["instruction", "field"])
def test_refine_gives_each_predictor_its_hint(lm, hint_as):
    done = dn.LMReply("done") if lm is NativeLM else DONE
    model = lm([done, chat(answer="1"), done, chat(answer="2")])
    react = dn.ReAct(QA, [search])

    def advise(attempts, program, inputs):
        return {"react": "look first", program.extract: "be brief"}

    refine = dn.Refine(react, lambda row, p: p.answer == "2", n=2, hints=advise, hint_as=hint_as)
    with dn.context(lm=model):
        prediction = asyncio.run(refine(question="q?"))
    assert prediction.answer == "2"
    assert prediction.run.attempts.hint[1] == {"react": "look first", "extract": "be brief"}
    texts = [prompt(request) for request in model.requests]
    assert [("look first" in t, "be brief" in t) for t in texts] == [(False, False)] * 2 + [
        (True, False),
        (False, True),
    ]
    assert [call.predictor for call in prediction.run.record.calls] == ["react", "extract"] * 2


def test_the_predictors_are_react_and_extract_and_those_of_tools_that_are_modules():
    react = dn.ReAct(QA, [search, dn.Tool(dn.Predict("text -> summary"), name="summarise")])
    assert [path for path, _ in react.named_predictors()] == ["react", "extract", "tools['summarise']"]


def test_calls_of_one_object_do_not_mix():
    async def answer(request):
        await asyncio.sleep(0)
        mine = field(request, "question")
        text = prompt(request)
        if "next_tool_name" not in text:
            return chat(answer=text.count(f"page(s) on {mine}."))
        return DONE if "Step 2" in text else step("search", query=f"{mine}.")

    react = dn.ReAct(QA, [search])
    before = {path: dict(vars(p)) for path, p in react.named_predictors()}

    async def main():
        return await asyncio.gather(*(react(question=f"q{i}") for i in range(30)))

    with dn.context(lm=dn.FunctionLM(answer)):
        predictions = asyncio.run(main())
    for i, prediction in enumerate(predictions):
        assert [s["args"].get("query") for s in prediction.trajectory] == [f"q{i}.", f"q{i}.", None]
        assert prediction.answer == "2"
    assert {path: dict(vars(p)) for path, p in react.named_predictors()} == before


def test_tool_calls_show_as_spans_of_the_run():
    prediction, _ = act([step("add", a=1, b=2), DONE, ANSWER])
    spans = [s for s in prediction.run.record.spans.values() if s.kind == "tool"]
    assert [(s.name, s.inputs, s.outputs, s.done) for s in spans] == [
        ("add", {"a": 1, "b": 2}, {"observation": "3"}, True)
    ]


def test_it_can_be_copied_and_pickled():
    react = dn.ReAct(
        "question: str, n: int -> answer: list[int]", [search, dn.Tool(add, name="plus")], max_iterations=2
    )
    for other in (copy.deepcopy(react), pickle.loads(pickle.dumps(react))):
        assert list(other.tools) == ["search", "plus"]
        lm = dn.ScriptedLM([step("plus", a=1, b=1), DONE, chat(answer="[2]")])
        with dn.context(lm=lm):
            prediction = asyncio.run(other(question="q", n=1))
        assert (prediction.answer, observations(prediction)) == ([2], ["2", "Finished."])


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["sync", "async", "deaf"])
@pytest.mark.parametrize("calls", [1, 3])
def test_a_stop_while_a_tool_runs_ends_at_once_and_nothing_starts_afterwards(kind, calls):
    started, release = threading.Event(), threading.Event()

    def sync(i: int):
        started.set()
        release.wait(60)

    async def asynchronous(i: int):
        started.set()
        await asyncio.sleep(60)

    async def deaf(i: int):
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        return "nothing happened"

    tool = dn.Tool({"sync": sync, "async": asynchronous, "deaf": deaf}[kind], name="wait")
    lm = NativeLM([native(*[("wait", {"i": i}) for i in range(calls)])] * 3)

    async def main():
        with dn.context(lm=lm):
            run = dn.ReAct(QA, [tool]).start(question="q?")
            await asyncio.to_thread(started.wait, 20)
            stopped_at = time.perf_counter()
            run.stop()
            with pytest.raises(RunStopped):
                await run
            assert time.perf_counter() - stopped_at < 20  # a hang
            await asyncio.sleep(0.1)
            return run

    run = asyncio.run(main())
    release.set()
    assert run.status == "stopped"
    assert len(lm.requests) == 1


def test_a_stop_reaches_a_tool_in_a_task_that_the_program_created():
    ended, started = asyncio.Event(), asyncio.Event()

    async def wait():
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    class Program(dn.Module):
        def __init__(self):
            self.react = dn.ReAct(QA, [wait])

        async def forward(self):
            self_made = asyncio.create_task(self.react(question="q?"))
            self_made.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.wait([self_made])

    async def main():
        with dn.context(lm=dn.ScriptedLM([step("wait")])):
            run = Program().start()
            await started.wait()
            run.stop()
            with pytest.raises(RunStopped):
                await run
            await asyncio.wait_for(ended.wait(), 20)

    asyncio.run(main())


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_invalid_arguments_are_refused_by_the_constructor():
    def finish(): ...

    for tools, problem in [
        ([search, search], "two tools are named 'search'"),
        ([search, dn.Tool(add, name="search")], "two tools are named 'search'"),
        ([finish], "'finish' is reserved"),
        ("search", "list of functions"),
        (search, "list of functions"),
        ([lambda x: x], "cannot be named '<lambda>'"),
        (["search"], "a tool is a function"),
    ]:
        with pytest.raises(ConfigurationError, match=problem):
            dn.ReAct(QA, tools)
    for limits in (
        {"max_iterations": 0},
        {"max_iterations": 1.5},
        {"timeout": 0},
        {"tool_timeout": "1"},
        {"native": "yes"},
    ):
        with pytest.raises(ConfigurationError, match=next(iter(limits))):
            dn.ReAct(QA, [search], **limits)
    for signature in ("trajectory -> answer", "question -> trajectory", "next_thought -> answer"):
        with pytest.raises(SignatureError, match="reserves the field name"):
            dn.ReAct(signature, [search])


def test_missing_inputs_are_refused_before_any_call():
    lm = dn.ScriptedLM([])
    with (
        dn.context(lm=lm),
        pytest.raises(InputError, match="ReAct: input 'question' is missing.*question: str -> answer"),
    ):
        asyncio.run(dn.ReAct(QA, [search])())
    assert lm.requests == []
