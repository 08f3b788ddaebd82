"""Metrics: values, feedback, and what they do with rows that they cannot score."""

from __future__ import annotations

import math
import pickle
from enum import Enum

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import dspynb as dn
from dspynb import metrics as dm
from dspynb.errors import ConfigurationError, RewardError
from tests.helpers import Caption, chat


def score(metric, output, label):
    return metric(dn.Example(answer=label), dn.Prediction(answer=output))


def test_the_metrics_are_reached_through_the_package():
    assert dn.metrics is dm
    assert callable(dn.feedback.retrieval)


# ── which fields ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_only_name_that_both_have_is_compared():
    row, prediction = dn.Example(question="q", answer="a", id=3), dn.Prediction(reasoning="r", answer="a")
    assert dm.exact_match()(row, prediction).value == 1.0


def test_an_input_is_no_label():
    row = dn.Example(text="t", label="x").with_inputs("text")
    assert dm.exact_match()(row, dn.Prediction(text="t", label="y")).value == 0.0


def test_the_only_label_and_the_only_output_are_a_pair():
    row = dn.Example(text="t", gold="x").with_inputs("text")
    assert dm.exact_match()(row, dn.Prediction(topic="x")).value == 1.0
    assert dm.exact_match("topic")(row, dn.Prediction(topic="x", why="…")).value == 1.0
    assert dm.exact_match(label="gold")(row, dn.Prediction(topic="x")).value == 1.0


def test_the_error_for_an_ambiguous_field_names_the_candidates():
    row = dn.Example(a=1, b=2)
    with pytest.raises(ConfigurationError, match=r"share 2 names \(a, b\).*field=one of a, b and label=one of a, b"):
        dm.exact_match()(row, dn.Prediction(a=1, b=2))
    with pytest.raises(ConfigurationError, match="no name is in both.*field=one of x, y and label=one of a, b"):
        dm.exact_match()(row, dn.Prediction(x=1, y=2))
    with pytest.raises(ConfigurationError, match="no output 'topik'. Did you mean 'topic'"):
        dm.exact_match("topik")(row, dn.Prediction(topic=1))
    with pytest.raises(ConfigurationError, match="row has no field 'c'. There are: a, b"):
        dm.exact_match(label="c")(row, dn.Prediction(a=1))
    with pytest.raises(ConfigurationError, match="which output is meant: field=one of x, y"):
        dm.regex("a")(row, dn.Prediction(x=1, y=2))


def test_a_metric_that_does_not_fit_ends_a_refine_at_its_first_attempt():
    lm = dn.ScriptedLM([chat(sentence="a")] * 3)
    refine = dn.Refine(dn.Predict(Caption, lm=lm), reward=dm.exact_match("sentense"), n=3)
    with pytest.raises(ConfigurationError, match="Did you mean 'sentence'"):
        refine.run_sync(subject="sea")
    assert len(lm.requests) == 1


@pytest.mark.parametrize("label", [None, math.nan, pd.NA, pd.NaT, np.float64("nan")])
def test_a_row_without_label_is_refused(label):
    for metric in (dm.exact_match(), dm.contains(), dm.f1(), dm.numeric(), dm.word_count(label="answer")):
        with pytest.raises(RewardError, match=r"the row has no label: 'answer' is"):
            score(metric, "x", label)


@pytest.mark.parametrize("nothing", [None, math.nan, pd.NA])
def test_no_answer_is_a_wrong_answer(nothing):
    for metric in (dm.exact_match(), dm.contains(), dm.f1(), dm.numeric(), dm.regex("."), dm.word_count(at_most=3)):
        result = score(metric, nothing, "1")
        assert (result.value, "There is no answer" in result.feedback) == (0.0, True)


# ── exact match ───────────────────────────────────────────────────────────────────────────────────────────────────────
class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("output", "label", "value"),
    [
        ("Paris", "paris", 1),
        (' "Paris." ', "Paris", 1),
        ("Paris\n", "Pa ris", 0),
        ("3", 3, 1),
        (3, "3.0", 0),
        ("3", 3.0, 1),
        (3, np.int64(3), 1),
        (Colour.RED, "red", 1),
        ("a", "the", 0),
        ("-5", "5", 0),
        ("3.5", "35", 0),
        ("b", ["a", "B"], 1),
        ("c", ["a", "b"], 0),
        (["a", "b"], ["A", "B"], 1),
        (["a"], ["a", "b"], 0),
        (["b", "a"], ["a", "b"], 0),
        (np.array([1, 2]), [1, 2], 1),
        (".", "!", 0),
        (True, "True", 1),
    ],
)
def test_exact_match_ignores_case_quotes_spaces_and_a_full_stop(output, label, value):
    assert score(dm.exact_match(), output, label).value == value


def test_exact_match_says_what_was_expected():
    assert score(dm.exact_match(), "Rome", "Paris").feedback == "answer is 'Rome'; expected 'Paris'."
    assert "expected 'a' or 'b'" in score(dm.exact_match(), "c", ["a", "b"]).feedback


