"""Programs in the shapes of DSPy's tutorials are converted by from_dspy, with their own forward, and run."""

from __future__ import annotations

import asyncio
import json
import warnings

import pytest

import dspynb as dn

pytest.importorskip("dspy")
PNG = "data:image/png;base64,iVBORw0KGgo="
VALUES = {
    "reasoning": "As it says.",
    "response": "Paris",
    "query": "italy capital",
    "new_notes": ["noted"],
    "reactions": ["Fever"],
    "top": ["high fever", "cough"],
    "people": [{"name": "Ada", "role": "author"}],
    "urgent": True,
    "summary": "A letter of Ada.",
    "answer": "4",
    "tool": "get_weather",
    "argument": "Rome",
    "caption": "a cat",
    "fits": True,
    "points": ["one", "two"],
    "text": "A line.",
}


@pytest.fixture(scope="module")
def programs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the libraries that DSPy imports
        from tests.fixtures import dspy_programs

        return dspy_programs


def reply(request):
    """One value for each output that the prompt asks for; an agent calls the weather tool, and then finishes."""
    text = "\n".join(str(message["content"]) for message in request.messages)
    output_text = text.rpartition("Respond with")[2]
    values = dict(VALUES)
    if "[[ ## next_tool_name ## ]]" in output_text:
        is_first = "It is sunny" not in text
        values["next_thought"] = "Look."
        values["next_tool_name"] = "get_weather" if is_first else "finish"
        values["next_tool_args"] = {"city": "Rome"} if is_first else {}
    fields = {name: value for name, value in values.items() if f"[[ ## {name} ## ]]" in output_text}
    return "\n".join(
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in fields.items()
    )


RUNS = [
    ("RAG", (), {"question": "capital france"}, {"response": "Paris"}),
    (
        "MultiHop",
        (),
        {"claim": "capital rome"},
        {"notes": ["noted", "noted"], "titles": ["capital rome", "italy capital"]},
    ),
    ("ManyLabels", (["high fever", "cough"],), {"text": "hot; cold"}, {"reactions": ["high fever", "cough"]}),
    ("Extraction", (), {"letter": "Dear"}, {"summary": "A letter of Ada."}),
    ("Math", (), {"problem": "2+2"}, {"answer": 4.0, "best": 4.0}),
    ("Agent", (), {"question": "Weather?"}, {"answer": "4"}),
    ("Tools", (), {"question": "Weather?", "style": "long"}, {"answer": "4"}),
    ("Chat", (), {"questions": ["a", "b"]}, {"answer": "4", "turns": 2}),
    ("Pictures", (), {"picture": None, "wish": "a cat"}, {"caption": "a cat"}),
    ("Streaming", (), {"topic": "lines"}, {"text": "A line.\nA line."}),
]


@pytest.mark.parametrize(("name", "arguments", "inputs", "expected"), RUNS, ids=[run[0] for run in RUNS])
def test_a_program_in_the_shape_of_a_tutorial_is_converted_and_gives_the_same_outputs(
    programs, name, arguments, inputs, expected, capsys
):
    program = dn.from_dspy(getattr(programs, name)(*arguments))
    if "picture" in inputs:
        inputs = {**inputs, "picture": dn.Image(PNG)}
    with dn.context(lm=dn.FunctionLM(reply)):
        prediction = program.run_sync(**inputs)
    assert {key: prediction[key] for key in expected} == expected
    source = capsys.readouterr().out
    assert f"class {name}(dn.Module):" in source
    assert "async def forward(" in source
    compile(source, "the source that is shown", "exec")


def test_the_source_that_is_shown_runs_in_a_cell_and_keeps_comments(programs, capsys):
    source = dn.from_dspy(programs.MultiHop)
    assert capsys.readouterr().out == ""
    assert "# the first query is the claim" in source
    assert repr(source) == str(source)
    cell = {"search": programs.search}
    exec(source, cell)  # noqa: S102  # as a user runs a cell
    with dn.context(lm=dn.FunctionLM(reply)):
        assert cell["MultiHop"](num_hops=1).run_sync(claim="rome").notes == ["noted"]


def test_streams_come_from_the_predictors_of_the_converted_program(programs):
    program = dn.from_dspy(programs.Streaming(), show=False)

    async def pieces():
        with dn.context(lm=dn.FunctionLM(reply)):
            return [piece async for piece in program.write.stream(topic="lines", point="one")]

    assert asyncio.run(pieces())
