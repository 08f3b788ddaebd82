"""Steering a run while it runs, from any thread: hints, pauses, budgets, candidates; and when it is resumed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import dspynb as dn
from dspynb.errors import BudgetExhausted, ConfigurationError, HintError, InputError, RunStopped, SteeringError
from dspynb.events import AttemptStarted, Steered
from dspynb.running.journal import flush_journals
from dspynb.running.record import RunRecord
from dspynb.scope import GATE
from tests.helpers import Caption, chat, prompt
from tests.optimizers.worlds import TRAIN, VAL, World, one, small


class Model:
    """A model that echoes its hint. ``prompts``: those it was called with. With ``waiting``, each reply waits for a
    release of ``go``."""

    def __init__(self, *, waiting=False, seconds=0.0):
        self.prompts = []
        self.seconds = seconds
        self.go = asyncio.Semaphore(0) if waiting else None
        self.news = asyncio.Event()
        self.lm = dn.FunctionLM(self._answer)

    async def _answer(self, request):
        text = prompt(request)
        self.prompts.append(text)
        self.news.set()
        if self.go is not None:
            await self.go.acquire()
        await asyncio.sleep(self.seconds)
        if "[[ ## advice ## ]]" in text:
            return chat(advice=json.dumps({"self": "the advisor's"}))
        return chat(sentence=text.split("Hint: ")[1].split("\n")[0] if "Hint: " in text else "none")

    async def was_called(self, times):
        while len(self.prompts) < times:
            self.news.clear()
            await self.news.wait()


def never(row, prediction):
    return dn.Score(0.0, feedback="the reward's")


def refined(lm, reward=never, **settings):
    return dn.Refine(dn.Predict(Caption, lm=lm), reward, **{"n": 3, **settings})


SUBJECTS = [{"subject": f"s{i}"} for i in range(6)]


async def until(condition):
    """Poll until a condition holds."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def steered(run, *actions):
    return [event for event in run.record.events if isinstance(event, Steered) and event.action in actions]


# ── hints ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_suggested_hint_is_in_the_next_attempts_prompt_and_only_there():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm).start(subject="the sea")
        await model.was_called(1)
        run.suggest_hint("a person's")
        for _ in range(3):
            model.go.release()
        await run
        return run, model

    run, model = asyncio.run(main())
    assert [text.count("a person's") for text in model.prompts] == [0, 1, 0]
    assert ["the reward's" in text for text in model.prompts] == [False, False, True]
    table = run.attempts
    assert table.hint.tolist() == [None, "a person's", "the reward's"]
    assert table.hint_by.tolist() == ["", "person", ""]
    (event,) = steered(run, "hint")
    assert (event.step, event.by, dict(event.values)) == (2, "person", {"hint": "a person's"})


def test_the_advisor_is_not_asked_where_a_hint_is_suggested():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm, hints="advisor", advisor_lm=model.lm).start(subject="x")
        await model.was_called(1)
        run.suggest_hint("a person's")
        for _ in range(4):
            model.go.release()
        await run
        return run, model

    run, model = asyncio.run(main())
    assert len(model.prompts) == 4  # three attempts, and the advisor before the last
    assert run.attempts.hint.tolist() == [None, "a person's", "the advisor's"]


def test_a_hint_suggested_while_the_advisor_writes_replaces_the_advisors():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm, hints="advisor", advisor_lm=model.lm, n=2).start(subject="x")
        model.go.release()
        await model.was_called(2)  # the second is the advisor's
        run.suggest_hint("a person's")
        for _ in range(2):
            model.go.release()
        await run
        return run

    assert asyncio.run(main()).attempts.hint.tolist() == [None, "a person's"]


def test_of_two_suggestions_for_one_wave_the_later_counts_and_it_holds_for_the_whole_wave():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm, n=5, width=2).start(subject="x")
        await model.was_called(2)
        run.suggest_hint("first")
        run.suggest_hint("second")
        for _ in range(5):
            model.go.release()
        await run
        return run

    assert asyncio.run(main()).attempts.hint.tolist() == [None, None, "second", "second", "the reward's"]


