"""A Score behaves as its number, and keeps its feedback and parts where one Score is only scaled."""

from __future__ import annotations

import dataclasses
import math
import operator
import pickle
import statistics
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb.errors import RewardError

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6) | st.booleans()
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod]
COMPARED = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def outcome(fn, *values):
    """The result as a number, or the type of the error that was raised."""
    try:
        result = fn(*values)
    except (ArithmeticError, ValueError) as error:
        return type(error)
    return float(result)


def same(left, right):
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


@given(st.sampled_from(BINARY), FLOATS, NUMBERS)
def test_arithmetic_with_a_score_on_either_side_is_that_of_its_number(op, value, number):
    score = dn.Score(value)
    assert same(outcome(op, score, number), outcome(op, value, number))
    assert same(outcome(op, number, score), outcome(op, number, value))
    assert same(outcome(op, score, dn.Score(number)), outcome(op, value, float(number)))


@given(st.sampled_from(COMPARED), FLOATS, NUMBERS)
def test_comparison_with_a_score_on_either_side_is_that_of_its_number(op, value, number):
    score = dn.Score(value, "feedback", {"part": 1.0})
    assert op(score, number) == op(value, number)
    assert op(number, score) == op(number, value)
    assert op(score, dn.Score(number)) == op(value, float(number))


@given(FLOATS)
def test_truth_hash_and_conversions_are_those_of_the_number(value):
    score = dn.Score(value, "feedback")
    assert bool(score) == bool(value)
    assert hash(score) == hash(value)
    assert score in {value}
    assert float(score) == value
    assert (int(score), math.floor(score), math.ceil(score), math.trunc(score), round(score)) == (
        int(value), math.floor(value), math.ceil(value), math.trunc(value), round(value),
    )  # fmt: skip
    assert f"{score:.3e}" == f"{value:.3e}"
    assert score.as_integer_ratio() == value.as_integer_ratio()


@given(st.sampled_from([operator.mul, operator.truediv, operator.add, operator.sub]), st.floats(0.1, 10))
def test_feedback_and_parts_are_kept_where_one_score_meets_plain_numbers(op, number):
    score = dn.Score(0.5, "Be brief.", {"short": 1.0})
    scaled = [op(score, number), op(number, score), op(score, np.float64(number)), op(np.float64(number), score)]
    scaled += [-score, +score, abs(score), round(score, 1), sum([score])]
    assert all(isinstance(s, dn.Score) and (s.feedback, s.parts) == ("Be brief.", {"short": 1.0}) for s in scaled)


def test_two_scores_give_a_score_without_feedback():
    mean = (dn.Score(1.0, "Right.") + dn.Score(0.5, "Too long.")) / 2
    assert (mean, mean.feedback, dict(mean.parts)) == (0.75, None, {})
    assert isinstance(mean, dn.Score)


def test_sums_means_and_order_take_scores_as_numbers():
    scores = [dn.Score(1.0, "a"), dn.Score(0.0), dn.Score(0.5, "b")]
    assert sum(scores) == 1.5
    assert math.fsum(scores) == 1.5
    assert (statistics.mean(scores), statistics.fmean(scores), statistics.median(scores)) == (0.5, 0.5, 0.5)
    assert [float(s) for s in sorted(scores)] == [0.0, 0.5, 1.0]
    assert max(scores).feedback == "a"
    assert divmod(dn.Score(5), 2) == (2, 1)
    assert (dn.Score(3) ** 2, 2 ** dn.Score(3)) == (9, 8)
    assert dn.Score(0.5) == Fraction(1, 2)
    assert dn.Score(0.25) < Decimal("0.5")
    assert dn.Score(0.5) != "0.5"
    assert dn.Score(0.5) != None  # noqa: E711  # what a user may write


def test_numpy_and_pandas_take_scores_as_numbers():
    scores = [dn.Score(1.0), dn.Score(0.5)]
    assert np.array(scores).dtype == float
    assert np.mean(scores) == 0.75
    assert (np.array([1.0, 2.0]) * dn.Score(0.5)).tolist() == [0.5, 1.0]
    assert (dn.Score(0.5) * np.array([1.0, 2.0])).tolist() == [0.5, 1.0]
    assert np.add(dn.Score(0.5), 1) == 1.5
    assert np.maximum(dn.Score(0.5), dn.Score(1)) == 1
    assert np.isfinite(dn.Score(0.5))
    assert pd.Series(scores).astype(float).mean() == 0.75
    assert (pd.Series([1.0, 2.0]) * dn.Score(0.5)).tolist() == [0.5, 1.0]


