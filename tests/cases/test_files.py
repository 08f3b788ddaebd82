"""Files with one defect each, and what can still be read of them."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import pandas as pd
import pytest

import dspynb as dn
from tests.helpers import chat
from tests.lm.server import Server

HALF = "\ud800"
"""Half of a surrogate pair: a Python string can contain it, UTF-8 cannot."""


def answering(text):
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer=text)))


def evaluated(program, *rows):
    return asyncio.run(dn.evaluate(program, rows, lambda row, prediction: dn.Score(1.0, "fine")))


# ── a lone surrogate ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_reply_with_half_a_surrogate_pair_is_a_row_of_the_calls():
    run = evaluated(answering(f"Paris{HALF}"), {"question": "q"}).run
    assert len(run.calls) == 1
    assert "Paris" in run.calls.reply[0]


def test_a_reopened_run_with_half_a_surrogate_pair_in_a_reply_has_its_calls():
    run = evaluated(answering(f"Paris{HALF}"), {"question": "q"}).run
    reopened = dn.open_run(run.path)
    assert "Paris" in reopened.calls.reply[0]


def test_a_hint_with_half_a_surrogate_pair_is_in_the_table_of_calls():
    refine = dn.Refine(answering("Paris"), lambda row, p: dn.Score(0.5, f"Be brief{HALF}."), n=2, hints="feedback")
    run = refine.run_sync(question="q").run
    assert len(run.calls) == 2
    assert "Be brief" in run.calls.hint[1]


def test_an_evaluation_with_half_a_surrogate_pair_in_a_prompt_is_saved_as_parquet(tmp_path):
    evaluation = evaluated(answering("Paris"), {"question": f"Where?{HALF}"})
    saved = pd.read_parquet(evaluation.save(tmp_path / "evaluation.parquet"))
    assert saved.question[0].startswith("Where?")


def test_an_evaluation_with_half_a_surrogate_pair_in_a_prompt_is_saved_as_csv_that_pandas_reads(tmp_path):
    evaluation = evaluated(answering("Paris"), {"question": f"Where?{HALF}"})
    saved = pd.read_csv(evaluation.save(tmp_path / "evaluation.csv"))
    assert saved.question[0].startswith("Where?")


def test_a_proposal_with_half_a_surrogate_pair_is_in_the_table_of_calls():
    writer = dn.FunctionLM(lambda request: chat(new_instruction=f"Be brief{HALF}."))
    optimizer = dn.GEPA(lambda row, p: dn.Score(0.0, "wrong"), max_steps=1, prompt_lm=writer)
    optimizer.compile_sync(answering("x"), [{"question": str(n)} for n in range(4)])
    replies = dn.last_run().calls.reply
    assert any("Be brief" in reply for reply in replies)


@pytest.mark.parametrize("table", ["table", "rollouts", "html", "csv"])
def test_a_column_whose_name_has_half_a_surrogate_pair_leaves_the_tables_readable(table, tmp_path):
    evaluation = evaluated(answering("Paris"), {"question": "Where?", f"source{HALF}": "a book"})
    if table == "html":
        assert "Where?" in evaluation._repr_html_()
    elif table == "csv":
        assert "Where?" in evaluation.save(tmp_path / "evaluation.csv").read_text(encoding="utf-8")
    else:
        frame = evaluation.table if table == "table" else evaluation.run.rollouts
        assert "Where?" in frame.question.tolist()
        assert any("source" in column for column in frame.columns)


# ── a cache with a broken page ────────────────────────────────────────────────────────────────────────────────────────
PAGE = 4096
ROWS = [{"question": f"question {n}"} for n in range(60)]


def broken(path):
    """Overwrite pages in the middle of the cache; its header and its schema stay intact."""
    with sqlite3.connect(path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        roots = [root for (root,) in connection.execute("select rootpage from sqlite_master where rootpage > 0")]
    connection.close()
    pages = bytearray(path.read_bytes())
    for root in roots:
        pages[(root - 1) * PAGE : root * PAGE] = b"\xff" * PAGE
    path.write_bytes(pages)


@pytest.fixture
def damaged(monkeypatch, tmp_path):
    """A program that calls a server, and a folder with a cache of its replies in which some pages are damaged."""
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "filled"))
    dn.configure(cache=True)
    with Server(lambda body, n: chat(answer=body["messages"][-1]["content"][-200:-150])) as server:
        program = dn.Predict("question -> answer", lm=dn.LM("openai/m", api_base=server.base))
        yield program, server, tmp_path / "again"
        dn.lm.cache.default_cache().flush()


def test_a_cache_with_a_damaged_page_is_recreated_and_works(damaged, monkeypatch, caplog):
    program, server, folder = damaged
    filled_and_broken(program, folder, monkeypatch)
    with caplog.at_level(logging.WARNING, "dspynb"):
        for _ in range(3):
            asyncio.run(program.batch(ROWS))
            dn.lm.cache.default_cache().flush()
    request_count = len(server.bodies)
    asyncio.run(program.batch(ROWS))
    assert len(server.bodies) == request_count  # replies that were paid for since then are cached


def test_a_cache_with_a_damaged_page_is_moved_away_with_one_warning(damaged, monkeypatch, caplog):
    program, _, folder = damaged
    filled_and_broken(program, folder, monkeypatch)
    before = {path.name for path in folder.iterdir()}
    with caplog.at_level(logging.WARNING, "dspynb"):
        for _ in range(3):
            asyncio.run(program.batch(ROWS))
            dn.lm.cache.default_cache().flush()
    assert len([record for record in caplog.records if str(folder) in record.getMessage()]) == 1
    aside = {path.name for path in folder.iterdir()} - before
    assert any(not name.endswith(("-wal", "-shm", "-journal")) for name in aside)  # the damaged one, for whoever looks


def filled_and_broken(program, folder, monkeypatch):
    """A cache in ``folder`` with all the replies, damaged afterwards, as a new process would open it."""
    asyncio.run(program.batch(ROWS))
    cache = dn.lm.cache.default_cache()
    cache.flush()
    broken(cache.path)
    folder.mkdir()
    (folder / cache.path.name).write_bytes(cache.path.read_bytes())
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(folder))
