"""The reply cache: hits cost nothing, damage is a miss, and many processes share one file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import dspynb as dn
from dspynb.data import Usage
from dspynb.errors import Halted
from dspynb.lm.cache import ReplyCache, default_cache
from tests.helpers import chat
from tests.lm.server import Server, error


@pytest.fixture
def cached(monkeypatch, tmp_path):
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "cache"))
    dn.configure(cache=True)
    yield default_cache()
    default_cache().flush()


@pytest.fixture
def server():
    async def answer(body, n):
        await asyncio.sleep(0.02)
        return f"answer {n}"

    with Server(answer) as running:
        yield running


def model(server, **kwargs):
    return dn.LM("openai/m", api_base=server.base, **kwargs)


def request(text="x", **kwargs):
    return dn.LMRequest(({"role": "user", "content": text},), **kwargs)


def ask(lm, *requests):
    async def main():
        return await asyncio.gather(*(lm.complete(r) for r in requests))

    return asyncio.run(main())


def test_a_second_call_is_served_from_the_cache_at_no_cost(cached, server):
    (first,) = ask(model(server), request())
    cached.flush()
    (second,) = ask(model(server), request())
    assert (first.cached, second.cached) == (False, True)
    assert second.text == first.text
    assert (second.usage.calls, second.usage.usd, second.usage.tokens) == (0, 0.0, first.usage.tokens)
    assert len(server.bodies) == 1


def test_the_cache_key_has_everything_that_changes_a_reply_but_not_the_api_key(cached, server):
    lm = model(server)
    ask(lm, request(), request(rollout=1), request(settings={"temperature": 1}), request("y"))
    ask(model(server, max_tokens=5), request())
    assert len(server.bodies) == 5
    ask(model(server, api_key="sk-another-key-entirely"), request())
    assert len(server.bodies) == 5


def test_the_cache_can_be_switched_off(cached, server):
    with dn.context(cache=False):
        ask(model(server), request())
        ask(model(server), request())
    ask(model(server, cache=False), request())
    assert len(server.bodies) == 3


def test_equal_pending_requests_are_sent_once(cached, server):
    replies = ask(model(server), *[request()] * 20)
    assert len(server.bodies) == 1
    assert {r.text for r in replies} == {"answer 1"}
    assert sum(not r.cached for r in replies) == 1


def test_cancelling_the_first_call_does_not_cancel_the_others(cached, server):
    async def main():
        lm = model(server)
        first = asyncio.create_task(lm.complete(request()))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(lm.complete(request()))
        await asyncio.sleep(0.002)
        first.cancel()
        reply = await second
        assert first.cancelled()
        return reply.text

    assert asyncio.run(main()) == "answer 1"
    assert len(server.bodies) == 1


def test_the_request_is_cancelled_when_all_calls_are_cancelled(cached, server):
    async def main():
        lm = model(server)
        tasks = [asyncio.create_task(lm.complete(request())) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert lm.limits.slots.running == 0
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


def test_a_damaged_entry_is_a_miss_and_is_replaced(cached, server):
    ask(model(server), request())
    cached.flush()
    with sqlite3.connect(cached.path) as connection:
        connection.execute("update replies set body = 'nonsense'")
    connection.close()
    assert not ask(model(server), request())[0].cached
    cached.flush()
    assert ask(model(server), request())[0].cached


@pytest.mark.parametrize(
    "change",
    [
        {"text": 7}, {"text": None}, {"text": ["a"]}, {"usage": 3},
        {"tool_calls": "lots"}, {"tool_calls": [1]}, {"finish": {}}, {"reasoning": 1}, {"completions": [None]},
        {"completions": {"a": 1}},
    ],
)  # fmt: skip
def test_an_entry_of_wrong_types_is_a_miss_and_is_replaced(cached, server, change):
    ask(model(server), request())
    cached.flush()
    with sqlite3.connect(cached.path) as connection:
        (body,) = connection.execute("select body from replies").fetchone()
        connection.execute("update replies set body = ?", (json.dumps({**json.loads(body), **change}),))
    connection.close()
    assert not ask(model(server), request())[0].cached
    cached.flush()
    assert ask(model(server), request())[0].cached


@pytest.mark.parametrize("usage", [{"calls": "many"}, {"usd": float("nan")}, {"prompt_tokens": 2**70}, {}])
def test_an_entry_with_odd_usage_is_served_with_the_usage_of_a_cached_reply(cached, server, usage):
    ask(model(server), request())
    cached.flush()
    with sqlite3.connect(cached.path) as connection:
        (body,) = connection.execute("select body from replies").fetchone()
        connection.execute("update replies set body = ?", (json.dumps({**json.loads(body), "usage": usage}),))
    connection.close()
    (reply,) = ask(model(server), request())
    assert reply.cached
    assert (reply.usage.calls, reply.usage.usd) == (0, 0.0)
    assert reply.usage.prompt_tokens in (0, None)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"text": ' * 100_000, "7", "null", "[]", '"text"', ""])
def test_an_entry_without_a_reply_is_a_miss_and_is_replaced(cached, server, body):
    ask(model(server), request())
    cached.flush()
    with sqlite3.connect(cached.path) as connection:
        connection.execute("update replies set body = ?", (body,))
    connection.close()
    assert not ask(model(server), request())[0].cached
    cached.flush()
    assert ask(model(server), request())[0].cached


def test_a_file_that_is_no_database_is_put_aside(cached, server, tmp_path):
    cached.path.parent.mkdir(parents=True)
    cached.path.write_bytes(b"this is not a database" * 100)
    ask(model(server), request())
    cached.flush()
    assert ask(model(server), request())[0].cached
    assert cached.path.with_suffix(".damaged").exists()


def test_a_cache_that_is_locked_delays_no_call(cached, server, caplog):
    ask(model(server), request())
    cached.flush()
    holder = sqlite3.connect(cached.path)
    holder.execute("begin exclusive")
    began = time.perf_counter()
    (reply,) = ask(model(server), request("new"))
    elapsed = time.perf_counter() - began
    holder.rollback()
    holder.close()
    assert reply.text == "answer 2"
    assert elapsed < 10  # without the timeout it would wait forever


def test_without_write_access_to_the_folder_calls_run_without_the_cache(monkeypatch, tmp_path, server, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSPYNB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    dn.configure(cache=True)
    assert ask(model(server), request())[0].text == "answer 1"
    assert "not usable" in caplog.text


def test_only_the_owner_can_read_the_file(cached, server):
    ask(model(server), request())
    cached.flush()
    assert stat.S_IMODE(cached.path.stat().st_mode) == 0o600


def test_the_least_recently_used_entries_are_deleted_first(tmp_path):
    async def main():
        cache = ReplyCache(tmp_path / "c.sqlite", most_bytes=300_000)
        for i in range(1500):
            cache.put(f"k{i}", dn.LMReply("x" * 500, usage=Usage()))
            if i % 100 == 0:
                cache.flush()
        cache.flush()
        return await cache.get("k0"), await cache.get("k1499")

    old, new = asyncio.run(main())
    assert old is None
    assert new is not None


WORKER = """
import asyncio, sys
from pathlib import Path
import dspynb as dn
from dspynb.lm.cache import ReplyCache

