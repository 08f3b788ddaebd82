"""A run file has one writer at a time, and a dead process holds no lock."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import ConfigurationError, JournalError, RunInUse
from dspynb.running import locks
from dspynb.running.journal import flush_journals
from dspynb.running.locks import lock_run
from tests.helpers import chat

ROWS = [{"subject": str(i)} for i in range(8)]


def score(row, prediction):
    """A metric whose source is the same in every process."""
    return 1.0


@pytest.fixture(autouse=True)
def _warn_in_each_test(monkeypatch):
    monkeypatch.setattr(locks, "_warned", False)


def predictor(answer=lambda request: chat(sentence="s")):
    return dn.Predict("subject -> sentence", lm=dn.FunctionLM(answer))


def waiting():
    """A predictor that answers once an event is set, and the event."""
    free = asyncio.Event()

    async def answer(request):
        await free.wait()
        return chat(sentence="s")

    return predictor(answer), free


def run_of_this_process():
    """The file of a run that was ended by its budget after three rows."""
    run = dn.Evaluate(score, budget=dn.Budget(metric_calls=3), concurrency=2).run_sync(predictor(), ROWS).run
    flush_journals()
    return Path(run.path)


async def file_of(run):
    while not run.path:  # noqa: ASYNC110
        await asyncio.sleep(0)
    flush_journals()
    return run.path


def content(path):
    return Path(path).read_bytes()


@contextlib.contextmanager
def writers(folder, count=1):
    """Processes that take commands (tests/running/writer.py)."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.running.writer", str(folder)]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait, 30)
            stack.callback(process.stdin.close)
            stack.callback(process.stdout.close)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert answer_of(process) == "ready"
        yield processes


def command(process, *words):
    process.stdin.write(" ".join(map(str, words)) + "\n")
    process.stdin.flush()


def answer_of(process):
    return process.stdout.readline().strip()


def resumed(path, program=None):
    async def main():
        return await dn.Evaluate(score, concurrency=2).resume(path, program or predictor(), ROWS)

    evaluation = asyncio.run(main())
    flush_journals()
    return evaluation


def test_a_live_run_is_not_resumed_in_its_own_process():
    async def main():
        program, free = waiting()
        run = dn.Evaluate(score).start(program, ROWS)
        path = await file_of(run)
        for which in (run.id, path, f"{Path(path).parent}/./{Path(path).name}"):
            with pytest.raises(RunInUse, match=f"this process .{os.getpid()}.*stop that run, or wait") as caught:
                dn.Evaluate(score).resume(which, program, ROWS)
        assert (caught.value.pid, caught.value.here, caught.value.lock_file) == (os.getpid(), True, None)
        free.set()
        await run
        resumed_evaluation = await dn.Evaluate(score).resume(run.id, program, ROWS)
        assert (len(resumed_evaluation), resumed_evaluation.run.usage.calls) == (8, 8)

    asyncio.run(main())


def test_a_live_run_is_not_resumed_from_another_thread_and_loop():
    async def main():
        program, free = waiting()
        run = dn.Evaluate(score).start(program, ROWS)
        path = await file_of(run)
        with pytest.raises(RunInUse):
            await asyncio.to_thread(resumed, path)
        free.set()
        await run

    asyncio.run(main())


def test_a_resumed_run_is_not_resumed_again_through_a_link_to_its_file(tmp_path):
    path = run_of_this_process()
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)

    async def main():
        program, free = waiting()
        run = dn.Evaluate(score).resume(link, program, ROWS)
        with pytest.raises(RunInUse):
            dn.Evaluate(score).resume(path, program, ROWS)
        free.set()
        await run

    asyncio.run(main())
    assert dn.open_run(path).status == "finished"


def test_an_optimizers_run_is_not_resumed_while_it_is_alive():
    rows, opt = [{"subject": "x", "sentence": "s"}], dn.BootstrapFewShot(dn.metrics.exact_match())

    async def main():
        program, free = waiting()
        run = opt.start(program, rows)
        await file_of(run)
        with pytest.raises(RunInUse):
            opt.resume(run.id, program, rows)
        free.set()
        await run
        await opt.resume(run.id, program, rows)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["finished", "stopped", "failed", "cancelled", "never began"])
def test_a_run_that_has_ended_in_any_way_releases_its_file(how):
    path = run_of_this_process()

    async def main():
        program, free = waiting()
        if how == "failed":
            program = predictor(lambda request: 1 / 0)
        run = dn.Evaluate(score, max_errors=0 if how == "failed" else 10).resume(path, program, ROWS)
        if how != "never began":
            await asyncio.sleep(0.02)
        if how == "finished":
            free.set()
        if how == "stopped":
            run.stop()
        if how in ("cancelled", "never began"):
            run.task.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await run

    asyncio.run(main())
    assert len(resumed(path)) == 8
    assert not path.with_name(f"{path.name}.lock").exists()


