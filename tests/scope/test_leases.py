"""Leases: what outlives its attempt is told so, reads nothing of it, and is charged to who is still there."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import dspynb as dn
from dspynb.errors import RunStopped
from tests.helpers import Caption, echo_hint


class Spawns(dn.Module):
    """Leaves a task behind in every attempt."""

    def __init__(self, lm):
        self.predict = dn.Predict(Caption, lm=lm)
        self.orphans = []
        self.go = asyncio.Event()

    async def forward(self, subject):
        self.orphans.append(asyncio.create_task(self.later()))
        return {"sentence": "s"}

    async def later(self):
        await self.go.wait()
        return (await self.predict(subject="late")).sentence


def test_an_orphan_of_an_attempt_warns_once_with_the_attempt_and_who_it_is():
    async def main():
        program = Spawns(echo_hint())
        refine = dn.Refine(program, lambda r, p: dn.Score(0.0, "the hint"), n=2)
        await refine(subject="x")
        program.go.set()
        with pytest.warns(dn.ScopeClosedWarning) as warned:
            seen = await asyncio.gather(*program.orphans)
        return seen, [str(w.message) for w in warned]

    seen, messages = asyncio.run(main())
    assert seen == ["none", "none"]
    about = [m for m in messages if " outlived attempt 2 " in m]
    assert len(about) == 1
    assert "Spawns.later" in about[0]
    assert "test_leases.py" in about[0]


def test_an_orphan_of_a_metric_is_told_the_line_that_awaits_the_evaluation():
    async def main():
        judge, orphans, go = dn.Predict(Caption, lm=echo_hint()), [], asyncio.Event()

        async def later():
            await go.wait()
            await judge(subject="late")

        async def metric(row, prediction):
            orphans.append(asyncio.create_task(later()))
            return 1.0

        await dn.evaluate(judge, [{"subject": "x"}], metric)
        go.set()
        with pytest.warns(dn.ScopeClosedWarning) as warned:
            await asyncio.gather(*orphans)
        return [str(w.message) for w in warned]

    (message,) = asyncio.run(main())
    line = main.__code__.co_firstlineno + 11
    assert f" (opened at {__file__}:{line}) " in message


@pytest.mark.filterwarnings("ignore::dspynb.ScopeClosedWarning")
def test_an_orphan_is_charged_to_the_nearest_open_ancestor():
    async def main():
        program = Spawns(echo_hint())

        async def reward(row, prediction):
            program.go.set()  # attempt 1 has ended by the time that attempt 2 is scored
            if len(program.orphans) == 2:
                await program.orphans[0]
            return 0.0

        await dn.Refine(program, reward, n=2, hints=lambda a, p, i: "h")(subject="x")
        await asyncio.gather(*program.orphans)
        return dn.last_run()

    run = asyncio.run(main())
    record = run.record
    late = record.calls[0]
    search = record.searches()[0]
    assert (late.hint, late.parent) == (None, search)
    assert record.children(search)[0].calls == []


@pytest.mark.filterwarnings("ignore::dspynb.ScopeClosedWarning")
def test_after_stop_the_calls_of_orphans_raise():
    async def main():
        program = Spawns(echo_hint())

        async def reward(row, prediction):
            await asyncio.sleep(10)

        run = dn.Refine(program, reward, n=2).start(subject="x")
        await asyncio.sleep(0.05)
        run.stop()
        with pytest.raises(RunStopped):
            await run
        program.go.set()
        with pytest.raises(RunStopped, match="no further calls"):
            await program.orphans[0]

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::dspynb.ScopeClosedWarning")
def test_an_orphaned_thread_and_callback_read_nothing_either():
    predict = dn.Predict(Caption, lm=echo_hint())
    go, seen = threading.Event(), []

    def late():
        go.wait(5)
        seen.append((dn.current_hint(predict), dn.current_attempt()))

    with dn.hints("h"):
        thread = threading.Thread(target=dn.carry(late))
        thread.start()
        callback = dn.carry(late)
    go.set()
    thread.join()
    callback()
    assert seen == [(None, None)] * 2


def test_a_candidate_and_a_trace_end_with_their_blocks():
    predict = dn.Predict(Caption, lm=echo_hint())

    async def main():
        go = asyncio.Event()

        async def late():
            await go.wait()
            return await predict(subject="x")

        with dn.candidate({"self": "NEW"}, of=predict), dn.trace() as traced:
            orphan = asyncio.create_task(late())
        go.set()
        with pytest.warns(dn.ScopeClosedWarning):
            prediction = await orphan
        return len(traced), prediction.calls[0].messages[0]["content"]

    count, system = asyncio.run(main())
    assert count == 0
    assert "NEW" not in system


def test_current_attempt_tells_number_and_wave():
    seen = []

    class Program(dn.Module):
        async def forward(self, subject):
            attempt = dn.current_attempt()
            seen.append((attempt.number, attempt.wave))
            return {"sentence": "s"}

    assert dn.current_attempt() is None
    asyncio.run(dn.BestOfN(Program(), lambda r, p: 0.0, n=3, width=2)(subject="x"))
    assert seen == [(1, 1), (2, 1), (3, 2)]


def test_a_module_that_calls_itself_keeps_each_levels_hint_to_itself():
    predict = dn.Predict(Caption, lm=echo_hint())

    class Again(dn.Module):
        def __init__(self):
            self.predict = predict

        async def forward(self, depth):
            if depth == 0:
                return {"sentence": (await self.predict(subject="x")).sentence}
            with dn.hints(f"level {depth}"):
                inner = await self(depth=depth - 1)
            after = await self.predict(subject="x")
            return {"sentence": f"{inner.sentence}|{after.sentence}"}

    assert Again().run_sync(depth=2).sentence == "level 2\nlevel 1|level 2|none"


def test_one_predictor_at_two_places_of_a_program_gets_its_hint_at_both():
    predict = dn.Predict(Caption, lm=echo_hint())

    class Twice(dn.Module):
        def __init__(self):
            self.first = self.second = predict

        async def forward(self, subject):
            return {"a": (await self.first(subject="x")).sentence, "b": (await self.second(subject="x")).sentence}

    program = Twice()
    assert [path for path, _ in program.named_predictors()] == ["first"]
    with dn.hints({"first": "h"}, of=program):
        assert program.run_sync(subject="x").to_dict() == {"a": "h", "b": "h"}


def test_a_thread_local_leaks_between_concurrent_attempts_and_a_context_variable_does_not():
    """Why the scope is a ContextVar: attempts on one event loop share their thread."""
    local, variable = threading.local(), contextvars.ContextVar("hint")

    async def attempt(hint):
        local.hint = hint
        variable.set(hint)
        await asyncio.sleep(0.001)
        return local.hint == hint, variable.get() == hint

    async def main():
        return await asyncio.gather(*(attempt(f"hint {i}") for i in range(5)))

    kept_local, kept_variable = zip(*asyncio.run(main()), strict=True)
    assert not all(kept_local)
    assert all(kept_variable)


MANY = """
import asyncio, random, sys
import dspynb as dn
from tests.helpers import Caption, chat, field, prompt

