"""Plots of runs: their data, the same plot for a reopened run, and the errors where nothing can be drawn."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import dspynb as dn
from dspynb.data import Usage
from dspynb.events import (
    AttemptChosen,
    AttemptEnded,
    AttemptStarted,
    CandidateProposed,
    CandidateScored,
    PredictorCalled,
    RolloutEnded,
    RunEnded,
    RunStarted,
    SpanEnded,
    SpanStarted,
)
from dspynb.running import RunReader
from dspynb.running.journal import flush_journals
from dspynb.views.plots.draw import BLUE, RED
from tests.evaluation.programs import frame, program, right
from tests.helpers import Caption, echo_hint, scores
from tests.views.fakes import a_batch, a_refine

HOSTILE = ["$\\frac{1}{", "be\x1b[31m brief\x00\n\u202eplease", "x" * 5000, "$a$ and $b$", "%_&#~^{}"]


@pytest.fixture(autouse=True)
def _no_window():
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def reader(*events):
    return RunReader("a-run", events)


def plotted(run, *args, **settings):
    """The axes of a plot. The plot is drawn, so that an error of drawing is raised here."""
    axes = run.plot(*args, ax=Figure(layout="constrained").subplots(), **settings)
    axes.figure.canvas.draw()
    return axes


def optimized(count=6, rows=4, usd: float | None = 0.01, cached=False, partial=(), names=None):
    """The events of an optimizer's run: candidate ``i`` is right on the first ``i`` rows and costs ``10 * (i + 1)``
    tokens a row; those in ``partial`` are run on the first row only."""
    yield RunStarted(span=1, kind="gepa", name="Predict", inputs={"val": rows}, settings={"metric": "exact"}, at=100.0)
    span = 1
    best = None
    top = -1.0
    for i in range(count):
        name = names[i] if names else f"c{i}"
        yield CandidateProposed(span=1, id=name, origin="mutation" if i else "start")
        rows_run = 1 if i in partial else rows
        for row in range(rows_run):
            span += 1
            usage = Usage(calls=1, prompt_tokens=10 * (i + 1), usd=usd)
            usage = usage.as_cached() if cached else usage
            yield PredictorCalled(span=span, predictor="self", uid="u", inputs={}, messages=(), usage=usage, parent=1)
            yield RolloutEnded(
                span=span,
                parent=1,
                row=row,
                score=float(row < i),
                candidate=name,
                split="val",
                usage=usage,
                seconds=0.5,
            )
        score = min(i, rows_run) / rows_run
        if rows_run == rows and score > top:
            best, top = name, score
        yield CandidateScored(
            span=1,
            candidate=name,
            split="val",
            rows=rows_run,
            score=score,
            full=rows_run == rows,
            best=best,
            at=101.0 + i,
        )
    yield RunEnded(span=1, status="finished", at=110.0)


def searches(*scores_of_searches, threshold=1.0, hint="be brief", kind="batch"):
    """The events of a batch with one search per row. For each search: the scores of its attempts (None: failed)."""
    yield RunStarted(
        span=1, kind=kind, name="Refine", inputs={"rows": len(scores_of_searches)}, settings={"threshold": threshold}
    )
    for row, values in enumerate(scores_of_searches):
        span = 1000 * (row + 1)
        yield SpanStarted(span=span, parent=1, kind="row", name=f"row {row}", row=row)
        yield SpanStarted(span=span + 1, parent=span, kind="search", name="Refine(Caption)")
        for number, score in enumerate(values, start=1):
            own = {"span": span + 1 + number, "parent": span + 1}
            state = "failed" if score is None else "passed" if score >= threshold else "scored"
            own_hint = hint if isinstance(hint, str) else hint[row % len(hint)]
            yield AttemptStarted(**own, attempt=number, wave=number, hint=own_hint if number > 1 else None)
            yield AttemptEnded(**own, state=state, score=score, error=None if score is not None else "ParseError: no")
        best = max((i for i in range(len(values)) if values[i] is not None), key=lambda i: values[i], default=0)
        yield AttemptChosen(span=span + 1, attempt=best + 1)
        yield SpanEnded(span=span, parent=1)
    yield RunEnded(span=1, status="finished")


def dots(axes, label):
    (collection,) = [c for c in axes.collections if c.get_label() == label]
    return collection.get_offsets().data.tolist()


def line(axes, label):
    (curve,) = [curve for curve in axes.lines if curve.get_label() == label]
    return [list(map(float, curve.get_xdata())), list(map(float, curve.get_ydata()))]


def labelled(axes):
    return axes.get_xlabel(), axes.get_ylabel()


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_best_so_far_rises_with_calls_and_extends_to_the_end_of_the_run():
    axes = plotted(reader(*optimized(count=4, rows=4)))
    assert labelled(axes) == ("model calls", "exact on validation rows")
    assert dots(axes, "start") == [[4, 0]]
    assert dots(axes, "candidate") == [[8, 0.25], [12, 0.5]]
    assert dots(axes, "best") == [[16, 0.75]]
    assert line(axes, "best so far") == [[4, 8, 12, 16, 16], [0, 0.25, 0.5, 0.75, 0.75]]


@pytest.mark.parametrize(
    ("x", "label", "last"),
    [
        ("usd", "cost (USD)", 0.16),
        ("seconds", "time (s)", 10.0),
        ("tokens", "tokens", 400),
        ("metric_calls", "rollouts scored", 16),
    ],
)
def test_the_x_axis_is_the_chosen_cost(x, label, last):
    axes = plotted(reader(*optimized(count=4)), "best", x=x)
    assert axes.get_xlabel() == label
    assert line(axes, "best so far")[0][-1] == pytest.approx(last)


def test_the_line_is_the_optimizers_best_rather_than_the_highest_score():
    events = list(optimized(count=3, rows=4))
    last = [i for i, e in enumerate(events) if isinstance(e, CandidateScored)][-1]
    events[last] = CandidateScored(
        span=1, candidate="c2", split="val", rows=4, score=0.5, full=True, best="c1", at=103.0
    )
    run = reader(*events)
    assert line(plotted(run), "best so far")[1] == [*run.history.best_score.tolist(), 0.25]


def test_unknown_and_zero_costs_are_errors_and_are_not_plotted():
    with pytest.raises(dn.errors.InputError, match="price of some of the run's calls is unknown"):
        reader(*optimized(usd=None)).plot("best", x="usd")
    with pytest.raises(dn.errors.InputError, match=r"cost nothing in cost \(USD\)"):
        reader(*optimized(cached=True)).plot("pareto", x="usd")
    assert plotted(reader(*optimized(cached=True))).get_xlabel() == "rollouts scored"


def test_the_front_has_the_candidates_that_no_other_beats_in_score_and_cost():
    events = list(optimized(count=6, rows=4))  # the last two are right on all rows, the very last costs more
    axes = plotted(reader(*events), "pareto")
    assert labelled(axes) == ("tokens a row", "exact on validation rows")
    assert line(axes, "Pareto front") == [[10, 20, 30, 40, 50], [0, 0.25, 0.5, 0.75, 1]]
    assert dots(axes, "candidate")[-1] == [60, 1]
    with pytest.raises(dn.errors.InputError, match="one rollout with every candidate"):
        reader(*events).plot("pareto", x="metric_calls")


def test_the_heat_map_has_a_line_for_each_candidate_and_masks_rows_that_were_not_run():
    axes = plotted(reader(*optimized(count=3, rows=4, partial={1})), "heatmap")
    (image,) = axes.images
    cells = np.ma.filled(image.get_array(), math.nan)
    assert cells[0].tolist() == [0, 0, 0, 0]
    assert np.isnan(cells[1]).tolist() == [False, True, True, True]
    assert cells[2].tolist() == [1, 1, 0, 0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c0", "c1", "★ c2"]
    assert labelled(axes) == ("validation row (grey: not run)", "candidate")


def test_scores_of_an_optimizers_run_are_the_best_beside_the_start():
    axes = plotted(reader(*optimized(count=3, rows=4)), "scores")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["start: mean 0 [0, 0.4899]", "best: mean 0.5 [0.15, 0.85]"]
    assert labelled(axes) == ("exact", "validation rows")


def test_a_single_candidate_can_be_plotted():
    run = reader(*optimized(count=1))
    assert all(plotted(run, kind) for kind in ("best", "pareto", "heatmap", "scores"))


def test_a_thousand_candidates_are_readable_and_quick_to_draw():
    run = reader(*optimized(count=1000, rows=3))
    heat = plotted(run, "heatmap")
    names = heat.get_yticklabels()
    assert 1 < len(names) < 30
    assert plotted(run, "best").collections[0].get_alpha() < 0.5


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def bars(axes):
    """The bars; before 3.9 matplotlib's band of an interval is a patch that has no height."""
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_an_evaluations_run_is_drawn_like_the_evaluation():
    evaluation = asyncio.run(dn.evaluate(program(), frame(10, wrong={0, 1}), right))
    own = evaluation.plot(Figure().subplots())
    run = plotted(evaluation.run)
    for axes in (own, run):
        assert {
            round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in bars(axes) if bar.get_height()
        }[0] == 2
        assert labelled(axes) == ("right", "rows")
    assert [bar.get_height() for bar in bars(own)] == [bar.get_height() for bar in bars(run)]
    assert own.get_legend().get_texts()[0].get_text() == run.get_legend().get_texts()[0].get_text()


