"""The datasets that ship with the tutorials, and tasks from elsewhere as rows and metric."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError

CAPTION = dn.metrics.weighted(
    {"word": dn.metrics.contains(label="word", whole_words=True), "length": dn.metrics.word_count(label="max_words")}
)


def test_topics_are_balanced_and_distinct():
    rows = dn.load_dataset("topics")
    assert Counter(row.topic for row in rows) == {"sports": 50, "business": 50, "science": 50}
    assert len({row.text for row in rows}) == 150
    assert (list(rows[0].inputs()), list(rows[0].labels())) == (["text"], ["topic"])


def test_captions_can_be_scored_without_labels():
    rows = dn.load_dataset("captions")
    assert len({row.subject for row in rows}) == len(rows) == 120
    assert set(rows[0].inputs()) == {"subject", "word", "max_words"}
    for row in rows:
        assert row.word not in row.subject.split()
        assert CAPTION(row, dn.Prediction(sentence=f"Here it is: {row.word}.")).value == 1.0
        assert CAPTION(row, dn.Prediction(sentence="No. " * (row.max_words + 1))).value == 0.0


def test_an_unknown_dataset_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="Did you mean 'topics'.* Datasets: captions, topics"):
        dn.load_dataset("topic")


def test_the_data_files_are_in_the_package():
    folder = Path(dn.__file__).parent / "evaluation" / "data"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "captions.jsonl", "topics.jsonl"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
def test_tasks_of_reasoning_gym_are_rows_and_metric():
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym does not install on this Python")
    tasks = reasoning_gym.create_dataset("chain_sum", size=4, seed=1)
    rows = [dn.Example(task).with_inputs("question") for task in tasks]

    def right(row, prediction):
        return tasks.score_answer(prediction.answer, row.to_dict())

    answers = {row.question: row.answer for row in rows[:3]}
    lm = dn.FunctionLM(lambda request: f"[[ ## answer ## ]]\n{_known(request, answers)}")
    predictions = dn.run_sync(lambda: dn.Predict("question -> answer", lm=lm).batch(rows))
    assert [right(row, p) == 1.0 for row, p in zip(rows, predictions, strict=True)] == [True, True, True, False]


def _known(request, answers):
    prompt = request.messages[-1]["content"]
    return next((answer for question, answer in answers.items() if question in prompt), "unknown")