async def main(path, worker, count):
    cache = ReplyCache(Path(path))
    wrong = 0
    for i in range(count):
        key = f"shared-{i % 500}" if i % 2 else f"own-{worker}-{i}"
        got = await cache.get(key)
        wrong += got is not None and got.text != f"text of {key}"
        cache.put(key, dn.LMReply(f"text of {key}"))
        if i % 50 == 0:
            print(i, flush=True)
    cache.flush()
    print("wrong", wrong, "trouble", cache._warned, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def _workers(path, count, how_many=4):
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(i), str(count)], stdout=subprocess.PIPE, text=True
        )
        for i in range(how_many)
    ]


def _texts(path):
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return dict(connection.execute("select key, body from replies"))
    finally:
        connection.close()


def test_a_reply_is_found_before_it_is_in_the_file(tmp_path):
    async def main():
        cache = ReplyCache(tmp_path / "c.sqlite")
        cache.put("k", dn.LMReply("fresh", usage=Usage(calls=1, usd=0.5)))
        return await cache.get("k")

    stored = asyncio.run(main())
    assert (stored.text, stored.cached, stored.usage.usd) == ("fresh", True, 0.0)


def test_a_reply_put_at_the_end_of_a_loop_reaches_the_file_without_a_flush(tmp_path):
    cache = ReplyCache(tmp_path / "c.sqlite")

    async def main():
        cache.put("k", dn.LMReply("last"))

    asyncio.run(main())
    deadline, stored = time.monotonic() + 20, {}
    while not stored and time.monotonic() < deadline:
        time.sleep(0.02)
        with contextlib.suppress(sqlite3.OperationalError):  # the file is being created
            stored = _texts(cache.path)
    assert list(stored) == ["k"]