def test_repeats_are_rollouts_and_failed_rows_count_as_the_failure_score():
    rows = frame(3).assign(question=["bad", "1", "2"])
    evaluation = asyncio.run(dn.evaluate(program(), rows, right, repeats=2, failure_score=-1))
    axes = plotted(evaluation.run)
    assert axes.get_ylabel() == "rollouts"
    heights = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in bars(axes)}
    assert heights[-1] == 2
    assert evaluation.run.plot(ax=Figure().subplots()).lines[0].get_xdata()[0] == pytest.approx(float(evaluation))


def test_unevenly_spaced_scores_are_drawn_in_twenty_bars():
    values = random.Random(0)
    evaluation = asyncio.run(dn.evaluate(program(), frame(200), lambda row, p: values.random()))
    axes = evaluation.plot(Figure().subplots())
    assert sum(bar.get_width() == pytest.approx(0.05) for bar in bars(axes)) == 20
    assert sum(bar.get_height() for bar in axes.patches[:20]) == 200


def test_the_bars_count_all_of_ten_thousand_rows():
    rows = (RolloutEnded(span=row + 2, parent=1, row=row, score=row % 7 / 6) for row in range(10_000))
    axes = plotted(reader(RunStarted(span=1, kind="evaluate", name="P"), *rows, RunEnded(span=1, status="finished")))
    assert sum(bar.get_height() for bar in bars(axes) if bar.get_height() > 1) == 10_000