def test_a_hint_may_name_predictors_by_their_paths():
    class TwoPredictors(dn.Module):
        def __init__(self, lm):
            self.a, self.b = dn.Predict(Caption, lm=lm), dn.Predict(Caption, lm=lm)

        async def forward(self, subject):
            await self.a(subject=subject)
            return await self.b(subject=subject)

    async def main():
        model = Model(waiting=True)
        run = dn.Refine(TwoPredictors(model.lm), never, n=2).start(subject="x")
        await model.was_called(1)
        with pytest.raises(HintError, match=r"no predictor 'c' that it could be for.* There are a, b"):
            run.suggest_hint({"c": "no"})
        run.suggest_hint({"b": "for b"})
        for _ in range(4):
            model.go.release()
        await run
        return run, model

    run, model = asyncio.run(main())
    assert ["for b" in text for text in model.prompts] == [False, False, False, True]
    assert run.attempts.hint.tolist() == [None, {"b": "for b"}]


@pytest.mark.parametrize("way", ["batch", "evaluate"])
def test_over_rows_a_hint_is_for_a_given_row_or_the_first_that_begins_a_further_wave(way):
    async def main():
        model = Model(seconds=0.001)
        program = refined(model.lm, n=2)
        if way == "batch":
            work = asyncio.create_task(program.batch(SUBJECTS, concurrency=2))
            await model.was_called(1)
            run = dn.last_run()
        else:
            run = dn.Evaluate(never, concurrency=2).start(program, SUBJECTS)
            work = run
            await model.was_called(1)
        assert run.steerable == {"hint", "budget", "pause"}
        run.suggest_hint("for four", row=np.int64(4))  # the type that a table has
        run.suggest_hint("for the first")
        with pytest.raises(SteeringError, match="row must be the number of a row that has not ended, got 6"):
            run.suggest_hint("x", row=6)
        await work
        return run, model

    run, model = asyncio.run(main())
    assert [field_of(text) for text in model.prompts if "for four" in text] == ["s4"]
    assert len([text for text in model.prompts if "for the first" in text]) == 1
    assert {e.values.get("row") for e in steered(run, "hint") if e.values["hint"] == "for four"} == {4}
    attempts = [a for a in run.record.attempts.values() if a.hint_by]
    assert sorted(a.hint for a in attempts) == ["for four", "for the first"]


def field_of(text):
    return text.rsplit("[[ ## subject ## ]]\n")[-1].split("\n")[0]


def test_a_row_that_has_ended_accepts_no_hint():
    async def main():
        model = Model(waiting=True)
        run = dn.Evaluate(never, concurrency=1).start(refined(model.lm, n=2), SUBJECTS)
        model.go.release()
        model.go.release()
        await model.was_called(3)
        with pytest.raises(SteeringError, match="row must be the number of a row that has not ended, got 0"):
            run.suggest_hint("x", row=0)
        run.stop()
        await run

    asyncio.run(main())


def test_a_refine_in_the_metric_does_not_take_the_programs_hint():
    async def main():
        model, judges = Model(waiting=True), Model()
        judge = refined(judges.lm, n=2)

        async def metric(row, prediction):
            await judge(subject=f"judge {row.subject}")
            return 0.0

        run = dn.Evaluate(metric, concurrency=1).start(refined(model.lm, n=2), SUBJECTS[:2])
        model.go.release()
        model.go.release()
        await model.was_called(3)  # the first row has been judged
        run.suggest_hint("a person's")
        for _ in range(2):
            model.go.release()
        await run
        return model, judges

    model, judges = asyncio.run(main())
    assert ["a person's" in text for text in model.prompts] == [False, False, False, True]
    assert not any("a person's" in text for text in judges.prompts)


