"""Conversion of objects of the real DSPy, with their state. The objects of DSPy do not change."""

from __future__ import annotations

import asyncio
import copy
import datetime
import re
import subprocess
import sys
import warnings
from typing import Annotated, Any, Literal

import cloudpickle
import pytest
from pydantic import BaseModel, Field

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError, RewardError, SignatureError, StateError
from dspynb.modules.scorer import Scorer
from tests.helpers import chat, field, prompt
from tests.lm.server import Server
from tests.modules.programs import Mood, Recording, Source

PNG = b"\x89PNG\r\n\x1a\n12345"


@pytest.fixture(scope="module")
def dspy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries that DSPy imports
        import dspy

        return dspy


def old(make, *args, **kwargs):
    """What DSPy still makes, though it warns that it will not for long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(*args, **kwargs)


@pytest.fixture(scope="module")
def check(dspy):
    class Check(dspy.Signature):
        """Check the answer against the sources.

        Be strict.
        """

        answer: str = dspy.InputField()
        sources: list[Source] = dspy.InputField(desc="where it was found")
        limit: int = dspy.InputField(ge=1, default=3)
        ok: bool = dspy.OutputField()
        kind: Literal["a", "b"] | None = dspy.OutputField(desc="what kind")
        mood: Mood = dspy.OutputField()
        score: float = dspy.OutputField(ge=0, le=1)

    return Check


class Check(dn.Signature):
    """Check the answer against the sources.

    Be strict.
    """

    answer: str = dn.Input()
    sources: list[Source] = dn.Input(desc="where it was found")
    limit: int = dn.Input(ge=1, default=3)
    ok: bool = dn.Output()
    kind: Literal["a", "b"] | None = dn.Output(desc="what kind")
    mood: Mood = dn.Output()
    score: float = dn.Output(ge=0, le=1)


# ── signatures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signature_equals_the_one_that_a_user_of_dspynb_would_write(check):
    converted = dn.from_dspy(check)
    assert converted.same_as(Check)
    assert (converted.__name__, converted.describe()) == ("Check", Check.describe())


@pytest.mark.parametrize(
    "text", ["question, context: list[str] -> answer: float", "a: dict[str, int] -> b: Optional[int], c"]
)
def test_a_signature_string_means_the_same_as_in_dspy(dspy, text):
    assert dn.from_dspy(dspy.Signature(text)).same_as(dn.ChainOfThought(text).predict.signature.delete("reasoning"))
    assert not dn.from_dspy(dspy.Signature(text)).has_own_instruction
    assert dn.from_dspy(dspy.Signature(text, "Sing.")).instruction == "Sing."


KINDS = [
    float | None, list[dict[str, int]], Literal["a", 1], Mood, Source, list[Source] | None, tuple[int, ...], set[str],
    tuple[int, str], datetime.date, Annotated[int, Field(ge=1)], list[Annotated[str, Field(max_length=3)]], int | str,
    list[Literal["x"]] | None, bytes, Any, dict[Mood, list[tuple[float, bool]]],
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_type_is_kept_with_all_types_in_it(dspy, kind):
    original = dspy.Signature({"q": (kind, dspy.InputField(desc="d")), "a": (kind, dspy.OutputField())})
    written = (
        dn.Predict("q -> a").signature.with_field("q", dn.Input(desc="d"), kind).with_field("a", dn.Output(), kind)
    )
    assert dn.from_dspy(original).same_as(written)


def test_images_files_and_histories_are_converted_in_lists_and_unions_too(dspy):
    inputs = "image: dspy.Image, papers: list[dspy.File], more: list[dspy.Image] | None, history: dspy.History"
    converted = dn.from_dspy(dspy.Signature(f"{inputs} -> thoughts: dspy.Reasoning"))
    fields = {**converted.input_fields, **converted.output_fields}
    assert [f.annotation for f in fields.values()] == [
        dn.Image, list[dn.File], list[dn.Image] | None, dn.History, str,
    ]  # fmt: skip


def test_a_prefix_of_the_user_becomes_the_alias_by_which_saved_programs_are_compared(dspy, tmp_path):
    class Ask(dspy.Signature):
        question: str = old(dspy.InputField, prefix="Frage:")
        context: str = old(dspy.InputField, prefix="Context:")
        answer: str = old(dspy.OutputField, prefix="question")  # which would name two fields

    converted = dn.from_dspy(Ask)
    fields = [*converted.input_fields.values(), *converted.output_fields.values()]
    assert [field.alias for field in fields] == ["Frage", None, None]


def test_a_type_without_counterpart_is_named_at_any_depth(dspy):
    class Inside(BaseModel):
        picture: dspy.Image

    class Own(dspy.Type):
        x: int

        def format(self):
            return "x"

    for kind, message in ((dspy.Audio, "Audio of DSPy,"), (list[dspy.Code], "Code of DSPy"), (Own, "Own of DSPy,")):
        with pytest.raises(SignatureError, match=f"the field 'q' has the type {message}.*dspy.Image, dspy.File"):
            dn.from_dspy(dspy.Signature({"q": (kind, dspy.InputField()), "a": (str, dspy.OutputField())}))
    with pytest.raises(SignatureError, match="the type Image of DSPy inside Inside, which has no counterpart"):
        dn.from_dspy(dspy.Signature({"q": (dict[str, Inside], dspy.InputField()), "a": (str, dspy.OutputField())}))


# ── predictors ────────────────────────────────────────────────────────────────────────────────────────────────────────


def sections(message):
    """The fields in a message of a chat adapter, without what it says about the form of the reply."""
    text = re.split(r"\n\s*Respond with", str(message["content"]))[0]
    parts = re.split(r"\[\[ ## (\w+) ## \]\]\n?", text)
    return {name: value.strip().replace('", "', '","') for name, value in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_prompt_has_the_same_fields_demos_and_instruction_as_in_dspy(dspy):
    original = dspy.ChainOfThought(dspy.Signature("question, context: list[str] -> answer", "Answer in one word."))
    original.predict.demos = [
        dspy.Example(augmented=True, question="2+2?", context=["sums"], reasoning="Two and two.", answer="Four"),
        {"question": "3+3?", "context": [], "reasoning": "Three and three.", "answer": "Six"},
    ]
    inputs = {"question": "4+4?", "context": ["more", "sums"]}
    expected = dspy.ChatAdapter().format(original.predict.signature, original.predict.demos, inputs)
    lm = Recording(lambda request: chat(reasoning="r", answer="Eight"))
    with dn.context(lm=lm):
        prediction = dn.from_dspy(original).run_sync(**inputs)
    assert prediction.to_dict() == {"reasoning": "r", "answer": "Eight"}
    (request,) = lm.requests
    assert [m["role"] for m in request.messages] == [m["role"] for m in expected]
    assert [sections(m) for m in request.messages[1:]] == [sections(m) for m in expected[1:]]
    assert len(request.messages) == 6
    assert "Answer in one word." in request.messages[0]["content"]


def test_demos_keep_their_types_and_only_fields_of_the_signature(dspy):
    original = dspy.Predict("image: dspy.Image, history: dspy.History, sources -> answer")
    picture = dspy.Image(dn.Image(PNG).whole())
    past = dspy.History(messages=[{"sources": "s", "answer": "b"}])
    source = Source(title="t", year=1)
    original.demos = [dspy.Example(image=picture, history=past, sources=source, answer="a", row=7)]
    (demo,) = dn.from_dspy(original).demos
    assert demo == {
        "image": dn.Image(PNG),
        "history": dn.History([{"sources": "s", "answer": "b"}]),
        "sources": source,
        "answer": "a",
    }


def test_there_is_one_reasoning_field_and_a_custom_one_is_kept(dspy):
    original = dspy.ChainOfThought("question -> answer")
    assert dn.from_dspy(original).predict.signature.same_as(dn.ChainOfThought("question -> answer").predict.signature)
    original.predict.signature = original.predict.signature.with_instructions("Learned.")
    converted = dn.from_dspy(original).predict.signature
    assert (converted.instruction, list(converted.output_fields)) == ("Learned.", ["reasoning", "answer"])
    own = dspy.ChainOfThought("question -> answer", rationale_field=dspy.OutputField(desc="in one line"))
    converted = dn.from_dspy(own)
    assert isinstance(converted, dn.ChainOfThought)
    assert converted.predict.signature.output_fields["reasoning"].desc == "in one line"
    steps = dspy.ChainOfThought("question -> answer", rationale_field_type=list[str])
    assert dn.from_dspy(steps).predict.signature.output_fields["reasoning"].annotation == list[str]
    steps.predict.signature = steps.predict.signature.delete("reasoning")
    with pytest.raises(InputError, match="has no `reasoning` any more"):
        dn.from_dspy(steps)


def test_settings_and_models_are_converted_and_a_shared_model_stays_shared(dspy):
    lm = dspy.LM("gpt-4o-mini", temperature=0.2, num_retries=1, cache=False, api_base="http://127.0.0.1:9/v1")
    original = dspy.ReAct("question -> answer", tools=[weather])
    original.react.lm = original.extract.predict.lm = lm
    original.react.update_config(temperature=0.7, max_tokens=None, rollout_id=3)
    converted = dn.from_dspy(original)
    assert converted.react.settings == {"temperature": 0.7}
    assert converted.react.lm is converted.extract.lm
    model = converted.react.lm
    assert (model.name, model.settings) == ("openai/gpt-4o-mini", {"temperature": 0.2})
    assert (model._retries, model._cache, model._endpoint_settings["api_base"]) == (1, False, "http://127.0.0.1:9/v1")


def test_a_key_is_sent_to_the_server_and_never_displayed(dspy, capsys):
    key = "sk-abcdefghijklmnopqrstuvwxyz123"
    with Server(lambda body, number: chat(answer=key)) as server:
        original = dspy.Predict("question -> answer")
        original.lm = dspy.LM("openai/m", api_base=server.base, api_key=key, max_tokens=50, cache=False)
        converted = dn.from_dspy(original)
        prediction = converted.run_sync(question="q")
    assert server.headers[0]["Authorization"] == f"Bearer {key}"
    assert server.bodies[0]["max_tokens"] == 50
    texts = [
        repr(converted),
        repr(converted.lm),
        repr(prediction),
        str(converted.dump_state()),
        *map(str, prediction.calls),
        capsys.readouterr().out,
    ]
    assert not [text for text in texts if key in text]


def test_a_model_named_without_a_provider_is_openais_or_refused_to_protect_its_key(dspy):
    for name in ("gpt-4o-mini", "o3", "ft:gpt-4o-mini:me"):
        assert dn.from_dspy(dspy.LM(name, api_key="sk-hidden-0123456789abcdef")).name == f"openai/{name}"
    for name in ("claude-haiku-4-5", "anthropic:claude-haiku-4-5", "gpt-oss-20b"):
        with pytest.raises(ConfigurationError, match=rf"{name}: whose model is it.*dspy.LM\('provider/") as caught:
            dn.from_dspy(dspy.LM(name, api_key="sk-hidden-0123456789abcdef"))
        assert "hidden" not in str(caught.value)
    assert dn.from_dspy(dspy.LM("mine", api_base="http://127.0.0.1:9/v1")).name == "openai/mine"


def test_a_model_with_methods_of_its_own_is_refused(dspy):
    class Mine(dspy.LM):
        def forward(self, prompt=None, messages=None, **kwargs):
            return None

    predict = dspy.Predict("a -> b")
    predict.lm = dspy.utils.DummyLM([{"b": "x"}])
    for original, name in ((Mine("openai/m", api_key="sk-hidden-0123456789abcdef"), "Mine"), (predict, "DummyLM")):
        with pytest.raises(
            ConfigurationError, match=rf"{name}.* is a model with code of its own.*dn.FunctionLM"
        ) as caught:
            dn.from_dspy(original)
        assert "hidden" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="openai/m: model_type='text' has no counterpart"):
        dn.from_dspy(dspy.LM("openai/m", model_type="text"))
    responses = dn.from_dspy(dspy.LM("openai/m", model_type="responses"))
    assert responses.profile.wire_format == "openai_responses"


# ── agents and searches ───────────────────────────────────────────────────────────────────────────────────────────────


def weather(city: str, days: int = 1) -> str:
    """The weather in a city."""
    return f"rain in {city} for {days} day(s)"


async def later(city: str) -> str:
    """The weather, later."""
    return f"sun in {city}"


def step(name, **args):
    return chat(next_thought="t", next_tool_name=name, next_tool_args=str(args).replace("'", '"'))


def test_a_converted_agent_calls_its_tools(dspy):
    tools = [weather, dspy.Tool(later, name="tomorrow", desc="Of the next day.")]
    converted = dn.from_dspy(dspy.ReAct("question -> answer", tools=tools, max_iters=4))
    lm = dn.ScriptedLM(
        [step("weather", city="Rome", days=2), step("tomorrow", city="Bonn"), step("finish"), chat(answer="a")]
    )
    with dn.context(lm=lm):
        prediction = converted.run_sync(question="q")
    observations = [step["observation"] for step in prediction.trajectory]
    assert observations == ["rain in Rome for 2 day(s)", "sun in Bonn", "Finished."]
    assert converted.max_iterations == 4
    assert "tomorrow: Of the next day." in prompt(lm.requests[0])
    assert "weather: The weather in a city." in prompt(lm.requests[0])


def test_a_tool_whose_arguments_were_described_by_hand_is_still_checked_by_dspy(dspy):
    def call(**arguments):
        return sorted(arguments.items())

    original = dspy.Tool(call, name="far", desc="d", args={"n": {"type": "integer"}}, arg_types={"n": int})
    converted = dn.from_dspy(original)
    assert converted.schema == {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert str(asyncio.run(converted({"n": 3}))) == '[["n",3]]'
    assert "Arg n is invalid" in str(asyncio.run(converted({"n": "x"})))


def test_an_agent_keeps_an_optimized_instruction_but_not_the_default_of_dspy(dspy):
    original = dspy.ReAct(dspy.Signature("question -> answer", "Be kind."), tools=[weather])
    converted = dn.from_dspy(original)
    assert [converted.react.instruction, converted.extract.instruction] == [None, None]
    assert converted.extract.signature.instruction == "Be kind."
    original.react.signature = original.react.signature.with_instructions("Call the tools.")
    original.extract.predict.signature = original.extract.predict.signature.with_instructions("One word.")
    original.react.demos = [
        dspy.Example(question="q", trajectory="", next_thought="t", next_tool_name="finish", next_tool_args={})
    ]
    original.extract.predict.demos = [dspy.Example(question="q", trajectory="t", reasoning="r", answer="a")]
    converted = dn.from_dspy(original)
    assert [converted.react.instruction, converted.extract.instruction] == ["Call the tools.", "One word."]
    assert converted.react.demos[0]["next_tool_name"] == "finish"
    assert converted.extract.demos == [{"question": "q", "trajectory": "t", "answer": "a"}]


def test_trajectories_in_demos_have_the_same_form_as_those_in_prompts(dspy):
    original = dspy.ReAct("question -> answer", tools=[weather])
    past = {
        "thought_0": "look",
        "tool_name_0": "weather",
        "tool_args_0": {"city": "Rome"},
        "observation_0": "sun\n\nwarm",
    }
    turn = {"question": "Rome?", "next_thought": "done", "next_tool_name": "finish", "next_tool_args": {}}
    original.react.demos = [
        dspy.Example(trajectory=original._format_trajectory(past), **turn),
        dspy.Example(trajectory=original._format_trajectory({}), **turn),
        dspy.Example(trajectory="told in words", **turn),
    ]
    converted = dn.from_dspy(original)
    step = 'Step 1\nThought: look\nTool: weather {"city": "Rome"}\nObservation: sun\n\nwarm'
    assert [demo["trajectory"] for demo in converted.react.demos] == [step, "(nothing yet)", "told in words"]
    replies = [
        {"next_thought": "look", "next_tool_name": "weather", "next_tool_args": '{"city": "Rome"}'},
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": "{}"},
        {"answer": "sun"},
    ]
    lm = dn.ScriptedLM([chat(**reply) for reply in replies])
    with dn.context(lm=lm):
        converted.run_sync(question="Rome?")
    demo, now = lm.requests[1].messages[1]["content"], lm.requests[1].messages[-1]["content"]
    assert all('Step 1\nThought: look\nTool: weather {"city": "Rome"}\nObservation:' in text for text in (demo, now))


def test_program_of_thought_needs_run_code_and_refuses_demos_for_dspys_interpreter(dspy):
    if not hasattr(dspy, "ProgramOfThought"):
        pytest.skip("DSPy 3.5 has none")
    original = old(dspy.ProgramOfThought, "question -> answer: int", max_iters=5)
    with pytest.raises(ConfigurationError, match="Pass run_code=True"):
        dn.from_dspy(original)
    original.code_generate.predict.update_config(temperature=0.4)
    converted = dn.from_dspy(original, run_code=True)
    assert (converted.max_iterations, converted.generate.settings) == (5, {"temperature": 0.4})
    assert converted.signature.same_as(dn.Predict("question -> answer: int").signature)
    original.code_generate.predict.demos = [dspy.Example(question="q", generated_code="SUBMIT(1)")]
    with pytest.raises(InputError, match=r"has learned \(code_generate\) is about code for DSPy's interpreter"):
        dn.from_dspy(original, run_code=True)


def test_multi_chain_comparison_compares_the_completions_that_are_passed(dspy):
    original = old(dspy.MultiChainComparison, "question -> answer", M=2, temperature=0.4, max_tokens=9)
    converted = dn.from_dspy(original)
    lm = dn.ScriptedLM([chat(rationale="r", answer="a")])
    with dn.context(lm=lm):
        completions = [{"reasoning": f"because {i}", "answer": "x"} for i in range(2)]
        prediction = converted.run_sync(question="q", completions=completions)
    assert prediction.to_dict() == {"rationale": "r", "answer": "a"}
    assert dict(lm.requests[0].settings) == {"temperature": 0.4, "max_tokens": 9}
    assert "because 1" in field(lm.requests[0], "reasoning_attempt_2")
    assert [path for path, _ in converted.named_predictors()] == ["predict"]


def test_a_refine_uses_the_reward_of_the_user_and_its_feedback_as_hint(dspy):
    def long_enough(args, pred):
        assert args["question"] == "q"
        return dspy.Prediction(score=float(len(pred.answer) > 3), feedback="Use more letters.")

    original = dspy.Refine(dspy.ChainOfThought("question -> answer"), N=3, reward_fn=long_enough, threshold=0.5)
    converted = dn.from_dspy(original)
    assert isinstance(converted, dn.Refine)
    plan = converted.plan
    assert (plan.n, plan.threshold, plan.max_failures, plan.temperature) == (3, 0.5, None, 1.0)
    assert converted.plan.reward.name == "long_enough"
    assert "Use more letters" in converted.plan.reward.describe()
    lm = dn.ScriptedLM([chat(reasoning="r", answer="a"), chat(reasoning="r", answer="longer")])
    with dn.context(lm=lm):
        prediction = converted.run_sync(question="q")
    assert prediction.answer == "longer"
    assert prediction.run.attempts.feedback[0] == "Use more letters."
    assert "Hint: Use more letters." in prompt(lm.requests[1])


def test_best_of_n_takes_the_first_that_is_good_enough(dspy):
    original = dspy.BestOfN(
        dspy.Predict("question -> answer"), 3, lambda args, pred: float(pred.answer == "b"), 1.0, fail_count=1
    )
    converted = dn.from_dspy(original)
    assert converted.plan.max_failures == 1
    with dn.context(lm=dn.ScriptedLM([chat(answer="a"), chat(answer="b")])):
        assert converted.run_sync(question="q").answer == "b"


# ── rows and metrics ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_keep_their_marked_inputs(dspy):
    original = [
        dspy.Example(question="q", answer="a", dspy_uuid="u").with_inputs("question"),
        dspy.Example(question="q", answer="a"),
        dspy.Example(question="q").with_inputs("question", "gone"),
    ]
    marked, unmarked, partly = dn.from_dspy(original)
    assert (marked.inputs(), marked.labels()) == ({"question": "q"}, {"answer": "a"})
    assert (unmarked.to_dict(), unmarked.input_names) == ({"question": "q", "answer": "a"}, None)
    assert partly.inputs() == {"question": "q"}
    nested = dspy.Example(rows=[dspy.Example(a=1)], image=dspy.Image("https://example.org/a.png"))
    assert dn.from_dspy(nested) == dn.Example(rows=[{"a": 1}], image=dn.Image("https://example.org/a.png"))
    assert dn.from_dspy(dspy.Prediction(answer="a")) == dn.Prediction(answer="a")
    with pytest.raises(
        InputError, match=r"dspy.Image: only its content or an http\(s\) URL is taken, got 'gs://b/a.png'"
    ):
        dn.from_dspy(dspy.Example(image=dspy.Image("gs://b/a.png")))
    with pytest.raises(InputError, match="a value is dspy.Audio, which has no counterpart"):
        dn.from_dspy(dspy.Example(sound=dspy.Audio(data="", audio_format="wav")))


def scored(metric, answer, **extras):
    return asyncio.run(Scorer(metric, "metric")(dn.Example(answer="four"), dn.Prediction(answer=answer), **extras))


def test_a_metric_that_is_strict_in_bootstrapping_is_not_strict_in_evaluation(dspy):
    def metric(example, pred, trace=None):
        overlap = len(set(example.answer) & set(pred.answer)) / len(set(example.answer))
        return overlap >= 0.9 if trace is not None else overlap

    assert float(scored(metric, "for")) == 0.0  # as it is, it is told the trace
    converted = dn.from_dspy(metric)
    assert float(scored(converted, "for")) == 0.75
    assert (Scorer(converted).name, "overlap >= 0.9" in Scorer(converted).describe()) == ("metric", True)
    assert float(scored(dn.from_dspy(lambda example, pred, trace: trace is None), "x")) == 1.0
    assert float(scored(dn.from_dspy(dspy.evaluate.answer_exact_match), "Four.")) == 1.0


def test_a_metric_for_gepa_gives_feedback_on_the_requested_predictor(dspy):
    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        steps = None
        if pred_trace is not None:
            steps = [(path, inputs["question"], outputs.query) for path, inputs, outputs in pred_trace]
        feedback = f"{pred_name}: {len(trace or [])} steps, {steps}"
        return dspy.Prediction(score=pred.answer == gold.answer, feedback=feedback, objective_scores={"short": 0.5})

    plain = scored(dn.from_dspy(metric), "four")
    assert plain == dn.Score(1.0, "None: 0 steps, None", {"short": 0.5})
    program = dn.Predict("question -> query").then(dn.Predict("query -> answer"))
    with dn.context(lm=dn.ScriptedLM([chat(query="q"), chat(answer="a")])), dn.trace() as trace:
        program.run_sync(question="why?")
    calls = [event for event in trace.events if hasattr(event, "predictor")]
    advised = scored(dn.from_dspy(metric), "four", trace=calls, predictor=calls[0].predictor)
    assert advised.feedback == f"{calls[0].predictor}: 2 steps, {[(calls[0].predictor, 'why?', 'q')]}"


def test_gepa_learns_from_a_metric_that_was_written_for_dspy(dspy):
    def metric(gold, pred, trace, pred_name, pred_trace):
        return dspy.Prediction(score=float("loud" in pred.answer), feedback=f"{pred_name} must say LOUD.")

    def model(request):
        text = prompt(request)
        if "new_instruction" in text:
            return chat(new_instruction="Be LOUD." if "self must say LOUD." in text else "Be quiet.")
        return chat(answer="loud" if "Be LOUD." in text else "quiet")

    rows = dn.from_dspy([dspy.Example(question=str(i), answer="").with_inputs("question") for i in range(6)])
    gepa = dn.GEPA(dn.from_dspy(metric), budget=dn.Budget(metric_calls=40))
    with dn.context(lm=dn.FunctionLM(model)):
        better = asyncio.run(gepa.compile(dn.from_dspy(dspy.Predict("question -> answer")), rows[:3], val=rows[3:]))
    assert better.instruction == "Be LOUD."


def test_a_converted_metric_can_be_sent_to_another_process(dspy):
    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        return dspy.Prediction(score=0.5, feedback=str(pred_name))

    unpickled = cloudpickle.loads(cloudpickle.dumps(dn.from_dspy(metric)))
    assert scored(unpickled, "x", predictor="self") == dn.Score(0.5, feedback="self")


def test_async_metrics_and_callable_objects_are_converted_and_others_refused(dspy):
    class Judge:
        async def __call__(self, example, pred, trace=None):
            return dspy.Prediction(score=0.5)

    judge = dn.from_dspy(Judge())
    assert (scored(judge, "x"), Scorer(judge).name) == (dn.Score(0.5), "Judge")
    with pytest.raises(RewardError, match="returned None"):
        scored(dn.from_dspy(lambda example, pred: None), "x")
    with pytest.raises(InputError, match=r"one cannot be a metric: it is not called as metric\(example, prediction\)"):
        dn.from_dspy(one)


def one(value):
    return value


# ── what cannot be translated ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def program(dspy, check):
    class Inner(dspy.Module):
        def __init__(self):
            self.check = dspy.Predict(check)

        def forward(self, **inputs):
            return self.check(**inputs)

    class Program(dspy.Module):
        def __init__(self):
            super().__init__()
            self.retrieve = dspy.Predict("question -> query")
            self.answer = dspy.ChainOfThought(dspy.Signature("question, context: list[str] -> answer", 'One \\ "word"'))
            self.steps = [dspy.Predict("a -> b"), dspy.Predict("b, image: dspy.Image -> c: float")]
            self.by = {"x": Inner()}
            self.agent = dspy.ReAct("question -> answer", tools=[weather], max_iters=4)
            self.best = dspy.Refine(dspy.ChainOfThought("a -> b"), N=3, reward_fn=reward, threshold=1.0)
            self.compare = old(dspy.MultiChainComparison, "question -> answer", M=2)
            self.rest = [dspy.Predict("a -> b"), old(dspy.CodeAct, "a -> b", tools=[weather])]
            self.sound = dspy.Predict("sound: dspy.Audio -> b")
            self.k = 3
            self.key = "sk-hidden-0123456789abcdef"
            self.retriever = lambda query: []

        def forward(self, question: str, k: int = 2):
            return self.retrieve(question=question)

    return Program()


def reward(args, pred):
    return 1.0


def test_what_cannot_be_rewritten_is_named_with_its_line_and_the_rest_of_the_source_is_there(program, dspy):
    with pytest.raises(InputError) as caught:
        dn.from_dspy(program)
    text = str(caught.value)
    assert text.startswith("Program cannot be converted as a whole:\n- Program, line ")
    assert "dspy.CodeAct has no counterpart: use ReAct with tools, or ProgramOfThought" in text
    assert "async def forward(self, question: str, k: int = 2):\n" in text
    assert "return await self.retrieve(question=question)" in text
    assert 'dn.Refine(dn.ChainOfThought("a -> b"), n=3, reward=reward, threshold=1.0)' in text
    assert 'self.agent = dn.ReAct("question -> answer", tools=[weather], max_iterations=4)' in text

    class Lambda(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("a -> b")

        def forward(self, words):
            return sorted(words, key=lambda word: self.ask(a=word).b)

    with pytest.raises(InputError, match=r"Lambda, line 7: a program is called in a lambda"):
        dn.from_dspy(Lambda())


def test_a_rewritten_program_has_the_demos_settings_and_instructions_and_other_attributes(dspy, capsys):
    class Program(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("a -> b", temperature=0.7)
            self.think = dspy.ChainOfThought("a -> b", max_tokens=9)
            self.again = self.ask
            self.k = 3
            self.words = ["x"]

        def forward(self, a):
            # asks once
            return self.ask(a=a)

    original = Program()
    original.ask.demos = [dspy.Example(a="1", b="2")]
    original.think.predict.signature = original.think.predict.signature.with_instructions("Learned.")
    new = dn.from_dspy(original)
    assert new.ask.demos == [{"a": "1", "b": "2"}]
    assert new.ask.settings == {"temperature": 0.7}
    assert new.think.predict.signature.instruction == "Learned."
    assert new.again is new.ask
    assert (new.k, new.words) == (3, ["x"])
    assert [path for path, _ in new.named_predictors()] == ["ask", "think.predict"]
    assert "            # asks once\n" not in capsys.readouterr().out.replace("        # asks once\n", "")
    assert type(new)().k == 3  # its __init__ is rewritten too
    with dn.context(lm=dn.ScriptedLM([chat(b="4")])):
        assert new.run_sync(a="2").b == "4"


def test_an_inner_module_with_a_forward_is_rewritten_too(dspy, program, capsys):
    best = dn.from_dspy(dspy.BestOfN(program.by["x"], 2, reward, 1.0))
    assert isinstance(best, dn.BestOfN)
    assert "class Inner(dn.Module):" in capsys.readouterr().out

    class Named(dspy.ChainOfThought):
        def __init__(self):
            super().__init__("question -> answer")

    class Changed(Named):
        def forward(self, **inputs):
            return super().forward(**inputs)

    assert isinstance(dn.from_dspy(Named()), dn.ChainOfThought)
    changed = dn.from_dspy(Changed())
    with dn.context(lm=dn.ScriptedLM([chat(reasoning="r", answer="4")])):
        assert changed.run_sync(question="2+2?").answer == "4"


def test_the_error_for_other_objects_lists_what_can_be_converted(dspy):
    code = old(dspy.CodeAct, "question -> answer", tools=[weather])
    with pytest.raises(
        InputError, match="dspy.CodeAct has no counterpart here. Programs that have: Predict, ChainOfThought"
    ):
        dn.from_dspy(code)
    unsupported = [
        (5, "int"),
        ("question -> answer", "str"),
        (dspy.Evaluate(devset=[1]), "dspy.Evaluate"),
        (Check, "the class Check"),
    ]
    unsupported += [(dspy.Predict, "the class dspy.Predict"), (None, "NoneType"), (dn.Predict("a -> b"), "Predict")]
    for thing, name in unsupported:
        with pytest.raises(InputError, match=f"from_dspy takes a dspy.Signature class, .*; got {name}$"):
            dn.from_dspy(thing)


def test_errors_for_objects_of_dspy_recommend_from_dspy(dspy):
    row, original, lm = dspy.Example(a="x"), dspy.Predict("a -> b"), dspy.LM("openai/m")
    converted = dn.Predict("a -> b", lm=dn.ScriptedLM([]))
    mistakes = [
        (InputError, "row 0 is Example", lambda: asyncio.run(converted.batch([row]))),
        (InputError, "got Predict", lambda: dn.Refine(original, reward)),
        (InputError, "got Predict", lambda: asyncio.run(dn.evaluate(original, [{"a": "x"}], reward))),
        (SignatureError, "got StringSignature", lambda: dn.Predict(dspy.Signature("a -> b"))),
        (ConfigurationError, "got LM", lambda: dn.configure(lm=lm)),
        (ConfigurationError, "got LM", lambda: dn.Predict("a -> b", lm=lm).run_sync(a="x")),
    ]
    for error, message, act in mistakes:
        with pytest.raises(error, match=rf"{message}.*It is DSPy's: dn.from_dspy\(…\) makes it dspynb's\."):
            act()


def test_the_object_of_dspy_does_not_change(dspy, check):
    original = dspy.ReAct(check, tools=[weather])
    original.react.demos = [dspy.Example(answer="a", sources=[Source(title="t", year=1)])]
    original.extract.predict.lm = dspy.LM("openai/m", temperature=0.5)
    original.react.update_config(rollout_id=3)
    before, demo_before = copy.deepcopy(original.dump_state()), original.react.demos[0].copy()
    converted = dn.from_dspy(original)
    converted.react.demos[0]["sources"].append("more")
    converted.react.settings["temperature"] = 2
    converted.extract.lm.settings["temperature"] = 2
    assert original.dump_state() == before
    assert original.react.demos == [demo_before]
    assert original.react.config == {"rollout_id": 3}
    assert original.extract.predict.lm.kwargs["temperature"] == 0.5


def test_dspy_is_not_imported():
    code = """
