"""The usage of a prediction is that of all calls inside it, at every depth."""

from __future__ import annotations

import asyncio
import threading

import pytest

import dspynb as dn


class TokenLM:
    """Answers every request for ten tokens and 0.01 USD."""

    async def complete(self, request):
        usage = dn.Usage(calls=1, prompt_tokens=8, completion_tokens=2, usd=0.01)
        return dn.LMReply("answer: 4\nplan: add", usage=usage)


def predict(signature="question -> answer"):
    return dn.Predict(signature, lm=TokenLM())


class Two(dn.Module):
    """Two predictors in a row; returns the prediction of the last one, or something else made of it."""

    def __init__(self, result="prediction"):
        self.plan, self.answer, self.result = predict("question -> plan"), predict("plan -> answer"), result

    async def forward(self, question):
        plan = await self.plan(question=question)
        answer = await self.answer(plan=plan.plan)
        assert answer.usage.calls == 1
        results = {"prediction": answer, "dict": answer.to_dict(), "new": dn.Prediction(answer=answer.answer)}
        return results[self.result]


class Outer(dn.Module):
    """A program of programs; remembers what the inner ones cost when it saw them."""

    def __init__(self, *inner):
        self.inner, self.usages = list(inner), []

    async def forward(self, question):
        predictions = [await program(question=question) for program in self.inner]
        self.usages.append([prediction.usage.calls for prediction in predictions])
        return predictions[-1]


class Gathered(Outer):
    async def forward(self, question):
        predictions = await asyncio.gather(*(program(question=question) for program in self.inner))
        self.usages.append([prediction.usage.calls for prediction in predictions])
        return {"answer": predictions[0].answer}


ROWS = [{"question": "2+2?", "answer": "4"}, {"question": "1+3?", "answer": "4"}]


@pytest.mark.parametrize("result", ["prediction", "dict", "new"])
def test_a_module_of_two_predictors_costs_two_calls_whatever_its_forward_returns(result):
    prediction = Two(result).run_sync(question="2+2?")
    assert (prediction.usage.calls, prediction.usage.tokens, prediction.usage.usd) == (2, 20, 0.02)
    assert [call.predictor for call in prediction.calls] == ["plan", "answer"]


@pytest.mark.parametrize("result", ["prediction", "dict", "new"])
def test_a_batch_an_evaluation_and_its_metric_see_all_calls_of_a_row(result):
    program, usages = Two(result), []

    def metric(row, prediction):
        usages.append(prediction.usage.tokens)
        return prediction.answer == row.answer

    assert [p.usage.calls for p in dn.run_sync(lambda: program.batch(ROWS))] == [2, 2]
    evaluation = dn.Evaluate(metric).run_sync(program, ROWS)
    assert [p.usage.calls for p in evaluation.predictions] == [2, 2]
    assert usages == [20, 20]
    assert evaluation.table.tokens.tolist() == [20, 20]


def test_each_program_inside_another_has_its_own_usage():
    outer = Outer(Two(), predict(), Two("dict"))
    assert outer.run_sync(question="2+2?").usage.calls == 5
    assert outer.usages == [[2, 1, 2]]
    nested = Outer(outer, predict())
    assert nested.run_sync(question="2+2?").usage.calls == 6
    assert nested.usages == [[5, 1]]


def test_concurrent_programs_do_not_count_each_others_calls():
    program = Gathered(Two(), predict(), Two("dict"))
    predictions = dn.run_sync(lambda: program.batch(ROWS * 10))
    assert [p.usage.calls for p in predictions] == [5] * 20
    assert program.usages == [[2, 1, 2]] * 20


def test_a_prediction_that_forward_stores_is_not_changed_by_the_module_around_it():
    class Keeps(dn.Module):
        def __init__(self):
            self.predict, self.last = predict(), None

        async def forward(self, question):
            await self.predict(question=question)
            self.last = await self.predict(question=question)
            return self.last

    program = Keeps()
    assert program.run_sync(question="2+2?").usage.calls == 2
    assert program.last.usage.calls == 1


@pytest.mark.parametrize("search", [dn.BestOfN, dn.Refine])
def test_a_search_costs_all_its_attempts_and_the_calls_of_its_reward(search):
    judge = predict()

    async def reward(row, prediction):
        await judge(question="good?")
        return dn.Score(0.5, "Add again.")

    program = search(predict(), reward, n=3)
    assert program.run_sync(question="2+2?").usage.calls == 6
    outer = Outer(program, predict())
    assert outer.run_sync(question="2+2?").usage.calls == 7
    assert outer.usages == [[6, 1]]