def test_an_evaluation_that_is_resumed_gives_an_unfinished_row_the_hint_again():
    async def main():
        model = Model(waiting=True)
        run = dn.Evaluate(never, concurrency=1).start(refined(model.lm, n=3), SUBJECTS[:3])
        await model.was_called(1)
        run.suggest_hint("for one", row=1)
        for _ in range(4):
            model.go.release()
        await model.was_called(5)  # row 1 is in its second attempt, with the hint
        run.stop()
        await run
        flush_journals()
        second_model = Model()
        resumed = dn.Evaluate(never, concurrency=1).resume(run.id, refined(second_model.lm, n=3), SUBJECTS[:3])
        await resumed
        return model, second_model, resumed

    model, second_model, resumed = asyncio.run(main())
    assert sum("for one" in text for text in model.prompts) == 1
    assert [(field_of(text), "for one" in text) for text in second_model.prompts] == [
        ("s1", False), ("s1", True), ("s1", False), ("s2", False), ("s2", False), ("s2", False),
    ]  # fmt: skip
    assert len(steered(resumed, "hint")) == 1
    assert [a.hint_by for a in resumed.record.attempts.values()].count("person") == 2  # one was repeated


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda lm: dn.Predict(Caption, lm=lm), "no Refine"),
        (lambda lm: dn.BestOfN(dn.Predict(Caption, lm=lm), never, n=2), "no Refine"),
        (lambda lm: refined(lm, n=1), "no Refine that can still make a further attempt"),
        (lambda lm: refined(lm, n=2, width=2), "no Refine that can still make a further attempt"),
    ],
)
def test_a_hint_is_refused_where_no_further_attempt_can_follow(make, why):
    async def main():
        model = Model(waiting=True)
        run = make(model.lm).start(subject="x")
        await model.was_called(1)
        assert "hint" not in run.steerable
        with pytest.raises(SteeringError, match=why):
            run.suggest_hint("x")
        run.stop()
        with pytest.raises(RunStopped):
            await run

    asyncio.run(main())


def test_a_refine_accepts_no_hint_in_its_last_wave():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm, n=2).start(subject="x")
        assert "hint" in run.steerable
        model.go.release()
        await model.was_called(2)
        with pytest.raises(SteeringError, match="a further attempt"):
            run.suggest_hint("x")
        model.go.release()
        await run

    asyncio.run(main())


@pytest.mark.parametrize("hint", ["", "  ", None, 3, {}, {"self": ""}, {"self": 3}])
def test_an_empty_hint_is_refused(hint):
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm).start(subject="x")
        with pytest.raises(HintError):
            run.suggest_hint(hint)
        with pytest.raises(SteeringError, match="row= is for the rows"):
            run.suggest_hint("x", row=0)
        run.stop()
        with pytest.raises(RunStopped):
            await run

    asyncio.run(main())


def test_the_attempts_table_has_no_column_hint_by_without_a_persons_hint():
    run = refined(Model().lm).run_sync(subject="x").run
    assert "hint_by" not in run.attempts


# ── pausing ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def works():
    """Every kind of run, on a model."""
    return {
        "call": lambda lm: dn.Predict(Caption, lm=lm).start(subject="x"),
        "refine": lambda lm: refined(lm, n=8).start(subject="x"),
        "evaluate": lambda lm: dn.Evaluate(never, concurrency=2).start(dn.Predict(Caption, lm=lm), SUBJECTS * 3),
        "optimizer": lambda lm: dn.BootstrapFewShot(never).start(dn.Predict(Caption, lm=lm), SUBJECTS, SUBJECTS),
    }


@pytest.mark.parametrize("kind", works())
@pytest.mark.filterwarnings("ignore::dspynb.errors.DataOverlapWarning")
def test_while_paused_no_call_starts_and_calls_in_progress_end(kind):
    async def main():
        model = Model(seconds=0.002)
        run = works()[kind](model.lm)
        if kind != "call":
            await model.was_called(2)
        run.pause()
        assert run.paused
        await asyncio.sleep(0.05)
        started = len(model.prompts)
        assert len(run.record.calls) == started  # the calls in progress have ended
        await asyncio.sleep(0.05)
        assert len(model.prompts) == started
        run.unpause()
        assert not run.paused
        await run
        assert len(model.prompts) > started
        assert [e.action for e in steered(run, "pause", "unpause")] == ["pause", "unpause"]

    asyncio.run(main())
    assert not GATE.shut


def test_a_run_can_be_paused_from_a_thread():
    async def main():
        model = Model(seconds=0.002)
        run = refined(model.lm, n=30).start(subject="x")
        await model.was_called(3)
        await asyncio.to_thread(run.pause)
        await asyncio.sleep(0.02)
        started = len(model.prompts)
        threading.Timer(0.05, run.unpause).start()
        await asyncio.sleep(0.03)
        assert len(model.prompts) == started
        await run
        assert len(model.prompts) == 30

    asyncio.run(main())


