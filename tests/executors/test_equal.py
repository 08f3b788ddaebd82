"""A run on a cluster comes to what the local one comes to: tables, calls, winners, files."""

from __future__ import annotations

import asyncio
import inspect
import json
import re

import pandas as pd
import pytest

import dspynb as dn
from dspynb.running.record import RunRecord
from tests.executors.programs import by_pid, known, program, refined, right, rows, told, wordy
from tests.helpers import Caption, chat
from tests.optimizers.worlds import SMALL, World, optimized, outcome, three

run = asyncio.run
same = pd.testing.assert_frame_equal


def test_an_evaluation_has_the_same_table_score_calls_and_file(dask):
    async def main(executor):
        return await dn.evaluate(program(), rows(12, bad=[4]), [right, by_len], executor=executor, repeats=2)

    here, there = run(main(None)), run(main(dask))
    same(known(here.table), known(there.table))
    assert here.score == there.score
    assert here.scores == there.scores
    assert told(here.run) == told(there.run)
    assert here.predictions == there.predictions
    assert [str(e) for e in here.exceptions] == [str(e) for e in there.exceptions]
    assert [type(e) for e in here.exceptions] == [type(e) for e in there.exceptions]
    reopened = dn.open_run(there.run.path)
    same(known(reopened.rollouts), known(there.run.rollouts))
    assert list(dn.history(24)) == there.run.record.calls


def by_len(row, prediction):
    return float(len(prediction.answer))


def test_rollouts_run_in_all_workers_and_in_no_thread_of_this_process(dask, cluster):
    async def main():
        return await dn.evaluate(program(), rows(24), by_pid, executor=dask)

    pids = {int(pid) for pid in run(main()).table.feedback}
    assert pids == {worker.process.process.pid for worker in cluster.workers.values()}


def test_spans_are_one_tree_with_numbers_of_this_process(dask):
    async def main(executor):
        return await dn.evaluate(refined(), [{"subject": str(i)} for i in range(6)], wordy, executor=executor)

    def shape(evaluation):
        record = RunRecord(evaluation.run.record.events)
        depth = {span: len(list(record.ancestors(span))) for span in [*record.spans, *record.attempts]}
        assert all(record.ancestors(span) for span in record.spans)
        return sorted(depth.values())

    here, there = run(main(None)), run(main(dask))
    assert shape(here) == shape(there)
    same(known(here.run.attempts), known(there.run.attempts))
    same(known(here.run.hints), known(there.run.hints))
    spans = [e.span for e in there.run.record.events if type(e).__name__ == "PredictorCalled"]
    assert len(set(spans)) == len(spans) == 6 * 4


def test_compare_and_grid_have_the_same_tables(dask):
    programs = {"base": program(), "other": dn.ChainOfThought("question -> answer", lm=dn.FunctionLM(thinking))}

    async def main(executor):
        compared = await dn.compare(programs, rows(8), right, executor=executor)
        ablated = await dn.grid(sampled, {"n": [1, 3]}, rows(6), right, executor=executor)
        return compared, ablated

    for here, there in zip(run(main(None)), run(main(dask)), strict=True):
        same(known(here.table), known(there.table))


def thinking(request):
    question = int(request.messages[-1]["content"].split("[[ ## question ## ]]\n")[1].split("\n")[0])
    return chat(reasoning="twice", answer=str(2 * question + 1))


def sampled(n):
    return dn.BestOfN(dn.Predict("question -> answer", lm=dn.FunctionLM(guessing)), rewarded, n=n)


def guessing(request):
    question = int(request.messages[-1]["content"].split("[[ ## question ## ]]\n")[1].split("\n")[0])
    return chat(answer=str(2 * question + (question + request.rollout) % 3))


def rewarded(row, prediction):
    return float(int(prediction.answer) == 2 * int(row.question))


def test_refine_in_a_batch_has_the_same_predictions_attempts_and_errors(dask):
    subjects = [{"subject": f"s{i}"} for i in range(6)] + [{"nothing": 1}]

    async def main(executor):
        return await refined().batch(subjects, executor=executor)

    here, there = run(main(None)), run(main(dask))
    assert [str(p) for p in here] == [str(p) for p in there]
    for mine, theirs in zip(here[:-1], there[:-1], strict=True):
        assert (mine.score, mine.usage.calls) == (theirs.score, theirs.usage.calls)
        assert [c.messages for c in mine.calls] == [c.messages for c in theirs.calls]
        same(known(mine.run.attempts), known(theirs.run.attempts))
        assert str(mine.run.diff(1, 2)) == str(theirs.run.diff(1, 2))
    assert isinstance(there[-1], dn.errors.InputError)


QUICK = (dn.BootstrapRandomSearch, dn.MIPROv2, dn.GEPA)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in SMALL],
    ids=lambda kind: kind.__name__,
)
def test_an_optimizer_comes_to_the_same_candidates_scores_and_winner(kind, dask):
    async def main(executor):
        return await optimized(kind, World(), program=three, test=rows_to_test(), executor=executor)

    here, there = run(main(None)), run(main(dask))
    assert outcome(here) == outcome(there)
    assert told(here) == told(there)
    assert there.status == "finished"


def rows_to_test():
    return [{"question": str(i), "answer": str(2 * i)} for i in range(30, 33)]


