"""Demos: which traces and labels become demos, of which program, and in which order."""

from __future__ import annotations

import asyncio
import base64

import pandas as pd
import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, InputError
from dspynb.events import CandidateProposed, CandidateScored, RolloutEnded
from dspynb.optimizers.core.demos import labeled_demos
from tests.helpers import chat, field
from tests.optimizers.worlds import TRAIN, VAL, World, events, one, right, rows, small, three

run = asyncio.run
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def doubling(but=(), requests=None):
    """A model that doubles numbers, but not those in ``but``; appends (question, number of demos) to ``requests``."""

    def answer(request):
        question = field(request, "question")
        if requests is not None:
            requests.append((question, (len(request.messages) - 2) // 2))
        return chat(answer="wrong" if question in but else str(2 * int(question)))

    return dn.FunctionLM(answer)


def learned(program, train=TRAIN, val=None, kind=dn.BootstrapFewShot, metric=right, **settings):
    return run(small(kind, metric, **settings).compile(program, train, val))


def questions(predictor):
    return [demo["question"] for demo in predictor.demos]


def test_traces_that_the_metric_accepts_come_first_in_the_rows_order_then_labels():
    program = dn.Predict("question -> answer", lm=doubling(but={"0", "2"}))
    better = learned(program, max_bootstrapped_demos=2, max_labeled_demos=4, max_rounds=1)
    assert questions(better)[:2] == ["1", "3"]
    assert len(better.demos) == 4
    assert len(set(questions(better))) == 4
    assert all(demo["answer"] == str(2 * int(demo["question"])) for demo in better.demos)


def test_concurrency_tries_no_more_rows_than_one_at_a_time():
    requests = []
    program = dn.Predict("question -> answer", lm=doubling(but={"1"}, requests=requests))
    learned(program, max_bootstrapped_demos=2, max_labeled_demos=0, max_rounds=1, concurrency=32)
    assert [question for question, _ in requests] == ["0", "1", "2"]


def test_a_row_is_retried_only_if_its_trace_was_not_accepted():
    requests = []
    program = dn.Predict("question -> answer", lm=doubling(but={"0"}, requests=requests))
    learned(program, TRAIN[:2], max_bootstrapped_demos=2, max_labeled_demos=0, max_rounds=3)
    assert sorted(question for question, _ in requests) == ["0", "0", "0", "1"]


def test_a_threshold_decides_what_is_accepted():
    def half(row, prediction):
        return 0.5

    program = dn.Predict("question -> answer", lm=doubling())
    for threshold, traces in ((None, 2), (0.5, 2), (0.6, 0)):
        done = small(dn.BootstrapFewShot, half, max_labeled_demos=0, metric_threshold=threshold)
        assert len(run(done.compile(program, TRAIN)).demos) == traces
    assert learned(program, max_labeled_demos=0, metric=lambda row, prediction: 0.0).demos == []


def test_the_row_that_is_tried_is_not_among_the_demos_it_is_shown():
    seen = []

    def answer(request):
        shown = [m["content"] for m in request.messages[1:-1] if m["role"] == "user"]
        question = field(request, "question")
        seen.append(any(f"]]\n{question}\n" in text for text in shown))
        return chat(answer=str(2 * int(question)))

    learned(dn.Predict("question -> answer", lm=dn.FunctionLM(answer)), max_labeled_demos=16)
    assert seen == [False, False]


def test_the_traces_are_the_teachers_and_the_scores_the_programs():
    requests = []
    program = dn.Predict("question -> answer", lm=doubling(but=set("0123456789")))
    teacher = dn.Predict("question -> answer", lm=doubling(requests=requests))
    handle = {}

    async def main():
        handle["run"] = small(dn.BootstrapFewShot, max_labeled_demos=0, teacher=teacher).start(program, TRAIN, VAL)
        return await handle["run"]

    run(main())
    assert [question for question, _ in requests] == ["0", "1"]
    last = events(handle["run"], CandidateProposed)[-1]
    assert [demo["answer"] for demo in last.parts["self"]["demos"]] == ["0", "2"]
    assert {e.split for e in events(handle["run"], RolloutEnded) if e.candidate.startswith("teacher ")} == {"train"}


def test_a_run_with_a_teacher_is_resumed_and_refused_with_another_teacher():
    def start(teacher):
        return small(dn.BootstrapFewShot, max_labeled_demos=0, teacher=teacher)

    def program(instruction=None):
        return dn.Predict("question -> answer", lm=doubling(), instruction=instruction)

    async def main():
        handle = start(program("Teach.")).start(program(), TRAIN)
        first = await handle
        requests = []
        other_teacher = dn.Predict("question -> answer", lm=doubling(requests=requests), instruction="Teach.")
        second = await start(other_teacher).resume(handle.id, program(), TRAIN)
        assert second.demos == first.demos
        assert len(second.demos) == 2
        assert requests == []
        with pytest.raises(ConfigurationError, match="these settings changed: teacher"):
            start(program("Teach otherwise.")).resume(handle.id, program(), TRAIN)

    run(main())


def test_the_teachers_model_does_not_replace_the_programs():
    strong, weak = [], []
    program = dn.Predict("question -> answer")
    with dn.context(lm=doubling(but=set("0123456789"), requests=weak)):
        better = learned(program, max_labeled_demos=0, teacher_lm=doubling(requests=strong))
    assert questions(better) == ["0", "1"]
    assert weak == []
    assert better.lm is None


def test_a_teacher_of_another_structure_is_refused():
    with pytest.raises(InputError, match=r"teacher has the predictors plan, steps\[0\], answer; the program self"):
        learned(one(World()), teacher=three(World()))
    with pytest.raises(ConfigurationError, match="teacher must be a program, or None, got 'gpt'"):
        dn.BootstrapFewShot(right, teacher="gpt")


def test_every_predictor_gets_the_demos_of_its_own_calls():
    better = learned(three(World()), max_rounds=4)
    for path, predictor in better.named_predictors():
        names = {*predictor.signature.input_fields, *predictor.signature.output_fields}
        assert all(set(demo) <= names for demo in predictor.demos), path
    assert better.plan.demos


def test_the_demo_does_not_depend_on_which_of_several_concurrent_calls_ended_first():
    class Many(dn.Module):
        def __init__(self, lm):
            self.ask = dn.Predict("question -> answer", lm=lm)

        async def forward(self, question):
            calls = [self.ask(question=str(int(question) + i)) for i in (0, 100, 200)]
            return (await asyncio.gather(*calls))[0]

    class Late:
        def __init__(self, order):
            self.order = order

        async def __call__(self, request):
            question = field(request, "question")
            await asyncio.sleep(0.004 * (int(question) // 100 * self.order % 3))
            return chat(answer=str(2 * int(question)))

    demos = [learned(Many(dn.FunctionLM(Late(order))), max_labeled_demos=0).ask.demos for order in (1, 2)]
    assert demos[0] == demos[1]
    assert len(demos[0]) == 2


class Look(dn.Signature):
    """Say what is in the image."""

    image: dn.Image = dn.Input()
    answer: str = dn.Output()


def test_demos_with_images_have_them_whole_also_in_a_resumed_run():
    pixel = dn.Image(base64.b64decode(PIXEL))
    train = [{"image": pixel, "answer": str(i)} for i in (4, 4, 7)]
    program = dn.Predict(Look, lm=dn.FunctionLM(lambda request: chat(answer="4")))

    async def main():
        handle = small(dn.BootstrapFewShot).start(program, train)
        first = await handle
        second = await small(dn.BootstrapFewShot).resume(handle.id, program, train)
        return first, second

    first, second = run(main())
    assert [demo["answer"] for demo in first.demos] == ["4", "4", "7"]
    assert all(isinstance(demo["image"], dn.Image) for demo in first.demos)
    assert first.dump_state() == second.dump_state()


def test_labels_of_another_type_than_the_field_are_left_out():
    predictor = dn.Predict("question -> answer: int", lm=dn.FunctionLM(lambda request: chat(answer="1")))
    train = [{"question": "a", "answer": "none"}, {"question": "b", "answer": 2}]
    better = learned(predictor, train, metric=lambda row, prediction: 0.0)
    assert better.demos == [{"question": "b", "answer": 2}]


def test_labels_are_rows_with_all_outputs_and_an_input():
    predictor = dn.Predict("question, context -> answer")
    table = [{"question": "1", "answer": "2"}, {"question": "1"}, {"answer": "2"}, {"question": "1", "answer": None}]

    class First:
        def sample(self, rows, most):
            return rows[:most]

    demos = labeled_demos(predictor, [dn.Example(row) for row in table], 9, First())
    assert demos == [{"question": "1", "answer": "2"}]


def test_without_validation_rows_nothing_is_evaluated_and_the_demos_are_the_result():
    handle = {}

    async def main():
        handle["run"] = small(dn.BootstrapFewShot).start(dn.Predict("question -> answer", lm=doubling()), TRAIN)
        return await handle["run"]

    assert run(main()).demos
    assert events(handle["run"], CandidateScored) == []


def test_random_search_tries_no_demos_labels_and_sets_of_several_sizes():
    handle = {}

    async def main():
        search = small(dn.BootstrapRandomSearch, num_candidates=4, max_bootstrapped_demos=3)
        handle["run"] = search.start(dn.Predict("question -> answer", lm=doubling()), TRAIN, VAL)
        return await handle["run"]

    run(main())
    origins = [e.origin for e in events(handle["run"], CandidateProposed)]
    assert origins[:3] == ["start", "labels", "unshuffled"]
    assert origins[3:] == [f"set {i}" for i in range(4)]


def test_sets_share_the_teachers_rollouts():
    requests = []
    learned(
        dn.Predict("question -> answer", lm=doubling(requests=requests)),
        kind=dn.BootstrapRandomSearch,
        num_candidates=6,
        val=rows(50, 52),
        max_labeled_demos=0,
    )
    tried = [question for question, _ in requests if int(question) < 10]
    assert len(tried) == len(set(tried)) <= 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_bootstrapped_demos": 0}, "max_bootstrapped_demos must be a whole number of at least 1"),
        ({"max_labeled_demos": -1}, "max_labeled_demos must be a whole number of at least 0"),
        ({"max_rounds": 1.5}, "max_rounds must be a whole number"),
        ({"metric_threshold": "high"}, "metric_threshold must be a finite number, or None, got 'high'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    for kind in (dn.BootstrapFewShot, dn.BootstrapRandomSearch):
        with pytest.raises(ConfigurationError, match=says):
            kind(right, **settings)


def test_only_the_chosen_attempt_of_a_refine_is_a_trace():
    replies = iter(["BAD", "BAD", "good"] * 20)
    refine = dn.Refine(
        dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer=next(replies)))),
        reward=lambda row, prediction: prediction.answer == "good",
        hints="feedback",
    )
    optimizer = dn.BootstrapFewShot(
        lambda row, prediction: prediction.answer == "good", max_labeled_demos=0, concurrency=1
    )
    better = asyncio.run(optimizer.compile(refine, [{"question": str(i)} for i in range(3)]))
    assert [demo["answer"] for demo in better.module.demos] == ["good"] * 3


def test_an_empty_cell_of_a_table_is_no_label():
    table = pd.DataFrame({"question": ["1", "2", "3"], "answer": ["2", None, float("nan")]})
    optimizer = dn.BootstrapFewShot(lambda row, prediction: 0.0, max_labeled_demos=3)
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="x")))
    better = asyncio.run(optimizer.compile(program, table))
    assert better.demos == [{"question": "1", "answer": "2"}]


def test_the_teachers_model_is_used_instead_of_a_predictors_own():
    requests = []

    def big(request):
        requests.append(request)
        return chat(answer="2")

    own = dn.FunctionLM(lambda request: chat(answer="small"))
    optimizer = dn.BootstrapFewShot(lambda row, prediction: prediction.answer == "2", teacher_lm=dn.FunctionLM(big))
    better = asyncio.run(optimizer.compile(dn.Predict("question -> answer", lm=own), [{"question": "1"}]))
    assert len(requests) == 1
    assert better.demos == [{"question": "1", "answer": "2"}]
    assert better.lm is own


def test_a_teacher_that_fails_on_every_row_ends_the_run():
    def down(request):
        raise dn.errors.ServerError("down")

    program = dn.Predict("question -> answer", lm=dn.FunctionLM(down))
    with pytest.raises(dn.OptimizerError, match="failed on all 1 rows.*ServerError"):
        asyncio.run(dn.BootstrapFewShot(lambda row, prediction: 1.0).compile(program, [{"question": "1"}]))
