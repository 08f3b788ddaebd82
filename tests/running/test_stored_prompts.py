"""Long prompts stay in the run file: when they are read, and what happens when the file is deleted."""

import asyncio
import gc
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import DamagedFileWarning
from dspynb.events import PredictorCalled, to_json
from dspynb.running.journal import flush_journals
from dspynb.running.stored_prompts import PromptFile, StoredPrompt
from tests.helpers import chat

LONG = "word " * 2000


def in_memory(call):
    """The prompt as the event holds it: the messages, or a StoredPrompt."""
    return vars(PredictorCalled)["messages"]._slot.__get__(call, PredictorCalled)


def program():
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))


def evaluate(tmp_path, rows, runs_dir=True):
    dn.configure(runs_dir=str(tmp_path) if runs_dir else None)
    evaluation = dn.run_sync(lambda: dn.evaluate(program(), rows, lambda row, prediction: 1.0))
    flush_journals()
    return evaluation, dn.last_run()


def rows(n, text=LONG):
    return [{"question": f"{i} {text}"} for i in range(n)]


def test_a_long_prompt_is_released_from_memory_once_it_is_in_the_run_file(tmp_path):
    _, run = evaluate(tmp_path, rows(3))
    assert [type(in_memory(call)) for call in run.record.calls] == [StoredPrompt] * 3


def test_a_short_prompt_stays_in_memory(tmp_path):
    _, run = evaluate(tmp_path, rows(3, text="short"))
    assert [type(in_memory(call)) for call in run.record.calls] == [tuple] * 3


def test_without_a_run_file_every_prompt_stays_in_memory(tmp_path):
    _, run = evaluate(tmp_path, rows(3), runs_dir=False)
    assert [type(in_memory(call)) for call in run.record.calls] == [tuple] * 3


def test_the_prompt_in_the_file_is_the_one_that_was_sent(tmp_path):
    texts = [LONG, LONG + "é \u2028 𝄞", LONG + "\ud800", LONG]
    evaluation, run = evaluate(tmp_path, [{"question": text} for text in texts])
    contents = [messages[-1]["content"] for messages in run.calls["messages"]]
    for text, content, prediction in zip(texts, contents, evaluation.predictions, strict=True):
        assert text in content
        assert prediction.calls[0].messages[-1]["content"] == content


def test_an_event_stays_equal_to_itself_copied_pickled_and_written(tmp_path):
    _, run = evaluate(tmp_path, rows(1))
    (call,) = run.record.calls
    assert pickle.loads(pickle.dumps(call)) == call
    assert replace(call, span=7).messages == call.messages
    assert to_json(call)["messages"] == [dict(message) for message in call.messages]
    reopened = dn.open_run(run.path)
    assert reopened.record.calls[0].messages == call.messages