def test_a_result_that_is_not_finite_is_a_plain_number():
    assert dn.Score(1e308) * 10 == math.inf
    assert type(dn.Score(1e308) * 10) is float
    assert dn.Score(0.5) * 1j == 0.5j
    with pytest.raises(ZeroDivisionError):
        dn.Score(0.5) / 0
    with pytest.raises(TypeError, match="'float' and 'str'"):
        dn.Score(0.5) + "a"
    with pytest.raises(TypeError, match="'float' and 'str'"):
        dn.Score(0.5) < "a"  # noqa: B015
    with pytest.raises(RewardError, match="finite"):
        dn.Score(math.nan)


def test_a_score_survives_pickling_whole():
    score = pickle.loads(pickle.dumps(dn.Score(0.5, "Be brief.", {"short": 1.0})))
    assert (score, score.feedback, score.parts) == (0.5, "Be brief.", {"short": 1.0})


class Graded(dn.Score):
    """A subclass of a user's."""


EXACT = dn.metrics.exact_match()
WRITTEN = {
    "and": lambda row, p: EXACT(row, p) and len(p.answer) < 5,
    "if": lambda row, p: 1.0 if EXACT(row, p) else 0.0,
    "mean": lambda row, p: (EXACT(row, p) + EXACT(row, p)) / 2,
    "threshold": lambda row, p: EXACT(row, p) >= 0.5,
    "not": lambda row, p: not (1 - EXACT(row, p)),
    "bool": lambda row, p: bool(EXACT(row, p)),
    "product": lambda row, p: EXACT(row, p) * 1.0,
    "numpy bool": lambda row, p: np.bool_(EXACT(row, p) > 0),
    "numpy mean": lambda row, p: np.mean([EXACT(row, p), EXACT(row, p)]),
    "Decimal": lambda row, p: Decimal(int(EXACT(row, p))),
    "subclass": lambda row, p: Graded(EXACT(row, p), feedback="graded"),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_metric_made_of_another_scores_a_wrong_answer_zero_and_a_right_one_one(written):
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    rows = [{"question": "2+2?", "answer": "4"}, {"question": "2+3?", "answer": "5"}]
    evaluation = dn.Evaluate(WRITTEN[written]).run_sync(program, rows)
    assert evaluation.table.score.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("written", WRITTEN)
def test_best_of_n_does_not_take_a_wrong_answer(written):
    lm = dn.ScriptedLM(["answer: 5", "answer: 4"])
    metric = WRITTEN[written]

    def reward(row, prediction):
        return metric(dn.Example(row, answer="4"), prediction)

    best = dn.BestOfN(dn.Predict("question -> answer", lm=lm), reward, n=2)
    assert best.run_sync(question="2+2?").answer == "4"


def test_an_attempt_that_scores_zero_has_feedback_and_may_be_the_best():
    lm = dn.ScriptedLM(["answer: 5", "answer: 6"])
    best = dn.BestOfN(dn.Predict("question -> answer", lm=lm), lambda row, p: dn.Score(0.0, "Wrong."), n=2)
    prediction = best.run_sync(question="2+2?")
    assert prediction.answer == "5"
    assert prediction.run.attempts.feedback.tolist() == ["Wrong.", "Wrong."]


def test_a_refine_hints_with_the_feedback_of_an_attempt_that_scores_zero():
    lm = dn.ScriptedLM(["answer: 5", "answer: 6"])
    refine = dn.Refine(dn.Predict("question -> answer", lm=lm), lambda row, p: dn.Score(0.0, "Add again."), n=2)
    assert refine.run_sync(question="2+2?").run.attempts.hint.tolist()[1] == "Add again."


@pytest.mark.parametrize("many", [np.array([0.5, 1.0]), pd.Series([0.5, 1.0]), pd.DataFrame({"a": [0.5, 1.0]})])
@pytest.mark.parametrize("op", COMPARED)
def test_a_score_is_compared_with_each_number_of_an_array_on_either_side(op, many):
    score = dn.Score(0.5, "Be brief.")
    assert np.array_equal(op(score, many), op(0.5, many))
    assert np.array_equal(op(many, score), op(many, 0.5))


def test_a_numpy_bool_scales_a_score_from_either_side():
    score = dn.Score(0.5, "Be brief.")
    assert [(s, s.feedback) for s in (np.True_ * score, score * np.True_)] == [(0.5, "Be brief.")] * 2


@dataclasses.dataclass(frozen=True)
class Rated(dn.Score):
    rubric: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted(dn.Score):
    rubric: str = ""


class Ordered(dn.Score):
    def __eq__(self, other):
        return "own"

    __hash__ = None


@pytest.mark.parametrize("kind", [Rated, Slotted])
def test_a_dataclass_made_of_score_still_equals_its_number(kind):
    score = kind(0.5, "Be brief.", rubric="short")
    assert score == 0.5 == dn.Score(0.5) == score
    assert score != kind(0.75)
    assert {score: 1}[0.5] == 1
    assert (score.rubric, (2 * score).feedback) == ("short", "Be brief.")
    assert (Ordered(0.5) == 0.5) == "own"


def test_parts_are_numbers_whatever_type_they_came_in():
    parts = {"bool": True, "numpy": np.float32(0.5), "decimal": Decimal("0.25"), "score": dn.Score(1.0, "Right.")}
    floats = dn.Score(0.5, parts=parts).parts
    assert floats == {"bool": 1.0, "numpy": 0.5, "decimal": 0.25, "score": 1.0}
    assert {type(part) for part in floats.values()} == {float}
    assert dn.Score(0.5, parts=None).parts == {}
    with pytest.raises(RewardError, match="parts must be a mapping"):
        dn.Score(0.5, parts=[1.0])


@pytest.mark.parametrize("part", [True, np.float64(0.5), dn.Score(1.0), Decimal("0.5"), math.nan, None, "good", [1]])
def test_a_run_file_can_be_read_whatever_the_parts_of_a_score_are(part):
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    evaluation = dn.Evaluate(lambda row, prediction: dn.Score(0.5, parts={"part": part})).run_sync(
        program, [{"question": "2+2?"}]
    )
    best = dn.BestOfN(program, lambda row, prediction: dn.Score(0.5, parts={"part": part})).run_sync(question="2+2?")
    opened = dn.open_run(evaluation.run.id)
    assert opened.rollouts.score.tolist() == [0.5]
    assert opened.rollouts.to_json() == evaluation.run.rollouts.to_json()
    assert dn.open_run(best.run.id).attempts.score.dropna().tolist() == [0.5] * len(best.run.attempts)


def test_a_score_beyond_the_range_of_tables_is_an_error_of_its_row():
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "answer: 4"))
    evaluation = dn.Evaluate(lambda row, prediction: row.score).run_sync(
        program, [{"question": "2+2?", "score": value} for value in (1e100, -1e300, 10**400)]
    )
    errors = evaluation.table.error.tolist()
    assert errors[0] is None
    assert "returned -1e+300; a score lies within ±1e100" in errors[1]
    assert "too large" in errors[2]
    assert dn.open_run(evaluation.run.id).rollouts.error.tolist() == errors


