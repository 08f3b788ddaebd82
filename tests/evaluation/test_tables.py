"""Metrics over a table: every row keeps its place, with its score or its error."""

from __future__ import annotations

import asyncio
import math

import pandas as pd
import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError, NoModelError
from tests.helpers import chat

TABLE = pd.DataFrame(
    {"text": ["a", "b", "c"], "expected_topic": ["x", "y", "z"], "predicted_topic": ["x", "x", None]}, index=[7, 7, 9]
)


def test_a_table_with_predicted_and_expected_columns_needs_no_names():
    scored = dn.score_table(dn.metrics.exact_match("topic"), TABLE)
    assert scored.score.tolist() == [1, 0, 0]
    assert scored.index.tolist() == [7, 7, 9]
    assert list(scored.columns) == ["score", "feedback", "error"]
    assert scored.feedback.tolist()[1] == "topic is 'x'; expected 'y'."
    assert scored.error.tolist() == [None] * 3
    assert dn.score_table(dn.metrics.exact_match(), TABLE).score.tolist() == [1, 0, 0]


def test_the_columns_of_outputs_and_inputs_can_be_named():
    table = pd.DataFrame({"gold": ["the cat"], "answer": ["a black cat"]})
    scored = dn.score_table(dn.metrics.f1("answer", label="gold"), table)
    assert scored.loc[0, ["score", "precision", "recall"]].tolist() == [pytest.approx(2 / 3), 0.5, 1.0]
    assert dn.score_table(dn.metrics.f1(), table, outputs=["answer"]).score[0] == pytest.approx(2 / 3)
    extra = TABLE.assign(sentence=["one", "one two", ""])
    assert dn.score_table(dn.metrics.word_count(at_most=1), extra, outputs=["sentence"]).score.tolist() == [1, 0, 1]
    both = dn.score_table(lambda row, p: p.topic == row.topic, extra, outputs=["topic", "sentence"], inputs=["text"])
    assert both.score.tolist() == [1, 0, 0]


def test_a_feedback_helper_takes_columns_as_its_parameters():
    table = pd.DataFrame({"got": ["cat", "dog"], "gold": ["cat", "cat"], "sure": [1.0, 2.0]})
    columns = {"predicted": "got", "expected": "gold", "confidence": "sure"}
    scored = dn.score_table(dn.feedback.classification, table, columns=columns)
    assert scored.score[0] == scored.correct[0] == scored.brier[0] == 1
    assert math.isnan(scored.score[1])
    assert math.isnan(scored.brier[1])
    assert scored.error[1].startswith("RewardError: classification: confidence must be")
    rows, names = [{"found": ["a"], "due": ["a", "b"]}], {"retrieved": "found", "relevant": "due"}
    assert dn.score_table(dn.feedback.retrieval, rows, columns=names).recall[0] == 0.5


def test_a_part_named_like_a_column_of_the_table_is_renamed():
    scored = dn.score_table(lambda row, p: dn.Score(1, None, {"score": 0.5}), TABLE)
    assert scored.part_score.tolist() == [0.5] * 3
    assert scored.score.tolist() == [1.0] * 3


def test_rows_whose_metric_fails_have_their_error_in_place():
    answers = {"a": 0.5, "b": math.nan, "c": "text"}
    scored = dn.score_table(lambda row, p: answers[row.text], [{"text": t} for t in "abcd"])
    assert scored.score.isna().tolist() == [False, True, True, True]
    assert scored.error[0] is None
    assert [e.split(":")[0] for e in scored.error[1:]] == ["RewardError", "RewardError", "KeyError"]


def test_columns_of_mixed_types_are_scored():
    table = pd.DataFrame({"expected_n": [1, "2", 3.0, None, True], "predicted_n": ["1", 2, "three", 4, "true"]})
    scored = dn.score_table(dn.metrics.exact_match(), table)
    assert scored.score.fillna(-1).tolist() == [1, 1, 0, -1, 1]
    assert "the row has no label" in scored.error[3]


def test_an_empty_table_gives_an_empty_table():
    for empty in (TABLE.iloc[:0], []):
        scored = dn.score_table(dn.metrics.exact_match(), empty)
        assert (len(scored), list(scored.columns)) == (0, ["score", "feedback", "error"])
        assert scored.score.dtype == float


def test_columns_that_do_not_fit_are_refused_before_scoring():
    def never(row, prediction):
        raise ConfigurationError("scored")

    for wrong, message in (
        ({"outputs": ["topik"]}, "outputs names 'topik'"),
        ({"inputs": ["txt"]}, "inputs names 'txt'. Did you mean 'text'"),
        ({"columns": {"predicted": "gold"}}, "columns names 'gold'"),
    ):
        with pytest.raises(InputError, match=message):
            dn.score_table(never, TABLE, **wrong)
    with pytest.raises(InputError, match="the table has 2 columns 'text'"):
        dn.score_table(never, TABLE[["text", "text"]])
    for wrong in ({"outputs": "topic"}, {"columns": {}, "inputs": []}):
        with pytest.raises(ConfigurationError, match="score_table"):
            dn.score_table(never, TABLE, **wrong)
    with pytest.raises(InputError, match="rows must be"):
        dn.score_table(never, "text")


def test_a_metric_that_does_not_fit_the_table_is_refused_once():
    plain = TABLE.rename(columns=lambda c: c.removeprefix("expected_"))
    with pytest.raises(ConfigurationError, match="field=one of text, predicted_topic"):
        dn.score_table(
            dn.metrics.exact_match(), plain[["text", "predicted_topic"]], outputs=["text", "predicted_topic"]
        )
    with pytest.raises(ConfigurationError, match="metric must be a function"):
        dn.score_table("exact_match", TABLE)


def test_a_judge_is_awaited_within_its_concurrency():
    running = most = 0

    async def answer(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return chat(reasons="Fine.", score="0.5")

    judge = dn.metrics.llm_judge("Good.", lm=dn.FunctionLM(answer))
    scored = dn.score_table(judge, pd.concat([TABLE] * 4), concurrency=3)
    assert scored.score.tolist() == [0.5] * 12
    assert most == 3
    with pytest.raises(ConfigurationError, match="concurrency"):
        dn.score_table(judge, TABLE, concurrency=0)


def test_a_judge_works_from_a_running_loop_too_and_its_failures_are_rows():
    lm = dn.ScriptedLM([chat(reasons="Fine.", score="1"), *[chat(reasons="Hm.", score="?")] * 2])

    async def cell():
        return dn.score_table(dn.metrics.llm_judge("Good.", lm=lm), TABLE[:2], concurrency=1)

    scored = asyncio.run(cell())
    assert scored.score.tolist()[0] == 1
    assert "the judge gave no score" in scored.error.tolist()[1]
    with pytest.raises(NoModelError):
        dn.score_table(dn.metrics.llm_judge("Good."), TABLE)


def test_the_trace_parameter_of_a_metric_is_empty_over_a_table():
    assert dn.score_table(lambda row, p, trace: len(trace), TABLE).score.tolist() == [0, 0, 0]