def test_a_comparison_is_drawn_from_its_run_with_the_same_means():
    comparison = asyncio.run(dn.compare({"$a$": program(), "b": program()}, frame(6, wrong={1}), right))
    own = comparison.plot(Figure().subplots())
    run = plotted(comparison.run)
    for axes in (own, run):
        assert [label.get_text() for label in axes.get_yticklabels()] == [r"\$a\$", "b"]
        assert labelled(axes) == ("right (mean, 95 % interval)", "program")
    values = [[bar.lines[0].get_xdata()[0] for bar in axes.containers] for axes in (own, run)]
    assert values[0] == values[1]
    both = plotted(comparison.run, "scores")
    assert [text.get_text().split(":")[0] for text in both.get_legend().get_texts()] == [r"\$a\$", "b"]


# ── attempts and hints ────────────────────────────────────────────────────────────────────────────────────────────────
def test_one_search_is_its_attempts_with_the_best_so_far_and_the_threshold():
    axes = plotted(reader(*searches([0.5, None, 0.25, 1.0], kind="refine")))
    assert line(axes, "best so far") == [[1, 2, 3, 4], [0.5, 0.5, 0.5, 1.0]]
    assert dots(axes, "scored") == [[1, 0.5], [3, 0.25]]
    assert dots(axes, "failed") == [[2, 0.0]]  # at the bottom
    assert dots(axes, "passed") == [[4, 1.0]]
    assert line(axes, "threshold")[1] == [1.0, 1.0]
    assert labelled(axes) == ("attempt", "score")


def test_many_searches_are_the_mean_of_the_best_so_far_and_the_share_that_passed():
    axes = plotted(reader(*searches([0.0, 1.0], [0.5, 0.25], [None, 0.75])))
    assert line(axes, "best so far, mean with 95 % interval")[1] == pytest.approx([0.5 / 3, 2.25 / 3])
    assert line(axes, "share that passed")[1] == pytest.approx([0, 1 / 3])
    assert axes.get_ylabel() == "score (3 searches)"


def test_a_part_of_a_run_is_plotted_as_its_own_search():
    run = reader(*searches([0.0, 1.0], [0.5, 0.25]))
    axes = plotted(run.part(2001))
    assert line(axes, "best so far")[1] == [0.5, 0.5]


def test_a_hints_gain_is_a_bar_with_how_often_it_was_used():
    run = reader(*searches([0.0, 1.0], [0.75, 0.5], hint=["be brief", "be long"]))
    axes = plotted(run, "hints")
    assert [bar.get_width() for bar in axes.patches] == run.hints.gain.tolist() == [1.0, -0.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["be brief", "be long"]
    assert [label.get_text() for label in axes.child_axes[0].get_yticklabels()] == [
        "used 1, passed 1",
        "used 1, passed 0",
    ]
    assert mpl.colors.same_color(axes.patches[1].get_facecolor()[:3], mpl.colors.to_rgb(RED))


def test_of_many_hints_the_most_and_the_least_useful_are_drawn():
    hints = [f"hint {i:02}" for i in range(40)]
    axes = plotted(reader(*searches(*[[0.5, i / 40] for i in range(40)], hint=hints)), "hints")
    hints_drawn = [label.get_text() for label in axes.get_yticklabels()]
    assert hints_drawn == [f"hint {i:02}" for i in range(39, 27, -1)] + ["hint 02", "hint 01", "hint 00"]
    assert axes.get_ylabel() == "hint (15 of 40: the most and the least useful)"


# ── which plot ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("events", "first"),
    [(optimized, "model calls"), (a_refine, "attempt"), (lambda: searches([0.0], [1.0]), "attempt")],
)
def test_the_default_kind_of_plot_depends_on_the_run(events, first):
    assert plotted(reader(*events())).get_xlabel() == first


