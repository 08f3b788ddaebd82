"""A run file has one writer: while a run writes it, nobody else resumes it; a dead process holds nothing."""

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
def _say_it_again(monkeypatch):
    monkeypatch.setattr(locks, "_warned", False)


def predictor(answer=lambda request: chat(sentence="s")):
    return dn.Predict("subject -> sentence", lm=dn.FunctionLM(answer))


def waiting():
    """A predictor that answers once its event is set."""
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
    while not run.path:  # noqa: ASYNC110  # which nobody tells
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
            assert said(process) == "ready"
        yield processes


def command(process, *words):
    process.stdin.write(" ".join(map(str, words)) + "\n")
    process.stdin.flush()


def said(process):
    return process.stdout.readline().strip()


def resumed(path, program=None):
    async def main():
        return await dn.Evaluate(score, concurrency=2).resume(path, program or predictor(), ROWS)

    found = asyncio.run(main())
    flush_journals()
    return found


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
        again = await dn.Evaluate(score).resume(run.id, program, ROWS)
        assert (len(again), again.run.usage.calls) == (8, 8)

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


def test_a_run_that_is_resumed_is_not_resumed_again_by_another_name_of_its_file(tmp_path):
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
def test_a_run_that_has_ended_in_any_way_lets_go_of_its_file(how):
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


def test_a_resume_that_is_refused_lets_go_of_the_file_also_while_its_error_is_held():
    path = run_of_this_process()
    with pytest.raises(ConfigurationError) as caught:
        dn.run_sync(lambda: dn.Evaluate(score, repeats=2).resume(path, predictor(), ROWS))
    assert len(resumed(path)) == 8
    assert caught.value


def test_a_run_that_nobody_started_lets_go_of_its_file_when_it_is_collected():
    path = run_of_this_process()
    run = dn.running.Run.resumed(path, "evaluate", "p", {}, {})
    with pytest.raises(RunInUse):
        lock_run(path)
    del run
    gc.collect()
    flush_journals()
    lock_run(path).release()


def test_locks_leave_nothing_beside_the_run_files_that_a_list_shows():
    path = run_of_this_process()
    resumed(path)
    assert sorted(file.name for file in path.parent.iterdir()) == [".dspynb-lock", path.name]
    assert dn.runs().id.tolist() == [path.stem]


def test_ten_thousand_locks_take_one_descriptor(tmp_path):
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    taken = [lock_run(tmp_path / f"{i}.jsonl") for i in range(2_000)]
    assert open_files() == before + 1
    for lock in taken:
        lock.release()
    assert open_files() == before
    assert [file.name for file in tmp_path.iterdir()] == [".dspynb-lock"]


def test_reading_in_the_same_process_does_not_lose_the_lock(tmp_path):
    path = run_of_this_process()
    with writers(tmp_path) as (other,):
        lock = lock_run(path)
        for file in path.parent.iterdir():
            file.read_bytes()
        path.with_name(f"{path.name}.lock").unlink()  # so that the lock of the system alone is left
        command(other, "resume", path)
        assert said(other).startswith("refused")
        lock.release()
        (tmp_path / "go").touch()
        command(other, "resume", path)
        assert said(other).startswith("writing")
        assert said(other) == "done finished"


def test_an_owner_that_is_stopped_is_alive_and_one_that_is_killed_is_not(tmp_path):
    with writers(tmp_path) as (owner,):
        command(owner, "start")
        path = Path(said(owner).split()[1])
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
def test_of_two_processes_that_resume_one_file_one_is_refused_and_no_row_is_paid_twice(tmp_path, times):
    whole = run_of_this_process().read_bytes()
    with writers(tmp_path, 2) as both:
        for i in range(times):
            path = tmp_path / f"{i}.jsonl"
            path.write_bytes(whole)
            for process in both:
                command(process, "resume", path)
            answers = [said(process).split()[0] for process in both]
            assert sorted(answers) == ["refused", "writing"]
            (tmp_path / "go").touch()
            assert said(both[answers.index("writing")]) == "done finished"
            (tmp_path / "go").unlink()
            assert len((tmp_path / "calls").read_text().split()) == 5 * (i + 1)
            assert sorted(dn.open_run(path).rollouts.row) == list(range(8))


def test_a_forked_child_that_outlives_its_parent_does_not_hold_its_lock(tmp_path):
    path = run_of_this_process()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")

    def parent():
        lock_run(path)
        child = context.Process(target=lambda: theirs.poll(30))
        child.start()
        theirs.send(child.pid)
        os._exit(0)

    process = context.Process(target=parent)
    process.start()
    child = ours.recv()
    process.join()
    try:
        os.kill(child, 0)
        lock_run(path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_writes_nor_releases_what_its_parent_writes(tmp_path):
    async def main():
        program, free = waiting()
        run = dn.Evaluate(score).start(program, ROWS)
        path = await file_of(run)

        def child():
            run._journal.emit(run.record.events[0])  # how the run began: its file has that once
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


# ── where file systems have no locks, and owners that cannot be looked at ─────────────────────────────────────────────
@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def no_locks(request, monkeypatch):
    def refuse(fd, offset, *, acquire):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks, "_byte_lock", refuse)


