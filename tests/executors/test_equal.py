"""A run on a cluster has the same tables, calls, winners and files as a local run."""

from __future__ import annotations

import asyncio
import inspect
import json
import re

import pandas as pd
import pytest

import dspynb as dn
from dspynb.running.record import RunRecord
from tests.executors.programs import Direct, by_pid, calls_of, program, refined, right, rows, without_times, wordy
from tests.helpers import Caption, chat
from tests.optimizers.worlds import SMALL, World, optimized, outcome, three

run = asyncio.run
same = pd.testing.assert_frame_equal


def test_an_evaluation_has_the_same_table_score_calls_and_file(dask):
    async def main(executor):
        return await dn.evaluate(program(), rows(12, bad=[4]), [right, by_len], executor=executor, repeats=2)

    local, remote = run(main(None)), run(main(dask))
    same(without_times(local.table), without_times(remote.table))
    assert local.score == remote.score
    assert local.scores == remote.scores
    assert calls_of(local.run) == calls_of(remote.run)
    assert local.predictions == remote.predictions
    assert [str(e) for e in local.exceptions] == [str(e) for e in remote.exceptions]
    assert [type(e) for e in local.exceptions] == [type(e) for e in remote.exceptions]
    reopened = dn.open_run(remote.run.path)
    same(without_times(reopened.rollouts), without_times(remote.run.rollouts))
    assert list(dn.history(24)) == remote.run.record.calls


def test_direct_calls_of_a_program_come_back_with_its_others(dask):
    async def main(executor):
        with dn.Budget(calls=100) as meter:
            evaluation = await dn.evaluate(Direct(), rows(6), right, executor=executor)
        return evaluation, meter

    (local, local_meter), (remote, remote_meter) = run(main(None)), run(main(dask))
    assert calls_of(local.run) == calls_of(remote.run)
    assert {call.predictor for call in remote.run.record.calls} == {"lm()", "double"}
    assert local_meter.spent["calls"] == remote_meter.spent["calls"] == 12


def by_len(row, prediction):
    return float(len(prediction.answer))


def test_rollouts_run_in_all_workers_and_not_in_this_process(dask, cluster):
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

    local, remote = run(main(None)), run(main(dask))
    assert shape(local) == shape(remote)
    same(without_times(local.run.attempts), without_times(remote.run.attempts))
    same(without_times(local.run.hints), without_times(remote.run.hints))
    spans = [e.span for e in remote.run.record.events if type(e).__name__ == "PredictorCalled"]
    assert len(set(spans)) == len(spans) == 6 * 4


def test_compare_and_grid_have_the_same_tables(dask):
    programs = {"base": program(), "other": dn.ChainOfThought("question -> answer", lm=dn.FunctionLM(thinking))}

    async def main(executor):
        compared = await dn.compare(programs, rows(8), right, executor=executor)
        ablated = await dn.grid(sampled, {"n": [1, 3]}, rows(6), right, executor=executor)
        return compared, ablated

    for local, remote in zip(run(main(None)), run(main(dask)), strict=True):
        same(without_times(local.table), without_times(remote.table))


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

    local, remote = run(main(None)), run(main(dask))
    assert [str(p) for p in local] == [str(p) for p in remote]
    for local_prediction, remote_prediction in zip(local[:-1], remote[:-1], strict=True):
        assert local_prediction.score == remote_prediction.score
        assert local_prediction.usage.calls == remote_prediction.usage.calls
        assert [c.messages for c in local_prediction.calls] == [c.messages for c in remote_prediction.calls]
        same(without_times(local_prediction.run.attempts), without_times(remote_prediction.run.attempts))
        assert str(local_prediction.run.diff(1, 2)) == str(remote_prediction.run.diff(1, 2))
    assert isinstance(remote[-1], dn.errors.InputError)


QUICK = (dn.BootstrapRandomSearch, dn.MIPROv2, dn.GEPA)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in SMALL],
    ids=lambda kind: kind.__name__,
)
def test_an_optimizer_has_the_same_candidates_scores_and_winner(kind, dask):
    async def main(executor):
        return await optimized(kind, World(), program=three, test=rows_to_test(), executor=executor)

    local, remote = run(main(None)), run(main(dask))
    assert outcome(local) == outcome(remote)
    assert calls_of(local) == calls_of(remote)
    assert remote.status == "finished"