def test_entries_of_another_process_are_served(tmp_path):
    async def main():
        mine = ReplyCache(tmp_path / "c.sqlite")
        assert await mine.get("k") is None  # the file is open
        script = f"""
import dspynb as dn
from pathlib import Path
from dspynb.lm.cache import ReplyCache
cache = ReplyCache(Path({str(mine.path)!r}))
cache.put("k", dn.LMReply("theirs"))
cache.flush()
"""
        subprocess.run([sys.executable, "-c", script], check=True)  # noqa: ASYNC221  # nothing else runs in the loop
        return await mine.get("k")

    assert asyncio.run(main()).text == "theirs"


def test_after_a_slow_look_up_the_thread_looks_up(tmp_path, monkeypatch):
    monkeypatch.setattr("dspynb.lm.cache._SLOW_LOOK_UP", -1.0)  # any look-up is too slow

    async def main():
        cache = ReplyCache(tmp_path / "c.sqlite")
        cache.put("k", dn.LMReply("x"))
        cache.flush()
        first = asyncio.ensure_future(cache.get("k"))
        await asyncio.sleep(0)
        at_once = first.done()
        second = asyncio.ensure_future(cache.get("k"))
        await asyncio.sleep(0)
        return at_once, second.done(), (await first).text, (await second).text

    assert asyncio.run(main()) == (True, False, "x", "x")


def test_simultaneous_look_ups_of_threads_all_succeed(tmp_path):
    cache = ReplyCache(tmp_path / "c.sqlite")
    for i in range(50):
        cache.put(f"k{i}", dn.LMReply(f"text {i}"))
    cache.flush()

    async def all_of_them():
        return [(await cache.get(f"k{i}")).text for i in range(50)]

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: asyncio.run(all_of_them()), range(16)))
    assert stored == [[f"text {i}" for i in range(50)]] * 16


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_processes_share_one_file_without_a_lock_error_or_a_lost_entry(tmp_path):
    path = tmp_path / "c.sqlite"
    outs = [worker.communicate(timeout=300)[0] for worker in _workers(path, 2000)]
    assert all(out.endswith("wrong 0 trouble False\n") for out in outs)
    texts = _texts(path)
    assert len(texts) == 4 * 1000 + 250
    assert all(f'"text of {key}"' in body for key, body in texts.items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_killed_while_writing_leaves_the_file_readable(tmp_path):
    path = tmp_path / "c.sqlite"
    workers = _workers(path, 100_000, 2)
    for worker in workers:
        while worker.stdout.readline().strip() != "20000":
            pass
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    texts = _texts(path)
    assert len(texts) > 50
    assert all(f'"text of {key}"' in body for key, body in texts.items())


@pytest.mark.parametrize("halt", ["stop", "budget"])
def test_halting_the_first_call_does_not_halt_the_others(cached, halt):
    async def main():
        first_asked, both_wait = asyncio.Event(), asyncio.Event()

        async def answer(body, n):
            loop.call_soon_threadsafe(first_asked.set)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(both_wait.wait(), loop))
            return error(500) if n == 1 else chat(answer="it came")

        loop = asyncio.get_running_loop()
        with Server(answer) as server:
            predict = dn.Predict("question -> answer", lm=model(server))
            with dn.Budget(calls=1 if halt == "budget" else 9):
                first = predict.start(question="same")
            await first_asked.wait()
            second = predict.start(question="same")
            while predict.lm._single_flight._loops[loop].copy().popitem()[1].waiters[1:] == []:  # noqa: ASYNC110  # no event reports a second waiter
                await asyncio.sleep(0)
            if halt == "stop":
                first.stop()
            both_wait.set()
            with pytest.raises(Halted):
                await first
            return await second

    assert asyncio.run(main()).answer == "it came"