def test_what_stands_in_a_notebook_travels_with_its_validators_and_types(dask):
    """As cloudpickle has it: classes and functions of ``__main__`` by value, and the same class when they come back."""
    space = {"__name__": "__main__", "dn": dn, "chat": chat}
    exec(compile(NOTEBOOK, "a cell", "exec", dont_inherit=True), space)  # noqa: S102  # as a kernel does

    async def main(executor):
        return await dn.evaluate(
            space["Program"](), [{"question": str(i)} for i in range(4)], space["metric"], executor=executor
        )

    with dn.context(lm=dn.FunctionLM(space["model"])):
        here, there = run(main(None)), run(main(dask))
    assert here.table.feedback.tolist() == there.table.feedback.tolist() == ["A0!", "A1!", "A2!", "A3!"]
    assert here.predictions == there.predictions
    assert type(there.predictions[0].answer) is space["Answer"]


NOTEBOOK = '''
import pydantic

class Answer(pydantic.BaseModel):
    text: str

class Ask(dn.Signature):
    """Answer."""

    question: str = dn.Input()
    answer: Answer = dn.Output()

    @pydantic.field_validator("answer")
    @classmethod
    def loud(cls, value):
        return Answer(text=value.text.upper())

class Program(dn.Module):
    def __init__(self):
        self.ask = dn.Predict(Ask)

    async def forward(self, question):
        return await self.ask(question=question)

def model(request):
    question = request.messages[-1]["content"].split("[[ ## question ## ]]\\n")[1].split("\\n")[0]
    return chat(answer='{"text": "a%s"}' % question)

mark = "!"
metric = lambda row, prediction: dn.Score(1.0, prediction.answer.text + mark)
'''


def test_hints_candidates_and_settings_in_force_are_in_force_there(dask):
    predict = dn.Predict(Caption)

    async def main(executor):
        with (
            dn.hints("be brief"),
            dn.hints({predict: "mind the gap"}),
            dn.candidate({"self": "Say it."}, of=predict),
            dn.context(lm=dn.FunctionLM(lambda request: chat(sentence=str(hash_free(request)))), adapter="json"),
        ):
            return await dn.evaluate(predict, [{"subject": "x"}], lambda r, p: 1.0, executor=executor)

    here, there = run(main(None)), run(main(dask))
    (call,) = there.run.record.calls
    assert call.messages == here.run.record.calls[0].messages
    assert "be brief\nmind the gap" in str(call.hint)
    assert "Say it." in call.messages[0]["content"]


def hash_free(request):
    return '{"sentence": "x"}'


def test_a_trace_hears_the_program_and_not_the_metric(dask):
    judge = dn.Predict("sentence -> verdict", lm=dn.FunctionLM(lambda request: chat(verdict="fine")))

    async def judged(row, prediction):
        await judge(sentence=prediction.answer)
        return 1.0

    async def main(executor):
        with dn.trace() as trace:
            evaluation = await dn.evaluate(program(), rows(2), judged, executor=executor)
        return len(trace), len(evaluation.run.calls), evaluation.usage.calls

    assert run(main(None)) == run(main(dask)) == (2, 4, 2)


def test_it_works_from_run_sync_with_a_client_a_cluster_and_an_asynchronous_client(dask, cluster):
    from distributed import Client

    assert dn.Evaluate(right, executor=dask).run_sync(program(), rows(4)).score.mean > 0
    with Client(cluster, set_as_default=False) as client:
        assert dn.Evaluate(right, executor=dn.DaskExecutor(client)).run_sync(program(), rows(4)).score.mean > 0

    async def main():
        async with Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            return await dn.evaluate(program(), rows(4), right, executor=dn.DaskExecutor(client))

    assert run(main()).score.mean > 0


def test_a_local_run_is_not_wrapped():
    from dspynb.evaluation.rollouts import rollouts_on, run_rollout
    from dspynb.running.executor import elsewhere

    assert rollouts_on(None) is run_rollout
    assert elsewhere(None, run_rollout) is run_rollout
    assert inspect.iscoroutinefunction(run_rollout)


def test_a_view_shows_the_same(dask):
    from dspynb.running.view_hook import static_html

    async def main(executor):
        return await dn.evaluate(refined(), [{"subject": str(i)} for i in range(3)], wordy, executor=executor)

    def shown(run):
        page = re.sub(r"\d+(\.\d+)? s\b|(?<=number'>)\d+\.\d\d(?=</td>)", "SECONDS", static_html(run))
        table, data = re.search(r"<table.*</table>", page)[0], json.loads(re.search(r"still\('\w+', (.*)\);", page)[1])
        rows = {row.pop("key"): row for row in data["rows"]}  # by numbers of spans
        names = {key: (rows[row["up"]]["label"] if "up" in row else "", row["label"]) for key, row in rows.items()}
        for row in [*rows.values(), data["header"]]:
            for name in ("seconds", "elapsed", "up"):
                row.pop(name, None)
        for block in (block for detail in data["details"].values() for block in detail["blocks"]):
            block["text"] = data["texts"][block["text"]]
        told = [{names[key]: value for key, value in of.items()} for of in (rows, data["details"])]
        return table, data["header"], *told

    here, there = run(main(None)), run(main(dask))
    assert shown(here.run) == shown(there.run)
