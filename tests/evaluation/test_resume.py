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


def same(found, rows, **kwargs):
    """Whether the table is that of a run that was not interrupted."""
    wanted = dn.Evaluate(right, **kwargs).run_sync(program(), rows)
    pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted.table.drop(columns="seconds"))
    assert found.score == wanted.score


@pytest.mark.parametrize("by", ["id", "path", "text"])
def test_only_rows_that_the_file_lacks_are_run_and_the_table_is_the_same(by):
    rows, calls = frame(30, wrong={3, 20}), []
    run = stopped_after(10, rows)
    which = {"id": run.id, "path": Path(run.path), "text": run.path}[by]
    found = resumed(which, program(calls=calls), rows)
    assert sorted(map(int, calls)) == list(range(10, 30))
    assert found.run.id == run.id
    assert found.run.status == dn.open_run(run.id).status == "finished"
    same(found, rows)
    again = dn.open_run(run.id).rollouts
    assert again.row.tolist() == list(range(30))
    assert dn.runs().id.tolist().count(run.id) == 1


def test_repeats_are_gone_on_with():
    rows, calls = frame(8), []
    run = stopped_after(5, rows, repeats=2)
    found = resumed(run.id, program(calls=calls), rows, repeats=2)
    assert len(calls) == 16 - len(run.rollouts)
    same(found, rows, repeats=2)


@pytest.mark.parametrize("cut", [1, 20, 0], ids=["no newline", "torn", "whole"])
def test_a_torn_last_line_is_dropped_and_its_row_run_again(cut):
    rows, calls = frame(6), []
    run = dn.Evaluate(right, concurrency=1).run_sync(program(), rows).run
    flush_journals()
    path = Path(run.path)
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"RolloutEnded"' in line)
    text = b"".join(lines[: last + 1])
    path.write_bytes(text[: len(text) - cut])
    found = resumed(path, program(calls=calls), rows)
    assert calls == (["5"] if cut == 20 else [])
    same(found, rows)
    assert dn.open_run(path).rollouts.row.tolist() == list(range(6))


def test_a_run_that_was_lost_right_after_its_header_is_done_whole():
    run = dn.Evaluate(right).run_sync(program(), frame(3)).run
    flush_journals()
    path = Path(run.path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    same(resumed(path, program(), frame(3)), frame(3))
    assert len(resumed(path, program(), frame(3))) == 3
    with pytest.raises(ConfigurationError, match="data"):
        resumed(path, program(), frame(4))


def test_failed_rows_stay_failed_unless_they_are_to_be_tried_again():
    rows, calls = frame(6), []
    bad = rows.assign(question=["0", "bad", "2", "3", "bad", "5"])
    run = dn.Evaluate(right).run_sync(program(), bad).run
    kept = resumed(run.id, program(calls=calls), bad)
    assert calls == []
    assert kept.errors.index.tolist() == ["r1", "r4"]
    assert kept.exceptions == [None] * 6
    again = resumed(run.id, program(calls=calls), bad, retry_failed=True)
    assert calls == ["bad", "bad"]
    assert len(again.errors) == 2
    assert dn.open_run(run.id).rollouts.error.notna().tolist() == [False, True, False, False, True, False]


def test_a_row_that_was_tried_again_counts_once_and_as_it_ended_last():
    rows = frame(4)
    broken = {"now": True}

    def flaky(row, prediction):
        if broken["now"] and row.question == "2":
            raise ValueError("not yet")
        return 1.0

    run = dn.Evaluate(flaky).run_sync(program(), rows).run
    broken["now"] = False
    found = resumed(run.id, program(), rows, flaky, retry_failed=True)
    assert found.table.error.isna().all()
    reader = dn.open_run(run.id)
    assert reader.rollouts.error.isna().all()
    plain = reader._repr_html_().split("</style>")[1].split("<script")[0]
    assert "4 of 4 rows" in plain
    assert "failed" not in plain
    assert len(resumed(run.id, program(), rows, flaky).errors) == 0


def test_what_differs_is_named_and_the_file_stays_as_it_was():
    rows = frame(5)
    run = stopped_after(2, rows)
    before = Path(run.path).read_bytes()

    def other(row, prediction):
        return 1.0

    changed = program()
    changed.instruction = "Answer otherwise."
    named = program()
    named.lm.name = "another"
    for prog, data, metric, kwargs, said in (
        (program(), frame(6), right, {}, "data"),
        (program(), rows.assign(answer="x"), right, {}, "data"),
        (program(), rows, other, {}, r"metric \('right' then, 'other' now\)"),
        (program(), rows, right, {"repeats": 2}, r"repeats \(1 then, 2 now\)"),
        (program(), rows, right, {"failure_score": 1.0}, "failure_score"),
        (program(), rows, right, {"inputs": ["question"], "repeats": 3}, "repeats"),
        (changed, rows, right, {}, "program"),
        (named, rows, right, {}, r"models \(\['function'\] then, \['another'\] now\)"),
    ):
        with pytest.raises(ConfigurationError, match=f"cannot resume this run: these settings changed: {said}"):
            resumed(run.id, prog, data, metric, **kwargs)
    assert Path(run.path).read_bytes() == before


def test_a_search_with_other_settings_is_another_program():
    def refine(n):
        return dn.Refine(program(), lambda i, p: 1.0, n=n)

    run = dn.Evaluate(right).run_sync(refine(2), frame(2)).run
    assert len(resumed(run.id, refine(2), frame(2))) == 2
    with pytest.raises(ConfigurationError, match="program"):
        resumed(run.id, refine(3), frame(2))


def test_demos_that_cannot_be_saved_hinder_no_evaluation():
    prog = program()
    prog.demos = [{"question": "1", "answer": object}]
    assert len(dn.Evaluate(right).run_sync(prog, frame(2))) == 2


def test_a_run_of_another_kind_and_a_file_that_is_no_run_are_refused_untouched(tmp_path):
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


def test_a_run_that_had_finished_gives_its_table_again():
    calls = []
    run = dn.Evaluate(right).run_sync(program(), frame(4)).run
    found = resumed(run.id, program(calls=calls), frame(4))
    assert calls == []
    same(found, frame(4))
    assert found.predictions == [None] * 4


def test_a_budget_lets_a_run_go_on_piece_by_piece():
    rows = frame(10)
    found = dn.Evaluate(right, budget=dn.Budget(calls=4)).run_sync(program(), rows)
    sizes = []
    for _ in range(2):
        found = resumed(found.run.id, program(), rows, budget=dn.Budget(calls=4))
        sizes.append(len(found))
    assert sizes == [8, 10]
    same(found, rows)


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
def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_table(tmp_path):
    rows, chance = frame(2000, wrong={7, 1500}), random.Random(5)
    straight = dn.Evaluate(right).run_sync(program(), rows)
    wanted = straight.table.drop(columns="seconds")
    flush_journals()
    whole = Path(straight.run.path).stat().st_size
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    cut = 0
    for i in range(20):
        folder = tmp_path / str(i)
        child = [sys.executable, "-c", KILLED, str(folder), str(i)]
        with subprocess.Popen(child, env=env, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            moment = chance.random() * whole
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
        found = resumed(path, program(calls=calls), rows)
        assert {int(q) for q in calls} == set(range(2000)) - journaled
        assert len(calls) == 2000 - len(journaled)
        pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted)
    assert cut >= 10