@pytest.mark.parametrize("kind", works())
@pytest.mark.parametrize("how", ["stop", "interrupt"])
@pytest.mark.filterwarnings("ignore::dspynb.errors.DataOverlapWarning")
def test_stop_and_interrupt_work_while_paused(kind, how):
    async def main():
        model = Model(seconds=0.001)
        run = works()[kind](model.lm)
        run.pause()
        await asyncio.sleep(0.02)
        assert model.prompts == []
        getattr(run, how)()
        began = time.perf_counter()
        await asyncio.wait({run.task})
        assert time.perf_counter() - began < 10  # a hang
        assert run.status == ("stopped" if how == "stop" else "interrupted")
        assert model.prompts == []
        assert not run.paused

    asyncio.run(main())
    assert not GATE.shut


@pytest.mark.parametrize("stopped", [False, True])
def test_calls_in_tasks_and_threads_that_a_program_made_wait_too(stopped):
    class TasksAndThreads(dn.Module):
        def __init__(self, lm):
            self.caption = dn.Predict(Caption, lm=lm)

        async def forward(self, subject):
            tasks = [asyncio.create_task(self.caption(subject=f"{subject} {i}")) for i in range(3)]
            await asyncio.to_thread(self.caption.run_sync, subject="thread")
            await asyncio.gather(*tasks)
            return {"sentence": "done"}

    async def main():
        model = Model()
        run = TasksAndThreads(model.lm).start(subject="task")
        run.pause()
        await asyncio.sleep(0.05)
        assert model.prompts == []
        if stopped:
            run.stop()
        else:
            run.unpause()
        await asyncio.wait({run.task})
        assert (run.status, len(model.prompts)) == (("stopped", 0) if stopped else ("finished", 4))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_only_the_paused_run_waits_even_where_two_runs_share_a_model():
    async def main():
        model = Model()
        first, second = (refined(model.lm, n=5).start(subject=name) for name in ("first", "second"))
        first.pause()
        await second
        assert {field_of(text) for text in model.prompts} == {"second"}
        first.unpause()
        await first
        assert sum(field_of(text) == "first" for text in model.prompts) == 5

    asyncio.run(main())


def test_calls_that_wait_for_a_slot_of_the_model_wait_on_while_paused(monkeypatch):
    async def main():
        lm = dn.LM("openai/x", api_base="http://127.0.0.1:1/v1", api_key="k", concurrency=1, retries=0)
        sent, held = [], asyncio.Event()

        async def complete(request, settings, on_piece=None, on_thinking=None, on_response=None):
            sent.append(request)
            await held.wait()
            return dn.LMReply(chat(sentence="s"), usage=dn.Usage(1, 1, 1))

        monkeypatch.setattr(lm._engine, "complete", complete)
        run = dn.Evaluate(never, concurrency=4).start(dn.Predict(Caption, lm=lm), SUBJECTS[:4])
        other = dn.Predict(Caption, lm=lm)
        await until(lambda: sent)
        await asyncio.sleep(0.01)
        run.pause()
        held.set()
        await asyncio.sleep(0.02)
        assert len(sent) == 1
        assert (await other(subject="another run")).sentence == "s"  # the paused run holds no slot
        run.unpause()
        await run
        assert len(sent) == 5

    asyncio.run(main())


def test_time_that_a_run_was_paused_is_not_counted_against_its_own_budget():
    async def main():
        model = Model(seconds=0.001)
        budget = dn.Budget(seconds=1.5)
        run = dn.Evaluate(never, concurrency=1, budget=budget).start(dn.Predict(Caption, lm=model.lm), SUBJECTS)
        await model.was_called(1)
        run.pause()
        spent_before = run.meter.spent["seconds"]
        await asyncio.sleep(2)
        assert run.meter.spent["seconds"] - spent_before < 1
        run.unpause()
        evaluation = await run
        assert run.status == "finished"
        assert len(evaluation.table) == 6

    asyncio.run(main())


def test_a_budget_of_seconds_that_is_set_later_does_not_count_earlier_pauses():
    async def main():
        model = Model(seconds=0.001)
        run = dn.Evaluate(never, concurrency=1).start(dn.Predict(Caption, lm=model.lm), SUBJECTS)
        await model.was_called(1)
        run.pause()
        await asyncio.sleep(2)
        run.unpause()
        run.set_budget(seconds=1.5)
        await run
        assert run.status == "finished"
        assert 0 < run.meter.spent["seconds"] < 1.5

    asyncio.run(main())