def test_a_refine_costs_the_calls_of_its_advisor():
    replies = dn.FunctionLM(
        lambda request: '[[ ## advice ## ]]\n{"self": "Add."}' if "advice" in str(request) else "answer: 5"
    )
    refine = dn.Refine(dn.Predict("question -> answer"), lambda row, prediction: 0.0, n=2)
    with dn.context(lm=replies):
        assert refine.run_sync(question="2+2?").usage.calls == 3


def test_a_stopped_search_knows_what_it_has_spent():
    async def answer(request):
        await asyncio.sleep(60 * request.rollout)
        return "answer: 4"

    best = dn.BestOfN(Outer(*[dn.Predict("question -> answer", lm=dn.FunctionLM(answer))] * 2), lambda r, p: 0.5)

    async def main():
        run = best.start(question="2+2?")
        while run.best is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        run.stop()
        return await run

    assert dn.run_sync(main).usage.calls == 3  # the third was sent, and cancelled by the stop


def test_calls_in_tasks_and_carried_threads_of_a_program_count():
    class Threads(dn.Module):
        def __init__(self):
            self.predict = predict()

        async def forward(self, question):
            task = asyncio.create_task(self.predict(question=question))
            in_thread = dn.carry(lambda: asyncio.run(self.predict(question=question)))
            thread = threading.Thread(target=in_thread)
            thread.start()
            await asyncio.to_thread(thread.join)
            return await task

    assert Threads().run_sync(question="2+2?").usage.calls == 2


@pytest.mark.parametrize(
    ("program", "calls"),
    [
        (dn.ChainOfThought("question -> answer"), 1),
        (dn.Predict("question -> plan").then(dn.Predict("plan -> answer")), 2),
        (dn.Predict("question -> answer").map(lambda prediction: {"answer": "5"}), 1),
        (dn.MultiChainComparison("question -> answer", m=3), 4),
    ],
)
def test_the_modules_of_the_library_count_all_their_calls_in_a_batch(program, calls):
    lm = dn.FunctionLM(
        lambda request: dn.LMReply("reasoning: r\nrationale: r\nplan: add\nanswer: 4", usage=dn.Usage(1, 8, 2))
    )
    with dn.context(lm=lm):
        predictions = dn.run_sync(lambda: program.batch(ROWS))
    assert [p.usage.calls for p in predictions] == [calls, calls]


def test_the_calls_of_a_judge_are_counted_in_a_line_of_their_own():
    judge = predict()

    async def judged(row, prediction):
        await judge(question="good?")
        await judge(question="sure?")
        return 1.0

    evaluation = dn.Evaluate(judged).run_sync(Two(), ROWS)
    assert (evaluation.usage.calls, evaluation.metric_usage.calls, evaluation.run.usage.calls) == (4, 4, 8)
    assert [p.usage.calls for p in evaluation.predictions] == [2, 2]
    assert evaluation.summary().endswith("4 calls, 40 tokens, $0.0400; metrics: 4 calls, 40 tokens, $0.0400")
    resumed = dn.run_sync(lambda: dn.Evaluate(judged).resume(evaluation.run.id, Two(), ROWS))
    assert (resumed.usage.calls, resumed.metric_usage.calls) == (4, 4)
    assert "metrics" not in dn.Evaluate(lambda row, prediction: 1.0).run_sync(Two(), ROWS).summary()


class Starting(dn.Module):
    """Calls its predictor, or a search, as a run of its own."""

    def __init__(self):
        self.ask, self.best = predict(), dn.BestOfN(predict(), lambda row, prediction: 0.5, n=2)

    async def forward(self, question):
        await self.best.start(question=question)
        return await self.ask.start(question=question)


def test_what_a_program_starts_as_runs_of_their_own_counts_in_its_usage_its_rows_and_the_search_around_it():
    assert Starting().run_sync(question="2+2?").usage.calls == 3
    assert dn.BestOfN(Starting(), lambda row, prediction: 0.5, n=2).run_sync(question="2+2?").usage.calls == 6
    evaluation = dn.run_sync(lambda: dn.evaluate(Starting(), ROWS, lambda row, prediction: 1.0))
    assert evaluation.run.rollouts.tokens.tolist() == [30, 30]
    assert evaluation.run.rollouts.attempts.tolist() == [2, 2]


def test_calls_in_runs_that_a_program_starts_become_demos():
    optimizer = dn.BootstrapFewShot(metric=lambda row, prediction: 1.0)
    learned = dn.run_sync(lambda: optimizer.compile(Starting(), train=ROWS))
    assert [len(predictor.demos) for _, predictor in learned.named_predictors()] == [2, 2]


def test_the_forward_of_a_search_called_by_itself_has_the_usage_of_all_attempts():
    best = dn.BestOfN(predict(), lambda row, prediction: 0.5, n=3)
    assert dn.run_sync(lambda: best.forward(question="2+2?")).usage.calls == 3