dn.configure(runs_dir=None, view="off")

async def answer(request):
    await asyncio.sleep(random.uniform(0.001, 0.05))
    subject = field(request, "subject")
    hints = [line for line in prompt(request).splitlines() if line.startswith("Hint: ")]
    assert hints == ([] if request.rollout == 0 else [f"Hint: for {subject}"]), (subject, hints)
    return chat(sentence=subject)

async def main(n):
    reward = lambda row, p: dn.Score(0.0, feedback=f"for {row.subject}")
    refine = dn.Refine(dn.Predict(Caption, lm=dn.FunctionLM(answer)), reward, n=3)
    results = await asyncio.gather(*(refine(subject=f"s{i}") for i in range(n)))
    assert [p.sentence for p in results] == [f"s{i}" for i in range(n)]

asyncio.run(main(int(sys.argv[1])))
print(next(int(l.split()[1]) / 1024 for l in open('/proc/self/status') if l.startswith('VmHWM')))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_ten_thousand_concurrent_refines_keep_their_hints_apart_in_linear_memory():
    def peak(n):
        process = subprocess.run([sys.executable, "-c", MANY, str(n)], capture_output=True, text=True, check=True)
        return float(process.stdout)

    floor, half, whole = peak(1), peak(5000), peak(10000)
    assert whole < 300
    assert (whole - half) < 1.35 * (half - floor)
