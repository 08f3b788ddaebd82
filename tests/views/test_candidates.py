"""An optimizer's run as a view shows it."""

from __future__ import annotations

import asyncio

import dspynb as dn
from dspynb.events import RolloutEnded
from dspynb.running.record import RunRecord
from dspynb.views.terminal.text import summary
from dspynb.views.view_model import ViewModel
from tests.evaluation.programs import frame, program, right


def optimized(**settings):
    """A run of COPRO whose proposals are two texts in turn; the program is right on even rows."""
    texts = iter(["Double it.", "Double <b>it</b>.", *["Double it."] * 50])
    proposer = dn.FunctionLM(lambda request: f"[[ ## proposed_instruction ## ]]\n{next(texts)}\n[[ ## completed ## ]]")
    copro = dn.COPRO(right, breadth=3, depth=1, prompt_lm=proposer, **settings)

    async def main():
        run = copro.start(program(), frame(4, wrong=[1, 3]))
        await run
        return run

    return asyncio.run(main())


def test_candidates_are_rows_with_score_change_and_instruction():
    header, rows = ViewModel(optimized().record).snapshot()
    assert header["mode"] == "candidates"
    assert header["progress"] == "3 candidates, 12 rollouts"
    assert [row["label"] for row in rows] == ["c0", "c1", "c2"]
    assert [row["state"] for row in rows] == ["done"] * 3
    assert [row["score"] for row in rows] == [0.5, 0.5, 0.5]
    assert [row["best"] for row in rows] == [True, False, False]  # the start wins ties
    assert rows[1]["change"] == 0
    assert rows[1]["outputs"] == [["", "Double it."]]


def test_the_summary_says_whether_a_candidate_was_better():
    header, _ = ViewModel(optimized().record).snapshot()
    assert header["notes"] == []
    assert header["summary"] == (
        "None of 3 candidates (12 rollouts, 14 calls) was better than the program as it is. It scores 0.5 [0.15, 0.85] "
        "on 4 validation rows."
    )


def test_a_candidate_has_its_parents_its_texts_and_its_rollouts():
    state = ViewModel(optimized().record)
    start, child = state.payloads()[:2]
    assert child["parents"] == [start["key"]]
    blocks = state.detail(child["key"])["blocks"]
    assert [(block["heading"], block["text"]) for block in blocks] == [("self · instruction", "Double it.")]
    assert [row["label"] for row in state.payloads([child["key"]]) if row.get("up")] == ["0", "1", "2", "3"]
    assert state.record.front.leads == dict.fromkeys(state.record.candidates, 4)


def test_failed_rows_and_proposals_are_counted():
    def answer(request):
        raise dn.errors.ServerError("down")

    copro = dn.COPRO(right, breadth=3, depth=1, prompt_lm=dn.FunctionLM(answer))

    async def main():
        run = copro.start(program(), frame(3).assign(question=["bad", "1", "2"]))
        await run
        return run

    header, rows = ViewModel(asyncio.run(main()).record).snapshot()
    assert "2 failed proposals" in header["progress"]
    assert rows[0]["error"].startswith("1 of 3 rows failed: ServerError")


def test_an_instruction_is_text_and_never_markup():
    run = optimized()
    assert "<b>it</b>" not in run._repr_html_()
    assert "&lt;b&gt;it&lt;/b&gt;" in run._repr_html_()
    assert "\\u003cb\\u003eit" in run._repr_html_()


def test_the_text_view_lists_the_candidates():
    assert "round 1" in summary(optimized().record)


def test_the_leading_candidates_are_those_with_the_best_score_of_each_row():
    scores = {("a", 0): 0.5, ("b", 0): 0.5, ("c", 0): 1.0, ("a", 1): 0.2, ("b", 1): 0.1, ("c", 1): 0.2}
    record = RunRecord()
    for span, ((candidate, row), score) in enumerate(scores.items(), start=1):
        record.apply(RolloutEnded(span=span, row=row, candidate=candidate, split="val", score=score))
    assert record.front.leads == {"a": 1, "c": 2}