def rows_to_test():
    return [{"question": str(i), "answer": str(2 * i)} for i in range(30, 33)]


def test_code_of_a_notebook_is_sent_with_its_validators_and_types(dask):
    """cloudpickle sends classes and functions of ``__main__`` by value. Objects of them return with the same class."""
    space = {"__name__": "__main__", "dn": dn, "chat": chat}
    exec(compile(NOTEBOOK, "a cell", "exec", dont_inherit=True), space)  # noqa: S102  # as a kernel does

    async def main(executor):
        return await dn.evaluate(
            space["Program"](), [{"question": str(i)} for i in range(4)], space["metric"], executor=executor
        )

    with dn.context(lm=dn.FunctionLM(space["model"])):
        local, remote = run(main(None)), run(main(dask))
    assert local.table.feedback.tolist() == remote.table.feedback.tolist() == ["A0!", "A1!", "A2!", "A3!"]
    assert local.predictions == remote.predictions
    assert type(remote.predictions[0].answer) is space["Answer"]


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


def test_hints_candidates_and_settings_are_in_force_on_workers(dask):
    predict = dn.Predict(Caption)

    async def main(executor):
        with (
            dn.hints("be brief"),
            dn.hints({predict: "mind the gap"}),
            dn.candidate({"self": "Say it."}, of=predict),
            dn.context(lm=dn.FunctionLM(lambda request: chat(sentence=str(hash_free(request)))), adapter="json"),
        ):
            return await dn.evaluate(predict, [{"subject": "x"}], lambda r, p: 1.0, executor=executor)

    local, remote = run(main(None)), run(main(dask))
    (call,) = remote.run.record.calls
    assert call.messages == local.run.record.calls[0].messages
    assert "be brief\nmind the gap" in str(call.hint)
    assert "Say it." in call.messages[0]["content"]


def hash_free(request):
    return '{"sentence": "x"}'


def test_a_trace_has_calls_of_the_program_and_not_of_the_metric(dask):
    judge = dn.Predict("sentence -> verdict", lm=dn.FunctionLM(lambda request: chat(verdict="fine")))

    async def judged(row, prediction):
        await judge(sentence=prediction.answer)
        return 1.0

    async def main(executor):
        with dn.trace() as trace:
            evaluation = await dn.evaluate(program(), rows(2), judged, executor=executor)
        return len(trace), len(evaluation.run.calls), evaluation.usage.calls

    assert run(main(None)) == run(main(dask)) == (2, 4, 2)


def test_run_sync_clients_clusters_and_asynchronous_clients_work(dask, cluster):
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


def test_a_static_view_shows_the_same(dask):
    from dspynb.running.view_hook import static_html

    async def main(executor):
        return await dn.evaluate(refined(), [{"subject": str(i)} for i in range(3)], wordy, executor=executor)

    def normalised(run):
        page = re.sub(r"\d+(\.\d+)? s\b|(?<=number'>)\d+\.\d\d(?=</td>)", "SECONDS", static_html(run))
        table, data = re.search(r"<table.*</table>", page)[0], json.loads(re.search(r"still\('\w+', (.*)\);", page)[1])
        rows = {row.pop("key"): row for row in data["rows"]}  # by numbers of spans
        names = {key: (rows[row["up"]]["label"] if "up" in row else "", row["label"]) for key, row in rows.items()}
        for row in [*rows.values(), data["header"]]:
            for name in ("seconds", "elapsed", "up"):
                row.pop(name, None)
        for block in (block for detail in data["details"].values() for block in detail["blocks"]):
            block["text"] = data["texts"][block["text"]]
        renamed = [{names[key]: value for key, value in of.items()} for of in (rows, data["details"])]
        return table, data["header"], *renamed

    local, remote = run(main(None)), run(main(dask))
    assert normalised(local.run) == normalised(remote.run)