def test_exact_match_takes_another_normalisation_or_none():
    assert score(dm.exact_match(normalize=None), "paris", "Paris").value == 0
    assert score(dm.exact_match(normalize=None), "3", 3).value == 0
    assert score(dm.exact_match(normalize=dm.squad_text), "The Beatles!", "beatles").value == 1
    with pytest.raises(ConfigurationError, match="normalize"):
        dm.exact_match(normalize="lower")


# ── contains, F1, numbers ─────────────────────────────────────────────────────────────────────────────────────────────
def test_contains_looks_for_the_label_or_a_text():
    assert score(dm.contains(), "The Blueprint", "blue").value == 1
    assert score(dm.contains(whole_words=True), "The Blueprint", "blue").value == 0
    assert score(dm.contains(whole_words=True), "blue, too", "blue").value == 1
    assert score(dm.contains(ignore_case=False), "Blue", "blue").value == 0
    two = score(dm.contains("answer", text=["sea", "sky"]), "the sea", None)
    assert (two.value, two.feedback) == (0.5, "answer does not contain 'sky'.")
    assert score(dm.contains(text="a.c"), "abc", "").value == 0  # text, not a pattern


def test_contains_refuses_an_empty_text():
    with pytest.raises(RewardError, match="no text to look for"):
        score(dm.contains(), "x", "")
    for wrong in ({"text": ""}, {"text": []}, {"text": [3]}, {"text": "a", "label": "b"}):
        with pytest.raises(ConfigurationError):
            dm.contains(**wrong)


