"""A budget of USD is refused when a run starts, if the price of one of its models is unknown."""

from __future__ import annotations

import pytest

import dspynb as dn
from tests.cases.providers import model
from tests.helpers import chat
from tests.lm.server import Server, reply

ROWS = [{"question": f"{number}?", "answer": "4"} for number in range(6)]
PRICED = {"price": {"input": 1.0, "output": 2.0}, "max_tokens": 100}
JUDGED = dn.Predict("question, answer -> grade: float")


@pytest.fixture
def server():
    with Server(lambda body, number: reply(chat(answer="4", reasons="r", score="1", grade="1"))) as running:
        yield running


class Chain(dn.Module):
    """Two predictors, each with a model of its own."""

    def __init__(self, first, second):
        self.first = dn.Predict("question -> answer", lm=first)
        self.second = dn.Predict("answer -> better", lm=second)

    async def forward(self, question):
        draft = await self.first(question=question)
        return await self.second(answer=draft.answer)


def refused(work):
    """The error of work that is refused."""
    with dn.Budget(usd=1), pytest.raises(dn.BudgetExhausted) as caught:
        work()
    return str(caught.value)


def says_what_to_give(message):
    return 'needs the price of openai/m, which is unknown: give the model price={"input"' in message


def test_an_evaluation_is_refused_whose_second_predictor_has_no_price(server):
    program = Chain(model(server, **PRICED), model(server))
    assert says_what_to_give(refused(lambda: dn.Evaluate(lambda row, prediction: 1.0).run_sync(program, ROWS)))
    assert server.bodies == []


@pytest.mark.parametrize("kind", ["llm_judge", "global predictor", "closure", "object"])
def test_an_evaluation_is_refused_whose_judge_has_no_price(server, kind):
    program = dn.Predict("question -> answer", lm=model(server, **PRICED))
    judge = dn.Predict("question, answer -> grade: float", lm=model(server))

    async def in_closure(row, prediction):
        return (await judge(question=row.question, answer=prediction.answer)).grade

    async def with_global(row, prediction):
        return (await JUDGED(question=row.question, answer=prediction.answer)).grade

    class Judge:
        def __init__(self):
            self.ask = judge

        async def __call__(self, row, prediction):
            return (await self.ask(question=row.question, answer=prediction.answer)).grade

    metric = {
        "llm_judge": dn.metrics.llm_judge("It is right.", lm=model(server)),
        "global predictor": with_global,
        "closure": in_closure,
        "object": Judge(),
    }[kind]
    with dn.context(lm=model(server)):
        assert says_what_to_give(refused(lambda: dn.Evaluate(metric).run_sync(program, ROWS)))
    assert server.bodies == []


def test_a_refine_is_refused_whose_advisor_or_reward_has_no_price(server):
    program = dn.Predict("question -> answer", lm=model(server, **PRICED))
    advised = dn.Refine(program, lambda row, prediction: 0.5, n=2, hints="advisor", advisor_lm=model(server))
    rewarded = dn.Refine(program, dn.metrics.llm_judge("It is right.", lm=model(server)), n=2)
    for refine in (advised, rewarded):
        assert says_what_to_give(refused(lambda refine=refine: refine.run_sync(question="2+2?")))
        in_batch = dn.Evaluate(lambda row, prediction: 1.0)
        assert says_what_to_give(refused(lambda refine=refine, plan=in_batch: plan.run_sync(refine, ROWS)))
    assert server.bodies == []


@pytest.mark.parametrize("own", [True, False])
def test_an_optimizer_is_refused_whose_model_of_proposals_has_no_price(server, own):
    program = dn.Predict("question -> answer", lm=model(server, **PRICED))
    settings = {"budget": dn.Budget(usd=1)} if own else {}
    opt = dn.GEPA(dn.metrics.exact_match(), prompt_lm=model(server), **settings)

    def work():
        opt.compile_sync(program, ROWS[:3], val=ROWS[3:])

    if own:
        with pytest.raises(dn.BudgetExhausted, match="needs the price of openai/m"):
            work()
    else:
        assert says_what_to_give(refused(work))
    assert server.bodies == []


def test_a_teacher_without_a_price_is_refused(server):
    program = dn.Predict("question -> answer", lm=model(server, **PRICED))
    opt = dn.BootstrapFewShot(dn.metrics.exact_match(), teacher_lm=model(server), budget=dn.Budget(usd=1))
    with pytest.raises(dn.BudgetExhausted, match="needs the price of openai/m"):
        opt.compile_sync(program, ROWS)
    assert server.bodies == []


def test_a_price_of_zero_is_a_price(server):
    free = model(server, price={"input": 0, "output": 0}, max_tokens=100)
    with dn.Budget(usd=0.01) as meter:
        done = dn.Evaluate(dn.metrics.exact_match()).run_sync(dn.Predict("question -> answer", lm=free), ROWS)
    assert len(done) == len(ROWS)
    assert meter.spent["usd"] == 0


def test_a_model_of_ones_own_that_reports_its_cost_is_not_refused():
    lm = dn.FunctionLM(lambda request: dn.LMReply(chat(answer="4"), usage=dn.Usage(1, 9, 1, usd=0.01)))
    with dn.Budget(usd=1) as meter:
        dn.Evaluate(dn.metrics.exact_match()).run_sync(dn.Predict("question -> answer", lm=lm), ROWS)
    assert meter.spent["usd"] == pytest.approx(0.06)