def test_a_reopened_run_is_drawn_the_same():
    refine = dn.Refine(dn.Predict(Caption, lm=echo_hint()), reward=scores(0.0, 0.5, 1.0, feedback="be brief"), n=3)
    asyncio.run(refine(subject="the sea"))
    live = dn.last_run()
    flush_journals()
    reopened = dn.open_run(live.path)
    for kind in ("attempts", "scores", "hints"):
        a = plotted(live, kind)
        b = plotted(reopened, kind)
        assert [drawn.get_xydata().tolist() for drawn in a.lines] == [drawn.get_xydata().tolist() for drawn in b.lines]
        assert [p.get_extents().bounds for p in a.patches] == [p.get_extents().bounds for p in b.patches]
        assert [t.get_text() for t in a.get_yticklabels()] == [t.get_text() for t in b.get_yticklabels()]


def test_the_error_for_an_unknown_kind_suggests_a_similar_one_and_lists_all():
    with pytest.raises(dn.errors.InputError, match="there is no plot 'heat_map'. Did you mean 'heatmap'.*attempts"):
        reader(*optimized()).plot("heat_map")
    with pytest.raises(dn.errors.InputError, match="x must be one of calls.*Did you mean 'seconds'"):
        reader(*optimized()).plot("best", x="second")
    with pytest.raises(dn.errors.InputError, match="x is an argument of the plots 'best' and 'pareto'"):
        reader(*optimized()).plot("heatmap", x="calls")
    with pytest.raises(dn.errors.InputError, match="there is no plot 3"):
        reader(*optimized()).plot(3)


def test_the_error_for_a_kind_without_data_lists_the_kinds_with_data():
    with pytest.raises(
        dn.errors.InputError, match="'heatmap', which needs candidates.*as 'scores', 'attempts', 'hints'"
    ):
        reader(*a_refine()).plot("heatmap")
    with pytest.raises(dn.errors.InputError, match="needs a hint after a first attempt"):
        reader(*a_refine(1)).plot("hints")


@pytest.mark.parametrize(
    "events",
    [lambda: [], lambda: a_batch(3), lambda: searches([None, None], kind="refine"), lambda: list(optimized())[:3]],
)
def test_a_run_without_scores_says_so_and_leaves_no_figure_open(events):
    import matplotlib.pyplot as plt

    with pytest.raises(dn.errors.InputError, match="nothing to plot"):
        reader(*events()).plot()
    assert plt.get_fignums() == []


def test_without_axes_a_plot_makes_one_figure_and_shows_nothing():
    import matplotlib.pyplot as plt

    axes = reader(*a_refine()).plot()
    assert plt.get_fignums() == [axes.figure.number]


def test_an_active_run_is_drawn_up_to_the_present():
    events = list(optimized(count=4))[:-1]
    assert line(plotted(reader(*events)), "best so far")[1][-1] == 0.75
    assert plotted(reader(*list(a_refine(3))[:-6]))


def test_hostile_texts_are_only_labels():
    run = reader(*searches(*[[0.0, 0.5]] * 5, hint=HOSTILE))
    labels = [label.get_text() for label in plotted(run, "hints").get_yticklabels()]
    assert len(labels) == 5
    for text in labels:
        assert max(map(len, text.splitlines())) <= 40
        assert not set(text) & set("\x1b\x00\u202e")
    names = [f"{text}{i}" for i, text in enumerate(HOSTILE)]
    events = optimized(count=5, names=names)
    labels = [label.get_text() for label in plotted(reader(*events), "heatmap").get_yticklabels()]
    assert max(map(len, labels)) <= 30


def test_lines_that_are_not_data_use_the_text_colour_of_the_style():
    import matplotlib.pyplot as plt

    with plt.style.context("dark_background"):
        axes = plotted(reader(*optimized()))
    assert axes.lines[0].get_color() == "white"
    assert axes.collections[0].get_facecolor()[0][:3].tolist() == pytest.approx(mpl.colors.to_rgb(BLUE))


def test_matplotlib_is_loaded_when_a_plot_is_drawn_and_not_before():
    code = """
import sys
from tests.views.fakes import a_refine
from dspynb.running import RunReader
run = RunReader("a", a_refine())
run._repr_html_()
assert "matplotlib" not in sys.modules
import matplotlib; matplotlib.use("Agg")
run.plot()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