@pytest.mark.parametrize(
    ("output", "label", "f1", "precision", "recall"),
    [
        ("The cat sat.", "a CAT sat", 1, 1, 1),
        ("the black cat", "cat", 2 / 3, 0.5, 1),
        ("cat cat", "cat", 2 / 3, 0.5, 1),
        ("dog", "cat", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("", "cat", 0, 0, 0),
        ("the", "a", 1, 1, 1),  # both empty after normalisation, as in the official script
        ("New York City", ["York", "new york"], 0.8, 2 / 3, 1),
    ],
)
def test_f1_is_that_of_squad(output, label, f1, precision, recall):
    result = score(dm.f1(), output, label)
    assert result.value == pytest.approx(f1)
    assert result.parts == {"precision": pytest.approx(precision), "recall": pytest.approx(recall)}


def test_f1_says_which_words_are_missing_or_too_many():
    feedback = score(dm.f1(), "the black cat", "a white cat").feedback
    assert "missing: white" in feedback
    assert "not in the reference: black" in feedback


@pytest.mark.parametrize(
    ("output", "label", "value"),
    [
        (3.0000001, 3, 1),
        ("The total is $1,234.50.", 1234.5, 1),
        ("12-15", 15, 1),
        ("5 - 3 = 2", 2, 1),
        ("-2", 2, 0),
        ("1e3", "1000", 1),
        (".5", 0.5, 1),
        (0, 0, 1),
        (1e-9, 0, 0),
        pytest.param(10**400, 1, 0, id="huge int"),
        pytest.param("9" * 400, 5, 0, id="huge text"),
        ("inf", 5, 0),
        ("none", 5, 0),
    ],
)
def test_numbers_are_compared_as_numbers(output, label, value):
    assert score(dm.numeric(), output, label).value == value


def test_tolerances_are_relative_to_the_label():
    assert score(dm.numeric(abs_tol=0.1), 1.1, 1.05).value == 1
    assert score(dm.numeric(rel_tol=0.1), 109, 100).value == 1
    off = score(dm.numeric(rel_tol=0.1), 111, 100)
    assert (off.value, off.feedback) == (0, "answer is 111; expected 100 (off by 11).")
    for label in ("many", math.inf):
        with pytest.raises(RewardError, match="not a finite number"):
            score(dm.numeric(), 1, label)
    for wrong in ({"abs_tol": -1}, {"rel_tol": math.nan}, {"abs_tol": "1"}):
        with pytest.raises(ConfigurationError, match="tol"):
            dm.numeric(**wrong)


# ── JSON, patterns, lengths ───────────────────────────────────────────────────────────────────────────────────────────
class Person(BaseModel):
    name: str
    age: int


def test_json_is_compared_by_content():
    label = {"name": "Ann", "age": 3}
    for same in (label, '{"age": 3.0, "name": "Ann"}', '```json\n{"age": 3, "name": "Ann"}\n```', Person(**label)):
        assert score(dm.json_equal(), same, label).value == 1
    assert score(dm.json_equal(), None, None).value == 1
    assert score(dm.json_equal(), None, {}).value == 0
    assert score(dm.json_equal(), True, 1).value == 0


def test_json_feedback_lists_the_paths_that_differ():
    output = {"a": [1, {"b": 2}], "extra key": 0}
    label = {"a": [1, {"b": 3}, 4], "c": None}
    result = score(dm.json_equal(), output, label)
    assert result.feedback == (
        "answer differs: $.a[1].b is 2, expected 3; $.a[2] is missing, expected 4; $.c is missing, expected None; "
        "$['extra key'] is not expected."
    )
    assert (result.value, result.parts) == (0, {"equal_leaves": 0.0})
    near = score(dm.json_equal(partial_credit=True), {"a": 1, "b": 2, "c": 3, "d": 0}, {"a": 1, "b": 2, "c": 3, "d": 4})
    assert near.value == near.parts["equal_leaves"] == 0.75
    assert "and 95 more" in score(dm.json_equal(), list(range(100)), [None] * 100).feedback


def test_malformed_json_is_wrong_in_the_output_and_refused_in_the_label():
    broken = score(dm.json_equal(), '{"a": 1', {"a": 1})
    assert (broken.value, "answer is not JSON" in broken.feedback) == (0, True)
    assert score(dm.json_equal(), "[" * 100_000, []).value == 0
    with pytest.raises(RewardError, match="the label '{' is not JSON"):
        score(dm.json_equal(), {}, "{")


def test_a_pattern_is_searched_or_matched_whole():
    assert score(dm.regex(r"\d{4}"), "in 1999.", "").value == 1
    assert score(dm.regex(r"\d{4}", full=True), "in 1999.", "").value == 0
    result = score(dm.regex(r"\d{4}", message="Give the year in four digits."), "last year", "")
    assert (result.value, result.feedback) == (0, "Give the year in four digits.")
    with pytest.raises(ConfigurationError, match=r"pattern '\(' is malformed"):
        dm.regex("(")


def test_words_are_counted():
    row, prediction = dn.Example(limit=3), dn.Prediction(sentence="one two three four")
    assert dm.word_count(at_most=4, at_least=4)(row, prediction).value == 1
    assert dm.word_count(at_most=3)(row, prediction).feedback == "sentence has 4 words; use at most 3."
    assert dm.word_count(at_least=5)(row, prediction).feedback == "sentence has 4 words; use at least 5."
    assert dm.word_count(label="limit")(row, prediction).value == 0
    with pytest.raises(RewardError, match="is not a number of words"):
        dm.word_count(label="limit")(dn.Example(limit="few"), prediction)
    for wrong in ({}, {"at_most": -1}, {"at_least": 2.5}, {"at_most": 3, "label": "limit"}):
        with pytest.raises(ConfigurationError):
            dm.word_count(**wrong)


# ── several as one ────────────────────────────────────────────────────────────────────────────────────────────────────
ROW, GIVEN = dn.Example(word="blue", limit=2), dn.Prediction(sentence="the blue sea")


def test_several_metrics_are_weighted_and_become_parts():
    metrics = {"word": dm.contains(label="word"), "length": dm.word_count(label="limit")}
    result = dm.weighted(metrics, {"word": 3, "length": 1})(ROW, GIVEN)
    assert (result.value, result.parts) == (0.75, {"word": 1.0, "length": 0.0})
    assert result.feedback == "length (0): sentence has 3 words; use at most 2."


def test_a_weighted_metric_with_an_async_one_is_awaited():
    async def judge(row, prediction, trace):
        return 0.5 if trace == ["call"] else 0.0

    async def use():
        return await dm.weighted({"judge": judge, "word": dm.contains(label="word")})(ROW, GIVEN, trace=["call"])

    assert dn.run_sync(use).parts == {"judge": 0.5, "word": 1.0}


def test_a_weighted_metric_refuses_malformed_weights():
    one = {"word": dm.contains(label="word")}
    for metrics, weights in (({}, None), (one, {"wort": 1}), (one, {}), (one, {"word": -1}), (one, {"word": 0})):
        with pytest.raises(ConfigurationError):
            dm.weighted(metrics, weights)
    with pytest.raises(ConfigurationError, match="Did you mean 'word'"):
        dm.weighted(one, {"wort": 1})
    with pytest.raises(RewardError):
        dm.weighted({"bad": lambda row, prediction: math.nan})(ROW, GIVEN)


def test_metrics_have_names_and_descriptions_and_can_be_sent_to_another_process():
    metrics = {
        "exact_match": dm.exact_match("a"),
        "contains": dm.contains(text="x"),
        "f1": dm.f1(),
        "numeric": dm.numeric(),
        "json_equal": dm.json_equal(),
        "regex": dm.regex("a"),
        "word_count": dm.word_count(at_most=2),
    }
    row, prediction = dn.Example(a="7"), dn.Prediction(a="7 8")
    for name, metric in metrics.items():
        assert pickle.loads(pickle.dumps(metric))(row, prediction) == metric(row, prediction)
        assert metric.__name__ == name
        assert repr(metric).startswith(name)
        assert metric.__doc__.endswith(".")
