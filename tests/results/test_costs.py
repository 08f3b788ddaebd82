"""run.costs: what a run cost, by what its calls were for and by model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dspynb as dn
from tests.helpers import Caption, chat, echo_hint, scores

run = asyncio.run
ROWS = [{"question": "2+2?", "answer": "4"}, {"question": "3+1?", "answer": "5"}]


def paid(reply, usd, name="paid", *, tokens=10):
    """A model whose replies cost ``usd`` each. ``reply``: a text, or a function of the request."""
    usage = dn.Usage(calls=1, prompt_tokens=tokens, completion_tokens=1, cached_tokens=2, usd=usd)

    def complete(request):
        return dn.LMReply(reply if isinstance(reply, str) else reply(request), usage=usage)

    return dn.FunctionLM(complete, name=name)


def costs(of, *columns):
    """The rows of a table of costs, as tuples of the role and the columns."""
    return [tuple(row) for row in of.costs[["role", *columns]].itertuples(index=False)]


def small_program(usd=0.01, **settings):
    return dn.Predict("question -> answer", lm=paid(chat(answer="4"), usd, "small"), **settings)


def test_an_evaluation_with_a_judge_shows_what_each_cost():
    judge = dn.metrics.llm_judge("It is right.", lm=paid(chat(reasons="Yes.", score="1"), 0.25, "large", tokens=100))
    result = run(dn.evaluate(small_program(), ROWS, judge))
    frame = result.run.costs
    assert list(frame.columns) == ["role", "model", "calls", "tokens", "cached_tokens", "usd", "seconds"]
    assert costs(result.run, "model", "calls", "tokens", "cached_tokens", "usd") == [
        ("task", "small", 2, 22, 4, 0.02),
        ("judge", "large", 2, 202, 4, 0.5),
    ]
    assert frame.usd.sum() == result.run.usage.usd
    assert (frame.seconds >= 0).all()


def test_a_reward_that_calls_a_model_and_an_advisor_have_roles_of_their_own():
    judge = dn.Predict("sentence -> verdict", lm=paid(chat(verdict="no"), 0.1))

    async def reward(row, prediction):
        return (await judge(sentence=prediction.sentence)).verdict == "yes"

    advisor = paid(chat(advice='{"self": "say blue"}'), 1.0)
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward, n=2, hints="advisor", advisor_lm=advisor)
    prediction = run(refine(subject="x"))
    assert costs(prediction.run, "calls", "usd") == [("task", 2, 0.0), ("judge", 2, 0.2), ("advisor", 1, 1.0)]


def test_a_repair_is_listed_apart_from_the_call_that_it_repairs():
    replies = iter(["nonsense", chat(answer="4")])
    ask = dn.Predict("question -> answer: int", lm=paid(lambda request: next(replies), 0.5), adapter=dn.ChatAdapter())
    ask.adapter.repair = True
    prediction = run(ask(question="2+2?"))
    assert costs(prediction.run, "calls", "usd") == [("task", 1, 0.5), ("repair", 1, 0.5)]


def test_an_optimizer_shows_its_proposals_and_its_teacher():
    writer = paid(chat(proposed_instruction="Be brief.", proposed_prefix="Answer:"), 1.0)
    run(dn.COPRO(dn.metrics.exact_match(), breadth=2, depth=1, prompt_lm=writer).compile(small_program(), ROWS))
    assert [role for role, _ in costs(dn.last_run(), "usd")] == ["task", "proposal"]
    assert "The run cost 1.0" in dn.last_run().summary
    assert "(task 0.0" in dn.last_run().summary
    teacher = paid(chat(answer="4"), 0.5, "teacher")
    run(
        dn.BootstrapFewShot(dn.metrics.exact_match(), teacher_lm=teacher).compile(
            small_program(), ROWS, [{"question": "1+1?", "answer": "2"}]
        )
    )
    by_role = dict(costs(dn.last_run(), "model"))
    assert by_role["teacher"] == "teacher"
    assert by_role["task"] == "small"


def test_the_innermost_block_decides_the_role():
    def advise(request):
        return chat(advice='{"self": "say so"}')

    judge = dn.Refine(
        dn.Predict("a -> b", lm=paid(chat(b="1"), 0.1)),
        scores(0, 0),
        n=2,
        hints="advisor",
        advisor_lm=paid(advise, 1.0),
    )

    async def metric(row, prediction):
        await judge(a="x")
        return 1.0

    result = run(dn.evaluate(small_program(), ROWS[:1], metric))
    assert dict(costs(result.run, "calls")) == {"task": 1, "judge": 2, "advisor": 1}


def test_a_reopened_run_has_the_same_costs_and_calls_of_older_files_have_an_unknown_role():
    judge = dn.metrics.llm_judge("It is right.", lm=paid(chat(reasons="Yes.", score="1"), 0.25))
    result = run(dn.evaluate(small_program(), ROWS, judge))
    path = result.run.path
    reopened = dn.open_run(path)
    assert reopened.costs.equals(result.run.costs)
    assert list(reopened.calls.role) == list(result.run.calls.role)
    assert set(reopened.calls.role) == {"task", "judge"}
    file = Path(path)
    file.write_text(file.read_text().replace(',"role":"task"', "").replace(',"role":"judge"', ""))
    assert costs(dn.open_run(path), "calls") == [("unknown", 2), ("unknown", 2)]


def test_an_unknown_price_is_missing_and_cached_calls_cost_nothing():
    unpriced = dn.FunctionLM(lambda request: dn.LMReply(chat(answer="4"), usage=dn.Usage(1, 5, 5, 0, 0, None)))
    result = run(dn.evaluate(dn.Predict("question -> answer", lm=unpriced), ROWS, dn.metrics.exact_match()))
    frame = result.run.costs
    assert frame.usd.isna().all()
    assert list(frame.calls) == [2]


def test_the_known_costs_are_shown_where_those_of_a_role_are_unknown():
    unpriced = dn.FunctionLM(
        lambda request: dn.LMReply(chat(reasons="Yes.", score="1"), usage=dn.Usage(1, 5, 5, 0, 0, None))
    )
    result = run(dn.evaluate(small_program(0.13), ROWS, dn.metrics.llm_judge("It is right.", lm=unpriced)))
    text = "at least 0.2600 USD (task 0.2600, judge unknown)"
    assert result.run.summary.endswith(f"The run cost {text}.")
    assert text in result.run._repr_html_()
