"""Feedback helpers: the value, the parts, and words that say what to change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dspynb as dn
from dspynb import feedback as df
from dspynb.errors import ConfigurationError, RewardError


def test_retrieval_is_scored_by_f1_with_precision_and_recall():
    score = df.retrieval(["a", "b", "b", "x"], ["a", "b", "c"], {"c": "The text of c.", "a": "…"})
    assert score.parts == dict.fromkeys(("precision", "recall", "f1"), pytest.approx(2 / 3))
    assert score.value == score.parts["f1"]
    assert "Missed of 2 documents: 'c' (The text of c.)" in score.feedback
    assert "Not relevant: 'x'" in score.feedback


@pytest.mark.parametrize(
    ("retrieved", "relevant", "value"),
    [([], [], 1), ([], ["a"], 0), (["a"], [], 0), ([2, 1], [1, 2], 1), ({"a"}, ("a",), 1)],
)
def test_retrieving_nothing_scores_1_only_if_nothing_is_relevant(retrieved, relevant, value):
    assert df.retrieval(retrieved, relevant).value == value


@given(st.sets(st.integers(0, 9), min_size=1), st.sets(st.integers(0, 9)))
def test_retrieval_agrees_with_the_textbook_definition(retrieved, relevant):
    score, both = df.retrieval(list(retrieved), np.array(sorted(relevant))), len(retrieved & relevant)
    assert score.value == pytest.approx(2 * both / (len(retrieved) + len(relevant)))


@pytest.mark.parametrize("bad", ["text", None, 3, [["a"]], [{"id": 1}]])
def test_retrieval_refuses_arguments_that_are_not_lists_of_documents(bad):
    with pytest.raises(RewardError, match="retrieved must"):
        df.retrieval(bad, ["a"])


def test_the_feedback_of_a_pipeline_names_the_first_failed_stage():
    score = df.code_pipeline(
        {"parse": True, "compile": (True, None), "test": (False, "2 of 5"), "lint": ValueError("x"), "run": None}
    )
    assert score.value == pytest.approx(2 / 5)
    assert score.parts == {"parse": 1, "compile": 1, "test": 0, "lint": 0, "run": 0}
    assert score.feedback == "Stage 'test' failed: 2 of 5. Passed before it: parse, compile."


def test_a_pipeline_that_passed_and_one_that_was_not_reached():
    assert df.code_pipeline({"parse": True, "run": np.True_}).feedback == "All 2 stages passed: parse, run."
    assert df.code_pipeline({"parse": None}).feedback == "Stage 'parse' was not reached."
    assert "ValueError: no" in df.code_pipeline({"parse": ValueError("no")}).feedback


@pytest.mark.parametrize("bad", [{}, None, ["parse"], {"parse": "ok"}, {"parse": 1}, {"parse": (True, 3)}])
def test_a_pipeline_refuses_results_that_could_be_misread(bad):
    with pytest.raises(RewardError, match="code_pipeline"):
        df.code_pipeline(bad)


def test_objectives_are_weighted_and_the_largest_loss_comes_first():
    scores = {"short": dn.Score(0.5, "Cut it.", {"words": 0.2}), "blue": False, "polite": 1}
    score = df.multi_objective(scores, {"short": 1, "blue": 2, "polite": 1})
    assert score.value == pytest.approx(0.375)
    assert score.parts == {"short": 0.5, "blue": 0.0, "polite": 1.0, "short.words": 0.2}
    assert score.feedback == "blue (0): below 1\nshort (0.5): Cut it."
    assert df.multi_objective({"a": 1.0, "b": True}).feedback == "All objectives are met."


@pytest.mark.parametrize("bad", [{}, None, {"a": math.nan}, {"a": None}, {"a": "1"}])
def test_objectives_must_be_scores(bad):
    with pytest.raises(RewardError):
        df.multi_objective(bad)


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": math.nan}, {"a": 0, "b": 0}, {"a": 1, "b": 1, "c": 1}])
def test_weights_must_be_given_for_each_objective(weights):
    with pytest.raises(ConfigurationError, match="weights"):
        df.multi_objective({"a": 1, "b": 1}, weights)


def test_similarity_shows_the_first_difference():
    score = df.string_similarity("the red sea", "the blue sea")
    assert score.value == pytest.approx(2 * 9 / 23)  # 'the ', 'e' and ' sea' are shared
    assert "first at character 5: 'r' should be 'blu'" in score.feedback
    assert df.string_similarity("a", "a").value == 1
    assert df.string_similarity("A", "a", ignore_case=True).value == 1
    assert df.string_similarity("", "abc").value == 0
    assert "'c' is missing" in df.string_similarity("ab", "abc").feedback
    assert "'c' is too much" in df.string_similarity("abc", "ab").feedback


def test_long_texts_are_compared_by_words():
    text = " ".join(f"word{i}" for i in range(2_000))
    score = df.string_similarity(text, text.replace("word500 ", ""))
    assert score.value == pytest.approx(2 * 1999 / 3999)
    assert "first at word 501" in score.feedback


@pytest.mark.parametrize("pair", [(None, "a"), ("a", None), ("a", math.nan)])
def test_similarity_to_a_missing_text_is_refused(pair):
    with pytest.raises(RewardError, match="is missing"):
        df.string_similarity(*pair)


def test_confidence_is_rewarded_if_right_and_penalised_if_wrong():
    predictions = (("cat", 1), ("cat", 0), ("dog", 0), ("dog", 1))
    assert [df.classification(predicted, "cat", sure).value for predicted, sure in predictions] == [1, 0.5, 0.5, 0]
    assert df.classification("Cat", "cat").value == 1
    assert df.classification("dog", "cat").feedback == "Wrong: 'dog', expected 'cat'."
    assert df.classification(None, "cat", 0.9).value < 0.5


def test_the_feedback_says_whether_confidence_was_too_high_or_too_low():
    feedback = {
        (predicted, sure): df.classification(predicted, "cat", sure).feedback
        for predicted in ("cat", "dog")
        for sure in (0.9, 0.1)
    }
    assert feedback["dog", 0.9].startswith(
        "Wrong: 'dog', expected 'cat', with confidence 0.90. Less confidence was due"
    )
    assert feedback["dog", 0.1].endswith("The doubt was due.")
    assert feedback["cat", 0.1].endswith("More confidence was due.")
    assert feedback["cat", 0.9] == "Right: 'cat', with confidence 0.90."


@given(st.floats(0.01, 0.99))
def test_the_true_confidence_is_worth_most(truth):
    def worth(sure):
        right, wrong = (df.classification(predicted, "cat", sure).value for predicted in ("cat", "dog"))
        return truth * right + (1 - truth) * wrong

    assert all(worth(truth) >= worth(other / 20) - 1e-12 for other in range(21))


@pytest.mark.parametrize("sure", [-0.1, 1.1, math.nan, "0.5", True, 95])
def test_a_confidence_out_of_range_is_refused(sure):
    with pytest.raises(RewardError, match="confidence must be a number from 0 to 1"):
        df.classification("cat", "cat", sure)
    with pytest.raises(RewardError, match="leave such rows out"):
        df.classification("cat", None)
