"""Replies that were cut are never used: as a proposal, a demo or a hint."""

from __future__ import annotations

import json

import pytest

import dspynb as dn
from tests.helpers import prompt

BETTER = "Answer with the number that the question has. First, look at"
ROWS = [{"question": f"q{n}", "answer": str(n)} for n in range(8)]


def solver(request):
    """A model that is right with the better instruction or with demos."""
    text = prompt(request)
    number = text.rpartition("q")[2][:1]
    return f"[[ ## answer ## ]]\n{number if BETTER in text else 'no'}"


def writer(finish):
    """A model that writes the better instruction in every output field; its reply is cut or not."""

    def answer(request):
        fields = {"proposed_instruction": BETTER, "new_instruction": BETTER, "proposed_prefix_for_output_field": ""}
        fields |= dict.fromkeys(("observations", "summary", "program_description", "module_description"), "Numbers.")
        fields |= {"discussion": "It was wrong.", "advice": json.dumps({"self": BETTER})}
        text = "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in fields.items())
        return dn.LMReply(text, finish=finish)

    return dn.FunctionLM(answer, name="writer")


def metric(row, prediction):
    return dn.Score(float(prediction.answer == row.answer), feedback="Look at the number.")


def optimizer(name, finish):
    lm = writer(finish)
    budget = dn.Budget(metric_calls=120)
    if name == "GEPA":
        return dn.GEPA(metric, minibatch_size=4, in_flight=1, prompt_lm=lm, budget=budget, max_steps=4)
    if name == "COPRO":
        return dn.COPRO(metric, breadth=3, depth=1, prompt_lm=lm, budget=budget)
    if name == "MIPROv2":
        return dn.MIPROv2(
            metric, auto=None, num_candidates=3, num_trials=4, minibatch_size=4, full_eval_steps=2, prompt_lm=lm,
            max_bootstrapped_demos=0, max_labeled_demos=0, budget=budget,
        )  # fmt: skip
    return dn.SIMBA(metric, minibatch_size=4, num_candidates=2, max_steps=2, max_demos=0, prompt_lm=lm, budget=budget)


def sometimes(request):
    """A model with varying answers, for SIMBA."""
    text = prompt(request)
    number = text.rpartition("q")[2][:1]
    right = BETTER in text or request.rollout % 2
    return f"[[ ## answer ## ]]\n{number if right else 'no'}"


@pytest.mark.parametrize("name", ["GEPA", "COPRO", "MIPROv2", "SIMBA"])
@pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
@pytest.mark.filterwarnings("ignore::dspynb.DataOverlapWarning")
def test_a_proposal_that_was_cut_is_never_a_candidate(name, finish):
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(sometimes if name == "SIMBA" else solver))
    try:
        best = optimizer(name, finish).compile_sync(program, ROWS[:4], ROWS[4:])
    except dn.OptimizerError:  # some optimizers raise where all proposals fail
        best = program
    run = dn.last_run()
    texts = [str(text) for text in run.candidates.instructions]
    assert len(run.proposals) > 0
    if finish == "stop":  # without a cut the better instruction is used
        assert any(BETTER in text for text in texts)
    else:
        assert not any(BETTER in text for text in texts)
        assert best.instruction is None
        assert run.proposals.error.notna().all()
        assert run.proposals.error.str.contains("ReplyTruncated|ContentFiltered").all()


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_cut_reply_of_a_teacher_is_no_demo(finish):
    def answer(request):
        text = solver(request).replace("no", prompt(request).rpartition("q")[2][:1])
        cut = finish if "q1" in request.messages[-1]["content"] else "stop"
        return dn.LMReply(text, finish=cut)

    program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    opt = dn.BootstrapFewShot(dn.metrics.exact_match(), max_bootstrapped_demos=4, max_labeled_demos=0)
    demos = opt.compile_sync(program, ROWS[:4]).demos
    questions = {demo["question"] for demo in demos}
    assert questions == ({"q0", "q1", "q2", "q3"} if finish == "stop" else {"q0", "q2", "q3"})


def test_an_advisor_that_was_cut_gives_no_hint():
    program = dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: "[[ ## answer ## ]]\n1"))
    refine = dn.Refine(program, lambda row, prediction: 0.5, n=2, hints="advisor", advisor_lm=writer("length"))
    with pytest.warns(dn.errors.AdvisorFailedWarning, match="the reply was cut"):
        run = refine.run_sync(question="q1").run
    assert run.attempts.hint.isna().all()
