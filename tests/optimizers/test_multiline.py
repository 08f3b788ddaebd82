"""Code, YAML and Markdown reach reflection, advice and proposals with their line breaks and indentation."""

from __future__ import annotations

import asyncio

import pytest

import dspynb as dn
from dspynb.modules.excerpts import excerpt, labelled
from tests.helpers import chat, prompt

CODE = "def f(x):\n    if x:\n\treturn 1\n    return {\n        'a':  2,\n    }"
YAML = "steps:\n  - name: test\n    run: |\n      pytest -q\n"
ANSWER = "```python\ndef g(y):\n    return  y\n```"
FEEDBACK = "Fix this:\n\n    return x\n\n- and  this"


optimizer_texts: list[str] = []


@pytest.fixture(autouse=True)
def _no_texts():
    optimizer_texts.clear()


def proposer():
    """A model that answers with every field of all proposals."""
    fields = ("new_instruction", "proposed_instruction", "observations", "summary", "description", "discussion")

    def answer(request):
        optimizer_texts.append(prompt(request))
        return chat(**dict.fromkeys(fields, "Answer well."), advice='{"self": "Answer well."}')

    return dn.FunctionLM(answer)


def half(row, prediction):
    return dn.Score(0.5 if "a" in row.source else 0.0, FEEDBACK)


ROWS = [{"source": CODE, "answer": "1"}, {"source": YAML, "answer": "2"}]


def test_gepa_reflects_on_inputs_answers_and_feedback_as_they_are():
    program = dn.Predict("source -> answer", lm=dn.FunctionLM(lambda request: chat(answer=ANSWER)))
    asyncio.run(dn.GEPA(half, prompt_lm=proposer(), max_steps=2).compile(program, ROWS))
    text = "\n".join(optimizer_texts)
    assert CODE in text
    assert YAML.rstrip() in text
    assert ANSWER in text
    assert FEEDBACK in text


def test_simba_shows_trajectories_as_they_are():
    # Of three samples of a program one is better, so that there is something to learn.
    program = dn.Predict("source -> answer", lm=dn.FunctionLM(lambda r: chat(answer=f"{ANSWER}\n{r.rollout % 2}")))

    def metric(row, prediction):
        return dn.Score(float(prediction.answer[-1] == "1"), FEEDBACK)

    asyncio.run(
        dn.SIMBA(metric, prompt_lm=proposer(), max_steps=1, minibatch_size=2, max_demos=0).compile(program, ROWS)
    )
    text = "\n".join(optimizer_texts)
    assert CODE in text
    assert ANSWER in text


def test_the_advisor_of_a_refine_sees_inputs_and_outputs_as_they_are():
    def answer(request):
        optimizer_texts.append(prompt(request))
        return chat(advice='{"self": "Be brief."}')

    program = dn.Predict("source -> answer", lm=dn.FunctionLM(lambda request: chat(answer=ANSWER)))
    refine = dn.Refine(program, lambda row, prediction: 0.0, n=2, advisor_lm=dn.FunctionLM(answer))
    refine.run_sync(source=CODE)
    assert optimizer_texts[0].count(CODE) == 2  # the inputs, and what the predictor got
    assert ANSWER in optimizer_texts[0]


def test_a_field_after_one_of_several_lines_is_not_read_as_part_of_it():
    def answer(request):
        optimizer_texts.append(prompt(request))
        return chat(advice='{"self": "Be brief."}')

    program = dn.Predict("source, name, count: int -> answer", lm=dn.FunctionLM(lambda request: chat(answer="1")))
    refine = dn.Refine(program, lambda row, prediction: 0.0, n=2, advisor_lm=dn.FunctionLM(answer))
    refine.run_sync(source=CODE, name="f", count=3)
    assert f"source =\n{CODE}\nname = f\ncount = 3\n" in optimizer_texts[0]
    optimizer_texts.clear()
    refine.run_sync(source="x", name="f", count=3)
    assert "source = x; name = f; count = 3\n" in optimizer_texts[0]


def test_an_excerpt_leaves_out_the_middle_and_keeps_lines():
    long = "\n".join(f"    line {i}" for i in range(1000))
    text = excerpt(long, 100)
    assert text.startswith("    line 0\n    line 1\n")
    assert text.endswith("\n    line 999")
    assert len(text) < 150
    assert "characters] …" in text
    assert excerpt(CODE, 2000) == CODE
    assert excerpt("a\r\nb\r\n", 100) == "a\nb"
    assert excerpt(5, 100) == "5"


def test_a_value_of_several_lines_begins_on_a_line_of_its_own():
    assert labelled("code", CODE, 2000) == f"code:\n{CODE}"
    assert labelled("answer", "yes  no", 2000) == "answer: yes  no"
    assert labelled("code", "\n    indented", 2000) == "code:     indented"