def test_a_run_that_has_ended_is_not_paused():
    run = refined(Model().lm).run_sync(subject="x").run
    run = dn.last_run()
    assert run.steerable == frozenset()
    for request in (run.pause, run.unpause, lambda: run.suggest_hint("x"), lambda: run.set_budget(calls=1), run.unpin):
        with pytest.raises(SteeringError, match=r"the run has ended \(finished\), so it cannot be steered any more"):
            request()
    assert not GATE.shut


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_budget_of_calls_set_while_an_evaluation_runs_is_respected(concurrency):
    async def main():
        model = Model(seconds=0.001)
        run = dn.Evaluate(never, concurrency=concurrency).start(dn.Predict(Caption, lm=model.lm), SUBJECTS * 5)
        await model.was_called(7)
        run.set_budget(calls=15)
        evaluation = await run
        assert run.status == "exhausted"
        assert len(model.prompts) == 15
        assert run.meter.spent["calls"] == 15
        (event,) = steered(run, "budget")
        assert 7 <= event.step <= 7 + concurrency
        return evaluation

    assert len([row for row in asyncio.run(main()).table.score if row == 0.0]) == 15


def test_raising_the_budget_lets_an_evaluation_continue_and_lowering_it_ends_it():
    async def main(first_limit, second_limit):
        model = Model(seconds=0.001)
        budget = dn.Budget(metric_calls=first_limit)
        run = dn.Evaluate(never, concurrency=2, budget=budget).start(dn.Predict(Caption, lm=model.lm), SUBJECTS * 5)
        await model.was_called(4)
        run.set_budget(metric_calls=second_limit)
        await run
        return run, len(model.prompts)

    run, calls = asyncio.run(main(10, 25))
    assert (run.status, calls, run.meter.budget) == ("exhausted", 25, dn.Budget(metric_calls=25))
    run, calls = asyncio.run(main(10, 100))
    assert (run.status, calls) == ("finished", 30)
    run, calls = asyncio.run(main(25, 1))  # less than is spent
    assert run.status == "exhausted"
    assert 4 <= calls <= 6
    assert len(run.best.table) == calls


def test_a_batch_gets_a_budget_of_tokens_that_counts_what_was_spent_before():
    async def main():
        calls = []

        async def answer(request):
            calls.append(request)
            if len(calls) == 3:
                dn.last_run().set_budget(tokens=1_300)
            return dn.LMReply(chat(sentence="s"), usage=dn.Usage(1, 50, 50))

        rows = await dn.Predict(Caption, lm=dn.FunctionLM(answer)).batch(SUBJECTS * 5, concurrency=1)
        run = dn.last_run()
        assert run.status == "exhausted"
        assert len(calls) == 8
        assert [isinstance(row, BudgetExhausted) for row in rows] == [False] * 8 + [True] * 22

    asyncio.run(main())


def test_other_runs_have_no_budget_of_their_own_and_limits_are_checked():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm).start(subject="x")
        with pytest.raises(SteeringError, match=r"kind 'refine'. Around others put `with dn.Budget"):
            run.set_budget(calls=3)
        run.stop()
        evaluating = dn.Evaluate(never).start(dn.Predict(Caption, lm=model.lm), SUBJECTS)
        with pytest.raises(ConfigurationError, match="needs at least one limit"):
            evaluating.set_budget()
        with pytest.raises(ConfigurationError, match="Budget: calls must be a whole number of at least 1"):
            evaluating.set_budget(calls=0)
        evaluating.stop()
        await asyncio.wait({run.task, evaluating.task})

    asyncio.run(main())


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_invalid_proposals_are_refused_with_a_clear_error():
    async def main():
        run = small(dn.COPRO).start(one(World(1)), TRAIN, VAL)
        for request, error, words in (
            (lambda: run.propose(""), InputError, "the text for 'self' is empty"),
            (lambda: run.propose(3), InputError, "an instruction is a text, or a mapping"),
            (lambda: run.propose({}), InputError, "an instruction is a text, or a mapping"),
            (lambda: run.propose({"selv": "x"}), InputError, "no predictor 'selv' .* Did you mean 'self'"),
            (lambda: run.propose("x", parent="nobody"), InputError, "no candidate 'nobody'; there are none yet"),
            (lambda: run.drop(0), InputError, "no candidate 0"),
            (lambda: run.pin(True), InputError, "no candidate True"),
            (lambda: run.suggest_hint("x"), SteeringError, "no Refine"),
        ):
            with pytest.raises(error, match=words):
                request()
        await until(lambda: len(run.record.candidates) > 1)
        with pytest.raises(SteeringError, match="the start, candidate c0, cannot be dropped"):
            run.drop(run.candidates.id[0])
        with pytest.raises(InputError, match="there are c0 to c"):
            run.pin(99)
        await run
        evaluating = dn.Evaluate(never).start(dn.Predict(Caption, lm=Model().lm), SUBJECTS)
        for request in (lambda: evaluating.propose("x"), lambda: evaluating.drop(1), evaluating.unpin):
            with pytest.raises(SteeringError, match="only the run of an optimizer accepts this.*kind 'evaluate'"):
                request()
        await evaluating

    asyncio.run(main())