def test_a_refused_resume_releases_the_file_even_while_its_error_is_referenced():
    path = run_of_this_process()
    with pytest.raises(ConfigurationError) as caught:
        dn.run_sync(lambda: dn.Evaluate(score, repeats=2).resume(path, predictor(), ROWS))
    assert len(resumed(path)) == 8
    assert caught.value


def test_a_run_that_was_never_started_releases_its_file_when_it_is_collected():
    path = run_of_this_process()
    run = dn.running.Run.resumed(path, "evaluate", "p", {}, {})
    with pytest.raises(RunInUse):
        lock_run(path)
    del run
    gc.collect()
    flush_journals()
    lock_run(path).release()


def test_the_files_of_locks_are_not_listed_as_runs():
    path = run_of_this_process()
    resumed(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [".dspynb-lock", path.name]
    assert dn.runs().id.tolist() == [path.stem]


def test_ten_thousand_locks_take_one_descriptor(tmp_path):
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    held = [lock_run(tmp_path / f"{i}.jsonl") for i in range(2_000)]
    assert open_files() == before + 1
    for lock in held:
        lock.release()
    assert open_files() == before
    assert [file.name for file in tmp_path.iterdir()] == [".dspynb-lock"]


def test_reading_in_the_same_process_does_not_lose_the_lock(tmp_path):
    path = run_of_this_process()
    with writers(tmp_path) as (other,):
        lock = lock_run(path)
        for file in path.parent.iterdir():
            file.read_bytes()
        path.with_name(f"{path.name}.lock").unlink()  # so that only the lock of the system remains
        command(other, "resume", path)
        assert answer_of(other).startswith("refused")
        lock.release()
        (tmp_path / "go").touch()
        command(other, "resume", path)
        assert answer_of(other).startswith("writing")
        assert answer_of(other) == "done finished"


def test_a_stopped_owner_is_alive_and_a_killed_one_is_not(tmp_path):
    with writers(tmp_path) as (owner,):
        command(owner, "start")
        path = Path(answer_of(owner).split()[1])
        with pytest.raises(RunInUse, match=f"process {owner.pid} on host .* since 2") as caught:
            resumed(path)
        assert (caught.value.pid, caught.value.here) == (owner.pid, False)
        assert abs(caught.value.since - time.time()) < 600
        owner.send_signal(signal.SIGSTOP)
        with pytest.raises(RunInUse):
            resumed(path)
        owner.send_signal(signal.SIGKILL)
        while "Z" not in Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            time.sleep(0.001)  # dead, and nobody has waited for it yet
        assert path.with_name(f"{path.name}.lock").exists()
        assert len(resumed(path)) == 8
        assert not path.with_name(f"{path.name}.lock").exists()


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_if_two_processes_resume_a_file_one_is_refused_and_no_row_is_paid_for_twice(tmp_path, times):
    whole = run_of_this_process().read_bytes()
    with writers(tmp_path, 2) as both:
        for i in range(times):
            path = tmp_path / f"{i}.jsonl"
            path.write_bytes(whole)
            for process in both:
                command(process, "resume", path)
            answers = [answer_of(process).split()[0] for process in both]
            assert sorted(answers) == ["refused", "writing"]
            (tmp_path / "go").touch()
            assert answer_of(both[answers.index("writing")]) == "done finished"
            (tmp_path / "go").unlink()
            assert len((tmp_path / "calls").read_text().split()) == 5 * (i + 1)
            assert sorted(dn.open_run(path).rollouts.row) == list(range(8))


def test_a_forked_child_that_outlives_its_parent_does_not_hold_its_lock(tmp_path):
    path = run_of_this_process()
    parent_end, child_end = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")

    def parent():
        lock_run(path)
        child = context.Process(target=lambda: child_end.poll(30))
        child.start()
        child_end.send(child.pid)
        os._exit(0)

    process = context.Process(target=parent)
    process.start()
    child = parent_end.recv()
    process.join()
    try:
        os.kill(child, 0)
        lock_run(path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_writes_nor_releases_the_file_of_its_parent(tmp_path):
    async def main():
        program, free = waiting()
        run = dn.Evaluate(score).start(program, ROWS)
        path = await file_of(run)

        def child():
            run._journal.emit(run.record.events[0])  # RunStarted, which its file has once
            flush_journals()
            run._journal.close()
            flush_journals()

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        await asyncio.to_thread(process.join)
        assert content(path).count(b'"type":"RunStarted"') == 1
        with pytest.raises(RunInUse):
            lock_run(path)
        free.set()
        await run

    asyncio.run(main())


# ── file systems without locks, and owners that cannot be checked ─────────────────────────────────────────────────────
@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def no_locks(request, monkeypatch):
    def refuse(fd, offset, *, acquire):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks, "_byte_lock", refuse)


def test_without_locks_of_the_file_system_the_owner_file_serves_and_one_warning_is_logged(no_locks, caplog):
    paths = [run_of_this_process() for _ in range(2)]
    for path in paths:
        lock = lock_run(path)
        with pytest.raises(RunInUse):
            resumed(path)
        lock.release()
        assert len(resumed(path)) == 8
    assert len([record for record in caplog.records if "no file locks" in record.message]) == 1


def owner_of(path, **changes):
    """Write the owner file of a run file."""
    record = {**locks._this_process(), "since": time.time() - 60, "token": "0", **changes}
    path.with_name(f"{path.name}.lock").write_text(json.dumps(record))


def test_without_locks_a_living_owner_is_respected_and_a_dead_one_is_not(no_locks, tmp_path):
    path = run_of_this_process()
    with writers(tmp_path) as (other,):
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid))
        with pytest.raises(RunInUse, match=f"process {other.pid} "):
            resumed(path)
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid) - 1)  # the process id was used again
        assert len(resumed(path)) == 8
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid))
        other.kill()
        other.wait()
        assert len(resumed(path)) == 8