def test_without_locks_of_the_file_system_the_record_serves_and_it_is_said_once(no_locks, caplog):
    paths = [run_of_this_process() for _ in range(2)]
    for path in paths:
        lock = lock_run(path)
        with pytest.raises(RunInUse):
            resumed(path)
        lock.release()
        assert len(resumed(path)) == 8
    assert len([record for record in caplog.records if "no file locks" in record.message]) == 1


def owner_of(path, **changes):
    """Leave the record of an owner beside a run file."""
    record = {**locks._this_process(), "since": time.time() - 60, "token": "0", **changes}
    path.with_name(f"{path.name}.lock").write_text(json.dumps(record))


def test_without_locks_a_living_owner_is_refused_and_a_dead_one_is_not(no_locks, tmp_path):
    path = run_of_this_process()
    with writers(tmp_path) as (other,):
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid))
        with pytest.raises(RunInUse, match=f"process {other.pid} "):
            resumed(path)
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid) - 1)  # its number was used again
        assert len(resumed(path)) == 8
        owner_of(path, pid=other.pid, born=locks._start_time(other.pid))
        other.kill()
        other.wait()
        assert len(resumed(path)) == 8


def test_a_stale_record_whose_process_number_is_used_again_is_taken_over():
    path = run_of_this_process()
    owner_of(path, pid=os.getppid(), born=1)
    assert len(resumed(path)) == 8
    owner_of(path, boot="another boot of this machine")
    assert len(resumed(path)) == 8
    path.with_name(f"{path.name}.lock").write_bytes(b'{"host"')  # killed while it wrote the record
    assert len(resumed(path)) == 8


@pytest.mark.parametrize("locks_work", [True, False])
def test_an_owner_on_another_machine_is_refused_with_the_way_out(monkeypatch, locks_work):
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


def test_where_there_are_no_locks_at_all_nothing_is_said(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = run_of_this_process()
    assert len(resumed(path)) == 8
    assert caplog.text == ""


def test_a_record_of_odd_content_raises_nothing_but_what_a_resume_may_raise(monkeypatch):
    path = run_of_this_process()
    record = path.with_name(f"{path.name}.lock")
    for working in (True, False):
        for content in ("", "[]", "[" * 100_000, '{"pid": "x", "host": 3, "since": NaN}', '{"pid": 1e99}', "\0" * 99):
            record.write_text(content)
            with contextlib.suppress(JournalError):
                lock_run(path).release()
        monkeypatch.setattr(locks, "_byte_lock", lambda fd, offset, acquire: (_ for _ in ()).throw(NotImplementedError))
        assert working or record.exists()


# ── files that go away, and disks that are full ───────────────────────────────────────────────────────────────────────
def deleted(how):
    """A run whose file is taken away after its first row; its file, and what was logged."""
    gone = []

    def answer(request):
        if not gone and dn.last_run().path:
            flush_journals()
            gone.append(Path(dn.last_run().path))
            how(gone[0])
        return chat(sentence="s")

    found = dn.Evaluate(score, concurrency=1).run_sync(predictor(answer), ROWS)
    flush_journals()
    assert len(found) == 8
    return gone[0]


def remove_folder(path):
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()


def replace_by_another(path):
    path.unlink()
    path.write_text("of somebody else\n")


@pytest.mark.parametrize("how", [remove_folder, Path.unlink, replace_by_another])
def test_a_run_file_that_is_deleted_is_not_made_again_and_it_is_said_once(how, caplog):
    path = deleted(how)
    assert not path.exists() or path.read_text() == "of somebody else\n"
    assert len([record for record in caplog.records if str(path) in record.message]) == 1
    assert len(dn.runs()) == path.exists()
    dn.Evaluate(score).run_sync(predictor(), ROWS)  # the next run has a file again
    assert dn.runs().status.tolist()[-1] == "finished"


@pytest.mark.parametrize("room", [0, 100, 1000])
def test_a_disk_that_is_full_costs_the_rest_of_the_file_and_leaves_no_half_line(monkeypatch, caplog, room):
    left, write = [room], os.write

    def full(fd, data):
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(".jsonl"):
            return write(fd, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = write(fd, bytes(data)[: left[0]])
        left[0] -= size
        return size

    monkeypatch.setattr(os, "write", full)
    found = dn.Evaluate(score, concurrency=1).run_sync(predictor(), ROWS)
    flush_journals()
    assert len(found) == 8
    assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    path = Path(found.run.path)
    if path.exists():
        assert path.read_bytes().endswith(b"\n")
        assert dn.open_run(path).status == "unfinished"
    assert path.exists() == (dn.runs().id.tolist() == [path.stem])
