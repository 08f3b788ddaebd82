"""Evaluate: rows in, a table and a score out, whatever fails, stops or runs out on the way."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import dspynb as dn
from dspynb.errors import (
    BudgetExhausted,
    ConfigurationError,
    InputError,
    ParseError,
    RewardError,
    RunInterrupted,
    RunStopped,
)
from dspynb.redact import keep_secret
from dspynb.running.tables.statistics import mean_interval
from tests.evaluation.programs import doubling, frame, late, program, right, rows_ended
from tests.helpers import Caption, chat, field, journal, prompt

COLUMNS = ["question", "expected_answer", "predicted_answer", "score", "feedback", "error", "attempts", "tokens"]
COLUMNS += ["usd", "seconds", "waited", "cached"]


def evaluated(rows, metric=right, prog=None, **kwargs):
    return dn.Evaluate(metric, **kwargs).run_sync(prog or program(), rows)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_frame_gives_a_table_with_its_index_and_a_score_with_an_interval():
    evaluation = evaluated(frame(4, wrong={1}))
    assert evaluation.table.columns.tolist() == COLUMNS
    assert evaluation.table.index.tolist() == ["r0", "r1", "r2", "r3"]
    assert evaluation.table.predicted_answer.tolist() == ["0", "2", "4", "6"]
    assert evaluation.table.score.tolist() == [1, 0, 1, 1]
    assert evaluation.table.feedback[1:2].tolist() == ["expected ?"]
    assert evaluation.score == mean_interval([1, 0, 1, 1])
    assert float(evaluation) == float(evaluation.score) == 0.75
    assert (len(evaluation), evaluation.total, evaluation.usage.calls) == (4, 4, 4)
    assert [p.answer for p in evaluation.predictions] == ["0", "2", "4", "6"]
    assert evaluation.exceptions == [None] * 4
    assert evaluation.run.status == "finished"


def test_dicts_and_examples_give_the_same_table_as_the_frame():
    records = frame(3).to_dict("records")
    expected = evaluated(frame(3).reset_index(drop=True)).table.drop(columns="seconds")
    for rows in (records, [dn.Example(r) for r in records], (r for r in records)):
        pd.testing.assert_frame_equal(evaluated(rows).table.drop(columns="seconds"), expected, check_index_type=False)


def test_a_metric_sees_labels_and_the_program_only_its_inputs():
    received = []

    class Echo(dn.Module):
        async def forward(self, **inputs):
            received.append(inputs)
            return inputs

    rows = [{"a": 1, "b": 2, "label": 3}]
    metric = lambda row, p: row.label  # noqa: E731
    evaluated(rows, metric, Echo())
    evaluated(rows, metric, Echo(), inputs=["b"])
    evaluated([dn.Example(rows[0]).with_inputs("a")], metric, Echo())
    evaluated([dn.Example(rows[0]).with_inputs("a")], metric, Echo(), inputs=("a", "b"))
    assert received == [rows[0], {"b": 2}, {"a": 1}, {"a": 1, "b": 2}]


def test_rows_that_do_not_fit_are_refused_before_anything_is_run():
    calls = []
    prog = program(calls=calls)
    for rows, kwargs, message in (
        (frame(2).rename(columns={"question": "questions"}), {}, "no 'question', which .*Did you mean 'questions'"),
        (frame(2), {"inputs": ["qestion"]}, "takes no input 'qestion'. Did you mean 'question'"),
        (frame(2), {"inputs": []}, "takes 'question', which is not among the inputs"),
        ([dn.Example(question="1", answer="2").with_inputs("answer")], {}, "takes no input 'answer'"),
        (frame(0), {}, "there are no rows"),
        ([], {}, "there are no rows"),
        ([1], {}, "row 0 is int"),
        ("rows", {}, "rows must be a DataFrame"),
        (pd.concat([frame(1), frame(1)], axis=1), {}, "two columns 'question'"),
        (pd.DataFrame([["2+2?", 1, 2]], columns=["question", "", ""]), {}, "two columns ''"),
    ):
        with pytest.raises(InputError, match=message):
            evaluated(rows, prog=prog, **kwargs)
    with pytest.raises(InputError, match=r"dn\.Module such as dn\.Predict"):
        asyncio.run(dn.evaluate("program", frame(1), right))
    assert calls == []


@pytest.mark.parametrize(
    ("metric", "kwargs", "message"),
    [
        (right, {"repeats": 0}, "repeats must be a whole number of at least 1"),
        (right, {"repeats": True}, "repeats must be"),
        (right, {"max_errors": -1}, "max_errors must be a whole number of at least 0"),
        (right, {"failure_score": math.nan}, "failure_score must be a finite number"),
        (right, {"failure_score": math.inf}, "failure_score must be a finite number"),
        (right, {"budget": 3}, "budget must be a dn.Budget, or None, got 3"),
        (right, {"concurrency": 0}, "concurrency must be"),
        (right, {"inputs": "question"}, r"inputs must be a list of column names, as in \['question'\]"),
        ("exact", {}, "metric must be a function"),
        ([], {}, "at least one metric"),
        ([right, right], {}, "two metrics have the same name"),
    ],
)
def test_settings_out_of_range_are_refused(metric, kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        evaluated(frame(1), metric, **kwargs)


def test_a_cell_that_is_not_a_valid_input_fails_only_its_row():
    rows = frame(4)
    rows["question"] = ["0", math.nan, None, 3]
    evaluation = evaluated(rows)
    assert evaluation.table.score.tolist()[0] == 1
    assert evaluation.errors.index.tolist() == ["r1", "r2", "r3"][: len(evaluation.errors)]
    assert evaluation.table.error.notna().tolist()[1:3] == [True, True]
    assert "question" in evaluation.errors.error.iloc[0]


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["same"] * 3, name="who"),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", "y"]),
        pd.date_range("2024-01-01", periods=3, tz="UTC"),
        pd.Index([2, "two", None]),
    ],
    ids=["duplicate", "multi", "dates", "mixed"],
)
def test_the_table_has_the_index_of_the_frame(index):
    evaluation = evaluated(frame(3).set_axis(index))
    assert evaluation.table.index.equals(index)
    assert evaluation.table.index.names == index.names
    assert evaluation.by_row.index.equals(index)


def test_values_that_are_not_json_are_converted_in_the_table():
    rows = [
        {
            "question": "1",
            "when": datetime.date(2024, 5, 1),
            "set": {3},
            "what": object,
            "deep": {"x": (1, np.int64(2))},
        },
        {"question": "2", "when": pd.Timestamp("2024-05-01"), "array": np.arange(2)},
    ]
    evaluation = evaluated(rows, lambda r, p: 1)
    assert evaluation.table.when[0] == "2024-05-01"
    assert evaluation.table.deep[0] == {"x": [1, 2]}
    assert evaluation.table.array[0] is None
    json.dumps(evaluation.table.drop(columns="array").to_dict("records"))
    reopened = dn.open_run(evaluation.run.id).rollouts
    assert reopened.when.tolist() == evaluation.table.when.tolist()


def test_columns_with_the_same_name_are_renamed_and_none_is_lost():
    class Named(dn.Module):
        async def forward(self, question):
            return {"answer": "out", "score": "so", "error": 5}

    rows = [{"question": "q", "answer": "label", "expected_answer": "x", "seconds": 9, "usd": "$", "repeat": 1}]
    metrics = {"m": lambda r, p: dn.Score(0.5, parts={"answer": 0.1, "part": 0.2}), "part": lambda r, p: 1}
    row = evaluated(rows, metrics, Named()).table.iloc[0].to_dict()
    expected = {"question": "q", "expected_expected_answer": "label", "expected_answer": "x", "expected_seconds": 9}
    expected |= {"expected_usd": "$", "expected_repeat": 1, "predicted_answer": "out", "predicted_score": "so"}
    expected |= {"predicted_error": 5, "answer": 0.1, "part": 0.2, "metric_part": 1.0, "score": 0.5}
    assert {name: row[name] for name in expected} == expected
    assert len(row) == len(expected) + 8


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────────
async def later(row, prediction):
    await asyncio.sleep(0)
    return row.answer == prediction.answer


@pytest.mark.parametrize(
    ("metric", "score"),
    [(right, 1), (later, 1), (lambda r, p: True, 1), (lambda r, p: np.float32(0.5), 0.5), (lambda r, p: -3, -3)],
)
def test_a_metric_may_be_async_and_give_a_bool_a_number_or_a_score(metric, score):
    assert evaluated(frame(2), metric).table.score.tolist() == [score, score]


def test_a_metric_that_names_trace_gets_the_calls_of_its_row():
    def metric(row, prediction, trace):
        (call,) = trace
        assert call.inputs == {"question": row.question}
        return len(call.messages)

    assert evaluated(frame(5), metric, program(late())).table.error.isna().all()


def test_calls_of_a_judge_are_not_in_the_trace_or_usage_of_the_program():
    judge = dn.Predict("answer -> ok: bool", lm=dn.FunctionLM(lambda r: chat(ok="yes")))

    async def judged(row, prediction):
        return (await judge(answer=prediction.answer)).ok

    evaluation = evaluated(frame(2), {"judged": judged, "calls": lambda r, p, trace: len(trace)})
    assert evaluation.usage.calls == 2
    assert evaluation.table.calls.tolist() == [1, 1]
    assert len(evaluation.run.calls) == 4


def test_rows_whose_metric_fails_are_errors_and_zeros_are_not():
    def lazy(row, prediction):
        values = {"0": 1.0, "1": math.nan, "2": None, "3": "yes", "4": 0.0, "5": math.inf}
        if row.question == "6":
            raise KeyError("no such label")
        return values[row.question]

    evaluation = evaluated(frame(7), lazy, failure_score=-1)
    assert evaluation.table.score.tolist() == [1, -1, -1, -1, 0, -1, -1]
    assert evaluation.errors.index.tolist() == ["r1", "r2", "r3", "r5", "r6"]
    assert evaluation.table.error.iloc[6].startswith("RewardError: the metric lazy raised KeyError")
    assert float(evaluation) == pytest.approx(-4 / 7)
    assert isinstance(evaluation.exceptions[1], RewardError)
    assert evaluation.predictions[1].answer == "2"
    assert "5 failed, counted as -1" in repr(evaluation)


def test_several_metrics_are_scored_together_and_the_first_is_the_score():
    def length(row, prediction):
        return dn.Score(len(prediction.answer), parts={"chars": 1.0})

    evaluation = evaluated(frame(12), {"length": length, "right": right, "half": lambda r, p: 0.5})
    assert evaluation.table.score.tolist() == evaluation.table.apply(lambda r: len(r.predicted_answer), axis=1).tolist()
    assert evaluation.table["right"].tolist() == [1.0] * 12
    assert {name: s.mean for name, s in evaluation.scores.items()} == {"length": 19 / 12, "right": 1.0, "half": 0.5}
    listed = evaluated(frame(3), [right, length])
    assert (listed.metrics, float(listed)) == (["right", "length"], 1.0)
    assert listed.table.length.tolist() == [1, 1, 1]
    failing = evaluated(frame(2), {"right": right, "no": lambda r, p: None}, failure_score=0.25)
    assert failing.table.score.tolist() == [0.25, 0.25]
    assert {name: s.mean for name, s in failing.scores.items()} == {"right": 0.25, "no": 0.25}


def test_a_program_that_fails_keeps_its_row_with_its_error():
    rows = frame(5)
    rows.loc["r2", "question"] = "bad"
    evaluation = evaluated(rows)
    assert evaluation.errors.error.tolist() == ["ServerError: the provider fell over"]
    assert evaluation.table.predicted_answer.tolist()[2] is None
    assert evaluation.predictions[2] is None
    parse = evaluated(frame(1), prog=dn.Predict("question -> answer", lm=dn.FunctionLM(lambda r: "")))
    assert isinstance(parse.exceptions[0], ParseError)
    assert parse.table.tokens.tolist() == [0]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_order_and_index_do_not_depend_on_latencies(seed, concurrency):
    evaluation = evaluated(frame(25), prog=program(late(seed)), concurrency=concurrency)
    assert evaluation.table.index.tolist() == [f"r{i}" for i in range(25)]
    assert evaluation.table.predicted_answer.tolist() == [str(2 * i) for i in range(25)]


def test_no_more_rows_run_at_a_time_than_the_concurrency():
    now, most = 0, 0

    async def answer(request):
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.001)
        now -= 1
        return chat(answer="x")

    evaluated(frame(30), prog=dn.Predict("question -> answer", lm=dn.FunctionLM(answer)), concurrency=4)
    assert most == 4


# ── repeats ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_repeats_are_separate_samples_with_a_variance_for_each_row():
    rollouts = []

    def answer(request):
        rollouts.append(request.rollout)
        return chat(answer=str(request.rollout * int(field(request, "question"))))

    prog = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    evaluation = evaluated(frame(3), lambda r, p: float(p.answer), prog, repeats=3)
    assert sorted(rollouts) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert evaluation.table.repeat.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert evaluation.table.index.tolist() == ["r0", "r1", "r2"] * 3
    assert evaluation.by_row.to_dict("list") == {"mean": [0, 1, 2], "variance": [0, 1, 4], "n": [3, 3, 3]}
    assert evaluation.score == mean_interval([0, 1, 2])
    assert evaluated(frame(2)).by_row.variance.isna().all()


# ── the end ahead of time ─────────────────────────────────────────────────────────────────────────────────────────────
def test_stop_returns_the_rows_that_had_ended():
    async def main():
        prog = program(lambda q: 0 if int(q) < 6 else 30)
        run = dn.Evaluate(right, concurrency=4).start(prog, frame(100))
        await rows_ended(run, 6)
        run.stop()
        return run, await run

    run, evaluation = asyncio.run(main())
    assert run.status == "stopped"
    assert evaluation.run is run
    assert evaluation.table.index.tolist() == [f"r{i}" for i in range(6)]
    assert evaluation.predictions[5].answer == "10"
    assert evaluation.predictions[6] is None
    assert "6 of 100 rows" in repr(evaluation)


def test_stop_before_a_row_has_ended_raises():
    async def main():
        run = dn.Evaluate(right).start(program(lambda q: 30), frame(3))
        await asyncio.sleep(0.02)
        assert run.best is None
        run.stop()
        with pytest.raises(RunStopped):
            await run

    asyncio.run(main())


def test_an_interrupt_ends_the_cell_and_keeps_the_rows():
    async def main():
        asyncio.get_running_loop().call_later(0.1, lambda: dn.last_run().interrupt())
        with pytest.raises(RunInterrupted):
            await dn.evaluate(program(lambda q: 0 if q == "0" else 30), frame(9), right)

    asyncio.run(main())
    assert dn.last_run().status == "interrupted"
    assert dn.last_run().best.table.index.tolist() == ["r0"]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["calls", "metric_calls"]), st.integers(1, 24), st.integers(1, 9))
def test_a_budget_cuts_in_row_order_regardless_of_latencies(seed, limit, most, concurrency):
    calls = []
    budget = dn.Budget(**{limit: most})
    evaluation = evaluated(frame(20), prog=program(late(seed), calls), budget=budget, concurrency=concurrency)
    assert evaluation.table.index.tolist() == [f"r{i}" for i in range(min(20, most))]
    assert len(calls) == min(20, most)
    assert evaluation.run.status == ("exhausted" if most < 20 else "finished")


def test_a_budget_of_the_caller_ends_it_with_the_rows_so_far():
    with dn.Budget(metric_calls=3):
        evaluation = evaluated(frame(9))
    assert len(evaluation) == 3
    assert evaluation.run.status == "exhausted"


def test_a_budget_that_is_spent_before_a_row_raises():
    with dn.Budget(calls=1):
        program().run_sync(question="1")
        with pytest.raises(BudgetExhausted):
            evaluated(frame(3))


def test_max_errors_ends_early_with_the_table_so_far():
    rows = frame(50)
    rows["question"] = ["bad" if i % 2 else q for i, q in enumerate(rows.question)]
    evaluation = evaluated(rows, max_errors=3, concurrency=1)
    assert evaluation.table.index.tolist() == [f"r{i}" for i in range(8)]
    assert len(evaluation.errors) == 4
    assert evaluation.run.status == "max_errors"
    assert len(evaluated(rows, max_errors=25)) == 50


# ── inside and around other work ──────────────────────────────────────────────────────────────────────────────────────
class Study(dn.Module):
    """Evaluates twice in one run, the first time within a budget of its own."""

    def __init__(self, budget=None):
        self.answer, self.budget, self.evaluations = program(), budget, []

    async def forward(self, question):
        self.evaluations.append(await dn.evaluate(self.answer, frame(6), right, budget=self.budget))
        self.evaluations.append(await dn.evaluate(self.answer, frame(2), right))
        return {"n": len(self.evaluations)}


def test_an_evaluation_inside_another_run_is_part_of_it():
    study = Study()
    prediction = study.run_sync(question="1")
    assert [len(evaluation) for evaluation in study.evaluations] == [6, 2]
    assert dn.runs().shape[0] <= 1
    assert study.evaluations[0].run is prediction.run
    assert prediction.run.rollouts.row.tolist() == [0, 1, 2, 3, 4, 5]


def test_inside_another_run_its_own_budget_ends_only_it():
    study = Study(dn.Budget(calls=3))
    assert study.run_sync(question="1").n == 2
    assert [len(evaluation) for evaluation in study.evaluations] == [3, 2]


def test_inside_another_run_the_budget_of_that_run_ends_both():
    study = Study(dn.Budget(calls=5))
    with dn.Budget(calls=3) as meter, pytest.raises(BudgetExhausted):
        study.run_sync(question="1")
    assert study.evaluations == []
    assert meter.spent["calls"] == 3
    with dn.Budget(calls=5), pytest.raises(BudgetExhausted):
        Study(dn.Budget(calls=5)).run_sync(question="1")


def test_attempts_of_a_refine_are_counted_and_hints_stay_in_their_row():
    async def answer(request):
        text = "".join(str(m["content"]) for m in request.messages)
        question = field(request, "question")
        await asyncio.sleep(int(question) % 3 * 0.001)
        hint = (re.findall(r"of row (\d+)", text) or ["none"])[0]
        assert hint in ("none", question)
        return chat(answer=question if hint == question else "?")

    def reward(inputs, prediction):
        good = prediction.answer == inputs.question or int(inputs.question) % 2
        return dn.Score(float(bool(good)), f"of row {inputs.question}")

    refine = dn.Refine(dn.Predict("question -> answer", lm=dn.FunctionLM(answer)), reward, n=3, hints="feedback")
    evaluation = evaluated(frame(20), lambda r, p: r.question == p.answer, refine)
    assert evaluation.table.error.isna().all()
    assert evaluation.table.attempts.tolist() == [2 - i % 2 for i in range(20)]
    assert evaluation.table.score.tolist() == [float(i % 2 == 0) for i in range(20)]
    assert evaluation.usage.calls == 30


def test_start_is_a_handle_with_the_rows_in_its_file():
    async def main():
        run = dn.Evaluate(right).start(program(), frame(3, wrong={0}))
        assert run.status == "pending"
        return run, await run

    run, evaluation = asyncio.run(main())
    assert run.kind == "evaluate"
    assert "RolloutEnded" in journal(run)
    for reader in (run, dn.open_run(run.id)):
        rollouts = reader.rollouts.set_index(evaluation.table.index)
        assert rollouts.columns.tolist() == ["row", "repeat", *COLUMNS]
        pd.testing.assert_frame_equal(rollouts.drop(columns=["row", "repeat"]), evaluation.table)


def test_a_reopened_rollout_that_failed_has_no_score():
    rows = frame(2)
    rows.loc["r1", "question"] = "bad"
    evaluation = evaluated(rows, {"right": right, "one": lambda r, p: 1})
    reopened = dn.open_run(evaluation.run.path).rollouts
    assert math.isnan(reopened.score[1])
    assert reopened.error[1] == "ServerError: the provider fell over"
    assert reopened.one.tolist() == [1.0, None]
    assert dn.open_run(evaluation.run.path).rollouts.row.tolist() == [0, 1]


def test_a_run_without_an_evaluation_has_an_empty_table_of_rollouts():
    run = dn.Refine(program(), lambda r, p: 1.0, n=1).run_sync(question="1").run
    assert run.rollouts.empty
    assert "score" in run.rollouts.columns


# ── looking and keeping ───────────────────────────────────────────────────────────────────────────────────────────────
def test_worst_gives_the_lowest_scores_first():
    evaluation = evaluated(frame(5), lambda r, p: [3, 1, 2, 1, 5][int(r.question)])
    assert evaluation.worst(3).index.tolist() == ["r1", "r3", "r2"]
    for n in (0, True, 2.0):
        with pytest.raises(InputError, match="whole number of at least 1"):
            evaluation.worst(n)


HOSTILE = "<script>alert(1)</script>"


def test_hostile_text_stays_text_and_only_the_first_rows_are_shown():
    rows = pd.DataFrame({"question": "1", "answer": HOSTILE, f"c{HOSTILE}": [{"x": HOSTILE}] * 12})
    rows.index = [HOSTILE] * 12
    evaluation = evaluated(rows, {f"m{HOSTILE}": lambda r, p: dn.Score(1, HOSTILE + "x" * 500)})
    page = evaluation._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "2 more rows" in page
    assert "characters]" in page
    assert "more rows" not in evaluated(frame(10))._repr_html_()


def test_secrets_are_in_no_table_repr_or_file(tmp_path):
    keep_secret("hunter2-hunter2")
    prog = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda r: chat(answer="say hunter2-hunter2")))
    rows = [{"question": "1", "note": "key hunter2-hunter2", "deep": ["hunter2-hunter2"]}]
    evaluation = evaluated(rows, lambda r, p: dn.Score(1, "hunter2-hunter2"), prog)
    texts = [
        evaluation.table.to_string(),
        evaluation._repr_html_(),
        repr(evaluation),
        evaluation.run.rollouts.to_string(),
        journal(evaluation.run),
    ]
    texts += [evaluation.save(tmp_path / f"t{end}").read_text() for end in (".csv", ".json", ".jsonl")]
    assert not [text for text in texts if "hunter2" in text]


def test_the_summary_has_the_costs():
    lm = dn.FunctionLM(lambda r: dn.LMReply(chat(answer="0"), usage=dn.Usage(1, 600, 600, usd=0.25)))
    evaluation = evaluated(frame(2), prog=dn.Predict("question -> answer", lm=lm))
    assert repr(evaluation) == "<Evaluation: right 0.5 [0.0945, 0.905], 2 rows, 2 calls, 2,400 tokens, $0.5000>"
    assert evaluation.table.tokens.tolist() == [1200, 1200]
    assert evaluation.table.usd.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".parquet"])
def test_a_saved_table_reads_back(tmp_path, ending):
    rows = frame(3).assign(index="mine", row=7, deep=[{"x": 1}] * 3, mixed=[1, "a", None], part=[1 / 3, 2, math.nan])
    evaluation = evaluated(rows)
    path = evaluation.save(tmp_path / f"table{ending}")
    back = dn.read_examples(path)
    assert [r["predicted_answer"] for r in back] in (["0", "2", "4"], [0, 2, 4])
    assert [r["index_"] for r in back] == ["r0", "r1", "r2"]
    assert float(back[0]["part"]) == 1 / 3
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]
    if ending != ".csv":
        assert back[0]["score"] == 1.0
        assert back[0]["error"] is None


def test_a_failed_save_names_the_reason_and_leaves_no_file(tmp_path, monkeypatch):
    evaluation = evaluated(frame(2).set_axis(pd.MultiIndex.from_tuples([(1, 2), (3, 4)])))
    with pytest.raises(InputError, match=r"\.csv, \.json, \.jsonl, \.parquet; got 'x.xlsx'"):
        evaluation.save(tmp_path / "x.xlsx")
    with pytest.raises(InputError, match="cannot write .*: No such file"):
        evaluation.save(tmp_path / "no" / "x.json")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *a, **k: (_ for _ in ()).throw(ImportError("pyarrow")))
    with pytest.raises(ConfigurationError, match="pip install pyarrow"):
        evaluation.save(tmp_path / "x.parquet")
    assert not [p for p in tmp_path.iterdir() if p.is_file()]
    lines = evaluation.save(str(tmp_path / "x.jsonl")).read_text().splitlines()
    assert json.loads(lines[1])["index_0"] == 3


def test_a_table_with_broken_text_is_saved_too(tmp_path):
    evaluation = evaluated([{"question": "1", "answer": "\ud800"}])
    for ending in (".csv", ".json"):
        assert evaluation.save(tmp_path / f"t{ending}").stat().st_size


def test_the_plot_has_the_scores_the_mean_and_its_interval():
    evaluation = evaluated(frame(10, wrong={0, 1}), {"$right_a$": right})
    axes = evaluation.plot(Figure().subplots())
    assert [bar.get_height() for bar in axes.patches[:-1] if bar.get_height()] == [2, 8]
    assert axes.lines[0].get_xdata()[0] == 0.8
    band = axes.patches[-1]
    edges = band.get_patch_transform().transform(band.get_path().vertices)[:, 0]
    assert (min(edges), max(edges)) == pytest.approx((evaluation.score.low, evaluation.score.high))
    axes.figure.canvas.draw()
    assert axes.get_xlabel() == r"\$right_a\$"


def test_a_plot_without_axes_makes_a_figure():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = evaluated(frame(1), lambda r, p: 0.5).plot()
    assert [bar.get_height() for bar in axes.patches] == [1]  # no interval for one row
    plt.close(axes.figure)


def test_plotting_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ConfigurationError, match=r"dspynb\[plots\]"):
        evaluated(frame(1)).plot()


def test_nothing_is_written_to_the_program():
    prog = program()
    before = dict(vars(prog))
    evaluated(frame(3), prog=prog, repeats=2)
    assert vars(prog) == before


@pytest.mark.slow
def test_twenty_thousand_instant_rows_take_seconds_and_little_memory():
    import time
    import tracemalloc

    prog = dn.Predict("question -> answer", lm=doubling())
    rows = frame(20_000)
    began = time.perf_counter()
    evaluation = evaluated(rows, prog=prog, concurrency=256)
    assert len(evaluation.table) == 20_000
    assert time.perf_counter() - began < 300
    tracemalloc.start()
    evaluation._repr_html_()
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_the_usage_of_a_row_includes_calls_of_advisors_but_not_of_judges():
    def answer(request):
        text = prompt(request)
        reply = chat(advice='{"self": "Be blue."}') if "`advice`" in text else chat(sentence="s", grade="0.5")
        return dn.LMReply(reply, usage=dn.Usage(1, 10))

    judge = dn.Predict("sentence -> grade: float")

    async def judged(row, prediction):
        return (await judge(sentence=prediction.sentence)).grade

    async def main():
        with dn.context(lm=dn.FunctionLM(answer)):
            program = dn.Refine(dn.Predict(Caption), lambda row, p: 0.0, n=3, hints="advisor")
            return await dn.evaluate(program, [{"subject": "sea"}], judged)

    evaluation = asyncio.run(main())
    assert evaluation.table.tokens.tolist() == [50]
    assert evaluation.run.usage.tokens == 60
