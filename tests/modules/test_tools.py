"""Tools: what a function says of itself, what reaches it, and what the model is told of it."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import json
import pickle
import threading
import time
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import dspynb as dn
from dspynb.agents.tools.tool import Observation, ToolFailed
from dspynb.errors import ConfigurationError, RunStopped, SignatureError
from dspynb.events import SpanEnded, SpanStarted
from tests.helpers import Caption, echo_hint, scores


class Place(BaseModel):
    city: str
    tags: list[str] = []


def weather(city: str, days: int = 3) -> str:
    """The weather of a city.

    As far as it is known.

    Args:
        city: where,
            in English
        days (int): how many
    """
    return f"{city}: sun for {days} days"


async def ask(question: str):
    return question.upper()


def call(fn, arguments, **options):
    return asyncio.run(dn.Tool(fn, **options)(arguments))


def properties(fn, **options):
    return dn.Tool(fn, **options).schema["properties"]


# ── descriptions and schemas ────────────────────────────────────────────────────────────────────────────────────────


def test_hints_and_docstring_are_schema_and_description():
    tool = dn.Tool(weather)
    assert (tool.name, tool.description) == ("weather", "The weather of a city.\n\nAs far as it is known.")
    assert tool.schema["required"] == ["city"]
    assert tool.schema["properties"] == {
        "city": {"type": "string", "description": "where, in English"},
        "days": {"type": "integer", "default": 3, "description": "how many"},
    }
    assert tool.spec()["function"]["parameters"] == tool.schema


@pytest.mark.parametrize(
    "doc",
    [
        "Add.\n\nParameters\n----------\na : int\n    first\nb\n    second\n    one\n\nReturns\n-------\nint\n    sum",
        "Add.\n\n:param a: first\n:param int b: second\n    one\n:returns: sum",
        "Add.\n\nArgs:\n    a: first\n    b (int, optional): second\n        one\n\nReturns:\n    x: sum",
    ],
)
def test_parameters_are_described_in_three_styles(doc):
    def add(a: int, b: int): ...

    add.__doc__ = doc
    tool = dn.Tool(add)
    assert tool.description == "Add."
    assert [p["description"] for p in tool.schema["properties"].values()] == ["first", "second one"]


def test_a_parameter_without_annotation_takes_any_json_value_and_is_described_so():
    def keep(thing, note="x"):
        return thing

    assert properties(keep)["thing"] == {"description": "any JSON value"}
    assert call(keep, {"thing": [1, {"a": None}]}).value == [1, {"a": None}]


def test_optional_literal_nested_and_annotated_types_are_in_the_schema():
    def find(place: Place, kind: Literal["a", "b"], note: str | None = None, n: Annotated[int, Field(ge=1)] = 2):
        return (place, kind, note, n)

    schemas = properties(find)
    assert schemas["kind"]["enum"] == ["a", "b"]
    assert schemas["n"]["minimum"] == 1
    observation = call(find, {"place": {"city": "Rome"}, "kind": "a"})
    assert observation.value == (Place(city="Rome"), "a", None, 2)
    assert "'n'" in call(find, {"place": {"city": "Rome"}, "kind": "a", "n": 0}).text


def test_names_that_pydantic_keeps_are_parameters_like_others():
    def odd(schema: int, model_config: str, _x: int, copy: bool = False, p0: int = 1):
        return schema, model_config, _x, copy, p0

    assert list(properties(odd)) == ["schema", "model_config", "_x", "copy", "p0"]
    assert call(odd, {"schema": 1, "model_config": "m", "_x": 2}).value == (1, "m", 2, False, 1)


class Counter:
    """Counts up."""

    def __init__(self):
        self.n = 0

    def add(self, by: int = 1):
        self.n += by
        return self.n

    def __call__(self, by: int):
        return self.add(by)


class AsyncCounter(Counter):
    async def __call__(self, by: int):
        return self.add(by)


def test_methods_partials_and_callable_objects_are_tools():
    counter = Counter()
    assert (dn.Tool(counter.add).name, call(counter.add, {"by": "2"}).text) == ("add", "2")
    tool = dn.Tool(counter)
    assert (tool.name, tool.description, asyncio.run(tool({"by": 3})).text) == ("Counter", "Counts up.", "5")
    assert call(AsyncCounter(), {"by": 3}).text == "3"
    assert call(functools.partial(ask), {"question": "a"}).text == "A"
    assert list(properties(functools.partial(weather, "Rome"))) == ["days"]


def test_arguments_that_a_partial_has_filled_in_are_left_out():
    mine = functools.partial(weather, city="Rome")
    assert list(properties(mine)) == ["days"]
    assert "there is no argument 'city'" in call(mine, {"city": "Oslo"}).text
    assert call(mine, {}).text == "Rome: sun for 3 days"


def test_more_keywords_are_accepted_where_the_function_takes_them_and_positional_ones_arrive():
    def gather(first: int, /, *rest, **more):
        return first, rest, more

    assert call(gather, {"first": "1", "x": [2]}).value == (1, (), {"x": [2]})
    assert "there is no argument 'x'" in call(weather, {"city": "a", "x": 1}).text


def test_a_predictor_is_described_by_its_signature_and_a_module_by_its_forward():
    class Shout(dn.Module):
        """Shouts."""

        async def forward(self, text: str, times: int = 1):
            return {"said": text.upper() * times}

    assert properties(dn.Predict("question, context: list[str] -> answer"), name="qa") == {
        "question": {"type": "string"},
        "context": {"items": {"type": "string"}, "type": "array"},
    }
    tool = dn.Tool(Shout())
    assert (tool.name, tool.description, list(tool.schema["properties"])) == ("Shout", "Shouts.", ["text", "times"])
    assert asyncio.run(tool({"text": "a", "times": 2})).text == '{"said":"AA"}'


class Opaque: ...


def test_an_object_that_cannot_be_a_tool_is_refused_by_the_constructor():
    def takes_opaque(x: Opaque): ...

    def unresolved(x: Missing): ...  # noqa: F821

    def generator(n: int):
        yield n

    with pytest.raises(SignatureError, match=r"takes_opaque.*without a JSON schema"):
        dn.Tool(takes_opaque)
    with pytest.raises(SignatureError, match=r"unresolved.*Missing"):
        dn.Tool(unresolved)
    for wrong in (5, None, Counter, generator):
        with pytest.raises(ConfigurationError, match="tool"):
            dn.Tool(wrong)
    for name in ("", "a b", "x" * 65, "a.b", "é"):
        with pytest.raises(ConfigurationError, match="cannot be named"):
            dn.Tool(weather, name=name)
    with pytest.raises(ConfigurationError, match="<lambda>"):
        dn.Tool(lambda x: x)
    assert call(lambda x: x, {"x": 1}, name="same").text == "1"


def test_a_return_annotation_that_cannot_be_resolved_does_not_matter():
    def fine(x: int) -> Missing:  # noqa: F821
        return x

    assert call(fine, {"x": "4"}).value == 4


# ── what comes back ─────────────────────────────────────────────────────────────────────────────────────────────────


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


def endless():
    while True:
        yield 1


def circular():
    loop: list = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is\n", "as it is\n"),
        (Place(city="Rome"), '{"city":"Rome","tags":[]}'),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (None, "null"),
        (float("nan"), "NaN"),
        (dn.Prediction(answer="x"), '{"answer":"x"}'),
        ({"a": Unshowable()}, '{"a":"<Unshowable that cannot be shown>"}'),
        (Unshowable(), "<Unshowable that cannot be shown>"),
    ],
)
def test_results_become_text(result, text):
    def tool():
        return result

    observation = call(tool, {})
    assert (observation.text, observation.ok) == (text, True)


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (object, "<object object"),
        (endless, "<generator"),
        (circular, "[[...]]"),
        (lambda: b"\xff", "b'\\xff'"),
    ],
)
def test_results_without_a_json_form_are_shown_by_their_repr(make, start):
    def tool():
        return make()

    observation = call(tool, {})
    assert observation.text.startswith(start)
    assert observation.ok


def test_a_long_result_loses_its_middle_but_stays_whole_as_a_value():
    observation = call(lambda: "a" * 500 + "b" * 500, {}, name="t", limit=100)
    assert observation.text == "a" * 50 + "\n… [900 characters left out] …\n" + "b" * 50
    assert len(observation.value) == 1000


def test_wrong_arguments_become_an_observation_with_the_schema_and_the_tool_is_not_called():
    called = []

    def search(query: str, limit: int = 5):
        called.append(query)

    observation = call(search, {"qery": "x", "limit": "many"})
    assert not observation.ok
    for part in (
        "'query' is missing",
        "no argument 'qery'",
        "Did you mean 'query'",
        "'limit'",
        "valid integer",
        '"query"',
    ):
        assert part in observation.text
    deep = '{"query": ' + "[" * 2000 + "]" * 2000 + "}"
    for broken in ("{nonsense", "[1]", '"text"', [1], 5, deep):
        assert "search was not called" in call(search, broken).text
    assert called == []
    assert call(search, '{"query": "x"}').ok
    assert call(lambda: 1, "", name="none").ok


def test_exceptions_of_sync_and_async_tools_become_observations():
    def fails(x: int):
        raise KeyError("no such row")

    async def fails_too(x: int):
        raise ValueError("bad")

    def leaves():
        raise SystemExit(3)

    def refuses():
        raise ToolFailed("closed on Sundays")

    def stops():
        raise StopIteration

    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    def silent():
        raise Silent

    texts = [
        call(fn, {"x": 1} if "fails" in fn.__name__ else {}).text for fn in (fails, fails_too, leaves, refuses, silent)
    ]
    assert texts[:2] == ["fails failed: KeyError: 'no such row'", "fails_too failed: ValueError: bad"]
    assert texts[2:4] == ["leaves failed: SystemExit: 3", "closed on Sundays"]
    assert texts[4] == "silent failed: <Silent that cannot be shown>"
    assert not call(stops, {}).ok


def test_a_stop_and_a_cancellation_are_not_observations():
    def stopped():
        raise RunStopped

    async def in_a_group():
        raise ExceptionGroup("g", [ValueError(), RunStopped()])

    async def waits():
        await asyncio.sleep(60)

    with pytest.raises(RunStopped):
        call(stopped, {})
    with pytest.raises(ExceptionGroup):
        call(in_a_group, {})

    async def main():
        task = asyncio.create_task(dn.Tool(waits)({}))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_tool_that_waits_for_something_cancelled_has_failed_and_nothing_else_is_cancelled():
    async def waits():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    assert "cancelled" in call(waits, {}).text


def test_a_tool_that_takes_too_long_is_an_observation_and_its_own_timeout_is_its_own_failure():
    release = threading.Event()

    async def main():
        async def slow():
            await asyncio.sleep(60)

        def hangs():
            release.wait(60)

        async def own():
            raise TimeoutError("mine")

        return [(await dn.Tool(fn)({}, timeout=0.05)).text for fn in (slow, hangs, own)]

    began = time.perf_counter()
    texts = asyncio.run(main())
    assert time.perf_counter() - began < 30  # neither the call nor the loop's end waits for the thread
    release.set()
    assert texts == [
        "slow was given up: it took longer than 0.05 s",
        "hangs was given up: it took longer than 0.05 s",
        "own failed: TimeoutError: mine",
    ]


# ── where it runs ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plain_function_runs_in_a_thread_with_the_callers_context_and_many_at_once():
    var = contextvars.ContextVar("var", default="none")
    barrier = threading.Barrier(40, timeout=20)

    def where(i: int):
        barrier.wait()  # passes only when all forty run at the same time
        return var.get(), threading.current_thread() is threading.main_thread()

    async def main():
        var.set("mine")
        return await asyncio.gather(*(dn.Tool(where)({"i": i}) for i in range(40)))

    assert {observation.value for observation in asyncio.run(main())} == {("mine", False)}


def test_a_tool_keeps_nothing_of_a_call_and_its_defaults_and_arguments_are_fresh():
    def collect(item, into: list = []):  # noqa: B006
        item["seen"] = True
        into.append(item["n"])
        return list(into)

    tool = dn.Tool(collect)
    before = dict(vars(tool))
    arguments = {"item": {"n": 1}}
    assert [asyncio.run(tool(arguments)).value for _ in range(2)] == [[1], [1]]
    assert arguments == {"item": {"n": 1}}
    assert vars(tool) == before


def test_a_tool_call_is_a_span_with_inputs_and_outputs_or_error():
    class Program(dn.Module):
        async def forward(self, city):
            await dn.Tool(weather)({"city": city})
            await dn.Tool(weather)({"town": city})
            return {}

    asyncio.run(Program()(city="Rome"))
    events = dn.last_run().record.events
    tools = [e for e in events if isinstance(e, SpanStarted) and e.kind == "tool"]
    ended = {e.span: e for e in events if isinstance(e, SpanEnded)}
    assert [(t.name, t.inputs) for t in tools] == [("weather", {"city": "Rome"}), ("weather", {"town": "Rome"})]
    assert ended[tools[0].span].outputs == {"observation": "Rome: sun for 3 days"}
    assert "'city' is missing" in ended[tools[1].span].error
    assert tools[0].parent == ended[tools[0].span].parent != 0


def test_calls_of_models_inside_a_tool_are_part_of_the_run_and_hints_reach_them():
    inner = dn.Predict(Caption, lm=echo_hint())

    async def describe(subject: str):
        return (await inner(subject=subject)).sentence

    def describe_from_a_thread(subject: str):
        return inner.run_sync(subject=subject).sentence

    class Program(dn.Module):
        async def forward(self):
            return {f"said_{i}": (await dn.Tool(f)({"subject": "s"})).text for i, f in enumerate(both)}

    both = (describe, describe_from_a_thread)
    with dn.hints({inner: "be blue"}):
        with pytest.warns(dn.HiddenPredictorWarning):  # a tool's predictor in a closure
            prediction = asyncio.run(Program()())
    assert list(prediction.values()) == ["be blue", "be blue"]
    assert len(dn.last_run().calls) == 2
    spans = dn.last_run().record.spans
    assert next(spans[c.parent].kind for c in dn.last_run().record.calls) == "tool"


def test_refine_inside_a_tool_has_attempts_of_its_own_and_hints_outside_it_hold():
    inner = dn.Predict(Caption, lm=echo_hint())
    other = dn.Predict(Caption, lm=echo_hint())
    refine = dn.Refine(inner, scores(0, 1, feedback="inner hint"), n=2)

    async def describe(subject: str):
        refined = await refine(subject=subject)
        return [refined.sentence, (await inner(subject=subject)).sentence, (await other(subject=subject)).sentence]

    with dn.hints({inner: "outer hint"}):
        observation = call(describe, {"subject": "s"})
    assert observation.value == ["outer hint\ninner hint", "outer hint", "none"]


def test_after_a_stop_no_tool_starts():
    called = []

    async def main():
        class Program(dn.Module):
            async def forward(self):
                dn.last_run().stop()
                await dn.Tool(called.append, name="note")({"object": 1})

        with pytest.raises(RunStopped):
            await Program()()

    asyncio.run(main())
    assert called == []


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Looker(dn.Module):
    def __init__(self):
        self.predict = dn.Predict("text -> answer")
        self.tool = dn.Tool(self.look)

    async def look(self, text: str):
        return await self.predict(text=text)


def test_a_copied_program_calls_its_own_modules_and_a_plain_function_is_shared():
    program = Looker()
    copied = copy.deepcopy(program)
    assert copied.tool.fn.__self__ is copied
    tool = dn.Tool(weather)
    assert copy.deepcopy(tool) is tool


def test_a_tool_can_be_pickled_where_its_function_can():
    tool = pickle.loads(pickle.dumps(dn.Tool(weather, name="w", limit=7)))
    assert (tool.name, tool.limit, asyncio.run(tool({"city": "Rome"})).value) == ("w", 7, "Rome: sun for 3 days")


def test_predictors_of_a_module_that_is_a_tool_belong_to_the_program():
    class Program(dn.Module):
        def __init__(self):
            self.tools = [dn.Tool(dn.Predict("a -> b"), name="p"), dn.Tool(Looker().look), dn.Tool(weather)]

    assert [path for path, _ in Program().named_predictors()] == ["tools[0]", "tools[1].predict"]


# ── any signature ───────────────────────────────────────────────────────────────────────────────────────────────────

KINDS = {
    "str": (str, st.text(st.characters(codec="utf-8"))),
    "int": (int, st.integers(-(2**53), 2**53)),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "bool": (bool, st.booleans()),
    "list[int]": (list[int], st.lists(st.integers(-9, 9))),
    "dict[str, bool]": (
        dict[str, bool],
        st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.booleans()),
    ),
    "str | None": (str | None, st.none() | st.text(st.characters(codec="utf-8"))),
    "Place": (Place, st.builds(Place, city=st.text(st.characters(codec="utf-8"), max_size=5))),
}
NAMES = st.sampled_from(
    ["a", "b", "schema", "copy", "self_", "_x", "json", "model_fields", "p0", "p1", "type", "kwargs"]
)


@st.composite
def functions(draw):
    """(a function that returns its arguments, arguments for it as Python values)."""
    kinds = draw(st.dictionaries(NAMES, st.sampled_from(sorted(KINDS)), max_size=5))
    optional = draw(st.sets(st.sampled_from(sorted(kinds)))) if kinds else set()
    values = {name: draw(KINDS[kind][1]) for name, kind in kinds.items()}

    def same(**arguments):
        return arguments

    import inspect

    kind = inspect.Parameter.KEYWORD_ONLY
    same.__signature__ = inspect.Signature(
        [inspect.Parameter(n, kind, default=None if n in optional else inspect.Parameter.empty) for n in kinds]
    )
    same.__annotations__ = {name: KINDS[kind][0] for name, kind in kinds.items()}
    return same, values, optional


@given(functions(), st.data())
@settings(max_examples=60, deadline=None)
def test_arguments_written_as_json_arrive_as_they_were_and_the_schema_requires_what_the_function_does(case, data):
    function, values, optional = case
    tool = dn.Tool(function)
    required = [name for name in values if name not in optional]
    assert tool.schema.get("required", []) == required
    assert list(tool.schema["properties"]) == list(values)
    text = json.dumps({n: v.model_dump() if isinstance(v, BaseModel) else v for n, v in values.items()})
    observation = asyncio.run(tool(text))
    assert (observation.value, observation.ok) == (values, True)
    if required:
        missing = data.draw(st.sampled_from(required))
        incomplete = asyncio.run(tool({n: v for n, v in json.loads(text).items() if n != missing}))
        assert f"{missing!r} is missing" in incomplete.text
    assert "no argument 'zzz'" in asyncio.run(tool({**json.loads(text), "zzz": 1})).text


def test_an_observation_reads_as_its_text():
    assert str(Observation("x")) == "x"


@pytest.mark.parametrize(
    ("program", "description"),
    [
        (dn.Predict("question -> answer"), "Given the fields `question`, produce the fields `answer`."),
        (dn.ChainOfThought("question -> answer"), "Reasoning and outputs."),
        (
            dn.Refine(dn.Predict("question -> answer"), lambda row, prediction: 1.0),
            "Make attempts and return the best.",
        ),
        (dn.Predict("question -> answer").then(dn.Predict("answer -> verdict")), "The last step's prediction."),
    ],
)
def test_what_a_model_reads_of_a_program_as_a_tool_stays_so_that_old_replies_are_found(program, description):
    assert dn.Tool(program, name="ask").description == description
