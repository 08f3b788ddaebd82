"""GEPA: the published loop step by step, and the additions to it."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.events import CandidateProposed, CandidateScored, ProposalEnded
from dspynb.optimizers.core.candidate import Candidate
from dspynb.optimizers.gepa.gepa import GEPA
from dspynb.optimizers.gepa.parent_selection import pareto_choice, pareto_front
from dspynb.scope import Part
from tests.helpers import chat, field, prompt
from tests.optimizers.worlds import World, events, lines, optimized, outcome, three

RULES = 4


def answer(request):
    """A model that is right where the instruction has the rule for the question: its number modulo 4."""
    number = int(field(request, "question"))
    stated = re.findall(r"rule (\d)", request.messages[0]["content"])
    return chat(answer="right" if str(number % RULES) in stated else "wrong")


def metric(row, prediction):
    right = prediction.answer == "right"
    return dn.Score(float(right), "Good." if right else f"Follow rule {int(row.question) % RULES}.")


def reflecting(request):
    """A model that appends the first rule in the feedback to the current instruction."""
    text = prompt(request)
    current = re.findall(r"rule (\d)", text.split("[[ ## examples ## ]]")[-2].split("current_instruction")[-1])
    named = re.findall(r"Follow rule (\d)", text)
    rules = dict.fromkeys([*current, *named[:1]])
    return chat(new_instruction=" ".join(["Answer.", *(f"rule {rule}" for rule in rules)]))


def rows(first, last):
    return [{"question": str(i), "answer": ""} for i in range(first, last)]


def program():
    return dn.Predict("question -> answer", lm=dn.FunctionLM(answer))


def run_of(optimizer, train=None, val=None):
    async def main():
        run = optimizer.start(program(), train or rows(0, 12), val or rows(20, 28))
        await run
        return run

    return asyncio.run(main())


def plain(**settings):
    """The algorithm of the paper, without the additions."""
    return GEPA(
        metric,
        in_flight=1,
        confirm=0,
        racing=False,
        prompt_lm=dn.FunctionLM(reflecting),
        budget=dn.Budget(metric_calls=100),
        **settings,
    )


def event_lines(run):
    """The events of a run as lines, in the words of algorithm 1."""
    lines, names = [], {}
    for event in run.record.events:
        match event:
            case CandidateProposed():
                names[event.id] = f"c{len(names)}"
                lines.append(f"{names[event.id]} from {','.join(names[p] for p in event.parents) or 'nothing'}")
            case CandidateScored():
                on = "D_pareto" if event.split == "val" else f"minibatch of {event.rows}"
                lines.append(f"{names[event.candidate]} on {on}: {event.score * event.rows:g} of {event.rows}")
            case ProposalEnded():
                lines.append("reflect")
    return lines


def test_with_all_additions_off_it_follows_the_published_algorithm_step_by_step():
    run = run_of(plain())
    lines = event_lines(run)
    assert lines[:2] == ["c0 from nothing", "c0 on D_pareto: 0 of 8"]  # evaluate the start on all of D_pareto
    # then, while there is budget: a parent runs on a minibatch, reflection, the child runs on the same minibatch, and
    # only one that is better there runs on D_pareto
    steps, left = [], lines[2:]
    while left:
        parent, after = left[0].split(" on ")[0], left[1:]
        assert "minibatch of 3" in left[0]
        if not after or after[0] != "reflect":  # nothing to learn: all rows are right
            assert left[0].endswith("3 of 3")
            left = after
            continue
        child = after[1].split(" from ")[0]
        if " from " not in after[1]:  # a text that is known
            left = after[1:]
            continue
        assert after[1] == f"{child} from {parent}"
        assert after[2].startswith(f"{child} on minibatch of 3")
        before, now = (float(text.split(": ")[1].split(" ")[0]) for text in (left[0], after[2]))
        accepted = len(after) > 3 and after[3].startswith(f"{child} on D_pareto")
        assert accepted == (now > before)
        steps.append(child)
        left = after[4:] if accepted else after[3:]
    assert len(steps) >= 3
    assert run.candidates.score.max() >= 0.75


def test_reflection_sees_inputs_answers_and_feedback_of_the_minibatch():
    seen = []

    def spying(request):
        seen.append(prompt(request))
        return reflecting(request)

    optimizer = plain()
    optimizer.reflection.predict.lm = dn.FunctionLM(spying)
    run_of(optimizer)
    assert "question: " in seen[0]
    assert "Answered: answer: wrong" in seen[0]
    assert seen[0].count("Feedback: Follow rule") == 3


def test_reflection_sees_other_rows_on_which_the_parent_is_imperfect():
    seen = []

    def spying(request):
        seen.append(prompt(request))
        return chat(new_instruction=f"No better, {len(seen)}.")

    def shown(**settings):
        seen.clear()
        run_of(
            GEPA(metric, in_flight=1, prompt_lm=dn.FunctionLM(spying), budget=dn.Budget(metric_calls=40), **settings)
        )
        return [text.count("Feedback: Follow rule") for text in seen]

    assert shown() == [3, 6, 9, 12]  # the start is the parent of all, and every row of it is wrong
    assert shown(recall=4) == [3, 6, 7, 7]
    assert shown(confirm=0) == [3, 3, 3, 3]


def test_reflection_sees_imperfect_rollouts_of_others_on_rows_that_the_parent_has_not_run_on():
    seen = []

    def spying(request):
        seen.append(prompt(request))
        return chat(new_instruction="Answer. rule 0 rule 1 rule 2" if len(seen) == 2 else f"No better, {len(seen)}.")

    budget = dn.Budget(metric_calls=44)
    run_of(GEPA(metric, in_flight=1, confirm=0, recall=9, prompt_lm=dn.FunctionLM(spying), budget=budget))
    others = [text.count("answered with another instruction") for text in seen]
    assert others[:3] == [0, 0, 3]  # the third parent is the second child: only the start has run on the first three
    third = seen[2].split("[[ ## examples ## ]]")[-1]
    assert third.index("another instruction") > third.index("Example 3")  # its own come first


def test_a_search_continues_when_a_parent_is_dropped_during_its_mutation():
    gone = []

    def reflect(request):
        if "rule 0" in prompt(request) and not gone:
            run = dn.last_run()
            gone.extend(c for c in run.candidates.index if c and run.candidates.full[c])
            for candidate in gone:
                run.drop(candidate)
        return reflecting(request)

    run = run_of(GEPA(metric, in_flight=2, prompt_lm=dn.FunctionLM(reflect), budget=dn.Budget(metric_calls=200)))
    assert run.status == "finished"
    assert gone
    assert not run.candidates.best[gone].any()


def single(request):
    """A reflection that makes one more row of every four right."""
    return chat(new_instruction="Answer. rule 1")


def test_a_child_that_stays_ahead_by_one_row_is_rejected_and_a_clearly_better_one_accepted():
    def lucky(request):  # right on row 1 alone, with the rule
        number, stated = field(request, "question"), "rule 1" in request.messages[0]["content"]
        return chat(answer="right" if stated and number in lucky.rows else "wrong")

    def is_accepted(*right, **settings):
        lucky.rows = right
        train = rows(0, 12)

        async def main():
            optimizer = GEPA(
                metric, minibatch_size=6, max_steps=2, in_flight=1, prompt_lm=dn.FunctionLM(single), **settings
            )
            run = optimizer.start(dn.Predict("question -> answer", lm=dn.FunctionLM(lucky)), train, rows(20, 28))
            await run
            return run

        validated = {e.candidate for e in events(asyncio.run(main()), CandidateScored) if e.split == "val"}
        return len(validated) == 2

    numbers = [str(i) for i in range(12)]
    assert is_accepted(*numbers)
    assert is_accepted(*numbers[:6], *numbers[8:])
    assert not any(is_accepted(number, confirm=4) for number in numbers)
    assert any(is_accepted(number, confirm=0) for number in numbers)


def test_the_last_minibatch_is_smaller_where_the_budget_has_no_room_for_a_whole_one():
    def same(request):
        return chat(new_instruction=f"No better, {request.rollout}.")

    def sizes(limit):
        budget = dn.Budget(metric_calls=limit)
        run = run_of(GEPA(metric, minibatch_size=6, in_flight=1, prompt_lm=dn.FunctionLM(same), budget=budget))
        assert len(run.rollouts) <= limit
        return [e.rows for e in events(run, CandidateScored) if e.split == "train"]

    step = 6 + 6 + 8  # two minibatches and a validation
    assert sizes(8 + step) == [6, 6]
    assert sizes(8 + step + 5) == [6, 6]  # 2 rows would tell nothing
    assert sizes(8 + step + 6) == [6, 6, 3, 3]
    assert sizes(8 + step + 9) == [6, 6, 4, 4]


def test_training_rows_break_ties_on_validation_rows():
    def hard(request):  # nothing helps on the validation rows
        return chat(answer="wrong") if int(field(request, "question")) >= 20 else answer(request)

    async def main():
        task, budget = dn.Predict("question -> answer", lm=dn.FunctionLM(hard)), dn.Budget(metric_calls=60)
        run = GEPA(metric, prompt_lm=dn.FunctionLM(reflecting), budget=budget).start(task, rows(0, 12), rows(20, 24))
        await run
        return run

    table = asyncio.run(main()).candidates
    assert set(table[table.n == 4].score) == {0.0}
    assert table[table.best].origin.item() == "reflection"


def test_with_one_mutation_at_a_time_each_may_start_from_the_child_before_it():
    run = run_of(plain())
    proposed = events(run, CandidateProposed)
    depths = {}
    for e in proposed:  # parents come before their children
        depths[e.id] = 1 + depths[e.parents[0]] if e.parents else 0
    assert max(depths.values()) >= 3  # four rules, one learned a step


def test_a_metric_with_a_predictor_parameter_gives_feedback_on_each_predictor():
    predictors = []

    def for_predictor(row, prediction, predictor=None):
        predictors.append(predictor)
        return dn.Score(metric(row, prediction).value, f"Follow rule {int(row.question) % RULES}, {predictor}.")

    seen = []

    def spying(request):
        seen.append(prompt(request))
        return reflecting(request)

    run_of(GEPA(for_predictor, prompt_lm=dn.FunctionLM(spying), budget=dn.Budget(metric_calls=60)))
    assert "self" in predictors
    assert re.search(r"Follow rule \d, self\.", seen[0])


def judged(judge):
    """A metric whose feedback on a predictor a model writes."""

    async def metric_of(row, prediction, predictor=None):
        if predictor is None:
            return metric(row, prediction).value
        return dn.Score(metric(row, prediction).value, (await judge(question=row.question)).feedback)

    return metric_of


def test_feedback_that_calls_a_model_is_part_of_the_proposal_and_not_repeated_on_resume(tmp_path):
    questions = []

    def judging(request):
        questions.append(field(request, "question"))
        return chat(feedback=f"Follow rule {int(questions[-1]) % RULES}.")

    judge = dn.Predict("question -> feedback", lm=dn.FunctionLM(judging))

    def optimizer(calls):
        budget = dn.Budget(metric_calls=60, calls=calls)
        return GEPA(judged(judge), recall=0, prompt_lm=dn.FunctionLM(reflecting), budget=budget)

    dn.configure(runs_dir=str(tmp_path))
    straight = run_of(optimizer(200))
    assert straight.candidates.score.max() > 0
    steps = sum(isinstance(event, ProposalEnded) for event in straight.record.events)
    assert len(questions) == 3 * steps > 0

    text, path = lines(straight), Path(straight.path)
    for cut in (len(text) * 2 // 3, len(text) * 5 // 6, len(text)):
        path.write_bytes(b"".join(text[:cut]))
        questions.clear()

        async def main():
            run = optimizer(200).resume(path, program(), rows(0, 12), rows(20, 28))
            await run
            return run

        again = asyncio.run(main())
        assert again.candidates.score.tolist() == straight.candidates.score.tolist()
        assert len(questions) < 3 * steps
    assert questions == []


def test_feedback_that_fails_is_a_failed_proposal():
    def failing(row, prediction, predictor=None):
        if predictor is not None:
            raise ValueError("no words today")
        return metric(row, prediction)

    optimizer = GEPA(failing, prompt_lm=dn.FunctionLM(reflecting), budget=dn.Budget(metric_calls=200))
    with pytest.raises(dn.errors.OptimizerError, match="no words today"):
        run_of(optimizer)


def test_a_metric_without_feedback_works():
    def bare(row, prediction):
        return prediction.answer == "right"

    seen = []

    def spying(request):
        seen.append(prompt(request))
        return chat(new_instruction=f"Answer. rule {len(seen) % RULES}")

    with pytest.warns(dn.NoFeedbackWarning, match="bare gives scores without feedback"):
        run = run_of(GEPA(bare, prompt_lm=dn.FunctionLM(spying), budget=dn.Budget(metric_calls=80)))
    assert "This got a score of 0." in seen[0]
    assert run.candidates.score.max() > 0


def test_a_metric_that_has_no_feedback_on_a_predictor_either_is_warned_of():
    def bare(row, prediction, predictor=None):
        return prediction.answer == "right"

    with pytest.warns(dn.NoFeedbackWarning, match="bare gives scores without feedback"):
        run_of(GEPA(bare, max_steps=1, prompt_lm=dn.FunctionLM(reflecting)))


def test_scores_above_the_perfect_one_are_warned_of():
    def of_ten(row, prediction):
        return dn.Score(3.0, "Do better.")

    with pytest.warns(dn.ScoreRangeWarning, match="of_ten gives scores above perfect_score=1"):
        run = run_of(GEPA(of_ten, prompt_lm=dn.FunctionLM(reflecting)))
    assert len(run.proposals) == 0
    assert len(run_of(GEPA(of_ten, max_steps=2, perfect_score=10, prompt_lm=dn.FunctionLM(reflecting))).proposals) == 2


@pytest.mark.parametrize("settings", [{"perfect_score": None}, {"temperature": "hot"}, {"racing": "no"}], ids=str)
def test_settings_of_another_type_are_refused_by_the_constructor(settings):
    (name,) = settings
    with pytest.raises(dn.errors.ConfigurationError, match=f"{name} must be"):
        GEPA(metric, **settings)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_reflection_model_that_is_down_is_an_error_however_few_rows_there_are(count):
    def down(request):
        raise dn.errors.ConnectionFailed("nobody is there")

    with pytest.raises(dn.OptimizerError, match=r"5 proposals in a row failed.*dn.last_run\(\).best.*nobody is there"):
        run_of(GEPA(metric, prompt_lm=dn.FunctionLM(down)), train=rows(0, count))


def test_reflection_does_not_depend_on_which_of_several_concurrent_calls_ended_first():
    class Halves(dn.Module):
        def __init__(self, lm):
            self.ask = dn.Predict("question -> answer", lm=lm)

        async def forward(self, question):
            predictions = await asyncio.gather(*(self.ask(question=str(int(question) + n)) for n in range(3)))
            return {"answer": predictions[0].answer}

    async def main(seed, seen):
        wait = random.Random(seed)

        async def slowly(request):
            await asyncio.sleep(wait.random() * 0.004)
            return answer(request)

        def spying(request):
            seen.append(prompt(request))
            return reflecting(request)

        optimizer = GEPA(metric, in_flight=1, max_steps=3, prompt_lm=dn.FunctionLM(spying))
        await optimizer.compile(Halves(dn.FunctionLM(slowly)), rows(0, 12), rows(20, 28))
        return seen

    first, second = (asyncio.run(main(seed, [])) for seed in (1, 2))
    assert len(first) == 3
    assert first == second


@pytest.mark.parametrize("confirm", [0, 9])
def test_minibatches_are_whole_in_the_published_algorithm_else_smaller_where_the_budget_ends(confirm):
    def sizes(limit):
        optimizer = GEPA(
            metric, in_flight=1, confirm=confirm, minibatch_size=6, prompt_lm=dn.FunctionLM(reflecting),
            budget=dn.Budget(metric_calls=limit),
        )  # fmt: skip
        return {
            e.rows for e in run_of(optimizer).record.events if isinstance(e, CandidateScored) and e.split == "train"
        }

    all_sizes = set.union(*(sizes(limit) for limit in range(28, 60, 2)))
    assert all_sizes == {6} if confirm == 0 else {4, 5} & all_sizes


@pytest.mark.parametrize("confirm", [0, 3])
def test_in_the_published_algorithm_the_first_of_equal_candidates_wins_else_training_rows_decide(confirm):
    def equal(row, prediction):
        learned = int(row.question) < 20
        return dn.Score(
            float(prediction.answer == "right") if learned else 1.0, f"Follow rule {int(row.question) % 4}."
        )

    optimizer = GEPA(equal, in_flight=1, confirm=confirm, max_steps=6, prompt_lm=dn.FunctionLM(reflecting))
    table = run_of(optimizer).candidates
    assert (table.score == 1).sum() > 1
    assert table.best.tolist().index(True) == 0 if confirm == 0 else table.best.tolist().index(True) > 0


def test_it_stays_within_the_budget_and_ends_by_itself():
    for limit in range(22, 68, 5):
        run = run_of(GEPA(metric, prompt_lm=dn.FunctionLM(reflecting), budget=dn.Budget(metric_calls=limit)))
        assert len(run.rollouts) <= limit
        assert run.status in ("finished", "exhausted")


def test_a_reflection_that_repeats_the_parent_is_no_child():
    def same(request):
        return chat(new_instruction="Given the fields `question`, produce the fields `answer`.")

    run = run_of(GEPA(metric, prompt_lm=dn.FunctionLM(same), budget=dn.Budget(metric_calls=60)))
    assert len(run.candidates) == 1
    assert "was better than the program as it is" in run.summary
    assert f"None of {len(run.proposals)} proposals became a candidate" in run.summary


def test_reflections_that_cannot_be_read_end_the_run():
    with pytest.raises(dn.OptimizerError, match="5 proposals in a row failed"):
        run_of(GEPA(metric, prompt_lm=dn.FunctionLM(lambda request: "nonsense"), budget=dn.Budget(metric_calls=200)))


def test_the_winner_is_the_same_with_several_steps_in_flight_whatever_the_latencies():
    tables = set()
    for seed in range(3):
        chance = random.Random(seed)

        async def slowly(request, chance=chance):
            await asyncio.sleep(chance.random() * 0.004)
            return answer(request)

        async def main(slowly=slowly):
            task = dn.Predict("question -> answer", lm=dn.FunctionLM(slowly))
            optimizer = GEPA(metric, prompt_lm=dn.FunctionLM(reflecting), budget=dn.Budget(metric_calls=90))
            run = optimizer.start(task, rows(0, 12), rows(20, 28))
            await run
            return run

        table = asyncio.run(main()).candidates
        tables.add(tuple(zip(table.id, table.score, table.n, strict=True)))
    assert len(tables) == 1


@pytest.mark.parametrize("limits", [{"metric_calls": 77}, {"calls": 70, "metric_calls": 90}], ids=["rollouts", "calls"])
def test_many_steps_in_flight_under_a_budget_end_the_same_whatever_the_latencies(limits):
    def result_with(latency, concurrency):
        settings = {"in_flight": 5, "max_steps": None, "budget": dn.Budget(**limits), "concurrency": concurrency}
        world = World(latency, slowest=0.004)
        return outcome(asyncio.run(optimized(GEPA, world, program=three, **settings))), sorted(world.requests)

    straight = result_with(None, 4)
    assert len(straight[0]["candidates"]) > 3
    for latency, concurrency in ((1, 4), (2, 16), (3, 1)):
        assert result_with(latency, concurrency) == straight


def candidates(n):
    return [Candidate({"self": Part(str(i))}) for i in range(n)]


def test_the_front_has_no_dominated_candidates():
    a, b, c = candidates(3)
    scores = {a: {0: 1.0, 1: 0.0, 2: 1.0}, b: {0: 1.0, 1: 0.0, 2: 0.0}, c: {0: 0.0, 1: 1.0, 2: 0.0}}
    assert pareto_front(scores) == {a: 2, c: 1}


def test_a_parent_is_drawn_in_proportion_to_the_rows_on_which_it_is_best():
    a, b = candidates(2)
    scores = {a: dict.fromkeys(range(3), 1.0) | {3: 0.0}, b: dict.fromkeys(range(3), 0.0) | {3: 1.0}}
    drawn = [pareto_choice(scores, random.Random(seed)) for seed in range(400)]
    assert 0.65 < drawn.count(a) / 400 < 0.85
