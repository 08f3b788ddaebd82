"""Pickling by users: pickle for objects of modules, cloudpickle for those of a notebook, joblib and process pools."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import pickle

import cloudpickle
import pytest

import dspynb as dn
from tests.helpers import chat


class Topic(dn.Signature):
    """Name the topic."""

    text: str = dn.Input()
    topic: str = dn.Output(desc="in a word", min_length=2)


class Program(dn.Module):
    """A program with a predictor and a chain of thought."""

    def __init__(self, lm=None):
        self.ask = dn.Predict(Topic, lm=lm, demos=[{"text": "They won.", "topic": "sport"}])
        self.think = dn.ChainOfThought(Topic, lm=lm)

    async def forward(self, text):
        return await self.ask(text=text)


def reply(request):
    return chat(topic="sport")


def right(row, prediction):
    return prediction.topic == row.topic


class Reply(dn.Prediction):
    """A prediction with a member of its own."""

    __slots__ = ()

    def shout(self):
        return self.topic.upper()


def predict_topic(program, text):
    """The work of a process: a call of the program, with the model of this process."""
    with dn.context(view="off", runs_dir=None):
        return program.run_sync(text=text)


def score_of(metric, topic):
    """The work of a process: a call of the metric."""
    return float(metric(dn.Example(topic="sport"), dn.Prediction(topic=topic)))


DUMPS = [pytest.param(pickle.dumps, id="pickle"), pytest.param(cloudpickle.dumps, id="cloudpickle")]


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    "signature",
    [
        Topic,
        dn.Predict("text -> topic").signature,
        dn.Predict("q: list[int], h: History -> a: Literal['x', 'y'], b: float").signature,
        Topic.with_instruction("Be brief."),
        Topic.append("tags", dn.Output(ge=1), int),
        dn.augment(Topic, dn.Reasoning, dn.Confidence),
    ],
    ids=str,
)
def test_a_signature_is_the_same_afterwards(signature, dumps):
    again = pickle.loads(dumps(signature))
    assert again.same_as(signature)
    assert again.describe() == signature.describe()


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    "program",
    [
        Program(),
        dn.Predict(Topic),
        dn.ChainOfThought("text -> topic"),
        dn.ReAct(Topic, [predict_topic]),
        dn.ReAct("history: History, text -> topic", []),
        dn.MultiChainComparison("text -> topic"),
        dn.BestOfN(dn.Predict(Topic), right, n=2),
        dn.Refine(Program(), right, n=2, hints="feedback"),
        dn.Predict(Topic).then(dn.Predict("topic -> kind")),
    ],
    ids=lambda program: type(program).__name__,
)
def test_a_program_has_the_same_state_and_uids_afterwards(program, dumps):
    again = pickle.loads(dumps(program))
    assert again.dump_state() == program.dump_state()
    assert [p.uid for _, p in again.named_predictors()] == [p.uid for _, p in program.named_predictors()]


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    "value",
    [
        dn.Example(a=1, b=[2]).with_inputs("a"),
        dn.Prediction(topic="sport"),
        dn.History([{"a": 1}]),
        dn.Score(0.5, "why", {"x": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_the_same_afterwards(value, dumps):
    again = pickle.loads(dumps(value))
    assert again == value
    assert type(again) is type(value)
    if isinstance(value, dn.Example):
        assert again.inputs() == {"a": 1}


@pytest.mark.parametrize("dumps", [*DUMPS, pytest.param(None, id="copy")])
def test_a_prediction_keeps_its_class_and_what_it_cost(dumps):
    prediction = dn.Predict(Topic, lm=dn.FunctionLM(reply)).run_sync(text="They won.").with_meta(score=dn.Score(0.5))
    again = copy.copy(prediction) if dumps is None else pickle.loads(dumps(prediction))
    assert (again.usage, again.score, again.topic) == (prediction.usage, prediction.score, "sport")
    own = Reply(topic="sport")
    assert (copy.copy(own) if dumps is None else pickle.loads(dumps(own))).shout() == "SPORT"


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize(
    "metric",
    [dn.metrics.exact_match(), dn.metrics.word_count("topic", at_most=3), right],
    ids=["exact", "words", "own"],
)
def test_a_metric_gives_the_same_score_afterwards(metric, dumps):
    again = pickle.loads(dumps(metric))
    assert score_of(again, "sport") == score_of(metric, "sport") == 1


def test_a_signature_of_a_notebook_without_outputs_is_still_refused():
    with pytest.raises(dn.errors.SignatureError, match="no output"):
        type("Empty", (dn.Signature,), {"__qualname__": "Empty"})


@pytest.fixture(scope="module")
def pool():
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        yield processes


def test_a_process_pool_runs_a_program(pool):
    program = Program(dn.FunctionLM(reply))
    done = list(pool.map(predict_topic, [program] * 3, ["They won.", "They lost.", "It rains."]))
    assert [prediction.topic for prediction in done] == ["sport"] * 3
    assert [prediction.usage.calls for prediction in done] == [1] * 3


def test_a_process_pool_runs_a_metric(pool):
    metric = dn.metrics.exact_match("topic")
    assert list(pool.map(score_of, [metric] * 2, ["sport", "rain"])) == [1, 0]


def test_joblib_runs_a_program_in_its_processes():
    joblib = pytest.importorskip("joblib")
    program = Program(dn.FunctionLM(reply))
    done = joblib.Parallel(n_jobs=2)(joblib.delayed(predict_topic)(program, text) for text in ("a b", "c d"))
    assert [prediction.topic for prediction in done] == ["sport", "sport"]