def test_a_proposal_for_several_predictors_must_name_them():
    from tests.optimizers.worlds import three

    async def main():
        run = small(dn.COPRO).start(three(World(1)), TRAIN, VAL)
        with pytest.raises(InputError, match=r"say for which: \{path: text\} of plan, steps\[0\], answer"):
            run.propose("x")
        run.propose({"answer": "Be careful."}, parent=None)
        await run
        (proposed,) = [row for row in run.candidates.itertuples() if row.origin == "person"]
        assert list(proposed.diff) == ["answer"]

    asyncio.run(main())


def test_requests_are_refused_while_the_test_rows_run():
    async def main():
        steerable = []

        def metric(row, prediction):
            if int(row.question) >= 30 and not steerable:
                run = dn.last_run()
                with pytest.raises(SteeringError, match="or its search is over"):
                    run.propose("x")
                steerable.append(run.steerable)
            return float(row.answer == prediction.answer)

        test = [{"question": "30", "answer": "60"}]
        await small(dn.BootstrapFewShot, metric).start(one(World(1)), TRAIN, VAL, test=test)
        assert steerable == [{"pause"}]

    asyncio.run(main())


def test_a_proposal_at_the_very_end_is_still_evaluated():
    async def main():
        run = small(dn.BootstrapFewShot).start(one(World(1)), TRAIN, VAL)

        class Late:
            def emit(self, event):
                if getattr(event, "full", False) and event.step == 1 and not proposals:
                    proposals.append(event)
                    run.propose("Be careful with units.")

        proposals = []
        run.listen(Late())
        await run
        assert run.candidates.origin.tolist()[-1] == "person"
        assert run.candidates.full.tolist()[-1]

    asyncio.run(main())


def test_an_optimizer_inside_another_run_is_not_steered_through_it():
    class Outer(dn.Module):
        def __init__(self, world):
            self.inner = one(world)

        async def forward(self, question):
            run = dn.last_run()
            with pytest.raises(SteeringError, match="kind 'call'"):
                run.propose("x")
            await small(dn.COPRO).compile(self.inner, TRAIN, VAL)
            return await self.inner(question=question)

    asyncio.run(_answered(Outer(World(1))))


async def _answered(program):
    assert (await program(question="3")).answer


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_requests_are_read_from_the_file_and_files_without_them_can_be_read():
    async def main():
        model = Model(waiting=True)
        run = refined(model.lm).start(subject="x")
        await model.was_called(1)
        run.suggest_hint({"self": "a person's"})
        for _ in range(3):
            model.go.release()
        await run
        return run

    run = asyncio.run(main())
    flush_journals()
    reopened = dn.open_run(run.path)
    assert reopened.attempts.drop(columns="seconds").equals(run.attempts.drop(columns="seconds"))
    assert [(e.action, e.step, e.by, e.values) for e in reopened.record.steered] == [
        ("hint", 2, "person", {"hint": {"self": "a person's"}})
    ]
    path = Path(run.path)
    older = [json.loads(line) for line in path.read_text().splitlines()]
    older = [{k: v for k, v in line.items() if k != "hint_by"} for line in older if line.get("type") != "Steered"]
    path.write_text("".join(json.dumps(line) + "\n" for line in older))
    record = dn.open_run(path).record
    assert list(record.steered) == []
    assert [a.hint_by for a in record.attempts.values()] == ["", "", ""]


def test_a_record_has_the_winner_that_a_pin_led_to():
    record = RunRecord([Steered(span=1, action="pin", step=2, values={"candidate": "a", "best": "a"})])
    assert record.winner == "a"
    assert AttemptStarted(span=1, attempt=1, wave=1).hint_by == ""