def test_the_owner_file_of_a_dead_process_whose_id_is_used_again_is_replaced():
    path = run_of_this_process()
    owner_of(path, pid=os.getppid(), born=1)
    assert len(resumed(path)) == 8
    owner_of(path, boot="another boot of this machine")
    assert len(resumed(path)) == 8
    path.with_name(f"{path.name}.lock").write_bytes(b'{"host"')  # killed while writing the owner file
    assert len(resumed(path)) == 8


@pytest.mark.parametrize("locks_work", [True, False])
def test_an_owner_on_another_machine_is_respected_and_the_error_says_what_to_delete(monkeypatch, locks_work):
    if not locks_work:
        monkeypatch.setattr(locks, "_byte_lock", lambda fd, offset, acquire: (_ for _ in ()).throw(NotImplementedError))
    path = run_of_this_process()
    owner_of(path, host="far-away", boot="of far-away", pid=4711)
    lock_file = path.with_name(f"{path.name}.lock")
    with pytest.raises(RunInUse, match=f"process 4711 on host far-away .*delete {lock_file} and resume") as caught:
        resumed(path)
    assert caught.value.lock_file == str(lock_file)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    lock_file.unlink()
    assert len(resumed(path)) == 8


def test_nothing_is_logged_on_a_system_without_any_locks(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = run_of_this_process()
    assert len(resumed(path)) == 8
    assert caplog.text == ""


def test_an_owner_file_of_odd_content_raises_no_unexpected_error(monkeypatch):
    path = run_of_this_process()
    record = path.with_name(f"{path.name}.lock")
    for working in (True, False):
        for content in ("", "[]", "[" * 100_000, '{"pid": "x", "host": 3, "since": NaN}', '{"pid": 1e99}', "\0" * 99):
            record.write_text(content)
            with contextlib.suppress(JournalError):
                lock_run(path).release()
        monkeypatch.setattr(locks, "_byte_lock", lambda fd, offset, acquire: (_ for _ in ()).throw(NotImplementedError))
        assert working or record.exists()


# ── deleted files and full disks ──────────────────────────────────────────────────────────────────────────────────────
def deleted(how):
    """Run an evaluation whose file is deleted by ``how`` after the first row. Returns the file."""
    deleted_files = []

    def answer(request):
        if not deleted_files and dn.last_run().path:
            flush_journals()
            deleted_files.append(Path(dn.last_run().path))
            how(deleted_files[0])
        return chat(sentence="s")

    evaluation = dn.Evaluate(score, concurrency=1).run_sync(predictor(answer), ROWS)
    flush_journals()
    assert len(evaluation) == 8
    return deleted_files[0]


def remove_folder(path):
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()


def replace_by_another(path):
    path.unlink()
    path.write_text("of another program\n")


@pytest.mark.parametrize("how", [remove_folder, Path.unlink, replace_by_another])
def test_a_deleted_run_file_is_not_created_again_and_one_warning_is_logged(how, caplog):
    path = deleted(how)
    assert not path.exists() or path.read_text() == "of another program\n"
    assert len([record for record in caplog.records if str(path) in record.message]) == 1
    assert len(dn.runs()) == path.exists()
    dn.Evaluate(score).run_sync(predictor(), ROWS)  # the next run has a file
    assert dn.runs().status.tolist()[-1] == "finished"


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_full_disk_ends_the_file_with_a_complete_line(monkeypatch, caplog, room):
    remaining = room
    write = os.write

    def full(fd, data):
        nonlocal remaining
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(".jsonl"):
            return write(fd, data)
        if not remaining:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = write(fd, bytes(data)[:remaining])
        remaining -= size
        return size

    monkeypatch.setattr(os, "write", full)
    evaluation = dn.Evaluate(score, concurrency=1).run_sync(predictor(), ROWS)
    flush_journals()
    assert len(evaluation) == 8
    assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    path = Path(evaluation.run.path)
    if path.exists():
        assert path.read_bytes().endswith(b"\n")
        assert dn.open_run(path).status == "unfinished"
    assert path.exists() == (dn.runs().id.tolist() == [path.stem])
