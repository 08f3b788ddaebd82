"""The boundary table, a row a test: what is seen of hint, candidate, settings and trace, and how to carry it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import pytest

import dspynb as dn
from dspynb.errors import ScopeError
from dspynb.scope import setting
from tests.helpers import Caption, echo_hint, prompt
from tests.scope import processes


class Seen(dn.Module):
    """A predictor whose model answers with its hint and its instruction's first word."""

    def __init__(self):
        def answer(request):
            text = prompt(request).split("Your objective is:\n")[1]
            hint = text.split("Hint: ")[1].split("\n")[0] if "Hint: " in text else "no hint"
            return f"[[ ## sentence ## ]]\n{hint} / {text.split()[0]}\n[[ ## completed ## ]]"

        self.predict = dn.Predict(Caption, lm=dn.FunctionLM(answer))

    async def forward(self, subject="x"):
        return await self.predict(subject=subject)


ALL = ("h / NEW", 7, 1)
NONE = ("no hint / Write", 32, 0)


async def hint_inside(program, traced):
    """(hint / instruction in the prompt, a setting, calls that reached the trace)."""
    before = len(traced)
    sentence = (await program()).sentence
    return sentence, setting("concurrency"), len(traced) - before


@contextlib.contextmanager
def everything(program):
    """A block with a hint, a candidate, a setting and a trace."""
    with dn.hints("h"), dn.candidate({"predict": "NEW instruction"}, of=program), dn.context(concurrency=7):
        with dn.trace() as traced:
            yield traced


def inside(reach):
    """What is seen when the code is reached by ``reach(call)`` inside the block."""
    program = Seen()

    async def main():
        with everything(program) as traced:
            return await reach(lambda: hint_inside(program, traced))

    return asyncio.run(main())


def in_thread(call):
    return asyncio.run(call())


def test_await_sees_all():
    assert inside(lambda call: call()) == ALL


def test_create_task_sees_all():
    assert inside(lambda call: asyncio.create_task(call())) == ALL


def test_gather_sees_all():
    async def reach(call):
        return (await asyncio.gather(call()))[0]

    assert inside(reach) == ALL


def test_task_group_sees_all():
    async def reach(call):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call())
        return task.result()

    assert inside(reach) == ALL


def test_wait_for_sees_all():
    assert inside(lambda call: asyncio.wait_for(call(), 5)) == ALL


def test_timeout_sees_all():
    async def reach(call):
        async with asyncio.timeout(5):
            return await call()

    assert inside(reach) == ALL


def test_to_thread_sees_all():
    assert inside(lambda call: asyncio.to_thread(in_thread, call)) == ALL


@pytest.mark.parametrize("how", ["call_soon", "call_later"])
def test_loop_callbacks_see_all(how):
    async def reach(call):
        loop, result = asyncio.get_running_loop(), asyncio.Future()
        start = lambda: asyncio.ensure_future(call()).add_done_callback(lambda t: result.set_result(t.result()))  # noqa: E731
        loop.call_soon(start) if how == "call_soon" else loop.call_later(0.001, start)
        return await result

    assert inside(reach) == ALL


def test_a_generator_runs_in_the_scope_of_whoever_asks_it_for_the_next_value():
    predict = dn.Predict(Caption, lm=echo_hint())

    def sync():
        for _ in range(2):
            yield dn.current_hint(predict)

    async def async_():
        for _ in range(2):
            yield dn.current_hint(predict)

    async def main():
        with dn.hints("h"):
            made_inside, made_async = sync(), async_()
            first = next(made_inside), await anext(made_async)
            loop = [hint async for hint in async_()]
        return first, loop, next(made_inside), await anext(made_async)

    assert asyncio.run(main()) == (("h", "h"), ["h", "h"], None, None)


def test_a_with_block_around_a_yield_reaches_the_consumer_and_ends_with_the_generator():
    # Python's own rule: a generator shares its consumer's context. The lease makes the end certain.
    async def leaky():
        with dn.hints("h"):
            yield dn.current_hint()

    async def main():
        async for inside_loop in leaky():
            assert (inside_loop, dn.current_hint()) == ("h", "h")
            break
        gc.collect()
        await asyncio.sleep(0.01)
        assert dn.current_hint() is None

    asyncio.run(main())


def test_a_plain_thread_sees_only_process_settings_and_carry_restores_all():
    def reach(wrap):
        async def go(call):
            results = []
            thread = threading.Thread(target=wrap(lambda: results.append(in_thread(call))))
            thread.start()
            await asyncio.to_thread(thread.join)
            return results[0]

        return go

    assert inside(reach(lambda fn: fn)) == NONE
    assert inside(reach(dn.carry)) == ALL


def test_executor_submit_sees_only_process_settings_and_carry_restores_all():
    def reach(wrap):
        async def go(call):
            with ThreadPoolExecutor(1) as pool:
                return await asyncio.wrap_future(pool.submit(wrap(in_thread), call))

        return go

    assert inside(reach(lambda fn: fn)) == NONE
    assert inside(reach(dn.carry)) == ALL


def test_run_in_executor_sees_only_process_settings_and_carry_restores_all():
    def reach(wrap):
        return lambda call: asyncio.get_running_loop().run_in_executor(None, wrap(in_thread), call)

    assert inside(reach(lambda fn: fn)) == NONE
    assert inside(reach(dn.carry)) == ALL


def test_run_sync_from_inside_a_running_loop_sees_all():
    async def reach(call):
        return dn.run_sync(call)

    assert inside(reach) == ALL


def test_run_sync_on_its_own_loop_raises_instead_of_hanging():
    async def nested():
        return dn.run_sync(lambda: asyncio.sleep(0))

    with pytest.raises(ScopeError, match="await"):
        dn.run_sync(nested)


