"""The model's own reasoning as the output ``reasoning``, where the provider returns it."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

import dspynb as dn
from dspynb.errors import NoReasoningWarning, SignatureError
from dspynb.events import PredictorCalled, from_json, to_json
from dspynb.lm.cache import default_cache
from dspynb.lm.profiles import ModelProfile, overridden, profile_at
from dspynb.replaying.recording import _has_native_reasoning
from tests.helpers import chat
from tests.lm.server import Server, reply


class Thinker:
    """A model that returns its reasoning beside the reply."""

    name, returns_reasoning = "thinker", True

    def __init__(self, text=None, reasoning="Two and two."):
        self.text = chat(answer="4") if text is None else text
        self.reasoning = reasoning
        self.requests = []

    async def complete(self, request):
        self.requests.append(request)
        return dn.LMReply(self.text, reasoning=self.reasoning)


def prompt(request):
    return "\n".join(str(message["content"]) for message in request.messages)


@pytest.mark.parametrize("adapter", ["chat", "json"])
@pytest.mark.parametrize(
    "make",
    [dn.ChainOfThought, lambda spec, **k: dn.Predict(dn.augment(spec, dn.Reasoning), **k)],
    ids=["CoT", "Predict"],
)
def test_the_models_own_reasoning_is_the_output_and_is_not_asked_for(make, adapter):
    lm = Thinker(chat(answer="4") if adapter == "chat" else '{"answer": "4"}')
    prediction = make("question -> answer", lm=lm, adapter=adapter).run_sync(question="2+2?")
    assert list(prediction.to_dict()) == ["reasoning", "answer"]
    assert (prediction.reasoning, prediction.answer) == ("Two and two.", "4")
    assert "reasoning" not in prompt(lm.requests[0])
    assert prediction.run.calls.reasoning.tolist() == ["Two and two."]


def test_reasoning_is_written_for_models_that_do_not_return_it():
    lm = dn.ScriptedLM([chat(reasoning="Written.", answer="4")])
    prediction = dn.ChainOfThought("question -> answer", lm=lm).run_sync(question="2+2?")
    assert prediction.reasoning == "Written."
    assert "[[ ## reasoning ## ]]" in prompt(lm.requests[0])


def test_native_chooses_one_or_the_other_for_every_model():
    written = Thinker(chat(reasoning="Written.", answer="4"))
    assert (
        dn.ChainOfThought("question -> answer", native=False, lm=written).run_sync(question="?").reasoning == "Written."
    )
    own = Thinker()
    own.returns_reasoning = False
    assert (
        dn.ChainOfThought("question -> answer", native=True, lm=own).run_sync(question="?").reasoning == "Two and two."
    )


def test_native_reasoning_is_an_empty_text_where_none_is_returned():
    with pytest.warns(NoReasoningWarning):
        prediction = dn.ChainOfThought("question -> answer", lm=Thinker(reasoning=None)).run_sync(question="?")
    assert (prediction.reasoning, prediction.answer) == ("", "4")


class Lines:
    """An adapter that is no subclass of Adapter: it has the methods that every adapter needs."""

    name = "lines"

    def format(self, signature, inputs, *, instruction=None, demos=(), hint=None):
        return ({"role": "user", "content": f"{list(signature.output_fields)} {inputs}"},)

    def parse(self, signature, reply):
        return dict(zip(signature.output_fields, reply.splitlines(), strict=True))

    def response_format(self, signature):
        return None


@pytest.mark.parametrize("takes_grammar", [False, True])
def test_an_adapter_of_ones_own_needs_no_further_methods_for_native_reasoning(takes_grammar):
    lm = Thinker("<thinking>")  # may be a tag of thinking
    lm.takes_grammar = takes_grammar
    prediction = dn.ChainOfThought("question -> answer", lm=lm, adapter=Lines()).run_sync(question="?")
    assert (prediction.reasoning, prediction.answer) == ("Two and two.", "<thinking>")
    assert lm.requests[0].grammar is None
    assert "reasoning" not in prompt(lm.requests[0])


def test_one_warning_says_that_a_model_returned_no_reasoning_and_how_to_ask_for_it():
    think = dn.ChainOfThought("question -> answer", lm=Thinker(reasoning=None))
    with pytest.warns(NoReasoningWarning, match=r"thinker returned no reasoning .*native=False") as issued:
        think.run_sync(question="1+1?")
    think.run_sync(question="2+2?")  # a second warning would be an error
    assert len(issued) == 1


@pytest.mark.filterwarnings("error")
def test_no_warning_is_issued_for_reasoning_that_the_provider_hides():
    lm = Thinker()
    hidden = dn.LMReply(chat(answer="4"), usage=dn.Usage(calls=1, completion_tokens=90, reasoning_tokens=80))
    lm.complete = lambda request: asyncio.sleep(0, hidden)
    assert dn.ChainOfThought("question -> answer", lm=lm).run_sync(question="?").reasoning == ""


def choices(*messages):
    body = reply("")
    body["choices"] = [
        {"index": index, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
        for index, message in enumerate(messages)
    ]
    return body


FIELDS = [
    {"content": chat(answer="4"), "reasoning_content": "Two and two."},
    {"content": chat(answer="5"), "reasoning_content": "A guess."},
    {"content": chat(answer="6")},
]
TAGS = [
    {"content": "<think>Two and two.</think>" + chat(answer="4")},
    {"content": "<think>A guess.</think>" + chat(answer="5")},
    {"content": chat(answer="6")},
]
EACH = [("Two and two.", "4"), ("A guess.", "5"), ("", "6")]


def each_completion(prediction):
    return [(completion.reasoning, completion.answer) for completion in prediction.completions]


@pytest.mark.parametrize("messages", [FIELDS, TAGS], ids=["in a field", "in the text"])
def test_each_completion_has_its_own_reasoning(messages, tmp_path):
    think = dn.ChainOfThought("question -> answer", n=3)
    path = tmp_path / "replies.jsonl"
    with Server(lambda *_: choices(*messages)) as server, dn.context(cache=True):
        settings = {"api_base": server.base, "api_key": "none"}
        lm = dn.LM("m", profile={"returns_reasoning": "always"}, **settings)
        with dn.trace() as recorded:
            assert each_completion(think.with_lm(lm).run_sync(question="2+2?")) == EACH
        default_cache().flush()
        assert each_completion(think.with_lm(lm).run_sync(question="2+2?")) == EACH  # from the cache
        assert len(server.bodies) == 1
        recording = dn.recorded(path, lm=lm, strict=False)
        assert each_completion(think.with_lm(recording).run_sync(question="2+2?")) == EACH
    assert each_completion(think.with_lm(dn.recorded(path)).run_sync(question="2+2?")) == EACH
    recorded.save(tmp_path / "trace.jsonl")
    again = dn.run_sync(lambda: dn.replay(dn.Trace.load(tmp_path / "trace.jsonl"), think))
    assert again.exact
    assert each_completion(again.prediction) == EACH


def test_completions_whose_reasoning_is_unknown_have_an_empty_text():
    lm = Thinker()
    texts = chat(answer="4"), chat(answer="5")
    lm.complete = lambda request: asyncio.sleep(0, dn.LMReply(texts[0], reasoning="Two and two.", completions=texts))
    prediction = dn.ChainOfThought("question -> answer", lm=lm, n=2).run_sync(question="?")
    assert each_completion(prediction) == [("Two and two.", "4"), ("", "5")]


def test_demos_keep_their_reasoning_and_are_shown_without_it_to_a_model_with_its_own():
    demo = {"question": "1+1?", "reasoning": "One and one.", "answer": "2"}
    think = dn.ChainOfThought("question -> answer", demos=[demo])
    for lm, shown in ((Thinker(), False), (dn.ScriptedLM([chat(reasoning="r", answer="4")]), True)):
        with dn.context(lm=lm):
            think.run_sync(question="2+2?")
        text = prompt(lm.requests[0])
        assert "1+1?" in text
        assert ("One and one." in text) == shown
    assert think.predict.demos == [demo]


def test_a_saved_state_has_the_same_fields_whether_or_not_reasoning_is_native(tmp_path):
    demo = {"question": "1+1?", "reasoning": "One and one.", "answer": "2"}
    program = dn.ChainOfThought("question -> answer", demos=[demo], lm=Thinker())
    program.run_sync(question="2+2?")
    program.save(tmp_path / "program.json")
    other = dn.ChainOfThought("question -> answer")
    other.load(tmp_path / "program.json")
    assert other.predict.demos == [demo]


def test_a_bootstrapped_demo_has_the_models_own_reasoning():
    rows = [{"question": "2+2?", "answer": "4"}]
    program = dn.ChainOfThought("question -> answer", lm=Thinker())
    better = dn.BootstrapFewShot(dn.metrics.exact_match(), max_bootstrapped_demos=1).compile_sync(program, rows)
    assert better.predict.demos[0]["reasoning"] == "Two and two."


def test_a_reply_that_cannot_be_read_is_repaired_without_asking_for_reasoning():
    lm = Thinker("no marker")
    with pytest.raises(dn.errors.ParseError):
        dn.ChainOfThought("question, hint -> answer: int, why", lm=lm).run_sync(question="?", hint="h")
    assert len(lm.requests) == 2
    assert "reasoning" not in prompt(lm.requests[1])


def test_a_stream_ends_with_the_models_own_reasoning():
    async def main():
        think = dn.ChainOfThought("question -> answer", lm=Thinker())
        return [part async for part in think.predict.stream(question="?")]

    *parts, prediction = asyncio.run(main())
    assert prediction.reasoning == "Two and two."
    assert {part.field for part in parts} == {"answer"}


def test_a_replay_has_the_recorded_reasoning_without_the_model():
    think = dn.ChainOfThought("question -> answer")
    with dn.trace() as recorded, dn.context(lm=Thinker()):
        think.run_sync(question="2+2?")
    again = dn.run_sync(lambda: dn.replay(recorded, think))
    assert again.exact
    assert again.prediction.reasoning == "Two and two."


@pytest.mark.filterwarnings("ignore::dspynb.errors.NoReasoningWarning")
def test_a_replay_asks_for_no_reasoning_where_the_recorded_model_was_not_asked_and_returned_none():
    think = dn.ChainOfThought("question -> answer")
    with dn.trace() as recorded, dn.context(lm=Thinker(reasoning=None)):
        think.run_sync(question="2+2?")
    again = dn.run_sync(lambda: dn.replay(recorded, think))
    assert again.exact
    assert again.prediction.reasoning == ""


def test_a_replay_asks_for_no_reasoning_where_no_recorded_reply_could_be_read():
    think = dn.ChainOfThought("question, hint -> answer: int, why")
    with dn.trace() as recorded, dn.context(lm=Thinker("no marker")), pytest.raises(dn.errors.ParseError):
        think.run_sync(question="?", hint="h")
    again = dn.run_sync(lambda: dn.replay(recorded, think, strict=False))
    assert isinstance(again.error, dn.errors.ParseError)
    assert again.divergences == ()


def test_a_replay_asks_for_reasoning_that_was_written_with_the_words_of_the_models_own():
    lm = Thinker(chat(reasoning="Two and two.", answer="4"))
    lm.returns_reasoning = False
    think = dn.ChainOfThought("question -> answer")
    with dn.trace() as recorded, dn.context(lm=lm):
        think.run_sync(question="2+2?")
    assert dn.run_sync(lambda: dn.replay(recorded, think)).exact


def test_a_file_says_of_the_calls_with_a_reasoning_output_whether_it_is_the_models_own():
    with dn.trace() as recorded:
        dn.ChainOfThought("question -> answer", lm=Thinker()).run_sync(question="?")
        dn.ChainOfThought("question -> answer", lm=Thinker(chat(reasoning="r", answer="4")), native=False).run_sync(
            question="?"
        )
        dn.Predict("question -> answer", lm=Thinker()).run_sync(question="?")
    calls = [event for event in recorded.events if isinstance(event, PredictorCalled)]
    assert [call.native_reasoning for call in calls] == [True, False, None]
    assert [from_json(to_json(call)).native_reasoning for call in calls] == [True, False, None]


@pytest.mark.parametrize(("reasoning", "expected"), [("Two and two.", True), ("Other.", False)])
def test_for_a_call_of_an_earlier_version_native_reasoning_is_a_guess(reasoning, expected):
    outputs = {"reasoning": "Two and two.", "answer": "4"}
    call = PredictorCalled(
        span=2, parent=1, predictor="self", uid="u", inputs={}, messages=(), outputs=outputs, reasoning=reasoning
    )
    assert _has_native_reasoning(call) is expected


def test_recorded_replies_are_served_without_the_model(tmp_path):
    path = tmp_path / "replies.jsonl"
    think = dn.ChainOfThought("question -> answer")
    with dn.context(lm=dn.recorded(path, lm=Thinker(), strict=False)):
        think.run_sync(question="2+2?")
    with dn.context(lm=dn.recorded(path)):
        assert think.run_sync(question="2+2?").reasoning == "Two and two."


def record_and_read_back(path, lm, program):
    with dn.context(lm=dn.recorded(path, lm=lm, strict=False)):
        program.run_sync(question="2+2?")
    with dn.context(lm=dn.recorded(path)):
        return program.run_sync(question="2+2?")


def test_a_recording_of_written_reasoning_is_read_back_although_its_replies_have_reasoning_too(tmp_path):
    lm = Thinker(chat(reasoning="Written.", answer="4"))
    lm.returns_reasoning = False
    prediction = record_and_read_back(tmp_path / "replies.jsonl", lm, dn.ChainOfThought("question -> answer"))
    assert prediction.reasoning == "Written."


@pytest.mark.filterwarnings("ignore::dspynb.errors.NoReasoningWarning")
def test_a_recording_of_native_reasoning_is_read_back_although_its_replies_have_no_text_of_it(tmp_path):
    lm = Thinker(reasoning=None)
    prediction = record_and_read_back(tmp_path / "replies.jsonl", lm, dn.ChainOfThought("question -> answer"))
    assert (prediction.reasoning, prediction.answer) == ("", "4")


def test_a_recording_says_for_each_of_its_settings_whether_reasoning_is_native(tmp_path):
    path = tmp_path / "replies.jsonl"
    lm = Thinker(chat(reasoning="Written.", answer="4"))
    lm.returns_reasoning = lambda settings: "effort" in settings
    plain = dn.ChainOfThought("question -> answer")
    thinking = dn.ChainOfThought("question -> answer", effort="low")
    assert record_and_read_back(path, lm, plain).reasoning == "Written."
    assert record_and_read_back(path, lm, thinking).reasoning == "Two and two."
    with dn.context(lm=dn.recorded(path)):
        assert plain.run_sync(question="2+2?").reasoning == "Written."


def test_a_recording_of_an_earlier_version_has_written_reasoning(tmp_path):
    path = tmp_path / "replies.jsonl"
    lm = Thinker(chat(reasoning="Written.", answer="4"))
    written = dn.ChainOfThought("question -> answer", native=False)
    assert record_and_read_back(path, lm, written).reasoning == "Written."
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["returns_reasoning"]
    path.write_text("".join([json.dumps(line) + "\n" for line in lines]))
    with dn.context(lm=dn.recorded(path)):
        assert dn.ChainOfThought("question -> answer").run_sync(question="2+2?").reasoning == "Written."


def test_native_needs_a_reasoning_output_of_text():
    class Steps(dn.Augmentation):
        reasoning: list[str] = dn.Output(desc="steps")

    with pytest.raises(SignatureError, match="native=True needs an output reasoning of type str"):
        dn.ChainOfThought("question -> answer", reasoning=Steps, native=True)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("deepseek/deepseek-reasoner", {}, True),
        ("openrouter/deepseek/deepseek-r1", {}, True),
        ("mistral/magistral-medium-latest", {}, True),
        ("xai/grok-3-mini", {}, True),
        ("xai/grok-4", {}, False),
        ("deepseek/deepseek-chat", {}, False),
        ("openai/o3", {"effort": "high"}, False),
        ("openai/gpt-5", {}, False),
        ("anthropic/claude-sonnet-4-5", {}, False),
        ("anthropic/claude-sonnet-4-5", {"effort": "low"}, True),
        ("anthropic/claude-sonnet-4-5", {"reasoning_effort": "none"}, False),
        ("gemini/gemini-2.5-flash", {"effort": "low"}, True),
        ("openai/my-model", {}, False),
    ],
)
def test_the_profile_says_which_models_return_their_reasoning(name, settings, expected):
    assert profile_at(name, None, {}).has_reasoning(settings) is expected


@pytest.mark.parametrize(
    ("changes", "effort", "expected"),
    [
        ({"refused": ["reasoning_effort"]}, "low", False),
        ({"efforts": []}, "low", False),
        ({"efforts": ["low", "high"]}, "none", True),  # is sent as low
        ({"efforts": ["none"]}, "high", False),
        ({"refused": ["reasoning_effort"], "default_effort": "medium"}, "none", True),
    ],
)
def test_the_profile_counts_an_effort_as_it_is_sent(changes, effort, expected):
    profile = overridden(ModelProfile(returns_reasoning="with_effort"), changes)
    for name in ("effort", "reasoning_effort"):
        assert profile.has_reasoning({name: effort}) is expected


def test_reasoning_is_written_after_the_server_has_refused_the_effort():
    def answer(body, *_):
        if "reasoning_effort" in body:
            message = "Unsupported parameter: 'reasoning_effort'"
            error = {"message": message, "param": "reasoning_effort", "code": "unsupported_parameter"}
            return web.json_response({"error": error}, status=400)
        text = chat(reasoning="Written.", answer="4")
        return reply(text if "[[ ## reasoning ## ]]" in str(body["messages"]) else chat(answer="4"))

    with Server(answer) as server:
        settings = {"api_base": server.base, "api_key": "none", "cache": False, "effort": "low"}
        think = dn.ChainOfThought(
            "question -> answer", lm=dn.LM("m", profile={"returns_reasoning": "with_effort"}, **settings)
        )
        with pytest.warns(dn.ModelAdaptedWarning):
            assert think.run_sync(question="1+1?").reasoning == ""
        assert think.run_sync(question="2+2?").reasoning == "Written."


def test_the_profile_of_an_lm_may_say_that_its_server_returns_reasoning():
    body = reply(chat(answer="4"), reasoning_content="Two and two.")
    with Server(lambda *_: body) as server:
        settings = {"api_base": server.base, "api_key": "none", "cache": False}
        lm = dn.LM("Qwen/Qwen3-8B", profile={"returns_reasoning": "always"}, **settings)
        prediction = dn.ChainOfThought("question -> answer", lm=lm).run_sync(question="2+2?")
    assert prediction.reasoning == "Two and two."
    assert "reasoning" not in str(server.bodies[0]["messages"])
