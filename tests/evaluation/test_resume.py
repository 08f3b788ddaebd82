"""Going on with an evaluation that was stopped or lost: only what is missing is run, and the table ends the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, JournalError
from dspynb.running.journal import flush_journals
from tests.evaluation.programs import frame, program, right, rows_ended


def resumed(which, prog, rows, metric=right, retry_failed=False, **kwargs):
    async def main():
        return await dn.Evaluate(metric, **kwargs).resume(which, prog, rows, retry_failed=retry_failed)

    return asyncio.run(main())


def stopped_after(n, rows, **kwargs):
    """A run that was stopped when its first ``n`` rows had ended."""

    async def main():
        prog = program(lambda q: 0 if int(q) < n else 30)
        run = dn.Evaluate(right, **kwargs).start(prog, rows)
        await rows_ended(run, n)
        run.stop()
        await run
        return run

    run = asyncio.run(main())
    flush_journals()
    return run


def same(evaluation, rows, **kwargs):
    """Whether the table is that of a run that was not interrupted."""
    expected = dn.Evaluate(right, **kwargs).run_sync(program(), rows)
    pd.testing.assert_frame_equal(evaluation.table.drop(columns="seconds"), expected.table.drop(columns="seconds"))
    assert evaluation.score == expected.score


@pytest.mark.parametrize("by", ["id", "path", "text"])
def test_resuming_runs_only_missing_rows_and_gives_the_same_table(by):
    rows, calls = frame(30, wrong={3, 20}), []
    run = stopped_after(10, rows)
    which = {"id": run.id, "path": Path(run.path), "text": run.path}[by]
    evaluation = resumed(which, program(calls=calls), rows)
    assert sorted(map(int, calls)) == list(range(10, 30))
    assert evaluation.run.id == run.id
    assert evaluation.run.status == dn.open_run(run.id).status == "finished"
    same(evaluation, rows)
    rollouts = dn.open_run(run.id).rollouts
    assert rollouts.row.tolist() == list(range(30))
    assert dn.runs().id.tolist().count(run.id) == 1


def test_resuming_runs_only_missing_repeats():
    rows, calls = frame(8), []
    run = stopped_after(5, rows, repeats=2)
    evaluation = resumed(run.id, program(calls=calls), rows, repeats=2)
    assert len(calls) == 16 - len(run.rollouts)
    same(evaluation, rows, repeats=2)


@pytest.mark.parametrize("cut", [1, 20, 0], ids=["no newline", "torn", "whole"])
def test_a_torn_last_line_is_dropped_and_its_row_is_run_again(cut):
    rows, calls = frame(6), []
    run = dn.Evaluate(right, concurrency=1).run_sync(program(), rows).run
    flush_journals()
    path = Path(run.path)
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"RolloutEnded"' in line)
    text = b"".join(lines[: last + 1])
    path.write_bytes(text[: len(text) - cut])
    evaluation = resumed(path, program(calls=calls), rows)
    assert calls == (["5"] if cut == 20 else [])
    same(evaluation, rows)
    assert dn.open_run(path).rollouts.row.tolist() == list(range(6))


def test_a_run_that_was_lost_right_after_its_header_is_run_completely():
    run = dn.Evaluate(right).run_sync(program(), frame(3)).run
    flush_journals()
    path = Path(run.path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    same(resumed(path, program(), frame(3)), frame(3))
    assert len(resumed(path, program(), frame(3))) == 3
    with pytest.raises(ConfigurationError, match="data"):
        resumed(path, program(), frame(4))


def test_failed_rows_stay_failed_unless_retried():
    rows, calls = frame(6), []
    bad = rows.assign(question=["0", "bad", "2", "3", "bad", "5"])
    run = dn.Evaluate(right).run_sync(program(), bad).run
    resumed_evaluation = resumed(run.id, program(calls=calls), bad)
    assert calls == []
    assert resumed_evaluation.errors.index.tolist() == ["r1", "r4"]
    assert resumed_evaluation.exceptions == [None] * 6
    retried = resumed(run.id, program(calls=calls), bad, retry_failed=True)
    assert calls == ["bad", "bad"]
    assert len(retried.errors) == 2
    assert dn.open_run(run.id).rollouts.error.notna().tolist() == [False, True, False, False, True, False]


def test_a_retried_row_counts_once_with_its_last_result():
    rows = frame(4)
    broken = {"now": True}

    def flaky(row, prediction):
        if broken["now"] and row.question == "2":
            raise ValueError("not yet")
        return 1.0

    run = dn.Evaluate(flaky).run_sync(program(), rows).run
    broken["now"] = False
    evaluation = resumed(run.id, program(), rows, flaky, retry_failed=True)
    assert evaluation.table.error.isna().all()
    reader = dn.open_run(run.id)
    assert reader.rollouts.error.isna().all()
    plain = reader._repr_html_().split("</style>")[1].split("<script")[0]
    assert "4 of 4 rows" in plain
    assert "failed" not in plain
    assert len(resumed(run.id, program(), rows, flaky).errors) == 0


def test_changed_settings_are_named_and_the_file_is_not_changed():
    rows = frame(5)
    run = stopped_after(2, rows)
    before = Path(run.path).read_bytes()

    def other(row, prediction):
        return 1.0

    changed = program()
    changed.instruction = "Answer otherwise."
    named = program()
    named.lm.name = "another"
    for prog, data, metric, kwargs, setting in (
        (program(), frame(6), right, {}, "data"),
        (program(), rows.assign(answer="x"), right, {}, "data"),
        (program(), rows, other, {}, r"metric \('right' then, 'other' now\)"),
        (program(), rows, right, {"repeats": 2}, r"repeats \(1 then, 2 now\)"),
        (program(), rows, right, {"failure_score": 1.0}, "failure_score"),
        (program(), rows, right, {"inputs": ["question"], "repeats": 3}, "repeats"),
        (changed, rows, right, {}, "program"),
        (named, rows, right, {}, r"models \(\['function'\] then, \['another'\] now\)"),
    ):
        with pytest.raises(ConfigurationError, match=f"cannot resume this run: these settings changed: {setting}"):
            resumed(run.id, prog, data, metric, **kwargs)
    assert Path(run.path).read_bytes() == before


def test_a_search_with_other_settings_is_another_program():
    def refine(n):
        return dn.Refine(program(), lambda i, p: 1.0, n=n)

    run = dn.Evaluate(right).run_sync(refine(2), frame(2)).run
    assert len(resumed(run.id, refine(2), frame(2))) == 2
    with pytest.raises(ConfigurationError, match="program"):
        resumed(run.id, refine(3), frame(2))


def test_a_program_with_demos_that_cannot_be_saved_can_be_evaluated():
    prog = program()
    prog.demos = [{"question": "1", "answer": object}]
    assert len(dn.Evaluate(right).run_sync(prog, frame(2))) == 2


def test_runs_of_another_kind_and_other_files_are_refused_and_not_changed(tmp_path):
    refined = dn.Refine(program(), lambda r, p: 1.0, n=1).run_sync(question="1").run
    flush_journals()
    with pytest.raises(JournalError, match="it is the file of a run of 'refine', not of 'evaluate'"):
        resumed(refined.id, program(), frame(1))
    notes = tmp_path / "notes.txt"
    notes.write_text("first line\nlast line without an end")
    with pytest.raises(JournalError, match="is not a dspynb run file"):
        resumed(notes, program(), frame(1))
    assert notes.read_text() == "first line\nlast line without an end"
    with pytest.raises(JournalError, match="there is no run 'nowhere'"):
        resumed("nowhere", program(), frame(1))
    with pytest.raises(JournalError, match="named by its id or the path of its file, got NoneType"):
        resumed(None, program(), frame(1))


def test_resuming_a_finished_run_gives_its_table():
    calls = []
    run = dn.Evaluate(right).run_sync(program(), frame(4)).run
    evaluation = resumed(run.id, program(calls=calls), frame(4))
    assert calls == []
    same(evaluation, frame(4))
    assert evaluation.predictions == [None] * 4


def test_a_run_can_be_resumed_piece_by_piece_with_budgets():
    rows = frame(10)
    evaluation = dn.Evaluate(right, budget=dn.Budget(calls=4)).run_sync(program(), rows)
    sizes = []
    for _ in range(2):
        evaluation = resumed(evaluation.run.id, program(), rows, budget=dn.Budget(calls=4))
        sizes.append(len(evaluation))
    assert sizes == [8, 10]
    same(evaluation, rows)


KILLED = """
import sys
import dspynb as dn
from tests.evaluation.programs import frame, late, program, right
dn.configure(runs_dir=sys.argv[1], cache=False, view="off")
print("ready", flush=True)
dn.Evaluate(right, concurrency=16).run_sync(program(late(int(sys.argv[2]), 0.002)), frame(2000, wrong={7, 1500}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_at_any_moment_is_resumed_to_the_same_table(tmp_path):
    rows, chance = frame(2000, wrong={7, 1500}), random.Random(5)
    straight = dn.Evaluate(right).run_sync(program(), rows)
    expected = straight.table.drop(columns="seconds")
    flush_journals()
    full_size = Path(straight.run.path).stat().st_size
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    cut = 0
    for i in range(20):
        folder = tmp_path / str(i)
        child = [sys.executable, "-c", KILLED, str(folder), str(i)]
        with subprocess.Popen(child, env=env, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            moment = chance.random() * full_size
            while process.poll() is None and sum(path.stat().st_size for path in folder.glob("*.jsonl")) < moment:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        (path,) = folder.glob("*.jsonl")
        try:
            journaled = set(dn.open_run(path).rollouts.row)
        except JournalError:  # killed before its header was whole: there is nothing to go on with
            continue
        cut += 0 < len(journaled) < 2000
        calls = []
        evaluation = resumed(path, program(calls=calls), rows)
        assert {int(q) for q in calls} == set(range(2000)) - journaled
        assert len(calls) == 2000 - len(journaled)
        pd.testing.assert_frame_equal(evaluation.table.drop(columns="seconds"), expected)
    assert cut >= 10