def test_an_event_loop_in_another_thread_sees_all_through_arun():
    program = Seen()

    async def main():
        with everything(program) as traced:
            scope = dn.current_scope()
            with ThreadPoolExecutor(1) as pool:
                plain = await asyncio.wrap_future(pool.submit(asyncio.run, hint_inside(program, traced)))
                by_hand = await asyncio.wrap_future(pool.submit(asyncio.run, scope.arun(hint_inside, program, traced)))
        return plain, by_hand

    assert asyncio.run(main()) == (NONE, ALL)


def test_scope_run_passes_the_scope_by_hand():
    predict = dn.Predict(Caption, lm=echo_hint())
    with dn.hints("h"):
        scope = dn.current_scope()
    with dn.hints("h2"):
        still_open = dn.current_scope()
        assert dn.current_scope().run(dn.current_hint, predict) == "h2"
    assert scope.run(dn.current_hint, predict) is None
    assert still_open.run(dn.current_hint, predict) is None


def test_a_callback_without_a_context_sees_only_process_settings():
    # Widget callbacks may come on another thread, or in the kernel's own context.
    async def reach(call):
        result = asyncio.Future()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(
                lambda: asyncio.ensure_future(call()).add_done_callback(lambda t: result.set_result(t.result()))
            )
        )
        thread.start()
        return await result

    assert inside(reach) == NONE


def test_a_block_may_be_entered_in_one_task_and_left_in_another():
    # What a context manager held across notebook cells does: each cell is a task of its own.
    block = dn.hints("h")

    async def main():
        await asyncio.create_task(_enter(block))
        assert dn.current_hint() is None
        await asyncio.create_task(_leave(block))
        assert dn.current_hint() is None

    asyncio.run(main())


async def _enter(block):
    block.__enter__()
    assert dn.current_hint() == "h"


async def _leave(block):
    block.__exit__(None, None, None)


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


def test_another_process_sees_nothing_and_a_snapshot_carries_hint_settings_and_attempt(pool):
    predict = processes.PREDICT
    predict = dn.Predict(Caption)
    seen_there = {}

    async def reward(row, prediction):
        return 1.0

    class Program(dn.Module):
        def __init__(self):
            self.predict = predict

        async def forward(self, subject):
            shot = pickle.loads(pickle.dumps(dn.snapshot()))
            seen_there["plain"] = pool.submit(processes.look, predict).result(60)
            seen_there["carried"] = pool.submit(processes.look_under, shot, predict).result(60)
            seen_there["prompt"] = pool.submit(processes.ask_under, shot, predict).result(60)
            seen_there["shot"] = shot
            return {"sentence": "x"}

    with dn.hints("h"), dn.context(concurrency=7):
        dn.Refine(Program(), reward, n=1).run_sync(subject="x")
    assert seen_there["plain"] == (None, None, 32)
    assert seen_there["carried"] == ("h", replace(seen_there["carried"][1], number=1, wave=1), 7)
    assert seen_there["prompt"] == "h"
    refused = pool.submit(processes.look_under, seen_there["shot"], predict).result(60)
    assert "has ended" in refused


def test_multiprocessing_spawn_takes_a_snapshot_too():
    predict = dn.Predict(Caption)
    with dn.hints({predict: "mine"}), multiprocessing.get_context("spawn").Pool(1) as workers:
        assert workers.apply(processes.look_under, (dn.snapshot(), predict))[0] == "mine"
        assert workers.apply(processes.look, (predict,))[0] is None


def test_a_snapshot_of_another_version_or_of_an_ended_block_is_refused():
    with dn.hints("h"):
        shot = dn.snapshot()
        with pytest.raises(ScopeError, match="version 99"), replace(shot, version=99).enter():
            pass
    with pytest.raises(ScopeError, match="has ended"), shot.enter():
        pass


def test_a_snapshot_contains_no_key():
    with dn.context(lm=dn.LM("openai/x", api_key="sk-very-secret-key")):
        data = pickle.dumps(dn.snapshot())
    assert b"sk-very-secret-key" not in data
    assert pickle.loads(data).settings["lm"].name == "openai/x"


def test_a_setting_that_cannot_be_pickled_is_named_in_the_error():
    with dn.context(lm=dn.FunctionLM(lambda r: "")), pytest.raises(ScopeError, match=r"setting lm \(FunctionLM\)"):
        dn.snapshot()


def test_entering_a_snapshot_hides_the_scope_it_is_entered_in():
    predict = dn.Predict(Caption)
    with dn.hints("theirs"):
        shot = dn.snapshot()
        with dn.hints("here"), shot.enter():
            assert dn.current_hint(predict) == "theirs"


def test_a_snapshot_leaves_out_every_setting_that_may_be_secret_and_takes_runs_dir():
    lm = dn.LM(
        "bedrock/x", **{"aws_secret_access_key": "S-E-C-R-E-T"}, extra_headers={"Authorization": "Bearer T-O-K-E-N"}
    )
    with dn.context(lm=lm, runs_dir=None):
        data = pickle.dumps(dn.snapshot())
    assert b"S-E-C-R-E-T" not in data
    assert b"T-O-K-E-N" not in data
    with pickle.loads(data).enter():
        assert setting("runs_dir") is None


def test_a_snapshot_from_another_machine_is_not_refused_for_what_cannot_be_known_here():
    predict = dn.Predict(Caption)
    with dn.hints("h"):
        shot = replace(dn.snapshot(), host="elsewhere", marker="/nowhere/at/all")
    with shot.enter():
        assert dn.current_hint(predict) == "h"