import sys
sys.modules["dspy"] = None  # an import of it fails
import dspynb as dn

class Example:
    def items(self):
        return [("a", 1), ("b", 2)]
    def inputs(self):
        return {"a": 1}

Example.__module__ = "dspy.primitives.example"
assert dn.from_dspy([Example()])[0].inputs() == {"a": 1}
assert dn.from_dspy(lambda example, pred, trace=None: 1.0)(None, None) == 1.0
assert [name for name in sys.modules if name.startswith("dspy.")] == []
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ── saved programs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_programs_saved_by_dspy_load_and_pickles_are_refused(dspy, tmp_path):
    original = dspy.Refine(
        dspy.ChainOfThought("question, when: datetime.date -> answer: int"), N=2, reward_fn=reward, threshold=1.0
    )
    inner = original.module.predict
    inner.signature = inner.signature.with_instructions("Learned.")
    inner.demos = [dspy.Example(question="q", when=datetime.date(2024, 5, 1), reasoning="r", answer=4, augmented=True)]
    original.save(tmp_path / "p.json")
    converted = dn.Refine(dn.ChainOfThought("question, when: datetime.date -> answer: int"), reward)
    converted.load(tmp_path / "p.json")
    assert (converted.module.predict.instruction, converted.module.predict.demos) == (
        "Learned.", [{"question": "q", "when": datetime.date(2024, 5, 1), "reasoning": "r", "answer": 4}],
    )  # fmt: skip
    original.save(tmp_path / "p.pkl")
    with pytest.raises(StateError, match="reading a pickle runs code; in DSPy, save as .json"):
        converted.load(tmp_path / "p.pkl")
    dspy.Predict("a -> b").save(tmp_path / "whole", save_program=True)
    with pytest.raises(StateError, match="whole is a folder; give a file such as"):
        converted.load(tmp_path / "whole")
    with pytest.raises(StateError, match="module.predict: not in the program"):
        dn.Predict("a -> b").load(tmp_path / "p.json")
