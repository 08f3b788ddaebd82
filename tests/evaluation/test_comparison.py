"""compare and grid: the same rows for every program, one budget, one Stop, and statistics of pairs."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

import dspynb as dn
from dspynb.errors import BudgetExhausted, ConfigurationError, InputError, RunStopped
from dspynb.running.tables.statistics import paired_difference
from tests.evaluation.programs import frame, late, program, right, rows_ended
from tests.helpers import chat, field


def scoring(values, calls=None, delay=0.0):
    """A program whose answer to question i is ``values[i]``."""

    async def answer(request):
        if calls is not None:
            calls.append((field(request, "question"), request.rollout))
        await asyncio.sleep(delay)
        return chat(answer=str(values[int(field(request, "question"))]))

    return dn.Predict("question -> answer", lm=dn.FunctionLM(answer))


def as_said(row, prediction):
    return dn.Score(float(prediction.answer), f"said {prediction.answer}")


def compared(programs, rows, metric=as_said, **kwargs):
    return asyncio.run(dn.compare(programs, rows, metric, **kwargs))


BASE, OTHER = [0, 1, 0, 1, 1, 0], [1, 1, 1, 0, 1, 0]


def test_programs_run_on_the_same_rows_with_the_same_rollouts():
    first, second = [], []
    comparison = compared({"a": scoring(BASE, first), "b": scoring(OTHER, second)}, frame(6), repeats=2)
    assert sorted(first) == sorted(second) == sorted((str(i), r) for i in range(6) for r in (0, 1))
    assert list(comparison.evaluations) == ["a", "b"]
    assert comparison.evaluations["b"].run is comparison.run
    assert comparison.run.kind == "compare"


def test_the_table_has_the_paired_statistics_against_the_base():
    comparison = compared({"a": scoring(BASE), "b": scoring(OTHER)}, frame(6))
    a, b = (comparison.table.loc[name] for name in "ab")
    expected = paired_difference(BASE, OTHER)
    assert (expected.wins, expected.ties, expected.losses) == (2, 3, 1)
    for column, name in {
        "difference": "difference",
        "diff_low": "low",
        "diff_high": "high",
        "p_value": "p_value",
    }.items():
        assert b[column] == getattr(expected, name)
        assert a.isna()[column]
    assert (b.wins, b.ties, b.losses, b.rows, b.errors) == (2, 3, 1, 6, 0)
    assert a.score == 0.5
    assert (a.low, a.high) == (comparison.evaluations["a"].score.low, comparison.evaluations["a"].score.high)
    assert comparison.difference("b") == expected
    assert comparison.difference("a", "b").wins == 1
    with pytest.raises(InputError, match="no program 'c'"):
        comparison.difference("c")


def test_changed_lists_rows_with_different_scores_largest_change_first():
    comparison = compared({"a": scoring([0, 1, 5, 2]), "b": scoring([0.5, 1, 1, 2])}, frame(4))
    changed = comparison.changed("b")
    assert changed.index.tolist() == ["r2", "r0"]
    assert changed.change.tolist() == [-4, 0.5]
    assert changed.iloc[0].to_dict() == {
        "question": "2", "answer": "4", "a: answer": "5", "a: score": 5, "a: feedback": "said 5",
        "b: answer": "1", "b: score": 1, "b: feedback": "said 1", "change": -4,
    }  # fmt: skip
    assert comparison.changed("a", "b").change.tolist() == [4, -0.5]
    assert comparison.changed("a").empty


def test_differences_of_rounding_are_ties_everywhere():
    comparison = compared({"a": scoring([0.1 + 0.2, 1]), "b": scoring([0.3, 2])}, frame(2))
    assert comparison.table.ties.tolist()[1] == 1
    assert comparison.changed("b").index.tolist() == ["r1"]


def test_changed_shows_the_error_of_a_row_that_failed():
    comparison = compared({"a": scoring([1, 1]), "b": scoring(["x", 1])}, frame(2))
    assert comparison.changed("b")["b: feedback"].iloc[0].startswith("RewardError")
    assert comparison.table.errors.tolist() == [0, 1]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14))
def test_one_budget_is_spent_in_the_order_of_the_programs(seed, budget):
    programs = {"a": program(late(seed)), "b": program(late(seed + 1))}
    comparison = compared(programs, frame(6), right, budget=dn.Budget(calls=budget), concurrency=4)
    done = [len(e) for e in comparison.evaluations.values()]
    assert done == ([budget] if budget <= 6 else [6, min(6, budget - 6)])
    assert comparison.run.status == ("exhausted" if budget < 12 else "finished")
    assert len(comparison.table) == len(done)
    assert comparison.programs == 2


def test_stop_in_the_middle_compares_the_rows_that_ended():
    async def main():
        slow = program(lambda q: 0 if int(q) < 2 else 30)
        task = asyncio.create_task(dn.compare({"a": program(), "b": slow}, frame(8, wrong={0}), right))
        await asyncio.sleep(0)
        await rows_ended(dn.last_run(), 10)
        dn.last_run().stop()
        return await task

    comparison = asyncio.run(main())
    assert comparison.run.status == "stopped"
    assert comparison.table.rows.tolist() == [8, 2]
    assert comparison.difference("b").n == 2


def test_stop_before_a_row_has_ended_raises():
    async def main():
        task = asyncio.create_task(dn.compare({"a": program(lambda q: 30)}, frame(2), right))
        await asyncio.sleep(0.02)
        dn.last_run().stop()
        with pytest.raises(RunStopped):
            await task

    asyncio.run(main())


def test_programs_without_a_row_in_common_have_no_difference():
    async def main():
        rows = frame(6).assign(question=["bad", *"12345"])
        slow = program(lambda q: 30 if q == "bad" else 0)
        work = dn.compare({"a": program(), "b": slow}, rows, right, max_errors=0, concurrency=2)
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        await rows_ended(dn.last_run(), 6)
        dn.last_run().stop()
        return await task

    comparison = asyncio.run(main())
    assert comparison.table.rows.tolist() == [1, 5]
    assert comparison.table.difference.isna().all()
    with pytest.raises(InputError, match="no scores"):
        comparison.difference("b")


class Study(dn.Module):
    def __init__(self, budget=None):
        self.a, self.b, self.budget = program(), program(), budget

    async def forward(self, question):
        self.comparison = await dn.compare({"a": self.a, "b": self.b}, frame(3), right, budget=self.budget)
        return await self.a(question=question)


def test_inside_a_run_its_own_budget_ends_only_it_and_the_runs_budget_ends_both():
    study = Study(dn.Budget(calls=4))
    run = study.run_sync(question="1").run
    assert [len(e) for e in study.comparison.evaluations.values()] == [3, 1]
    assert study.comparison.run is run
    assert run.rollouts.program.tolist() == ["a", "a", "a", "b"]
    with dn.Budget(calls=4), pytest.raises(BudgetExhausted):
        Study().run_sync(question="1")


def test_arguments_that_cannot_be_compared_are_refused():
    for programs in ({}, [program()], None):
        with pytest.raises(ConfigurationError, match="compare takes a dict of programs"):
            compared(programs, frame(1))
    with pytest.raises(ConfigurationError, match="the same name"):
        compared({1: program(), "1": program()}, frame(1))
    with pytest.raises(InputError, match="must be a dn.Module"):
        compared({"a": 1}, frame(1))


def test_hostile_names_and_texts_stay_text():
    comparison = compared({"<script>": scoring([1, 1]), "b": scoring(["<script>", 1])}, frame(2))
    assert "<script" not in comparison._repr_html_()
    assert "Comparison of <script>, b" in repr(comparison)
    broken = compared({"a": scoring([1]), "b": scoring(["\ud800"])}, frame(1), lambda r, p: p.answer == "1")
    assert len(broken.changed("b")) == 1


def test_the_plot_has_each_mean_with_its_interval():
    comparison = compared({"$a$": scoring(BASE), "b": scoring(OTHER)}, frame(6))
    axes = comparison.plot(Figure().subplots())
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$a\$", "b"]
    bars = [c for c in axes.containers if c.has_xerr]
    assert [bar.lines[0].get_xdata()[0] for bar in bars] == comparison.table.score.tolist()
    assert [bar.lines[0].get_ydata()[0] for bar in bars] == [1, 0]
    ends = [sorted(cap.get_xdata()[0] for cap in bar.lines[1]) for bar in bars]
    assert ends == [pytest.approx([row.low, row.high]) for row in comparison.table.itertuples()]
    axes = compared({"a": scoring([0.5])}, frame(1)).plot(Figure().subplots())
    assert axes.containers[0].lines[0].get_xdata()[0] == 0.5


# ── grid ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_grid_has_a_column_for_each_setting_and_the_first_is_the_base():
    def make(n, sign):
        return scoring([n * (1 if sign == "+" else -1)] * 4)

    grid = asyncio.run(dn.grid(make, {"n": [1, 3], "sign": ["+", "-"]}, frame(4), as_said))
    assert grid.table[["n", "sign", "score"]].to_numpy().tolist() == [
        [1, "+", 1],
        [1, "-", -1],
        [3, "+", 3],
        [3, "-", -3],
    ]
    assert grid.base == "n=1, sign='+'"
    assert grid.run.kind == "grid"
    assert grid.table.wins.tolist()[2] == 4
    assert "n" in grid._repr_html_()


def test_a_grid_reuses_calls_of_earlier_programs(tmp_path):
    sent = []
    lm = dn.recorded(tmp_path / "grid.jsonl", lm=dn.FunctionLM(lambda r: (sent.append(r), chat(answer="0.5"))[1]))

    def make(n):
        return dn.BestOfN(dn.Predict("question -> answer", lm=lm), as_said, n=n)

    grid = asyncio.run(dn.grid(make, {"n": [1, 2]}, frame(3), as_said))
    assert len(sent) == 3 + 3
    assert grid.evaluations["n=2"].table.attempts.tolist() == [2, 2, 2]


def test_a_grid_that_was_cut_short_has_the_settings_of_the_evaluations_it_has():
    def make(n):
        return scoring([n] * 4)

    grid = asyncio.run(dn.grid(make, {"n": [1, 2, 3]}, frame(4), as_said, budget=dn.Budget(calls=6)))
    assert grid.table[["n", "rows"]].to_numpy().tolist() == [[1, 4], [2, 2]]


@pytest.mark.parametrize("parameters", [{}, {"n": []}, [1], {"n": "ab"}, {"n": 3}])
def test_a_grid_without_values_is_refused(parameters):
    with pytest.raises(ConfigurationError, match="grid takes a dict of lists"):
        asyncio.run(dn.grid(program, parameters, frame(1), right))


def test_a_grid_with_a_duplicate_value_is_refused():
    with pytest.raises(ConfigurationError, match="look the same"):
        asyncio.run(dn.grid(lambda n: program(), {"n": [1, 1]}, frame(1), right))