NUMBERS_OF_OTHER_TYPES = [dn.Score(0.5, "Be brief."), np.float32(0.5), Decimal("0.5"), Fraction(1, 2)]


@pytest.mark.parametrize("half", NUMBERS_OF_OTHER_TYPES, ids=lambda value: type(value).__name__)
def test_settings_that_scores_are_compared_with_take_every_number(half):
    lm, metric = dn.FunctionLM(lambda request: "answer: 4"), dn.metrics.exact_match()
    program, rows = dn.Predict("question -> answer", lm=lm), [{"question": "2+2?", "answer": "4"}]
    best = dn.BestOfN(program, lambda row, prediction: dn.Score(0.5), n=3, threshold=half)
    assert len(best.run_sync(question="2+2?").run.attempts) == 1
    evaluate = dn.Evaluate(lambda row, prediction: 1 / 0, failure_score=half)
    evaluation = evaluate.run_sync(program, rows)
    assert evaluation.table.score.tolist() == [0.5]
    resumed = dn.run_sync(lambda: evaluate.resume(evaluation.run.id, program, rows))
    assert resumed.run.status == "finished"
    dn.BootstrapFewShot(metric, metric_threshold=half, failure_score=half).compile_sync(program, rows)
    same = dn.BootstrapFewShot(metric, metric_threshold=0.5, failure_score=0.5)
    assert dn.run_sync(lambda: same.resume(dn.last_run().id, program, rows)).demos
    assert type(dn.GEPA(metric, perfect_score=half).described()["perfect_score"]) is float


@pytest.mark.parametrize("wrong", [np.True_, True, "0.5", math.nan, Decimal("nan")])
def test_settings_that_scores_are_compared_with_refuse_what_is_no_number(wrong):
    with pytest.raises(dn.errors.ConfigurationError, match="threshold must be a number"):
        dn.BestOfN(dn.Predict("question -> answer"), lambda row, prediction: 1.0, n=2, threshold=wrong)
    with pytest.raises(dn.errors.ConfigurationError, match="failure_score must be a finite number"):
        dn.Evaluate(lambda row, prediction: 1.0, failure_score=wrong)
