"""A call of dspynb whose await was forgotten, and the ways in which such a call can be awaited."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import dspynb as dn
from tests.helpers import chat


@pytest.fixture
def ask():
    return dn.Predict("question -> answer", lm=dn.FunctionLM(lambda request: chat(answer="4")))


async def in_a_group(call):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


async def gathered(call):
    (result,) = await asyncio.gather(call)
    return result


async def in_time(call):
    return await asyncio.wait_for(call, 60)


async def awaited(call):
    return await call


@pytest.mark.parametrize("wait", [awaited, in_time, gathered, in_a_group])
def test_a_call_is_awaited_in_every_way_in_which_a_coroutine_is(ask, wait):
    assert asyncio.run(wait(ask(question="2+2?"))).answer == "4"


def test_asyncio_run_takes_a_call(ask):
    assert asyncio.run(ask(question="2+2?")).answer == "4"


def test_a_call_that_is_awaited_twice_is_an_error_of_python(ask):
    call = ask(question="2+2?")
    asyncio.run(call)
    with pytest.raises(RuntimeError, match="already awaited"):
        asyncio.run(call)


def test_a_call_is_cancelled_as_a_coroutine_is():
    async def wait(request):
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(dn.Predict("question -> answer", lm=dn.FunctionLM(wait))(question="2+2?"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_the_repr_names_the_program_and_the_line(ask):
    call = ask(question="2+2?")
    line = inspect.currentframe().f_lineno - 1
    text = repr(call)
    call.close()
    assert "Predict" in text
    assert f"line {line} of {__file__}" in text


def test_a_call_under_way_is_shown_as_a_coroutine(ask):
    async def main():
        call = ask(question="2+2?")
        await asyncio.create_task(call)
        return repr(call)

    assert "await" not in asyncio.run(main())


def test_a_missing_attribute_is_no_key_of_the_call(ask):
    call = ask(question="2+2?")
    assert not hasattr(call, "answer")
    assert not hasattr(call, "_repr_html_")
    assert inspect.isawaitable(call)
    assert asyncio.iscoroutine(call)
    call.close()


@pytest.mark.parametrize("method", [dn.Predict.__call__, dn.Predict.batch, dn.evaluate, dn.GEPA.compile, dn.replay])
def test_asyncio_knows_that_the_function_is_async(method):
    assert asyncio.iscoroutinefunction(method)


def test_a_call_that_is_never_awaited_gives_the_warning_of_python(ask):
    with pytest.warns(RuntimeWarning, match="never awaited"):
        ask(question="2+2?")