def test_a_secret_in_a_long_prompt_is_redacted_and_later_prompts_are_read_at_the_right_offsets(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-planted-0123456789abcdef")
    monkeypatch.setattr("dspynb.redact._known", (-1e9, frozenset()))
    inputs = [{"question": LONG + "sk-planted-0123456789abcdef"}, *rows(3)]
    _, run = evaluate(tmp_path, inputs)
    contents = [messages[-1]["content"] for messages in run.calls["messages"]]
    assert "sk-planted" not in contents[0]
    assert [f"{i} word" in content for i, content in enumerate(contents[1:])] == [True] * 3


@pytest.mark.parametrize("loss", ["deleted", "replaced"])
def test_if_the_file_is_deleted_or_replaced_there_is_one_warning_and_tables_have_the_rest(tmp_path, loss):
    _, run = evaluate(tmp_path, rows(2))
    path = Path(run.path)
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    path.unlink()
    if loss == "replaced":
        other.rename(path)
    with pytest.warns(DamagedFileWarning, match="cannot be read") as warned:
        table = run.calls
    assert len(run.calls) == 2  # without a further warning
    assert len(warned) == 1
    assert [messages[0]["content"] for messages in table["messages"]] == [
        f"(this prompt was in {path}, which cannot be read)"
    ] * 2
    assert [chat(answer="4")] * 2 == table.reply.tolist()


def test_a_run_whose_file_cannot_be_written_keeps_its_prompts(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    _, run = evaluate(blocked, rows(2))
    assert [type(in_memory(call)) for call in run.record.calls] == [tuple] * 2


def test_prompts_are_read_while_more_are_written(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    readings = 0
    wrong = []
    ended = threading.Event()

    def read(run):
        nonlocal readings
        while not ended.is_set():
            for call in list(run.record.calls):
                readings += 1
                if LONG[:-1] not in call.messages[-1]["content"]:
                    wrong.append(call)

    async def main():
        plan = dn.Evaluate(lambda row, prediction: 1.0)
        run = plan.start(program(), rows(100))
        thread = threading.Thread(target=read, args=(run,))
        thread.start()
        try:
            await run
            await asyncio.sleep(0.1)
        finally:
            ended.set()
            thread.join()

    asyncio.run(main())
    assert readings > 0
    assert wrong == []


def test_a_replay_of_a_live_run_reads_its_prompts(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    refine = dn.Refine(program(), lambda row, prediction: 0.0, n=2, hints=lambda *_: "again")
    dn.run_sync(lambda: refine(question=LONG))
    flush_journals()
    run = dn.last_run()
    assert any(type(in_memory(call)) is StoredPrompt for call in run.record.calls)
    replayed = dn.run_sync(lambda: dn.replay(run, refine))
    assert replayed.exact


def test_the_memory_of_a_run_does_not_hold_the_texts_of_its_prompts(tmp_path):
    _, run = evaluate(tmp_path, rows(50))
    gc.collect()
    texts = [item for item in gc.get_objects() if type(item) is dict and "content" in item and "role" in item]
    assert not any(LONG[:-1] in str(message["content"]) for message in texts)
    assert len(run.record.calls) == 50


def test_a_reopened_run_leaves_its_long_prompts_in_the_file_and_shows_what_the_live_run_shows(tmp_path):
    _, run = evaluate(tmp_path, [{"question": LONG + "\ud800"}, *rows(2), *rows(1, text="short"), *rows(1)])
    reopened = dn.open_run(run.path)
    kinds = [type(in_memory(call)) for call in reopened.record.calls]
    assert kinds == [StoredPrompt, StoredPrompt, StoredPrompt, tuple, StoredPrompt]
    assert reopened.calls.messages.tolist() == run.calls.messages.tolist()


def test_a_resumed_run_leaves_its_long_prompts_in_the_file_and_adds_to_it(tmp_path):
    dn.configure(runs_dir=str(tmp_path))
    calls, third = [], asyncio.Event()

    async def answer(request):
        calls.append(request)
        if len(calls) == 3:
            third.set()
            await asyncio.Event().wait()
        return chat(answer="4")

    program = dn.Predict("question -> answer", lm=dn.FunctionLM(answer))
    plan = dn.Evaluate(lambda row, prediction: 1.0, concurrency=1)
    inputs = rows(4)

    async def main():
        run = plan.start(program, inputs)
        await third.wait()
        run.stop()
        await run
        resumed = plan.resume(run.id, program, inputs)
        await resumed
        return resumed

    resumed = asyncio.run(main())
    flush_journals()
    assert [type(in_memory(call)) for call in resumed.record.calls] == [
        StoredPrompt
    ] * 5  # one was cancelled by the stop
    answered = resumed.calls[resumed.calls.reply.notna()]
    contents = [messages[-1]["content"] for messages in answered["messages"]]
    assert all(f"{i} word" in content for i, content in enumerate(contents))


def test_a_saved_trace_has_its_prompts_in_memory(tmp_path):
    with dn.trace() as trace:
        program().run_sync(question=LONG)
    trace.save(tmp_path / "trace.jsonl")
    (call,) = dn.Trace.load(tmp_path / "trace.jsonl").calls
    assert type(in_memory(call)) is tuple


@pytest.mark.parametrize("line", [b"{", b'{"messages": 3}\n', b'{"messages": ["text"]}\n', b"\xff\xff", b""])
def test_an_offset_without_a_prompt_is_reported(tmp_path, line):
    path = tmp_path / "run.jsonl"
    path.write_bytes(line)
    with path.open("rb") as stream:
        stored = StoredPrompt(PromptFile.of(path, stream), 0, max(1, len(line)))
    with pytest.warns(DamagedFileWarning, match="cannot be read"):
        assert "cannot be read" in stored.load()[0]["content"]
